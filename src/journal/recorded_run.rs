//! Reads a journal back: what became of a run, also of one that was cut short.

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{End, Header, JournalError, JournalWork, Line, SCHEMA};
use crate::model::{
    Counts, Event, EventKind, FanOutTotals, Fleet, LocalImage, Node, NodeRecord, Outcome, Plan,
    PlannedImage, Policy, Record, StopReason, Work,
};

/// The last line is shorter than this.
const LAST_LINE: u64 = 4096;

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is going on.
    Running,
    /// It came to its end.
    Ended,
    /// prepull was ended before the run was.
    CutShort,
}

/// A run as its journal tells it.
#[derive(Debug)]
pub struct RecordedRun {
    /// What it is.
    pub header: Header,
    /// What happened, in order.
    pub events: Vec<Event>,
    /// How it ended, if it did.
    pub end: Option<End>,
    /// Where it stands.
    pub state: State,
}

impl RecordedRun {
    /// Reads one journal. A torn last line, which a crash leaves behind, is passed over.
    ///
    /// # Errors
    /// A file that cannot be read, or with another line that is none of ours.
    pub fn read(path: &Path) -> Result<Self, JournalError> {
        Self::read_with(path, usize::MAX)
    }

    /// [`RecordedRun::read`] with so many bytes of what each command printed: older versions recorded all of it.
    fn read_with(path: &Path, output: usize) -> Result<Self, JournalError> {
        let failed = |error| JournalError::file("read the journal", path, error);
        let file = File::open(path).map_err(failed)?;
        // Before it is read: a run that ends meanwhile would seem to have been cut short.
        let is_locked = is_locked(&file).map_err(failed)?;
        let mut lines = BufReader::new(&file);
        let wrong = |line: usize, reason: String| JournalError::Line {
            path: path.to_owned(),
            line,
            reason,
        };
        let (mut header, mut events, mut end) = (None, Vec::new(), None);
        let mut line = Vec::new();
        for number in 0.. {
            line.clear();
            if lines.read_until(b'\n', &mut line).map_err(failed)? == 0 {
                break;
            }
            match serde_json::from_slice(&line) {
                Ok(Line::Run(first)) if number == 0 => header = Some(first),
                Ok(Line::Event(mut event)) if number > 0 => {
                    shorten(&mut event, output).map_err(failed)?;
                    events.push(event);
                }
                Ok(Line::End(last)) if number > 0 => end = Some(last),
                Ok(_) => return Err(wrong(number + 1, "it stands in the wrong place".into())),
                Err(_) if !line.ends_with(b"\n") => break,
                Err(error) => return Err(wrong(number + 1, error.to_string())),
            }
        }
        let header = header.ok_or_else(|| wrong(1, "it does not say what the run is".into()))?;
        if header.schema != SCHEMA {
            let reason = format!(
                "its form has number {}, this prepull knows {SCHEMA}",
                header.schema
            );
            return Err(wrong(1, reason));
        }
        // One that ended is locked by a run that goes on with it.
        let state = match (end, is_locked) {
            (Some(_), _) => State::Ended,
            (None, true) => State::Running,
            (None, false) => State::CutShort,
        };
        Ok(Self {
            header,
            events,
            end,
            state,
        })
    }

    /// What the nodes are known to hold because of this run, by node and image.
    pub fn held(&self) -> HashMap<(&str, &str), &LocalImage> {
        let images: &[String] = match &self.header.work {
            JournalWork::Pull(images) | JournalWork::Check(images) => images,
            JournalWork::Exec(_) | JournalWork::Probe(_) => &[],
        };
        self.outcomes()
            .filter_map(|(node, item, record)| {
                let (Outcome::Pulled(held) | Outcome::Present(held)) = &record.outcome else {
                    return None;
                };
                let node = self.header.nodes.get(node)?.name.as_str();
                Some(((node, images.get(item)?.as_str()), held))
            })
            .collect()
    }

    pub(super) fn outcomes(&self) -> impl Iterator<Item = (usize, usize, &Arc<Record>)> {
        self.events.iter().filter_map(|event| match &event.fact {
            EventKind::Finished { node, item, record } => Some((*node, *item, record)),
            _ => None,
        })
    }

    /// The plan, as far as reports need it: without logins, ways and policy.
    ///
    /// # Errors
    /// What is wrong with it, for a journal that was changed.
    pub fn plan(&self) -> Result<Plan, String> {
        let images = |names: &[String]| {
            let image = |name: &String| name.parse().map_err(|error| format!("{error}"));
            names.iter().map(image).collect::<Result<Vec<_>, String>>()
        };
        let planned = |names: &[String]| {
            let plain = |image| PlannedImage { image, login: None };
            Ok::<_, String>(images(names)?.into_iter().map(plain).collect())
        };
        let work = match &self.header.work {
            JournalWork::Pull(names) => Work::Pull(planned(names)?),
            JournalWork::Check(names) => Work::Check(images(names)?),
            JournalWork::Exec(command) => Work::Exec(command.clone()),
            JournalWork::Probe(names) => Work::Probe(planned(names)?),
        };
        let nodes = self.header.nodes.iter().map(|node| Node {
            address: node.address.clone(),
            port: node.port,
            user: node.user.clone(),
            runtime: node.runtime,
            ..Node::named(&node.name)
        });
        Ok(Plan::new(
            Fleet::new(nodes.collect()).map_err(|error| error.to_string())?,
            work,
            Policy {
                lease: Duration::from_secs(self.header.lease),
                ..Policy::default()
            },
        ))
    }

    /// One record for each node; what has no outcome is not run.
    pub fn records(&self, plan: &Plan) -> Vec<NodeRecord> {
        let open = Record {
            outcome: Outcome::NotRun(StopReason::CutShort),
            attempts: Vec::new(),
            elapsed: Duration::ZERO,
            arrived: None,
            delivery: None,
            kept: None,
        };
        let mut nodes: Vec<NodeRecord> = plan
            .fleet
            .nodes()
            .iter()
            .map(|node| NodeRecord {
                runtime: node.runtime,
                items: vec![open.clone(); plan.work.items()],
            })
            .collect();
        for event in &self.events {
            if let EventKind::RuntimeFound { node, runtime } = event.fact
                && let Some(record) = nodes.get_mut(node)
            {
                record.runtime = Some(runtime);
            }
        }
        for (node, item, record) in self.outcomes() {
            if let Some(place) = nodes
                .get_mut(node)
                .and_then(|node| node.items.get_mut(item))
            {
                *place = Record::clone(record);
            }
        }
        nodes
    }

    /// What came of nodes passing images on, as far as it was recorded.
    pub fn fan_out(&self) -> Option<FanOutTotals> {
        let mut events = self.events.iter().rev();
        events.find_map(|event| match event.fact {
            EventKind::FanOut { totals } => Some(totals),
            _ => None,
        })
    }

    /// When it ended, or when it was last heard of.
    pub fn finished(&self) -> SystemTime {
        self.end.map_or_else(
            || self.header.started + self.events.last().map_or(Duration::ZERO, |event| event.at),
            |end| end.finished,
        )
    }
}

/// Whether a process holds its lock.
fn is_locked(file: &File) -> io::Result<bool> {
    match file.try_lock_shared() {
        Ok(()) => file.unlock().map(|()| false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn shorten(event: &mut Event, output: usize) -> io::Result<()> {
    if let EventKind::Finished { record, .. } = &mut event.fact
        && let Some(record) = Arc::get_mut(record)
        && let Outcome::Ran(ran) = &mut record.outcome
    {
        *ran = ran.excerpt(output)?;
    }
    Ok(())
}

/// The last whole line of a journal, if it is as short as the end of a run.
pub(super) fn last_line(file: &mut File) -> io::Result<Vec<u8>> {
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(length.saturating_sub(LAST_LINE)))?;
    let mut tail = Vec::new();
    file.take(LAST_LINE).read_to_end(&mut tail)?;
    let tail = tail.strip_suffix(b"\n").unwrap_or_default();
    let line = tail.rsplit(|byte| *byte == b'\n').next();
    Ok(line.unwrap_or_default().to_vec())
}

/// A run in a list.
#[derive(Debug)]
pub struct Listed {
    /// The run, without its events where `counts` say what came of it.
    pub past: RecordedRun,
    /// What came of it, as its last line says.
    pub counts: Option<Counts>,
}

impl Listed {
    /// Reads the first line and the last: what lies between may be long. All of it where the last one does not say
    /// enough.
    pub(super) fn read(path: &Path) -> Result<Self, JournalError> {
        match Self::glance(path) {
            Ok(Some(listed)) => Ok(listed),
            // What is wrong with it is told by who reads all of it.
            Ok(None) | Err(_) => Ok(Self {
                past: RecordedRun::read_with(path, 0)?,
                counts: None,
            }),
        }
    }

    fn glance(path: &Path) -> io::Result<Option<Self>> {
        let mut file = File::open(path)?;
        let mut first = Vec::new();
        BufReader::new(&file).read_until(b'\n', &mut first)?;
        let last = last_line(&mut file)?;
        let Ok(Line::End(end)) = serde_json::from_slice(&last) else {
            return Ok(None);
        };
        let Ok(Line::Run(header)) = serde_json::from_slice(&first) else {
            return Ok(None);
        };
        Ok(
            (end.counts.is_some() && header.schema == SCHEMA).then(|| Self {
                counts: end.counts,
                past: RecordedRun {
                    header,
                    events: Vec::new(),
                    end: Some(end),
                    state: State::Ended,
                },
            }),
        )
    }
}
