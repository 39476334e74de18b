//! Files by name, in a directory or in a tar that is read where it lies.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use nix::fcntl::OFlag;
use tar::EntryType;

use crate::manifest::MOST_BYTES;
use crate::{Digest, LocalBlob};

/// Links in a row; archives have one.
const MOST_LINKS: usize = 8;
/// How compressed files begin, and what makes them plain.
const COMPRESSED: [(&[u8], &str); 4] = [
    (b"\x1f\x8b", "gunzip"),
    (b"\x28\xb5\x2f\xfd", "unzstd"),
    (b"BZh", "bunzip2"),
    (b"\xfd7zXZ", "unxz"),
];

#[derive(Debug)]
pub(super) enum Files {
    Directory(PathBuf),
    Tar {
        file: Arc<File>,
        places: HashMap<String, Place>,
    },
}

#[derive(Debug)]
pub(super) enum Place {
    Bytes { offset: u64, size: u64 },
    Link(String),
}

impl Files {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = opened(path, OFlag::empty())?;
        let found = file.metadata()?;
        if found.is_dir() {
            for part in ["blobs", "blobs/sha256"] {
                let is_link = fs::symlink_metadata(path.join(part)).is_ok_and(|it| it.is_symlink());
                if is_link {
                    return Err(io::Error::other(format!("{part} in it is a symbolic link")));
                }
            }
            return Ok(Self::Directory(path.to_path_buf()));
        }
        if !found.is_file() {
            return Err(io::Error::other("it is neither a file nor a directory"));
        }
        let mut start = [0; 6];
        let read = file.read_at(&mut start, 0)?;
        let compressed = COMPRESSED
            .iter()
            .find(|(magic, _)| start[..read].starts_with(magic));
        if let Some((_, program)) = compressed {
            let problem = format!("it is compressed; use {program} on it first");
            return Err(io::Error::other(problem));
        }
        let places = places(&file)?;
        let file = Arc::new(file);
        Ok(Self::Tar { file, places })
    }

    pub(super) fn is_directory(&self) -> bool {
        matches!(self, Self::Directory(_))
    }

    /// Where a file lies.
    pub(super) fn find(&self, name: &str) -> Option<LocalBlob> {
        match self {
            Self::Directory(directory) => in_layout(directory, name).ok(),
            Self::Tar { file, places } => {
                let mut place = places.get(plain(name).as_str())?;
                for _ in 0..MOST_LINKS {
                    match place {
                        Place::Bytes { offset, size } => {
                            return Some(LocalBlob {
                                file: Arc::clone(file),
                                offset: *offset,
                                size: *size,
                            });
                        }
                        Place::Link(target) => place = places.get(target)?,
                    }
                }
                None
            }
        }
    }

    /// A small file as a whole.
    pub(super) fn read(&self, name: &str) -> io::Result<Option<Bytes>> {
        let found = match self {
            Self::Directory(directory) => match in_layout(directory, name) {
                Ok(found) => Some(found),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            },
            Self::Tar { .. } => self.find(name),
        };
        found.map(|found| whole(&found)).transpose()
    }
}

/// Opens a file of an OCI layout. The directory's contents are not trusted: a link or an unexpected name could expose any
/// file on this machine, so only regular files with the names of the layout are opened.
fn in_layout(directory: &Path, name: &str) -> io::Result<LocalBlob> {
    let is_blob = |hex: &str| format!("sha256:{hex}").parse::<Digest>().is_ok();
    let is_of_layout = match name.strip_prefix("blobs/sha256/") {
        Some(hex) => is_blob(hex),
        None => name == "index.json",
    };
    if !is_of_layout {
        return Err(io::ErrorKind::NotFound.into());
    }
    let path = directory.join(name);
    if fs::symlink_metadata(&path)?.is_symlink() {
        return Err(io::Error::other("it is a symbolic link"));
    }
    let file = opened(&path, OFlag::O_NOFOLLOW)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    Ok(LocalBlob {
        file: Arc::new(file),
        offset: 0,
        size: found.len(),
    })
}

/// Opens a file to read it, without waiting for the other end of a pipe.
fn opened(path: &Path, flags: OFlag) -> io::Result<File> {
    let flags = flags | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(flags.bits()).open(path)
}

/// The bytes of a manifest or configuration.
pub(super) fn whole(found: &LocalBlob) -> io::Result<Bytes> {
    if found.size > MOST_BYTES as u64 {
        let problem = format!("{} bytes are too many for a manifest", found.size);
        return Err(io::Error::other(problem));
    }
    let mut bytes = vec![0; found.size as usize];
    found.file.read_exact_at(&mut bytes, found.offset)?;
    Ok(bytes.into())
}

fn places(file: &File) -> io::Result<HashMap<String, Place>> {
    let length = file.metadata()?.len();
    let mut archive = tar::Archive::new(file);
    let mut places = HashMap::new();
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        let name = plain(&String::from_utf8_lossy(&entry.path_bytes()));
        let place = match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous => {
                let (offset, size) = (entry.raw_file_position(), entry.size());
                if offset.checked_add(size).is_none_or(|end| end > length) {
                    return Err(io::Error::other(format!("it is cut short within {name}")));
                }
                Place::Bytes { offset, size }
            }
            kind @ (EntryType::Symlink | EntryType::Link) => {
                let target = entry.link_name_bytes().unwrap_or_default();
                let target = String::from_utf8_lossy(&target);
                let folder = match name.rsplit_once('/') {
                    Some((folder, _)) if kind == EntryType::Symlink => folder,
                    _ => "",
                };
                Place::Link(plain(&format!("{folder}/{target}")))
            }
            _ => continue,
        };
        places.insert(name, place);
    }
    Ok(places)
}

/// A name without `.`, `..` and empty parts, as far as they can be resolved.
fn plain(name: &str) -> String {
    let mut parts = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}
