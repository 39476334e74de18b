//! prepull on a fleet of real nodes: needs root and what lab/install installs (`make test` does both).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test file: a panic is a failed test

#[path = "support/fleet.rs"]
mod support;

#[path = "support/schemas.rs"]
mod schemas;

use std::collections::HashSet;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use base64::Engine as _;
use schemas::{check_junit, validate};
use serde_json::Value;
use support::*;

/// Watches the arguments of every process of the machine for a secret; the nodes' processes are among them.
struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(usize, Vec<String>, HashSet<String>)>,
}

impl Watch {
    fn start(secrets: Vec<String>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut rounds, mut leaks, mut programs) = (0, Vec::new(), HashSet::new());
            while !stopped.load(Ordering::Relaxed) {
                rounds += 1;
                for process in std::fs::read_dir("/proc").unwrap().flatten() {
                    let Ok(line) = std::fs::read(process.path().join("cmdline")) else {
                        continue;
                    };
                    let line = String::from_utf8_lossy(&line).replace('\0', " ");
                    if secrets.iter().any(|secret| line.contains(secret)) {
                        leaks.push(line.clone());
                    }
                    for program in ["docker system dial-stdio", "crictl pull"] {
                        if line.starts_with(program) {
                            programs.insert(program.to_string());
                        }
                    }
                }
            }
            (rounds, leaks, programs)
        });
        Self { stop, thread }
    }

    fn end(self) -> (usize, Vec<String>, HashSet<String>) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// How the lab's password may be spelt: as it is, as docker and crictl want it.
fn spellings(lab: &Lab) -> Vec<String> {
    let password = lab.password();
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("ci:{password}"));
    vec![password[..24].to_string(), basic]
}

#[test]
fn a_fleet_of_twelve_is_warmed_through_an_outage_of_the_registry() {
    let lab = fleet();
    let nodes = good_nodes(&lab);
    let watch = Watch::start(spellings(&lab));
    // 960 MB in all: slow enough that the outage hits pulls in their middle.
    succeed(&mut lab.command(&["registry", "rate", "640mbit"]));
    let arguments = ["--retries", "8", "--backoff", "1s..4s", APP];
    let running = start(&mut pull_command(&lab, &arguments), &lab.password());
    std::thread::sleep(Duration::from_secs(4));
    succeed(&mut lab.command(&["registry", "stop"]));
    std::thread::sleep(Duration::from_secs(5));
    succeed(&mut lab.command(&["registry", "start"]));
    let run = end(running).expect(0);
    let (rounds, leaks, programs) = watch.end();

    let document = run.json();
    assert_eq!(document["summary"]["pulled"], NODES, "{}", run.stdout);
    let mut retried = 0;
    for reported in document["nodes"].as_array().unwrap() {
        let node = nodes
            .iter()
            .find(|node| reported["name"] == node.name.as_str())
            .unwrap();
        let outcome = &reported["outcomes"][0];
        assert_eq!(outcome["status"], "pulled");
        let digest = outcome["digest"].as_str().unwrap();
        assert_eq!(
            digest_on(&lab, node, APP).as_deref(),
            Some(digest),
            "{}",
            node.name
        );
        assert_eq!(document["images"][0]["digest"], digest);
        retried += usize::from(outcome["attempts"].as_array().unwrap().len() > 1);
    }
    assert!(retried > 0, "the outage hit nobody: {}", run.stdout);

    assert!(rounds > 20, "only {rounds} looks at the processes");
    assert_eq!(
        programs.len(),
        2,
        "the pulls themselves were not seen: {programs:?}"
    );
    assert!(leaks.is_empty(), "the password was in arguments: {leaks:?}");
    for node in &nodes {
        assert_eq!(left_on(&lab, node), "", "on {}", node.name);
        // All that the node can have written: its disk, its data root, its memory file systems.
        let places = "/run /dev/shm /tmp /var/lib/docker /var/lib/containerd";
        for secret in spellings(&lab) {
            let script = format!("grep -rlF -e \"$1\" {places} 2>/dev/null; true");
            let found = succeed(&mut lab.on(&node.name, &["sh", "-c", &script, "sh", &secret]));
            assert_eq!(found, "", "on {}", node.name);
        }
    }
    for text in [&run.stdout, &run.stderr] {
        assert!(!spellings(&lab).iter().any(|secret| text.contains(secret)));
    }

    // Again: nothing to do, and the registry is not even asked.
    succeed(&mut lab.command(&["registry", "stop"]));
    let again = pull(&lab, &[APP]).expect(0).json();
    assert_eq!(again["summary"]["present"], NODES);
    let checked = prepull(&lab, &["check", APP]).expect(0);
    assert!(checked.stdout.contains("12 of 12"), "{}", checked.stdout);
}

#[test]
fn a_wrong_password_is_refused_once_and_named() {
    let lab = fleet();
    let arguments = ["--registry-user", "ci", "--registry-password-stdin", SMALL];
    let json = [&["pull", "-o", "json"], &arguments[..]].concat();
    let document = end(start(&mut command(&lab, &json), "wrong"))
        .expect(1)
        .json();
    assert_eq!(kinds(&document), only("registry-auth"));
    assert_eq!(document["summary"]["failed"], NODES);
    for node in document["nodes"].as_array().unwrap() {
        assert_eq!(node["outcomes"][0]["attempts"].as_array().unwrap().len(), 1);
    }
    let human = [&["pull"], &arguments[..]].concat();
    let run = end(start(&mut command(&lab, &human), "wrong")).expect(1);
    assert!(run.stdout.contains("NOT READY"), "{}", run.stdout);
    assert!(
        run.stdout
            .contains("Check the registry's user and password"),
        "{}",
        run.stdout
    );
}

#[test]
fn no_login_an_unknown_tag_and_an_unknown_repository_have_their_kinds() {
    let lab = fleet();
    let document = prepull(&lab, &["pull", "-o", "json", SMALL])
        .expect(1)
        .json();
    assert_eq!(kinds(&document), only("registry-auth"));
    let document = pull(&lab, &["registry.lab:5000/team/small:nope"])
        .expect(1)
        .json();
    assert_eq!(kinds(&document), only("image-not-found"));
    let document = pull(&lab, &["registry.lab:5000/team/nothing:v1"])
        .expect(1)
        .json();
    assert_eq!(kinds(&document), only("image-not-found"));
}

#[test]
fn an_unknown_host_key_stops_every_node_and_accept_new_records_it() {
    let lab = fleet();
    let known = lab.file("nobody_known");
    std::fs::write(&known, "").unwrap();
    let document = prepull(
        &lab,
        &["check", "-o", "json", "--known-hosts", &known, SMALL],
    )
    .expect(1)
    .json();
    assert_eq!(kinds(&document), only("host-key"));
    assert_eq!(std::fs::read_to_string(&known).unwrap(), "");
    let accept = [
        "exec",
        "--known-hosts",
        &known,
        "--host-keys",
        "accept-new",
        "--",
        "true",
    ];
    prepull(&lab, &accept).expect(0);
    assert_eq!(
        std::fs::read_to_string(&known).unwrap().lines().count(),
        NODES
    );
    prepull(&lab, &["exec", "--known-hosts", &known, "--", "true"]).expect(0);
}

#[test]
fn a_dead_node_and_one_without_a_runtime_fail_alone() {
    let lab = fleet();
    let arguments = [
        "pull",
        "-o",
        "json",
        "--retries",
        "1",
        "--backoff",
        "100ms..200ms",
        "--connect-timeout",
        "4s",
        "--registry-user",
        "ci",
        "--registry-password-stdin",
        SMALL,
    ];
    let mut faulty = command_for(&lab, &lab.file("faulty.yml"), &arguments);
    let document = end(start(&mut faulty, &lab.password())).expect(1).json();
    assert_eq!(document["summary"]["pulled"], NODES);
    assert_eq!(document["summary"]["failed"], 2);
    let of = |name: &str| {
        let nodes = document["nodes"].as_array().unwrap();
        let node = nodes.iter().find(|node| node["name"] == name).unwrap();
        node["outcomes"][0].clone()
    };
    assert_eq!(of("node-bare")["failure"]["kind"], "runtime-missing");
    assert_eq!(of("node-bare")["attempts"].as_array().unwrap().len(), 1);
    assert_eq!(of("node-dead")["failure"]["kind"], "unreachable");
    assert_eq!(of("node-dead")["attempts"].as_array().unwrap().len(), 2);
}

#[test]
fn a_wrong_user_is_an_ssh_failure_and_a_runtime_that_may_not_be_used_one_of_privilege() {
    let lab = fleet();
    let document = prepull(&lab, &["check", "-o", "json", "-u", "nobody", SMALL])
        .expect(1)
        .json();
    assert_eq!(kinds(&document), only("ssh-auth"));
    // ops may not open docker's socket without sudo.
    let ops = lab
        .nodes()
        .into_iter()
        .find(|node| node.user == "ops" && node.runtime == "docker")
        .unwrap();
    let inventory = lab.file("plain.yml");
    let line = format!(
        "nodes: [{{name: {}, address: {}, user: ops, runtime: docker}}]\n",
        ops.name, ops.address
    );
    std::fs::write(&inventory, line).unwrap();
    let identity = lab.file("id_ed25519");
    let mut check = command_for(
        &lab,
        &inventory,
        &["check", "-o", "json", "--identity", &identity, SMALL],
    );
    let document = end(start(&mut check, "")).expect(1).json();
    assert_eq!(kinds(&document), only("privilege"));
}

/// Bytes and their sum are no matter of who may look into docker's files, nor of `--preflight`.
#[test]
fn docker_tells_bytes_and_sums_to_whoever_may_use_it() {
    const IMAGE: &str = "registry.lab:5000/team/three:v1";
    let lab = fleet();
    succeed(&mut lab.command(&["push", IMAGE, "20000000", "3000000", "100"]));
    let in_group = |script: &str| succeed(&mut lab.on("node-3", &["sh", "-c", script]));
    in_group("sed -i 's/^docker:.*:/&ops/' /etc/group");
    let inventory = std::fs::read_to_string(lab.file("inventory.yml")).unwrap();
    let plain = lab.file("no-sudo.yml");
    std::fs::write(&plain, inventory.replace(", become: true", "")).unwrap();
    succeed(&mut lab.command(&["registry", "rate", "40mbit"]));
    let arguments =
        "pull --registry-user ci --registry-password-stdin --limit node-1:node-3 -o jsonl";
    let arguments: Vec<&str> = arguments.split(' ').chain([IMAGE]).collect();
    let mut command = command_for(&lab, &plain, &arguments);
    let run = end(start(&mut command, &lab.password()));
    in_group("sed -i 's/^\\(docker:.*:\\)ops$/\\1/' /etc/group");
    let run = run.expect(0);
    for node in ["node-1", "node-3"] {
        let told: Vec<(u64, Option<u64>)> = run
            .stdout
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .filter(|event| event["event"] == "progress" && event["node"] == node)
            .map(|event| (event["bytes"].as_u64().unwrap(), event["total"].as_u64()))
            .collect();
        let most = told.iter().map(|told| told.0).max();
        assert!(most > Some(10_000_000), "{node}: {told:?}");
        let (_, total) = told.last().unwrap();
        let total = total.unwrap();
        assert!((23_000_000..23_100_000).contains(&total), "{told:?}");
        assert!(told.is_sorted(), "{told:?}");
    }
}

/// What prepull says arrived is what the registry says it sent: of fast and slow pulls by both runtimes, of images that
/// share a layer, and of a pull that brings nothing.
#[test]
fn what_arrived_is_what_the_registry_sent() {
    let lab = fleet();
    let image = |name: &str, sizes: &[&str]| {
        let reference = format!("registry.lab:5000/team/{name}:v1");
        succeed(&mut lab.command(&[&["push", reference.as_str()], sizes].concat()));
        reference
    };
    let fast = image("fast", &["300k", "8M@base", "100k"]);
    let shares = image("shares", &["8M@base", "2M", "100k"]);
    let slow = image("slow", &["12M", "200k"]);
    let log = lab.state.join("logs/registry.registry.log");
    let nodes: Vec<Node> = good_nodes(&lab).into_iter().take(4).collect();
    let limit: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
    let limit = limit.join(":");
    let report = lab.file("arrived.json");
    for (rate, images, always) in [
        ("off", vec![&fast, &shares], false),
        ("off", vec![&fast, &shares], true),
        ("40mbit", vec![&slow], false),
    ] {
        succeed(&mut lab.command(&["registry", "rate", rate]));
        let before = std::fs::read_to_string(&log).unwrap().len();
        let mut arguments = vec![
            "-o", "human", "--report", &report, "--limit", &limit, "--pull",
        ];
        arguments.push(if always { "always" } else { "missing" });
        arguments.extend(images.iter().map(|image| image.as_str()));
        let run = end(start(&mut pull_command(&lab, &arguments), &lab.password())).expect(0);
        let text = std::fs::read_to_string(&log).unwrap();
        // ADDRESS - - [DAY TIME] "GET PATH HTTP/1.1" 200 BYTES; a configuration is far smaller than any layer.
        let blobs = text[before..]
            .lines()
            .filter(|line| line.contains("/blobs/sha256:"));
        let sent_to = |address: &str| -> u64 {
            let words = blobs
                .clone()
                .map(|line| line.split(' ').collect::<Vec<_>>());
            let own = words.filter(|words| words[0] == address && words[5] == "\"GET");
            let bytes = own.map(|words| words[9].parse::<u64>().unwrap());
            bytes.filter(|bytes| *bytes > 50_000).sum()
        };
        let document = std::fs::read_to_string(&report).unwrap();
        let document: Value = serde_json::from_str(&document).unwrap();
        let mut all = 0;
        for node in &nodes {
            let sent = sent_to(&node.address);
            assert_eq!(sent == 0, always, "{}", node.name);
            let mut reported = document["nodes"].as_array().unwrap().iter();
            let outcomes = reported
                .find(|one| one["name"] == node.name.as_str())
                .unwrap();
            let outcomes = outcomes["outcomes"].as_array().unwrap();
            let arrived = outcomes.iter().map(|outcome| {
                assert_eq!(outcome["bytes"], outcome["arrived"], "{outcome}");
                outcome["arrived"].as_u64().unwrap()
            });
            assert_eq!(
                arrived.sum::<u64>(),
                sent,
                "{} {}: {outcomes:#?}",
                node.name,
                node.runtime
            );
            all += sent;
        }
        assert_eq!(document["arrived"], all, "{document:#}");
        assert_eq!(document.get("arrived_unseen"), None);
        // The last line and the summary tell the same.
        let last = run
            .stderr
            .lines()
            .rfind(|line| line.contains(" status=ended "));
        let told = format!(" bytes={all}");
        assert!(last.unwrap().contains(&told), "{told}: {last:?}");
        let line = run
            .stdout
            .lines()
            .find_map(|line| line.strip_prefix("Arrived: "));
        let line = line.map(|line| line.split(',').next().unwrap().to_string());
        assert_eq!(
            line,
            (all > 0).then(|| prepull::model::text::format_bytes(all))
        );
    }
}

/// Two runs pull different images on the same nodes at the same time: each tells its own bytes, as the registry counts
/// them.
#[test]
fn two_runs_on_the_same_nodes_count_their_own_bytes() {
    let lab = fleet();
    let images = ["mine", "theirs"].map(|name| {
        let reference = format!("registry.lab:5000/team/{name}:v1");
        let sizes = ["9M", if name == "mine" { "2M" } else { "7M" }];
        succeed(&mut lab.command(&[&["push", reference.as_str()], &sizes[..]].concat()));
        reference
    });
    let log = lab.state.join("logs/registry.registry.log");
    let before = std::fs::read_to_string(&log).unwrap().len();
    succeed(&mut lab.command(&["registry", "rate", "60mbit"]));
    let nodes = good_nodes(&lab)
        .into_iter()
        .filter(|node| ["node-1", "node-2"].contains(&node.name.as_str()));
    let nodes: Vec<Node> = nodes.collect();
    let running = images.each_ref().map(|image| {
        let arguments = ["--limit", "node-1:node-2", "-o", "jsonl", image];
        start(&mut pull_command(&lab, &arguments), &lab.password())
    });
    let runs = running.map(|running| end(running).expect(0));
    let text = std::fs::read_to_string(&log).unwrap();
    for (name, run) in ["mine", "theirs"].iter().zip(&runs) {
        let events: Vec<Value> = run
            .stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        for node in &nodes {
            let path = format!("/team/{name}/blobs/sha256:");
            let sent: u64 = text[before..]
                .lines()
                .map(|line| line.split(' ').collect::<Vec<_>>())
                .filter(|words| {
                    words.len() > 9
                        && (words[0], words[5]) == (&node.address, "\"GET")
                        && words[6].contains(&path)
                })
                .map(|words| words[9].parse::<u64>().unwrap())
                .filter(|bytes| *bytes > 50_000)
                .sum();
            let of_node = |event: &&Value| event["node"] == node.name.as_str();
            let told = events.iter().filter(of_node);
            let progress = told.clone().filter(|event| event["event"] == "progress");
            let most = progress.filter_map(|event| event["bytes"].as_u64()).max();
            // containerd does not say whose a layer on its way is, so that only its end is exact.
            if node.runtime == "docker" {
                assert!(most <= Some(sent), "{name} {}: {most:?} {sent}", node.name);
            }
            let finished = told.clone().find(|event| event["event"] == "finished");
            let outcome = &finished.unwrap()["outcome"];
            assert_eq!(outcome["arrived"], sent, "{name} {}", node.name);
        }
    }
}

#[test]
fn an_interrupt_or_a_hang_up_cancels_the_pulls_and_leaves_nothing_behind() {
    let lab = fleet();
    for (signal, status) in [("-INT", 130), ("-HUP", 129)] {
        cancelled_by(&lab, signal, status);
    }
}

fn cancelled_by(lab: &Lab, signal: &str, status: i32) {
    let nodes = good_nodes(lab);
    succeed(&mut lab.command(&["registry", "rate", "16mbit"]));
    let running = start(&mut pull_command(lab, &["-p", "6", APP]), &lab.password());
    std::thread::sleep(Duration::from_secs(3));
    let process = running.id().to_string();
    succeed(Command::new("kill").args([signal, &process]));
    let began = Instant::now();
    let run = end(running).expect(status);
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    let document = run.json();
    assert_eq!(document["summary"]["not_run"], NODES, "{}", run.stdout);
    let outcome = &document["nodes"][0]["outcomes"][0];
    assert_eq!(outcome["status"], "not-run");
    assert_eq!(outcome["failure"]["kind"], "not-run");
    for node in &nodes {
        assert_eq!(left_on(lab, node), "", "on {}", node.name);
        assert_eq!(digest_on(lab, node, APP), None, "on {}", node.name);
    }
}

#[test]
fn an_attempt_that_takes_too_long_is_given_up() {
    let lab = fleet();
    succeed(&mut lab.command(&["registry", "rate", "16mbit"]));
    let arguments = ["--pull-timeout", "3s", "--retries", "0", APP];
    let document = pull(&lab, &arguments).expect(1).json();
    assert_eq!(kinds(&document), only("timed-out"));
    for node in good_nodes(&lab) {
        assert_eq!(left_on(&lab, &node), "", "on {}", node.name);
    }
}

#[test]
fn check_tells_who_holds_an_image_and_whether_it_is_the_same() {
    let lab = fleet();
    let nodes = good_nodes(&lab);
    let image = "registry.lab:5000/team/drift:v1";
    let missing = prepull(&lab, &["check", "-o", "json", image])
        .expect(1)
        .json();
    assert_eq!(missing["summary"]["missing"], NODES);
    // One docker node and one containerd node take the first of two images with one name.
    succeed(&mut lab.command(&["push", image, "100k"]));
    let early = lab.file("early.yml");
    let entry = |node: &Node| {
        format!(
            "  - {{name: {}, address: {}, user: {}}}\n",
            node.name, node.address, node.user
        )
    };
    std::fs::write(
        &early,
        format!("nodes:\n{}{}", entry(&nodes[0]), entry(&nodes[1])),
    )
    .unwrap();
    let identity = lab.file("id_ed25519");
    let login = [
        "pull",
        "--identity",
        &identity,
        "--registry-user",
        "ci",
        "--registry-password-stdin",
        image,
    ];
    end(start(
        &mut command_for(&lab, &early, &login),
        &lab.password(),
    ))
    .expect(0);
    succeed(&mut lab.command(&["push", image, "120k"]));
    let left = pull(&lab, &["-o", "human", image]).expect(1);
    assert!(left.stdout.contains(" --pull always"), "{}", left.stdout);
    let run = prepull(&lab, &["check", image]).expect(1);
    let digests: HashSet<_> = nodes
        .iter()
        .map(|node| digest_on(&lab, node, image).unwrap())
        .collect();
    assert_eq!(digests.len(), 2);
    for digest in digests {
        assert!(run.stdout.contains(&digest[..20]), "{}", run.stdout);
    }
    for node in &nodes[..2] {
        assert!(run.stdout.contains(&node.name), "{}", run.stdout);
    }
    // Asked to look in any case, the early nodes follow.
    pull(&lab, &["--pin-digest", image]).expect(0);
    prepull(&lab, &["check", image]).expect(0);
}

#[test]
fn a_digest_is_pulled_as_it_is_named() {
    let lab = fleet();
    let pulled = pull(&lab, &[SMALL]).expect(0).json();
    let digest = pulled["images"][0]["digest"].as_str().unwrap().to_string();
    let pinned = format!("registry.lab:5000/team/small@{digest}");
    assert_eq!(
        pull(&lab, &[&pinned]).expect(0).json()["images"][0]["digest"],
        digest.as_str()
    );
    prepull(&lab, &["check", &pinned]).expect(0);
    let other = format!("registry.lab:5000/team/small@sha256:{}", "0".repeat(64));
    prepull(&lab, &["check", &other]).expect(1);
    assert_eq!(
        kinds(&pull(&lab, &[&other]).expect(1).json()),
        only("image-not-found")
    );
}

#[test]
fn a_login_can_come_from_dockers_own_file() {
    let lab = fleet();
    let auth = base64::engine::general_purpose::STANDARD.encode(format!("ci:{}", lab.password()));
    let file = lab.file("config.json");
    let content = serde_json::json!({"auths": {"registry.lab:5000": {"auth": auth}}});
    std::fs::write(&file, content.to_string()).unwrap();
    prepull(&lab, &["pull", "--auth-file", &file, SMALL]).expect(0);
}

#[test]
fn a_command_runs_on_every_node_as_it_is_given() {
    let lab = fleet();
    let run = prepull(
        &lab,
        &[
            "exec", "-o", "json", "--", "printf", "%s|", "a b", "$HOME", "'",
        ],
    )
    .expect(0);
    for node in run.json()["nodes"].as_array().unwrap() {
        assert_eq!(node["outcomes"][0]["stdout"], "a b|$HOME|'|");
    }
    let names = prepull(&lab, &["exec", "--", "hostname"]).expect(0);
    for node in good_nodes(&lab) {
        assert!(
            names.stdout.contains(&format!("{0} | {0}", node.name)),
            "{}",
            names.stdout
        );
    }
    prepull(&lab, &["exec", "--", "false"]).expect(1);
}

#[test]
fn events_and_reports_of_real_runs_have_the_published_forms() {
    let lab = fleet();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let reports = ["run.json", "run.xml", "run.html"].map(file);
    let [json, xml, html] = &reports;
    let reports: Vec<&str> = reports
        .iter()
        .flat_map(|file| ["--report", file.as_str()])
        .collect();
    let document = || {
        let text = std::fs::read_to_string(json).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let jsonl = [&reports[..], &["-o", "jsonl", SMALL]].concat();
    let run = pull(&lab, &jsonl).expect(0);
    let lines: Vec<String> = run.stdout.lines().map(String::from).collect();
    validate("events-1.json", &lines);
    let lines: Vec<Value> = lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let (result, events) = lines.split_last().unwrap();
    assert_eq!(result["result"]["summary"]["pulled"], NODES);
    assert_eq!(result["result"], document());
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["number"], number);
    }
    let finished = events
        .iter()
        .filter(|event| event["event"] == "finished")
        .count();
    assert_eq!(finished, NODES);
    check_junit(xml.as_ref());
    // Every node's bar shows how it was reached, asked and warmed.
    let page = std::fs::read_to_string(html).unwrap();
    let (_, data) = page.split_once("id=\"data\">").unwrap();
    let data: Value = serde_json::from_str(data.split_once("</script>").unwrap().0).unwrap();
    for node in data["nodes"].as_array().unwrap() {
        let spans = node["spans"].as_array().unwrap();
        let phases: HashSet<&str> = spans.iter().map(|span| span[0].as_str().unwrap()).collect();
        assert_eq!(
            phases,
            HashSet::from(["connect", "check", "pull"]),
            "{node}"
        );
    }

    // Everything is as wanted, only nobody hears of it.
    let full = std::fs::File::options().write(true).open("/dev/full");
    let mut unheard = command(&lab, &["check", "-o", "json", SMALL]);
    unheard.stdin(Stdio::null()).stderr(Stdio::piped());
    let output = unheard.stdout(full.unwrap()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("cannot write the result: No space left on device"),
        "{said}"
    );
    assert_eq!(output.status.code(), Some(1));

    for arguments in [&["check", SMALL][..], &["exec", "--", "id", "-u"]] {
        let (name, what) = arguments.split_first().unwrap();
        prepull(&lab, &[&[*name], &reports[..], what].concat()).expect(0);
        validate("document-1.json", &[document().to_string()]);
        assert_eq!(document()["command"], *name);
        assert_eq!(document()["summary"]["ok"], NODES);
        check_junit(xml.as_ref());
    }
}

#[test]
fn the_deadline_and_waves_stop_early_with_their_status() {
    let lab = fleet();
    succeed(&mut lab.command(&["registry", "rate", "16mbit"]));
    let document = pull(&lab, &["--deadline", "3s", APP]).expect(3).json();
    assert_eq!(document["summary"]["not_run"], NODES);
    let document = pull(&lab, &["--waves", "2", "registry.lab:5000/team/small:nope"])
        .expect(3)
        .json();
    assert_eq!(document["summary"]["failed"], 2);
    assert_eq!(document["summary"]["not_run"], NODES - 2);
}

#[test]
fn an_ordinary_user_becomes_root_through_sudo_and_pulls() {
    let lab = fleet();
    let ops: Vec<Node> = good_nodes(&lab)
        .into_iter()
        .filter(|node| node.user == "ops")
        .collect();
    let runtimes: HashSet<&str> = ops.iter().map(|node| node.runtime.as_str()).collect();
    assert_eq!(runtimes, HashSet::from(["docker", "containerd"]));
    pull(&lab, &[SMALL]).expect(0);
    for node in ops {
        assert!(digest_on(&lab, &node, SMALL).is_some(), "on {}", node.name);
        let who = lab.ssh(&node, "id -un").output().unwrap();
        assert_eq!(said(&who), "ops\n");
    }
}

#[test]
fn ssh_config_names_the_way_to_nodes_behind_a_bastion() {
    let lab = fleet();
    let nodes = good_nodes(&lab);
    let key = lab.file("id_ed25519");
    let mut config = format!("Host way\n  HostName {}\n  User root\n", nodes[0].address);
    for node in &nodes[1..] {
        let (name, address, user) = (&node.name, &node.address, &node.user);
        config += &format!("Host {name}\n  HostName {address}\n  User {user}\n  ProxyJump way\n");
    }
    config += &format!("Host *\n  IdentityFile {key}\n");
    std::fs::write(lab.file("ssh_config"), config).unwrap();
    let inventory = lab.file("names.yml");
    let names: Vec<&str> = nodes[1..].iter().map(|node| node.name.as_str()).collect();
    std::fs::write(&inventory, format!("nodes: [{}]\n", names.join(", "))).unwrap();
    let file = lab.file("ssh_config");
    let script = "echo $SSH_CONNECTION";
    let exec = ["exec", "-F", &file, "-o", "json", "--", "sh", "-c", script];
    let document = end(start(&mut command_for(&lab, &inventory, &exec), ""))
        .expect(0)
        .json();
    for node in document["nodes"].as_array().unwrap() {
        // Who connected to the node is the bastion.
        let from = node["outcomes"][0]["stdout"].as_str().unwrap();
        assert!(
            from.starts_with(&format!("{} ", nodes[0].address)),
            "{from}"
        );
    }
}

#[test]
fn a_probe_tells_what_nodes_are_and_have_and_which_cannot_be_reached() {
    let lab = fleet();
    let only = ["--limit", "node-1:node-2"];
    let pulled = [
        "pull",
        "--registry-user",
        "ci",
        "--registry-password-stdin",
        SMALL,
    ];
    let pull = [pulled.as_slice(), &only].concat();
    end(start(&mut command(&lab, &pull), &lab.password())).expect(0);
    let few = "node-1:node-2:node-bare:node-dead";
    let probe = |options: &[&str]| {
        let always = [
            "nodes",
            "--probe",
            "--retries",
            "0",
            "--limit",
            few,
            SMALL,
            APP,
        ];
        let arguments = [always.as_slice(), &["--connect-timeout", "5s"], options].concat();
        end(start(
            &mut command_for(&lab, &lab.file("faulty.yml"), &arguments),
            "",
        ))
        .expect(1)
    };
    let json = probe(&["-o", "json"]).json();
    for (index, runtime, socket, root) in [
        (
            0,
            "docker ",
            "unix:///var/run/docker.sock",
            "/var/lib/docker",
        ),
        (
            1,
            "containerd ",
            "unix:///run/containerd/containerd.sock",
            "/var/lib/containerd",
        ),
    ] {
        let found = &json["nodes"][index]["probe"];
        assert_eq!(found["status"], "probed", "{found}");
        assert_eq!(
            (&found["os"], &found["present"]),
            (&"linux".into(), &1.into())
        );
        let version = found["runtime"].as_str().unwrap();
        assert!(
            version.starts_with(runtime) && version.contains('.'),
            "{found}"
        );
        assert_eq!(
            (found["endpoint"].as_str(), found["root"].as_str()),
            (Some(socket), Some(root))
        );
        // The lab gives each node some gigabytes of its own for images.
        let free = found["free_bytes"].as_u64().unwrap();
        assert!((1 << 28..1 << 36).contains(&free), "{found}");
        let clock = |what: &str| found["clock"][what].as_i64().unwrap();
        let (off, sure) = (
            clock("offset_milliseconds"),
            clock("uncertainty_milliseconds"),
        );
        // One machine, one clock.
        assert!(off.abs() <= sure + 2, "{found}");
        assert_eq!(found["images"][0]["present"], true);
        assert_eq!(found["images"][1]["present"], false);
    }
    let kinds: Vec<_> = json["nodes"].as_array().unwrap()[2..]
        .iter()
        .map(|node| node["probe"]["failure"]["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["runtime-missing", "unreachable"]);
    let table = probe(&[]).stdout;
    let rows: Vec<&str> = table.lines().take(5).collect();
    assert!(rows.iter().all(|row| row.chars().count() <= 80), "{table}");
    assert!(
        rows[1].starts_with("node-1 ") && rows[1].contains(" 1/2 "),
        "{table}"
    );
    assert!(rows[4].contains("unreachable"), "{table}");
}
