//! The program itself: what it leaves on disk and shows to others, and how it ends.

#![allow(clippy::unwrap_used)] // a test file: a panic is a failed test

use std::fs;
use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use prepull_relay::protocol::{FromRelay, Ready, Secret, Start, Ticket, ToRelay, Words as _};

struct Relay {
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Relay {
    /// A copy in this folder, which is also where it spools.
    fn start(folder: &Path, lease_seconds: u64) -> (Self, Ready) {
        let program = folder.join("relay");
        fs::copy(env!("CARGO_BIN_EXE_prepull-relay"), &program).unwrap();
        let mut command = Command::new(&program);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = loop {
            match command.spawn() {
                // A process that another test started meanwhile still has the copy open, for a moment.
                Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => continue,
                spawned => break spawned.unwrap(),
            }
        };
        let mut input = process.stdin.take().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let start = ToRelay::Start(Start {
            spool: folder.to_str().unwrap().into(),
            lease_seconds,
            ticket: Ticket([5; 32]),
            user: "node".into(),
            password: Secret("s3cret".into()),
            peer_listen: "127.0.0.1:0".parse().unwrap(),
            max_upload: None,
        });
        input.write_all(start.line().as_bytes()).unwrap();
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let Some(FromRelay::Ready(ready)) = FromRelay::read(line.as_bytes()).unwrap() else {
            panic!("{line}");
        };
        let input = Some(input);
        (
            Self {
                process,
                input,
                output,
            },
            ready,
        )
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id() as i32), signal).unwrap();
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn nothing_is_left_however_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    for signal in [
        Signal::SIGKILL,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
    ] {
        let (mut relay, ready) = Relay::start(folder.path(), 3600);
        // While it runs there is nothing either, so that nothing can be left by what cannot be caught.
        assert_eq!(names(folder.path()), [""; 0]);
        relay.signal(signal);
        let status = relay.process.wait().unwrap();
        assert_eq!(status.success(), signal != Signal::SIGKILL, "{signal}");
        assert_eq!(names(folder.path()), [""; 0]);
        assert!(std::net::TcpStream::connect(("127.0.0.1", ready.port)).is_err());
        assert!(std::net::TcpStream::connect(("127.0.0.1", ready.peer_port)).is_err());
    }
}

#[test]
fn it_ends_when_told_and_when_its_lease_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let (mut told, _) = Relay::start(folder.path(), 3600);
    let end = ToRelay::End {}.line();
    told.input
        .as_mut()
        .unwrap()
        .write_all(end.as_bytes())
        .unwrap();
    assert!(told.process.wait().unwrap().success());
    // With standard input open, and after its end, and when its output is not read.
    let (mut silent, _) = Relay::start(folder.path(), 1);
    assert!(silent.process.wait().unwrap().success());
    let (mut left, _) = Relay::start(folder.path(), 1);
    left.input = None;
    assert!(left.process.wait().unwrap().success());
    let _ = &left.output;
    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn its_arguments_and_environment_hold_no_secret_and_it_cannot_be_traced() {
    let folder = tempfile::tempdir().unwrap();
    let (relay, _) = Relay::start(folder.path(), 3600);
    let of = |name: &str| fs::read(format!("/proc/{}/{name}", relay.process.id()));
    let arguments = String::from_utf8(of("cmdline").unwrap()).unwrap();
    let program = folder.path().join("relay");
    assert_eq!(arguments.trim_end_matches('\0'), program.to_str().unwrap());
    // A process that may be traced has files in /proc of its own user; this one's belong to root.
    use std::os::unix::fs::MetadataExt as _;
    let status = fs::metadata(format!("/proc/{}/environ", relay.process.id())).unwrap();
    assert_eq!(status.uid(), 0);
}

#[test]
fn with_an_argument_it_says_what_it_is_and_stays() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("relay");
    fs::copy(env!("CARGO_BIN_EXE_prepull-relay"), &program).unwrap();
    let output = loop {
        match Command::new(&program).arg("--version").output() {
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => continue,
            output => break output.unwrap(),
        }
    };
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        said.starts_with("prepull-relay ") && said.contains("--fan-out"),
        "{said}"
    );
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(names(folder.path()), ["relay"]);
}
