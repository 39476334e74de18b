//! What arrives of each pull, and for how long nothing did. That is told once it is over: a journal, which has no
//! progress, is to show it too.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::node::{BytesTransferred, Layers};

/// What comes about once a second is not missed before.
const LONG: Duration = Duration::from_secs(5);

/// How many bytes were there when more came the last time, and when that was; nothing while nothing is waited for.
type Last = Option<(u64, Instant)>;

/// What arrives of one item on one node.
#[derive(Default)]
pub(super) struct TransferStats {
    /// How much of it came.
    pub(super) layers: Layers,
    last: Mutex<Last>,
}

impl TransferStats {
    fn last(&self) -> MutexGuard<'_, Last> {
        // Nothing panics with the lock held.
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what is there now. Returns for how long nothing had arrived before, if that was long.
    pub(super) fn progress(&self, now: Instant, there: BytesTransferred) -> Option<Duration> {
        let mut last = self.last();
        if last.is_some_and(|(before, _)| there.bytes <= before) {
            return None;
        }
        let before = *last;
        // What has arrived completely is being unpacked.
        let is_whole = there.total.is_some_and(|total| there.bytes >= total);
        *last = (!is_whole).then_some((there.bytes, now));
        since(before, now).filter(|length| *length >= LONG)
    }

    /// Nothing is waited for any more. Returns for how long nothing had arrived, if that was long.
    pub(super) fn end(&self, now: Instant) -> Option<Duration> {
        since(self.last().take(), now).filter(|length| *length >= LONG)
    }

    /// The pull was given up because nothing arrived for as long as `limit`, also of one of which no byte ever came.
    /// Returns for how long that was. Nothing where some arrived until now, but not enough.
    pub(super) fn abandon(&self, now: Instant, limit: Option<Duration>) -> Option<Duration> {
        let length = since(self.last().take(), now).or(limit);
        length.filter(|length| *length >= limit.map_or(LONG, |limit| limit.min(LONG)))
    }
}

fn since(last: Last, now: Instant) -> Option<Duration> {
    last.map(|(_, at)| now.saturating_duration_since(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrives_late_is_noticed_and_what_is_unpacked_is_not_waited_for() {
        let transfer_stats = TransferStats::default();
        let began = Instant::now();
        let progress = |second: u64, bytes| {
            let now = began + Duration::from_secs(second);
            let total = Some(100);
            transfer_stats.progress(now, BytesTransferred { bytes, total })
        };
        let end = |second| transfer_stats.end(began + Duration::from_secs(second));
        let seconds = |number| Some(Duration::from_secs(number));
        assert_eq!(progress(10, 10), None, "the first bytes are not waited for");
        assert_eq!(progress(14, 20), None);
        assert_eq!(progress(16, 20), None, "it says the same again");
        assert_eq!(progress(20, 30), seconds(6));
        assert_eq!(end(27), seconds(7));
        assert_eq!(end(40), None, "it was told of");
        assert_eq!(progress(50, 90), None);
        assert_eq!(progress(55, 100), seconds(5));
        assert_eq!((progress(58, 100), end(90)), (None, None), "it unpacks");
    }

    #[test]
    fn a_pull_that_is_given_up_has_stalled_also_before_its_first_byte() {
        let second = Duration::from_secs(1);
        let transfer_stats = TransferStats::default();
        let began = Instant::now();
        let abandoned = |after: Duration| transfer_stats.abandon(began + after, Some(4 * second));
        assert_eq!(abandoned(9 * second), Some(4 * second));
        let (bytes, total) = (10, None);
        transfer_stats.progress(began, BytesTransferred { bytes, total });
        assert_eq!(abandoned(4 * second), Some(4 * second));
        transfer_stats.progress(began + 7 * second, BytesTransferred { bytes, total });
        assert_eq!(abandoned(8 * second), None, "it was too slow");
    }
}
