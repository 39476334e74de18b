//! The options of `prepull daemonset`, and those that `pull --via daemonset` shares with it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::ManifestArgs;
use super::help;
use super::options::OutputArgs;
use super::values::{choice, duration, name, positive_duration, toleration, whole};
use crate::model::{PodMode, PullWhen, Toleration};

/// `prepull daemonset`.
#[allow(clippy::large_enum_variant)] // there is one in a process
#[derive(Debug, Subcommand)]
pub enum DaemonSetCommand {
    /// Print the DaemonSet as YAML, or with --rbac the roles that prepull needs. Asks no cluster.
    #[command(help_template = help::TEMPLATE, before_help = help::DAEMONSET_RENDER)]
    Render(RenderArgs),
    /// Create the DaemonSet, or change one that is there, and return.
    ///
    /// Checks first whether you may do all that is needed until it is removed.
    #[command(help_template = help::TEMPLATE, before_help = help::DAEMONSET_APPLY)]
    Apply(ApplyArgs),
    /// Say what became of every image on every node, and wait until nothing is open.
    #[command(help_template = help::TEMPLATE, before_help = help::DAEMONSET_STATUS, after_help = help::EXIT)]
    Status(StatusArgs),
    /// Delete the DaemonSet. Its pods end by themselves; the images stay on the nodes.
    #[command(help_template = help::TEMPLATE, before_help = help::DAEMONSET_REMOVE)]
    Remove(RemoveArgs),
}

/// `prepull daemonset render`.
#[derive(Debug, Args)]
#[command(mut_arg("namespace", |arg| arg.short('n')))]
#[command(mut_arg("images", |arg| arg.required_unless_present("rbac")))]
pub struct RenderArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub wanted: WantedArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: PlaceArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub pods: PodArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub labels: LabelArgs,
    /// Whether to pull what a node already holds.
    #[arg(long, value_name = "WHEN", default_value = "missing", value_parser = choice::<PullWhen>(), help_heading = "DaemonSet")]
    pub pull: PullWhen,
    /// Print the roles that prepull needs, with a service account that has them.
    #[arg(long, conflicts_with_all = ["images", "manifests"], help_heading = "Output")]
    pub rbac: bool,
}

/// `prepull daemonset apply`.
#[derive(Debug, Args)]
#[command(mut_arg("namespace", |arg| arg.short('n')))]
pub struct ApplyArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub wanted: WantedArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub cluster: ClusterArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub choice: ChoiceArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: PlaceArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub pods: PodArgs,
    /// Whether to pull what a node already holds.
    #[arg(long, value_name = "WHEN", default_value = "missing", value_parser = choice::<PullWhen>(), help_heading = "DaemonSet")]
    pub pull: PullWhen,
}

/// `prepull daemonset status`.
#[derive(Debug, Args)]
#[command(mut_arg("namespace", |arg| arg.short('n')))]
pub struct StatusArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub cluster: ClusterArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub choice: ChoiceArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: PlaceArgs,
    /// Say how things stand now, and wait for nothing.
    #[arg(long, help_heading = "Policy")]
    pub no_wait: bool,
    /// How many further tries of the kubelet are waited for, of failures that another try can cure.
    #[arg(long, value_name = "N", default_value = "3", value_parser = whole, help_heading = "Policy")]
    pub retries: u32,
    /// The longest to wait for the whole cluster.
    #[arg(long, value_name = "TIME", value_parser = positive_duration, help_heading = "Policy")]
    pub deadline: Option<Duration>,
    /// The longest that nothing may get on in a pod, e.g. 30m; 0 for no limit.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = duration, help_heading = "Policy")]
    pub pull_timeout: Duration,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub output: OutputArgs,
}

/// `prepull daemonset remove`.
#[derive(Debug, Args)]
#[command(mut_arg("namespace", |arg| arg.short('n')))]
pub struct RemoveArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub cluster: ClusterArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: PlaceArgs,
}

/// Which cluster.
#[derive(Debug, Args)]
#[command(next_help_heading = "Cluster")]
pub struct ClusterArgs {
    /// Read this kubeconfig instead of $KUBECONFIG, ~/.kube/config or a pod's own account.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Use this context of the kubeconfig.
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
}

/// Which images.
#[derive(Debug, Args)]
pub struct WantedArgs {
    /// Images, e.g. registry.example:5000/team/app:v2 or app@sha256:...
    #[arg(required_unless_present = "manifests", value_name = "IMAGE")]
    pub images: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub named: ManifestArgs,
}

/// Which nodes, as the DaemonSet itself can say it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Cluster")]
pub struct LabelArgs {
    /// Only nodes with these labels, as kubectl takes them: 'pool=gpu,zone in (a,b)'.
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub selector: Option<String>,
    /// Nodes of the control plane too, not only workers.
    #[arg(long)]
    pub include_control_plane: bool,
}

/// Which of its nodes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Cluster")]
pub struct ChoiceArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub labels: LabelArgs,
    /// Only nodes that are ready.
    #[arg(long)]
    pub ready_only: bool,
    /// Only nodes that are not cordoned.
    #[arg(long)]
    pub schedulable_only: bool,
    /// Only these nodes: names, globs, ~regex, a:b, a:&b, a:!b, @FILE; repeatable.
    #[arg(long, value_name = "PATTERN")]
    pub limit: Vec<String>,
    /// All but these nodes, by the same patterns; repeatable.
    #[arg(long, value_name = "PATTERN")]
    pub exclude: Vec<String>,
}

/// Which DaemonSet.
#[derive(Debug, Args)]
#[command(next_help_heading = "DaemonSet")]
pub struct PlaceArgs {
    /// The DaemonSet's namespace.
    #[arg(long, value_name = "NAME", default_value = "prepull", value_parser = name)]
    pub namespace: String,
    /// The DaemonSet's name.
    #[arg(long, value_name = "NAME", default_value = "prepull", value_parser = name)]
    pub name: String,
}

/// What its pods are like.
#[derive(Debug, Args)]
#[command(next_help_heading = "DaemonSet")]
pub struct PodArgs {
    /// How a pod makes its node pull an image without running anything that is in it.
    #[arg(long, value_name = "MODE", default_value = "auto", value_parser = choice::<PodMode>())]
    pub pod_mode: PodMode,
    /// The taints that its pods tolerate, KEY[=VALUE][:EFFECT] [default: all]; repeatable.
    #[arg(long, value_name = "TAINT", value_parser = toleration)]
    pub toleration: Vec<Toleration>,
    /// A pull secret in the DaemonSet's namespace, with which the kubelets log in; repeatable.
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub image_pull_secret: Vec<String>,
    /// The priority class of its pods.
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub priority_class: Option<String>,
    /// The image whose /bin/busybox, a static program, sleeps in the containers of --pod-mode no-op.
    #[arg(
        long,
        value_name = "IMAGE",
        default_value = "docker.io/library/busybox:musl"
    )]
    pub no_op_image: String,
    /// The image that runs in the pods of --pod-mode image-volume.
    #[arg(
        long,
        value_name = "IMAGE",
        default_value = "registry.k8s.io/pause:3.10"
    )]
    pub pause_image: String,
    /// Create the namespace where it is not there. It is not removed.
    #[arg(long)]
    pub create_namespace: bool,
}
