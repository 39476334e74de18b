//! `prepull daemonset`, and the run of `pull --via daemonset`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use tokio::sync::{mpsc, watch};

use super::exit::Exit;
use crate::cli::{ApplyArgs, RemoveArgs, RenderArgs, StatusArgs};
use crate::daemonset::{self, Purpose, Session};
use crate::engine::{self, Finish, Supply};
use crate::inventory::InputError;
use crate::model::text::format_count;
use crate::model::{
    DaemonSetSpec, EventKind, FailureKind, Fleet, NodeRecord, Outcome, Plan, PullVia, Record,
    StopReason,
};
use crate::ports::CredentialSource;
use crate::report;
use crate::runtime;
use crate::settings::{self, DaemonSetSettings, DaemonSetTask, Environment, RunSettings};
use crate::ssh::SshTransport;

/// How long the API may take to delete the DaemonSet at the end.
const REMOVE_LIMIT: Duration = Duration::from_secs(20);

/// `prepull daemonset render`.
pub(super) fn render(args: &RenderArgs, ambient: &Environment) -> Result<Exit> {
    let (spec, warnings) = settings::daemonset_render(args, ambient)?;
    super::warn(&warnings);
    let creates_namespace = args.pods.create_namespace;
    let mut objects = Vec::new();
    if creates_namespace {
        objects.push(daemonset::namespace(&spec));
    }
    match args.rbac {
        true => objects.extend(daemonset::rbac(&spec, creates_namespace)),
        false => objects.push(daemonset::daemonset(&spec)),
    }
    report::print_stdout(&daemonset::documents(&objects))?;
    Ok(Exit::Success)
}

/// `prepull daemonset apply`.
pub(super) fn apply(args: &ApplyArgs, ambient: &Environment) -> Result<Exit> {
    let (settings, fleet, warnings) = settings::daemonset_apply(args, ambient)?;
    super::warn(&warnings);
    let tokio = runtime()?;
    let session = Session::open(&settings.query)?;
    let spec = tokio.block_on(async {
        let spec = prepared(&session, &settings, &fleet).await?;
        daemonset::apply(&session, &spec).await?;
        Ok::<_, InputError>(spec)
    });
    let spec = spec.map_err(|fault| at(&session, &fault))?;
    let nodes = format_count(fleet.nodes().len(), "node");
    report::print_stdout(&format!(
        "daemonset {}/{} applied for {nodes} ({})\nWhat becomes of it: prepull daemonset status -n {} --name {}\n",
        spec.namespace,
        spec.name,
        spec.mode.as_str(),
        spec.namespace,
        spec.name
    ))?;
    Ok(Exit::Success)
}

/// `prepull daemonset status`, as a run.
pub(super) fn status(args: &StatusArgs, ambient: &Environment) -> Result<RunSettings> {
    let (query, spec) = settings::daemonset_named(&args.cluster, &args.place, ambient);
    let session = Session::open(&query)?;
    let spec = runtime()?.block_on(daemonset::read(&session, &spec));
    let spec = spec.map_err(|fault| at(&session, &fault))?;
    settings::daemonset_status(args, spec, ambient)
}

/// `prepull daemonset remove`.
pub(super) fn remove(args: &RemoveArgs, ambient: &Environment) -> Result<Exit> {
    let (query, spec) = settings::daemonset_named(&args.cluster, &args.place, ambient);
    let session = Session::open(&query)?;
    let removed = runtime()?.block_on(daemonset::remove(&session, &spec));
    let said = match removed.map_err(|fault| at(&session, &fault))? {
        true => "removed; its pods end by themselves, the images stay",
        false => "is not there",
    };
    report::print_stdout(&format!(
        "daemonset {}/{} {said}\n",
        spec.namespace, spec.name
    ))?;
    Ok(Exit::Success)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Runtime::new().context("cannot start the tokio runtime")
}

/// A fault with the cluster that it comes from.
fn at(session: &Session, fault: &InputError) -> anyhow::Error {
    anyhow!("Kubernetes at {}: {fault}", session.url())
}

/// The DaemonSet with its mode, once it is known that it can be made: its namespace is there if it was to be created.
async fn prepared(
    session: &Session,
    settings: &DaemonSetSettings,
    fleet: &Fleet,
) -> Result<DaemonSetSpec, InputError> {
    let spec = &settings.spec;
    daemonset::check_access(session, spec, settings.creates_namespace).await?;
    if settings.creates_namespace {
        daemonset::create_namespace(session, spec).await?;
    }
    let mode = daemonset::resolve_mode(session, spec, fleet).await?;
    Ok(DaemonSetSpec {
        mode,
        ..spec.clone()
    })
}

/// A run by pods.
pub(super) struct PodRun {
    session: Session,
    spec: DaemonSetSpec,
    task: DaemonSetTask,
}

impl PodRun {
    /// Everything that can be found wrong before the DaemonSet is there; `None` for a run over SSH.
    pub(super) async fn prepare(settings: &RunSettings) -> Result<Option<Self>> {
        let Some(daemonset) = &settings.daemonset else {
            return Ok(None);
        };
        let session = Session::open(&daemonset.query)?;
        let spec = match daemonset.task {
            DaemonSetTask::Status { .. } => daemonset.spec.clone(),
            DaemonSetTask::Pull { .. } => {
                let fleet = &settings.plan.fleet;
                let prepared = prepared(&session, daemonset, fleet).await;
                prepared.map_err(|fault| at(&session, &fault))?
            }
        };
        Ok(Some(Self {
            session,
            spec,
            task: daemonset.task,
        }))
    }

    /// What is left in the cluster when the program ends at once; nothing where that is as it was.
    pub(super) fn left_behind(&self) -> Option<String> {
        matches!(self.task, DaemonSetTask::Pull { leave: false, .. }).then(|| {
            let DaemonSetSpec { namespace, name, .. } = &self.spec;
            format!("; the DaemonSet may still be there: prepull daemonset remove -n {namespace} --name {name}")
        })
    }

    /// Applies the DaemonSet, waits for its pods, and takes it away.
    ///
    /// # Errors
    /// It could not be applied.
    pub(super) async fn run(
        &self,
        plan: &Plan,
        transport: Option<&SshTransport>,
        logins: &dyn CredentialSource,
        facts: mpsc::Sender<(Duration, EventKind)>,
        stop: watch::Receiver<Option<StopReason>>,
    ) -> Result<Finish> {
        let began = Instant::now();
        let purpose = match (self.task, transport) {
            (DaemonSetTask::Status { is_snapshot: true }, _) => Purpose::Snapshot,
            (DaemonSetTask::Pull { .. }, Some(_)) => Purpose::WaitForPods,
            _ => Purpose::Wait,
        };
        let is_pull = matches!(self.task, DaemonSetTask::Pull { .. });
        if is_pull {
            let applied = daemonset::apply(&self.session, &self.spec).await;
            applied.map_err(|fault| at(&self.session, &fault))?;
        }
        let waited = daemonset::wait(
            &self.session,
            &self.spec,
            plan,
            purpose,
            facts.clone(),
            stop.clone(),
        );
        let waited = waited.await.map_err(|fault| at(&self.session, &fault));
        let ended = match waited {
            Ok(ended) => ended,
            Err(error) => {
                self.clean_up().await;
                return Err(error);
            }
        };
        if !ended.joined.is_empty() {
            let names: Vec<&str> = ended.joined.iter().map(String::as_str).collect();
            let named = super::runs::named(&names);
            super::warn(&[format!(
                "joined the cluster meanwhile, and not in this report: {named}"
            )]);
        }
        let (mut nodes, mut stopped) = (ended.nodes, ended.stopped);
        if let Some(transport) = transport {
            let rest = Rest { plan, began, facts };
            stopped = rest.run(&mut nodes, stopped, transport, logins, stop).await;
        }
        self.clean_up().await;
        Ok(Finish {
            nodes,
            stopped,
            fan_out: None,
        })
    }

    async fn clean_up(&self) {
        if !matches!(self.task, DaemonSetTask::Pull { leave: false, .. }) {
            return;
        }
        let removing =
            tokio::time::timeout(REMOVE_LIMIT, daemonset::remove(&self.session, &self.spec));
        let why = match removing.await {
            Ok(Ok(_)) => return,
            Ok(Err(fault)) => fault.to_string(),
            Err(_) => "the API does not answer".to_string(),
        };
        let DaemonSetSpec {
            namespace, name, ..
        } = &self.spec;
        super::warn(&[format!(
            "the DaemonSet is still there: {why}; prepull daemonset remove -n {namespace} --name {name}"
        )]);
    }
}

/// Whether an image did not come because there is no pod.
fn lacks_pod(record: &Record) -> bool {
    matches!(&record.outcome, Outcome::Failed(failure) if failure.kind == FailureKind::NoPod)
}

/// The nodes that have no pod, over SSH.
struct Rest<'a> {
    plan: &'a Plan,
    began: Instant,
    facts: mpsc::Sender<(Duration, EventKind)>,
}

impl Rest<'_> {
    /// Pulls on them, and puts what came of it in the place of their records. Returns why the run ended early.
    async fn run(
        &self,
        nodes: &mut [NodeRecord],
        stopped: Option<StopReason>,
        transport: &SshTransport,
        logins: &dyn CredentialSource,
        stop: watch::Receiver<Option<StopReason>>,
    ) -> Option<StopReason> {
        let rest: Vec<usize> = (0..nodes.len())
            .filter(|node| nodes[*node].items.iter().any(lacks_pod))
            .collect();
        let fleet = rest
            .iter()
            .map(|node| self.plan.fleet.nodes()[*node].clone());
        let Ok(fleet) = Fleet::new(fleet.collect()) else {
            return stopped;
        };
        if stopped.is_some() {
            self.tell(nodes, &rest).await;
            return stopped;
        }
        // What came by a pod before it went away stays as it was told.
        let mut already_present = HashMap::new();
        for (at, node) in rest.iter().enumerate() {
            for (item, record) in nodes[*node].items.iter().enumerate() {
                if let Outcome::Pulled(held) | Outcome::Present(held) = &record.outcome {
                    already_present.insert((at, item), held.clone());
                }
            }
        }
        let mut plan = Plan {
            fleet,
            already_present,
            ..self.plan.clone()
        };
        plan.policy.via = PullVia::Registry;
        plan.policy.canary = 0;
        plan.policy.deadline = plan
            .policy
            .deadline
            .map(|limit| limit.saturating_sub(self.began.elapsed()));
        let offset = self.began.elapsed();
        let (sender, mut receiver) = mpsc::channel::<(Duration, EventKind)>(256);
        let runtimes = runtime::all();
        let running = engine::run(
            &plan,
            transport,
            &runtimes,
            logins,
            Supply::default(),
            sender,
            stop,
        );
        let handing_on = async {
            while let Some((at, mut fact)) = receiver.recv().await {
                let Some(node) = fact.node_mut() else {
                    if !matches!(fact, EventKind::WaveStarted { .. }) {
                        let _ = self.facts.send((offset + at, fact)).await;
                    }
                    continue;
                };
                *node = rest[*node];
                if let EventKind::Finished { node, item, .. } = &fact
                    && !lacks_pod(&nodes[*node].items[*item])
                {
                    continue;
                }
                let _ = self.facts.send((offset + at, fact)).await;
            }
        };
        let (finish, ()) = tokio::join!(running, handing_on);
        for (node, found) in rest.iter().zip(finish.nodes) {
            let items = nodes[*node].items.iter_mut().zip(found.items);
            for (record, found) in items.filter(|(record, _)| lacks_pod(record)) {
                *record = found;
            }
            nodes[*node].runtime = found.runtime;
        }
        finish.stopped
    }

    /// What was held back, because SSH was to try it.
    async fn tell(&self, nodes: &[NodeRecord], rest: &[usize]) {
        for node in rest {
            let items = nodes[*node].items.iter().enumerate();
            for (item, record) in items.filter(|(_, record)| lacks_pod(record)) {
                let fact = EventKind::Finished {
                    node: *node,
                    item,
                    record: Arc::new(record.clone()),
                };
                let _ = self.facts.send((self.began.elapsed(), fact)).await;
            }
        }
    }
}
