//! What every shell has to pass where other users of the node, or chance, put things in the way.

use std::fs;
use std::future::pending;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use prepull::model::{ExitStatus, FailureKind, RuntimeKind};
use prepull::node as call;

use super::runtime::FakeRuntime;
use super::scenarios::{
    HANGS, MINUTE, WAITS, assert_pulled, docker_with, lose, pull, pull_of, pulls, run,
};
use super::{Place, Shells, node, signal};

/// A user of a number that nobody else has, and so has names of its own in folders that all share.
pub struct User(u32);

impl User {
    pub fn on(place: &Place) -> Self {
        let number = fastrand::u32(1 << 24..1 << 30);
        place.program("id", &format!("#!/bin/sh\necho {number}\n"));
        Self(number)
    }

    /// The private directory of this user in a folder.
    pub fn private(&self, folder: &str) -> PathBuf {
        Path::new(folder).join(format!("prepull-{}", self.0))
    }
}

impl Drop for User {
    fn drop(&mut self) {
        for folder in ["/tmp", "/var/tmp", "/dev/shm", "/run"] {
            let path = self.private(folder);
            if path.is_symlink() || !path.is_dir() {
                let _ = fs::remove_file(path);
            } else {
                let _ = fs::remove_dir_all(path);
            }
        }
    }
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Everything of a pull, its turn and its login lie in directories that only their user may enter.
pub async fn all_names_are_below_a_private_directory(shells: &Shells) {
    let place = Place::new(shells);
    let user = User::on(&place);
    place.write("fake/pull", WAITS);
    let runtime = docker_with("s3cret");
    let looking = async {
        place.shown().await;
        let folders = place.folders();
        assert_eq!(folders.len(), 2, "{folders:?}");
        let name = user.private("/");
        for folder in &folders {
            let private = folder
                .ancestors()
                .find(|path| path.file_name() == name.file_name())
                .unwrap_or_else(|| panic!("{folder:?} is not below a directory of its user"));
            assert_eq!(mode(private), 0o700, "{private:?}");
        }
        let turns = fs::read_dir(folders[0].parent().unwrap()).unwrap();
        let is_turn = |name: &str| name.starts_with("turn.");
        assert!(
            turns
                .flatten()
                .any(|entry| is_turn(&entry.file_name().to_string_lossy()))
        );
        let pull = folders[0].file_name().unwrap();
        let pull = pull.to_string_lossy();
        for folder in ["/tmp", "/dev/shm", "/run"] {
            for entry in fs::read_dir(folder).unwrap().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                assert!(!name.contains(&*pull), "{folder}/{name}");
            }
        }
        place.write("fake/go", "");
    };
    let (ended, ()) = tokio::join!(pull(&place, &runtime, None, pending()), looking);
    assert_pulled(&ended, shells);
    place.assert_clean().await;
    for folder in ["/tmp", "/dev/shm"] {
        assert!(!user.private(folder).exists(), "{folder}");
    }
}

/// Whatever has the name of a private directory and is none: it is neither entered nor changed, and the next place serves.
pub async fn a_taken_name_is_left_alone(shells: &Shells) {
    for squat in ["link", "dangling", "open", "fifo", "file", "foreign"] {
        let place = Place::new(shells);
        let user = User::on(&place);
        fs::create_dir(place.path("victim")).unwrap();
        fs::set_permissions(place.path("victim"), fs::Permissions::from_mode(0o700)).unwrap();
        place.write("victim/file", "precious");
        let taken = user.private("/tmp");
        match squat {
            "link" => symlink(place.path("victim"), &taken).unwrap(),
            "dangling" => symlink(place.path("nowhere"), &taken).unwrap(),
            "open" => {
                fs::create_dir(&taken).unwrap();
                fs::set_permissions(&taken, fs::Permissions::from_mode(0o755)).unwrap();
            }
            "fifo" => assert!(
                Command::new("mkfifo")
                    .arg(&taken)
                    .status()
                    .unwrap()
                    .success()
            ),
            "file" => fs::write(&taken, "x").unwrap(),
            _ => {
                fs::create_dir(&taken).unwrap();
                fs::set_permissions(&taken, fs::Permissions::from_mode(0o700)).unwrap();
                // Only root can give it away; for others it is one more that is ours, with something else in it.
                let _ = std::os::unix::fs::chown(&taken, Some(54321), Some(54321));
            }
        }
        let before = fs::symlink_metadata(&taken).unwrap().modified().unwrap();
        let runtime = docker_with("s3cret");
        place.write(
            "fake/pull",
            "cat \"$DOCKER_CONFIG/config.json\" >\"$FAKE/secret\"",
        );
        let ended = pull(&place, &runtime, Some(MINUTE), pending()).await;
        assert_pulled(&ended, shells);
        assert_eq!(place.text("fake/secret"), "s3cret", "{squat}");
        assert_eq!(place.text("victim/file"), "precious", "{squat}");
        assert_eq!(fs::read_dir(place.path("victim")).unwrap().count(), 1);
        assert!(!place.exists("nowhere"));
        let after = fs::symlink_metadata(&taken).unwrap().modified().unwrap();
        assert!(
            before == after || !is_root() && squat == "foreign",
            "{squat} was changed"
        );
        place.assert_clean().await;
    }
}

pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// A pull that lies in the second place is found there, though the first one has become free.
pub async fn a_pull_is_found_wherever_it_lies(shells: &Shells) {
    let place = Place::new(shells);
    let user = User::on(&place);
    place.write("fake/pull", WAITS);
    symlink("/nowhere", user.private("/tmp")).unwrap();
    lose(&place, MINUTE).await;
    fs::remove_file(user.private("/tmp")).unwrap();
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

/// A FIFO where a file of ours should be, which nobody writes to.
pub async fn a_fifo_in_place_of_a_file_holds_nothing(shells: &Shells) {
    let place = Place::new(shells);
    let user = User::on(&place);
    place.write("fake/pull", WAITS);
    let runtime = docker_with("s3cret");
    let first = pull_of("one", MINUTE, &place, &runtime, None, pending());
    let second = async {
        place.shown().await;
        let private = user.private("/tmp");
        let names = fs::read_dir(&private).unwrap().flatten();
        let turn = names
            .map(|entry| entry.path())
            .find(|path| {
                path.file_name()
                    .unwrap()
                    .to_string_lossy()
                    .starts_with("turn.")
            })
            .unwrap();
        fs::remove_file(turn.join("holder")).unwrap();
        let made = Command::new("mkfifo").arg(turn.join("holder")).status();
        assert!(made.unwrap().success());
        place.write("fake/go", "");
        pull_of("two", MINUTE, &place, &runtime, Some(MINUTE), pending()).await
    };
    let both = async { tokio::join!(first, second) };
    let (first, second) = tokio::time::timeout(2 * MINUTE, both).await.unwrap();
    assert_pulled(&first, shells);
    assert!(second.is_ok(), "{shells:?}: {second:?}");
    place.assert_clean().await;
}

/// Processes that have nothing to do with us.
struct Innocents(Vec<Child>);

impl Innocents {
    fn new(count: usize) -> Self {
        use std::os::unix::process::CommandExt;
        let start = |_| {
            Command::new("sleep")
                .arg("1000")
                .process_group(0)
                .spawn()
                .unwrap()
        };
        Self((0..count).map(start).collect())
    }

    fn assert_alive(&mut self) {
        for child in &mut self.0 {
            assert_eq!(
                child.try_wait().unwrap(),
                None,
                "an innocent process was ended"
            );
        }
    }
}

impl Drop for Innocents {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The processes of a pull are gone, after a reboot for one, and others have their numbers.
pub async fn a_process_with_a_reused_number_is_not_ended(shells: &Shells) {
    let files = [
        "leader",
        "keeper",
        "readers",
        "viewer",
        "tail",
        "supervisor",
    ];
    for known in ["", " 1", " 1-00000000-0000-0000-0000-000000000000"] {
        let mut innocents = Innocents::new(files.len());
        let place = Place::new(shells);
        place.write("fake/pull", HANGS);
        lose(&place, MINUTE).await;
        let [folder, ..] = &place.folders()[..] else {
            panic!("no pull");
        };
        let folder = folder.clone();
        until("its processes do not end", || {
            for (pid, _) in place.processes() {
                signal(pid, "KILL");
            }
            place.processes().is_empty()
        })
        .await;
        for (file, child) in files.iter().zip(&innocents.0) {
            fs::write(folder.join(file), format!("{}{known}\n", child.id())).unwrap();
        }
        place.write("fake/pull", ":");
        let ended = pull(&place, &docker_with("s3cret"), None, pending()).await;
        assert_pulled(&ended, shells);
        innocents.assert_alive();
        place.assert_clean().await;
    }
}

/// Another run's pull of the image that takes longer than the operator will wait.
pub async fn a_wait_for_another_pull_has_a_limit(shells: &Shells) {
    let place = Place::new(shells);
    place.write("fake/pull", WAITS);
    let runtime = docker_with("s3cret");
    let first = pull_of("one", MINUTE, &place, &runtime, None, pending());
    let second = async {
        place.started().await;
        let limit = Some(Duration::from_secs(2));
        let ended = pull_of("two", MINUTE, &place, &runtime, limit, pending()).await;
        place.write("fake/go", "");
        ended
    };
    let (first, second) = tokio::join!(first, second);
    assert_pulled(&first, shells);
    let failure = second.unwrap_err().failed().unwrap();
    assert_eq!(failure.kind, FailureKind::TimedOut, "{failure}");
    assert!(
        failure.detail.contains("another pull of the same image"),
        "{failure}"
    );
    assert_eq!(pulls(&place), 1);
    place.assert_clean().await;
}

/// A question that is cancelled as its next command starts: nothing waits for the force that ends what does not end by
/// itself. A signal must not get lost on a process that is being made.
pub async fn a_cancelled_question_ends_at_once(shells: &Shells) {
    let place = Place::new(shells);
    let sleep = super::find("sleep", "coreutils");
    place.program(
        "sleep",
        &format!(
            "#!/bin/sh\n{} \"$1\"\necho \"$1\" >>\"$FAKE/slept\"\n",
            sleep.display()
        ),
    );
    place.program("docker", "#!/bin/sh\nexit 1\n");
    place.program("crictl", "#!/bin/sh\necho 1.0\n");
    let docker = FakeRuntime::new(RuntimeKind::Docker);
    let crictl = FakeRuntime::new(RuntimeKind::Crictl);
    for _ in 0..30 {
        let mut session = place.session();
        let asked = call::probe(&mut session, &node(false), &[&docker, &crictl], pending()).await;
        assert_eq!(asked, Ok(RuntimeKind::Crictl));
        assert_eq!(place.text("fake/slept"), "", "it waited for its own force");
    }
    place.assert_clean().await;
}

/// In words that name the command, not our program.
pub async fn a_command_that_cannot_run_is_told_in_plain_words(shells: &Shells) {
    let place = Place::new(shells);
    place.write("text", "no program");
    let text = place.path("text").display().to_string();
    for (command, code, words) in [
        ("prepull-no-such-command", 127, "command not found"),
        // A function of our program's, and what a shell has built in.
        ("perform", 127, "command not found"),
        ("/nowhere/crictl", 127, "command not found"),
        (&text, 126, "not an executable file"),
        ("/", 126, "not an executable file"),
    ] {
        let output = run(&place, &[command]).await;
        assert_eq!(output.exit, ExitStatus::Code(code), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(said, format!("{command}: {words}\n"));
    }
    place.assert_clean().await;
}

/// Waits until something is so.
pub async fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < MINUTE, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A pull whose supervisor is stopped and so cannot end by itself: the node is clean all the same.
pub async fn a_supervisor_that_cannot_end_is_ended(shells: &Shells) {
    let place = Place::new(shells);
    place.write("fake/pull", HANGS);
    let runtime = docker_with("s3cret");
    let cancel = async {
        place.shown().await;
        signal(place.supervisor(), "STOP");
    };
    let ended = pull(&place, &runtime, None, cancel).await;
    assert!(ended.is_err(), "{ended:?}");
    until("it leaves something", || place.processes().is_empty()).await;
    place.assert_clean().await;
}
