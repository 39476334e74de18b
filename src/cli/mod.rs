//! The command line as clap definitions, nothing more: what the words mean is decided in `settings`.

#![allow(rustdoc::broken_intra_doc_links, rustdoc::invalid_html_tags)] // the docs are the help texts

mod daemonset;
mod help;
mod options;
mod plugin;
mod values;

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueHint};

pub use daemonset::{
    ApplyArgs, ChoiceArgs, ClusterArgs, DaemonSetCommand, PlaceArgs, PodArgs, RemoveArgs,
    RenderArgs, StatusArgs,
};
pub use options::{
    FleetArgs, LoginArgs, OutputArgs, PolicyArgs, ProgressArgs, ReachArgs, RegistryArgs, RunArgs,
    RuntimeArgs, SshArgs,
};
pub use plugin::{AS_PLUGIN, COMPLETER, PLUGIN, plugin, plugin_arguments};
pub use values::{
    ArchiveForm, Format, HostsFormat, ImageArchive, ImagesFormat, ListFormat, NodesFormat,
    ReportFile, ReportForm, Shell,
};

use values::{
    at_least_one, bytes, choice, duration, factor, image_archive, lease, positive_duration,
    report_file,
};

use crate::model::{Mirror, PullVia, PullWhen, RestVia};

/// Loads container images onto nodes over SSH before a roll-out needs them.
#[derive(Debug, Parser)]
#[command(
    name = "prepull",
    version,
    max_term_width = 100,
    propagate_version = true
)]
#[command(help_template = help::TEMPLATE, before_help = help::PREPULL, after_help = help::EXIT)]
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
    #[command(help_template = help::TEMPLATE, before_help = help::PULL_SHORT, after_help = help::MORE)]
    #[command(before_long_help = help::PULL, after_long_help = help::EXIT)]
    Pull(PullArgs),
    /// Change nothing: does every node hold the images, and the same digest everywhere?
    #[command(help_template = help::TEMPLATE, before_help = help::CHECK_SHORT, after_help = help::MORE)]
    #[command(before_long_help = help::CHECK, after_long_help = help::EXIT)]
    Check(CheckArgs),
    /// Show the resolved fleet; with --probe, what each node is and has.
    #[command(help_template = help::TEMPLATE, before_help = help::NODES_SHORT, after_help = help::MORE)]
    #[command(before_long_help = help::NODES, after_long_help = "")]
    Nodes(NodesArgs),
    /// The host keys of the fleet.
    #[command(subcommand)]
    #[command(help_template = help::TEMPLATE, before_help = help::HOSTS)]
    Hosts(HostsCommand),
    /// Run a command on every node: program and arguments as given, without a shell.
    #[command(help_template = help::TEMPLATE, before_help = help::EXEC_SHORT, after_help = help::MORE)]
    #[command(before_long_help = help::EXEC, after_long_help = help::EXIT)]
    Exec(ExecArgs),
    /// Pull by pods instead of SSH, where you may create a DaemonSet.
    #[command(subcommand, name = "daemonset")]
    #[command(help_template = help::TEMPLATE, before_help = help::DAEMONSET)]
    DaemonSet(DaemonSetCommand),
    /// List or release the images that pull --keep pinned.
    #[command(subcommand)]
    #[command(help_template = help::TEMPLATE, before_help = help::KEEP)]
    Keep(KeepCommand),
    /// The images that Kubernetes manifests name, one a line, each once.
    #[command(help_template = help::TEMPLATE, before_help = help::IMAGES)]
    Images(ImagesArgs),
    /// The runs so far: list them, show what became of one, or write reports of it.
    #[command(subcommand)]
    #[command(help_template = help::TEMPLATE, before_help = help::RUNS)]
    Runs(RunsCommand),
    /// Show the defaults of options that are set in variables and files, and where each came from.
    #[command(help_template = help::TEMPLATE, before_help = help::CONFIG)]
    Config,
    /// Print what a shell needs to complete prepull's options, and nodes, groups and runs.
    #[command(help_template = help::TEMPLATE, before_help = help::COMPLETIONS)]
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print a manual page: of prepull, or of one of its commands.
    #[command(help_template = help::TEMPLATE, before_help = help::MAN)]
    Man {
        /// The command, e.g. pull, or runs show.
        command: Vec<String>,
    },
}

/// `prepull pull`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("asks_for_room").multiple(true))]
#[command(mut_args(|arg| arg.hide_short_help(true)))]
pub struct PullArgs {
    /// Images, e.g. registry.example:5000/team/app:v2 or app@sha256:...
    #[arg(required_unless_present_any = ["resume", "manifests"], value_name = "IMAGE")]
    pub images: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub named: ManifestArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub reach: ReachArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub registry: RegistryArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub runtime: RuntimeArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub course: RunArgs,
    /// Go on with what this run left undone or failed, and nothing else: its name, or last for the last pull. Its
    /// images, nodes and options hold again; options given now come on top.
    #[arg(long, value_name = "RUN", conflicts_with_all = ["images", "manifests", "inventory", "hosts"], help_heading = "Policy")]
    pub resume: Option<String>,
    /// The longest one attempt at a pull may take, e.g. 30m; 0 for no limit.
    ///
    /// Without it there is a limit of 1h on nodes where it cannot be seen what arrives, and --stall-timeout on all
    /// others. Waiting for another run's pull of the same image on the node counts; without a limit, that wait ends
    /// after an hour.
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = "Policy")]
    pub pull_timeout: Option<Duration>,
    /// Require one digest on every node: what the registry gives the first node that asks it.
    ///
    /// Every node asks the registry, whether it holds the image or not. A node that gets another digest, because the
    /// tag was moved meanwhile, fails.
    #[arg(long, help_heading = "Policy")]
    pub pin_digest: bool,
    /// Ask every node before any of them pulls: does its runtime answer, what is there, is there room, is its clock
    /// right, does its runtime reach the registry?
    ///
    /// The registry is asked once, from here, how large the images are. A node that is not ready fails, the others
    /// pull; with --max-failures 1 nothing is pulled unless every node is ready. --resume asks again only where
    /// --preflight is given with it.
    #[arg(long, help_heading = "Policy", group = "asks_for_room")]
    pub preflight: bool,
    /// Pull nothing: ask every node and the registry, and say what the pull would cost.
    ///
    /// Per node: the bytes of the layers that it lacks, whether there is room, and whether its kubelet would start to
    /// collect images. For the fleet: the bytes that the registry sends, ordinarily and with --via ssh, and the time, by
    /// what earlier runs on these nodes took. A later pull of the same images on the same nodes is compared with it.
    #[arg(long, conflicts_with_all = ["dry_run", "resume", "from", "fan_out", "report", "on_finish"], help_heading = "Policy", group = "asks_for_room")]
    pub forecast: bool,
    /// How large images are once unpacked, against what the registry sends; --preflight and --forecast want room for
    /// both.
    #[arg(long, value_name = "FACTOR", default_value = "2.5", value_parser = factor, requires = "asks_for_room", help_heading = "Policy")]
    pub unpack_factor: f64,
    /// Pin the images, so that the kubelet's garbage collection leaves them alone until they are released.
    ///
    /// containerd 2 can do that. For every other node the summary says what the kubelet there will do, and when. `prepull
    /// keep list` shows the pins, `prepull keep release` takes them off.
    #[arg(long, conflicts_with = "forecast", help_heading = "Policy")]
    pub keep: bool,
    /// Like --keep, for this time, e.g. 7d: afterwards `prepull check` reminds you to release the images.
    #[arg(long, value_name = "TIME", value_parser = positive_duration, conflicts_with = "forecast", help_heading = "Policy")]
    pub keep_for: Option<Duration>,
    /// At most so many nodes pull from one registry at one time.
    #[arg(long, value_name = "N", value_parser = at_least_one, help_heading = "Policy")]
    pub per_registry: Option<u32>,
    /// The longest a pull may go without a byte arriving, e.g. 5m; 0 for no limit.
    ///
    /// Then it is cancelled on the node and tried again. Only where it can be seen what arrives: with docker, and as
    /// root with containerd, and with CRI-O and podman from their first byte on.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration, help_heading = "Policy")]
    pub stall_timeout: Duration,
    /// The fewest bytes a second, e.g. 50kB, over the stall time-out; a pull below that counts as stalled.
    #[arg(long, value_name = "BYTES", value_parser = bytes, help_heading = "Policy")]
    pub min_rate: Option<u64>,
    /// How long a pull goes on by itself when its node's connection is lost, before it is cancelled.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = lease, help_heading = "Policy")]
    pub lease: Duration,
    /// Connections to nodes at one time: with a higher --parallel, pulls that run well go on without one.
    ///
    /// Such a pull is visited when it should be done, and at the latest after half its --lease; its node ends it by
    /// itself at --stall-timeout and --pull-timeout. Pulls through SSH keep their connections.
    #[arg(long, value_name = "N", default_value = "256", value_parser = at_least_one, help_heading = "Policy")]
    pub connections: u32,
    /// Where nodes pull from: their registries, or this machine, through the SSH connections; or by pods, without SSH.
    ///
    /// With ssh a registry sends each layer once, to this machine, and nodes need no way to it. A node where that cannot
    /// be done pulls from the registry, and the summary says why; with ssh-only it fails instead, no node asks a registry,
    /// and no registry login is sent to a node.
    #[arg(
        long,
        value_name = "WHERE",
        default_value = "registry",
        value_parser = choice::<PullVia>(),
        help_heading = "Through SSH"
    )]
    pub via: PullVia,
    /// What to do about nodes that the DaemonSet has no pod on, with --via daemonset.
    #[arg(
        long,
        value_name = "WAY",
        default_value = "none",
        value_parser = choice::<RestVia>(),
        help_heading = "DaemonSet"
    )]
    pub rest: RestVia,
    /// Leave the DaemonSet there at the end, with --via daemonset: new nodes pull the images as well.
    #[arg(long, help_heading = "DaemonSet")]
    pub leave: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: PlaceArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub pods: PodArgs,
    /// Take the images from these files instead of their registries, with --via ssh: oci:DIR, oci-archive:FILE or
    /// docker-archive:FILE; repeatable.
    ///
    /// An image layout as a folder or a tar, or what `docker save` writes.
    #[arg(long, value_name = "FORM:PATH", value_parser = image_archive(), help_heading = "Through SSH")]
    pub from: Vec<ImageArchive>,
    /// Ask this host before the registries, or before the one that is named; repeatable, the first one first.
    ///
    /// With --via ssh it is asked for images, with --preflight for their sizes: questions of nodes go where their own
    /// configuration says. A mirror is asked by HTTPS and without a login; the registry is asked for what no mirror has.
    #[arg(
        long,
        value_name = "[REGISTRY=]HOST[:PORT]",
        help_heading = "Through SSH"
    )]
    pub mirror: Vec<Mirror>,
    /// The most that is sent through SSH a second, to all nodes together, e.g. 50MB.
    #[arg(long, value_name = "BYTES", value_parser = bytes, help_heading = "Through SSH")]
    pub upload_limit: Option<u64>,
    /// How much is kept on this machine of what was sent through SSH; the least recently used goes first.
    #[arg(long, value_name = "BYTES", default_value = "20GB", value_parser = bytes, help_heading = "Through SSH")]
    pub cache_limit: u64,
    /// Have nodes pass images on to each other: the registry sends each layer once, whatever the number of nodes.
    ///
    /// A small program (a relay) runs on each node for the length of the run, as the user who logs in, and nothing is left of
    /// it. Nodes must reach each other's ports. A node where that cannot be done pulls from the registry, and the
    /// summary says why; when more than a tenth do, no more nodes are started.
    #[arg(long, help_heading = "Fan-out")]
    pub fan_out: bool,
    /// The port that nodes listen on for each other, where a firewall must let it through; else one of the kernel's choice.
    #[arg(long, value_name = "PORT", requires = "fan_out", value_parser = clap::value_parser!(u16).range(1..), help_heading = "Fan-out")]
    pub fan_out_port: Option<u16>,
    /// The most that a node sends to others a second, e.g. 50MB.
    #[arg(long, value_name = "BYTES", requires = "fan_out", value_parser = bytes, help_heading = "Fan-out")]
    pub fan_out_max_upload: Option<u64>,
    /// Whether to pull what a node already holds.
    #[arg(
        long,
        value_name = "WHEN",
        default_value = "missing",
        value_parser = choice::<PullWhen>(),
        help_heading = "Policy"
    )]
    pub pull: PullWhen,
    /// Ask the registry for this platform instead of the node's own (docker only).
    #[arg(long, value_name = "OS/ARCH", help_heading = "Policy")]
    pub platform: Option<String>,
}

/// `prepull images`.
#[derive(Debug, Args)]
pub struct ImagesArgs {
    /// Manifests, a folder of them, or - for standard input, e.g. what helm template prints; repeatable.
    #[arg(short = 'f', long = "file", required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Refuse manifests with something that looks like an image and is not understood, instead of warning of it.
    #[arg(long)]
    pub images_strict: bool,
    /// What to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "name")]
    pub output: ImagesFormat,
}

/// Images that manifests name.
#[derive(Debug, Args)]
pub struct ManifestArgs {
    /// The images that these Kubernetes manifests name: a file, a folder, or - for standard input; repeatable.
    #[arg(long, value_name = "FILE", help_heading = "Images")]
    pub manifests: Vec<PathBuf>,
    /// Refuse manifests with something that looks like an image and is not understood, instead of warning of it.
    #[arg(long, requires = "manifests", help_heading = "Images")]
    pub images_strict: bool,
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
        #[arg(default_value = "last")]
        run: String,
        /// How to print it.
        #[arg(short, long, value_name = "FORMAT", default_value = "human")]
        output: Format,
    },
    /// Write reports of a run, as far as it came.
    Report {
        /// Its name, the beginning of it, or last.
        #[arg(default_value = "last")]
        run: String,
        /// A page for people, whatever the file's name ends with.
        #[arg(long, value_name = "FILE", required_unless_present = "report")]
        html: Option<PathBuf>,
        /// By what the file's name ends with: .json, .xml (JUnit), .html or .prom (metrics); repeatable.
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, value_parser = report_file())]
        report: Vec<ReportFile>,
    },
}

/// `prepull check`.
#[derive(Debug, Args)]
#[command(mut_args(|arg| arg.hide_short_help(true)))]
pub struct CheckArgs {
    /// Images to look for.
    #[arg(required_unless_present = "manifests", value_name = "IMAGE")]
    pub images: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub named: ManifestArgs,
    /// An image that a node holds for another platform than this is a failure.
    #[arg(long, value_name = "OS/ARCH", help_heading = "Policy")]
    pub platform: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub reach: ReachArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub runtime: RuntimeArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub course: RunArgs,
}

/// The options of `prepull nodes` that say what the fleet is. All others are for the connection that only --probe makes,
/// and are refused without it.
const SHOWN_WITHOUT_PROBE: [&str; 27] = [
    "probe",
    "output",
    // FleetArgs
    "inventory",
    "hosts",
    "kube",
    "kubeconfig",
    "context",
    "selector",
    "field_selector",
    "address_type",
    "include_control_plane",
    "ready_only",
    "schedulable_only",
    "limit",
    "exclude",
    // LoginArgs
    "user",
    "port",
    "identity",
    "jump",
    "ssh_config",
    "become",
    "ask_become_pass",
    "become_password_file",
    // RuntimeArgs
    "runtime",
    "runtime_endpoint",
    // clap's own
    "help",
    "version",
];

/// `prepull nodes`.
#[derive(Debug, Args)]
#[command(mut_args(|arg| match arg.get_id().as_str() {
    // No node is sent a login.
    "allow_disk_credentials" => arg.requires("probe").hide(true),
    id if SHOWN_WITHOUT_PROBE.contains(&id) => arg,
    _ => arg.requires("probe"),
}.hide_short_help(true)))]
pub struct NodesArgs {
    /// Images to look for on every node.
    #[arg(value_name = "IMAGE")]
    pub images: Vec<String>,
    /// Connect, and show what each node is and has: system, runtime and version, free space, clock, images.
    ///
    /// Where images are named: is there room for those that are missing, and can the node's runtime resolve, reach and
    /// trust their registry? How large they are, the registry is asked from here; the login is for that alone.
    #[arg(long)]
    pub probe: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub reach: ReachArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub registry: RegistryArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub runtime: RuntimeArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub policy: PolicyArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub progress: ProgressArgs,
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

/// `prepull hosts`.
#[allow(clippy::large_enum_variant)] // there is one in a process
#[derive(Debug, Subcommand)]
pub enum HostsCommand {
    /// Show the host key of every node and jump host, and record the new ones once that is confirmed.
    ///
    /// Nodes are not logged in to; jump hosts are, to reach the nodes behind them.
    #[command(help_template = help::TEMPLATE, before_help = help::HOSTS)]
    Scan(ScanArgs),
}

/// The options of [`ReachArgs`] that say nothing to `prepull hosts scan`.
const HIDDEN_FROM_SCAN: [&str; 6] = [
    "ask_pass",
    "ssh_password_file",
    "ask_become_pass",
    "become_password_file",
    "become",
    "host_keys",
];

/// `prepull hosts scan`.
#[derive(Debug, Args)]
// No node is logged in to.
#[command(mut_args(|arg| {
    let is_hidden = HIDDEN_FROM_SCAN.contains(&arg.get_id().as_str());
    arg.hide(is_hidden)
}))]
pub struct ScanArgs {
    /// Record new keys without asking. A changed key is never recorded.
    #[arg(short, long)]
    pub yes: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub reach: ReachArgs,
    /// How to print it.
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        default_value = "human",
        help_heading = "Output"
    )]
    pub output: HostsFormat,
}

/// `prepull keep`.
#[allow(clippy::large_enum_variant)] // there is one in a process
#[derive(Debug, Subcommand)]
pub enum KeepCommand {
    /// Show on every node which image names prepull pinned, and until when they are wanted.
    #[command(help_template = help::TEMPLATE, before_help = help::KEEP, after_help = help::EXIT)]
    List(KeptArgs),
    /// Take prepull's pins off every image name on every node: the kubelet may remove the images again.
    ///
    /// Pins that something else made stay.
    #[command(help_template = help::TEMPLATE, before_help = help::KEEP, after_help = help::EXIT)]
    Release(KeptArgs),
}

/// `prepull keep list` and `prepull keep release`.
#[derive(Debug, Args)]
pub struct KeptArgs {
    /// Only these images, by default all that prepull pinned.
    #[arg(value_name = "IMAGE")]
    pub images: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub reach: ReachArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub course: RunArgs,
}

/// `prepull exec`.
#[derive(Debug, Args)]
#[command(mut_args(|arg| arg.hide_short_help(true)))]
pub struct ExecArgs {
    /// The program and its arguments, after `--`. For pipes and variables name a shell: -- sh -c '...'
    #[arg(required = true, last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub reach: ReachArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub course: RunArgs,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    /// `-h` is written by hand: it must fit a screen, and name what there is.
    #[test]
    fn the_short_help_fits_a_screen_and_names_options_that_there_are() {
        let mut cli = Cli::command();
        cli.build();
        for name in ["pull", "check", "nodes", "exec"] {
            let mut command = cli.find_subcommand(name).unwrap().clone();
            let text = command.render_help().to_string();
            let lines: Vec<&str> = text.lines().collect();
            assert!(lines.len() <= 24, "{name}: {} lines:\n{text}", lines.len());
            assert!(lines.iter().all(|line| line.len() <= 80), "{text}");
            let words = text.split(|c: char| c.is_whitespace() || ",;()".contains(c));
            let options: Vec<&str> = words.filter(|word| word.starts_with("--")).collect();
            assert!(options.len() >= 8, "{options:?}");
            for option in options {
                let long = option.trim_start_matches("--").trim_end_matches('.');
                let is_known = |arg: &clap::Arg| arg.get_long() == Some(long);
                assert!(
                    long.is_empty() || command.get_arguments().any(is_known),
                    "{name}: {option}"
                );
            }
            let long = command.render_long_help().to_string();
            assert!(long.lines().count() > 60, "{name}: {long}");
        }
    }

    /// clap knows options by the names of their fields, which a renaming would leave behind here.
    #[test]
    fn options_that_are_named_as_text_are_there() {
        let mut cli = Cli::command();
        cli.build();
        let nodes = cli.find_subcommand("nodes").unwrap();
        let scan = cli.find_subcommand("hosts").unwrap();
        let scan = scan.find_subcommand("scan").unwrap();
        for (command, names) in [
            (nodes, &SHOWN_WITHOUT_PROBE[..]),
            (scan, &HIDDEN_FROM_SCAN[..]),
        ] {
            let ids: Vec<&str> = command
                .get_arguments()
                .map(|arg| arg.get_id().as_str())
                .collect();
            for name in names {
                assert!(
                    ids.contains(name),
                    "{}: {name}: {ids:?}",
                    command.get_name()
                );
            }
        }
    }

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
        plugin().debug_assert();
    }
}
