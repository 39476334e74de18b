//! Tests of the calls against the scripted peer: what each answer of a node comes to.

use std::collections::BTreeMap;
use std::future::{pending, ready};
use std::sync::Mutex;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::scripted::{DIGEST, Dial, Peer, ScriptedRuntime, Step};
use super::*;
use crate::model::{ExitStatus, RegistryLogin, Secret};
use crate::ports::{Channel, ChannelEvent, Transport};

const DOCKER: ScriptedRuntime = ScriptedRuntime(RuntimeKind::Docker);
const CRICTL: ScriptedRuntime = ScriptedRuntime(RuntimeKind::Crictl);
const IMAGE: &str = "reg.example:5000/team/app:v1";
const SECOND: Duration = Duration::from_secs(1);

pub(super) fn node() -> Node {
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
        become_password: None,
        ssh_settings: 0,
        labels: BTreeMap::new(),
        facts: BTreeMap::new(),
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

type Pull = Result<Outcome, Interrupted>;

async fn pull_once(
    peer: &Peer,
    how: Pulling,
    cancel: impl Future<Output = ()> + Send,
) -> (Pull, Vec<Stage>) {
    let stages = Mutex::new(vec![]);
    let mut session = peer.connect(&node(), &|_| {}).await.unwrap();
    let login = RegistryLogin::RegistryToken(Secret::new("token"));
    let image = how.image.parse().unwrap();
    let job = PullJob {
        runtime: &DOCKER,
        layers: None,
        request: PullRequest {
            image: &image,
            endpoint: None,
            platform: None,
            login: Some(&login),
        },
        when: how.when,
        timeout: how.timeout,
        patience: StallPolicy::default(),
        arrived: &Layers::default(),
        pull_token: "test",
        lease: Duration::from_secs(600),
        disk_credentials: false,
        hang_up: None,
    };
    let tell = |progress| match progress {
        Progress::Stage(stage) => stages.lock().unwrap().push(stage),
        Progress::BytesTransferred(_) => {}
    };
    let ended = pull(&mut session, &node(), &job, &tell, cancel).await;
    (ended, stages.into_inner().unwrap())
}

fn held() -> LocalImage {
    LocalImage {
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
    assert_eq!(ended, Ok(Outcome::Pulled(held())));
    assert_eq!(stages, [Stage::Inspect, Stage::Pull, Stage::Verify]);
    let counts = peer.counts("n1");
    assert_eq!((counts.channels, counts.pulls, counts.pulling), (1, 1, 0));

    let (ended, stages) = pull_once(&peer, MISSING, pending()).await;
    assert_eq!(ended, Ok(Outcome::Present(held())));
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
    assert_eq!(ended, Ok(Outcome::Present(held())));
    assert_eq!(stages, [Stage::Inspect, Stage::Pull, Stage::Verify]);
}

#[tokio::test(start_paused = true)]
async fn a_failing_pull_is_classified_by_its_runtime() {
    let peer = Peer::new();
    peer.node("n1")
        .image(IMAGE, [Step::fails(SECOND, FailureKind::RateLimited)]);
    let (ended, stages) = pull_once(&peer, MISSING, pending()).await;
    let failure = ended.unwrap_err().failed().unwrap();
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
    let failure = pull_once(&peer, limited, pending())
        .await
        .0
        .unwrap_err()
        .failed()
        .unwrap();
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
        match patience {
            0 => assert_eq!(ended, Err(Interrupted::Cancelled)),
            // It may go on there.
            _ => assert_eq!(
                ended.unwrap_err().failed().unwrap().kind,
                FailureKind::ConnectionLost
            ),
        }
        assert_eq!(began.elapsed(), (5 + patience) * SECOND);
        assert_eq!(peer.counts("n1").cancels, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_cancelled_before_it_starts_never_pulls() {
    let peer = Peer::new();
    let (ended, stages) = pull_once(&peer, MISSING, ready(())).await;
    assert_eq!(ended, Err(Interrupted::Cancelled));
    assert_eq!((stages.len(), peer.counts("n1").pulls), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_connection_lost_in_the_pull_says_so_at_that_stage() {
    let peer = Peer::new();
    peer.node("n1").image(IMAGE, [Step::Lost(SECOND)]);
    let failure = pull_once(&peer, MISSING, pending())
        .await
        .0
        .unwrap_err()
        .failed()
        .unwrap();
    assert_eq!(
        (failure.kind, failure.stage),
        (FailureKind::ConnectionLost, Stage::Pull)
    );
}

#[test]
fn podman_is_taken_only_where_no_other_client_is_there() {
    let asked: [&dyn Runtime; 2] = [&DOCKER, &ScriptedRuntime(RuntimeKind::Podman)];
    let answer = |kind| {
        let failure = Failure::new(kind, Stage::Probe, "as it is");
        super::choose(&asked, vec![Err(failure), Ok(RuntimeKind::Podman)])
    };
    assert_eq!(answer(FailureKind::RuntimeMissing), Ok(RuntimeKind::Podman));
    for kind in [FailureKind::RuntimeAbsent, FailureKind::Privilege] {
        let failure = answer(kind).unwrap_err();
        assert_eq!(failure.kind, kind);
        assert!(
            failure
                .detail
                .starts_with("docker is here, but as it is; podman is here too"),
            "{failure}"
        );
        assert!(
            failure.detail.ends_with("--runtime podman takes it"),
            "{failure}"
        );
    }
}

#[test]
fn a_probe_that_fails_says_of_each_client_what_is_the_matter_with_it() {
    let asked: [&dyn Runtime; 3] = [&CRICTL, &DOCKER, &ScriptedRuntime(RuntimeKind::Ctr)];
    let failed = |kind, detail: &str| Err(Failure::new(kind, Stage::Probe, detail));
    let choose = |answers| super::choose(&asked, answers).unwrap_err().detail;
    assert_eq!(
        choose(vec![
            failed(FailureKind::RuntimeAbsent, "no socket"),
            failed(FailureKind::Privilege, "permission denied"),
            failed(FailureKind::RuntimeMissing, "ctr: command not found"),
        ]),
        "docker is here, but permission denied; crictl is here, but no socket"
    );
    let missing = |detail| failed(FailureKind::RuntimeMissing, detail);
    assert_eq!(
        choose(vec![
            missing("crictl: not found"),
            missing("docker: command not found"),
            missing("ctr: command not found; /run/a.sock is here, but no client for it"),
        ]),
        "looked for crictl, docker and ctr and found none; /run/a.sock is here, but no client for it"
    );
}

#[tokio::test(start_paused = true)]
async fn a_probe_prefers_crictl_and_tells_the_most_when_nothing_answers() {
    let ask = async |peer: &Peer, node: &Node| {
        let mut session = peer.connect(node, &|_| {}).await.unwrap();
        probe(&mut session, node, &[&DOCKER, &CRICTL], pending()).await
    };
    let peer = Peer::new();
    assert_eq!(ask(&peer, &node()).await, Ok(RuntimeKind::Crictl));
    peer.node("n1").probes(RuntimeKind::Docker);
    assert_eq!(ask(&peer, &node()).await, Ok(RuntimeKind::Docker));
    peer.node("n1").no_runtime();
    let failure = ask(&peer, &node()).await.unwrap_err().failed().unwrap();
    assert_eq!(failure.kind, FailureKind::RuntimeMissing);
    assert_eq!(
        failure.detail,
        "looked for crictl and docker and found none"
    );
    peer.node("n1").probe_takes(100 * SECOND);
    let failure = ask(&peer, &node()).await.unwrap_err().failed().unwrap();
    assert_eq!(
        (failure.kind, failure.stage),
        (FailureKind::RuntimeDown, Stage::Probe)
    );
    assert_eq!(
        failure.detail,
        "crictl is here, but did not answer within 60 s"
    );
}

#[tokio::test(start_paused = true)]
async fn facts_come_in_one_call_with_the_images_that_are_there() {
    let peer = Peer::new();
    peer.node("n1").image(IMAGE, [Step::Present]);
    let mut session = peer.connect(&node(), &|_| {}).await.unwrap();
    let images = [IMAGE.parse().unwrap(), "other:v1".parse().unwrap()];
    let asked = facts(&mut session, &node(), &DOCKER, &images, pending()).await;
    let Ok(facts) = asked else {
        panic!("no facts");
    };
    let words = [&facts.os, &facts.architecture, &facts.system, &facts.root];
    assert_eq!(words, ["linux", "amd64", "Scripted 1", "/var/lib/scripted"]);
    assert_eq!((facts.free, facts.present()), (Some(1_024_000), 1));
    assert_eq!(facts.runtime, "docker 1.0");
    assert_eq!(facts.endpoint.as_deref(), Some("unix:///run/scripted.sock"));
    assert_eq!(facts.images, [Some(held()), None]);
    assert!(facts.clock.milliseconds.abs() < 60_000, "{facts:?}");
    assert_eq!(peer.counts("n1").channels, 1);

    peer.node("n1").no_runtime();
    let asked = super::facts(&mut session, &node(), &DOCKER, &[], pending()).await;
    let failure = asked.unwrap_err().failed().unwrap();
    assert_eq!(
        (failure.kind, failure.stage),
        (FailureKind::RuntimeMissing, Stage::Probe)
    );
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
    let ended = check(&mut session, &node(), &DOCKER, &image, None, pending()).await;
    assert_eq!(ended, Ok(None));
    peer.node("n1").image(IMAGE, [Step::Present]);
    let ended = check(&mut session, &node(), &DOCKER, &image, None, pending()).await;
    assert_eq!(ended, Ok(Some(held())));
    let ended = run(
        &mut session,
        &node(),
        &["true".into()],
        &Arc::default(),
        pending(),
    )
    .await;
    assert_eq!(ended, Ok(output.into()));
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
            layers: None,
            request: PullRequest {
                image: &image,
                endpoint: None,
                platform: None,
                login: None,
            },
            when: PullWhen::Missing,
            timeout: None,
            patience: StallPolicy::default(),
            arrived: &Layers::default(),
            pull_token: "test",
            lease: Duration::from_secs(600),
            disk_credentials: false,
            hang_up: None,
        };
        let _ = probe(&mut session, &node(), &[&DOCKER], pending()).await;
        let _ = pull(&mut session, &node(), &job, &|_| {}, pending()).await;
        let _ = check(&mut session, &node(), &DOCKER, &image, None, pending()).await;
        let _ = run(&mut session, &node(), &[], &Arc::default(), pending()).await;
    });
}

/// A node that says this to whatever it is asked, then closes the channel. `NONCE` is replaced.
struct Canned(Vec<ChannelEvent>);

impl Session for Canned {
    type Channel = Self;

    async fn exec(&mut self, _: &str) -> Result<Self, Failure> {
        Ok(Self(self.0.clone()))
    }

    async fn close(self) {}
}

impl Channel for Canned {
    async fn write(&mut self, bytes: Bytes) -> Result<(), Failure> {
        let text = String::from_utf8_lossy(&bytes);
        if text.ends_with(&format!("\n{}\n", request::GO)) {
            // The program; the values follow.
            return Ok(());
        }
        let nonce = text.lines().nth(1).unwrap_or_default().to_string();
        for event in &mut self.0 {
            if let ChannelEvent::Stdout(said) = event {
                *said = String::from_utf8_lossy(said)
                    .replace("NONCE", &nonce)
                    .into();
            }
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<ChannelEvent>, Failure> {
        Ok((!self.0.is_empty()).then(|| self.0.remove(0)))
    }
}

/// A node that says these lines, one a second and the last one for ever, until it is told to cancel.
struct Announcing {
    lines: Vec<&'static str>,
    nonce: String,
    is_cancelled: bool,
}

impl Session for Announcing {
    type Channel = Self;

    async fn exec(&mut self, _: &str) -> Result<Self, Failure> {
        Ok(Self {
            lines: self.lines.clone(),
            nonce: String::new(),
            is_cancelled: false,
        })
    }

    async fn close(self) {}
}

impl Channel for Announcing {
    async fn write(&mut self, bytes: Bytes) -> Result<(), Failure> {
        let text = String::from_utf8_lossy(&bytes);
        if text == word::CANCEL {
            self.is_cancelled = true;
        } else if !text.ends_with(&format!("\n{}\n", request::GO)) && self.nonce.is_empty() {
            self.nonce = text.lines().nth(1).unwrap_or_default().to_string();
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<ChannelEvent>, Failure> {
        if self.is_cancelled {
            return Ok(None);
        }
        sleep(SECOND).await;
        let line = match self.lines.len() {
            1 => self.lines[0],
            _ => self.lines.remove(0),
        };
        let said = format!("prepull-{} {line}\n", self.nonce);
        Ok(Some(ChannelEvent::Stdout(said.into_bytes())))
    }
}

/// A pull on a node that says these lines, and how long it took.
async fn announced(lines: &[&'static str], timeout: Option<Duration>) -> (Pull, Duration) {
    let mut session = Announcing {
        lines: lines.to_vec(),
        nonce: String::new(),
        is_cancelled: false,
    };
    let image = IMAGE.parse().unwrap();
    let job = PullJob {
        runtime: &DOCKER,
        layers: None,
        request: PullRequest {
            image: &image,
            endpoint: None,
            platform: None,
            login: None,
        },
        when: PullWhen::Always,
        timeout,
        patience: StallPolicy::default(),
        arrived: &Layers::default(),
        pull_token: "test",
        lease: Duration::from_secs(600),
        disk_credentials: false,
        hang_up: None,
    };
    let began = Instant::now();
    let ended = pull(&mut session, &node(), &job, &|_| {}, pending()).await;
    (ended, began.elapsed())
}

/// However often it announces something, and whatever: the limits are counted here.
#[tokio::test(start_paused = true)]
async fn a_node_cannot_hold_a_pull_by_announcing_stages() {
    let inspected = "output 1 0 0 0";
    for lines in [
        &["hello", "stage turn"][..],
        &["hello", "stage inspect"],
        &["hello", "stage turn", "stage inspect"],
        &["hello", "measured", "stage turn", "exited"],
        &["hello", "stage inspect", inspected, "stage pull"],
        &["hello", "stage inspect", inspected, "stage turn"],
    ] {
        for limit in [8, 600, 5400, 0] {
            let limit = Some(SECOND * limit).filter(|limit| !limit.is_zero());
            if limit.is_none() && lines.contains(&inspected) {
                continue; // A pull itself has no limit then.
            }
            let (ended, took) = announced(lines, limit).await;
            assert!(ended.is_err(), "{lines:?} {limit:?}: {ended:?}");
            let most = limit.unwrap_or(TURN_LIMIT) + ANSWER_LIMIT + 20 * SECOND;
            assert!(took < most, "{lines:?} {limit:?}: {took:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_another_pull_counts_against_the_limit_of_a_pull() {
    let (ended, took) = announced(&["hello", "stage turn"], Some(20 * SECOND)).await;
    let failure = ended.unwrap_err().failed().unwrap();
    assert_eq!(failure.kind, FailureKind::TimedOut);
    assert!(
        failure
            .detail
            .starts_with("waited 20s for another pull of the same image"),
        "{failure}"
    );
    assert!(took < 25 * SECOND, "{took:?}");

    let mut lines = vec!["hello"];
    lines.extend(["stage turn"; 15]);
    lines.extend(["stage inspect", "output 1 0 0 0", "stage pull"]);
    let (ended, took) = announced(&lines, Some(20 * SECOND)).await;
    let failure = ended.unwrap_err().failed().unwrap();
    assert!(failure.detail.contains("not done within 20s"), "{failure}");
    assert!(took < 27 * SECOND, "{took:?}");

    // A wait that ends in time leaves inspecting its own limit, and a second one gets none.
    let (ended, _) = announced(&["hello", "stage turn"], None).await;
    let failure = ended.unwrap_err().failed().unwrap();
    assert!(failure.detail.starts_with("waited 1h for"), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_closes_early_tells_by_what_it_said() {
    use ChannelEvent::{Exited, Stderr, Stdout};
    let said = |text: &str| Stdout(text.replace('~', "prepull-NONCE ").into_bytes());
    let code = |code| Exited(ExitStatus::Code(code));
    for (events, kind, stage, words) in [
        (vec![], FailureKind::ConnectionLost, Stage::Start, "closed"),
        (
            vec![said("Welcome")],
            FailureKind::ConnectionLost,
            Stage::Start,
            "Welcome",
        ),
        (
            vec![Stderr(b"sh: not found".to_vec()), code(127)],
            FailureKind::NodeSetup,
            Stage::Start,
            "status 127, and printed: sh: not found",
        ),
        (
            vec![said("~hello\n")],
            FailureKind::ConnectionLost,
            Stage::Run,
            "closed",
        ),
        (
            vec![said("~hello\n~tied\n")],
            FailureKind::ConnectionLost,
            Stage::Run,
            "the node's login manager ends the pull with it",
        ),
        (
            vec![said("~hello\n"), Exited(ExitStatus::Signal("KILL".into()))],
            FailureKind::Unknown,
            Stage::Run,
            "from outside: signal KILL",
        ),
        (
            vec![said("~hello\n~output 0 99999999 0 0\n")],
            FailureKind::Unknown,
            Stage::Run,
            "broke the protocol",
        ),
        (
            vec![said("~end\n"), code(0)],
            FailureKind::Unknown,
            Stage::Start,
            "broke the protocol",
        ),
        (
            vec![said("~hello\n~refused tool mkfifo\n~end\n"), code(0)],
            FailureKind::NodeSetup,
            Stage::Run,
            "no usable \"mkfifo\"",
        ),
    ] {
        let told = format!("{events:?}");
        let mut session = Canned(events);
        let failure = run(
            &mut session,
            &node(),
            &["true".into()],
            &Arc::default(),
            pending(),
        )
        .await
        .unwrap_err()
        .failed()
        .unwrap();
        assert_eq!((failure.kind, failure.stage), (kind, stage), "{told}");
        assert!(failure.detail.contains(words), "{failure}");
    }
}

#[test]
fn an_image_with_another_digest_than_asked_for_is_corrupt() {
    let image: Image = format!("reg.example/app@sha256:{}", "b".repeat(64))
        .parse()
        .unwrap();
    let request = PullRequest {
        image: &image,
        endpoint: None,
        platform: None,
        login: None,
    };
    let failure = expected(&request, held(), Stage::Verify).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Corrupt);
    let unknown = LocalImage {
        digest: None,
        ..held()
    };
    assert!(expected(&request, unknown, Stage::Verify).is_err());
    let right = LocalImage {
        digest: image.digest().map(String::from),
        ..held()
    };
    assert!(expected(&request, right, Stage::Verify).is_ok());
}
