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
