//! Pulls under a name that leads to prepull: the image gets its own name, and at no end is the other one left.

use std::future::{Future, pending};
use std::time::{Duration, Instant};

use prepull::model::{
    FailureKind, Image, Outcome, PullWhen, RegistryLogin, RuntimeKind, Secret, Stage,
};
use prepull::node::{Interrupted, Layers, LocalPull, PullJob, StallPolicy, pull_locally};
use prepull::ports::PullRequest;

use super::runtime::FakeRuntime;
use super::scenarios::{HANGS, IMAGE, MINUTE, WAITS, assert_pulled, pulls};
use super::{Place, Shells, node};

/// A local name that another port left behind, as `forget` would find it, is the same to the fake client.
const LOCAL: &str = "127.0.0.1:4001/prepull/team/app@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

async fn pull(
    place: &Place,
    cancel: impl Future<Output = ()> + Send,
) -> Result<Outcome, Interrupted> {
    let own = place.folder.path().display().to_string();
    let (image, local): (Image, Image) = (IMAGE.parse().unwrap(), LOCAL.parse().unwrap());
    let arrived = Layers::default();
    let runtime = FakeRuntime::new(RuntimeKind::Docker);
    let job = PullJob {
        runtime: &runtime,
        layers: None,
        request: PullRequest {
            image: &image,
            endpoint: Some(&own),
            platform: None,
            login: None,
        },
        when: PullWhen::Missing,
        timeout: None,
        patience: StallPolicy::default(),
        arrived: &arrived,
        pull_token: &format!("local {own}"),
        lease: MINUTE,
        disk_credentials: false,
        hang_up: None,
    };
    let login = RegistryLogin::Password {
        username: "prepull".into(),
        password: Secret::new("s3cret"),
    };
    let local = LocalPull {
        name: &local,
        login: &login,
        may_ask_registry: true,
    };
    let mut session = place.session();
    pull_locally(&mut session, &node(false), &job, &local, &|_| {}, cancel).await
}

/// The local name is gone, and with it all that belongs to the pull.
async fn assert_left_nothing(place: &Place, shells: &Shells) {
    place.assert_clean().await;
    assert!(
        !place.exists("fake/local"),
        "{shells:?}: the local name was left; log:\n{}",
        place.text("fake/log")
    );
}

fn failed(ended: Result<Outcome, Interrupted>) -> (FailureKind, Stage, String) {
    let failure = ended.unwrap_err().failed().unwrap();
    (failure.kind, failure.stage, failure.detail)
}

pub async fn an_image_gets_its_own_name_and_no_other(shells: &Shells) {
    let place = Place::new(shells).noisy();
    let ended = pull(&place, pending()).await;
    assert_pulled(&ended, shells);
    assert_eq!(
        place.text("fake/log"),
        format!(
            "docker inspect {IMAGE}\ndocker naming check\ndocker pull {LOCAL}\ndocker naming name\ndocker inspect {IMAGE}\n"
        )
    );
    assert_left_nothing(&place, shells).await;

    // It is there now.
    let again = pull(&place, pending()).await;
    assert!(matches!(again, Ok(Outcome::Present(_))), "{again:?}");
    assert_eq!(pulls(&place), 1);
    place.assert_clean().await;
}

pub async fn a_node_that_cannot_name_an_image_is_asked_for_no_pull(shells: &Shells) {
    let place = Place::new(shells);
    place.write("fake/naming-check", "echo 'there is no ctr' >&2; exit 1");
    let (kind, stage, detail) = failed(pull(&place, pending()).await);
    assert_eq!((kind, stage), (FailureKind::NodeSetup, Stage::Pull));
    assert!(detail.contains("there is no ctr"), "{detail}");
    assert_eq!(pulls(&place), 0);
    assert_left_nothing(&place, shells).await;
}

/// Whatever fails once the local name may be there, it is removed.
pub async fn a_failure_leaves_no_local_name(shells: &Shells) {
    let brings = "echo sha256:0123 >\"$FAKE/local\"";
    for (file, script, expected) in [
        (
            "fake/pull",
            format!("{brings}; echo denied >&2; exit 1"),
            (FailureKind::RegistryAuth, Stage::Pull, "denied\n"),
        ),
        (
            "fake/naming-name",
            "echo 'no room' >&2; exit 1".into(),
            (
                FailureKind::Unknown,
                Stage::Verify,
                "the image cannot be given its name: no room",
            ),
        ),
    ] {
        let place = Place::new(shells);
        place.write(file, &script);
        let (kind, stage, detail) = failed(pull(&place, pending()).await);
        assert_eq!((kind, stage, detail.as_str()), expected, "{shells:?}");
        assert_eq!(place.text("fake/log").matches("naming forget").count(), 1);
        assert_left_nothing(&place, shells).await;
    }
}

/// A pull that is cancelled, in the middle of the pull or of the naming.
pub async fn a_cancelled_pull_leaves_no_local_name(shells: &Shells) {
    let brings = format!("echo sha256:0123 >\"$FAKE/local\"; {HANGS}");
    for file in ["fake/pull", "fake/naming-name"] {
        let place = Place::new(shells);
        place.write(file, &brings);
        let ended = pull(&place, place.started()).await;
        assert_eq!(ended, Err(Interrupted::Cancelled), "{shells:?}");
        // The node said that it has cleaned up: now, not some time later.
        assert!(!place.exists("fake/local"), "{shells:?}: {file}");
        assert_left_nothing(&place, shells).await;
    }
}

/// What comes through a connection ends with it, long before its lease: the port that it came from is gone.
pub async fn a_lost_connection_ends_the_pull_and_leaves_no_local_name(shells: &Shells) {
    let place = Place::new(shells);
    place.write(
        "fake/pull",
        &format!("echo sha256:0123 >\"$FAKE/local\"; {HANGS}"),
    );
    let began = Instant::now();
    tokio::select! {
        ended = pull(&place, pending()) => panic!("{ended:?}"),
        () = place.shown() => {}
    }
    assert_left_nothing(&place, shells).await;
    assert!(began.elapsed() < MINUTE, "{shells:?}: its lease ended it");
}

/// A connection that does not know yet that it is lost: the next one ends its pull, and begins again.
pub async fn a_new_connection_begins_again(shells: &Shells) {
    let place = Place::new(shells);
    place.write(
        "fake/pull",
        &format!("echo sha256:0123 >\"$FAKE/local\"; {HANGS}"),
    );
    let first = pull(&place, pending());
    let second = async {
        place.shown().await;
        place.write("fake/pull", ":");
        pull(&place, pending()).await
    };
    let (first, second) = tokio::join!(first, second);
    assert_pulled(&second, shells);
    assert!(first.is_err(), "{shells:?}: {first:?}");
    assert_eq!(pulls(&place), 2, "{shells:?}");
    assert_left_nothing(&place, shells).await;
}

/// The process that runs the pull was killed: the next connection removes what it left.
pub async fn a_killed_supervisors_local_name_is_removed(shells: &Shells) {
    let place = Place::new(shells);
    place.write(
        "fake/pull",
        &format!("echo sha256:0123 >\"$FAKE/local\"; {WAITS}"),
    );
    tokio::select! {
        ended = pull(&place, pending()) => panic!("{ended:?}"),
        () = async {
            place.shown().await;
            super::signal(place.supervisor(), "KILL");
        } => {}
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    place.write("fake/pull", ":");
    let ended = pull(&place, pending()).await;
    assert_pulled(&ended, shells);
    assert_left_nothing(&place, shells).await;
}
