//! prepull as a plugin of kubectl: what differs on the command line.

use clap::CommandFactory as _;

use super::Cli;

/// The name under which kubectl finds prepull as a plugin, `kubectl prepull`.
pub const PLUGIN: &str = "kubectl-prepull";
/// The name under which kubectl asks for completions of `kubectl prepull` (from kubectl 1.26 on).
pub const COMPLETER: &str = "kubectl_complete-prepull";
/// Recorded before the arguments of a run of the plugin, so that they are read again as they were meant.
pub const AS_PLUGIN: &str = "--as-kubectl-plugin";

/// The definitions as a plugin of kubectl has them: `-n` is the namespace everywhere, and nodes come from the cluster.
pub fn plugin() -> clap::Command {
    let short_of = |command: clap::Command, id: &'static str, short: Option<char>| {
        let has_it = command.get_arguments().any(|arg| arg.get_id() == id);
        match has_it {
            true => command.mut_arg(id, |arg| arg.short(short)),
            false => command,
        }
    };
    Cli::command()
        .bin_name("kubectl prepull")
        .mut_subcommands(|command| {
            let command = short_of(command, "dry_run", None);
            let command = short_of(command, "namespace", Some('n'));
            match command.get_name() {
                "keep" => command.mut_subcommands(|command| short_of(command, "dry_run", None)),
                _ => command,
            }
        })
}

/// The arguments of the plugin with `--kube` where a command takes nodes and none are named in another way.
pub fn plugin_arguments(mut arguments: Vec<std::ffi::OsString>) -> Vec<std::ffi::OsString> {
    let takes_nodes = |word: &std::ffi::OsString| {
        ["pull", "check", "nodes", "exec", "keep"]
            .iter()
            .any(|command| word == command)
    };
    let end = arguments
        .iter()
        .position(|word| word == "--")
        .unwrap_or(arguments.len());
    let names_nodes = arguments[..end].iter().any(|word| {
        let word = word.to_string_lossy();
        let options = [
            "--kube",
            "-i",
            "--inventory",
            "-H",
            "--hosts",
            "--help",
            "-h",
            "--resume",
        ];
        options.iter().any(|option| {
            word == *option
                || word.strip_prefix(option).is_some_and(|rest| {
                    rest.starts_with('=') || (option.len() == 2 && !option.starts_with("--"))
                })
        })
    });
    if let Some(command) = arguments[..end].iter().position(takes_nodes)
        && !names_nodes
    {
        // `keep` has commands of its own.
        let words = if arguments[command] == "keep" { 2 } else { 1 };
        arguments.insert((command + words).min(end), "--kube".into());
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::super::Command;
    use super::*;

    #[test]
    fn commands_of_keep_take_their_nodes_from_the_cluster() {
        let words = ["kubectl-prepull", "keep", "release", "app:v1"];
        let words = plugin_arguments(words.map(std::ffi::OsString::from).to_vec());
        assert_eq!(words[1..], ["keep", "release", "--kube", "app:v1"]);
        assert!(plugin().try_get_matches_from(words).is_ok());
        let words = ["kubectl-prepull", "keep"].map(std::ffi::OsString::from);
        assert_eq!(plugin_arguments(words.to_vec())[2..], ["--kube"]);
    }

    #[test]
    fn the_plugin_takes_what_kubectl_takes() {
        let read = |words: &[&str]| {
            let words = words.iter().map(std::ffi::OsString::from).collect();
            let matches = plugin()
                .try_get_matches_from(plugin_arguments(words))
                .unwrap();
            match <Cli as clap::FromArgMatches>::from_arg_matches(&matches)
                .unwrap()
                .command
            {
                Command::Pull(args) => args,
                other => panic!("{other:?}"),
            }
        };
        let pull = read(&[
            "kubectl-prepull",
            "pull",
            "--context",
            "prod",
            "-n",
            "warm",
            "-l",
            "a=b",
            "app:v1",
        ]);
        assert!(pull.reach.fleet.kube && !pull.course.dry_run);
        assert_eq!(pull.place.namespace, "warm");
        assert_eq!(pull.reach.fleet.context.as_deref(), Some("prod"));
        assert_eq!(pull.reach.fleet.selector.as_deref(), Some("a=b"));
        let pull = read(&[
            "kubectl-prepull",
            "pull",
            "-inodes.yml",
            "--dry-run",
            "app:v1",
        ]);
        assert!(!pull.reach.fleet.kube && pull.course.dry_run);
    }
}
