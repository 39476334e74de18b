//! The conditions of `Match` lines, and the host patterns of `Host` lines.

use std::net::IpAddr;

use super::expand::{self, Tokens};
use super::lexer::Cursor;
use super::pattern::{self, Verdict};
use super::system_probe::SystemProbe;

/// What `Match version` sees: the release whose ssh_config is understood.
const VERSION: &str = "OpenSSH_10.0p2";
/// What `Match command` sees of the commands that the caller runs on a host.
const COMMAND: &str = "sh";

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition {
    negated: bool,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    All,
    /// `final` asks for a second reading of the files, `canonical` does not.
    SecondPass {
        wanted: bool,
    },
    Host(String),
    OriginalHost(String),
    User(String),
    LocalUser(String),
    Tagged(String),
    SessionType(String),
    Command(String),
    Version(String),
    LocalNetwork(String),
    Exec(String),
}

/// Reads what stands behind `Match`.
///
/// # Errors
/// A sentence: what is wrong and what would be right.
pub(super) fn read(rest: &str) -> Result<Vec<Condition>, String> {
    let mut cursor = Cursor::new(rest);
    let mut conditions = Vec::new();
    while let Some(word) = cursor.next_word() {
        if word.is_empty() {
            break;
        }
        if word.starts_with('#') {
            cursor.rest = None;
            break;
        }
        let (negated, name) = match word.strip_prefix('!') {
            Some(name) => (true, name.to_ascii_lowercase()),
            None => (false, word.to_ascii_lowercase()),
        };
        if name == "all" {
            let more = cursor.next_word().filter(|more| !more.is_empty());
            if conditions.len() > 1 || more.is_some_and(|more| !more.starts_with('#')) {
                return Err("\"all\" cannot be combined with other conditions".to_string());
            }
            conditions.push(Condition {
                negated,
                test: Test::All,
            });
            return Ok(conditions);
        }
        // `Match tagged ""` fits where there is no tag.
        let may_be_empty = matches!(name.as_str(), "tagged" | "command");
        let mut argument = || {
            let quoted = cursor
                .rest
                .is_some_and(|rest| rest.trim_start().starts_with('"'));
            cursor
                .next_word()
                .filter(|argument| !argument.is_empty() || (may_be_empty && quoted))
                .filter(|argument| !argument.starts_with('#'))
                .ok_or_else(|| format!("the condition \"{name}\" needs an argument"))
        };
        let test = match name.as_str() {
            "canonical" => Test::SecondPass { wanted: false },
            "final" => Test::SecondPass { wanted: true },
            "host" => Test::Host(argument()?),
            "originalhost" => Test::OriginalHost(argument()?),
            "user" => Test::User(argument()?),
            "localuser" => Test::LocalUser(argument()?),
            "tagged" => Test::Tagged(argument()?),
            "sessiontype" => Test::SessionType(argument()?),
            "command" => Test::Command(argument()?),
            "version" => Test::Version(argument()?),
            "localnetwork" => Test::LocalNetwork(networks(argument()?)?),
            "exec" => Test::Exec(argument()?),
            _ => {
                return Err(format!(
                    "\"{word}\" is not a condition: use all, host, originalhost, user, localuser, tagged, \
                     sessiontype, command, version, localnetwork, exec, canonical or final"
                ));
            }
        };
        conditions.push(Condition { negated, test });
    }
    if conditions.is_empty() {
        return Err("Match needs a condition: use \"Match all\" for every host".to_string());
    }
    if cursor.rest.is_some_and(|rest| !rest.is_empty()) {
        return Err("there is more behind the conditions".to_string());
    }
    Ok(conditions)
}

fn networks(list: String) -> Result<String, String> {
    let nowhere = IpAddr::from([0, 0, 0, 0]);
    match list
        .split(',')
        .find(|network| pattern::network_holds(network, nowhere).is_none())
    {
        Some(wrong) => Err(format!(
            "\"{wrong}\" is not a network: write address/length"
        )),
        None => Ok(list),
    }
}

/// What conditions are compared with.
pub(super) struct Subject<'a> {
    /// The tokens of this moment: host, user and port as far as they are known.
    pub tokens: Tokens<'a>,
    /// Another name of the host.
    pub also: Option<&'a str>,
    pub tag: &'a str,
    /// Whether the session only forwards, as one to a jump host does.
    pub only_forwards: bool,
    pub second_pass: bool,
    /// Whether the block can apply at all; commands are not run where it cannot.
    pub can_apply: bool,
}

/// The answer of a `Match` line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    pub applies: bool,
    /// The line asks for a second reading of the files.
    pub wants_second_pass: bool,
}

/// Holds the conditions against the subject.
///
/// # Errors
/// A sentence, for a command that cannot be run or an unknown token in it.
pub(super) fn answer(
    conditions: &[Condition],
    subject: &Subject<'_>,
    system_probe: &dyn SystemProbe,
) -> Result<Answer, String> {
    let tokens = &subject.tokens;
    let fits = |text: &str, list: &str| pattern::list(text, list, false) == Verdict::Yes;
    let fits_or_both_empty = |text: &str, list: &str| match text {
        "" => list.is_empty(),
        text => fits(text, list),
    };
    let mut answer = Answer {
        applies: true,
        wants_second_pass: false,
    };
    for Condition { negated, test } in conditions {
        let holds = match test {
            Test::All => true,
            Test::SecondPass { wanted } => {
                answer.wants_second_pass |= wanted;
                subject.second_pass
            }
            Test::Host(list) => {
                let mut names = std::iter::once(tokens.host).chain(subject.also);
                names.any(|name| pattern::host(name, list))
            }
            Test::OriginalHost(list) => pattern::host(tokens.original, list),
            Test::User(list) => fits(tokens.user, list),
            Test::LocalUser(list) => fits(&tokens.ambient.user, list),
            Test::Tagged(list) => fits_or_both_empty(subject.tag, list),
            Test::SessionType(list) => fits(
                if subject.only_forwards {
                    "none"
                } else {
                    "exec"
                },
                list,
            ),
            Test::Command(list) => {
                let command = if subject.only_forwards { "" } else { COMMAND };
                fits_or_both_empty(command, list)
            }
            Test::Version(list) => fits(VERSION, list),
            Test::LocalNetwork(list) => system_probe.local_addresses().into_iter().any(|address| {
                list.split(',')
                    .any(|network| pattern::network_holds(network, address) == Some(true))
            }),
            Test::Exec(command) => {
                let command = tokens.expand(command, expand::EXEC)?;
                if !answer.applies || !subject.can_apply {
                    continue;
                }
                system_probe
                    .run(&command)
                    .map_err(|error| format!("Match exec \"{command}\": {error}"))?
            }
        };
        if holds == *negated {
            answer.applies = false;
        }
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn wrong_conditions_are_named() {
        for (rest, word) in [
            ("", "needs a condition"),
            ("host", "\"host\" needs"),
            ("host # x", "\"host\" needs"),
            ("planet earth", "\"planet\""),
            ("host a user b all", "all"),
            ("all host a", "all"),
            ("localnetwork 10.0.0.0/99", "10.0.0.0/99"),
        ] {
            let error = read(rest).unwrap_err();
            assert!(error.contains(word), "{rest}: {error}");
        }
    }

    #[test]
    fn conditions_are_read_with_equals_signs_quotes_and_comments() {
        let plain = read("host a exec b").unwrap();
        assert_eq!(read("host=a exec=\"b\" # c").unwrap(), plain);
        assert_eq!(read("HOST a Exec b").unwrap(), plain);
        assert_eq!(read("canonical all # x").unwrap().len(), 2);
    }

    proptest! {
        #[test]
        fn any_conditions_are_read_without_panic(rest in any::<String>()) {
            let _ = read(&rest);
        }
    }
}
