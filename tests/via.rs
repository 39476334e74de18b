//! Pulls through the SSH connections, on real nodes: docker, containerd, and a registry whose log says what it sent.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test file: a panic is a failed test

#[path = "support/registry_log.rs"]
mod registry_log;
#[path = "support/fleet.rs"]
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use registry_log::*;
use serde_json::Value;
use support::*;

/// docker and containerd, each as root and as a user with sudo.
static LAB: LazyLock<Mutex<Lab>> =
    LazyLock::new(|| Mutex::new(Lab::start(env!("CARGO_CRATE_NAME"), 4, &[])));

/// The lab, without images on its nodes or in prepull's cache and with everything in order.
fn lab() -> MutexGuard<'static, Lab> {
    let lab = LAB.lock().unwrap_or_else(PoisonError::into_inner);
    succeed(&mut lab.command(&["registry", "rate", "off"]));
    for node in lab.nodes() {
        reachable(&lab, &node, true);
        forwarding(&lab, &node, true);
        forget_images(&lab, &node);
    }
    let _ = fs::remove_dir_all(lab.state.join("home/.cache"));
    lab
}

/// Whether the node has a way to the registry.
fn reachable(lab: &Lab, node: &Node, is_wanted: bool) {
    let change = if is_wanted { "del" } else { "add" };
    let route = ["ip", "route", change, "unreachable", "10.77.0.2/32"];
    let changed = lab.on(&node.name, &route).output().unwrap();
    assert!(is_wanted || changed.status.success(), "{}", said(&changed));
}

/// Whether the node's sshd forwards ports. Connections to come are asked.
fn forwarding(lab: &Lab, node: &Node, is_wanted: bool) {
    let word = if is_wanted { "yes" } else { "no" };
    let script = format!(
        "grep -qx 'AllowTcpForwarding {word}' /etc/ssh/sshd_config && exit
        sed -i '/^AllowTcpForwarding/d' /etc/ssh/sshd_config
        sed -i '1i AllowTcpForwarding {word}' /etc/ssh/sshd_config
        kill -HUP $(cat /run/lab/sshd.pid)"
    );
    succeed(&mut lab.on(&node.name, &["sh", "-c", &script]));
    let began = Instant::now();
    while !lab.ssh(node, "true").output().unwrap().status.success() {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "sshd does not answer"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// What `docker save` or the lab's own files give as an archive on the operator's side.
fn archive(lab: &Lab) -> String {
    let nodes = lab.nodes();
    let docker = nodes.iter().find(|node| node.runtime == "docker").unwrap();
    pull(lab, &["--limit", &docker.name, APP]).expect(0);
    let file = lab.state.join("home/app.tar");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let saved = lab
        .on(&docker.name, &["docker", "save", APP])
        .output()
        .unwrap();
    assert!(saved.status.success(), "{}", said(&saved));
    fs::write(&file, saved.stdout).unwrap();
    forget_images(lab, docker);
    format!("docker-archive:{}", file.display())
}

/// What containerd exports: an image layout in a tar, and the same as a folder.
fn layouts(lab: &Lab) -> [String; 2] {
    let nodes = lab.nodes();
    let node = nodes.iter().find(|node| node.runtime != "docker").unwrap();
    pull(lab, &["--limit", &node.name, SMALL]).expect(0);
    let folder = lab.state.join("home/layout");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let export = ["ctr", "-n", "k8s.io", "images", "export", "-", SMALL];
    let exported = lab.on(&node.name, &export).output().unwrap();
    assert!(exported.status.success(), "{}", said(&exported));
    let file = lab.state.join("home/layout.tar");
    fs::write(&file, exported.stdout).unwrap();
    succeed(
        Command::new("tar")
            .arg("-xf")
            .arg(&file)
            .arg("-C")
            .arg(&folder),
    );
    forget_images(lab, node);
    [
        format!("oci-archive:{}", file.display()),
        format!("oci:{}", folder.display()),
    ]
}

#[test]
fn an_image_layout_reaches_nodes_without_a_registry() {
    let lab = lab();
    let ordinary = pull(&lab, &[SMALL]).expect(0).json();
    let nodes = lab.nodes();
    for node in &nodes {
        forget_images(&lab, node);
    }
    let layouts = layouts(&lab);
    let log = RegistryLog::now(&lab);
    for (from, nodes) in layouts.iter().zip([&nodes[..2], &nodes[2..]]) {
        let limit = format!("{},{}", nodes[0].name, nodes[1].name);
        let arguments = [
            "--via", "ssh-only", "--from", from, "--limit", &limit, SMALL,
        ];
        let document = pull(&lab, &arguments).expect(0).json();
        for node in nodes {
            let (outcome, before) = (outcome(&document, node), outcome(&ordinary, node));
            assert_eq!(outcome["via"], "ssh", "{outcome:#}");
            // docker's own store keeps no digest without a registry.
            if node.runtime != "docker" {
                assert_eq!(outcome["digest"], before["digest"], "{from}: {outcome:#}");
            }
            let names = names_on(&lab, node);
            assert!(
                names.iter().any(|name| name.starts_with(SMALL)),
                "{from}, {}: {names:?}",
                node.name
            );
            assert!(!log.heard_of(node), "{} asked the registry", node.name);
        }
    }
    assert_only_real_names(&lab, &nodes);
}

#[test]
fn docker_names_an_image_by_digest_with_the_registrys_word_and_without_its_layers() {
    let lab = lab();
    let nodes = lab.nodes();
    let docker: Vec<&Node> = nodes
        .iter()
        .filter(|node| node.runtime == "docker")
        .collect();
    let limit = format!("{},{}", docker[0].name, docker[1].name);
    let limits = ["--limit", &limit];
    let ordinary = pull(&lab, &[&limits[..], &[SMALL]].concat())
        .expect(0)
        .json();
    let digest = outcome(&ordinary, docker[0])["digest"]
        .as_str()
        .unwrap()
        .to_string();
    let pinned = format!("{}@{digest}", SMALL.rsplit_once(':').unwrap().0);
    let by_digest = |way| [&limits[..], &["--via", way, &pinned]].concat();
    for node in &docker {
        forget_images(&lab, node);
    }

    let log = RegistryLog::now(&lab);
    let document = via(&lab, &by_digest("ssh")).expect(0).json();
    let blobs = log.blobs();
    assert!(
        !blobs.is_empty() && blobs.values().all(|times| *times == 1),
        "{blobs:#?}"
    );
    for node in &docker {
        let outcome = outcome(&document, node);
        assert_eq!(
            (&outcome["status"], &outcome["via"]),
            (&"pulled".into(), &"ssh".into())
        );
        assert_eq!(outcome["digest"], digest.as_str(), "{outcome:#}");
        let note = outcome["via_note"].as_str().unwrap();
        assert!(note.contains("asked the registry"), "{note}");
        succeed(&mut lab.on(&node.name, &["docker", "image", "inspect", &pinned]));
        assert_eq!(left_on(&lab, node), "", "on {}", node.name);
    }
    assert_only_real_names(&lab, &nodes);

    for node in &docker {
        forget_images(&lab, node);
    }
    let document = via(&lab, &by_digest("ssh-only")).expect(1).json();
    assert_eq!(kinds(&document), only("node-setup"), "{document:#}");
}

/// An image in a file, on nodes that have no way to the registry.
#[test]
fn an_image_in_a_file_reaches_nodes_without_a_registry() {
    let lab = lab();
    let from = archive(&lab);
    let nodes = lab.nodes();
    for node in &nodes {
        reachable(&lab, node, false);
    }
    let log = RegistryLog::now(&lab);
    let document = pull(&lab, &["--via", "ssh-only", "--from", &from, APP])
        .expect(0)
        .json();
    assert_eq!(document["summary"]["pulled"], 4, "{document:#}");
    for node in &nodes {
        let outcome = outcome(&document, node);
        assert_eq!(outcome["via"], "ssh", "{outcome:#}");
        let names = names_on(&lab, node);
        assert!(
            names.iter().any(|name| name.starts_with(APP)),
            "{}: {names:?}",
            node.name
        );
        assert_eq!(left_on(&lab, node), "", "on {}", node.name);
        assert!(!log.heard_of(node), "{} asked the registry", node.name);
    }
    assert_only_real_names(&lab, &nodes);
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
    let document = via(&lab, &["--via", "ssh", APP]).expect(0).json();
    // Four layers and the configuration, for four nodes.
    let blobs = log.blobs();
    assert_eq!(blobs.len(), 5, "{blobs:#?}");
    assert!(blobs.values().all(|times| *times == 1), "{blobs:#?}");
    for (node, expected) in nodes.iter().zip(&expected) {
        let (outcome, before) = (outcome(&document, node), outcome(&ordinary, node));
        assert_eq!(outcome["status"], "pulled", "{outcome:#}");
        assert_eq!(outcome["via"], "ssh", "{outcome:#}");
        assert_eq!(outcome["via_note"], Value::Null, "{outcome:#}");
        for what in ["digest", "arrived"] {
            assert_eq!(outcome[what], before[what], "{what} on {}", node.name);
        }
        assert_eq!(&names_on(&lab, node), expected, "on {}", node.name);
        assert_eq!(left_on(&lab, node), "", "on {}", node.name);
    }

    // Another run has all of it in the cache.
    for node in &nodes {
        forget_images(&lab, node);
    }
    let log = RegistryLog::now(&lab);
    via(&lab, &["--via", "ssh-only", APP]).expect(0);
    assert_eq!(log.blobs(), BTreeMap::new());
    for node in &nodes {
        assert!(!log.heard_of(node), "{} asked the registry", node.name);
    }
    assert_only_real_names(&lab, &nodes);
}

#[test]
fn nodes_without_a_way_to_the_registry_hold_the_image_and_say_what_is_missing() {
    let lab = lab();
    let nodes = lab.nodes();
    for node in &nodes {
        reachable(&lab, node, false);
    }
    let run = via(&lab, &["--via", "ssh", APP]).expect(0);
    let document = run.json();
    for node in &nodes {
        let outcome = outcome(&document, node);
        assert_eq!(
            (&outcome["status"], &outcome["via"]),
            (&"pulled".into(), &"ssh".into())
        );
        let digest = digest_on(&lab, node, APP);
        assert_eq!(outcome["digest"].as_str(), digest.as_deref(), "{outcome:#}");
        if node.runtime == "docker" {
            // Its own store: a pod that names the tag finds it.
            assert_eq!(digest, None, "on {}", node.name);
            let note = outcome["via_note"].as_str().unwrap();
            assert!(note.contains("keeps no digest"), "{note}");
            let found = ["docker", "image", "inspect", APP];
            succeed(&mut lab.on(&node.name, &found));
        } else {
            assert_eq!(outcome["via_note"], Value::Null, "{outcome:#}");
            let (name, _) = APP.rsplit_once(':').unwrap();
            let by_digest = format!("{name}@{}", digest.unwrap());
            for name in [APP, &by_digest] {
                succeed(&mut lab.on(&node.name, &["crictl", "inspecti", "-o", "json", name]));
            }
        }
    }
    assert_only_real_names(&lab, &nodes);
}

#[test]
fn a_node_that_forwards_no_port_pulls_from_the_registry_and_says_so() {
    let lab = lab();
    let nodes = lab.nodes();
    for node in &nodes[..2] {
        forwarding(&lab, node, false);
    }
    let strict = via(
        &lab,
        &["--via", "ssh-only", "--limit", "node-1:node-2", SMALL],
    );
    let document = strict.expect(1).json();
    assert_eq!(kinds(&document), only("node-setup"), "{document:#}");

    let document = via(&lab, &["--via", "ssh", SMALL]).expect(0).json();
    for (number, node) in nodes.iter().enumerate() {
        let outcome = outcome(&document, node);
        assert_eq!(outcome["status"], "pulled", "{outcome:#}");
        let expected = if number < 2 { "registry" } else { "ssh" };
        assert_eq!(outcome["via"], expected, "{outcome:#}");
        if number < 2 {
            let note = outcome["via_note"].as_str().unwrap();
            assert!(note.contains("AllowTcpForwarding"), "{note}");
        }
    }
    assert_only_real_names(&lab, &nodes);
}

/// Waits until both nodes pull, slowly.
fn pulling_slowly(lab: &Lab, nodes: &[Node], more: &[&str]) -> std::process::Child {
    let arguments = [
        "--via",
        "ssh",
        "--upload-limit",
        "8MB",
        "--limit",
        "node-1:node-2",
        APP,
    ];
    let running = start(
        &mut via_command(lab, &[&arguments, more].concat()),
        &lab.password(),
    );
    all_pulling(lab, nodes);
    running
}

#[test]
fn a_lost_connection_is_taken_up_again_and_leaves_no_local_name() {
    let lab = lab();
    let nodes = &lab.nodes()[..2];
    let running = pulling_slowly(&lab, nodes, &["--backoff", "1s..2s"]);
    std::thread::sleep(Duration::from_secs(2));
    for node in nodes {
        let script = "for process in /proc/[0-9]*; do
                case $(tr '\\0' ' ' <$process/cmdline 2>/dev/null) in 'sshd: root'*) kill -9 ${process#/proc/} ;; esac
            done; true";
        succeed(&mut lab.on(&node.name, &["sh", "-c", script]));
    }
    let document = end(running).expect(0).json();
    for node in nodes {
        let outcome = outcome(&document, node);
        assert_eq!(
            (&outcome["status"], &outcome["via"]),
            (&"pulled".into(), &"ssh".into())
        );
        let first = &outcome["attempts"][0]["failure"];
        assert_eq!(first["kind"], "connection-lost", "{outcome:#}");
        assert_eq!(left_on(&lab, node), "", "on {}", node.name);
    }
    assert_only_real_names(&lab, nodes);
}

#[test]
fn a_cancelled_run_leaves_nothing_on_its_nodes() {
    let lab = lab();
    let nodes = &lab.nodes()[..2];
    let running = pulling_slowly(&lab, nodes, &[]);
    let process = running.id().to_string();
    succeed(Command::new("kill").args(["-s", "INT", &process]));
    end(running).expect(130);
    for node in nodes {
        assert_eq!(left_on(&lab, node), "", "on {}", node.name);
        assert_eq!(
            names_on(&lab, node),
            Vec::<String>::new(),
            "on {}",
            node.name
        );
    }
}

#[test]
fn a_killed_run_leaves_no_local_name_and_is_resumed_through_ssh() {
    let lab = lab();
    let nodes = &lab.nodes()[..2];
    let state = tempfile::tempdir().unwrap();
    let arguments = [
        "--via",
        "ssh",
        "--upload-limit",
        "8MB",
        "--limit",
        "node-1:node-2",
        APP,
    ];
    let mut command = via_command(&lab, &arguments);
    let mut running = start(command.env("XDG_STATE_HOME", state.path()), &lab.password());
    all_pulling(&lab, nodes);
    running.kill().unwrap();
    running.wait().unwrap();
    let began = Instant::now();
    loop {
        let left: Vec<String> = nodes
            .iter()
            .flat_map(|node| [names_on(&lab, node).concat(), left_on(&lab, node)])
            .filter(|left| !left.is_empty())
            .collect();
        if left.is_empty() {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{left:?}");
        std::thread::sleep(Duration::from_millis(200));
    }

    let words = [
        env!("CARGO_BIN_EXE_prepull"),
        "pull",
        "--resume",
        "last",
        "-o",
        "json",
    ];
    let mut command = lab.operator(&words);
    command
        .env("XDG_STATE_HOME", state.path())
        .env("HOME", lab.state.join("home"))
        .env("SSL_CERT_FILE", lab.file("ca.crt"))
        .env_remove("SSH_AUTH_SOCK");
    let document = end(start(&mut command, &lab.password())).expect(0).json();
    for node in nodes {
        let outcome = outcome(&document, node);
        assert_eq!(
            (&outcome["status"], &outcome["via"]),
            (&"pulled".into(), &"ssh".into())
        );
    }
    assert_only_real_names(&lab, nodes);
}

/// What has arrived on the node's network, in bytes.
fn received(lab: &Lab, node: &Node) -> u64 {
    let counters = succeed(&mut lab.on(&node.name, &["cat", "/proc/net/dev"]));
    let (_, counters) = counters.split_once("eth0:").unwrap();
    counters.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn nodes_share_the_upload_limit() {
    let lab = lab();
    let nodes = &lab.nodes()[..2];
    let all = || [received(&lab, &nodes[0]), received(&lab, &nodes[1])];
    let before = all();
    let running = pulling_slowly(&lab, nodes, &[]);
    // Both have asked for layers, and both still do when it is counted.
    let since = |from: [u64; 2], least: [u64; 2]| {
        let began = Instant::now();
        loop {
            let now = all();
            let more = [now[0] - from[0], now[1] - from[1]];
            if more[0] >= least[0] && more[1] >= least[1] || more[0] + more[1] >= 100_000_000 {
                return (now, more);
            }
            assert!(began.elapsed() < Duration::from_secs(120), "{more:?}");
            std::thread::sleep(Duration::from_millis(200));
        }
    };
    let (both, _) = since(before, [4_000_000; 2]);
    let (_, more) = since(both, [12_000_000; 2]);
    let process = running.id().to_string();
    succeed(Command::new("kill").args(["-s", "INT", &process]));
    end(running).expect(130);
    let [less, most] = [more[0].min(more[1]), more[0].max(more[1])];
    assert!(most < less + less / 3, "unequal shares: {more:?}");
}
