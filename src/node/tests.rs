//! Tests of the calls against the scripted peer: what each answer of a node comes to.

use std::collections::BTreeMap;
use std::future::{pending, ready};
use std::sync::Mutex;

use tokio::time::{Instant, sleep};

use super::scripted::{DIGEST, Dial, Peer, ScriptedRuntime, Step};
use super::*;
use crate::model::{ExitStatus, RegistryLogin, Secret};
use crate::ports::Transport;

const DOCKER: ScriptedRuntime = ScriptedRuntime(RuntimeKind::Docker);
const CRICTL: ScriptedRuntime = ScriptedRuntime(RuntimeKind::Crictl);
const IMAGE: &str = "reg.example:5000/team/app:v1";
const SECOND: Duration = Duration::from_secs(1);

fn node() -> Node {
    Node {
        name: "n1".into(),
        address: "n1".into(),
        port: 22,
        user: "ops".into(),
        identities: vec![],
        jump: vec![],
        runtime: None,
        endpoint: None,
        become_root: false,
        labels: BTreeMap::new(),
        groups: vec![],
    }
}

struct Pulling {
    when: PullWhen,
    timeout: Option<Duration>,
    image: &'static str,
}

const MISSING: Pulling = Pulling {
    when: PullWhen::Missing,
    timeout: None,
    image: IMAGE,
};

type Pull = Result<Ended<Outcome>, Failure>;

async fn pull_once(
    peer: &Peer,
    how: Pulling,
    cancel: impl Future<Output = ()> + Send,
) -> (Pull, Vec<Stage>) {
    let stages = Mutex::new(vec![]);
    let mut session = peer.connect(&node(), &|_| {}).await.unwrap();
    let login = RegistryLogin {
        username: "ci".into(),
        password: Secret::new("pw"),
    };
    let image = how.image.parse().unwrap();
    let job = PullJob {
        runtime: &DOCKER,
        request: PullRequest {
            image: &image,
            endpoint: None,
            platform: None,
            login: Some(&login),
        },
        when: how.when,
        timeout: how.timeout,
    };
    let tell = |stage| stages.lock().unwrap().push(stage);
    let ended = pull(&mut session, &node(), &job, &tell, cancel).await;
    (ended, stages.into_inner().unwrap())
}

fn held() -> Held {
    Held {
        digest: Some(DIGEST.into()),
        image_id: None,
        bytes: Some(1000),
        platform: None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_image_is_inspected_pulled_and_verified_over_one_channel() {
    let peer = Peer::new();
    let (ended, stages) = pull_once(&peer, MISSING, pending()).await;
    assert_eq!(ended, Ok(Ended::Done(Outcome::Pulled(held()))));
    assert_eq!(stages, [Stage::Inspect, Stage::Pull, Stage::Verify]);
    let counts = peer.counts("n1");
    assert_eq!((counts.channels, counts.pulls, counts.pulling), (1, 1, 0));

    let (ended, stages) = pull_once(&peer, MISSING, pending()).await;
    assert_eq!(ended, Ok(Ended::Done(Outcome::Present(held()))));
    assert_eq!(stages, [Stage::Inspect]);
    assert_eq!(peer.counts("n1").pulls, 1);
}

#[tokio::test(start_paused = true)]
async fn an_image_that_always_changes_nothing_is_present() {
    let peer = Peer::new();
    peer.node("n1").image(IMAGE, [Step::Present]);
    let always = Pulling {
        when: PullWhen::Always,
        ..MISSING
    };
    let (ended, stages) = pull_once(&peer, always, pending()).await;
    assert_eq!(ended, Ok(Ended::Done(Outcome::Present(held()))));
    assert_eq!(stages, [Stage::Inspect, Stage::Pull, Stage::Verify]);
}

#[tokio::test(start_paused = true)]
async fn a_failing_pull_is_classified_by_its_runtime() {
    let peer = Peer::new();
    peer.node("n1")
        .image(IMAGE, [Step::fails(SECOND, FailureKind::RateLimited)]);
    let (ended, stages) = pull_once(&peer, MISSING, pending()).await;
    let failure = ended.unwrap_err();
    assert_eq!(
        (failure.kind, failure.stage),
        (FailureKind::RateLimited, Stage::Pull)
    );
    assert_eq!(stages, [Stage::Inspect, Stage::Pull]);
}

#[tokio::test(start_paused = true)]
async fn a_hanging_pull_is_timed_out_and_the_node_is_told() {
    let peer = Peer::new();
    peer.node("n1").image(IMAGE, [Step::Hangs]);
    let limited = Pulling {
        timeout: Some(30 * SECOND),
        ..MISSING
    };
    let began = Instant::now();
    let failure = pull_once(&peer, limited, pending()).await.0.unwrap_err();
    assert_eq!(
        (failure.kind, failure.stage),
        (FailureKind::TimedOut, Stage::Pull)
    );
    assert!(failure.detail.contains("30s"), "{}", failure.detail);
    assert_eq!(began.elapsed(), 30 * SECOND);
    let counts = peer.counts("n1");
    assert_eq!((counts.cancels, counts.pulling), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_pull_ends_at_once_and_a_deaf_node_is_given_up_after_ten_seconds() {
    for (step, patience) in [(Step::Hangs, 0), (Step::Deaf, 10)] {
        let peer = Peer::new();
        peer.node("n1").image(IMAGE, [step]);
        let began = Instant::now();
        let (ended, _) = pull_once(&peer, MISSING, sleep(5 * SECOND)).await;
        assert_eq!(ended, Ok(Ended::Cancelled));
        assert_eq!(began.elapsed(), (5 + patience) * SECOND);
        assert_eq!(peer.counts("n1").cancels, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_cancelled_before_it_starts_never_pulls() {
    let peer = Peer::new();
    let (ended, stages) = pull_once(&peer, MISSING, ready(())).await;
    assert_eq!(ended, Ok(Ended::Cancelled));
    assert_eq!((stages.len(), peer.counts("n1").pulls), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_connection_lost_in_the_pull_says_so_at_that_stage() {
    let peer = Peer::new();
    peer.node("n1").image(IMAGE, [Step::Lost(SECOND)]);
    let failure = pull_once(&peer, MISSING, pending()).await.0.unwrap_err();
    assert_eq!(
        (failure.kind, failure.stage),
        (FailureKind::ConnectionLost, Stage::Pull)
    );
}

#[tokio::test(start_paused = true)]
async fn a_probe_prefers_crictl_and_tells_the_most_when_nothing_answers() {
    let ask = async |peer: &Peer, node: &Node| {
        let mut session = peer.connect(node, &|_| {}).await.unwrap();
        probe(&mut session, node, &[&DOCKER, &CRICTL], pending()).await
    };
    let peer = Peer::new();
    assert_eq!(
        ask(&peer, &node()).await,
        Ok(Ended::Done(RuntimeKind::Crictl))
    );
    peer.node("n1").probes(RuntimeKind::Docker);
    assert_eq!(
        ask(&peer, &node()).await,
        Ok(Ended::Done(RuntimeKind::Docker))
    );
    peer.node("n1").no_runtime();
    let failure = ask(&peer, &node()).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::RuntimeMissing);
    assert_eq!(
        failure.detail,
        "looked for crictl and docker and found none"
    );
    peer.node("n1").probe_takes(100 * SECOND);
    let failure = ask(&peer, &node()).await.unwrap_err();
    assert_eq!(
        (failure.kind, failure.stage),
        (FailureKind::RuntimeDown, Stage::Probe)
    );
    assert_eq!(failure.detail, "did not answer within 60 s");
}

#[tokio::test(start_paused = true)]
async fn check_tells_what_is_held_and_run_what_was_printed() {
    let peer = Peer::new();
    let output = CommandOutput {
        exit: ExitStatus::Code(3),
        stdout: b"out\0".to_vec(),
        stderr: b"err".to_vec(),
        truncated: false,
    };
    peer.node("n1").runs(SECOND, output.clone());
    let mut session = peer.connect(&node(), &|_| {}).await.unwrap();
    let image = IMAGE.parse().unwrap();
    let ended = check(&mut session, &node(), &DOCKER, &image, pending()).await;
    assert_eq!(ended, Ok(Ended::Done(None)));
    peer.node("n1").image(IMAGE, [Step::Present]);
    let ended = check(&mut session, &node(), &DOCKER, &image, pending()).await;
    assert_eq!(ended, Ok(Ended::Done(Some(held()))));
    let ended = run(&mut session, &node(), &["true".into()], pending()).await;
    assert_eq!(ended, Ok(Ended::Done(output)));
    assert_eq!(peer.counts("n1").channels, 3);
}

#[tokio::test(start_paused = true)]
async fn a_script_of_dials_is_followed_in_order() {
    let peer = Peer::new();
    let refused = Failure::new(FailureKind::Unreachable, Stage::Connect, "refused");
    peer.node("n1")
        .connects([Dial::Fails(SECOND, refused.clone()), Dial::After(SECOND)]);
    assert_eq!(peer.connect(&node(), &|_| {}).await.unwrap_err(), refused);
    let session = peer.connect(&node(), &|_| {}).await.unwrap();
    assert_eq!(peer.total().sessions, 1);
    drop(session);
    let counts = peer.counts("n1");
    assert_eq!(
        (counts.connects, counts.sessions, counts.sessions_peak),
        (2, 0, 1)
    );
}

#[test]
fn the_calls_can_move_between_threads() {
    fn assert_send<T: Send>(_: T) {}
    let peer = Peer::new();
    let image: Image = IMAGE.parse().unwrap();
    assert_send(async {
        let mut session = peer.connect(&node(), &|_| {}).await.unwrap();
        let job = PullJob {
            runtime: &DOCKER,
            request: PullRequest {
                image: &image,
                endpoint: None,
                platform: None,
                login: None,
            },
            when: PullWhen::Missing,
            timeout: None,
        };
        let _ = probe(&mut session, &node(), &[&DOCKER], pending()).await;
        let _ = pull(&mut session, &node(), &job, &|_| {}, pending()).await;
        let _ = check(&mut session, &node(), &DOCKER, &image, pending()).await;
        let _ = run(&mut session, &node(), &[], pending()).await;
    });
}
