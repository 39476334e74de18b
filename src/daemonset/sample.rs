//! A DaemonSet for tests.

use crate::model::{DaemonSetSpec, NodeChoice, PodMode};

/// Two images, in the namespace `warm`.
pub(super) fn spec(mode: PodMode) -> DaemonSetSpec {
    DaemonSetSpec {
        name: "images".into(),
        namespace: "warm".into(),
        images: vec![
            "reg.example/team/app:v1".parse().unwrap(),
            "nginx".parse().unwrap(),
        ],
        always_pull: false,
        mode,
        no_op_image: "docker.io/library/busybox:musl".into(),
        pause_image: "registry.k8s.io/pause:3.10".into(),
        tolerations: Vec::new(),
        pull_secrets: Vec::new(),
        priority_class: None,
        nodes: NodeChoice::default(),
    }
}
