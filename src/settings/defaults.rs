//! Defaults for options: `PREPULL_*` variables, a project's `prepull.toml`, and the user's `config.toml`.
//!
//! They take effect as clap's default values, so an option on the command line wins and no default conflicts with one.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::error::ErrorKind as ClapError;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use nix::fcntl::OFlag;
use nix::unistd::geteuid;
use toml::de::{DeTable, DeValue};

use super::Environment;
use crate::inventory;
use crate::model::text::escape_line;

/// The commands whose options have defaults.
const COMMANDS: [&[&str]; 7] = [
    &["pull"],
    &["check"],
    &["nodes"],
    &["exec"],
    &["hosts", "scan"],
    &["keep", "list"],
    &["keep", "release"],
];
/// Options that only the command line can say.
const NO_DEFAULT: [&str; 7] = [
    "dry-run",
    "help",
    "probe",
    "registry-password-stdin",
    "resume",
    "version",
    "yes",
];
/// All that a project's file may set: no program to run, no file to read or write, no login and no host key is among
/// them.
const PROJECT: [&str; 23] = [
    "backoff",
    "canary",
    "color",
    "connect-timeout",
    "connections",
    "deadline",
    "exclude",
    "keepalive",
    "lease",
    "limit",
    "max-failures",
    "min-rate",
    "parallel",
    "per-registry",
    "pin-digest",
    "platform",
    "preflight",
    "progress",
    "pull-timeout",
    "retries",
    "stall-timeout",
    "unpack-factor",
    "waves",
];
/// Options of [`PROJECT`] whose values may name files.
const PATTERNS: [&str; 2] = ["exclude", "limit"];
/// The beginning of the variables' names.
const PREFIX: &str = "PREPULL_";
/// Variables with that beginning that set no default: completion scripts use the first, and the second says where
/// relays are.
const NO_OPTION: [&str; 2] = ["PREPULL_COMPLETE", "PREPULL_RELAYS"];
/// The project's file.
const PROJECT_FILE: &str = "prepull.toml";
/// The longest file that is read, in bytes.
const FILE_LIMIT: u64 = 1024 * 1024;

/// The default of one option.
#[derive(Debug, Clone, PartialEq)]
struct Value {
    /// The option's long name.
    option: String,
    /// Several for an option that is repeatable.
    texts: Vec<String>,
    /// A variable, or file, line and column.
    origin: String,
}

/// The defaults that are set, each from its strongest source.
#[derive(Debug, Default)]
pub struct Defaults {
    values: Vec<Value>,
    files: Vec<PathBuf>,
    warnings: Vec<String>,
}

impl Defaults {
    /// Finds and checks them.
    ///
    /// # Errors
    /// A file that cannot be read, is not TOML, may be changed by another user, or sets what it must not; a value that
    /// its option does not take. All with their place.
    pub fn find(cli: &Command, ambient: &Environment, directory: &Path) -> Result<Self> {
        let mut found = Self::default();
        for arg in options(cli) {
            let name = variable(arg);
            if let Some(text) = ambient.variable(&name).filter(|text| !text.is_empty()) {
                let text = text.to_string_lossy();
                let texts = match takes_several(arg) {
                    true => text.split(',').map(String::from).collect(),
                    false => vec![text.into_owned()],
                };
                found.add(cli, arg, texts, format!("${name}"))?;
            }
        }
        let known: Vec<String> = options(cli).map(variable).collect();
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        for name in ambient.names_with(PREFIX) {
            if !NO_OPTION.contains(&name) && !known.contains(&name) {
                found.warnings.push(unknown_variable(name, &known));
            }
        }
        let home = ambient.variable("HOME").map(PathBuf::from);
        let home = home.filter(|home| home.is_absolute());
        if let Some(path) = project_file(directory, home.as_deref()) {
            found.file(cli, &path, true)?;
        }
        let config = ambient.variable("XDG_CONFIG_HOME").map(PathBuf::from);
        let config = config.filter(|config| config.is_absolute());
        if let Some(folder) = config.or_else(|| Some(home?.join(".config"))) {
            found.file(cli, &folder.join("prepull/config.toml"), false)?;
        }
        Ok(found)
    }

    /// Takes the defaults of a file, where it exists.
    fn file(&mut self, cli: &Command, path: &Path, is_project: bool) -> Result<()> {
        let shown = escape_line(&path.to_string_lossy()).into_owned();
        let mut text = String::new();
        let read = || -> std::io::Result<Option<String>> {
            // A pipe without a writer would keep us here.
            let file = File::options()
                .read(true)
                .custom_flags(OFlag::O_NONBLOCK.bits())
                .open(path)?;
            let metadata = file.metadata()?;
            if !metadata.is_file() {
                return Ok(Some("it is not a regular file".into()));
            }
            let me = geteuid().as_raw();
            if let Some(problem) = unsafe_owner(metadata.uid(), metadata.mode(), me) {
                return Ok(Some(problem));
            }
            file.take(FILE_LIMIT).read_to_string(&mut text)?;
            Ok(None)
        };
        match { read }() {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).context(format!("cannot read defaults from {shown}")),
            // Whoever may write to a directory must not be able to stop all who work in it.
            Ok(Some(problem)) if is_project && !path.parent().is_none_or(is_own) => {
                self.warnings
                    .push(format!("{shown} is not read: {problem}"));
                return Ok(());
            }
            Ok(Some(problem)) => bail!("refused the defaults in {shown}: {problem}"),
            Ok(None) => {}
        }
        self.files.push(path.to_owned());
        let place = |at: usize| {
            let before = text.get(..at).unwrap_or(&text);
            let line = before.matches('\n').count() + 1;
            let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
            format!("{shown}:{line}:{column}")
        };
        let table = match DeTable::parse(&text) {
            Ok(table) => table.into_inner(),
            Err(error) => {
                let at = error.span().map_or(0, |span| span.start);
                bail!("{}: {}", place(at), error.message().trim());
            }
        };
        for (key, value) in &table {
            let (name, place) = (key.get_ref().as_ref(), place(key.span().start));
            let Some(arg) = options(cli).find(|arg| arg.get_long() == Some(name)) else {
                bail!("{place}: {}", unknown_key(cli, name));
            };
            if is_project && !PROJECT.contains(&name) {
                bail!(
                    "{place}: a project's {PROJECT_FILE} must not set {name:?}, which decides what is run, read, trusted or logged in to; set it on the command line or in ~/.config/prepull/config.toml"
                );
            }
            let texts = texts(value.get_ref(), takes_several(arg))
                .with_context(|| format!("{place}: {name} takes a text, a number, true or false, or a list where it is repeatable"))?;
            if is_project && PATTERNS.contains(&name) && texts.iter().any(|text| text.contains('@'))
            {
                bail!(
                    "{place}: a project's {PROJECT_FILE} must not name a file to read (@FILE); write the patterns themselves, or use --{name}"
                );
            }
            self.add(cli, arg, texts, place)?;
        }
        Ok(())
    }

    fn add(&mut self, cli: &Command, arg: &Arg, texts: Vec<String>, origin: String) -> Result<()> {
        let option = arg.get_long().unwrap_or_default();
        // Checked in any case, and used only where nothing stronger says it.
        for text in &texts {
            check(cli, arg, text).map_err(|why| anyhow::anyhow!("{origin}: {why}"))?;
        }
        if !self.values.iter().any(|value| value.option == option) {
            let option = option.to_string();
            self.values.push(Value {
                option,
                texts,
                origin,
            });
        }
        Ok(())
    }

    /// The command line's definitions with these defaults.
    pub fn apply(&self, cli: Command) -> Command {
        COMMANDS
            .iter()
            .fold(cli, |cli, path| self.apply_at(cli, path))
    }

    fn apply_at(&self, command: Command, path: &[&'static str]) -> Command {
        if let [first, rest @ ..] = path {
            return command.mut_subcommand(*first, |inner| self.apply_at(inner, rest));
        }
        command.mut_args(|arg| {
            let is_it = |value: &&Value| arg.get_long() == Some(value.option.as_str());
            // Not every command has every format of --output.
            let suits = |value: &&Value| {
                let possible = arg.get_possible_values();
                let is_possible =
                    |text: &String| possible.iter().any(|one| one.matches(text, true));
                possible.is_empty() || value.texts.iter().all(is_possible)
            };
            match self.values.iter().find(is_it).filter(suits) {
                Some(value) => {
                    let texts = value.texts.clone();
                    arg.default_values(texts)
                }
                None => arg,
            }
        })
    }

    /// The options that a command line left to these defaults, as it could have said them.
    pub fn as_arguments(&self, matches: &ArgMatches) -> Vec<String> {
        let mut leaf = matches;
        while let Some((_, inner)) = leaf.subcommand() {
            leaf = inner;
        }
        let is_used = |value: &&Value| {
            let id = value.option.replace('-', "_");
            let is_there = leaf.ids().any(|known| known.as_str() == id);
            // A format that this command does not have was left out.
            let is_this = |texts: clap::parser::RawValues<'_>| {
                texts
                    .map(OsStr::to_os_string)
                    .eq(value.texts.iter().map(OsString::from))
            };
            is_there
                && leaf.value_source(&id) == Some(ValueSource::DefaultValue)
                && leaf.get_raw(&id).is_some_and(is_this)
        };
        let used = self.values.iter().filter(is_used);
        used.flat_map(|value| {
            value.texts.iter().filter_map(|text| match text.as_str() {
                "true" => Some(format!("--{}", value.option)),
                "false" => None,
                text => Some(format!("--{}={text}", value.option)),
            })
        })
        .collect()
    }

    /// Variables that look like defaults and are none.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// What `prepull config` prints: each value and where it came from, and the files that were read.
    pub fn table(&self) -> String {
        let rows = self.values.iter().map(|value| {
            let texts = value.texts.join(",");
            let texts = escape_line(&texts);
            format!("{:<24}{texts:<24}{}\n", value.option, value.origin)
        });
        let mut out: String = rows.collect();
        if self.values.is_empty() {
            out.push_str("No option has a default of its own: none is set in PREPULL_* variables or in a file.\n");
        }
        for file in &self.files {
            out.push_str(&format!("read: {}\n", escape_line(&file.to_string_lossy())));
        }
        out
    }
}

/// Every option that may have a default, each once.
fn options(cli: &Command) -> impl Iterator<Item = &Arg> {
    let leaf = move |path: &&[&str]| {
        path.iter()
            .try_fold(cli, |command, name| command.find_subcommand(name))
    };
    let mut seen = Vec::new();
    let args = COMMANDS.iter().filter_map(leaf);
    args.flat_map(Command::get_arguments).filter(move |arg| {
        let Some(long) = arg.get_long() else {
            return false;
        };
        let is_new = !NO_DEFAULT.contains(&long) && !seen.contains(&long);
        seen.push(long);
        is_new
    })
}

/// `PREPULL_MAX_FAILURES` for `--max-failures`.
fn variable(arg: &Arg) -> String {
    let long = arg.get_long().unwrap_or_default();
    format!("PREPULL_{}", long.replace('-', "_").to_ascii_uppercase())
}

fn unknown_variable(name: &str, known: &[&str]) -> String {
    let hint = match inventory::nearest(name, known) {
        Some(meant) => format!("; did you mean ${meant}?"),
        None => {
            "; the defaults are PREPULL_ and an option's long name, such as PREPULL_PARALLEL".into()
        }
    };
    format!("${} sets no option{hint}", escape_line(name))
}

/// What is wrong with a key of a file.
fn unknown_key(cli: &Command, name: &str) -> String {
    let shown = escape_line(name);
    if NO_DEFAULT.contains(&name) {
        return format!("{shown} has no default: only the command line can say --{shown}");
    }
    let known: Vec<&str> = options(cli).filter_map(Arg::get_long).collect();
    let plain = name.to_ascii_lowercase().replace('_', "-");
    match inventory::nearest(&plain, &known) {
        Some(meant) => format!("unknown key {shown:?}; did you mean {meant:?}?"),
        None => format!(
            "unknown key {shown:?}: keys are the long names of options, which `prepull pull --help` lists"
        ),
    }
}

fn takes_several(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Append)
}

/// The nearest `prepull.toml` in the directory or above it, up to the home directory or the root of a git repository.
/// Outside of both, only the directory itself counts.
fn project_file(directory: &Path, home: Option<&Path>) -> Option<PathBuf> {
    let is_root = |folder: &Path| home == Some(folder) || folder.join(".git").exists();
    // Above a directory that others may write to, anybody could have put a repository.
    let mut own = directory.ancestors().take_while(|folder| is_own(folder));
    let end = own.position(is_root).unwrap_or(0);
    let files = directory.ancestors().take(end + 1);
    let mut files = files.map(|folder| folder.join(PROJECT_FILE));
    files.find(|path| fs::symlink_metadata(path).is_ok())
}

/// Whether no other user but root can put something into this directory.
fn is_own(folder: &Path) -> bool {
    let me = geteuid().as_raw();
    fs::metadata(folder).is_ok_and(|about| unsafe_owner(about.uid(), about.mode(), me).is_none())
}

/// Why a file of this owner and mode must not say how prepull works for the user `me`.
fn unsafe_owner(owner: u32, mode: u32, me: u32) -> Option<String> {
    if owner != me && owner != 0 {
        return Some(format!(
            "it belongs to the user with the number {owner}; it must belong to the user who runs prepull, or to root"
        ));
    }
    (mode & 0o002 != 0).then(|| "every user may change it; run `chmod o-w` on it".into())
}

/// A value as an option's texts. `None` for tables, times, and lists where one value is wanted.
fn texts(value: &DeValue<'_>, is_repeatable: bool) -> Option<Vec<String>> {
    match value {
        DeValue::String(text) => Some(vec![text.to_string()]),
        DeValue::Integer(number) => Some(vec![number.as_str().replace('_', "")]),
        DeValue::Float(number) => Some(vec![number.as_str().replace('_', "")]),
        DeValue::Boolean(flag) => Some(vec![flag.to_string()]),
        DeValue::Array(values) if is_repeatable => {
            let each = values.iter().map(|value| texts(value.get_ref(), false));
            each.collect::<Option<Vec<_>>>().map(|texts| texts.concat())
        }
        DeValue::Array(_) | DeValue::Table(_) | DeValue::Datetime(_) => None,
    }
}

/// Whether an option takes this text, by what the parser of the command line says.
fn check(cli: &Command, arg: &Arg, text: &str) -> Result<(), String> {
    let long = arg.get_long().unwrap_or_default();
    if matches!(arg.get_action(), ArgAction::SetTrue) {
        return match text {
            "true" | "false" => Ok(()),
            _ => Err(format!("--{long} is true or false, not {text:?}")),
        };
    }
    let has_it = |path: &&&[&str]| {
        let leaf = path
            .iter()
            .try_fold(cli, |command, name| command.find_subcommand(name));
        leaf.is_some_and(|leaf| {
            leaf.get_arguments()
                .any(|known| known.get_long() == Some(long))
        })
    };
    // Right for one command is enough: not all of them have every format of --output.
    let mut result = Ok(());
    for path in COMMANDS.iter().filter(has_it) {
        result = check_at(cli, path, long, text);
        if result.is_ok() {
            break;
        }
    }
    result
}

fn check_at(cli: &Command, path: &[&str], long: &str, text: &str) -> Result<(), String> {
    let given = format!("--{long}={text}");
    let words = std::iter::once("prepull").chain(path.iter().copied());
    match cli
        .clone()
        .try_get_matches_from(words.chain([given.as_str()]))
    {
        Err(error)
            if matches!(
                error.kind(),
                ClapError::ValueValidation | ClapError::InvalidValue
            ) =>
        {
            let text = error.render().to_string();
            let lines = text.lines().take_while(|line| !line.is_empty());
            let lines: Vec<&str> = lines.map(str::trim).collect();
            Err(lines.join(" ").trim_start_matches("error: ").to_string())
        }
        // Only that value is to be looked at: whatever else is missing does not matter.
        Ok(_) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::CommandFactory as _;
    use std::os::unix::fs::PermissionsExt as _;

    struct Home(tempfile::TempDir);

    impl Home {
        fn new(user: &str, project: &str) -> Self {
            let home = tempfile::tempdir().unwrap();
            fs::create_dir_all(home.path().join(".config/prepull")).unwrap();
            fs::create_dir_all(home.path().join("work/deep")).unwrap();
            fs::write(home.path().join(".config/prepull/config.toml"), user).unwrap();
            fs::write(home.path().join("work/prepull.toml"), project).unwrap();
            Self(home)
        }

        fn find(&self, variables: &[(&str, &str)]) -> Result<Defaults> {
            let home = self.0.path().to_str().unwrap();
            let ambient = Environment::of(&[&[("HOME", home)], variables].concat());
            let mut cli = Cli::command();
            cli.build();
            Defaults::find(&cli, &ambient, &self.0.path().join("work/deep"))
        }

        fn error(&self, variables: &[(&str, &str)]) -> String {
            let error = self.find(variables).unwrap_err();
            format!("{error:#}").replace(self.0.path().to_str().unwrap(), "~")
        }
    }

    #[test]
    fn the_command_line_wins_then_variables_the_project_and_the_user() {
        let home = Home::new(
            "parallel = 4\nretries = 9\nbecome = true\nhost-keys = \"accept-new\"\n",
            "parallel = 8\nwaves = [\"1\", \"10%\"]\nretries = 7\n",
        );
        let defaults = home.find(&[("PREPULL_PARALLEL", "16"), ("PREPULL_QUIET", "true")]);
        let defaults = defaults.unwrap();
        let command = defaults.apply(Cli::command());
        let given = ["prepull", "pull", "-v", "--retries", "2", "app:v1"];
        let matches = command.try_get_matches_from(given).unwrap();
        let pull = matches.subcommand_matches("pull").unwrap();
        assert_eq!(pull.get_one::<u32>("parallel"), Some(&16));
        assert_eq!(pull.get_one::<u32>("retries"), Some(&2));
        assert!(pull.get_flag("become"));
        let mut words = defaults.as_arguments(&matches);
        words.sort_unstable();
        let wanted = [
            "--become",
            "--host-keys=accept-new",
            "--parallel=16",
            "--quiet",
            "--waves=1",
            "--waves=10%",
        ];
        assert_eq!(words, wanted);
        let table = defaults.table();
        for part in [
            "$PREPULL_PARALLEL\n",
            "work/prepull.toml:2:1\n",
            "config.toml:3:1\n",
        ] {
            assert!(table.contains(part), "{part}: {table}");
        }
    }

    #[test]
    fn bad_input_names_its_place() {
        for (user, project, variables, wanted) in [
            (
                "parallel = 0\n",
                "",
                &[][..],
                "~/.config/prepull/config.toml:1:1: invalid value '0' for '--parallel <N>': it must be at least 1",
            ),
            (
                "\nparalel = 2\n",
                "",
                &[],
                "~/.config/prepull/config.toml:2:1: unknown key \"paralel\"; did you mean \"parallel\"?",
            ),
            (
                "# one\n  max_failure = 2\n",
                "",
                &[],
                "config.toml:2:3: unknown key \"max_failure\"; did you mean \"max-failures\"?",
            ),
            (
                "flavour = 2\n",
                "",
                &[],
                "config.toml:1:1: unknown key \"flavour\": keys are the long names of options",
            ),
            (
                "yes = true\n",
                "",
                &[],
                "config.toml:1:1: yes has no default: only the command line can say --yes",
            ),
            (
                "output = \"xml\"\n",
                "",
                &[],
                "config.toml:1:1: invalid value 'xml' for '--output <FORMAT>'",
            ),
            (
                "retries = = 2\n",
                "",
                &[],
                "~/.config/prepull/config.toml:1:11: ",
            ),
            (
                "become = \"yes\"\n",
                "",
                &[],
                "config.toml:1:1: --become is true or false, not \"yes\"",
            ),
            (
                "parallel = [1, 2]\n",
                "",
                &[],
                "config.toml:1:1: parallel takes a text, a number",
            ),
            (
                "",
                "# ours\nhost-keys = \"off\"\n",
                &[],
                "~/work/prepull.toml:2:1: a project's prepull.toml must not set \"host-keys\"",
            ),
            (
                "",
                "inventory = \"nodes.yml\"\n",
                &[],
                "must not set \"inventory\"",
            ),
            (
                "",
                "",
                &[("PREPULL_COLOR", "blue")],
                "$PREPULL_COLOR: invalid value 'blue' for '--color <WHEN>' [possible values: auto, always, never]",
            ),
            (
                "",
                "limit = [\"node-1\", \"@/etc/shadow\"]\n",
                &[],
                "prepull.toml:1:1: a project's prepull.toml must not name a file to read",
            ),
            (
                "",
                "",
                &[("PREPULL_DEADLINE", "5")],
                "$PREPULL_DEADLINE: invalid value '5'",
            ),
        ] {
            let error = Home::new(user, project).error(variables);
            assert!(error.contains(wanted), "{wanted}\n{error}");
        }
    }

    #[test]
    fn a_variable_that_sets_no_option_is_warned_of() {
        let home = Home::new("", "");
        let found = home.find(&[
            ("PREPULL_PARALEL", "2"),
            ("PREPULL_BREAKFAST", "2"),
            ("PREPULL_COMPLETE", "bash"),
            ("PREPULL_RETRIES", "2"),
        ]);
        assert_eq!(
            found.unwrap().warnings(),
            [
                "$PREPULL_BREAKFAST sets no option; the defaults are PREPULL_ and an option's long name, such as PREPULL_PARALLEL",
                "$PREPULL_PARALEL sets no option; did you mean $PREPULL_PARALLEL?",
            ]
        );
    }

    #[test]
    fn a_default_format_holds_for_the_commands_that_have_it() {
        let output = |default: &str, words: &[&str]| {
            let home = Home::new(&format!("output = {default:?}\n"), "");
            let defaults = home.find(&[]).unwrap();
            let words = [&["prepull"], words].concat();
            let matches = defaults.apply(Cli::command()).try_get_matches_from(words);
            let matches = matches.unwrap();
            let (_, leaf) = matches.subcommand().unwrap();
            let raw = leaf.get_raw("output").unwrap().next().unwrap();
            let stated = defaults.as_arguments(&matches).join(" ");
            (raw.to_string_lossy().into_owned(), stated)
        };
        let is = |format: &str, stated: &str| (format.to_string(), stated.to_string());
        let pull = ["pull", "app:v1"];
        assert_eq!(output("jsonl", &pull), is("jsonl", "--output=jsonl"));
        assert_eq!(output("jsonl", &["nodes"]), is("human", ""));
        assert_eq!(output("wide", &["nodes"]), is("wide", "--output=wide"));
        assert_eq!(output("wide", &pull), is("human", ""));
        assert_eq!(
            output("json", &["pull", "app:v1", "-o", "human"]),
            is("human", "")
        );
    }

    #[test]
    fn a_file_that_others_may_change_is_refused() {
        let home = Home::new("", "parallel = 8\n");
        let path = home.0.path().join("work/prepull.toml");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o646)).unwrap();
        assert!(home.error(&[]).contains("every user may change it"));
        assert!(unsafe_owner(1001, 0o644, 1000).is_some());
        assert_eq!(unsafe_owner(0, 0o644, 1000), None);
    }

    /// Where others may write, they must neither keep people from working nor tell them how to.
    #[test]
    fn what_others_put_into_a_directory_is_passed_over() {
        let home = Home::new("", "parallel = 8\n");
        let work = home.0.path().join("work");
        let others = fs::Permissions::from_mode(0o777);
        fs::set_permissions(work.join("deep"), others.clone()).unwrap();
        // A repository above it may be anybody's.
        let found = home.find(&[]).unwrap();
        assert_eq!((found.values.len(), found.warnings.len()), (0, 0));
        let path = work.join("deep/prepull.toml");
        fs::write(&path, "parallel = 9\n").unwrap();
        fs::set_permissions(&path, others).unwrap();
        let found = home.find(&[]).unwrap();
        assert!(found.values.is_empty());
        assert!(found.warnings[0].contains("is not read: every user may change it"));
        fs::remove_file(&path).unwrap();
        assert!(
            std::process::Command::new("mkfifo")
                .arg(&path)
                .status()
                .unwrap()
                .success()
        );
        let found = home.find(&[]).unwrap();
        assert!(found.warnings[0].contains("is not read: it is not a regular file"));
    }

    #[test]
    fn a_projects_file_is_looked_for_up_to_the_home_or_the_root_of_its_repository() {
        let home = Home::new("", "");
        let work = home.0.path().join("work");
        let found = |home: Option<&Path>| project_file(&work.join("deep"), home);
        assert_eq!(found(Some(home.0.path())), Some(work.join(PROJECT_FILE)));
        assert_eq!(
            found(None),
            None,
            "outside of both only the directory itself"
        );
        fs::create_dir(work.join("deep/.git")).unwrap();
        assert_eq!(found(Some(home.0.path())), None, "another repository's");
    }

    #[test]
    fn a_project_may_set_only_options_that_there_are() {
        let mut cli = Cli::command();
        cli.build();
        let known: Vec<&str> = options(&cli).filter_map(Arg::get_long).collect();
        for name in PROJECT {
            assert!(known.contains(&name), "{name}");
        }
        assert!(!known.contains(&"registry-password-stdin"));
    }
}
