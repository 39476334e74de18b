//! Flags as crictl's own parser takes them: one or two dashes, `=value` or the next word, none after the first name.

use std::collections::HashMap;

/// A flag: its names, the variable that stands in for it ("" for none), and whether it takes a value.
pub struct Flag(pub &'static [&'static str], pub &'static str, pub bool);

/// What was given: flags by their first name, then the words that are no flags.
#[derive(Default)]
pub struct Given {
    /// Flag values; "true" for a flag that takes none.
    pub flags: HashMap<&'static str, String>,
    /// The rest of the line.
    pub words: Vec<String>,
}

impl Given {
    /// The value of a flag.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.flags.get(name).map(String::as_str)
    }
}

/// Read a line; the error is what crictl prints.
pub fn parse(known: &[Flag], line: &[String]) -> Result<Given, String> {
    let mut given = Given::default();
    for Flag(names, variable, _) in known {
        if let Some(value) = std::env::var(variable)
            .ok()
            .filter(|value| !variable.is_empty() && !value.is_empty())
        {
            given.flags.insert(names[0], value);
        }
    }
    let mut rest = line.iter();
    while let Some(word) = rest.next() {
        if word == "--" || !word.starts_with('-') || word == "-" {
            given.words.extend((word != "--").then(|| word.clone()));
            given.words.extend(rest.cloned());
            break;
        }
        let bare = word.trim_start_matches('-');
        let (name, mut value) = match bare.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (bare, None),
        };
        let Some(Flag(names, _, takes_value)) = known.iter().find(|flag| flag.0.contains(&name))
        else {
            return Err(format!("flag provided but not defined: -{name}"));
        };
        if *takes_value && value.is_none() {
            value = Some(
                rest.next()
                    .cloned()
                    .ok_or(format!("flag needs an argument: {word}"))?,
            );
        }
        given
            .flags
            .insert(names[0], value.unwrap_or_else(|| "true".into()));
    }
    Ok(given)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[Flag] = &[
        Flag(&["output", "o"], "", true),
        Flag(&["quiet", "q"], "", false),
    ];

    fn line(words: &str) -> Vec<String> {
        words.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn flags_come_before_names_in_all_their_spellings() {
        for text in [
            "-o json -q a b",
            "--output=json --quiet a b",
            "-output json -q -- a b",
        ] {
            let given = parse(KNOWN, &line(text)).unwrap();
            assert_eq!(given.value("output"), Some("json"));
            assert!(given.value("quiet").is_some());
            assert_eq!(given.words, ["a", "b"]);
        }
    }

    #[test]
    fn an_unknown_flag_is_named() {
        let error = parse(KNOWN, &line("--no-such-flag a")).err();
        assert_eq!(
            error.as_deref(),
            Some("flag provided but not defined: -no-such-flag")
        );
    }
}
