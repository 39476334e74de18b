//! Chunks: the pieces of a blob that are signed, checked and passed on.

use pull_through::Digest;
use ring::signature::{ED25519, UnparsedPublicKey};

use crate::protocol::Key;

/// The length of every chunk of a blob but the last.
pub(crate) const CHUNK: u64 = 1 << 20;
/// Bytes of a header on the wire.
pub(crate) const HEADER: usize = 100;
/// In place of a header: there is no chunk yet, and the parent is alive.
pub(crate) const ALIVE: [u8; 4] = [0; 4];

/// What goes before the bytes of a chunk.
#[derive(Clone, Copy)]
pub(crate) struct Header {
    pub(crate) length: u32,
    pub(crate) sha256: [u8; 32],
    /// A root's, over [`statement`].
    pub(crate) signature: [u8; 64],
}

impl Header {
    pub(crate) fn bytes(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..4].copy_from_slice(&self.length.to_be_bytes());
        bytes[4..36].copy_from_slice(&self.sha256);
        bytes[36..].copy_from_slice(&self.signature);
        bytes
    }

    pub(crate) fn read(bytes: &[u8; HEADER]) -> Self {
        let mut header = Self {
            length: 0,
            sha256: [0; 32],
            signature: [0; 64],
        };
        let mut length = [0; 4];
        length.copy_from_slice(&bytes[..4]);
        header.length = u32::from_be_bytes(length);
        header.sha256.copy_from_slice(&bytes[4..36]);
        header.signature.copy_from_slice(&bytes[36..]);
        header
    }

    /// Whether one of these roots says that this chunk belongs here.
    pub(crate) fn is_signed(&self, digest: &Digest, index: u64, signers: &[Key]) -> bool {
        let statement = statement(digest, index, self.length, &self.sha256);
        signers.iter().any(|signer| {
            let key = UnparsedPublicKey::new(&ED25519, signer.0);
            key.verify(&statement, &self.signature).is_ok()
        })
    }
}

/// What a root signs: no other use of its key begins so.
pub(crate) fn statement(digest: &Digest, index: u64, length: u32, sha256: &[u8; 32]) -> Vec<u8> {
    let mut bytes = format!("prepull chunk of {digest}\0").into_bytes();
    bytes.extend_from_slice(&index.to_be_bytes());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(sha256);
    bytes
}

/// How many chunks a blob has.
pub(crate) fn count(size: u64) -> u64 {
    size.div_ceil(CHUNK)
}

/// How long this chunk of a blob is. It fits into memory.
pub(crate) fn length(size: u64, index: u64) -> usize {
    size.saturating_sub(index.saturating_mul(CHUNK)).min(CHUNK) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    #[test]
    fn a_signature_counts_for_one_place_of_one_blob() {
        let (root, other) = (Identity::new().unwrap(), Identity::new().unwrap());
        let (blob, another) = (Digest::of(b"a"), Digest::of(b"b"));
        let sha256 = [7; 32];
        let header = Header {
            length: 9,
            sha256,
            signature: root.sign(&statement(&blob, 3, 9, &sha256)),
        };
        let header = Header::read(&header.bytes());
        let signers = [other.key(), root.key()];
        assert!(header.is_signed(&blob, 3, &signers));
        assert!(!header.is_signed(&blob, 4, &signers));
        assert!(!header.is_signed(&another, 3, &signers));
        assert!(!header.is_signed(&blob, 3, &signers[..1]));
        for changed in [
            Header {
                length: 8,
                ..header
            },
            Header {
                sha256: [8; 32],
                ..header
            },
        ] {
            assert!(!changed.is_signed(&blob, 3, &signers));
        }
    }

    #[test]
    fn chunks_cover_a_blob() {
        for size in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK + 7] {
            let lengths = (0..count(size)).map(|index| length(size, index) as u64);
            assert_eq!(lengths.sum::<u64>(), size);
            assert_eq!(length(size, count(size)), 0);
        }
        assert_eq!(length(u64::MAX, u64::MAX), 0);
    }
}
