//! Secrets on real nodes: a password that is looked for everywhere, and logins that change while a run goes on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test file: a panic is a failed test

#[path = "support/fleet.rs"]
mod support;

use std::collections::HashSet;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use support::*;

/// Two docker and two containerd nodes, of each kind one with sudo. One docker's client is too old to join us to its daemon.
static LAB: LazyLock<Mutex<Lab>> = LazyLock::new(|| {
    let lab = Lab::start("secrets", 4, &[]);
    let script = r#"printf '%s\n' '#!/bin/bash' 'case "$*" in *dial-stdio*) exit 1 ;; esac' \
        'exec -a docker /usr/bin/docker "$@"' >/usr/local/sbin/docker; chmod 755 /usr/local/sbin/docker"#;
    succeed(&mut lab.on("node-3", &["sh", "-c", script]));
    Mutex::new(lab)
});

fn lab() -> MutexGuard<'static, Lab> {
    let lab = LAB.lock().unwrap_or_else(PoisonError::into_inner);
    succeed(&mut lab.command(&["registry", "rate", "off"]));
    for node in lab.nodes() {
        forget_images(&lab, &node);
    }
    lab
}

/// Part of every password of this test, in letters and digits: URL encoding leaves it as it is.
const SENTINEL: &str = "Sq7ZkW3vXt9RbY2mLp8NcJ4d";

/// How the sentinel may be spelt: as it is, and in base64 wherever in the text it begins.
fn needles() -> Vec<String> {
    let mut needles = vec![SENTINEL.to_string()];
    for before in 0..3 {
        let text = STANDARD.encode(format!("{}{SENTINEL}", &"xxx"[..before]));
        // The first and last characters hold bits of what is around it.
        needles.push(text[4..text.len() - 4].to_string());
    }
    needles
}

fn holds_secret(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    needles().iter().any(|needle| text.contains(needle))
}

/// Looks at the arguments and the environment of every process of the machine, the nodes' among them.
struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(HashSet<String>, HashSet<&'static str>)>,
}

impl Watch {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut leaks, mut pulls) = (HashSet::new(), HashSet::new());
            while !stopped.load(Ordering::Relaxed) {
                for process in std::fs::read_dir("/proc").unwrap().flatten() {
                    let read = |name| std::fs::read(process.path().join(name)).unwrap_or_default();
                    let environment = read("environ");
                    let line = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
                    let ways = ["docker pull", "docker system dial-stdio", "crictl pull"];
                    pulls.extend(ways.into_iter().filter(|way| line.starts_with(way)));
                    if holds_secret(line.as_bytes()) {
                        leaks.insert(format!("arguments: {line}"));
                    }
                    // The one place where it has to be: crictl knows no other.
                    let is_pull = line.is_empty() || line.contains("crictl pull");
                    if !is_pull && holds_secret(&environment) {
                        leaks.insert(format!("environment: {line}"));
                    }
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            (leaks, pulls)
        });
        Self { stop, thread }
    }

    /// No process showed it, though the pulls were seen.
    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        let (leaks, pulls) = self.thread.join().unwrap();
        assert_eq!(leaks, HashSet::new());
        assert_eq!(pulls.len(), 3, "the pulls were not seen: {pulls:?}");
    }
}

/// The files below these places that hold the secret. It goes to grep on standard input.
fn files_with_secret(command: &mut Command) -> String {
    let mut grep = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let patterns = needles().join("\n");
    let mut input = grep.stdin.take().unwrap();
    input.write_all(patterns.as_bytes()).unwrap();
    drop(input);
    String::from_utf8(grep.wait_with_output().unwrap().stdout).unwrap()
}

/// Nothing on any node, in the journal, the reports, or any log holds the secret.
fn assert_nowhere(lab: &Lab, after: &str) {
    let search =
        "exec grep -rlaF -f - /run /dev/shm /var/lib/docker /var/lib/containerd 2>/dev/null";
    for node in lab
        .nodes()
        .iter()
        .map(|node| node.name.as_str())
        .chain(["registry"])
    {
        let found = files_with_secret(&mut lab.on(node, &["sh", "-c", search]));
        assert_eq!(found, "", "on {node} after {after}");
    }
    let here = files_with_secret(
        Command::new("grep")
            .args(["-rlaF", "-f", "-"])
            .arg(&lab.state),
    );
    assert_eq!(here, "", "on the operator's machine after {after}");
}

/// A pull as this user, with everything that talks: verbose, with logs and traces asked for, with reports.
fn pull_as(lab: &Lab, user: &str, arguments: &[&str]) -> Command {
    let reports = ["json", "xml", "html"].map(|kind| lab.file(&format!("report.{kind}")));
    let mut words = vec![
        "pull",
        "--registry-user",
        user,
        "--registry-password-stdin",
        "-v",
        "-o",
        "jsonl",
    ];
    for report in &reports {
        words.extend(["--report", report]);
    }
    words.extend(arguments);
    let mut command = command(lab, &words);
    command
        .env("RUST_LOG", "trace")
        .env("RUST_BACKTRACE", "full");
    command
}

fn assert_silent(run: &Run, after: &str) {
    for text in [&run.stdout, &run.stderr] {
        assert!(!holds_secret(text.as_bytes()), "after {after}: {text}");
    }
}

/// Makes this user known to the registry, where htpasswd takes the password: one line of at most 255 bytes.
fn register(lab: &Lab, user: &str, password: &str) -> bool {
    if password.contains('\n') || password.len() > 255 {
        return false;
    }
    let mut htpasswd = Command::new("htpasswd")
        .args(["-n", "-i", "-B", user])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = htpasswd.stdin.take().unwrap();
    input.write_all(password.as_bytes()).unwrap();
    drop(input);
    let line = htpasswd.wait_with_output().unwrap().stdout;
    assert!(!line.is_empty());
    let mut add = lab
        .on(
            "registry",
            &["sh", "-c", "cat >>/etc/docker/registry/htpasswd"],
        )
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    add.stdin.take().unwrap().write_all(&line).unwrap();
    assert!(add.wait().unwrap().success());
    true
}

#[test]
fn a_password_is_nowhere_whatever_becomes_of_the_run() {
    let lab = lab();
    let nodes = lab.nodes();
    let long = format!("{SENTINEL}{}", "x".repeat(4096));
    let watch = Watch::start();
    for (number, (password, spelling)) in [
        (format!("{SENTINEL} \"'`\\"), "quotes and spaces"),
        (format!("{SENTINEL}$HOME$(id)%s!*;&"), "shell code"),
        (format!(" {SENTINEL}pässwörd→"), "non-ASCII"),
        (format!("first line\n{SENTINEL}\n"), "newlines"),
        (long, "4 KB"),
    ]
    .iter()
    .enumerate()
    {
        let user = format!("user{number}");
        let is_known = register(&lab, &user, password);
        let mut pulling = pull_as(&lab, &user, &["--pull", "always", SMALL]);
        let run = end(start(&mut pulling, &format!("{password}\n")));
        assert_silent(&run, spelling);
        if is_known {
            run.expect(0);
        } else {
            assert!(run.expect(1).stdout.contains("registry-auth"), "{spelling}");
        }
    }
    watch.end();
    assert_nowhere(&lab, "successes and refusals");
    for kind in ["json", "xml", "html"] {
        assert!(lab.state.join(format!("report.{kind}")).exists());
    }

    // Links that are cut and runtimes that are started anew, in the middle of pulls.
    let password = format!("{SENTINEL}'plain");
    assert!(register(&lab, "broken", &password));
    succeed(&mut lab.command(&["registry", "rate", "30mbit"]));
    let watch = Watch::start();
    let patient = [
        "--keepalive",
        "1s",
        "--backoff",
        "1s..2s",
        "--retries",
        "8",
        "--lease",
        "30s",
        APP,
    ];
    let running = start(&mut pull_as(&lab, "broken", &patient), &password);
    all_pulling(&lab, &nodes);
    // Where docker's daemon is asked, no file ever holds the login. Its client has spoken by now, and the login is gone
    // from the node while it goes on.
    assert!(!holds_login(&lab, "node-1"));
    let spoken = Instant::now();
    while holds_login(&lab, "node-3") {
        assert!(spoken.elapsed() < Duration::from_secs(10));
    }
    for node in [&nodes[0], &nodes[2]] {
        assert!(!clients_on(&lab, node).is_empty());
    }
    succeed(&mut lab.command(&["cut", "node-1"]));
    succeed(&mut lab.command(&["cut", "node-2"]));
    succeed(&mut lab.command(&["service", "node-3", "dockerd", "stop"]));
    succeed(&mut lab.command(&["service", "node-4", "containerd", "stop"]));
    std::thread::sleep(Duration::from_secs(3));
    succeed(&mut lab.command(&["service", "node-3", "dockerd", "start"]));
    succeed(&mut lab.command(&["service", "node-4", "containerd", "start"]));
    succeed(&mut lab.command(&["registry", "rate", "off"]));
    succeed(&mut lab.command(&["mend", "node-1"]));
    succeed(&mut lab.command(&["mend", "node-2"]));
    let run = end(running);
    assert_silent(&run, "cut links");
    run.expect(0);
    watch.end();
    assert_nowhere(&lab, "cut links and restarts");

    // SIGKILL: nobody cleans up but the nodes themselves, when the lease is over.
    for node in &nodes {
        forget_images(&lab, node);
    }
    succeed(&mut lab.command(&["registry", "rate", "30mbit"]));
    let arguments = ["--lease", "10s", APP];
    let mut running = start(&mut pull_as(&lab, "broken", &arguments), &password);
    all_pulling(&lab, &nodes);
    running.kill().unwrap();
    let killed = end(running);
    assert_silent(&killed, "SIGKILL");
    let began = Instant::now();
    while nodes.iter().any(|node| !left_on(&lab, node).is_empty()) {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "pulls stay behind"
        );
        std::thread::sleep(Duration::from_millis(500));
    }
    assert_nowhere(&lab, "SIGKILL");

    // Nodes that go down in the middle of a pull, and come back.
    for node in &nodes {
        forget_images(&lab, node);
    }
    let running = start(&mut pull_as(&lab, "broken", &patient), &password);
    all_pulling(&lab, &nodes);
    for action in ["down", "up"] {
        for node in &nodes[..2] {
            succeed(&mut lab.command(&[action, &node.name]));
        }
    }
    succeed(&mut lab.command(&["registry", "rate", "off"]));
    let run = end(running);
    assert_silent(&run, "reboots");
    run.expect(0);
    assert_nowhere(&lab, "reboots");
}

/// Whether a file in a node's memory holds the secret.
fn holds_login(lab: &Lab, node: &str) -> bool {
    let search = "exec grep -rlaF -f - /run /dev/shm 2>/dev/null";
    !files_with_secret(&mut lab.on(node, &["sh", "-c", search])).is_empty()
}

/// Gives a wrong password first, then the right one; notes each question.
const HELPER: &str = r#"#!/bin/sh
cat >/dev/null
echo "$1" >>"$HOME/asked"
[ "$(wc -l <"$HOME/asked")" -gt 1 ] || { echo '{"Username":"ci","Secret":"no longer"}'; exit; }
printf '{"Username":"ci","Secret":"%s"}' "$(sed 's/["\\]/\\&/g' "$LAB_STATE/password")"
"#;

#[test]
fn a_login_that_the_registry_refuses_is_asked_of_the_helper_again_once_for_all_nodes() {
    let lab = lab();
    let folder = tempfile::tempdir().unwrap();
    let helper = folder.path().join("docker-credential-cloud");
    std::fs::write(&helper, HELPER).unwrap();
    succeed(Command::new("chmod").arg("755").arg(&helper));
    let config = folder.path().join("config.json");
    std::fs::write(&config, r#"{"credHelpers":{"registry.lab:5000":"cloud"}}"#).unwrap();
    let path = format!(
        "{}:{}",
        folder.path().display(),
        std::env::var("PATH").unwrap()
    );
    let auth_file = config.to_str().unwrap();
    // No node is reached before the first answer is no longer fresh.
    for node in lab.nodes() {
        succeed(&mut lab.command(&["service", &node.name, "sshd", "stop"]));
    }
    let arguments = [
        "pull",
        "--auth-file",
        auth_file,
        "--retries",
        "60",
        "--backoff",
        "1s..1s",
        "-o",
        "json",
        SMALL,
    ];
    let mut pulling = command(&lab, &arguments);
    pulling.env("PATH", path).env("HOME", folder.path());
    let running = start(&mut pulling, "");
    std::thread::sleep(Duration::from_secs(12));
    for node in lab.nodes() {
        succeed(&mut lab.command(&["service", &node.name, "sshd", "start"]));
    }
    let document = end(running).expect(0).json();
    assert_eq!(document["summary"]["pulled"], 4, "{document:#}");
    assert!(kinds_of_attempts(&document).contains("registry-auth"));
    let asked = std::fs::read_to_string(folder.path().join("asked")).unwrap();
    assert_eq!(asked, "get\nget\n");
}

/// The kinds of failures of all attempts.
fn kinds_of_attempts(document: &serde_json::Value) -> HashSet<String> {
    let list = |value: &serde_json::Value| value.as_array().unwrap().clone();
    let outcomes = list(&document["nodes"])
        .into_iter()
        .flat_map(|node| list(&node["outcomes"]));
    let attempts = outcomes.flat_map(|outcome| list(&outcome["attempts"]));
    attempts
        .filter_map(|attempt| Some(attempt["failure"]["kind"].as_str()?.to_string()))
        .collect()
}

/// A process that waits for its input is ended by a signal that dumps core, where dumps are allowed.
#[test]
fn no_core_is_dumped() {
    let folder = tempfile::tempdir().unwrap();
    let script = "ulimit -c unlimited; exec \"$0\" pull -F none -H 127.0.0.1 -u ops --no-journal --registry-user ci --registry-password-stdin reg.example/app";
    let mut waiting = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_prepull")])
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let limits = format!("/proc/{}/limits", waiting.id());
    let is_hardened = || {
        let limits = std::fs::read_to_string(&limits).unwrap();
        let core = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"));
        core.unwrap().split_whitespace().nth(4) == Some("0")
    };
    let began = Instant::now();
    while !is_hardened() {
        assert!(began.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(200));
    // No QUIT: what a shell starts in the background ignores it, this test and its children, too.
    succeed(Command::new("kill").args(["-s", "ABRT", &waiting.id().to_string()]));
    let status = waiting.wait().unwrap();
    assert_eq!(status.signal(), Some(6));
    assert!(!status.core_dumped());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// Files that a shell makes of a command are read by way of /proc, which a process that hides its memory may not use
/// as freely: it has to work for a plain user all the same.
#[test]
fn a_plain_user_can_give_an_inventory_by_process_substitution() {
    let script = "exec \"$0\" nodes -F none -u ops -i <(echo n1) -o name";
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("prepull");
    std::fs::copy(env!("CARGO_BIN_EXE_prepull"), &program).unwrap();
    succeed(
        Command::new("chmod")
            .arg("755")
            .arg(folder.path())
            .arg(&program),
    );
    let names = succeed(
        Command::new("setpriv")
            .args([
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "bash",
                "-c",
                script,
            ])
            .arg(&program)
            .env("HOME", "/nonexistent"),
    );
    assert_eq!(names, "n1\n");
}
