//! What prepull and a relay say to each other: one JSON object a line, `{"word":{...}}`.
//!
//! prepull begins with [`Start`], and asks for nothing else before the relay has answered [`Ready`]. Words and fields that one
//! side does not know are ignored, so that either may be the newer one.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroize as _;

/// The longest line that a relay takes: an image may have 8 MiB of manifests, and base64 makes more of them.
pub const MOST_TO_RELAY: usize = 16 << 20;
/// The longest line that a relay says. prepull takes no longer one: a relay's node may be hostile.
pub const MOST_FROM_RELAY: usize = 16 << 10;

/// What prepull says to a relay. Each line renews the relay's lease.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToRelay {
    /// The first line.
    Start(Start),
    /// What an image is made of: nothing else is served. For a repository that was named before it adds to it.
    Image(ImageParts),
    /// Makes the relay a root for an image, or renews a root's authorization. Takes the place of earlier parents.
    Source(Origin),
    /// Whom to ask for an image's blobs. Takes the place of earlier parents, or of the source. A blob that is on its way
    /// from a peer that is named again goes on; from any other it is asked for again, from the chunk reached.
    Parents(Parents),
    /// Asks which peers the relay reaches, and how fast. Answered by one [`FromRelay::Reached`] a peer.
    Probe(Probe),
    /// Renews the lease.
    Beat {},
    /// Ends the relay.
    End {},
}

/// How a relay is to work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// A directory for the spool. No name is left in it.
    pub spool: String,
    /// The relay ends when it gets no line for so long, whether its standard input is still open or not.
    pub lease_seconds: u64,
    /// The secret of the run, the same for all its relays.
    pub ticket: Ticket,
    /// The login that the node's runtime must show; of this node alone.
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// Where to listen for peers: the node's own address, with port 0 for one of the kernel's choice.
    pub peer_listen: SocketAddr,
    /// Bytes a second that peers get, all together. Nothing: no limit.
    #[serde(default)]
    pub max_upload: Option<u64>,
}

/// What an image is made of, as far as the node needs it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageParts {
    /// The name that the runtime pulls it by: `127.0.0.1:PORT/REPOSITORY@DIGEST`.
    pub repository: String,
    /// The index, if there is one, and the manifests of the node's platform.
    pub manifests: Vec<Manifest>,
    /// What these manifests name: configurations and layers.
    pub blobs: Vec<BlobSize>,
}

/// A manifest or index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// `sha256:HEX`
    pub digest: String,
    /// As the registry states it.
    pub media_type: String,
    /// The manifest, byte for byte.
    #[serde(serialize_with = "write_base64", deserialize_with = "read_base64")]
    pub bytes: Vec<u8>,
}

/// A blob of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobSize {
    /// `sha256:HEX`
    pub digest: String,
    /// Its size in bytes.
    pub size: u64,
}

/// Where a root fetches the blobs of an image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// The image's repository, as [`ImageParts`] named it.
    pub image: String,
    /// `https://HOST[:PORT]/v2/NAME/blobs/`, or with `http://`: a blob's digest follows.
    pub base: String,
    /// The `Authorization` to show, such as `Bearer TOKEN`. Hosts that the registry redirects to do not see it.
    #[serde(default)]
    pub authorization: Option<Secret>,
    /// Certificates in PEM to trust beside those of the node's system.
    #[serde(default)]
    pub ca: Vec<String>,
}

/// Whom a relay asks for the blobs of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parents {
    /// The image's repository, as [`ImageParts`] named it.
    pub image: String,
    /// The keys of the roots whose signatures count, those of dead ones too: what they signed is still passed on. They add up
    /// over all lines and images of the run.
    pub signers: Vec<Key>,
    /// The parent, and then its spares in the order in which they are tried.
    pub peers: Vec<Peer>,
}

/// Another relay of the run.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Peer {
    /// Where it listens for peers.
    pub address: SocketAddr,
    /// The key that it said in [`Ready`].
    pub key: Key,
}

/// A question whom the relay reaches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// The peers, which are asked one after the other.
    pub peers: Vec<Peer>,
    /// How many bytes to fetch from each, at most [`Probe::MOST`]. With 0 a peer is connected to and no more.
    pub bytes: u64,
}

impl Probe {
    /// The most bytes that a peer sends for a probe.
    pub const MOST: u64 = 64 << 20;
}

/// What a relay says to prepull.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromRelay {
    /// The answer to [`Start`].
    Ready(Ready),
    /// The answer to [`Probe`], for one peer.
    Reached {
        /// The peer.
        address: SocketAddr,
        /// How fast it sent; nothing if it could not be reached or no bytes were asked for.
        bytes_per_second: Option<u64>,
        /// Why it could not be reached.
        error: Option<String>,
    },
    /// What went in and out, at most once a second and while something changes, and before the end.
    Stats(Stats),
    /// A parent broke off, was silent or could not be reached. The relay goes on with the next one by itself.
    ParentLost {
        /// The image's repository.
        image: String,
        /// The parent.
        address: SocketAddr,
        /// What came back.
        why: String,
    },
    /// A parent sent what cannot be right. The relay does not ask it again in this run.
    ParentLies {
        /// The image's repository.
        image: String,
        /// The parent.
        address: SocketAddr,
        /// The blob.
        blob: String,
        /// What was wrong.
        why: String,
    },
    /// No parent is left. The relay waits for new ones, or for a source. Said once, until one of them comes.
    Orphaned {
        /// The image's repository.
        image: String,
    },
    /// The source answered 401. The relay waits for a new [`Origin`], or for parents.
    Unauthorized {
        /// The image's repository.
        image: String,
        /// The header `WWW-Authenticate`.
        challenge: Option<String>,
    },
    /// The source failed, and trying again did not help. The relay waits for a new [`Origin`], or for parents.
    SourceFailed {
        /// The image's repository.
        image: String,
        /// What came back.
        why: String,
    },
    /// A blob cannot be had: it never has its digest, or it cannot be spooled. It is tried again when it is asked for again.
    BlobFailed {
        /// The image's repository.
        image: String,
        /// The blob.
        blob: String,
        /// What was tried and what came back.
        why: String,
    },
    /// All blobs of an image are in the spool. A node whose runtime had some of them never gets there.
    Complete {
        /// The image's repository.
        image: String,
    },
    /// The relay ends: it cannot work.
    Failed {
        /// What was tried and what came back.
        why: String,
    },
}

/// A relay is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// The port for the runtime, on 127.0.0.1.
    pub port: u16,
    /// The port for peers, on the address of [`Start::peer_listen`].
    pub peer_port: u16,
    /// The relay's public key, for peers to know it by, and for its signatures if it becomes a root.
    pub key: Key,
}

/// What went in and out of a relay so far. Bytes are those of blobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// Bytes that sources sent.
    pub from_registry: u64,
    /// Bytes that parents sent.
    pub from_peers: u64,
    /// Bytes that peers got.
    pub to_peers: u64,
    /// Bytes of manifests and blobs that the runtime got.
    pub to_runtime: u64,
    /// Requests of the runtime with the right login. Zero: it never asked.
    pub requests: u64,
    /// Peers that are connected now and have shown that they belong to the run.
    pub children: u64,
}

/// The public half of a relay's Ed25519 key. As text it is base64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub [u8; 32]);

/// A text that is not the base64 of 32 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidKey;

impl fmt::Display for InvalidKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("not 32 bytes in base64")
    }
}

impl std::error::Error for InvalidKey {}

impl fmt::Display for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl FromStr for Key {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        decoded(text).map(Self)
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// The secret of a run: 32 random bytes. Wiped when dropped, and never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket(pub [u8; 32]);

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("[hidden]")
    }
}

impl Serialize for Ticket {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        write_base64(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Ticket {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Secret::deserialize(deserializer)?;
        decoded(&text.0).map(Self).map_err(D::Error::custom)
    }
}

/// A text that is wiped when dropped, and never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("[hidden]")
    }
}

fn decoded(text: &str) -> Result<[u8; 32], InvalidKey> {
    let mut bytes = STANDARD.decode(text).map_err(|_| InvalidKey)?;
    let decoded = bytes.as_slice().try_into().map_err(|_| InvalidKey);
    bytes.zeroize();
    decoded
}

fn write_base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

fn read_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    STANDARD.decode(text).map_err(D::Error::custom)
}

/// One side's words.
pub trait Words: Serialize + DeserializeOwned {
    /// All words of this side, as they are written.
    const WORDS: &'static [&'static str];

    /// The line, with its end.
    fn line(&self) -> String {
        // Serializing fails for maps with odd keys and for types that refuse; there are none of either.
        let mut line = serde_json::to_string(self).unwrap_or_default();
        line.push('\n');
        line
    }

    /// Reads a line. `None` is a word of a newer version.
    fn read(line: &[u8]) -> Result<Option<Self>, serde_json::Error> {
        match serde_json::from_slice(line) {
            Ok(said) => Ok(Some(said)),
            Err(error) => {
                let object = serde_json::from_slice::<serde_json::Map<_, _>>(line);
                match object.ok().and_then(|object| object.into_iter().next()) {
                    Some((word, _)) if !Self::WORDS.contains(&word.as_str()) => Ok(None),
                    _ => Err(error),
                }
            }
        }
    }
}

impl Words for ToRelay {
    const WORDS: &'static [&'static str] = &[
        "start", "image", "source", "parents", "probe", "beat", "end",
    ];
}

impl Words for FromRelay {
    const WORDS: &'static [&'static str] = &[
        "ready",
        "reached",
        "stats",
        "parent_lost",
        "parent_lies",
        "orphaned",
        "unauthorized",
        "source_failed",
        "blob_failed",
        "complete",
        "failed",
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_were_written_and_show_no_secret() {
        let zeros = STANDARD.encode([0; 32]);
        let text = format!(
            r#"{{"start":{{"spool":"/tmp","lease_seconds":30,"ticket":"{zeros}","user":"u","password":"s3cret","peer_listen":"10.0.0.3:0","max_upload":null,"newer":1}}}}"#
        );
        let said = ToRelay::read(text.as_bytes()).unwrap().unwrap();
        let ToRelay::Start(start) = &said else {
            panic!("{said:?}");
        };
        assert_eq!(start.password, Secret("s3cret".into()));
        let shown = format!("{said:?}");
        assert!(
            !shown.contains("s3cret") && !shown.contains("AAA"),
            "{shown}"
        );
        assert_eq!(ToRelay::read(said.line().as_bytes()).unwrap(), Some(said));
        assert_eq!(ToRelay::Beat {}.line(), "{\"beat\":{}}\n");
        let ready = FromRelay::Ready(Ready {
            port: 1,
            peer_port: 2,
            key: Key([0; 32]),
        });
        let line = format!("{{\"ready\":{{\"port\":1,\"peer_port\":2,\"key\":\"{zeros}\"}}}}\n");
        assert_eq!(ready.line(), line);
        let stats = FromRelay::read(br#"{"stats":{"requests":3}}"#).unwrap();
        let requests = Stats {
            requests: 3,
            ..Stats::default()
        };
        assert_eq!(stats, Some(FromRelay::Stats(requests)));
    }

    #[test]
    fn every_word_is_in_the_list_and_others_are_ignored() {
        for word in ToRelay::WORDS {
            let line = format!("{{\"{word}\":7}}");
            assert!(ToRelay::read(line.as_bytes()).is_err(), "{word}");
        }
        for word in FromRelay::WORDS {
            let line = format!("{{\"{word}\":7}}");
            assert!(FromRelay::read(line.as_bytes()).is_err(), "{word}");
        }
        // serde names all words in its error for one that it does not know.
        let listed = serde_json::from_str::<FromRelay>("{\"x\":{}}").unwrap_err();
        let named = listed.to_string().matches('`').count() / 2 - 1;
        assert_eq!(named, FromRelay::WORDS.len(), "{listed}");
        let listed = serde_json::from_str::<ToRelay>("{\"x\":{}}").unwrap_err();
        let named = listed.to_string().matches('`').count() / 2 - 1;
        assert_eq!(named, ToRelay::WORDS.len(), "{listed}");
        assert_eq!(ToRelay::read(b"{\"newer\":{\"a\":1}}").unwrap(), None);
        for wrong in ["", "{}", "7", "\"beat\"x", "{\"beat\":{}} {}", "[]"] {
            assert!(ToRelay::read(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
