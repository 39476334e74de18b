//! What every node did when, out of the facts of a run: the bars of the page.

use std::time::Duration;

use serde::Serialize;

use crate::model::{Event, Fact, Outcome, Stage};

/// A pull through which nothing came for longer than this is shown as stalled there. Progress is told about once a second.
const STALL: Duration = Duration::from_secs(5);

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
            Stage::Pull => Self::Pull,
            Stage::Run => Self::Run,
        }
    }
}

/// One node's course; times in milliseconds since the start of the run.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Course {
    /// What it did, from when until when.
    pub(super) spans: Vec<(Phase, u64, u64)>,
    /// When attempts failed.
    pub(super) failures: Vec<u64>,
    /// What it does since when.
    #[serde(skip)]
    now: Option<(Phase, Duration)>,
    /// How many bytes of the pull had arrived, and when the last of them came; nothing where that is not told.
    #[serde(skip)]
    arrived: Option<(u64, Duration)>,
}

impl Course {
    /// It does something else from here on.
    fn turn(&mut self, to: Option<Phase>, at: Duration) {
        if self.now.map(|(phase, _)| phase) == to {
            return;
        }
        self.close(at);
        self.now = to.map(|phase| (phase, at));
        self.arrived = None;
    }

    fn close(&mut self, at: Duration) {
        let Some((phase, since)) = self.now.take() else {
            return;
        };
        match self.arrived {
            Some((_, last)) if phase == Phase::Pull && at.saturating_sub(last) >= STALL => {
                self.span(Phase::Pull, since, last);
                self.span(Phase::Stall, last, at);
            }
            _ => self.span(phase, since, at),
        }
    }

    fn span(&mut self, phase: Phase, from: Duration, to: Duration) {
        let (from, to) = (milliseconds(from), milliseconds(to));
        if to > from {
            self.spans.push((phase, from, to));
        }
    }

    fn progress(&mut self, bytes: u64, total: Option<u64>, at: Duration) {
        let Some((Phase::Pull, since)) = self.now else {
            return;
        };
        let more = self.arrived.is_none_or(|(before, _)| bytes > before);
        // What has arrived completely is being unpacked.
        let complete = total.is_some_and(|total| bytes >= total);
        if !more && !complete {
            return;
        }
        if let Some((_, last)) = self.arrived
            && more
            && at.saturating_sub(last) >= STALL
        {
            self.span(Phase::Pull, since, last);
            self.span(Phase::Stall, last, at);
            self.now = Some((Phase::Pull, at));
        }
        self.arrived = Some((bytes, at));
    }
}

/// Every node's course, while the run goes on.
#[derive(Debug)]
pub(super) struct Timeline(Vec<Course>);

impl Timeline {
    /// Nobody has done anything yet.
    pub(super) fn new(nodes: usize) -> Self {
        Self(vec![Course::default(); nodes])
    }

    /// Takes note of a fact. One about a node that is none of the fleet, as a changed journal may have it, is passed over.
    pub(super) fn note(&mut self, event: &Event) {
        let at = event.at;
        let node = match &event.fact {
            Fact::NodeStarted { node }
            | Fact::NodeStage { node, .. }
            | Fact::Progress { node, .. }
            | Fact::AttemptFailed { node, .. }
            | Fact::Finished { node, .. }
            | Fact::NodeLeft { node, .. } => *node,
            Fact::WaveStarted { .. } | Fact::Preflighted { .. } | Fact::Stopping { .. } => return,
        };
        let Some(course) = self.0.get_mut(node) else {
            return;
        };
        match &event.fact {
            Fact::NodeStarted { .. } => course.turn(Some(Phase::Connect), at),
            Fact::NodeStage { stage, .. } => course.turn(Some((*stage).into()), at),
            Fact::Progress { bytes, total, .. } => course.progress(*bytes, *total, at),
            Fact::AttemptFailed { .. } => course.failures.push(milliseconds(at)),
            Fact::Finished { record, .. } => {
                if matches!(record.outcome, Outcome::Failed(_)) {
                    course.failures.push(milliseconds(at));
                }
                // What is given up while it waits for its next attempt waits no longer.
                if let Some((Phase::Wait, _)) = course.now {
                    course.turn(None, at);
                }
            }
            Fact::NodeLeft { done, .. } => {
                let next = (!done).then_some(Phase::Wait);
                course.turn(next, at);
            }
            Fact::WaveStarted { .. } | Fact::Preflighted { .. } | Fact::Stopping { .. } => {}
        }
    }

    /// The courses; what still goes on does so until the end.
    pub(super) fn end(mut self, at: Duration) -> Vec<Course> {
        for course in &mut self.0 {
            course.turn(None, at);
        }
        self.0
    }
}

pub(super) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
