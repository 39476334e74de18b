//! Waits until every node has the images, or has said why not.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::cluster::{ClusterNode, DaemonSet};
use super::control::{refused, template};
use super::objects::TEMPLATE_LABEL;
use super::pods::{Event, Pod};
use super::session::{Lost, Resource, Session, follow};
use super::tracker::{Purpose, Tracker};
use crate::inventory::InputError;
use crate::model::{DaemonSetSpec, EventKind, NodeRecord, Plan, StopReason};

/// How often is looked at what only time changes.
const TICK: Duration = Duration::from_secs(1);
/// Updates of one list on their way.
const UNDER_WAY: usize = 256;

/// How it ended.
#[derive(Debug)]
pub struct Ended {
    /// One for each node, in the fleet's order.
    pub nodes: Vec<NodeRecord>,
    /// Why it ended before every pod was done.
    pub stopped: Option<StopReason>,
    /// Nodes that joined the cluster meanwhile, and have pods as well.
    pub joined: Vec<String>,
}

/// Waits for the pods of a DaemonSet that was applied.
///
/// # Errors
/// The DaemonSet is not there.
pub async fn wait(
    session: &Session,
    spec: &DaemonSetSpec,
    plan: &Plan,
    purpose: Purpose,
    facts: mpsc::Sender<(Duration, EventKind)>,
    mut stop: watch::Receiver<Option<StopReason>>,
) -> Result<Ended, InputError> {
    let began = Instant::now();
    let deadline = plan.policy.deadline.map(|limit| began + limit);
    let template = template(session, spec).await?;
    let within = |path: &str| format!("{path}/namespaces/{}", spec.namespace);
    let all_nodes = Resource {
        path: "/api/v1/nodes".into(),
        labels: None,
        fields: None,
    };
    let its_pods = Resource {
        path: format!("{}/pods", within("/api/v1")),
        labels: Some(format!(
            "app.kubernetes.io/instance={},{TEMPLATE_LABEL}={template}",
            spec.name
        )),
        fields: None,
    };
    let pod_events = Resource {
        path: format!("{}/events", within("/api/v1")),
        labels: None,
        fields: Some("involvedObject.kind=Pod".into()),
    };
    let itself = Resource {
        path: format!("{}/daemonsets", within("/apis/apps/v1")),
        labels: None,
        fields: Some(format!("metadata.name={}", spec.name)),
    };
    let (nodes_sender, mut nodes) = mpsc::channel(UNDER_WAY);
    let (pods_sender, mut pods) = mpsc::channel(UNDER_WAY);
    let (events_sender, mut events) = mpsc::channel(UNDER_WAY);
    let (sets_sender, mut sets) = mpsc::channel(UNDER_WAY);
    let following = async {
        tokio::select! {
            lost = follow::<ClusterNode>(session, &all_nodes, &nodes_sender) => lost,
            lost = follow::<Pod>(session, &its_pods, &pods_sender) => lost,
            lost = follow::<Event>(session, &pod_events, &events_sender) => lost,
            lost = follow::<DaemonSet>(session, &itself, &sets_sender) => lost,
        }
    };
    let mut following = std::pin::pin!(following);
    let mut tracker = Tracker::new(plan, spec, purpose, began);
    let mut has_events = false;
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stopped = None;
    loop {
        for fact in tracker.take_facts() {
            // A reporter that went away stops nothing.
            let _ = facts.send((began.elapsed(), fact)).await;
        }
        if tracker.is_done() {
            break;
        }
        if purpose == Purpose::Snapshot && tracker.knows_all() && has_events {
            tracker.take_snapshot(Instant::now());
            continue;
        }
        let now = || Instant::now();
        let reason = tokio::select! {
            biased;
            reason = asked_to_stop(&mut stop) => reason,
            () = sleep_until(deadline.unwrap_or(began)), if deadline.is_some() => StopReason::Deadline,
            lost = &mut following => {
                let Lost { refusal, path } = lost;
                let why = refused(refusal, &format!("follow {path}")).to_string();
                tracker.fail_open(&why, now());
                continue;
            }
            Some(update) = events.recv() => {
                has_events = true;
                tracker.on_event(update, now());
                continue;
            }
            Some(update) = nodes.recv() => {
                tracker.on_node(update, now());
                continue;
            }
            Some(update) = pods.recv() => {
                tracker.on_pod(update, now());
                continue;
            }
            Some(update) = sets.recv() => {
                tracker.on_daemonset(update, now());
                continue;
            }
            _ = tick.tick() => {
                tracker.evaluate_all(now());
                continue;
            }
        };
        let fact = EventKind::Stopping { reason };
        let _ = facts.send((began.elapsed(), fact)).await;
        stopped = Some(reason);
        tracker.stop(reason, Instant::now());
    }
    Ok(Ended {
        joined: tracker.joined().to_vec(),
        nodes: tracker.into_records(),
        stopped,
    })
}

/// Resolves when the operator asks for an early end; never when the sender is gone.
async fn asked_to_stop(stop: &mut watch::Receiver<Option<StopReason>>) -> StopReason {
    match stop.wait_for(Option::is_some).await.map(|reason| *reason) {
        Ok(Some(reason)) => reason,
        Ok(None) | Err(_) => std::future::pending().await,
    }
}
