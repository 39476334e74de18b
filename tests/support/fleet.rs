//! The fleet of real nodes that end-to-end tests share, and what they ask of it.

#![allow(dead_code, unused_imports)] // each test file uses its part

#[path = "lab.rs"]
mod lab;

use std::collections::HashSet;
use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use lab::{Lab, Node, said, succeed};
use serde_json::Value;

pub const APP: &str = "registry.lab:5000/team/app:v1";
pub const SMALL: &str = "registry.lab:5000/team/small:v1";
pub const NODES: usize = 12;

pub static FLEET: LazyLock<Mutex<Lab>> =
    LazyLock::new(|| Mutex::new(Lab::start(env!("CARGO_CRATE_NAME"), NODES, &["--bare"])));

/// The fleet, without images and with everything in order. The guard keeps other tests out.
pub fn fleet() -> MutexGuard<'static, Lab> {
    let lab = FLEET.lock().unwrap_or_else(PoisonError::into_inner);
    succeed(&mut lab.command(&["registry", "rate", "off"]));
    succeed(&mut lab.command(&["registry", "fault", "off"]));
    for node in lab.nodes() {
        forget_images(&lab, &node);
    }
    lab
}

/// Removes the images of tests before, by the runtime's own means.
pub fn forget_images(lab: &Lab, node: &Node) {
    let script = match node.runtime.as_str() {
        "docker" => "for image in $(docker images -q); do docker rmi -f \"$image\" || exit; done",
        "containerd" => {
            // A pull that a reboot has cut off leaves a lease, which keeps its layers for a day.
            "for image in $(crictl images -q 2>/dev/null); do crictl rmi \"$image\" || exit; done
            for lease in $(ctr -n k8s.io leases ls -q); do ctr -n k8s.io leases rm --sync \"$lease\" || exit; done"
        }
        _ => return,
    };
    succeed(&mut lab.on(&node.name, &["sh", "-c", script]));
}

/// What came of a run of prepull.
pub struct Run {
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}:\n{}{}", self.stdout, self.stderr))
    }

    pub fn expect(self, status: i32) -> Self {
        assert_eq!(self.status, Some(status), "{}{}", self.stdout, self.stderr);
        self
    }
}

/// prepull with these arguments and the lab's inventory, where the operator is.
pub fn command(lab: &Lab, arguments: &[&str]) -> Command {
    let inventory = lab.file("inventory.yml");
    command_for(lab, &inventory, arguments)
}

pub fn command_for(lab: &Lab, inventory: &str, arguments: &[&str]) -> Command {
    // `keep` has commands of its own.
    let names = if arguments[0] == "keep" { 2 } else { 1 };
    let (names, rest) = arguments.split_at(names);
    let known_hosts = lab.file("known_hosts");
    let mut words = vec![env!("CARGO_BIN_EXE_prepull")];
    words.extend(names);
    words.extend(["-i", inventory]);
    if !rest.contains(&"-F") {
        words.extend(["-F", "none"]);
    }
    if !rest.contains(&"--known-hosts") {
        words.extend(["--known-hosts", &known_hosts]);
    }
    words.extend(rest);
    let mut command = lab.operator(&words);
    command
        .env("HOME", lab.state.join("home"))
        .env_remove("SSH_AUTH_SOCK");
    command
}

pub fn start(command: &mut Command, input: &str) -> Child {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    child
}

pub fn end(child: Child) -> Run {
    let output = child.wait_with_output().unwrap();
    Run {
        status: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

pub fn prepull(lab: &Lab, arguments: &[&str]) -> Run {
    end(start(&mut command(lab, arguments), ""))
}

/// A pull with the registry's login, result in JSON.
pub fn pull_command(lab: &Lab, arguments: &[&str]) -> Command {
    let login = ["pull", "--registry-user", "ci", "--registry-password-stdin"];
    let json: &[&str] = if arguments.contains(&"-o") {
        &[]
    } else {
        &["-o", "json"]
    };
    command(lab, &[&login, json, arguments].concat())
}

pub fn pull(lab: &Lab, arguments: &[&str]) -> Run {
    end(start(&mut pull_command(lab, arguments), &lab.password()))
}

/// The digest that the node's own runtime names for the image; `None` when it does not hold it.
pub fn digest_on(lab: &Lab, node: &Node, image: &str) -> Option<String> {
    let output = if node.runtime == "docker" {
        let format = [
            "docker",
            "image",
            "inspect",
            "--format",
            "{{json .RepoDigests}}",
            image,
        ];
        lab.on(&node.name, &format).output().unwrap()
    } else {
        lab.on(&node.name, &["crictl", "inspecti", "-o", "json", image])
            .output()
            .unwrap()
    };
    if !output.status.success() {
        return None;
    }
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    let digests = if value.is_array() {
        &value
    } else {
        &value["status"]["repoDigests"]
    };
    let (name, _) = image.rsplit_once(':').unwrap();
    let digests = digests
        .as_array()
        .unwrap()
        .iter()
        .map(|digest| digest.as_str().unwrap());
    digests
        .filter_map(|digest| digest.strip_prefix(&format!("{name}@")))
        .map(String::from)
        .next()
}

/// The nodes of `inventory.yml`.
pub fn good_nodes(lab: &Lab) -> Vec<Node> {
    let mut nodes = lab.nodes();
    nodes.retain(|node| node.runtime != "none");
    assert_eq!(nodes.len(), NODES);
    nodes
}

/// How the clients that pull are called, as a shell's patterns.
const CLIENTS: &str = "'docker pull'* | 'docker system dial-stdio'* | 'crictl pull'* | 'ctr images pull'* | 'podman pull'*";

/// Everything of ours that may be left on a node: files of a pull, running clients, and, moments after those, layers that
/// docker's daemon still fetches.
pub fn left_on(lab: &Lab, node: &Node) -> String {
    let script = format!(
        "left=$(ls -d /dev/shm/prepull* /run/prepull* /tmp/prepull* 2>/dev/null)
        for process in /proc/[0-9]*; do
            [ $process != /proc/$$ ] || continue
            line=$(tr '\\0' ' ' <$process/cmdline 2>/dev/null)
            case $line in {CLIENTS} | *'IFS= read -r l'*) left=\"$left $line\" ;; esac
        done
        tries=0
        while [ -z \"$left\" ] && [ $tries -lt 20 ] && ls /var/lib/docker/tmp/GetImageBlob* 2>/dev/null >&2; do
            sleep 0.1
            tries=$((tries + 1))
        done
        echo \"$left\" | grep . || ls /var/lib/docker/tmp/GetImageBlob* 2>/dev/null
        true"
    );
    succeed(&mut lab.on(&node.name, &["sh", "-c", &script]))
}

/// Starts a program of this name that does nothing; returns its number on the node.
pub fn pretend(lab: &Lab, node: &str, name: &str) -> String {
    let script = r#"mkdir -p /run/lab/bin
        ln -sf "$(command -v sleep)" "/run/lab/bin/$0"
        setsid "/run/lab/bin/$0" 900 </dev/null >/dev/null 2>&1 &
        until [ "$(cat /proc/$!/comm)" = "$0" ]; do sleep 0.05; done
        echo $!"#;
    let started = succeed(&mut lab.on(node, &["timeout", "20", "sh", "-c", script, name]));
    started.trim().to_string()
}

/// The kinds of all final failures, once each.
pub fn kinds(document: &Value) -> HashSet<String> {
    let nodes = document["nodes"].as_array().unwrap();
    let outcomes = nodes
        .iter()
        .flat_map(|node| node["outcomes"].as_array().unwrap());
    outcomes
        .filter_map(|outcome| outcome["failure"]["kind"].as_str())
        .map(String::from)
        .collect()
}

pub fn only(kind: &str) -> HashSet<String> {
    HashSet::from([kind.to_string()])
}

/// The numbers of the clients that pull on a node just now.
pub fn clients_on(lab: &Lab, node: &Node) -> String {
    let script = format!(
        "for process in /proc/[0-9]*; do
            case $(tr '\\0' ' ' <$process/cmdline 2>/dev/null) in
                {CLIENTS}) echo ${{process#/proc/}} ;;
            esac
        done; true"
    );
    succeed(&mut lab.on(&node.name, &["sh", "-c", &script]))
}

/// Waits until every node pulls, and returns their clients.
pub fn all_pulling(lab: &Lab, nodes: &[Node]) -> Vec<String> {
    let began = Instant::now();
    loop {
        let clients: Vec<String> = nodes.iter().map(|node| clients_on(lab, node)).collect();
        if clients.iter().all(|client| !client.is_empty()) {
            return clients;
        }
        assert!(
            began.elapsed() < Duration::from_secs(120),
            "not all nodes pull: {clients:?}"
        );
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// A pull with the registry's login, whose authority is known here.
pub fn via_command(lab: &Lab, arguments: &[&str]) -> Command {
    let mut command = pull_command(lab, arguments);
    command.env("SSL_CERT_FILE", lab.file("ca.crt"));
    command
}

pub fn via(lab: &Lab, arguments: &[&str]) -> Run {
    end(start(&mut via_command(lab, arguments), &lab.password()))
}
