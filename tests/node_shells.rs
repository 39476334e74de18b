//! The node protocol against every login shell and every `sh`, as root on Debian: feature `lab`.

#![allow(clippy::unwrap_used)] // a test file: a panic is a failed test

mod local_node;

use std::future::pending;

use local_node::runtime::FakeRuntime;
use local_node::{DASH, Place, Shells, node, scenarios};
use prepull::model::{FailureKind, PullWhen, RuntimeKind, Secret};
use prepull::node::{PullJob, pull};
use prepull::ports::PullRequest;

const BUSYBOX: &[&str] = &["busybox"];

#[tokio::test]
async fn busybox_passes_every_scenario() {
    scenarios::all(&Shells {
        login: "dash",
        sh: BUSYBOX,
    })
    .await;
}

#[tokio::test]
async fn bash_in_posix_mode_passes_every_scenario() {
    scenarios::all(&Shells {
        login: "bash",
        sh: &["bash", "--posix"],
    })
    .await;
}

#[tokio::test]
async fn zsh_starts_the_program_as_login_shell() {
    scenarios::as_login_shell(&Shells {
        login: "zsh",
        sh: &["dash"],
    })
    .await;
}

#[tokio::test]
async fn fish_starts_the_program_as_login_shell() {
    scenarios::as_login_shell(&Shells {
        login: "fish",
        sh: &["dash"],
    })
    .await;
}

#[tokio::test]
async fn tcsh_starts_the_program_as_login_shell() {
    scenarios::as_login_shell(&Shells {
        login: "tcsh",
        sh: BUSYBOX,
    })
    .await;
}

#[tokio::test]
async fn credentials_are_put_on_a_disk_only_where_that_is_allowed() {
    let place = Place::new(&DASH);
    // A mount namespace in which the usual memory file systems are folders of a disk.
    place.program(
        "sh",
        "#!/bin/sh\nexec unshare --mount /bin/sh -c 'mkdir -p $FAKE/disk && \
         mount --bind $FAKE/disk /dev/shm && mount --bind $FAKE/disk /run && exec dash \"$@\"' sh \"$@\"\n",
    );
    let image = "reg.example/app:v1".parse().unwrap();
    let secret = || Some(Secret::new("s3cret"));
    for (secret, disk_credentials, refused) in [
        (secret(), false, true),
        (None, false, false),
        (secret(), true, false),
    ] {
        place.write(
            "fake/pull",
            "cat \"$DOCKER_CONFIG/config.json\" >\"$FAKE/secret\"",
        );
        let _ = std::fs::remove_file(place.folder.path().join("fake/held"));
        let runtime = FakeRuntime {
            secret,
            ..FakeRuntime::new(RuntimeKind::Docker)
        };
        let job = PullJob {
            runtime: &runtime,
            layers: None,
            request: PullRequest {
                image: &image,
                endpoint: None,
                platform: None,
                login: None,
            },
            when: PullWhen::Missing,
            timeout: None,
            patience: Default::default(),
            mark: "test",
            lease: std::time::Duration::from_secs(600),
            disk_credentials,
        };
        let ended = pull(&mut place.session(), &node(false), &job, &|_| {}, pending()).await;
        if refused {
            let failure = ended.unwrap_err();
            assert_eq!(failure.kind, FailureKind::NodeSetup, "{failure}");
            assert!(
                failure
                    .detail
                    .starts_with("refusing to put credentials on a disk"),
                "{failure}"
            );
        } else {
            assert!(ended.is_ok(), "{ended:?}");
        }
        if disk_credentials {
            assert_eq!(place.text("fake/secret"), "s3cret");
        }
    }
    place.assert_clean().await;
}
