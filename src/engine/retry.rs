//! Whether and when to try again: a matter of the failure's kind, never of its text.

use std::time::Duration;

use crate::model::{Attempt, Failure, FailureKind, Policy, Retry, Stage, Work};

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
pub(super) fn was_refused_once(attempts: &[Attempt]) -> bool {
    let is_refusal = |attempt: &Attempt| {
        let failure = attempt.failure.as_ref();
        failure.is_some_and(|failure| failure.kind == FailureKind::RegistryAuth)
    };
    attempts.last().is_some_and(is_refusal)
        && attempts.iter().filter(|a| is_refusal(a)).count() == 1
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_that_went_away_is_waited_for_longer_than_one_that_never_was_there() {
        let policy = Policy {
            retries: 6,
            ..Policy::default()
        };
        let failure = |kind| Failure::new(kind, Stage::Pull, "");
        let tried = |first: FailureKind| {
            let mut attempts = Vec::new();
            let mut next = first;
            loop {
                attempts.push(Attempt {
                    number: 0,
                    elapsed: Duration::ZERO,
                    failure: Some(failure(next)),
                });
                if !may_retry(&Work::Pull(vec![]), &policy, &attempts, 0, &failure(next)) {
                    return attempts.len();
                }
                next = FailureKind::RuntimeAbsent;
            }
        };
        assert_eq!(tried(FailureKind::RuntimeAbsent), 3);
        assert_eq!(tried(FailureKind::RuntimeDown), 7);
    }
}
