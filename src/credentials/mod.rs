//! Registry and SSH secrets: from files, standard input and prompts.

mod ask;
mod auth_file;
mod error;
mod helper;

use std::ffi::OsString;
use std::path::PathBuf;

pub use ask::{password_from, prompt};
pub use auth_file::AuthFile;
pub use error::CredentialError;

use crate::model::{Image, RegistryLogin, Secret};

/// Where registry logins may come from.
#[derive(Debug, Clone, Default)]
pub struct LoginSources {
    /// `--registry-user` with its password.
    pub user: Option<(String, Secret)>,
    /// `--registry`; empty for the registries of the images.
    pub registries: Vec<String>,
    /// `--auth-file`, which must exist.
    pub auth_file: Option<PathBuf>,
    /// `--no-auth`: no file is looked at.
    pub no_auth: bool,
}

/// The files to look in when none is named: `$REGISTRY_AUTH_FILE` as podman has it, then docker's
/// `config.json` in `$DOCKER_CONFIG` or `~/.docker`.
pub fn default_auth_files(env: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let folder = |name: &str| {
        env(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let docker = folder("DOCKER_CONFIG").or_else(|| Some(folder("HOME")?.join(".docker")));
    folder("REGISTRY_AUTH_FILE")
        .into_iter()
        .chain(docker.map(|folder| folder.join("config.json")))
        .collect()
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

/// The login for each image, in the order of the images; `None` leaves it to the node's own.
///
/// A given user is for the named registries, or all of them; for the others the files are asked: the
/// named one, or `default_files` in order, of which those that do not exist are skipped. A later file is
/// read only when an earlier one had no login.
///
/// # Errors
/// A file that is named but missing, or that cannot be read; a login that is there but cannot be used; a
/// named registry that no image comes from.
pub fn logins(
    sources: &LoginSources,
    images: &[Image],
    default_files: &[PathBuf],
) -> Result<Vec<Option<RegistryLogin>>, CredentialError> {
    let named: Vec<String> = sources
        .registries
        .iter()
        .map(|given| auth_file::registry_of(given).host)
        .collect();
    let host_of = |image: &Image| auth_file::registry_of(image.registry()).host;
    for (given, host) in sources.registries.iter().zip(&named) {
        if !images.iter().any(|image| host_of(image) == *host) {
            return Err(CredentialError::NoSuchRegistry {
                registry: given.clone(),
            });
        }
    }
    if let Some((name, _)) = &sources.user {
        check_user_name(name)?;
    }
    let mut files = Files::new(sources, default_files)?;
    images
        .iter()
        .map(|image| {
            let wanted = named.is_empty() || named.contains(&host_of(image));
            match &sources.user {
                Some((username, password)) if wanted => Ok(Some(RegistryLogin {
                    username: username.clone(),
                    password: password.clone(),
                })),
                None if !wanted => Ok(None),
                _ => files.login(image),
            }
        })
        .collect()
}

/// The files to look in, each read when it is first needed.
struct Files {
    waiting: std::vec::IntoIter<PathBuf>,
    read: Vec<AuthFile>,
}

impl Files {
    fn new(sources: &LoginSources, default_files: &[PathBuf]) -> Result<Self, CredentialError> {
        let mut read = Vec::new();
        let waiting = match &sources.auth_file {
            _ if sources.no_auth => Vec::new(),
            Some(path) => {
                let file = AuthFile::read(path)?;
                read.push(file.ok_or_else(|| CredentialError::Missing { file: path.clone() })?);
                Vec::new()
            }
            None => default_files.to_vec(),
        };
        Ok(Self {
            waiting: waiting.into_iter(),
            read,
        })
    }

    fn login(&mut self, image: &Image) -> Result<Option<RegistryLogin>, CredentialError> {
        for file in &self.read {
            if let Some(login) = file.login(image)? {
                return Ok(Some(login));
            }
        }
        for path in self.waiting.by_ref() {
            if let Some(file) = AuthFile::read(&path)? {
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
