//! `ansible_ssh_common_args` and its like: the way to a host, and options for the resolver of ssh_config.

use super::super::error::InputError;
use super::super::layers::{self, JumpSpec};
use super::ini_words;

/// Options of ssh that take a value, as in its manual.
const WITH_VALUE: &str = "BbcDEeFIiJLlmOoPpQRSWw";
/// Short options that stand for an option of ssh_config.
const SHORT: &[(char, &str)] = &[
    ('b', "BindAddress="),
    ('B', "BindInterface="),
    ('c', "Ciphers="),
    ('I', "PKCS11Provider="),
    ('m', "MACs="),
    ('4', "AddressFamily=inet"),
    ('6', "AddressFamily=inet6"),
    ('A', "ForwardAgent=yes"),
];
/// How Ansible's own connections are shared: nothing that a node is reached by.
const SHARING: &[&str] = &["controlmaster", "controlpath", "controlpersist"];

/// What arguments of ssh say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SshArguments {
    /// `-J`, `-o ProxyJump=`.
    pub jump: Option<Vec<JumpSpec>>,
    /// `-o ProxyCommand=`; never beside a jump.
    pub proxy_command: Option<String>,
    /// All other options, as lines of ssh_config, in order: the first of a name counts.
    pub options: Vec<String>,
}

impl SshArguments {
    /// Adds arguments that come after those before.
    ///
    /// Those that would log in elsewhere or as another user are errors: they have variables of their own.
    /// So are words that are not options. What only concerns a terminal, forwarding or logging is left out.
    pub(super) fn add(&mut self, arguments: &str) -> Result<(), InputError> {
        let words = ini_words::arguments(arguments).map_err(|(_, fault)| fault)?;
        let mut words = words.into_iter().map(|word| word.text.trim().to_string());
        while let Some(word) = words.next() {
            if word.is_empty() {
                continue;
            }
            let Some(letters) = word.strip_prefix('-').filter(|rest| !rest.is_empty()) else {
                return Err(InputError::new("a word in it is no option of ssh"));
            };
            for (at, letter) in letters.char_indices() {
                if !WITH_VALUE.contains(letter) {
                    self.short(letter, "");
                    continue;
                }
                let value = match &letters[at + letter.len_utf8()..] {
                    "" => words
                        .next()
                        .ok_or_else(|| InputError::new(format!("-{letter} has no value")))?,
                    rest => rest.to_string(),
                };
                self.with_value(letter, &value)?;
                break;
            }
        }
        Ok(())
    }

    fn with_value(&mut self, letter: char, value: &str) -> Result<(), InputError> {
        match letter {
            'J' => self.jump(value)?,
            'o' => self.option(value)?,
            'i' => return Err(elsewhere("-i", "ansible_ssh_private_key_file")),
            'l' => return Err(elsewhere("-l", "ansible_user")),
            'p' => return Err(elsewhere("-p", "ansible_port")),
            'F' => return Err(elsewhere("-F", "the option --ssh-config")),
            'W' => return Err(elsewhere("-W", "-J")),
            other => self.short(other, value),
        }
        Ok(())
    }

    fn short(&mut self, letter: char, value: &str) {
        if let Some((_, option)) = SHORT.iter().find(|(short, _)| *short == letter) {
            self.options.push(format!("{option}{value}"));
        }
    }

    fn option(&mut self, text: &str) -> Result<(), InputError> {
        let blank = |c: char| c == '=' || c.is_whitespace();
        let (name, value) = text.split_at(text.find(blank).unwrap_or(text.len()));
        let value = value.trim_start_matches(blank);
        let name = name.to_ascii_lowercase();
        match name.as_str() {
            "proxyjump" => self.jump(value)?,
            "proxycommand" => {
                // As with ssh: of a jump and a command the first one said counts, unless the jump is none.
                if self.jump.as_ref().is_none_or(Vec::is_empty) && self.proxy_command.is_none() {
                    self.proxy_command = Some(value.to_string());
                    self.jump = None;
                }
            }
            "user" => return Err(elsewhere("User", "ansible_user")),
            "port" => return Err(elsewhere("Port", "ansible_port")),
            "hostname" => return Err(elsewhere("HostName", "ansible_host")),
            "identityfile" => {
                return Err(elsewhere("IdentityFile", "ansible_ssh_private_key_file"));
            }
            other if SHARING.contains(&other) => {}
            _ => self.options.push(text.to_string()),
        }
        Ok(())
    }

    fn jump(&mut self, chain: &str) -> Result<(), InputError> {
        let chain = layers::jump_chain(chain)?;
        if self.jump.is_none() && self.proxy_command.is_none() {
            self.jump = Some(chain);
        }
        Ok(())
    }
}

fn elsewhere(option: &str, right: &str) -> InputError {
    InputError::new(format!("{option} is not read from ssh arguments"))
        .with_hint(format!("use {right}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &str) -> Result<SshArguments, InputError> {
        let mut read = SshArguments::default();
        read.add(arguments).map(|()| read)
    }

    fn shown(arguments: &str) -> String {
        match read(arguments) {
            Ok(SshArguments {
                jump: Some(chain), ..
            }) => {
                let hosts: Vec<_> = chain.into_iter().map(|hop| hop.host).collect();
                hosts.join(",")
            }
            Ok(SshArguments {
                proxy_command: Some(command),
                ..
            }) => command,
            Ok(_) => "-".into(),
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
            ("", "-"),
        ] {
            assert_eq!(shown(arguments), hosts, "{arguments}");
        }
    }

    #[test]
    fn a_proxy_command_is_taken_as_a_shell_would_hand_it_to_ssh() {
        for (arguments, command) in [
            (
                "-o ProxyCommand=\"ssh -W %h:%p -q bastion\"",
                "ssh -W %h:%p -q bastion",
            ),
            (
                "-o 'ProxyCommand ssh -i \"my key\" -W %h:%p b'",
                "ssh -i \"my key\" -W %h:%p b",
            ),
            ("-oProxyCommand='nc %h %p # x'", "nc %h %p # x"),
            ("-o ProxyCommand=nc\\ %h\\ %p#", "nc %h %p#"),
            (
                "-o \"ProxyCommand=sh -c \\\"nc %h %p\\\"\"",
                "sh -c \"nc %h %p\"",
            ),
            ("-o ProxyCommand=none", "none"),
            ("-o ProxyCommand=x -J a", "x"),
            ("-J a -o ProxyCommand=x", "a"),
            ("-J none -o ProxyCommand=x", "x"),
            ("-o ProxyCommand=x -o ProxyCommand=y", "x"),
        ] {
            assert_eq!(shown(arguments), command, "{arguments}");
        }
    }

    #[test]
    fn other_options_are_kept_in_order() {
        let read = read(
            "-C -4 -o ConnectTimeout=5 -o 'ServerAliveInterval 30' -o ControlPath=/tmp/x -tt \
             -c aes128-ctr -A -J a -o Foo=bar",
        );
        assert_eq!(
            read.unwrap().options,
            [
                "AddressFamily=inet",
                "ConnectTimeout=5",
                "ServerAliveInterval 30",
                "Ciphers=aes128-ctr",
                "ForwardAgent=yes",
                "Foo=bar"
            ]
        );
    }

    #[test]
    fn what_would_lead_elsewhere_is_an_error() {
        for (arguments, part) in [
            ("-i key", "ansible_ssh_private_key_file"),
            ("-p 22", "ansible_port"),
            ("-F cfg", "--ssh-config"),
            ("-W a:22", "-J"),
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
            let _ = read(&text);
        }
    }
}
