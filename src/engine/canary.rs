//! The first nodes try first: what the registry refuses to all of them, it will refuse to the other thousand. So it is
//! with a password that the first hosts did not accept.

use std::time::Duration;

use super::state::NodeState;
use crate::model::{FailureKind, Outcome, Plan};

/// A registry that refuses does so within seconds. A pull that has been at it for longer is on its way, and no one
/// needs to wait for its end.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// Whether the rest of the fleet may start.
pub(super) struct Canary {
    /// How many nodes may start before that is known; nothing once it is.
    first: Option<usize>,
    /// Nodes that were refused what every node will be refused.
    refused: usize,
    wanted: usize,
    /// Whether some node has come through.
    has_seen_success: bool,
}

impl Canary {
    pub(super) fn new(plan: &Plan) -> Self {
        let wanted = plan.policy.canary;
        let is_useful =
            wanted > 0 && wanted < plan.fleet.nodes().len() && plan.work.uses_registry();
        Self {
            first: is_useful.then_some(wanted),
            refused: 0,
            wanted,
            has_seen_success: false,
        }
    }

    /// Whether the node with this number may start.
    pub(super) fn lets_in(&self, node: usize) -> bool {
        self.first.is_none_or(|first| node < first)
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.first.is_some()
    }

    /// One of the first has nothing to try: the next one is asked instead.
    pub(super) fn asks_another(&mut self) {
        self.first = self.first.map(|first| first + 1);
    }

    /// Everybody may start.
    pub(super) fn open(&mut self) {
        self.first = None;
    }

    /// Looks at a node that came back. True when it failed, no other has come through, and a password that nodes share
    /// `is_given_up`: most of the others would only fail without having been tried. A node `is_ready` that has passed
    /// the preflight.
    pub(super) fn finds_password_refused(
        &mut self,
        state: &NodeState,
        is_ready: bool,
        is_given_up: bool,
    ) -> bool {
        let came_through =
            |outcome: &Outcome| !matches!(outcome, Outcome::Failed(_) | Outcome::NotRun(_));
        self.has_seen_success |= is_ready || state.outcomes().any(came_through);
        is_given_up && !self.has_seen_success && state.has_failed()
    }

    /// Looks at a node that came back. True when it was the last of the first, and all of them were refused.
    pub(super) fn judge(&mut self, state: &NodeState) -> bool {
        if !self.is_waiting() {
            return false;
        }
        let outcomes = || state.outcomes();
        if outcomes().any(Outcome::is_ok) {
            self.open();
            return false;
        }
        if outcomes().any(is_the_same_everywhere) {
            self.refused += 1;
            return self.refused == self.wanted;
        }
        // It says nothing about the others: its own trouble, or another try to come.
        self.asks_another();
        false
    }
}

fn is_the_same_everywhere(outcome: &Outcome) -> bool {
    let Outcome::Failed(failure) = outcome else {
        return false;
    };
    matches!(
        failure.kind,
        FailureKind::RegistryAuth | FailureKind::ImageNotFound
    )
}
