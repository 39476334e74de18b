//! What an unknown key was meant to be, and why some keys can never stand in an inventory.

use super::error::InputError;

/// Keys of other tools, and ours for the same thing.
const OTHER_NAMES: &[(&str, &str)] = &[
    ("ansible_become", "become"),
    ("ansible_host", "address"),
    ("ansible_port", "port"),
    ("ansible_ssh_private_key_file", "identity"),
    ("ansible_user", "user"),
    ("endpoint", "runtime_endpoint"),
    ("host", "name"),
    ("hostname", "address"),
    ("hosts", "nodes"),
    ("identities", "identity"),
    ("identity_file", "identity"),
    ("key", "identity"),
    ("proxy_jump", "jump"),
    ("ssh_key", "identity"),
    ("sudo", "become"),
    ("username", "user"),
    ("vars", "defaults"),
];

/// The fault of a key that is not among the known ones. The key's value is never shown.
pub(super) fn unknown_key(key: &str, known: &[&str]) -> InputError {
    let plain = key.to_ascii_lowercase().replace('-', "_");
    if let Some(fault) = forbidden(key, &plain) {
        return fault;
    }
    let fault = InputError::new(format!("unknown key \"{key}\""));
    let meant = known
        .iter()
        .find(|name| **name == plain)
        .or_else(|| {
            let (_, ours) = OTHER_NAMES.iter().find(|(theirs, _)| *theirs == plain)?;
            known.iter().find(|name| *name == ours)
        })
        .or_else(|| nearest(&plain, known));
    match meant {
        Some(name) => fault.with_hint(format!("did you mean \"{name}\"?")),
        None => fault.with_hint(format!("known here: {}", known.join(", "))),
    }
}

/// The known word that is at most a typing mistake away.
pub fn nearest<'a, 'b>(word: &str, known: &'a [&'b str]) -> Option<&'a &'b str> {
    // A word much longer than any key is not a typing mistake, and costs time to compare.
    if word.len() > 64 {
        return None;
    }
    known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(word, name), name))
        .filter(|(distance, name)| *distance <= 1 + name.len() / 5)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

fn forbidden(key: &str, plain: &str) -> Option<InputError> {
    let has = |parts: &[&str]| parts.iter().any(|part| plain.contains(part));
    if has(&["pass", "secret", "token", "credential"]) {
        return Some(
            InputError::new(format!("\"{key}\": an inventory cannot hold or ask for a secret"))
                .with_hint("remove it; passwords are asked for: --ask-pass, --ask-become-pass, --registry-user"),
        );
    }
    let squeezed = plain.replace('_', "");
    if squeezed.contains("hostkey") || squeezed.contains("knownhosts") {
        return Some(
            InputError::new(format!(
                "\"{key}\": an inventory cannot decide about host keys"
            ))
            .with_hint("remove it; use --host-keys or --known-hosts on the command line"),
        );
    }
    if has(&[
        "ssh_args",
        "extra_args",
        "common_args",
        "proxy_command",
        "ssh_options",
    ]) {
        return Some(
            InputError::new(format!(
                "\"{key}\": an inventory cannot hold ssh options or commands"
            ))
            .with_hint("use the keys user, port, identity and jump"),
        );
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &[
        "user",
        "port",
        "identity",
        "runtime_endpoint",
        "become",
        "address",
        "nodes",
    ];

    #[test]
    fn a_near_key_is_suggested() {
        for (key, meant) in [
            ("usr", "user"),
            ("User", "user"),
            ("prot", "port"),
            ("identities", "identity"),
            ("runtime-endpoint", "runtime_endpoint"),
            ("endpoint", "runtime_endpoint"),
            ("ansible_host", "address"),
            ("hosts", "nodes"),
            ("node", "nodes"),
        ] {
            assert_eq!(
                unknown_key(key, KNOWN).suggestion.unwrap(),
                format!("did you mean \"{meant}\"?"),
                "{key}"
            );
        }
    }

    #[test]
    fn a_far_key_gets_the_list() {
        let fault = unknown_key("colour", KNOWN);
        assert!(
            fault
                .suggestion
                .unwrap()
                .starts_with("known here: user, port")
        );
        assert!(
            unknown_key(&"x".repeat(1_000_000), KNOWN)
                .suggestion
                .is_some()
        );
    }

    #[test]
    fn secrets_and_host_keys_get_their_own_words() {
        for key in [
            "password",
            "ask_pass",
            "ansible_ssh_pass",
            "become-password",
            "passphrase",
            "token",
        ] {
            assert!(unknown_key(key, KNOWN).message.contains("secret"), "{key}");
        }
        for key in [
            "host_keys",
            "host-keys",
            "strict_host_key_checking",
            "StrictHostKeyChecking",
            "known_hosts",
        ] {
            assert!(
                unknown_key(key, KNOWN).message.contains("host keys"),
                "{key}"
            );
        }
        for key in ["ansible_ssh_common_args", "proxy_command"] {
            assert!(
                unknown_key(key, KNOWN).message.contains("ssh options"),
                "{key}"
            );
        }
    }
}
