//! docker's `config.json` and podman's `auth.json`: which entry is for an image, and what is in it.
//!
//! docker keys entries by host or by a URL whose path means nothing (`https://index.docker.io/v1/`);
//! podman also by host and a path, of which the longest that fits wins (containers-auth.json(5)).

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use super::check_user_name;
use super::error::CredentialError;
use super::helper;
use crate::model::{Image, RegistryLogin, Secret};

/// Far beyond any real file of logins.
const SIZE_LIMIT: u64 = 4 * 1024 * 1024;
const DOCKER_HUB: &str = "docker.io";
/// What docker calls it in its files and to helpers.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
/// Standard base64; some writers leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A file of registry logins.
#[derive(Debug)]
pub struct AuthFile {
    path: PathBuf,
    content: Content,
    /// What helpers answered, by helper and server: each is asked once.
    answers: RefCell<HashMap<(String, String), Option<RegistryLogin>>>,
}

/// What is read of the file; everything else in it is docker's own business.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    #[serde(default)]
    auths: Option<BTreeMap<String, Entry>>,
    #[serde(default)]
    cred_helpers: Option<BTreeMap<String, String>>,
    #[serde(default)]
    creds_store: Option<String>,
}

/// One login; docker leaves an empty one behind where a helper keeps the secret.
#[derive(Debug, Default, Deserialize)]
struct Entry {
    #[serde(default)]
    auth: Hidden,
    #[serde(default)]
    username: Hidden,
    #[serde(default)]
    password: Hidden,
    #[serde(default)]
    identitytoken: Hidden,
    #[serde(default)]
    registrytoken: Hidden,
}

/// Text that is wiped when dropped and never shown; `null` is empty.
#[derive(Default)]
pub(super) struct Hidden(pub(super) Zeroizing<String>);

impl fmt::Debug for Hidden {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("[redacted]")
    }
}

impl<'de> Deserialize<'de> for Hidden {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        Ok(Self(Zeroizing::new(text.unwrap_or_default())))
    }
}

impl AuthFile {
    /// Reads a file; `None` when it does not exist.
    ///
    /// # Errors
    /// It cannot be read, is too large, or is not what docker and podman write.
    pub fn read(path: &Path) -> Result<Option<Self>, CredentialError> {
        let unreadable = |reason| CredentialError::Unreadable {
            file: path.to_path_buf(),
            reason,
        };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(unreadable(error)),
        };
        let size = file
            .metadata()
            .map_or(0, |metadata| metadata.len())
            .min(SIZE_LIMIT);
        // Room for all of it from the start: growing would leave copies behind.
        let room = usize::try_from(size).unwrap_or_default() + 1;
        let mut bytes = Zeroizing::new(Vec::with_capacity(room));
        file.take(SIZE_LIMIT + 1)
            .read_to_end(&mut bytes)
            .map_err(unreadable)?;
        if bytes.len() as u64 > SIZE_LIMIT {
            return Err(unreadable(std::io::Error::other("it is larger than 4 MiB")));
        }
        Self::parse(&bytes, path).map(Some)
    }

    /// Reads the content of a file, which errors call `path`.
    ///
    /// # Errors
    /// It is not what docker and podman write.
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Self, CredentialError> {
        // The parser's own words may quote a value, which may be a secret: only the place is kept.
        let content =
            serde_json::from_slice(bytes).map_err(|error| CredentialError::NotAuthFile {
                file: path.to_path_buf(),
                line: error.line(),
                column: error.column(),
                problem: if error.is_data() {
                    "a value of the wrong type, or a key twice"
                } else {
                    "this is not JSON"
                },
            })?;
        Ok(Self {
            path: path.to_path_buf(),
            content,
            answers: RefCell::default(),
        })
    }

    /// The login for an image; `None` when the file has none for its registry.
    ///
    /// As with docker, a helper for the registry counts more than what stands in the file, and the one for all
    /// registries (`credsStore`) more than an entry.
    ///
    /// # Errors
    /// The login is broken, or kept where prepull cannot read it.
    pub fn login(&self, image: &Image) -> Result<Option<RegistryLogin>, CredentialError> {
        let kept = self.helper(image).map(|helper| self.ask(helper, image));
        let refusal = match kept.transpose() {
            Ok(Some(Some(login))) => return Ok(Some(login)),
            Ok(_) => None,
            Err(refusal) => Some(refusal),
        };
        let entries = self.content.auths.iter().flatten();
        let best = entries
            .filter(|(_, entry)| !entry.is_empty())
            .filter_map(|(key, entry)| Some((key, entry, registry_of(key).fit(image)?)))
            .reduce(|best, next| if next.2 > best.2 { next } else { best });
        match (best, refusal) {
            (Some((key, entry, _)), _) => self.open(key, entry, image).map(Some),
            // Going on without a login would fail on every node, or pull something else.
            (None, Some(refusal)) => Err(refusal),
            (None, None) => Ok(None),
        }
    }

    /// The helper that keeps the login of the image's registry.
    fn helper(&self, image: &Image) -> Option<&str> {
        self.content
            .cred_helpers
            .iter()
            .flatten()
            .find(|(key, _)| registry_of(key).fit(image).is_some())
            .map(|(_, helper)| helper)
            .or(self.content.creds_store.as_ref())
            .map(String::as_str)
            .filter(|helper| !helper.is_empty())
    }

    fn ask(&self, helper: &str, image: &Image) -> Result<Option<RegistryLogin>, CredentialError> {
        // docker's own key for the Hub; every other registry is asked for by its host.
        let server = match registry_of(image.registry()).host {
            host if host == DOCKER_HUB => DOCKER_HUB_KEY.to_string(),
            host => host,
        };
        let asked = (helper.to_string(), server);
        if let Some(known) = self.answers.borrow().get(&asked) {
            return Ok(known.clone());
        }
        let login = helper::ask(&asked.0, &asked.1).map_err(|reason| CredentialError::Helper {
            file: self.path.clone(),
            registry: image.registry().to_string(),
            reason,
        })?;
        self.answers.borrow_mut().insert(asked, login.clone());
        Ok(login)
    }

    fn open(
        &self,
        key: &str,
        entry: &Entry,
        image: &Image,
    ) -> Result<RegistryLogin, CredentialError> {
        let broken = |problem| CredentialError::BadEntry {
            file: self.path.clone(),
            key: key.to_string(),
            problem,
        };
        let (username, password) = if entry.auth.0.is_empty() {
            let password = entry.password.0.as_bytes().to_vec();
            (entry.username.0.to_string(), Secret::new(password))
        } else {
            decode(&entry.auth.0).map_err(broken)?
        };
        if password.is_empty() {
            return Err(if entry.has_token() {
                self.unsupported(image, "an identity token".into())
            } else {
                broken("there is no password in it")
            });
        }
        if password.expose().contains(&0) {
            return Err(broken("its password holds a NUL byte"));
        }
        check_user_name(&username).map_err(|_| broken("there is no usable user name in it"))?;
        Ok(RegistryLogin { username, password })
    }

    fn unsupported(&self, image: &Image, keeper: String) -> CredentialError {
        CredentialError::Unsupported {
            file: self.path.clone(),
            registry: image.registry().to_string(),
            keeper,
        }
    }
}

impl Entry {
    fn has_token(&self) -> bool {
        !self.identitytoken.0.is_empty() || !self.registrytoken.0.is_empty()
    }

    fn is_empty(&self) -> bool {
        self.auth.0.is_empty()
            && self.username.0.is_empty()
            && self.password.0.is_empty()
            && !self.has_token()
    }
}

/// `auth`: base64 of `user:password`.
fn decode(auth: &str) -> Result<(String, Secret), &'static str> {
    let plain = Zeroizing::new(
        BASE64
            .decode(auth.trim())
            .map_err(|_| "its \"auth\" is not base64")?,
    );
    let colon = plain
        .iter()
        .position(|byte| *byte == b':')
        .ok_or("its \"auth\" holds no colon between user and password")?;
    let username = std::str::from_utf8(&plain[..colon])
        .map_err(|_| "its user name is not UTF-8")?
        .to_string();
    let password = &plain[colon + 1..];
    // docker drops NUL bytes at the end, which old versions wrote.
    let end = password
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    Ok((username, Secret::new(&password[..end])))
}

/// The key of an entry: a registry, and with podman a path in it.
pub(super) struct Registry {
    /// Host and port in lower case, Docker Hub under one name.
    pub host: String,
    path: String,
}

impl Registry {
    /// How well this fits the image: the longer the path, the better; `None` is not at all.
    fn fit(&self, image: &Image) -> Option<usize> {
        let after = image.repository().strip_prefix(&self.path)?;
        let whole = self.path.is_empty() || after.is_empty() || after.starts_with('/');
        (whole && registry_of(image.registry()).host == self.host).then_some(self.path.len())
    }
}

/// Reads a key as docker and podman do.
pub(super) fn registry_of(key: &str) -> Registry {
    let bare = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"));
    let (host, path) = match bare.unwrap_or(key).split_once('/') {
        Some((host, path)) => (host, path.trim_end_matches('/')),
        None => (bare.unwrap_or(key), ""),
    };
    // docker's URLs end in the version of its API, which is no path of an image.
    let path = if bare.is_some() || matches!(path, "v1" | "v2") {
        ""
    } else {
        path
    };
    let host = host.to_ascii_lowercase();
    let host = match host.as_str() {
        "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB.to_string(),
        _ => host,
    };
    Registry {
        host,
        path: path.to_string(),
    }
}
