//! Options that several commands share, grouped by purpose as the help shows them.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};

use super::values::{
    Format, ReportFile, at_least_one, backoff, choice, port, portion, positive_duration,
    report_file, whole,
};
use crate::model::{
    AddressType, ColorChoice, HostKeyPolicy, Portion, ProgressStyle, RuntimeChoice,
};

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
pub struct RunArgs {
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
#[derive(Debug, Default, Args)]
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
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub selector: Option<String>,
    /// Only Kubernetes nodes with these fields, as kubectl takes them: 'spec.unschedulable=false'.
    #[arg(long, value_name = "FIELDS", requires = "kube")]
    pub field_selector: Option<String>,
    /// Which of a Kubernetes node's addresses to dial.
    #[arg(
        long,
        value_name = "TYPE",
        default_value = "InternalIP",
        value_parser = choice::<AddressType>(),
        ignore_case = true
    )]
    pub address_type: AddressType,
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

/// Who logs in where; all that `nodes` shows.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "SSH")]
pub struct LoginArgs {
    /// Log in as this user.
    #[arg(short, long, value_name = "NAME")]
    pub user: Option<String>,
    /// The SSH server's port on the nodes.
    #[arg(long, value_name = "PORT", value_parser = port)]
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
    /// Become root with the password for sudo in this file, which only its owner may read; /dev/fd/N is a file
    /// descriptor.
    #[arg(long, value_name = "FILE", conflicts_with = "ask_become_pass")]
    pub become_password_file: Option<PathBuf>,
}

/// How nodes are reached.
#[derive(Debug, Default, Args)]
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
    #[arg(long, value_name = "POLICY", value_parser = choice::<HostKeyPolicy>())]
    pub host_keys: Option<HostKeyPolicy>,
    /// Ask for the SSH password of the nodes. No jump host gets it.
    #[arg(short = 'k', long)]
    pub ask_pass: bool,
    /// Read the SSH password of the nodes from this file, which only its owner may read; /dev/fd/N is a file
    /// descriptor.
    #[arg(long, value_name = "FILE", conflicts_with = "ask_pass")]
    pub ssh_password_file: Option<PathBuf>,
    /// Ask for the SSH password of each jump host.
    #[arg(long)]
    pub ask_jump_pass: bool,
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
    /// Read the registry password from this file, which only its owner may read; /dev/fd/N is a file descriptor.
    #[arg(
        long,
        value_name = "FILE",
        requires = "registry_user",
        conflicts_with = "registry_password_stdin"
    )]
    pub registry_password_file: Option<PathBuf>,
    /// The registries that --registry-user is for [default: those of the images]; repeatable.
    #[arg(long, value_name = "HOST", requires = "registry_user")]
    pub registry: Vec<String>,
    /// Take logins from this pull secret of the cluster; repeatable, needs --kube.
    #[arg(long, value_name = "[NAMESPACE/]NAME", requires = "kube")]
    pub pull_secret: Vec<String>,
    /// Take logins from this file [default: $REGISTRY_AUTH_FILE, then docker's config.json, then podman's auth.json].
    #[arg(long, value_name = "FILE")]
    pub auth_file: Option<PathBuf>,
    /// Where a docker node has no memory file system, put the login on its disk while it pulls.
    ///
    /// Without this such a node is refused. The file is private, and removed when docker has read it.
    #[arg(long)]
    pub allow_disk_credentials: bool,
    /// Send no login; the nodes use their own, if they have one.
    #[arg(long, conflicts_with_all = ["registry_user", "auth_file", "pull_secret"])]
    pub no_auth: bool,
}

/// What holds the images.
#[derive(Debug, Args)]
#[command(next_help_heading = "Runtime")]
pub struct RuntimeArgs {
    /// What holds the images; auto: what the inventory says, else the node is asked.
    #[arg(long, value_name = "NAME", value_parser = choice::<RuntimeChoice>())]
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
    #[arg(short, long, value_name = "N", default_value = "32", value_parser = at_least_one)]
    pub parallel: u32,
    /// Further attempts after the first, for failures that another try can cure.
    #[arg(long, value_name = "N", default_value = "3", value_parser = whole)]
    pub retries: u32,
    /// The pause before a further attempt: random, and its limit doubles from MIN up to MAX.
    #[arg(long, value_name = "MIN..MAX", default_value = "1s..60s", value_parser = backoff)]
    pub backoff: (Duration, Duration),
    /// The longest the whole run may take; then what runs is cancelled.
    #[arg(long, value_name = "TIME", value_parser = positive_duration)]
    pub deadline: Option<Duration>,
    /// Start no further node once this many have failed.
    #[arg(long, value_name = "N|P%", value_parser = portion)]
    pub max_failures: Option<Portion>,
    /// Let this many nodes try first, and stop when all of them are refused by the registry or do not find the image; 0
    /// for none [default: 5 in fleets of more than 20 nodes]
    #[arg(long, value_name = "N", value_parser = whole)]
    pub canary: Option<u32>,
    /// Go in waves of these cumulative sizes, e.g. 1,10%,100%; each starts when the one before succeeded.
    #[arg(long, value_name = "SIZES", value_delimiter = ',', value_parser = portion)]
    pub waves: Vec<Portion>,
}

/// What is printed.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// The format of the result on standard output.
    #[arg(short, long, value_name = "FORMAT", default_value = "human")]
    pub output: Format,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub progress: ProgressArgs,
    /// Record nothing of this run on disk: it cannot be resumed.
    #[arg(long)]
    pub no_journal: bool,
    /// Run this shell command after the run, also after an interrupted one, with the document of -o json on its
    /// standard input.
    ///
    /// It has 60 seconds, then it is killed. That it fails is a warning and changes no exit status.
    #[arg(long, value_name = "COMMAND", value_hint = ValueHint::CommandString)]
    pub on_finish: Option<String>,
    /// Write a report at the end: the document of -o json to FILE.json, JUnit XML to FILE.xml, a page for people to
    /// FILE.html, metrics for node_exporter's textfile collector to FILE.prom; repeatable.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, value_parser = report_file())]
    pub report: Vec<ReportFile>,
}

/// What is shown beside the result.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub struct ProgressArgs {
    /// How progress is shown on standard error.
    #[arg(long, value_name = "HOW", default_value = "auto", value_parser = choice::<ProgressStyle>())]
    pub progress: ProgressStyle,
    /// When to use colour.
    #[arg(long, value_name = "WHEN", default_value = "auto", value_parser = choice::<ColorChoice>())]
    pub color: ColorChoice,
    /// Print nothing but failures.
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Print every step of every node.
    #[arg(short, long)]
    pub verbose: bool,
}
