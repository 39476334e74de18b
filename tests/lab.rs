//! End to end, on real nodes: needs root and what lab/install installs (`make test` does both).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test file: a panic is a failed test

#[path = "support/lab.rs"]
mod support;

use std::collections::{HashMap, HashSet};
use std::io::Write as _;
use std::process::Stdio;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use support::{Lab, said, succeed};

const APP: &str = "registry.lab:5000/team/app:v1";
const SMALL: &str = "registry.lab:5000/team/small:v1";

static SHARED: LazyLock<Mutex<Lab>> =
    LazyLock::new(|| Mutex::new(Lab::start("shared", 4, &["--bare"])));

/// The lab that the tests of a binary share: four good nodes and node-bare. The guard keeps other tests out.
fn shared() -> MutexGuard<'static, Lab> {
    SHARED.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn every_node_answers_over_ssh_with_the_inventorys_user_and_key() {
    let lab = shared();
    for node in lab.nodes() {
        let answer = succeed(&mut lab.ssh(&node, "hostname; id -un; sudo -n id -un"));
        let lines: Vec<&str> = answer.lines().collect();
        assert_eq!(lines, [node.name.as_str(), node.user.as_str(), "root"]);
    }
}

#[test]
fn every_node_has_its_own_runtime_and_no_other() {
    let lab = shared();
    for node in lab.nodes() {
        let found = succeed(&mut lab.on(
            &node.name,
            &["sh", "-c", "command -v docker; command -v crictl; true"],
        ));
        let expected = match node.runtime.as_str() {
            "docker" => "/usr/bin/docker\n",
            "containerd" => "/usr/local/bin/crictl\n",
            _ => "",
        };
        assert_eq!(found, expected, "on {}", node.name);
        match node.runtime.as_str() {
            "docker" => {
                let driver = succeed(
                    &mut lab.on(&node.name, &["docker", "info", "--format", "{{.Driver}}"]),
                );
                assert_eq!(driver, "overlay2\n");
            }
            "containerd" => {
                let usage =
                    succeed(&mut lab.on(&node.name, &["crictl", "imagefsinfo", "-o", "json"]));
                assert!(
                    usage.contains("/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs"),
                    "{usage}"
                );
            }
            _ => {}
        }
    }
}

#[test]
fn docker_is_refused_without_a_login_and_pulls_with_one() {
    let lab = shared();
    let refused = lab
        .on("node-1", &["docker", "pull", SMALL])
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        said(&refused).contains("no basic auth credentials"),
        "{}",
        said(&refused)
    );
    let script = r#"export DOCKER_CONFIG=/dev/shm/by-hand
        printf %s "$1" | docker login -u ci --password-stdin registry.lab:5000 && docker pull "$2"
        status=$?; rm -r /dev/shm/by-hand; exit $status"#;
    succeed(&mut lab.on(
        "node-1",
        &["sh", "-c", script, "sh", &lab.password(), SMALL],
    ));
    succeed(&mut lab.on("node-1", &["docker", "rmi", SMALL]));
}

#[test]
fn crictl_is_refused_without_a_login_and_pulls_with_one() {
    let lab = shared();
    let refused = lab.on("node-2", &["crictl", "pull", APP]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        said(&refused).contains("[manifests v1]: 401 Unauthorized"),
        "{}",
        said(&refused)
    );
    let login = format!("CRICTL_CREDS=ci:{}", lab.password());
    let pulled = succeed(&mut lab.on("node-2", &["env", &login, "crictl", "pull", APP]));
    assert!(
        pulled.starts_with("Image is up to date for sha256:"),
        "{pulled}"
    );
    let unknown = lab
        .on(
            "node-2",
            &[
                "env",
                &login,
                "crictl",
                "pull",
                "registry.lab:5000/team/app:nope",
            ],
        )
        .output()
        .unwrap();
    assert!(
        said(&unknown).contains("code = NotFound"),
        "{}",
        said(&unknown)
    );
    succeed(&mut lab.on("node-2", &["crictl", "rmi", APP]));
}

#[test]
fn a_cut_link_a_stopped_registry_and_a_stopped_runtime_come_back() {
    let lab = shared();
    let node = lab.nodes().into_iter().next().unwrap();
    succeed(&mut lab.command(&["cut", "node-1"]));
    assert!(!lab.ssh(&node, "true").output().unwrap().status.success());
    succeed(&mut lab.command(&["mend", "node-1"]));
    succeed(&mut lab.ssh(&node, "true"));
    let login = format!("CRICTL_CREDS=ci:{}", lab.password());
    let pull = ["env", login.as_str(), "crictl", "pull", SMALL];
    succeed(&mut lab.command(&["registry", "stop"]));
    let refused = lab.on("node-2", &pull).output().unwrap();
    assert!(
        said(&refused).contains("connection refused"),
        "{}",
        said(&refused)
    );
    succeed(&mut lab.command(&["registry", "start"]));
    succeed(&mut lab.on("node-2", &pull));
    succeed(&mut lab.command(&["service", "node-1", "dockerd", "stop"]));
    let down = lab.on("node-1", &["docker", "images"]).output().unwrap();
    assert!(
        said(&down).contains("Cannot connect to the Docker daemon"),
        "{}",
        said(&down)
    );
    succeed(&mut lab.command(&["service", "node-1", "dockerd", "start"]));
    succeed(&mut lab.on("node-1", &["docker", "images"]));
}

/// CRI-O says in one header each what it takes. With only one of them handed on, a registry answers with an older manifest.
#[test]
fn a_faulty_registry_hands_on_every_accept_header() {
    let lab = shared();
    let script = r#"
import base64, http.client, ssl, sys
registry = http.client.HTTPSConnection("registry.lab", 5000, context=ssl._create_unverified_context())
registry.putrequest("GET", "/v2/team/small/manifests/v1")
registry.putheader("Authorization", "Basic " + base64.b64encode(sys.stdin.buffer.read()).decode())
registry.putheader("Accept", "application/json")
registry.putheader("Accept", "application/vnd.docker.distribution.manifest.v2+json")
registry.putheader("Accept", "application/vnd.oci.image.manifest.v1+json")
registry.endheaders()
print(registry.getresponse().headers["Content-Type"])
"#;
    // No request fails: only the way through is tried.
    succeed(&mut lab.command(&["registry", "fault", "500:0"]));
    let mut asking = lab.on("node-1", &["python3", "-c", script]);
    let mut asking = asking
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let login = format!("ci:{}", lab.password());
    asking
        .stdin
        .take()
        .unwrap()
        .write_all(login.as_bytes())
        .unwrap();
    let answer = asking.wait_with_output().unwrap();
    succeed(&mut lab.command(&["registry", "fault", "off"]));
    assert_eq!(
        String::from_utf8(answer.stdout).unwrap(),
        "application/vnd.docker.distribution.manifest.v2+json\n"
    );
}

#[test]
fn a_killed_lab_leaves_no_process_and_no_mount() {
    let mut lab = Lab::start("killed", 2, &[]);
    let outer = lab.outer.id();
    let inside = descendants(outer);
    assert!(
        inside.len() > 8,
        "two nodes and a registry are more processes than {inside:?}"
    );
    lab.outer.kill().unwrap();
    lab.outer.wait().unwrap();
    let began = Instant::now();
    let left = loop {
        let left: Vec<u32> = inside
            .iter()
            .copied()
            .filter(|process| is_alive(*process))
            .collect();
        if left.is_empty() || began.elapsed() > Duration::from_secs(20) {
            break left;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(left.is_empty(), "processes outlive the lab: {left:?}");
    let state = lab.state.to_string_lossy().into_owned();
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let mounts = std::fs::read_to_string(process.path().join("mountinfo")).unwrap_or_default();
        assert!(
            !mounts.contains(&state),
            "{:?} still has a mount of the lab",
            process.path()
        );
    }
}

/// What stands in the fields after the name in /proc/PID/stat: state and parent.
fn status(process: u32) -> Option<(String, u32)> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let mut fields = text.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}

fn is_alive(process: u32) -> bool {
    status(process).is_some_and(|(state, _)| state != "Z")
}

fn descendants(ancestor: u32) -> HashSet<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parents: HashMap<u32, u32> = numbers
        .filter_map(|number| Some((number, status(number)?.1)))
        .collect();
    let mut found = HashSet::from([ancestor]);
    loop {
        let before = found.len();
        found.extend(
            parents
                .iter()
                .filter(|(_, parent)| found.contains(parent))
                .map(|(child, _)| *child)
                .collect::<Vec<_>>(),
        );
        if found.len() == before {
            found.remove(&ancestor);
            return found;
        }
    }
}
