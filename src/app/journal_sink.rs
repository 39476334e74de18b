//! The journal of a run as the reporters' ledger.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use crate::journal::{End, Journal};
use crate::model::Event;
use crate::report::{self, EventSink, RunResult};

/// Why a journal is not whole; nothing when it is.
pub(super) type WriteError = Arc<Mutex<Option<io::Error>>>;

/// Writes a journal until that fails: a full disk here is no reason to give up a run over there.
pub(super) struct JournalSink {
    journal: Journal,
    gap: WriteError,
}

impl JournalSink {
    /// The ledger, and where it leaves word when it can write no more.
    pub(super) fn new(journal: Journal) -> (Self, WriteError) {
        let gap = WriteError::default();
        let ledger = Self {
            journal,
            gap: Arc::clone(&gap),
        };
        (ledger, gap)
    }

    fn try_to(&mut self, write: impl FnOnce(&mut Journal) -> io::Result<()>) {
        // Nothing panics with the lock held.
        let mut gap = self.gap.lock().unwrap_or_else(PoisonError::into_inner);
        if gap.is_none() {
            *gap = write(&mut self.journal).err();
        }
    }
}

impl EventSink for JournalSink {
    fn keep(&mut self, events: &[Event]) {
        self.try_to(|journal| journal.events(events));
    }

    fn end(&mut self, result: &RunResult) {
        let end = End {
            finished: result.finished,
            stopped: result.stopped,
            counts: Some(report::counts(result)),
            forecast: result.forecast.as_ref().map(|forecast| forecast.totals),
        };
        self.try_to(|journal| journal.end(&end));
    }
}
