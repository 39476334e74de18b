//! Becoming root with the real sudo and doas, each node in a mount namespace with users of its own.
//! Runs as root, with the feature `lab`.

#![allow(clippy::unwrap_used)] // a test file: a panic is a failed test

mod local_node;

use std::fs;
use std::future::pending;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use local_node::runtime::FakeRuntime;
use local_node::{Place, Shells, contains, find, node};
use prepull::model::{Failure, FailureKind, Node, Outcome, PullWhen, RuntimeKind, Secret, Stage};
use prepull::node::{Interrupted, PullJob, pull, run};
use prepull::ports::PullRequest;

const PASSWORD: &str = "r1ght horse' $(id) \"é";

/// Users, sudoers and PAM are those of a layer in memory above this machine's `/etc`.
const SET_UP: &str = r#"set -eu
mount -t tmpfs none "$1/layer"
mkdir "$1/layer/upper" "$1/layer/work"
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$1/layer/upper,workdir=$1/layer/work" /etc
mount -t tmpfs none /run
mkdir /run/faillock
rm -f /etc/doas.conf
useradd -M -s /bin/sh lab-ops
printf 'lab-ops:%s\nroot:%s\n' "$2" "$2" | chpasswd
cat >/etc/sudoers
chmod 440 /etc/sudoers
cat >/etc/pam.d/sudo <<PAM
auth required pam_faillock.so preauth dir=/run/faillock deny=9
auth sufficient pam_unix.so nodelay
auth [default=die] pam_faillock.so authfail dir=/run/faillock deny=9
account required pam_unix.so
session required pam_permit.so
PAM
eval "$3"
echo ready
exec sleep 600
"#;

struct Machine {
    place: Place,
    holder: Child,
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

impl Machine {
    /// With these sudoers, and after these commands; whoever logs in is `user`.
    fn new(user: &str, sudoers: &str, commands: &str) -> Self {
        find("sudo", "sudo");
        let shells = Shells {
            login: "dash",
            sh: &["dash"],
        };
        let place = Place::new(&shells);
        for folder in [".", "home", "bin"] {
            fs::set_permissions(place.path(folder), fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::create_dir(place.path("layer")).unwrap();
        let bin = place.path("bin").display().to_string();
        let sudoers = format!(
            "Defaults secure_path=\"{bin}:/usr/bin:/bin\"\nDefaults env_keep+=\"FAKE PREPULL_TEST\"\n{sudoers}\n"
        );
        let mut holder = Command::new(find("unshare", "util-linux"))
            .args([
                "--mount",
                "--propagation",
                "private",
                "/bin/bash",
                "-c",
                SET_UP,
                "set-up",
            ])
            .arg(place.folder.path())
            .args([PASSWORD, commands])
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut holder.stdin.take().unwrap(), sudoers.as_bytes()).unwrap();
        let mut ready = [0; 6];
        let read = std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut ready);
        assert!(read.is_ok(), "the node could not be set up: see above");
        let login = format!(
            "#!/bin/sh\nexec nsenter -t {} -m -- setpriv --reuid {user} --regid {user} --clear-groups dash \"$@\"\n",
            holder.id()
        );
        place.program("log-in", &login);
        let shells = Shells {
            login: Box::leak(format!("{bin}/log-in").into_boxed_str()),
            ..shells
        };
        Self {
            place: place.with_shells(shells),
            holder,
        }
    }

    fn ordinary(sudoers: &str) -> Self {
        Self::new("lab-ops", sudoers, "")
    }

    /// As root on the node.
    fn inside(&self, script: &str) -> String {
        let output = Command::new("nsenter")
            .args([
                "-t",
                &self.holder.id().to_string(),
                "-m",
                "--",
                "sh",
                "-c",
                script,
            ])
            .output()
            .unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    /// How often a password was wrong, as what locks accounts counts it.
    fn wrong_passwords(&self) -> usize {
        let tally = self.inside("/usr/sbin/faillock --dir /run/faillock --user lab-ops");
        tally.lines().filter(|line| line.ends_with(" V")).count()
    }

    async fn who(&self, password: Option<&str>) -> Result<String, Interrupted> {
        let argv = ["id".to_string(), "-u".to_string()];
        let node = becoming(password);
        let output = run(
            &mut self.place.session(),
            &node,
            &argv,
            &Arc::default(),
            pending(),
        )
        .await?;
        Ok(String::from_utf8(output.stdout.read(usize::MAX).unwrap()).unwrap())
    }

    /// Refused, for this reason.
    async fn refuses(&self, password: Option<&str>, words: &str) -> Failure {
        let failure = self.who(password).await.unwrap_err().failed().unwrap();
        assert_eq!(
            (failure.kind, failure.stage),
            (FailureKind::Privilege, Stage::Start),
            "{failure}"
        );
        assert!(failure.detail.contains(words), "{failure}");
        assert!(
            !failure.detail.contains("prepull-"),
            "the prompt: {failure}"
        );
        failure
    }
}

fn becoming(password: Option<&str>) -> Node {
    Node {
        user: "lab-ops".into(),
        become_password: password.map(Secret::new),
        ..node(true)
    }
}

#[tokio::test]
async fn a_password_is_sent_only_to_a_sudo_that_asks() {
    let machine = Machine::ordinary("lab-ops ALL=(root) NOPASSWD: ALL");
    for password in [None, Some(PASSWORD), Some("wrong")] {
        assert_eq!(machine.who(password).await.unwrap(), "0\n");
    }
    assert_eq!(machine.wrong_passwords(), 0);
    // The line that our advice names.
    let machine = Machine::ordinary("lab-ops ALL=(root) NOPASSWD: /bin/sh");
    assert_eq!(machine.who(None).await.unwrap(), "0\n");
}

#[tokio::test]
async fn the_right_password_makes_root_whatever_sudoers_says_about_asking() {
    for defaults in [
        "",
        "Defaults use_pty",
        "Defaults pwfeedback, lecture=always, timestamp_timeout=0",
        "Defaults !passprompt_override",
        "Defaults log_input, log_output, iolog_dir=/run/io",
        "Defaults use_pty, log_input, iolog_dir=/run/io",
        "Defaults rootpw",
        "Defaults targetpw, passwd_tries=1",
        "Defaults !env_reset",
        "Defaults passprompt=\"Passwort: \", passprompt_override",
    ] {
        let machine = Machine::ordinary(&format!("{defaults}\nlab-ops ALL=(root) ALL"));
        assert_eq!(
            machine.who(Some(PASSWORD)).await.as_deref(),
            Ok("0\n"),
            "{defaults}"
        );
        assert_eq!(machine.wrong_passwords(), 0, "{defaults}");
    }
}

#[tokio::test]
async fn root_is_who_runs_it_whatever_sudoers_says_is_the_default() {
    for (tag, password) in [("NOPASSWD: ", None), ("", Some(PASSWORD))] {
        let sudoers = format!("Defaults runas_default=nobody\nlab-ops ALL=(ALL) {tag}ALL");
        let machine = Machine::ordinary(&sudoers);
        assert_eq!(machine.who(password).await.as_deref(), Ok("0\n"));
    }
}

#[tokio::test]
async fn a_password_that_has_to_be_changed_is_told_at_once_and_left_alone() {
    for defaults in ["", "Defaults passprompt_override"] {
        let machine = Machine::new(
            "lab-ops",
            &format!("{defaults}\nlab-ops ALL=(root) ALL"),
            "echo password required pam_unix.so >>/etc/pam.d/sudo; chage -d 0 lab-ops",
        );
        let failure = machine.refuses(Some(PASSWORD), "has expired").await;
        assert!(failure.detail.contains("reset your password"), "{failure}");
        assert_eq!(machine.wrong_passwords(), 0, "{defaults}");
    }
}

#[tokio::test]
async fn the_commands_that_sudoers_lets_through_without_a_password_are_ours_or_not() {
    let rule = "Cmnd_Alias OURS=/bin/sh, /usr/bin/sh, /tmp/*/bin/sh\nlab-ops ALL=(root) ALL";
    let machine = Machine::ordinary(&format!("{rule}\nDefaults!OURS !authenticate"));
    assert_eq!(machine.who(None).await.as_deref(), Ok("0\n"));
    let machine = Machine::ordinary(&format!("{rule}\nDefaults!/bin/ls !authenticate"));
    machine.refuses(None, "--ask-become-pass").await;
}

#[tokio::test]
async fn a_wrong_password_is_tried_once() {
    for defaults in [
        "",
        "Defaults passwd_tries=1",
        "Defaults passwd_tries=9, use_pty",
        "Defaults insults",
        "Defaults badpass_message=\"Falsch!\"",
        "Defaults lecture=always",
        "Defaults sudoers_locale=de_DE.UTF-8",
    ] {
        let machine = Machine::ordinary(&format!("{defaults}\nlab-ops ALL=(root) ALL"));
        let failure = machine.refuses(Some("wr0ng"), "tried once").await;
        assert!(!failure.to_string().contains("wr0ng"), "{failure}");
        assert_eq!(machine.wrong_passwords(), 1, "{defaults}");
    }
}

#[tokio::test]
async fn no_password_is_kept_for_later_and_none_that_was_kept_is_used() {
    let machine = Machine::ordinary("Defaults timestamp_type=global\nlab-ops ALL=(root) ALL");
    let as_user = |script: &str| {
        machine.inside(&format!(
            "setpriv --reuid lab-ops --regid lab-ops --clear-groups sh -c '{script}'"
        ))
    };
    assert_eq!(machine.who(Some(PASSWORD)).await.unwrap(), "0\n");
    assert!(as_user("sudo -n id -u").contains("password is required"));
    machine.place.write("typed", &format!("{PASSWORD}\n"));
    let typed = machine.place.path("typed").display().to_string();
    as_user(&format!("sudo -S -v <{typed}"));
    assert_eq!(as_user("sudo -n id -u"), "0\n", "somebody just used sudo");
    machine.refuses(None, "--ask-become-pass").await;
    assert_eq!(
        as_user("sudo -n id -u"),
        "0\n",
        "their time stamp is theirs"
    );
}

#[tokio::test]
async fn each_refusal_of_sudo_says_what_to_do() {
    let plain = "lab-ops ALL=(root) ALL";
    for (sudoers, password, words) in [
        (plain, None, "give it with --ask-become-pass (-K)"),
        ("", None, "-K"),
        ("", Some(PASSWORD), "sudoers does not name lab-ops"),
        (
            "lab-ops ALL=(root) NOPASSWD: /bin/ls",
            Some(PASSWORD),
            "lab-ops ALL=(root) ",
        ),
        (
            "Defaults requiretty\nlab-ops ALL=(root) NOPASSWD: ALL",
            None,
            "Defaults:lab-ops !requiretty",
        ),
    ] {
        let failure = Machine::ordinary(sudoers).refuses(password, words).await;
        assert!(failure.detail.contains("and printed: "), "{failure}");
    }
    let expired = Machine::new("lab-ops", plain, "chage -E 1 lab-ops");
    expired.refuses(Some(PASSWORD), "has expired").await;
    let restricted = Machine::ordinary("lab-ops ALL=(root) NOPASSWD: /bin/ls");
    let failure = restricted
        .refuses(Some(PASSWORD), "other commands only")
        .await;
    let line = failure.detail.split('"').nth(1).unwrap();
    restricted.inside(&format!("echo '{line}' >>/etc/sudoers"));
    assert_eq!(restricted.who(Some(PASSWORD)).await.as_deref(), Ok("0\n"));
}

#[tokio::test]
async fn root_needs_neither_sudo_nor_doas() {
    let machine = Machine::new("root", "", NO_SUDO);
    assert_eq!(machine.who(None).await.unwrap(), "0\n");
    assert_eq!(machine.who(Some(PASSWORD)).await.unwrap(), "0\n");
}

/// Hides both where the node's users look for programs.
const NO_SUDO: &str = "mount --bind /dev/null /usr/bin/sudo";

#[tokio::test]
async fn doas_stands_in_where_there_is_no_sudo() {
    find("doas", "opendoas");
    let with = |rule: &str| {
        let commands =
            format!("{NO_SUDO}; echo '{rule}' >/etc/doas.conf; chmod 600 /etc/doas.conf");
        Machine::new("lab-ops", "", &commands)
    };
    let permitted = with("permit nopass lab-ops as root");
    assert_eq!(permitted.who(None).await.unwrap(), "0\n");
    assert_eq!(permitted.who(Some(PASSWORD)).await.unwrap(), "0\n");
    let asking = with("permit lab-ops as root");
    for password in [None, Some(PASSWORD)] {
        asking.refuses(password, "from a terminal only").await;
    }
    let advice = "permit nopass lab-ops as root";
    with("permit nopass somebody as root")
        .refuses(None, advice)
        .await;
    Machine::new("lab-ops", "", NO_SUDO)
        .refuses(None, advice)
        .await;
    let denied = "permit nopass lab-ops as root\ndeny lab-ops";
    with(denied).refuses(None, advice).await;
    with("permit persist lab-ops as root")
        .refuses(Some(PASSWORD), "from a terminal only")
        .await;
    let neither = format!("{NO_SUDO}; mount --bind /dev/null /usr/bin/doas");
    Machine::new("lab-ops", "", &neither)
        .refuses(None, "neither sudo nor doas is installed")
        .await;
}

#[tokio::test]
async fn a_pull_takes_both_secrets_to_their_places_and_shows_neither() {
    let machine = Machine::ordinary("Defaults use_pty\nlab-ops ALL=(root) ALL");
    let place = &machine.place;
    let registry = "reg1stry\nsecret";
    place.write(
        "fake/pull",
        "cat \"$DOCKER_CONFIG/config.json\" >$FAKE/seen; sleep 0.5; : >$FAKE/pulled",
    );
    let over = Arc::new(AtomicBool::new(false));
    let watching = over.clone();
    let watcher = std::thread::spawn(move || {
        let mut shown = vec![];
        while !watching.load(Ordering::SeqCst) {
            for entry in fs::read_dir("/proc").unwrap().flatten() {
                for file in ["cmdline", "environ"] {
                    let text = fs::read(entry.path().join(file)).unwrap_or_default();
                    // The holder was told the password to set it.
                    let own = contains(&text, b"set-up");
                    if !own
                        && (contains(&text, PASSWORD.as_bytes()) || contains(&text, b"reg1stry"))
                    {
                        shown.push(String::from_utf8_lossy(&text).into_owned());
                    }
                }
            }
        }
        shown
    });
    let image = "reg.example/app:v1".parse().unwrap();
    let runtime = FakeRuntime {
        secret: Some(Secret::new(registry)),
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
        disk_credentials: false,
        hang_up: None,
    };
    let node = becoming(Some(PASSWORD));
    let ended = pull(&mut place.session(), &node, &job, &|_| {}, pending()).await;
    over.store(true, Ordering::SeqCst);
    assert!(matches!(ended, Ok(Outcome::Pulled(_))), "{ended:?}");
    assert_eq!(place.text("fake/seen"), registry);
    assert_eq!(watcher.join().unwrap(), [] as [String; 0]);
    fs::remove_file(place.path("fake/seen")).unwrap();
    let folder = place.folder.path().display().to_string();
    for secret in ["r1ght horse", "reg1stry"] {
        let script = format!("grep -rlF '{secret}' {folder} /etc /run /dev/shm 2>/dev/null");
        assert_eq!(machine.inside(&script), "", "{secret} was left in a file");
    }
    place.assert_clean().await;
}
