//! Notices when nothing arrives of a pull. That is told once it is over: a journal, which has no progress, is to show it too.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::node::Transferred;

/// What comes about once a second is not missed before.
const LONG: Duration = Duration::from_secs(5);

/// How many bytes of one pull had arrived, and when the last of them came; nothing while nothing is waited for.
#[derive(Default)]
pub(super) struct Arrivals(Mutex<Option<(u64, Instant)>>);

impl Arrivals {
    /// Takes what is there now. Returns for how long nothing had arrived before, if that was long.
    pub(super) fn progress(&self, now: Instant, there: Transferred) -> Option<Duration> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|(before, _)| there.bytes <= before) {
            return None;
        }
        let before = *last;
        // What has arrived completely is being unpacked.
        let is_whole = there.total.is_some_and(|total| there.bytes >= total);
        *last = (!is_whole).then_some((there.bytes, now));
        since(before, now)
    }

    /// Nothing is waited for any more. Returns for how long nothing had arrived, if that was long.
    pub(super) fn end(&self, now: Instant) -> Option<Duration> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since(last.take(), now)
    }
}

fn since(last: Option<(u64, Instant)>, now: Instant) -> Option<Duration> {
    let length = last.map(|(_, at)| now.saturating_duration_since(at));
    length.filter(|length| *length >= LONG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrives_late_is_noticed_and_what_is_unpacked_is_not_waited_for() {
        let arrivals = Arrivals::default();
        let began = Instant::now();
        let tell = |second: u64, bytes| {
            let now = began + Duration::from_secs(second);
            let total = Some(100);
            arrivals.progress(now, Transferred { bytes, total })
        };
        let end = |second| arrivals.end(began + Duration::from_secs(second));
        let seconds = |number| Some(Duration::from_secs(number));
        assert_eq!(tell(10, 10), None, "the first bytes are not waited for");
        assert_eq!(tell(14, 20), None);
        assert_eq!(tell(16, 20), None, "it says the same again");
        assert_eq!(tell(20, 30), seconds(6));
        assert_eq!(end(27), seconds(7));
        assert_eq!(end(40), None, "it was told of");
        assert_eq!(tell(50, 90), None);
        assert_eq!(tell(55, 100), seconds(5));
        assert_eq!((tell(58, 100), end(90)), (None, None), "it unpacks");
    }
}
