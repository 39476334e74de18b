//! What surrounds the program: environment variables, home directory, the operator's own user name.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The surroundings, taken once at the start so that tests can make up their own.
#[derive(Debug, Clone, Default)]
pub struct Ambient {
    variables: HashMap<OsString, OsString>,
    account: Option<String>,
}

impl Ambient {
    /// The surroundings of this process.
    pub fn of_this_process() -> Self {
        Self {
            variables: std::env::vars_os().collect(),
            account: account_name(),
        }
    }

    /// Made-up surroundings.
    pub fn of(variables: &[(&str, &str)]) -> Self {
        Self {
            variables: variables
                .iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            account: None,
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

    /// The operator's user name, which is the one to log in as where nothing else is said.
    pub fn user_name(&self) -> Option<String> {
        // Like ssh, which asks the password database and not $USER: after `sudo` they differ.
        let from_variable = |name| {
            self.variable(name)
                .and_then(|value| value.into_string().ok())
        };
        self.account
            .clone()
            .or_else(|| from_variable("LOGNAME"))
            .or_else(|| from_variable("USER"))
            .filter(|name| !name.is_empty())
    }
}

/// This process's user in the password database (`man 5 passwd`).
fn account_name() -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let uid = std::fs::metadata("/proc/self").ok()?.uid().to_string();
    let accounts = std::fs::read_to_string("/etc/passwd").ok()?;
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, id) = (fields.next()?, fields.nth(1)?);
        (id == uid).then(|| name.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_comes_before_the_variables() {
        let mut ambient = Ambient::of(&[("USER", "alice"), ("HOME", "/home/alice")]);
        assert_eq!(ambient.user_name().as_deref(), Some("alice"));
        ambient.account = Some("root".into());
        assert_eq!(ambient.user_name().as_deref(), Some("root"));
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

    #[test]
    fn this_process_has_an_account_or_a_variable() {
        assert!(account_name().is_some_and(|name| !name.is_empty()));
    }
}
