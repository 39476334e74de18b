//! Reads known_hosts lines and answers quickly what they say about a host: 10,000 names against
//! 10,000 lines must not hurt. The format is the one of sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT".

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use russh::keys::{Algorithm, PublicKey};
use sha1::Sha1;

/// The name under which a host stands in known_hosts: `host`, or `[host]:port` beside port 22.
pub(super) fn known_name(host: &str, port: u16) -> String {
    let host = host.to_lowercase();
    if port == 22 {
        host
    } else {
        format!("[{host}]:{port}")
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
    key: PublicKey,
    place: Place,
}

#[derive(Debug, PartialEq, Eq)]
enum Hosts {
    /// `|1|SALT|HASH`: HMAC-SHA1 of the name, keyed by the salt.
    Hashed { salt: Vec<u8>, hash: [u8; 20] },
    /// Patterns, a leading `!` negates.
    List(Vec<String>),
}

/// All lines of all files, arranged for look-up.
#[derive(Default)]
pub(super) struct Index {
    entries: Vec<Entry>,
    /// Names without wildcards, from lists without negation.
    exact: HashMap<String, Vec<usize>>,
    /// Lists that have to be walked.
    lists: Vec<(Vec<String>, usize)>,
    /// The salt is kept as a keyed hash: that halves the work of every look-up.
    hashed: Vec<(Hmac<Sha1>, [u8; 20], usize)>,
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
                Ok(Some((marker, hosts, key))) => self.insert(marker, hosts, key, place),
                Err(reason) => warnings.push(format!("{place}: line ignored: {reason}")),
            }
        }
        self.found.clear();
        warnings
    }

    fn insert(&mut self, marker: Option<Marker>, hosts: Hosts, key: PublicKey, place: Place) {
        let number = self.entries.len();
        self.entries.push(Entry { marker, key, place });
        match hosts {
            Hosts::Hashed { salt, hash } => {
                // An HMAC takes a key of any length, so this never fails.
                if let Ok(keyed) = Hmac::<Sha1>::new_from_slice(&salt) {
                    self.hashed.push((keyed, hash, number));
                }
            }
            Hosts::List(names) if names.iter().all(|name| is_plain(name)) => {
                for name in names {
                    self.exact.entry(name).or_default().push(number);
                }
            }
            Hosts::List(names) => self.lists.push((names, number)),
        }
    }

    /// What the files say about `key` for the host called `name` (see [`known_name`]).
    pub(super) fn judge(&mut self, name: &str, key: &PublicKey) -> Verdict {
        let found = self.find(name);
        let entries = || found.iter().map(|number| &self.entries[*number]);
        let same = |entry: &&Entry| entry.key.key_data() == key.key_data();

        if let Some(entry) = entries().find(|e| e.marker == Some(Marker::Revoked) && same(e)) {
            return Verdict::Revoked {
                place: entry.place.clone(),
            };
        }
        if entries().any(|e| e.marker.is_none() && same(&e)) {
            return Verdict::Known;
        }
        // A key of the same type says most; but a host known by another type is no unknown host.
        let known = entries()
            .find(|e| e.marker.is_none() && e.key.algorithm() == key.algorithm())
            .or_else(|| entries().find(|e| e.marker.is_none()));
        match known {
            Some(entry) => Verdict::Changed {
                known: entry.key.clone(),
                place: entry.place.clone(),
            },
            None => Verdict::Unknown {
                authority: entries()
                    .find(|e| e.marker == Some(Marker::Authority))
                    .map(|e| e.place.clone()),
            },
        }
    }

    /// The types of the keys that stand there for this host, without markers.
    pub(super) fn algorithms(&mut self, name: &str) -> Vec<Algorithm> {
        self.find(name)
            .iter()
            .map(|number| &self.entries[*number])
            .filter(|entry| entry.marker.is_none())
            .map(|entry| entry.key.algorithm())
            .collect()
    }

    /// The entries for this host, in the order of the files.
    fn find(&mut self, name: &str) -> Arc<[usize]> {
        if let Some(found) = self.found.get(name) {
            return Arc::clone(found);
        }
        let mut found = self.exact.get(name).cloned().unwrap_or_default();
        found.extend(
            self.lists
                .iter()
                .filter(|(list, _)| list_matches(list, name))
                .map(|(_, number)| *number),
        );
        found.extend(
            self.hashed
                .iter()
                .filter(|(keyed, hash, _)| {
                    let mut keyed = keyed.clone();
                    keyed.update(name.as_bytes());
                    keyed.finalize().into_bytes().as_slice() == hash
                })
                .map(|(_, _, number)| *number),
        );
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
fn glob(pattern: &str, name: &str) -> bool {
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

fn parse_hosts(text: &str) -> Result<Hosts, String> {
    if let Some(hashed) = text.strip_prefix('|') {
        let broken = || format!("{text:?} is no hashed name (|1|SALT|HASH)");
        let (salt, hash) = hashed
            .strip_prefix("1|")
            .and_then(|rest| rest.split_once('|'))
            .ok_or_else(broken)?;
        return Ok(Hosts::Hashed {
            salt: STANDARD.decode(salt).map_err(|_| broken())?,
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
