//! What sudo and doas say, and what we make of it.

use super::*;

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
