//! The folder with the journals: which there are, which run is meant, which may go, and who goes on with one.

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::recorded_run::{Listed, RecordedRun, last_line};
use super::{ENDING, JournalError};

/// How many journals of one kind of run are kept, in addition to those of runs that did not end.
const KEPT: usize = 500;
/// The length of the time in a run's name: `2026-11-23T21-17-09Z`.
const SECOND: usize = 20;
/// A journal's first line says within so many bytes what kind of run it is, unless the command line was a very long
/// one.
const HEAD: u64 = 64 * 1024;
/// `prepull runs list` holds a lock on each journal for a moment.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// The kinds of runs, by their word in a journal.
const KINDS: [&str; 4] = ["pull", "check", "exec", "probe"];

/// What the beginning of a journal says, without reading all of its nodes.
struct Head(Vec<u8>);

impl Head {
    fn of(path: &Path) -> io::Result<Self> {
        let mut bytes = Vec::new();
        File::open(path)?.take(HEAD).read_to_end(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// What stands behind this. A quotation mark within a string has a backslash before it: with one at its end and a
    /// colon behind that, a text can only be a key.
    fn behind(&self, key: &str) -> Option<&[u8]> {
        let key = key.as_bytes();
        let at = self.0.windows(key.len()).position(|window| window == key)?;
        Some(&self.0[at + key.len()..])
    }

    /// `None` where it cannot be told.
    fn kind(&self) -> Option<&'static str> {
        let work = self.behind("\"work\":{\"")?;
        let is_next = |kind: &&str| work.starts_with(kind.as_bytes());
        KINDS.into_iter().find(is_next)
    }

    fn is_pull(&self) -> bool {
        self.kind() == Some("pull")
    }

    fn has_mark(&self, mark: &str) -> bool {
        !mark.is_empty() && self.behind(&format!("\"mark\":\"{mark}\"")).is_some()
    }
}

/// The journals, oldest first: their names begin with the time.
pub(super) fn journals(folder: &Path) -> Result<Vec<PathBuf>, JournalError> {
    let failed = |error| JournalError::file("list the journals in", folder, error);
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|ending| ending == ENDING) {
            paths.push(path);
        }
    }
    paths.sort_by_cached_key(|path| {
        let name = path.file_name().unwrap_or_default().to_os_string();
        // Runs of one second differ in nothing but chance; the file system knows which came first.
        let second: Vec<u8> = name
            .as_encoded_bytes()
            .iter()
            .take(SECOND)
            .copied()
            .collect();
        let made = path
            .metadata()
            .and_then(|about| about.created().or_else(|_| about.modified()))
            .ok();
        (second, made, name)
    });
    Ok(paths)
}

/// Removes the oldest journals of each kind of run that are too many, but neither `own` nor one of a run that goes on,
/// is gone on with, or was cut short: the clock may have been set back, and a pull may take longer than 500 checks.
pub(super) fn forget_oldest(folder: &Path, own: &Path) -> Result<(), JournalError> {
    let paths = journals(folder)?;
    if paths.len() <= KEPT {
        return Ok(());
    }
    let mut seen: HashMap<_, usize> = HashMap::new();
    for path in paths.iter().rev() {
        // What cannot be read or removed now is tried again with the next run.
        let Ok(head) = Head::of(path) else { continue };
        let number = seen.entry(head.kind()).or_default();
        *number += 1;
        if *number > KEPT && path != own {
            let _ = remove_if_over(path);
        }
    }
    Ok(())
}

fn remove_if_over(path: &Path) -> io::Result<()> {
    let mut file = File::open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(()),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    if last_line(&mut file)?.starts_with(b"{\"end\":") {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

/// Which runs are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runs {
    /// All of them.
    All,
    /// Pulls, which can be gone on with.
    Pulls,
}

impl Runs {
    fn include(self, path: &Path) -> bool {
        self == Self::All || Head::of(path).is_ok_and(|head| head.is_pull())
    }
}

/// The journal of one run: `wanted` is its name, the beginning of it, or `last`.
///
/// # Errors
/// There is none, or more than one begins so.
pub fn find(folder: &Path, wanted: &str, runs: Runs) -> Result<PathBuf, JournalError> {
    let paths = journals(folder)?;
    let missing = |there: String| JournalError::Missing {
        wanted: wanted.to_owned(),
        folder: folder.to_owned(),
        there,
    };
    // A name is looked for among all runs: what is not wanted is better told than not found.
    if let Some(exact) = paths.iter().find(|path| name(path) == wanted) {
        return Ok(exact.clone());
    }
    let Some(last) = paths.iter().rev().find(|path| runs.include(path)) else {
        let none = match runs {
            _ if paths.is_empty() => "no run has been recorded there",
            Runs::All => "no run can be read there",
            Runs::Pulls => "no pull has been recorded there, only other runs",
        };
        return Err(missing(none.into()));
    };
    if wanted == "last" {
        return Ok(last.clone());
    }
    let begins: Vec<&PathBuf> = paths
        .iter()
        .filter(|path| name(path).starts_with(wanted))
        .collect();
    match begins.as_slice() {
        [one] if !wanted.is_empty() => Ok(PathBuf::clone(one)),
        [] | [_] => Err(missing(format!(
            "`prepull runs list` shows them, the last is {}",
            name(last)
        ))),
        [first, .., last] => Err(missing(format!(
            "{} begin so, from {} to {}",
            begins.len(),
            name(first),
            name(last)
        ))),
    }
}

/// The name of the run in a file.
fn name(path: &Path) -> String {
    let name = path.file_stem().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// The names of these runs, oldest first; no journal is read as a whole.
///
/// # Errors
/// A folder that cannot be listed.
pub fn names(folder: &Path, runs: Runs) -> Result<Vec<String>, JournalError> {
    let paths = journals(folder)?.into_iter();
    let wanted = paths.filter(|path| runs.include(path));
    Ok(wanted.map(|path| name(&path)).collect())
}

/// Every run in the folder, oldest first: its file, and what it is or why that cannot be read.
///
/// # Errors
/// The folder cannot be read.
pub fn list(
    folder: &Path,
) -> Result<impl Iterator<Item = (PathBuf, Result<Listed, JournalError>)>, JournalError> {
    Ok(journals(folder)?.into_iter().map(|path| {
        let listed = Listed::read(&path);
        (path, listed)
    }))
}

/// Keeps every other prepull from going on with a run until it is dropped: two would end each other's connections to
/// the same pulls.
#[derive(Debug)]
pub struct Claim {
    /// Locked.
    _journals: Vec<File>,
}

/// Claims a run, and with it those that went on with it or that it went on with: all of them have the same pulls.
///
/// # Errors
/// Another prepull is at work on one of them.
pub fn claim(folder: &Path, past: &RecordedRun) -> Result<Claim, JournalError> {
    let until = Instant::now() + LOCK_PATIENCE;
    let header = &past.header;
    let mut locked = Vec::new();
    // All in one order, so that of two prepulls one comes first.
    for path in journals(folder)? {
        let is_same = || Head::of(&path).is_ok_and(|head| head.has_mark(&header.pull_token));
        if name(&path) != header.run && !is_same() {
            continue;
        }
        let failed = |error| JournalError::file("lock the journal", &path, error);
        let file = File::open(&path).map_err(failed)?;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(failed(error)),
                Err(TryLockError::WouldBlock) if Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(JournalError::Claimed {
                        run: header.run.clone(),
                    });
                }
            }
        }
        locked.push(file);
    }
    Ok(Claim { _journals: locked })
}
