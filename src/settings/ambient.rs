//! What surrounds the program: environment variables and the home directory.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The surroundings, taken once at the start so that tests can make up their own.
#[derive(Debug, Clone, Default)]
pub struct Ambient {
    variables: HashMap<OsString, OsString>,
}

impl Ambient {
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

    /// These paths within the home directory; none without a home.
    pub fn in_home(&self, paths: &[&str]) -> Vec<PathBuf> {
        let home = self
            .variable("HOME")
            .filter(|home| !home.is_empty())
            .map(PathBuf::from);
        home.map_or_else(Vec::new, |home| {
            paths.iter().map(|path| home.join(path)).collect()
        })
    }

    /// A path as typed, with a leading `~/` expanded: shells leave `--option=~/file` alone.
    pub fn path(&self, typed: &Path) -> PathBuf {
        match typed.strip_prefix("~") {
            Ok(rest) => self
                .in_home(&[""])
                .pop()
                .map_or_else(|| typed.to_owned(), |home| home.join(rest)),
            Err(_) => typed.to_owned(),
        }
    }

    /// [`Ambient::path`] for several.
    pub fn paths(&self, typed: &[PathBuf]) -> Vec<PathBuf> {
        typed.iter().map(|path| self.path(path)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_in_the_home_directory_are_expanded() {
        let ambient = Ambient::of(&[("HOME", "/home/alice")]);
        assert_eq!(
            ambient.in_home(&[".ssh"]),
            [PathBuf::from("/home/alice/.ssh")]
        );
        assert!(Ambient::default().in_home(&[".ssh"]).is_empty());
        for (typed, path) in [
            ("~/key", "/home/alice/key"),
            ("key", "key"),
            ("~bob/key", "~bob/key"),
        ] {
            assert_eq!(ambient.path(Path::new(typed)), PathBuf::from(path));
        }
    }
}
