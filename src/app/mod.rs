//! The composition root: wires the rooms for each subcommand.

mod complete;
mod contents;
mod daemonset;
mod exit;
mod fd_limit;
mod harden;
mod hosts;
mod journal_sink;
mod logins;
mod man;
mod man_text;
mod on_finish;
mod panics;
mod run;
mod runs;
mod ssh_config;
mod stop;
mod through_ssh;

use std::ffi::OsString;
use std::sync::Arc;

use anyhow::Result;
use clap::{CommandFactory as _, FromArgMatches as _};
use serde_json::json;

pub use complete::script;
pub use exit::Exit;
pub use man::pages;
use ssh_config::SshConfigFiles;

use crate::cli::{
    self, Cli, Command, DaemonSetCommand, ExecArgs, HostsCommand, ImagesArgs, ImagesFormat,
    KeepCommand, NodesArgs, NodesFormat, PullArgs, SshArgs,
};
use crate::inventory::{NamedImage, SshConfigSource, SshQuery};
use crate::model::Fleet;
use crate::model::text::escape_line;
use crate::report;
use crate::runtime;
use crate::settings::{self, Defaults, Environment};

/// The whole program: from its arguments to its exit status.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    harden::harden();
    panics::tell_plainly();
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    if let Some(exit) = complete::answer(&arguments) {
        return exit;
    }
    if is_named(&arguments, cli::COMPLETER) {
        return complete::for_kubectl(&arguments);
    }
    let is_plugin = is_named(&arguments, cli::PLUGIN);
    if is_plugin {
        arguments = cli::plugin_arguments(arguments);
    }
    let ambient = Environment::of_this_process();
    let defaults = match defaults(&ambient) {
        Ok(defaults) => defaults,
        Err(error) => {
            report::print_stderr(&report::error_text(&error));
            return Exit::Usage;
        }
    };
    let definitions = match is_plugin {
        true => cli::plugin(),
        false => Cli::command(),
    };
    let matches = defaults.apply(definitions).try_get_matches_from(&arguments);
    let parsed = matches.and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, matches)));
    let (cli, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            // clap's own words, help and version included; a closed pipe is not a reason to complain.
            if error.use_stderr() {
                report::print_stderr("prepull: ");
            }
            let _ = error.print();
            return if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Success
            };
        }
    };
    warn(defaults.warnings());
    if matches!(cli.command, Command::Config) {
        let shown = report::print_stdout(&defaults.table());
        return shown.map_or(Exit::Incomplete, |()| Exit::Success);
    }
    let stated = defaults.as_arguments(&matches);
    perform(cli, arguments, stated, &ambient).unwrap_or_else(|error| {
        report::print_stderr(&report::error_text(&error));
        Exit::Usage
    })
}

/// Whether it was started under this name, as by kubectl for `kubectl prepull`.
fn is_named(arguments: &[OsString], wanted: &str) -> bool {
    let program = arguments.first().map(std::path::Path::new);
    program
        .and_then(|path| path.file_name())
        .is_some_and(|name| name == wanted)
}

/// The defaults that variables and files set for options.
fn defaults(ambient: &Environment) -> Result<Defaults> {
    let mut command = Cli::command();
    command.build();
    // Without a current directory, no project file is found.
    let directory = std::env::current_dir().unwrap_or_default();
    Defaults::find(&command, ambient, &directory)
}

/// Does what was asked. An error means that nothing was touched. `stated` are the options that defaults add: they are
/// recorded, so that a run goes on as it began.
fn perform(
    mut cli: Cli,
    arguments: Vec<OsString>,
    stated: Vec<String>,
    ambient: &Environment,
) -> Result<Exit> {
    let mut recorded: Vec<OsString> = arguments.iter().skip(1).cloned().collect();
    if is_named(&arguments, cli::PLUGIN) {
        recorded.insert(0, cli::AS_PLUGIN.into());
    }
    let end = recorded.iter().position(|word| word == "--");
    let end = end.unwrap_or(recorded.len());
    recorded.splice(end..end, stated.into_iter().map(OsString::from));
    let mut resumed = None;
    if let Command::Pull(PullArgs {
        resume: Some(wanted),
        ..
    }) = &cli.command
    {
        let run = runs::resume(wanted, &arguments, ambient)?;
        (cli, recorded) = (run.cli, run.arguments);
        resumed = Some(run.run);
    }
    if let Command::Keep(command) = cli.command {
        cli.command = Command::Exec(kept(command)?);
    }
    let (ssh, mut settings) = match &cli.command {
        Command::Pull(args) => with_ssh_config(&args.reach.ssh, |behind| {
            settings::pull(args, ambient, behind)
        }),
        Command::Check(args) => with_ssh_config(&args.reach.ssh, |behind| {
            settings::check(args, ambient, behind)
        }),
        Command::Exec(args) => with_ssh_config(&args.reach.ssh, |behind| {
            settings::exec(args, ambient, behind)
        }),
        Command::Nodes(args) if args.probe => with_ssh_config(&args.reach.ssh, |behind| {
            settings::probe(args, ambient, behind)
        }),
        Command::Nodes(args) => return nodes(args, ambient),
        Command::Hosts(HostsCommand::Scan(args)) => return hosts::scan(args, ambient),
        Command::DaemonSet(command) => {
            return match command {
                DaemonSetCommand::Render(args) => daemonset::render(args, ambient),
                DaemonSetCommand::Apply(args) => daemonset::apply(args, ambient),
                DaemonSetCommand::Remove(args) => daemonset::remove(args, ambient),
                DaemonSetCommand::Status(args) => {
                    let settings = daemonset::status(args, ambient)?;
                    run::run(&settings, Vec::new(), ambient, recorded)
                }
            };
        }
        Command::Images(args) => return images(args, ambient),
        Command::Runs(command) => return runs::perform(command, ambient),
        // The first was made an exec above, the second answered before anything is looked at.
        Command::Keep(_) | Command::Config => return Ok(Exit::Success),
        Command::Completions { shell } => return complete::registration(*shell),
        Command::Man { command } => return man::print(command),
    }?;
    warn(settings.plan.fleet.warnings());
    let is_by_ssh = (settings.daemonset.as_ref()).is_none_or(|set| set.falls_back_to_ssh());
    if is_by_ssh {
        warn(&ssh.warnings());
        warn(&without_address(&settings.plan.fleet));
    }
    warn(&settings.warnings);
    // Locked until the end of this run.
    if let Some(resumed) = &resumed {
        let plan = Arc::make_mut(&mut settings.plan);
        warn(&resumed.only_what_is_open(plan)?);
    }
    let hosts = ssh.host_settings(&run::overrides(&settings.ssh));
    warn(fd_limit::clamp_parallelism(Arc::make_mut(&mut settings.plan), &hosts)?.as_slice());
    run::run(&settings, hosts, ambient, recorded)
}

/// `prepull keep`: a program that runs on every node.
fn kept(command: KeepCommand) -> Result<ExecArgs> {
    let (mode, args) = match command {
        KeepCommand::List(args) => ("list", args),
        KeepCommand::Release(args) => ("release", args),
    };
    let images = args.images.iter().map(|text| text.parse());
    Ok(ExecArgs {
        command: runtime::kept(mode, &images.collect::<Result<Vec<_>, _>>()?),
        reach: args.reach,
        course: args.course,
    })
}

/// Resolves something with the operator's ssh_config behind it, and keeps that for the connections.
fn with_ssh_config<T>(
    args: &SshArgs,
    resolve: impl FnOnce(SshConfigSource<'_>) -> Result<T>,
) -> Result<(SshConfigFiles, T)> {
    let ssh = SshConfigFiles::read(args.login.ssh_config.as_deref())?;
    let resolved = resolve(&|asked: &SshQuery<'_>| ssh.ask(asked))?;
    Ok((ssh, resolved))
}

/// `prepull nodes`, without a probe.
fn nodes(args: &NodesArgs, ambient: &Environment) -> Result<Exit> {
    let (ssh, fleet) = with_ssh_config(&args.reach.ssh, |behind| {
        settings::nodes(args, ambient, behind)
    })?;
    warn(fleet.warnings());
    warn(&ssh.warnings());
    warn(&without_address(&fleet));
    if args.output == NodesFormat::Yaml {
        warn(proxied(&fleet).as_slice());
    }
    let text = match args.output {
        NodesFormat::Human => report::fleet_table(&fleet, false),
        NodesFormat::Wide => report::fleet_table(&fleet, true),
        NodesFormat::Yaml => report::fleet_yaml(&fleet),
        NodesFormat::Name => report::fleet_names(&fleet),
        NodesFormat::Json => pretty(&report::fleet_json(&fleet)),
    };
    report::print_stdout(&text)?;
    Ok(Exit::Success)
}

/// What an inventory in prepull's own YAML cannot say.
fn proxied(fleet: &Fleet) -> Option<String> {
    let proxied = fleet
        .nodes()
        .iter()
        .filter(|node| node.proxy_command().is_some());
    let names: Vec<&str> = proxied.map(|node| node.name.as_str()).collect();
    (!names.is_empty()).then(|| {
        format!(
            "a ProxyCommand leads to {}, which this inventory cannot say: without the ssh_config or the Ansible inventory that \
             says it, prepull would connect directly",
            runs::named(&names)
        )
    })
}

/// `prepull images`.
fn images(args: &ImagesArgs, ambient: &Environment) -> Result<Exit> {
    let found = settings::manifest_images(&args.files, args.images_strict, ambient)?;
    warn(&found.warnings);
    let mut text = String::new();
    for NamedImage { image, places } in &found.images {
        match args.output {
            ImagesFormat::Json => break,
            ImagesFormat::Name => text.push_str(&format!("{image}\n")),
            ImagesFormat::Wide => {
                let places = escape_line(&places.join(", ")).into_owned();
                text.push_str(&format!("{image}  {places}\n"));
            }
        }
    }
    if args.output == ImagesFormat::Json {
        let images: Vec<_> = found
            .images
            .iter()
            .map(|NamedImage { image, places }| json!({"reference": image.to_string(), "places": places}))
            .collect();
        text = pretty(&json!({"schema": 1, "images": images, "warnings": found.warnings}));
    }
    report::print_stdout(&text)?;
    Ok(Exit::Success)
}

/// Nodes that their source names no address for: they stay in the fleet, and fail.
fn without_address(fleet: &Fleet) -> Vec<String> {
    let nodes = fleet.nodes().iter();
    let names: Vec<&str> = nodes
        .filter(|node| node.address.is_empty())
        .map(|node| node.name.as_str())
        .collect();
    if names.is_empty() {
        return Vec::new();
    }
    vec![format!(
        "the Kubernetes API names no address of the wanted type for {}, so that nobody can connect to {}; see --address-type",
        runs::named(&names),
        if names.len() == 1 { "it" } else { "them" },
    )]
}

/// What is not as the operator may expect, once, before anything starts.
fn warn(warnings: &[String]) {
    for warning in warnings {
        report::print_stderr(&format!("prepull: warning: {}\n", escape_line(warning)));
    }
}

/// A JSON value for people and programs alike, with a newline at the end.
fn pretty(value: &serde_json::Value) -> String {
    format!("{value:#}\n")
}
