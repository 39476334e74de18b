//! Where images come from.

use std::fs::File;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::Stream;

use crate::{Digest, Reference};

/// The bytes of a blob, in order.
pub type BlobStream = Pin<Box<dyn Stream<Item = Result<Bytes, SourceError>> + Send>>;

/// One repository of a registry, or an archive. What it answers is checked: a source may lie or break off.
pub trait Source: Send + Sync {
    /// The manifest or index under a tag or digest, byte for byte.
    fn manifest<'a>(
        &'a self,
        reference: &'a Reference,
    ) -> BoxFuture<'a, Result<Bytes, SourceError>>;

    /// A blob from this byte on, to its end.
    fn blob<'a>(
        &'a self,
        digest: &'a Digest,
        from: u64,
    ) -> BoxFuture<'a, Result<BlobStream, SourceError>>;

    /// The blob in a file on this machine, if it is there already: it is then read in place and not cached.
    fn local(&self, _digest: &Digest) -> Option<LocalBlob> {
        None
    }
}

/// A blob as a part of a file.
#[derive(Debug, Clone)]
pub struct LocalBlob {
    /// The file.
    pub file: Arc<File>,
    /// Where the blob begins.
    pub offset: u64,
    /// Its size in bytes.
    pub size: u64,
}

/// Why a source gave no answer, as a sentence for the operator: it names the source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SourceError {
    /// What was tried and what came back.
    pub message: String,
    /// Whether the same request may succeed later.
    pub is_temporary: bool,
}

impl SourceError {
    /// An error that asking again does not mend.
    pub fn permanent(message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            message,
            is_temporary: false,
        }
    }

    /// An error that may pass: a connection broke, a server is overloaded.
    pub fn temporary(message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            message,
            is_temporary: true,
        }
    }
}
