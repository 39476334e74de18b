//! Secrets as a type: wiped from memory when dropped, never printable.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use zeroize::{Zeroize as _, Zeroizing};

/// Bytes that must never be printed: a password, a token, a passphrase.
///
/// Cloning shares the same memory, which is wiped when the last clone goes. There is no `Display`,
/// and `Debug` shows a placeholder; [`Secret::expose`] is the only way to the bytes.
#[derive(Clone)]
pub struct Secret(Arc<Kept>);

/// The bytes on pages of their own, which are kept out of swap where the system allows it (`RLIMIT_MEMLOCK`).
///
/// Locks do not count: a page that another secret shares would be unlocked with the first of them.
struct Kept {
    pages: Zeroizing<Vec<u8>>,
    /// Where the bytes are in `pages`.
    place: Range<usize>,
    lock: Option<region::LockGuard>,
    is_plain: bool,
}

impl Kept {
    fn new(bytes: &[u8]) -> Self {
        let page = region::page::size();
        let whole = bytes.len().next_multiple_of(page);
        // So long that whole pages fit in, wherever it begins.
        let mut pages = Zeroizing::new(vec![0; whole + page]);
        let start = pages.as_ptr().align_offset(page).min(page);
        let place = start..start + bytes.len();
        // Locked before the bytes are in it.
        let lock = (whole > 0).then(|| region::lock(pages[start..].as_ptr(), whole).ok());
        pages[place.clone()].copy_from_slice(bytes);
        Self {
            pages,
            place,
            lock: lock.flatten(),
            is_plain: false,
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // While it is locked; the memory is given back after that.
        self.pages.zeroize();
        self.lock = None;
    }
}

impl Secret {
    /// Takes the bytes over; the caller's buffer is wiped.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Arc::new(Kept::new(&Zeroizing::new(bytes.into()))))
    }

    /// Bytes that go the way of a secret and are none: pages of their own, locked and wiped, would cost more than all
    /// else.
    pub fn plain(bytes: impl Into<Vec<u8>>) -> Self {
        let pages = Zeroizing::new(bytes.into());
        Self(Arc::new(Kept {
            place: 0..pages.len(),
            pages,
            lock: None,
            is_plain: true,
        }))
    }

    /// Whether it was made by [`Secret::plain`].
    pub fn is_plain(&self) -> bool {
        self.0.is_plain
    }

    /// The bytes themselves, for the one place that has to send them.
    pub fn expose(&self) -> &[u8] {
        &self.0.pages[self.0.place.clone()]
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.expose().is_empty()
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for Secret {}

impl AsRef<[u8]> for Secret {
    fn as_ref(&self) -> &[u8] {
        self.expose()
    }
}

/// For sending: the same memory, wiped when the last of both goes.
impl From<Secret> for Bytes {
    fn from(secret: Secret) -> Self {
        Self::from_owner(secret)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("[redacted]")
    }
}

/// What a registry accepts as proof of who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryLogin {
    /// A user name and a password or access token.
    Password {
        /// The user name; it may be shown.
        username: String,
        /// The password.
        password: Secret,
    },
    /// What a log-in left instead of a password (an OAuth refresh token): the runtime buys access tokens with it.
    IdentityToken {
        /// The user name, where one is known.
        username: String,
        /// The token.
        token: Secret,
    },
    /// An access token, which the runtime sends as it is.
    RegistryToken(Secret),
}

impl RegistryLogin {
    /// The user name, where the login has one; it may be shown.
    pub fn username(&self) -> Option<&str> {
        match self {
            Self::Password { username, .. } | Self::IdentityToken { username, .. } => {
                Some(username.as_str()).filter(|name| !name.is_empty())
            }
            Self::RegistryToken(_) => None,
        }
    }
}

/// `base64(username:password)`, as in docker's `config.json` and HTTP's basic authentication.
pub fn basic(username: &str, password: &[u8]) -> Secret {
    let mut plain = Zeroizing::new(Vec::with_capacity(username.len() + 1 + password.len()));
    plain.extend_from_slice(username.as_bytes());
    plain.push(b':');
    plain.extend_from_slice(password);
    Secret::new(STANDARD.encode(&*plain))
}

/// A login and where it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// The login.
    pub login: RegistryLogin,
    /// Where it was found.
    pub source: LoginSource,
}

/// Where a login was found, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginSource {
    /// The operator is asked for the password.
    Prompt,
    /// The password comes on standard input.
    Stdin,
    /// An entry of a file.
    File(PathBuf),
    /// A credential helper, and the file that names it.
    Helper {
        /// `docker-credential-NAME`.
        program: String,
        /// The file.
        file: PathBuf,
    },
    /// A pull secret, as `NAMESPACE/NAME`.
    PullSecret(String),
    /// The program that uses prepull as a library gave it.
    Caller,
}

impl LoginSource {
    /// One word for programs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::Stdin => "stdin",
            Self::File(_) => "file",
            Self::Helper { .. } => "helper",
            Self::PullSecret(_) => "pull-secret",
            Self::Caller => "caller",
        }
    }
}

impl fmt::Display for LoginSource {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prompt => out.write_str("the password is asked for"),
            Self::Stdin => out.write_str("the password comes on standard input"),
            Self::File(path) => path.display().fmt(out),
            Self::Helper { program, file } => write!(out, "{program}, named in {}", file.display()),
            Self::PullSecret(name) => write!(out, "pull secret {name}"),
            Self::Caller => out.write_str("given by the caller"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_never_shows_the_bytes() {
        let login = RegistryLogin::Password {
            username: "ci".into(),
            password: Secret::new("hunter2"),
        };
        let shown = format!("{login:?} {login:#?}");
        assert!(shown.contains("[redacted]"));
        assert!(!shown.contains("hunter2"));
        assert!(!shown.contains("104, 117"), "byte lists leak as well");
    }

    /// How much of this process is locked in memory, in kB.
    #[cfg(target_os = "linux")]
    fn locked() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmLck:"));
        line.unwrap()
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .unwrap()
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_secret_is_locked_in_memory_where_the_system_allows_it() {
        let secret = Secret::new("x".repeat(30_000));
        assert!(locked() >= 30, "{} kB: is `ulimit -l` zero?", locked());
        assert_eq!(secret.expose().len(), 30_000);
    }

    #[test]
    fn what_is_plain_is_no_less_hidden_and_is_not_taken_for_a_secret() {
        let plain = Secret::plain("POST /images");
        assert_eq!(plain.expose(), b"POST /images");
        assert_eq!(format!("{plain:?}"), "[redacted]");
        assert!(plain.is_plain() && plain.clone().is_plain());
        assert!(!Secret::new("POST /images").is_plain());
    }

    #[test]
    fn secrets_of_any_size_are_kept_whole() {
        let page = region::page::size();
        for size in [0, 1, page - 1, page, page + 1, 5 * page] {
            let bytes: Vec<u8> = (0..size).map(|at| at as u8).collect();
            let secret = Secret::new(bytes.clone());
            assert_eq!(secret.expose(), bytes);
            assert_eq!(secret, secret.clone());
            assert_eq!(secret.is_empty(), size == 0);
        }
    }

    #[test]
    fn basic_is_the_base64_that_docker_writes() {
        assert_eq!(basic("ci", b"p:w").expose(), b"Y2k6cDp3");
    }
}
