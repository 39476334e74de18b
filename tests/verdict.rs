//! What the exit status and the last words of a run come to, with nodes that one SSH server in the test plays.

#![allow(clippy::unwrap_used, clippy::panic)] // a test file: a panic is a failed test

#[path = "support/simulated.rs"]
mod simulated;

use std::process::Command;

use simulated::{IMAGE, Pull, Simulated};

#[test]
fn a_pull_that_leaves_different_digests_exits_1_and_says_what_mends_it() {
    let fleet = Simulated::start(3, |number| match number {
        1 => Pull::Takes(0),
        _ => Pull::Holds("ef"),
    });
    let home = tempfile::tempdir().unwrap();
    let inventory = home.path().join("nodes.yml");
    fleet.inventory(&inventory);
    let report = home.path().join("run.xml");
    let output = Command::new(env!("CARGO_BIN_EXE_prepull"))
        .args(["pull", "-F", "none", "--host-keys", "off", "-i"])
        .args([inventory.to_str().unwrap(), IMAGE])
        .args(["--report", report.to_str().unwrap()])
        .env("HOME", home.path())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let digest = |byte: &str| format!("  sha256:{}", byte.repeat(32));
    for text in [
        "NOT READY: 3 of 3 nodes ok, with different digests, in ",
        &format!("{} on 2 nodes (there before)\n", digest("ef")),
        &format!("{} on 1 node (pulled now): sim-0001\n", digest("ab")),
        "To give every node what the registry has now: prepull pull -F none",
        " --pull always\n",
    ] {
        assert!(said.contains(text), "{text} in {said}");
    }
    let report = std::fs::read_to_string(report).unwrap();
    assert!(report.contains("tests=\"4\" failures=\"1\""), "{report}");
    assert!(report.contains("one digest on all nodes"), "{report}");
}
