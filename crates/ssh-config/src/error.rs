//! Where something stands in an ssh_config file, what is wrong there, and what is known but not honoured.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A line of a file, or an option that was given from outside.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The file; `None` for what the caller gave (the command line or the inventory).
    pub file: Option<Arc<Path>>,
    /// The line, from 1 on; 0 for what the caller gave.
    pub line: usize,
}

impl Position {
    /// What the caller gave, not a file.
    pub fn given() -> Self {
        Self {
            file: None,
            line: 0,
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(
                out,
                "{}:{}",
                one_line(&file.display().to_string()),
                self.line
            ),
            None => out.write_str("ssh options"),
        }
    }
}

/// Why an ssh_config cannot be used for a host. `ssh` refuses in the same places.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A line says something that is not allowed.
    #[error("{place}: {what}")]
    Line {
        /// Where it stands.
        place: Position,
        /// What is wrong and what would be right.
        what: String,
    },
    /// A file cannot be read or must not be trusted.
    #[error("ssh_config {}: {what}", one_line(&.file.display().to_string()))]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong and what would be right.
        what: String,
    },
    /// The host cannot be reached by this configuration.
    #[error("{}: {what}", one_line(.host))]
    Host {
        /// The host as the caller named it.
        host: String,
        /// What is wrong and what would be right.
        what: String,
    },
}

impl ConfigError {
    /// A line that is wrong; foreign text within `what` is made printable.
    pub(super) fn line(place: &Position, what: impl AsRef<str>) -> Self {
        Self::Line {
            place: place.clone(),
            what: one_line(what.as_ref()),
        }
    }

    pub(super) fn file(file: &Path, what: impl AsRef<str>) -> Self {
        Self::File {
            file: file.to_path_buf(),
            what: one_line(what.as_ref()),
        }
    }

    pub(super) fn host(host: &str, what: impl AsRef<str>) -> Self {
        Self::Host {
            host: host.to_string(),
            what: one_line(what.as_ref()),
        }
    }
}

/// A setting that `ssh` would honour and a program that logs in by other means does not, where that can change security
/// or reachability.
///
/// Equal warnings come from the same line: keep them in a set to say each once for a whole fleet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Warning {
    /// Where it stands.
    pub place: Position,
    /// The option in lower case.
    pub option: &'static str,
    /// What happens instead.
    pub why: &'static str,
}

impl fmt::Display for Warning {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}: {}", self.place, self.option, self.why)
    }
}

/// What a file or the command line says, on one line and without anything that a terminal would act on.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '"' | '\'' | '\\' => line.push(character),
            other => line.extend(other.escape_debug()),
        }
    }
    line
}
