//! Decides whether a host's key is trusted, and records new ones when the operator asked for that.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use russh::keys::{Algorithm, Certificate, EcdsaCurve, HashAlg, PublicKey};

use super::known_hosts::{Index, KnownName, Verdict, hashed};
use super::{HostKeyPolicy, HostSettings, host_certificate};

/// What known_hosts says of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyStatus {
    /// It is there, or a trusted authority vouches for it.
    Known,
    /// There is no key for the host.
    New,
    /// There is another one.
    Changed {
        /// Its type and fingerprint.
        known: String,
        /// The file and line.
        place: String,
    },
    /// It is there as revoked.
    Revoked {
        /// The file and line.
        place: String,
    },
}

/// Whether a key is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trust {
    /// It is.
    Yes,
    /// It is taken although another one is known, because every key is: no password proves us to it.
    Changed,
    /// It is new, and is once [`HostKeys::record`] has written it down.
    OnceRecorded {
        /// How many lines of known_hosts were looked at.
        lines: usize,
    },
    /// It is not, but the host was asked for types in a wrong order: it may have a key that is.
    AskFor(Vec<Algorithm>),
}

/// Whom we trust. Shared by all connections of a run.
pub(super) struct HostKeys {
    policy: HostKeyPolicy,
    /// Where new keys are recorded: the first of the operator's own files.
    own: Option<Arc<Path>>,
    /// What was read and what was not there, for people.
    sources: String,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    index: Index,
    /// How much of the own file is in the index: bytes and lines.
    read: (u64, usize),
}

impl HostKeys {
    /// Reads the files; those that do not exist are empty. Also returns the warnings: a file that cannot be read trusts
    /// nobody, as with `ssh`, and one that cannot be written is in the way of new hosts alone.
    pub(super) fn read(
        policy: HostKeyPolicy,
        own: &[PathBuf],
        others: &[PathBuf],
    ) -> (Self, Vec<String>) {
        let mut state = State::default();
        let mut warnings = Vec::new();
        let mut found: Vec<String> = Vec::new();
        for (number, path) in own.iter().chain(others).enumerate() {
            let shown = path.display();
            let bytes = match fs::read(path) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    warnings.push(format!(
                        "cannot read the known host keys in {shown}: {error}"
                    ));
                    continue;
                }
            };
            found.push(shown.to_string());
            let text = String::from_utf8_lossy(&bytes);
            if number == 0 {
                state.read = (bytes.len() as u64, text.lines().count());
                if policy == HostKeyPolicy::AcceptNew
                    && let Err(error) = OpenOptions::new().append(true).open(path)
                {
                    warnings.push(format!(
                        "cannot record new keys in {shown}: {error}; hosts that are not known are refused"
                    ));
                }
            }
            // An editor on Windows may have put a byte order mark in front.
            let text = text.trim_start_matches('\u{feff}');
            warnings.extend(state.index.add(&path.as_path().into(), 1, text));
        }
        let sources = match found.is_empty() {
            false => format!("known hosts were read from {}", found.join(" and ")),
            true => {
                let missing = own
                    .iter()
                    .chain(others)
                    .map(|path| path.display().to_string());
                format!(
                    "there is none of the files of known hosts: {}",
                    missing.collect::<Vec<_>>().join(", ")
                )
            }
        };
        let keys = Self {
            sources,
            policy,
            own: own.first().map(|path| path.as_path().into()),
            state: RwLock::new(state),
        };
        (keys, warnings)
    }

    /// The host key types to offer, those that may be known for this host first: a host known by one type that shows
    /// another looks like a stranger. Whether they are is only found out where it matters.
    pub(super) fn preferred(&self, name: &KnownName) -> Vec<Algorithm> {
        known_first(&self.state().index.likely_algorithms(name))
    }

    /// Whether the host called `name` may have this key; the error is a sentence for the operator. `asked` are the
    /// types that it was asked for, in order.
    pub(super) fn check(
        &self,
        name: &KnownName,
        key: &PublicKey,
        asked: &[Algorithm],
    ) -> Result<Trust, String> {
        let index = &self.state().index;
        if index.knows(name, key) {
            return Ok(Trust::Yes);
        }
        let found = index.find(name, 0);
        let verdict = index.judge(name, key, &found);
        match (&verdict, self.policy) {
            (Verdict::Known, _) => return Ok(Trust::Yes),
            (Verdict::Unknown { .. }, HostKeyPolicy::Off) => return Ok(Trust::Yes),
            (Verdict::Changed { .. }, HostKeyPolicy::Off) => return Ok(Trust::Changed),
            _ => {}
        }
        let mut wanted = known_first(&index.algorithms(name, &found));
        wanted.retain(|algorithm| asked.contains(algorithm));
        if !same_answer(asked, &wanted, key) {
            return Ok(Trust::AskFor(wanted));
        }
        match (verdict, self.policy) {
            (Verdict::Unknown { .. }, HostKeyPolicy::AcceptNew) => {
                Ok(Trust::OnceRecorded { lines: index.len() })
            }
            (refused, _) => Err(self.refusal(name, key, &refused)),
        }
    }

    /// What known_hosts says of the key of the host called `name`, whatever the policy. The error is the types of keys
    /// to ask for instead: the host may have one that is known.
    pub(super) fn status(
        &self,
        name: &KnownName,
        key: &PublicKey,
        asked: &[Algorithm],
    ) -> Result<KeyStatus, Vec<Algorithm>> {
        let index = &self.state().index;
        if index.knows(name, key) {
            return Ok(KeyStatus::Known);
        }
        let found = index.find(name, 0);
        let verdict = index.judge(name, key, &found);
        let mut wanted = known_first(&index.algorithms(name, &found));
        wanted.retain(|algorithm| asked.contains(algorithm));
        if verdict != Verdict::Known && !same_answer(asked, &wanted, key) {
            return Err(wanted);
        }
        Ok(match verdict {
            Verdict::Known => KeyStatus::Known,
            Verdict::Unknown { .. } => KeyStatus::New,
            Verdict::Changed { known, place } => KeyStatus::Changed {
                known: format!(
                    "{} {}",
                    known.algorithm(),
                    known.fingerprint(HashAlg::Sha256)
                ),
                place: place.to_string(),
            },
            Verdict::Revoked { place } => KeyStatus::Revoked {
                place: place.to_string(),
            },
        })
    }

    /// Whether certificates are worth asking this host for: an authority may vouch for it, or is revoked.
    pub(super) fn certified(&self, name: &KnownName) -> bool {
        self.state().index.is_marked(name)
    }

    /// Whether the host called `name` may have the key in this certificate. As with `ssh`, the key counts for itself
    /// where the certificate does not hold.
    pub(super) fn check_certificate(
        &self,
        name: &KnownName,
        certificate: &Certificate,
        settings: &HostSettings,
    ) -> Result<Trust, String> {
        let key = PublicKey::from(certificate.public_key().clone());
        let authority = certificate.signature_key();
        let signed = format!(
            "certificate of the authority {} {}",
            authority.algorithm(),
            authority.fingerprint(HashAlg::Sha256)
        );
        let (revoked, trusted) = {
            let index = &self.state().index;
            (
                index.revoked(name, authority),
                index.authority(name, authority),
            )
        };
        if let Some(place) = revoked {
            return Err(format!(
                "the host key of {name} has a {signed}, which {place} revokes"
            ));
        }
        let reason = match trusted {
            None => "known_hosts does not trust this authority for it".to_owned(),
            Some(_) => {
                let revoked = self.state().index.revoked(name, certificate.public_key());
                let listed = settings.ca_signature_algorithms.as_deref();
                let now = std::time::SystemTime::now();
                match host_certificate::check(certificate, name.principal(), listed, now) {
                    Ok(()) if revoked.is_none() => return Ok(Trust::Yes),
                    Ok(()) => "its key is revoked".to_owned(),
                    Err(reason) => reason,
                }
            }
        };
        // No order of types brings another key: certificates are asked for first.
        self.check(name, &key, &[key.algorithm()])
            .map_err(|refusal| format!("{refusal}; its {signed} does not help: {reason}"))
    }

    /// Appends the key of a new host, unless someone else has done so in the meantime. Blocks: for
    /// the disk, and for other processes that hold the file's lock. The first `lines` are known not to know the host.
    /// With `hash`, the name is hashed.
    pub(super) fn record(
        &self,
        name: &KnownName,
        key: &PublicKey,
        lines: usize,
        hash: bool,
    ) -> Result<(), String> {
        let Some(own) = &self.own else {
            return Err(format!(
                "{}; there is no known_hosts file to record it in",
                stranger(name, key)
            ));
        };
        let failed = |error: io::Error| {
            format!(
                "cannot record the new host key of {name} in {}: {error}",
                own.display()
            )
        };
        // Such a name would stand for other hosts too, or for several lines.
        let special = |c: char| "@?*#[]|'\"\\,".contains(c) || c.is_whitespace() || c.is_control();
        if name.principal().contains(special) {
            return Err(format!(
                "{}; a name with such characters is not recorded",
                stranger(name, key)
            ));
        }
        // Held while the file is written: two nodes on one address are recorded once.
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let mut file = open_own(own).map_err(failed)?;
        file.lock().map_err(failed)?;
        catch_up(&mut state, &mut file, own).map_err(failed)?;
        let found = state.index.find(name, lines);
        match state.index.judge(name, key, &found) {
            Verdict::Known => Ok(()),
            Verdict::Unknown { .. } => {
                append(&mut state, &mut file, own, name, key, hash).map_err(failed)
            }
            other => Err(self.refusal(name, key, &other)),
        }
    }

    /// Why a key is not taken, for the operator.
    fn refusal(&self, name: &KnownName, key: &PublicKey, verdict: &Verdict) -> String {
        let offered = format!("{} {}", key.algorithm(), key.fingerprint(HashAlg::Sha256));
        match verdict {
            // Never asked for; harmless if it were.
            Verdict::Known => format!("the host key of {name} is known"),
            Verdict::Unknown { authority } => {
                let authority = authority.as_ref().map_or_else(String::new, |place| {
                    format!(
                        " ({place} trusts a certificate authority for it, but it shows no certificate)"
                    )
                });
                format!(
                    "{}{authority}; {}; compare the fingerprint with the node's own, then record it with `prepull hosts scan`, or record all unknown keys with --host-keys accept-new",
                    stranger(name, key),
                    self.sources
                )
            }
            Verdict::Changed { known, place } => format!(
                "the host key of {name} has changed: it offers {offered}, but {place} knows {} {}; someone may be listening in, or the node was installed anew: if so, remove the old key with `ssh-keygen -f {} -R {}`",
                known.algorithm(),
                known.fingerprint(HashAlg::Sha256),
                quoted(&place.file.to_string_lossy()),
                quoted(&name.full)
            ),
            Verdict::Revoked { place } => format!(
                "the host key of {name} is revoked: {place} forbids {offered}; give the node a new key"
            ),
        }
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        // Nothing in here panics half-way through a change.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The host key types we accept, those of known keys first.
fn known_first(known: &[Algorithm]) -> Vec<Algorithm> {
    let is_known = |offered: &Algorithm| known.iter().any(|known| is_same_type(offered, known));
    let (mut first, rest): (Vec<_>, Vec<_>) = offered().into_iter().partition(is_known);
    first.extend(rest);
    first
}

/// The hash of an RSA signature is not part of the key.
fn is_same_type(one: &Algorithm, other: &Algorithm) -> bool {
    match (one, other) {
        (Algorithm::Rsa { .. }, Algorithm::Rsa { .. }) => true,
        (one, other) => one == other,
    }
}

/// Whether a host that answered `asked` with this key would have answered `wanted` with it too: it has no key of the
/// types that stand before it.
fn same_answer(asked: &[Algorithm], wanted: &[Algorithm], key: &PublicKey) -> bool {
    let shown = key.algorithm();
    let before = |types: &[Algorithm]| -> Vec<Algorithm> {
        let before = types.iter().take_while(|one| !is_same_type(one, &shown));
        before.cloned().collect()
    };
    let missing = before(asked);
    before(wanted).iter().all(|one| missing.contains(one))
}

/// The host key types we accept, best first. No SHA-1.
pub(super) fn offered() -> Vec<Algorithm> {
    let ecdsa = |curve| Algorithm::Ecdsa { curve };
    let rsa = |hash| Algorithm::Rsa { hash: Some(hash) };
    vec![
        Algorithm::Ed25519,
        ecdsa(EcdsaCurve::NistP256),
        ecdsa(EcdsaCurve::NistP384),
        ecdsa(EcdsaCurve::NistP521),
        rsa(HashAlg::Sha512),
        rsa(HashAlg::Sha256),
    ]
}

fn open_own(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent().filter(|folder| !folder.exists()) {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
    }
    OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

/// Reads what others appended since we last looked.
fn catch_up(state: &mut State, file: &mut File, path: &Arc<Path>) -> io::Result<()> {
    let length = file.metadata()?.len();
    if length < state.read.0 {
        // Rewritten by someone: read it all again. Lines seen twice do no harm.
        state.read = (0, 0);
    }
    if length == state.read.0 {
        return Ok(());
    }
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(state.read.0))?;
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    state.index.add(path, state.read.1 + 1, &text);
    state.read.0 += bytes.len() as u64;
    state.read.1 += text.lines().count();
    Ok(())
}

fn append(
    state: &mut State,
    file: &mut File,
    path: &Arc<Path>,
    name: &KnownName,
    key: &PublicKey,
    hash: bool,
) -> io::Result<()> {
    // The comment is the server's word: left out.
    let key = PublicKey::from(key.key_data().clone());
    let name = if hash {
        hashed(&name.full, std::array::from_fn(|_| fastrand::u8(..))).map_err(io::Error::other)?
    } else {
        name.full.clone()
    };
    let mut line = format!("{name} {}\n", key.to_openssh().map_err(io::Error::other)?);
    let entry = line.clone();
    if state.read.0 > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            line.insert(0, '\n');
        }
    }
    file.write_all(line.as_bytes())?;
    state.index.add(path, state.read.1 + 1, &entry);
    state.read.0 += line.len() as u64;
    state.read.1 += 1;
    Ok(())
}

fn stranger(name: &KnownName, key: &PublicKey) -> String {
    format!(
        "the host key of {name} is unknown: it offers {} {}",
        key.algorithm(),
        key.fingerprint(HashAlg::Sha256)
    )
}

/// As one word of a shell: brackets are a pattern there.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%".contains(c);
    if word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
#[path = "host_keys_tests.rs"]
mod tests;
