//! `exec` on a fleet that prints more than memory should hold: what is kept of it, where, and what that costs.

#![allow(clippy::unwrap_used)] // a test file: a panic is a failed test

#[path = "support/simulated.rs"]
mod simulated;

use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use simulated::{Pull, Simulated};

/// What each node prints.
const PRINTED: usize = 1 << 20;
const NODES: usize = 100;
/// The most memory that prepull may take, in kB: less than what is printed, which is escaped and copied besides. Most of it
/// is taken by the connections, of which few are open at one time.
const MEMORY: u64 = 80_000;

fn exec(home: &Path, fleet: &Simulated, options: &[&str], bytes: usize) -> Command {
    let inventory = home.join("nodes.yml");
    fleet.inventory(&inventory);
    let mut command = Command::new(env!("CARGO_BIN_EXE_prepull"));
    command.env_clear().env("HOME", home).env("TMPDIR", home);
    command.args(["exec", "-F", "none", "--host-keys", "off", "-i"]);
    command.arg(inventory).args(options);
    command.args(["--", "print", &bytes.to_string()]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The most memory that a process has had until now, in kB.
fn peak(child: &Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    line.map_or(0, |line| {
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    })
}

/// Runs it to its end: how much it printed, and the most memory that it took.
fn run(mut command: Command) -> (usize, u64) {
    let mut child = command.spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).unwrap();
        text
    });
    let (mut printed, mut buffer, mut most) = (0, vec![0; 1 << 20], 0);
    loop {
        // It cannot end while there is something to read, and memory that was taken stays counted.
        most = most.max(peak(&child));
        match stdout.read(&mut buffer).unwrap() {
            0 => break,
            bytes => printed += bytes,
        }
    }
    let status = child.wait().unwrap();
    assert!(status.success(), "{}", errors.join().unwrap());
    (printed, most)
}

#[test]
fn a_fleet_that_prints_much_costs_disk_and_not_memory() {
    let fleet = Simulated::start(NODES, |_| Pull::Takes(0));
    for (options, escaped, times) in [
        (&["--progress", "none", "-p", "4"][..], "\\u{0}".len(), 1),
        (&["-o", "json", "-p", "4"], "\\u0000".len(), 1),
        (&["-o", "jsonl", "-p", "4"], 2 * "\\u0000".len(), 2),
    ] {
        let home = tempfile::tempdir().unwrap();
        let (printed, memory) = run(exec(home.path(), &fleet, options, PRINTED));
        println!("{options:?}: {printed} bytes printed, {memory} kB of memory");
        let whole = NODES * (PRINTED / 4) * (escaped + 3 * times) - NODES * 8 * times;
        assert!(
            printed > whole,
            "{options:?} printed {printed} bytes of {whole}"
        );
        assert!(memory < MEMORY, "{options:?} took {memory} kB");
        // The journal has the start of each, and the folder for temporary files nothing that anybody could open.
        let runs = home.path().join(".local/state/prepull/runs");
        let journals: Vec<_> = runs.read_dir().unwrap().map(Result::unwrap).collect();
        let recorded = journals[0].metadata().unwrap().len();
        assert!(recorded < 2_000_000, "{recorded} bytes are recorded");
        let left: Vec<_> = home
            .path()
            .read_dir()
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left.len(), 2, "{left:?}");
        let mut show = Command::new(env!("CARGO_BIN_EXE_prepull"));
        show.env_clear()
            .env("HOME", home.path())
            .args(["runs", "show", "last"]);
        let shown = String::from_utf8(show.output().unwrap().stdout).unwrap();
        let note = "[output cut: only its start is recorded, of 1.0 MB]";
        assert_eq!(shown.matches(note).count(), NODES, "{}", &shown[..2000]);
    }
}

#[test]
fn a_full_disk_costs_the_output_and_says_so() {
    let fleet = Simulated::start(3, |_| Pull::Takes(0));
    let home = tempfile::tempdir().unwrap();
    let mut command = exec(home.path(), &fleet, &["-o", "json"], 100_000);
    let output = command
        .env("TMPDIR", home.path().join("none"))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("warning: the output of 3 nodes is lost: cannot make a file in "),
        "{said}"
    );
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    // The commands ran, and what came of them is known.
    assert_eq!(document["summary"]["ok"], 3);
    for node in document["nodes"].as_array().unwrap() {
        let outcome = &node["outcomes"][0];
        assert_eq!(
            (&outcome["exit"], &outcome["stdout"]),
            (&0.into(), &"".into())
        );
        assert!(
            outcome["lost"]
                .as_str()
                .unwrap()
                .contains("/none: No such file"),
            "{outcome}"
        );
    }
    // What is short needs no disk.
    let mut command = exec(home.path(), &fleet, &[], 100);
    let output = command
        .env("TMPDIR", home.path().join("none"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
}
