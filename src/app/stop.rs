//! The signals of a run. SIGINT, SIGTERM and SIGHUP: the first asks the run to stop, a second one ends it at once, and
//! so does any of them once the run is over and its results are being written. SIGTSTP and SIGCONT: the shell gets the
//! terminal, and gives it back.
//!
//! They are handled on threads of their own until the process is gone: tokio never takes its handlers back, and a
//! signal without a listener would have no effect at all.

use std::future::{Future, pending};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal as Number, raise};
use nix::unistd::{getpgrp, getsid};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

use super::exit::Exit;
use crate::model::StopReason;
use crate::report::Screen;

/// The signals that this process ignores. As long as it handles none, these are the ones that it was started with:
/// `nohup` ignores SIGHUP, a shell without job control ignores SIGINT and SIGQUIT for what it starts in the background.
#[derive(Debug, Clone, Copy)]
struct Ignored(u64);

impl Ignored {
    fn by_this_process() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self::of(&status)
    }

    /// What `/proc/PID/status` says: bit N - 1 of the mask stands for signal N.
    fn of(status: &str) -> Self {
        let mut lines = status.lines();
        let mask = lines.find_map(|line| line.strip_prefix("SigIgn:"));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        Self(mask.unwrap_or_default())
    }

    fn contains(self, number: Number) -> bool {
        self.0 >> (number as i32 - 1) & 1 == 1
    }

    /// Handles a signal from here on, unless it is ignored.
    fn or_catch(self, number: Number) -> Result<Option<Signal>> {
        if self.contains(number) {
            return Ok(None);
        }
        let caught = signal(SignalKind::from_raw(number as i32));
        Ok(Some(caught.context("cannot catch signals")?))
    }
}

/// The next of these signals; never comes for one that is ignored.
async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => pending().await,
    }
}

/// Runs a task on a thread of its own, for as long as the process lives. `prepare` may install signal handlers.
fn on_its_own_thread<F>(prepare: impl FnOnce() -> Result<F>) -> Result<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the tokio runtime")?;
    let task = {
        let _entered = tokio.enter();
        prepare()?
    };
    std::thread::spawn(move || tokio.block_on(task));
    Ok(())
}

/// The signals that ask a run to stop, caught from here on.
pub(super) struct Signals {
    asked: mpsc::UnboundedReceiver<StopReason>,
}

impl Signals {
    /// Starts to catch those that were not ignored when this process started. With a screen, Ctrl-Z leaves the
    /// terminal to the shell first.
    pub(super) fn catch(screen: Option<Screen>) -> Result<Self> {
        // Before the first handler hides what was inherited.
        let ignored = Ignored::by_this_process();
        let (ask, asked) = mpsc::unbounded_channel();
        on_its_own_thread(|| {
            let mut interrupt = ignored.or_catch(Number::SIGINT)?;
            let mut terminate = ignored.or_catch(Number::SIGTERM)?;
            let mut hang_up = ignored.or_catch(Number::SIGHUP)?;
            Ok(async move {
                loop {
                    let reason = tokio::select! {
                        () = next(&mut interrupt) => StopReason::Interrupted,
                        () = next(&mut terminate) => StopReason::Terminated,
                        () = next(&mut hang_up) => StopReason::HungUp,
                    };
                    if ask.send(reason).is_err() {
                        // The run is over. The reader of its results may never come back.
                        std::process::exit(Exit::quit(reason).status().into());
                    }
                }
            })
        })?;
        if let Some(screen) = screen {
            handle_suspend(ignored, screen)?;
        }
        Ok(Self { asked })
    }

    /// Passes the first signal on to the run, and resolves at a second one: with what to quit for.
    pub(super) async fn quit(mut self, stop: &watch::Sender<Option<StopReason>>) -> StopReason {
        let first = self.next().await;
        stop.send_replace(Some(first));
        self.next().await
    }

    async fn next(&mut self) -> StopReason {
        match self.asked.recv().await {
            Some(reason) => reason,
            // Its sender is on a thread that never ends.
            None => pending().await,
        }
    }
}

/// Stops when Ctrl-Z asks for it, with the terminal left to the shell, and draws on it again afterwards.
fn handle_suspend(ignored: Ignored, screen: Screen) -> Result<()> {
    on_its_own_thread(|| {
        let mut stop = ignored.or_catch(Number::SIGTSTP)?;
        let mut go_on = ignored.or_catch(Number::SIGCONT)?;
        Ok(async move {
            loop {
                tokio::select! {
                    () = next(&mut stop) => {
                        // In the group of the session's first process there is no shell that would let us go on.
                        if getsid(None).is_ok_and(|session| session == getpgrp()) {
                            continue;
                        }
                        // A frame that is being written has to be whole first.
                        screen.leave();
                        if raise(Number::SIGSTOP).is_ok() {
                            next(&mut go_on).await;
                        }
                    }
                    // It was stopped by SIGSTOP, which cannot be caught.
                    () = next(&mut go_on) => screen.leave(),
                }
                screen.come_back();
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored_is_read_from_the_kernels_mask() {
        let ignored = Ignored::of("SigBlk:\t00000000ffffffff\nSigIgn:\t0000000000001005\n");
        for number in [Number::SIGHUP, Number::SIGQUIT, Number::SIGPIPE] {
            assert!(ignored.contains(number), "{number}");
        }
        for number in [Number::SIGINT, Number::SIGTERM, Number::SIGTSTP] {
            assert!(!ignored.contains(number), "{number}");
        }
        assert!(!Ignored::of("").contains(Number::SIGHUP));
        // Rust's runtime ignores SIGPIPE.
        assert!(Ignored::by_this_process().contains(Number::SIGPIPE));
    }
}
