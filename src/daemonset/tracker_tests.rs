//! The tracker against what API servers say, on a clock that the tests move.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::sample::spec;
use super::*;
use crate::model::{Fleet, LocalImage, Node, PlannedImage, PodMode, Policy, Toleration, Work};

const NOT_FOUND: &str = "rpc error: code = NotFound desc = failed to pull and unpack image \"reg.example/team/app:v1\": failed to resolve image: reg.example/team/app:v1: not found";
const REFUSED: &str = "failed to pull and unpack image \"reg.example/team/app:v1\": failed to copy: httpReadSeeker: failed open: failed to do request: Get \"https://reg.example/v2/team/app/blobs/sha256:aa\": dial tcp 10.0.0.9:443: connect: connection refused";
const DIGEST: &str = "sha256:de563dcca446c2e8a08582d2fb835f60bf873d768a578c61bf4d43ebdd6a63bc";

struct World {
    plan: Plan,
    spec: DaemonSetSpec,
}

fn world(nodes: &[&str], mode: PodMode) -> World {
    let mut spec = spec(mode);
    spec.images.truncate(1);
    let planned = spec.images.iter().map(|image| PlannedImage {
        image: image.clone(),
        login: None,
    });
    let fleet = Fleet::new(nodes.iter().map(|name| Node::named(name)).collect()).unwrap();
    World {
        plan: Plan::new(fleet, Work::Pull(planned.collect()), Policy::default()),
        spec,
    }
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn node(name: &str, ready: &str) -> ClusterNode {
    read(
        json!({"metadata": {"name": name}, "status": {"conditions": [
        {"type": "Ready", "status": ready, "reason": "KubeletReady", "message": "said by the kubelet"}]}}),
    )
}

fn pod(node: &str, state: Value) -> Pod {
    read(json!({
        "metadata": {"name": format!("images-{node}"), "uid": format!("uid-{node}")},
        "spec": {"nodeName": node},
        "status": {"phase": "Pending", "containerStatuses": [
            {"name": "image-0", "image": "reg.example/team/app:v1", "imageID": format!("reg.example/team/app@{DIGEST}"), "state": state}]},
    }))
}

fn waiting(reason: &str, message: &str) -> Value {
    json!({"waiting": {"reason": reason, "message": message}})
}

fn running() -> Value {
    json!({"running": {"startedAt": "2026-11-28T01:00:00Z"}})
}

fn event(node: &str, reason: &str, message: &str) -> Update<Event> {
    Update::Set(read(
        json!({"reason": reason, "message": message, "type": if reason.starts_with("Pull") { "Normal" } else { "Warning" },
        "involvedObject": {"kind": "Pod", "uid": format!("uid-{node}"), "fieldPath": "spec.containers{image-0}"}}),
    ))
}

fn controller(observed: i64, desired: i64, current: i64) -> DaemonSet {
    read(
        json!({"metadata": {"name": "images", "generation": 1}, "status": {"observedGeneration": observed,
        "desiredNumberScheduled": desired, "currentNumberScheduled": current, "updatedNumberScheduled": current}}),
    )
}

impl World {
    /// A tracker that was told of its nodes, which are ready, and of a controller that has made all pods.
    fn tracker(&self, purpose: Purpose, now: Instant) -> Tracker<'_> {
        let mut tracker = Tracker::new(&self.plan, &self.spec, purpose, now);
        let names = self
            .plan
            .fleet
            .nodes()
            .iter()
            .map(|node| node.name.as_str());
        let nodes: Vec<_> = names.map(|name| node(name, "True")).collect();
        let number = i64::try_from(nodes.len()).unwrap();
        tracker.on_node(Update::Listed(nodes), now);
        tracker.on_pod(Update::Listed(vec![]), now);
        tracker.on_daemonset(Update::Listed(vec![controller(1, number, number)]), now);
        tracker
    }
}

/// What became of the only image, by the nodes' names.
fn outcomes(world: &World, tracker: Tracker<'_>) -> BTreeMap<String, Outcome> {
    let names = world
        .plan
        .fleet
        .nodes()
        .iter()
        .map(|node| node.name.clone());
    let records = tracker.into_records();
    names
        .zip(records)
        .map(|(name, mut record)| (name, record.items.remove(0).outcome))
        .collect()
}

fn failure(outcome: &Outcome) -> (FailureKind, &str) {
    match outcome {
        Outcome::Failed(failure) => (failure.kind, &failure.detail),
        other => panic!("{other:?}"),
    }
}

fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

#[tokio::test]
async fn events_tell_what_was_pulled_from_what_was_there() {
    let world = world(&["a", "b", "c"], PodMode::NoOp);
    let now = Instant::now();
    let mut tracker = world.tracker(Purpose::Wait, now);
    tracker.on_event(event("a", "Pulled", "Successfully pulled image \"reg.example/team/app:v1\" in 2.1s (2.1s including waiting). Image size: 29150479 bytes."), now);
    tracker.on_event(
        event(
            "b",
            "Pulled",
            "Container image \"reg.example/team/app:v1\" already present on machine",
        ),
        now,
    );
    for name in ["a", "b", "c"] {
        tracker.on_pod(Update::Set(pod(name, running())), now);
    }
    assert!(!tracker.is_done(), "the event of c may still come");
    tracker.evaluate_all(now + seconds(4));
    assert!(tracker.is_done());
    let seen = outcomes(&world, tracker);
    let held = |bytes| LocalImage {
        digest: Some(DIGEST.into()),
        image_id: None,
        bytes,
        platform: None,
    };
    assert_eq!(seen["a"], Outcome::Pulled(held(Some(29_150_479))));
    assert_eq!(seen["b"], Outcome::Present(held(None)));
    assert_eq!(seen["c"], Outcome::Pulled(held(None)));
}

#[tokio::test]
async fn what_no_try_can_cure_fails_at_once_in_the_words_of_the_runtime() {
    let cases = [
        (NOT_FOUND, FailureKind::ImageNotFound),
        (
            "rpc error: code = Unknown desc = failed to pull and unpack image \"reg.example/team/app:v1\": failed to resolve reference \"reg.example/team/app:v1\": pull access denied, repository does not exist or may require authorization: authorization failed: no basic auth credentials",
            FailureKind::RegistryAuth,
        ),
        (
            "rpc error: code = Unknown desc = failed to pull and unpack image \"reg.example/team/app:v1\": failed to extract layer sha256:aa: write /var/lib/containerd/x: no space left on device",
            FailureKind::DiskFull,
        ),
        (
            "failed to pull and unpack image \"reg.example/team/app:v1\": failed to resolve reference \"reg.example/team/app:v1\": failed to do request: Head \"https://reg.example/v2/team/app/manifests/v1\": tls: failed to verify certificate: x509: certificate signed by unknown authority",
            FailureKind::TlsTrust,
        ),
        (
            "no match for platform in manifest: not found",
            FailureKind::Platform,
        ),
    ];
    for (said, kind) in cases {
        let world = world(&["a"], PodMode::NoOp);
        let now = Instant::now();
        let mut tracker = world.tracker(Purpose::Wait, now);
        tracker.on_pod(Update::Set(pod("a", waiting("ErrImagePull", said))), now);
        let seen = outcomes(&world, tracker);
        assert_eq!(failure(&seen["a"]), (kind, said));
    }
}

#[tokio::test]
async fn a_back_off_waits_for_the_words_of_its_event() {
    let world = world(&["a", "b", "c"], PodMode::NoOp);
    let now = Instant::now();
    let mut tracker = world.tracker(Purpose::Wait, now);
    let vague = "Back-off pulling image \"reg.example/team/app:v1\"";
    for name in ["a", "b"] {
        tracker.on_pod(
            Update::Set(pod(name, waiting("ImagePullBackOff", vague))),
            now,
        );
    }
    // Kubelets since 1.30 put the cause behind it.
    let told = format!("{vague}: ErrImagePull: {NOT_FOUND}");
    tracker.on_pod(
        Update::Set(pod("c", waiting("ImagePullBackOff", &told))),
        now,
    );
    tracker.evaluate_all(now + seconds(5));
    tracker.on_event(
        event("a", "Failed", "Error: ErrImagePull"),
        now + seconds(6),
    );
    tracker.on_event(
        event(
            "a",
            "Failed",
            &format!("Failed to pull image \"reg.example/team/app:v1\": {NOT_FOUND}"),
        ),
        now + seconds(6),
    );
    tracker.evaluate_all(now + seconds(12));
    tracker.stop(StopReason::Interrupted, now + seconds(12));
    let seen = outcomes(&world, tracker);
    assert_eq!(failure(&seen["a"]).0, FailureKind::ImageNotFound);
    assert_eq!(failure(&seen["c"]).0, FailureKind::ImageNotFound);
    // Nothing is known of b: another try may help.
    assert_eq!(seen["b"], Outcome::NotRun(StopReason::Interrupted));
}

#[tokio::test]
async fn the_kubelets_tries_are_counted_and_one_may_succeed() {
    let world = world(&["a", "b"], PodMode::NoOp);
    let now = Instant::now();
    let mut tracker = world.tracker(Purpose::Wait, now);
    let back_off =
        format!("Back-off pulling image \"reg.example/team/app:v1\": ErrImagePull: {REFUSED}");
    for round in 0..4_u64 {
        let at = now + seconds(round * 60);
        for name in ["a", "b"] {
            if round == 2 && name == "a" {
                tracker.on_event(
                    event(
                        "a",
                        "Pulled",
                        "Successfully pulled image \"reg.example/team/app:v1\" in 2s",
                    ),
                    at,
                );
                tracker.on_pod(Update::Set(pod("a", running())), at);
                continue;
            }
            tracker.on_pod(Update::Set(pod(name, waiting("ErrImagePull", REFUSED))), at);
            tracker.on_pod(Update::Set(pod(name, waiting("ErrImagePull", REFUSED))), at);
            tracker.on_pod(
                Update::Set(pod(name, waiting("ImagePullBackOff", &back_off))),
                at,
            );
        }
    }
    let retries: Vec<(usize, u32, Duration)> = tracker
        .take_facts()
        .into_iter()
        .filter_map(|fact| match fact {
            EventKind::AttemptFailed {
                node,
                attempt,
                retry_in,
                failure,
                ..
            } => {
                assert_eq!(failure.kind, FailureKind::RegistryUnavailable);
                Some((node, attempt, retry_in))
            }
            _ => None,
        })
        .collect();
    let expected = [(0, 1, 10), (1, 1, 10), (0, 2, 20), (1, 2, 20), (1, 3, 40)];
    assert_eq!(
        retries,
        expected.map(|(node, attempt, pause)| (node, attempt, seconds(pause)))
    );
    assert!(tracker.is_done(), "the fourth failure of b is its last");
    let records = tracker.into_records();
    assert!(matches!(records[0].items[0].outcome, Outcome::Pulled(_)));
    assert_eq!(records[0].items[0].attempts.len(), 3);
    assert_eq!(
        failure(&records[1].items[0].outcome).0,
        FailureKind::RegistryUnavailable
    );
    assert_eq!(records[1].items[0].attempts.len(), 4);
}

#[tokio::test]
async fn nodes_without_a_pod_say_why() {
    let mut world = world(&["tainted", "full", "dead", "gone", "late"], PodMode::NoOp);
    world.spec.tolerations = vec![Toleration::parse("other").unwrap()];
    let now = Instant::now();
    let mut tracker = Tracker::new(&world.plan, &world.spec, Purpose::Wait, now);
    let tainted: ClusterNode = read(
        json!({"metadata": {"name": "tainted"}, "spec": {"taints": [{"key": "gpu", "effect": "NoSchedule"}]}}),
    );
    let nodes = vec![
        tainted,
        node("full", "True"),
        node("dead", "Unknown"),
        node("gone", "True"),
        node("late", "True"),
    ];
    tracker.on_node(Update::Listed(nodes), now);
    let full: Pod = read(json!({
        "metadata": {"uid": "uid-full"},
        "spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["full"]}]}]}}}},
        "status": {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/5 nodes are available: 1 Too many pods."}]},
    }));
    let dead: Pod = read(
        json!({"metadata": {"uid": "uid-dead"}, "spec": {"nodeName": "dead"}, "status": {"phase": "Pending"}}),
    );
    tracker.on_pod(Update::Listed(vec![full, dead]), now);
    tracker.on_daemonset(Update::Listed(vec![controller(0, 0, 0)]), now);
    tracker.evaluate_all(now + seconds(70));
    tracker.on_daemonset(Update::Set(controller(1, 4, 4)), now + seconds(70));
    tracker.on_node(Update::Deleted(node("gone", "True")), now + seconds(71));
    tracker.evaluate_all(now + seconds(72));
    assert!(!tracker.is_done(), "the pod of late may still come");
    tracker.evaluate_all(now + seconds(140));
    assert!(tracker.is_done());
    let seen = outcomes(&world, tracker);
    for (name, part) in [
        ("tainted", "its taint gpu:NoSchedule is not tolerated"),
        ("full", "0/5 nodes are available: 1 Too many pods."),
        (
            "dead",
            "the node is not ready: KubeletReady said by the kubelet",
        ),
        ("gone", "the node is not in the cluster"),
        ("late", "the DaemonSet controller does not say why"),
    ] {
        let (kind, detail) = failure(&seen[name]);
        assert_eq!(kind, FailureKind::NoPod, "{name}");
        assert!(detail.contains(part), "{name}: {detail}");
    }
}

#[tokio::test]
async fn what_holds_the_pod_itself_up_holds_its_images_up() {
    let world = world(&["init", "sandbox", "evicted", "slow"], PodMode::NoOp);
    let now = Instant::now();
    let mut tracker = world.tracker(Purpose::Wait, now);
    let init: Pod = read(json!({
        "metadata": {"uid": "uid-init"}, "spec": {"nodeName": "init"},
        "status": {"phase": "Pending",
            "initContainerStatuses": [{"name": "no-op", "state": {"waiting": {"reason": "ErrImagePull",
                "message": "failed to resolve reference \"docker.io/library/busybox:musl\": docker.io/library/busybox:musl: not found"}}}],
            "containerStatuses": [{"name": "image-0", "state": {"waiting": {"reason": "PodInitializing"}}}]},
    }));
    tracker.on_pod(Update::Set(init), now);
    let creating = waiting("ContainerCreating", "");
    for name in ["sandbox", "slow"] {
        tracker.on_pod(Update::Set(pod(name, creating.clone())), now);
    }
    let sandbox: Event = read(
        json!({"reason": "FailedCreatePodSandBox", "type": "Warning", "message": "plugin type=\"calico\" failed (add)",
        "involvedObject": {"uid": "uid-sandbox"}}),
    );
    tracker.on_event(Update::Set(sandbox), now);
    let evicted: Pod = read(
        json!({"metadata": {"uid": "uid-evicted"}, "spec": {"nodeName": "evicted"},
        "status": {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: ephemeral-storage."}}),
    );
    tracker.on_pod(Update::Set(evicted), now);
    tracker.evaluate_all(now + seconds(170));
    tracker.evaluate_all(now + seconds(200));
    assert!(!tracker.is_done(), "a slow pull has its time");
    tracker.evaluate_all(now + seconds(3700));
    assert!(tracker.is_done());
    let seen = outcomes(&world, tracker);
    let init = failure(&seen["init"]);
    assert_eq!(init.0, FailureKind::ImageNotFound);
    assert!(
        init.1.contains("init container") && init.1.contains("busybox:musl: not found"),
        "{init:?}"
    );
    let sandbox = failure(&seen["sandbox"]);
    assert!(
        sandbox.0 == FailureKind::NoPod && sandbox.1.contains("calico"),
        "{sandbox:?}"
    );
    assert_eq!(failure(&seen["evicted"]).0, FailureKind::DiskFull);
    let slow = failure(&seen["slow"]);
    assert!(
        slow.0 == FailureKind::TimedOut && slow.1.contains("--pull-timeout"),
        "{slow:?}"
    );
}

/// The container was made of the image: whatever keeps it from running, the image is there.
#[tokio::test]
async fn an_image_that_cannot_run_is_there_all_the_same() {
    let states = [
        waiting(
            "CreateContainerError",
            "failed to create containerd task: exec format error",
        ),
        waiting(
            "RunContainerError",
            "mkdir /.prepull: read-only file system",
        ),
        json!({"terminated": {"exitCode": 128, "reason": "StartError"}}),
        json!({"waiting": {"reason": "CrashLoopBackOff"}}),
    ];
    for state in states {
        let world = world(&["a"], PodMode::NoOp);
        let now = Instant::now();
        let mut tracker = world.tracker(Purpose::Wait, now);
        tracker.on_pod(Update::Set(pod("a", state.clone())), now);
        tracker.evaluate_all(now + seconds(4));
        assert!(
            matches!(outcomes(&world, tracker)["a"], Outcome::Pulled(_)),
            "{state}"
        );
    }
}

#[tokio::test]
async fn image_volumes_tell_by_events_that_name_the_image() {
    let world = world(&["a"], PodMode::ImageVolume);
    let now = Instant::now();
    let mut tracker = world.tracker(Purpose::Wait, now);
    let said = |text: &str| -> Update<Event> {
        Update::Set(read(
            json!({"reason": "Pulled", "message": text, "type": "Normal", "involvedObject": {"uid": "uid-a"}}),
        ))
    };
    tracker.on_event(
        said("Container image \"registry.k8s.io/pause:3.10\" already present on machine"),
        now,
    );
    tracker.on_event(
        said("Successfully pulled image \"reg.example/team/app:v1\" in 3s"),
        now,
    );
    let mut held = pod("a", running());
    tracker.on_pod(Update::Set(held.clone()), now);
    assert!(tracker.is_done());
    let seen = outcomes(&world, tracker);
    let Outcome::Pulled(image) = &seen["a"] else {
        panic!("{seen:?}")
    };
    // The container's own image is the pause image.
    assert_eq!(image.digest, None);

    held = read(
        json!({"metadata": {"uid": "uid-a"}, "spec": {"nodeName": "a"}, "status": {"phase": "Running", "containerStatuses": [
        {"name": "image-0", "imageID": "registry.k8s.io/pause@sha256:0", "state": running(), "volumeMounts": [
            {"name": "image-0", "mountPath": "/image", "volumeStatus": {"image": {"imageRef": format!("reg.example/team/app@{DIGEST}")}}}]}]}}),
    );
    let mut tracker = world.tracker(Purpose::Snapshot, now);
    tracker.on_pod(Update::Set(held), now);
    tracker.take_snapshot(now);
    let seen = outcomes(&world, tracker);
    assert!(
        matches!(&seen["a"], Outcome::Pulled(image) if image.digest.as_deref() == Some(DIGEST)),
        "{seen:?}"
    );
}

#[tokio::test]
async fn a_snapshot_waits_for_nothing() {
    let world = world(&["a", "b", "c"], PodMode::NoOp);
    let now = Instant::now();
    let mut tracker = Tracker::new(&world.plan, &world.spec, Purpose::Snapshot, now);
    tracker.on_pod(
        Update::Listed(vec![
            pod("a", waiting("ErrImagePull", REFUSED)),
            pod("b", waiting("ContainerCreating", "")),
        ]),
        now,
    );
    tracker.on_daemonset(Update::Listed(vec![controller(1, 3, 3)]), now);
    assert!(!tracker.knows_all());
    tracker.on_node(
        Update::Listed(["a", "b", "c"].map(|name| node(name, "True")).into()),
        now,
    );
    assert!(tracker.knows_all());
    assert!(tracker.take_facts().is_empty(), "events may tell more");
    tracker.take_snapshot(now);
    let seen = outcomes(&world, tracker);
    assert_eq!(failure(&seen["a"]).0, FailureKind::RegistryUnavailable);
    assert_eq!(seen["b"], Outcome::NotRun(StopReason::NotYet));
    assert_eq!(failure(&seen["c"]).0, FailureKind::NoPod);
}

#[tokio::test]
async fn nodes_for_ssh_are_not_told_as_failed() {
    let world = world(&["a", "b"], PodMode::NoOp);
    let now = Instant::now();
    let mut tracker = world.tracker(Purpose::WaitForPods, now);
    tracker.on_pod(
        Update::Set(pod("a", waiting("ErrImagePull", NOT_FOUND))),
        now,
    );
    tracker.on_node(Update::Deleted(node("b", "True")), now);
    assert!(tracker.is_done());
    let told: Vec<usize> = tracker
        .take_facts()
        .iter()
        .filter_map(|fact| match fact {
            EventKind::Finished { node, .. } => Some(*node),
            _ => None,
        })
        .collect();
    assert_eq!(told, [0], "a has failed; b is for SSH");
}

#[tokio::test]
async fn nodes_that_join_are_named_and_a_deleted_daemonset_ends_the_wait() {
    let world = world(&["a"], PodMode::NoOp);
    let now = Instant::now();
    let mut tracker = world.tracker(Purpose::Wait, now);
    tracker.on_node(Update::Set(node("new", "True")), now);
    tracker.on_node(Update::Set(node("new", "False")), now);
    assert_eq!(tracker.joined(), ["new"]);
    tracker.on_daemonset(Update::Deleted(controller(1, 1, 1)), now);
    let seen = outcomes(&world, tracker);
    assert!(failure(&seen["a"]).1.contains("was deleted"), "{seen:?}");
}

/// What an earlier run left there is told first; a pod of an evicted one's successor counts.
#[tokio::test]
async fn the_pod_that_stays_counts() {
    let world = world(&["a"], PodMode::NoOp);
    let now = Instant::now();
    let mut tracker = world.tracker(Purpose::Wait, now);
    let mut old = pod("a", waiting("ContainerCreating", ""));
    old.metadata.deletion_timestamp = Some("2026-11-28T01:00:00Z".into());
    let mut new = pod("a", running());
    new.metadata.uid = "uid-new".into();
    tracker.on_pod(Update::Set(new), now);
    tracker.on_pod(Update::Set(old), now);
    tracker.evaluate_all(now + seconds(4));
    assert!(matches!(outcomes(&world, tracker)["a"], Outcome::Pulled(_)));
}
