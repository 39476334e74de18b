//! Why a login cannot be had. No text in here ever comes out of a file or a prompt.

use std::path::PathBuf;

use crate::model::LoginSource;
use crate::model::text::escape_line;

/// Why a login cannot be had, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// There is no terminal to ask on.
    #[error(
        "cannot ask \"{}\": there is no terminal ({reason}); give passwords in files (--registry-password-file or --registry-password-stdin, --ssh-password-file, --become-password-file), or log in to nodes with a key or ssh-agent",
        escape_line(.question)
    )]
    NoTerminal {
        /// What would have been asked.
        question: String,
        /// What the system said.
        reason: std::io::Error,
    },
    /// The operator ended the input (Ctrl-D).
    #[error("the question \"{}\" was not answered", escape_line(.question))]
    NotAnswered {
        /// What was asked.
        question: String,
    },
    /// Reading standard input failed.
    #[error("cannot read the password from standard input: {0}")]
    Input(std::io::Error),
    /// The given text is not a password.
    #[error("{problem}")]
    Password {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A password file is not private, or holds no password.
    #[error("cannot take a password from {}: {problem}", escape_line(&.file.to_string_lossy()))]
    PasswordFile {
        /// The file.
        file: PathBuf,
        /// What is wrong with it, and what mends it.
        problem: String,
    },
    /// The given text is not a user name for a registry.
    #[error("\"{}\" cannot be a registry's user name: {problem}", escape_line(.name))]
    UserName {
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// `--registry` names one that no image comes from.
    #[error(
        "--registry {}: none of the images comes from there; write the registry as it stands in the image",
        escape_line(.registry)
    )]
    NoSuchRegistry {
        /// What was given.
        registry: String,
    },
    /// One password would go to several registries.
    #[error(
        "--registry-user is for one registry, and the images come from {}: {}; say with --registry which of them gets the password",
        .registries.len(),
        escape_line(&.registries.join(", "))
    )]
    SeveralRegistries {
        /// Their hosts.
        registries: Vec<String>,
    },
    /// The named file is not there.
    #[error("{}: there is no such file; check --auth-file", shown(.file))]
    Missing {
        /// The file.
        file: PathBuf,
    },
    /// The file cannot be read.
    #[error("{}: cannot read the registry logins: {reason}", shown(.file))]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        reason: std::io::Error,
    },
    /// It is not what docker, podman and kubectl write.
    #[error(
        "{}:{line}:{column}: {problem}; mend it, name another with --auth-file, or use --no-auth",
        from(.place)
    )]
    NotAuthFile {
        /// The file or pull secret.
        place: LoginSource,
        /// From 1.
        line: usize,
        /// From 1; 0 before the first character of a line.
        column: usize,
        /// What is wrong.
        problem: &'static str,
    },
    /// The entry of a needed registry cannot be used.
    #[error(
        "{}: the login for \"{}\" is broken: {problem}; log in again, or use --registry-user or --no-auth",
        from(.place),
        escape_line(.key)
    )]
    BadEntry {
        /// The file or pull secret.
        place: LoginSource,
        /// The entry's key.
        key: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// The helper that keeps the login does not give it.
    #[error(
        "{}: the login for {} cannot be had: {}; mend the helper, or use --registry-user, --auth-file or --no-auth",
        from(.place),
        escape_line(.registry),
        escape_line(.reason)
    )]
    Helper {
        /// The file that names the helper.
        place: LoginSource,
        /// The registry.
        registry: String,
        /// What happened.
        reason: String,
    },
    /// A pull secret cannot be read; the words say which, why, and what to do.
    #[error("{0}")]
    PullSecret(String),
}

fn from(source: &LoginSource) -> String {
    escape_line(&source.to_string()).into_owned()
}

fn shown(path: &std::path::Path) -> String {
    escape_line(&path.display().to_string()).into_owned()
}
