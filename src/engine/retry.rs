//! Whether and when to try again: a matter of the failure's kind, never of its text.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::state::NodeState;
use crate::model::{Attempt, Failure, FailureKind, Plan, Policy, Retry, Stage, Work};

/// How long the first pause of a rate-limited registry is, in ceilings of the back-off: a registry
/// that counts pulls needs longer to forgive than one that was briefly away.
const RATE_LIMIT_FACTOR: u32 = 8;

/// Whether the work may be tried again after this failure, given the attempts so far (this one included),
/// of which some do not count.
pub(super) fn may_retry(
    work: &Work,
    policy: &Policy,
    attempts: &[Attempt],
    forgiven: usize,
    failure: &Failure,
) -> bool {
    // A command that has started may have done its work already: only the way to it is tried again.
    let has_started = !matches!(
        failure.stage,
        Stage::Connect | Stage::Handshake | Stage::Authenticate
    );
    if matches!(work, Work::Exec(_)) && has_started {
        return false;
    }
    let made = u32::try_from(attempts.len() - forgiven).unwrap_or(u32::MAX);
    let is_within_limit = made <= policy.retries;
    match failure.kind.retry() {
        Retry::Never => false,
        Retry::Yes | Retry::Paused => is_within_limit,
        Retry::Few => {
            let alike = attempts
                .iter()
                .filter_map(|attempt| attempt.failure.as_ref())
                .filter(|failure| failure.kind.retry() == Retry::Few)
                .count();
            is_within_limit && alike <= Retry::FEW as usize
        }
    }
}

/// Whether a pull may be going on by itself on the node after this failure, which lost its connection.
pub(super) fn goes_on(work: &Work, failure: &Failure) -> bool {
    matches!(work, Work::Pull(_))
        && failure.kind == FailureKind::ConnectionLost
        && matches!(failure.stage, Stage::Inspect | Stage::Pull | Stage::Verify)
}

/// Whether the node was not reached at all.
pub(super) fn is_out_of_reach(failure: &Failure) -> bool {
    matches!(
        failure.kind,
        FailureKind::Unreachable | FailureKind::ConnectionLost
    )
}

/// Full jitter: a pause between zero and `ceiling`. The same seed, node and attempt give the same pause.
pub(super) fn jitter(policy: &Policy, node: usize, attempt: u32, ceiling: Duration) -> Duration {
    let seed = policy
        .seed
        .wrapping_add((node as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .wrapping_add(u64::from(attempt).wrapping_mul(0xbf58_476d_1ce4_e5b9));
    ceiling.mul_f64(fastrand::Rng::with_seed(seed).f64())
}

/// The registries that asked for a pause, shared by all nodes of the run.
#[derive(Default)]
pub(super) struct Pauses(Mutex<HashMap<String, Instant>>);

impl Pauses {
    /// When pulls from this registry may go on; `None` when they may now.
    pub(super) fn until(&self, registry: &str, now: Instant) -> Option<Instant> {
        // The map is only ever inserted into: a panic elsewhere cannot have left it half changed.
        let pauses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pauses.get(registry).copied().filter(|until| *until > now)
    }

    /// Pauses a registry after its refusal of attempt `attempt`.
    pub(super) fn pause(&self, registry: &str, policy: &Policy, attempt: u32, now: Instant) {
        let length = policy
            .backoff
            .ceiling(attempt)
            .saturating_mul(RATE_LIMIT_FACTOR)
            .min(policy.backoff.max);
        let mut pauses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let until = pauses.entry(registry.to_string()).or_insert(now);
        *until = (*until).max(now + length);
    }

    /// Moves the node's open items behind the pauses of their registries. Each gets a moment of its
    /// own within half a pause after the end, so that the nodes do not come back all at once.
    pub(super) fn postpone(&self, state: &mut NodeState, plan: &Plan, now: Instant) {
        let node = state.node;
        for (index, item) in state.items.iter_mut().enumerate() {
            let Some(image) = plan.work.image(index) else {
                continue;
            };
            if item.due > now || matches!(plan.work, Work::Check(_)) {
                continue;
            }
            if let Some(until) = self.until(image.registry(), now) {
                let attempt = u32::try_from(item.attempts.len()).unwrap_or(u32::MAX);
                item.due = until + jitter(&plan.policy, node, attempt, (until - now) / 2);
            }
        }
    }
}
