//! A lab for the tests that need real nodes: started once a test binary, used by one test at a time, gone with the
//! test process however that ends.

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long a lab may take to come up on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// A running lab.
pub struct Lab {
    /// Where it keeps its files: inventory.yml, faulty.yml, known_hosts, id_ed25519, password, ca.crt, nodes.json.
    pub state: PathBuf,
    /// The process that holds it. Its standard input is a pipe of ours: when the pipe closes, the lab goes.
    pub outer: Child,
}

/// A node as nodes.json has it.
#[derive(Debug, Clone, serde::Deserialize)]
pub struct Node {
    /// node-1 and so on.
    pub name: String,
    /// On the lab's network.
    pub address: String,
    /// Who logs in: root, or ops with sudo.
    pub user: String,
    /// docker, containerd or none.
    pub runtime: String,
}

fn program() -> Command {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("lab/lab"))
}

/// Run a command to its end, and panic with what it said where that is not success.
pub fn succeed(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?} ended with {}:\n{}",
        output.status,
        said(&output)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Both streams of a process, for messages.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

impl Lab {
    /// Start a lab of `nodes` nodes; its name tells it from the other labs of this machine.
    pub fn start(name: &str, nodes: usize, options: &[&str]) -> Self {
        let state = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("lab-{name}"));
        let mut outer = program()
            .arg("run")
            .args(options)
            .arg("--state")
            .arg(&state)
            .args([&nodes.to_string(), "--", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("lab/lab cannot be run: {error}"));
        let ready = state.join("ready");
        let began = Instant::now();
        // The folder is made anew by this start, so a file in it that is older belongs to an earlier lab.
        let is_fresh = |path: &Path| {
            let changed = path.metadata().and_then(|file| file.modified());
            changed.is_ok_and(|changed| changed.elapsed().unwrap_or_default() <= began.elapsed())
        };
        while !is_fresh(&ready) {
            if let Some(status) = outer.try_wait().unwrap() {
                panic!(
                    "the lab did not come up ({status}): its sentence is above, its logs in {}",
                    state.display()
                );
            }
            assert!(
                began.elapsed() < PATIENCE,
                "the lab is not up after {PATIENCE:?}: see {}",
                state.display()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        Self { state, outer }
    }

    /// One of lab/lab's own commands, such as `["cut", "node-1"]`.
    pub fn command<Word: AsRef<str> + Debug>(&self, words: &[Word]) -> Command {
        let mut command = program();
        let (name, rest) = words.split_first().expect("a lab command has a name");
        command
            .arg(name.as_ref())
            .arg("--state")
            .arg(&self.state)
            .args(rest.iter().map(AsRef::as_ref));
        command
    }

    /// A command on a node, as root and not through SSH.
    pub fn on(&self, node: &str, words: &[&str]) -> Command {
        self.command(&[&["exec", node, "--"], words].concat())
    }

    /// A command where the operator is: on the nodes' network, with their names. Its process is the command's own.
    pub fn operator(&self, words: &[&str]) -> Command {
        self.command(&[&["operator", "--"], words].concat())
    }

    /// The path of a file in the state folder.
    pub fn file(&self, name: &str) -> String {
        self.state.join(name).to_string_lossy().into_owned()
    }

    /// The password of the registry's user `ci`. Its first 24 characters are letters and digits, and can be searched for.
    pub fn password(&self) -> String {
        std::fs::read_to_string(self.state.join("password")).unwrap()
    }

    /// The nodes, as nodes.json has them.
    pub fn nodes(&self) -> Vec<Node> {
        serde_json::from_str(&std::fs::read_to_string(self.state.join("nodes.json")).unwrap())
            .unwrap()
    }

    /// A program over SSH on a node, by the system's own client with the lab's key and known hosts.
    pub fn ssh(&self, node: &Node, script: &str) -> Command {
        let known_hosts = format!("UserKnownHostsFile={}", self.file("known_hosts"));
        let target = format!("{}@{}", node.user, node.address);
        let identity = self.file("id_ed25519");
        self.operator(&[
            "ssh",
            "-F",
            "none",
            "-i",
            &identity,
            "-o",
            &known_hosts,
            "-o",
            "StrictHostKeyChecking=yes",
            "-o",
            "BatchMode=yes",
            "-o",
            "ConnectTimeout=10",
            &target,
            script,
        ])
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        drop(self.outer.stdin.take());
        let _ = self.outer.wait();
    }
}
