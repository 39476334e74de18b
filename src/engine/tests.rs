//! The engine against scripted nodes, on tokio's paused clock: every schedule is exact.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::time::Duration;

use futures::future::BoxFuture;
use proptest::prelude::*;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::{Finish, Supply, run};
use crate::model::{
    Attempt, Backoff, CommandOutput, Credential, EventKind, ExitStatus, Failure, FailureKind,
    FanOut, Fleet, Image, Keep, KeptState, Layer, LocalImage, LoginSource, Manifest, Node, Outcome,
    Plan, PlannedImage, Policy, Portion, Preflight, PullVia, RegistryLogin, RuntimeKind, Secret,
    Stage, StopReason, Tries, Via, Work,
};
use crate::node::scripted::{Dial, Peer, ScriptedRuntime, Step};
use crate::ports::{
    BlobOrigin, CredentialSource, ImageReader, ImageServer, Runtime, ServedImage, ServedParts,
};

const SECOND: Duration = Duration::from_secs(1);
const APP: &str = "reg.example/app:v1";
const WEB: &str = "reg.example/web:v1";
const OTHER: &str = "other.example/app:v1";

fn fleet(count: usize) -> Fleet {
    let node = |number| Node {
        name: format!("n{number}"),
        address: format!("10.0.0.{number}"),
        port: 22,
        user: "ops".into(),
        identities: vec![],
        jump: vec![],
        runtime: Some(RuntimeKind::Docker),
        endpoint: None,
        become_root: false,
        become_password: None,
        ssh_settings: 0,
        labels: BTreeMap::new(),
        facts: BTreeMap::new(),
        groups: vec![],
    };
    Fleet::new((1..=count).map(node).collect()).unwrap()
}

fn pulling(nodes: usize, images: &[&str], policy: Policy) -> Plan {
    let planned = |image: &&str| PlannedImage {
        image: image.parse().unwrap(),
        login: None,
    };
    Plan::new(
        fleet(nodes),
        Work::Pull(images.iter().map(planned).collect()),
        policy,
    )
}

fn policy() -> Policy {
    Policy {
        backoff: Backoff {
            min: SECOND,
            max: 60 * SECOND,
        },
        ..Policy::default()
    }
}

/// A finished run and its facts.
struct Seen {
    finish: Finish,
    facts: Vec<(Duration, EventKind)>,
    took: Duration,
}

impl Seen {
    fn outcome(&self, node: usize, item: usize) -> &Outcome {
        &self.finish.nodes[node].items[item].outcome
    }

    fn attempts(&self, node: usize, item: usize) -> usize {
        self.finish.nodes[node].items[item].attempts.len()
    }

    fn statuses(&self) -> Vec<&'static str> {
        let items = self.finish.nodes.iter().flat_map(|node| &node.items);
        items.map(|item| item.outcome.status()).collect()
    }

    fn kind(&self, node: usize, item: usize) -> FailureKind {
        match self.outcome(node, item) {
            Outcome::Failed(failure) => failure.kind,
            other => panic!("node {node}, item {item} is {other:?}"),
        }
    }

    /// When nodes took their place in the window.
    fn started_at(&self, wanted: usize) -> Vec<Duration> {
        let started = |(at, fact): &(Duration, EventKind)| match fact {
            EventKind::NodeStarted { node } if *node == wanted => Some(*at),
            _ => None,
        };
        self.facts.iter().filter_map(started).collect()
    }
}

/// Runs the plan; asks it to stop after `stop`. Checks what must hold of every run.
async fn run_until(plan: &Plan, peer: &Peer, stop: Option<(Duration, StopReason)>) -> Seen {
    run_with(plan, peer, &Helper::default(), stop).await
}

async fn run_with(
    plan: &Plan,
    peer: &Peer,
    logins: &Helper,
    stop: Option<(Duration, StopReason)>,
) -> Seen {
    let seen = run_unchecked(plan, peer, logins, stop).await;
    check(plan, peer, &seen);
    seen
}

async fn run_unchecked(
    plan: &Plan,
    peer: &Peer,
    logins: &Helper,
    stop: Option<(Duration, StopReason)>,
) -> Seen {
    let (facts_sender, mut facts_receiver) = mpsc::channel(64);
    let (stop_sender, stop_receiver) = watch::channel(None);
    let collector = tokio::spawn(async move {
        let mut facts = Vec::new();
        while let Some(fact) = facts_receiver.recv().await {
            facts.push(fact);
        }
        facts
    });
    if let Some((after, reason)) = stop {
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            stop_sender.send_replace(Some(reason));
        });
    }
    let docker = ScriptedRuntime(RuntimeKind::Docker);
    let crictl = ScriptedRuntime(RuntimeKind::Crictl);
    let runtimes: [&dyn Runtime; 2] = [&docker, &crictl];
    let began = Instant::now();
    let finish = run(
        plan,
        peer,
        &runtimes,
        logins,
        Supply {
            images: Some(&Served),
            relays: None,
        },
        facts_sender,
        stop_receiver,
    )
    .await;
    let took = began.elapsed();
    let facts = collector.await.unwrap();
    Seen {
        finish,
        facts,
        took,
    }
}

async fn run_all(plan: &Plan, peer: &Peer) -> Seen {
    run_until(plan, peer, None).await
}

/// The invariant: every (node, item) has exactly one outcome, in the records and in the facts alike.
fn check(plan: &Plan, peer: &Peer, seen: &Seen) {
    assert_eq!(seen.finish.nodes.len(), plan.fleet.nodes().len());
    let mut told: HashMap<(usize, usize), &Outcome> = HashMap::new();
    for (_, fact) in &seen.facts {
        if let EventKind::Finished { node, item, record } = fact {
            let before = told.insert((*node, *item), &record.outcome);
            assert!(before.is_none(), "two outcomes for {node}/{item}");
        }
    }
    for (node, record) in seen.finish.nodes.iter().enumerate() {
        assert_eq!(record.items.len(), plan.work.items());
        for (item, record) in record.items.iter().enumerate() {
            assert_eq!(
                told.remove(&(node, item)),
                Some(&record.outcome),
                "{node}/{item}"
            );
            for (index, attempt) in record.attempts.iter().enumerate() {
                assert_eq!(attempt.number as usize, index + 1);
                assert!(
                    attempt.elapsed <= record.elapsed,
                    "{node}/{item} took less than attempt {index}: {record:?}"
                );
            }
            // What is shown as tries. A login that was refused and is renewed is tried once more.
            let tries = Tries::of(plan.work.is_detached(), &record.attempts);
            let is_refused = |attempt: &Attempt| {
                let failure = attempt.failure.as_ref();
                failure.is_some_and(|failure| failure.kind == FailureKind::RegistryAuth)
            };
            let refused = usize::from(record.attempts.iter().any(is_refused));
            let most = plan.policy.retries as usize + 1 + refused;
            assert!(tries <= most, "{node}/{item}: {tries} tries, {record:?}");
        }
    }
    assert!(
        told.is_empty(),
        "outcomes for what was not planned: {told:?}"
    );
    let total = peer.total();
    let most = plan.policy.parallel.min(plan.policy.connections);
    assert!(total.sessions_peak <= most, "{total:?}");
    assert!(total.pulling_peak <= plan.policy.parallel, "{total:?}");
    assert_eq!(total.sessions, 0, "a session stays open");
    assert_eq!(total.pulling, 0, "a pull stays behind");
}

#[tokio::test(start_paused = true)]
async fn every_node_pulls_every_image_within_the_window() {
    let peer = Peer::new();
    let plan = pulling(
        10,
        &[APP, WEB],
        Policy {
            parallel: 3,
            ..policy()
        },
    );
    let seen = run_all(&plan, &peer).await;
    assert_eq!(seen.statuses(), ["pulled"; 20]);
    assert_eq!(peer.total().sessions_peak, 3);
    assert_eq!(peer.total().connects, 10, "one connection a node");
    assert_eq!(peer.total().channels, 20, "one channel an attempt");
    assert_eq!(seen.finish.stopped, None);
}

#[tokio::test(start_paused = true)]
async fn one_slow_node_never_holds_back_the_others() {
    let peer = Peer::new();
    peer.node("n1").image(APP, [Step::Pulled(100 * SECOND)]);
    let plan = pulling(
        20,
        &[APP],
        Policy {
            parallel: 2,
            ..policy()
        },
    );
    let seen = run_all(&plan, &peer).await;
    assert_eq!(seen.statuses(), ["pulled"; 20]);
    let last_other = (1..20).map(|node| seen.started_at(node)[0]).max().unwrap();
    assert!(last_other < 20 * SECOND, "{last_other:?}");
    assert!(seen.took < 101 * SECOND, "{:?}", seen.took);
}

#[tokio::test(start_paused = true)]
async fn what_another_try_can_cure_is_tried_again_with_growing_pauses() {
    let peer = Peer::new();
    let fails = || Step::fails(SECOND, FailureKind::RegistryUnavailable);
    peer.node("n1")
        .image(APP, [fails(), fails(), Step::Pulled(SECOND)]);
    let plan = pulling(1, &[APP], policy());
    let seen = run_all(&plan, &peer).await;
    assert_eq!(seen.statuses(), ["pulled"]);
    let attempts = &seen.finish.nodes[0].items[0].attempts;
    let kinds: Vec<_> = attempts
        .iter()
        .map(|a| a.failure.as_ref().map(|f| f.kind))
        .collect();
    let unavailable = Some(FailureKind::RegistryUnavailable);
    assert_eq!(kinds, [unavailable, unavailable, None]);
    let pauses: Vec<Duration> = seen
        .facts
        .iter()
        .filter_map(|(_, fact)| match fact {
            EventKind::AttemptFailed { retry_in, .. } => Some(*retry_in),
            _ => None,
        })
        .collect();
    assert_eq!(pauses.len(), 2);
    assert!(pauses[0] <= SECOND && pauses[1] <= 2 * SECOND, "{pauses:?}");
    assert_eq!(
        peer.total().connects,
        3,
        "a waiting node holds no connection"
    );
}

#[tokio::test(start_paused = true)]
async fn retries_end_and_the_last_failure_is_the_outcome() {
    let peer = Peer::new();
    peer.node("n1")
        .image(APP, [Step::fails(SECOND, FailureKind::RegistryUnavailable)]);
    let seen = run_all(
        &pulling(
            1,
            &[APP],
            Policy {
                retries: 5,
                ..policy()
            },
        ),
        &peer,
    )
    .await;
    assert_eq!(seen.kind(0, 0), FailureKind::RegistryUnavailable);
    assert_eq!((seen.attempts(0, 0), peer.total().pulls), (6, 6));
}

#[tokio::test(start_paused = true)]
async fn the_kind_decides_how_often() {
    for (kind, attempts) in [
        (FailureKind::RegistryAuth, 1),
        (FailureKind::ImageNotFound, 1),
        (FailureKind::TlsTrust, 1),
        (FailureKind::DiskFull, 1),
        (FailureKind::Corrupt, 3),
        (FailureKind::RegistryUnavailable, 11),
        (FailureKind::RateLimited, 11),
        (FailureKind::Unknown, 11),
    ] {
        let peer = Peer::new();
        peer.node("n1").image(APP, [Step::fails(SECOND, kind)]);
        let plan = pulling(
            1,
            &[APP],
            Policy {
                retries: 10,
                ..policy()
            },
        );
        let seen = run_all(&plan, &peer).await;
        assert_eq!(seen.attempts(0, 0), attempts, "{kind}");
        assert_eq!(seen.kind(0, 0), kind);
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_cannot_be_reached_fails_all_its_items() {
    let peer = Peer::new();
    let refused = Failure::new(FailureKind::Unreachable, Stage::Connect, "refused");
    let dials = std::iter::repeat_n(Dial::Fails(SECOND, refused), 10);
    peer.node("n2").connects(dials);
    let seen = run_all(&pulling(3, &[APP, WEB], policy()), &peer).await;
    assert_eq!(
        seen.statuses(),
        ["pulled", "pulled", "failed", "failed", "pulled", "pulled"]
    );
    assert_eq!(seen.kind(1, 0), FailureKind::Unreachable);
    assert_eq!((seen.attempts(1, 0), seen.attempts(1, 1)), (4, 4));
    assert!(
        peer.counts("n2").connects <= 8,
        "both items share a dial where they can"
    );
}

#[tokio::test(start_paused = true)]
async fn a_node_that_refuses_root_is_asked_once_and_fails_all_its_items() {
    let refusal = Failure::new(FailureKind::Privilege, Stage::Start, "wrong password");
    for (failure, asked) in [
        (refusal.clone(), 1),
        // What the runtime says of one image need not hold for the next.
        (
            Failure {
                stage: Stage::Pull,
                ..refusal
            },
            3,
        ),
    ] {
        let peer = Peer::new();
        peer.node("n1").refuses(failure);
        let plan = pulling(1, &[APP, WEB, OTHER], policy());
        let seen = run_all(&plan, &peer).await;
        assert_eq!(seen.statuses(), ["failed"; 3]);
        assert_eq!(seen.kind(0, 2), FailureKind::Privilege);
        assert_eq!(seen.attempts(0, 2), 1);
        assert_eq!(peer.counts("n1").channels, asked);
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiting_node_gives_its_place_away() {
    let peer = Peer::new();
    peer.node("n1").image(
        APP,
        [
            Step::fails(SECOND, FailureKind::RegistryUnavailable),
            Step::Pulled(SECOND),
        ],
    );
    let slow = Backoff {
        min: 60 * SECOND,
        max: 60 * SECOND,
    };
    let plan = pulling(
        3,
        &[APP],
        Policy {
            parallel: 1,
            backoff: slow,
            seed: 7,
            ..policy()
        },
    );
    let seen = run_all(&plan, &peer).await;
    assert_eq!(seen.statuses(), ["pulled"; 3]);
    assert_eq!(seen.started_at(1), [SECOND]);
    let back = seen.started_at(0)[1];
    assert!(back > 3 * SECOND && back <= 61 * SECOND, "{back:?}");
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_limits_pulls_is_left_alone_by_all_nodes() {
    let peer = Peer::new();
    peer.node("n1").image(
        APP,
        [
            Step::fails(SECOND, FailureKind::RateLimited),
            Step::Pulled(SECOND),
        ],
    );
    let plan = pulling(
        4,
        &[APP, OTHER],
        Policy {
            parallel: 1,
            ..policy()
        },
    );
    let seen = run_all(&plan, &peer).await;
    assert_eq!(seen.statuses(), ["pulled"; 8]);
    // The refusal comes after one second and pauses the registry for eight.
    let paused = EventKind::RegistryPaused {
        registry: "reg.example".into(),
        length: 8 * SECOND,
    };
    let pauses = seen
        .facts
        .iter()
        .filter(|(_, fact)| matches!(fact, EventKind::RegistryPaused { .. }));
    assert_eq!(pauses.collect::<Vec<_>>(), [&(SECOND, paused)]);
    let finished = |wanted: usize, image: usize| {
        let at = |(at, fact): &(Duration, EventKind)| match fact {
            EventKind::Finished { node, item, .. } if (*node, *item) == (wanted, image) => {
                Some(*at)
            }
            _ => None,
        };
        seen.facts.iter().find_map(at).unwrap()
    };
    for node in 0..4 {
        assert!(
            finished(node, 0) >= 9 * SECOND,
            "node {node}: {:?}",
            finished(node, 0)
        );
        assert!(
            finished(node, 1) <= 6 * SECOND,
            "node {node}: {:?}",
            finished(node, 1)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_interrupt_cancels_what_runs_and_starts_nothing_more() {
    let peer = Peer::new();
    peer.node("n1").image(APP, [Step::Pulled(SECOND)]);
    peer.node("n2").image(APP, [Step::Hangs]);
    let plan = pulling(
        5,
        &[APP],
        Policy {
            parallel: 2,
            ..policy()
        },
    );
    peer.node("n3").image(APP, [Step::Hangs]);
    let stop = Some((10 * SECOND, StopReason::Interrupted));
    let seen = run_until(&plan, &peer, stop).await;
    assert_eq!(
        seen.statuses(),
        ["pulled", "not-run", "not-run", "not-run", "not-run"]
    );
    assert_eq!(seen.finish.stopped, Some(StopReason::Interrupted));
    assert_eq!(peer.total().cancels, 2, "both nodes at work were told");
    assert_eq!(peer.total().connects, 3);
    assert_eq!(seen.attempts(1, 0), 1, "the cancelled attempt is on record");
    assert_eq!(seen.attempts(4, 0), 0);
    assert!(seen.took < 25 * SECOND, "{:?}", seen.took);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_hear_the_cancel_does_not_hold_the_run() {
    let peer = Peer::new();
    peer.node("n1").image(APP, [Step::Deaf]);
    peer.node("n2").connects([Dial::Hangs]);
    let stop = Some((SECOND, StopReason::Terminated));
    let seen = run_until(&pulling(2, &[APP], policy()), &peer, stop).await;
    assert_eq!(seen.statuses(), ["not-run", "not-run"]);
    assert_eq!(seen.finish.stopped, Some(StopReason::Terminated));
    assert!(seen.took < 20 * SECOND, "{:?}", seen.took);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_cancels_like_an_interrupt() {
    let peer = Peer::new();
    peer.node("n1").image(APP, [Step::Hangs]);
    let limits = Policy {
        parallel: 1,
        deadline: Some(30 * SECOND),
        ..policy()
    };
    let seen = run_all(&pulling(2, &[APP], limits), &peer).await;
    assert_eq!(seen.finish.stopped, Some(StopReason::Deadline));
    assert_eq!(seen.statuses(), ["not-run", "not-run"]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_waits_for_its_next_try_is_not_run_when_the_run_is_stopped() {
    let peer = Peer::new();
    peer.node("n1")
        .image(APP, [Step::fails(SECOND, FailureKind::RateLimited)]);
    let stop = Some((3 * SECOND, StopReason::Interrupted));
    let seen = run_until(&pulling(1, &[APP], policy()), &peer, stop).await;
    assert_eq!(seen.statuses(), ["not-run"]);
    assert_eq!(seen.attempts(0, 0), 1);
}

#[tokio::test(start_paused = true)]
async fn too_many_failures_start_no_further_node() {
    let peer = Peer::new();
    for node in ["n1", "n2"] {
        peer.node(node)
            .image(APP, [Step::fails(SECOND, FailureKind::RegistryAuth)]);
    }
    let limits = Policy {
        parallel: 2,
        max_failures: Some(Portion::Count(2)),
        ..policy()
    };
    let seen = run_all(&pulling(6, &[APP], limits), &peer).await;
    let counted = |status| seen.statuses().iter().filter(|s| **s == status).count();
    assert_eq!(counted("failed"), 2);
    assert_eq!(seen.finish.stopped, Some(StopReason::FailureLimit));
    assert!(counted("not-run") >= 3, "{:?}", seen.statuses());
    assert_eq!(peer.total().cancels, 0, "what runs is not cancelled");
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_leaves_nothing_out_is_no_early_end() {
    let peer = Peer::new();
    peer.node("n2")
        .image(APP, [Step::fails(SECOND, FailureKind::RegistryAuth)]);
    let limits = Policy {
        max_failures: Some(Portion::Count(1)),
        ..policy()
    };
    let seen = run_all(&pulling(2, &[APP], limits), &peer).await;
    assert_eq!(seen.statuses(), ["pulled", "failed"]);
    assert_eq!(seen.finish.stopped, None);
}

#[tokio::test(start_paused = true)]
async fn a_wave_starts_when_the_one_before_has_succeeded() {
    let peer = Peer::new();
    peer.node("n1").image(APP, [Step::Pulled(50 * SECOND)]);
    let waves = vec![
        Portion::Count(1),
        Portion::Percent(50.0),
        Portion::Percent(100.0),
    ];
    let seen = run_all(&pulling(6, &[APP], Policy { waves, ..policy() }), &peer).await;
    assert_eq!(seen.statuses(), ["pulled"; 6]);
    let starts: Vec<u64> = (0..6)
        .map(|node| seen.started_at(node)[0].as_secs())
        .collect();
    assert_eq!(starts, [0, 50, 50, 51, 51, 51]);
}

/// Twelve attempts of 10 s to a wave, four at a time: while there is anything to pull, four pull.
#[tokio::test(start_paused = true)]
async fn retries_and_waves_do_not_idle_the_registry() {
    let peer = Peer::new();
    let again = Step::fails(10 * SECOND, FailureKind::Stalled);
    for number in 1..=20 {
        let once = [Step::Pulled(10 * SECOND)];
        let twice = [again.clone(), Step::Pulled(10 * SECOND)];
        let node = peer.node(&format!("n{number}"));
        match number % 10 {
            1 | 2 => node.image(APP, twice),
            _ => node.image(APP, once),
        };
    }
    let limits = Policy {
        parallel: 4,
        waves: vec![Portion::Count(10)],
        ..policy()
    };
    let seen = run_all(&pulling(20, &[APP], limits), &peer).await;
    assert_eq!(seen.statuses(), ["pulled"; 20]);
    assert_eq!(seen.took.as_secs(), 2 * 12 * 10 / 4);
}

#[tokio::test(start_paused = true)]
async fn a_failed_wave_is_the_last() {
    let peer = Peer::new();
    peer.node("n2")
        .image(APP, [Step::fails(SECOND, FailureKind::ImageNotFound)]);
    let waves = vec![Portion::Count(3)];
    let seen = run_all(&pulling(5, &[APP], Policy { waves, ..policy() }), &peer).await;
    assert_eq!(
        seen.statuses(),
        ["pulled", "failed", "pulled", "not-run", "not-run"]
    );
    assert_eq!(seen.finish.stopped, Some(StopReason::WaveFailed));
}

#[tokio::test(start_paused = true)]
async fn a_fault_of_ours_on_one_node_is_that_nodes_failure_alone() {
    let peer = Peer::new();
    peer.node("n2").image(APP, [Step::Panics(SECOND)]);
    let seen = run_all(&pulling(3, &[APP, WEB], policy()), &peer).await;
    assert_eq!(seen.kind(1, 0), FailureKind::Internal);
    let mut expected = ["pulled"; 6];
    expected[2] = "failed";
    assert_eq!(seen.statuses(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_costs_only_the_item_it_hit() {
    let peer = Peer::new();
    peer.node("n1")
        .image(APP, [Step::Lost(SECOND), Step::Pulled(SECOND)]);
    let seen = run_all(&pulling(1, &[APP, WEB], policy()), &peer).await;
    assert_eq!(seen.statuses(), ["pulled", "pulled"]);
    assert_eq!((seen.attempts(0, 0), seen.attempts(0, 1)), (2, 1));
    let first = seen.finish.nodes[0].items[0].attempts[0].failure.as_ref();
    assert_eq!(
        first.map(|failure| failure.kind),
        Some(FailureKind::ConnectionLost)
    );
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_takes_too_long_is_cancelled_and_tried_again() {
    let peer = Peer::new();
    peer.node("n1")
        .image(APP, [Step::Hangs, Step::Pulled(SECOND)]);
    let limits = Policy {
        pull_timeout: Some(20 * SECOND),
        ..policy()
    };
    let seen = run_all(&pulling(1, &[APP], limits), &peer).await;
    assert_eq!(seen.statuses(), ["pulled"]);
    let first = seen.finish.nodes[0].items[0].attempts[0].failure.as_ref();
    assert_eq!(
        first.map(|failure| failure.kind),
        Some(FailureKind::TimedOut)
    );
    assert_eq!(peer.total().cancels, 1);
}

#[tokio::test(start_paused = true)]
async fn the_runtime_is_asked_for_once_where_nobody_named_it() {
    let peer = Peer::new();
    peer.node("n1").probes(RuntimeKind::Crictl).image(
        APP,
        [
            Step::fails(SECOND, FailureKind::RegistryUnavailable),
            Step::Pulled(SECOND),
        ],
    );
    peer.node("n2").no_runtime();
    let mut plan = pulling(2, &[APP], policy());
    let unnamed = plan.fleet.nodes().iter().cloned().map(|node| Node {
        runtime: None,
        ..node
    });
    plan.fleet = Fleet::new(unnamed.collect()).unwrap();
    let seen = run_all(&plan, &peer).await;
    assert_eq!(seen.finish.nodes[0].runtime, Some(RuntimeKind::Crictl));
    assert_eq!(peer.counts("n1").channels, 3, "one probe and two pulls");
    let found = |(_, fact): &&(Duration, EventKind)| matches!(fact, EventKind::RuntimeFound { .. });
    let found: Vec<_> = seen
        .facts
        .iter()
        .filter(found)
        .map(|(_, fact)| fact)
        .collect();
    let runtime = RuntimeKind::Crictl;
    assert_eq!(found, [&EventKind::RuntimeFound { node: 0, runtime }]);
    assert_eq!(seen.statuses(), ["pulled", "failed"]);
    assert_eq!(seen.kind(1, 0), FailureKind::RuntimeMissing);
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_run_left_there_is_left_alone() {
    let peer = Peer::new();
    let mut plan = pulling(3, &[APP, WEB], policy());
    let held = LocalImage {
        digest: Some("sha256:ab".into()),
        image_id: None,
        bytes: Some(7),
        platform: None,
    };
    for place in [(0, 0), (0, 1), (1, 1)] {
        plan.already_present.insert(place, held.clone());
    }
    let seen = run_all(&plan, &peer).await;
    assert_eq!(
        seen.statuses(),
        [
            "present", "present", "pulled", "present", "pulled", "pulled"
        ]
    );
    assert_eq!(seen.outcome(0, 1), &Outcome::Present(held));
    assert_eq!(
        seen.started_at(0),
        Vec::<Duration>::new(),
        "nothing was to be done there"
    );
    assert_eq!(peer.total().pulls, 3);
}

#[tokio::test(start_paused = true)]
async fn check_finds_out_and_changes_nothing() {
    let peer = Peer::new();
    peer.node("n1").image(APP, [Step::Present]);
    let images: Vec<Image> = vec![APP.parse().unwrap()];
    let plan = Plan::new(fleet(2), Work::Check(images), policy());
    let seen = run_all(&plan, &peer).await;
    assert_eq!(seen.statuses(), ["present", "missing"]);
    assert_eq!(peer.total().pulls, 0);
}

#[tokio::test(start_paused = true)]
async fn a_command_is_run_once_even_when_the_way_to_it_takes_two_tries() {
    let peer = Peer::new();
    let refused = Failure::new(FailureKind::Unreachable, Stage::Connect, "refused");
    let output = CommandOutput {
        exit: ExitStatus::Code(3),
        stdout: b"out".to_vec(),
        stderr: vec![],
        truncated: false,
    };
    peer.node("n1")
        .connects([Dial::Fails(SECOND, refused)])
        .runs(SECOND, output.clone());
    let plan = Plan::new(fleet(1), Work::Exec(vec!["false".into()]), policy());
    let seen = run_all(&plan, &peer).await;
    assert_eq!(seen.outcome(0, 0), &Outcome::Ran(output.into()));
    assert_eq!(peer.total().runs, 1);
    assert_eq!(seen.attempts(0, 0), 2);
}

#[test]
fn the_same_seed_gives_the_same_pauses_and_nodes_differ() {
    let pause = |seed, node| super::retry::jitter(&Policy { seed, ..policy() }, node, 1, SECOND);
    assert_eq!(pause(1, 1), pause(1, 1));
    assert_ne!(pause(1, 1), pause(2, 1));
    assert_ne!(pause(1, 1), pause(1, 2));
    assert!((0..1000).all(|node| pause(3, node) <= SECOND));
}

fn any_step() -> impl Strategy<Value = Step> {
    let second = |n: u64| Duration::from_secs(n);
    prop_oneof![
        Just(Step::Present),
        (0u64..20).prop_map(move |n| Step::Pulled(second(n))),
        (0u64..20).prop_map(move |n| Step::fails(second(n), FailureKind::RegistryUnavailable)),
        (0u64..20).prop_map(move |n| Step::fails(second(n), FailureKind::RateLimited)),
        (0u64..20).prop_map(move |n| Step::fails(second(n), FailureKind::RegistryAuth)),
        (0u64..20).prop_map(move |n| Step::Lost(second(n))),
        Just(Step::Hangs),
        Just(Step::Deaf),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the nodes do and whenever the run is stopped: `check` holds.
    #[test]
    fn every_item_has_exactly_one_outcome_whatever_happens(
        steps in proptest::collection::vec(proptest::collection::vec(any_step(), 1..4), 1..12),
        parallel in 1usize..5, retries in 0u32..4, seed in any::<u64>(),
        stop_after in proptest::option::of(0u64..200), limit in proptest::option::of(1usize..4),
        wave in 1usize..12,
    ) {
        let tokio = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        tokio.block_on(async {
            let peer = Peer::new();
            for (index, steps) in steps.iter().enumerate() {
                peer.node(&format!("n{}", index + 1)).image(APP, steps.clone());
            }
            let plan = pulling(steps.len(), &[APP, WEB], Policy {
                parallel, retries, seed,
                pull_timeout: Some(15 * SECOND),
                max_failures: limit.map(Portion::Count),
                waves: vec![Portion::Count(wave)],
                ..policy()
            });
            let stop = stop_after.map(|after| (Duration::from_secs(after), StopReason::Interrupted));
            let seen = run_until(&plan, &peer, stop).await;
            if seen.finish.stopped.is_none() {
                prop_assert!(!seen.statuses().contains(&"not-run"));
            }
            Ok(())
        })?;
    }
}

/// The link is away for longer than all retries last; the pull on the node does not mind.
#[tokio::test(start_paused = true)]
async fn a_pull_that_goes_on_without_us_is_found_again_and_not_started_twice() {
    let peer = Peer::new();
    let away = || {
        let failure = Failure::new(FailureKind::Unreachable, Stage::Connect, "no route");
        Dial::Fails(SECOND, failure)
    };
    let dials = std::iter::once(Dial::After(SECOND)).chain(std::iter::repeat_with(away).take(8));
    peer.node("n1")
        .connects(dials)
        .image(APP, [Step::GoesOn(5 * SECOND, 900 * SECOND)]);
    let plan = pulling(
        1,
        &[APP],
        Policy {
            retries: 1,
            ..policy()
        },
    );
    let seen = run_until(&plan, &peer, None).await;
    assert_eq!(seen.statuses(), ["pulled"]);
    assert_eq!(peer.counts("n1").pulls, 1);
    assert_eq!(peer.counts("n1").connects, 10);
    assert!(peer.counts("n1").beats >= 20, "{:?}", peer.counts("n1"));
    assert!(
        seen.took >= 900 * SECOND && seen.took < 960 * SECOND,
        "{:?}",
        seen.took
    );
}

/// Nobody waits for it longer than it waits for us.
#[tokio::test(start_paused = true)]
async fn a_node_that_stays_away_is_given_up_when_the_lease_is_over() {
    let peer = Peer::new();
    let away = || {
        let failure = Failure::new(FailureKind::Unreachable, Stage::Connect, "no route");
        Dial::Fails(SECOND, failure)
    };
    let dials = std::iter::once(Dial::After(SECOND)).chain(std::iter::repeat_with(away).take(900));
    peer.node("n1")
        .connects(dials)
        .image(APP, [Step::GoesOn(5 * SECOND, 900 * SECOND)]);
    let plan = pulling(
        1,
        &[APP],
        Policy {
            retries: 3,
            ..policy()
        },
    );
    let seen = run_until(&plan, &peer, None).await;
    assert_eq!(seen.kind(0, 0), FailureKind::Unreachable);
    assert!(
        seen.took >= 600 * SECOND && seen.took < 800 * SECOND,
        "{:?}",
        seen.took
    );
}

#[tokio::test(start_paused = true)]
async fn no_more_nodes_pull_from_a_registry_than_it_is_asked_to_serve() {
    let peer = Peer::new();
    let limited = Policy {
        per_registry: Some(3),
        ..policy()
    };
    let seen = run_all(&pulling(10, &[APP], limited), &peer).await;
    assert_eq!(seen.statuses(), ["pulled"; 10]);
    assert_eq!(peer.total().pulling_peak, 3);
    assert_eq!(seen.took, 4 * SECOND);
    // The others say that they wait for their turn.
    let waits = |(_, fact): &&(Duration, EventKind)| {
        matches!(
            fact,
            EventKind::NodeStage {
                item: Some(0),
                stage: Stage::Queue,
                ..
            }
        )
    };
    assert_eq!(seen.facts.iter().filter(waits).count(), 7);
}

/// Two nodes find the registry away: nobody asks it until it had its pause, and then a few at a time.
#[tokio::test(start_paused = true)]
async fn a_registry_that_is_away_is_left_alone_by_all_nodes_and_then_gets_few_at_first() {
    let peer = Peer::new();
    for node in ["n1", "n2"] {
        let steps = [
            Step::fails(SECOND, FailureKind::RegistryUnavailable),
            Step::Pulled(SECOND),
        ];
        peer.node(node).image(APP, steps);
    }
    let patient = Policy {
        parallel: 2,
        backoff: Backoff {
            min: 60 * SECOND,
            max: 60 * SECOND,
        },
        seed: 3,
        ..policy()
    };
    let began = Instant::now();
    let seen = run_all(&pulling(30, &[APP], patient), &peer).await;
    assert_eq!(seen.statuses(), ["pulled"; 30]);
    let mut starts: Vec<Duration> = (3..=30)
        .flat_map(|node| peer.pulled_at(&format!("n{node}")))
        .map(|at| at - began)
        .collect();
    starts.sort();
    // Both fail after a second; the second failure makes it an outage, for as long as that node waits.
    assert!(starts[0] > 5 * SECOND, "{starts:?}");
}

/// Not on a paused clock, which hides what passes between two looks at it.
#[tokio::test]
async fn a_failure_limit_holds_on_a_clock_that_runs() {
    let peer = Peer::new();
    let away = || Failure::new(FailureKind::HostKey, Stage::Handshake, "unknown");
    for node in 1..=50 {
        let dial = Dial::Fails(Duration::from_millis(1), away());
        peer.node(&format!("n{node}")).connects([dial]);
    }
    let policy = Policy {
        parallel: 2,
        max_failures: Some(Portion::Count(1)),
        ..policy()
    };
    let seen = run_all(&pulling(50, &[APP], policy), &peer).await;
    assert_eq!(seen.finish.stopped, Some(StopReason::FailureLimit));
    assert_eq!(peer.total().connects, 2);
}

#[tokio::test(start_paused = true)]
async fn no_further_node_is_started_once_the_first_have_refused_the_password() {
    let refused = || {
        let failure = Failure::new(FailureKind::SshAuth, Stage::Authenticate, "not accepted");
        [Dial::Fails(5 * SECOND, failure)]
    };
    let works: [fn(&Plan) -> Work; 3] = [
        |plan| plan.work.clone(),
        |_| Work::Check(vec![APP.parse().unwrap()]),
        |_| Work::Exec(vec!["true".into()]),
    ];
    for (nodes, parallel) in [(1000, 4), (6, 4)] {
        for (work, preflight) in [(0, false), (0, true), (1, false), (2, false)] {
            for has_ready in [false, true] {
                let peer = Peer::new();
                peer.gives_a_password_up();
                for node in 1..=nodes {
                    peer.node(&format!("n{node}")).connects(refused());
                }
                if has_ready {
                    // It logs in with a key, and so do others perhaps.
                    peer.node("n1").connects([]);
                }
                let policy = Policy {
                    parallel,
                    ..policy()
                };
                let mut plan = match preflight {
                    true => with_preflight(nodes, policy),
                    false => pulling(nodes, &[APP], policy),
                };
                plan.work = works[work](&plan);
                let seen = run_all(&plan, &peer).await;
                let case = format!("{nodes} {work} {preflight} {has_ready}");
                if has_ready {
                    assert_eq!(seen.finish.stopped, None, "{case}");
                    assert_eq!(
                        peer.total().connects,
                        nodes + usize::from(preflight),
                        "{case}"
                    );
                    continue;
                }
                assert_eq!(
                    seen.finish.stopped,
                    Some(StopReason::PasswordRefused),
                    "{case}"
                );
                assert_eq!(peer.total().connects, parallel, "{case}");
                let last = seen.outcome(nodes - 1, 0);
                let not_run = Outcome::NotRun(StopReason::PasswordRefused);
                assert_eq!(*last, not_run, "{case}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_with_another_key_gets_no_registry_login() {
    let peer = Peer::new();
    peer.node("n1").has_changed_key();
    let mut plan = pulling(2, &[APP, OTHER], policy());
    let Work::Pull(images) = &mut plan.work else {
        unreachable!()
    };
    images[0].login = Some(Credential {
        login: token("old"),
        source: LoginSource::Prompt,
    });
    let seen = run_all(&plan, &peer).await;
    assert_eq!(seen.statuses(), ["failed", "pulled", "pulled", "pulled"]);
    assert_eq!(seen.kind(0, 0), FailureKind::HostKey);
    assert_eq!(seen.attempts(0, 0), 1);
}

fn with_canary(nodes: usize) -> Plan {
    let careful = Policy {
        canary: 3,
        ..policy()
    };
    pulling(nodes, &[APP], careful)
}

#[tokio::test(start_paused = true)]
async fn what_the_first_nodes_are_all_refused_is_asked_of_no_other() {
    for kind in [FailureKind::RegistryAuth, FailureKind::ImageNotFound] {
        let peer = Peer::new();
        for node in 1..=1000 {
            peer.node(&format!("n{node}"))
                .image(APP, [Step::fails(SECOND, kind)]);
        }
        // The first node cannot be reached for a while: it says nothing, another one is asked instead.
        let away = Failure::new(FailureKind::Unreachable, Stage::Connect, "no route");
        peer.node("n1").connects([Dial::Fails(SECOND, away)]);
        let seen = run_all(&with_canary(1000), &peer).await;
        assert_eq!(seen.finish.stopped, Some(StopReason::Canary));
        let failed = seen.statuses().iter().filter(|s| **s == "failed").count();
        assert_eq!(failed, 4);
        assert_eq!(peer.total().connects, 5);
    }
}

#[tokio::test(start_paused = true)]
async fn the_rest_of_the_fleet_does_not_wait_for_the_first_ones_end() {
    let peer = Peer::new();
    for node in ["n1", "n2", "n3"] {
        peer.node(node).image(APP, [Step::Pulled(600 * SECOND)]);
    }
    let seen = run_all(&with_canary(30), &peer).await;
    assert_eq!(seen.statuses(), ["pulled"; 30]);
    assert_eq!(seen.started_at(3), [3 * SECOND]);
    assert_eq!(seen.took, 600 * SECOND);

    let peer = Peer::new();
    let seen = run_all(&with_canary(30), &peer).await;
    assert_eq!(seen.statuses(), ["pulled"; 30]);
    assert_eq!(seen.took, 2 * SECOND);
}

/// A helper that takes two seconds for each answer, and gives the answers in their order, the last for ever. Without
/// answers it knows no login.
#[derive(Default)]
struct Helper {
    answers: Vec<Result<&'static str, &'static str>>,
    asked_at: Mutex<Vec<Instant>>,
}

impl Helper {
    fn answers(answers: &[Result<&'static str, &'static str>]) -> Self {
        Self {
            answers: answers.to_vec(),
            asked_at: Mutex::default(),
        }
    }

    fn times_asked(&self) -> usize {
        self.asked_at.lock().unwrap().len()
    }
}

fn token(text: &str) -> RegistryLogin {
    RegistryLogin::RegistryToken(Secret::new(text))
}

impl CredentialSource for Helper {
    fn ask(&self) -> BoxFuture<'_, Result<Vec<Option<RegistryLogin>>, String>> {
        Box::pin(async {
            let number = {
                let mut asked_at = self.asked_at.lock().unwrap();
                asked_at.push(Instant::now());
                asked_at.len().min(self.answers.len())
            };
            tokio::time::sleep(2 * SECOND).await;
            match self.answers.get(number.wrapping_sub(1)) {
                Some(Ok(text)) => Ok(vec![Some(token(text))]),
                Some(Err(why)) => Err((*why).into()),
                None => Ok(vec![None]),
            }
        })
    }
}

/// [`pulling`] of [`APP`] with a token from a helper.
fn pulling_with(login: &str, nodes: usize, policy: Policy) -> Plan {
    let mut plan = pulling(nodes, &[APP], policy);
    let Work::Pull(images) = &mut plan.work else {
        unreachable!()
    };
    images[0].login = Some(Credential {
        login: token(login),
        source: LoginSource::Prompt,
    });
    plan
}

#[tokio::test(start_paused = true)]
async fn an_old_login_is_asked_for_again_once_and_not_by_every_node() {
    let peer = Peer::new();
    peer.accepts("first");
    let helper = Helper::answers(&[Ok("second"), Ok("third")]);
    // The registry accepts the first token for 5 minutes; then a second wave of a hundred nodes begins.
    let mut plan = pulling_with(
        "first",
        101,
        Policy {
            parallel: 100,
            waves: vec![Portion::Count(1)],
            ..policy()
        },
    );
    plan.policy.retries = 0;
    peer.node("n1").image(APP, [Step::Pulled(5 * 60 * SECOND)]);
    tokio::spawn({
        let peer = peer.clone();
        async move {
            tokio::time::sleep(60 * SECOND).await;
            peer.accepts("second");
        }
    });
    let seen = run_with(&plan, &peer, &helper, None).await;
    assert_eq!(seen.statuses(), ["pulled"; 101]);
    assert_eq!(helper.times_asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refused_login_is_asked_for_again_once_for_all_nodes_and_tried_at_once() {
    let peer = Peer::new();
    peer.accepts("second");
    let helper = Helper::answers(&[Ok("second"), Ok("third")]);
    let plan = pulling_with(
        "first",
        100,
        Policy {
            parallel: 100,
            retries: 0,
            ..policy()
        },
    );
    // What was just asked for is not asked for again: the first node takes a while to get there.
    let late = || vec![Dial::After(60 * SECOND)];
    for number in 1..=100 {
        peer.node(&format!("n{number}")).connects(late());
    }
    let seen = run_with(&plan, &peer, &helper, None).await;
    assert_eq!(seen.statuses(), ["pulled"; 100]);
    assert_eq!(helper.times_asked(), 1);
    assert!((0..100).all(|node| seen.attempts(node, 0) == 2));
    assert!(seen.took < 70 * SECOND, "{:?}", seen.took);
}

#[tokio::test(start_paused = true)]
async fn a_login_that_stays_refused_is_not_asked_for_by_every_node() {
    let peer = Peer::new();
    peer.accepts("none of them");
    for answer in [Ok("first"), Err("the cloud is away")] {
        let helper = Helper::answers(&[answer]);
        let plan = pulling_with(
            "first",
            200,
            Policy {
                parallel: 10,
                ..policy()
            },
        );
        for number in 1..=200 {
            let late = vec![Dial::After(10 * SECOND)];
            peer.node(&format!("n{number}")).connects(late);
        }
        let seen = run_with(&plan, &peer, &helper, None).await;
        assert!((0..200).all(|node| seen.kind(node, 0) == FailureKind::RegistryAuth));
        assert!((0..200).all(|node| seen.attempts(node, 0) == 1));
        // Ten nodes at a time, twenty times, some 11 s each: at most one question in 10 s.
        let asked = helper.times_asked();
        assert!(
            (2..=25).contains(&asked),
            "asked {asked} times in {:?}",
            seen.took
        );
        let Outcome::Failed(failure) = seen.outcome(199, 0) else {
            unreachable!()
        };
        assert_eq!(
            failure.detail.contains("the cloud is away"),
            answer.is_err()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_login_that_was_just_asked_for_is_not_asked_for_again() {
    let peer = Peer::new();
    peer.accepts("none of them");
    let helper = Helper::default();
    let seen = run_with(&pulling_with("first", 5, policy()), &peer, &helper, None).await;
    assert!((0..5).all(|node| seen.kind(node, 0) == FailureKind::RegistryAuth));
    assert_eq!(helper.times_asked(), 0);
}

#[tokio::test(start_paused = true)]
async fn logins_that_change_all_the_time_are_tried_once_more_and_no_longer() {
    let peer = Peer::new();
    peer.accepts("none of them");
    peer.node("n1").connects([Dial::After(60 * SECOND)]);
    let helper = Helper::answers(&[Ok("a"), Ok("b"), Ok("c")]);
    let seen = run_with(&pulling_with("first", 1, policy()), &peer, &helper, None).await;
    assert_eq!(seen.attempts(0, 0), 2);
    assert_eq!(seen.kind(0, 0), FailureKind::RegistryAuth);
}

/// A plan with a preflight for an image of 100 kB, which needs 200 kB.
fn with_preflight(nodes: usize, policy: Policy) -> Plan {
    let careful = Policy {
        preflight: Some(Preflight { unpack_factor: 1.0 }),
        ..policy
    };
    let layer = Layer {
        digest: "sha256:1".into(),
        bytes: 100_000,
    };
    let manifest = Manifest {
        platform: None,
        layers: vec![layer],
        diff_ids: Vec::new(),
    };
    Plan {
        contents: vec![Some(vec![manifest])],
        ..pulling(nodes, &[APP], careful)
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_pulls_before_every_node_was_asked() {
    let peer = Peer::new();
    let began = Instant::now();
    let slow = Failure::new(FailureKind::Unreachable, Stage::Connect, "no route");
    // Its first try ends after a while, its second one says that it is ready.
    peer.node("n3").connects([Dial::Fails(7 * SECOND, slow)]);
    peer.node("n2").has_free(100);
    peer.node("n5").image(APP, [Step::Present]);
    let seen = run_all(&with_preflight(5, policy()), &peer).await;
    let expected = ["pulled", "failed", "pulled", "pulled", "present"];
    assert_eq!(seen.statuses(), expected);
    assert_eq!(seen.kind(1, 0), FailureKind::DiskFull);
    assert_eq!(peer.total().pulls, 3);
    for node in ["n1", "n3", "n4"] {
        assert!(peer.pulled_at(node)[0] - began >= 7 * SECOND, "{node}");
    }
    // Waiting for the others is not part of a pull.
    let first = &seen.finish.nodes[0].items[0];
    assert_eq!(first.elapsed, SECOND);
    let told = |(_, fact): &(Duration, EventKind)| {
        matches!(
            fact,
            EventKind::Preflighted {
                ready: 3,
                failed: 1
            }
        )
    };
    assert_eq!(seen.facts.iter().filter(|fact| told(fact)).count(), 1);
}

/// Two nodes cannot reach the registry by their own fault: they fail before anything is pulled, and no other node waits
/// for the registry.
#[tokio::test(start_paused = true)]
async fn a_preflight_asks_each_node_whether_it_reaches_the_registry() {
    let peer = Peer::new();
    for node in ["n1", "n2"] {
        peer.node(node).finds_registry(
            "registry-unavailable proxyconnect tcp: dial tcp 10.0.0.1:3128: connection refused",
        );
    }
    peer.node("n3")
        .finds_registry("tls-trust signed by unknown authority");
    peer.node("n4").finds_registry("registry-auth no login");
    let seen = run_all(&with_preflight(5, policy()), &peer).await;
    let expected = ["failed", "failed", "failed", "pulled", "pulled"];
    assert_eq!(seen.statuses(), expected);
    for (node, kind) in [
        (0, FailureKind::RegistryUnavailable),
        (2, FailureKind::TlsTrust),
    ] {
        let Outcome::Failed(failure) = seen.outcome(node, 0) else {
            unreachable!()
        };
        assert_eq!((failure.kind, failure.stage), (kind, Stage::Preflight));
    }
    let paused =
        |(_, fact): &(Duration, EventKind)| matches!(fact, EventKind::RegistryPaused { .. });
    assert!(!seen.facts.iter().any(paused));
}

/// A probe changes nothing; it says what would stop a pull.
#[tokio::test(start_paused = true)]
async fn a_probe_says_what_stands_in_the_way_of_the_images() {
    let peer = Peer::new();
    peer.node("n1").has_free(100);
    peer.node("n2")
        .finds_registry("registry-unavailable dial tcp: lookup reg.example: no such host");
    peer.node("n3").has_free(100).image(APP, [Step::Present]);
    let mut plan = with_preflight(4, policy());
    let Work::Pull(images) = plan.work else {
        unreachable!()
    };
    plan.work = Work::Probe(images);
    let seen = run_all(&plan, &peer).await;
    assert_eq!(seen.statuses(), ["probed"; 4]);
    let obstacles = |node| match seen.outcome(node, 0) {
        Outcome::Probed(facts) => facts.obstacles.iter().map(|found| found.kind).collect(),
        other => panic!("{other:?}"),
    };
    let found: Vec<Vec<FailureKind>> = (0..4).map(obstacles).collect();
    let (full, away) = (FailureKind::DiskFull, FailureKind::RegistryUnavailable);
    assert_eq!(found, [vec![full], vec![away], vec![], vec![]]);
    assert!(!seen.outcome(0, 0).is_ok() && seen.outcome(2, 0).is_ok());
    assert_eq!(peer.total().pulls, 0);
}

#[tokio::test(start_paused = true)]
async fn a_failure_limit_after_a_preflight_means_that_nothing_is_pulled() {
    let peer = Peer::new();
    for node in ["n2", "n4"] {
        peer.node(node).has_free(100);
    }
    let careful = Policy {
        max_failures: Some(Portion::Count(1)),
        ..policy()
    };
    let seen = run_all(&with_preflight(5, careful), &peer).await;
    let expected = ["not-run", "failed", "not-run", "failed", "not-run"];
    assert_eq!(seen.statuses(), expected);
    assert_eq!(seen.finish.stopped, Some(StopReason::FailureLimit));
    assert_eq!(peer.total().pulls, 0);
}

#[tokio::test(start_paused = true)]
async fn a_preflight_that_is_interrupted_leaves_everything_not_run() {
    let peer = Peer::new();
    peer.node("n3").connects([Dial::Hangs]);
    let stop = Some((5 * SECOND, StopReason::Interrupted));
    let seen = run_until(&with_preflight(4, policy()), &peer, stop).await;
    assert_eq!(seen.statuses(), ["not-run"; 4]);
    assert_eq!(peer.total().pulls, 0);
}

/// The first nodes are done before anything is pulled, by the preflight or by an earlier run: others show the way.
#[tokio::test(start_paused = true)]
async fn nodes_that_have_nothing_to_try_are_no_canaries() {
    let peer = Peer::new();
    let plan = with_preflight(12, with_canary(12).policy);
    for node in 1..=6 {
        peer.node(&format!("n{node}")).has_free(100);
    }
    let seen = run_all(&plan, &peer).await;
    let pulled = |seen: &Seen| seen.statuses().iter().filter(|s| **s == "pulled").count();
    assert_eq!(pulled(&seen), 6);

    let mut resumed = with_canary(12);
    for node in 0..6 {
        let held = LocalImage {
            digest: None,
            image_id: None,
            bytes: None,
            platform: None,
        };
        resumed.already_present.insert((node, 0), held);
    }
    let seen = run_all(&resumed, &Peer::new()).await;
    assert_eq!(pulled(&seen), 6);
}

// Through the SSH connection

/// Serves all but the second image. Scripted nodes forward no port.
struct Served;

impl ImageServer for Served {
    fn image(&self, item: usize) -> BoxFuture<'_, Result<ServedImage, Failure>> {
        let away = Failure::new(FailureKind::RegistryUnavailable, Stage::Pull, "it is away");
        let served = ServedImage {
            repository: "prepull/app".into(),
            digest: format!("sha256:{}", "a".repeat(64)),
        };
        Box::pin(std::future::ready(match item {
            1 => Err(away),
            _ => Ok(served),
        }))
    }

    fn admit(&self) -> std::sync::Arc<dyn ImageReader> {
        panic!("a login for a node that has no port")
    }

    fn parts(&self, _: usize, _: &'static str) -> BoxFuture<'_, Result<ServedParts, Failure>> {
        panic!("nodes pass nothing on")
    }

    fn origin(&self, _: usize) -> BoxFuture<'_, Result<BlobOrigin, Failure>> {
        panic!("nodes pass nothing on")
    }
}

fn through_ssh(via: PullVia) -> Plan {
    pulling(1, &[APP, WEB], Policy { via, ..policy() })
}

#[tokio::test(start_paused = true)]
async fn what_cannot_come_through_ssh_comes_from_the_registry_and_says_why() {
    let seen = run_all(&through_ssh(PullVia::Ssh), &Peer::new()).await;
    assert_eq!(seen.statuses(), ["pulled", "pulled"]);
    let records = seen.finish.nodes[0].items.iter();
    let notes: Vec<_> = records
        .map(|record| record.delivery.clone().unwrap())
        .map(|delivery| (delivery.via, delivery.note.unwrap()))
        .collect();
    assert_eq!(
        notes,
        [
            (Via::Registry, "this connection cannot forward ports".into()),
            (Via::Registry, "it is away".into()),
        ]
    );
    // One attempt each: to fall back is none.
    assert_eq!((seen.attempts(0, 0), seen.attempts(0, 1)), (1, 1));

    let seen = run_all(&through_ssh(PullVia::Registry), &Peer::new()).await;
    assert_eq!(seen.finish.nodes[0].items[0].delivery, None);
}

#[tokio::test(start_paused = true)]
async fn through_ssh_alone_no_node_asks_a_registry() {
    let peer = Peer::new();
    let seen = run_all(&through_ssh(PullVia::SshOnly), &peer).await;
    assert_eq!(seen.kind(0, 0), FailureKind::NodeSetup);
    assert_eq!(seen.kind(0, 1), FailureKind::RegistryUnavailable);
    assert_eq!(peer.counts("n1").pulls, 0);
}

#[tokio::test(start_paused = true)]
async fn a_fall_back_that_fails_names_both_causes() {
    let peer = Peer::new();
    let refused = Step::fails(SECOND, FailureKind::RegistryAuth);
    peer.node("n1").image(APP, [refused]);
    let seen = run_all(&through_ssh(PullVia::Ssh), &peer).await;
    let Outcome::Failed(failure) = seen.outcome(0, 0) else {
        panic!("{:?}", seen.outcome(0, 0));
    };
    assert_eq!(failure.kind, FailureKind::RegistryAuth);
    for cause in ["as scripted", "cannot forward ports"] {
        assert!(failure.detail.contains(cause), "{failure}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_with_another_key_gets_no_image() {
    for via in [PullVia::Ssh, PullVia::SshOnly] {
        let peer = Peer::new();
        peer.node("n1").has_changed_key();
        let seen = run_all(&through_ssh(via), &peer).await;
        assert_eq!(seen.kind(0, 0), FailureKind::HostKey);
        assert_eq!(peer.counts("n1").pulls, 0);
    }
}

const SPEGEL: &str =
    "#prepull hosts\n[host.'http://10.245.0.49:30020']\ncapabilities = ['pull', 'resolve']\n";

fn fanned_out(nodes: usize) -> Plan {
    let policy = Policy {
        fan_out: Some(FanOut::default()),
        retries: 0,
        ..policy()
    };
    pulling(nodes, &[APP], policy)
}

#[tokio::test(start_paused = true)]
async fn of_nodes_with_a_mirror_one_pulls_first_and_the_others_together() {
    let peer = Peer::new();
    for node in 1..=5 {
        let node = peer.node(&format!("n{node}")).has_mirrors(SPEGEL);
        node.image(APP, [Step::Pulled(10 * SECOND)]);
    }
    let began = Instant::now();
    let seen = run_all(&fanned_out(5), &peer).await;
    let mut pulled: Vec<u64> = (1..=5)
        .map(|node| (peer.pulled_at(&format!("n{node}"))[0] - began).as_secs())
        .collect();
    pulled.sort_unstable();
    assert_eq!(pulled, [0, 10, 10, 10, 10]);
    let deliveries: Vec<_> = seen
        .finish
        .nodes
        .iter()
        .map(|node| node.items[0].delivery.clone().unwrap())
        .collect();
    let of = |via| {
        deliveries
            .iter()
            .filter(move |delivery| delivery.via == via)
    };
    assert_eq!((of(Via::Registry).count(), of(Via::Mirror).count()), (1, 4));
    assert!(
        deliveries
            .iter()
            .all(|delivery| delivery.note.as_ref().unwrap().contains("Spegel")),
        "{deliveries:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn where_the_first_node_with_a_mirror_fails_the_next_one_is_the_first() {
    let peer = Peer::new();
    for node in 1..=12 {
        let node = peer.node(&format!("n{node}")).has_mirrors(SPEGEL);
        node.image(APP, [Step::fails(10 * SECOND, FailureKind::DiskFull)]);
    }
    let began = Instant::now();
    run_all(&fanned_out(12), &peer).await;
    let mut pulled: Vec<u64> = (1..=12)
        .map(|node| (peer.pulled_at(&format!("n{node}"))[0] - began).as_secs())
        .collect();
    pulled.sort_unstable();
    // Not all of them one after the other.
    assert_eq!(pulled[..4], [0, 10, 20, 30]);
    assert!(pulled[3..].iter().all(|second| *second == 30), "{pulled:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_there_is_pinned_and_a_pin_that_fails_fails_no_pull() {
    let kept = |seen: &Seen, node: usize| {
        let kept = seen.finish.nodes[node].items[0].kept.clone();
        kept.map(|kept| (kept.state, kept.note))
    };
    let peer = Peer::new();
    peer.node("n2").image(APP, [Step::Present]);
    peer.node("n3")
        .image(APP, [Step::fails(SECOND, FailureKind::ImageNotFound)]);
    let mut plan = pulling(4, &[APP], policy());
    let mut fleet = plan.fleet.nodes().to_vec();
    fleet[3].runtime = Some(RuntimeKind::Crictl);
    plan.fleet = Fleet::new(fleet).unwrap();
    let seen = run_all(&plan, &peer).await;
    assert_eq!(kept(&seen, 0), None, "it was not asked for");

    plan.policy.keep = Some(Keep { until: None });
    let peer = Peer::new();
    peer.node("n2").image(APP, [Step::Present]);
    peer.node("n3")
        .image(APP, [Step::fails(SECOND, FailureKind::ImageNotFound)]);
    let seen = run_all(&plan, &peer).await;
    assert_eq!(seen.statuses(), ["pulled", "present", "failed", "pulled"]);
    let pinned = Some((KeptState::Pinned, Some(format!("{APP} until released"))));
    assert_eq!(kept(&seen, 0), pinned);
    assert_eq!(kept(&seen, 1), pinned);
    assert_eq!(kept(&seen, 2), None);
    let without = Some((KeptState::NotPinned, Some("crictl has no pins".into())));
    assert_eq!(kept(&seen, 3), without);
}

/// So many nodes at work over so many connections.
fn few_connections(nodes: usize, connections: usize) -> Policy {
    Policy {
        parallel: nodes,
        connections,
        canary: 0,
        ..policy()
    }
}

fn left_alone(seen: &Seen) -> usize {
    let left = |(_, fact): &&(Duration, EventKind)| matches!(fact, EventKind::LeftAlone { .. });
    seen.facts.iter().filter(left).count()
}

#[tokio::test(start_paused = true)]
async fn many_pulls_go_on_at_once_over_few_connections() {
    let peer = Peer::new();
    for node in 1..=40 {
        let steps = [Step::Arrives(600 * SECOND, 1000)];
        peer.node(&format!("n{node}")).image(APP, steps);
    }
    let plan = pulling(40, &[APP, WEB], few_connections(40, 4));
    let seen = run_all(&plan, &peer).await;
    assert_eq!(seen.statuses(), ["pulled"; 80]);
    let total = peer.total();
    assert_eq!(
        (total.pulling_peak, total.sessions_peak),
        (40, 4),
        "{total:?}"
    );
    assert_eq!(total.pulls, 80, "each image is pulled once: {total:?}");
    // The last of ten rounds begins when the connections before it were given away, at the first tenth of the bytes.
    assert!(seen.took < 1400 * SECOND, "{:?}", seen.took);
    assert_eq!(left_alone(&seen), total.left);
    // A node is told once that it has its place, and once that it gives it back.
    for node in 0..40 {
        assert_eq!(seen.started_at(node).len(), 1);
    }
    let item = &seen.finish.nodes[7].items[0];
    assert_eq!(item.attempts.len(), 1, "visits are no attempts");
    assert!(item.attempts[0].elapsed >= 600 * SECOND);
    assert_eq!(item.arrived, Some(1000));
}

#[tokio::test(start_paused = true)]
async fn where_connections_suffice_each_pull_keeps_its_own() {
    let peer = Peer::new();
    let slow = Step::Pulled(600 * SECOND);
    for node in 1..=6 {
        peer.node(&format!("n{node}")).image(APP, [slow.clone()]);
    }
    let plan = pulling(6, &[APP], few_connections(6, 6));
    let seen = run_all(&plan, &peer).await;
    assert_eq!((peer.total().left, peer.total().connects), (0, 6));
    assert_eq!(seen.statuses(), ["pulled"; 6]);
    // So does one that comes through its connection.
    let peer = Peer::new();
    let plan = pulling(
        6,
        &[WEB],
        Policy {
            via: PullVia::Ssh,
            ..few_connections(6, 2)
        },
    );
    run_all(&plan, &peer).await;
    assert_eq!(peer.total().left, 0);
}

#[tokio::test(start_paused = true)]
async fn an_end_that_is_not_watched_is_noticed_soon() {
    let peer = Peer::new();
    for node in 1..=30 {
        let length = 60 + 20 * node;
        let steps = [Step::Arrives(length * SECOND, 1 << 30)];
        peer.node(&format!("n{node}")).image(APP, steps);
    }
    let plan = pulling(30, &[APP], few_connections(30, 3));
    let seen = run_all(&plan, &peer).await;
    assert_eq!(seen.statuses(), ["pulled"; 30]);
    let mut late: Vec<Duration> = (0..30)
        .map(|node| {
            let began = peer.pulled_at(&format!("n{}", node + 1))[0];
            let length = (60 + 20 * (node as u32 + 1)) * SECOND;
            let run_began = peer.pulled_at("n1")[0];
            let finished = |(at, fact): &(Duration, EventKind)| match fact {
                EventKind::Finished { node: one, .. } if *one == node => Some(*at),
                _ => None,
            };
            let at = seen.facts.iter().find_map(finished).unwrap();
            at.saturating_sub(began - run_began + length)
        })
        .collect();
    late.sort_unstable();
    assert!(late[15] <= 15 * SECOND, "{late:?}");
    assert!(late[29] <= 60 * SECOND, "{late:?}");
}

#[tokio::test(start_paused = true)]
async fn what_happens_to_a_pull_that_is_not_watched_is_found_at_the_next_visit() {
    let peer = Peer::new();
    let long = || Step::Arrives(300 * SECOND, 1000);
    let fails = |kind| Step::fails(60 * SECOND, kind);
    // The node ends it, the daemon restarts, the link is cut for a while, and for good.
    peer.node("n1")
        .image(APP, [Step::EndsItself(40 * SECOND), long()]);
    peer.node("n2")
        .image(APP, [fails(FailureKind::RuntimeDown), long()]);
    let cut = || {
        let failure = Failure::new(FailureKind::Unreachable, Stage::Connect, "no route to host");
        Dial::Fails(SECOND, failure)
    };
    let works = || Dial::After(Duration::ZERO);
    peer.node("n3").image(APP, [long()]);
    peer.node("n3").connects([works(), cut(), cut(), cut()]);
    peer.node("n4").image(APP, [long()]);
    let for_good = (0..400).map(|_| cut());
    peer.node("n4")
        .connects([works()].into_iter().chain(for_good));
    for node in 5..=8 {
        peer.node(&format!("n{node}")).image(APP, [long()]);
    }
    let plan = pulling(
        8,
        &[APP],
        Policy {
            stall_timeout: Some(35 * SECOND),
            ..few_connections(8, 1)
        },
    );
    let restarting = peer.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(SECOND).await;
            let counts = restarting.counts("n5");
            if counts.left > 0 && counts.sessions == 0 {
                return restarting.restarts("n5");
            }
        }
    });
    let seen = run_all_but_left(&plan, &peer).await;
    let kinds = |node: usize| -> Vec<_> {
        let attempts = &seen.finish.nodes[node].items[0].attempts;
        let failures = attempts
            .iter()
            .filter_map(|attempt| attempt.failure.as_ref());
        failures.map(|failure| failure.kind).collect()
    };
    assert_eq!(kinds(0), [FailureKind::Stalled]);
    assert_eq!(kinds(1), [FailureKind::RuntimeDown]);
    let (lost, unreachable) = (FailureKind::ConnectionLost, FailureKind::Unreachable);
    assert_eq!(kinds(2), [lost, unreachable, unreachable]);
    assert_eq!(peer.counts("n3").pulls, 1, "it was found again");
    assert_eq!(seen.kind(3, 0), FailureKind::Unreachable);
    assert_eq!(kinds(4), [FailureKind::ConnectionLost], "it restarted");
    assert_eq!(peer.counts("n5").pulls, 2);
    let mut expected = vec!["pulled"; 8];
    expected[3] = "failed";
    assert_eq!(seen.statuses(), expected);
}

/// As [`run_all`], where a pull stays on a node that cannot be reached.
async fn run_all_but_left(plan: &Plan, peer: &Peer) -> Seen {
    let seen = run_unchecked(plan, peer, &Helper::default(), None).await;
    for node in plan.fleet.nodes() {
        peer.restarts(&node.name);
    }
    check(plan, peer, &seen);
    seen
}

#[tokio::test(start_paused = true)]
async fn a_cancel_reaches_every_pull_within_two_minutes() {
    // As many nodes for each connection as 10,000 have by default.
    for (nodes, connections, reason) in [
        (1000, 26, StopReason::Interrupted),
        (300, 8, StopReason::Deadline),
    ] {
        let peer = Peer::new();
        for node in 1..=nodes {
            let hour = Step::Pulled(3600 * SECOND);
            peer.node(&format!("n{node}")).image(APP, [hour]);
        }
        // The first hears nothing.
        peer.node("n1").image(APP, [Step::Deaf]);
        let after = 220 * SECOND;
        let mut policy = few_connections(nodes, connections);
        let stop = match reason {
            StopReason::Deadline => {
                policy.deadline = Some(after);
                None
            }
            reason => Some((after, reason)),
        };
        let slower = peer.clone();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            slower.dials_take(SECOND);
        });
        let plan = pulling(nodes, &[APP], policy);
        let seen = run_until(&plan, &peer, stop).await;
        let total = peer.total();
        assert_eq!(seen.finish.stopped, Some(reason));
        assert!(seen.took < after + 120 * SECOND, "{:?}", seen.took);
        assert!(seen.statuses().iter().all(|status| *status == "not-run"));
        assert_eq!(total.cancels, nodes, "{total:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_cancel_does_not_reach_in_time_is_left_to_its_lease() {
    let peer = Peer::new();
    for node in 1..=40 {
        let dials = (0..20).map(|_| Dial::Hangs);
        let dials = [Dial::After(SECOND)].into_iter().chain(dials);
        let node = peer.node(&format!("n{node}")).connects(dials);
        node.image(APP, [Step::Arrives(900 * SECOND, 1000)]);
    }
    let plan = pulling(40, &[APP], few_connections(40, 4));
    let stop = Some((19 * SECOND, StopReason::Interrupted));
    let seen = run_unchecked(&plan, &peer, &Helper::default(), stop).await;
    assert!(seen.took <= 170 * SECOND, "{:?}", seen.took);
    assert_eq!(seen.statuses(), ["not-run"; 40]);
    let told = seen.facts.iter().filter(|(_, fact)| match fact {
        EventKind::AttemptFailed { failure, .. } => {
            failure.detail.contains("ends by itself within 10m")
        }
        _ => false,
    });
    assert!(told.count() >= 30);
}

#[tokio::test(start_paused = true)]
async fn a_pull_that_is_not_watched_keeps_its_place_at_the_registry() {
    let peer = Peer::new();
    for node in 1..=12 {
        let steps = [Step::Arrives(100 * SECOND, 1000)];
        peer.node(&format!("n{node}")).image(APP, steps);
    }
    let plan = pulling(
        12,
        &[APP],
        Policy {
            per_registry: Some(5),
            ..few_connections(12, 6)
        },
    );
    let seen = run_all(&plan, &peer).await;
    assert_eq!(seen.statuses(), ["pulled"; 12]);
    assert!(peer.total().left > 0);
    assert_eq!(peer.total().pulling_peak, 5);
}
