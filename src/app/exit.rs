//! The exit statuses, all of them.

use std::process::ExitCode;

use crate::model::{NodeRecord, StopReason};

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Every node has every image (check: and the digests agree).
    Success,
    /// At least one outcome is not that.
    Incomplete,
    /// Usage, settings, inventory or credentials: nothing was touched.
    Usage,
    /// Stopped early by a failure limit, the first nodes, a failed wave or the deadline.
    Stopped,
    /// SIGINT.
    Interrupted,
    /// SIGTERM.
    Terminated,
    /// SIGHUP.
    HungUp,
}

impl Exit {
    /// What a finished run means.
    pub fn of(nodes: &[NodeRecord], stopped: Option<StopReason>, digests_agree: bool) -> Self {
        match stopped {
            Some(reason) => Self::quit(reason),
            None => {
                let mut items = nodes.iter().flat_map(|node| &node.items);
                if digests_agree && items.all(|item| item.outcome.is_ok()) {
                    Self::Success
                } else {
                    Self::Incomplete
                }
            }
        }
    }

    /// What an early end for this reason means.
    pub fn quit(reason: StopReason) -> Self {
        match reason {
            StopReason::Interrupted => Self::Interrupted,
            StopReason::Terminated => Self::Terminated,
            StopReason::HungUp => Self::HungUp,
            StopReason::Deadline
            | StopReason::Canary
            | StopReason::PasswordRefused
            | StopReason::FailureLimit
            | StopReason::WaveFailed
            | StopReason::FanOut
            | StopReason::CutShort
            | StopReason::NotYet => Self::Stopped,
        }
    }

    /// The status; 128 + n for a signal n, as shells have it.
    pub fn status(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Incomplete => 1,
            Self::Usage => 2,
            Self::Stopped => 3,
            Self::HungUp => 129,
            Self::Interrupted => 130,
            Self::Terminated => 143,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.status())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Outcome, Record};
    use std::time::Duration;

    fn nodes(outcomes: Vec<Outcome>) -> Vec<NodeRecord> {
        let record = |outcome| Record {
            outcome,
            attempts: vec![],
            elapsed: Duration::ZERO,
            arrived: None,
            delivery: None,
            kept: None,
        };
        vec![NodeRecord {
            runtime: None,
            items: outcomes.into_iter().map(record).collect(),
        }]
    }

    #[test]
    fn the_status_says_what_became_of_the_run() {
        assert_eq!(Exit::of(&nodes(vec![]), None, true), Exit::Success);
        assert_eq!(Exit::of(&nodes(vec![]), None, false), Exit::Incomplete);
        assert_eq!(
            Exit::of(&nodes(vec![Outcome::Missing]), None, true),
            Exit::Incomplete
        );
        for (reason, status) in [
            (StopReason::Interrupted, 130),
            (StopReason::Terminated, 143),
            (StopReason::HungUp, 129),
            (StopReason::Deadline, 3),
            (StopReason::Canary, 3),
            (StopReason::PasswordRefused, 3),
            (StopReason::FailureLimit, 3),
            (StopReason::WaveFailed, 3),
            (StopReason::FanOut, 3),
        ] {
            let stopped = nodes(vec![Outcome::NotRun(reason)]);
            assert_eq!(Exit::of(&stopped, Some(reason), true).status(), status);
        }
    }
}
