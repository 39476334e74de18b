//! Distributions of Kubernetes that bring a containerd of their own, and a docker host beside a kubelet: what is found with
//! no option, and what counts as pulled there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test file: a panic is a failed test

#[path = "support/schemas.rs"]
#[allow(dead_code)]
mod schemas;
#[path = "support/fleet.rs"]
mod support;

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use support::*;

static LAB: LazyLock<Mutex<Lab>> = LazyLock::new(|| {
    let layouts = ["--k3s", "--rke2", "--k0s", "--microk8s"];
    Mutex::new(Lab::start("layouts", 1, &layouts))
});

fn lab() -> MutexGuard<'static, Lab> {
    LAB.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A node's name, its client, its socket, the folder of its containerd, and where crictl is that PATH does not show.
const LAYOUTS: [[&str; 5]; 4] = [
    [
        "node-k3s",
        "k3s crictl",
        "/run/k3s/containerd/containerd.sock",
        "/var/lib/rancher/k3s/agent/containerd",
        "/usr/libexec/lab/crictl",
    ],
    [
        "node-rke2",
        "crictl",
        "/run/k3s/containerd/containerd.sock",
        "/var/lib/rancher/rke2/agent/containerd",
        "/var/lib/rancher/rke2/bin/crictl",
    ],
    [
        "node-k0s",
        "k0s ctr",
        "/run/k0s/containerd.sock",
        "/var/lib/k0s/containerd",
        "/usr/libexec/lab/crictl",
    ],
    [
        "node-microk8s",
        "microk8s ctr",
        "/var/snap/microk8s/common/run/containerd.sock",
        "/var/snap/microk8s/common/var/lib/containerd",
        "/usr/libexec/lab/crictl",
    ],
];

const ALL: &str = "node-k3s,node-rke2,node-k0s,node-microk8s";

#[test]
fn the_probe_finds_each_distributions_own_client_and_socket() {
    let lab = lab();
    let found = prepull(&lab, &["nodes", "--probe", "-o", "json", "--limit", ALL])
        .expect(0)
        .json();
    schemas::validate("nodes-1.json", &[found.to_string()]);
    for (node, [name, client, socket, root, _]) in
        found["nodes"].as_array().unwrap().iter().zip(LAYOUTS)
    {
        let probe = &node["probe"];
        assert_eq!(node["name"], name);
        assert_eq!(probe["client"], client, "{name}: {probe}");
        assert_eq!(probe["socket"], socket, "{name}: {probe}");
        assert_eq!(probe["endpoint"], format!("unix://{socket}"));
        assert_eq!(probe["root"], root, "{name}: {probe}");
        let runtime = probe["runtime"].as_str().unwrap();
        assert!(runtime.starts_with("containerd 1."), "{name}: {runtime}");
        let namespace = client.ends_with("ctr");
        assert_eq!(runtime.ends_with(", namespace k8s.io"), namespace, "{name}");
    }
    let table = prepull(&lab, &["nodes", "--probe", "-o", "wide", "--limit", ALL]).expect(0);
    for [_, client, socket, ..] in LAYOUTS {
        assert!(table.stdout.contains(client), "{}", table.stdout);
        assert!(table.stdout.contains(socket), "{}", table.stdout);
    }
}

#[test]
fn an_image_is_pulled_with_a_login_and_the_kubelet_sees_it() {
    let lab = lab();
    let pulled = pull(&lab, &["--limit", ALL, SMALL]).expect(0).json();
    for (node, [name, _, socket, _, crictl]) in
        pulled["nodes"].as_array().unwrap().iter().zip(LAYOUTS)
    {
        let outcome = &node["outcomes"][0];
        assert_eq!(outcome["status"], "pulled", "{name}: {outcome}");
        // Bytes are counted in the store of the distribution's own containerd.
        assert!(outcome["arrived"].as_u64().unwrap() > 100_000, "{outcome}");
        let endpoint = format!("CONTAINER_RUNTIME_ENDPOINT=unix://{socket}");
        let asked = ["env", &endpoint, crictl, "inspecti", "-o", "json", SMALL];
        let seen: Value = serde_json::from_str(&succeed(&mut lab.on(name, &asked))).unwrap();
        let digest = outcome["digest"].as_str().unwrap();
        let digests = seen["status"]["repoDigests"].to_string();
        assert!(digests.contains(digest), "{name}: {digests}");
    }
    let again = pull(&lab, &["--limit", ALL, SMALL]).expect(0).json();
    for node in again["nodes"].as_array().unwrap() {
        assert_eq!(node["outcomes"][0]["status"], "present", "{again}");
    }
    for node in lab.nodes() {
        assert_eq!(left_on(&lab, &node), "", "on {}", node.name);
    }
}

/// docker and containerd 1.6 have no pins; where ctr is the only client, nothing on the node says that, so the labels stay
/// until they are released.
#[test]
fn images_are_kept_where_that_can_be_and_released_from_all_their_names() {
    const KEPT: &str = "registry.lab:5000/kept/app:v1";
    let lab = lab();
    succeed(&mut lab.command(&["push", KEPT, "100k"]));
    let labels = |node: &str, ctr: &[&str]| {
        let names = succeed(&mut lab.on(node, &[ctr, &["-n", "k8s.io", "images", "ls"]].concat()));
        let names = names.lines().filter(|line| line.contains("/kept/app"));
        names.map(String::from).collect::<Vec<_>>()
    };
    let k0s = || labels("node-k0s", &["k0s", "ctr"]);
    // Over by the time that the nodes with crictl have asked the CRI a few times whether the pin counts.
    let pulled = pull(&lab, &["--keep-for", "1s", KEPT]).expect(0).json();
    schemas::validate("document-1.json", &[pulled.to_string()]);
    let kept: Vec<(&str, &str, &str)> = (pulled["nodes"].as_array().unwrap().iter())
        .map(|node| {
            let text = |value: &str| node["outcomes"][0][value].as_str().unwrap();
            (
                node["name"].as_str().unwrap(),
                text("kept"),
                text("kept_note"),
            )
        })
        .collect();
    for (name, state, note) in &kept {
        let (expected, why) = match *name {
            "node-1" => (
                "not-pinned",
                "docker has no pins; no kubelet runs on the node",
            ),
            "node-k0s" | "node-microk8s" => ("unconfirmed", "without crictl"),
            _ => (
                "not-pinned",
                "ignores pins, which containerd 2 knows; no kubelet",
            ),
        };
        assert_eq!(*state, expected, "{name}: {note}");
        assert!(note.contains(why), "{name}: {note}");
    }
    assert_eq!(kept.len(), 5, "{kept:?}");
    assert!(
        kept.iter()
            .any(|(name, _, note)| *name == "node-k3s" && note.starts_with("containerd 1.6"))
    );

    let pinned = k0s();
    assert_eq!(pinned.len(), 2, "by tag and by digest: {pinned:?}");
    for name in &pinned {
        assert!(name.contains("io.cri-containerd.pinned=pinned"), "{name}");
        assert!(name.contains("prepull.keep-until=20"), "{name}");
    }
    let k3s = labels("node-k3s", &["k3s", "ctr"]);
    assert_eq!(k3s.len(), 2, "{k3s:?}");
    assert!(!k3s.concat().contains("pinned"), "{k3s:?}");

    // A pin of something else is neither listed nor released.
    let foreign = "registry.lab:5000/kept/app:other";
    let ctr = ["k0s", "ctr", "-n", "k8s.io", "images"];
    succeed(&mut lab.on("node-k0s", &[&ctr[..], &["tag", KEPT, foreign]].concat()));
    // containerd 1.6 copies labels to a new name.
    let pin = [
        "label",
        foreign,
        "io.cri-containerd.pinned=pinned",
        "prepull.keep-until=",
    ];
    succeed(&mut lab.on("node-k0s", &[&ctr[..], &pin].concat()));

    let keep = |mode: &str, more: &[&str]| {
        let words = [
            &[
                "keep",
                mode,
                "-o",
                "json",
                "--limit",
                "node-1,node-k0s,node-microk8s",
            ],
            more,
        ]
        .concat();
        let run = end(start(&mut command(&lab, &words), "")).expect(0).json();
        let nodes = run["nodes"].as_array().unwrap().iter();
        let printed = nodes.map(|node| node["outcomes"][0]["stdout"].as_str().unwrap().to_string());
        printed.collect::<Vec<_>>()
    };
    let check = |code: i32| {
        let checked = end(start(&mut command(&lab, &["check", KEPT]), ""));
        checked.expect(code).stdout
    };
    let listed = keep("list", &[]);
    assert_eq!(listed[0], "", "docker");
    for node in &listed[1..] {
        assert_eq!(node.lines().count(), 2, "{node}");
        assert!(node.contains(&format!("{KEPT} until 20")), "{node}");
        assert!(!node.contains("other"), "{node}");
    }
    let reminded = check(0);
    assert!(
        reminded.contains("STILL KEPT on node-k0s, node-microk8s: images of the run"),
        "{reminded}"
    );
    let document = end(start(
        &mut command(&lab, &["check", "-o", "json", KEPT]),
        "",
    ))
    .expect(0)
    .json();
    schemas::validate("document-1.json", &[document.to_string()]);
    assert_eq!(document["keep_overdue"][0]["run"], pulled["run"]);

    assert_eq!(keep("release", &[SMALL]), ["", "", ""], "another image");
    let released = keep("release", &[KEPT]);
    assert_eq!(released[1].matches("released ").count(), 2, "{released:?}");
    for name in k0s() {
        assert!(!name.contains("keep-until"), "{name}");
        assert_eq!(
            name.contains("pinned=pinned"),
            name.starts_with(foreign),
            "{name}"
        );
    }
    assert_eq!(keep("list", &[]), ["", "", ""]);
    assert!(!check(0).contains("STILL KEPT"));
    succeed(&mut lab.on("node-k0s", &[&ctr[..], &["rm", foreign]].concat()));
}

#[test]
fn an_image_of_docker_beside_a_kubelet_is_no_success_unless_docker_is_its_runtime() {
    let lab = lab();
    let docker = || pull(&lab, &["--limit", "node-1", SMALL]);
    let kubelet = pretend(&lab, "node-1", "kubelet");
    let refused = docker().expect(1);
    assert_eq!(kinds(&refused.json()), only("node-setup"));
    let said = refused.json()["nodes"][0]["outcomes"][0]["failure"]["detail"].clone();
    let said = said.as_str().unwrap();
    assert!(
        said.starts_with("the kubelet on this node does not see images of docker"),
        "{said}"
    );
    let cri_dockerd = pretend(&lab, "node-1", "cri-dockerd");
    docker().expect(0);
    for process in [&kubelet, &cri_dockerd] {
        succeed(&mut lab.on("node-1", &["kill", process]));
    }
    docker().expect(0);
}
