//! How many tries a number of attempts comes to, as `--retries` counts them.

use super::failure::{Failure, FailureKind, Stage};
use super::outcome::Attempt;

/// Counts tries. An attempt that only lost sight of a pull that goes on by itself is none: the next one looks at the
/// same pull.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tries {
    /// Tries that have ended.
    pub ended: usize,
    goes_on: bool,
}

impl Tries {
    /// Takes how the next attempt failed, if it did; only a pull goes on.
    pub fn note(&mut self, is_pull: bool, failure: Option<&Failure>) {
        self.goes_on = is_pull
            && failure.is_some_and(|failure| match failure.kind {
                FailureKind::ConnectionLost if failure.is_about_the_image() => true,
                FailureKind::ConnectionLost | FailureKind::Unreachable => self.goes_on,
                _ => false,
            });
        self.ended += usize::from(!self.goes_on);
    }

    /// How many tries there were; the last attempt ended one in any case.
    pub fn of(is_pull: bool, attempts: &[Attempt]) -> usize {
        let mut tries = Self::default();
        for attempt in attempts {
            tries.note(is_pull, attempt.failure.as_ref());
        }
        tries.ended + usize::from(tries.goes_on)
    }
}

impl Failure {
    /// Whether it came while the image was inspected, pulled or verified.
    fn is_about_the_image(&self) -> bool {
        matches!(self.stage, Stage::Inspect | Stage::Pull | Stage::Verify)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_pull_that_is_found_again_is_one_try() {
        let failed = |kind, stage| Some(Failure::new(kind, stage, ""));
        let lost = failed(FailureKind::ConnectionLost, Stage::Pull);
        let away = failed(FailureKind::Unreachable, Stage::Connect);
        let busy = failed(FailureKind::RegistryUnavailable, Stage::Pull);
        for (failures, pull, check) in [
            (vec![], 0, 0),
            (vec![None], 1, 1),
            (vec![lost.clone(), None], 1, 2),
            (vec![lost.clone(), away.clone(), lost.clone(), None], 1, 4),
            (vec![lost.clone(), busy.clone(), None], 2, 3),
            (vec![away.clone(), lost.clone(), away.clone()], 2, 3),
            (vec![busy, away, None], 3, 3),
        ] {
            let attempts: Vec<Attempt> = failures
                .into_iter()
                .map(|failure| Attempt {
                    number: 0,
                    elapsed: Duration::ZERO,
                    failure,
                })
                .collect();
            let both = [true, false].map(|is_pull| Tries::of(is_pull, &attempts));
            assert_eq!(both, [pull, check], "{attempts:?}");
        }
    }
}
