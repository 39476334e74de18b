//! How long inventories of each format take to become a fleet, and how much memory: the budget is 150 ms for
//! 10,000 nodes. `cargo bench --bench inventory` prints the tables.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // no part of the program: a panic is a failed measurement

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use prepull::inventory::{NodeSettings, Selection, Source, built_in, load_selected};

/// Each measurement is repeated so often; the best and the middle one are shown.
const REPEATS: usize = 9;
/// Nodes that share a group.
const GROUP: usize = 100;
/// Host blocks of the ssh_config.
const HOST_BLOCKS: usize = 200;

/// Writes an inventory of so many nodes.
type Writer = fn(usize) -> String;

const FORMATS: &[(&str, Writer)] = &[
    ("prepull.yml", native),
    ("ansible.yml", ansible_yaml),
    ("ansible.ini", ansible_ini),
    ("executable", executable),
    ("lines", lines),
    ("expressions", expressions),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        // Memory is that of a process, so each measurement is one.
        [word, format, path] if word == "measure" => measure(format, Path::new(path)),
        _ => tables(),
    }
}

fn tables() {
    let folder = tempfile::tempdir().unwrap();
    let mut paths = Vec::new();
    println!(
        "| format | nodes | best ms | middle ms | peak KiB |\n| --- | ---: | ---: | ---: | ---: |"
    );
    for (format, text) in FORMATS {
        for nodes in [1_000, 10_000, 50_000] {
            let path = folder.path().join(format!("{format}-{nodes}"));
            fs::write(&path, text(nodes)).unwrap();
            let mode = if *format == "executable" {
                0o755
            } else {
                0o644
            };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let this = std::env::current_exe().unwrap();
            let mut child = Command::new(this);
            child.arg("measure").arg(format).arg(&path);
            let output = child.stderr(Stdio::inherit()).output().unwrap();
            let said = String::from_utf8(output.stdout).unwrap();
            println!("| {format} | {nodes} | {} |", said.trim());
            if nodes == 10_000 {
                paths.push((*format, path));
            }
        }
    }
    selections(&paths);
    binary(&paths, folder.path());
}

/// One format in a process of its own.
fn measure(format: &str, path: &Path) {
    let source = source(format, path);
    let before = peak();
    load(&source, &Selection::default());
    let used = peak() - before;
    let (best, middle) = repeated(|| load(&source, &Selection::default()));
    println!("{best} | {middle} | {used}");
}

fn source(format: &str, path: &Path) -> Source {
    match format {
        "expressions" => Source::Hosts(fs::read_to_string(path).unwrap()),
        _ => Source::File(path.to_path_buf()),
    }
}

fn load(source: &Source, selection: &Selection) -> usize {
    let strongest = NodeSettings::default();
    let sources = std::slice::from_ref(source);
    let fleet = load_selected(sources, selection, &strongest, &built_in("me"));
    fleet
        .unwrap_or_else(|error| panic!("{error}"))
        .nodes()
        .len()
}

/// `--limit` and `--exclude` on 10,000 nodes.
fn selections(paths: &[(&str, PathBuf)]) {
    println!(
        "\n| selection of 10,000 nodes | left | best ms | middle ms |\n| --- | ---: | ---: | ---: |"
    );
    let names: Vec<String> = (0..5_000).map(name).collect();
    let path = &paths
        .iter()
        .find(|(format, _)| *format == "ansible.ini")
        .unwrap()
        .1;
    for (shown, limit, exclude) in [
        ("--limit 'g1*'", "g1*", None),
        ("--limit 'all:!g7:&g*'", "all:!g7:&g*", None),
        (
            "--limit '~w.*[05]\\.' --exclude 'g[2-4]*'",
            "~w.*[05]\\.",
            Some("g[2-4]*"),
        ),
        ("--limit (5,000 names)", &names.join(","), None),
    ] {
        let selection = Selection {
            limit: vec![limit.to_string()],
            exclude: exclude.into_iter().map(String::from).collect(),
        };
        let source = Source::File(path.clone());
        let left = load(&source, &selection);
        let (best, middle) = repeated(|| load(&source, &selection));
        println!("| {shown} | {left} | {best} | {middle} |");
    }
}

/// The program from start to end, without and with an ssh_config of many blocks.
fn binary(paths: &[(&str, PathBuf)], folder: &Path) {
    println!(
        "\n| `prepull nodes -o json`, 10,000 nodes | ssh_config | best ms | middle ms |\n| --- | --- | ---: | ---: |"
    );
    let config = folder.join("ssh_config");
    fs::write(&config, ssh_config()).unwrap();
    for (format, path) in paths {
        for config in [Path::new("none"), &config] {
            let run = || {
                let mut command = Command::new(env!("CARGO_BIN_EXE_prepull"));
                command.args(["nodes", "-o", "json", "-F"]).arg(config);
                match *format {
                    // One argument may not be so long.
                    "expressions" => command.arg("-H").arg(format!("^{}", path.display())),
                    _ => command.arg("-i").arg(path),
                };
                let output = command.stderr(Stdio::inherit()).output().unwrap();
                assert!(output.status.success());
                output.stdout.len()
            };
            let (best, middle) = repeated(run);
            let shown = if config == Path::new("none") {
                "none"
            } else {
                "200 blocks"
            };
            println!("| {format} | {shown} | {best} | {middle} |");
        }
    }
}

/// The best and the middle time, in milliseconds.
fn repeated(mut once: impl FnMut() -> usize) -> (String, String) {
    let mut times: Vec<Duration> = (0..REPEATS)
        .map(|_| {
            let started = Instant::now();
            std::hint::black_box(once());
            started.elapsed()
        })
        .collect();
    times.sort_unstable();
    let shown = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1000.0);
    (shown(times[0]), shown(times[REPEATS / 2]))
}

/// The most memory that this process has had, in KiB.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn name(node: usize) -> String {
    format!("w{node:05}.rack{}.dc1.example", node / GROUP)
}

fn address(node: usize) -> String {
    format!(
        "10.{}.{}.{}",
        node / 62_500,
        node / 250 % 250,
        node % 250 + 1
    )
}

fn native(nodes: usize) -> String {
    let mut text =
        String::from("defaults: {user: ops, identity: /keys/fleet, become: true}\ngroups:\n");
    for group in 0..nodes / GROUP {
        writeln!(
            text,
            "  g{group}:\n    runtime: crictl\n    jump: gate{group}.example\n    labels: {{pool: p{group}, site: dc1}}\n    nodes:"
        )
        .unwrap();
        for node in group * GROUP..(group + 1) * GROUP {
            writeln!(
                text,
                "      - {{name: {}, address: {}, port: 2222, labels: {{rack: r{}}}}}",
                name(node),
                address(node),
                node % 40
            )
            .unwrap();
        }
    }
    text
}

fn ansible_yaml(nodes: usize) -> String {
    let mut text = String::from(
        "all:\n  vars:\n    ansible_user: ops\n    ntp_server: ntp.example\n  children:\n",
    );
    for group in 0..nodes / GROUP {
        writeln!(
            text,
            "    g{group}:\n      vars:\n        ansible_ssh_common_args: '-J gate{group}.example'\n        prepull_runtime: crictl\n      hosts:"
        )
        .unwrap();
        for node in group * GROUP..(group + 1) * GROUP {
            writeln!(
                text,
                "        {}:\n          ansible_host: {}\n          ansible_port: 2222\n          rack: r{}",
                name(node),
                address(node),
                node % 40
            )
            .unwrap();
        }
    }
    text
}

fn ansible_ini(nodes: usize) -> String {
    let mut text = String::from("[all:vars]\nansible_user=ops\nntp_server=ntp.example\n");
    for group in 0..nodes / GROUP {
        writeln!(
            text,
            "[g{group}:vars]\nansible_ssh_common_args='-J gate{group}.example'\nprepull_runtime=crictl\n[g{group}]"
        )
        .unwrap();
        for node in group * GROUP..(group + 1) * GROUP {
            writeln!(
                text,
                "{} ansible_host={} ansible_port=2222 rack='r{}'",
                name(node),
                address(node),
                node % 40
            )
            .unwrap();
        }
    }
    text
}

/// A program that prints what is written in it.
fn executable(nodes: usize) -> String {
    let mut groups = serde_json::Map::new();
    let mut variables = serde_json::Map::new();
    for group in 0..nodes / GROUP {
        let members: Vec<String> = (group * GROUP..(group + 1) * GROUP).map(name).collect();
        groups.insert(
            format!("g{group}"),
            serde_json::json!({"hosts": members, "vars": {
                "ansible_ssh_common_args": format!("-J gate{group}.example"), "prepull_runtime": "crictl"
            }}),
        );
    }
    for node in 0..nodes {
        let said = serde_json::json!({
            "ansible_host": address(node), "ansible_port": 2222, "ansible_user": "ops", "rack": node % 40
        });
        variables.insert(name(node), said);
    }
    groups.insert("_meta".into(), serde_json::json!({ "hostvars": variables }));
    let listing = serde_json::to_string_pretty(&groups).unwrap();
    format!("#!/bin/sh\nexec cat <<'END'\n{listing}\nEND\n")
}

fn lines(nodes: usize) -> String {
    (0..nodes).fold(String::from("# the fleet\n"), |mut text, node| {
        writeln!(text, "ops@{}:2222 # {}", name(node), address(node)).unwrap();
        text
    })
}

/// Ranges and single hosts, in one expression.
fn expressions(nodes: usize) -> String {
    let groups = (0..nodes / GROUP).map(|group| {
        let first = group * GROUP;
        let single: Vec<String> = (first..first + 50).map(name).collect();
        let (from, to) = (first + 50, first + GROUP - 1);
        format!(
            "{},ops@w[{from:05}-{to:05}].rack{group}.dc1.example:2222",
            single.join(",")
        )
    });
    groups.collect::<Vec<_>>().join(",")
}

fn ssh_config() -> String {
    let mut text = String::new();
    for block in 0..HOST_BLOCKS {
        writeln!(
            text,
            "Host *.rack{block}.dc1.example rack{block}-*\n  User ops{block}\n  IdentityFile ~/.ssh/rack{block}\n  ConnectTimeout 5"
        )
        .unwrap();
    }
    text.push_str("Host gate*.example\n  User gatekeeper\nHost *\n  ServerAliveInterval 10\n  ConnectTimeout 20\n");
    text
}
