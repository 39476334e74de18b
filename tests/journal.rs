//! Runs on disk as a user meets them: what is recorded, shown and gone on with. Nobody answers on the nodes' port.

#![allow(clippy::unwrap_used)] // a test file: a panic is a failed test

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output};

use tempfile::TempDir;

#[cfg(feature = "lab")]
#[path = "support/simulated.rs"]
mod simulated;

struct Desk {
    home: TempDir,
    /// On which nobody listens.
    port: u16,
}

fn said(output: &Output) -> String {
    let code = output.status.code().unwrap();
    let text = String::from_utf8([output.stdout.as_slice(), &output.stderr].concat()).unwrap();
    format!("{code}\n{text}")
}

impl Desk {
    fn new() -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let home = TempDir::new().unwrap();
        let node = |name: &str| {
            format!("- {{name: {name}, address: 127.0.0.1, port: {port}, runtime: docker}}\n")
        };
        std::fs::write(
            home.path().join("two.yml"),
            format!("nodes:\n{}{}", node("a"), node("b")),
        )
        .unwrap();
        std::fs::write(
            home.path().join("one.yml"),
            format!("nodes:\n{}", node("a")),
        )
        .unwrap();
        Self { home, port }
    }

    fn prepull(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_prepull"))
            .args(arguments)
            .current_dir(self.home.path())
            .env_clear()
            .env("HOME", self.home.path())
            .output()
            .unwrap()
    }

    fn pull(&self, more: &[&str]) -> Output {
        let usual = [
            "pull",
            "-i",
            "two.yml",
            "-F",
            "none",
            "--retries",
            "0",
            "reg.example/app:v1",
        ];
        self.prepull(&[&usual, more].concat())
    }

    fn journals(&self) -> Vec<PathBuf> {
        let folder = self.home.path().join(".local/state/prepull/runs");
        let mut paths: Vec<_> = std::fs::read_dir(folder)
            .map(|entries| entries.map(|entry| entry.unwrap().path()).collect())
            .unwrap_or_default();
        paths.sort();
        paths
    }
}

#[test]
fn a_run_is_recorded_and_shown_as_it_was_told() {
    let desk = Desk::new();
    let ran = desk.pull(&[]);
    assert_eq!(ran.status.code(), Some(1));
    let told = String::from_utf8(ran.stdout).unwrap();
    let shown = desk.prepull(&["runs", "show", "last"]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    let (head, body) = shown.split_once('\n').unwrap();
    assert!(head.ends_with(" pull (ended)"), "{head}");
    assert_eq!(body, told);
    let run = head.split(' ').next().unwrap();
    assert!(
        told.ends_with(&format!(": prepull pull --resume {run}\n")),
        "{told}"
    );

    let listed = said(&desk.prepull(&["runs", "list"]));
    let cells: Vec<&str> = listed.lines().last().unwrap().split_whitespace().collect();
    assert_eq!(
        cells,
        [
            run,
            "pull",
            "ended",
            "2",
            "0",
            "-",
            "2",
            "0",
            "reg.example/app:v1"
        ]
    );
    // Without a name the last is meant.
    assert_eq!(
        desk.prepull(&["runs", "show"]).stdout,
        desk.prepull(&["runs", "show", run]).stdout
    );
    let json = desk.prepull(&["runs", "show", run, "-o", "json"]);
    let document: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(
        document["nodes"][1]["outcomes"][0]["failure"]["kind"],
        "unreachable"
    );
    let json = desk.prepull(&["runs", "list", "-o", "json"]);
    let list: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(list["runs"][0]["summary"]["failed"], 2);
    assert_eq!(list["runs"][0]["images"][0], "reg.example/app:v1");
}

#[test]
fn a_run_need_not_be_recorded_and_cannot_be_where_there_is_no_home() {
    let desk = Desk::new();
    desk.pull(&["--no-journal"]);
    assert!(desk.journals().is_empty());
    assert!(said(&desk.prepull(&["runs", "list"])).starts_with("0\nNo run is recorded in "));
    std::fs::write(desk.home.path().join(".local"), "in the way").unwrap();
    let ran = desk.pull(&[]);
    let text = said(&ran);
    assert!(
        text.contains("warning: this run is not recorded and cannot be resumed: cannot make"),
        "{text}"
    );
    assert!(
        text.starts_with("1\n") && !text.contains("--resume"),
        "{text}"
    );
}

/// Makes the last journal say that this node holds the image.
fn succeed(desk: &Desk, node: usize) {
    let listed = desk.prepull(&["runs", "list", "-o", "json"]);
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    let last = listed["runs"].as_array().unwrap().last().unwrap()["run"]
        .as_str()
        .unwrap();
    let path = desk
        .journals()
        .into_iter()
        .find(|path| path.file_stem().unwrap() == last)
        .unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let mut lines = Vec::new();
    for line in text.lines() {
        let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
        let finished = line.pointer_mut("/event/fact/finished");
        if let Some(finished) = finished.filter(|finished| finished["node"] == node) {
            let held = serde_json::json!({"digest": "sha256:ab", "image_id": null, "bytes": 7, "platform": null});
            finished["record"]["outcome"] = serde_json::json!({ "pulled": held });
        }
        lines.push(line.to_string() + "\n");
    }
    std::fs::write(path, lines.concat()).unwrap();
}

#[test]
fn resuming_does_what_is_open_and_nothing_else() {
    let desk = Desk::new();
    desk.pull(&[]);
    succeed(&desk, 0);
    let resumed = desk.prepull(&["pull", "--resume", "last", "-o", "json"]);
    assert_eq!(resumed.status.code(), Some(1), "{}", said(&resumed));
    let document: serde_json::Value = serde_json::from_slice(&resumed.stdout).unwrap();
    let outcome = |node: usize| document["nodes"][node]["outcomes"][0].clone();
    assert_eq!(
        (&outcome(0)["status"], &outcome(0)["digest"]),
        (&"present".into(), &"sha256:ab".into())
    );
    assert_eq!(outcome(0)["attempts"], serde_json::json!([]));
    assert_eq!(outcome(1)["failure"]["kind"], "unreachable");
    assert_eq!(
        outcome(1)["attempts"].as_array().unwrap().len(),
        1,
        "--retries 0 holds again"
    );

    // What was resumed can be resumed again, and once all is there nothing is left to do.
    succeed(&desk, 1);
    let again = desk.prepull(&["pull", "--resume", "last", "-o", "human"]);
    let text = said(&again);
    assert!(text.starts_with("0\nREADY: 2 of 2 nodes ok"), "{text}");
    assert_eq!(desk.journals().len(), 3);
}

#[test]
fn resuming_says_what_has_changed_and_what_it_cannot_do() {
    let desk = Desk::new();
    desk.pull(&[]);
    let with = said(&desk.pull(&["--resume", "last"]));
    assert!(
        with.starts_with("2\n") && with.contains("cannot be used with"),
        "{with}"
    );
    let unknown = said(&desk.prepull(&["pull", "--resume", "2001"]));
    assert!(
        unknown.contains("there is no run \"2001\"") && unknown.contains("prepull runs list"),
        "{unknown}"
    );
    std::fs::copy(
        desk.home.path().join("one.yml"),
        desk.home.path().join("two.yml"),
    )
    .unwrap();
    let changed = said(&desk.prepull(&["pull", "--resume", "last"]));
    assert!(
        changed.contains("but not in the fleet any more: b\n"),
        "{changed}"
    );
    let elsewhere = Command::new(env!("CARGO_BIN_EXE_prepull"))
        .args(["pull", "--resume", "last"])
        .current_dir("/")
        .env_clear()
        .env("HOME", desk.home.path())
        .output()
        .unwrap();
    assert!(said(&elsewhere).contains("`cd "), "{}", said(&elsewhere));
    let port = desk.port.to_string();
    desk.prepull(&[
        "exec",
        "-F",
        "none",
        "-H",
        "127.0.0.1",
        "--port",
        &port,
        "--retries",
        "0",
        "--",
        "true",
    ]);
    // The last pull, also after other runs.
    let last = said(&desk.prepull(&["pull", "--resume", "last"]));
    assert!(last.starts_with("1\nNOT READY: 0 of 1 node ok"), "{last}");
    let listed = desk.prepull(&["runs", "list", "-o", "json"]);
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    let runs = listed["runs"].as_array().unwrap();
    let exec = runs.iter().find(|run| run["command"] == "exec").unwrap();
    let exec = exec["run"].as_str().unwrap();
    let no_pull = said(&desk.prepull(&["pull", "--resume", exec]));
    assert!(
        no_pull.contains("was not a pull, and only pulls can be resumed"),
        "{no_pull}"
    );
}

/// Nodes a and b again, on a port where somebody listens and never says a word.
fn silent_nodes(desk: &Desk) -> TcpListener {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let inventory = desk.home.path().join("two.yml");
    let text = std::fs::read_to_string(&inventory).unwrap();
    let text = text.replace(&desk.port.to_string(), &port.to_string());
    std::fs::write(inventory, text).unwrap();
    silent
}

#[test]
fn a_run_is_resumed_once_at_a_time() {
    let desk = Desk::new();
    desk.pull(&[]);
    let silent = silent_nodes(&desk);
    let resume = ["pull", "--resume", "last", "--connect-timeout", "1h"];
    let mut first = Command::new(env!("CARGO_BIN_EXE_prepull"))
        .args(resume)
        .current_dir(desk.home.path())
        .env_clear()
        .env("HOME", desk.home.path())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let at_work = silent.accept().unwrap();
    let names: Vec<_> = desk.journals();
    for run in &names {
        let run = run.file_stem().unwrap().to_str().unwrap();
        let second = said(&desk.prepull(&["pull", "--resume", run]));
        assert!(second.starts_with("2\n"), "{second}");
        assert!(
            second.contains("another prepull is at work on the pulls of the run")
                || second.contains("is still going on"),
            "{second}"
        );
    }
    assert_eq!(names.len(), 2);
    let listed = said(&desk.prepull(&["runs", "list"]));
    let states: Vec<&str> = listed
        .lines()
        .skip(2)
        .map(|line| line.split_whitespace().nth(2).unwrap())
        .collect();
    assert_eq!(states, ["ended", "running"], "{listed}");
    first.kill().unwrap();
    first.wait().unwrap();
    drop((at_work, silent));
    let third = said(&desk.prepull(&["pull", "--resume", "last"]));
    assert!(third.starts_with("1\n"), "{third}");
}

#[test]
fn a_preflight_of_a_resumed_run_is_one_that_is_asked_for_now() {
    let desk = Desk::new();
    let port = desk.port;
    let image = format!("127.0.0.1:{port}/app:v1");
    let usual = ["pull", "-i", "two.yml", "-F", "none", "--retries", "0"];
    desk.prepull(&[&usual[..], &["--preflight", &image]].concat());
    let asks = |more: &[&str]| {
        let resume = ["pull", "--resume", "last", "-o", "jsonl"];
        let said = desk.prepull(&[&resume, more].concat()).stdout;
        String::from_utf8(said).unwrap().contains("\"preflighted\"")
    };
    assert!(!asks(&[]));
    assert!(asks(&["--preflight"]));
}

#[test]
fn a_journal_that_is_gone_at_the_end_is_no_promise() {
    let desk = Desk::new();
    let silent = silent_nodes(&desk);
    let run = Command::new(env!("CARGO_BIN_EXE_prepull"))
        .args(["pull", "-i", "two.yml", "-F", "none", "--retries", "0"])
        .args(["--connect-timeout", "1h", "reg.example/app:v1"])
        .current_dir(desk.home.path())
        .env_clear()
        .env("HOME", desk.home.path())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let both = [silent.accept().unwrap(), silent.accept().unwrap()];
    for journal in desk.journals() {
        std::fs::remove_file(journal).unwrap();
    }
    drop(both);
    let told = said(&run.wait_with_output().unwrap());
    assert!(told.starts_with("1\n"), "{told}");
    assert!(
        told.contains("warning: the journal of this run is gone, it cannot be resumed"),
        "{told}"
    );
    assert!(!told.contains("--resume"), "{told}");
}

/// The numbers of outcomes in what a system call wrote, as strace shows it: `mark` stands right behind each.
#[cfg(feature = "lab")]
fn outcomes(call: &str, mark: &str) -> Vec<u64> {
    let numbers = call.split(r#"\"number\":"#).skip(1);
    let marked = numbers.filter(|rest| {
        let line = rest.split(r"\n").next().unwrap();
        line.contains(mark)
    });
    marked
        .map(|rest| rest.split(',').next().unwrap().parse().unwrap())
        .collect()
}

#[test]
#[cfg(feature = "lab")]
fn an_outcome_is_on_disk_before_it_is_told() {
    use std::collections::{BTreeSet, HashMap};

    const NODES: usize = 12;
    let fleet = simulated::Simulated::start(NODES, |number| match number % 3 {
        0 => simulated::Pull::Fails("manifest unknown"),
        _ => simulated::Pull::Takes(1),
    });
    let home = TempDir::new().unwrap();
    let (inventory, trace) = (home.path().join("nodes.yml"), home.path().join("trace"));
    fleet.inventory(&inventory);
    let output = Command::new("strace")
        .args(["-f", "-y", "-s", "1000000", "-o"])
        .arg(&trace)
        .args(["-e", "trace=write,fsync,fdatasync,openat"])
        .arg(env!("CARGO_BIN_EXE_prepull"))
        .args(["pull", "-F", "none", "--host-keys", "off", "-o", "jsonl"])
        .args(["--progress", "none", "--retries", "0", "-i"])
        .arg(&inventory)
        .arg(simulated::IMAGE)
        .env("HOME", home.path())
        .env_remove("XDG_STATE_HOME")
        .output()
        .unwrap_or_else(|error| {
            panic!("strace did not start ({error}): install Debian's package strace (apt-get install strace)")
        });
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");

    let trace = std::fs::read_to_string(trace).unwrap();
    let first = trace.find(" write(1<").unwrap();
    let mut before = trace[..first].lines();
    let named = before.any(|line| line.contains(" fsync(") && line.contains("/prepull/runs>"));
    assert!(named, "the journal's name is not on disk");
    // What each thread wrote to the journal and has not synced, what is synced, and what was told.
    let mut written: HashMap<&str, Vec<u64>> = HashMap::new();
    let (mut synced, mut told) = (BTreeSet::new(), BTreeSet::new());
    for line in trace.lines() {
        let (thread, call) = line.split_once(' ').unwrap();
        let call = call.trim_start();
        let of_journal = call
            .split('>')
            .next()
            .is_some_and(|file| file.contains("/prepull/runs/"));
        if call.starts_with("write(1<") {
            for number in outcomes(call, r#",\"outcome\":"#) {
                assert!(
                    synced.contains(&number),
                    "told before it was on disk: {line}"
                );
                told.insert(number);
            }
        } else if of_journal && call.starts_with("write(") {
            let numbers = outcomes(call, r#"\"fact\":{\"finished\":"#);
            written.entry(thread).or_default().extend(numbers);
        } else if (of_journal && (call.starts_with("fdatasync(") || call.starts_with("fsync("))
            || call.starts_with("<... fdatasync resumed")
            || call.starts_with("<... fsync resumed"))
            && call.ends_with(" = 0")
        {
            synced.extend(written.remove(thread).unwrap_or_default());
        }
    }
    assert_eq!(told.len(), NODES, "{told:?}");
}
