//! What follows a failed attempt: a matter of the failure's kind, never of its text. Pure: all that a decision depends
//! on is an argument.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::{Attempt, Failure, FailureKind, Policy, Retry, Stage, Work};

/// How often at most a lost connection costs no attempt: a node that breaks every one must not hold a run for ever.
const FORGIVEN: usize = 200;

/// How long the first pause of a rate-limited registry is, in ceilings of the back-off: a registry
/// that counts pulls needs longer to forgive than one that was briefly away.
const RATE_LIMIT_FACTOR: u32 = 8;

/// How many attempts have to find a registry unavailable, with none that succeeds in between, until all nodes wait
/// for it: one alone may be that node's own trouble.
const OUTAGE: usize = 2;

/// A failed attempt at an item, and what is known beside it.
pub(super) struct FailedAttempt<'a> {
    pub(super) work: &'a Work,
    pub(super) policy: &'a Policy,
    /// The node's index in the fleet.
    pub(super) node: usize,
    /// All attempts at the item so far, this one included.
    pub(super) attempts: &'a [Attempt],
    /// How many of them do not count, because they failed to reach a pull that goes on by itself.
    pub(super) forgiven: usize,
    pub(super) failure: &'a Failure,
    /// Until when a pull may be going on by itself on the node.
    pub(super) alone_until: Option<Instant>,
    /// Whether the registry refused a login, and there is another one to try.
    pub(super) has_new_login: bool,
    /// What the run knows about the item's registry; `None` for an item without one.
    pub(super) registry: Option<RegistryView>,
    pub(super) now: Instant,
}

/// What the run knows about a registry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct RegistryView {
    /// When its pause ends.
    pub(super) paused_until: Option<Instant>,
    /// How often it could not be reached since a pull from it succeeded.
    pub(super) failures: usize,
}

/// What follows a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// The failure is the item's outcome.
    Finish,
    /// Another attempt.
    Retry {
        /// When it may begin.
        at: Instant,
        /// Whether the failed one does not count.
        is_forgiven: bool,
        /// What it means for the registry.
        registry: RegistryEffect,
    },
}

/// What a failed attempt means for all nodes that pull from the same registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RegistryEffect {
    /// Nothing.
    None,
    /// It counts as a failure of the registry.
    Count,
    /// It counts, and the registry pauses for this long from now.
    Pause(Duration),
}

/// What follows a failed attempt.
pub(super) fn decide(attempt: &FailedAttempt<'_>) -> Decision {
    let FailedAttempt {
        work,
        policy,
        node,
        attempts,
        forgiven,
        failure,
        alone_until,
        has_new_login,
        registry,
        now,
    } = *attempt;
    let is_forgiven = alone_until.is_some_and(|until| until > now) && forgiven < FORGIVEN;
    let has_new_login = has_new_login && was_refused_once(attempts);
    if !is_forgiven && !has_new_login && !may_retry(work, policy, attempts, forgiven, failure) {
        return Decision::Finish;
    }
    let number = u32::try_from(attempts.len()).unwrap_or(u32::MAX);
    let mut ceiling = match has_new_login {
        true => Duration::ZERO,
        false => policy.backoff.ceiling(number),
    };
    if is_forgiven {
        // After the lease expires there is no pull left to reattach to.
        ceiling = ceiling.min(policy.lease / 10);
    }
    let mut at = now + jitter(policy, node, number, ceiling);
    let mut effect = RegistryEffect::None;
    // What a preflight finds is the node's own way to the registry, which no other node should wait for.
    if let Some(view) = registry.filter(|_| failure.stage != Stage::Preflight) {
        effect = registry_effect(policy, failure.kind, number, at - now, view.failures);
        let pause = match effect {
            RegistryEffect::Pause(length) => Some(now + length),
            RegistryEffect::None | RegistryEffect::Count => None,
        };
        if let Some(until) = view.paused_until.max(pause)
            && until > at
        {
            at = after_pause(policy, node, number, until, now);
        }
    }
    Decision::Retry {
        at,
        is_forgiven,
        registry: effect,
    }
}

/// What a failure of this kind at attempt `number`, after which the node itself waits for `wait`, means for its
/// registry, which has failed `failures` times before.
fn registry_effect(
    policy: &Policy,
    kind: FailureKind,
    number: u32,
    wait: Duration,
    failures: usize,
) -> RegistryEffect {
    match kind {
        FailureKind::RateLimited => {
            let ceiling = policy.backoff.ceiling(number);
            let length = ceiling.saturating_mul(RATE_LIMIT_FACTOR);
            RegistryEffect::Pause(length.min(policy.backoff.max))
        }
        FailureKind::RegistryUnavailable if failures + 1 >= OUTAGE => RegistryEffect::Pause(wait),
        FailureKind::RegistryUnavailable => RegistryEffect::Count,
        _ => RegistryEffect::None,
    }
}

/// When a node tries a registry again whose pause ends at `until`: at a moment of its own within half a pause after
/// the end, so that the nodes do not come back all at once.
pub(super) fn after_pause(
    policy: &Policy,
    node: usize,
    attempt: u32,
    until: Instant,
    now: Instant,
) -> Instant {
    until + jitter(policy, node, attempt, (until - now) / 2)
}

/// Whether the work may be tried again after this failure, given the attempts so far (this one included),
/// of which some do not count.
fn may_retry(
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
    if !work.is_repeatable() && has_started {
        return false;
    }
    let made = u32::try_from(attempts.len() - forgiven).unwrap_or(u32::MAX);
    let is_within_limit = made <= policy.retries;
    match failure.kind.retry() {
        Retry::Never => false,
        Retry::Full | Retry::RegistryPause => is_within_limit,
        // A runtime that went away in this run is being restarted; one that never answered may not be there at all.
        Retry::Limited if failure.kind == FailureKind::RuntimeAbsent && went_away(attempts) => {
            is_within_limit
        }
        Retry::Limited => {
            let alike = attempts
                .iter()
                .filter_map(|attempt| attempt.failure.as_ref())
                .filter(|failure| failure.kind.retry() == Retry::Limited)
                .count();
            is_within_limit && alike <= Retry::FEW as usize
        }
    }
}

fn went_away(attempts: &[Attempt]) -> bool {
    let mut failures = attempts
        .iter()
        .filter_map(|attempt| attempt.failure.as_ref());
    failures.any(|failure| failure.kind == FailureKind::RuntimeDown)
}

/// Whether the last attempt failed because of its login, and no other did.
fn was_refused_once(attempts: &[Attempt]) -> bool {
    let is_refusal = |attempt: &Attempt| {
        let failure = attempt.failure.as_ref();
        failure.is_some_and(|failure| failure.kind == FailureKind::RegistryAuth)
    };
    attempts.last().is_some_and(is_refusal)
        && attempts.iter().filter(|a| is_refusal(a)).count() == 1
}

/// Whether a pull may be going on by itself on the node after this failure, which lost its connection.
pub(super) fn goes_on(work: &Work, failure: &Failure) -> bool {
    work.is_detached()
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

#[cfg(test)]
#[path = "retry_tests.rs"]
mod tests;
