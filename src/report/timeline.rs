//! What every node did when, out of the facts of a run: the bars of the page.

use std::time::Duration;

use serde::Serialize;

use crate::model::{Event, EventKind, Outcome, Stage};

/// What a node is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Phase {
    /// On the way to the node.
    Connect,
    /// Asking the runtime what it is and has, before and after a pull.
    Check,
    /// Pulling.
    Pull,
    /// Pulling, and nothing arrives.
    Stall,
    /// Running the operator's command.
    Run,
    /// Waiting for a turn: at a registry, or for the others' preflight.
    Queue,
    /// Waiting for the next attempt.
    Wait,
}

impl From<Stage> for Phase {
    fn from(stage: Stage) -> Self {
        match stage {
            Stage::Connect | Stage::Handshake | Stage::Authenticate => Self::Connect,
            Stage::Start | Stage::Probe | Stage::Preflight | Stage::Inspect | Stage::Verify => {
                Self::Check
            }
            Stage::Queue => Self::Queue,
            Stage::Pull => Self::Pull,
            Stage::Run => Self::Run,
        }
    }
}

/// One node's course; times in milliseconds since the start of the run.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct NodeTimeline {
    /// What it did, from when until when.
    pub(super) spans: Vec<(Phase, u64, u64)>,
    /// When attempts failed.
    pub(super) failures: Vec<u64>,
    /// What it does since when.
    #[serde(skip)]
    now: Option<(Phase, Duration)>,
    /// Whether an attempt failed since it came to the node.
    #[serde(skip)]
    has_failed: bool,
}

impl NodeTimeline {
    /// It does something else from here on.
    fn turn(&mut self, to: Option<Phase>, at: Duration) {
        if self.now.map(|(phase, _)| phase) == to {
            return;
        }
        if let Some((phase, since)) = self.now {
            self.span(phase, since, at);
        }
        self.now = to.map(|phase| (phase, at));
    }

    fn span(&mut self, phase: Phase, from: Duration, to: Duration) {
        let (from, to) = (milliseconds(from), milliseconds(to));
        if to > from {
            self.spans.push((phase, from, to));
        }
    }

    /// Nothing arrived for so long.
    fn stall(&mut self, length: Duration, at: Duration) {
        if let Some((Phase::Pull, since)) = self.now {
            let from = at.saturating_sub(length).max(since);
            self.span(Phase::Pull, since, from);
            self.span(Phase::Stall, from, at);
            self.now = Some((Phase::Pull, at));
        }
    }
}

/// Every node's course, while the run goes on.
#[derive(Debug)]
pub(super) struct Timeline(Vec<NodeTimeline>);

impl Timeline {
    /// Nothing has been done yet.
    pub(super) fn new(nodes: usize) -> Self {
        Self(vec![NodeTimeline::default(); nodes])
    }

    /// Takes note of a fact. One about a node that is none of the fleet, as a changed journal may have it, is passed
    /// over.
    pub(super) fn note(&mut self, event: &Event) {
        let at = event.at;
        let node = match &event.fact {
            EventKind::NodeStarted { node }
            | EventKind::NodeStage { node, .. }
            | EventKind::Stalled { node, .. }
            | EventKind::AttemptFailed { node, .. }
            | EventKind::Finished { node, .. }
            | EventKind::NodeLeft { node, .. } => *node,
            _ => return,
        };
        let Some(course) = self.0.get_mut(node) else {
            return;
        };
        match &event.fact {
            EventKind::NodeStarted { .. } => {
                course.has_failed = false;
                course.turn(Some(Phase::Connect), at);
            }
            EventKind::NodeStage { stage, .. } => course.turn(Some((*stage).into()), at),
            EventKind::Stalled { length, .. } => course.stall(*length, at),
            EventKind::AttemptFailed { .. } => {
                course.has_failed = true;
                course.failures.push(milliseconds(at));
            }
            EventKind::Finished { record, .. } => {
                if matches!(record.outcome, Outcome::Failed(_)) {
                    course.failures.push(milliseconds(at));
                }
                // What is given up while it waits for its next attempt waits no longer.
                if let Some((Phase::Wait | Phase::Queue, _)) = course.now {
                    course.turn(None, at);
                }
            }
            EventKind::NodeLeft { done, .. } => {
                // Without a failure it is others that it waits for.
                let wait = match course.has_failed {
                    true => Phase::Wait,
                    false => Phase::Queue,
                };
                course.turn((!done).then_some(wait), at);
            }
            _ => {}
        }
    }

    /// The courses; what still goes on does so until the end.
    pub(super) fn end(mut self, at: Duration) -> Vec<NodeTimeline> {
        for course in &mut self.0 {
            course.turn(None, at);
        }
        self.0
    }
}

pub(super) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
