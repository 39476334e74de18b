//! What every shell has to pass, each with a node of its own that must be clean afterwards.

use std::fs;
use std::future::{Future, pending};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::future::LocalBoxFuture;
use prepull::model::{
    CommandOutput, ExitStatus, FailureKind, Layer, Outcome, PullWhen, RuntimeKind, Secret, Stage,
};
use prepull::node::{
    self as call, BytesTransferred, Interrupted, Layers, Progress, PullJob, StallPolicy,
};
use prepull::ports::PullRequest;

use super::runtime::FakeRuntime;
use super::{Place, Shells, contains, daemon, hostile, node, processes, signal, unwatched};

pub(super) const IMAGE: &str = "reg.example:5000/team/app:v1";

/// Quotes, expansions, newlines, control bytes of dash's own, and 4 KB.
pub fn hostile() -> String {
    let quoted = "'\"$(touch /tmp/x) `id` ${HOME} \\ \\n !! * ; & | < > # ~ é \u{81}\u{88}日本 \t";
    format!("-n {quoted}\n\n -leading\n{}\n", "p@ss'word\\ ".repeat(370))
}

pub async fn pull(
    place: &Place,
    runtime: &FakeRuntime,
    timeout: Option<Duration>,
    cancel: impl Future<Output = ()> + Send,
) -> Result<Outcome, Interrupted> {
    let lease = Duration::from_secs(600);
    pull_of("test", lease, place, runtime, timeout, cancel).await
}

/// The pull of the run with this mark.
pub async fn pull_of(
    pull_token: &str,
    lease: Duration,
    place: &Place,
    runtime: &FakeRuntime,
    timeout: Option<Duration>,
    cancel: impl Future<Output = ()> + Send,
) -> Result<Outcome, Interrupted> {
    let how = How {
        pull_token,
        lease,
        timeout,
        stall: None,
        layers: None,
        platform: None,
    };
    pull_how(how, place, runtime, &|_| {}, cancel).await
}

pub(super) struct How<'a> {
    pub(super) pull_token: &'a str,
    pub(super) lease: Duration,
    pub(super) timeout: Option<Duration>,
    pub(super) stall: Option<Duration>,
    pub(super) layers: Option<&'a [Layer]>,
    pub(super) platform: Option<&'a str>,
}

impl How<'_> {
    /// A pull that may take as long as it likes, but for this stall time-out.
    pub(super) fn patient(stall: Option<Duration>) -> Self {
        Self {
            pull_token: "test",
            lease: MINUTE,
            timeout: None,
            stall,
            layers: None,
            platform: None,
        }
    }
}

pub(super) async fn pull_how(
    how: How<'_>,
    place: &Place,
    runtime: &FakeRuntime,
    progress: &(dyn Fn(Progress) + Send + Sync),
    cancel: impl Future<Output = ()> + Send,
) -> Result<Outcome, Interrupted> {
    let arrived = Layers::default();
    pull_counted(how, None, &arrived, place, runtime, progress, cancel).await
}

/// `unseen` limits a pull of which nothing is seen; `arrived` counts what comes.
pub(super) async fn pull_counted(
    how: How<'_>,
    unseen: Option<Duration>,
    arrived: &Layers,
    place: &Place,
    runtime: &FakeRuntime,
    progress: &(dyn Fn(Progress) + Send + Sync),
    cancel: impl Future<Output = ()> + Send,
) -> Result<Outcome, Interrupted> {
    // Each place is a node of its own, on a machine that they share.
    let own = place.folder.path().display().to_string();
    let mark = format!("{} {own}", how.pull_token);
    let image = IMAGE.parse().unwrap();
    let job = PullJob {
        runtime,
        layers: how.layers,
        request: PullRequest {
            image: &image,
            // Places share the machine's memory file system: none has to wait for another's turn.
            endpoint: Some(&own),
            platform: how.platform,
            login: None,
        },
        when: PullWhen::Missing,
        timeout: how.timeout,
        patience: StallPolicy {
            stall: how.stall,
            min_rate: None,
            unseen,
        },
        arrived,
        pull_token: &mark,
        lease: how.lease,
        disk_credentials: false,
        hang_up: None,
    };
    call::pull(&mut place.session(), &node(false), &job, progress, cancel).await
}

pub fn docker_with(secret: &str) -> FakeRuntime {
    FakeRuntime {
        secret: Some(Secret::new(secret)),
        ..FakeRuntime::new(RuntimeKind::Docker)
    }
}

pub(super) async fn run(place: &Place, argv: &[&str]) -> CommandOutput {
    let argv: Vec<String> = argv.iter().map(ToString::to_string).collect();
    match call::run(
        &mut place.session(),
        &node(false),
        &argv,
        &Arc::default(),
        pending(),
    )
    .await
    {
        Ok(output) => CommandOutput {
            stdout: output.stdout.read(usize::MAX).unwrap(),
            stderr: output.stderr.read(usize::MAX).unwrap(),
            exit: output.exit,
            truncated: output.truncated,
        },
        other => panic!("{other:?}"),
    }
}

pub async fn present_image_is_left_alone(shells: &Shells) {
    let place = Place::new(shells).noisy();
    place.write("fake/held", "sha256:0123\n");
    let ended = pull(
        &place,
        &FakeRuntime::new(RuntimeKind::Docker),
        None,
        pending(),
    )
    .await;
    let Ok(Outcome::Present(held)) = ended else {
        panic!("{shells:?}: {ended:?}");
    };
    assert_eq!(held.digest.as_deref(), Some("sha256:0123"));
    assert_eq!(place.text("fake/log"), format!("docker inspect {IMAGE}\n"));
    place.assert_clean().await;
}

/// The credentials arrive unchanged, in memory, for the user alone, in nobody's arguments, and go once docker speaks.
pub async fn docker_gets_its_credentials_in_memory_and_they_go(shells: &Shells) {
    let place = Place::new(shells).noisy();
    let secret = format!("{}{}", "unseen-".repeat(4), hostile());
    place.write(
        "fake/pull",
        r#"cat "$DOCKER_CONFIG/config.json" >"$FAKE/secret"
stat -c %a "$DOCKER_CONFIG" "$DOCKER_CONFIG/config.json" >"$FAKE/modes"
stat -f -c %T "$DOCKER_CONFIG" >"$FAKE/memory"
env >"$FAKE/environment"
printf %s "$PLAIN" >"$FAKE/plain"
echo "$LC_ALL" >"$FAKE/locale"
cat >"$FAKE/stdin"
touch "$FAKE/started"
while ! [ -e "$FAKE/go" ]; do sleep 0.05; done
echo "v1: Pulling from team/app"
while [ -e "$DOCKER_CONFIG" ]; do sleep 0.05; done
"#,
    );
    let mut runtime = docker_with(&secret);
    runtime.stdin = b"\nanswer without end";
    let watching = async {
        place.started().await;
        assert!(place.processes().len() > 1);
        let seen = processes(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            contains(&line, b"unseen-unseen-unseen")
        });
        assert_eq!(seen, []);
        assert_eq!(place.folders().len(), 2);
        place.write("fake/go", "");
    };
    let (ended, ()) = tokio::join!(pull(&place, &runtime, None, pending()), watching);
    assert!(
        matches!(ended, Ok(Outcome::Pulled(_))),
        "{shells:?}: {ended:?}"
    );
    assert_eq!(place.read("fake/secret"), secret.as_bytes());
    assert_eq!(place.text("fake/modes"), "700\n600\n");
    assert_eq!(place.text("fake/memory"), "tmpfs\n");
    assert!(!contains(&place.read("fake/environment"), b"unseen"));
    assert_eq!(place.text("fake/plain"), "it's $(id) `x`\n\"é\"");
    assert_eq!(place.text("fake/locale"), "C\n");
    assert_eq!(place.read("fake/stdin"), b"\nanswer without end");
    assert_eq!(
        place.text("fake/log"),
        format!("docker inspect {IMAGE}\ndocker pull {IMAGE}\ndocker inspect {IMAGE}\n")
    );
    place.assert_clean().await;
}

/// Only the pull sees the variable; inspecting does not.
pub async fn crictl_gets_its_credentials_in_its_environment(shells: &Shells) {
    let place = Place::new(shells);
    let secret = format!("unseen-unseen-unseen {}", hostile().replace('\n', " "));
    place.write(
        "fake/pull",
        r#"printf %s "$CRICTL_AUTH" >"$FAKE/secret"
touch "$FAKE/started"
while ! [ -e "$FAKE/go" ]; do sleep 0.05; done
"#,
    );
    let runtime = FakeRuntime {
        secret: Some(Secret::new(secret.clone())),
        ..FakeRuntime::new(RuntimeKind::Crictl)
    };
    let watching = async {
        place.started().await;
        let seen = processes(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            contains(&line, b"unseen-unseen-unseen")
        });
        assert_eq!(seen, []);
        place.write("fake/go", "");
    };
    let (ended, ()) = tokio::join!(pull(&place, &runtime, None, pending()), watching);
    assert!(
        matches!(ended, Ok(Outcome::Pulled(_))),
        "{shells:?}: {ended:?}"
    );
    assert_eq!(place.read("fake/secret"), secret.as_bytes());
    place.assert_clean().await;
}

pub async fn a_failing_pull_keeps_the_clients_words(shells: &Shells) {
    let place = Place::new(shells);
    place.write("fake/pull", "echo 'no basic auth credentials' >&2; exit 1");
    let failure = pull(&place, &docker_with("s3cret"), None, pending())
        .await
        .unwrap_err()
        .failed()
        .unwrap();
    assert_eq!(failure.kind, FailureKind::RegistryAuth);
    assert_eq!(failure.detail, "no basic auth credentials\n");
    place.assert_clean().await;
}

/// A tag that holds an image for another platform is pulled, and what the pull brings is compared too.
pub async fn the_platform_asked_for_is_what_counts(shells: &Shells) {
    for (held, wanted, brings, pulls, expected) in [
        (
            "linux/amd64",
            "linux/arm64",
            "linux/arm64/v8",
            1,
            Ok("pulled"),
        ),
        (
            "linux/amd64",
            "linux/arm64",
            "linux/amd64",
            1,
            Err(FailureKind::Platform),
        ),
        ("linux/arm64", "linux/arm64/v8", "", 0, Ok("present")),
        (
            "linux/arm/v6",
            "linux/arm/v7",
            "linux/arm/v7",
            1,
            Ok("pulled"),
        ),
        (
            "",
            "linux/arm64",
            "linux/s390x",
            1,
            Err(FailureKind::Platform),
        ),
    ] {
        let place = Place::new(shells);
        if !held.is_empty() {
            place.write("fake/held", &format!("sha256:0001 {held}"));
        }
        let brings = format!("echo 'sha256:0002 {brings}' >\"$FAKE/held\"; exit 0");
        place.write("fake/pull", &brings);
        let how = How {
            platform: Some(wanted),
            ..How::patient(None)
        };
        let runtime = FakeRuntime::new(RuntimeKind::Docker);
        let ended = pull_how(how, &place, &runtime, &|_| {}, pending()).await;
        let ended = match &ended {
            Ok(outcome) => Ok(outcome.status()),
            Err(Interrupted::Cancelled | Interrupted::HungUp(_)) => panic!("{shells:?}: no result"),
            Err(Interrupted::Failed(failure)) => Err(failure.kind),
        };
        assert_eq!(ended, expected, "{shells:?} {held} {wanted}");
        assert_eq!(self::pulls(&place), pulls, "{shells:?} {held} {wanted}");
        place.assert_clean().await;
    }
    let place = Place::new(shells);
    place.write("fake/held", "sha256:0001 linux/amd64");
    let (image, runtime) = (
        IMAGE.parse().unwrap(),
        FakeRuntime::new(RuntimeKind::Crictl),
    );
    for (wanted, is_there) in [("linux/x86_64", true), ("linux/arm64", false)] {
        let (mut session, node) = (place.session(), node(false));
        let asked = call::check(
            &mut session,
            &node,
            &runtime,
            &image,
            Some(wanted),
            pending(),
        );
        match asked.await {
            Ok(Some(_)) => assert!(is_there),
            Err(Interrupted::Failed(failure)) => {
                assert_eq!((failure.kind, is_there), (FailureKind::Platform, false))
            }
            other => panic!("{other:?}"),
        }
    }
}

pub(super) const HANGS: &str = "sleep 1000 & touch \"$FAKE/started\"; sleep 1000; wait";
const HANGS_WELL: &str =
    "trap '' TERM HUP INT; sleep 1000 & touch \"$FAKE/started\"; while :; do sleep 1; done";

pub async fn a_hanging_pull_is_ended_by_the_time_out(shells: &Shells) {
    // The limit, a second's grace, and what a busy machine needs.
    let most = Duration::from_secs(12);
    for script in [HANGS, HANGS_WELL] {
        let place = Place::new(shells);
        place.write("fake/pull", script);
        let limit = Some(Duration::from_millis(1500));
        let began = Instant::now();
        let failure = pull(&place, &docker_with("s3cret"), limit, pending())
            .await
            .unwrap_err()
            .failed()
            .unwrap();
        assert_eq!(
            (failure.kind, failure.stage),
            (FailureKind::TimedOut, Stage::Pull)
        );
        let took = began.elapsed();
        assert!(took < most, "{shells:?}: {took:?}");
        // The node said that it has cleaned up: now, not some time later.
        assert_eq!(place.folders().len(), 0);
        place.assert_clean().await;
    }
}

pub async fn a_cancelled_pull_leaves_nothing(shells: &Shells) {
    let place = Place::new(shells);
    place.write("fake/pull", HANGS);
    let ended = pull(&place, &docker_with("s3cret"), None, place.started()).await;
    assert_eq!(ended, Err(Interrupted::Cancelled));
    assert!(!place.exists("fake/held"));
    assert_eq!(place.folders().len(), 0);
    place.assert_clean().await;
}

pub async fn a_pull_cancelled_after(shells: &Shells, time: Duration, runtime: &FakeRuntime) {
    let place = Place::new(shells);
    for client in ["fake/pull", "fake/system"] {
        place.write(client, HANGS);
    }
    let cancel = tokio::time::sleep(time);
    let ended = pull(&place, runtime, None, cancel).await;
    assert_eq!(ended, Err(Interrupted::Cancelled), "after {time:?}");
    place.assert_clean().await;
}

/// Loses the connection once the pull has begun.
pub(super) async fn lose(place: &Place, lease: Duration) {
    let runtime = docker_with("s3cret");
    tokio::select! {
        ended = pull_of("test", lease, place, &runtime, None, pending()) => panic!("{ended:?}"),
        () = place.started() => {}
    }
}

pub(super) const WAITS: &str =
    "touch \"$FAKE/started\"; while ! [ -e \"$FAKE/go\" ]; do sleep 0.05; done";
pub(super) const MINUTE: Duration = Duration::from_secs(60);
/// Longer than a busy machine takes from a lost connection to the next; a fifth of it passes until a loss is noticed.
const LEASE: Duration = Duration::from_secs(30);

/// How often the clients were asked to pull.
pub(super) fn pulls(place: &Place) -> usize {
    place.text("fake/log").matches("docker pull").count()
}

pub(super) fn assert_pulled(ended: &Result<Outcome, Interrupted>, shells: &Shells) {
    assert!(
        matches!(ended, Ok(Outcome::Pulled(_))),
        "{shells:?}: {ended:?}"
    );
}

/// We vanish in the middle of a pull, and nobody comes back.
pub async fn a_pull_that_nobody_asks_after_ends_with_its_lease(shells: &Shells) {
    for script in [HANGS, HANGS_WELL] {
        let place = Place::new(shells);
        place.write("fake/pull", script);
        lose(&place, Duration::from_secs(2)).await;
        assert!(!place.folders().is_empty());
        place.assert_clean().await;
    }
}

/// We vanish and come back while it runs, or after it has ended: it is the same pull.
pub async fn a_lost_pull_is_found_again(shells: &Shells) {
    for ends_meanwhile in [false, true] {
        let place = Place::new(shells).noisy();
        place.write("fake/pull", WAITS);
        lose(&place, MINUTE).await;
        // The connection is gone on the node too, which a pipe of the test tells it a moment later.
        tokio::time::sleep(Duration::from_millis(200)).await;
        if ends_meanwhile {
            place.write("fake/go", "");
            place.appears("fake/held").await;
        }
        let letting_go = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            place.write("fake/go", "");
        };
        let runtime = docker_with("s3cret");
        let (ended, ()) = tokio::join!(pull(&place, &runtime, None, pending()), letting_go);
        assert_pulled(&ended, shells);
        assert_eq!(pulls(&place), 1, "{shells:?}");
        place.assert_clean().await;
    }
}

/// We come back while the pull is taken down as nobody asked after it: it is begun anew, in one attempt. Meanwhile beats
/// queue up, and the first of them is heard when the new supervisor may not have had its turn on the processor yet.
pub async fn a_pull_that_is_taken_down_is_begun_anew(shells: &Shells) {
    let place = Place::new(shells);
    place.write("fake/pull", HANGS_WELL);
    let lease = Duration::from_secs(2);
    lose(&place, lease).await;
    place.write("fake/pull", ":");
    let is_taken_down = |folder: &PathBuf| folder.join("stop").exists();
    let taking_down = async {
        loop {
            let folders = place.folders();
            // A busy machine may not let us look before all of it is gone.
            if folders.is_empty() || folders.iter().any(is_taken_down) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(MINUTE, taking_down).await.unwrap();
    let runtime = docker_with("s3cret");
    let again = pull_of("test", LEASE, &place, &runtime, None, pending()).await;
    assert_pulled(&again, shells);
    assert_eq!(pulls(&place), 2, "{shells:?}");
    place.assert_clean().await;
}

/// A connection that does not know yet that it is lost is ended by the one that follows it.
pub async fn a_new_connection_takes_over(shells: &Shells) {
    let place = Place::new(shells);
    place.write("fake/pull", WAITS);
    let runtime = docker_with("s3cret");
    let first = pull(&place, &runtime, None, pending());
    let second = async {
        place.shown().await;
        let viewer = place.viewer();
        let letting_go = async {
            let began = Instant::now();
            while place.viewer() == viewer && began.elapsed() < MINUTE {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            place.write("fake/go", "");
        };
        tokio::join!(pull(&place, &runtime, None, pending()), letting_go).0
    };
    let (first, second) = tokio::join!(first, second);
    assert_pulled(&second, shells);
    let failure = first.unwrap_err().failed().unwrap();
    assert_eq!(failure.kind, FailureKind::TakenOver, "{failure}");
    assert_eq!(pulls(&place), 1, "{shells:?}");
    place.assert_clean().await;
}

/// Another run wants the same image: it waits, and finds it.
pub async fn a_second_run_waits_for_the_first_ones_pull(shells: &Shells) {
    let place = Place::new(shells);
    place.write("fake/pull", WAITS);
    let runtime = docker_with("s3cret");
    let first = pull_of("one", MINUTE, &place, &runtime, None, pending());
    let second = async {
        place.started().await;
        let letting_go = async {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            place.write("fake/go", "");
        };
        let second = pull_of("two", MINUTE, &place, &runtime, None, pending());
        tokio::join!(second, letting_go).0
    };
    let (first, second) = tokio::join!(first, second);
    assert_pulled(&first, shells);
    assert!(
        matches!(second, Ok(Outcome::Present(_))),
        "{shells:?}: {second:?}"
    );
    assert_eq!(pulls(&place), 1, "{shells:?}");
    place.assert_clean().await;
}

/// Somebody ends what shows us the pull, politely or not: the pull does not mind.
pub async fn a_killed_viewer_loses_nothing(shells: &Shells) {
    for name in ["KILL", "TERM", "HUP"] {
        let place = Place::new(shells);
        place.write("fake/pull", WAITS);
        let runtime = docker_with("s3cret");
        let killing = async {
            place.shown().await;
            signal(place.main_shell(), name);
        };
        let first = pull_of("test", LEASE, &place, &runtime, None, pending());
        let (ended, ()) = tokio::join!(first, killing);
        // What shows the frames may outlive the shell that is killed; then its silence tells.
        let failure = ended.unwrap_err().failed().unwrap();
        let kinds = [FailureKind::Unknown, FailureKind::ConnectionLost];
        assert!(kinds.contains(&failure.kind), "{shells:?}: {failure}");
        place.write("fake/go", "");
        let again = pull_of("test", LEASE, &place, &runtime, None, pending()).await;
        assert_pulled(&again, shells);
        assert_eq!(pulls(&place), 1, "{shells:?}");
        place.assert_clean().await;
    }
}

/// Somebody kills the supervisor: that is noticed, and the next call starts anew.
pub async fn a_killed_supervisor_is_noticed(shells: &Shells) {
    let place = Place::new(shells);
    place.write("fake/pull", WAITS);
    let runtime = docker_with("s3cret");
    let killing = async {
        place.shown().await;
        signal(place.supervisor(), "KILL");
    };
    let first = pull_of("test", LEASE, &place, &runtime, None, pending());
    let (ended, ()) = tokio::join!(first, killing);
    let failure = ended.unwrap_err().failed().unwrap();
    assert!(failure.detail.contains("from outside"), "{failure}");
    // The client of the killed one still waits; it must not bring the image.
    let letting_go = async {
        for _ in 0..600 {
            if pulls(&place) == 2 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        place.write("fake/go", "");
    };
    let again = pull_of("test", LEASE, &place, &runtime, None, pending());
    let (again, ()) = tokio::join!(again, letting_go);
    assert_pulled(&again, shells);
    assert_eq!(pulls(&place), 2, "{shells:?}");
    place.assert_clean().await;
}

/// A layer on its way as containerd keeps it, beside one of the image's that is there already.
/// Of its two layers one was there before; half of the other is there.
pub(super) const ARRIVES: &str = r#"store=$FAKE/store/io.containerd.content.v1.content
first=$(printf %064d 1) second=$(printf %064d 2) manifest=$(printf %064d 3)
whole() {
    rm -rf "$store/ingest/a"
    head -c 1000 /dev/zero >"$store/blobs/sha256/$first"
    # Other things come with an image.
    echo '{"rootfs":{"type":"layers"}}' >"$store/blobs/sha256/$(printf %064d 5)"
    printf '{"manifests": [{"digest":"sha256:%s"},{"digest":"sha256:%064d"}]}' $manifest 6 >"$store/blobs/sha256/$(printf %064d 4)"
    echo "sha256:$(printf %064d 4)" >"$FAKE/held"
    exit
}
printf '{"layers":[{"digest":"sha256:%s","size":1000},{"digest":"sha256:%s","size":500}]}' $first $second >"$store/blobs/sha256/$manifest"
mkdir -p "$store/ingest/a"
printf 'k8s.io/7/layer-sha256:%s' $first >"$store/ingest/a/ref"
printf 1000 >"$store/ingest/a/total"
head -c 400 /dev/zero >"$store/ingest/a/data"
touch "$FAKE/started"
"#;

pub(super) fn with_a_store(shells: &Shells) -> Place {
    let place = Place::new(shells);
    let store = place.path("fake/store/io.containerd.content.v1.content");
    for folder in ["ingest", "blobs/sha256"] {
        fs::create_dir_all(store.join(folder)).unwrap();
    }
    fs::write(
        store.join(format!("blobs/sha256/{:064}", 2)),
        "x".repeat(500),
    )
    .unwrap();
    place
}

pub async fn what_arrives_is_told_in_bytes(shells: &Shells) {
    let place = with_a_store(shells);
    place.write("fake/pull", &format!("{ARRIVES}sleep 3; whole"));
    let (ended, told, arrived) = told_of(&place, RuntimeKind::Crictl, MINUTE).await;
    assert_pulled(&ended, shells);
    assert!(told.contains(&(400, Some(1000))), "{told:?}");
    assert_eq!(arrived, Some(1000), "{shells:?}");
    place.assert_clean().await;
}

/// A pull that is over before anybody looks brought as much; one that finds all of it there brought nothing.
pub async fn what_arrived_is_counted_at_the_end(shells: &Shells) {
    let place = with_a_store(shells);
    place.write("fake/pull", &format!("{ARRIVES}whole"));
    for expected in [1000, 0] {
        let (ended, _, arrived) = told_of(&place, RuntimeKind::Crictl, MINUTE).await;
        assert_pulled(&ended, shells);
        assert_eq!(arrived, Some(expected), "{shells:?}");
        fs::remove_file(place.path("fake/held")).unwrap();
    }
    place.assert_clean().await;
}

pub async fn a_pull_without_progress_is_ended(shells: &Shells) {
    let place = with_a_store(shells);
    place.write("fake/pull", &format!("{ARRIVES}sleep 1000"));
    let how = How::patient(Some(Duration::from_secs(4)));
    let runtime = FakeRuntime::new(RuntimeKind::Crictl);
    let ended = pull_how(how, &place, &runtime, &|_| {}, pending()).await;
    let failure = ended.unwrap_err().failed().unwrap();
    assert_eq!(failure.kind, FailureKind::Stalled);
    assert!(failure.detail.contains("400 B of 1.0 kB"), "{failure}");
    place.assert_clean().await;
}

/// What CRI-O says of itself.
const CRIO: &str = "{\n  \"config\": {\n    \"crio\": {\n";

/// A folder where bytes could appear shows nothing of a pull that writes elsewhere: none of these is a stall.
pub async fn a_folder_that_merely_exists_is_no_sign_of_a_stall(shells: &Shells) {
    for (kind, info) in [
        (RuntimeKind::Docker, "docker STORE\n"),
        (RuntimeKind::Docker, ""),
        (RuntimeKind::Crictl, CRIO),
    ] {
        let place = with_a_store(shells);
        let store = place.path("fake/store").display().to_string();
        for folder in [
            "tmp",
            "containerd/daemon/io.containerd.content.v1.content/ingest",
        ] {
            fs::create_dir_all(place.path("fake/store").join(folder)).unwrap();
        }
        // What another pull left there is older than this one.
        let old = place.path("fake/store/tmp/GetImageBlob1");
        fs::write(&old, "x").unwrap();
        let hour_ago = std::time::SystemTime::now() - 60 * MINUTE;
        fs::File::options()
            .write(true)
            .open(old)
            .unwrap()
            .set_modified(hour_ago)
            .unwrap();
        place.write("fake/info", &info.replace("STORE", &store));
        place.write("fake/pull", "sleep 4");
        let (ended, told, arrived) = told_of(&place, kind, Duration::from_secs(1)).await;
        assert_pulled(&ended, shells);
        assert_eq!((told, arrived), (vec![], None), "{shells:?} {info}");
        place.assert_clean().await;
    }
}

/// CRI-O and podman keep what is on its way in a folder of their own. From its first byte on a stall is noticed.
pub async fn what_cri_o_stages_is_seen(shells: &Shells) {
    let place = Place::new(shells);
    place.write("fake/info", CRIO);
    let mut staging = tempfile::Builder::new();
    let staging = staging
        .prefix("container_images_storage")
        .tempdir_in("/var/tmp")
        .unwrap();
    let file = staging.path().join("1").display().to_string();
    let pull = format!("sleep 3; head -c 700 /dev/zero >'{file}'; sleep 1000");
    place.write("fake/pull", &pull);
    let (ended, told, arrived) = told_of(&place, RuntimeKind::Crictl, Duration::from_secs(2)).await;
    let failure = ended.unwrap_err().failed().unwrap();
    assert_eq!(failure.kind, FailureKind::Stalled, "{shells:?}: {failure}");
    assert_eq!(
        (told.as_slice(), arrived),
        (&[(700, None)][..], None),
        "{shells:?}"
    );
    place.assert_clean().await;
}

/// Where nothing shows whether a pull gets on, it has a limit of its own; where something does, it has none.
pub async fn a_pull_that_cannot_be_seen_has_a_limit(shells: &Shells) {
    let runtime = FakeRuntime::new(RuntimeKind::Crictl);
    let (unseen, arrived) = (Some(Duration::from_secs(2)), Layers::default());
    let place = with_a_store(shells);
    place.write("fake/pull", "sleep 4");
    let pulling = pull_counted(
        How::patient(None),
        unseen,
        &arrived,
        &place,
        &runtime,
        &|_| {},
        pending(),
    );
    assert_pulled(&pulling.await, shells);
    place.assert_clean().await;

    let place = Place::new(shells);
    place.write("fake/info", CRIO);
    place.write("fake/pull", "sleep 1000");
    let pulling = pull_counted(
        How::patient(None),
        unseen,
        &arrived,
        &place,
        &runtime,
        &|_| {},
        pending(),
    );
    let failure = pulling.await.unwrap_err().failed().unwrap();
    assert_eq!(failure.kind, FailureKind::TimedOut, "{shells:?}: {failure}");
    assert!(failure.detail.contains("--pull-timeout"), "{failure}");
    place.assert_clean().await;
}

/// Somebody who may use docker but not look at its files hears of whole layers, and of all there will be.
pub async fn layers_that_docker_calls_done_are_told(shells: &Shells) {
    let place = Place::new(shells);
    let says = "printf '%s\\n' 'v1: Pulling from team/app' 'aaaaaaaaaaaa: Already exists' 'bbbbbbbbbbbb: Pulling fs layer'
        sleep 3; echo 'bbbbbbbbbbbb: Pull complete'; sleep 3";
    place.write("fake/pull", says);
    let layer = |digit: &str, bytes| Layer {
        digest: format!("sha256:{}", digit.repeat(64)),
        bytes,
    };
    let layers = [layer("a", 1000), layer("b", 300), layer("c", 7)];
    let how = How {
        layers: Some(&layers),
        // Far shorter than the pull: whole layers must not count as a stall.
        ..How::patient(Some(Duration::from_secs(1)))
    };
    let runtime = FakeRuntime::new(RuntimeKind::Docker);
    let (ended, told, arrived) = told_by(&place, how, &runtime).await;
    assert_pulled(&ended, shells);
    assert_eq!(told, [(0, Some(307)), (300, Some(307))]);
    assert_eq!(arrived, None, "nothing was said of the third");
    place.assert_clean().await;
}

/// What a pull comes to, what it tells of its bytes meanwhile, each once, and what arrived in the end.
async fn told_of(
    place: &Place,
    kind: RuntimeKind,
    stall: Duration,
) -> (
    Result<Outcome, Interrupted>,
    Vec<(u64, Option<u64>)>,
    Option<u64>,
) {
    let (how, runtime) = (How::patient(Some(stall)), FakeRuntime::new(kind));
    told_by(place, how, &runtime).await
}

pub(super) async fn told_by(
    place: &Place,
    how: How<'_>,
    runtime: &FakeRuntime,
) -> (
    Result<Outcome, Interrupted>,
    Vec<(u64, Option<u64>)>,
    Option<u64>,
) {
    let told = std::sync::Mutex::new(vec![]);
    let progress = |progress| {
        if let Progress::BytesTransferred(BytesTransferred { bytes, total }) = progress {
            told.lock().unwrap().push((bytes, total));
        }
    };
    let arrived = Layers::default();
    let ended = pull_counted(how, None, &arrived, place, runtime, &progress, pending()).await;
    let mut told = told.into_inner().unwrap();
    told.dedup();
    (ended, told, arrived.arrived())
}

/// A login manager that ends what sessions leave: the pull asks systemd for a scope of its own, root the system's, others
/// their own manager where it lingers. Elsewhere it is said that the pull is tied to the connection.
pub async fn a_pull_leaves_a_session_that_is_ended_at_logout(shells: &Shells) {
    for (kills, root, lingers, expected) in [
        (false, false, false, "leaves nothing"),
        (true, true, false, "--system"),
        (true, false, true, "--user"),
        (true, false, false, "tied"),
    ] {
        let place = Place::new(shells);
        let bus = format!(
            r#"#!/bin/sh
echo "$*" >>"$FAKE/bus"
case "$*" in
    *KillUserProcesses) echo 'b {kills}' ;;
    *Linger) echo 'b {lingers}' ;;
    *ActiveState) echo 's "active"' ;;
    *StartTransientUnit*) ;;
    *) exit 1 ;;
esac
"#
        );
        place.program("busctl", &bus);
        place.program(
            "id",
            &format!("#!/bin/sh\necho {}\n", if root { 0 } else { 1000 }),
        );
        place.write("fake/pull", WAITS);
        let runtime = docker_with("s3cret");
        let looking = async {
            place.shown().await;
            let frames = place
                .folders()
                .into_iter()
                .map(|folder| folder.join("frames"));
            let frames: String = frames
                .filter_map(|path| fs::read_to_string(path).ok())
                .collect();
            place.write("fake/go", "");
            frames
        };
        let (ended, frames) = tokio::join!(pull(&place, &runtime, None, pending()), looking);
        assert_pulled(&ended, shells);
        assert_eq!(frames.contains(" tied\n"), expected == "tied", "{frames}");
        let asked = place.text("fake/bus");
        let scope: Vec<&str> = asked
            .lines()
            .filter(|line| line.contains("StartTransientUnit"))
            .collect();
        match expected {
            "--system" | "--user" => {
                let [call] = scope[..] else {
                    panic!("{shells:?}: {asked}");
                };
                assert!(call.starts_with(&format!("{expected} call org.freedesktop.systemd1 ")));
                let pid = call.split(' ').rev().nth(1).unwrap();
                assert!(
                    call.contains(".scope fail 1 PIDs au 1 ") && pid.parse::<u32>().is_ok(),
                    "{call}"
                );
            }
            _ => assert!(scope.is_empty(), "{asked}"),
        }
        place.assert_clean().await;
    }
}

pub async fn output_without_end_is_bounded(shells: &Shells) {
    let place = Place::new(shells);
    let output = run(&place, &["head", "-c", "1000000000", "/dev/zero"]).await;
    assert_eq!(output.exit, ExitStatus::Code(0));
    assert_eq!((output.stdout.len(), output.truncated), (1 << 20, true));

    place.write("fake/pull", "touch \"$FAKE/started\"; exec yes");
    let limit = Some(Duration::from_secs(1));
    let failure = pull(&place, &docker_with("s3cret"), limit, pending())
        .await
        .unwrap_err()
        .failed()
        .unwrap();
    assert_eq!(failure.kind, FailureKind::TimedOut);
    place.assert_clean().await;
}

pub async fn commands_run_as_they_stand(shells: &Shells) {
    let place = Place::new(shells).noisy();
    let hostile = hostile();
    let given = [hostile.as_str(), "", "-c", "--", "a b", "\n", "*", "日本"];
    let mut argv = vec!["printf", "%s\\0"];
    argv.extend(given);
    let output = run(&place, &argv).await;
    let expected: Vec<u8> = given
        .iter()
        .flat_map(|value| [value.as_bytes(), b"\0"].concat())
        .collect();
    assert_eq!(output.stdout, expected, "{shells:?}");

    let every_byte =
        "i=0; while [ $i -lt 256 ]; do printf \"\\\\$(printf %o $i)\"; i=$((i+1)); done";
    let output = run(&place, &["sh", "-c", every_byte]).await;
    assert_eq!(output.stdout, (0..=255).collect::<Vec<u8>>(), "{shells:?}");

    let umask = std::process::Command::new("sh")
        .args(["-c", "umask"])
        .output()
        .unwrap();
    let output = run(
        &place,
        &[
            "sh",
            "-c",
            "cat; echo $LC_ALL $(umask) $value; echo no >&2; exit 7",
        ],
    )
    .await;
    assert_eq!(
        output,
        CommandOutput {
            exit: ExitStatus::Code(7),
            stdout: [b"C.UTF-8 ", umask.stdout.as_slice()].concat(),
            stderr: b"no\n".to_vec(),
            truncated: false
        }
    );
    let output = run(&place, &["sh", "-c", "kill -s KILL $$"]).await;
    assert_eq!(output.exit, ExitStatus::Signal("KILL".into()));
    let output = run(&place, &["prepull-no-such-command"]).await;
    assert_eq!(output.exit, ExitStatus::Code(127));
    assert!(contains(&output.stderr, b"not found"), "{output:?}");
    place.assert_clean().await;
}

pub async fn a_command_may_leave_something_running(shells: &Shells) {
    let place = Place::new(shells);
    let began = Instant::now();
    let output = run(&place, &["sh", "-c", "sleep 1000 & echo hi"]).await;
    assert_eq!(output.stdout, b"hi\n");
    assert!(began.elapsed() < Duration::from_secs(8));
    let mut left = place.processes();
    left.retain(|(_, line)| line.contains("sleep 1000"));
    assert_eq!(left.len(), 1);
    signal(left[0].0, "KILL");
    place.assert_clean().await;
}

pub async fn a_cancelled_command_is_ended(shells: &Shells) {
    let place = Place::new(shells);
    let argv = ["sh", "-c", "touch $FAKE/started; sleep 1000 | sleep 1000"];
    let argv: Vec<String> = argv.iter().map(ToString::to_string).collect();
    let mut session = place.session();
    let ended = call::run(
        &mut session,
        &node(false),
        &argv,
        &Arc::default(),
        place.started(),
    )
    .await;
    assert_eq!(ended, Err(Interrupted::Cancelled));
    place.assert_clean().await;
}

pub async fn a_probe_finds_what_is_there(shells: &Shells) {
    let place = Place::new(shells).noisy();
    let docker = FakeRuntime::new(RuntimeKind::Docker);
    let crictl = FakeRuntime::new(RuntimeKind::Crictl);
    let no_crictl = FakeRuntime {
        client: "prepull-no-crictl",
        ..FakeRuntime::new(RuntimeKind::Crictl)
    };
    let no_docker = FakeRuntime {
        client: "prepull-no-docker",
        ..FakeRuntime::new(RuntimeKind::Docker)
    };
    let ask = async |a: &FakeRuntime, b: &FakeRuntime| {
        call::probe(&mut place.session(), &node(false), &[a, b], pending()).await
    };
    assert_eq!(ask(&docker, &crictl).await, Ok(RuntimeKind::Crictl));
    assert_eq!(ask(&docker, &no_crictl).await, Ok(RuntimeKind::Docker));
    let failure = ask(&no_docker, &no_crictl)
        .await
        .unwrap_err()
        .failed()
        .unwrap();
    assert_eq!(failure.kind, FailureKind::RuntimeMissing);
    place.write("fake/version-exit", "1");
    let failure = ask(&docker, &no_crictl)
        .await
        .unwrap_err()
        .failed()
        .unwrap();
    assert_eq!(failure.kind, FailureKind::RuntimeDown);
    place.assert_clean().await;
}

pub async fn a_node_tells_what_it_is_and_has(shells: &Shells) {
    let place = Place::new(shells).noisy();
    fs::create_dir_all(place.path("fake/store")).unwrap();
    place.write("fake/held", "sha256:0123");
    let runtime = FakeRuntime::new(RuntimeKind::Docker);
    let images = [IMAGE.parse().unwrap(), "other:v2".parse().unwrap()];
    let ask = async |images: &[prepull::model::Image]| {
        let mut session = place.session();
        call::facts(&mut session, &node(false), &runtime, images, pending()).await
    };
    let Ok(facts) = ask(&images).await else {
        panic!("{shells:?}: {:?}", ask(&images).await);
    };
    assert_eq!((facts.os.as_str(), facts.present()), ("linux", 2));
    let is_like_a_word = |text: &str| !text.is_empty() && !text.contains(char::is_whitespace);
    assert!(is_like_a_word(&facts.architecture), "{facts:?}");
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    assert!(release.contains(&facts.system), "{facts:?}");
    assert_eq!(facts.runtime, "docker 1.0");
    assert_eq!(facts.root, place.path("fake/store").display().to_string());
    assert!(facts.free.is_some_and(|free| free > 0), "{facts:?}");
    // Both clocks are this machine's.
    let off = facts.clock.milliseconds.unsigned_abs();
    assert!(off <= facts.clock.uncertainty + 2, "{facts:?}");
    place.write("fake/version-exit", "1");
    let failure = ask(&[]).await.unwrap_err().failed().unwrap();
    assert_eq!(failure.kind, FailureKind::RuntimeDown);
    place.assert_clean().await;
}

/// A client's child that left its process group holds the output open.
pub async fn a_clients_daemon_does_not_hold_the_call(shells: &Shells) {
    let place = Place::new(shells);
    place.write("fake/pull", "setsid sleep 1000 &\necho no >&2; exit 1");
    let began = Instant::now();
    let failure = pull(&place, &docker_with("s3cret"), None, pending())
        .await
        .unwrap_err()
        .failed()
        .unwrap();
    assert_eq!(failure.detail, "no\n");
    assert!(began.elapsed() < Duration::from_secs(20));
    for (pid, line) in place.processes() {
        if line.contains("sleep 1000") {
            signal(pid, "KILL");
        }
    }
    place.assert_clean().await;
}

/// Those in which a login shell could be in the way: it starts our program, and has to hand on input, output, environment
/// and signals. What the program does after that is the `sh`'s.
pub async fn as_login_shell(shells: &Shells) {
    together(of_login_shells(shells)).await;
}

/// All of them.
pub async fn all(shells: &Shells) {
    let mut scenarios = of_login_shells(shells);
    scenarios.extend(of_sh(shells));
    together(scenarios).await;
}

type Scenarios<'a> = Vec<LocalBoxFuture<'a, ()>>;

/// A few at a time: they wait more than they work.
async fn together(scenarios: Scenarios<'_>) {
    futures::stream::iter(scenarios)
        .buffer_unordered(4)
        .collect::<()>()
        .await;
}

fn of_login_shells(shells: &Shells) -> Scenarios<'_> {
    vec![
        Box::pin(present_image_is_left_alone(shells)),
        Box::pin(docker_gets_its_credentials_in_memory_and_they_go(shells)),
        Box::pin(crictl_gets_its_credentials_in_its_environment(shells)),
        Box::pin(a_failing_pull_keeps_the_clients_words(shells)),
        Box::pin(a_hanging_pull_is_ended_by_the_time_out(shells)),
        Box::pin(a_cancelled_pull_leaves_nothing(shells)),
        Box::pin(a_lost_pull_is_found_again(shells)),
        Box::pin(a_new_connection_takes_over(shells)),
        Box::pin(a_killed_viewer_loses_nothing(shells)),
        Box::pin(output_without_end_is_bounded(shells)),
        Box::pin(commands_run_as_they_stand(shells)),
        Box::pin(a_command_may_leave_something_running(shells)),
        Box::pin(a_cancelled_command_is_ended(shells)),
        Box::pin(a_probe_finds_what_is_there(shells)),
        Box::pin(a_node_tells_what_it_is_and_has(shells)),
    ]
}

fn of_sh(shells: &Shells) -> Scenarios<'_> {
    vec![
        Box::pin(a_pull_that_nobody_asks_after_ends_with_its_lease(shells)),
        Box::pin(a_pull_that_is_taken_down_is_begun_anew(shells)),
        Box::pin(a_second_run_waits_for_the_first_ones_pull(shells)),
        Box::pin(the_platform_asked_for_is_what_counts(shells)),
        Box::pin(what_arrives_is_told_in_bytes(shells)),
        Box::pin(a_pull_without_progress_is_ended(shells)),
        Box::pin(layers_that_docker_calls_done_are_told(shells)),
        Box::pin(what_arrived_is_counted_at_the_end(shells)),
        Box::pin(a_folder_that_merely_exists_is_no_sign_of_a_stall(shells)),
        Box::pin(a_pull_that_cannot_be_seen_has_a_limit(shells)),
        Box::pin(a_pull_leaves_a_session_that_is_ended_at_logout(shells)),
        Box::pin(a_killed_supervisor_is_noticed(shells)),
        Box::pin(a_clients_daemon_does_not_hold_the_call(shells)),
        Box::pin(daemon::dockers_daemon_is_asked_and_no_file_holds_the_login(
            shells,
        )),
        Box::pin(daemon::what_the_daemon_tells_of_layers_is_told_in_bytes(
            shells,
        )),
        Box::pin(daemon::what_the_daemon_brought_is_counted_at_the_end(
            shells,
        )),
        Box::pin(daemon::what_only_the_client_can_do_is_left_to_it(shells)),
        Box::pin(daemon::a_client_that_ignores_signals_is_ended_at_once(
            shells,
        )),
        Box::pin(daemon::a_hostile_daemon_costs_little(shells)),
        Box::pin(hostile::all_names_are_below_a_private_directory(shells)),
        Box::pin(hostile::a_taken_name_is_left_alone(shells)),
        Box::pin(hostile::a_pull_is_found_wherever_it_lies(shells)),
        Box::pin(hostile::a_fifo_in_place_of_a_file_holds_nothing(shells)),
        Box::pin(hostile::a_process_with_a_reused_number_is_not_ended(shells)),
        Box::pin(hostile::a_wait_for_another_pull_has_a_limit(shells)),
        Box::pin(hostile::a_cancelled_question_ends_at_once(shells)),
        Box::pin(hostile::a_command_that_cannot_run_is_told_in_plain_words(
            shells,
        )),
        Box::pin(hostile::a_supervisor_that_cannot_end_is_ended(shells)),
        Box::pin(unwatched::a_pull_goes_on_without_its_connection(shells)),
        Box::pin(unwatched::an_unwatched_pull_keeps_its_limits(shells)),
        Box::pin(unwatched::an_unwatched_pull_can_be_cancelled(shells)),
        Box::pin(unwatched::an_unwatched_pull_that_is_gone_begins_again(
            shells,
        )),
    ]
}
