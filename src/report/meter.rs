//! How fast something arrives: the last seconds of a sum that grows.

use std::collections::VecDeque;
use std::time::Duration;

/// How far a rate looks back.
const WINDOW: Duration = Duration::from_secs(10);
/// Below this a rate would be a guess.
const SHORTEST: Duration = Duration::from_secs(2);
/// Sums that are told closer together count as one.
const GRAIN: Duration = Duration::from_millis(200);

/// A sum and its last seconds.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    /// When the sum was what, the newest last.
    told: VecDeque<(Duration, u64)>,
}

impl Meter {
    /// The sum is this now. It may fall: then counting starts over.
    pub fn tell(&mut self, at: Duration, sum: u64) {
        match self.told.back_mut() {
            Some((_, last)) if sum < *last => self.told.clear(),
            Some((when, last)) if at.saturating_sub(*when) < GRAIN => {
                *last = sum;
                return;
            }
            _ => {}
        }
        self.told.push_back((at, sum));
        // One of those before the window stays: the sum at the window's start.
        while self
            .told
            .get(1)
            .is_some_and(|(when, _)| *when + WINDOW <= at)
        {
            self.told.pop_front();
        }
    }

    /// Whether the rate is that of a whole window: pulls begin slowly, and what follows from their first seconds is wrong
    /// by hours.
    pub fn is_steady(&self, now: Duration) -> bool {
        let first = self.told.front();
        first.is_some_and(|(first, _)| now.saturating_sub(*first) >= WINDOW)
    }

    /// How much a second arrived over the last seconds; `None` while that cannot be said yet.
    pub fn rate(&self, now: Duration) -> Option<u64> {
        let (first, _) = self.told.front()?;
        let (_, sum) = self.told.back()?;
        let began = now.saturating_sub(WINDOW).max(*first);
        let before = self.told.iter().rev().find(|(when, _)| *when <= began);
        let time = now.saturating_sub(began);
        let (_, before) = before.filter(|_| time >= SHORTEST)?;
        // What people read needs no more.
        Some((sum.saturating_sub(*before) as f64 / time.as_secs_f64()) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_that_of_the_last_seconds() {
        let seconds = |number: u64| Duration::from_secs(number);
        let mut meter = Meter::default();
        assert_eq!(meter.rate(seconds(5)), None);
        for second in 0..=20 {
            meter.tell(seconds(second), second * 100);
        }
        assert_eq!(meter.rate(seconds(20)), Some(100));
        assert!(meter.told.len() < 15, "{}", meter.told.len());
        // Nothing more arrives.
        assert_eq!(meter.rate(seconds(25)), Some(50));
        assert_eq!(meter.rate(seconds(40)), Some(0));
        // Another try begins from nothing.
        meter.tell(seconds(41), 10);
        assert_eq!(meter.rate(seconds(41)), None);
        meter.tell(seconds(44), 310);
        assert_eq!(meter.rate(seconds(44)), Some(100));
    }
}
