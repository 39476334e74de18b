//! Signals as people expect them: what was ignored at the start stays ignored, and none is without effect, whatever
//! prepull is doing.

#![allow(clippy::unwrap_used)] // a test file: a panic is a failed test

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// How long a busy machine may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "{what}: not so");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Ended with the test, whatever becomes of that.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    /// prepull in `home`, from a shell that does this first.
    fn start(home: &Path, before: &str, arguments: &str) -> Self {
        let prepull = env!("CARGO_BIN_EXE_prepull");
        let child = Command::new("sh")
            .args(["-c", &format!("{before} exec {prepull} {arguments}")])
            .current_dir(home)
            .env_clear()
            .env("HOME", home)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn send(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().cast_signed()), signal).unwrap();
    }

    /// Whether it handles a signal, as the kernel sees it.
    fn handles(&self, signal: Signal) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let mask = u64::from_str_radix(mask.unwrap().trim(), 16).unwrap();
        mask >> (signal as i32 - 1) & 1 == 1
    }

    fn status(&mut self) -> Option<i32> {
        let mut status = None;
        until("it ended", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.and_then(|status| status.code())
    }
}

/// Nodes on this port of this machine.
fn inventory(home: &Path, nodes: usize, port: u16) {
    let node = |number: usize| {
        format!("- {{name: n{number}, address: 127.0.0.1, port: {port}, runtime: docker}}\n")
    };
    let nodes: String = (0..nodes).map(node).collect();
    std::fs::write(home.join("nodes.yml"), format!("nodes:\n{nodes}")).unwrap();
}

#[test]
fn what_was_ignored_at_the_start_stays_ignored() {
    for (ignored, signal) in [
        ("HUP", Signal::SIGHUP),
        ("INT", Signal::SIGINT),
        ("TERM", Signal::SIGTERM),
    ] {
        let home = TempDir::new().unwrap();
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        inventory(home.path(), 1, server.local_addr().unwrap().port());
        let arguments =
            "pull -i nodes.yml -F none --retries 0 --connect-timeout 1h reg.example/app:v1";
        let before = format!("trap '' {ignored};");
        let mut prepull = Process::start(home.path(), &before, arguments);
        // It waits for a greeting, with all its handlers in place.
        let (connection, _) = server.accept().unwrap();
        prepull.send(signal);
        let all = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM];
        for other in all {
            assert_eq!(
                prepull.handles(other),
                other != signal,
                "{ignored}: {other}"
            );
        }
        // The node is lost, which ends the run; the signal did not.
        drop(connection);
        assert_eq!(prepull.status(), Some(1), "SIG{ignored}");
    }
}

#[test]
fn a_signal_ends_a_run_whose_results_nobody_reads() {
    for (signal, status) in [
        (Signal::SIGINT, 130),
        (Signal::SIGTERM, 143),
        (Signal::SIGHUP, 129),
    ] {
        let home = TempDir::new().unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
        inventory(home.path(), 500, closed.unwrap().port());
        let arguments =
            "pull -i nodes.yml -F none --retries 0 --canary 0 -o json reg.example/app:v1";
        let mut prepull = Process::start(home.path(), "", arguments);
        let journals = home.path().join(".local/state/prepull/runs");
        until("the run is over", || {
            let journal = std::fs::read_dir(&journals).ok().and_then(|mut d| d.next());
            let text = journal.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap());
            text.is_some_and(|text| text.contains("\n{\"end\":"))
        });
        prepull.send(signal);
        assert_eq!(prepull.status(), Some(status), "{signal}");
    }
}
