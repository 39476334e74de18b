//! docker's `config.json`, podman's `auth.json`, the older `.dockercfg` and Kubernetes' pull secrets: which entry is
//! for an image, and what is in it.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::marker::PhantomData;
use std::path::Path;
use std::time::Instant;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::check_user_name;
use super::error::CredentialError;
use super::helper;
use super::hidden::Hidden;
use super::keys::{Keys, host_of};
use crate::model::{Credential, Image, LoginSource, RegistryLogin, Secret};

/// Far beyond any real file of logins.
const SIZE_LIMIT: u64 = 4 * 1024 * 1024;
/// What docker calls Docker Hub in its files and to helpers.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
/// What stands beside `auths` in docker's configuration and may have fields that are named like an entry's.
const NO_REGISTRIES: [&str; 4] = ["HttpHeaders", "aliases", "plugins", "proxies"];
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
    /// When there is no time left for helpers.
    until: Option<Instant>,
}

/// What is read of the file; everything else in it is docker's own business.
#[derive(Debug, Default)]
struct Content {
    auths: BTreeMap<String, Entry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
    /// Whether one of the three was there.
    is_known: bool,
}

/// One login; docker leaves an empty one behind where a helper keeps the secret.
#[derive(Debug, Default)]
struct Entry {
    auth: Hidden,
    username: Hidden,
    password: Hidden,
    identitytoken: Hidden,
    registrytoken: Hidden,
}

/// An object that is read as Go reads JSON, by which docker, podman and the kubelet do: the case of a field's name does
/// not matter, of a field that is there twice the last counts, and `null` is nothing.
trait Fields: Default {
    /// Takes the value of the field with this name in lower case.
    fn take<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error>;
}

impl Fields for Content {
    fn take<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "auths" => self.auths.extend(
                map.next_value::<Option<BTreeMap<_, _>>>()?
                    .into_iter()
                    .flatten(),
            ),
            "credhelpers" => self.cred_helpers.extend(
                map.next_value::<Option<BTreeMap<_, _>>>()?
                    .into_iter()
                    .flatten(),
            ),
            "credsstore" => self.creds_store = map.next_value()?,
            _ => return map.next_value::<IgnoredAny>().map(drop),
        }
        self.is_known = true;
        Ok(())
    }
}

impl Fields for Entry {
    fn take<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        let field = match name {
            "auth" => &mut self.auth,
            "username" => &mut self.username,
            "password" => &mut self.password,
            "identitytoken" => &mut self.identitytoken,
            "registrytoken" => &mut self.registrytoken,
            _ => return map.next_value::<IgnoredAny>().map(drop),
        };
        *field = map.next_value()?;
        Ok(())
    }
}

struct FieldsOf<T>(PhantomData<T>);

impl<'de, T: Fields> Visitor<'de> for FieldsOf<T> {
    type Value = T;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let mut value = T::default();
        while let Some(name) = map.next_key::<String>()? {
            value.take(&name.to_ascii_lowercase(), &mut map)?;
        }
        Ok(value)
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FieldsOf(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FieldsOf(PhantomData))
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
        let mut content = json::<Content>(bytes, &source)?;
        if !content.is_known {
            content.auths = bare_entries(bytes);
        }
        Ok(Self::new(content, source, Keys::Files))
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
        let content = if is_bare {
            Content {
                auths: json(bytes, &source)?,
                is_known: true,
                ..Content::default()
            }
        } else {
            json(bytes, &source)?
        };
        // A user who may write a secret in a cluster must not choose programs for this machine.
        let content = Content {
            cred_helpers: BTreeMap::new(),
            creds_store: None,
            ..content
        };
        Ok(Self::new(content, source, Keys::PullSecret))
    }

    fn new(content: Content, source: LoginSource, keys: Keys) -> Self {
        Self {
            source,
            keys,
            content,
            answers: RefCell::default(),
            until: None,
        }
    }

    /// Helpers get no more time than this.
    pub(super) fn until(self, until: Option<Instant>) -> Self {
        Self { until, ..self }
    }

    /// Why there is no login in it for any registry, if so, as a warning.
    pub(super) fn without_logins(&self) -> Option<String> {
        let content = &self.content;
        let has_helper = !content.cred_helpers.is_empty() || content.creds_store.is_some();
        if has_helper || content.auths.values().any(|entry| !entry.is_empty()) {
            return None;
        }
        let why = match (&self.source, content.is_known) {
            (_, true) => "no entry in it has a login",
            (LoginSource::PullSecret(_), false) => "it has no \"auths\"",
            (_, false) => "it has neither \"auths\" nor \"credHelpers\" nor \"credsStore\"",
        };
        Some(format!(
            "{}: it holds no registry login: {why}",
            self.source
        ))
    }

    /// The login for an image; `None` when there is none for its registry.
    ///
    /// As with docker, a helper for the registry counts more than what stands in the file, and the one for all
    /// registries (`credsStore`) more than an entry: what it does not know is not there. Only where it cannot be asked,
    /// an entry may help.
    ///
    /// # Errors
    /// The login is broken, or kept where prepull cannot read it.
    pub fn login(&self, image: &Image) -> Result<Option<Credential>, CredentialError> {
        let mut refusal = None;
        if let Some(helper) = self.helper(image) {
            match self.ask(helper, image) {
                Ok(answer) => return Ok(answer),
                Err(error) => refusal = Some(error),
            }
        }
        let entries = self.content.auths.iter();
        let best = entries
            .filter(|(_, entry)| !entry.is_empty())
            .filter_map(|(key, entry)| Some((self.keys.fit(key, image)?, key, entry)))
            .reduce(|best, next| if next.0 > best.0 { next } else { best });
        match (best, refusal) {
            (Some((_, key, entry)), _) => Ok(Some(Credential {
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
            .find(|(key, _)| self.keys.fit(key, image).is_some())
            .map(|(_, helper)| helper)
            .or(self.content.creds_store.as_ref())
            .map(String::as_str)
            .filter(|helper| !helper.is_empty())
    }

    fn ask(&self, helper: &str, image: &Image) -> Result<Option<Credential>, CredentialError> {
        // docker's own key for the Hub, then podman's; every other registry is asked for by its host.
        let servers = match image.registry() {
            "docker.io" => vec![DOCKER_HUB_KEY.to_string(), "docker.io".to_string()],
            registry => vec![host_of(registry)],
        };
        let LoginSource::File(file) = &self.source else {
            return Ok(None);
        };
        for server in servers {
            let asked = (helper.to_string(), server);
            let known = self.answers.borrow().get(&asked).cloned();
            let login = match known {
                Some(known) => known,
                None => {
                    let answer = helper::ask(&asked.0, &asked.1, self.until);
                    let login = answer.map_err(|reason| CredentialError::Helper {
                        place: self.source.clone(),
                        registry: image.registry().to_string(),
                        reason,
                    })?;
                    self.answers.borrow_mut().insert(asked, login.clone());
                    login
                }
            };
            if let Some(login) = login {
                let source = LoginSource::Helper {
                    program: helper::program(helper),
                    file: file.clone(),
                };
                return Ok(Some(Credential { login, source }));
            }
        }
        Ok(None)
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

/// Reads the JSON value that a file begins with; as with docker, nothing behind it counts, and a file without any is
/// empty. The parser's own words may quote a value, which may be a secret: only the place is kept.
fn json<T: DeserializeOwned + Default>(
    bytes: &[u8],
    source: &LoginSource,
) -> Result<T, CredentialError> {
    let wrong = |line, column, problem| CredentialError::NotAuthFile {
        place: source.clone(),
        line,
        column,
        problem,
    };
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(wrong(1, 0, "this is UTF-16; save it as UTF-8"));
    }
    let bytes = without_mark(bytes);
    if bytes.trim_ascii().is_empty() {
        return Ok(T::default());
    }
    let mut parser = serde_json::Deserializer::from_slice(bytes);
    T::deserialize(&mut parser).map_err(|error| {
        let problem = if error.is_data() {
            "a value of the wrong type"
        } else {
            "this is not JSON"
        };
        wrong(error.line(), error.column(), problem)
    })
}

/// Without the byte order mark with which some editors of Windows begin a file.
fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// The logins of a file without `auths`, as docker wrote them before 1.7 to `~/.dockercfg`: what looks like an entry.
fn bare_entries(bytes: &[u8]) -> BTreeMap<String, Entry> {
    let mut parser = serde_json::Deserializer::from_slice(without_mark(bytes));
    let Ok(values) = BTreeMap::<String, &RawValue>::deserialize(&mut parser) else {
        return BTreeMap::new();
    };
    let entries = values.into_iter().filter_map(|(key, value)| {
        let entry = serde_json::from_str::<Entry>(value.get()).ok()?;
        (!entry.is_empty() && !NO_REGISTRIES.contains(&key.as_str())).then_some((key, entry))
    });
    entries.collect()
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

/// `auth`: base64 of `user:password`, which Go reads across line ends.
fn decode(auth: &str) -> Result<(String, Secret), &'static str> {
    let auth = Zeroizing::new(auth.trim().replace(['\r', '\n'], ""));
    let plain = Zeroizing::new(
        BASE64
            .decode(auth.as_bytes())
            .map_err(|_| "its \"auth\" is not base64")?,
    );
    let colon = plain
        .iter()
        .position(|byte| *byte == b':')
        .ok_or("its \"auth\" holds no colon between user and password")?;
    let username = std::str::from_utf8(&plain[..colon])
        .map_err(|_| "its user name is not UTF-8")?
        .to_string();
    // docker drops the NUL bytes around a password, which old versions wrote.
    let mut password = &plain[colon + 1..];
    while let Some(rest) = password.strip_suffix(b"\0") {
        password = rest;
    }
    while let Some(rest) = password.strip_prefix(b"\0") {
        password = rest;
    }
    Ok((username, Secret::new(password)))
}
