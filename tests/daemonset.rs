//! Pulls by pods: the binary against a TLS server that plays API server, DaemonSet controller and kubelets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test file: a panic is a failed test

#[path = "daemonset/api.rs"]
mod api;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use serde_json::{Value, json};

use api::{Api, DIGEST, Kubelet, TOKEN, is_of_the_api, node, said};

const APP: &str = "reg.example/team/app:v1";
const NOT_FOUND: &str = "rpc error: code = NotFound desc = failed to pull and unpack image \"reg.example/team/app:v1\": failed to resolve image: reg.example/team/app:v1: not found";

fn plain(name: &str, kubelet: Kubelet) -> (Value, Option<Kubelet>) {
    (node(name, json!({}), json!([])), Some(kubelet))
}

fn document(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", said(output)))
}

/// The status of the first image on each node, with the failure's kind and detail.
fn outcomes(output: &Output) -> BTreeMap<String, (String, String, String)> {
    let document = document(output);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let nodes = document["nodes"].as_array().unwrap();
    nodes
        .iter()
        .map(|node| {
            let outcome = &node["outcomes"][0];
            let failure = &outcome["failure"];
            (
                text(&node["name"]),
                (
                    text(&outcome["status"]),
                    text(&failure["kind"]),
                    text(&failure["detail"]),
                ),
            )
        })
        .collect()
}

const PULL: [&str; 9] = [
    "pull",
    "--kube",
    "--via",
    "daemonset",
    "-F",
    "none",
    "-o",
    "json",
    "--no-journal",
];

#[test]
fn a_pull_by_pods_applies_waits_reports_and_removes() {
    let tainted = json!([{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]);
    let control_plane = json!({"node-role.kubernetes.io/control-plane": ""});
    let api = Api::start(vec![
        plain("w1", Kubelet::Pulls),
        plain("w2", Kubelet::Has),
        plain("w3", Kubelet::Refused(NOT_FOUND)),
        (node("w4", json!({}), tainted), None),
        (node("cp", control_plane, json!([])), None),
    ]);
    // A broken connection, and a server that has forgotten, are got over.
    api.with(|cluster| (cluster.broken_watches, cluster.forgotten_watches) = (1, 2));
    let output = api.prepull(
        &[
            &PULL[..],
            &["--toleration", "other", "--report", "run.xml", APP],
        ]
        .concat(),
    );
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let seen = outcomes(&output);
    assert_eq!(seen.len(), 4, "no control plane: {seen:?}");
    assert_eq!(seen["w1"].0, "pulled");
    assert_eq!(seen["w2"].0, "present");
    assert_eq!(
        (seen["w3"].0.as_str(), seen["w3"].1.as_str()),
        ("failed", "image-not-found")
    );
    assert!(seen["w3"].2.contains("not found"), "{seen:?}");
    assert_eq!(seen["w4"].1, "no-pod");
    assert!(seen["w4"].2.contains("gpu=yes:NoSchedule"), "{seen:?}");
    assert_eq!(document(&output)["images"][0]["digest"], DIGEST);
    let junit = std::fs::read_to_string(api.folder.path().join("run.xml")).unwrap();
    assert!(junit.contains("image-not-found"), "{junit}");
    assert!(
        api.with(|cluster| cluster.daemonset.is_none()),
        "it is removed"
    );
    assert_eq!(
        api.asked(
            "DELETE",
            "/apis/apps/v1/namespaces/prepull/daemonsets/prepull"
        )
        .len(),
        1
    );
    // Asked first, and lists only where a watch broke off.
    let reviews = api.asked("POST", "/apis/authorization.k8s.io/");
    assert_eq!(reviews.len(), 12);
    let whole_lists = |path: &str| {
        let asked = api.asked("GET", path);
        asked
            .iter()
            .filter(|(at, ..)| !at.contains("watch=") && !at.contains("continue="))
            .count()
    };
    assert!(
        whole_lists("/api/v1/nodes") <= 2,
        "once for the fleet, once to watch"
    );
    assert!(whole_lists("/api/v1/namespaces/prepull/pods") <= 4);
}

#[test]
fn what_is_missing_is_found_before_anything_is_made() {
    let api = Api::start(vec![plain("w1", Kubelet::Pulls)]);
    api.with(|cluster| cluster.denied = vec!["watch pods", "create daemonsets"]);
    for command in [&PULL[..], &["daemonset", "apply"]] {
        let output = api.prepull(&[command, &[APP]].concat());
        let text = said(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        for part in [
            "create daemonsets.apps in the namespace prepull",
            "watch pods in the namespace prepull",
            "render --rbac",
            "SSH",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
    assert!(api.asked("PATCH", "/").is_empty());

    api.with(|cluster| cluster.denied.clear());
    let output = api.prepull(&["daemonset", "apply", "-n", "warm", APP]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(
        said(&output).contains("--create-namespace"),
        "{}",
        said(&output)
    );
    let output = api.prepull(&[
        "daemonset",
        "apply",
        "-n",
        "warm",
        "--create-namespace",
        APP,
    ]);
    assert!(output.status.success(), "{}", said(&output));
    let created = api.asked("POST", "/api/v1/namespaces");
    let labels = &created[0].2["metadata"]["labels"];
    assert_eq!(labels["pod-security.kubernetes.io/enforce"], "restricted");
}

#[test]
fn refusals_say_what_to_do() {
    let api = Api::start(vec![plain("w1", Kubelet::Pulls)]);
    for (asked, code, message, part) in [
        (
            "PATCH /apis",
            409,
            "Apply failed with 1 conflict: conflict with \"kubectl\"",
            "--name",
        ),
        (
            "PATCH /apis",
            403,
            "pods \"x\" is forbidden: violates PodSecurity",
            "violates PodSecurity",
        ),
        (
            "PATCH /apis",
            422,
            "spec.template: Invalid value",
            "Invalid value",
        ),
    ] {
        api.with(|cluster| cluster.refusals.push((asked, code, message)));
        let output = api.prepull(&[&PULL[..], &["--pod-mode", "no-op", APP]].concat());
        let text = said(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(
            text.contains(part) && text.contains(&code.to_string()),
            "{text}"
        );
    }
    // Somebody else's is left alone.
    api.with(|cluster| {
        cluster.daemonset = Some(json!({"metadata": {"name": "prepull", "uid": "x"}, "spec": {}}))
    });
    for command in [
        &["daemonset", "remove"][..],
        &["daemonset", "status"],
        &["daemonset", "apply", APP],
    ] {
        let output = api.prepull(command);
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(
            said(&output).contains("is not prepull's"),
            "{}",
            said(&output)
        );
    }
    assert!(api.asked("DELETE", "/").is_empty());
}

#[test]
fn image_volumes_are_used_where_everything_has_them() {
    let api = Api::start(vec![plain("w1", Kubelet::Pulls)]);
    let uses_volumes = || {
        let (_, _, body) = api.asked("PATCH", "/").last().unwrap().clone();
        body["spec"]["template"]["spec"]["volumes"][0]
            .get("image")
            .is_some()
    };
    for (minor, image_volumes, expected) in [
        (32, false, false),
        (35, false, false),
        (34, true, true),
        (35, true, true),
    ] {
        api.with(|cluster| (cluster.minor, cluster.image_volumes) = (minor, image_volumes));
        let output = api.prepull(&[&PULL[..], &[APP]].concat());
        assert!(output.status.success(), "{}", said(&output));
        assert_eq!(uses_volumes(), expected, "1.{minor}");
        assert_eq!(outcomes(&output)["w1"].0, "pulled");
    }
    let dry = api
        .asked("PATCH", "/")
        .into_iter()
        .filter(|(at, ..)| at.contains("dryRun=All"));
    assert_eq!(dry.count(), 3, "1.32 is not tried");
}

#[test]
fn status_says_how_things_stand_and_remove_removes() {
    let api = Api::start(vec![
        plain("w1", Kubelet::Pulls),
        plain("w2", Kubelet::Silent),
        plain("w3", Kubelet::Refused(NOT_FOUND)),
    ]);
    let missing = api.prepull(&["daemonset", "status"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(
        said(&missing).contains("prepull daemonset apply"),
        "{}",
        said(&missing)
    );
    assert!(
        api.prepull(&["daemonset", "apply", "--pod-mode", "no-op", APP, "nginx"])
            .status
            .success()
    );
    let output = api.prepull(&["daemonset", "status", "--no-wait", "-o", "json"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let seen = outcomes(&output);
    assert_eq!(seen["w1"].0, "pulled");
    assert_eq!(seen["w2"].0, "not-run");
    assert_eq!(seen["w3"].1, "image-not-found");
    assert_eq!(
        document(&output)["images"][1]["reference"],
        "docker.io/library/nginx:latest"
    );
    let output = api.prepull(&["daemonset", "status", "--deadline", "3s", "-o", "json"]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert_eq!(outcomes(&output)["w2"].2, "the deadline passed");
    assert!(
        api.with(|cluster| cluster.daemonset.is_some()),
        "status changes nothing"
    );
    for expected in ["removed", "is not there"] {
        let output = api.prepull(&["daemonset", "remove"]);
        assert!(
            output.status.success() && said(&output).contains(expected),
            "{}",
            said(&output)
        );
    }
}

/// The login expires while the run waits for a pod: a new one is in the kubeconfig's token file, or none is.
#[test]
fn a_login_that_expires_during_a_run_is_read_again() {
    for renewed in [true, false] {
        let api = Api::start(vec![
            plain("w1", Kubelet::Pulls),
            plain("w2", Kubelet::Silent),
        ]);
        let config = api.folder.path().join("config");
        let text = std::fs::read_to_string(&config).unwrap();
        let text = text.replace(&format!("token: {TOKEN}"), "tokenFile: token");
        std::fs::write(&config, text).unwrap();
        std::fs::write(api.folder.path().join("token"), TOKEN).unwrap();
        let child = api
            .command(&[&PULL[..], &["--pod-mode", "no-op", APP]].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        api.wait_until(|cluster| {
            let is_watch = |at: &String| at.contains("watch=1");
            let watches = cluster.asked.iter().filter(|(_, at, ..)| is_watch(at));
            watches.count() >= 4
        });
        if renewed {
            std::fs::write(api.folder.path().join("token"), "another").unwrap();
        }
        api.with(|cluster| {
            cluster.token = "another".into();
            cluster.nodes[1].1 = Some(Kubelet::Pulls);
            cluster.make_pods();
        });
        let output = child.wait_with_output().unwrap();
        let left = api.with(|cluster| cluster.daemonset.is_some());
        let text = said(&output);
        assert_eq!(left, !renewed, "{text}");
        if renewed {
            assert_eq!(output.status.code(), Some(0), "{text}");
            assert_eq!(outcomes(&output)["w2"].0, "pulled", "{text}");
        } else {
            assert!(text.contains("the login has expired"), "{text}");
        }
    }
}

#[test]
fn an_interrupt_and_nodes_that_come_and_go_end_well() {
    let api = Api::start(vec![
        plain("w1", Kubelet::Pulls),
        plain("w2", Kubelet::Silent),
        plain("w3", Kubelet::Silent),
    ]);
    let arguments = PULL.map(|word| if word == "json" { "jsonl" } else { word });
    let arguments = [&arguments[..], &["--pod-mode", "no-op", APP]].concat();
    let mut child = api
        .command(&arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    api.wait_until(|cluster| {
        let is_watch = |at: &String| at.contains("watch=1");
        let watches = cluster.asked.iter().filter(|(_, at, ..)| is_watch(at));
        watches.count() >= 4
    });
    api.with(|cluster| {
        cluster.add_node(node("w9", json!({}), json!([])), Kubelet::Pulls);
        cluster.remove_node("w3");
    });
    // Both are told in this order; once the second is seen, so was the first.
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (mut is_pulled, mut is_gone) = (false, false);
    while !(is_pulled && is_gone) {
        let line = lines
            .next()
            .expect("it ends before it is asked to")
            .unwrap();
        is_pulled |= line.contains("\"w1\"") && line.contains("pulled");
        is_gone |= line.contains("\"w3\"") && line.contains("not in the cluster");
    }
    let id = child.id().to_string();
    let killed = Command::new("kill").args(["-INT", &id]).status();
    assert!(killed.unwrap().success());
    let last = lines.map(Result::unwrap).last().unwrap();
    let mut output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", said(&output));
    let last: Value = serde_json::from_str(&last).unwrap();
    output.stdout = last["result"].to_string().into_bytes();
    let seen = outcomes(&output);
    assert_eq!(seen["w1"].0, "pulled");
    assert_eq!(seen["w2"].0, "not-run");
    assert_eq!(seen["w3"].2, "the node is not in the cluster");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        text.contains("joined the cluster meanwhile") && text.contains("w9"),
        "{text}"
    );
    assert!(
        api.with(|cluster| cluster.daemonset.is_none()),
        "an interrupted run leaves nothing"
    );
}

#[test]
fn nodes_without_a_pod_are_given_to_ssh() {
    let tainted = json!([{"key": "gpu", "effect": "NoSchedule"}]);
    let api = Api::start(vec![
        plain("w1", Kubelet::Pulls),
        (node("w2", json!({}), tainted), None),
    ]);
    let arguments = [
        "--rest",
        "ssh",
        "--toleration",
        "other",
        "-u",
        "ops",
        "--port",
        "1",
        "--address-type",
        "ExternalIP",
        "--retries",
        "0",
        APP,
    ];
    let output = api.prepull(&[&PULL[..], &arguments].concat());
    let seen = outcomes(&output);
    assert_eq!(seen["w1"].0, "pulled", "{}", said(&output));
    // The API names no address of this type: SSH is as far as it gets.
    assert!(
        seen["w2"].1 == "node-setup" && seen["w2"].2.contains("--address-type"),
        "{seen:?}"
    );
}

#[test]
fn what_is_rendered_is_what_the_api_has() {
    let api = Api::start(vec![]);
    let read = |arguments: &[&str]| -> Vec<Value> {
        let output = api.prepull(&[&["daemonset", "render"], arguments].concat());
        assert!(output.status.success(), "{}", said(&output));
        let text = String::from_utf8(output.stdout).unwrap();
        text.split("---\n")
            .map(|document| serde_yaml::from_str(document).unwrap())
            .collect()
    };
    for mode in ["no-op", "image-volume"] {
        let objects = read(&[
            "--pod-mode",
            mode,
            "-l",
            "pool in (a,b),!old",
            "--toleration",
            "gpu=yes:NoSchedule",
            "--image-pull-secret",
            "reg",
            "--priority-class",
            "low",
            "--pull",
            "always",
            APP,
            "nginx",
        ]);
        is_of_the_api(&objects[0]);
    }
    let objects = read(&["--create-namespace", "-n", "warm", "--name", "images", APP]);
    assert_eq!(
        (&objects[0]["kind"], &objects[1]["metadata"]["name"]),
        (&json!("Namespace"), &json!("images"))
    );
    fn same<T: serde::de::DeserializeOwned + serde::Serialize>(object: &Value) {
        let typed: T = serde_json::from_value(object.clone()).unwrap();
        assert_eq!(&serde_json::to_value(typed).unwrap(), object);
    }
    same::<Namespace>(&objects[0]);
    let objects = read(&["--rbac", "-n", "warm"]);
    same::<ServiceAccount>(&objects[0]);
    same::<ClusterRole>(&objects[1]);
    same::<ClusterRoleBinding>(&objects[2]);
    same::<Role>(&objects[3]);
    same::<RoleBinding>(&objects[4]);
    assert_eq!(objects[3]["metadata"]["namespace"], "warm");
}

#[test]
fn options_that_mean_nothing_to_pods_are_refused() {
    let api = Api::start(vec![plain("w1", Kubelet::Pulls)]);
    for (arguments, part) in [
        (&["--via", "daemonset", "-H", "a"][..], "--kube is needed"),
        (
            &["--via", "daemonset", "--kube", "--waves", "1,100%"],
            "--waves",
        ),
        (
            &["--via", "daemonset", "--kube", "--registry-user", "ci"],
            "--image-pull-secret",
        ),
        (&["-H", "a", "--leave"], "--via daemonset"),
        (
            &["--via", "daemonset", "--kube", "--namespace", "../x"],
            "lower-case",
        ),
    ] {
        let output = api.prepull(&[&["pull", "-F", "none", APP], arguments].concat());
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains(part), "{part}: {}", said(&output));
    }
}

/// `kubectl prepull`: the program under the name by which kubectl finds it.
#[test]
fn as_a_plugin_of_kubectl_it_takes_what_kubectl_takes() {
    let api = Api::start(vec![plain("w1", Kubelet::Pulls)]);
    let plugin = api.folder.path().join("kubectl-prepull");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_prepull"), &plugin).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&plugin);
        command
            .args(arguments)
            .env_clear()
            .env("HOME", api.folder.path())
            .current_dir(api.folder.path());
        command.env("KUBECONFIG", "/nonexistent").output().unwrap()
    };
    api.with(|cluster| cluster.namespaces.push("warm".into()));
    let output = run(&[
        "pull",
        "--kubeconfig",
        "config",
        "--context",
        "lab",
        "-n",
        "warm",
        "--via",
        "daemonset",
        "-F",
        "none",
        "-o",
        "json",
        APP,
    ]);
    assert!(output.status.success(), "{}", said(&output));
    let patches = api.asked("PATCH", "/apis/apps/v1/namespaces/warm/daemonsets/prepull");
    let applied = patches.iter().filter(|(at, ..)| !at.contains("dryRun"));
    assert_eq!(applied.count(), 1);
    let help = run(&["--help"]);
    assert!(
        said(&help).contains("Usage: kubectl prepull"),
        "{}",
        said(&help)
    );
    let help = run(&["pull", "--help"]);
    assert!(
        said(&help).contains("Usage: kubectl prepull pull")
            && said(&help).contains("-n, --namespace"),
        "{}",
        said(&help)
    );
    let nodes = run(&[
        "nodes",
        "--kubeconfig",
        "config",
        "-F",
        "none",
        "-o",
        "name",
        "-u",
        "ops",
    ]);
    assert_eq!(said(&nodes), "w1\n");
    // The run is gone on with as it was meant.
    let output = run(&["pull", "--resume", "last", "-F", "none", "-o", "json"]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(outcomes(&output)["w1"].0, "present");
}

/// The template for krew, filled in as krew-release-bot does.
#[test]
fn the_krew_manifest_is_one() {
    let text = std::fs::read_to_string(".krew.yaml").unwrap();
    let mut filled = String::new();
    for line in text.lines() {
        let line = line.replace("{{ .TagName }}", "v1.2.3");
        match line.trim_start().strip_prefix("{{addURIAndSha \"") {
            Some(rest) => {
                let (uri, _) = rest.split_once('"').unwrap();
                filled.push_str(&format!("    uri: {uri}\n    sha256: {}\n", "0".repeat(64)));
            }
            None => filled.push_str(&format!("{line}\n")),
        }
    }
    let manifest: Value = serde_yaml::from_str(&filled).unwrap();
    assert_eq!(
        manifest["apiVersion"],
        "krew.googlecontainertools.github.com/v1alpha2"
    );
    assert_eq!(
        (&manifest["kind"], &manifest["metadata"]["name"]),
        (&json!("Plugin"), &json!("prepull"))
    );
    let spec = &manifest["spec"];
    assert!(
        spec["shortDescription"].as_str().unwrap().len() <= 50,
        "krew's limit"
    );
    assert_eq!(spec["homepage"], env!("CARGO_PKG_REPOSITORY"));
    for platform in spec["platforms"].as_array().unwrap() {
        assert_eq!(platform["bin"], env!("CARGO_PKG_NAME"));
        assert_eq!(platform["selector"]["matchLabels"]["os"], "linux");
        let uri = platform["uri"].as_str().unwrap();
        assert!(
            uri.starts_with("https://") && uri.contains("v1.2.3") && uri.ends_with(".tar.gz"),
            "{uri}"
        );
    }
}
