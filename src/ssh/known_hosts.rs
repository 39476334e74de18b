//! Reads known_hosts lines and answers quickly what they say about a host: 10,000 names against
//! 10,000 lines must not hurt. The format is the one of sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT".

mod line;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, PublicKey};

use line::{Hosts, Marker, is_plain, parse};

pub use line::hashed;

/// The port that known_hosts leaves out.
const SSH_PORT: u16 = 22;

/// The name under which a host stands in known_hosts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KnownName {
    /// `host`, or `[host]:port` beside port 22.
    pub(super) full: String,
    /// `host`, beside port 22: what stands there is trusted too, where nothing stands under the full name.
    pub(super) bare: Option<String>,
}

impl KnownName {
    /// Of a host on a port.
    pub fn new(host: &str, port: u16) -> Self {
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
    pub fn alias(alias: &str) -> Self {
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
pub struct Position {
    /// The file.
    pub file: Arc<Path>,
    /// Counted from 1.
    pub line: usize,
}

impl std::fmt::Display for Position {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}:{}", self.file.display(), self.line)
    }
}

/// What the files say about a key that a host offers.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This key stands there for this host.
    Known,
    /// No key stands there for this host; perhaps an authority does, which is not a key of the host.
    Unknown {
        /// Where the authority stands.
        authority: Option<Position>,
    },
    /// Other keys stand there for this host.
    Changed {
        /// One of them, of the same type where there is one.
        known: PublicKey,
        /// Where it stands.
        place: Position,
    },
    /// This key is marked as revoked.
    Revoked {
        /// Where it is.
        place: Position,
    },
}

#[derive(Debug)]
struct Entry {
    marker: Option<Marker>,
    hosts: Hosts,
    key: PublicKey,
    place: Position,
}

/// All lines of all files, arranged for look-up.
///
/// A hashed line does not show whose it is: finding those of a name costs one HMAC a line. So a key that is offered
/// is looked up by the key, which leaves a line or two to compare with the name, and all lines are walked only for a
/// host that shows another key than expected.
#[derive(Default)]
pub struct Index {
    entries: Vec<Entry>,
    by_key: HashMap<KeyData, Vec<usize>>,
    /// Names without wildcards, from lists without negation.
    exact: HashMap<String, Vec<usize>>,
    /// Lists that have to be walked.
    lists: Vec<usize>,
    hashed: Vec<usize>,
    /// The types of the keys in hashed lines without a marker.
    hashed_algorithms: Vec<Algorithm>,
    /// Those with a marker.
    marked: Vec<usize>,
}

impl Index {
    /// Adds the lines of `text`, the first of which is line `first` of `file`.
    ///
    /// Returns one warning for each line that cannot be read; such a line trusts no host.
    pub fn add(&mut self, file: &Arc<Path>, first: usize, text: &str) -> Vec<String> {
        let mut warnings = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let place = Position {
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
        warnings
    }

    fn insert(&mut self, entry: Entry) {
        let number = self.entries.len();
        match &entry.hosts {
            Hosts::Hashed { .. } => {
                self.hashed.push(number);
                let algorithm = entry.key.algorithm();
                if entry.marker.is_none() && !self.hashed_algorithms.contains(&algorithm) {
                    self.hashed_algorithms.push(algorithm);
                }
            }
            Hosts::List(names) if names.iter().all(|name| is_plain(name)) => {
                for name in names {
                    self.exact.entry(name.clone()).or_default().push(number);
                }
            }
            Hosts::List(_) => self.lists.push(number),
        }
        if entry.marker.is_some() {
            self.marked.push(number);
        }
        let same = self.by_key.entry(entry.key.key_data().clone());
        same.or_default().push(number);
        self.entries.push(entry);
    }

    /// How many lines there are: what was looked up knows nothing of later ones.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether this key stands there under the host's full name and is not revoked. Cheap, and all that is asked for
    /// most hosts.
    pub fn knows(&self, name: &KnownName, key: &PublicKey) -> bool {
        let key = key.key_data();
        self.holds(&name.full, None, key).is_some() && self.revoked(name, key).is_none()
    }

    /// The numbers of the lines about a host's full name, from number `from` on. Walks all lines with wildcards or
    /// hashed names.
    pub fn find(&self, name: &KnownName, from: usize) -> Vec<usize> {
        let exact = self.exact.get(&name.full).into_iter().flatten();
        let walked =
            self.lists.iter().chain(&self.hashed).filter(|number| {
                **number >= from && self.entries[**number].hosts.matches(&name.full)
            });
        let mut found: Vec<usize> = exact.chain(walked).copied().collect();
        found.retain(|number| *number >= from);
        found.sort_unstable();
        found.dedup();
        found
    }

    /// What the lines that were found for this host say about `key`.
    pub fn judge(&self, name: &KnownName, key: &PublicKey, found: &[usize]) -> Verdict {
        if let Some(place) = self.revoked(name, key.key_data()) {
            return Verdict::Revoked { place };
        }
        let is_same = |entry: &Entry| entry.key.key_data() == key.key_data();
        if self.plain(found).any(is_same) {
            return Verdict::Known;
        }
        // A key of the same type says most; but a host known by another type is not an unknown host, to ssh neither.
        let known = self
            .plain(found)
            .find(|entry| entry.key.algorithm() == key.algorithm())
            .or_else(|| self.plain(found).next());
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
    pub(super) fn revoked(&self, name: &KnownName, key: &KeyData) -> Option<Position> {
        let mut names = name.both();
        names.find_map(|name| self.holds(name, Some(Marker::Revoked), key))
    }

    /// Where this key stands as an authority that may vouch for this host.
    pub(super) fn authority(&self, name: &KnownName, key: &KeyData) -> Option<Position> {
        let mut names = name.both();
        names.find_map(|name| self.holds(name, Some(Marker::Authority), key))
    }

    /// Where an authority stands for this host, whichever.
    pub(super) fn any_authority(&self, name: &KnownName) -> Option<Position> {
        let mut marked = self.marked_for(name);
        let entry = marked.find(|entry| entry.marker == Some(Marker::Authority));
        entry.map(|entry| entry.place.clone())
    }

    /// Whether a line with a marker is about this host.
    pub(super) fn is_marked(&self, name: &KnownName) -> bool {
        self.marked_for(name).next().is_some()
    }

    fn marked_for(&self, name: &KnownName) -> impl Iterator<Item = &Entry> {
        let marked = self.marked.iter().map(|number| &self.entries[*number]);
        marked.filter(move |entry| name.both().any(|name| entry.hosts.matches(name)))
    }

    /// The line with this name, marker and key.
    fn holds(&self, name: &str, marker: Option<Marker>, key: &KeyData) -> Option<Position> {
        let same = self.by_key.get(key)?.iter();
        let mut same = same.map(|number| &self.entries[*number]);
        let entry = same.find(|entry| entry.marker == marker && entry.hosts.matches(name));
        entry.map(|entry| entry.place.clone())
    }

    /// The types of the keys in these lines about a host, without those that have markers or are revoked.
    pub(super) fn algorithms(&self, name: &KnownName, found: &[usize]) -> Vec<Algorithm> {
        self.plain(found)
            .filter(|entry| self.revoked(name, entry.key.key_data()).is_none())
            .map(|entry| entry.key.algorithm())
            .collect()
    }

    /// The lines with these numbers that have no marker.
    fn plain<'a>(
        &'a self,
        numbers: impl IntoIterator<Item = &'a usize>,
    ) -> impl Iterator<Item = &'a Entry> {
        let entries = numbers.into_iter().map(|number| &self.entries[*number]);
        entries.filter(|entry| entry.marker.is_none())
    }

    /// The types of the keys that may stand there under a host's full name: none is missing, and some may be too many.
    pub fn likely_algorithms(&self, name: &KnownName) -> Vec<Algorithm> {
        let exact = self.exact.get(&name.full).into_iter().flatten();
        let lists = self.lists.iter();
        let lists = lists.filter(|number| self.entries[**number].hosts.matches(&name.full));
        let mut algorithms = self.hashed_algorithms.clone();
        algorithms.extend(
            self.plain(exact.chain(lists))
                .map(|entry| entry.key.algorithm()),
        );
        algorithms
    }
}

#[cfg(test)]
#[path = "known_hosts_tests.rs"]
mod tests;
