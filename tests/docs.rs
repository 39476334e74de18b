//! The command lines in README.md and docs/: every `sh` block is run, so that none of them goes stale.
//!
//! The nodes in them are made up, so `pull`, `check` and `exec` only plan (`-n`); the runbook is also run for real, on the lab.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test file: a panic is a failed test

#[allow(dead_code)] // each test file uses its part
#[path = "support/lab.rs"]
mod lab;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use lab::Lab;

const IMAGE: &str = "registry.example:5000/team/app:v2";
const MANIFEST: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: app}
spec:
  template:
    spec:
      containers: [{name: app, image: 'registry.example:5000/team/app:v2'}]
";
/// Plans, or shows the inventory, where the real program would connect.
const PLANS: &str = r#"#!/bin/sh
name=$1
shift
case "$name, $* " in
nodes,*' --probe '*)
    for word; do
        shift
        [ "$word" = --probe ] || set -- "$@" "$word"
    done ;;
*' -n '*) ;;
pull,*' --forecast '*)
    for word; do
        shift
        [ "$word" = --forecast ] || set -- "$@" "$word"
    done
    set -- -n "$@" ;;
keep,*)
    what=$1
    shift
    set -- "$what" -n "$@" ;;
pull,* | check,* | exec,*) set -- -n "$@" ;;
esac
exec "$PREPULL" "$name" "$@"
"#;
const HELM: &str = "#!/bin/sh\ncat \"$DESK/deploy/app.yml\"\n";
/// Says the same list of nodes to whoever asks.
const API: &str = "\
import http.server, sys
class Api(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = open(sys.argv[1], 'rb').read()
        self.send_response(200)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
server = http.server.HTTPServer(('127.0.0.1', 0), Api)
print(server.server_address[1], flush=True)
server.serve_forever()
";

fn data_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A block of commands, and where it stands.
struct Block {
    place: String,
    script: String,
}

/// All documents for users, in order.
fn documents() -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(data_dir().join("docs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "md"))
        .collect();
    paths.push(data_dir().join("README.md"));
    paths.sort();
    paths
}

fn blocks(path: &Path) -> Vec<Block> {
    let text = fs::read_to_string(path).unwrap();
    let name = path.strip_prefix(data_dir()).unwrap().display();
    let mut blocks = Vec::new();
    let mut inside: Option<Block> = None;
    for (number, line) in text.lines().enumerate() {
        match &mut inside {
            None if line == "```sh" => {
                inside = Some(Block {
                    place: format!("{name}:{}", number + 1),
                    script: String::new(),
                });
            }
            Some(_) if line == "```" => blocks.extend(inside.take()),
            Some(block) => block.script.push_str(&format!("{line}\n")),
            None => {}
        }
    }
    assert!(inside.is_none(), "{name}: a block is not closed");
    blocks
}

/// Where the commands are run: the files that they name, the programs beside prepull, and an API server.
struct Desk {
    folder: tempfile::TempDir,
    api: Child,
}

impl Drop for Desk {
    fn drop(&mut self) {
        // It serves for ever; a failure here means that it has ended already.
        let _ = self.api.kill();
        let _ = self.api.wait();
    }
}

impl Desk {
    fn new(prepull: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut api = Command::new("python3")
            .args(["-c", API])
            .arg(data_dir().join("tests/fixtures/kube/nodes.json"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 cannot be run: see lab/install");
        let mut port = String::new();
        BufReader::new(api.stdout.take().unwrap())
            .read_line(&mut port)
            .unwrap();
        let desk = Self { folder, api };
        let kubeconfig = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: prod\n\
             clusters: [{{name: c, cluster: {{server: 'http://127.0.0.1:{}'}}}}]\nusers: [{{name: u, user: {{}}}}]\n\
             contexts: [{{name: prod, context: {{cluster: c, user: u}}}}]\n",
            port.trim()
        );
        let inventory = fs::read_to_string(data_dir().join("inventory/groups.yml")).unwrap();
        // Its key is the reader's own.
        let inventory: String = inventory
            .lines()
            .filter(|line| !line.contains("identity:"))
            .map(|line| format!("{line}\n"))
            .collect();
        for (name, text) in [
            ("nodes.yml", inventory.as_str()),
            (
                "login.yml",
                "defaults: {user: ops, become: true}\nnodes: [worker-1.example]\n",
            ),
            (
                "hosts.ini",
                "[workers]\nworker[1:3].example\nb1\n[builders]\nb1\n",
            ),
            ("hosts.txt", "worker-1.example\nworker-2.example\n"),
            ("deploy/app.yml", MANIFEST),
            ("password", "secret\n"),
            ("known_hosts", ""),
            (".kube/config", &kubeconfig),
            ("bin/prepull", prepull),
            ("bin/helm", HELM),
        ] {
            desk.write(name, text);
        }
        desk
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        let mode = if name.starts_with("bin/") {
            0o755
        } else {
            0o600
        };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Gives a command what it finds on this desk.
    fn prepare<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .current_dir(self.path())
            .env_clear()
            .env("HOME", self.path())
            .env("DESK", self.path())
            .env("PREPULL", env!("CARGO_BIN_EXE_prepull"))
            .env(
                "PATH",
                format!("{}/bin:/usr/bin:/bin", self.path().display()),
            )
            .stdin(Stdio::null())
    }

    /// Runs a block as a reader's shell would; anything but success is a failed test.
    fn run(&self, block: &Block) {
        let script = format!("set -euo pipefail\n{}", block.script);
        let mut command = Command::new("bash");
        let output = self
            .prepare(command.args(["-c", &script]))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}: {}\n{}{}",
            block.place,
            output.status,
            block.script,
            lab::said(&output)
        );
    }
}

#[test]
fn every_command_line_in_the_documents_runs() {
    let desk = Desk::new(PLANS);
    // Something to go on with: a run that failed, since nobody listens on port 1.
    let mut failing = Command::new(env!("CARGO_BIN_EXE_prepull"));
    failing.args([
        "pull",
        "-F",
        "none",
        "-H",
        "127.0.0.1:1",
        "--retries",
        "0",
        "--no-auth",
        "--report",
        "run.json",
        "-o",
        "jsonl",
        IMAGE,
    ]);
    let failed = desk.prepare(&mut failing).output().unwrap();
    assert_eq!(failed.status.code(), Some(1));
    fs::write(desk.path().join("run.jsonl"), failed.stdout).unwrap();
    // A key as --identity wants it.
    let key = desk.path().join("key");
    lab::succeed(
        Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&key),
    );
    let mut ran = 0;
    for path in documents() {
        for block in blocks(&path) {
            desk.run(&block);
            ran += 1;
        }
    }
    assert!(ran > 20, "only {ran} blocks were found");
}

#[test]
fn every_make_target_in_the_documents_is_there() {
    let makefile = fs::read_to_string(data_dir().join("Makefile")).unwrap();
    let mut named = 0;
    for path in documents()
        .into_iter()
        .chain([data_dir().join("CONTRIBUTING.md")])
    {
        for piece in fs::read_to_string(path).unwrap().split("`make ").skip(1) {
            let target = piece.split(['`', ' ']).next().unwrap();
            assert!(makefile.contains(&format!("\n{target}:")), "make {target}");
            named += 1;
        }
    }
    assert!(named > 2);
}

/// The names of a document's headings in links, as GitHub and mdBook make them.
fn anchors(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |line: &str| -> String {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let kept = |c: &char| c.is_alphanumeric() || " -_".contains(*c);
        heading
            .chars()
            .filter(kept)
            .collect::<String>()
            .replace(' ', "-")
    };
    headings.map(anchor).collect()
}

fn decisions() -> Vec<PathBuf> {
    let entries = fs::read_dir(data_dir().join("docs/decisions")).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn links_between_the_documents_lead_somewhere() {
    let others = ["CONTRIBUTING.md", "lab/README.md", "benches/README.md"];
    let others = others.map(|name| data_dir().join(name));
    let all = documents().into_iter().chain(decisions()).chain(others);
    let mut followed = 0;
    for path in all {
        let text = fs::read_to_string(&path).unwrap();
        for piece in text.split("](").skip(1) {
            let link = piece.split(')').next().unwrap();
            if link.contains("://") {
                continue;
            }
            let (target, anchor) = link.split_once('#').unwrap_or((link, ""));
            let there = match target {
                "" => path.clone(),
                target => path.parent().unwrap().join(target),
            };
            assert!(there.exists(), "{}: {link}", path.display());
            if there.extension().is_some_and(|ending| ending == "md") && !anchor.is_empty() {
                let known = anchors(&there);
                assert!(
                    known.iter().any(|one| one == anchor),
                    "{}: {link}: {known:?}",
                    path.display()
                );
            }
            followed += 1;
        }
    }
    assert!(followed > 100, "{followed} links");
}

#[test]
fn the_runbook_warms_a_real_fleet() {
    let lab = Lab::start(env!("CARGO_CRATE_NAME"), 4, &[]);
    // The same commands; the fleet, the image and the known hosts are the lab's.
    let prepull = format!(
        "#!/bin/sh\nname=$1\nshift\ncase $name in\npull | check | nodes) exec \"$PREPULL\" $name -F none --known-hosts {} \"$@\" ;;\nesac\n\
         exec \"$PREPULL\" $name \"$@\"\n",
        lab.file("known_hosts")
    );
    let desk = Desk::new(&prepull);
    desk.write(
        "nodes.yml",
        &fs::read_to_string(lab.file("inventory.yml")).unwrap(),
    );
    desk.write("password", &lab.password());
    let mut ran = 0;
    for block in blocks(&data_dir().join("docs/runbook.md")) {
        let script = block.script.replace(IMAGE, "registry.lab:5000/team/app:v1");
        let script = format!("set -euo pipefail\n{script}");
        let mut command = lab.operator(&["bash", "-c", &script]);
        let output = desk.prepare(&mut command).output().unwrap();
        assert!(
            output.status.success(),
            "{}: {}",
            block.place,
            lab::said(&output)
        );
        ran += 1;
    }
    assert!(ran >= 6, "{ran}");
}
