//! The front of the library, against nodes that one SSH server in the test plays.

#![allow(clippy::unwrap_used, clippy::panic)] // a test file: a panic is a failed test

#[path = "support/simulated.rs"]
mod simulated;

use std::path::Path;
use std::process::Command;

use prepull::model::{Event, EventKind, Node, Outcome, Policy, StopReason};
use prepull::ssh::{HostKeyPolicy, HostSettings, SshOptions};
use prepull::{Pull, PullError};
use simulated::{IMAGE, Pull as Pulls, Simulated};

fn nodes(fleet: &Simulated, count: usize) -> Vec<Node> {
    (1..=count)
        .map(|number| Node {
            name: Simulated::name(number),
            user: Simulated::user(number),
            port: fleet.port(),
            ..Node::named("127.0.0.1")
        })
        .collect()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(future)
}

fn any_host_key() -> SshOptions {
    let mut settings = HostSettings::for_home(Path::new("/nonexistent"));
    settings.host_keys = HostKeyPolicy::Off;
    SshOptions {
        hosts: vec![settings],
        ..SshOptions::default()
    }
}

#[test]
fn a_run_tells_its_events_in_order_and_ends_with_one_outcome_for_each_node() {
    let fleet = Simulated::start(3, |number| match number {
        2 => Pulls::Fails("Error response from daemon: denied: requested access\n"),
        _ => Pulls::Takes(0),
    });
    let pull = Pull::new(nodes(&fleet, 3), [IMAGE]).unwrap();
    let pull = pull.ssh(any_host_key()).policy(Policy {
        parallel: 2,
        retries: 0,
        ..Policy::default()
    });
    let mut events: Vec<Event> = Vec::new();
    let never = std::future::pending();
    let finish = block_on(pull.run(never, |event| events.push(event.clone()))).unwrap();
    let numbers: Vec<u64> = events.iter().map(|event| event.number).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    let finished = |event: &&Event| matches!(event.fact, EventKind::Finished { .. });
    assert_eq!(events.iter().filter(finished).count(), 3);
    let outcomes = finish.nodes.iter().map(|node| &node.items[0].outcome);
    let ok: Vec<bool> = outcomes
        .map(|outcome| matches!(outcome, Outcome::Pulled(_)))
        .collect();
    assert_eq!(ok, [true, false, true]);
    assert_eq!(finish.stopped, None);
}

#[test]
fn a_stop_that_is_there_from_the_start_leaves_nothing_begun() {
    let fleet = Simulated::start(2, |_| Pulls::Takes(0));
    let pull = Pull::new(nodes(&fleet, 2), [IMAGE]).unwrap();
    let pull = pull.ssh(any_host_key());
    let finish = block_on(pull.run(std::future::ready(()), |_| {})).unwrap();
    assert_eq!(finish.stopped, Some(StopReason::Interrupted));
    for node in &finish.nodes {
        let outcome = &node.items[0].outcome;
        assert_eq!(*outcome, Outcome::NotRun(StopReason::Interrupted));
    }
    assert_eq!(fleet.ended(), 0);
}

#[test]
fn what_is_wrong_with_fleet_and_images_is_said_before_anything_is_touched() {
    let error = Pull::new(vec![Node::named("a")], ["no image"]).unwrap_err();
    assert!(matches!(&error, PullError::Image { reference, .. } if reference == "no image"));
    let error = Pull::new(Vec::new(), [IMAGE]).unwrap_err();
    assert!(matches!(error, PullError::Fleet(_)), "{error}");
}

#[test]
fn the_example_pulls_and_says_what_became_of_each_node() {
    let fleet = Simulated::start(2, |number| match number {
        2 => Pulls::Fails("Error response from daemon: denied: requested access\n"),
        _ => Pulls::Takes(0),
    });
    let home = tempfile::tempdir().unwrap();
    let known_hosts = home.path().join("known_hosts");
    let prepull = Path::new(env!("CARGO_BIN_EXE_prepull"));
    let example = prepull.parent().unwrap().join("examples/pull");
    assert!(
        example.exists(),
        "build the example first, as a whole `cargo test` does: cargo build --example pull"
    );
    let node = |number| format!("{}@127.0.0.1:{}", Simulated::user(number), fleet.port());
    let output = Command::new(example)
        .args([known_hosts.to_str().unwrap(), IMAGE, &node(1), &node(2)])
        .env("HOME", home.path())
        .env_remove("SSH_AUTH_SOCK")
        .output()
        .unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stdout}{stderr}");
    let digest = "ab".repeat(32);
    assert!(
        stdout.contains(&format!("{}: sha256:{digest}\n", node(1))),
        "{stdout}"
    );
    assert!(
        stdout.contains(&format!("{}: Failed(", node(2))),
        "{stdout}"
    );
    let known_hosts = std::fs::read_to_string(known_hosts).unwrap();
    assert_eq!(known_hosts.lines().count(), 1, "{known_hosts}");
}
