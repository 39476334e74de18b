//! Where a run stands, from its facts alone: who is done, at work, waiting or failed, and what has arrived.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::RunInfo;
use super::document::is_unseen;
use super::groups::FailureGroups;
use super::meter::Meter;
use crate::model::{
    Event, EventKind, FanOutTotals, Image, Outcome, Record, Stage, StopReason, Tries,
};

/// How many nodes are in which state. Every node is in one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Everything is as it was wanted.
    pub done: usize,
    /// At work.
    pub running: usize,
    /// Something failed for good, and nothing is left to do.
    pub failed: usize,
    /// Left out or cancelled.
    pub not_run: usize,
    /// Still to come, or between two tries.
    pub left: usize,
}

/// What one node does.
#[derive(Debug, Clone)]
pub struct AtWork {
    /// Since when.
    pub since: Duration,
    /// What is done, once that is known.
    pub stage: Option<Stage>,
    /// Which item it is about.
    pub item: Option<usize>,
    /// What has arrived, and of how much, once something is known.
    pub arrived: Option<(u64, Option<u64>)>,
    /// How fast.
    pub meter: Meter,
}

impl AtWork {
    /// Whether it waits for a turn at a registry.
    pub fn is_queued(&self) -> bool {
        self.stage == Some(Stage::Queue)
    }
}

/// A node's last try that failed, while another is to come.
#[derive(Debug, Clone, Copy)]
pub struct PendingRetry {
    /// The number of the next try, or of the one that goes on.
    pub attempt: usize,
    /// When it is due.
    pub due: Duration,
    /// The place of its cause.
    pub cause: usize,
    /// Which item is tried again.
    pub item: usize,
}

/// What is known of one item on one node.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    /// Bytes that have arrived.
    arrived: u64,
    /// How many there will be.
    total: Option<u64>,
    /// Its tries so far.
    tries: Tries,
    /// Whether it has its outcome.
    is_over: bool,
}

/// Where a run stands.
#[derive(Debug, Clone)]
pub struct RunState {
    /// What is known of the run.
    pub info: Arc<RunInfo>,
    /// The nodes at work.
    pub working: BTreeMap<usize, AtWork>,
    /// The nodes that have a further try before them, or are at it.
    pub again: BTreeMap<usize, PendingRetry>,
    /// Why tries failed that are followed by another.
    pub retried: FailureGroups,
    /// Why nodes are not as they were wanted.
    pub failed: FailureGroups,
    /// Until when registries are left alone.
    pub paused: BTreeMap<String, Duration>,
    /// Why no further node is started.
    pub stopping: Option<StopReason>,
    /// How the relays of `--fan-out` are.
    pub fan_out: Option<FanOutTotals>,
    /// The nodes that got nothing from others, by the reason.
    pub fell_back: BTreeMap<String, Vec<usize>>,
    /// The wave that goes on, and how many nodes may be at work since it started.
    pub wave: Option<(usize, usize)>,
    open: Vec<usize>,
    bad: Vec<bool>,
    left_out: Vec<bool>,
    ended: Tally,
    /// Every item on every node.
    places: Vec<Place>,
    /// What has arrived of all of them, once anything can be seen.
    sum: Option<u64>,
    meter: Meter,
    /// What each item brought to the node that was last heard of: the others will be like it.
    sizes: Vec<Option<u64>>,
    /// The nodes that something came to that could not be counted.
    unseen: BTreeSet<usize>,
}

impl RunState {
    /// A board on which nothing has happened.
    pub fn new(info: Arc<RunInfo>) -> Self {
        let nodes = info.plan.fleet.nodes().len();
        let items = info.plan.work.items();
        Self {
            info,
            working: BTreeMap::new(),
            again: BTreeMap::new(),
            retried: FailureGroups::default(),
            failed: FailureGroups::default(),
            paused: BTreeMap::new(),
            stopping: None,
            fan_out: None,
            fell_back: BTreeMap::new(),
            wave: None,
            open: vec![items; nodes],
            bad: vec![false; nodes],
            left_out: vec![false; nodes],
            ended: Tally::default(),
            places: vec![Place::default(); nodes * items],
            sum: None,
            meter: Meter::default(),
            sizes: vec![None; items],
            unseen: BTreeSet::new(),
        }
    }

    /// Takes note of a fact.
    pub fn apply(&mut self, event: &Event) {
        match &event.fact {
            EventKind::WaveStarted { wave, nodes } => self.wave = Some((*wave, *nodes)),
            EventKind::NodeStarted { node } => {
                let work = AtWork {
                    since: event.at,
                    stage: None,
                    item: None,
                    arrived: None,
                    meter: Meter::default(),
                };
                self.working.insert(*node, work);
            }
            EventKind::NodeStage { node, item, stage } => {
                if let Some(work) = self.working.get_mut(node) {
                    (work.stage, work.item) = (Some(*stage), *item);
                    if *stage != Stage::Verify {
                        work.arrived = None;
                    }
                }
            }
            EventKind::Progress {
                node,
                item,
                bytes,
                total,
            } => self.progress(event.at, *node, *item, *bytes, *total),
            EventKind::AttemptFailed {
                node,
                item,
                attempt,
                failure,
                retry_in,
            } => {
                let cause = self.retried.failure(&self.info.plan, *node, *item, failure);
                let mut tries = *attempt as usize;
                if let Some(place) = self.places.get_mut(node * self.sizes.len() + item) {
                    let is_detached = self.info.plan.work.is_detached();
                    place.tries.note(is_detached, Some(failure));
                    tries = place.tries.ended;
                }
                let again = PendingRetry {
                    attempt: tries + 1,
                    due: event.at + *retry_in,
                    cause,
                    item: *item,
                };
                self.again.insert(*node, again);
            }
            EventKind::Finished { node, item, record } => {
                self.finished(event.at, *node, *item, record)
            }
            EventKind::NodeLeft { node, .. } => {
                self.working.remove(node);
            }
            EventKind::RegistryPaused { registry, length } => {
                self.paused.insert(registry.clone(), event.at + *length);
            }
            EventKind::Stalled { .. }
            | EventKind::LeftAlone { .. }
            | EventKind::Preflighted { .. }
            | EventKind::RuntimeFound { .. } => {}
            EventKind::FanOut { totals } => self.fan_out = Some(*totals),
            EventKind::FanOutFallback { node, why } => {
                self.fell_back.entry(why.clone()).or_default().push(*node);
            }
            EventKind::Stopping { reason } => self.stopping = Some(*reason),
        }
    }

    fn progress(&mut self, at: Duration, node: usize, item: usize, bytes: u64, total: Option<u64>) {
        if let Some(work) = self.working.get_mut(&node) {
            work.arrived = Some((bytes, total));
            work.meter.tell(at, bytes);
        }
        self.has_arrived(at, node, item, bytes);
        if let Some(place) = self.places.get_mut(node * self.sizes.len() + item) {
            place.total = total;
        }
        // The newest: the more is known of what was there before, the less is to come.
        if let (Some(total), Some(size)) = (total, self.sizes.get_mut(item)) {
            *size = Some(total);
        }
    }

    /// What has arrived of an item on a node is this now.
    fn has_arrived(&mut self, at: Duration, node: usize, item: usize, bytes: u64) {
        if let Some(place) = self.places.get_mut(node * self.sizes.len() + item) {
            let others = self.sum.unwrap_or(0).saturating_sub(place.arrived);
            let sum = others.saturating_add(bytes);
            place.arrived = bytes;
            self.sum = Some(sum);
            self.meter.tell(at, sum);
        }
    }

    fn finished(&mut self, at: Duration, node: usize, item: usize, record: &Record) {
        self.again.remove(&node);
        self.failed
            .outcome(&self.info.plan, node, item, &record.outcome);
        let at_place = node * self.sizes.len() + item;
        let seen = self.places.get(at_place).map_or(0, |place| place.arrived);
        // The record has the last word: what was seen on its way counts only once it is known to be all.
        if record.arrived.is_some() || seen > 0 {
            self.has_arrived(at, node, item, record.arrived.unwrap_or(0));
        }
        if let (Outcome::Pulled(_), Some(size)) = (&record.outcome, self.sizes.get_mut(item)) {
            *size = record.arrived.or(*size);
        }
        if let Some(place) = self.places.get_mut(at_place) {
            place.is_over = true;
        }
        if is_unseen(record) {
            self.unseen.insert(node);
        }
        let (Some(open), Some(bad), Some(left_out)) = (
            self.open.get_mut(node),
            self.bad.get_mut(node),
            self.left_out.get_mut(node),
        ) else {
            return;
        };
        *open = open.saturating_sub(1);
        let not_run = matches!(record.outcome, Outcome::NotRun(_));
        *left_out |= not_run;
        // That an image is absent is what a check wanted to know.
        *bad |= !record.outcome.is_ok() && !not_run && record.outcome != Outcome::Missing;
        if *open == 0 {
            *match (*bad, *left_out) {
                (true, _) => &mut self.ended.failed,
                (false, true) => &mut self.ended.not_run,
                (false, false) => &mut self.ended.done,
            } += 1;
        }
    }

    /// How many nodes are in which state.
    pub fn tally(&self) -> Tally {
        let mut tally = self.ended;
        let all_done = |node: &&usize| self.open.get(**node) == Some(&0);
        tally.running = self.working.keys().filter(|node| !all_done(node)).count();
        let ended = tally.done + tally.failed + tally.not_run;
        tally.left = self.open.len().saturating_sub(ended + tally.running);
        tally
    }

    /// The nodes between two tries.
    pub fn waiting(&self) -> impl Iterator<Item = (usize, &PendingRetry)> {
        let waits = |(node, _): &(&usize, &PendingRetry)| !self.working.contains_key(node);
        let again = self.again.iter().filter(waits);
        again.map(|(node, again)| (*node, again))
    }

    /// How many nodes wait for a turn at a registry, for each of those.
    pub fn queued(&self) -> impl Iterator<Item = (&str, usize)> {
        let mut registries: BTreeMap<&str, usize> = BTreeMap::new();
        for work in self.working.values().filter(|work| work.is_queued()) {
            let image = work.item.and_then(|item| self.info.plan.work.image(item));
            *registries
                .entry(image.map_or("?", Image::registry))
                .or_default() += 1;
        }
        registries.into_iter()
    }

    /// How many bytes have arrived, where any node can see it.
    pub fn arrived(&self) -> Option<u64> {
        self.sum
    }

    /// On how many nodes something came that could not be counted.
    pub fn unseen(&self) -> usize {
        self.unseen.len()
    }

    /// When a node may be tried again, as far as is known: also later than was said, if its registry is left alone.
    pub fn due(&self, again: &PendingRetry) -> Duration {
        let image = self.info.plan.work.image(again.item);
        let paused = image.and_then(|image| self.paused.get(image.registry()));
        again.due.max(paused.copied().unwrap_or_default())
    }

    /// How many bytes a second arrive.
    pub fn rate(&self, now: Duration) -> Option<u64> {
        self.meter.rate(now)
    }

    /// How many bytes are still to come to nodes that are not done; `None` when that cannot be known.
    fn to_come(&self) -> Option<u64> {
        self.sum?;
        let mut bytes: u64 = 0;
        let items = self.sizes.len().max(1);
        for node in self.places.chunks(items) {
            for (place, size) in node.iter().zip(&self.sizes).filter(|(at, _)| !at.is_over) {
                let total = place.total.or(*size)?;
                bytes = bytes.saturating_add(total.saturating_sub(place.arrived));
            }
        }
        Some(bytes)
    }

    /// How much of the work is done, from 0 to 1.
    pub fn share(&self) -> f64 {
        let whole = self.info.plan.fleet.nodes().len();
        let tally = self.tally();
        let ended = tally.done + tally.failed + tally.not_run;
        match (self.to_come(), self.sum) {
            (Some(left), Some(arrived)) if left + arrived > 0 => {
                arrived as f64 / (left + arrived) as f64
            }
            _ => ended as f64 / whole.max(1) as f64,
        }
    }

    /// How long it still takes at the pace of the last seconds; `None` when that cannot be known.
    pub fn time_left(&self, now: Duration) -> Option<Duration> {
        let tally = self.tally();
        if self.stopping.is_some() || tally.left + tally.running == 0 {
            return None;
        }
        if let (Some(bytes), Some(rate)) = (self.to_come(), self.rate(now)) {
            let is_known = rate > 0 && self.meter.is_steady(now);
            return is_known.then(|| Duration::from_secs(bytes / rate));
        }
        // By the pace of nodes only once every place in the window was taken twice: then it is steady.
        let ended = tally.done + tally.failed;
        let steady = ended >= 2 * self.info.plan.policy.parallel.max(5);
        let moves_bytes = self.info.plan.work.uses_registry() && self.sum.is_some();
        (steady && !moves_bytes)
            .then(|| now.mul_f64((tally.left + tally.running) as f64 / ended as f64))
    }
}
