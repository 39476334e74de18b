//! SIGINT, SIGTERM and SIGHUP: the first asks the run to stop, a second one ends it at once.

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::model::StopReason;

/// The signals, caught from here on.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Starts to catch them. Needs a tokio runtime.
    pub(super) fn catch() -> Result<Self> {
        let catch = |kind| signal(kind).context("cannot catch signals");
        Ok(Self {
            interrupt: catch(SignalKind::interrupt())?,
            terminate: catch(SignalKind::terminate())?,
            hang_up: catch(SignalKind::hangup())?,
        })
    }

    /// Passes the first signal on to the run, and resolves at a second one: with what to quit for.
    pub(super) async fn quit(mut self, stop: &watch::Sender<Option<StopReason>>) -> StopReason {
        let first = self.next().await;
        stop.send_replace(Some(first));
        self.next().await
    }

    async fn next(&mut self) -> StopReason {
        tokio::select! {
            _ = self.interrupt.recv() => StopReason::Interrupted,
            _ = self.terminate.recv() => StopReason::Terminated,
            _ = self.hang_up.recv() => StopReason::HungUp,
        }
    }
}
