//! Faults on a fleet of real nodes, each with what it leaves: outcomes, processes, files. The table is docs/faults.md.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test file: a panic is a failed test

#[path = "support/fleet.rs"]
mod support;

use std::collections::{HashMap, HashSet};
use std::io::{BufRead as _, BufReader};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::*;

#[test]
fn an_operator_who_is_gone_leaves_nothing_behind_either() {
    let lab = fleet();
    let nodes = good_nodes(&lab);
    succeed(&mut lab.command(&["registry", "rate", "16mbit"]));
    let mut running = start(
        &mut pull_command(&lab, &["--lease", "4s", APP]),
        &lab.password(),
    );
    std::thread::sleep(Duration::from_secs(3));
    assert!(
        nodes.iter().any(|node| !left_on(&lab, node).is_empty()),
        "no pull has begun"
    );
    running.kill().unwrap();
    running.wait().unwrap();
    let began = Instant::now();
    for node in &nodes {
        let mut left = left_on(&lab, node);
        while !left.is_empty() && began.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(200));
            left = left_on(&lab, node);
        }
        assert_eq!(left, "", "on {}", node.name);
    }
}

/// The link goes away in the middle of a pull and comes back: the same client is still at it, and its result counts.
#[test]
fn a_pull_outlives_its_connection() {
    let lab = fleet();
    let nodes = good_nodes(&lab);
    succeed(&mut lab.command(&["registry", "rate", "64mbit"]));
    let arguments = ["--keepalive", "1s", "--retries", "0", APP];
    let running = start(&mut pull_command(&lab, &arguments), &lab.password());
    let before = all_pulling(&lab, &nodes);
    // Two ways to lose one: the network, and the server on the node.
    succeed(&mut lab.command(&["cut", &nodes[1].name]));
    let script = "for process in /proc/[0-9]*; do
            case $(tr '\\0' ' ' <$process/cmdline 2>/dev/null) in 'sshd: root'*) kill -9 ${process#/proc/} ;; esac
        done; true";
    succeed(&mut lab.on(&nodes[0].name, &["sh", "-c", script]));
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(clients_on(&lab, &nodes[0]), before[0]);
    succeed(&mut lab.command(&["mend", &nodes[1].name]));
    assert_eq!(
        clients_on(&lab, &nodes[2]),
        before[2],
        "too fast a registry for this test"
    );
    succeed(&mut lab.command(&["registry", "rate", "off"]));
    let document = end(running).expect(0).json();
    assert_eq!(document["summary"]["pulled"], NODES);
    // TCP outlives a few seconds; a killed server does not.
    let attempts = &document["nodes"][0]["outcomes"][0]["attempts"];
    assert_eq!(
        attempts[0]["failure"]["kind"], "connection-lost",
        "{attempts}"
    );
    for node in &nodes {
        assert!(digest_on(&lab, node, APP).is_some(), "on {}", node.name);
        assert_eq!(left_on(&lab, node), "", "on {}", node.name);
    }
}

/// The link goes away and stays away: the operator is told, and the node cleans up by itself.
#[test]
fn a_pull_whose_link_is_cut_for_good_ends_with_its_lease() {
    let lab = fleet();
    let nodes = good_nodes(&lab);
    succeed(&mut lab.command(&["registry", "rate", "64mbit"]));
    let arguments = [
        "--limit",
        "node-1",
        "--lease",
        "4s",
        "--keepalive",
        "1s",
        "--connect-timeout",
        "2s",
        "--backoff",
        "100ms..1s",
        APP,
    ];
    let running = start(&mut pull_command(&lab, &arguments), &lab.password());
    all_pulling(&lab, &nodes[..1]);
    succeed(&mut lab.command(&["cut", "node-1"]));
    let began = Instant::now();
    let mut left = left_on(&lab, &nodes[0]);
    assert!(!left.is_empty());
    while !left.is_empty() && began.elapsed() < Duration::from_secs(40) {
        std::thread::sleep(Duration::from_millis(500));
        left = left_on(&lab, &nodes[0]);
    }
    let run = end(running);
    succeed(&mut lab.command(&["mend", "node-1"]));
    assert_eq!(left, "", "the node did not clean up");
    let outcome = &run.expect(1).json()["nodes"][0]["outcomes"][0];
    assert_eq!(outcome["failure"]["kind"], "unreachable", "{outcome}");
    assert_eq!(digest_on(&lab, &nodes[0], APP), None);
}

/// Nothing arrives any more in the middle of a layer: each pull is ended and tried again.
#[test]
fn a_registry_that_falls_silent_is_noticed_by_the_bytes() {
    let lab = fleet();
    let nodes = good_nodes(&lab);
    succeed(&mut lab.command(&["registry", "rate", "64mbit"]));
    let arguments = [
        "--stall-timeout",
        "4s",
        "--backoff",
        "1s..2s",
        "--retries",
        "20",
    ];
    let mut command = pull_command(&lab, &[&arguments[..], &["-o", "jsonl", APP]].concat());
    let running = start(&mut command, &lab.password());
    all_pulling(&lab, &nodes);
    std::thread::sleep(Duration::from_secs(3));
    succeed(&mut lab.command(&["cut", "registry"]));
    std::thread::sleep(Duration::from_secs(12));
    succeed(&mut lab.command(&["mend", "registry"]));
    succeed(&mut lab.command(&["registry", "rate", "off"]));
    let run = end(running).expect(0);
    let events: Vec<Value> = run
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let result = &events.last().unwrap()["result"];
    let mut far = HashSet::new();
    for node in result["nodes"].as_array().unwrap() {
        let attempts = &node["outcomes"][0]["attempts"];
        let first = &attempts[0]["failure"];
        assert_eq!(first["kind"], "stalled", "{node}");
        assert_eq!(first["retryable"], true);
        let told: Vec<&Value> = events
            .iter()
            .filter(|event| event["event"] == "progress" && event["node"] == node["name"])
            .collect();
        // Twelve nodes share a slow registry: not each of them has got far.
        if told
            .iter()
            .any(|event| event["bytes"].as_u64() > Some(100_000))
        {
            far.insert(node["runtime"].as_str().unwrap().to_string());
        }
        // containerd keeps the image's manifest, and with it the sum.
        if node["runtime"] == "crictl" {
            let total = told.last().unwrap()["total"].as_u64().unwrap();
            assert!((80_000_000..81_000_000).contains(&total), "{total}");
        }
    }
    assert_eq!(far.len(), 2, "bytes were seen of {far:?} alone");
    for node in &nodes {
        assert_eq!(left_on(&lab, node), "", "on {}", node.name);
    }
}

/// prepull is killed; the pulls go on, and the run that resumes it finds them.
#[test]
fn a_killed_run_is_resumed_where_it_is() {
    let lab = fleet();
    let nodes = good_nodes(&lab);
    let home = tempfile::tempdir().unwrap();
    let with_state = |command: &mut Command| {
        command.env("XDG_STATE_HOME", home.path());
    };
    succeed(&mut lab.command(&["registry", "rate", "64mbit"]));
    let mut command = pull_command(&lab, &[APP]);
    with_state(&mut command);
    let mut running = start(&mut command, &lab.password());
    let before = all_pulling(&lab, &nodes);
    running.kill().unwrap();
    running.wait().unwrap();
    let words = [env!("CARGO_BIN_EXE_prepull"), "pull", "--resume", "last"];
    let mut command = lab.operator(&words);
    with_state(command.env_remove("SSH_AUTH_SOCK"));
    let resumed = start(&mut command, &lab.password());
    std::thread::sleep(Duration::from_secs(2));
    let now: Vec<String> = nodes.iter().map(|node| clients_on(&lab, node)).collect();
    assert_eq!(now, before, "the pulls were started again");
    succeed(&mut lab.command(&["registry", "rate", "off"]));
    let document = end(resumed).expect(0).json();
    assert_eq!(document["summary"]["pulled"], NODES);
    for node in &nodes {
        assert_eq!(left_on(&lab, node), "", "on {}", node.name);
    }
}

/// How many SSH connections the operator has open, at one moment.
fn open_connections(lab: &Lab) -> usize {
    let ss = ["ss", "-Htn", "state", "established", "dport = :22"];
    succeed(&mut lab.operator(&ss)).lines().count()
}

/// Twelve pulls at once over two connections, by docker and containerd: no more are ever open. A run that is killed while
/// they go on is resumed, and an interrupt reaches all of them.
#[test]
fn pulls_go_on_at_once_over_few_connections() {
    let lab = fleet();
    let nodes = good_nodes(&lab);
    let home = tempfile::tempdir().unwrap();
    let with_state = |command: &mut Command| {
        command.env("XDG_STATE_HOME", home.path());
    };
    succeed(&mut lab.command(&["registry", "rate", "32mbit"]));
    let few = ["--connections", "2", "--canary", "0", "-o", "jsonl", APP];
    let mut command = pull_command(&lab, &few);
    with_state(&mut command);
    let mut running = start(&mut command, &lab.password());
    let before = all_pulling(&lab, &nodes);
    let mut seen = Vec::new();
    for _ in 0..20 {
        seen.push(open_connections(&lab));
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(seen.iter().any(|open| *open > 0), "{seen:?}");
    assert!(seen.iter().all(|open| *open <= 2), "{seen:?}");
    running.kill().unwrap();
    running.wait().unwrap();

    let resume = || {
        let program = env!("CARGO_BIN_EXE_prepull");
        let mut command = lab.operator(&[program, "pull", "--resume", "last"]);
        with_state(command.env_remove("SSH_AUTH_SOCK"));
        start(&mut command, &lab.password())
    };
    // Every pull is found, left alone again, and told to end.
    let mut resumed = resume();
    let mut events = BufReader::new(resumed.stdout.take().unwrap()).lines();
    let mut left_alone = HashSet::new();
    // The two connections may stay with the last two.
    while left_alone.len() + 2 < nodes.len() {
        let line = events
            .next()
            .expect("a run whose pulls are left alone")
            .unwrap();
        let event: Value = serde_json::from_str(&line).unwrap();
        if event["event"] == "left-alone" {
            left_alone.insert(event["node"].to_string());
        }
    }
    let events = std::thread::spawn(move || events.for_each(|line| drop(line.unwrap())));
    let now: Vec<String> = nodes.iter().map(|node| clients_on(&lab, node)).collect();
    assert_eq!(now, before, "the pulls were started again");
    succeed(Command::new("kill").args(["-INT", &resumed.id().to_string()]));
    end(resumed).expect(130);
    events.join().unwrap();
    for node in &nodes {
        assert_eq!(left_on(&lab, node), "", "on {}", node.name);
    }

    let resumed = resume();
    all_pulling(&lab, &nodes);
    succeed(&mut lab.command(&["registry", "rate", "off"]));
    let run = end(resumed).expect(0);
    let events: Vec<Value> = run
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let count = |word: &str| events.iter().filter(|event| event["event"] == word).count();
    assert!(count("left-alone") > 0, "{}", run.stdout);
    assert_eq!((count("node-started"), count("node-left")), (NODES, NODES));
    for node in &nodes {
        assert!(digest_on(&lab, node, APP).is_some(), "on {}", node.name);
        assert_eq!(left_on(&lab, node), "", "on {}", node.name);
    }
}

/// prepull is killed at 50 random moments: whatever it had begun is found again, and nothing is pulled twice over.
#[test]
fn a_run_that_is_killed_fifty_times_comes_to_its_end() {
    let lab = fleet();
    let nodes = good_nodes(&lab);
    let home = tempfile::tempdir().unwrap();
    let runs = home.path().join("prepull/runs");
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let log = lab.state.join("logs/registry.registry.log");
    let before = std::fs::read_to_string(&log).unwrap().len();
    let next = || {
        let has_begun = std::fs::read_dir(&runs).is_ok_and(|mut runs| runs.next().is_some());
        let mut command = if has_begun {
            let words = [env!("CARGO_BIN_EXE_prepull"), "pull", "--resume", "last"];
            lab.operator(&words)
        } else {
            pull_command(&lab, &[APP])
        };
        command
            .env("XDG_STATE_HOME", home.path())
            .env_remove("SSH_AUTH_SOCK");
        start(&mut command, &lab.password())
    };
    succeed(&mut lab.command(&["registry", "rate", "200mbit"]));
    for _ in 0..50 {
        let mut running = next();
        std::thread::sleep(Duration::from_millis(random.u64(20..1500)));
        running.kill().unwrap();
        running.wait().unwrap();
    }
    succeed(&mut lab.command(&["registry", "rate", "off"]));
    let document = end(next()).expect(0).json();
    assert_eq!(document["summary"]["ok"], NODES, "seed {seed}: {document}");
    let reported = document["nodes"].as_array().unwrap();
    assert!(
        reported
            .iter()
            .all(|node| node["outcomes"].as_array().unwrap().len() == 1)
    );
    for node in &nodes {
        assert!(
            digest_on(&lab, node, APP).is_some(),
            "seed {seed}: {}",
            node.name
        );
        // A question that was killed with its connection is cleaned up within some seconds.
        let began = Instant::now();
        while !left_on(&lab, node).is_empty() && began.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(500));
        }
        assert_eq!(left_on(&lab, node), "", "seed {seed}: on {}", node.name);
    }
    let text = std::fs::read_to_string(&log).unwrap();
    let mut fetched: HashMap<(&str, &str), usize> = HashMap::new();
    for line in text[before..]
        .lines()
        .filter(|line| line.contains("\"GET /v2/team/app/blobs/"))
    {
        let words: Vec<&str> = line.split(' ').collect();
        *fetched.entry((words[0], words[6])).or_default() += 1;
    }
    // Every layer and the configuration, on every node.
    assert!(fetched.len() >= NODES * 5, "{fetched:?}");
    let twice = fetched.values().filter(|times| **times > 2).count();
    assert_eq!(twice, 0, "seed {seed}: {fetched:?}");
}

/// One docker node and one with containerd.
const TWO: [&str; 2] = ["--limit", "node-1:node-2"];

/// Pulls on two nodes from a registry with this fault, and returns their outcomes.
fn pull_with(fault: &str, arguments: &[&str], status: i32) -> Vec<Value> {
    let lab = fleet();
    succeed(&mut lab.command(&["registry", "fault", fault]));
    let arguments = [&TWO[..], arguments, &["--backoff", "200ms..1s", APP]].concat();
    let document = pull(&lab, &arguments).expect(status).json();
    let nodes = document["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 2);
    let outcomes: Vec<Value> = nodes
        .iter()
        .map(|node| node["outcomes"][0].clone())
        .collect();
    for (number, node) in good_nodes(&lab)[..2].iter().enumerate() {
        assert_eq!(left_on(&lab, node), "", "on {}", node.name);
        let is_there = digest_on(&lab, node, APP).is_some();
        assert_eq!(is_there, outcomes[number]["status"] == "pulled");
    }
    outcomes
}

/// The kinds of all failed attempts.
fn failed(outcome: &Value) -> Vec<&str> {
    let attempts = outcome["attempts"].as_array().unwrap();
    let kinds = attempts.iter().map(|attempt| &attempt["failure"]["kind"]);
    kinds.filter_map(Value::as_str).collect()
}

#[test]
fn a_registry_that_limits_or_fails_for_a_while_is_asked_again() {
    // containerd asks again by itself after a 429, up to five times, and docker once: more than they get over unseen.
    for (fault, kind) in [
        ("429:14", "rate-limited"),
        ("500:3", "registry-unavailable"),
    ] {
        let outcomes = pull_with(fault, &["--retries", "9"], 0);
        let all: Vec<&str> = outcomes.iter().flat_map(failed).collect();
        assert!(!all.is_empty(), "{fault}: {outcomes:?}");
        assert!(all.iter().all(|failed| *failed == kind), "{fault}: {all:?}");
    }
}

#[test]
fn a_layer_that_breaks_off_is_fetched_again() {
    for fault in ["reset:2", "truncate:2"] {
        pull_with(fault, &["--retries", "9"], 0);
    }
}

#[test]
fn a_layer_with_other_bytes_is_corrupt_and_not_tried_for_ever() {
    for outcome in pull_with("corrupt", &["--retries", "9"], 1) {
        assert_eq!(outcome["failure"]["kind"], "corrupt", "{outcome}");
        assert_eq!(failed(&outcome), ["corrupt"; 3]);
    }
    for outcome in pull_with("corrupt:1", &["--retries", "9"], 0) {
        assert!(failed(&outcome).len() <= 1, "{outcome}");
    }
}

#[test]
fn a_layer_that_stalls_is_ended_and_fetched_again() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page.html").display().to_string();
    let options = ["--retries", "9", "--stall-timeout", "4s", "--report", &page];
    let outcomes = pull_with("stall:2", &options, 0);
    let all: Vec<&str> = outcomes.iter().flat_map(failed).collect();
    assert!(
        !all.is_empty() && all.iter().all(|kind| *kind == "stalled"),
        "{all:?}"
    );
    // Each is to be seen in the course of its node.
    let page = std::fs::read_to_string(page).unwrap();
    assert_eq!(page.matches(r#"["stall","#).count(), all.len());
}

#[test]
fn a_certificate_that_cannot_be_trusted_is_not_tried_twice() {
    for fault in ["expired", "wrong-ca"] {
        for outcome in pull_with(fault, &["--retries", "9"], 1) {
            assert_eq!(failed(&outcome), ["tls-trust"], "{fault}: {outcome}");
        }
    }
}

/// The runtime goes away in the middle of a pull and comes back.
#[test]
fn a_runtime_that_is_restarted_goes_on_with_the_next_attempt() {
    let lab = fleet();
    let nodes = good_nodes(&lab);
    succeed(&mut lab.command(&["registry", "rate", "64mbit"]));
    let arguments = [&TWO[..], &["--retries", "9", "--backoff", "1s..2s", APP]].concat();
    let running = start(&mut pull_command(&lab, &arguments), &lab.password());
    all_pulling(&lab, &nodes[..2]);
    std::thread::sleep(Duration::from_secs(2));
    for (node, service) in nodes.iter().zip(["dockerd", "containerd"]) {
        succeed(&mut lab.command(&["service", &node.name, service, "stop"]));
    }
    std::thread::sleep(Duration::from_secs(3));
    for (node, service) in nodes.iter().zip(["dockerd", "containerd"]) {
        succeed(&mut lab.command(&["service", &node.name, service, "start"]));
    }
    succeed(&mut lab.command(&["registry", "rate", "off"]));
    let document = end(running).expect(0).json();
    for (number, node) in nodes[..2].iter().enumerate() {
        let outcome = &document["nodes"][number]["outcomes"][0];
        let kinds = failed(outcome);
        assert!(!kinds.is_empty(), "{outcome}");
        assert!(
            kinds.iter().all(|kind| *kind == "runtime-down"),
            "{outcome}"
        );
        assert!(digest_on(&lab, node, APP).is_some());
        assert_eq!(left_on(&lab, node), "", "on {}", node.name);
    }
}

/// Room on the node's disk for images: where it is, and a size for it.
fn resize(lab: &Lab, node: &Node, size: &str) {
    let root = match node.runtime.as_str() {
        "docker" => "/var/lib/docker",
        _ => "/var/lib/containerd",
    };
    let option = format!("remount,size={size}");
    succeed(&mut lab.on(&node.name, &["mount", "-o", &option, root]));
}

#[test]
fn a_full_disk_is_not_tried_twice() {
    let lab = fleet();
    let nodes = good_nodes(&lab);
    for node in &nodes[..2] {
        resize(&lab, node, "60M");
    }
    let run = pull(&lab, &[&TWO[..], &["--retries", "9", APP]].concat());
    for node in &nodes[..2] {
        resize(&lab, node, "3G");
    }
    for node in run.expect(1).json()["nodes"].as_array().unwrap() {
        assert_eq!(failed(&node["outcomes"][0]), ["disk-full"], "{node}");
    }
    for node in &nodes[..2] {
        assert_eq!(left_on(&lab, node), "", "on {}", node.name);
    }
}

/// The power of nodes goes in the middle of a pull. What was in memory is gone; what was on disk is found and cleared away.
#[test]
fn a_node_that_reboots_starts_its_pull_anew() {
    let lab = fleet();
    let nodes = &good_nodes(&lab)[..3];
    // The third is reached by somebody who may use docker and is not root: what is his lies in /tmp, on the disk.
    let join = "grep -q '^docker:.*ops' /etc/group || sed -i 's/^docker:.*/&ops/' /etc/group";
    succeed(&mut lab.on(&nodes[2].name, &["sh", "-c", join]));
    let inventory = std::fs::read_to_string(lab.file("inventory.yml")).unwrap();
    let plain = lab.file("no-sudo.yml");
    std::fs::write(&plain, inventory.replace(", become: true", "")).unwrap();
    succeed(&mut lab.command(&["registry", "rate", "64mbit"]));
    let arguments = [
        "--registry-user",
        "ci",
        "--registry-password-stdin",
        "--limit",
        "node-1:node-2:node-3",
        "--keepalive",
        "1s",
        "--connect-timeout",
        "2s",
        "--retries",
        "50",
        "--backoff",
        "200ms..1s",
        "-o",
        "json",
        APP,
    ];
    let mut command = command_for(&lab, &plain, &[&["pull"], &arguments[..]].concat());
    let running = start(&mut command, &lab.password());
    all_pulling(&lab, nodes);
    for node in nodes {
        succeed(&mut lab.command(&["down", &node.name]));
    }
    for node in nodes {
        succeed(&mut lab.command(&["up", &node.name]));
    }
    succeed(&mut lab.command(&["registry", "rate", "off"]));
    let document = end(running).expect(0).json();
    assert_eq!(document["summary"]["pulled"], 3, "{document}");
    let secret = &lab.password()[..24];
    for (number, node) in nodes.iter().enumerate() {
        let outcomes = document["nodes"][number]["outcomes"].as_array().unwrap();
        assert_eq!(outcomes.len(), 1);
        let kinds = failed(&outcomes[0]);
        let lost = ["connection-lost", "unreachable", "runtime-down"];
        assert!(!kinds.is_empty(), "{outcomes:?}");
        assert!(kinds.iter().all(|kind| lost.contains(kind)), "{kinds:?}");
        assert!(digest_on(&lab, node, APP).is_some(), "on {}", node.name);
        assert_eq!(left_on(&lab, node), "", "on {}", node.name);
        let search = ["grep", "-rlF", secret, "/run/lab/disk", "/dev/shm", "/tmp"];
        let found = lab.on(&node.name, &search).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&found.stdout), "");
    }
}

/// What will not work is said before anything is pulled: a disk too small, a clock an hour behind.
#[test]
fn a_preflight_says_what_will_not_work_before_anything_is_pulled() {
    let lab = fleet();
    let nodes = good_nodes(&lab);
    for node in &nodes[..2] {
        resize(&lab, node, "60M");
    }
    let slow = "printf '#!/bin/sh\\nexec /usr/bin/date -d \"-1 hour\" \"$@\"\\n' >/usr/local/bin/date; chmod +x /usr/local/bin/date";
    succeed(&mut lab.on("node-4", &["sh", "-c", slow]));
    let log = lab.state.join("logs/registry.registry.log");
    let before = std::fs::read_to_string(&log).unwrap().len();
    let all = [
        "--limit",
        "node-1:node-2:node-3:node-4:node-5:node-6",
        "--preflight",
        APP,
    ];
    let ask = |arguments: &[&str], authority: Option<&str>| {
        let mut command = pull_command(&lab, &[&all[..], arguments].concat());
        if let Some(authority) = authority {
            command.env("SSL_CERT_FILE", authority);
        }
        end(start(&mut command, &lab.password()))
    };
    let authority = lab.file("ca.crt");
    let stopped = ask(&["--max-failures", "1"], Some(&authority)).expect(3);
    let kinds = |run: &Run| -> Vec<String> {
        let document = run.json();
        // By name: the inventory has them by runtime.
        let mut nodes = document["nodes"].as_array().unwrap().clone();
        nodes.sort_by_key(|node| node["name"].to_string());
        let outcome = |node: &Value| {
            let outcome = &node["outcomes"][0];
            let failure = &outcome["failure"];
            match outcome["status"].as_str().unwrap() {
                "failed" => [&failure["kind"], &failure["stage"]]
                    .map(|word| word.as_str().unwrap())
                    .join(" "),
                status => status.to_string(),
            }
        };
        nodes.iter().map(outcome).collect()
    };
    let small = "disk-full preflight";
    let late = "node-setup preflight";
    assert_eq!(
        kinds(&stopped),
        [small, small, "not-run", late, "not-run", "not-run"]
    );
    let text = std::fs::read_to_string(&log).unwrap();
    // containerd also looks for the manifest that does not exist among the blobs.
    let absent = "/blobs/sha256:0000000000000000";
    let pulled = |line: &str| line.contains("/blobs/") && !line.contains(absent);
    assert!(!text[before..].lines().any(pulled), "something was pulled");
    assert_eq!(
        stopped.stderr.matches("warning").count(),
        0,
        "{}",
        stopped.stderr
    );

    let warned = ask(&[], None).expect(1);
    assert!(
        warned
            .stderr
            .contains("/etc/docker/certs.d/registry.lab:5000/ca.crt"),
        "{}",
        warned.stderr
    );
    assert_eq!(warned.stderr.matches("warning").count(), 1);
    // Without sizes, the disk is found to be too small by the pull itself.
    let found = kinds(&warned);
    assert_eq!(found[2..], ["pulled", late, "pulled", "pulled"]);
    assert_eq!(found[..2], ["disk-full pull", "disk-full pull"]);
    for node in &nodes[..2] {
        resize(&lab, node, "3G");
    }
    succeed(&mut lab.on("node-4", &["rm", "/usr/local/bin/date"]));
    let whole = ask(&[], Some(&authority)).expect(0);
    let present = "present";
    assert_eq!(
        kinds(&whole),
        ["pulled", "pulled", present, "pulled", present, present]
    );
    for node in &nodes[..6] {
        assert_eq!(left_on(&lab, node), "", "on {}", node.name);
    }
}

/// Whether a node can resolve, reach and trust the registry is asked from there, by its own runtime: one has no name
/// server, one stands behind a dead proxy, one lacks the authority. The others pull, and nobody waits for the registry.
#[test]
fn a_nodes_own_way_to_the_registry_is_found_before_anything_is_pulled() {
    let lab = fleet();
    let nodes = "node-1:node-2:node-4:node-5:node-6";
    let on = |node: &str, script: &str| succeed(&mut lab.on(node, &["sh", "-c", script]));
    let restart = |node: &str, service: &str| {
        for action in ["stop", "start"] {
            succeed(&mut lab.command(&["service", node, service, action]));
        }
    };
    let certificates = "/etc/containerd/certs.d/registry.lab:5000";
    on(
        "node-1",
        "sed '/registry.lab/d' /etc/hosts >/tmp/hosts && cat /tmp/hosts >/etc/hosts",
    );
    on(
        "node-2",
        "echo HTTPS_PROXY=http://127.0.0.1:3128 >/etc/default/containerd",
    );
    restart("node-2", "containerd");
    on("node-4", &format!("mv {certificates} /etc/containerd/away"));
    let authority = lab.file("ca.crt");
    let run = |arguments: &[&str]| {
        let always = ["--limit", nodes, "--retries", "0"];
        let login = ["--registry-user", "ci", "--registry-password-stdin"];
        let (verb, rest) = arguments.split_first().unwrap();
        let arguments = [&[*verb], &always[..], &login, rest, &[SMALL]].concat();
        let mut command = command(&lab, &arguments);
        command.env("SSL_CERT_FILE", &authority);
        end(start(&mut command, &lab.password())).expect(1)
    };
    let probed = run(&["nodes", "--probe", "-o", "json"]).json();
    let obstacles: HashMap<&str, Vec<&str>> = probed["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| {
            let found = node["probe"]["obstacles"].as_array().unwrap();
            let kinds = found.iter().map(|one| one["kind"].as_str().unwrap());
            (node["name"].as_str().unwrap(), kinds.collect())
        })
        .collect();
    let expected = [
        ("node-1", vec!["registry-unavailable"]),
        ("node-2", vec!["registry-unavailable"]),
        ("node-4", vec!["tls-trust"]),
        ("node-5", vec![]),
        ("node-6", vec![]),
    ];
    assert_eq!(obstacles, HashMap::from(expected));

    let pulled = run(&["pull", "--preflight"]);
    for part in [
        "registry-unavailable (preflight, the node's name server) on 1 node: node-1\n",
        "registry-unavailable (preflight, the node's proxy) on 1 node: node-2\n",
        "tls-trust (preflight) on 1 node: node-4\n",
        "NOT READY: 2 of 5 nodes ok, 3 failed",
    ] {
        assert!(pulled.stdout.contains(part), "{part}\n{}", pulled.stdout);
    }
    assert!(
        !pulled.stderr.contains("status=paused"),
        "{}",
        pulled.stderr
    );
    on("node-1", "echo '10.77.0.2 registry.lab' >>/etc/hosts");
    on("node-2", "rm /etc/default/containerd");
    restart("node-2", "containerd");
    on("node-4", &format!("mv /etc/containerd/away {certificates}"));
}

/// Where in its visit each of five nodes loses its link, and what on the node waits there to be cut off.
const PHASES: [(&str, &str); 5] = [
    ("node-1", "connect"),
    ("node-5", "authenticate"),
    ("node-2", "probe"),
    ("node-7", "inspect"),
    ("node-9", "verify"),
];

/// Has the node stop for a while, once, in the phase where its link is to be cut.
fn wait_in(lab: &Lab, node: &str, phase: &str) {
    let script = r#"phase=$1
        rm -f /run/lab/reached /run/lab/once
        hold='[ -e /run/lab/reached ] || { : >/run/lab/reached; sleep 4; }'
        case $phase in
            authenticate)
                printf '#!/bin/sh\n%s\ncat /root/.ssh/authorized_keys\n' "$hold" >/usr/local/sbin/keys
                chmod 755 /usr/local/sbin/keys
                grep -q sbin/keys /etc/ssh/sshd_config || printf '%s\n' 'AuthorizedKeysFile none' \
                    'AuthorizedKeysCommand /usr/local/sbin/keys' 'AuthorizedKeysCommandUser root' >>/etc/ssh/sshd_config ;;
            probe)
                printf '#!/bin/sh\n%s\nexec /usr/local/bin/crictl "$@"\n' "$hold" >/usr/local/sbin/crictl
                chmod 755 /usr/local/sbin/crictl ;;
            inspect | verify)
                [ $phase = inspect ] || hold="[ ! -e /run/lab/once ] || { $hold; }; : >/run/lab/once"
                printf '#!/bin/sh\ncase $2 in inspect) %s ;; esac\nexec /usr/bin/docker "$@"\n' "$hold" >/usr/local/sbin/docker
                chmod 755 /usr/local/sbin/docker ;;
        esac"#;
    succeed(&mut lab.on(node, &["sh", "-c", script, "sh", phase]));
}

/// Cuts each link once its node has come to its phase; returns when all are cut.
fn cut_all(lab: &Lab) {
    let began = Instant::now();
    let mut left: Vec<&str> = PHASES[1..].iter().map(|(node, _)| *node).collect();
    while !left.is_empty() {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "{left:?} did not come to their phases"
        );
        left.retain(|node| {
            let reached = lab.on(node, &["test", "-e", "/run/lab/reached"]).status();
            if !reached.unwrap().success() {
                return true;
            }
            succeed(&mut lab.command(&["cut", node]));
            false
        });
    }
}

/// The link goes in each phase of a visit: for seconds, and the run comes to its end all the same; for good, and
/// what failed is told and nothing stays on the nodes.
#[test]
fn a_link_may_go_in_every_phase() {
    let lab = fleet();
    let nodes: Vec<Node> = good_nodes(&lab)
        .into_iter()
        .filter(|node| PHASES.iter().any(|(name, _)| *name == node.name))
        .collect();
    let names = PHASES.map(|(name, _)| name).join(":");
    let runs = [(false, "50"), (true, "3")].map(|(for_good, retries)| {
        for (node, phase) in PHASES {
            wait_in(&lab, node, phase);
        }
        for action in ["stop", "start"] {
            succeed(&mut lab.command(&["service", "node-5", "sshd", action]));
        }
        succeed(&mut lab.command(&["cut", "node-1"]));
        let arguments = [
            "--limit",
            &names,
            "--lease",
            "6s",
            "--keepalive",
            "1s",
            "--connect-timeout",
            "2s",
            "--backoff",
            "100ms..1s",
            "--retries",
            retries,
            SMALL,
        ];
        let running = start(&mut pull_command(&lab, &arguments), &lab.password());
        cut_all(&lab);
        if !for_good {
            std::thread::sleep(Duration::from_secs(5));
            for (node, _) in PHASES {
                succeed(&mut lab.command(&["mend", node]));
            }
        }
        let run = end(running);
        let began = Instant::now();
        let left = |node: &Node| left_on(&lab, node);
        while for_good
            && nodes.iter().any(|node| !left(node).is_empty())
            && began.elapsed() < Duration::from_secs(40)
        {
            std::thread::sleep(Duration::from_millis(500));
        }
        let remains: String = nodes.iter().map(left).collect();
        for (node, _) in PHASES {
            succeed(&mut lab.command(&["mend", node]));
        }
        for node in &nodes {
            forget_images(&lab, node);
        }
        (for_good, run, remains)
    });
    // Before anything is judged: the other tests have the same nodes.
    let script = "rm -f /usr/local/sbin/docker /usr/local/sbin/crictl /usr/local/sbin/keys
        sed -i '/^AuthorizedKeys/d' /etc/ssh/sshd_config";
    for node in &nodes {
        succeed(&mut lab.on(&node.name, &["sh", "-c", script]));
    }
    for action in ["stop", "start"] {
        succeed(&mut lab.command(&["service", "node-5", "sshd", action]));
    }
    for (for_good, run, remains) in runs {
        assert_eq!(remains, "", "for good: {for_good}");
        let document = run.expect(i32::from(for_good)).json();
        for node in document["nodes"].as_array().unwrap() {
            let outcomes = node["outcomes"].as_array().unwrap();
            assert_eq!(outcomes.len(), 1);
            let kinds = failed(&outcomes[0]);
            let lost = ["connection-lost", "unreachable"];
            assert!(!kinds.is_empty(), "{node}");
            assert!(kinds.iter().all(|kind| lost.contains(kind)), "{node}");
            // What went on by itself for longer than its lease is found again as an image that is there.
            let good = ["pulled", "present"].contains(&outcomes[0]["status"].as_str().unwrap());
            assert_eq!(good, !for_good, "{node}");
        }
    }
}

/// Login shells that are no friends: output without end, a line of 1 GB, a terminal's commands, lies in our protocol.
const HOSTILE: [(&str, &str); 5] = [
    ("node-1", "exec yes"),
    ("node-5", "head -c 1000000000 /dev/zero | tr '\\0' x"),
    (
        "node-7",
        "printf '\\033]0;owned\\007\\033[2J\\033[1;31mroot\\n'; printf '\\033[2J' >&2; exit 1",
    ),
    (
        "node-9",
        "printf 'prepull-%s hello\\nprepull-%s output 0 4000000000 0 0\\n' $nonce $nonce; exec yes",
    ),
    (
        "node-11",
        "printf 'prepull-%s hello\\n' $nonce; while :; do printf 'prepull-%s progress a:1:1\\n' $nonce; done",
    ),
];

#[test]
fn hostile_nodes_fail_alone_and_cost_little() {
    let lab = fleet();
    for (node, does) in HOSTILE {
        let shell = format!(
            "#!/bin/sh\nwhile IFS= read -r line && [ \"$line\" != '#go' ]; do :; done\nread -r one; read -r nonce\n{does}\n"
        );
        let script = "printf %s \"$1\" >/usr/local/bin/hostile; chmod 755 /usr/local/bin/hostile
            sed -i '/^root:/s|[^:]*$|/usr/local/bin/hostile|' /etc/passwd";
        succeed(&mut lab.on(node, &["sh", "-c", script, "sh", &shell]));
    }
    let arguments = [
        "--limit",
        "node-1:node-3:node-5:node-7:node-9:node-11",
        "--retries",
        "0",
        "--stall-timeout",
        "10s",
        "--pull-timeout",
        "10s",
        SMALL,
    ];
    let running = start(&mut pull_command(&lab, &arguments), &lab.password());
    let status = format!("/proc/{}/status", running.id());
    let mut most = 0;
    // It is this process: those before it became it.
    while let Ok(text) = std::fs::read_to_string(&status)
        && let Some(line) = text.lines().find(|line| line.starts_with("VmHWM:"))
    {
        most = line
            .split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap();
        std::thread::sleep(Duration::from_millis(50));
    }
    let run = end(running);
    for (node, _) in HOSTILE {
        let script = "sed -i '/^root:/s|[^:]*$|/bin/bash|' /etc/passwd; for process in /proc/[0-9]*; do
                case $(tr '\\0' ' ' <$process/cmdline 2>/dev/null) in *bin/[h]ostile*) kill -9 ${process#/proc/} ;; esac
            done; true";
        succeed(&mut lab.on(node, &["sh", "-c", script]));
    }
    let run = run.expect(1);
    assert!(most > 1_000 && most < 150_000, "{most} kB");
    assert!(!run.stdout.contains('\u{1b}') && !run.stderr.contains('\u{1b}'));
    for node in run.json()["nodes"].as_array().unwrap() {
        let is_friend = node["name"] == "node-3";
        let status = if is_friend { "pulled" } else { "failed" };
        assert_eq!(node["outcomes"][0]["status"], status, "{node}");
    }
}
