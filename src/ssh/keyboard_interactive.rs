//! What a question in a keyboard-interactive login (RFC 4256) wants: PAM's modules and their prompts.

/// What a question wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// The login password.
    Password,
    /// A new password, or the old one on the way to it.
    NewPassword,
    /// Something that only a person has, such as a one-time code.
    Person,
}

/// Words of questions for a second factor, some of which say "password" too ("One-time password (OATH)").
const SECOND_FACTOR: [&str; 17] = [
    "one time",
    "onetime",
    "otp",
    "totp",
    "oath",
    "code",
    "passcode",
    "tokencode",
    "token",
    "pin",
    "verification",
    "challenge",
    "response",
    "factor",
    "duo",
    "yubikey",
    "authenticator",
];

/// Words of questions for a change: pam_unix asks for the "Current password" and then for a "New password".
const CHANGE: [&str; 5] = ["new", "retype", "current", "old", "again"];

/// Which one this question wants. A hidden question in unknown words (they may be translated) is
/// taken for one for the password; sent to the wrong one it would only be refused.
pub(super) fn answer(question: &str, is_shown: bool) -> Answer {
    let letters = |letter: char| {
        if letter.is_alphanumeric() {
            letter
        } else {
            ' '
        }
    };
    let words: String = question.to_lowercase().chars().map(letters).collect();
    let words = format!(" {words} ");
    let has = |some: &[&str]| some.iter().any(|word| words.contains(&format!(" {word} ")));
    if is_shown || has(&SECOND_FACTOR) {
        Answer::Person
    } else if has(&CHANGE) {
        Answer::NewPassword
    } else {
        Answer::Password
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_for_the_password_are_told_from_those_for_a_second_factor() {
        for (question, expected) in [
            ("Password: ", Answer::Password),
            ("(root@spinner) Password: ", Answer::Password),
            ("Mot de passe : ", Answer::Password),
            ("Verification code: ", Answer::Person),
            ("One-time password (OATH) for `root': ", Answer::Person),
            ("Passcode or option (1-3): ", Answer::Person),
            ("YubiKey for `root': ", Answer::Person),
            ("Current password: ", Answer::NewPassword),
            ("(current) UNIX password: ", Answer::NewPassword),
            ("Retype new password: ", Answer::NewPassword),
        ] {
            assert_eq!(answer(question, false), expected, "{question}");
        }
        assert_eq!(answer("Password: ", true), Answer::Person);
    }
}
