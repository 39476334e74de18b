//! Writes a journal: in whole lines, and on the disk before an outcome is told.

use std::borrow::Cow;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::folder::forget_oldest;
use super::{ENDING, End, Header, JournalError, NewLine};
use crate::model::{Event, EventKind, Outcome, Record};

/// What a journal may hold of the output of all nodes' commands together ...
const OUTPUT_BUDGET: usize = 16 << 20;
/// ... but never less or more than this of each stream of a node.
const SHARE: (usize, usize) = (256, 4 << 10);

/// A journal that is being written.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    buffer: Vec<u8>,
    /// How much of what a command printed is written down, in bytes of each stream.
    share: usize,
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
            path: path.clone(),
            file,
            buffer: Vec::new(),
            share: (OUTPUT_BUDGET / 2 / header.nodes.len().max(1)).clamp(SHARE.0, SHARE.1),
        };
        journal
            .write([NewLine::Run(header)], true)
            .map_err(|error| JournalError::file("write to the journal", &path, error))?;
        // Its name must survive a power cut, too. Some file systems cannot be asked that of a folder.
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
        // What cannot be removed now is tried again with the next run.
        let _ = forget_oldest(folder, &path);
        Ok(journal)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes events; with outcomes among them, returns only once they would survive a power cut.
    ///
    /// # Errors
    /// What the disk answered. What was written before is not touched.
    pub fn events(&mut self, events: &[Event]) -> io::Result<()> {
        // Progress is of no use later, and there is a lot of it.
        let lasting = |event: &&Event| !matches!(event.fact, EventKind::Progress { .. });
        let mut lines = events.iter().filter(lasting).peekable();
        if lines.peek().is_none() {
            return Ok(());
        }
        let outcomes = events
            .iter()
            .any(|event| matches!(event.fact, EventKind::Finished { .. }));
        let lines = lines
            .map(|event| self.excerpt(event))
            .collect::<io::Result<Vec<_>>>()?;
        let lines = lines.iter().map(|event| NewLine::Event(event));
        self.write(lines, outcomes)
    }

    /// The event with the start of what a command printed.
    fn excerpt<'a>(&self, event: &'a Event) -> io::Result<Cow<'a, Event>> {
        let EventKind::Finished { node, item, record } = &event.fact else {
            return Ok(Cow::Borrowed(event));
        };
        let Outcome::Ran(output) = &record.outcome else {
            return Ok(Cow::Borrowed(event));
        };
        let record = Record {
            outcome: Outcome::Ran(output.excerpt(self.share)?),
            ..Record::clone(record)
        };
        let fact = EventKind::Finished {
            node: *node,
            item: *item,
            record: Arc::new(record),
        };
        Ok(Cow::Owned(Event {
            fact,
            ..event.clone()
        }))
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
