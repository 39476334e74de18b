//! Reads the value of one option and what `ssh` refuses there.

use super::expand;
use super::jump;
use super::lexer;
use super::scalar::{domain, number, port, time};
use super::system_probe::LocalEnv;
use super::table::{Kind, Spec};
use super::types::JumpHost;

/// The value of one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Number(u32),
    Words(Vec<String>),
    Pairs(Vec<(String, String)>),
    /// `None`: explicitly no jump.
    Jump(Option<Vec<JumpHost>>),
    /// The line is right and sets nothing.
    Nothing,
}

/// Known hosts files, domains and rules that one option may hold.
const MOST_WORDS: usize = 32;

/// Reads the value that `rest` holds, already cut into `words`.
///
/// # Errors
/// A sentence: what is wrong and what would be right.
pub(super) fn read(
    spec: &Spec,
    rest: &str,
    words: Vec<String>,
    ambient: &LocalEnv,
) -> Result<Value, String> {
    let mut words = words.into_iter();
    let value = match spec.kind {
        Kind::Command => return Ok(Value::Text(raw(rest).to_string())),
        Kind::Jump => {
            return jump::parse(raw(rest)).map(Value::Jump).map_err(|element| {
                format!("\"{element}\" is not a host to jump through: write [user@]host[:port]")
            });
        }
        Kind::Dropped | Kind::Unsupported | Kind::Host | Kind::Match | Kind::Include => {
            return Ok(Value::Nothing);
        }
        Kind::Words => return lone_none(words.collect()).map(Value::Words),
        Kind::Domains => return domains(words.collect()).map(Value::Words),
        Kind::Cnames => return cnames(words.collect()).map(Value::Pairs),
        Kind::SendEnv => return send_env(words.collect()).map(Value::Words),
        Kind::SetEnv => return set_env(words.collect()).map(Value::Words),
        Kind::Loose(least, most) => {
            let all: Vec<String> = words.collect();
            if all.len() < least || all.len() > most || all[0].is_empty() {
                return Err("the number of arguments is wrong".to_string());
            }
            return Ok(Value::Text(all.join(" ")));
        }
        Kind::AddKeys => add_keys(words.next(), words.next())?,
        kind => one_word(kind, &some(words.next())?, ambient)?,
    };
    match words.next() {
        Some(more) => Err(format!("\"{more}\" is one argument too many")),
        None => Ok(value),
    }
}

/// What a command is: everything behind the keyword, comments and quotes included.
fn raw(rest: &str) -> &str {
    rest.trim_start_matches([' ', '\t', '\r', '\n', '='])
}

fn some(word: Option<String>) -> Result<String, String> {
    word.filter(|word| !word.is_empty())
        .ok_or_else(|| "an argument is missing".to_string())
}

fn one_word(kind: Kind, word: &str, ambient: &LocalEnv) -> Result<Value, String> {
    Ok(match kind {
        Kind::Choice(choices) => Value::Text(choice(choices, word)?),
        Kind::Time if word == "none" => Value::Nothing,
        Kind::Time => Value::Number(time(word).ok_or_else(|| {
            format!("\"{word}\" is not a time: write seconds, or 30s, 5m, 1h30m, 2d, 1w")
        })?),
        Kind::Number => {
            Value::Number(number(word).ok_or_else(|| {
                format!("\"{word}\" is not a whole number from 0 to {}", i32::MAX)
            })?)
        }
        Kind::Port => Value::Number(u32::from(port(word).ok_or_else(|| {
            format!("\"{word}\" is not a port: write a number from 1 to 65535")
        })?)),
        Kind::Algorithms(family) => {
            family
                .check(word)
                .map_err(|name| format!("\"{name}\" is not an algorithm that fits here"))?;
            Value::Text(word.to_string())
        }
        Kind::ForwardAgent => match choice(FLAG, word) {
            Ok(flag) => Value::Text(flag),
            Err(_) => agent_path(word, ambient)?,
        },
        Kind::AgentPath => agent_path(word, ambient)?,
        _ => Value::Text(word.to_string()),
    })
}

const FLAG: &[(&str, &str)] = &[
    ("yes", "yes"),
    ("true", "yes"),
    ("no", "no"),
    ("false", "no"),
];

fn choice(choices: &[(&str, &str)], word: &str) -> Result<String, String> {
    choices
        .iter()
        .find(|(written, _)| written.eq_ignore_ascii_case(word))
        .map(|(_, meaning)| (*meaning).to_string())
        .ok_or_else(|| {
            let all: Vec<&str> = choices.iter().map(|(written, _)| *written).collect();
            format!(
                "\"{word}\" does not fit here: use one of {}",
                all.join(", ")
            )
        })
}

/// A path, or `$NAME`, whose `${NAME}` variables must be set when the line is read.
fn agent_path(word: &str, ambient: &LocalEnv) -> Result<Value, String> {
    expand::variables(word, &ambient.environment)?;
    if let Some(name) = word.strip_prefix('$')
        && !name.starts_with('{')
        && (name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
    {
        return Err(format!(
            "\"{word}\" is not the name of an environment variable"
        ));
    }
    Ok(Value::Text(word.to_string()))
}

/// yes, no, ask, `confirm [time]`, or a time.
fn add_keys(first: Option<String>, second: Option<String>) -> Result<Value, String> {
    let first = some(first)?;
    let wrong = || "use yes, no, ask, confirm (and a time), or a time".to_string();
    let flag = choice(FLAG, &first).ok().or_else(|| {
        ["ask", "confirm"]
            .iter()
            .find(|word| first.eq_ignore_ascii_case(word))
            .map(|word| (*word).to_string())
    });
    match (flag.as_deref(), second) {
        (Some("confirm"), Some(for_long)) => {
            time(&for_long).ok_or_else(wrong)?;
            Ok(Value::Text("confirm".to_string()))
        }
        (Some(flag), None) => Ok(Value::Text(flag.to_string())),
        (None, None) => {
            time(&first).ok_or_else(wrong)?;
            Ok(Value::Text("yes".to_string()))
        }
        _ => Err(wrong()),
    }
}

/// Words that are not empty, of which `none` may only stand alone.
fn lone_none(words: Vec<String>) -> Result<Vec<String>, String> {
    if words.iter().any(String::is_empty) {
        return Err("an argument is empty".to_string());
    }
    if words.len() > 1 && words.iter().any(|word| word.eq_ignore_ascii_case("none")) {
        return Err("\"none\" must stand alone".to_string());
    }
    if words.len() > MOST_WORDS {
        return Err(format!("there are more than {MOST_WORDS} arguments"));
    }
    Ok(words)
}

fn domains(words: Vec<String>) -> Result<Vec<String>, String> {
    lone_none(words)?
        .iter()
        .map(|word| domain(word).map(str::to_ascii_lowercase))
        .collect()
}

fn cnames(words: Vec<String>) -> Result<Vec<(String, String)>, String> {
    let several = words.len() > 1;
    let mut rules = Vec::with_capacity(words.len());
    for word in words {
        if word.eq_ignore_ascii_case("none") {
            if several {
                return Err("\"none\" must stand alone".to_string());
            }
            rules.push((word, String::new()));
        } else if word == "*" {
            rules.push(("*".to_string(), "*".to_string()));
        } else {
            let lower = word.to_ascii_lowercase();
            match lower.split_once(':') {
                Some((from, to)) if !to.is_empty() => {
                    rules.push((from.to_string(), to.to_string()))
                }
                _ => {
                    return Err(format!(
                        "\"{word}\" is not a pair of lists: write from:to, or none"
                    ));
                }
            }
        }
    }
    if rules.len() > MOST_WORDS {
        return Err(format!("there are more than {MOST_WORDS} arguments"));
    }
    Ok(rules)
}

fn send_env(words: Vec<String>) -> Result<Vec<String>, String> {
    match words
        .iter()
        .find(|word| word.is_empty() || word.contains('='))
    {
        Some(wrong) => Err(format!(
            "\"{wrong}\" is not the name of an environment variable"
        )),
        None => Ok(words),
    }
}

fn set_env(words: Vec<String>) -> Result<Vec<String>, String> {
    let mut pairs: Vec<String> = Vec::with_capacity(words.len());
    for word in words {
        let Some((name, _)) = word.split_once('=') else {
            return Err(format!("\"{word}\" is not a pair: write NAME=value"));
        };
        let there = |pair: &String| pair.split_once('=').is_some_and(|(known, _)| known == name);
        if !pairs.iter().any(there) {
            pairs.push(word);
        }
    }
    Ok(pairs)
}

/// The words of a line.
///
/// # Errors
/// A sentence, where a quote never closes.
pub(super) fn words(rest: &str) -> Result<Vec<String>, String> {
    lexer::words(rest).map_err(|lexer::OpenQuote| "a quote is never closed".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table;
    use proptest::prelude::*;

    fn ambient() -> LocalEnv {
        LocalEnv {
            user: "me".into(),
            uid: 1000,
            home: "/home/me".into(),
            hostname: "here".into(),
            environment: [("SET".to_string(), "x".to_string())].into(),
        }
    }

    fn value(option: &str, rest: &str) -> Result<Value, String> {
        read(table::find(option).unwrap(), rest, words(rest)?, &ambient())
    }

    #[test]
    fn words_that_do_not_fit_are_named_with_what_would() {
        assert_eq!(value("batchmode", "TRUE"), Ok(Value::Text("yes".into())));
        let error = value("batchmode", "maybe").unwrap_err();
        assert!(
            error.contains("maybe") && error.contains("yes, true, no, false"),
            "{error}"
        );
        assert!(value("user", "a b").unwrap_err().contains("too many"));
        assert!(value("user", "\"\"").is_err());
        assert_eq!(value("connecttimeout", "none"), Ok(Value::Nothing));
    }

    #[test]
    fn lists_keep_none_alone() {
        assert!(value("userknownhostsfile", "a none").is_err());
        assert_eq!(
            value("userknownhostsfile", "a b # c"),
            Ok(Value::Words(vec!["a".into(), "b".into()]))
        );
        assert_eq!(
            value("canonicaldomains", "A.Example. b"),
            Ok(Value::Words(vec!["a.example".into(), "b".into()]))
        );
        assert!(value("canonicaldomains", "-a").is_err());
        assert!(value("canonicalizepermittedcnames", "a:").is_err());
    }

    #[test]
    fn commands_keep_their_quotes_and_hashes() {
        assert_eq!(
            value("proxycommand", "= nc '%h' # x"),
            Ok(Value::Text("nc '%h' # x".into()))
        );
    }

    #[test]
    fn agents_want_their_variables_set() {
        assert!(value("identityagent", "${SET}/sock").is_ok());
        assert!(value("identityagent", "${UNSET}/sock").is_err());
        assert!(
            value("identityagent", "$NAME").is_ok() && value("identityagent", "$NA-ME").is_err()
        );
        assert!(
            value("addkeystoagent", "confirm 5m").is_ok()
                && value("addkeystoagent", "yes 5m").is_err()
        );
    }

    proptest! {
        #[test]
        fn any_value_of_any_option_is_read_without_panic(name in "[a-z]{4,30}", text in any::<String>(), index in 0usize..200) {
            let _ = table::find(&name);
            if let (Some(spec), Ok(words)) = (table::by_index(index), words(&text)) {
                let _ = read(spec, &text, words, &ambient());
            }
        }
    }
}
