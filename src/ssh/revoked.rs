//! The host keys and certificates that RevokedHostKeys of ssh_config refuses: a list of public keys, or a key
//! revocation list of `ssh-keygen -k` (OpenSSH's PROTOCOL.krl).

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use russh::keys::ssh_key::Fingerprint;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Certificate, HashAlg, PublicKey, PublicKeyOrCertificate};
use sha1::{Digest as _, Sha1};

/// How such a list begins; a text file never does.
const MAGIC: &[u8] = b"SSHKRL\n\0";
/// The one version of the format.
const VERSION: u32 = 1;

/// What one file revokes.
#[derive(Debug, Default)]
pub(super) struct Revoked {
    /// Keys in the form in which they travel.
    keys: HashSet<Vec<u8>>,
    sha1: HashSet<[u8; 20]>,
    sha256: HashSet<[u8; 32]>,
    /// Certificates by their authority; those of any authority under an empty key.
    certificates: HashMap<Vec<u8>, Certificates>,
}

/// Certificates of one authority.
#[derive(Debug, Default)]
struct Certificates {
    /// Serial numbers, first and last, ascending and apart once the file is read.
    serials: Vec<(u64, u64)>,
    ids: HashSet<Vec<u8>>,
}

impl Revoked {
    /// Reads a file. As with `ssh`, no host is trusted while one cannot be read.
    ///
    /// # Errors
    /// A clause that names the file and says what is wrong with it.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let failed = |reason: String| {
            format!(
                "the revoked host keys in {} (RevokedHostKeys of ssh_config) cannot be read: {reason}",
                path.display()
            )
        };
        let bytes = fs::read(path).map_err(|error| failed(error.to_string()))?;
        match bytes.strip_prefix(MAGIC) {
            Some(rest) => Self::of_krl(Bytes(rest)),
            None => Self::of_text(&String::from_utf8_lossy(&bytes)),
        }
        .map_err(failed)
    }

    /// Whether the key, its certificate, or the authority of that is revoked.
    pub(super) fn holds(&self, offered: &PublicKeyOrCertificate) -> bool {
        if self.holds_key(offered.public_key().key_data()) {
            return true;
        }
        let Some(certificate) = offered.certificate() else {
            return false;
        };
        let authority = certificate.signature_key();
        let lists = [Some(Vec::new()), blob(authority)];
        let mut lists = lists.iter().flatten();
        self.holds_key(authority)
            || lists.any(|authority| {
                let revoked = self.certificates.get(authority);
                revoked.is_some_and(|revoked| revoked.holds(certificate))
            })
    }

    fn holds_key(&self, key: &KeyData) -> bool {
        // What has no form to travel in did not arrive either.
        let Some(blob) = blob(key) else { return true };
        let sha256 = match key.fingerprint(HashAlg::Sha256) {
            Fingerprint::Sha256(hash) => self.sha256.contains(&hash),
            _ => false,
        };
        let sha1: [u8; 20] = Sha1::digest(&blob).into();
        sha256 || self.sha1.contains(&sha1) || self.keys.contains(&blob)
    }

    /// Public keys, or certificates that stand for their key, one a line.
    fn of_text(text: &str) -> Result<Self, String> {
        let mut revoked = Self::default();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim_start_matches([' ', '\t']);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let broken = || format!("line {} is no public key", number + 1);
            let mut words = line.split_ascii_whitespace();
            let kind = words.next().ok_or_else(broken)?;
            let bytes = words.next().and_then(|word| STANDARD.decode(word).ok());
            let bytes = bytes.ok_or_else(broken)?;
            let key = if kind.contains("-cert-v0") {
                Certificate::from_bytes(&bytes).map(|certificate| certificate.public_key().clone())
            } else {
                PublicKey::from_bytes(&bytes).map(|key| key.key_data().clone())
            };
            let key = key.ok().as_ref().and_then(blob).ok_or_else(broken)?;
            revoked.keys.insert(key);
        }
        Ok(revoked)
    }

    fn of_krl(mut bytes: Bytes<'_>) -> Result<Self, String> {
        let version = bytes.u32()?;
        if version != VERSION {
            return Err(format!("the list has the unknown version {version}"));
        }
        // The list's own number, its date, flags; then what is reserved, and a comment.
        bytes.take(3 * 8)?;
        bytes.string()?;
        bytes.string()?;
        let mut revoked = Self::default();
        while !bytes.is_empty() {
            let section = bytes.u8()?;
            let mut inside = Bytes(bytes.string()?);
            match section {
                1 => revoked.add_certificates(&mut inside)?,
                2 => {
                    while !inside.is_empty() {
                        revoked.keys.insert(inside.string()?.to_vec());
                    }
                }
                3 => {
                    while !inside.is_empty() {
                        revoked.sha1.insert(inside.hash()?);
                    }
                }
                5 => {
                    while !inside.is_empty() {
                        revoked.sha256.insert(inside.hash()?);
                    }
                }
                // A signature, which nothing makes and ssh does not look at any more: its key, and itself.
                4 => {
                    bytes.string()?;
                }
                255 => extension(&mut inside)?,
                other => {
                    return Err(format!(
                        "the list has a section of the unknown type {other}"
                    ));
                }
            }
            inside.end()?;
        }
        for certificates in revoked.certificates.values_mut() {
            certificates.tidy();
        }
        Ok(revoked)
    }

    fn add_certificates(&mut self, bytes: &mut Bytes<'_>) -> Result<(), String> {
        let authority = bytes.string()?.to_vec();
        bytes.string()?;
        let list = self.certificates.entry(authority).or_default();
        while !bytes.is_empty() {
            let section = bytes.u8()?;
            let mut inside = Bytes(bytes.string()?);
            match section {
                0x20 => {
                    while !inside.is_empty() {
                        let serial = inside.u64()?;
                        list.serials.push((serial, serial));
                    }
                }
                0x21 => list.serials.push((inside.u64()?, inside.u64()?)),
                0x22 => {
                    let first = inside.u64()?;
                    for (byte, bits) in inside.string()?.iter().rev().enumerate() {
                        for bit in (0..8).filter(|bit| bits >> bit & 1 == 1) {
                            let serial = u64::try_from(byte * 8 + bit)
                                .ok()
                                .and_then(|offset| first.checked_add(offset))
                                .ok_or(BROKEN)?;
                            list.serials.push((serial, serial));
                        }
                    }
                }
                0x23 => {
                    while !inside.is_empty() {
                        list.ids.insert(inside.string()?.to_vec());
                    }
                }
                0x39 => extension(&mut inside)?,
                other => {
                    return Err(format!(
                        "the list has certificates in a section of the unknown type {other}"
                    ));
                }
            }
            inside.end()?;
        }
        Ok(())
    }
}

impl Certificates {
    /// Puts the serial numbers in order.
    fn tidy(&mut self) {
        self.serials.sort_unstable();
        self.serials.dedup_by(|next, last| {
            let overlaps = next.0 <= last.1;
            if overlaps {
                last.1 = last.1.max(next.1);
            }
            overlaps
        });
    }

    fn holds(&self, certificate: &Certificate) -> bool {
        let serial = certificate.serial();
        let after = self.serials.partition_point(|(first, _)| *first <= serial);
        let range = after.checked_sub(1).map(|last| self.serials[last]);
        // The number 0 is that of certificates which were given none.
        let by_serial = serial != 0 && range.is_some_and(|(_, last)| serial <= last);
        by_serial || self.ids.contains(certificate.key_id().as_bytes())
    }
}

/// A part that later versions may have added: harmless unless it says that it must be understood.
fn extension(bytes: &mut Bytes<'_>) -> Result<(), String> {
    let name = String::from_utf8_lossy(bytes.string()?);
    let must_be_understood = bytes.u8()? != 0;
    bytes.string()?;
    match must_be_understood {
        false => Ok(()),
        true => Err(format!("the list needs the unknown extension {name:?}")),
    }
}

fn blob(key: &KeyData) -> Option<Vec<u8>> {
    PublicKey::from(key.clone()).to_bytes().ok()
}

const BROKEN: &str = "the list is broken";

/// What is left to read. The crate's own reader refuses strings beyond a mebibyte, which long lists are.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn end(&self) -> Result<(), String> {
        let ended = self.is_empty().then_some(());
        ended.ok_or_else(|| BROKEN.to_owned())
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(BROKEN)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(BROKEN)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, String> {
        self.array().map(u8::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_be_bytes)
    }

    fn string(&mut self) -> Result<&'a [u8], String> {
        let length = usize::try_from(self.u32()?).map_err(|_| BROKEN)?;
        self.take(length)
    }

    fn hash<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let hash = self.string()?.try_into();
        hash.map_err(|_| BROKEN.to_owned())
    }
}

#[cfg(test)]
#[path = "revoked_tests.rs"]
mod tests;
