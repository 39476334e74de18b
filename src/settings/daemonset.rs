//! `pull --via daemonset` and `prepull daemonset`: what is rendered, on which cluster, for which nodes.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};

use super::fleet::{fleet, kubernetes};
use super::{
    Environment, OutputSettings, RunSettings, images, one_reader_of_stdin, output, report_files,
    run,
};
use crate::cli::{
    self, ChoiceArgs, ClusterArgs, FleetArgs, LoginArgs, PlaceArgs, PodArgs, SshArgs,
};
use crate::inventory::{KubernetesQuery, built_in};
use crate::model::{
    DaemonSetSpec, Fleet, Image, LabelRequirement, Node, NodeChoice, Plan, PlannedImage, Policy,
    PullVia, PullWhen, RestVia, Work,
};

/// A DaemonSet, and what is done with it.
#[derive(Debug, Clone)]
pub struct DaemonSetSettings {
    /// The cluster.
    pub query: KubernetesQuery,
    /// What is rendered. Its mode may still be auto.
    pub spec: DaemonSetSpec,
    /// Whether the namespace is created where it is not there.
    pub creates_namespace: bool,
    /// What is done.
    pub task: DaemonSetTask,
}

/// What is done with a DaemonSet in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DaemonSetTask {
    /// Apply it and wait for its pods.
    Pull {
        /// Leave it there at the end.
        leave: bool,
        /// What becomes of nodes without a pod.
        rest: RestVia,
    },
    /// Say what became of one that is there.
    Status {
        /// Say how things stand, and wait for nothing.
        is_snapshot: bool,
    },
}

impl DaemonSetSettings {
    /// Whether nodes without a pod pull over SSH.
    pub fn falls_back_to_ssh(&self) -> bool {
        matches!(
            self.task,
            DaemonSetTask::Pull {
                rest: RestVia::Ssh,
                ..
            }
        )
    }
}

/// The labels of nodes of the control plane, the present one and that of before 1.20.
const CONTROL_PLANE: [&str; 2] = [
    "node-role.kubernetes.io/control-plane",
    "node-role.kubernetes.io/master",
];

/// `pull --via daemonset`: the DaemonSet for this fleet; `None` for any other way to pull.
pub(super) fn of_pull(
    args: &cli::PullArgs,
    images: &[Image],
    nodes: &Fleet,
    ambient: &Environment,
) -> Result<Option<DaemonSetSettings>> {
    if args.via != PullVia::DaemonSet {
        let is_pod_option = args.leave
            || args.rest != RestVia::None
            || !args.pods.toleration.is_empty()
            || !args.pods.image_pull_secret.is_empty()
            || args.pods.priority_class.is_some()
            || args.pods.create_namespace;
        if is_pod_option {
            bail!("--leave, --rest and the options of pods need --via daemonset");
        }
        return Ok(None);
    }
    let policy = &args.course.policy;
    let refused = [
        (
            !args.reach.fleet.kube,
            "--kube is needed: the DaemonSet is for nodes of a cluster",
        ),
        (
            !policy.waves.is_empty(),
            "--waves: pods start on all nodes at once",
        ),
        (
            policy.max_failures.is_some(),
            "--max-failures: pods start on all nodes at once",
        ),
        (
            args.per_registry.is_some(),
            "--per-registry: the kubelets pull by themselves",
        ),
        (args.forecast, "--forecast asks nodes over SSH"),
        (
            args.keep || args.keep_for.is_some(),
            "--keep pins images over SSH; with --leave the pods go on using them, and the kubelet keeps what is used",
        ),
        (args.fan_out, "--fan-out: pods pull from the registry"),
        (args.preflight, "--preflight asks nodes over SSH"),
        (
            args.pin_digest,
            "--pin-digest: name the image by its digest instead",
        ),
        (
            args.platform.is_some(),
            "--platform: kubelets pull for their own platform",
        ),
        (
            args.min_rate.is_some(),
            "--min-rate: what arrives is not seen",
        ),
        (
            args.rest == RestVia::None
                && (args.registry.registry_user.is_some()
                    || args.registry.auth_file.is_some()
                    || !args.registry.pull_secret.is_empty()),
            "prepull sends no login: the kubelets take pull secrets of the DaemonSet's namespace (--image-pull-secret)",
        ),
    ];
    if let Some((_, why)) = refused.iter().find(|(is_so, _)| *is_so) {
        bail!("--via daemonset: {why}");
    }
    let choice = nodes_of(&args.reach.fleet, Some(nodes))?;
    Ok(Some(DaemonSetSettings {
        query: kubernetes(&args.reach.fleet, ambient),
        spec: spec(images.to_vec(), &args.place, &args.pods, args.pull, choice)?,
        creates_namespace: args.pods.create_namespace,
        task: DaemonSetTask::Pull {
            leave: args.leave,
            rest: args.rest,
        },
    }))
}

/// Which nodes: by labels, which hold for nodes to come as well, or by name where labels do not say it.
fn nodes_of(args: &FleetArgs, nodes: Option<&Fleet>) -> Result<NodeChoice> {
    let is_by_name = !args.limit.is_empty()
        || !args.exclude.is_empty()
        || args.ready_only
        || args.schedulable_only
        || args.field_selector.is_some();
    // What the API says of every node; others are named by an inventory alone.
    let in_cluster = nodes.map(|nodes| {
        nodes
            .nodes()
            .iter()
            .filter(|node| node.facts.contains_key("ready"))
    });
    let names = in_cluster
        .filter(|_| is_by_name)
        .map(|nodes| nodes.map(|node| node.name.clone()).collect());
    let selector = args.selector.as_deref().unwrap_or_default();
    let mut labels = LabelRequirement::parse_all(selector)
        .map_err(anyhow::Error::msg)
        .context("--selector")?;
    if !args.include_control_plane {
        labels.extend(CONTROL_PLANE.map(LabelRequirement::without));
    }
    Ok(NodeChoice { labels, names })
}

fn spec(
    images: Vec<Image>,
    place: &PlaceArgs,
    pods: &PodArgs,
    pull: PullWhen,
    nodes: NodeChoice,
) -> Result<DaemonSetSpec> {
    for (option, image) in [
        ("--no-op-image", &pods.no_op_image),
        ("--pause-image", &pods.pause_image),
    ] {
        image.parse::<Image>().context(option)?;
    }
    Ok(DaemonSetSpec {
        name: place.name.clone(),
        namespace: place.namespace.clone(),
        images,
        always_pull: pull == PullWhen::Always,
        mode: pods.pod_mode,
        no_op_image: pods.no_op_image.clone(),
        pause_image: pods.pause_image.clone(),
        tolerations: pods.toleration.clone(),
        pull_secrets: pods.image_pull_secret.clone(),
        priority_class: pods.priority_class.clone(),
        nodes,
    })
}

/// The options for a fleet out of a cluster.
fn fleet_args(cluster: &ClusterArgs, choice: Option<&ChoiceArgs>) -> FleetArgs {
    let mut args = FleetArgs {
        kube: true,
        kubeconfig: cluster.kubeconfig.clone(),
        context: cluster.context.clone(),
        ..FleetArgs::default()
    };
    if let Some(choice) = choice {
        args.selector.clone_from(&choice.labels.selector);
        args.include_control_plane = choice.labels.include_control_plane;
        args.ready_only = choice.ready_only;
        args.schedulable_only = choice.schedulable_only;
        args.limit.clone_from(&choice.limit);
        args.exclude.clone_from(&choice.exclude);
    }
    args
}

/// The nodes, to which nobody logs in.
fn nodes_in(args: &FleetArgs, ambient: &Environment) -> Result<Fleet> {
    let login = LoginArgs::default();
    let found = fleet(args, &login, None, ambient, &built_in("nobody"))?;
    let nodes = found.nodes().iter().map(|node| Node {
        user: String::new(),
        ..node.clone()
    });
    Ok(Fleet::new(nodes.collect())?.with_warnings(found.warnings().to_vec()))
}

/// `daemonset render`: what to print, and what to warn about.
///
/// # Errors
/// Whatever is wrong with images or options.
pub fn daemonset_render(
    args: &cli::RenderArgs,
    ambient: &Environment,
) -> Result<(DaemonSetSpec, Vec<String>)> {
    let fleet = FleetArgs {
        selector: args.labels.selector.clone(),
        include_control_plane: args.labels.include_control_plane,
        ..FleetArgs::default()
    };
    let (images, warnings) = images(&args.wanted.images, &args.wanted.named, ambient)?;
    let choice = nodes_of(&fleet, None)?;
    let spec = spec(images, &args.place, &args.pods, args.pull, choice)?;
    Ok((spec, warnings))
}

/// `daemonset apply`: the DaemonSet, the nodes that it is for, and what to warn about.
///
/// # Errors
/// Whatever is wrong with images, options or the cluster.
pub fn daemonset_apply(
    args: &cli::ApplyArgs,
    ambient: &Environment,
) -> Result<(DaemonSetSettings, Fleet, Vec<String>)> {
    one_reader_of_stdin(&FleetArgs::default(), &args.wanted.named.manifests, false)?;
    let (images, warnings) = images(&args.wanted.images, &args.wanted.named, ambient)?;
    let fleet_args = fleet_args(&args.cluster, Some(&args.choice));
    let fleet = nodes_in(&fleet_args, ambient)?;
    let choice = nodes_of(&fleet_args, Some(&fleet))?;
    let settings = DaemonSetSettings {
        query: kubernetes(&fleet_args, ambient),
        spec: spec(images, &args.place, &args.pods, args.pull, choice)?,
        creates_namespace: args.pods.create_namespace,
        task: DaemonSetTask::Status { is_snapshot: true },
    };
    Ok((settings, fleet, warnings))
}

/// The cluster and the DaemonSet that are meant, of which nothing is known but its name.
pub fn daemonset_named(
    cluster: &ClusterArgs,
    place: &PlaceArgs,
    ambient: &Environment,
) -> (KubernetesQuery, DaemonSetSpec) {
    let spec = DaemonSetSpec {
        name: place.name.clone(),
        namespace: place.namespace.clone(),
        ..DaemonSetSpec::default()
    };
    (kubernetes(&fleet_args(cluster, None), ambient), spec)
}

/// `daemonset status`, of a DaemonSet that was read.
///
/// # Errors
/// Whatever is wrong with options or the cluster.
pub fn daemonset_status(
    args: &cli::StatusArgs,
    spec: DaemonSetSpec,
    ambient: &Environment,
) -> Result<RunSettings> {
    let reports = report_files(&args.output.report, ambient)?;
    let mut fleet_args = fleet_args(&args.cluster, Some(&args.choice));
    let is_chosen = fleet_args.selector.is_some() || fleet_args.include_control_plane;
    // All that the DaemonSet is for, unless it is said which.
    fleet_args.include_control_plane |= !is_chosen;
    let mut fleet = nodes_in(&fleet_args, ambient)?;
    if !is_chosen {
        let nodes = fleet
            .nodes()
            .iter()
            .filter(|node| spec.nodes.chooses(&node.name, &node.labels));
        fleet = Fleet::new(nodes.cloned().collect())
            .context("the DaemonSet's node selector matches no node of the cluster")?;
    }
    let policy = Policy {
        retries: args.retries,
        deadline: args.deadline,
        pull_timeout: Some(args.pull_timeout).filter(|limit| !limit.is_zero()),
        unseen_timeout: None,
        via: PullVia::DaemonSet,
        ..Policy::default()
    };
    let planned = spec.images.iter().map(|image| PlannedImage {
        image: image.clone(),
        login: None,
    });
    let plan = Plan::new(fleet, Work::Pull(planned.collect()), policy);
    let output = OutputSettings {
        format: args.output.output,
        journal: false,
        ..output(&args.output.progress)
    };
    Ok(RunSettings {
        reports,
        on_finish: args.output.on_finish.clone(),
        daemonset: Some(Arc::new(DaemonSetSettings {
            query: kubernetes(&fleet_args, ambient),
            spec,
            creates_namespace: false,
            task: DaemonSetTask::Status {
                is_snapshot: args.no_wait,
            },
        })),
        ..run(plan, &SshArgs::default(), false, output, ambient)?
    })
}
