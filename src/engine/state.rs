//! Where one node stands: its items, their attempts and outcomes.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tokio::time::Instant;

use super::context::RunContext;
use super::retry::{Decision, FailedAttempt, after_pause, decide, goes_on, is_out_of_reach};
use super::transfer_stats::TransferStats;
use super::unwatched::{Unwatched, visit_in};
use crate::model::{
    Attempt, Delivery, EventKind, Failure, FailureKind, Image, KeepOutcome, NodeRecord, Outcome,
    Plan, Policy, Record, RuntimeKind, StopReason,
};
use crate::node::PullState;

/// One node's place in the run. Either the scheduler or one visit holds it, never both.
pub(super) struct NodeState {
    /// Its index in the fleet.
    pub(super) node: usize,
    /// What holds its images, once that is known.
    pub(super) runtime: Option<RuntimeKind>,
    /// Its system and architecture, once a preflight has asked.
    pub(super) platform: Option<(String, String)>,
    /// Whether the preflight found that it may pull, or none is wanted.
    pub(super) is_ready: bool,
    /// One for each item of the work.
    pub(super) items: Vec<ItemState>,
    /// The pull that goes on without a visit.
    pub(super) unwatched: Option<Unwatched>,
    /// How many connections the visit has promised to give away.
    pub(super) claims: AtomicUsize,
    /// Until when a pull may be going on there without us. Until then, not reaching the node costs no attempt.
    alone_until: Option<Instant>,
}

/// One item on one node.
pub(super) struct ItemState {
    pub(super) attempts: Vec<Attempt>,
    /// How many of them do not count: they failed to reach a pull that goes on by itself.
    forgiven: usize,
    /// When the attempt began that goes on without us, if one does.
    going_since: Option<Instant>,
    /// How the pull stood when the last visit left it, while it goes on.
    pub(super) standing: Option<PullState>,
    /// What arrives.
    pub(super) transfer_stats: TransferStats,
    /// How the image came, where it was to come through the connection.
    pub(super) delivery: Option<Delivery>,
    /// Whether the image is kept from the kubelet's garbage collection, where that was asked for.
    pub(super) kept: Option<KeepOutcome>,
    /// A registry refused the login, and there is another one to try.
    pub(super) has_new_login: bool,
    /// When it may be tried (again).
    pub(super) due: Instant,
    /// When its first attempt began.
    began: Option<Instant>,
    /// Set once, and then never again.
    record: Option<Arc<Record>>,
}

impl ItemState {
    pub(super) fn is_open(&self) -> bool {
        self.record.is_none()
    }

    /// The number of the next attempt.
    fn next_number(&self) -> u32 {
        u32::try_from(self.attempts.len() + 1).unwrap_or(u32::MAX)
    }

    /// What is left of the time that one attempt may take.
    pub(super) fn left_of(&self, limit: Duration) -> Duration {
        if self.standing.is_some() {
            // The node's program counts from when the pull began.
            return limit;
        }
        let gone = self
            .going_since
            .map_or(Duration::ZERO, |since| since.elapsed());
        limit.saturating_sub(gone)
    }
}

impl NodeState {
    pub(super) fn new(node: usize, plan: &Plan) -> Self {
        let now = Instant::now();
        Self {
            node,
            runtime: plan.fleet.nodes()[node].runtime,
            platform: None,
            is_ready: !plan.wants_preflight(),
            items: (0..plan.work.items())
                .map(|item| ItemState {
                    attempts: Vec::new(),
                    forgiven: 0,
                    going_since: None,
                    standing: None,
                    transfer_stats: TransferStats::default(),
                    delivery: None,
                    kept: None,
                    has_new_login: false,
                    due: now,
                    began: None,
                    record: earlier(plan, node, item).map(Arc::new),
                })
                .collect(),
            unwatched: None,
            claims: AtomicUsize::new(0),
            alone_until: None,
        }
    }

    /// When its next open item may be tried; `None` when all have their outcome.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let open = self.items.iter().filter(|item| item.is_open());
        open.map(|item| item.due).min()
    }

    /// The open items that may be tried now: first the one whose pull goes on, then in the work's order.
    pub(super) fn due_items(&self, now: Instant) -> Vec<usize> {
        let going = self.unwatched.map(|unwatched| unwatched.item);
        let due = |item: &ItemState| item.is_open() && item.due <= now;
        let others =
            (0..self.items.len()).filter(|index| due(&self.items[*index]) && Some(*index) != going);
        going.into_iter().chain(others).collect()
    }

    /// Notes that a pull goes on without a visit. Returns when it is visited next.
    pub(super) fn leave_alone(
        &mut self,
        policy: &Policy,
        item: usize,
        began: Instant,
        standing: PullState,
    ) -> Duration {
        let now = Instant::now();
        let visit_in = visit_in(policy, &standing);
        self.alone_until = now.checked_add(policy.lease);
        self.items[item].standing = Some(standing);
        self.unwatched = Some(Unwatched {
            item,
            began,
            due: now + visit_in,
        });
        visit_in
    }

    /// The outcomes that it has by now.
    pub(super) fn outcomes(&self) -> impl Iterator<Item = &Outcome> {
        let records = self.items.iter().filter_map(|item| item.record.as_ref());
        records.map(|record| &record.outcome)
    }

    /// Whether a part of the work failed here. That `check` found an image missing is an answer, not a failure.
    pub(super) fn has_failed(&self) -> bool {
        self.outcomes().any(|outcome| match outcome {
            Outcome::Failed(_) => true,
            Outcome::Ran(output) => !output.success(),
            _ => false,
        })
    }

    /// Notes that an attempt at these items has begun.
    pub(super) fn begin(&mut self, items: &[usize], now: Instant) {
        for index in items {
            self.items[*index].began.get_or_insert(now);
        }
    }

    /// Notes that the preflight let it through: what is open begins with the pull, whenever that is.
    pub(super) fn mark_preflight_passed(&mut self) {
        self.is_ready = true;
        // Not where an attempt failed before: it counts, and so does its time.
        let fresh = |item: &&mut ItemState| item.is_open() && item.attempts.is_empty();
        for item in self.items.iter_mut().filter(fresh) {
            item.began = None;
        }
    }

    /// Takes the result of one attempt: the item gets its outcome or the time of its next try.
    pub(super) async fn record_attempt<T>(
        &mut self,
        context: &RunContext<'_, T>,
        index: usize,
        result: Result<Outcome, Failure>,
        attempt_began: Instant,
    ) {
        let plan = context.plan;
        let now = Instant::now();
        match &result {
            Err(failure) if goes_on(&plan.work, failure) => {
                self.alone_until = now.checked_add(plan.policy.lease);
                self.items[index].going_since.get_or_insert(attempt_began);
            }
            Err(failure) if is_out_of_reach(failure) => {}
            Ok(_) | Err(_) => {
                self.alone_until = None;
                self.items[index].going_since = None;
                self.items[index].standing = None;
            }
        }
        let (node, item) = (self.node, &mut self.items[index]);
        let number = item.next_number();
        item.attempts.push(Attempt {
            number,
            elapsed: now - attempt_began,
            failure: result.as_ref().err().cloned(),
        });
        let registry = plan.work.image(index).map(Image::registry);
        let outcome = match result {
            Ok(outcome) => {
                if let (Outcome::Pulled(_), Some(registry)) = (&outcome, registry) {
                    context.registries.on_success(registry);
                }
                outcome
            }
            Err(failure) => match decide(&FailedAttempt {
                work: &plan.work,
                policy: &plan.policy,
                node,
                attempts: &item.attempts,
                forgiven: item.forgiven,
                failure: &failure,
                alone_until: self.alone_until,
                has_new_login: item.has_new_login,
                registry: registry.map(|registry| context.registries.view(registry)),
                now,
            }) {
                Decision::Finish => Outcome::Failed(failure),
                Decision::Retry {
                    at,
                    is_forgiven,
                    registry: effect,
                } => {
                    item.forgiven += usize::from(is_forgiven);
                    item.due = at;
                    if let Some(registry) = registry
                        && let Some(length) = context.registries.on_failure(registry, effect, now)
                    {
                        let registry = registry.to_string();
                        let fact = EventKind::RegistryPaused { registry, length };
                        context.emit(fact).await;
                    }
                    let fact = EventKind::AttemptFailed {
                        node,
                        item: index,
                        attempt: number,
                        failure,
                        retry_in: at - now,
                    };
                    return context.emit(fact).await;
                }
            },
        };
        self.set_outcome(context, index, outcome).await;
    }

    /// Moves the open items that pull behind the pauses of their registries.
    pub(super) fn postpone<T>(&mut self, context: &RunContext<'_, T>, now: Instant) {
        let plan = context.plan;
        if !plan.work.uses_registry() {
            return;
        }
        let node = self.node;
        for (index, item) in self.items.iter_mut().enumerate() {
            let registry = plan.work.image(index).map(Image::registry);
            if item.due <= now
                && item.standing.is_none()
                && let Some(registry) = registry
                && let Some(until) = context.registries.paused_until(registry, now)
            {
                let attempt = u32::try_from(item.attempts.len()).unwrap_or(u32::MAX);
                item.due = after_pause(&plan.policy, node, attempt, until, now);
            }
        }
    }

    /// Notes an attempt that was cancelled; its item stays open for [`NodeState::abandon`].
    pub(super) fn note_cancelled(&mut self, index: usize, attempt_began: Instant) {
        let item = &mut self.items[index];
        let number = item.next_number();
        item.attempts.push(Attempt {
            number,
            elapsed: attempt_began.elapsed(),
            failure: None,
        });
    }

    /// Gives every open item the outcome of not having been run.
    pub(super) async fn abandon<T>(&mut self, context: &RunContext<'_, T>, reason: StopReason) {
        for index in 0..self.items.len() {
            if self.items[index].is_open() {
                self.set_outcome(context, index, Outcome::NotRun(reason))
                    .await;
            }
        }
    }

    async fn set_outcome<T>(
        &mut self,
        context: &RunContext<'_, T>,
        index: usize,
        outcome: Outcome,
    ) {
        let item = &mut self.items[index];
        debug_assert!(item.is_open(), "an item has one outcome");
        let record = Arc::new(Record {
            arrived: match outcome {
                Outcome::Pulled(_) | Outcome::Present(_) => item.transfer_stats.layers.arrived(),
                _ => None,
            },
            delivery: item.delivery.take(),
            kept: item.kept.take(),
            outcome,
            attempts: std::mem::take(&mut item.attempts),
            elapsed: item.began.map_or(Duration::ZERO, |began| began.elapsed()),
        });
        item.record = Some(Arc::clone(&record));
        let fact = EventKind::Finished {
            node: self.node,
            item: index,
            record,
        };
        context.emit(fact).await;
    }

    /// The final record. Every item has its outcome by now; one without would be a fault of ours and says so.
    pub(super) fn into_record(self) -> NodeRecord {
        let lost = || {
            let detail = "the run ended without an outcome";
            let failure = Failure::new(FailureKind::Internal, crate::model::Stage::Connect, detail);
            Arc::new(Record {
                outcome: Outcome::Failed(failure),
                attempts: Vec::new(),
                elapsed: Duration::ZERO,
                arrived: None,
                delivery: None,
                kept: None,
            })
        };
        NodeRecord {
            runtime: self.runtime,
            items: self
                .items
                .into_iter()
                .map(|item| Arc::unwrap_or_clone(item.record.unwrap_or_else(lost)))
                .collect(),
        }
    }
}

/// What an earlier run left there.
pub(super) fn earlier(plan: &Plan, node: usize, item: usize) -> Option<Record> {
    plan.already_present.get(&(node, item)).map(|held| Record {
        outcome: Outcome::Present(held.clone()),
        attempts: Vec::new(),
        elapsed: Duration::ZERO,
        arrived: None,
        delivery: None,
        kept: None,
    })
}
