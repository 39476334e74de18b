//! Facts on their way to the reporters, through one bounded channel.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::Instant;

use crate::model::EventKind;

type Timed = (Duration, EventKind);

pub(super) struct Facts {
    sender: mpsc::Sender<Timed>,
    began: Instant,
    /// What found no room, and may not be lost.
    late: Mutex<Vec<Timed>>,
}

impl Facts {
    pub(super) fn new(sender: mpsc::Sender<Timed>, began: Instant) -> Self {
        let late = Mutex::default();
        Self {
            sender,
            began,
            late,
        }
    }

    /// Sends a fact; a reporter that went away stops nothing.
    pub(super) async fn emit(&self, fact: EventKind) {
        let at = self.began.elapsed();
        let late = std::mem::take(&mut *self.late());
        for timed in late.into_iter().chain([(at, fact)]) {
            let _ = self.sender.send(timed).await;
        }
    }

    /// Sends a fact that may not be lost from where nothing can wait. Where there is no room now, it goes ahead of the
    /// next fact that is told.
    pub(super) fn note(&self, fact: EventKind) {
        let timed = (self.began.elapsed(), fact);
        let mut late = self.late();
        // Not past what already waits.
        if !late.is_empty() {
            late.push(timed);
        } else if let Err(TrySendError::Full(timed)) = self.sender.try_send(timed) {
            late.push(timed);
        }
    }

    /// Sends a fact that may be lost when the reporters are far behind.
    pub(super) fn try_emit(&self, fact: EventKind) {
        let _ = self.sender.try_send((self.began.elapsed(), fact));
    }

    fn late(&self) -> MutexGuard<'_, Vec<Timed>> {
        // Nothing panics with the lock held.
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_noted_comes_also_through_a_full_channel() {
        let (sender, mut receiver) = mpsc::channel(1);
        let facts = Facts::new(sender, Instant::now());
        let started = |node| EventKind::NodeStarted { node };
        let stalled = |item| EventKind::Stalled {
            node: 0,
            item,
            length: Duration::from_secs(9),
        };
        facts.try_emit(started(1));
        facts.try_emit(started(2));
        facts.note(stalled(1));
        facts.note(stalled(2));
        let reading = async {
            let mut got = Vec::new();
            while got.len() < 4 {
                got.extend(receiver.recv().await.map(|(_, fact)| fact));
            }
            got
        };
        let ((), got) = tokio::join!(facts.emit(started(3)), reading);
        assert_eq!(got, [started(1), stalled(1), stalled(2), started(3)]);
    }
}
