//! The command line as clap definitions, nothing more: what the words mean is decided in `settings`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Loads container images onto nodes over SSH before a roll-out needs them.
#[derive(Debug, Parser)]
#[command(
    name = "prepull",
    version,
    max_term_width = 100,
    propagate_version = true
)]
#[command(after_help = "\
Examples:
  prepull pull -i nodes.yml registry.example:5000/team/app:v2
  prepull pull -H 'worker[01-40].example' --registry-user ci app:v2
  prepull check -i nodes.yml app:v2        does every node hold it, and the same?
  prepull nodes -i nodes.yml               who would be warmed?
  prepull exec -i nodes.yml -- df -h /var  run a command on every node

Exit status: 0 every node is as wanted, 1 at least one is not, 2 wrong usage or input (nothing was
touched), 3 stopped early by a limit, 130/143 interrupted.")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[allow(clippy::large_enum_variant)] // there is one in a process
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Pull images on every node of the fleet.
    Pull(PullArgs),
    /// Change nothing: does every node hold the images, and the same digest everywhere?
    Check(CheckArgs),
    /// Show the resolved fleet; connect to nothing.
    Nodes(NodesArgs),
    /// Run a command on every node: program and arguments as given, without a shell.
    Exec(ExecArgs),
    /// The images that Kubernetes manifests name, one a line, each once.
    Images(ImagesArgs),
    /// The runs so far: list them, or show what became of one.
    #[command(subcommand)]
    Runs(RunsCommand),
}

/// `prepull pull`.
#[derive(Debug, Args)]
pub struct PullArgs {
    /// Images, e.g. registry.example:5000/team/app:v2 or app@sha256:...
    #[arg(required_unless_present_any = ["resume", "manifests"], value_name = "IMAGE")]
    pub images: Vec<String>,
    /// The images that these Kubernetes manifests name: a file, a folder, or - for standard input; repeatable.
    #[arg(long, value_name = "FILE")]
    pub manifests: Vec<PathBuf>,
    /// Go on with what this run left undone or failed, and nothing else: its name, or last. Its images, nodes and
    /// options hold again; options given now come on top.
    #[arg(long, value_name = "RUN", conflicts_with_all = ["images", "manifests", "inventory", "hosts"], help_heading = "Policy")]
    pub resume: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub reach: ReachArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub registry: RegistryArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub runtime: RuntimeArgs,
    /// The longest one attempt at a pull may take, e.g. 30m; 0 for no limit.
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = duration, help_heading = "Policy")]
    pub pull_timeout: Duration,
    /// Require one digest on every node: what the registry gives the first node that asks it.
    ///
    /// Every node asks the registry, whether it holds the image or not. A node that gets another digest, because the tag
    /// was moved meanwhile, fails.
    #[arg(long, help_heading = "Policy")]
    pub pin_digest: bool,
    /// At most so many nodes pull from one registry at one time.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Policy")]
    pub per_registry: Option<u32>,
    /// The longest a pull may go without a byte arriving, e.g. 5m; 0 for no limit.
    ///
    /// Then it is cancelled on the node and tried again. Only where the node can see what arrives: as root.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration, help_heading = "Policy")]
    pub stall_timeout: Duration,
    /// The fewest bytes a second, e.g. 50kB, over the stall time-out; a pull below that counts as stalled.
    #[arg(long, value_name = "BYTES", value_parser = bytes, help_heading = "Policy")]
    pub min_rate: Option<u64>,
    /// How long a pull goes on by itself when its node's connection is lost, before it is cancelled.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = lease, help_heading = "Policy")]
    pub lease: Duration,
    /// Whether to pull what a node already holds.
    #[arg(
        long,
        value_name = "WHEN",
        default_value = "missing",
        help_heading = "Policy"
    )]
    pub pull: PullChoice,
    /// Ask the registry for this platform instead of the node's own (docker only).
    #[arg(long, value_name = "OS/ARCH", help_heading = "Policy")]
    pub platform: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub course: CourseArgs,
}

/// `prepull images`.
#[derive(Debug, Args)]
pub struct ImagesArgs {
    /// Manifests, a folder of them, or - for standard input, e.g. what helm template prints; repeatable.
    #[arg(short = 'f', long = "file", required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// What to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "name")]
    pub output: ImagesFormat,
}

/// `prepull images --output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ImagesFormat {
    /// One image a line.
    Name,
    /// With the places that name it.
    Wide,
    /// One JSON document.
    Json,
}

/// `prepull runs`.
#[derive(Debug, Subcommand)]
pub enum RunsCommand {
    /// List the recorded runs, oldest first.
    List {
        /// How to print it.
        #[arg(short, long, value_name = "FORMAT", default_value = "human")]
        output: ListFormat,
    },
    /// Show what became of a run, as far as it came.
    Show {
        /// Its name, the beginning of it, or last.
        run: String,
        /// How to print it.
        #[arg(short, long, value_name = "FORMAT", default_value = "human")]
        output: Format,
    },
}

/// `prepull check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Images to look for.
    #[arg(required_unless_present = "manifests", value_name = "IMAGE")]
    pub images: Vec<String>,
    /// The images that these Kubernetes manifests name: a file, a folder, or - for standard input; repeatable.
    #[arg(long, value_name = "FILE")]
    pub manifests: Vec<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub reach: ReachArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub runtime: RuntimeArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub course: CourseArgs,
}

/// `prepull nodes`.
#[derive(Debug, Args)]
pub struct NodesArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub fleet: FleetArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub login: LoginArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub runtime: RuntimeArgs,
    /// How to print it.
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        default_value = "human",
        help_heading = "Output"
    )]
    pub output: NodesFormat,
}

/// `prepull exec`.
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// The program and its arguments, after `--`. For pipes and variables name a shell: -- sh -c '...'
    #[arg(required = true, last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub reach: ReachArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub course: CourseArgs,
}

/// Which nodes, and how they are reached.
#[derive(Debug, Args)]
pub struct ReachArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub fleet: FleetArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub ssh: SshArgs,
}

/// How a run goes on, and what is printed.
#[derive(Debug, Args)]
pub struct CourseArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub policy: PolicyArgs,
    /// Print the plan and connect to nothing.
    #[arg(short = 'n', long, help_heading = "Policy")]
    pub dry_run: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub output: OutputArgs,
}

/// Which nodes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Fleet")]
pub struct FleetArgs {
    /// An inventory file, - for standard input; repeatable.
    #[arg(short, long, value_name = "FILE")]
    pub inventory: Vec<PathBuf>,
    /// Nodes by name, with ranges: 'ops@worker[001-128].example:2222', ^FILE for a list; repeatable.
    #[arg(short = 'H', long, value_name = "EXPR")]
    pub hosts: Vec<String>,
    /// Ask the Kubernetes API for the nodes and their addresses.
    #[arg(long)]
    pub kube: bool,
    /// Read this kubeconfig instead of $KUBECONFIG, ~/.kube/config or a pod's own account.
    #[arg(long, value_name = "FILE", requires = "kube")]
    pub kubeconfig: Option<PathBuf>,
    /// Use this context of the kubeconfig.
    #[arg(long, value_name = "NAME", requires = "kube")]
    pub context: Option<String>,
    /// Only Kubernetes nodes with these labels, as kubectl takes them: 'pool=gpu,zone in (a,b)'.
    #[arg(short = 'l', long, value_name = "LABELS", requires = "kube")]
    pub selector: Option<String>,
    /// Only Kubernetes nodes with these fields, as kubectl takes them: 'spec.unschedulable=false'.
    #[arg(long, value_name = "FIELDS", requires = "kube")]
    pub field_selector: Option<String>,
    /// Which of a Kubernetes node's addresses to dial.
    #[arg(
        long,
        value_name = "TYPE",
        default_value = "InternalIP",
        ignore_case = true
    )]
    pub address_type: AddressTypeChoice,
    /// Kubernetes nodes of the control plane too, not only workers.
    #[arg(long, requires = "kube")]
    pub include_control_plane: bool,
    /// Only Kubernetes nodes that are ready.
    #[arg(long, requires = "kube")]
    pub ready_only: bool,
    /// Only Kubernetes nodes that are not cordoned.
    #[arg(long, requires = "kube")]
    pub schedulable_only: bool,
    /// Only these nodes: names, groups, globs, ~regex, a:b, a:&b, a:!b, group[0:2], @FILE; repeatable.
    #[arg(long, value_name = "PATTERN")]
    pub limit: Vec<String>,
    /// All but these nodes, by the same patterns; repeatable.
    #[arg(long, value_name = "PATTERN")]
    pub exclude: Vec<String>,
}

/// The types of a Kubernetes node's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AddressTypeChoice {
    /// An address within the cluster's network.
    #[value(name = "InternalIP")]
    InternalIp,
    /// An address from outside.
    #[value(name = "ExternalIP")]
    ExternalIp,
    /// What the node calls itself.
    #[value(name = "Hostname")]
    Hostname,
    /// A name within the cluster's network.
    #[value(name = "InternalDNS")]
    InternalDns,
    /// A name from outside.
    #[value(name = "ExternalDNS")]
    ExternalDns,
}

/// Who logs in where; all that `nodes` shows.
#[derive(Debug, Args)]
#[command(next_help_heading = "SSH")]
pub struct LoginArgs {
    /// Log in as this user.
    #[arg(short, long, value_name = "NAME")]
    pub user: Option<String>,
    /// The SSH server's port on the nodes.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// A private key file to log in with; repeatable.
    #[arg(long, value_name = "FILE")]
    pub identity: Vec<PathBuf>,
    /// Go through these hosts: [user@]host[:port],...; none for a direct way.
    #[arg(short = 'J', long, value_name = "CHAIN")]
    pub jump: Option<String>,
    /// Read this ssh_config instead of ~/.ssh/config and the system's; none for no file.
    #[arg(short = 'F', long, value_name = "FILE")]
    pub ssh_config: Option<PathBuf>,
    /// Become root on the node, through sudo or else doas.
    #[arg(short, long)]
    pub r#become: bool,
    /// Become root with a password for sudo, which is asked for; each node tries it once.
    #[arg(short = 'K', long)]
    pub ask_become_pass: bool,
}

/// How nodes are reached.
#[derive(Debug, Args)]
#[command(next_help_heading = "SSH")]
pub struct SshArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub login: LoginArgs,
    /// The known host keys, instead of ~/.ssh/known_hosts; repeatable.
    #[arg(long, value_name = "FILE")]
    pub known_hosts: Vec<PathBuf>,
    /// What to do about a host key nobody knows. A changed key always stops that node.
    /// [default: StrictHostKeyChecking of ssh_config, else strict]
    #[arg(long, value_name = "POLICY")]
    pub host_keys: Option<HostKeysChoice>,
    /// Ask for the SSH password.
    #[arg(short = 'k', long)]
    pub ask_pass: bool,
    /// The longest each step of connecting may take [default: ConnectTimeout of ssh_config, else 10s]
    #[arg(long, value_name = "TIME", value_parser = positive_duration)]
    pub connect_timeout: Option<Duration>,
    /// How often a silent node is asked whether it is still there; it is lost after three silent answers
    /// [default: ServerAliveInterval of ssh_config, else 15s]
    #[arg(long, value_name = "TIME", value_parser = positive_duration)]
    pub keepalive: Option<Duration>,
}

/// What the nodes show the registry.
#[derive(Debug, Args)]
#[command(next_help_heading = "Registry")]
pub struct RegistryArgs {
    /// Log in to the registry as this user; the password is asked for.
    #[arg(long, value_name = "NAME")]
    pub registry_user: Option<String>,
    /// Read the registry password from standard input.
    #[arg(long, requires = "registry_user")]
    pub registry_password_stdin: bool,
    /// The registries that --registry-user is for [default: those of the images]; repeatable.
    #[arg(long, value_name = "HOST", requires = "registry_user")]
    pub registry: Vec<String>,
    /// Take logins from this file [default: $REGISTRY_AUTH_FILE, then docker's config.json].
    #[arg(long, value_name = "FILE")]
    pub auth_file: Option<PathBuf>,
    /// Send no login; the nodes use their own, if they have one.
    #[arg(long, conflicts_with_all = ["registry_user", "auth_file"])]
    pub no_auth: bool,
}

/// What holds the images.
#[derive(Debug, Args)]
#[command(next_help_heading = "Runtime")]
pub struct RuntimeArgs {
    /// What holds the images; auto: what the inventory says, else the node is asked.
    #[arg(long, value_name = "NAME")]
    pub runtime: Option<RuntimeChoice>,
    /// The runtime's socket, where it is not the default, e.g. unix:///run/crio/crio.sock.
    #[arg(long, value_name = "URI")]
    pub runtime_endpoint: Option<String>,
}

/// How much at once, how often, how long.
#[derive(Debug, Args)]
#[command(next_help_heading = "Policy")]
pub struct PolicyArgs {
    /// Nodes at work at one time.
    #[arg(short, long, value_name = "N", default_value = "32", value_parser = clap::value_parser!(u32).range(1..))]
    pub parallel: u32,
    /// Further attempts after the first, for failures that another try can cure.
    #[arg(long, value_name = "N", default_value = "3")]
    pub retries: u32,
    /// The pause before a further attempt: random, and its limit doubles from MIN up to MAX.
    #[arg(long, value_name = "MIN..MAX", default_value = "1s..60s", value_parser = backoff)]
    pub backoff: (Duration, Duration),
    /// The longest the whole run may take; then what runs is cancelled.
    #[arg(long, value_name = "TIME", value_parser = positive_duration)]
    pub deadline: Option<Duration>,
    /// Start no further node once this many have failed.
    #[arg(long, value_name = "N|P%", value_parser = portion)]
    pub max_failures: Option<Share>,
    /// Let this many nodes try first, and stop when all of them are refused by the registry or do not find the image; 0
    /// for none [default: 5 in fleets of more than 20 nodes]
    #[arg(long, value_name = "N")]
    pub canary: Option<u32>,
    /// Go in waves of these cumulative sizes, e.g. 1,10%,100%; each starts when the one before succeeded.
    #[arg(long, value_name = "SIZES", value_delimiter = ',', value_parser = portion)]
    pub waves: Vec<Share>,
}

/// What is printed.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// The format of the result on standard output.
    #[arg(short, long, value_name = "FORMAT", default_value = "human")]
    pub output: Format,
    /// How progress is shown on standard error.
    #[arg(long, value_name = "HOW", default_value = "auto")]
    pub progress: ProgressChoice,
    /// When to use colour.
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub color: ColorChoice,
    /// Print nothing but failures.
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Print every step of every node.
    #[arg(short, long)]
    pub verbose: bool,
    /// Record nothing of this run on disk: it cannot be resumed.
    #[arg(long)]
    pub no_journal: bool,
}

/// A number of nodes or a share of the fleet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Share {
    /// A number.
    Count(usize),
    /// Percent.
    Percent(f64),
}

/// `--runtime`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum RuntimeChoice {
    Auto,
    Docker,
    Crictl,
}

/// `--pull`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PullChoice {
    /// Ask the registry in any case.
    Always,
    /// Leave a node alone that holds the image.
    Missing,
}

/// `--host-keys`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum HostKeysChoice {
    /// An unknown key stops that node.
    Strict,
    /// An unknown key is recorded and accepted.
    AcceptNew,
    /// Every key is accepted: whoever answers gets the credentials.
    Off,
}

/// `--output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Text for people.
    Human,
    /// One JSON document at the end.
    Json,
    /// One JSON event a line as it happens, and the document as the last.
    Jsonl,
}

/// `prepull nodes --output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum NodesFormat {
    /// A table.
    Human,
    /// A table with groups, labels and endpoints.
    Wide,
    /// One JSON document.
    Json,
    /// An inventory in prepull's own YAML, with everything resolved.
    Yaml,
    /// One name a line.
    Name,
}

/// `prepull runs list --output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    /// A table.
    Human,
    /// One JSON document.
    Json,
}

/// `--progress`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProgressChoice {
    /// Bars on a terminal, lines elsewhere.
    Auto,
    /// Bars.
    Bars,
    /// One line for each change.
    Lines,
    /// Nothing until the end.
    None,
}

/// `--color`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(text).map_err(|_| "write a time with its unit: 30s, 5m, 1h30m".into())
}

fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("it must be longer than nothing".into()),
        length => Ok(length),
    }
}

/// Whole seconds, which is how a node counts it.
fn lease(text: &str) -> Result<Duration, String> {
    let length = duration(text)?;
    if length < Duration::from_secs(2) {
        return Err("it must be at least 2s: a node counts whole seconds".into());
    }
    Ok(length)
}

/// A number of bytes, as people write it: `500`, `50kB`, `1.5MB`, `2MiB`.
fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || "write bytes with their unit: 500, 50kB, 1.5MB, 2MiB".to_string();
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "kib" => 1024.0,
        "mib" => 1024.0 * 1024.0,
        "gib" => 1024.0 * 1024.0 * 1024.0,
        _ => return Err(wrong()),
    };
    let bytes = number * factor;
    if (1.0..1e18).contains(&bytes) {
        Ok(bytes as u64)
    } else {
        Err(wrong())
    }
}

fn backoff(text: &str) -> Result<(Duration, Duration), String> {
    let Some((min, max)) = text.split_once("..") else {
        return Err("write both limits, e.g. 1s..60s".into());
    };
    let (min, max) = (duration(min)?, duration(max)?);
    if min > max {
        return Err("the first limit is longer than the second".into());
    }
    Ok((min, max))
}

fn portion(text: &str) -> Result<Share, String> {
    const RIGHT: &str = "write a number of nodes such as 5, or a share such as 10%";
    if let Some(percent) = text.strip_suffix('%') {
        return match percent.parse::<f64>() {
            Ok(share) if share > 0.0 && share <= 100.0 => Ok(Share::Percent(share)),
            _ => Err(RIGHT.into()),
        };
    }
    match text.parse::<usize>() {
        Ok(count) if count > 0 => Ok(Share::Count(count)),
        _ => Err(RIGHT.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_need_a_unit_except_zero() {
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert!(duration("10").is_err());
        assert!(positive_duration("0").is_err());
        assert!(positive_duration("0s").is_err());
    }

    #[test]
    fn limits_are_written_as_ranges_and_shares() {
        let seconds = Duration::from_secs;
        assert_eq!(backoff("1s..60s"), Ok((seconds(1), seconds(60))));
        assert!(backoff("60s..1s").is_err());
        assert!(backoff("1s").is_err());
        assert_eq!(portion("5"), Ok(Share::Count(5)));
        assert_eq!(portion("2.5%"), Ok(Share::Percent(2.5)));
        for wrong in ["0", "-1", "0%", "101%", "many", "NaN%"] {
            assert!(portion(wrong).is_err(), "{wrong}");
        }
    }
}
