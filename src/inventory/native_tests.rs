//! Tests of prepull's own inventory format: what it means, and what is said when it is wrong.

use proptest::prelude::*;

use crate::inventory::{NodeSettings, Selection, parse_with, parse_yaml, resolve};
use crate::model::{Fleet, Node, RuntimeKind};

use super::*;
use crate::inventory::built_in;

fn origin() -> Origin {
    Origin {
        name: "fleet.yml".into(),
        folder: "/etc/prepull".into(),
        home: Some("/home/ops".into()),
    }
}

fn try_fleet(text: &str) -> Result<Fleet, InventoryError> {
    let draft = parse_with(text, &origin())?;
    let nothing = NodeSettings::default();
    resolve(
        &[draft],
        &Selection::default(),
        &nothing,
        &built_in("nobody"),
    )
}

fn fleet(text: &str) -> Vec<Node> {
    try_fleet(text)
        .unwrap_or_else(|error| panic!("{error}"))
        .nodes()
        .to_vec()
}

fn refused(text: &str) -> String {
    try_fleet(text).expect_err(text).to_string()
}

const FLEET: &str = "
nodes:
  - edge-1.example
  - root@edge-2.example:2200
defaults:
  user: ops
  identity: ~/.ssh/fleet_ed25519
  become: true
groups:
  gpu:
    runtime: crictl
    runtime_endpoint: /run/crio/crio.sock
    jump: jumper@bastion.example:2022,inner
    labels: {pool: gpu, cuda: 12.10}
    nodes:
      - gpu[01-03].dc1.example
      - name: gpu17
        address: 10.0.7.17
        port: 2222
        become: no
        identity: [keys/gpu, /abs/key]
        labels: {pool: special}
  batch:
    runtime: docker
    jump: none
    nodes: [10.0.8.10, 10.0.8.11, gpu17]
";

#[test]
fn levels_groups_and_order_are_those_of_the_file() {
    let nodes = fleet(FLEET);
    let names: Vec<_> = nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "edge-1.example",
            "edge-2.example",
            "gpu01.dc1.example",
            "gpu02.dc1.example",
            "gpu03.dc1.example",
            "gpu17",
            "10.0.8.10",
            "10.0.8.11"
        ]
    );
    let edge = &nodes[1];
    assert_eq!(
        (edge.user.as_str(), edge.port, edge.become_root),
        ("root", 2200, true)
    );
    assert_eq!(
        edge.identities,
        [PathBuf::from("/home/ops/.ssh/fleet_ed25519")]
    );
    assert!(edge.jump.is_empty() && edge.groups.is_empty() && edge.runtime.is_none());

    let gpu = &nodes[2];
    assert_eq!((gpu.user.as_str(), gpu.port), ("ops", 22));
    assert_eq!(gpu.runtime, Some(RuntimeKind::Crictl));
    assert_eq!(gpu.endpoint.as_deref(), Some("unix:///run/crio/crio.sock"));
    let jump: Vec<_> = gpu.jump.iter().map(ToString::to_string).collect();
    assert_eq!(jump, ["jumper@bastion.example:2022", "ops@inner:22"]);
    assert_eq!(gpu.labels["cuda"], "12.10");

    let both = &nodes[5];
    assert_eq!(
        (both.address.as_str(), both.port, both.become_root),
        ("10.0.7.17", 2222, false)
    );
    assert_eq!(both.groups, ["gpu", "batch"]);
    assert_eq!(
        both.runtime,
        Some(RuntimeKind::Crictl),
        "the nearest group wins"
    );
    assert_eq!(both.jump.len(), 2);
    assert_eq!(both.labels["pool"], "special");
    assert_eq!(both.labels["cuda"], "12.10");
    assert_eq!(
        both.identities,
        [
            PathBuf::from("/etc/prepull/keys/gpu"),
            PathBuf::from("/abs/key")
        ]
    );
    assert!(nodes[6].jump.is_empty());
}

#[test]
fn a_jump_may_be_a_list_and_none_undoes_the_groups() {
    let nodes = fleet(
        "groups:\n  g:\n    jump: [a, ops@b:23]\n    nodes:\n      - x\n      - {name: y, jump: none}\n      - {name: z, jump: []}\n",
    );
    assert_eq!(nodes[0].jump.len(), 2);
    assert_eq!(nodes[0].jump[1].to_string(), "ops@b:23");
    assert!(nodes[1].jump.is_empty() && nodes[2].jump.is_empty());
}

#[test]
fn every_mistake_names_file_line_column_and_what_would_be_right() {
    for (text, start, part) in [
        (
            "nodes:\n  - a\nusr: x\n",
            "fleet.yml:3:1: ",
            "unknown key \"usr\"",
        ),
        (
            "defaults:\n  usr: x\nnodes: [a]\n",
            "fleet.yml:2:3: ",
            "did you mean \"user\"?",
        ),
        (
            "groups:\n  g:\n    node: [a]\n",
            "fleet.yml:3:5: ",
            "did you mean \"nodes\"?",
        ),
        (
            "nodes:\n  - name: a\n    adress: b\n",
            "fleet.yml:3:5: ",
            "did you mean \"address\"?",
        ),
        (
            "all:\n  hosts:\n    a:\n",
            "fleet.yml:1:1: ",
            "known here: defaults, groups, nodes",
        ),
        (
            "nodes:\n  - gpu[01-x]\n",
            "fleet.yml:2:9: ",
            "this is no range",
        ),
        ("nodes: [a, 'b[2-1]']\n", "fleet.yml:1:15: ", "write [1-2]"),
        ("nodes:\n  - a:99999\n", "fleet.yml:2:7: ", "1 to 65535"),
        (
            "nodes:\n  - {name: a, port: 22.5}\n",
            "fleet.yml:2:21: ",
            "this is no port",
        ),
        (
            "nodes:\n  - {name: a, port: 0x16}\n",
            "fleet.yml:2:21: ",
            "this is no port",
        ),
        (
            "nodes:\n  - {name: a, port: [22]}\n",
            "fleet.yml:2:21: ",
            "takes one value",
        ),
        (
            "nodes:\n  - {name: a, user: }\n",
            "fleet.yml:2:",
            "has no value",
        ),
        (
            "nodes:\n  - {name: a, become: maybe}\n",
            "fleet.yml:2:23: ",
            "neither true nor false",
        ),
        (
            "nodes:\n  - {name: a, runtime: rocket}\n",
            "fleet.yml:2:24: ",
            "use auto, crictl, docker, podman, nerdctl, ctr or skopeo",
        ),
        (
            "nodes:\n  - {name: a, user: '-oX'}\n",
            "fleet.yml:2:",
            "no user name",
        ),
        (
            "nodes:\n  - {name: a, identity: ~bob/key}\n",
            "fleet.yml:2:",
            "only ~/",
        ),
        (
            "nodes:\n  - {name: a, jump: 'b,,c'}\n",
            "fleet.yml:2:",
            "missing",
        ),
        (
            "nodes:\n  - {name: a, runtime_endpoint: x}\n",
            "fleet.yml:2:",
            "no runtime endpoint",
        ),
        (
            "nodes:\n  - {name: 'a[1-2]', address: b}\n",
            "fleet.yml:2:",
            "several nodes with one address",
        ),
        (
            "nodes:\n  - {name: a, address: 'b:22'}\n",
            "fleet.yml:2:",
            "user or port",
        ),
        (
            "nodes:\n  - {name: 'a:22'}\n",
            "fleet.yml:2:",
            "user or port",
        ),
        (
            "nodes:\n  - {address: b}\n",
            "fleet.yml:2:5: ",
            "without a name",
        ),
        ("nodes:\n  -\n", "fleet.yml:2:", "no node"),
        ("nodes:\n  - [a]\n", "fleet.yml:2:5: ", "no node"),
        ("nodes:\n  a: b\n", "fleet.yml:2:3: ", "is a list"),
        ("groups: [a]\n", "fleet.yml:1:9: ", "groups must be a map"),
        (
            "groups:\n  'a b': {nodes: [x]}\n",
            "fleet.yml:2:3: ",
            "no group name",
        ),
        ("- a\n- b\n", "fleet.yml:1:1: ", "write \"nodes:\" above"),
        ("just text\n", "fleet.yml:1:1: ", "no inventory"),
        ("nodes: [a]\nnodes: [b]\n", "fleet.yml:2:1: ", "duplicate"),
        (
            "nodes:\n  - a\n  - {name: a, port: 2}\n  - {name: a, port: 3}\n",
            "fleet.yml:4:5: ",
            "(fleet.yml:2:5) with another port",
        ),
        (
            "nodes: [a]\ndefaults:\n  labels: {'x y': 1}\n",
            "fleet.yml:3:",
            "label",
        ),
        ("", "fleet.yml: ", "empty"),
        ("# nothing\n", "fleet.yml: ", "empty"),
        ("nodes: []\n", "fleet.yml: ", "the fleet is empty"),
        ("groups:\n  g:\n", "fleet.yml: ", "the fleet is empty"),
    ] {
        let shown = refused(text);
        assert!(shown.starts_with(start), "{text:?}: {shown}");
        assert!(shown.contains(part), "{text:?}: {shown}");
    }
}

#[test]
fn no_inventory_loosens_host_keys_or_holds_a_password() {
    for key in [
        "password",
        "ask_pass",
        "host_keys",
        "strict_host_key_checking",
        "ansible_password",
    ] {
        for text in [
            format!("{key}: hunter2\nnodes: [a]\n"),
            format!("defaults:\n  {key}: hunter2\nnodes: [a]\n"),
            format!("groups:\n  g:\n    {key}: hunter2\n    nodes: [a]\n"),
            format!("nodes:\n  - name: a\n    {key}: hunter2\n"),
        ] {
            let shown = refused(&text);
            assert!(shown.contains("an inventory cannot"), "{shown}");
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }
}

#[test]
fn too_many_nodes_are_refused_at_the_entry_that_makes_them_so() {
    let shown = refused("nodes:\n  - a[1-60000]\n  - b[1-60000]\n");
    assert!(
        shown.starts_with("fleet.yml:3:5: this names more than 100000 nodes"),
        "{shown}"
    );
    assert!(refused("nodes:\n  - a[1-10000000]\n").contains("100000"));
}

#[test]
fn one_long_label_times_many_nodes_does_not_fill_the_memory() {
    let long = "x".repeat(1_000_000);
    for text in [
        format!("nodes:\n  - name: a[1-100000]\n    labels: {{k: {long}}}\n"),
        format!("defaults:\n  labels: {{k: {long}}}\nnodes: ['a[1-100000]']\n"),
        format!("groups:\n  g:\n    labels: {{k: {long}}}\n    nodes: ['a[1-100000]']\n"),
    ] {
        let shown = refused(&text);
        assert!(shown.contains("256 MiB"), "{shown}");
    }
}

#[test]
fn the_pure_entry_point_reads_no_environment() {
    let error = parse_yaml("nodes: [a]\ndefaults: {identity: ~/k}\n", "x").unwrap_err();
    assert!(error.to_string().contains("HOME is not set"), "{error}");
    assert_eq!(
        parse_yaml("nodes: ['a[1-3]']\n", "x")
            .unwrap()
            .mentions
            .len(),
        3
    );
}

#[test]
fn windows_line_ends_and_tabs_in_values_are_no_trouble() {
    assert_eq!(fleet("nodes:\r\n  - a\r\n  - b\r\n").len(), 2);
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,200}") {
        let _ = parse_yaml(&text, "x");
    }

    #[test]
    fn what_looks_like_an_inventory_is_a_fleet_or_an_error_with_a_file(
        lines in proptest::collection::vec(
            "( {0,6})(- )?(nodes|groups|defaults|user|port|name|jump|labels|a|b\\[1-3\\])?(: ?)?([a-z0-9]{0,3}|\\[|\\]|\\{|\\}|&x|\\*x|~|'|<<)?",
            0..12,
        )
    ) {
        match try_fleet(&lines.join("\n")) {
            Ok(fleet) => prop_assert!(!fleet.nodes().is_empty()),
            Err(error) => prop_assert!(error.to_string().starts_with("fleet.yml")),
        }
    }
}
