//! When the connection to a pull may be given away, and what the next visit to the pull has to know.

use std::time::Duration;

use tokio::time::Instant;

use super::protocol::GUARD_SLACK;

/// How long a pull of which no byte came yet is watched before its connection may be given away.
const SETTLE: Duration = Duration::from_secs(5);
/// How often it is asked whether the connection is needed elsewhere.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// How a pull stood when its connection was given away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PullState {
    /// When it was first seen at work.
    pub since: Instant,
    /// When it stood so.
    pub at: Instant,
    /// How many bytes had arrived.
    pub bytes: u64,
    /// How many there will be, once that is known.
    pub total: Option<u64>,
    /// Whether something happened since the visit before; true where nothing can be seen.
    pub has_moved: bool,
    /// How many changes the node had reported, and when the last was heard of.
    changes: u64,
    changed_at: Instant,
    /// Since when the rate is counted, and how much there was then; nothing where arrivals cannot be seen.
    pub(super) window: Option<(Instant, u64)>,
}

/// Lets a pull go on without its connection.
#[derive(Clone, Copy)]
pub struct HangUp<'a> {
    /// How it stood at the end of the visit before.
    pub before: Option<PullState>,
    /// Whether the connection is needed elsewhere. Once it answered yes, the connection is given away.
    pub is_wanted: &'a (dyn Fn() -> bool + Send + Sync),
}

impl HangUp<'_> {
    /// What is left of the time that one attempt may take. The node, which counts too, acts first.
    pub(super) fn left_of(&self, limit: Duration) -> Duration {
        match &self.before {
            Some(before) => limit
                .saturating_sub(before.since.elapsed())
                .saturating_add(2 * GUARD_SLACK),
            None => limit,
        }
    }
}

/// What one visit sees of a pull.
pub(super) struct Visit<'a> {
    hang_up: Option<HangUp<'a>>,
    began: Instant,
    /// Whether what comes happened before the visit.
    is_replay: bool,
    /// Whether the pull was there before the visit.
    is_found: bool,
    /// Since when the node itself keeps the limits.
    guarded_at: Option<Instant>,
    changes: u64,
    changed_at: Instant,
}

impl<'a> Visit<'a> {
    pub(super) fn new(hang_up: Option<HangUp<'a>>) -> Self {
        let now = Instant::now();
        Self {
            hang_up,
            began: now,
            is_replay: false,
            is_found: false,
            guarded_at: None,
            changes: 0,
            changed_at: now,
        }
    }

    pub(super) fn before(&self) -> Option<&PullState> {
        self.hang_up.as_ref()?.before.as_ref()
    }

    /// What is left of the time that one attempt may take.
    pub(super) fn left_of(&self, limit: Duration) -> Duration {
        self.hang_up.map_or(limit, |hang_up| hang_up.left_of(limit))
    }

    /// What happened before the visit comes first.
    pub(super) fn replay(&mut self) {
        self.is_found = true;
        self.is_replay = true;
    }

    pub(super) fn is_replay(&self) -> bool {
        self.is_replay
    }

    /// All that happened before the visit is known. Returns when the last change was, as far as that can be told.
    pub(super) fn caught_up(&mut self, now: Instant) -> Instant {
        self.is_replay = false;
        self.changed_at = match self.before() {
            Some(before) if before.changes == self.changes => before.changed_at,
            _ => now,
        };
        self.changed_at
    }

    pub(super) fn guarded(&mut self, is_guarded: bool) {
        self.guarded_at = is_guarded.then(Instant::now);
    }

    /// The node reported a change.
    pub(super) fn changed(&mut self, now: Instant) {
        self.changes += 1;
        self.changed_at = now;
    }

    /// Whether something happened since the visit before, or since the pull began.
    fn has_moved(&self) -> bool {
        self.changes != self.before().map_or(0, |before| before.changes)
    }

    /// When to look again whether the connection may be given away.
    pub(super) fn look_again(&self, now: Instant) -> Option<Instant> {
        self.hang_up.and(self.guarded_at).map(|_| now + ASK_EVERY)
    }

    /// Whether the connection is to be given away now.
    pub(super) fn gives_way(&self, now: Instant) -> bool {
        // One that was left and is gone begins again, which is to be reported.
        if self.before().is_some() && !self.is_found {
            return false;
        }
        let runs_well =
            |at: Instant| self.has_moved() || self.before().is_some() || now >= at + SETTLE;
        match (&self.hang_up, self.guarded_at) {
            (Some(hang_up), Some(at)) => !self.is_replay && runs_well(at) && (hang_up.is_wanted)(),
            _ => false,
        }
    }

    pub(super) fn state(
        &self,
        now: Instant,
        (bytes, total): (u64, Option<u64>),
        window: Option<(Instant, u64)>,
    ) -> PullState {
        PullState {
            since: self.before().map_or(self.began, |before| before.since),
            at: now,
            bytes,
            total,
            has_moved: self.has_moved() || window.is_none(),
            changes: self.changes,
            changed_at: self.changed_at,
            window,
        }
    }
}
