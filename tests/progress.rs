//! What is told of a run where there is no terminal: when it has colour, and that a reader who does not read costs nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test file: a panic is a failed test

#[path = "support/simulated.rs"]
mod simulated;

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use simulated::{IMAGE, Pull, SIZE, Simulated};

/// prepull on a simulated fleet, without what this machine says of colours and terminals.
fn prepull(home: &Path, fleet: &Simulated, options: &[&str]) -> Command {
    let inventory = home.join("nodes.yml");
    fleet.inventory(&inventory);
    let mut command = Command::new(env!("CARGO_BIN_EXE_prepull"));
    for name in ["CI", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
        command.env_remove(name);
    }
    command.env("HOME", home).env("TERM", "xterm").arg("pull");
    command.arg("-i").arg(inventory).args(options);
    command.args(["-F", "none", "--host-keys", "off", IMAGE]);
    command
}

#[test]
fn colour_goes_where_it_is_wanted_and_nowhere_else() {
    let fleet = Simulated::start(1, |_| Pull::Takes(0));
    let home = tempfile::tempdir().unwrap();
    for (variables, options, is_coloured) in [
        (&[][..], &[][..], false),
        (&[("CLICOLOR_FORCE", "1")], &[], true),
        (&[("CLICOLOR_FORCE", "0")], &[], false),
        (&[("CLICOLOR_FORCE", "1"), ("TERM", "dumb")], &[], true),
        (&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], &[], false),
        (&[("CLICOLOR_FORCE", "1")], &["--color", "never"], false),
        (&[("NO_COLOR", "1")], &["--color", "always"], true),
    ] {
        let mut command = prepull(home.path(), &fleet, options);
        let output = command.envs(variables.iter().copied()).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let green = said.starts_with("\u{1b}[32m\u{1b}[1mREADY: 1 of 1 node ok");
        assert_eq!(green, is_coloured, "{variables:?} {options:?}: {said:?}");
        assert_eq!(said.contains('\u{1b}'), is_coloured, "{said:?}");
        // Lines are for grep, and documents for programs.
        let lines = String::from_utf8(output.stderr).unwrap();
        assert!(
            lines.contains(" status=ended done=1 ") && !lines.contains('\u{1b}'),
            "{lines}"
        );
    }
}

#[test]
fn a_stall_and_a_wait_for_the_registry_are_told_and_recorded() {
    let fleet = Simulated::start(2, |_| Pull::Stalls(5));
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name).display().to_string();
    let now = path("now.html");
    let options = ["--per-registry", "1", "-o", "jsonl", "--report", &now];
    let mut pull = prepull(home.path(), &fleet, &options);
    let output = pull.output().unwrap();
    let events: Vec<serde_json::Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let told = |event: &str, stage: Option<&str>| {
        let is = |line: &&serde_json::Value| {
            line["event"] == event && stage.is_none_or(|stage| line["stage"] == stage)
        };
        events.iter().filter(is).cloned().collect::<Vec<_>>()
    };
    // One of them waits until the other has done.
    assert_eq!(told("node-stage", Some("queue")).len(), 1, "{events:#?}");
    let stalls = told("stalled", None);
    assert_eq!(stalls.len(), 2, "{events:#?}");
    for stall in stalls {
        let seconds = stall["seconds"].as_f64().unwrap();
        assert!((5.0..9.0).contains(&seconds), "{stall}");
    }
    // A journal tells the page the same, and what arrived.
    let mut show = Command::new(env!("CARGO_BIN_EXE_prepull"));
    show.args(["runs", "show", "last"]).env("HOME", home.path());
    let shown = String::from_utf8(show.output().unwrap().stdout).unwrap();
    assert!(shown.contains("\nArrived: 80.0 MB, "), "{shown}");
    let last = &events.last().unwrap()["result"];
    assert_eq!(last["arrived"], 2 * SIZE);
    assert_eq!(last["nodes"][0]["outcomes"][0]["arrived"], SIZE);
    let later = path("later.html");
    let mut report = Command::new(env!("CARGO_BIN_EXE_prepull"));
    report.args(["runs", "report", "last", "--html", &later]);
    assert!(report.env("HOME", home.path()).status().unwrap().success());
    let nodes = |path: &str| {
        let page = std::fs::read_to_string(path).unwrap();
        let (_, data) = page.split_once("id=\"data\">").unwrap();
        let data = data.split_once("</script>").unwrap().0;
        serde_json::from_str::<serde_json::Value>(data).unwrap()["nodes"].take()
    };
    let nodes = (nodes(&now), nodes(&later));
    assert_eq!(nodes.0, nodes.1);
    for phase in ["queue", "stall"] {
        assert!(nodes.0.to_string().contains(phase), "{}", nodes.0);
    }
}

#[test]
fn a_pipe_that_nobody_reads_holds_nothing_up_and_loses_no_outcome() {
    const NODES: usize = 300;
    let fleet = Simulated::start(NODES, |_| Pull::Takes(1));
    let home = tempfile::tempdir().unwrap();
    let options = ["-o", "jsonl", "--progress", "lines", "-v", "-p", "100"];
    let mut running = prepull(home.path(), &fleet, &options)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while fleet.ended() < NODES {
        let ended = fleet.ended();
        assert!(began.elapsed().as_secs() < 60, "{ended} pulls ended");
        std::thread::sleep(Duration::from_millis(100));
    }
    std::thread::sleep(Duration::from_secs(10).saturating_sub(began.elapsed()));
    // A pipe holds 64 kB: the rest waits for us.
    assert!(running.try_wait().unwrap().is_none());
    let mut lines = running.stderr.take().unwrap();
    let lines = std::thread::spawn(move || {
        let mut text = String::new();
        lines.read_to_string(&mut text).map(|_| text)
    });
    let mut events = String::new();
    let mut output = running.stdout.take().unwrap();
    output.read_to_string(&mut events).unwrap();
    assert!(running.wait().unwrap().success());
    let lines = lines.join().unwrap().unwrap();
    assert!(events.len() > 64 << 10 && lines.len() > 64 << 10);
    for number in 1..=NODES {
        let name = Simulated::name(number);
        let line = format!(" node={name} image={IMAGE} status=pulled ");
        assert_eq!(lines.matches(&line).count(), 1, "{line}");
        let event = format!(r#""event":"finished","node":"{name}""#);
        assert_eq!(events.matches(&event).count(), 1, "{event}");
    }
    let last: serde_json::Value = serde_json::from_str(events.lines().last().unwrap()).unwrap();
    assert_eq!(last["result"]["summary"]["pulled"], NODES);
}

/// A hook gets the whole document, its failure is a warning, and metrics are there by then.
#[test]
fn a_command_after_the_run_gets_the_document_and_its_failure_is_a_warning() {
    let fleet = Simulated::start(2, |_| Pull::Takes(0));
    let home = tempfile::tempdir().unwrap();
    let (document, metrics) = (home.path().join("document"), home.path().join("run.prom"));
    let hook = format!(
        "cat >{}; test -s {} || exit 9; echo told; exit 3",
        document.display(),
        metrics.display()
    );
    let options = ["--on-finish", &hook, "--report", metrics.to_str().unwrap()];
    let output = prepull(home.path(), &fleet, &options).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("\ntold\n"), "{said}");
    assert!(said.contains("prepull: warning: --on-finish cat"), "{said}");
    assert!(said.contains(": it ended with exit status: 3\n"), "{said}");
    assert!(!String::from_utf8(output.stdout).unwrap().contains("told"));
    let read = std::fs::read(&document).unwrap();
    let read: serde_json::Value = serde_json::from_slice(&read).unwrap();
    assert_eq!(read["summary"]["ok"], 2);
    let metrics = std::fs::read_to_string(&metrics).unwrap();
    let wanted = "prepull_run_nodes{command=\"pull\",status=\"ok\"} 2\n";
    assert!(metrics.contains(wanted), "{metrics}");
}
