//! Secrets as a type: wiped from memory when dropped, never printable.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// Bytes nobody may print: a password, a token, a passphrase.
///
/// Cloning shares the same memory, which is wiped when the last clone goes. There is no `Display`,
/// and `Debug` shows a placeholder; [`Secret::expose`] is the only way to the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<Zeroizing<Vec<u8>>>);

impl Secret {
    /// Takes the bytes over; the caller's buffer becomes the secret's own.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Arc::new(Zeroizing::new(bytes.into())))
    }

    /// The bytes themselves, for the one place that has to send them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("[redacted]")
    }
}

/// A user name and password for one registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryLogin {
    /// The user name; it may be shown.
    pub username: String,
    /// The password or access token.
    pub password: Secret,
}

impl RegistryLogin {
    /// `base64(username:password)`, the `auth` of docker's `config.json` and crictl's `CRICTL_AUTH`.
    pub fn basic(&self) -> Secret {
        let mut plain = Zeroizing::new(Vec::with_capacity(
            self.username.len() + 1 + self.password.expose().len(),
        ));
        plain.extend_from_slice(self.username.as_bytes());
        plain.push(b':');
        plain.extend_from_slice(self.password.expose());
        Secret::new(STANDARD.encode(&*plain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_never_shows_the_bytes() {
        let login = RegistryLogin {
            username: "ci".into(),
            password: Secret::new("hunter2"),
        };
        let shown = format!("{login:?} {login:#?}");
        assert!(shown.contains("[redacted]"));
        assert!(!shown.contains("hunter2"));
        assert!(!shown.contains("104, 117"), "byte lists leak as well");
    }

    #[test]
    fn basic_is_the_base64_that_docker_writes() {
        let login = RegistryLogin {
            username: "ci".into(),
            password: Secret::new("p:w"),
        };
        assert_eq!(login.basic().expose(), b"Y2k6cDp3");
    }
}
