//! Reads one line of known_hosts: its marker, the names that it is about, and its key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use russh::keys::PublicKey;
use sha1::Sha1;

use crate::ssh::config::one_matches;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marker {
    Authority,
    Revoked,
}

#[derive(Debug)]
pub(super) enum Hosts {
    /// `|1|SALT|HASH`: HMAC-SHA1 of the name, keyed by the salt. The salt is kept as a keyed hash: that halves
    /// the work of every look-up.
    Hashed { keyed: Hmac<Sha1>, hash: [u8; 20] },
    /// Patterns, a leading `!` negates.
    List(Vec<String>),
}

impl Hosts {
    /// Whether they are about the host of this name.
    pub(super) fn matches(&self, name: &str) -> bool {
        match self {
            Self::Hashed { keyed, hash } => {
                let mut keyed = keyed.clone();
                keyed.update(name.as_bytes());
                keyed.finalize().into_bytes().as_slice() == hash
            }
            Self::List(list) => one_matches(name, list),
        }
    }
}

/// Whether a name of a list matches no other name but itself.
pub(super) fn is_plain(name: &str) -> bool {
    !name.starts_with('!') && !name.contains(['*', '?'])
}

pub(super) type Line = (Option<Marker>, Hosts, PublicKey);

/// One line; `None` for an empty one or a comment. The error says what is wrong with it.
pub(super) fn parse(line: &str) -> Result<Option<Line>, String> {
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
pub fn hashed(name: &str, salt: [u8; 20]) -> Result<String, String> {
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
