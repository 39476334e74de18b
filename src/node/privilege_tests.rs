//! What sudo and doas say, and what we make of it.

use std::future::pending;
use std::sync::{Arc, Mutex};

use super::super::run;
use super::*;
use crate::model::Passwords;
use crate::ports::ChannelEvent;
use bytes::Bytes;

#[test]
fn refusals_of_sudo_and_doas_say_what_to_do() {
    for (words, sent, advice) in [
        (
            "sudo: a password is required",
            false,
            "--ask-become-pass (-K)",
        ),
        ("Sorry, try again.", true, "tried once"),
        ("sudo: 1 incorrect password attempt", true, "tried once"),
        ("", true, "tried once"),
        (
            "ops is not in the sudoers file.",
            false,
            "ops ALL=(root) NOPASSWD: /bin/sh",
        ),
        (
            "sudo: I'm sorry ops. I'm afraid I can't do that",
            true,
            "\"ops ALL=(root) /bin/sh\"",
        ),
        (
            "sudo: Sorry, user ops may not run sh on n.",
            true,
            "\"ops ALL=(root) /bin/sh\"",
        ),
        (
            "Sorry, user ops is not allowed to execute '/usr/bin/sh -c x' as root on n.",
            true,
            "\"ops ALL=(root) /usr/bin/sh\"",
        ),
        (
            "sudo: sorry, you must have a tty to run sudo",
            false,
            "Defaults:ops !requiretty",
        ),
        (
            "sudo: Account or password is expired, reset your password and try again",
            true,
            "chage -l ops",
        ),
    ] {
        let why = sudo_refused("ops", words, sent).unwrap();
        assert!(why.contains(advice), "{words}: {why}");
    }
    assert_eq!(
        sudo_refused("ops", "/etc/sudoers:1:18: syntax error", false),
        None
    );
    for words in [
        "doas: Operation not permitted",
        "doas: Authentication required",
    ] {
        let why = doas_refused("ops", words).unwrap();
        assert!(why.contains("permit nopass ops as root"), "{why}");
    }
}

#[test]
fn the_process_to_end_is_never_a_group_or_something_else() {
    assert_eq!(found("sudo 4711"), Some((Tool::Sudo, 4711)));
    for said in [
        "sudo 0",
        "sudo 1",
        "sudo -5",
        "sudo 5;reboot",
        "sudo",
        "su 5",
    ] {
        assert_eq!(found(said), None, "{said}");
    }
}

#[test]
fn neither_the_prompt_nor_the_lecture_is_shown() {
    let stderr = b"We trust you.\nprepull-ab password\nSorry, try again.\nprepull-ab password\n";
    assert_eq!(shown(stderr, "ab"), "Sorry, try again.");
}

/// A sudo that says these things, and a record of all that it is sent and asked to run.
struct Sudo {
    says: Vec<ChannelEvent>,
    record: Arc<Mutex<String>>,
    passwords: Arc<Passwords>,
    has_changed: bool,
    /// Whether its channel is closed after that.
    closes: bool,
}

impl Sudo {
    fn new(says: Vec<ChannelEvent>) -> Self {
        Self {
            says,
            record: Arc::default(),
            passwords: Arc::default(),
            has_changed: false,
            closes: false,
        }
    }
}

impl Session for Sudo {
    type Channel = Self;

    async fn exec(&mut self, line: &str) -> Result<Self, Failure> {
        if line.starts_with("kill") {
            self.record.lock().unwrap().push_str(line);
        }
        Ok(Self {
            says: std::mem::take(&mut self.says),
            record: self.record.clone(),
            passwords: self.passwords.clone(),
            has_changed: self.has_changed,
            closes: self.closes,
        })
    }

    fn host_key_changed(&self) -> bool {
        self.has_changed
    }

    fn root_passwords(&self) -> Option<&Passwords> {
        Some(&self.passwords)
    }

    async fn close(self) {}
}

impl Channel for Sudo {
    async fn write(&mut self, bytes: Bytes) -> Result<(), Failure> {
        let text = String::from_utf8_lossy(&bytes);
        let Some((_, values)) = text.split_once("\n#go\n") else {
            self.record.lock().unwrap().push_str(&text);
            return Ok(());
        };
        let mark = values.lines().next().unwrap();
        if values.lines().nth(1) == Some("no") {
            self.record.lock().unwrap().push_str("no password;");
        }
        for event in &mut self.says {
            if let ChannelEvent::Stdout(said) | ChannelEvent::Stderr(said) = event {
                let marked =
                    String::from_utf8_lossy(said).replace('~', &format!("prepull-{mark} "));
                *said = marked.into_bytes();
            }
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<ChannelEvent>, Failure> {
        if self.says.is_empty() && self.closes {
            return Ok(None);
        }
        if self.says.is_empty() {
            return std::future::pending().await;
        }
        Ok(Some(self.says.remove(0)))
    }
}

fn with_password() -> Node {
    Node {
        become_root: true,
        become_password: Some(Secret::new("s3cret")),
        ..super::super::tests::node()
    }
}

fn asks() -> Vec<ChannelEvent> {
    vec![
        ChannelEvent::Stdout("~root sudo 77\n".into()),
        ChannelEvent::Stderr("~password\n".into()),
    ]
}

async fn becomes_root(session: &mut Sudo, node: &Node) -> Failure {
    let argv = ["true".to_string()];
    run(session, node, &argv, &Arc::default(), pending())
        .await
        .unwrap_err()
        .failed()
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_password_that_two_nodes_refuse_is_not_tried_on_a_third() {
    let passwords = Arc::<Passwords>::default();
    let mut sent = Vec::new();
    for number in 0..4 {
        let mut says = asks();
        says.push(ChannelEvent::Stderr(
            "Sorry, try again.\n~password\n".into(),
        ));
        let mut session = Sudo {
            passwords: passwords.clone(),
            ..Sudo::new(says)
        };
        let node = Node {
            address: format!("10.0.0.{number}"),
            ..with_password()
        };
        let failure = becomes_root(&mut session, &node).await;
        assert_eq!(failure.kind, FailureKind::Privilege);
        let was_sent = session.record.lock().unwrap().contains("s3cret");
        assert_eq!(
            failure.detail.contains("it was not sent: 10.0.0.0:22 and"),
            !was_sent,
            "{failure}"
        );
        sent.push(was_sent);
    }
    assert_eq!(sent, [true, true, false, false]);
    assert!(passwords.is_any_given_up());
}

#[tokio::test(start_paused = true)]
async fn what_sudo_refuses_after_the_password_is_no_refusal_of_it() {
    let passwords = Arc::<Passwords>::default();
    for number in 0..4 {
        let mut says = asks();
        let words = "ops is not in the sudoers file.\n";
        says.push(ChannelEvent::Stderr(words.into()));
        says.push(ChannelEvent::Exited(ExitStatus::Code(1)));
        let mut session = Sudo {
            passwords: passwords.clone(),
            closes: true,
            ..Sudo::new(says)
        };
        let node = Node {
            address: format!("10.0.0.{number}"),
            ..with_password()
        };
        let failure = becomes_root(&mut session, &node).await;
        assert!(
            session.record.lock().unwrap().contains("s3cret"),
            "{failure}"
        );
    }
    assert!(!passwords.is_any_given_up());
}

#[tokio::test(start_paused = true)]
async fn a_host_with_another_key_gets_no_password_for_sudo() {
    let wants = "sudo: a password is required\n";
    for (words, detail) in [
        (wants, "this host gets none: its host key is another one"),
        // What it shows does not matter.
        ("~password\n", ""),
    ] {
        let mut session = Sudo {
            has_changed: true,
            closes: true,
            ..Sudo::new(vec![
                ChannelEvent::Stdout("~root sudo 77\n".into()),
                ChannelEvent::Stderr(words.into()),
                ChannelEvent::Exited(ExitStatus::Code(1)),
            ])
        };
        let failure = becomes_root(&mut session, &with_password()).await;
        assert_eq!(failure.kind, FailureKind::Privilege);
        assert!(failure.detail.contains(detail), "{failure}");
        let record = session.record.lock().unwrap().clone();
        assert!(record.starts_with("no password;"), "{record}");
        assert!(!record.contains("s3cret"), "{record}");
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_sudo_does_the_password_is_sent_to_our_prompt_alone_and_once() {
    let out = |text: &str| ChannelEvent::Stdout(text.into());
    let err = |text: &str| ChannelEvent::Stderr(text.into());
    let exit = ChannelEvent::Exited(ExitStatus::Code(1));
    let sudo = || out("~root sudo 77\n");
    for (says, sent, kind, words) in [
        // Nothing of the sort is sent to what does not ask as it was told.
        (
            vec![sudo(), err("Verification code:")],
            "kill -KILL 77",
            FailureKind::Privilege,
            "Verification code:",
        ),
        (
            vec![sudo(), err("[sudo: ~pass"), exit],
            "kill -KILL 77",
            FailureKind::Privilege,
            "passprompt_override",
        ),
        (
            vec![err("Password:")],
            "",
            FailureKind::TimedOut,
            "login shell",
        ),
        (
            vec![out("~root sudo 0\n")],
            "",
            FailureKind::Unknown,
            "unknown way",
        ),
        (
            vec![out("~root su 5\n")],
            "",
            FailureKind::Unknown,
            "unknown way",
        ),
        (
            vec![out("~hello\n")],
            "",
            FailureKind::Unknown,
            "another was due",
        ),
        // In pieces, and as sudo-rs puts it.
        (
            vec![sudo(), err("[sudo: ~pass"), err("word\n] Password: ")],
            "s3cret\nkill -KILL 77",
            FailureKind::Privilege,
            "nothing more within 45 s",
        ),
        (
            vec![
                sudo(),
                err("~password\n"),
                err("Sorry, try again.\n~password\n"),
            ],
            "s3cret\nkill -KILL 77",
            FailureKind::Privilege,
            "tried once",
        ),
        // Not known whether it was taken: never retried.
        (
            vec![sudo(), err("~password\n"), out("~hello\n")],
            "s3cret\n",
            FailureKind::Privilege,
            "another was due; sudo had asked",
        ),
        // PAM's words for the user are on standard output, and are shown.
        (
            vec![
                out("~root sudo 77\nThe account is loc"),
                err("~password\n"),
                out("ked.\n"),
                err("Falsch!\n~password\n"),
            ],
            "s3cret\nkill -KILL 77",
            FailureKind::Privilege,
            "tried once, and printed: Falsch!\nThe account is locked.",
        ),
    ] {
        let told = format!("{says:?}");
        let mut session = Sudo::new(says);
        let record = session.record.clone();
        let node = with_password();
        let argv = ["true".to_string()];
        let failure = run(&mut session, &node, &argv, &Arc::default(), pending())
            .await
            .unwrap_err()
            .failed()
            .unwrap();
        assert_eq!(
            (failure.kind, failure.stage),
            (kind, Stage::Start),
            "{told}: {failure}"
        );
        assert!(failure.detail.contains(words), "{told}: {failure}");
        assert_eq!(*record.lock().unwrap(), sent, "{told}");
    }
}
