//! Which of Ansible's variables matter here, and what a variable may hold.

use std::collections::BTreeMap;

use super::super::error::{InputError, Position};
use super::super::suggest;
use super::super::yaml::{Tree, Value};

/// The variables that are read. Of two names for one thing the later here wins, as in Ansible.
pub(super) const KNOWN: &[&str] = &[
    "ansible_host",
    "ansible_ssh_host",
    "ansible_port",
    "ansible_ssh_port",
    "ansible_user",
    "ansible_ssh_user",
    "ansible_private_key_file",
    "ansible_ssh_private_key_file",
    "ansible_ssh_args",
    "ansible_ssh_common_args",
    "ansible_ssh_extra_args",
    "ansible_become",
    "ansible_become_user",
    "ansible_become_method",
    "ansible_connection",
    "prepull_runtime",
    "prepull_runtime_endpoint",
];
/// Not a variable of hosts: it orders groups.
pub(super) const PRIORITY: &str = "ansible_group_priority";

/// What begins a text that Ansible's vault has encrypted.
pub(in crate::inventory) const VAULT: &str = "$ANSIBLE_VAULT";

/// What a variable holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    /// Nothing: it hides what weaker places say.
    Nothing,
    /// A text, number or truth value, as it was written.
    Text(String),
    /// A list or map, which none of the known variables can be.
    Compound,
    /// Something that only Ansible's vault can read.
    Vaulted,
}

/// Where something was said: a file, by its number, and the place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spot {
    pub file: usize,
    pub place: Position,
}

/// One variable as it was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    pub content: Content,
    pub spot: Spot,
}

/// The known variables that something has.
pub(super) type Variables = BTreeMap<&'static str, Said>;

/// The known variable of this name; `None` is one that does not matter.
///
/// # Errors
/// A name that begins like ours and is none of ours: a misspelt variable must not be lost in silence.
pub(super) fn known(name: &str) -> Result<Option<&'static str>, InputError> {
    let known = KNOWN.iter().copied().chain([PRIORITY]);
    let found = known.into_iter().find(|known| *known == name);
    if found.is_none() && name.starts_with("prepull_") {
        return Err(suggest::unknown_key(
            name,
            &["prepull_runtime", "prepull_runtime_endpoint"],
        ));
    }
    Ok(found)
}

/// What a YAML or JSON value holds.
pub(super) fn content(tree: &Tree) -> Content {
    match &tree.value {
        Value::Null => Content::Nothing,
        Value::Text(text) => of_text(text.clone()),
        Value::Map(entries) => match entries.as_slice() {
            // How `ansible-inventory --list` writes texts of these kinds.
            [(key, _)] if key.text == "__ansible_vault" => Content::Vaulted,
            [(key, inner)] if key.text == "__ansible_unsafe" => content(inner),
            _ => Content::Compound,
        },
        Value::List(_) | Value::Unfilled => Content::Compound,
    }
}

/// A text, unless it is a vaulted one.
pub(super) fn of_text(text: String) -> Content {
    if text.trim_start().starts_with(VAULT) {
        Content::Vaulted
    } else {
        Content::Text(text)
    }
}
