//! The node protocol against every login shell and every `sh`, as root on Debian: feature `lab`.

#![allow(clippy::unwrap_used)] // a test file: a panic is a failed test

mod local_node;

use std::future::pending;

use local_node::runtime::FakeRuntime;
use local_node::{DASH, Place, Shells, hostile, node, scenarios};
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
            arrived: &Default::default(),
            pull_token: "test",
            lease: std::time::Duration::from_secs(600),
            disk_credentials,
            hang_up: None,
        };
        let ended = pull(&mut place.session(), &node(false), &job, &|_| {}, pending()).await;
        if refused {
            let failure = ended.unwrap_err().failed().unwrap();
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

/// Runs the program with what `mounts` makes of the places, in a mount namespace of its own.
fn with_places(place: &Place, mounts: &str, sh: &str) {
    place.write("mounts", mounts);
    place.program(
        "sh",
        &format!("#!/bin/sh\nexec unshare --mount /bin/sh -c '. \"$FAKE/../mounts\"; exec {sh} \"$@\"' sh \"$@\"\n"),
    );
}

const FULL: &str = "full() { mount -t tmpfs -o size=64k,mode=1777 none \"$1\"; dd if=/dev/zero of=\"$1/filler\" bs=4k 2>/dev/null; }\n";

/// In memory first: what others fill is no reason to fail.
#[tokio::test]
async fn a_full_place_is_passed_over() {
    for sh in ["dash", "bash", "busybox sh"] {
        let place = Place::new(&DASH);
        with_places(&place, &format!("{FULL}full /run\nfull /dev/shm\n"), sh);
        let runtime = FakeRuntime::new(RuntimeKind::Crictl);
        let ended = scenarios::pull(&place, &runtime, None, pending()).await;
        assert!(ended.is_ok(), "{sh}: {ended:?}");
        let pipes = place.text("fake/pipes");
        assert!(pipes.starts_with("/tmp/prepull-"), "{sh}: {pipes}");

        // Without any room, each place has its reason.
        let place = Place::new(&DASH);
        let all = "full /run\nfull /dev/shm\nfull /var/tmp\nmount --bind /dev/shm \"$HOME\"\nmount -o bind,ro / /tmp\n";
        with_places(&place, &format!("{FULL}{all}"), sh);
        let ended = scenarios::pull(&place, &runtime, None, pending()).await;
        let failure = ended.unwrap_err().failed().unwrap();
        assert_eq!(failure.kind, FailureKind::NodeSetup, "{sh}: {failure}");
        let detail = &failure.detail;
        assert!(
            detail.contains("/run/prepull-0: no room for 16 KiB"),
            "{sh}: {failure}"
        );
        let why = ["/tmp/prepull-0: not writable", "Read-only file system"];
        assert!(
            why.iter().any(|why| detail.contains(why)),
            "{sh}: {failure}"
        );
        place.assert_clean().await;
    }
}

#[tokio::test]
async fn a_user_whose_names_are_all_taken_has_the_home_directory() {
    let place = Place::new(&DASH);
    let user = hostile::User::on(&place);
    for folder in ["/tmp", "/var/tmp"] {
        std::os::unix::fs::symlink("/etc", user.private(folder)).unwrap();
    }
    let runtime = FakeRuntime::new(RuntimeKind::Crictl);
    let ended = scenarios::pull(&place, &runtime, None, pending()).await;
    assert!(ended.is_ok(), "{ended:?}");
    let home = place.path("home").display().to_string();
    let pipes = place.text("fake/pipes");
    assert!(pipes.starts_with(&home), "{pipes}");
    place.assert_clean().await;
}

/// Where others could rename what is ours, nothing is put.
#[tokio::test]
async fn a_place_that_others_can_change_is_passed_over() {
    use std::os::unix::fs::{PermissionsExt, chown};
    for (owner, mode, is_used) in [
        (0, 0o1777, true),
        (0, 0o777, false),
        (0, 0o775, false),
        (54321, 0o755, false),
    ] {
        let mut place = Place::new(&DASH);
        let _user = hostile::User::on(&place);
        let folder = place.path("tmp");
        std::fs::create_dir(&folder).unwrap();
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(mode)).unwrap();
        chown(&folder, Some(owner), Some(owner)).unwrap();
        place.environment("TMPDIR", &folder.display().to_string());
        let runtime = FakeRuntime::new(RuntimeKind::Crictl);
        let ended = scenarios::pull(&place, &runtime, None, pending()).await;
        assert!(ended.is_ok(), "{ended:?}");
        let pipes = place.text("fake/pipes");
        assert_eq!(
            pipes.starts_with(&folder.display().to_string()),
            is_used,
            "{owner} {mode:o}: {pipes}"
        );
        place.assert_clean().await;
    }
}

/// A place that fills up in the middle: that is noticed, in words, and the next attempt lies elsewhere.
#[tokio::test]
async fn a_place_that_fills_up_is_noticed() {
    for sh in ["dash", "bash", "busybox sh"] {
        let place = Place::new(&DASH);
        let small = "mount -t tmpfs -o size=96k,mode=755 none /run\n";
        with_places(&place, small, sh);
        place.write("fake/pull", "head -c 300000 /dev/zero");
        let runtime = FakeRuntime::new(RuntimeKind::Crictl);
        let lease = std::time::Duration::from_secs(10);
        let ended = scenarios::pull_of("test", lease, &place, &runtime, None, pending()).await;
        let failure = ended.unwrap_err().failed().unwrap();
        assert!(
            failure
                .detail
                .contains("there is no room left in /run/prepull-0/"),
            "{sh}: {failure}"
        );
    }
}
