//! Where every node of the fleet stands, and the facts that follow from what the API says of it. No I/O.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::cluster::{ClusterNode, DaemonSet};
use super::pods::{Event, Pod, PodEvents, Standing};
use super::session::{Object as _, Update};
use crate::model::{
    Attempt, DaemonSetSpec, EventKind, Failure, FailureKind, Image, NodeRecord, Outcome, Plan,
    Record, Retry, Stage, StopReason,
};

/// How long a pod may stand where the scheduler or the kubelet leaves it alone.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long a pod may fail to start for a reason that is no image's.
const SANDBOX_LIMIT: Duration = Duration::from_secs(180);
/// How long the words of the runtime may come after the pod's own, in events that may also be lost.
const WORDS_LIMIT: Duration = Duration::from_secs(10);
/// How long the event may take that says whether an image was there before.
const EVENT_LIMIT: Duration = Duration::from_secs(3);
/// The kubelet's pauses between tries: the first and the longest (`MaxContainerBackOff`).
const KUBELET_BACKOFF: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));

/// What the fleet is watched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Wait until nothing is open.
    Wait,
    /// Wait, and tell nothing of nodes without a pod: another way is tried there.
    WaitForPods,
    /// Say how things stand, and wait for nothing.
    Snapshot,
}

/// The whole fleet.
pub(super) struct Tracker<'a> {
    plan: &'a Plan,
    spec: &'a DaemonSetSpec,
    images: Vec<Image>,
    began: Instant,
    purpose: Purpose,
    by_name: HashMap<String, usize>,
    nodes: Vec<Track>,
    cluster: Option<HashMap<String, ClusterNode>>,
    /// Nodes that fit the DaemonSet and joined the cluster after the fleet was read.
    joined: Vec<String>,
    has_pods: bool,
    /// The node of each pod.
    pods: HashMap<String, usize>,
    events: HashMap<String, PodEvents>,
    daemonset: Option<Option<DaemonSet>>,
    /// Since when the controller has made all its pods.
    scheduled_since: Option<Instant>,
    facts: Vec<EventKind>,
    open: usize,
    /// Whether what is known is enough to judge by: for a snapshot, only once all is known.
    may_judge: bool,
}

#[derive(Default)]
struct Track {
    pods: Vec<Pod>,
    pod_since: Option<Instant>,
    /// When something last got on here.
    moved: Option<Instant>,
    is_started: bool,
    items: Vec<Item>,
}

#[derive(Default)]
struct Item {
    record: Option<Arc<Record>>,
    attempts: Vec<Attempt>,
    /// Whether the last pull failed and the next one has not begun.
    is_in_trouble: bool,
    is_stage_told: bool,
    held_since: Option<Instant>,
    vague_since: Option<Instant>,
}

impl<'a> Tracker<'a> {
    pub(super) fn new(
        plan: &'a Plan,
        spec: &'a DaemonSetSpec,
        purpose: Purpose,
        now: Instant,
    ) -> Self {
        let fleet = plan.fleet.nodes();
        let items = plan.work.items();
        let mut tracker = Self {
            plan,
            spec,
            images: (0..items)
                .filter_map(|item| plan.work.image(item).cloned())
                .collect(),
            began: now,
            purpose,
            by_name: fleet
                .iter()
                .enumerate()
                .map(|(at, node)| (node.name.clone(), at))
                .collect(),
            nodes: Vec::new(),
            cluster: None,
            joined: Vec::new(),
            has_pods: false,
            pods: HashMap::new(),
            events: HashMap::new(),
            daemonset: None,
            scheduled_since: None,
            facts: Vec::new(),
            open: fleet.len() * items,
            may_judge: purpose != Purpose::Snapshot,
        };
        tracker.nodes.resize_with(fleet.len(), || Track {
            items: (0..items).map(|_| Item::default()).collect(),
            ..Track::default()
        });
        let mut held: Vec<_> = plan.already_present.iter().collect();
        held.sort_unstable_by_key(|(place, _)| **place);
        for ((node, item), image) in held {
            tracker.finish(*node, *item, Outcome::Present(image.clone()), now);
        }
        tracker
    }

    /// The facts since the last call.
    pub(super) fn take_facts(&mut self) -> Vec<EventKind> {
        std::mem::take(&mut self.facts)
    }

    fn is_snapshot(&self) -> bool {
        self.purpose == Purpose::Snapshot
    }

    pub(super) fn is_done(&self) -> bool {
        self.open == 0
    }

    /// Whether every list was read once.
    pub(super) fn knows_all(&self) -> bool {
        self.cluster.is_some() && self.has_pods && self.daemonset.is_some()
    }

    pub(super) fn joined(&self) -> &[String] {
        &self.joined
    }

    pub(super) fn on_node(&mut self, update: Update<ClusterNode>, now: Instant) {
        match update {
            Update::Listed(nodes) => {
                let name = |node: ClusterNode| (node.metadata.name.clone(), node);
                let known = self.cluster.replace(HashMap::new());
                for (name, node) in nodes.into_iter().map(name) {
                    self.note_joined(&name, &node, known.as_ref());
                    self.cluster.get_or_insert_default().insert(name, node);
                }
                self.evaluate_all(now);
            }
            Update::Set(node) => {
                let name = node.metadata.name.clone();
                let known = self.cluster.take();
                self.note_joined(&name, &node, known.as_ref());
                self.cluster = known;
                self.cluster
                    .get_or_insert_default()
                    .insert(name.clone(), node);
                self.evaluate_named(&name, now);
            }
            Update::Deleted(node) => {
                self.cluster
                    .get_or_insert_default()
                    .remove(&node.metadata.name);
                self.evaluate_named(&node.metadata.name, now);
            }
        }
    }

    fn note_joined(
        &mut self,
        name: &str,
        node: &ClusterNode,
        known: Option<&HashMap<String, ClusterNode>>,
    ) {
        let is_new = known.is_some_and(|known| !known.contains_key(name));
        if is_new && !self.by_name.contains_key(name) && node.why_no_pod(self.spec).is_none() {
            self.joined.push(name.to_string());
        }
    }

    pub(super) fn on_pod(&mut self, update: Update<Pod>, now: Instant) {
        match update {
            Update::Listed(pods) => {
                self.has_pods = true;
                self.pods.clear();
                for track in &mut self.nodes {
                    track.pods.clear();
                }
                for pod in pods {
                    self.place(pod, now);
                }
                self.evaluate_all(now);
            }
            Update::Set(pod) => {
                if let Some(node) = self.place(pod, now) {
                    self.evaluate(node, now);
                }
            }
            Update::Deleted(pod) => {
                if let Some(node) = self.pods.remove(&pod.metadata.uid) {
                    self.nodes[node]
                        .pods
                        .retain(|other| other.metadata.uid != pod.metadata.uid);
                    self.events.remove(&pod.metadata.uid);
                    self.evaluate(node, now);
                }
            }
        }
    }

    /// Puts a pod where its node is.
    fn place(&mut self, pod: Pod, now: Instant) -> Option<usize> {
        let node = *self.by_name.get(pod.node()?)?;
        let track = &mut self.nodes[node];
        let is_known = |other: &&mut Pod| other.metadata.uid == pod.metadata.uid;
        self.pods.insert(pod.metadata.uid.clone(), node);
        match track.pods.iter_mut().find(is_known) {
            Some(known) => *known = pod,
            None => {
                if track.pods.is_empty() {
                    track.pod_since = Some(now);
                    track.moved = Some(now);
                }
                track.pods.push(pod);
            }
        }
        Some(node)
    }

    pub(super) fn on_event(&mut self, update: Update<Event>, now: Instant) {
        match update {
            Update::Listed(events) => {
                for event in &events {
                    self.take_event(event);
                }
                self.evaluate_all(now);
            }
            Update::Set(event) => {
                if let Some(node) = self.take_event(&event) {
                    self.evaluate(node, now);
                }
            }
            // Events are forgotten after an hour; what they said stays true.
            Update::Deleted(_) => {}
        }
    }

    /// Events may come before their pod.
    fn take_event(&mut self, event: &Event) -> Option<usize> {
        let pod = &event.involved_object.uid;
        let events = self.events.entry(pod.clone()).or_default();
        events.take(event, &self.images);
        self.pods.get(pod).copied()
    }

    pub(super) fn on_daemonset(&mut self, update: Update<DaemonSet>, now: Instant) {
        let found = match update {
            Update::Listed(found) => found.into_iter().next(),
            Update::Set(found) => Some(found),
            Update::Deleted(_) => None,
        };
        let is_scheduled = found.as_ref().is_some_and(DaemonSet::is_scheduled);
        self.scheduled_since = is_scheduled.then(|| self.scheduled_since.unwrap_or(now));
        let is_gone = found.is_none();
        self.daemonset = Some(found);
        // Its status changes with every pod: what follows from that can wait for the next tick.
        if is_gone {
            self.evaluate_all(now);
        }
    }

    /// Looks at what only time changes.
    pub(super) fn evaluate_all(&mut self, now: Instant) {
        for node in 0..self.nodes.len() {
            self.evaluate(node, now);
        }
    }

    /// Judges by what is known now: all lists were read.
    pub(super) fn take_snapshot(&mut self, now: Instant) {
        self.may_judge = true;
        self.evaluate_all(now);
        self.stop(StopReason::NotYet, now);
    }

    fn evaluate_named(&mut self, name: &str, now: Instant) {
        if let Some(node) = self.by_name.get(name) {
            self.evaluate(*node, now);
        }
    }

    fn evaluate(&mut self, node: usize, now: Instant) {
        let is_done = |item: &Item| item.record.is_some();
        if !self.may_judge || self.nodes[node].items.iter().all(is_done) {
            return;
        }
        let name = &self.plan.fleet.nodes()[node].name;
        let in_cluster = match &self.cluster {
            Some(cluster) => cluster.get(name),
            None => return,
        };
        let Some(in_cluster) = in_cluster else {
            return self.fail(
                node,
                FailureKind::NoPod,
                "the node is not in the cluster",
                now,
            );
        };
        let Some(pod) = present(&self.nodes[node].pods).cloned() else {
            if let Some(why) = self.why_no_pod(in_cluster, now) {
                self.fail(node, FailureKind::NoPod, &why, now);
            }
            return;
        };
        let waited = self.nodes[node]
            .pod_since
            .map_or(Duration::ZERO, |since| now - since);
        let too_long = |limit: Duration| waited > limit || self.is_snapshot();
        if !pod.is_bound() {
            if let Some(why) = pod.unschedulable().filter(|_| too_long(START_LIMIT)) {
                let why = format!("the pod is not scheduled: {why}");
                self.fail(node, FailureKind::NoPod, &why, now);
            }
            return;
        }
        let not_ready = in_cluster.not_ready();
        if !pod.is_seen_by_kubelet()
            && let Some(why) = not_ready.filter(|_| too_long(START_LIMIT))
        {
            return self.fail(node, FailureKind::NoPod, &why, now);
        }
        self.start(node);
        let events = self
            .events
            .get(&pod.metadata.uid)
            .cloned()
            .unwrap_or_default();
        let mut is_any_at_work = false;
        for item in 0..self.images.len() {
            if self.nodes[node].items[item].record.is_some() {
                continue;
            }
            let standing = pod.standing(item, &self.images[item], self.spec.mode, &events);
            is_any_at_work |= !matches!(standing, Standing::Waiting { is_pulling: false });
            self.judge(node, item, standing, now);
        }
        if let Some(said) = events
            .trouble
            .as_ref()
            .filter(|_| !is_any_at_work && waited > SANDBOX_LIMIT)
        {
            let why = format!("the pod does not start: {said}");
            return self.fail(node, FailureKind::NoPod, &why, now);
        }
        let policy = &self.plan.policy;
        let limit = policy.pull_timeout.or(policy.unseen_timeout);
        let moved = self.nodes[node].moved;
        if let (Some(limit), Some(moved)) = (limit, moved)
            && now - moved > limit
        {
            let said = events
                .trouble
                .map_or(String::new(), |said| format!("; the last warning: {said}"));
            let time = humantime::format_duration(limit);
            let why = format!("the pod got no further for {time} (--pull-timeout){said}");
            self.fail(node, FailureKind::TimedOut, &why, now);
        }
    }

    /// Why a node of the cluster has no pod; `None` while one may still come.
    fn why_no_pod(&self, node: &ClusterNode, now: Instant) -> Option<String> {
        if !self.has_pods {
            return None;
        }
        let Some(found) = &self.daemonset else {
            return None;
        };
        if found.is_none() {
            return Some("no pod here: the DaemonSet was deleted".into());
        }
        // What the controller looks at itself need not be waited for.
        if let Some(why) = node.why_no_pod(self.spec) {
            return Some(why);
        }
        let since = self.scheduled_since?;
        (self.is_snapshot() || now - since > START_LIMIT)
            .then(|| "no pod here, and the DaemonSet controller does not say why".to_string())
    }

    fn start(&mut self, node: usize) {
        if !std::mem::replace(&mut self.nodes[node].is_started, true) {
            self.facts.push(EventKind::NodeStarted { node });
        }
    }

    fn judge(&mut self, node: usize, item: usize, standing: Standing, now: Instant) {
        let is_snapshot = self.is_snapshot();
        let state = &mut self.nodes[node].items[item];
        match standing {
            Standing::Waiting { is_pulling } => {
                state.is_in_trouble = false;
                if is_pulling && !std::mem::replace(&mut state.is_stage_told, true) {
                    let item = Some(item);
                    let stage = Stage::Pull;
                    self.facts.push(EventKind::NodeStage { node, item, stage });
                }
            }
            Standing::Held { image, was_there } => {
                let since = *state.held_since.get_or_insert(now);
                if was_there.is_some() || is_snapshot || now - since > EVENT_LIMIT {
                    let outcome = match was_there {
                        Some(true) => Outcome::Present(image),
                        Some(false) | None => Outcome::Pulled(image),
                    };
                    self.finish(node, item, outcome, now);
                }
            }
            Standing::Trouble {
                failure,
                is_pausing,
                is_vague,
            } => {
                let since = *state.vague_since.get_or_insert(now);
                let is_counted = state.is_in_trouble || is_pausing && !state.attempts.is_empty();
                if !is_counted && is_vague && now - since <= WORDS_LIMIT && !is_snapshot {
                    return;
                }
                state.vague_since = None;
                state.is_in_trouble = !is_pausing;
                if !is_counted {
                    self.count_attempt(node, item, failure, now);
                }
            }
        }
    }

    /// A pull failed: the item fails with it, or the kubelet's next try is waited for.
    fn count_attempt(&mut self, node: usize, item: usize, failure: Failure, now: Instant) {
        let began = self.began;
        let state = &mut self.nodes[node].items[item];
        let before: Duration = state.attempts.iter().map(|attempt| attempt.elapsed).sum();
        let number = u32::try_from(state.attempts.len() + 1).unwrap_or(u32::MAX);
        state.attempts.push(Attempt {
            number,
            elapsed: (now - began).saturating_sub(before),
            failure: Some(failure.clone()),
        });
        let retries = self.plan.policy.retries;
        let allowed = match failure.kind.retry() {
            Retry::Never => 0,
            Retry::Limited => retries.min(Retry::FEW),
            Retry::Full | Retry::RegistryPause => retries,
        };
        if number > allowed || self.is_snapshot() {
            return self.finish(node, item, Outcome::Failed(failure), now);
        }
        self.nodes[node].moved = Some(now);
        let doubled = KUBELET_BACKOFF.0.saturating_mul(1 << (number - 1).min(8));
        let retry_in = doubled.min(KUBELET_BACKOFF.1);
        self.facts.push(EventKind::AttemptFailed {
            node,
            item,
            attempt: number,
            failure,
            retry_in,
        });
    }

    /// Everything that is open on a node fails in the same way.
    fn fail(&mut self, node: usize, kind: FailureKind, why: &str, now: Instant) {
        self.start(node);
        for item in 0..self.images.len() {
            if self.nodes[node].items[item].record.is_none() {
                let stage = match kind {
                    FailureKind::NoPod => Stage::Start,
                    _ => Stage::Pull,
                };
                self.finish(
                    node,
                    item,
                    Outcome::Failed(Failure::new(kind, stage, why)),
                    now,
                );
            }
        }
    }

    /// Everything that is open fails, because the API cannot be followed any more.
    pub(super) fn fail_open(&mut self, why: &str, now: Instant) {
        for node in 0..self.nodes.len() {
            if self.nodes[node]
                .items
                .iter()
                .any(|item| item.record.is_none())
            {
                self.fail(node, FailureKind::Unreachable, why, now);
            }
        }
    }

    /// Everything that is open was not run to its end.
    pub(super) fn stop(&mut self, reason: StopReason, now: Instant) {
        for node in 0..self.nodes.len() {
            for item in 0..self.images.len() {
                if self.nodes[node].items[item].record.is_none() {
                    self.finish(node, item, Outcome::NotRun(reason), now);
                }
            }
        }
    }

    fn finish(&mut self, node: usize, item: usize, outcome: Outcome, now: Instant) {
        let track = &mut self.nodes[node];
        track.moved = Some(now);
        let state = &mut track.items[item];
        let elapsed = match track.is_started {
            true => now - self.began,
            false => Duration::ZERO,
        };
        let mut attempts = std::mem::take(&mut state.attempts);
        if attempts
            .last()
            .is_none_or(|last| last.failure.as_ref() != failure_of(&outcome))
            && track.is_started
        {
            let before: Duration = attempts.iter().map(|attempt| attempt.elapsed).sum();
            attempts.push(Attempt {
                number: u32::try_from(attempts.len() + 1).unwrap_or(u32::MAX),
                elapsed: elapsed.saturating_sub(before),
                failure: failure_of(&outcome).cloned(),
            });
        }
        let is_held_back = self.purpose == Purpose::WaitForPods
            && failure_of(&outcome).is_some_and(|failure| failure.kind == FailureKind::NoPod);
        let record = Arc::new(Record {
            outcome,
            attempts,
            elapsed,
            arrived: None,
            delivery: None,
            kept: None,
        });
        state.record = Some(Arc::clone(&record));
        self.open -= 1;
        if !is_held_back {
            self.facts.push(EventKind::Finished { node, item, record });
        }
        if self.nodes[node].is_started
            && self.nodes[node]
                .items
                .iter()
                .all(|item| item.record.is_some())
        {
            let done = !is_held_back;
            self.facts.push(EventKind::NodeLeft { node, done });
        }
    }

    /// The records, in the fleet's order. Every item has one by now.
    pub(super) fn into_records(self) -> Vec<NodeRecord> {
        let lost = || {
            let failure = Failure::new(
                FailureKind::Internal,
                Stage::Start,
                "the run ended without an outcome",
            );
            Arc::new(Record {
                outcome: Outcome::Failed(failure),
                attempts: Vec::new(),
                elapsed: Duration::ZERO,
                arrived: None,
                delivery: None,
                kept: None,
            })
        };
        let nodes = self.nodes.into_iter().zip(self.plan.fleet.nodes());
        nodes
            .map(|(track, node)| NodeRecord {
                runtime: node.runtime,
                items: (track.items.into_iter())
                    .map(|item| Arc::unwrap_or_clone(item.record.unwrap_or_else(lost)))
                    .collect(),
            })
            .collect()
    }
}

fn failure_of(outcome: &Outcome) -> Option<&Failure> {
    match outcome {
        Outcome::Failed(failure) => Some(failure),
        _ => None,
    }
}

/// The pod that counts: the newest of those that stay, else the newest.
fn present(pods: &[Pod]) -> Option<&Pod> {
    let stays =
        |pod: &&Pod| pod.metadata().deletion_timestamp.is_none() && pod.status.phase != "Failed";
    pods.iter().rev().find(stays).or(pods.last())
}

#[cfg(test)]
#[path = "tracker_tests.rs"]
mod tests;
