//! Runs a plan: one scheduler, one state machine per node, exactly one outcome for every item.
//!
//! The engine knows the world only through the ports. It draws nothing: it sends facts into one
//! bounded channel. A window of [`Policy::parallel`](crate::model::Policy) nodes is at work at any
//! time; a node that waits for its next try gives its place to another.

mod attempt;
mod canary;
mod context;
mod facts;
mod fan_out;
mod first_pulls;
mod forecast;
mod keep;
mod logins;
mod means;
mod mirrors;
mod pins;
mod preflight;
mod pull_job;
mod registries;
mod retry;
mod revisit;
mod state;
mod through_ssh;
mod transfer_stats;
mod unwatched;
mod visit;
mod ways;

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::fan_out::{Hub, Programs};
use crate::model::{EventKind, FanOutTotals, NodeRecord, Plan, Portion, Spool, StopReason};
use crate::ports::{self, Runtime, Transport};
use canary::Canary;
use context::RunContext;
use facts::Facts;
use first_pulls::FirstPulls;
use logins::CurrentLogins;
use pins::Pins;
use registries::Registries;
use revisit::CANCEL_LIMIT;
use state::{NodeState, earlier};
use unwatched::Connections;
use visit::visit;

/// A run that came to its end.
#[derive(Debug)]
pub struct Finish {
    /// One record for each node, in the fleet's order.
    pub nodes: Vec<NodeRecord>,
    /// Why it ended before everything was tried; `None` when everything was.
    pub stopped: Option<StopReason>,
    /// What came of nodes passing images on, where they were to.
    pub fan_out: Option<FanOutTotals>,
}

/// What a run has to give to nodes beside what their registries have.
#[derive(Clone, Copy, Default)]
pub struct Supply<'a> {
    /// The plan's images, where nodes pull through their connections or pass them on to each other.
    pub images: Option<&'a dyn ports::ImageServer>,
    /// What passes them on.
    pub relays: Option<&'a Programs>,
}

/// Runs the plan to its end, which always comes with one outcome for every (node, item).
///
/// `logins` gives the plan's logins again when they get old.
/// `stop` asks for an early end: no further node is started and what runs is cancelled.
pub async fn run<T: Transport>(
    plan: &Plan,
    transport: &T,
    runtimes: &[&dyn Runtime],
    logins: &dyn ports::CredentialSource,
    supply: Supply<'_>,
    facts: mpsc::Sender<(Duration, EventKind)>,
    stop: watch::Receiver<Option<StopReason>>,
) -> Finish {
    let (cancel_sender, cancel) = watch::channel(false);
    let began = Instant::now();
    let context = RunContext {
        plan,
        transport,
        runtimes,
        facts: Facts::new(facts, began),
        began,
        cancel,
        registries: Registries::new(&plan.policy),
        connections: Connections::new(plan),
        logins: CurrentLogins::new(plan, logins),
        images: supply.images,
        hub: hub(plan, supply),
        slots: (plan.policy.fan_out).map(|_| Arc::new(Semaphore::new(plan.policy.parallel.max(1)))),
        first_pulls: FirstPulls::default(),
        pins: Pins::new(plan),
        spool: Arc::new(Spool::for_nodes(plan.fleet.nodes().len())),
        first_pull: watch::Sender::new(None),
    };
    let running = Scheduler::new(&context, cancel_sender).run(stop);
    let (Some(hub), Some(images)) = (&context.hub, supply.images) else {
        return running.await;
    };
    let items = plan.work.items();
    let attending = async {
        hub.attend(images, items, |fact| context.facts.note(fact))
            .await;
        std::future::pending::<Finish>().await
    };
    let finish = tokio::select! {
        biased;
        finish = running => finish,
        finish = attending => finish,
    };
    let totals = hub.finish().await;
    for fact in hub.news() {
        context.emit(fact).await;
    }
    Finish {
        fan_out: Some(totals),
        ..finish
    }
}

/// The relays of the run, where nodes are to pass images on.
fn hub(plan: &Plan, supply: Supply<'_>) -> Option<Hub> {
    let (options, programs) = (plan.policy.fan_out?, supply.relays?);
    // Without random numbers there is none, and each node says so.
    Hub::new(programs.clone(), options).ok()
}

/// Decides which node is at work when.
struct Scheduler<'a, T> {
    context: &'a RunContext<'a, T>,
    cancel: watch::Sender<bool>,
    phase: Phase,
    stop: Stop,
    /// The first node that was not started yet in this phase.
    fresh: usize,
    /// Cumulative ends of the waves still to come; the last is the fleet's size.
    waves: std::vec::IntoIter<usize>,
    /// Nodes that wait for their next try.
    waiting: BinaryHeap<Reverse<Waiting>>,
    /// Nodes whose pull goes on without a visit, by the time of the next one. They keep their place.
    unwatched: BinaryHeap<Reverse<Waiting>>,
    /// Those of them that are to be visited now.
    to_visit: VecDeque<NodeState>,
    /// When what is not visited by then is no longer cancelled.
    cancel_until: Option<Instant>,
    /// Where each node's state is, in the fleet's order.
    nodes: Vec<Slot>,
    failed_nodes: usize,
    canary: Canary,
}

/// What the nodes at work are doing.
enum Phase {
    /// All are asked whether they are ready; none pulls until then.
    Preflight,
    /// They work, wave after wave.
    Running {
        /// The wave that was started last, from 1; 0 before the first.
        wave: usize,
        /// Nodes below this one may start.
        end: usize,
    },
}

impl Phase {
    const START: Self = Self::Running { wave: 0, end: 0 };
}

/// Whether the run ends early, and why.
#[derive(Clone, Copy)]
enum Stop {
    No,
    /// No node is started any more; what runs goes on.
    NoNewNodes(StopReason),
    /// What runs is cancelled, too.
    Cancelled(StopReason),
}

impl Stop {
    fn reason(self) -> Option<StopReason> {
        match self {
            Self::No => None,
            Self::NoNewNodes(reason) | Self::Cancelled(reason) => Some(reason),
        }
    }
}

/// Where a node's state is.
enum Slot {
    /// Nowhere yet: the node was not started.
    Fresh,
    /// Here: the node passed the preflight, and waits for the others.
    Ready(NodeState),
    /// With a visit, or among those that wait for their next try.
    Out,
    /// Here: the node has all its outcomes.
    Done(NodeState),
}

/// A node that waits for its next try; ordered by time, then by the fleet's order.
struct Waiting {
    due: Instant,
    state: NodeState,
}

impl Waiting {
    fn key(&self) -> (Instant, usize) {
        (self.due, self.state.node)
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}
impl Eq for Waiting {}
impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

impl<'a, T: Transport> Scheduler<'a, T> {
    fn new(context: &'a RunContext<'a, T>, cancel: watch::Sender<bool>) -> Self {
        let nodes = context.plan.fleet.nodes().len();
        Self {
            context,
            cancel,
            phase: match context.plan.wants_preflight() {
                true => Phase::Preflight,
                false => Phase::START,
            },
            stop: Stop::No,
            fresh: 0,
            waves: wave_ends(&context.plan.policy.waves, nodes).into_iter(),
            waiting: BinaryHeap::new(),
            unwatched: BinaryHeap::new(),
            to_visit: VecDeque::new(),
            cancel_until: None,
            nodes: (0..nodes).map(|_| Slot::Fresh).collect(),
            failed_nodes: 0,
            canary: Canary::new(context.plan),
        }
    }

    async fn run(mut self, mut stop: watch::Receiver<Option<StopReason>>) -> Finish {
        let policy = &self.context.plan.policy;
        let deadline = policy.deadline.map(|limit| self.context.began + limit);
        let mut at_work = FuturesUnordered::new();
        let mut first_pull = self.context.first_pull.subscribe();
        self.tell_what_is_held().await;
        loop {
            self.find_visits();
            while at_work.len() < self.context.connections.most
                && let Some(state) = self.next_visit(at_work.len())
            {
                at_work.push(visit(self.context, state));
            }
            let others = self.connections_needed(at_work.len());
            let visits = self.to_visit.len();
            self.context.connections.set_needed(visits, others);
            let is_idle = at_work.is_empty() && self.unwatched() == 0;
            if is_idle && self.is_cancelled() {
                break;
            }
            if is_idle && self.waiting.is_empty() {
                match self.next_phase().await {
                    true => continue,
                    false => break,
                }
            }
            let next = self.next_time(at_work.len());
            tokio::select! {
                biased;
                reason = asked_to_stop(&mut stop), if !self.is_cancelled() => {
                    self.cancel_all(reason).await;
                }
                () = sleep_until(deadline.unwrap_or(self.context.began)),
                    if deadline.is_some() && !self.is_cancelled() =>
                {
                    self.cancel_all(StopReason::Deadline).await;
                }
                Some(state) = at_work.next(), if !at_work.is_empty() => {
                    self.take_back(state).await;
                }
                () = has_pulled_for(&mut first_pull, canary::PATIENCE), if self.canary.is_waiting() => {
                    self.canary.open();
                }
                () = sleep_until(next.unwrap_or(self.context.began)), if next.is_some() => {
                    self.end_cancelling().await;
                }
            }
        }
        drop(at_work);
        self.finish().await
    }

    /// The outcomes that are known before anything starts, in the plan's order.
    async fn tell_what_is_held(&self) {
        let plan = self.context.plan;
        let mut known: Vec<_> = plan.already_present.keys().copied().collect();
        known.sort_unstable();
        for (node, item) in known {
            if let Some(record) = earlier(plan, node, item).map(Arc::new) {
                self.context
                    .emit(EventKind::Finished { node, item, record })
                    .await;
            }
        }
    }

    fn is_cancelled(&self) -> bool {
        matches!(self.stop, Stop::Cancelled(_))
    }

    /// How many nodes keep a place for a pull that goes on without a visit.
    fn unwatched(&self) -> usize {
        self.unwatched.len() + self.to_visit.len()
    }

    /// Finds the nodes that are to be visited now: all, where what runs is to be cancelled.
    fn find_visits(&mut self) {
        let now = Instant::now();
        let is_cancelled = self.is_cancelled();
        while let Some(Reverse(first)) = self.unwatched.peek()
            && (is_cancelled || first.due <= now)
            && let Some(Reverse(Waiting { state, .. })) = self.unwatched.pop()
        {
            self.to_visit.push_back(state);
        }
    }

    /// The node to visit now, while so many visits are at work: one whose pull goes on by itself, else one that is let
    /// in.
    fn next_visit(&mut self, at_work: usize) -> Option<NodeState> {
        if let Some(state) = self.to_visit.pop_front() {
            return Some(state);
        }
        match self.has_place(at_work) {
            true => self.next_node(),
            false => None,
        }
    }

    /// How many nodes may be at work.
    fn places(&self) -> usize {
        let policy = &self.context.plan.policy;
        match policy.fan_out {
            // Nodes that wait for others do not count: `RunContext::slots` are for those that do.
            Some(_) => self.nodes.len().max(1),
            None => policy.parallel.max(1),
        }
    }

    fn has_place(&self, at_work: usize) -> bool {
        at_work + self.unwatched() < self.places()
    }

    /// How many more connections could be used now by nodes that are let in.
    fn connections_needed(&self, at_work: usize) -> usize {
        let places = self.places().saturating_sub(at_work + self.unwatched());
        let now = Instant::now();
        let waiting = self.waiting.peek();
        let is_due = waiting.is_some_and(|Reverse(waiting)| waiting.due <= now);
        let end = match self.phase {
            Phase::Preflight => self.nodes.len(),
            Phase::Running { end, .. } => end,
        };
        let fresh = match self.may_start(self.fresh) {
            true => end - self.fresh,
            false => 0,
        };
        places.min(fresh + usize::from(is_due))
    }

    /// When to look again, if nothing happens before.
    fn next_time(&self, at_work: usize) -> Option<Instant> {
        if self.is_cancelled() {
            return self.cancel_until.filter(|_| !self.to_visit.is_empty());
        }
        let now = Instant::now();
        let due = |nodes: &BinaryHeap<Reverse<Waiting>>| nodes.peek().map(|Reverse(node)| node.due);
        let has_room = at_work < self.context.connections.most && self.has_place(at_work);
        // What is due already waits for room.
        let waiting = due(&self.waiting).filter(|due| has_room || *due > now);
        [waiting, due(&self.unwatched)].into_iter().flatten().min()
    }

    /// Gives up to cancel what was not visited in time.
    async fn end_cancelling(&mut self) {
        if self.cancel_until.is_none_or(|until| until > Instant::now()) {
            return;
        }
        while let Some(mut state) = self.to_visit.pop_front() {
            if let Some(unwatched) = state.unwatched.take() {
                let why = "the time for visits that cancel was over";
                revisit::give_up(self.context, &mut state, unwatched, why).await;
            }
            let (node, done) = (state.node, false);
            self.nodes[node] = Slot::Done(state);
            self.context.emit(EventKind::NodeLeft { node, done }).await;
        }
    }

    /// The node to let in now: one whose next try is due, else one that was not started yet.
    fn next_node(&mut self) -> Option<NodeState> {
        if self.is_cancelled() {
            return None;
        }
        let now = Instant::now();
        if self
            .waiting
            .peek()
            .is_some_and(|Reverse(waiting)| waiting.due <= now)
        {
            return self.waiting.pop().map(|Reverse(waiting)| waiting.state);
        }
        while self.may_start(self.fresh) {
            let node = self.fresh;
            self.fresh += 1;
            let mut state = match std::mem::replace(&mut self.nodes[node], Slot::Out) {
                Slot::Fresh => NodeState::new(node, self.context.plan),
                Slot::Ready(state) => state,
                decided @ (Slot::Out | Slot::Done(_)) => {
                    // The preflight had the last word on it, and it shows nothing of the registry.
                    self.nodes[node] = decided;
                    self.canary.asks_another();
                    continue;
                }
            };
            if state.next_due().is_none() {
                // An earlier run did all of it.
                self.canary.asks_another();
                self.nodes[node] = Slot::Done(state);
                continue;
            }
            // Read after the state was made: what is due from the start is due now.
            let now = Instant::now();
            state.postpone(self.context, now);
            match state.next_due() {
                // Every registry it needs is pausing: connecting now would only hold a place.
                Some(due) if due > now => self.waiting.push(Reverse(Waiting { due, state })),
                _ => return Some(state),
            }
        }
        None
    }

    /// Whether the node with this number may start now.
    fn may_start(&self, node: usize) -> bool {
        let is_let_in = match self.phase {
            Phase::Preflight => node < self.nodes.len(),
            Phase::Running { end, .. } => node < end && self.canary.lets_in(node),
        };
        is_let_in && matches!(self.stop, Stop::No)
    }

    /// Goes on once no node is at work and none waits; false when nothing is left to be started.
    async fn next_phase(&mut self) -> bool {
        match self.phase {
            Phase::Preflight => {
                self.end_preflight().await;
                true
            }
            Phase::Running { wave, .. } => self.start_wave(wave + 1).await,
        }
    }

    /// Every node has answered, or failed to: those that are ready may pull.
    async fn end_preflight(&mut self) {
        self.phase = Phase::START;
        self.fresh = 0;
        let is_ready = |slot: &&Slot| matches!(slot, Slot::Ready(_));
        let fact = EventKind::Preflighted {
            ready: self.nodes.iter().filter(is_ready).count(),
            failed: self.failed_nodes,
        };
        self.context.emit(fact).await;
        self.heed_failure_limit().await;
    }

    /// A node comes out of the window: it is done, or waits.
    async fn take_back(&mut self, state: NodeState) {
        if let Some(due) = state.unwatched.map(|unwatched| unwatched.due) {
            return self.unwatched.push(Reverse(Waiting { due, state }));
        }
        let is_asked = matches!(self.phase, Phase::Preflight);
        let is_ready = is_asked && state.is_ready;
        let is_given_up = self.context.transport.has_given_up_a_password();
        if (self.canary).finds_password_refused(&state, is_ready, is_given_up) {
            self.stop_starting(StopReason::PasswordRefused).await;
        }
        if !is_asked && self.canary.judge(&state) {
            self.stop_starting(StopReason::Canary).await;
        }
        let node = state.node;
        match state.next_due() {
            Some(_) if is_ready => self.nodes[node] = Slot::Ready(state),
            Some(due) => self.waiting.push(Reverse(Waiting { due, state })),
            None => {
                let has_failed = state.has_failed();
                self.nodes[node] = Slot::Done(state);
                self.failed_nodes += usize::from(has_failed);
                // A preflight is to name all that is wrong.
                if has_failed && !is_asked {
                    self.heed_failure_limit().await;
                }
            }
        }
        let fleet = self.nodes.len();
        let hub = self.context.hub.as_ref();
        if hub.is_some_and(|hub| hub.is_failing(fleet)) {
            self.stop_starting(StopReason::FanOut).await;
        }
    }

    async fn heed_failure_limit(&mut self) {
        let nodes = self.nodes.len();
        let limit = self.context.plan.policy.max_failures;
        if limit.is_some_and(|limit| self.failed_nodes >= limit.nodes(nodes)) {
            self.stop_starting(StopReason::FailureLimit).await;
        }
    }

    /// No fresh node is started from here on. Says so only when that leaves something out.
    async fn stop_starting(&mut self, reason: StopReason) {
        if matches!(self.stop, Stop::No) && self.fresh < self.nodes.len() {
            self.stop = Stop::NoNewNodes(reason);
            self.context.emit(EventKind::Stopping { reason }).await;
        }
    }

    /// No fresh node is started, and what runs or waits is given up.
    async fn cancel_all(&mut self, reason: StopReason) {
        self.stop = Stop::Cancelled(reason);
        self.cancel_until = Some(Instant::now() + CANCEL_LIMIT);
        self.cancel.send_replace(true);
        self.context.emit(EventKind::Stopping { reason }).await;
    }

    /// Opens a wave; false when the last one is over or nothing may start any more.
    async fn start_wave(&mut self, wave: usize) -> bool {
        if self.failed_nodes > 0 && wave > 1 {
            self.stop_starting(StopReason::WaveFailed).await;
        }
        if !matches!(self.stop, Stop::No) {
            return false;
        }
        let Some(end) = self.waves.next() else {
            return false;
        };
        self.phase = Phase::Running { wave, end };
        let fact = EventKind::WaveStarted { wave, nodes: end };
        self.context.emit(fact).await;
        true
    }

    /// Gives everything that has no outcome the one of having been stopped.
    async fn finish(mut self) -> Finish {
        for Reverse(Waiting { state, .. }) in self.waiting.drain() {
            let node = state.node;
            self.nodes[node] = Slot::Done(state);
        }
        let stopped = self.stop.reason();
        let mut nodes = Vec::with_capacity(self.nodes.len());
        for (node, slot) in self.nodes.into_iter().enumerate() {
            let mut state = match slot {
                Slot::Ready(state) | Slot::Done(state) => state,
                Slot::Fresh | Slot::Out => NodeState::new(node, self.context.plan),
            };
            if let Some(reason) = stopped {
                state.abandon(self.context, reason).await;
            }
            nodes.push(state.into_record());
        }
        Finish {
            nodes,
            stopped,
            fan_out: None,
        }
    }
}

/// Resolves once a pull has been at it for this long.
async fn has_pulled_for(first: &mut watch::Receiver<Option<Instant>>, time: Duration) {
    match first.wait_for(Option::is_some).await.map(|began| *began) {
        Ok(Some(began)) => sleep_until(began + time).await,
        Ok(None) | Err(_) => std::future::pending().await,
    }
}

/// Resolves when the operator asks for an early end; never when the sender is gone.
async fn asked_to_stop(stop: &mut watch::Receiver<Option<StopReason>>) -> StopReason {
    match stop.wait_for(Option::is_some).await.map(|reason| *reason) {
        Ok(Some(reason)) => reason,
        Ok(None) | Err(_) => std::future::pending().await,
    }
}

/// The cumulative ends of the waves: rising, and the last is the whole fleet.
fn wave_ends(waves: &[Portion], nodes: usize) -> Vec<usize> {
    let ends = waves.iter().map(|portion| portion.nodes(nodes).min(nodes));
    let mut ends: Vec<usize> = ends.chain([nodes]).collect();
    ends.sort_unstable();
    ends.dedup();
    ends
}
