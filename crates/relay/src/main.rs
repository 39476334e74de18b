//! The relay as a program: it takes no arguments and speaks on standard input and output.

use std::fs;
use std::io::IsTerminal as _;
use std::process::ExitCode;

use nix::sys::prctl::set_dumpable;
use prepull_relay::{Timing, run};
use tokio::io::{stdin, stdout};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    if std::env::args_os().len() > 1 || std::io::stdin().is_terminal() {
        // There is nothing to write an error to where this fails.
        let _ = std::io::Write::write_all(
            &mut std::io::stdout(),
            concat!(
                "prepull-relay ",
                env!("CARGO_PKG_VERSION"),
                ": prepull pull --fan-out copies it to nodes and starts it there\n"
            )
            .as_bytes(),
        );
        return ExitCode::from(2);
    }
    // The program's name goes first: from here on nothing is left, however this ends.
    if let Ok(program) = std::env::current_exe() {
        let _ = fs::remove_file(program);
    }
    // No other process of this user reads logins out of its memory, and no core file has them.
    let _ = set_dumpable(false);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(8)
        .build();
    let Ok(runtime) = runtime else {
        return ExitCode::FAILURE;
    };
    let ended = runtime.block_on(async {
        let (terminate, interrupt, hangup) = (
            signal(SignalKind::terminate()),
            signal(SignalKind::interrupt()),
            signal(SignalKind::hangup()),
        );
        let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) = (terminate, interrupt, hangup)
        else {
            return ExitCode::FAILURE;
        };
        tokio::select! {
            ended = run(stdin(), stdout(), Timing::default()) => match ended {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            },
            _ = terminate.recv() => ExitCode::SUCCESS,
            _ = interrupt.recv() => ExitCode::SUCCESS,
            _ = hangup.recv() => ExitCode::SUCCESS,
        }
    });
    // A thread may still wait for standard input.
    runtime.shutdown_background();
    ended
}
