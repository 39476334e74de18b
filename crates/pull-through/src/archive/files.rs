//! Files by name, in a directory or in a tar that is read where it lies.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tar::EntryType;

use crate::LocalBlob;
use crate::manifest::MOST_BYTES;

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
        let file = File::open(path)?;
        if file.metadata()?.is_dir() {
            return Ok(Self::Directory(path.to_path_buf()));
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

    /// Where a file lies. In a directory only names of the OCI layout are asked for, which cannot lead out of it.
    pub(super) fn find(&self, name: &str) -> Option<LocalBlob> {
        match self {
            Self::Directory(directory) => {
                let file = File::open(directory.join(name)).ok()?;
                let found = file.metadata().ok().filter(|found| found.is_file())?;
                Some(LocalBlob {
                    file: Arc::new(file),
                    offset: 0,
                    size: found.len(),
                })
            }
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
        self.find(name).map(|found| whole(&found)).transpose()
    }
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
