//! Reads known_hosts lines and answers quickly what they say about a host: 10,000 names against
//! 10,000 lines must not hurt. The format is the one of sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT".

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, PublicKey};
use sha1::Sha1;

/// The port that known_hosts leaves out.
const SSH_PORT: u16 = 22;

/// The name under which a host stands in known_hosts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct KnownName {
    /// `host`, or `[host]:port` beside port 22.
    pub(super) full: String,
    /// `host`, beside port 22: what stands there is trusted too, where nothing stands under the full name.
    pub(super) bare: Option<String>,
}

impl KnownName {
    /// Of a host on a port.
    pub(super) fn new(host: &str, port: u16) -> Self {
        let host = host.to_lowercase();
        if port == SSH_PORT {
            Self::alias(&host)
        } else {
            Self {
                full: format!("[{host}]:{port}"),
                bare: Some(host),
            }
        }
    }

    /// Of a HostKeyAlias: as with ssh, the port does not count then.
    pub(super) fn alias(alias: &str) -> Self {
        Self {
            full: alias.to_lowercase(),
            bare: None,
        }
    }

    /// The name that a host certificate must be made for.
    pub(super) fn principal(&self) -> &str {
        self.bare.as_ref().unwrap_or(&self.full)
    }

    /// The full name first.
    fn both(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.full.as_str()).chain(self.bare.as_deref())
    }
}

impl std::fmt::Display for KnownName {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.full)
    }
}

/// Where a line stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: Arc<Path>,
    /// Counted from 1.
    pub(super) line: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}:{}", self.file.display(), self.line)
    }
}

/// What the files say about a key that a host offers.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// This key stands there for this host.
    Known,
    /// No key stands there for this host; perhaps an authority does, which is not a key of the host.
    Unknown { authority: Option<Place> },
    /// Other keys stand there for this host.
    Changed { known: PublicKey, place: Place },
    /// This key is marked as revoked.
    Revoked { place: Place },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marker {
    Authority,
    Revoked,
}

#[derive(Debug)]
struct Entry {
    marker: Option<Marker>,
    hosts: Hosts,
    key: PublicKey,
    place: Place,
}

#[derive(Debug)]
enum Hosts {
    /// `|1|SALT|HASH`: HMAC-SHA1 of the name, keyed by the salt. The salt is kept as a keyed hash: that halves
    /// the work of every look-up.
    Hashed { keyed: Hmac<Sha1>, hash: [u8; 20] },
    /// Patterns, a leading `!` negates.
    List(Vec<String>),
}

impl Hosts {
    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Hashed { keyed, hash } => {
                let mut keyed = keyed.clone();
                keyed.update(name.as_bytes());
                keyed.finalize().into_bytes().as_slice() == hash
            }
            Self::List(list) => list_matches(list, name),
        }
    }
}

/// All lines of all files, arranged for look-up.
///
/// A hashed line tells nobody whose it is: finding those of a name costs one HMAC a line. So a key that is offered
/// is looked up by the key, which leaves a line or two to compare with the name.
#[derive(Default)]
pub(super) struct Index {
    entries: Vec<Entry>,
    by_key: HashMap<KeyData, Vec<usize>>,
    /// Names without wildcards, from lists without negation.
    exact: HashMap<String, Vec<usize>>,
    /// Lists that have to be walked.
    lists: Vec<usize>,
    hashed: Vec<usize>,
    /// Those marked `@cert-authority`.
    authorities: Vec<usize>,
    /// What was looked up before.
    found: HashMap<String, Arc<[usize]>>,
}

impl Index {
    /// Adds the lines of `text`, the first of which is line `first` of `file`.
    ///
    /// Returns one warning for each line that cannot be read; such a line trusts nobody.
    pub(super) fn add(&mut self, file: &Arc<Path>, first: usize, text: &str) -> Vec<String> {
        let mut warnings = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let place = Place {
                file: Arc::clone(file),
                line: first + number,
            };
            match parse(line) {
                Ok(None) => {}
                Ok(Some((marker, hosts, key))) => self.insert(Entry {
                    marker,
                    hosts,
                    key,
                    place,
                }),
                Err(reason) => warnings.push(format!("{place}: line ignored: {reason}")),
            }
        }
        self.found.clear();
        warnings
    }

    fn insert(&mut self, entry: Entry) {
        let number = self.entries.len();
        match &entry.hosts {
            Hosts::Hashed { .. } => self.hashed.push(number),
            Hosts::List(names) if names.iter().all(|name| is_plain(name)) => {
                for name in names {
                    self.exact.entry(name.clone()).or_default().push(number);
                }
            }
            Hosts::List(_) => self.lists.push(number),
        }
        if entry.marker == Some(Marker::Authority) {
            self.authorities.push(number);
        }
        let same = self.by_key.entry(entry.key.key_data().clone());
        same.or_default().push(number);
        self.entries.push(entry);
    }

    /// What the files say about `key` for this host.
    pub(super) fn judge(&mut self, name: &KnownName, key: &PublicKey) -> Verdict {
        if let Some(place) = self.revoked(name, key.key_data()) {
            return Verdict::Revoked { place };
        }
        if self.holds(&name.full, None, key.key_data()).is_some() {
            return Verdict::Known;
        }
        let found = self.find(&name.full);
        let entries = || found.iter().map(|number| &self.entries[*number]);
        // A key of the same type says most; but a host known by another type is no unknown host.
        let known = entries()
            .find(|e| e.marker.is_none() && e.key.algorithm() == key.algorithm())
            .or_else(|| entries().find(|e| e.marker.is_none()));
        if let Some(entry) = known {
            return Verdict::Changed {
                known: entry.key.clone(),
                place: entry.place.clone(),
            };
        }
        let bare = name.bare.as_deref();
        if bare.is_some_and(|bare| self.holds(bare, None, key.key_data()).is_some()) {
            return Verdict::Known;
        }
        Verdict::Unknown {
            authority: self.any_authority(name),
        }
    }

    /// Where this key is marked as revoked for this host.
    pub(super) fn revoked(&self, name: &KnownName, key: &KeyData) -> Option<Place> {
        let mut names = name.both();
        names.find_map(|name| self.holds(name, Some(Marker::Revoked), key))
    }

    /// Where this key stands as an authority that may vouch for this host.
    pub(super) fn authority(&self, name: &KnownName, key: &KeyData) -> Option<Place> {
        let mut names = name.both();
        names.find_map(|name| self.holds(name, Some(Marker::Authority), key))
    }

    /// Where an authority stands for this host, whichever.
    pub(super) fn any_authority(&self, name: &KnownName) -> Option<Place> {
        let mut authorities = self.authorities.iter().map(|number| &self.entries[*number]);
        let entry = authorities.find(|e| name.both().any(|name| e.hosts.matches(name)));
        entry.map(|entry| entry.place.clone())
    }

    /// The line with this name, marker and key.
    fn holds(&self, name: &str, marker: Option<Marker>, key: &KeyData) -> Option<Place> {
        let same = self.by_key.get(key)?.iter();
        let mut same = same.map(|number| &self.entries[*number]);
        let entry = same.find(|entry| entry.marker == marker && entry.hosts.matches(name));
        entry.map(|entry| entry.place.clone())
    }

    /// The types of the keys that stand there for this host, without markers.
    pub(super) fn algorithms(&mut self, name: &KnownName) -> Vec<Algorithm> {
        let found: Vec<_> = name.both().map(|name| self.find(name)).collect();
        found
            .iter()
            .flat_map(|found| found.iter())
            .map(|number| &self.entries[*number])
            .filter(|entry| entry.marker.is_none())
            .map(|entry| entry.key.algorithm())
            .collect()
    }

    /// The entries for this name, in the order of the files.
    fn find(&mut self, name: &str) -> Arc<[usize]> {
        if let Some(found) = self.found.get(name) {
            return Arc::clone(found);
        }
        let mut found = self.exact.get(name).cloned().unwrap_or_default();
        let walked = self.lists.iter().chain(&self.hashed);
        found.extend(walked.filter(|number| self.entries[**number].hosts.matches(name)));
        found.sort_unstable();
        found.dedup();
        let found: Arc<[usize]> = found.into();
        self.found.insert(name.to_owned(), Arc::clone(&found));
        found
    }
}

/// Whether a name of a list matches no other name but itself.
fn is_plain(name: &str) -> bool {
    !name.starts_with('!') && !name.contains(['*', '?'])
}

/// Whether a list matches: one of its patterns does, and none of the negated ones.
fn list_matches(list: &[String], name: &str) -> bool {
    let mut matched = false;
    for pattern in list {
        match pattern.strip_prefix('!') {
            Some(negated) if glob(negated, name) => return false,
            Some(_) => {}
            None => matched |= glob(pattern, name),
        }
    }
    matched
}

/// `*` stands for any run of characters, `?` for one. Linear but for the last star: hostile
/// patterns cannot make it slow.
pub(super) fn glob(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut at, mut from) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while from < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, from));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[from] => {
                at += 1;
                from += 1;
            }
            _ => match star {
                Some((star_at, star_from)) => {
                    at = star_at + 1;
                    from = star_from + 1;
                    star = Some((star_at, from));
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

type Line = (Option<Marker>, Hosts, PublicKey);

/// One line; `None` for an empty one or a comment. The error says what is wrong with it.
fn parse(line: &str) -> Result<Option<Line>, String> {
    let line = line.trim_matches([' ', '\t', '\r']);
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let mut fields = line.split([' ', '\t']).filter(|field| !field.is_empty());
    let mut field = |what: &str| fields.next().ok_or_else(|| format!("no {what}"));

    let mut hosts = field("host names")?;
    let marker = match hosts {
        "@revoked" => Some(Marker::Revoked),
        "@cert-authority" => Some(Marker::Authority),
        _ if hosts.starts_with('@') => return Err(format!("unknown marker {hosts:?}")),
        _ => None,
    };
    if marker.is_some() {
        hosts = field("host names after the marker")?;
    }
    let hosts = parse_hosts(hosts)?;
    let kind = field("key type")?;
    let blob = STANDARD
        .decode(field("key")?)
        .map_err(|_| "the key is not base64".to_string())?;
    let key =
        PublicKey::from_bytes(&blob).map_err(|error| format!("the key is broken: {error}"))?;
    if key.algorithm().as_str() != kind {
        return Err(format!(
            "the key is of type {}, not {kind:?}",
            key.algorithm()
        ));
    }
    Ok(Some((marker, hosts, key)))
}

/// A name as HashKnownHosts writes it.
pub(super) fn hashed(name: &str, salt: [u8; 20]) -> Result<String, String> {
    let mut keyed =
        Hmac::<Sha1>::new_from_slice(&salt).map_err(|error| format!("cannot hash: {error}"))?;
    keyed.update(name.as_bytes());
    let hash = keyed.finalize().into_bytes();
    Ok(format!(
        "|1|{}|{}",
        STANDARD.encode(salt),
        STANDARD.encode(hash)
    ))
}

fn parse_hosts(text: &str) -> Result<Hosts, String> {
    if let Some(hashed) = text.strip_prefix('|') {
        let broken = || format!("{text:?} is no hashed name (|1|SALT|HASH)");
        let (salt, hash) = hashed
            .strip_prefix("1|")
            .and_then(|rest| rest.split_once('|'))
            .ok_or_else(broken)?;
        let salt = STANDARD.decode(salt).map_err(|_| broken())?;
        return Ok(Hosts::Hashed {
            keyed: Hmac::new_from_slice(&salt).map_err(|_| broken())?,
            hash: STANDARD
                .decode(hash)
                .ok()
                .and_then(|bytes| bytes.try_into().ok())
                .ok_or_else(broken)?,
        });
    }
    Ok(Hosts::List(
        text.split(',')
            .filter(|name| !name.is_empty())
            .map(str::to_lowercase)
            .collect(),
    ))
}

#[cfg(test)]
#[path = "known_hosts_tests.rs"]
mod tests;
