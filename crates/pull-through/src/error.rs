//! What can go wrong, as the operator reads it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{Digest, SourceError};

/// Why an image cannot be added or served.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The source did not answer, or not for good.
    #[error("{0}")]
    Source(#[from] SourceError),
    /// The source's bytes are not those that were asked for.
    #[error(
        "the source sent {got} for {wanted}: the content was changed on its way, or the source is damaged"
    )]
    WrongDigest {
        /// What was asked for.
        wanted: Digest,
        /// What came.
        got: Digest,
    },
    /// A blob is not as long as its manifest says.
    #[error("{digest} has {got} bytes at the source, and {wanted} in its manifest")]
    WrongSize {
        /// The blob.
        digest: Digest,
        /// Its size in the manifest.
        wanted: u64,
        /// How many bytes there were, at least.
        got: u64,
    },
    /// Not a manifest or index that can be served.
    #[error("{digest} cannot be served: {problem}")]
    Manifest {
        /// The manifest.
        digest: Digest,
        /// What is wrong with it.
        problem: String,
    },
    /// The cache cannot be used.
    #[error("cannot {action} {}: {error}", .path.display())]
    Cache {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What came back.
        error: String,
    },
}

impl Error {
    pub(crate) fn cache<'a>(
        action: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(io::Error) -> Self + 'a {
        move |error| Self::Cache {
            action,
            path: path.to_path_buf(),
            error: error.to_string(),
        }
    }
}

/// Why a connection ended before its client closed it.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The node has as many connections as it may have.
    #[error("the node opened more than {0} connections at a time")]
    TooMany(usize),
    /// The client did not show the node's login in time.
    #[error("the client did not log in within {} s", .0.as_secs())]
    NoLogin(Duration),
    /// Newer connections took the place of this one.
    #[error("more than {0} connections at a time had not logged in, and this was the oldest")]
    PushedOut(usize),
    /// What the client sent was not HTTP, or it went away.
    #[error("{0}")]
    Http(#[from] hyper::Error),
}
