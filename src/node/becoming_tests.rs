//! What sudo and doas say, and what we make of it.

use std::future::pending;
use std::sync::{Arc, Mutex};

use super::super::run;
use super::*;
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
        })
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
        if self.says.is_empty() {
            return std::future::pending().await;
        }
        Ok(Some(self.says.remove(0)))
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
        let record = Arc::new(Mutex::new(String::new()));
        let mut session = Sudo {
            says,
            record: record.clone(),
        };
        let node = Node {
            become_root: true,
            become_password: Some(Secret::new("s3cret")),
            ..super::super::tests::node()
        };
        let argv = ["true".to_string()];
        let failure = run(&mut session, &node, &argv, pending())
            .await
            .unwrap_err();
        assert_eq!(
            (failure.kind, failure.stage),
            (kind, Stage::Start),
            "{told}: {failure}"
        );
        assert!(failure.detail.contains(words), "{told}: {failure}");
        assert_eq!(*record.lock().unwrap(), sent, "{told}");
    }
}
