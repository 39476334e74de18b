//! The binary as a user meets it: what it prints and its exit status, without a node.

#![allow(clippy::unwrap_used)] // a test file: a panic is a failed test

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

const EXAMPLE: &str = "\
defaults:
  user: ops
groups:
  gpu:
    runtime: crictl
    jump: bastion.example
    labels: {pool: gpu}
    nodes:
      - gpu[01-02].dc1.example
      - name: gpu17
        address: 10.0.7.17
        port: 2222
nodes:
  - edge-1.example
";

/// A directory to run in, with a home of its own and nothing of the tester's environment.
struct Desk {
    directory: TempDir,
}

impl Desk {
    fn new() -> Self {
        Self {
            directory: TempDir::new().unwrap(),
        }
    }

    fn with(files: &[(&str, &str)]) -> Self {
        let desk = Self::new();
        for (name, content) in files {
            std::fs::write(desk.path().join(name), content).unwrap();
        }
        desk
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn run(&self, arguments: &[&str]) -> String {
        self.run_with(arguments, "")
    }

    /// Runs prepull and writes down all that came of it.
    fn run_with(&self, arguments: &[&str], input: &str) -> String {
        let mut arguments = arguments.to_vec();
        // Nothing of this machine's own ssh_config.
        if !arguments.contains(&"-F") && !arguments.contains(&"--help") {
            arguments.splice(1..1, ["-F", "none"]);
        }
        let mut child = Command::new(env!("CARGO_BIN_EXE_prepull"))
            .args(arguments)
            .current_dir(self.path())
            .env_clear()
            .env("HOME", self.path())
            .env(
                "PATH",
                format!("{}/bin:/usr/bin:/bin", self.path().display()),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A program that stops before it reads its input is what some of these tests are about.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let mut seen = format!("status: {}\n", output.status.code().unwrap());
        for (name, bytes) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
            if !bytes.is_empty() {
                let text = String::from_utf8(bytes.clone()).unwrap();
                let text = text.replace(self.path().to_str().unwrap(), "HOME");
                write!(seen, "--- {name}\n{text}").unwrap();
            }
        }
        seen
    }
}

macro_rules! snapshot {
    ($name:literal, $seen:expr) => {
        insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!($name, $seen);
        });
    };
}

#[test]
fn help_starts_with_what_it_is_for() {
    snapshot!("help", Desk::new().run(&["--help"]));
    snapshot!("help_pull", Desk::new().run(&["pull", "--help"]));
}

#[test]
fn a_mistyped_option_gets_a_suggestion() {
    snapshot!(
        "mistyped_option",
        Desk::new().run(&["pull", "--paralel", "3", "app:v1"])
    );
}

#[test]
fn without_nodes_nothing_happens() {
    snapshot!("no_nodes", Desk::new().run(&["pull", "app:v1"]));
}

#[test]
fn what_people_from_ansible_write_is_told_in_prepulls_words() {
    let desk = Desk::with(&[("nodes.yml", "nodes: [a, b]\n"), ("app.v1", "")]);
    for (arguments, told) in [
        (
            &["pull", "-i", "nodes.yml", "-l", "docker", "app:v1"][..],
            "for nodes and groups of an inventory write --limit 'docker'",
        ),
        (
            &["check", "-i", "node-1,node-2", "app:v1"],
            "nodes by their names are given with -H 'node-1,node-2'",
        ),
        (&["nodes", "-i", "node-1,"], "with -H 'node-1'"),
        (
            &["pull", "nodes.yml", "app:v1"],
            "nodes.yml is a file, and not an image: an inventory is given with -i nodes.yml",
        ),
        (
            &["nodes", "-i", "nodes.yml", "--limit", "elsewhere"],
            "\"elsewhere\" matches no node and no group; the nodes are: a, b",
        ),
        (
            &["pull", "-H", "a", "-p", "0", "app:v1"],
            "it must be at least 1",
        ),
        (
            &["pull", "-H", "a", "--retries", "many", "app:v1"],
            "write a whole number",
        ),
        (
            &["pull", "-H", "a", "--port", "99999", "app:v1"],
            "write a port from 1 to 65535",
        ),
        (
            &["pull", "-H", "a", "--deadline", "500000000000y", "app:v1"],
            "it must be at most 10y",
        ),
    ] {
        let said = desk.run(arguments);
        assert!(said.starts_with("status: 2\n"), "{arguments:?}: {said}");
        assert!(said.contains(told), "{told} in {said}");
        assert!(!said.contains("..="), "{said}");
    }
    // An image may be called like a file.
    let said = desk.run(&["pull", "-n", "-i", "nodes.yml", "app.v1"]);
    assert!(said.starts_with("status: 0\n"), "{said}");
}

#[test]
fn the_greatest_values_are_no_reason_to_panic() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = closed.local_addr().unwrap().port().to_string();
    drop(closed);
    let desk = Desk::new();
    let most = u32::MAX.to_string();
    let all = [
        ("--deadline", "10y"),
        ("--connect-timeout", "10y"),
        ("--keepalive", "10y"),
        ("--backoff", "0..10y"),
        ("--lease", "10y"),
        ("--pull-timeout", "10y"),
        ("--stall-timeout", "10y"),
        ("--min-rate", "999999GB"),
        ("--parallel", &most),
        ("--canary", &most),
        ("--per-registry", &most),
        ("--max-failures", "18446744073709551615"),
        ("--waves", "18446744073709551615"),
    ];
    let options: Vec<&str> = all
        .iter()
        .flat_map(|(name, value)| [*name, *value])
        .collect();
    let usual = ["pull", "-H", "127.0.0.1", "--port", &port, "app:v1"];
    let once = [&usual[..], &options, &["--retries", "0"]].concat();
    let said = desk.run(&once);
    assert!(said.contains("unreachable"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    // ssh counts up to this many seconds.
    let config = "ConnectTimeout 2147483647\nServerAliveInterval 2147483647\n";
    let desk = Desk::with(&[("config", config)]);
    let said = desk.run(&[&usual[..], &["-F", "config", "--retries", "0"]].concat());
    assert!(said.contains("unreachable"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    // With all retries there are it goes on until the deadline.
    let again = [
        "--retries",
        &most,
        "--backoff",
        "0..1ms",
        "--deadline",
        "300ms",
    ];
    let said = desk.run(&[&usual[..], &again].concat());
    assert!(said.starts_with("status: 3\n"), "{said}");
}

#[test]
fn a_malformed_image_is_found_before_anything_else() {
    snapshot!(
        "malformed_image",
        Desk::new().run(&["pull", "-i", "missing.yml", "reg.example/Team/App:v1"])
    );
}

#[test]
fn what_can_only_be_sent_through_ssh_wants_that() {
    let desk = Desk::with(&[("empty.tar", "")]);
    for (arguments, said) in [
        (&["--from", "oci:images"][..], "add --via ssh-only"),
        (&["--upload-limit", "50MB"], "without --via ssh"),
        (&["--via", "ssh", "--from", "images.tar"], "write oci:DIR"),
        (
            &["--via", "scp"],
            "possible values: registry, ssh, ssh-only",
        ),
        (&["--via", "ssh-only", "--from", "oci:missing"], "missing"),
        (
            &["--via", "ssh-only", "--from", "docker-archive:empty.tar"],
            "it has no manifest.json, which docker save writes",
        ),
    ] {
        let command = ["pull", "-H", "ops@127.0.0.1:1", "--retries", "0", "app:v1"];
        let seen = desk.run(&[&command[..], arguments].concat());
        assert!(seen.starts_with("status: 2\n"), "{arguments:?}: {seen}");
        assert!(seen.contains(said), "{arguments:?}: {seen}");
    }
}

#[test]
fn an_image_is_named_once() {
    snapshot!(
        "image_twice",
        Desk::new().run(&[
            "check",
            "-H",
            "a",
            "nginx",
            "docker.io/library/nginx:latest"
        ])
    );
}

#[test]
fn a_missing_inventory_is_named() {
    snapshot!(
        "missing_inventory",
        Desk::new().run(&["nodes", "-i", "missing.yml"])
    );
    snapshot!(
        "missing_limit",
        Desk::new().run(&["nodes", "-H", "a", "--limit", "@failed.txt"])
    );
}

#[test]
fn a_malformed_inventory_is_named_with_its_place() {
    let desk = Desk::with(&[("nodes.yml", "nodes:\n  - name: a\n    adress: 10.0.0.1\n")]);
    snapshot!(
        "malformed_inventory",
        desk.run(&["pull", "-i", "nodes.yml", "app:v1"])
    );
}

#[test]
fn a_bad_host_expression_is_named_with_its_place() {
    snapshot!(
        "bad_expression",
        Desk::new().run(&["nodes", "-H", "worker[5-1]"])
    );
}

#[test]
fn the_fleet_is_shown_as_a_table() {
    let desk = Desk::with(&[("nodes.yml", EXAMPLE)]);
    snapshot!("nodes_table", desk.run(&["nodes", "-i", "nodes.yml"]));
}

#[test]
fn the_fleet_is_shown_as_json() {
    let desk = Desk::with(&[("nodes.yml", EXAMPLE)]);
    let arguments = [
        "nodes",
        "-i",
        "nodes.yml",
        "-o",
        "json",
        "-u",
        "root",
        "--port",
        "22",
    ];
    snapshot!("nodes_json", desk.run(&arguments));
}

const SSH_CONFIG: &str = "\
Host web*
    HostName %h.dc1.example
    User deploy
    Port 2222
    IdentityFile ~/no_such_key
    ProxyJump bastion
Host bastion
    HostName 10.0.0.1
    User jumper
Host odd
    ProxyCommand nc %h %p
Host loose
    StrictHostKeyChecking no
    Ciphers aes128-ctr
";

#[test]
fn ssh_config_stands_behind_the_inventory() {
    let inventory = "nodes: [web1, {name: web2, address: 10.0.0.2, user: root, jump: bastion}, {name: web3, jump: none}]\n";
    let desk = Desk::with(&[("config", SSH_CONFIG), ("nodes.yml", inventory)]);
    snapshot!(
        "ssh_config",
        desk.run(&["nodes", "-F", "config", "-i", "nodes.yml"])
    );
    snapshot!(
        "ssh_config_command_line",
        desk.run(&[
            "nodes",
            "-F",
            "config",
            "-i",
            "nodes.yml",
            "-u",
            "ops",
            "--port",
            "22",
            "-J",
            "ops@way"
        ])
    );
}

#[test]
fn what_ssh_config_says_and_prepull_does_not_do_is_refused_or_named() {
    let desk = Desk::with(&[("config", SSH_CONFIG), ("wrong", "Host a\n  Hostnam b\n")]);
    let loose = desk.run(&["nodes", "-F", "config", "-H", "loose"]);
    assert!(loose.starts_with("status: 0\n"), "{loose}");
    assert!(loose.contains("any host key is taken"), "{loose}");
    snapshot!(
        "ssh_config_wrong",
        desk.run(&["nodes", "-F", "wrong", "-H", "a"])
    );
    snapshot!(
        "ssh_config_missing",
        desk.run(&["nodes", "-F", "missing", "-H", "a"])
    );
}

#[test]
fn an_inventory_can_come_from_standard_input() {
    let seen = Desk::new().run_with(&["nodes", "-i", "-", "-u", "ops"], "nodes: [a, b]\n");
    assert!(seen.starts_with("status: 0\n"), "{seen}");
    assert!(seen.contains("a ") && seen.contains("b "), "{seen}");
}

#[test]
fn standard_input_has_one_reader() {
    let arguments = [
        "pull",
        "-i",
        "-",
        "--registry-user",
        "ci",
        "--registry-password-stdin",
        "app:v1",
    ];
    snapshot!("stdin_twice", Desk::new().run(&arguments));
}

#[test]
fn a_plan_is_shown_without_a_connection_or_a_password() {
    let desk = Desk::with(&[("nodes.yml", EXAMPLE)]);
    let arguments = [
        "pull",
        "-n",
        "-i",
        "nodes.yml",
        "--registry-user",
        "ci",
        "--waves",
        "1,100%",
        "reg.example/app:v1",
    ];
    snapshot!("dry_run", desk.run(&arguments));
}

#[test]
fn a_plan_in_json_never_holds_the_password() {
    let desk = Desk::with(&[("nodes.yml", EXAMPLE)]);
    let arguments = [
        "pull",
        "-n",
        "-o",
        "json",
        "-i",
        "nodes.yml",
        "--registry-user",
        "ci",
        "--registry-password-stdin",
        "reg.example/app:v1",
    ];
    let seen = desk.run_with(&arguments, "hunter2\n");
    assert!(
        !seen.contains("hunter2") && !seen.contains("Y2k6aHVudGVyMg"),
        "{seen}"
    );
    snapshot!("dry_run_json", seen);
}

/// The fleet as YAML is an inventory that means the same.
#[test]
fn the_fleet_can_be_written_as_an_inventory() {
    let with_more = EXAMPLE.replace(
        "  - edge-1.example\n",
        "  - {name: edge-1.example, become: true, runtime_endpoint: /run/x.sock, identity: [a, b], labels: {a: 'x:y'}}\n  - '2001:db8::7'\n",
    );
    let desk = Desk::with(&[("nodes.yml", &with_more)]);
    let json = |inventory: &str| {
        let seen = desk.run(&["nodes", "-i", inventory, "-o", "json"]);
        let json = seen.strip_prefix("status: 0\n--- stdout\n").unwrap();
        let json: serde_json::Value = serde_json::from_str(json).unwrap();
        let mut nodes = json["nodes"].as_array().unwrap().clone();
        nodes.sort_by_key(|node| node["name"].as_str().unwrap().to_string());
        nodes
    };
    let seen = desk.run(&["nodes", "-i", "nodes.yml", "-o", "yaml"]);
    let yaml = seen.strip_prefix("status: 0\n--- stdout\n").unwrap();
    let yaml = yaml.replace("HOME", desk.path().to_str().unwrap());
    std::fs::write(desk.path().join("again.yml"), yaml).unwrap();
    assert_eq!(json("again.yml"), json("nodes.yml"));

    let names = desk.run(&["nodes", "-i", "nodes.yml", "-o", "name"]);
    assert!(
        names.contains("\ngpu01.dc1.example\ngpu02.dc1.example\n"),
        "{names}"
    );
    let wide = desk.run(&["nodes", "-i", "nodes.yml", "-o", "wide"]);
    assert!(
        wide.contains("LABELS") && wide.contains("pool=gpu"),
        "{wide}"
    );
}

#[test]
fn images_come_out_of_manifests() {
    let web = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {template: {spec: {containers: [{image: 'reg.example/web:v1'}]}}}\n";
    let job = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: j}\nspec: {template: {spec: {containers: [{image: job:2}, {image: 'reg.example/web:v1'}]}}}\n";
    let desk = Desk::with(&[("web.yaml", web), ("bad.txt", "{{ x }}")]);
    std::fs::create_dir(desk.path().join("more")).unwrap();
    std::fs::write(desk.path().join("more/job.yml"), job).unwrap();
    let images = |arguments: &[&str], input: &str| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_prepull"))
            .arg("images")
            .args(arguments)
            .current_dir(desk.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.code().unwrap(),
            String::from_utf8(text).unwrap(),
        )
    };
    let all = "reg.example/web:v1\ndocker.io/library/job:2\n";
    assert_eq!(
        images(&["-f", "web.yaml", "-f", "more"], ""),
        (0, all.into())
    );
    assert_eq!(
        images(&["-f", "-"], &format!("{web}---\n{job}")),
        (0, all.into())
    );
    assert_eq!(images(&["-f", "."], "").1.lines().count(), 2);
    let (_, wide) = images(&["-f", ".", "-o", "wide"], "");
    assert!(
        wide.contains("web.yaml:4:") && wide.contains("Job/j"),
        "{wide}"
    );
    let (_, json) = images(&["-f", "web.yaml", "-o", "json"], "");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["images"][0]["reference"], "reg.example/web:v1");
    let (status, error) = images(&["-f", "bad.txt"], "");
    assert!(
        status == 2 && error.contains("bad.txt:1: this is a template"),
        "{error}"
    );

    let plan = desk.run(&[
        "pull",
        "-n",
        "-H",
        "n1",
        "-u",
        "ops",
        "--manifests",
        ".",
        "other:3",
    ]);
    assert!(
        plan.contains("other:3") && plan.contains("reg.example/web:v1"),
        "{plan}"
    );
    let widget = "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w}\nspec: {image: 'reg.example/w:1'}\n";
    let (status, shown) = images(&["-f", "-"], widget);
    let place = "standard input:4:15 Widget/w: spec.image";
    assert!(
        status == 0 && shown.starts_with("reg.example/w:1\n") && shown.contains(place),
        "{shown}"
    );
    let (status, shown) = images(&["-f", "-", "--images-strict"], widget);
    assert!(
        status == 2 && shown.contains(place) && !shown.starts_with("reg"),
        "{shown}"
    );
    let (status, shown) = images(&["-f", "-", "-o", "json"], widget);
    let json: serde_json::Value =
        serde_json::from_str(shown.split("prepull: ").next().unwrap()).unwrap();
    let warning = json["warnings"][0].as_str().unwrap();
    assert!(status == 0 && warning.starts_with(place), "{shown}");
    let gateway =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: g}\nspec: {containers: [{image: auto}]}\n";
    std::fs::write(desk.path().join("gateway.yml"), gateway).unwrap();
    let plan = ["pull", "-n", "-H", "n1", "-u", "ops", "--manifests"];
    let shown = desk.run(&[&plan[..], &["gateway.yml", "other:3"]].concat());
    assert!(
        shown.contains("warning: gateway.yml:4:29 Pod/g")
            && shown.contains("other:3")
            && !shown.contains("library/auto"),
        "{shown}"
    );
    let shown = desk.run(&[&plan[..], &["gateway.yml"]].concat());
    assert!(shown.contains("name no image that a node pulls"), "{shown}");
    let shown = desk.run(&[&plan[..], &["gateway.yml", "other:3", "--images-strict"]].concat());
    assert!(
        shown.contains("--images-strict") && shown.contains("gateway.yml:4:29"),
        "{shown}"
    );
    let both = ["pull", "-n", "-i", "-", "-u", "ops", "--manifests", "-"];
    assert!(desk.run(&both).contains("standard input can be read once"));
}

/// A helper that knows one registry, fails for another, and writes down what it is asked.
const HELPER: &str = r#"#!/bin/sh
read -r server
echo "$1 $server" >>"$HOME/asked"
case $server in
    cloud.example) printf '{"ServerURL":"cloud.example","Username":"AWS","Secret":"hunter2"}' ;;
    https://index.docker.io/v1/) printf '{"Username":"hub","Secret":"hunter2"}' ;;
    token.example) printf '{"Username":"<token>","Secret":"hunter2"}' ;;
    odd.example) echo hunter2 ;;
    broken.example) echo 'no network' >&2; exit 1 ;;
    silent.example) exit 3 ;;
    late.example) printf '{"ServerURL":"x","Username":"ci","Secret":"hunter2"}'; exit 1 ;;
    torn.example) printf '{"ServerURL":"x","Secret":"hunter2'; exit 1 ;;
    bare.example) echo hunter2; exit 1 ;;
    tee.example) printf '{"Username":"ci","Secret":"hunter2"}' | tee /dev/stderr; echo 'gave Y2k6aHVudGVyMg== to hunter2' >&2; exit 1 ;;
    trace.example) printf '{"Username":"ci","Secret":"correct horse"}'; echo "+ curl -u ci:'correct horse' is correct horse" >&2; exit 1 ;;
    env.example) echo 'AWS_SECRET_ACCESS_KEY=hunter2 password: hunter2 --token hunter2' >&2; exit 1 ;;
    escape.example) printf 'no \033[2Jnetwork\n' >&2; exit 1 ;;
    *) echo 'credentials not found in native keychain'; exit 1 ;;
esac
"#;

#[test]
fn a_credential_helper_is_asked_as_docker_asks_it() {
    let auths = r#"{"auths":{"cloud.example":{},"own.example":{"auth":"b3duOng="}},
        "credHelpers":{"cloud.example":"fake"},"credsStore":"fake"}"#;
    let desk = Desk::with(&[("config.json", auths)]);
    let folder = desk.path().join("bin");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("docker-credential-fake.sh"), HELPER).unwrap();
    // Another process makes it executable under its name: ours may not hold it open for writing meanwhile.
    let install =
        "cp docker-credential-fake.sh docker-credential-fake && chmod +x docker-credential-fake";
    let made = Command::new("sh")
        .args(["-c", install])
        .current_dir(&folder)
        .status();
    assert!(made.unwrap().success());
    let plan = |images: &[&str]| {
        let options = [
            "pull",
            "-n",
            "-H",
            "n1",
            "-u",
            "ops",
            "--auth-file",
            "config.json",
        ];
        desk.run(&[&options[..], images].concat())
    };
    let seen = plan(&[
        "cloud.example/a:v1",
        "cloud.example/b:v1",
        "nginx",
        "own.example/app:v1",
        "none.example/app:v1",
        "token.example/app:v1",
    ]);
    for part in [
        "cloud.example/a:v1 from cloud.example (as AWS: docker-credential-fake, named in config.json)",
        "cloud.example/b:v1 from cloud.example (as AWS: ",
        "docker.io/library/nginx:latest from docker.io (as hub: ",
        "token.example/app:v1 from token.example (as the owner of a token: ",
        // As with docker, an entry beside a helper for all registries does not count.
        "own.example/app:v1 from own.example (no login found: the node's own is used)",
        "none.example/app:v1 from none.example (no login found: ",
    ] {
        assert!(seen.contains(part), "{part}: {seen}");
    }
    assert!(!seen.contains("hunter2"), "{seen}");
    let asked = std::fs::read_to_string(desk.path().join("asked")).unwrap();
    assert_eq!(asked.matches("get cloud.example\n").count(), 1, "{asked}");
    for (registry, part) in [
        (
            "broken.example",
            "docker-credential-fake failed (exit status: 1): no network",
        ),
        ("odd.example", "printed something other than a login"),
        ("silent.example", "failed (exit status: 3) and said nothing"),
        // What a helper prints where logins are printed is never shown, and of its other words no secret is.
        (
            "late.example",
            "failed (exit status: 1). What it printed is not shown, as it may hold a login",
        ),
        ("torn.example", "What it printed is not shown"),
        ("bare.example", "What it printed is not shown"),
        ("tee.example", "failed (exit status: 1): [redacted]"),
        (
            "trace.example",
            "failed (exit status: 1): + curl -u ci:'[redacted]' is [redacted];",
        ),
        (
            "env.example",
            "AWS_SECRET_ACCESS_KEY=[redacted] password: [redacted]",
        ),
        ("escape.example", "no \\u{1b}[2Jnetwork"),
    ] {
        let seen = plan(&[&format!("{registry}/app:v1")]);
        assert!(
            seen.starts_with("status: 2") && seen.contains(part),
            "{seen}"
        );
        assert!(
            seen.contains("--no-auth") && !seen.contains("hunter2"),
            "{seen}"
        );
        assert!(
            !seen.contains("correct horse") && !seen.contains("Y2k6aHVudGVyMg"),
            "{seen}"
        );
    }
}

#[test]
fn a_password_for_several_registries_has_to_be_told_for_which() {
    let chart = "kind: Pod\nspec:\n  containers:\n    - image: reg.example/app:v1\n    - image: metrics.evil.example/agent\n    - image: nginx\n";
    let desk = Desk::with(&[("chart.yml", chart)]);
    let pull = |more: &[&str]| {
        let options = [
            "pull",
            "-n",
            "-H",
            "ops@a",
            "--manifests",
            "chart.yml",
            "--registry-user",
            "ci",
            "--registry-password-stdin",
        ];
        desk.run_with(&[&options[..], more].concat(), "hunter2\n")
    };
    let seen = pull(&[]);
    assert!(seen.starts_with("status: 2\n"), "{seen}");
    assert!(
        seen.contains("docker.io, metrics.evil.example, reg.example")
            && seen.contains("--registry"),
        "{seen}"
    );
    let seen = pull(&["--registry", "reg.example"]);
    assert!(seen.starts_with("status: 0\n"), "{seen}");
    assert_eq!(seen.matches("as ci").count(), 1, "{seen}");
    assert!(
        seen.contains("reg.example/app:v1 from reg.example (as ci: "),
        "{seen}"
    );
}

#[test]
fn a_file_without_logins_gets_a_warning_and_the_old_form_is_read() {
    let old = r#"{"reg.example":{"auth":"Y2k6czNjcmV0","email":"a@example.com"}}"#;
    let desk = Desk::with(&[
        ("dockercfg", old),
        ("empty", ""),
        ("other", "{\"auth\": {}}"),
    ]);
    let plan = |file: &str| {
        desk.run(&[
            "pull",
            "-n",
            "-H",
            "n1",
            "-u",
            "ops",
            "--auth-file",
            file,
            "reg.example/a",
        ])
    };
    let seen = plan("dockercfg");
    assert!(
        seen.contains("(as ci: dockercfg)") && !seen.contains("warning"),
        "{seen}"
    );
    for file in ["empty", "other"] {
        let seen = plan(file);
        assert!(
            seen.contains(&format!(
                "warning: {file}: it holds no registry login: it has neither \"auths\""
            )),
            "{seen}"
        );
    }
    std::fs::rename(
        desk.path().join("dockercfg"),
        desk.path().join(".dockercfg"),
    )
    .unwrap();
    let seen = desk.run(&["pull", "-n", "-H", "n1", "-u", "ops", "reg.example/a"]);
    assert!(
        seen.contains("(as ci: ") && seen.contains(".dockercfg)"),
        "{seen}"
    );
}

#[test]
fn the_deadline_holds_while_registries_are_asked() {
    // They take connections and never answer.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let registry = silent.local_addr().unwrap().to_string();
    let desk = Desk::new();
    let images: Vec<String> = (0..8)
        .map(|number| format!("{registry}/app{number}:v1"))
        .collect();
    let options = [
        "pull",
        "-H",
        "ops@127.0.0.1:1",
        "--preflight",
        "--deadline",
        "4s",
        "--no-journal",
        "--host-keys",
        "off",
    ];
    let arguments: Vec<&str> = options
        .into_iter()
        .chain(images.iter().map(String::as_str))
        .collect();
    let began = std::time::Instant::now();
    let seen = desk.run(&arguments);
    assert!(began.elapsed().as_secs() < 25, "{seen}");
    assert!(
        seen.contains(&format!(
            "asking {registry} for the size of 8 images, for at most 2.0s"
        )),
        "{seen}"
    );
    assert!(
        seen.contains(&format!("{registry} did not tell within 2.0s")),
        "{seen}"
    );
    assert!(seen.contains("and 5 more is not known"), "{seen}");
}

#[test]
fn without_a_terminal_the_password_comes_from_standard_input() {
    let seen = Desk::new().run(&[
        "pull",
        "-H",
        "ops@a",
        "--registry-user",
        "ci",
        "reg.example/app:v1",
    ]);
    assert!(seen.starts_with("status: 2\n"), "{seen}");
    assert!(seen.contains("--registry-password-stdin"), "{seen}");
}

/// The mode is checked before anything is connected to.
#[test]
fn a_password_file_that_others_may_read_is_refused_with_its_option() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("password");
    std::fs::write(&path, "s3cret").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let path = path.to_str().unwrap();
    for option in ["--ssh-password-file", "--become-password-file"] {
        let seen = Desk::new().run(&["exec", "-H", "a", option, path, "--", "true"]);
        assert!(seen.starts_with("status: 2\n"), "{seen}");
        for part in [option, "its mode is 0644", "chmod 600"] {
            assert!(seen.contains(part), "{seen}");
        }
        assert!(!seen.contains("s3cret"), "{seen}");
    }
    let login = ["--registry-user", "ci", "--registry-password-file", path];
    let pull = ["pull", "-H", "a", "reg.example/app:v1"];
    let seen = Desk::new().run(&[&pull[..], &login[..]].concat());
    assert!(
        seen.contains("--registry-password-file: cannot take a password"),
        "{seen}"
    );
}

#[test]
fn a_dry_run_asks_for_no_password_for_sudo() {
    let seen = Desk::new().run(&["exec", "-n", "-H", "a", "-K", "--", "true"]);
    assert!(seen.starts_with("status: 0\n"), "{seen}");
}

#[test]
fn an_identity_that_is_not_there_stops_the_run_before_it_starts() {
    let desk = Desk::new();
    snapshot!(
        "missing_identity",
        desk.run(&["check", "-H", "ops@a", "--identity", "id_missing", "app:v1"])
    );
}

#[test]
fn a_node_that_nobody_answers_for_is_unreachable() {
    // Port 1 of this machine: nothing listens there.
    let arguments = [
        "pull",
        "-H",
        "ops@127.0.0.1:1",
        "--retries",
        "1",
        "--backoff",
        "1ms..2ms",
        "-o",
        "json",
        "app:v1",
    ];
    let seen = Desk::new().run(&arguments);
    assert!(seen.starts_with("status: 1\n"), "{seen}");
    let json = &seen[seen.find('{').unwrap()..=seen.rfind('}').unwrap()];
    let document: serde_json::Value = serde_json::from_str(json).unwrap();
    let outcome = &document["nodes"][0]["outcomes"][0];
    assert_eq!(outcome["status"], "failed", "{seen}");
    assert_eq!(outcome["failure"]["kind"], "unreachable", "{seen}");
    assert_eq!(outcome["attempts"].as_array().unwrap().len(), 2, "{seen}");
    assert_eq!(document["summary"]["failed"], 1, "{seen}");
}

/// `exec` on 250 nodes at one time that nobody answers for, with so many files (as `ulimit` says): all that was printed.
fn many_nodes_with(limits: &str) -> String {
    let script = format!(
        "ulimit {limits}; exec \"$0\" exec -F none -H 'ops@127.0.0.[1-250]:1' -p 250 --retries 0 -o json -- true 2>&1"
    );
    let desk = Desk::new();
    let output = Command::new("sh")
        .args(["-c", &script, env!("CARGO_BIN_EXE_prepull")])
        .env_clear()
        .env("HOME", desk.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn no_more_nodes_are_at_work_than_files_can_be_open() {
    let seen = many_nodes_with("-n 200");
    let warning = "250 nodes at one time need about 628 open files, and this process may have 200: only 36 are at work";
    assert!(seen.contains(warning), "{seen}");
    assert_eq!(seen.matches("refused").count() / 2, 250, "{seen}");
}

#[test]
fn the_limit_of_open_files_is_raised_as_far_as_the_system_allows() {
    let seen = many_nodes_with("-Hn 1024; ulimit -Sn 100");
    assert!(!seen.contains("open files"), "{seen}");
    assert_eq!(seen.matches("refused").count() / 2, 250, "{seen}");
}
