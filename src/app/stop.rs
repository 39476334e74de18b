//! SIGINT, SIGTERM and SIGHUP: the first asks the run to stop, a second one ends it at once. SIGTSTP and SIGCONT: the shell
//! gets the terminal, and gives it back.

use anyhow::{Context, Result};
use nix::sys::signal::{Signal as Number, raise};
use nix::unistd::{getpgrp, getsid};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::block_in_place;

use crate::model::StopReason;
use crate::report::Screen;

fn catch(kind: SignalKind) -> Result<Signal> {
    signal(kind).context("cannot catch signals")
}

/// Stops when Ctrl-Z asks for it, with the terminal left to the shell, and draws on it again afterwards. Needs a tokio
/// runtime with several threads.
pub(super) fn give_way(screen: Screen) -> Result<()> {
    let kind = |number: Number| SignalKind::from_raw(number as i32);
    let mut stop = catch(kind(Number::SIGTSTP))?;
    let mut go_on = catch(kind(Number::SIGCONT))?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = stop.recv() => {
                    // In the group of the session's first process there is no shell that would let us go on.
                    if getsid(None).is_ok_and(|session| session == getpgrp()) {
                        continue;
                    }
                    // A frame that is being written has to be whole first.
                    block_in_place(|| screen.leave());
                    if raise(Number::SIGSTOP).is_ok() {
                        go_on.recv().await;
                    }
                }
                // Stopped by somebody without a word.
                _ = go_on.recv() => block_in_place(|| screen.leave()),
            }
            block_in_place(|| screen.come_back());
        }
    });
    Ok(())
}

/// The signals, caught from here on.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Starts to catch them. Needs a tokio runtime.
    pub(super) fn catch() -> Result<Self> {
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
