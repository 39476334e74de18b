//! Nodes that pass an image on to each other: docker and containerd, real relays, and a registry whose log says what it sent.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test file: a panic is a failed test

#[path = "support/registry_log.rs"]
mod registry_log;
#[path = "support/fleet.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use registry_log::*;
use serde_json::Value;
use support::*;

/// docker and containerd, each as root and as a user with sudo.
static LAB: LazyLock<Mutex<Lab>> =
    LazyLock::new(|| Mutex::new(Lab::start(env!("CARGO_CRATE_NAME"), 4, &[])));

/// Longer than any wait for something that happens at once.
const PATIENCE: Duration = Duration::from_secs(60);

/// The lab, without images on its nodes.
fn lab() -> MutexGuard<'static, Lab> {
    let lab = LAB.lock().unwrap_or_else(PoisonError::into_inner);
    succeed(&mut lab.command(&["registry", "rate", "off"]));
    for node in lab.nodes() {
        forget_images(&lab, &node);
    }
    lab
}

/// A folder with the relay, built for this machine.
fn relays(lab: &Lab) -> PathBuf {
    let beside = Path::new(env!("CARGO_BIN_EXE_prepull")).parent().unwrap();
    static BUILT: LazyLock<()> = LazyLock::new(|| {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--locked", "-p", "prepull-relay"]);
        succeed(build.current_dir(env!("CARGO_MANIFEST_DIR")));
    });
    LazyLock::force(&BUILT);
    let folder = lab.state.join("relays");
    std::fs::create_dir_all(&folder).unwrap();
    let machine = std::env::consts::ARCH;
    let file = folder.join(format!("prepull-relay-{machine}"));
    std::fs::copy(beside.join("prepull-relay"), &file).unwrap();
    succeed(Command::new("strip").arg(&file));
    folder
}

fn fan_out_command(lab: &Lab, arguments: &[&str]) -> Command {
    let mut command = pull_command(lab, &[&["--fan-out"], arguments].concat());
    command.env("SSL_CERT_FILE", lab.file("ca.crt"));
    command.env("PREPULL_RELAYS", relays(lab));
    command
}

/// Relays on a node, and what they could leave: processes, files, ports.
fn relays_on(lab: &Lab, node: &Node) -> String {
    let script = "ls -d /run/.prepull* /dev/shm/.prepull* /tmp/.prepull* /var/tmp/.prepull* /root/.prepull* \
            /home/*/.prepull* /run/user/*/.prepull* 2>/dev/null
        for process in /proc/[0-9]*; do
            case $(readlink $process/exe) in */.prepull-relay.*) echo \"${process#/proc/}\" ;; esac
        done
        true";
    succeed(&mut lab.on(&node.name, &["sh", "-c", script]))
}

/// Whether a relay runs on a node.
fn has_relay(lab: &Lab, node: &Node) -> bool {
    let there = relays_on(lab, node);
    there.lines().any(|line| line.parse::<u32>().is_ok())
}

/// Waits until this holds.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(
            began.elapsed() < PATIENCE,
            "not within {PATIENCE:?}: {what}"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn assert_nothing_left(lab: &Lab, nodes: &[Node]) {
    for node in nodes {
        assert_eq!(relays_on(lab, node), "", "on {}", node.name);
        assert_eq!(left_on(lab, node), "", "on {}", node.name);
    }
    assert_only_real_names(lab, nodes);
}

fn ways(document: &Value, nodes: &[Node]) -> Vec<String> {
    let way = |node| {
        let outcome = outcome(document, node);
        assert_eq!(outcome["status"], "pulled", "{outcome:#}");
        outcome["via"].as_str().unwrap_or_default().to_string()
    };
    let mut ways: Vec<String> = nodes.iter().map(way).collect();
    ways.sort();
    ways
}

#[test]
fn the_registry_sends_one_copy_and_nodes_hold_what_a_pull_leaves() {
    let lab = lab();
    let nodes = lab.nodes();
    let ordinary = pull(&lab, &[APP]).expect(0).json();
    let expected: Vec<_> = nodes.iter().map(|node| names_on(&lab, node)).collect();
    for node in &nodes {
        forget_images(&lab, node);
    }

    let log = RegistryLog::now(&lab);
    let run = end(start(&mut fan_out_command(&lab, &[APP]), &lab.password())).expect(0);
    let document = run.json();
    assert_eq!(
        ways(&document, &nodes),
        ["peers", "peers", "peers", "registry"],
        "{document:#}"
    );
    // Four layers and the configuration, for four nodes.
    let blobs = log.blobs();
    assert_eq!(blobs.len(), 5, "{blobs:#?}");
    assert!(blobs.values().all(|times| *times == 1), "{blobs:#?}");
    for (node, expected) in nodes.iter().zip(&expected) {
        let (outcome, before) = (outcome(&document, node), outcome(&ordinary, node));
        assert_eq!(outcome["digest"], before["digest"], "on {}", node.name);
        assert_eq!(outcome["via_note"], Value::Null, "{outcome:#}");
        assert_eq!(&names_on(&lab, node), expected, "on {}", node.name);
    }
    let totals = &document["fan_out"];
    assert_eq!(
        (&totals["nodes"], &totals["roots"]),
        (&4.into(), &1.into()),
        "{totals}"
    );
    let (sent, bytes) = (&totals["from_source"], &totals["image_bytes"]);
    assert!(sent.as_u64() <= bytes.as_u64(), "{totals}");
    assert_eq!(totals["fallbacks"], 0, "{totals}");
    assert_nothing_left(&lab, &nodes);

    // What is there needs no relay.
    let document = end(start(&mut fan_out_command(&lab, &[APP]), &lab.password()))
        .expect(0)
        .json();
    assert_eq!(document["summary"]["present"], 4, "{document:#}");
    assert_eq!(document["fan_out"]["nodes"], 0, "{document:#}");
}

/// Whether the node has a way to the registry.
fn reachable(lab: &Lab, node: &Node, is_wanted: bool) {
    let change = if is_wanted { "del" } else { "add" };
    let route = ["ip", "route", change, "unreachable", "10.77.0.2/32"];
    let output = lab.on(&node.name, &route).output().unwrap();
    assert!(is_wanted || output.status.success(), "{output:?}");
}

#[test]
fn one_copy_goes_through_ssh_where_no_node_reaches_the_registry() {
    let lab = lab();
    let nodes = lab.nodes();
    let _ = std::fs::remove_dir_all(lab.state.join("home/.cache"));
    for node in &nodes {
        reachable(&lab, node, false);
    }
    let log = RegistryLog::now(&lab);
    let mut command = fan_out_command(&lab, &["--via", "ssh", APP]);
    let run = end(start(&mut command, &lab.password()));
    for node in &nodes {
        reachable(&lab, node, true);
    }
    let document = run.expect(0).json();
    let expected = ["peers", "peers", "peers", "ssh"];
    assert_eq!(ways(&document, &nodes), expected, "{document:#}");
    let blobs = log.blobs();
    assert_eq!(blobs.len(), 5, "{blobs:#?}");
    assert!(blobs.values().all(|times| *times == 1), "{blobs:#?}");
    for node in &nodes {
        assert!(!log.heard_of(node), "{} asked the registry", node.name);
    }
    assert_nothing_left(&lab, &nodes);
}

#[test]
fn a_later_wave_gets_the_image_from_an_earlier_one() {
    let lab = lab();
    let nodes = lab.nodes();
    let log = RegistryLog::now(&lab);
    let options = ["--waves", "1,100%", "--preflight", APP];
    let run = end(start(&mut fan_out_command(&lab, &options), &lab.password())).expect(0);
    let document = run.json();
    let expected = ["peers", "peers", "peers", "registry"];
    assert_eq!(ways(&document, &nodes), expected, "{document:#}");
    let blobs = log.blobs();
    assert!(blobs.values().all(|times| *times == 1), "{blobs:#?}");
    assert_nothing_left(&lab, &nodes);
}

#[test]
fn a_run_that_met_its_deadline_leaves_nothing_and_is_resumed() {
    let lab = lab();
    let nodes = lab.nodes();
    // 80 MB take half a minute.
    succeed(&mut lab.command(&["registry", "rate", "20mbit"]));
    let state = tempfile::tempdir().unwrap();
    let mut command = fan_out_command(&lab, &["--deadline", "12s", APP]);
    command.env("XDG_STATE_HOME", state.path());
    let document = end(start(&mut command, &lab.password())).expect(3).json();
    assert!(
        document["stopped"].as_str().unwrap().contains("deadline"),
        "{document:#}"
    );
    assert_nothing_left(&lab, &nodes);

    succeed(&mut lab.command(&["registry", "rate", "off"]));
    let resume = ["--resume", "last", "--deadline", "10m", "-o", "json"];
    let words = [&[env!("CARGO_BIN_EXE_prepull"), "pull"], &resume[..]].concat();
    let mut command = lab.operator(&words);
    command
        .env("XDG_STATE_HOME", state.path())
        .env("HOME", lab.state.join("home"))
        .env("SSL_CERT_FILE", lab.file("ca.crt"))
        .env("PREPULL_RELAYS", relays(&lab))
        .env_remove("SSH_AUTH_SOCK");
    let document = end(start(&mut command, &lab.password())).expect(0).json();
    let expected = ["peers", "peers", "peers", "registry"];
    assert_eq!(ways(&document, &nodes), expected, "{document:#}");
    assert_nothing_left(&lab, &nodes);
}

#[test]
fn a_relay_that_is_killed_costs_the_others_nothing() {
    let lab = lab();
    let nodes = lab.nodes();
    succeed(&mut lab.command(&["registry", "rate", "20mbit"]));
    let child = start(&mut fan_out_command(&lab, &[APP]), &lab.password());
    // The one that has a connection to the registry.
    let connected = |node: &&Node| {
        let asked = ["sh", "-c", "ss -Htnp dst 10.77.0.2"];
        let connections = succeed(&mut lab.on(&node.name, &asked));
        connections.contains("prepull-relay")
    };
    let mut root = None;
    until("all relays run and one fetches", || {
        let all = nodes.iter().all(|node| has_relay(&lab, node));
        root = nodes.iter().find(connected);
        all && root.is_some()
    });
    let root = root.unwrap();
    let killed = "for process in /proc/[0-9]*; do
            case $(readlink $process/exe) in */.prepull-relay.*) kill -9 ${process#/proc/} ;; esac
        done; true";
    succeed(&mut lab.on(&root.name, &["sh", "-c", killed]));
    let run = end(child).expect(0);
    let document = run.json();
    let ways = ways(&document, &nodes);
    assert!(
        ways.iter().filter(|way| *way == "registry").count() <= 2,
        "{document:#}"
    );
    assert_nothing_left(&lab, &nodes);
}

#[test]
fn of_a_prepull_that_is_killed_nothing_is_left_on_nodes() {
    let lab = lab();
    let nodes = lab.nodes();
    succeed(&mut lab.command(&["registry", "rate", "20mbit"]));
    let mut child = start(&mut fan_out_command(&lab, &[APP]), &lab.password());
    until("all relays run", || {
        nodes.iter().all(|node| has_relay(&lab, node))
    });
    child.kill().unwrap();
    child.wait().unwrap();
    for node in &nodes {
        until("the relay is gone", || relays_on(&lab, node).is_empty());
        until("the pull is gone", || left_on(&lab, node).is_empty());
    }
    assert_nothing_left(&lab, &nodes);
}
