//! What surrounds the program: environment variables and the home directory.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The surroundings, taken once at the start so that tests can make up their own.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    variables: HashMap<OsString, OsString>,
}

impl Environment {
    /// The surroundings of this process.
    pub fn of_this_process() -> Self {
        Self {
            variables: std::env::vars_os().collect(),
        }
    }

    /// Made-up surroundings.
    pub fn of(variables: &[(&str, &str)]) -> Self {
        Self {
            variables: variables
                .iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        }
    }

    /// An environment variable.
    pub fn variable(&self, name: &str) -> Option<OsString> {
        self.variables.get(&OsString::from(name)).cloned()
    }

    /// The names of the variables that begin so, sorted.
    pub fn names_with(&self, prefix: &str) -> Vec<&str> {
        let names = self.variables.keys().filter_map(|name| name.to_str());
        let mut names: Vec<&str> = names.filter(|name| name.starts_with(prefix)).collect();
        names.sort_unstable();
        names
    }

    /// A path as typed, with a leading `~/` expanded as the shell would: shells leave `--option=~/file` alone. What
    /// belongs to ssh is looked for in the password database's home instead, as ssh does it: see `ssh::config`.
    pub fn path(&self, typed: &Path) -> PathBuf {
        let home = self.variable("HOME").filter(|home| !home.is_empty());
        match (typed.strip_prefix("~"), home) {
            (Ok(rest), Some(home)) => Path::new(&home).join(rest),
            _ => typed.to_owned(),
        }
    }

    /// [`Environment::path`] for several.
    pub fn paths(&self, typed: &[PathBuf]) -> Vec<PathBuf> {
        typed.iter().map(|path| self.path(path)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_in_the_home_directory_are_expanded() {
        let ambient = Environment::of(&[("HOME", "/home/alice")]);
        for (typed, path) in [
            ("~/key", "/home/alice/key"),
            ("key", "key"),
            ("~bob/key", "~bob/key"),
        ] {
            assert_eq!(ambient.path(Path::new(typed)), PathBuf::from(path));
        }
        let nowhere = Environment::default().path(Path::new("~/key"));
        assert_eq!(nowhere, PathBuf::from("~/key"));
    }
}
