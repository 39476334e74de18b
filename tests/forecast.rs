//! Forecasts on real nodes: docker and containerd, and what the pulls after them bring.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test file: a panic is a failed test

#[allow(dead_code)] // each test file uses its part
#[path = "support/schemas.rs"]
mod schemas;
#[path = "support/fleet.rs"]
mod support;

use serde_json::Value;
use support::*;

/// One layer of 4 MB is in both images.
const BEFORE: [&str; 3] = ["registry.lab:5000/foretold/before:v1", "4M@foretold", "1M"];
const AFTER: [&str; 4] = [
    "registry.lab:5000/foretold/after:v1",
    "4M@foretold",
    "2M",
    "300k",
];

/// The sizes of the layers that only [`AFTER`] has: what was pushed, and the headers of its archives.
fn own_layers(forecast: &Value) -> u64 {
    let bytes = forecast["bytes"].as_u64().unwrap();
    assert!((2_300_000..2_330_000).contains(&bytes), "{forecast}");
    bytes
}

/// docker and containerd, each as root and as a user with sudo.
#[test]
fn what_is_foretold_comes_to_the_byte() {
    let lab = Lab::start("foretold", 4, &[]);
    for image in [&BEFORE[..], &AFTER[..]] {
        succeed(&mut lab.command(&[&["push"], image].concat()));
    }
    let forecast = |image: &str| {
        let mut asking = pull_command(&lab, &["--forecast", image]);
        // This machine asks the registry for sizes.
        asking.env("SSL_CERT_FILE", lab.file("ca.crt"));
        let run = end(start(&mut asking, &lab.password())).expect(0);
        let schema = [serde_json::to_string(&run.json()).unwrap()];
        schemas::validate("forecast-1.json", &schema);
        run.json()
    };
    let first = forecast(BEFORE[0]);
    assert_eq!(
        first["forecast"]["time"],
        Value::Null,
        "no run was recorded"
    );
    assert_eq!(first["forecast"]["unknown_nodes"], 0);
    let pulled = pull(&lab, &[BEFORE[0]]).expect(0).json();
    assert_eq!(pulled["forecast"]["bytes_error"], 0.0, "{pulled}");
    assert_eq!(pulled["forecast"]["run"], first["run"]);
    assert_eq!(pulled["arrived"], first["forecast"]["bytes"]);

    // A kubelet that collects from 1 % on; its runtime is containerd, so that it changes no node's runtime.
    succeed(&mut lab.on("node-2", &["sh", "-c", "mkdir -p /var/lib/kubelet && echo 'imageGCHighThresholdPercent: 1' >/var/lib/kubelet/config.yaml"]));
    pretend(&lab, "node-2", "kubelet");
    let second = forecast(AFTER[0]);
    let nodes = second["nodes"].as_array().unwrap();
    for node in nodes {
        // The shared layer is there.
        own_layers(&node["forecast"]);
        assert_eq!(node["forecast"]["layers"], 2, "{node}");
        assert!(
            node["forecast"]["seconds"].as_f64().unwrap() > 0.0,
            "{node}"
        );
    }
    let each = own_layers(&nodes[0]["forecast"]);
    assert_eq!(second["forecast"]["bytes"], 4 * each);
    assert_eq!(second["forecast"]["through_ssh_bytes"], each);
    assert_eq!(second["forecast"]["time"]["runs"], 1);
    let kubelet = |name: &str| {
        let node = nodes.iter().find(|node| node["name"] == name);
        &node.unwrap()["forecast"]["kubelet"]
    };
    assert_eq!(*kubelet("node-4"), Value::Null);
    assert_eq!(kubelet("node-2")["image_gc_high_percent"], 1);
    assert_eq!(kubelet("node-2")["collects"], true);

    // In words, as it was recorded, and as the next pull is compared with it.
    let name = second["run"].as_str().unwrap();
    let shown = end(start(
        lab.operator(&[env!("CARGO_BIN_EXE_prepull"), "runs", "show", name])
            .env("HOME", lab.state.join("home")),
        "",
    ));
    let shown = shown.expect(0).stdout;
    assert!(
        shown.contains("kubelet collects") && shown.contains("4 of 4 nodes can pull"),
        "{shown}"
    );
    assert!(shown.contains("by 1 earlier run"), "{shown}");
    let pulled = pull(&lab, &["-o", "human", AFTER[0]]).expect(0).stdout;
    assert!(
        pulled.contains(&format!("Foretold by {name}: 9.3 MB (as it came)")),
        "{pulled}"
    );

    // What prepull keeps of a pull through SSH does not come from the registry again.
    let third = forecast(AFTER[0]);
    assert_eq!(third["forecast"]["bytes"], 0, "{third}");
    for node in ["node-1", "node-3"] {
        succeed(&mut lab.on(node, &["docker", "rmi", "-f", AFTER[0]]));
    }
    let through = |node: &str| {
        let options = ["--via", "ssh-only", "--limit", node, AFTER[0]];
        end(start(&mut via_command(&lab, &options), &lab.password())).expect(0);
    };
    through("node-1");
    let fourth = forecast(AFTER[0]);
    own_layers(&serde_json::json!({"bytes": fourth["forecast"]["bytes"]}));
    assert_eq!(fourth["forecast"]["fan_out_bytes"], each);
    assert_eq!(fourth["forecast"]["through_ssh_bytes"], 0);
    through("node-3");

    // A check knows what was there, and is gone now.
    succeed(&mut lab.on("node-1", &["docker", "rmi", "-f", AFTER[0]]));
    let checked = end(start(&mut command(&lab, &["check", AFTER[0]]), ""));
    let checked = checked.expect(1).stdout;
    let gone = format!("GONE {} from node-1, where the run ", AFTER[0]);
    assert!(checked.contains(&gone), "{checked}");
    assert_eq!(checked.matches("GONE").count(), 1, "{checked}");
}
