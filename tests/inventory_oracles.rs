//! Inventories and expressions against the programs whose formats they are: Ansible and ClusterShell.
//! `lab/oracles` installs both.

#![allow(clippy::unwrap_used)] // a test file: a panic is a failed test

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

use prepull::inventory::{NodeSettings, Selection, Source, built_in, hosts, load_selected};
use prepull::model::Node;
use serde_json::Value;

/// A program in Python that is asked many times. Loading it takes longer than all that it is asked, so it is loaded once.
struct Oracle {
    name: &'static str,
    server: Mutex<Server>,
}

struct Server {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Oracle {
    /// `python` has the module; `start` is the function in it that begins the program.
    fn load(name: &'static str, python: &Path, module: &str, start: &str) -> Self {
        assert!(
            python.exists(),
            "{} is missing: run lab/oracles",
            python.display()
        );
        let script =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/inventory_oracles/fork_server.py");
        let mut child = Command::new(python)
            .arg(script)
            .args([module, start, name])
            // No configuration of whoever runs the tests, and no variables beside them.
            .current_dir("/")
            .env_remove("ANSIBLE_CONFIG")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let server = Mutex::new(Server {
            child,
            commands,
            answers,
        });
        Self { name, server }
    }

    fn ansible(name: &'static str, module: &str) -> Self {
        let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/oracles/bin/python3");
        Self::load(name, &python, module, "main")
    }

    /// What it prints for these arguments. It has to succeed, unless `may_fail`.
    fn ask(&self, arguments: &[&str], may_fail: bool) -> String {
        let mut server = self.server.lock().unwrap();
        let command = serde_json::to_string(arguments).unwrap();
        writeln!(server.commands, "{command}").unwrap();
        let mut answer = String::new();
        server.answers.read_line(&mut answer).unwrap();
        drop(server);
        let answer = serde_json::from_str(&answer);
        let (status, stdout, stderr): (i32, String, String) =
            answer.unwrap_or_else(|error| panic!("{} does not answer: {error}", self.name));
        let name = self.name;
        // 70 is the server's own word for a program that raised an exception.
        assert!(status != 70, "{name} {arguments:?}: {stderr}");
        assert!(status == 0 || may_fail, "{name} {arguments:?}: {stderr}");
        stdout
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        if let Ok(server) = self.server.get_mut() {
            // A failed test may leave it in the midst of a command.
            let _ = server.child.kill();
            let _ = server.child.wait();
        }
    }
}

fn listing_of(oracle: &Oracle, inventory: &str) -> Value {
    let listing = oracle.ask(&["-i", inventory, "--list"], false);
    serde_json::from_str(&listing).unwrap()
}

fn nodes(path: &Path, limit: &[&str]) -> Result<Vec<Node>, String> {
    let selection = Selection {
        limit: limit.iter().map(ToString::to_string).collect(),
        exclude: vec![],
    };
    let source = [Source::File(path.to_path_buf())];
    load_selected(
        &source,
        &selection,
        &NodeSettings::default(),
        &built_in("nobody-said"),
    )
    .map(|fleet| fleet.nodes().to_vec())
    .map_err(|error| error.to_string())
}

/// Random groups, hosts and variables.
struct World {
    random: fastrand::Rng,
    parents: Vec<Option<usize>>,
    hosts: Vec<Vec<String>>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let groups = random.usize(1..6);
        let parents = (0..groups)
            .map(|group| (group > 0 && random.bool()).then(|| random.usize(..group)))
            .collect();
        let hosts = (0..groups)
            .map(|group| {
                let count = random.usize(0..4);
                let mut listed: Vec<String> =
                    (0..count).map(|_| host(&mut random, group)).collect();
                listed.push(format!("shared{}", random.usize(..3)));
                listed
            })
            .collect();
        Self {
            random,
            parents,
            hosts,
        }
    }

    fn variables(&mut self) -> Vec<(&'static str, String)> {
        let random = &mut self.random;
        let mut said = Vec::new();
        for name in ["ansible_user", "ansible_ssh_user"] {
            if random.u8(..4) == 0 {
                said.push((name, format!("u{}", random.u8(..))));
            }
        }
        if random.u8(..3) == 0 {
            said.push(("ansible_port", random.u16(1..).to_string()));
        }
        if random.u8(..3) == 0 {
            said.push(("ansible_host", format!("10.0.0.{}", random.u8(..))));
        }
        if random.u8(..3) == 0 {
            said.push((
                "ansible_become",
                ["yes", "no", "true", "False"][random.usize(..4)].into(),
            ));
        }
        if random.u8(..4) == 0 {
            said.push((
                "ansible_ssh_private_key_file",
                format!("/keys/k{}", random.u8(..9)),
            ));
        }
        if random.u8(..4) == 0 {
            said.push((
                "prepull_runtime",
                ["docker", "crictl"][random.usize(..2)].into(),
            ));
        }
        said
    }

    fn priority(&mut self) -> Option<u8> {
        (self.random.u8(..4) == 0).then(|| self.random.u8(1..20))
    }

    fn ini(&mut self) -> String {
        let mut text = String::from("# generated\nlonely other='x # y' # z\n");
        for group in 0..self.parents.len() {
            writeln!(text, "[g{group}]").unwrap();
            for host in self.hosts[group].clone() {
                write!(text, "{host}").unwrap();
                for (name, value) in self.variables() {
                    let quote = ["", "'", "\""][self.random.usize(..3)];
                    write!(text, " {name}={quote}{value}{quote}").unwrap();
                }
                text.push('\n');
            }
            writeln!(text, "[g{group}:vars]").unwrap();
            if let Some(priority) = self.priority() {
                writeln!(text, "ansible_group_priority={priority}").unwrap();
            }
            for (name, value) in self.variables() {
                writeln!(text, "{name} = {value}").unwrap();
            }
            if let Some(parent) = self.parents[group] {
                writeln!(text, "[g{parent}:children]\ng{group}").unwrap();
            }
        }
        text.push_str("[all:vars]\n");
        for (name, value) in self.variables() {
            writeln!(text, "{name}={value}").unwrap();
        }
        text
    }

    fn yaml(&mut self) -> String {
        let mut text = String::from("---\nall:\n  children:\n");
        for group in 0..self.parents.len() {
            if self.parents[group].is_none() {
                self.yaml_group(group, 4, &mut text);
            }
        }
        text.push_str("  vars:\n    other: [1, {a: b}]\n");
        for (name, value) in self.variables() {
            writeln!(text, "    {name}: {value}").unwrap();
        }
        text
    }

    fn yaml_group(&mut self, group: usize, indent: usize, text: &mut String) {
        let pad = " ".repeat(indent);
        writeln!(text, "{pad}g{group}:\n{pad}  hosts:").unwrap();
        let listed: BTreeSet<String> = self.hosts[group].iter().cloned().collect();
        for host in listed {
            writeln!(text, "{pad}    '{host}':").unwrap();
            for (name, value) in self.variables() {
                writeln!(text, "{pad}      {name}: {value}").unwrap();
            }
        }
        writeln!(text, "{pad}  vars:\n{pad}    other: 1").unwrap();
        if let Some(priority) = self.priority() {
            writeln!(text, "{pad}    ansible_group_priority: {priority}").unwrap();
        }
        for (name, value) in self.variables() {
            writeln!(text, "{pad}    {name}: {value}").unwrap();
        }
        let children: Vec<usize> = (0..self.parents.len())
            .filter(|child| self.parents[*child] == Some(group))
            .collect();
        if !children.is_empty() {
            writeln!(text, "{pad}  children:").unwrap();
        }
        for child in children {
            self.yaml_group(child, indent + 4, text);
        }
    }

    fn vars_files(&mut self, folder: &Path) {
        let endings = ["", ".yml", ".yaml", ".json", "/sub"];
        let write = |world: &mut Self, kind: &str, name: &str| {
            let said = world.variables();
            if said.is_empty() || world.random.bool() {
                return;
            }
            let ending = endings[world.random.usize(..endings.len())];
            let path = folder.join(kind).join(format!("{name}{ending}"));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let entries = said
                .iter()
                .map(|(name, value)| format!("\"{name}\": \"{value}\""));
            fs::write(
                path,
                format!("{{{}}}\n", entries.collect::<Vec<_>>().join(", ")),
            )
            .unwrap();
        };
        for name in ["all", "ungrouped"] {
            write(self, "group_vars", name);
        }
        for group in 0..self.parents.len() {
            write(self, "group_vars", &format!("g{group}"));
        }
        for name in ["shared0", "shared1", "lonely"] {
            write(self, "host_vars", name);
        }
    }
}

fn host(random: &mut fastrand::Rng, group: usize) -> String {
    match random.u8(..6) {
        0 => format!(
            "n{group}-[01:{:02}:{}].x",
            random.u8(1..12),
            random.u8(1..4)
        ),
        1 => format!("n{group}-[a:{}]", char::from(random.u8(b'a'..b'f'))),
        2 => format!("m{group}x[{}:9]y[1:2]", random.u8(..9)),
        _ => format!("h{group}-{}", random.u8(..)),
    }
}

/// Writes the inventory of a seed and gives back its path.
fn inventory(seed: u64, folder: &Path) -> PathBuf {
    let mut world = World::new(seed);
    let (name, text) = if seed.is_multiple_of(2) {
        ("hosts", world.ini())
    } else {
        ("hosts.yml", world.yaml())
    };
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    if !seed.is_multiple_of(3) {
        world.vars_files(folder);
    }
    path
}

/// The groups of each host as a listing has them, those above included.
fn groups_of(listing: &Value, host: &str) -> BTreeSet<String> {
    let groups = listing.as_object().unwrap();
    let holds = |group: &Value, part: &str, name: &str| {
        let items = group[part].as_array();
        items.is_some_and(|items| items.iter().any(|item| item == name))
    };
    let mut found: BTreeSet<String> = groups
        .iter()
        .filter(|(_, group)| holds(group, "hosts", host))
        .map(|(name, _)| name.clone())
        .collect();
    loop {
        let above: BTreeSet<String> = groups
            .iter()
            .filter(|(_, group)| found.iter().any(|child| holds(group, "children", child)))
            .map(|(name, _)| name.clone())
            .collect();
        if above.is_subset(&found) {
            break;
        }
        found.extend(above);
    }
    found.retain(|name| name != "all" && name != "ungrouped");
    found
}

fn compare(seed: u64, node: &Node, listing: &Value) {
    let said = &listing["_meta"]["hostvars"][&node.name];
    let text = |names: &[&str]| {
        names.iter().find_map(|name| match &said[name] {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        })
    };
    let place = format!("seed {seed}, {}: {said}", node.name);
    let user = text(&["ansible_ssh_user", "ansible_user"]).unwrap_or("nobody-said".into());
    assert_eq!(node.user, user, "{place}");
    let port = text(&["ansible_port"]).unwrap_or("22".into());
    assert_eq!(node.port.to_string(), port, "{place}");
    let address = text(&["ansible_host"]).unwrap_or(node.name.clone());
    assert_eq!(node.address, address, "{place}");
    let become_root = text(&["ansible_become"]).unwrap_or_default().to_lowercase();
    assert_eq!(
        node.become_root,
        ["yes", "true"].contains(&&*become_root),
        "{place}"
    );
    let key = node
        .identities
        .first()
        .map(|path| path.display().to_string());
    assert_eq!(key, text(&["ansible_ssh_private_key_file"]), "{place}");
    let runtime = node.runtime.map(|kind| kind.to_string());
    assert_eq!(runtime, text(&["prepull_runtime"]), "{place}");
    let groups: BTreeSet<String> = node.groups.iter().cloned().collect();
    assert_eq!(groups, groups_of(listing, &node.name), "{place}");
}

#[test]
fn generated_inventories_mean_what_they_mean_to_ansible() {
    let oracle = Oracle::ansible("ansible-inventory", "ansible.cli.inventory");
    let check = |seed: u64| {
        let folder = tempfile::tempdir().unwrap();
        let path = inventory(seed, folder.path());
        let text = path.to_str().unwrap();
        let listing = listing_of(&oracle, text);
        let nodes = nodes(&path, &[]).unwrap_or_else(|error| {
            panic!(
                "seed {seed}: {error}\n{}",
                fs::read_to_string(&path).unwrap()
            )
        });
        let theirs: BTreeSet<&str> = listing
            .as_object()
            .unwrap()
            .values()
            .filter_map(|group| group["hosts"].as_array())
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let ours: BTreeSet<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(ours, theirs, "seed {seed}");
        nodes.iter().for_each(|node| compare(seed, node, &listing));
        // What Ansible prints is an inventory too, with the same nodes.
        let printed = folder.path().join("listing");
        fs::write(&printed, listing.to_string()).unwrap();
        assert_eq!(
            self::nodes(&printed, &[]).unwrap().len(),
            nodes.len(),
            "seed {seed}"
        );
    };
    (0..120).for_each(check);
}

const LIMITED: &str = "lonely\n[web]\nw[1:9].x\nshared\n[db]\nd1\nd2\nshared\nw3.x\n[old]\no-[a:e]\n[site:children]\nweb\n[far:children]\nsite\nold\n[empty]\n";

#[test]
fn limits_choose_the_hosts_that_ansible_chooses() {
    let names = [
        "all",
        "*",
        "web",
        "db",
        "site",
        "far",
        "old",
        "ungrouped",
        "lonely",
        "shared",
        "w1.x",
        "d?",
        "w*",
        "*.x",
        "w[1-3].x",
        "w[!1-3].x",
        "o-[ace]",
        "~w[12]\\.x",
        "~(d|o-)",
        "~.*e",
        "web[0]",
        "web[-1]",
        "web[2:4]",
        "web[7:]",
        "db[0:1]",
        "old[1]",
        "w*[0:1]",
    ];
    let mut limits: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut random = fastrand::Rng::with_seed(4);
    while limits.len() < 80 {
        // Brackets and dots beside a colon are where Ansible's splitting is its own.
        let (one, two) = (names[random.usize(..11)], names[random.usize(..12)]);
        let sign = ["", "&", "!"][random.usize(..3)];
        let separator = [",", ":"][random.usize(..2)];
        limits.push(format!("{one}{separator}{sign}{two}"));
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hosts");
    fs::write(&path, LIMITED).unwrap();
    let oracle = Oracle::ansible("ansible", "ansible.cli.adhoc");
    for limit in limits {
        let arguments = [
            "all",
            "-i",
            path.to_str().unwrap(),
            "--list-hosts",
            "--limit",
            &limit,
        ];
        let theirs: BTreeSet<String> = oracle
            .ask(&arguments, true)
            .lines()
            .skip(1)
            .map(|line| line.trim().to_string())
            .collect();
        let ours = match nodes(&path, &[&limit]) {
            Ok(nodes) => nodes.into_iter().map(|node| node.name).collect(),
            Err(error) if error.contains("no node is left") => BTreeSet::new(),
            Err(error) => panic!("{limit}: {error}"),
        };
        assert_eq!(ours, theirs, "{limit}");
    }
}

#[test]
fn generated_expressions_are_those_of_nodeset() {
    let mut random = fastrand::Rng::with_seed(7);
    let expressions: Vec<String> = (0..520).map(|_| expression(&mut random)).collect();
    let python = Path::new("/usr/bin/python3");
    let oracle = Oracle::load("nodeset", python, "ClusterShell.CLI.Nodeset", "main");
    for text in expressions {
        let theirs = oracle.ask(&["-e", "--", &text], false);
        let theirs: BTreeSet<&str> = theirs.split_whitespace().collect();
        let ours = hosts::expand(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let ours: BTreeSet<&str> = ours.iter().map(|spec| spec.host.as_str()).collect();
        assert_eq!(ours, theirs, "{text}");
    }
}

fn expression(random: &mut fastrand::Rng) -> String {
    let mut text = String::new();
    for term in 0..random.usize(1..5) {
        if term > 0 {
            text.push([',', '!', '&', '^'][random.usize(..4)]);
        }
        text.push_str(["n", "n", "rack-", "a.b"][random.usize(..4)]);
        for part in 0..random.usize(..3) {
            if part > 0 {
                text.push_str([".r", "-", "x"][random.usize(..3)]);
            }
            let width = if random.bool() { 0 } else { 3 };
            let ranges: Vec<String> = (0..random.usize(1..4))
                .map(|_| {
                    let first = random.u32(..20);
                    let last = first + random.u32(1..30);
                    match random.u8(..3) {
                        0 => format!("{first:0width$}"),
                        1 => format!("{first:0width$}-{last:0width$}"),
                        _ => format!("{first:0width$}-{last:0width$}/{}", random.u8(1..5)),
                    }
                })
                .collect();
            write!(text, "[{}]", ranges.join(",")).unwrap();
        }
    }
    text
}
