//! Writes a journal: in whole lines, and on the disk before an outcome is told.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::{ENDING, End, Header, JournalError, NewLine};
use crate::model::{Event, Fact};

/// How many journals are kept: the oldest go when a new one begins.
const KEPT: usize = 500;
/// The length of the time in a run's name: `2026-11-23T21-17-09Z`.
const SECOND: usize = 20;

/// A journal that is being written.
#[derive(Debug)]
pub struct Journal {
    file: File,
    buffer: Vec<u8>,
}

impl Journal {
    /// Begins a journal in `folder`, which is made where it is missing, for the operator's eyes only.
    ///
    /// # Errors
    /// The folder or the file cannot be made or written to.
    pub fn create(folder: &Path, header: &Header) -> Result<Self, JournalError> {
        let make = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        make.map_err(|error| JournalError::file("make the folder for journals", folder, error))?;
        let path = folder.join(format!("{}.{ENDING}", header.run));
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|file| file.lock().map(|()| file))
            .map_err(|error| JournalError::file("begin the journal", &path, error))?;
        let mut journal = Self {
            file,
            buffer: Vec::new(),
        };
        journal
            .write([NewLine::Run(header)], true)
            .map_err(|error| JournalError::file("write to the journal", &path, error))?;
        // Its name must survive a power cut, too. Some file systems cannot be asked that of a folder.
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
        // What cannot be removed now is tried again with the next run.
        let _ = forget_oldest(folder);
        Ok(journal)
    }

    /// Writes events; with outcomes among them, returns only once they would survive a power cut.
    ///
    /// # Errors
    /// What the disk answered. What was written before is not touched.
    pub fn events(&mut self, events: &[Event]) -> io::Result<()> {
        // What is only on its way helps nobody later, and there is a lot of it.
        let lasting = |event: &&Event| !matches!(event.fact, Fact::Progress { .. });
        let mut lines = events.iter().filter(lasting).peekable();
        if lines.peek().is_none() {
            return Ok(());
        }
        let outcomes = events
            .iter()
            .any(|event| matches!(event.fact, Fact::Finished { .. }));
        self.write(lines.map(NewLine::Event), outcomes)
    }

    /// Writes the last line.
    ///
    /// # Errors
    /// What the disk answered.
    pub fn end(&mut self, end: &End) -> io::Result<()> {
        self.write([NewLine::End(end)], true)
    }

    fn write<'a>(
        &mut self,
        lines: impl IntoIterator<Item = NewLine<'a>>,
        durable: bool,
    ) -> io::Result<()> {
        self.buffer.clear();
        for line in lines {
            serde_json::to_writer(&mut self.buffer, &line)?;
            self.buffer.push(b'\n');
        }
        self.file.write_all(&self.buffer)?;
        if durable {
            self.file.sync_data()
        } else {
            Ok(())
        }
    }
}

fn forget_oldest(folder: &Path) -> io::Result<()> {
    let mut paths = journals(folder)?;
    let surplus = paths.len().saturating_sub(KEPT);
    for path in paths.drain(..surplus) {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

/// The journals in a folder, oldest first: their names begin with the time.
pub(super) fn journals(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path();
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
