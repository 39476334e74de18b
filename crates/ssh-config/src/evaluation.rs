//! One reading of the files for one host: which blocks apply, and which value comes first.

use std::collections::BTreeMap;

use super::error::{ConfigError, Position, Warning};
use super::expand::{self, Tokens};
use super::files::{Directive, File};
use super::matching::{self, Subject};
use super::pattern::{self, Verdict};
use super::system_probe::{LocalEnv, SystemProbe};
use super::table::{self, Kind, Spec};
use super::types::JumpHost;
use super::value::Value;

/// How many key files or certificates `ssh` takes.
const MOST_FILES: usize = 100;
/// The port where nothing is set.
pub(super) const DEFAULT_PORT: u16 = 22;

/// A value and where it came from.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub value: Value,
    pub place: Position,
    /// From the operator's own file or options.
    pub own: bool,
    pub spec: &'static Spec,
}

/// A word of an option whose lines add up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    pub text: String,
    pub place: Position,
    pub own: bool,
}

/// What has been set so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Values {
    first: BTreeMap<&'static str, Entry>,
    several: BTreeMap<&'static str, Vec<Word>>,
    unsupported: Vec<Warning>,
}

impl Values {
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.first.get(name)
    }

    /// The text of a value, where it is one.
    pub fn text(&self, name: &str) -> Option<&str> {
        match &self.get(name)?.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn number(&self, name: &str) -> Option<u32> {
        match self.get(name)?.value {
            Value::Number(number) => Some(number),
            _ => None,
        }
    }

    pub fn words(&self, name: &str) -> &[String] {
        match self.get(name).map(|entry| &entry.value) {
            Some(Value::Words(words)) => words,
            _ => &[],
        }
    }

    pub fn several(&self, name: &str) -> &[Word] {
        self.several.get(name).map_or(&[], Vec::as_slice)
    }

    /// The hosts to jump through; `None` where none are set or `none` is.
    pub fn jump(&self) -> Option<&[JumpHost]> {
        match &self.get("proxyjump")?.value {
            Value::Jump(hosts) => hosts.as_deref(),
            _ => None,
        }
    }

    pub fn port(&self) -> u16 {
        self.number("port")
            .and_then(|port| u16::try_from(port).ok())
            .unwrap_or(DEFAULT_PORT)
    }

    /// Whether neither a command nor a jump stands between us and the host. At the moment at which `ssh` asks this, a
    /// jump of `none` still counts as one.
    pub fn direct(&self) -> bool {
        self.get("proxyjump").is_none()
            && self
                .text("proxycommand")
                .is_none_or(|command| command.eq_ignore_ascii_case("none"))
    }

    /// Replaces the host name, once it is known.
    pub fn put_hostname(&mut self, name: &str, spec: &'static Spec) {
        let entry = Entry {
            value: Value::Text(name.to_string()),
            place: Position::given(),
            own: true,
            spec,
        };
        self.first.insert("hostname", entry);
    }

    /// Remembers an option that has no effect, and why.
    pub fn left_out(&mut self, place: Position, option: &'static str, why: &'static str) {
        let warning = Warning { place, option, why };
        if !self.unsupported.contains(&warning) {
            self.unsupported.push(warning);
        }
    }

    /// Takes a value, if it is the first of its option or its option's lines add up.
    pub fn set(
        &mut self,
        spec: &'static Spec,
        value: &Value,
        place: Position,
        own: bool,
    ) -> Result<(), ConfigError> {
        match (spec.kind, value) {
            (Kind::Unsupported, _) => {
                let why = "no current ssh has this option: it does nothing";
                self.left_out(place, spec.name, why);
                return Ok(());
            }
            (_, Value::Nothing) => return Ok(()),
            (Kind::Files, Value::Text(text)) => return self.add_file(spec, text, place, own),
            (Kind::SendEnv, Value::Words(words)) => {
                let list = self.several.entry(spec.name).or_default();
                for word in words {
                    match word.strip_prefix('-') {
                        Some(gone) => list.retain(|there| !pattern::matches(&there.text, gone)),
                        None => list.push(Word {
                            text: word.clone(),
                            place: place.clone(),
                            own,
                        }),
                    }
                }
                return Ok(());
            }
            // Lines that hold nothing but a comment.
            (_, Value::Words(words)) if words.is_empty() => return Ok(()),
            (_, Value::Pairs(pairs)) if pairs.is_empty() => return Ok(()),
            _ => {}
        }
        // Whichever of the two comes first wins over the other, but for a jump of `none`.
        let other_way = match spec.name {
            "proxyjump" => self.first.contains_key("proxycommand") && *value != Value::Jump(None),
            "proxycommand" => self.jump().is_some(),
            _ => false,
        };
        if !other_way {
            self.first.entry(spec.name).or_insert_with(|| Entry {
                value: value.clone(),
                place,
                own,
                spec,
            });
        }
        Ok(())
    }

    fn add_file(
        &mut self,
        spec: &'static Spec,
        text: &str,
        place: Position,
        own: bool,
    ) -> Result<(), ConfigError> {
        let list = self.several.entry(spec.name).or_default();
        if list.len() >= MOST_FILES {
            return Err(ConfigError::line(
                &place,
                format!("{}: there are more than {MOST_FILES}", spec.name),
            ));
        }
        if !list
            .iter()
            .any(|there| there.text == text && there.own == own)
        {
            list.push(Word {
                text: text.to_string(),
                place,
                own,
            });
        }
        Ok(())
    }

    /// What is set and not honoured.
    pub fn warnings(&self) -> Vec<Warning> {
        let mut warnings = self.unsupported.clone();
        for entry in self.first.values() {
            let Some(warn) = entry.spec.warn else {
                continue;
            };
            let text = match &entry.value {
                Value::Text(text) => text.as_str(),
                _ => "",
            };
            let harmless = warn
                .harmless
                .iter()
                .any(|word| text.eq_ignore_ascii_case(word));
            if !harmless && (entry.own || !warn.own_file_only) {
                warnings.push(Warning {
                    place: entry.place.clone(),
                    option: entry.spec.name,
                    why: warn.why,
                });
            }
        }
        // Options whose lines add up: the first word that changes something stands for all.
        for (name, words) in &self.several {
            let Some(warn) = table::find(name).and_then(|spec| spec.warn) else {
                continue;
            };
            let harmful = words.iter().find(|word| {
                let mut harmless = warn.harmless.iter();
                !harmless.any(|name| pattern::matches(&word.text, name))
            });
            if let Some(word) = harmful {
                warnings.push(Warning {
                    place: word.place.clone(),
                    option: name,
                    why: warn.why,
                });
            }
        }
        warnings.sort();
        warnings
    }
}

/// One reading.
pub(super) struct Evaluation<'a> {
    pub ambient: &'a LocalEnv,
    pub system_probe: &'a dyn SystemProbe,
    /// The name that `Host` lines are matched against.
    pub host: &'a str,
    /// The name as it was given.
    pub original: &'a str,
    /// Another name of the host that `Host` and `Match host` lines are matched against.
    pub also: Option<&'a str>,
    /// Whether the session only forwards.
    pub only_forwards: bool,
    /// Whether this is the second reading.
    pub second: bool,
    /// Whether a line asked for a second reading.
    pub wants_second: bool,
    pub values: &'a mut Values,
}

impl Evaluation<'_> {
    /// Reads a file from its start.
    pub fn file(&mut self, file: &File) -> Result<(), ConfigError> {
        self.lines(file, &mut true, true)
    }

    /// `can_apply` is false within a file that is included by a block that does not apply.
    fn lines(
        &mut self,
        file: &File,
        active: &mut bool,
        can_apply: bool,
    ) -> Result<(), ConfigError> {
        for line in &file.lines {
            match &line.says {
                Directive::Host(patterns) => {
                    let mut names = std::iter::once(self.host).chain(self.also);
                    *active = can_apply && names.any(|name| pattern::one_matches(name, patterns));
                }
                Directive::Match(conditions) => {
                    let answer = self
                        .answer(conditions, can_apply)
                        .map_err(|what| ConfigError::line(&file.place(line), what))?;
                    self.wants_second |= answer.wants_second_pass;
                    *active = can_apply && answer.applies;
                }
                Directive::Include(included) => {
                    let before = *active;
                    for inner in included {
                        self.lines(inner, active, can_apply && before)?;
                        *active = before;
                    }
                }
                Directive::Set(spec, value) if *active => {
                    self.values.set(spec, value, file.place(line), file.own)?;
                }
                Directive::Set(..) => {}
                Directive::Unknown(keyword) => {
                    let ignored = self.values.text("ignoreunknown").unwrap_or_default();
                    if pattern::list(keyword, ignored, true) != Verdict::Yes {
                        return Err(ConfigError::line(
                            &file.place(line),
                            format!(
                                "\"{keyword}\" is not an option of ssh: correct it, or name it in IgnoreUnknown above"
                            ),
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    fn answer(
        &self,
        conditions: &[matching::Condition],
        can_apply: bool,
    ) -> Result<matching::Answer, String> {
        let values = &*self.values;
        let mut tokens = Tokens {
            ambient: self.ambient,
            host: self.host,
            original: self.original,
            alias: values.text("hostkeyalias"),
            key_name: self.host,
            port: values.port(),
            user: values.text("user").unwrap_or(&self.ambient.user),
            jump: "",
        };
        let host = match values.text("hostname") {
            // In the second reading the name is final.
            Some(name) if self.second => name.to_string(),
            Some(name) => tokens.expand(name, expand::HOSTNAME)?,
            None => self.host.to_string(),
        };
        tokens.host = &host;
        tokens.key_name = &host;
        let subject = Subject {
            tokens,
            also: self.also,
            tag: values.text("tag").unwrap_or_default(),
            only_forwards: self.only_forwards,
            second_pass: self.second,
            can_apply,
        };
        matching::answer(conditions, &subject, self.system_probe)
    }
}
