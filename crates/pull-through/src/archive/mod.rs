//! Images in files: an OCI layout as a directory or tar, and what `docker save` writes.

mod docker;
mod files;
mod oci;

use std::path::Path;

use bytes::Bytes;
use futures::future::{self, BoxFuture};

use crate::{BlobStream, Digest, LocalBlob, Reference, Source, SourceError};
use docker::Made;
use files::{Files, whole};

/// An archive of images. Its blobs are read in place.
#[derive(Debug)]
pub struct Archive {
    path: String,
    files: Files,
    entries: Vec<Entry>,
    /// What an archive of docker's older form does not have under its digest.
    made: Made,
}

/// An image of an archive.
#[derive(Debug)]
struct Entry {
    digest: Digest,
    names: Vec<String>,
}

/// The form of an archive. Its names and links are not trusted, so an archive of one form is never read as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A directory with an OCI layout (`oci:DIR`).
    OciDirectory,
    /// A tar of an OCI layout (`oci-archive:FILE`).
    OciArchive,
    /// A tar as `docker save` writes it (`docker-archive:FILE`).
    DockerArchive,
}

impl Archive {
    /// Opens an archive of this form. This reads the whole table of a tar, and compressed layers: call it where blocking
    /// is fine.
    pub fn open(path: &Path, form: Form) -> Result<Self, SourceError> {
        let path_shown = path.display().to_string();
        let trouble = |problem: String| {
            SourceError::permanent(format!("cannot read images from {path_shown}: {problem}"))
        };
        let files = Files::open(path).map_err(|error| trouble(error.to_string()))?;
        let read = |name| {
            files
                .read(name)
                .map_err(|error| trouble(format!("{name}: {error}")))
        };
        match (form, files.is_directory()) {
            (Form::OciDirectory, false) => {
                return Err(trouble(
                    "it is a file, not a directory with an OCI layout".into(),
                ));
            }
            (Form::OciArchive | Form::DockerArchive, true) => {
                return Err(trouble("it is a directory, not a tar".into()));
            }
            _ => {}
        }
        let (index, list) = (read("index.json")?, read("manifest.json")?);
        let mut made = Made::default();
        let entries = match (form, index, list) {
            (Form::DockerArchive, _, None) => {
                let problem = "it has no manifest.json, which docker save writes";
                return Err(trouble(problem.into()));
            }
            // Docker 25 and later write both; the OCI layout has the manifests as well.
            (_, Some(index), _) => oci::read(&index).map_err(&trouble)?,
            (Form::DockerArchive, None, Some(list)) => {
                made = docker::read(&list, &files).map_err(&trouble)?;
                std::mem::take(&mut made.entries)
            }
            (_, None, _) => {
                let problem = "it has no index.json, which an OCI layout has";
                return Err(trouble(problem.into()));
            }
        };
        Ok(Self {
            path: path.display().to_string(),
            files,
            entries,
            made,
        })
    }

    /// Each image's digest, with its names: full ones as they were saved, or a tag alone, or none.
    pub fn images(&self) -> impl Iterator<Item = (Digest, &[String])> {
        self.entries
            .iter()
            .map(|entry| (entry.digest, entry.names.as_slice()))
    }

    /// The image of this name: `registry.example/team/app:v1`, or a tag alone. An image without any name is meant by
    /// every name, if it is the only one.
    pub fn find(&self, name: &str) -> Result<Digest, SourceError> {
        let is_it = |entry: &&Entry| entry.names.iter().any(|saved| is_same(saved, name));
        if let Some(entry) = self.entries.iter().find(is_it) {
            return Ok(entry.digest);
        }
        match self.entries.as_slice() {
            [only] if only.names.is_empty() => return Ok(only.digest),
            _ => {}
        }
        let names: Vec<&str> = self
            .entries
            .iter()
            .flat_map(|entry| &entry.names)
            .map(String::as_str)
            .collect();
        let names = if names.is_empty() {
            "no names".to_string()
        } else {
            names.join(", ")
        };
        let (path, count) = (&self.path, self.entries.len());
        let message = format!("{path} has no image {name}: it has {names} (images in it: {count})");
        Err(SourceError::permanent(message))
    }

    fn read(&self, digest: &Digest) -> Result<Bytes, SourceError> {
        if let Some(made) = self.made.manifests.get(digest) {
            return Ok(made.clone());
        }
        let found = self.local(digest).ok_or_else(|| self.missing(digest))?;
        let path = &self.path;
        let bytes = whole(&found).map_err(|error| {
            SourceError::permanent(format!("cannot read {digest} in {path}: {error}"))
        })?;
        let got = Digest::of(&bytes);
        if got != *digest {
            let message = format!("{path} is damaged: what it has as {digest} is {got}");
            return Err(SourceError::permanent(message));
        }
        Ok(bytes)
    }

    fn missing(&self, digest: &Digest) -> SourceError {
        SourceError::permanent(format!("{} does not have {digest}", self.path))
    }
}

impl Source for Archive {
    fn manifest<'a>(
        &'a self,
        reference: &'a Reference,
    ) -> BoxFuture<'a, Result<Bytes, SourceError>> {
        let read = match reference {
            Reference::Digest(digest) => self.read(digest),
            Reference::Tag(name) => self.find(name).and_then(|digest| self.read(&digest)),
        };
        Box::pin(future::ready(read))
    }

    fn blob<'a>(
        &'a self,
        digest: &'a Digest,
        _from: u64,
    ) -> BoxFuture<'a, Result<BlobStream, SourceError>> {
        // All that is in an archive is local.
        Box::pin(future::ready(Err(self.missing(digest))))
    }

    fn local(&self, digest: &Digest) -> Option<LocalBlob> {
        match self.made.blobs.get(digest) {
            Some(found) => Some(found.clone()),
            None => self.files.find(&format!("blobs/sha256/{}", digest.hex())),
        }
    }
}

/// Whether a name in an archive is the one that is asked for. `docker save` leaves `docker.io/library/` out; a name of an OCI
/// layout may be a tag only.
fn is_same(saved: &str, asked: &str) -> bool {
    let is_tag = |name: &str| !name.contains(['/', ':']);
    if is_tag(saved) || is_tag(asked) {
        return tag(saved) == tag(asked);
    }
    full(saved) == full(asked)
}

fn tag(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((_, tag)) if !tag.contains('/') => tag,
        Some(_) => "latest",
        None if name.contains('/') => "latest",
        None => name,
    }
}

fn full(name: &str) -> String {
    let name = match name
        .rsplit_once('/')
        .map_or(name, |(_, last)| last)
        .contains(':')
    {
        true => name.to_string(),
        false => format!("{name}:latest"),
    };
    match name.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => name,
        Some(_) => format!("docker.io/{name}"),
        None => format!("docker.io/library/{name}"),
    }
}

#[cfg(test)]
mod tests;
