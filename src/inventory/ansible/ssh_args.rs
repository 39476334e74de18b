//! The jump hosts in `ansible_ssh_common_args` and its like; other ssh options are weighed, not obeyed.

use super::super::error::Fault;
use super::super::levels::{self, JumpSpec};
use super::ini_words;

/// Options of ssh that take a value, as in its manual.
const WITH_VALUE: &str = "BbcDEeFIiJLlmOoPpQRSWw";

/// The jump chain that ssh would take from these arguments; the first one said wins.
///
/// Options that only tune a connection or loosen its checks are left out. Those that would lead somewhere
/// else, or log in as somebody else, are errors: they have variables of their own.
pub(super) fn jump(arguments: &str) -> Result<Option<Vec<JumpSpec>>, Fault> {
    let words = ini_words::split(arguments).map_err(|(_, fault)| fault)?;
    let mut words = words.into_iter().map(|word| word.text);
    let mut jump = None;
    while let Some(word) = words.next() {
        let Some(letters) = word.strip_prefix('-').filter(|rest| !rest.is_empty()) else {
            return Err(Fault::new(format!("\"{word}\" is no option of ssh")));
        };
        let valued = letters
            .char_indices()
            .find(|(_, c)| WITH_VALUE.contains(*c));
        let Some((at, option)) = valued else {
            continue;
        };
        let value = match &letters[at + option.len_utf8()..] {
            "" => words
                .next()
                .ok_or_else(|| Fault::new(format!("-{option} has no value")))?,
            rest => rest.to_string(),
        };
        let found = match option {
            'J' => Some(value),
            'o' => option_o(&value)?,
            'i' => return Err(elsewhere("-i", "ansible_ssh_private_key_file")),
            'l' => return Err(elsewhere("-l", "ansible_user")),
            'p' => return Err(elsewhere("-p", "ansible_port")),
            'F' => return Err(elsewhere("-F", "the option --ssh-config")),
            'W' => return Err(elsewhere("-W", "-J")),
            _ => None,
        };
        if let Some(chain) = found.filter(|_| jump.is_none()) {
            jump = Some(levels::jump_chain(&chain)?);
        }
    }
    Ok(jump)
}

/// The chain of `-o ProxyJump=...`.
fn option_o(text: &str) -> Result<Option<String>, Fault> {
    let end = text.find(|c: char| c == '=' || c.is_whitespace());
    let (name, value) = text.split_at(end.unwrap_or(text.len()));
    let value = value.trim_start_matches(|c: char| c == '=' || c.is_whitespace());
    Ok(match name.to_ascii_lowercase().as_str() {
        "proxyjump" => Some(value.to_string()),
        "proxycommand" if value == "none" => None,
        "proxycommand" => {
            return Err(Fault::new("ProxyCommand is not supported yet")
                .but("go through jump hosts: -J user@host:port or -o ProxyJump=..."));
        }
        "user" => return Err(elsewhere("User", "ansible_user")),
        "port" => return Err(elsewhere("Port", "ansible_port")),
        "hostname" => return Err(elsewhere("HostName", "ansible_host")),
        "identityfile" => return Err(elsewhere("IdentityFile", "ansible_ssh_private_key_file")),
        _ => None,
    })
}

fn elsewhere(option: &str, right: &str) -> Fault {
    Fault::new(format!("{option} is not read from ssh arguments")).but(format!("use {right}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(arguments: &str) -> String {
        match jump(arguments) {
            Ok(None) => "-".into(),
            Ok(Some(chain)) => {
                let hosts: Vec<_> = chain.into_iter().map(|hop| hop.host).collect();
                hosts.join(",")
            }
            Err(fault) => fault.to_string(),
        }
    }

    #[test]
    fn jump_hosts_are_found_in_every_spelling() {
        for (arguments, hosts) in [
            ("-J ops@a:2222,b", "a,b"),
            ("-Ja", "a"),
            ("-o ProxyJump=a", "a"),
            ("-oproxyjump=a", "a"),
            ("-o 'ProxyJump a'", "a"),
            ("-C -o ControlMaster=auto -o ControlPersist=60s -J a", "a"),
            ("-J a -J b", "a"),
            ("-4vJ a", "a"),
            ("-o StrictHostKeyChecking=no", "-"),
            ("-o ProxyCommand=none", "-"),
            ("", "-"),
        ] {
            assert_eq!(shown(arguments), hosts, "{arguments}");
        }
    }

    #[test]
    fn what_would_lead_elsewhere_is_an_error() {
        for (arguments, part) in [
            ("-o ProxyCommand='ssh -W %h:%p a'", "-J user@host:port"),
            ("-i key", "ansible_ssh_private_key_file"),
            ("-p 22", "ansible_port"),
            ("-F cfg", "--ssh-config"),
            ("-o User=x", "ansible_user"),
            ("-J", "has no value"),
            ("host", "no option"),
            ("-J 'a b'", "commas"),
            ("'", "not closed"),
        ] {
            assert!(
                shown(arguments).contains(part),
                "{arguments}: {}",
                shown(arguments)
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "[-JoiW =a'\\\\ü]{0,12}|\\PC*") {
            let _ = jump(&text);
        }
    }
}
