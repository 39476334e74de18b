//! A time limit that does not run while something else is waited for.

use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// How long something may take from now on.
pub struct Limit {
    length: Duration,
    /// When it is over; nothing while it does not run.
    end: watch::Sender<Option<Instant>>,
}

impl Limit {
    /// A limit that begins now.
    pub fn new(length: Duration) -> Self {
        Self {
            length,
            end: watch::Sender::new(Instant::now().checked_add(length)),
        }
    }

    /// The work's result, or nothing when it took too long.
    pub async fn within<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            result = work => Some(result),
            () = self.over() => None,
        }
    }

    /// Waits for something that is not to be counted; the limit starts over afterwards.
    pub async fn pausing<T>(&self, other: impl Future<Output = T>) -> T {
        self.end.send_replace(None);
        let result = other.await;
        let end = Instant::now().checked_add(self.length);
        self.end.send_replace(end);
        result
    }

    async fn over(&self) {
        let mut end = self.end.subscribe();
        loop {
            let now = *end.borrow_and_update();
            let over = async {
                match now {
                    Some(end) => sleep_until(end).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = over => return,
                // The sender is ours, so there is no error.
                _ = end.changed() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_waited_for_does_not_count() {
        let second = Duration::from_secs(1);
        let limit = Limit::new(second * 5);
        assert_eq!(limit.within(sleep(second * 6)).await, None);
        let limit = Limit::new(second * 5);
        let work = async {
            sleep(second * 4).await;
            limit.pausing(sleep(second * 60)).await;
            sleep(second * 4).await;
        };
        assert_eq!(limit.within(work).await, Some(()));
        let work = async {
            limit.pausing(sleep(second * 60)).await;
            sleep(second * 6).await;
        };
        assert_eq!(limit.within(work).await, None);
    }
}
