//! Inventories as an operator has them: the examples, sources together, and a fleet of ten thousand.

#![allow(clippy::unwrap_used)] // a test file: a panic is a failed test

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use prepull::inventory::{InventoryError, NodeSettings, Source, built_in, load};
use prepull::model::{Fleet, Node, RuntimeKind};

fn fleet_of(sources: &[Source]) -> Result<Fleet, InventoryError> {
    load(sources, &NodeSettings::default(), &built_in("me"))
}

fn find<'a>(nodes: &'a [Node], name: &str) -> &'a Node {
    nodes.iter().find(|node| node.name == name).unwrap()
}

fn jump(node: &Node) -> Vec<String> {
    node.jump.iter().map(ToString::to_string).collect()
}

#[test]
fn every_example_means_what_its_comments_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("inventory");
    let mut seen = Vec::new();
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        let fleet = fleet_of(&[Source::File(path)]).unwrap_or_else(|error| panic!("{error}"));
        let nodes = fleet.nodes();
        match name.as_str() {
            "minimal.yml" => {
                assert_eq!(nodes.len(), 2);
                assert_eq!((nodes[0].user.as_str(), nodes[0].port), ("me", 22));
            }
            "groups.yml" => groups(nodes),
            "bastion.yml" => bastion(nodes, &folder),
            "mixed-runtimes.yml" => mixed_runtimes(nodes),
            "ansible.ini" => ansible(nodes),
            other => panic!("inventory/{other} has no assertion here"),
        }
        seen.push(name);
    }
    assert_eq!(seen.len(), 5, "{seen:?}");
}

fn ansible(nodes: &[Node]) {
    // bastion, worker01 to worker16, gpu-a to gpu-d, builder1, builder5 and builder9.
    assert_eq!(nodes.len(), 1 + 16 + 4 + 3);
    let bastion = find(nodes, "bastion");
    assert_eq!(
        (bastion.address.as_str(), bastion.port),
        ("192.0.2.1", 2222)
    );
    assert!(bastion.jump.is_empty() && !bastion.become_root);
    let gpu = find(nodes, "gpu-b.example");
    assert_eq!((gpu.user.as_str(), gpu.become_root), ("ops", true));
    assert_eq!(gpu.runtime, Some(RuntimeKind::Crictl));
    assert_eq!(jump(gpu), ["ops@192.0.2.1:2222"]);
    let builder = find(nodes, "builder5.example");
    assert_eq!(builder.runtime, Some(RuntimeKind::Docker));
    assert_eq!(builder.endpoint.as_deref(), Some("unix:///run/docker.sock"));
}

fn groups(nodes: &[Node]) {
    assert_eq!(nodes.len(), 20);
    assert_eq!(nodes[0].name, "gpu01.dc1.example");
    assert_eq!(jump(&nodes[0]), ["ops@bastion.example:22"]);
    assert!(
        nodes
            .iter()
            .all(|node| node.user == "ops" && node.become_root)
    );
    assert!(
        nodes
            .iter()
            .all(|node| node.identities[0].ends_with(".ssh/fleet_ed25519"))
    );
    let last = find(nodes, "gpu17");
    assert_eq!((last.address.as_str(), last.port), ("10.0.7.17", 2222));
    assert_eq!(last.labels["pool"], "gpu");
    assert_eq!(last.runtime, Some(RuntimeKind::Crictl));
    assert_eq!(find(nodes, "10.0.8.10").runtime, Some(RuntimeKind::Docker));
    assert_eq!(nodes[19].name, "edge-1.example");
}

fn bastion(nodes: &[Node], folder: &Path) {
    assert_eq!(nodes.len(), 10);
    assert_eq!(
        jump(&nodes[0]),
        ["jumper@gate.example:2022", "ops@inner.site:22"]
    );
    assert_eq!(nodes[0].identities[1], folder.join("keys/old_site_rsa"));
    assert_eq!(find(nodes, "2001:db8::17").port, 2222);
    let second = find(nodes, "node1.rack2.site");
    assert_eq!(jump(second), ["ops@gate.example:22", "ops@rack2.site:22"]);
    assert_eq!(second.labels["rack"], "2");
    assert!(find(nodes, "front").jump.is_empty());
}

fn mixed_runtimes(nodes: &[Node]) {
    assert_eq!(nodes.len(), 9);
    let both = find(nodes, "k8s-worker-03");
    assert_eq!(both.groups, ["containerd", "arm"]);
    assert_eq!(both.labels["arch"], "arm64");
    assert_eq!(
        both.endpoint.as_deref(),
        Some("unix:///run/containerd/containerd.sock")
    );
    assert_eq!(find(nodes, "build-9").runtime, Some(RuntimeKind::Docker));
    let legacy = find(nodes, "legacy.example");
    assert_eq!(
        (legacy.runtime, legacy.user.as_str(), legacy.port),
        (None, "admin", 2200)
    );
}

#[test]
fn files_and_expressions_together_are_one_fleet_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| -> PathBuf {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let file = write("fleet.yml", "nodes: [b, {name: a, port: 2222}]\n");
    let list = write("hosts.txt", "# more\nd\nc # and one\n");
    let sources = [
        Source::Hosts(format!("ops@a,^{},e", list.display())),
        Source::File(file),
    ];
    let strongest = NodeSettings {
        become_root: Some(true),
        ..NodeSettings::default()
    };
    let fleet = load(&sources, &strongest, &built_in("me")).unwrap();
    let seen: Vec<_> = fleet
        .nodes()
        .iter()
        .map(|node| (node.name.as_str(), node.user.as_str(), node.port))
        .collect();
    assert_eq!(
        seen,
        [
            ("a", "ops", 2222),
            ("d", "me", 22),
            ("c", "me", 22),
            ("e", "me", 22),
            ("b", "me", 22)
        ]
    );
    assert!(fleet.nodes().iter().all(|node| node.become_root));
}

#[test]
fn faults_of_sources_name_the_source() {
    for (source, part) in [
        (
            Source::File("/no/such.yml".into()),
            "/no/such.yml: cannot open",
        ),
        (
            Source::File(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock").into()),
            "keep one format a file",
        ),
        (
            Source::Hosts("a,b[".into()),
            "--hosts:1:4: a [ without its ]",
        ),
        (
            Source::Hosts(String::new()),
            "--hosts:1:1: a host expression is missing",
        ),
        (
            Source::Hosts("^/no/such.txt".into()),
            "/no/such.txt: cannot open",
        ),
    ] {
        let shown = fleet_of(&[source]).unwrap_err().to_string();
        assert!(shown.contains(part), "{shown}");
    }
    let nothing = fleet_of(&[]).unwrap_err().to_string();
    assert!(nothing.contains("the fleet is empty"), "{nothing}");
}

/// The budget in a release build is 150 ms; an unoptimised one, on a machine that does other things
/// too, gets much more: what this is to catch is work that grows with the square of the fleet.
/// What this thread has cost: time on a clock would tell how busy the machine is.
fn cpu_milliseconds() -> i64 {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
    (usage.user_time() + usage.system_time()).num_milliseconds()
}

#[test]
fn ten_thousand_nodes_resolve_quickly() {
    let mut text =
        String::from("defaults: {user: ops, identity: ~/.ssh/id, labels: {a: b}}\ngroups:\n");
    for group in 0..100 {
        text.push_str(&format!(
            "  g{group}:\n    labels: {{pool: p{group}}}\n    nodes:\n"
        ));
        for node in 0..100 {
            text.push_str(&format!(
                "      - {{name: node-{group}-{node}, address: 10.{group}.0.{node}, port: 2222}}\n"
            ));
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("big.yml");
    fs::write(&path, text).unwrap();
    let before = cpu_milliseconds();
    let fleet = fleet_of(&[Source::File(path)]).unwrap();
    let spent = cpu_milliseconds() - before;
    assert_eq!(fleet.nodes().len(), 10_000);
    let budget = if cfg!(debug_assertions) { 8_000 } else { 150 };
    assert!(spent < budget, "{spent} ms");
}
