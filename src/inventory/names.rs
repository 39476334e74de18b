//! What may be a host name, a user name and a port, wherever an operator writes one.
//!
//! No fault quotes what was written: a wrong file may be read as an inventory, and it may hold a secret. The place is
//! told.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::error::InputError;

/// The longest host name of the DNS, in characters.
pub(super) const NAME_LIMIT: usize = 253;
/// The longest part of a host name between dots.
const LABEL_LIMIT: usize = 63;
/// Longer than any real login name.
const USER_LIMIT: usize = 128;

/// Whether a host name may hold this.
pub(super) fn is_name_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '-' | '.' | '_')
}

/// The fault of a character that may not stand in a host name.
pub(super) fn bad_character(text: &str, offset: usize) -> InputError {
    let found = text[offset..].chars().next().unwrap_or(' ');
    InputError::new(format!("'{found}' cannot stand in a host name"))
        .with_hint("names have letters, digits and - . _")
}

/// A port from 1 to 65535 in plain digits.
///
/// # Errors
/// What is wrong with it.
pub fn parse_port(text: &str) -> Result<u16, InputError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(port) if digits && port > 0 => Ok(port),
        _ => Err(InputError::new("this is no port").with_hint("write a number from 1 to 65535")),
    }
}

/// Whether this is a host name or an IP address (without brackets) that may be dialled.
///
/// A leading `-` is refused because an ssh client would take it for an option.
///
/// # Errors
/// What is wrong with it.
pub fn check_host(name: &str) -> Result<(), InputError> {
    if name.parse::<Ipv6Addr>().is_ok() {
        return Ok(());
    }
    let bad = |what: &str| Err(InputError::new(format!("this is no host name: {what}")));
    if name.is_empty() {
        return Err(InputError::new("a host name is missing here"));
    }
    if name.len() > NAME_LIMIT {
        return Err(InputError::new(format!(
            "a name of more than {NAME_LIMIT} characters"
        )));
    }
    if let Some(offset) = name.find(|c| !is_name_character(c)) {
        return Err(bad_character(name, offset));
    }
    if name.starts_with('-') {
        return bad("it starts with -");
    }
    let labels = name.strip_suffix('.').unwrap_or(name).split('.');
    for label in labels {
        if label.is_empty() {
            return bad("a part between its dots is empty");
        }
        if label.len() > LABEL_LIMIT {
            return bad("a part between its dots is longer than 63 characters");
        }
    }
    let numeric = name
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    if numeric && name.parse::<Ipv4Addr>().is_err() {
        // A range may have led here, and no password looks like this.
        let shown = if name.split('.').count() == 4 {
            name
        } else {
            "this"
        };
        return Err(InputError::new(format!(
            "{shown} is no host name: only digits and dots, but no IPv4 address"
        )));
    }
    Ok(())
}

/// Whether this is a name to log in with.
///
/// # Errors
/// What is wrong with it.
pub fn check_user(name: &str) -> Result<(), InputError> {
    let allowed =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '+' | '$' | '\\');
    if name.is_empty() {
        return Err(InputError::new("a user name is missing here"));
    }
    if name.len() > USER_LIMIT || name.starts_with('-') || !name.chars().all(allowed) {
        return Err(InputError::new("this is no user name")
            .with_hint("use letters, digits and . _ + $ \\ - (not first)"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_be_options_or_commands_are_refused() {
        for name in [
            "-v", "a b", "a;b", "a$(id)", "a\nb", "a\u{1b}", "", ".", "a..b", "1.2.3",
        ] {
            assert!(check_host(name).is_err(), "{name:?}");
        }
        for name in ["-l", "a b", "a@b", "a:b", "", "a\n", "größe", "$(id)"] {
            assert!(check_user(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn real_names_are_accepted() {
        for name in [
            "node-1",
            "node_1.example.",
            "10.0.0.1",
            "2001:db8::7",
            "7up.example",
        ] {
            assert!(check_host(name).is_ok(), "{name}");
        }
        for name in [
            "root",
            "first.last",
            "EXAMPLE\\admin",
            "machine$",
            "_svc",
            "a+b",
        ] {
            assert!(check_user(name).is_ok(), "{name}");
        }
        assert_eq!(parse_port("65535"), Ok(65535));
    }
}
