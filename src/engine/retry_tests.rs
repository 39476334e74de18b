//! What follows a failed attempt, case by case.

use super::*;
use FailureKind::{
    ConnectionLost, DiskFull, ImageNotFound, RateLimited, RegistryAuth, RegistryUnavailable,
    RuntimeAbsent, RuntimeDown, Unreachable,
};

const SECOND: Duration = Duration::from_secs(1);

/// What is known beside the failures; times in seconds from now.
#[derive(Clone, Copy, Default)]
struct Known {
    alone_for: u64,
    forgiven: usize,
    has_new_login: bool,
    paused_for: u64,
    failures: usize,
}

/// What is to follow. The times that are allowed for a retry are in seconds from now: jitter chooses among them.
#[derive(Debug)]
enum Expected {
    Finish,
    Retry(std::ops::RangeInclusive<u64>),
    Forgiven(std::ops::RangeInclusive<u64>),
}
use Expected::{Finish, Forgiven, Retry as Again};

fn policy() -> Policy {
    Policy {
        retries: 3,
        lease: 600 * SECOND,
        ..Policy::default()
    }
}

fn decided(work: &Work, stage: Stage, kinds: &[FailureKind], known: Known) -> (Decision, Instant) {
    let now = Instant::now();
    let failures: Vec<Failure> = kinds
        .iter()
        .map(|kind| Failure::new(*kind, stage, ""))
        .collect();
    let attempts: Vec<Attempt> = (1..)
        .zip(&failures)
        .map(|(number, failure)| Attempt {
            number,
            elapsed: SECOND,
            failure: Some(failure.clone()),
        })
        .collect();
    let after = |seconds: u64| (seconds > 0).then(|| now + Duration::from_secs(seconds));
    let decision = decide(&FailedAttempt {
        work,
        policy: &policy(),
        node: 3,
        attempts: &attempts,
        forgiven: known.forgiven,
        failure: failures.last().unwrap(),
        alone_until: after(known.alone_for),
        has_new_login: known.has_new_login,
        registry: Some(RegistryView {
            paused_until: after(known.paused_for),
            failures: known.failures,
        }),
        now,
    });
    (decision, now)
}

#[test]
fn what_follows_a_failure_is_decided_by_its_kind_and_by_what_is_known_beside_it() {
    let pull = Work::Pull(vec![]);
    let exec = Work::Exec(vec!["true".into()]);
    let none = Known::default();
    let alone = |forgiven| Known {
        alone_for: 60,
        forgiven,
        ..none
    };
    let paused = Known {
        paused_for: 40,
        ..none
    };
    let failed_before = Known {
        failures: 1,
        ..none
    };
    let new_login = Known {
        has_new_login: true,
        ..none
    };
    let (nothing, counts) = (RegistryEffect::None, RegistryEffect::Count);
    let eight_seconds = RegistryEffect::Pause(8 * SECOND);
    for (case, work, stage, kinds, known, expected, effect) in [
        // Kinds that no further attempt mends.
        (
            "a missing image",
            &pull,
            Stage::Pull,
            &[ImageNotFound][..],
            none,
            Finish,
            nothing,
        ),
        (
            "a full disk",
            &pull,
            Stage::Pull,
            &[DiskFull],
            none,
            Finish,
            nothing,
        ),
        // Back-off: the ceiling doubles, and the last attempt is final.
        (
            "the 1st",
            &pull,
            Stage::Connect,
            &[Unreachable],
            none,
            Again(0..=1),
            nothing,
        ),
        (
            "the 3rd",
            &pull,
            Stage::Connect,
            &[Unreachable; 3],
            none,
            Again(0..=4),
            nothing,
        ),
        (
            "the last",
            &pull,
            Stage::Connect,
            &[Unreachable; 4],
            none,
            Finish,
            nothing,
        ),
        // A command that may have started is not run twice.
        (
            "exec, before",
            &exec,
            Stage::Connect,
            &[Unreachable],
            none,
            Again(0..=1),
            nothing,
        ),
        (
            "exec, started",
            &exec,
            Stage::Run,
            &[ConnectionLost],
            none,
            Finish,
            nothing,
        ),
        // Limited retries; a runtime that went away in this run is waited for longer.
        (
            "no runtime",
            &pull,
            Stage::Probe,
            &[RuntimeAbsent; 2],
            none,
            Again(0..=2),
            nothing,
        ),
        (
            "still none",
            &pull,
            Stage::Probe,
            &[RuntimeAbsent; 3],
            none,
            Finish,
            nothing,
        ),
        (
            "a runtime that restarts",
            &pull,
            Stage::Pull,
            &[RuntimeDown, RuntimeAbsent, RuntimeAbsent],
            none,
            Again(0..=4),
            nothing,
        ),
        // A pull that goes on by itself: not to reach it costs nothing, up to a limit.
        (
            "alone",
            &pull,
            Stage::Pull,
            &[ConnectionLost; 9],
            alone(8),
            Forgiven(0..=60),
            nothing,
        ),
        (
            "alone for ever",
            &pull,
            Stage::Pull,
            &[ConnectionLost; 204],
            alone(200),
            Finish,
            nothing,
        ),
        // Forgiven attempts do not count later either.
        (
            "reached again",
            &pull,
            Stage::Pull,
            &[ConnectionLost; 9],
            Known {
                forgiven: 6,
                ..none
            },
            Again(0..=60),
            nothing,
        ),
        // A refused login: at once where there is another one, but only once.
        (
            "refused",
            &pull,
            Stage::Pull,
            &[RegistryAuth],
            none,
            Finish,
            nothing,
        ),
        (
            "another login",
            &pull,
            Stage::Pull,
            &[RegistryAuth],
            new_login,
            Again(0..=0),
            nothing,
        ),
        (
            "refused too",
            &pull,
            Stage::Pull,
            &[RegistryAuth; 2],
            new_login,
            Finish,
            nothing,
        ),
        // A registry: one failure counts, the second pauses it; a limit on pulls does at once.
        (
            "away",
            &pull,
            Stage::Pull,
            &[RegistryUnavailable],
            none,
            Again(0..=1),
            counts,
        ),
        (
            "limited",
            &pull,
            Stage::Pull,
            &[RateLimited],
            none,
            Again(8..=12),
            eight_seconds,
        ),
        // Behind a pause that others found, within half its length.
        (
            "in a pause",
            &pull,
            Stage::Connect,
            &[Unreachable],
            paused,
            Again(40..=60),
            nothing,
        ),
        (
            "limited in a pause",
            &pull,
            Stage::Pull,
            &[RateLimited],
            paused,
            Again(40..=60),
            eight_seconds,
        ),
    ] {
        let (decision, now) = decided(work, stage, kinds, known);
        match (&decision, &expected) {
            (Decision::Finish, Finish) => {}
            (
                Decision::Retry {
                    at,
                    is_forgiven,
                    registry,
                },
                Again(range) | Forgiven(range),
            ) => {
                let wait = *at - now;
                let (first, last) = (*range.start(), *range.end());
                assert!(
                    wait >= Duration::from_secs(first) && wait <= Duration::from_secs(last),
                    "{case}: {wait:?} is not within {range:?}"
                );
                assert_eq!(*is_forgiven, matches!(expected, Forgiven(_)), "{case}");
                assert_eq!(*registry, effect, "{case}");
            }
            _ => panic!("{case}: {decision:?} instead of {expected:?}"),
        }
        assert_eq!(
            decision,
            again(work, stage, kinds, known, now),
            "{case}: the same seed"
        );
    }
    // The second failure in a row: all wait as long as this node does.
    let (decision, now) = decided(&pull, Stage::Pull, &[RegistryUnavailable], failed_before);
    let Decision::Retry {
        at,
        registry: RegistryEffect::Pause(length),
        ..
    } = decision
    else {
        panic!("{decision:?}");
    };
    assert!(length <= SECOND && at >= now + length, "{decision:?}");
}

/// The same decision once more, as if it had been asked for at `now`.
fn again(work: &Work, stage: Stage, kinds: &[FailureKind], known: Known, now: Instant) -> Decision {
    match decided(work, stage, kinds, known) {
        (Decision::Finish, _) => Decision::Finish,
        (
            Decision::Retry {
                at,
                is_forgiven,
                registry,
            },
            later,
        ) => Decision::Retry {
            at: now + (at - later),
            is_forgiven,
            registry,
        },
    }
}

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
