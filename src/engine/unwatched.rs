//! Pulls that go on without a visit: connections are fewer than nodes at work, so a pull that runs well gives its
//! connection to another node and is visited again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::model::{Plan, Policy, PullVia, Work};
use crate::node::PullState;

/// How often a visit that waits for a registry asks whether its connection is needed.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How long after its supposed end a pull is visited: images are verified, and rates vary.
const AFTER_END: Duration = Duration::from_secs(2);
/// The first estimate of a rate is poor: a pull is left for so many times as long as it has run.
const TRUST: u32 = 20;
const FIRST_VISIT: Duration = Duration::from_secs(20);
/// When a pull is visited of which nothing was seen to arrive, or that should have ended.
const SOONEST: Duration = Duration::from_secs(5);
const AT_RISK: Duration = Duration::from_secs(30);
const UNSEEN: Duration = Duration::from_secs(60);

/// A pull that goes on by itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unwatched {
    pub(super) item: usize,
    /// When the attempt began.
    pub(super) began: Instant,
    /// When it is visited.
    pub(super) due: Instant,
}

/// The connections of a run.
pub(super) struct Connections {
    /// The most at one time.
    pub(super) most: usize,
    /// Whether there may be more nodes at work, and pulls that can go on without one.
    pub(super) is_short: bool,
    /// How many more are needed than there are.
    needed: AtomicUsize,
    /// How many of them are for visits to pulls that go on: their leases run.
    needed_for_visits: AtomicUsize,
    /// How many are about to be given away.
    leaving: AtomicUsize,
}

impl Connections {
    pub(super) fn new(plan: &Plan) -> Self {
        let Policy {
            parallel,
            connections,
            via,
            ..
        } = plan.policy;
        let nodes = plan.fleet.nodes().len();
        let most = match plan.work {
            // A node that passes images on needs its connection as long as others wait for it.
            Work::Pull(_) if plan.policy.fan_out.is_some() => nodes,
            Work::Pull(_) => parallel.min(connections),
            // A command has nothing but its connection.
            Work::Check(_) | Work::Exec(_) | Work::Probe(_) => parallel,
        };
        Self {
            most: most.max(1),
            // A pull through SSH needs its connection.
            is_short: most < parallel.min(nodes)
                && via == PullVia::Registry
                && plan.policy.fan_out.is_none(),
            needed: AtomicUsize::new(0),
            needed_for_visits: AtomicUsize::new(0),
            leaving: AtomicUsize::new(0),
        }
    }

    /// Takes how many more are needed than there are: for visits to pulls that go on, and for nodes that are let in.
    pub(super) fn set_needed(&self, for_visits: usize, for_others: usize) {
        self.needed_for_visits.store(for_visits, Ordering::Relaxed);
        self.needed
            .store(for_visits + for_others, Ordering::Relaxed);
    }

    /// Whether the connection of the visit that asks is to be given away. If so, `claims` notes that until it is.
    pub(super) fn claim(&self, claims: &AtomicUsize) -> bool {
        self.claim_for(&self.needed, claims)
    }

    /// Resolves once the connection is to be given away though its visit did not come to pull yet: one to a pull that
    /// goes on needs it.
    pub(super) async fn needed_for_visit(&self, claims: &AtomicUsize) {
        loop {
            sleep(ASK_EVERY).await;
            if self.is_short && self.claim_for(&self.needed_for_visits, claims) {
                return;
            }
        }
    }

    fn claim_for(&self, needed: &AtomicUsize, claims: &AtomicUsize) -> bool {
        let needed = needed.load(Ordering::Relaxed);
        let claim = |leaving: usize| (leaving < needed).then_some(leaving + 1);
        let claimed = (self.leaving).fetch_update(Ordering::Relaxed, Ordering::Relaxed, claim);
        claims.fetch_add(usize::from(claimed.is_ok()), Ordering::Relaxed);
        claimed.is_ok()
    }

    /// The connection of the visit with these `claims` has been given away.
    pub(super) fn settle(&self, claims: &AtomicUsize) {
        let claimed = claims.swap(0, Ordering::Relaxed);
        self.leaving.fetch_sub(claimed, Ordering::Relaxed);
    }
}

/// In which time a pull is visited that stood so.
pub(super) fn visit_in(policy: &Policy, state: &PullState) -> Duration {
    let ran = state.at - state.since;
    let (bytes, total) = (state.bytes, state.total);
    let guess = match total {
        // It unpacks.
        Some(total) if bytes >= total => (ran / 8).clamp(SOONEST, AT_RISK),
        Some(total) if bytes > 0 => {
            let left = ran.as_secs_f64() * (total - bytes) as f64 / bytes as f64;
            let left = Duration::try_from_secs_f64(left).unwrap_or(policy.lease);
            (left + AFTER_END).min(FIRST_VISIT.max(ran.saturating_mul(TRUST)))
        }
        _ => (ran / 4).clamp(UNSEEN / 4, UNSEEN),
    };
    let guess = match state.has_moved {
        true => guess,
        false => guess.min(AT_RISK),
    };
    let left = policy.pull_timeout.map(|limit| limit.saturating_sub(ran));
    let guess = left.map_or(guess, |left| guess.min(left + 4 * AFTER_END));
    guess.max(SOONEST).min(policy.lease / 2)
}
