//! Where images come from.

use std::fs::File;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::Stream;
use tokio::sync::watch;

use crate::{Digest, Error, Reference};

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

    /// The blob in a file that the source fills and checks by itself: it is read there as far as it has come, and not
    /// cached.
    fn arriving(&self, _digest: &Digest) -> Option<Arriving> {
        None
    }
}

/// A blob on its way into a file of its source.
#[derive(Debug, Clone)]
pub struct Arriving {
    /// The file.
    pub file: Arc<File>,
    /// Where the blob begins.
    pub offset: u64,
    /// How far the blob has come. After a failure the source is asked for the blob again.
    pub progress: watch::Receiver<Progress>,
}

/// How far a blob has come.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// Bytes that may be passed on. The last one is withheld until the digest fits. Of a blob in an archive it is none
    /// before.
    pub ready: u64,
    /// Why no more will come.
    pub failed: Option<Error>,
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
