//! Registry and SSH secrets: from files, helpers, pull secrets, standard input and prompts.

mod ask;
mod auth_file;
mod error;
mod helper;
mod hidden;
mod keys;
mod password_file;
mod terminal;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

pub use ask::{password_from, prompt};
pub use auth_file::AuthFile;
pub use error::CredentialError;
pub use password_file::password_file;

use crate::model::{Credential, Image, Secret};

/// Where registry logins may come from.
#[derive(Debug, Clone, Default)]
pub struct LoginSources {
    /// `--registry-user` with its password.
    pub user: Option<Credential>,
    /// `--registry`; empty for the registries of the images.
    pub registries: Vec<String>,
    /// `--pull-secret`, in order: the first that has a login for an image is used, before any file.
    pub pull_secrets: Vec<PullSecret>,
    /// `--auth-file`, which must exist.
    pub auth_file: Option<PathBuf>,
    /// The files to look in where none is named; those that do not exist are skipped.
    pub default_files: Vec<PathBuf>,
    /// `--no-auth`: no file is looked at.
    pub no_auth: bool,
    /// When helpers have to have answered.
    pub until: Option<Instant>,
}

/// What was found in all of them.
#[derive(Debug)]
pub struct FoundLogins {
    /// One for each image, in the order of the images; `None` leaves it to the node's own.
    pub logins: Vec<Option<Credential>>,
    /// What the operator should know: a file that was named and holds no login.
    pub warnings: Vec<String>,
}

/// A pull secret of Kubernetes and how to get at it.
#[derive(Clone)]
pub struct PullSecret {
    /// `NAMESPACE/NAME`, to be shown.
    pub name: String,
    /// Asks the API.
    pub read: Arc<dyn Fn() -> Result<PullSecretContent, String> + Send + Sync>,
}

/// What the API says is in a pull secret.
#[derive(Debug)]
pub struct PullSecretContent {
    /// JSON.
    pub json: Secret,
    /// The old form, `kubernetes.io/dockercfg`.
    pub is_bare: bool,
}

impl fmt::Debug for PullSecret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "pull secret {}", self.name)
    }
}

/// The files to look in when none is named: `$REGISTRY_AUTH_FILE` as podman has it, docker's `config.json` in
/// `$DOCKER_CONFIG` or `~/.docker`, then the files that podman and skopeo write, and the one that docker wrote before
/// 1.7.
pub fn default_auth_files(env: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let folder = |name: &str| {
        env(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let in_home = |name: &str| Some(folder("HOME")?.join(name));
    let podman = |folder: PathBuf| folder.join("containers/auth.json");
    let files = [
        folder("REGISTRY_AUTH_FILE"),
        folder("DOCKER_CONFIG")
            .or_else(|| in_home(".docker"))
            .map(|folder| folder.join("config.json")),
        folder("XDG_RUNTIME_DIR").map(podman),
        folder("XDG_CONFIG_HOME")
            .or_else(|| in_home(".config"))
            .map(podman),
        in_home(".dockercfg"),
    ];
    files.into_iter().flatten().collect()
}

/// Whether a registry can be told this user name: HTTP's basic authentication ends it at a colon.
///
/// # Errors
/// [`CredentialError::UserName`].
pub fn check_user_name(name: &str) -> Result<(), CredentialError> {
    let problem = if name.is_empty() {
        "it is empty"
    } else if name.contains(':') {
        "a colon cannot be sent in a user name"
    } else if name.chars().any(char::is_control) {
        "it holds control characters"
    } else {
        return Ok(());
    };
    Err(CredentialError::UserName {
        name: name.to_string(),
        problem,
    })
}

/// The login for each image, and what is to be said about the sources.
///
/// A given user is for the named registries, or for the only one. For the others the pull secrets are asked, then the
/// files. Each is read once, and only when an earlier one had no login; so is each helper started once.
///
/// # Errors
/// A file that is named but missing, or that cannot be read; a login that is there but cannot be used; a
/// named registry that no image comes from; a user for several registries of which none is named.
pub fn logins(sources: &LoginSources, images: &[Image]) -> Result<FoundLogins, CredentialError> {
    let named: Vec<String> = sources
        .registries
        .iter()
        .map(|given| keys::host_of(given))
        .collect();
    let host_of = |image: &Image| keys::host_of(image.registry());
    for (given, host) in sources.registries.iter().zip(&named) {
        if !images.iter().any(|image| host_of(image) == *host) {
            return Err(CredentialError::NoSuchRegistry {
                registry: given.clone(),
            });
        }
    }
    if let Some(name) = sources.user.as_ref().map(|user| user.login.username()) {
        check_user_name(name.unwrap_or_default())?;
        let hosts: BTreeSet<String> = images.iter().map(host_of).collect();
        // A foreign manifest must not decide who gets to see the password.
        if named.is_empty() && hosts.len() > 1 {
            return Err(CredentialError::SeveralRegistries {
                registries: hosts.into_iter().collect(),
            });
        }
    }
    let mut files = Files::new(sources)?;
    let logins = images.iter().map(|image| {
        let wanted = named.is_empty() || named.contains(&host_of(image));
        match &sources.user {
            Some(user) if wanted => Ok(Some(user.clone())),
            None if !wanted => Ok(None),
            _ => files.login(image),
        }
    });
    Ok(FoundLogins {
        logins: logins.collect::<Result<_, _>>()?,
        warnings: files.warnings,
    })
}

/// The pull secrets and files to look in, each read when it is first needed.
struct Files<'a> {
    waiting: std::vec::IntoIter<Waiting<'a>>,
    read: Vec<AuthFile>,
    until: Option<Instant>,
    warnings: Vec<String>,
}

enum Waiting<'a> {
    PullSecret(&'a PullSecret),
    File(&'a PathBuf),
    /// One that is looked at because it is there; most have no login.
    DefaultFile(&'a PathBuf),
}

impl<'a> Files<'a> {
    fn new(sources: &'a LoginSources) -> Result<Self, CredentialError> {
        let mut waiting: Vec<_> = sources
            .pull_secrets
            .iter()
            .map(Waiting::PullSecret)
            .collect();
        match &sources.auth_file {
            _ if sources.no_auth => {}
            Some(path) if !path.exists() => {
                return Err(CredentialError::Missing { file: path.clone() });
            }
            Some(path) => waiting.push(Waiting::File(path)),
            None => waiting.extend(sources.default_files.iter().map(Waiting::DefaultFile)),
        }
        Ok(Self {
            waiting: waiting.into_iter(),
            read: Vec::new(),
            until: sources.until,
            warnings: Vec::new(),
        })
    }

    fn login(&mut self, image: &Image) -> Result<Option<Credential>, CredentialError> {
        for file in &self.read {
            if let Some(login) = file.login(image)? {
                return Ok(Some(login));
            }
        }
        for next in self.waiting.by_ref() {
            let file = match next {
                Waiting::PullSecret(secret) => {
                    let content = (secret.read)().map_err(CredentialError::PullSecret)?;
                    let json = content.json.expose();
                    Some(AuthFile::parse_pull_secret(
                        json,
                        &secret.name,
                        content.is_bare,
                    )?)
                }
                Waiting::File(path) | Waiting::DefaultFile(path) => AuthFile::read(path)?,
            };
            if let Some(file) = file.map(|file| file.until(self.until)) {
                if !matches!(next, Waiting::DefaultFile(_)) {
                    self.warnings.extend(file.without_logins());
                }
                let login = file.login(image);
                self.read.push(file);
                if let Some(login) = login? {
                    return Ok(Some(login));
                }
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
