//! docker's `config.json`, podman's `auth.json` and Kubernetes' pull secrets: which entry is for an image, and what is in it.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use super::check_user_name;
use super::error::CredentialError;
use super::helper;
use super::keys::{Keys, host_of};
use crate::model::{FoundLogin, Image, LoginSource, RegistryLogin, Secret};

/// Far beyond any real file of logins.
const SIZE_LIMIT: u64 = 4 * 1024 * 1024;
/// What docker calls Docker Hub in its files and to helpers.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
/// Standard base64; some writers leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A file of registry logins, or a pull secret.
#[derive(Debug)]
pub struct AuthFile {
    source: LoginSource,
    keys: Keys,
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
        let source = LoginSource::File(path.to_path_buf());
        Ok(Self {
            content: json(bytes, &source)?,
            source,
            keys: Keys::Files,
            answers: RefCell::default(),
        })
    }

    /// Reads what is in a pull secret. `is_bare` is the old form, whose entries are not within `auths`.
    ///
    /// # Errors
    /// It is not what kubectl writes.
    pub fn parse_pull_secret(
        bytes: &[u8],
        name: &str,
        is_bare: bool,
    ) -> Result<Self, CredentialError> {
        let source = LoginSource::PullSecret(name.to_string());
        let auths = if is_bare {
            json(bytes, &source)?
        } else {
            json::<Content>(bytes, &source)?.auths
        };
        // Whoever may write a secret in a cluster must not name programs for this machine.
        let content = Content {
            auths,
            ..Content::default()
        };
        Ok(Self {
            content,
            source,
            keys: Keys::PullSecret,
            answers: RefCell::default(),
        })
    }

    /// The login for an image; `None` when there is none for its registry.
    ///
    /// As with docker, a helper for the registry counts more than what stands in the file, and the one for all
    /// registries (`credsStore`) more than an entry: what it does not know is not there. Only where it cannot be asked, an
    /// entry may help.
    ///
    /// # Errors
    /// The login is broken, or kept where prepull cannot read it.
    pub fn login(&self, image: &Image) -> Result<Option<FoundLogin>, CredentialError> {
        let mut refusal = None;
        if let Some(helper) = self.helper(image) {
            match self.ask(helper, image) {
                Ok(answer) => return Ok(answer),
                Err(error) => refusal = Some(error),
            }
        }
        let entries = self.content.auths.iter().flatten();
        let best = entries
            .filter(|(_, entry)| !entry.is_empty())
            .filter_map(|(key, entry)| Some((self.keys.fit(key, image)?, key, entry)))
            .reduce(|best, next| if next.0 > best.0 { next } else { best });
        match (best, refusal) {
            (Some((_, key, entry)), _) => Ok(Some(FoundLogin {
                login: self.open(key, entry)?,
                source: self.source.clone(),
            })),
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
            .find(|(key, _)| self.keys.fit(key, image).is_some())
            .map(|(_, helper)| helper)
            .or(self.content.creds_store.as_ref())
            .map(String::as_str)
            .filter(|helper| !helper.is_empty())
    }

    fn ask(&self, helper: &str, image: &Image) -> Result<Option<FoundLogin>, CredentialError> {
        // docker's own key for the Hub; every other registry is asked for by its host.
        let server = match image.registry() {
            "docker.io" => DOCKER_HUB_KEY.to_string(),
            registry => host_of(registry),
        };
        let asked = (helper.to_string(), server);
        let known = self.answers.borrow().get(&asked).cloned();
        let login = match known {
            Some(known) => known,
            None => {
                let answer = helper::ask(&asked.0, &asked.1);
                let login = answer.map_err(|reason| CredentialError::Helper {
                    place: self.source.clone(),
                    registry: image.registry().to_string(),
                    reason,
                })?;
                self.answers.borrow_mut().insert(asked, login.clone());
                login
            }
        };
        let LoginSource::File(file) = &self.source else {
            return Ok(None);
        };
        let source = LoginSource::Helper {
            program: helper::program(helper),
            file: file.clone(),
        };
        Ok(login.map(|login| FoundLogin { login, source }))
    }

    fn open(&self, key: &str, entry: &Entry) -> Result<RegistryLogin, CredentialError> {
        let broken = |problem| CredentialError::BadEntry {
            place: self.source.clone(),
            key: key.to_string(),
            problem,
        };
        let (username, password) = if entry.auth.0.is_empty() {
            let password = entry.password.0.as_bytes().to_vec();
            (entry.username.0.to_string(), Secret::new(password))
        } else {
            decode(&entry.auth.0).map_err(broken)?
        };
        let login = if !entry.registrytoken.0.is_empty() {
            RegistryLogin::RegistryToken(Secret::new(entry.registrytoken.0.as_bytes()))
        } else if !entry.identitytoken.0.is_empty() {
            RegistryLogin::IdentityToken {
                username,
                token: Secret::new(entry.identitytoken.0.as_bytes()),
            }
        } else if password.is_empty() {
            return Err(broken("there is no password in it"));
        } else {
            check_user_name(&username).map_err(|_| broken("there is no usable user name in it"))?;
            RegistryLogin::Password { username, password }
        };
        let (RegistryLogin::Password {
            password: secret, ..
        }
        | RegistryLogin::IdentityToken { token: secret, .. }
        | RegistryLogin::RegistryToken(secret)) = &login;
        if secret.expose().contains(&0) {
            return Err(broken("its password holds a NUL byte"));
        }
        Ok(login)
    }
}

/// Reads JSON. The parser's own words may quote a value, which may be a secret: only the place is kept.
fn json<T: DeserializeOwned>(bytes: &[u8], source: &LoginSource) -> Result<T, CredentialError> {
    serde_json::from_slice(bytes).map_err(|error| CredentialError::NotAuthFile {
        place: source.clone(),
        line: error.line(),
        column: error.column(),
        problem: if error.is_data() {
            "a value of the wrong type, or a key twice"
        } else {
            "this is not JSON"
        },
    })
}

impl Entry {
    fn is_empty(&self) -> bool {
        let fields = [
            &self.auth,
            &self.username,
            &self.password,
            &self.identitytoken,
            &self.registrytoken,
        ];
        fields.iter().all(|field| field.0.is_empty())
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
