//! The cache on disk: one file for each blob or manifest, named by its digest.
//!
//! A file may be shorter than its blob: a fetch is under way, or was interrupted. Nothing in it is trusted before it has
//! been compared with its digest in this process, so that a crash, a full disk or a torn write costs a fetch and no more.
//! Processes share the directory through locks on the files: exclusive while a file grows, shared while a process needs it.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::{
    DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use nix::fcntl::OFlag;
use nix::unistd::geteuid;

use crate::manifest::MOST_BYTES;
use crate::{Digest, Error};

/// The cache. It holds private layers, so its directory is readable by its owner only.
#[derive(Debug, Clone)]
pub struct Store {
    /// Empty where there is no cache.
    directory: PathBuf,
    most: u64,
}

impl Store {
    /// No cache at all: for sources that have their blobs in files of their own.
    pub fn none() -> Self {
        Self {
            directory: PathBuf::new(),
            most: 0,
        }
    }

    /// Opens the cache in this directory, which is made where it is missing (mode 0700). It must belong to this user and
    /// not be a link: what is written here would end up in files of another's choice. Whenever something is added,
    /// what was used longest ago goes until the rest has at most `most` bytes. What a running process needs stays,
    /// even beyond that size.
    pub fn open(directory: &Path, most: u64) -> Result<Self, Error> {
        let store = Self {
            directory: directory.join("sha256"),
            most,
        };
        for part in [directory, &store.directory] {
            DirBuilder::new()
                .mode(0o700)
                .recursive(true)
                .create(part)
                .map_err(Error::cache("create", part))?;
            take_over(part).map_err(Error::cache("use as a cache", part))?;
        }
        Ok(store)
    }

    /// How many bytes of a blob the cache in this directory has, without opening it as a cache. They are not compared
    /// with the digest: that happens when they are served.
    pub fn held(directory: &Path, digest: &Digest) -> u64 {
        let path = directory.join("sha256").join(digest.hex());
        let found = fs::symlink_metadata(path).and_then(own_file);
        found.map_or(0, |found| found.len())
    }

    fn is_none(&self) -> bool {
        self.directory.as_os_str().is_empty()
    }

    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        self.directory.join(digest.hex())
    }

    /// The file of a blob, new or as far as it goes. It counts as used now.
    pub(crate) fn file(&self, digest: &Digest) -> Result<File, Error> {
        let path = self.path(digest);
        if self.is_none() {
            let error = io::Error::other("this registry has no cache");
            return Err(Error::cache("open", &path)(error));
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).mode(0o600);
        let file = open_own(&mut options, &path).map_err(Error::cache("open", &path))?;
        // Only the order in which files go depends on it.
        let _ = file.set_modified(SystemTime::now());
        Ok(file)
    }

    /// A manifest, if it is here and whole.
    pub(crate) fn manifest(&self, digest: &Digest) -> Option<Bytes> {
        if self.is_none() {
            return None;
        }
        let file = open_own(OpenOptions::new().read(true), &self.path(digest)).ok()?;
        let mut bytes = Vec::new();
        let most = MOST_BYTES as u64;
        (&file).take(most).read_to_end(&mut bytes).ok()?;
        let _ = file.set_modified(SystemTime::now());
        (Digest::of(&bytes) == *digest).then(|| bytes.into())
    }

    /// Keeps a manifest. Two processes write the same bytes to the same place, so they need no lock.
    pub(crate) fn keep_manifest(&self, digest: &Digest, bytes: &[u8]) -> Result<(), Error> {
        if self.is_none() {
            return Ok(());
        }
        let path = self.path(digest);
        let file = self.file(digest)?;
        let written = file.write_all_at(bytes, 0);
        written
            .and_then(|()| file.set_len(bytes.len() as u64))
            .map_err(Error::cache("write", &path))
    }

    /// Removes a file whose content is wrong.
    pub(crate) fn remove(&self, digest: &Digest) {
        // If it stays, the next reader finds it wrong again.
        let _ = fs::remove_file(self.path(digest));
    }

    /// Removes what was used longest ago until there is room for so many bytes more. Files that a process holds a lock on
    /// stay.
    pub(crate) fn make_room(&self, bytes: u64) -> Result<(), Error> {
        let entries = fs::read_dir(&self.directory);
        let entries = entries.map_err(Error::cache("list", &self.directory))?;
        let mut files = Vec::new();
        for entry in entries.flatten() {
            // Links are not followed.
            if let Ok(found) = entry.metadata().and_then(own_file) {
                let used = found.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                files.push((used, found.len(), entry.path()));
            }
        }
        files.sort();
        let mut all = files.iter().map(|(_, length, _)| length).sum::<u64>();
        for (_, length, path) in files {
            if all.saturating_add(bytes) <= self.most {
                break;
            }
            if remove_unused(&path).unwrap_or(false) {
                all -= length;
            }
        }
        Ok(())
    }
}

/// Makes a directory of this user private. Nothing is done to another's, nor to what a link leads to.
fn take_over(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_symlink() {
        let problem = "it is a symbolic link; give the directory that it leads to";
        return Err(io::Error::other(problem));
    }
    let flags = OFlag::O_NOFOLLOW | OFlag::O_DIRECTORY;
    let mut options = OpenOptions::new();
    let directory = options.read(true).custom_flags(flags.bits()).open(path)?;
    let found = directory.metadata()?;
    let (owner, user) = (found.uid(), geteuid().as_raw());
    if owner != user {
        let problem = format!("it belongs to user {owner}, and this is user {user}");
        return Err(io::Error::other(problem));
    }
    match found.permissions().mode() & 0o077 {
        0 => Ok(()),
        _ => directory.set_permissions(Permissions::from_mode(0o700)),
    }
}

/// Opens a file of the cache. Another user may have put something else there while the directory was still open to all.
fn open_own(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let opened = options.custom_flags(flags.bits()).open(path);
    let file = opened.map_err(|error| match error.raw_os_error() {
        Some(number) if number == nix::errno::Errno::ELOOP as i32 => {
            io::Error::other("it is a symbolic link; remove it")
        }
        _ => error,
    })?;
    own_file(file.metadata()?)?;
    Ok(file)
}

fn own_file(found: Metadata) -> io::Result<Metadata> {
    match found.is_file() && found.uid() == geteuid().as_raw() {
        true => Ok(found),
        false => Err(io::Error::other(
            "it is not a regular file of this user; remove it",
        )),
    }
}

fn remove_unused(path: &Path) -> io::Result<bool> {
    let file = open_own(OpenOptions::new().read(true), path)?;
    match file.try_lock() {
        Ok(()) => fs::remove_file(path).map(|()| true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    fn names(store: &Store) -> Vec<String> {
        let entries = fs::read_dir(&store.directory).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn add(store: &Store, text: &[u8], age: u64) -> Digest {
        let digest = Digest::of(text);
        store.keep_manifest(&digest, text).unwrap();
        let then = SystemTime::now() - Duration::from_secs(age);
        store.file(&digest).unwrap().set_modified(then).unwrap();
        digest
    }

    #[test]
    fn the_directory_is_private_and_so_is_each_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/cache");
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        let store = Store::open(&path, 100).unwrap();
        let digest = add(&store, b"text", 0);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&store.directory), 0o700);
        assert_eq!(mode(&store.path(&digest)), 0o600);
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Store::open(&file, 100).unwrap_err().to_string();
        assert!(error.contains(file.to_str().unwrap()), "{error}");
    }

    #[test]
    fn what_is_held_is_told_without_making_a_cache() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache");
        let digest = Digest::of(b"text");
        assert_eq!(Store::held(&path, &digest), 0);
        assert!(!path.exists());
        let store = Store::open(&path, 100).unwrap();
        assert_eq!(Store::held(&path, &digest), 0);
        add(&store, b"text", 0);
        assert_eq!(Store::held(&path, &digest), 4);
    }

    #[test]
    fn a_directory_that_is_a_link_or_of_another_user_is_refused_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let (elsewhere, link) = (folder.path().join("elsewhere"), folder.path().join("link"));
        fs::create_dir(&elsewhere).unwrap();
        fs::set_permissions(&elsewhere, Permissions::from_mode(0o755)).unwrap();
        symlink(&elsewhere, &link).unwrap();
        let cache = folder.path().join("cache");
        fs::create_dir(&cache).unwrap();
        symlink(&elsewhere, cache.join("sha256")).unwrap();
        for (given, named) in [(&link, &link), (&cache, &cache.join("sha256"))] {
            let error = Store::open(given, 100).unwrap_err().to_string();
            let names = error.contains(&format!("{}: it is a symbolic link", named.display()));
            assert!(names, "{error}");
        }
        let mode = fs::metadata(&elsewhere).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
        assert!(fs::read_dir(&elsewhere).unwrap().next().is_none());
        // Of another user. Root makes one; for others the root directory is one.
        let (others, owner) = match geteuid().is_root() {
            true => {
                let others = folder.path().join("others");
                fs::create_dir(&others).unwrap();
                std::os::unix::fs::chown(&others, Some(12345), None).unwrap();
                (others, 12345)
            }
            false => ("/".into(), 0),
        };
        let error = Store::open(&others, 100).unwrap_err().to_string();
        assert!(error.contains(others.to_str().unwrap()), "{error}");
        let names = error.contains(&format!("it belongs to user {owner}, "));
        assert!(names, "{error}");
    }

    #[test]
    fn what_is_not_a_file_of_this_user_is_neither_read_nor_written_nor_removed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("cache"), 0).unwrap();
        let (target, digest) = (folder.path().join("target"), Digest::of(b"whole"));
        fs::write(&target, "whole").unwrap();
        let path = store.path(&digest);
        let refused = |why: &str| {
            assert_eq!(store.manifest(&digest), None);
            for result in [
                store.file(&digest).map(|_| ()),
                store.keep_manifest(&digest, b"changed"),
            ] {
                let error = result.unwrap_err().to_string();
                let is_told = error.contains(path.to_str().unwrap()) && error.contains(why);
                assert!(is_told, "{error}");
            }
            store.make_room(100).unwrap();
            assert!(fs::symlink_metadata(&path).is_ok(), "it was removed");
        };
        symlink(&target, &path).unwrap();
        refused("it is a symbolic link");
        assert_eq!(fs::read(&target).unwrap(), b"whole");
        // A new file would have been made.
        fs::remove_file(&path).unwrap();
        symlink(folder.path().join("new"), &path).unwrap();
        refused("it is a symbolic link");
        assert!(!folder.path().join("new").exists());
        // A pipe without a reader or writer: opening it must not block.
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        refused("it is not a regular file of this user");
        fs::remove_file(&path).unwrap();
        if geteuid().is_root() {
            fs::write(&path, "whole").unwrap();
            std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
            refused("it is not a regular file of this user");
        }
    }

    #[test]
    fn a_damaged_or_torn_manifest_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), 100).unwrap();
        let digest = Digest::of(b"whole");
        assert_eq!(store.manifest(&digest), None);
        for wrong in ["", "who", "whole and more", "wrong"] {
            fs::write(store.path(&digest), wrong).unwrap();
            assert_eq!(store.manifest(&digest), None, "{wrong}");
            store.keep_manifest(&digest, b"whole").unwrap();
            assert_eq!(store.manifest(&digest).unwrap(), "whole");
        }
    }

    #[test]
    fn what_was_used_longest_ago_goes_and_what_is_in_use_stays() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), 40).unwrap();
        let old = add(&store, b"0123456789 old", 400);
        let held = add(&store, b"0123456789 held", 300);
        let newer = add(&store, b"0123456789 newer", 200);
        let lock = store.file(&held).unwrap();
        lock.lock_shared().unwrap();
        lock.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        // 14 + 15 + 16 = 45 bytes are there.
        store.make_room(0).unwrap();
        assert_eq!(names(&store).len(), 2);
        assert!(!store.path(&old).exists());
        store.make_room(5).unwrap();
        assert!(store.path(&newer).exists());
        store.make_room(100).unwrap();
        assert_eq!(names(&store), [held.hex()]);
        drop(lock);
        store.make_room(100).unwrap();
        assert!(names(&store).is_empty());
    }
}
