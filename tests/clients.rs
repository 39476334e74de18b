//! Nodes without docker or crictl: one with containerd and ctr alone, and one with podman.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test file: a panic is a failed test

#[path = "support/fleet.rs"]
mod support;

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use support::*;

static LAB: LazyLock<Mutex<Lab>> =
    LazyLock::new(|| Mutex::new(Lab::start("clients", 0, &["--ctr", "--podman"])));

/// The lab, without images and with everything in order.
fn lab() -> MutexGuard<'static, Lab> {
    let lab = LAB.lock().unwrap_or_else(PoisonError::into_inner);
    succeed(&mut lab.command(&["registry", "rate", "off"]));
    let forget = "for image in $(ctr images ls -q); do ctr images rm --sync $image || exit; done
        for lease in $(ctr leases ls -q); do ctr leases rm --sync $lease || exit; done";
    succeed(&mut lab.on("node-ctr", &["sh", "-c", forget]));
    succeed(&mut lab.on("node-podman", &["podman", "rmi", "--all", "--force"]));
    lab
}

/// The outcome of each node, in the order of the inventory: ctr, podman.
fn outcomes(document: &Value) -> Vec<&Value> {
    let nodes = document["nodes"].as_array().unwrap();
    nodes.iter().map(|node| &node["outcomes"][0]).collect()
}

#[test]
fn the_probe_finds_them_and_says_which_socket_and_namespace() {
    let lab = lab();
    let found = prepull(&lab, &["nodes", "--probe", "-o", "json"])
        .expect(0)
        .json();
    let of = |number: usize, what: &str| found["nodes"][number]["probe"][what].clone();
    let runtime = of(0, "runtime");
    let runtime = runtime.as_str().unwrap_or_else(|| panic!("{found}"));
    assert!(runtime.starts_with("containerd 1."), "{runtime}");
    assert!(runtime.ends_with(" by ctr, namespace default"), "{runtime}");
    assert_eq!(of(0, "endpoint"), "unix:///run/containerd/containerd.sock");
    assert_eq!(of(0, "root"), "/var/lib/containerd");
    assert!(
        of(1, "runtime").as_str().unwrap().starts_with("podman "),
        "{found}"
    );
    assert_eq!(of(1, "root"), "/var/lib/containers/storage");
    // Where a kubelet is, its namespace is taken, and another one is said to be unseen.
    succeed(&mut lab.on("node-ctr", &["mkdir", "/var/lib/kubelet"]));
    let endpoint = "unix:///run/containerd/containerd.sock?namespace=build";
    let other = [
        "nodes",
        "--probe",
        "-o",
        "json",
        "--limit",
        "node-ctr",
        "--runtime-endpoint",
        endpoint,
    ];
    let other = prepull(&lab, &other).expect(0).json();
    let said = other["nodes"][0]["probe"]["runtime"].as_str().unwrap();
    assert!(
        said.ends_with(" by ctr, namespace build, which the kubelet does not see"),
        "{said}"
    );
    let pulled = pull(&lab, &["--limit", "node-ctr", SMALL]).expect(0);
    succeed(&mut lab.on("node-ctr", &["rmdir", "/var/lib/kubelet"]));
    assert_eq!(outcomes(&pulled.json())[0]["status"], "pulled");
    let held = succeed(&mut lab.on("node-ctr", &["ctr", "-n", "k8s.io", "images", "ls", "-q"]));
    // The name that a pod uses, and the ID that the CRI gave it: the kubelet sees it.
    let names: Vec<&str> = held.split_whitespace().collect();
    assert!(names.contains(&SMALL), "{held}");
    assert!(
        names.iter().any(|name| name.starts_with("sha256:")),
        "{held}"
    );
    let forget = "for image in $(ctr -n k8s.io images ls -q); do ctr -n k8s.io images rm --sync $image || exit; done
        ctr namespaces rm k8s.io";
    succeed(&mut lab.on("node-ctr", &["sh", "-c", forget]));
}

#[test]
fn an_image_is_pulled_with_its_digest_and_then_is_present() {
    let lab = lab();
    let first = pull(&lab, &[APP]).expect(0).json();
    let digests: Vec<&Value> = outcomes(&first)
        .into_iter()
        .inspect(|outcome| {
            assert_eq!(outcome["status"], "pulled", "{first}");
            assert!(outcome["arrived"].as_u64().unwrap() > 80_000_000, "{first}");
        })
        .map(|outcome| &outcome["digest"])
        .collect();
    assert!(digests[0].as_str().unwrap().starts_with("sha256:"));
    assert_eq!(digests[0], digests[1]);
    let pinned = format!(
        "{}@{}",
        APP.rsplit_once(':').unwrap().0,
        digests[0].as_str().unwrap()
    );
    for image in [APP, &pinned] {
        let again = pull(&lab, &[image]).expect(0).json();
        for outcome in outcomes(&again) {
            let expected = if image == APP { "present" } else { "pulled" };
            let is_right = outcome["status"] == expected || outcome["status"] == "present";
            assert!(is_right && outcome["digest"] == *digests[0], "{again}");
        }
    }
}

#[test]
fn a_wrong_password_and_a_missing_image_get_their_kinds() {
    let lab = lab();
    let mut wrong = pull_command(&lab, &[APP]);
    let run = end(start(&mut wrong, "not the password")).expect(1);
    assert_eq!(kinds(&run.json()), only("registry-auth"), "{}", run.stdout);
    let run = pull(&lab, &["registry.lab:5000/team/app:none"]).expect(1);
    assert_eq!(
        kinds(&run.json()),
        only("image-not-found"),
        "{}",
        run.stdout
    );
}

#[test]
fn a_password_is_in_no_process_and_left_nowhere() {
    let lab = lab();
    let password = lab.password();
    let login = STANDARD.encode(format!("ci:{password}"));
    let needles = [&password[..24], &login[..32]];
    let holds = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        needles.iter().any(|needle| text.contains(needle))
    };
    succeed(&mut lab.command(&["registry", "rate", "80mbit"]));
    let mut running = start(&mut pull_command(&lab, &[APP]), &password);
    let mut seen = std::collections::HashSet::new();
    while running.try_wait().unwrap().is_none() {
        for process in std::fs::read_dir("/proc").unwrap().flatten() {
            let read = |name| std::fs::read(process.path().join(name)).unwrap_or_default();
            let line = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
            seen.extend(
                ["ctr images pull", "podman pull"]
                    .into_iter()
                    .filter(|way| line.starts_with(way)),
            );
            assert!(!holds(line.as_bytes()), "arguments: {line}");
            assert!(!holds(&read("environ")), "environment: {line}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let run = end(running).expect(0);
    assert_eq!(seen.len(), 2, "the pulls were not seen: {seen:?}");
    assert!(!holds(run.stdout.as_bytes()) && !holds(run.stderr.as_bytes()));
    for node in lab.nodes() {
        assert_eq!(left_on(&lab, &node), "", "on {}", node.name);
        let search = "grep -rlaF -e \"$0\" -e \"$1\" /run /dev/shm /tmp /var/tmp /var/lib/containerd /var/lib/containers/storage/*.json 2>/dev/null; true";
        let found = succeed(&mut lab.on(&node.name, &["sh", "-c", search, needles[0], needles[1]]));
        assert_eq!(found, "", "on {}", node.name);
    }
}

/// The bytes of layers on their way on node-ctr.
fn arriving(lab: &Lab) -> u64 {
    let script = "cat /var/lib/containerd/io.containerd.content.v1.content/ingest/*/data 2>/dev/null | wc -c";
    let printed = succeed(&mut lab.on("node-ctr", &["sh", "-c", script]));
    printed.trim().parse().unwrap()
}

#[test]
fn a_cancelled_pull_through_ctr_stops_at_once_and_later_goes_on_from_its_last_byte() {
    let lab = lab();
    succeed(&mut lab.command(&["registry", "rate", "16mbit"]));
    let limits = ["--limit", "node-ctr", APP];
    let running = start(&mut pull_command(&lab, &limits), &lab.password());
    let began = Instant::now();
    while arriving(&lab) < 4_000_000 {
        assert!(began.elapsed() < Duration::from_secs(60), "nothing arrives");
        std::thread::sleep(Duration::from_millis(100));
    }
    let process = running.id().to_string();
    succeed(std::process::Command::new("kill").args(["-INT", &process]));
    end(running).expect(130);
    let node = &lab.nodes()[0];
    assert_eq!(left_on(&lab, node), "");
    // What is on its way to a daemon that is told to stop may still be written.
    let mut stopped_at = arriving(&lab);
    let began = Instant::now();
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let now = arriving(&lab);
        if now == stopped_at {
            break;
        }
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "it goes on: {now}"
        );
        stopped_at = now;
    }
    succeed(&mut lab.command(&["registry", "rate", "off"]));
    let log = lab.file("logs/registry.registry.log");
    let ranges = || {
        std::fs::read_to_string(&log)
            .unwrap()
            .matches("http.response.status=206")
            .count()
    };
    let before = ranges();
    let again = pull(&lab, &limits).expect(0).json();
    assert_eq!(outcomes(&again)[0]["status"], "pulled");
    assert!(
        stopped_at > 0 && ranges() > before,
        "each layer came from its first byte: {again}"
    );
}
