//! Where blobs are kept: one file without a name, in which each blob has its place.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::fcntl::OFlag;
use ring::rand::{SecureRandom as _, SystemRandom};

/// The spool. Its file takes as much of the disk as has been written, and goes with the process.
pub(crate) struct Spool {
    pub(crate) file: Arc<File>,
    next: AtomicU64,
}

impl Spool {
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600);
        let nameless = options
            .clone()
            .custom_flags(OFlag::O_TMPFILE.bits())
            .open(directory);
        // Not every file system has files without names.
        let file = nameless.or_else(|_| named_for_a_moment(&mut options, directory))?;
        Ok(Self {
            file: Arc::new(file),
            next: AtomicU64::new(0),
        })
    }

    /// A place for a blob of this size.
    pub(crate) fn reserve(&self, size: u64) -> Option<u64> {
        let most = i64::MAX as u64;
        let add = |next: u64| next.checked_add(size).filter(|end| *end <= most);
        self.next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
            .ok()
    }
}

fn named_for_a_moment(options: &mut OpenOptions, directory: &Path) -> io::Result<File> {
    let mut random = [0; 12];
    let filled = SystemRandom::new().fill(&mut random);
    filled.map_err(|_| io::Error::other("the system has no random numbers"))?;
    let name: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let path = directory.join(format!(".prepull-{name}"));
    let file = options.create_new(true).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt as _;

    #[test]
    fn the_file_has_no_name_and_blobs_do_not_overlap() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path()).unwrap();
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600);
        let other = named_for_a_moment(&mut options, folder.path()).unwrap();
        for file in [&*spool.file, &other] {
            file.write_all_at(b"text", 7).unwrap();
            assert_eq!(file.metadata().unwrap().len(), 11);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert_eq!(spool.reserve(10), Some(0));
        assert_eq!(spool.reserve(0), Some(10));
        assert_eq!(spool.reserve(u64::MAX), None);
        assert_eq!(spool.reserve(5), Some(10));
        assert!(Spool::open(&folder.path().join("missing")).is_err());
    }
}
