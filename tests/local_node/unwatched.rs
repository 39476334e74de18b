//! Pulls whose connection is given away: they go on, keep their own limits, and are found by the next visit.

use std::path::PathBuf;
use std::time::Duration;

use prepull::model::{Failure, FailureKind, Outcome, PullWhen, RuntimeKind};
use prepull::node::{self as call, HangUp, Interrupted, Layers, PullJob, PullState, StallPolicy};
use prepull::ports::PullRequest;

use super::hostile::until;
use super::runtime::FakeRuntime;
use super::scenarios::{ARRIVES, IMAGE, WAITS, assert_pulled, with_a_store};
use super::{Place, Shells, node};

/// The limits of a pull.
#[derive(Clone, Copy, Default)]
struct Limits {
    stall: Option<Duration>,
    timeout: Option<Duration>,
}

/// Does something with the job of a pull that gives its connection away as soon as it may.
macro_rules! with_job {
    ($place:expr, $runtime:expr, $limits:expr, $before:expr, |$job:ident| $does:expr) => {{
        let own = $place.folder.path().display().to_string();
        let mark = format!("unwatched {own}");
        let image = IMAGE.parse().unwrap();
        let arrived = Layers::default();
        let $job = PullJob {
            runtime: $runtime,
            layers: None,
            request: PullRequest {
                image: &image,
                endpoint: Some(&own),
                platform: None,
                login: None,
            },
            when: PullWhen::Missing,
            timeout: $limits.timeout,
            patience: StallPolicy {
                stall: $limits.stall,
                ..StallPolicy::default()
            },
            arrived: &arrived,
            pull_token: &mark,
            lease: Duration::from_secs(120),
            disk_credentials: false,
            hang_up: Some(HangUp {
                before: $before,
                is_wanted: &|| true,
            }),
        };
        $does
    }};
}

async fn visit(
    place: &Place,
    runtime: &FakeRuntime,
    limits: Limits,
    before: Option<PullState>,
) -> Result<Outcome, Interrupted> {
    with_job!(place, runtime, limits, before, |job| {
        let never = std::future::pending();
        call::pull(&mut place.session(), &node(false), &job, &|_| {}, never).await
    })
}

async fn cancel(place: &Place, runtime: &FakeRuntime) -> Result<(), Failure> {
    with_job!(place, runtime, Limits::default(), None, |job| {
        call::cancel(&mut place.session(), &node(false), &job).await
    })
}

/// Visits a pull that is left at the end of the visit.
async fn leaves(
    place: &Place,
    runtime: &FakeRuntime,
    limits: Limits,
    before: Option<PullState>,
) -> PullState {
    match visit(place, runtime, limits, before).await {
        Err(Interrupted::HungUp(state)) => *state,
        other => panic!("{:?}: {other:?}", place.shells),
    }
}

fn is_ended(place: &Place) -> bool {
    let ended = |folder: PathBuf| folder.join("ended").exists();
    place.folders().into_iter().any(ended)
}

pub async fn a_pull_goes_on_without_its_connection(shells: &Shells) {
    let place = with_a_store(shells);
    let script = format!("{ARRIVES}while ! [ -e \"$FAKE/go\" ]; do sleep 0.05; done\nwhole");
    place.write("fake/pull", &script);
    let runtime = FakeRuntime::new(RuntimeKind::Crictl);
    let first = leaves(&place, &runtime, Limits::default(), None).await;
    assert_eq!((first.bytes, first.total), (400, Some(1000)), "{shells:?}");
    assert!(first.has_moved);
    let second = leaves(&place, &runtime, Limits::default(), Some(first)).await;
    assert_eq!(second.bytes, 400);
    assert!(!second.has_moved, "nothing arrived between the visits");
    assert_eq!(second.since, first.since);
    place.write("fake/go", "");
    until("the pull has ended", || is_ended(&place)).await;
    let ended = visit(&place, &runtime, Limits::default(), Some(second)).await;
    assert_pulled(&ended, shells);
    assert_eq!(place.text("fake/log").matches("crictl pull").count(), 1);
    place.assert_clean().await;
}

/// The node ends it by itself, and its next visit says why.
pub async fn an_unwatched_pull_keeps_its_limits(shells: &Shells) {
    let seconds = |number| Some(Duration::from_secs(number));
    let (stall, timeout) = (seconds(3), seconds(4));
    let stalls = Limits {
        stall,
        timeout: None,
    };
    let takes_long = Limits {
        stall: None,
        timeout,
    };
    let ends = |limits| async move {
        let place = with_a_store(shells);
        // It ignores what asks it to end.
        let script = format!("trap '' TERM HUP INT\n{ARRIVES}while :; do sleep 1; done");
        place.write("fake/pull", &script);
        let runtime = FakeRuntime::new(RuntimeKind::Crictl);
        let state = leaves(&place, &runtime, limits, None).await;
        until("the node ended it", || is_ended(&place)).await;
        let ended = visit(&place, &runtime, limits, Some(state)).await;
        place.assert_clean().await;
        ended.unwrap_err().failed().unwrap()
    };
    let (stalled, late) = tokio::join!(ends(stalls), ends(takes_long));
    assert_eq!(stalled.kind, FailureKind::Stalled, "{shells:?}: {stalled}");
    assert!(stalled.detail.contains("400 B of 1.0 kB"), "{stalled}");
    assert_eq!(late.kind, FailureKind::TimedOut, "{shells:?}: {late}");
    assert!(late.detail.contains("4s"), "{late}");
}

pub async fn an_unwatched_pull_can_be_cancelled(shells: &Shells) {
    let place = with_a_store(shells);
    place.write("fake/pull", &format!("{ARRIVES}{WAITS}"));
    let runtime = FakeRuntime::new(RuntimeKind::Crictl);
    leaves(&place, &runtime, Limits::default(), None).await;
    assert_eq!(cancel(&place, &runtime).await, Ok(()), "{shells:?}");
    place.assert_clean().await;
    assert!(!place.exists("fake/held"));
    // Where there is none, nothing is begun.
    assert_eq!(cancel(&place, &runtime).await, Ok(()), "{shells:?}");
    place.assert_clean().await;
    assert_eq!(place.text("fake/log").matches("crictl pull").count(), 1);
}

/// What a restart of the node leaves of it: nothing.
pub async fn an_unwatched_pull_that_is_gone_begins_again(shells: &Shells) {
    let place = with_a_store(shells);
    place.write("fake/pull", &format!("{ARRIVES}{WAITS}\nwhole"));
    let runtime = FakeRuntime::new(RuntimeKind::Crictl);
    let state = leaves(&place, &runtime, Limits::default(), None).await;
    for (pid, _) in place.processes() {
        super::signal(pid, "KILL");
    }
    for folder in place.folders() {
        std::fs::remove_dir_all(folder).unwrap();
    }
    let failure = visit(&place, &runtime, Limits::default(), Some(state)).await;
    let failure = failure.unwrap_err().failed().unwrap();
    assert_eq!(failure.kind, FailureKind::ConnectionLost, "{shells:?}");
    assert!(failure.detail.contains("begins again"), "{failure}");
    place.write("fake/go", "");
    let ended = visit(&place, &runtime, Limits::default(), Some(state)).await;
    assert_pulled(&ended, shells);
    assert_eq!(place.text("fake/log").matches("crictl pull").count(), 2);
    place.assert_clean().await;
}
