//! Which socket crictl is given where nobody named one: the script that looks for it, in a tree of its own, under a real shell.

#![allow(clippy::unwrap_used)] // a test file: a panic is a failed test

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use prepull::model::RuntimeKind;
use prepull::ports::NodeCommand;
use prepull::runtime::of_kind;

/// Stands for crictl: says what it was given.
const CRICTL: &str = r#"#!/bin/sh
echo "endpoint=${CONTAINER_RUNTIME_ENDPOINT-} image=${IMAGE_SERVICE_ENDPOINT-} config=${CRI_CONFIG_FILE-} $*"
"#;

const RKE2: &str = "var/lib/rancher/rke2/agent/etc/crictl.yaml";

/// What the command prints on a node whose files are those below `root`.
fn said(root: &Path, command: &NodeCommand<'_>, environment: &[(&str, &str)]) -> (i32, String) {
    let mut arguments: Vec<String> = command.argv.iter().map(ToString::to_string).collect();
    // Only where a path begins.
    for (before, folder) in [
        (' ', "/etc/"),
        (' ', "/run/"),
        (' ', "/var/"),
        ('=', "/var/"),
    ] {
        let here = format!("{before}{}{folder}", root.display());
        let script = arguments.iter().position(|word| word == "-c").unwrap() + 1;
        arguments[script] = arguments[script].replace(&format!("{before}{folder}"), &here);
    }
    let output = Command::new(&arguments[0])
        .args(&arguments[1..])
        .env_clear()
        .env("PATH", format!("{}/bin:/usr/bin:/bin", root.display()))
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    let text = text.replace(&root.display().to_string(), "");
    (output.status.code().unwrap(), text.trim_end().to_string())
}

/// A node with these files; a socket where the name says so.
fn node(files: &[&str]) -> (tempfile::TempDir, Vec<UnixListener>) {
    let root = tempfile::tempdir().unwrap();
    let mut sockets = Vec::new();
    for file in [&["bin/crictl"], files].concat() {
        let path = root.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match path.extension() {
            Some(extension) if extension == "sock" => {
                sockets.push(UnixListener::bind(&path).unwrap());
            }
            _ => fs::write(&path, CRICTL).unwrap(),
        }
    }
    let crictl = root.path().join("bin/crictl");
    fs::set_permissions(crictl, fs::Permissions::from_mode(0o755)).unwrap();
    (root, sockets)
}

fn given(endpoint: &str) -> String {
    format!("endpoint={endpoint} image={endpoint} config= images -q")
}

#[test]
fn a_distributions_own_socket_comes_before_crictls_defaults() {
    let runtime = of_kind(RuntimeKind::Crictl);
    let k3s = "run/k3s/containerd/containerd.sock";
    let usual = "run/containerd/containerd.sock";
    for (files, expected) in [
        (&[usual][..], given("")),
        (&[], given("")),
        (
            &[k3s, usual],
            given("unix:///run/k3s/containerd/containerd.sock"),
        ),
        (
            &["run/k0s/containerd.sock"],
            given("unix:///run/k0s/containerd.sock"),
        ),
        (
            &["var/snap/microk8s/common/run/containerd.sock"],
            given("unix:///var/snap/microk8s/common/run/containerd.sock"),
        ),
        (
            &["run/cri-dockerd.sock", usual],
            given("unix:///run/cri-dockerd.sock"),
        ),
        (
            &[RKE2, k3s],
            format!("endpoint= image= config=/{RKE2} images -q"),
        ),
        // What the node is configured with stands.
        (&["etc/crictl.yaml", k3s], given("")),
        (&["bin/crictl.yaml", k3s], given("")),
        // A file is no socket.
        (&["run/k0s/containerd.sock.d"], given("")),
    ] {
        let (root, _sockets) = node(files);
        let asked = said(root.path(), &runtime.version(None), &[]);
        assert_eq!(asked, (0, expected), "{files:?}");
    }
    let (root, _sockets) = node(&[k3s]);
    let own = [("CONTAINER_RUNTIME_ENDPOINT", "unix:///run/own.sock")];
    assert_eq!(
        said(root.path(), &runtime.version(None), &own).1,
        "endpoint=unix:///run/own.sock image= config= images -q"
    );
}

/// crictl tries its defaults one after the other, each for seconds, and reports only that the last one does not exist.
#[test]
fn a_socket_that_the_user_may_not_use_is_named_so_that_the_refusal_is_seen() {
    let usual = "run/containerd/containerd.sock";
    let crio = "run/crio/crio.sock";
    for (files, open, expected) in [
        (&[usual][..], None, format!("unix:///{usual}")),
        (&[crio], None, format!("unix:///{crio}")),
        (&[usual, crio], Some(crio), String::new()),
    ] {
        let (root, _sockets) = node(files);
        for file in files {
            let mode = if Some(*file) == open { 0o777 } else { 0o000 };
            let path = root.path().join(file);
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = of_kind(RuntimeKind::Crictl).version(None);
        let user = ["setpriv", "--reuid=65534", "--clear-groups"];
        // Root may use any socket.
        if nix::unistd::geteuid().is_root() {
            command.argv.splice(0..0, user);
        }
        let (status, text) = said(root.path(), &command, &[]);
        assert_eq!((status, text), (0, given(&expected)), "{files:?}");
    }
}

#[test]
fn the_socket_that_was_found_is_told() {
    let runtime = of_kind(RuntimeKind::Crictl);
    let (root, _sockets) = node(&["run/k0s/containerd.sock"]);
    let [_, socket] = runtime.describe(None);
    assert_eq!(
        said(root.path(), &socket, &[]),
        (
            0,
            "client crictl\nunix:///run/k0s/containerd.sock".to_string()
        )
    );
    let (root, _sockets) = node(&[]);
    assert_eq!(
        said(root.path(), &socket, &[]).1,
        "client crictl\nendpoint= image= config= config --get runtime-endpoint"
    );
}

#[test]
fn a_client_that_is_not_there_is_missing_as_a_shell_says_it() {
    let (root, _sockets) = node(&[]);
    fs::remove_file(root.path().join("bin/crictl")).unwrap();
    let asked = said(
        root.path(),
        &of_kind(RuntimeKind::Crictl).version(None),
        &[],
    );
    assert_eq!(asked, (127, "crictl: not found".to_string()));
}

#[test]
fn k3s_stands_in_for_a_crictl_that_is_not_there() {
    let (root, _sockets) = node(&[]);
    fs::rename(root.path().join("bin/crictl"), root.path().join("bin/k3s")).unwrap();
    let asked = said(
        root.path(),
        &of_kind(RuntimeKind::Crictl).version(None),
        &[],
    );
    assert_eq!(
        asked,
        (0, "endpoint= image= config= crictl images -q".to_string())
    );
    let own = of_kind(RuntimeKind::Crictl).version(Some("unix:///run/own.sock"));
    let environment = [("CONTAINER_RUNTIME_ENDPOINT", "unix:///run/own.sock")];
    assert_eq!(
        said(root.path(), &own, &environment).1,
        "endpoint=unix:///run/own.sock image= config= crictl images -q"
    );
    let [_, client] = of_kind(RuntimeKind::Crictl).describe(None);
    let told = said(root.path(), &client, &[]).1;
    assert!(told.starts_with("client k3s crictl\n"), "{told}");
}

#[test]
fn an_image_with_a_hostile_name_stays_an_argument() {
    let (root, _sockets) = node(&[]);
    let runtime = of_kind(RuntimeKind::Crictl);
    let mut command = runtime.version(None);
    *command.argv.last_mut().unwrap() = "$(id) `id` ; id \"'";
    assert_eq!(
        said(root.path(), &command, &[]).1,
        "endpoint= image= config= images $(id) `id` ; id \"'"
    );
}

#[test]
fn an_endpoint_that_was_asked_for_is_used_as_it_is() {
    let command = of_kind(RuntimeKind::Crictl).version(Some("unix:///run/own.sock"));
    assert_eq!(command.argv[3..], ["crictl", "images", "-q"]);
    assert!(
        command
            .environment
            .contains(&("CONTAINER_RUNTIME_ENDPOINT", "unix:///run/own.sock"))
    );
}
