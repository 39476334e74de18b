//! Reading key files and certificates as OpenSSH's client does: their forms, their permissions, their passphrases.

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use russh::keys::ssh_key::certificate::CertType;
use russh::keys::{Algorithm, Certificate, PrivateKey, PublicKey, decode_secret_key};
use zeroize::Zeroizing;

use super::SshError;
use crate::model::Secret;

/// Longer than any key or certificate.
const LONGEST_FILE: u64 = 1 << 20;

/// A file that was named as an identity.
pub(super) struct KeyFile {
    pub(super) path: PathBuf,
    /// Its public key; some encrypted forms hide it.
    pub(super) public: Option<PublicKey>,
    /// The private key, once it can be used.
    pub(super) private: Option<Arc<PrivateKey>>,
    /// The certificate in the file beside it, `KEY-cert.pub`.
    pub(super) certificate: Option<Certificate>,
    /// Why there is no private key.
    lack: Option<Lack>,
    /// Whether the operator was asked for its passphrase.
    was_asked: bool,
}

/// Why a file cannot sign.
enum Lack {
    /// It wants a passphrase; the text is kept until the passphrase is given.
    Encrypted(Zeroizing<String>),
    WrongPassphrase,
    PublicOnly,
    /// The private key never leaves a FIDO device.
    Device,
    /// Others may read it.
    Exposed(u32),
    /// It holds no key, for this reason.
    NoKey(String),
    /// It cannot be read, or is not there.
    Unread(io::Error),
}

impl KeyFile {
    /// Reads the file, and the certificate and public key beside it. As with `ssh`, the public key beside it is enough:
    /// an agent may hold the private one. Of a file that holds no key, [`KeyFile::lacking`] says so.
    ///
    /// # Errors
    /// There is neither.
    pub(super) fn read(path: &Path) -> Result<Self, SshError> {
        let mut found = Self {
            path: path.to_owned(),
            public: beside(path, ".pub").and_then(|text| PublicKey::from_openssh(text.trim()).ok()),
            private: None,
            certificate: beside(path, "-cert.pub")
                .and_then(|text| Certificate::from_openssh(text.trim()).ok())
                .filter(|certificate| certificate.cert_type() == CertType::User),
            lack: None,
            was_asked: false,
        };
        match contents(path) {
            Ok((bytes, about)) => {
                if let Err(reason) = found.take(&bytes, &about) {
                    found.lack = Some(Lack::NoKey(reason));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && found.public.is_none() => {
                return Err(SshError::file("cannot read the identity", path, &error));
            }
            Err(error) => found.lack = Some(Lack::Unread(error)),
        }
        Ok(found)
    }

    /// # Errors
    /// What is wrong with the file.
    fn take(&mut self, bytes: &[u8], about: &Metadata) -> Result<(), String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "it is no text")?;
        if !text.contains("PRIVATE KEY") && !text.starts_with("PuTTY-User-Key-File-") {
            let public = PublicKey::from_openssh(text.trim())
                .map_err(|_| "it is no private key in a form that OpenSSH writes")?;
            self.public = Some(public);
            self.lack = Some(Lack::PublicOnly);
            return Ok(());
        }
        // The rule of `ssh`: its own files only, so that a file of root's in a container image passes.
        let exposed = about.uid() == nix::unistd::getuid().as_raw() && about.mode() & 0o077 != 0;
        if exposed {
            self.lack = Some(Lack::Exposed(about.mode() & 0o7777));
        }
        if text.contains("BEGIN OPENSSH PRIVATE KEY") {
            let key = PrivateKey::from_openssh(text).map_err(|error| error.to_string())?;
            self.public = Some(key.public_key().clone());
            if exposed {
            } else if key.is_encrypted() {
                self.lack = Some(Lack::Encrypted(Zeroizing::new(text.to_owned())));
            } else {
                self.keep(key);
            }
        } else if exposed {
        } else if text.contains("ENCRYPTED") || text.contains("Encryption: aes") {
            self.lack = Some(Lack::Encrypted(Zeroizing::new(text.to_owned())));
        } else {
            let key = decode_secret_key(text, None).map_err(|error| error.to_string())?;
            self.public = Some(key.public_key().clone());
            self.keep(key);
        }
        Ok(())
    }

    fn keep(&mut self, key: PrivateKey) {
        let on_device = matches!(
            key.algorithm(),
            Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256
        );
        if on_device {
            self.lack = Some(Lack::Device);
        } else {
            self.lack = None;
            self.private = Some(Arc::new(key));
        }
    }

    pub(super) fn is_encrypted(&self) -> bool {
        matches!(self.lack, Some(Lack::Encrypted(_)))
    }

    /// Asks for the passphrase until it fits, at most `tries` times, and never again. The text is forgotten
    /// once it fitted, or did not.
    pub(super) fn unlock(&mut self, tries: u32, ask: &dyn Fn(&Path, u32) -> Option<Secret>) {
        let Some(Lack::Encrypted(text)) = &self.lack else {
            return;
        };
        if std::mem::replace(&mut self.was_asked, true) {
            return;
        }
        for attempt in 1..=tries {
            // There was no answer: the reason stays.
            let Some(passphrase) = ask(&self.path, attempt) else {
                return;
            };
            // A passphrase that is not text fits nothing that russh reads.
            if let Ok(words) = std::str::from_utf8(passphrase.expose())
                && let Ok(key) = decode_secret_key(text, Some(words))
            {
                self.public = Some(key.public_key().clone());
                return self.keep(key);
            }
        }
        self.lack = Some(Lack::WrongPassphrase);
    }

    /// Why it cannot sign, with the way out.
    pub(super) fn lacking(&self) -> Option<SshError> {
        let path = self.path.clone();
        let key = |reason: String| SshError::Key {
            path: self.path.clone(),
            reason,
        };
        Some(match self.lack.as_ref()? {
            Lack::Encrypted(_) => SshError::Encrypted(path),
            Lack::WrongPassphrase => SshError::WrongPassphrase(path),
            Lack::Exposed(mode) => SshError::Exposed { path, mode: *mode },
            Lack::PublicOnly => {
                key("it holds a public key, and no agent holds the private one".into())
            }
            Lack::NoKey(reason) => key(reason.clone()),
            Lack::Unread(error) => SshError::file("cannot read the identity", &path, error),
            Lack::Device => key(format!(
                "its key is in a FIDO device, which prepull reaches through an agent alone: run `ssh-add {}` first",
                self.path.display()
            )),
        })
    }
}

/// A file that CertificateFile names; `None` where there is none.
///
/// # Errors
/// What is wrong with it.
pub(super) fn certificate(path: &Path) -> Result<Option<Certificate>, String> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let certificate = Certificate::from_openssh(text.trim()).map_err(|error| error.to_string())?;
    if certificate.cert_type() == CertType::User {
        Ok(Some(certificate))
    } else {
        Err("it is a host's certificate, not a user's".to_owned())
    }
}

/// The file's beginning, which is all of it where it is a key.
fn contents(path: &Path) -> io::Result<(Zeroizing<Vec<u8>>, Metadata)> {
    let file = File::open(path)?;
    let about = file.metadata()?;
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(LONGEST_FILE).read_to_end(&mut bytes)?;
    Ok((bytes, about))
}

/// Where `ssh` looks for the public key of a key file.
pub fn public_key_of(path: &Path) -> PathBuf {
    with_suffix(path, ".pub")
}

fn beside(path: &Path, suffix: &str) -> Option<String> {
    fs::read_to_string(with_suffix(path, suffix)).ok()
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
