//! Nodes without docker or crictl: one with containerd and ctr alone, one with podman, and one whose user has podman and no
//! rights.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test file: a panic is a failed test

#[path = "support/registry_log.rs"]
mod registry_log;
#[path = "support/schemas.rs"]
#[allow(dead_code)]
mod schemas;
#[path = "support/fleet.rs"]
mod support;

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use registry_log::{RegistryLog, outcome};
use serde_json::Value;
use support::*;

static LAB: LazyLock<Mutex<Lab>> = LazyLock::new(|| {
    Mutex::new(Lab::start(
        "clients",
        0,
        &["--ctr", "--podman", "--rootless"],
    ))
});

/// The lab, without images and with everything in order.
fn lab() -> MutexGuard<'static, Lab> {
    let lab = LAB.lock().unwrap_or_else(PoisonError::into_inner);
    forget(&lab);
    lab
}

/// Removes what has been pulled, also from prepull's cache, and mends the registry.
fn forget(lab: &Lab) {
    succeed(&mut lab.command(&["registry", "rate", "off"]));
    succeed(&mut lab.command(&["registry", "fault", "off"]));
    let forget = "for image in $(ctr images ls -q); do ctr images rm --sync $image || exit; done
        for lease in $(ctr leases ls -q); do ctr leases rm --sync $lease || exit; done";
    succeed(&mut lab.on("node-ctr", &["sh", "-c", forget]));
    succeed(&mut lab.on("node-podman", &["podman", "rmi", "--all", "--force"]));
    as_ops(lab, &["podman", "rmi", "--all", "--force"]);
    let _ = std::fs::remove_dir_all(lab.state.join("home/.cache"));
}

/// What a command of the user without rights prints.
fn as_ops(lab: &Lab, words: &[&str]) -> String {
    let user = "setpriv --reuid=2000 --regid=2000 --clear-groups env HOME=/home/ops XDG_RUNTIME_DIR=/run/user/2000";
    let command: Vec<&str> = user.split(' ').chain(words.iter().copied()).collect();
    succeed(&mut lab.on("node-rootless", &command))
}

/// The one outcome or probe of a node, as text.
fn failure(run: &Run) -> (String, String) {
    let node = &run.json()["nodes"][0];
    let failure = match &node["probe"] {
        Value::Null => &node["outcomes"][0]["failure"],
        probe => &probe["failure"],
    };
    let text = |of: &str| failure[of].as_str().unwrap_or_default().to_string();
    (text("kind"), text("detail"))
}

/// The outcome of each node, in the order of the inventory: ctr, podman, rootless podman.
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
    assert!(runtime.ends_with(", namespace default"), "{runtime}");
    let clients: Vec<Value> = (0..3).map(|number| of(number, "client")).collect();
    assert_eq!(clients, ["ctr", "podman", "podman"]);
    assert_eq!(of(0, "socket"), "/run/containerd/containerd.sock");
    assert_eq!(of(1, "socket"), Value::Null);
    assert_eq!(of(0, "endpoint"), "unix:///run/containerd/containerd.sock");
    assert_eq!(of(0, "root"), "/var/lib/containerd");
    assert!(
        of(1, "runtime").as_str().unwrap().starts_with("podman "),
        "{found}"
    );
    assert_eq!(of(1, "root"), "/var/lib/containers/storage");
    assert_eq!(of(2, "root"), "/home/ops/.local/share/containers/storage");
    let free = of(2, "free_bytes").as_u64().unwrap();
    assert!((1 << 28..=3 << 30).contains(&free), "{found}");
}

#[test]
fn only_what_the_kubelet_sees_is_pulled() {
    let lab = lab();
    // Where a kubelet is, its namespace is taken; an image in another one is no success.
    let kubelet = pretend(&lab, "node-ctr", "kubelet");
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
    let probe = &other["nodes"][0]["probe"];
    assert_eq!(probe["socket"], "/run/containerd/containerd.sock");
    let said = probe["runtime"].as_str().unwrap();
    assert!(
        said.ends_with(", namespace build, which the kubelet does not see"),
        "{said}"
    );
    let limits = ["--limit", "node-ctr", SMALL];
    let refused = pull(
        &lab,
        &[&["--runtime-endpoint", endpoint], &limits[..]].concat(),
    )
    .expect(1);
    let (kind, said) = failure(&refused);
    assert_eq!(kind, "node-setup", "{said}");
    assert!(
        said.starts_with("the kubelet on this node does not see namespace build"),
        "{said}"
    );
    let pulled = pull(&lab, &limits).expect(0);
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
    // A containerd without the CRI is not the kubelet's, whatever the namespace.
    let config = "/etc/containerd/config.toml";
    let without = r#"cp "$0" /root/config.toml
        { echo 'disabled_plugins = ["io.containerd.grpc.v1.cri"]'; cat /root/config.toml; } >"$0""#;
    succeed(&mut lab.on("node-ctr", &["sh", "-c", without, config]));
    let restart = || {
        for action in ["stop", "start"] {
            succeed(&mut lab.command(&["service", "node-ctr", "containerd", action]));
        }
        let wait = "until ctr version; do sleep 0.1; done";
        succeed(&mut lab.on("node-ctr", &["timeout", "60", "sh", "-c", wait]));
    };
    restart();
    let (kind, said) = failure(&pull(&lab, &limits).expect(1));
    succeed(&mut lab.on("node-ctr", &["mv", "/root/config.toml", config]));
    restart();
    succeed(&mut lab.on("node-ctr", &["kill", &kubelet]));
    assert_eq!(kind, "node-setup", "{said}");
    assert!(said.contains("which has no CRI plugin"), "{said}");
}

#[test]
fn a_store_of_podman_is_the_kubelets_only_beside_cri_o() {
    let lab = lab();
    let podman = || pull(&lab, &["--limit", "node-podman", SMALL]);
    let kubelet = pretend(&lab, "node-podman", "kubelet");
    let (kind, said) = failure(&podman().expect(1));
    assert_eq!(kind, "node-setup", "{said}");
    assert!(said.contains("does not see images of podman"), "{said}");
    // CRI-O may keep its images elsewhere than podman: that is where they have to come.
    let crio = pretend(&lab, "node-podman", "crio");
    let configure = r#"set -e
        mkdir -p /run/crio /etc/crio/crio.conf.d
        python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("/run/crio/crio.sock")'
        printf '[crio]\nroot = "/var/lib/containers/of-crio"\n' >/etc/crio/crio.conf.d/10-root.conf"#;
    succeed(&mut lab.on("node-podman", &["sh", "-c", configure]));
    let pulled = podman();
    let probe = ["nodes", "--probe", "-o", "json", "--limit", "node-podman"];
    let probe = prepull(&lab, &probe).expect(0).json();
    let list = |root: &str| {
        let words = [
            "podman",
            "--root",
            root,
            "images",
            "--format",
            "{{.Repository}}:{{.Tag}}",
        ];
        succeed(&mut lab.on("node-podman", &words))
    };
    let stores = ["/var/lib/containers/of-crio", "/var/lib/containers/storage"].map(list);
    let tidy = "kill \"$@\"; rm -r /run/crio /etc/crio /var/lib/containers/of-crio";
    succeed(&mut lab.on("node-podman", &["sh", "-c", tidy, "sh", &kubelet, &crio]));
    pulled.expect(0);
    assert_eq!(stores, [format!("{SMALL}\n"), String::new()]);
    assert_eq!(
        probe["nodes"][0]["probe"]["root"],
        "/var/lib/containers/of-crio"
    );
}

#[test]
fn skopeo_copies_into_the_store_of_cri_o_where_nothing_else_is_installed() {
    let lab = lab();
    let on = |script: &str| succeed(&mut lab.on("node-podman", &["sh", "-c", script]));
    let limits = ["--limit", "node-podman", SMALL];
    on("mv /usr/bin/podman /root/podman");
    let without = pull(&lab, &limits);
    let processes = ["kubelet", "crio"].map(|name| pretend(&lab, "node-podman", name));
    on(
        "mkdir -p /etc/crio && printf 'root = \"/var/lib/containers/of-crio\"\\nstorage_driver = \"vfs\"\\n' >/etc/crio/crio.conf",
    );
    let runs = [pull(&lab, &limits), pull(&lab, &limits)];
    let probe = ["nodes", "--probe", "-o", "json", "--limit", "node-podman"];
    let probe = prepull(&lab, &probe).expect(0).json();
    let held = on("mv /root/podman /usr/bin/podman
        podman --root /var/lib/containers/of-crio --storage-driver vfs image inspect --format '{{.Digest}} {{.RepoTags}}' $(podman --root /var/lib/containers/of-crio --storage-driver vfs images -q)");
    on(&format!(
        "kill {}; rm -r /etc/crio /var/lib/containers/of-crio",
        processes.join(" ")
    ));
    // Without CRI-O no pod would use what it copies.
    let (kind, said) = failure(&without.expect(1));
    assert_eq!(kind, "runtime-missing", "{said}");
    let [first, second] = runs.map(|run| run.expect(0).json());
    let outcome = outcomes(&first)[0];
    assert_eq!(outcome["status"], "pulled", "{first}");
    assert_eq!(outcomes(&second)[0]["status"], "present", "{second}");
    let digest = outcome["digest"].as_str().unwrap();
    assert_eq!(held, format!("{digest} [{SMALL}]\n"));
    let probe = &probe["nodes"][0]["probe"];
    assert_eq!(probe["client"], "skopeo");
    assert_eq!(probe["root"], "/var/lib/containers/of-crio");
}

#[test]
fn a_user_without_rights_pulls_into_a_store_of_their_own_and_with_become_into_roots() {
    let lab = lab();
    let limits = ["--limit", "node-rootless", SMALL];
    let roots = || {
        let words = ["podman", "images", "-q"];
        succeed(&mut lab.on("node-rootless", &words))
    };
    let own = || as_ops(&lab, &["podman", "images", "-q"]);
    let pulled = pull(&lab, &limits).expect(0).json();
    assert_eq!(outcomes(&pulled)[0]["status"], "pulled");
    assert_eq!((own().lines().count(), roots().as_str()), (1, ""));
    as_ops(&lab, &["podman", "rmi", "--all", "--force"]);
    // The registry is private: the login came with it.
    let pulled = pull(&lab, &[&["--become"], &limits[..]].concat())
        .expect(0)
        .json();
    assert_eq!(outcomes(&pulled)[0]["status"], "pulled");
    assert_eq!((own().as_str(), roots().lines().count()), ("", 1));
    succeed(&mut lab.on("node-rootless", &["podman", "rmi", "--all", "--force"]));
}

#[test]
fn podman_under_dockers_name_is_known_and_so_is_its_store() {
    let lab = lab();
    let shim = r#"printf '#!/bin/sh\nexec podman "$@"\n' >/usr/local/bin/docker && chmod 755 /usr/local/bin/docker"#;
    succeed(&mut lab.on("node-rootless", &["sh", "-c", shim]));
    let probe = ["nodes", "--probe", "-o", "json", "--limit", "node-rootless"];
    let probe = prepull(&lab, &probe).expect(0).json();
    let pulled = pull(&lab, &["--limit", "node-rootless", SMALL]);
    succeed(&mut lab.on("node-rootless", &["rm", "/usr/local/bin/docker"]));
    let probe = &probe["nodes"][0]["probe"];
    assert!(probe["runtime"].as_str().unwrap().starts_with("podman "));
    assert_eq!(probe["client"], "docker");
    assert_eq!(probe["root"], "/home/ops/.local/share/containers/storage");
    let free = probe["free_bytes"].as_u64().unwrap();
    assert!((1 << 28..=3 << 30).contains(&free), "{probe}");
    pulled.expect(0);
}

#[test]
fn a_probe_that_finds_no_runtime_says_what_is_there_and_what_is_missing() {
    let lab = lab();
    let probe = ["nodes", "--probe", "-o", "json", "--limit", "node-ctr"];
    succeed(&mut lab.command(&["service", "node-ctr", "containerd", "stop"]));
    let (kind, said) = failure(&prepull(&lab, &probe).expect(1));
    assert_eq!(kind, "runtime-down", "{said}");
    assert!(said.starts_with("ctr is here, but "), "{said}");
    succeed(&mut lab.command(&["service", "node-ctr", "containerd", "start"]));
    let wait = "until ctr version; do sleep 0.1; done";
    succeed(&mut lab.on("node-ctr", &["timeout", "60", "sh", "-c", wait]));
    succeed(&mut lab.on("node-ctr", &["mv", "/usr/bin/ctr", "/root/ctr"]));
    let without = prepull(&lab, &probe);
    succeed(&mut lab.on("node-ctr", &["mv", "/root/ctr", "/usr/bin/ctr"]));
    let without = without.expect(1);
    schemas::validate("nodes-1.json", &[without.json().to_string()]);
    let (kind, said) = failure(&without);
    assert_eq!(kind, "runtime-missing", "{said}");
    assert_eq!(
        said,
        "looked for crictl, docker, podman, nerdctl, ctr and skopeo and found none; /run/containerd/containerd.sock is here, but no client for it (crictl, nerdctl or ctr)"
    );
}

#[test]
fn a_login_for_a_token_service_reaches_it_through_ctr() {
    let lab = lab();
    succeed(&mut lab.command(&["registry", "fault", "token"]));
    let limits = ["--limit", "node-ctr", SMALL];
    let refused = end(start(&mut pull_command(&lab, &limits), "not the password"));
    let (kind, said) = failure(&refused.expect(1));
    assert_eq!(kind, "registry-auth", "{said}");
    let told =
        "ctr: the token service https://registry.lab:5000/token refused the login: http status 401";
    assert_eq!(said, told);
    succeed(&mut lab.on("node-ctr", &["mv", "/usr/bin/curl", "/root/curl"]));
    let without = pull(&lab, &limits);
    succeed(&mut lab.on("node-ctr", &["mv", "/root/curl", "/usr/bin/curl"]));
    let (kind, said) = failure(&without.expect(1));
    assert_eq!(kind, "registry-auth", "{said}");
    assert!(said.contains("install curl on the node"), "{said}");
    let run = watched(&lab, &limits, &["curl -sS", "ctr images pull"]).expect(0);
    assert_eq!(outcomes(&run.json())[0]["status"], "pulled");
    assert_eq!(left_on(&lab, &lab.nodes()[0]), "");
}

#[test]
fn an_image_is_pulled_with_its_digest_and_then_is_present() {
    let lab = lab();
    // What arrives in a store of a user is not counted.
    let nodes = ["--limit", "node-ctr,node-podman"];
    let pull = |image| {
        pull(&lab, &[&nodes[..], &[image]].concat())
            .expect(0)
            .json()
    };
    let first = pull(APP);
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
        let again = pull(image);
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

/// The first characters of the registry's password, and those of the login in base64.
fn needles(lab: &Lab) -> [String; 2] {
    let password = lab.password();
    let login = STANDARD.encode(format!("ci:{password}"));
    [password[..24].to_string(), login[..32].to_string()]
}

fn holds(needles: &[String; 2], bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    needles.iter().any(|needle| text.contains(needle))
}

/// A pull during which processes that begin with these words are seen, and the login in none.
fn watched(lab: &Lab, arguments: &[&str], ways: &[&'static str]) -> Run {
    let needles = needles(lab);
    let mut running = start(&mut pull_command(lab, arguments), &lab.password());
    let mut seen: std::collections::HashSet<&str> = std::collections::HashSet::new();
    while running.try_wait().unwrap().is_none() {
        for process in std::fs::read_dir("/proc").unwrap().flatten() {
            let read = |name| std::fs::read(process.path().join(name)).unwrap_or_default();
            let line = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
            seen.extend(ways.iter().filter(|way| line.starts_with(**way)));
            assert!(!holds(&needles, line.as_bytes()), "arguments: {line}");
            assert!(!holds(&needles, &read("environ")), "environment: {line}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(seen.len(), ways.len(), "not all were seen: {seen:?}");
    end(running)
}

#[test]
fn a_password_is_in_no_process_and_left_nowhere() {
    let lab = lab();
    succeed(&mut lab.command(&["registry", "rate", "80mbit"]));
    let ways = ["ctr images pull", "podman pull"];
    let run = watched(&lab, &["--limit", "node-ctr,node-podman", APP], &ways).expect(0);
    let needles = needles(&lab);
    let holds = |bytes: &[u8]| holds(&needles, bytes);
    assert!(!holds(run.stdout.as_bytes()) && !holds(run.stderr.as_bytes()));
    for node in lab.nodes() {
        assert_eq!(left_on(&lab, &node), "", "on {}", node.name);
        let search = "grep -rlaF -e \"$0\" -e \"$1\" /run /dev/shm /tmp /var/tmp /var/lib/containerd /var/lib/containers/storage/*.json 2>/dev/null; true";
        let found =
            succeed(&mut lab.on(&node.name, &["sh", "-c", search, &needles[0], &needles[1]]));
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

/// The names and digests of a node's only image, as its runtime has them.
fn names_on(lab: &Lab, node: &Node) -> String {
    let inspect = r#"for image in $(podman images -q); do
        podman image inspect --format '{{json .RepoTags}} {{json .RepoDigests}}' "$image"
    done"#;
    match node.name.as_str() {
        "node-ctr" => succeed(&mut lab.on(
            &node.name,
            &["sh", "-c", "ctr images ls | awk '{ print $1, $3 }'"],
        )),
        "node-podman" => succeed(&mut lab.on(&node.name, &["sh", "-c", inspect])),
        _ => as_ops(lab, &["sh", "-c", inspect]),
    }
}

#[test]
fn through_ssh_every_client_leaves_what_an_ordinary_pull_leaves() {
    let lab = lab();
    let nodes = lab.nodes();
    let ordinary = pull(&lab, &[SMALL]).expect(0).json();
    let expected: Vec<String> = nodes.iter().map(|node| names_on(&lab, node)).collect();
    forget(&lab);

    let log = RegistryLog::now(&lab);
    let document = via(&lab, &["--via", "ssh-only", SMALL]).expect(0).json();
    let blobs = log.blobs();
    assert!(
        blobs.len() == 2 && blobs.values().all(|times| *times == 1),
        "{blobs:#?}"
    );
    for (node, expected) in nodes.iter().zip(&expected) {
        let (outcome, before) = (outcome(&document, node), outcome(&ordinary, node));
        assert_eq!(
            (&outcome["status"], &outcome["via"]),
            (&"pulled".into(), &"ssh".into())
        );
        assert_eq!(outcome["via_note"], Value::Null, "{outcome:#}");
        assert_eq!(outcome["digest"], before["digest"], "on {}", node.name);
        assert_eq!(&names_on(&lab, node), expected, "on {}", node.name);
        assert_eq!(left_on(&lab, node), "", "on {}", node.name);
        assert!(!log.heard_of(node), "{} asked the registry", node.name);
    }
}

#[test]
fn through_ssh_an_image_is_named_by_its_digest() {
    let lab = lab();
    let nodes = lab.nodes();
    let tagged = pull(&lab, &[SMALL]).expect(0).json();
    let digest = outcomes(&tagged)[0]["digest"].as_str().unwrap().to_string();
    let pinned = format!("{}@{digest}", SMALL.rsplit_once(':').unwrap().0);
    forget(&lab);

    let log = RegistryLog::now(&lab);
    let document = via(&lab, &["--via", "ssh", &pinned]).expect(0).json();
    for (node, outcome) in nodes.iter().zip(outcomes(&document)) {
        assert_eq!(
            (&outcome["status"], &outcome["via"]),
            (&"pulled".into(), &"ssh".into())
        );
        assert_eq!(outcome["digest"], digest.as_str(), "{outcome:#}");
        // podman asks the registry for the name.
        let is_podman = node.name != "node-ctr";
        assert_eq!(outcome["via_note"].is_string(), is_podman, "{outcome:#}");
        assert_eq!(log.heard_of(node), is_podman, "{}", node.name);
        let names = names_on(&lab, node);
        assert!(
            names.contains(&pinned) && !names.contains("127.0.0.1"),
            "{names}"
        );
    }
    // podman fetches the small configuration once more, and no layer.
    let again: Vec<usize> = log
        .blobs()
        .into_values()
        .filter(|times| *times > 1)
        .collect();
    assert!(again.len() <= 1, "{:#?}", log.blobs());

    forget(&lab);
    let document = via(&lab, &["--via", "ssh-only", &pinned]).expect(1).json();
    for (node, outcome) in nodes.iter().zip(outcomes(&document)) {
        let kind = outcome["failure"]["kind"].as_str();
        let expected = (node.name != "node-ctr").then_some("node-setup");
        assert_eq!(kind, expected, "{outcome:#}");
    }
}

/// crictl where CRI-O keeps the images, as podman tells of them.
const CRICTL_OF_CRI_O: &str = r#"#!/bin/sh
podman() { command podman --root /var/lib/containers/of-crio "$@"; }
case $1 in
    images) podman images -q ;;
    info) echo '{ "config": { "crio": {} } }' ;;
    version) printf 'Version:  0.1.0\nRuntimeName:  cri-o\nRuntimeVersion:  1.35.0\nRuntimeApiVersion:  v1\n' ;;
    inspecti)
        while [ $# -gt 1 ]; do shift; done
        podman image exists "$1" || { echo "FATA[0000] no such image \"$1\" present" >&2; exit 1; }
        podman image inspect --format '{"status":{"id":"{{.Id}}","repoTags":{{json .RepoTags}},"repoDigests":{{json .RepoDigests}},"size":"{{.Size}}"}}' "$1"
        ;;
    *) echo 'FATA[0000] pulling image: server gave HTTP response to HTTPS client' >&2; exit 1 ;;
esac
"#;

/// Where CRI-O keeps its images there.
const STORE: &str = "/var/lib/containers/of-crio";

#[test]
fn through_ssh_podman_pulls_into_the_store_of_cri_o() {
    let lab = lab();
    let crio = pretend(&lab, "node-podman", "crio");
    let configure = r#"set -e
        mkdir -p /run/crio /etc/crio/crio.conf.d
        python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("/run/crio/crio.sock")'
        printf '[crio]\nroot = "/var/lib/containers/of-crio"\n' >/etc/crio/crio.conf.d/10-root.conf
        printf '%s' "$1" >/usr/local/bin/crictl
        chmod 755 /usr/local/bin/crictl"#;
    succeed(&mut lab.on(
        "node-podman",
        &["sh", "-c", configure, "sh", CRICTL_OF_CRI_O],
    ));
    let limits = ["--limit", "node-podman"];
    let pulled = via(&lab, &[&limits[..], &["--via", "ssh-only", SMALL]].concat());
    let names = lab.on(
        "node-podman",
        &[
            "podman",
            "--root",
            "/var/lib/containers/of-crio",
            "images",
            "--format",
            "{{.Names}}",
        ],
    );
    let names = succeed(&mut { names });
    let served = pulled.json();
    let pinned = format!(
        "{}@{}",
        SMALL.rsplit_once(':').unwrap().0,
        outcomes(&served)[0]["digest"].as_str().unwrap_or_default()
    );
    succeed(&mut lab.on("node-podman", &["podman", "--root", STORE, "rmi", "--all"]));
    let by_digest = via(
        &lab,
        &[&limits[..], &["--via", "ssh-only", &pinned]].concat(),
    );
    let tidy =
        "kill \"$1\"; rm -r /usr/local/bin/crictl /run/crio /etc/crio /var/lib/containers/of-crio";
    succeed(&mut lab.on("node-podman", &["sh", "-c", tidy, "sh", &crio]));
    let document = pulled.expect(0).json();
    let outcome = outcomes(&document)[0];
    assert_eq!(
        (&outcome["status"], &outcome["via"]),
        (&"pulled".into(), &"ssh".into())
    );
    assert!(
        outcome["digest"].as_str().unwrap().starts_with("sha256:"),
        "{outcome:#}"
    );
    assert_eq!(names, format!("[{SMALL}]\n"));
    let document = by_digest.expect(1).json();
    let failure = &outcomes(&document)[0]["failure"];
    assert_eq!(failure["kind"], "node-setup", "{failure}");
    let said = failure["detail"].as_str().unwrap();
    assert!(said.contains("CRI-O needs its registry"), "{said}");
}
