//! Passwords from the operator: at a prompt on the terminal, or on standard input.

use std::io::{ErrorKind, Read};

use zeroize::Zeroizing;

use super::error::CredentialError;
use super::terminal;
use crate::model::Secret;

/// Longer than any password or token.
const PASSWORD_LIMIT: usize = 64 * 1024;

/// Asks on the terminal itself (not standard input), without showing what is typed. Comes before the first thread of a
/// run.
///
/// # Errors
/// No terminal, no answer, or an empty answer.
pub fn prompt(question: &str) -> Result<Secret, CredentialError> {
    let answer = terminal::ask(question, PASSWORD_LIMIT).map_err(|reason| {
        let question = question.trim().trim_end_matches(':').to_string();
        match reason.kind() {
            ErrorKind::UnexpectedEof => CredentialError::NotAnswered { question },
            _ => CredentialError::NoTerminal { question, reason },
        }
    })?;
    check(answer)
}

/// Reads all of `reader` as a password; one newline at its end does not belong to it.
///
/// # Errors
/// Reading fails, or what comes is empty, too long or holds a NUL.
pub fn password_from(reader: impl Read) -> Result<Secret, CredentialError> {
    // With its full size from the start no half-read copy is left behind by growing.
    let mut bytes = Zeroizing::new(Vec::with_capacity(PASSWORD_LIMIT + 2));
    reader
        .take(PASSWORD_LIMIT as u64 + 2)
        .read_to_end(&mut bytes)
        .map_err(CredentialError::Input)?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    check(bytes)
}

fn check(mut bytes: Zeroizing<Vec<u8>>) -> Result<Secret, CredentialError> {
    if bytes.len() > PASSWORD_LIMIT {
        return Err(CredentialError::Password {
            problem: "the password is longer than 64 KiB; is it the right file?",
        });
    }
    if bytes.is_empty() {
        return Err(CredentialError::Password {
            problem: "the password is empty",
        });
    }
    if bytes.contains(&0) {
        return Err(CredentialError::Password {
            problem: "the password holds a NUL byte",
        });
    }
    Ok(Secret::new(std::mem::take(&mut *bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Vec<u8> {
        password_from(bytes).unwrap().expose().to_vec()
    }

    #[test]
    fn one_newline_at_the_end_is_not_part_of_the_password() {
        assert_eq!(read(b"secret\n"), b"secret");
        assert_eq!(read(b"secret\r\n"), b"secret");
        assert_eq!(read(b"secret"), b"secret");
        assert_eq!(read(b"two\nlines\n\n"), b"two\nlines\n");
        assert_eq!(read(b" spaces \r"), b" spaces \r");
        assert_eq!(read(&[0xff, 0xfe]), [0xff, 0xfe]);
    }

    #[test]
    fn what_is_no_password_is_refused_without_showing_it() {
        for (bytes, part) in [
            (b"".to_vec(), "empty"),
            (b"\n".to_vec(), "empty"),
            (b"hunter2\0".to_vec(), "NUL"),
            (b"hunter2".repeat(20_000), "longer than 64 KiB"),
        ] {
            let error = password_from(&bytes[..]).unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(shown.contains(part), "{shown}");
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        assert_eq!(read(&vec![b'x'; PASSWORD_LIMIT]).len(), PASSWORD_LIMIT);
    }
}
