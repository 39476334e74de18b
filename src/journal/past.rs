//! Reads a journal back: what became of a run, also of one that was cut short.

use std::collections::HashMap;
use std::fs::{self, File, TryLockError};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{End, Header, JournalError, JournalWork, Line, SCHEMA};
use crate::model::{
    Event, Fact, Fleet, Held, Node, NodeRecord, Outcome, Plan, PlannedImage, Policy, Record,
    StopReason, Work,
};

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
pub struct Past {
    /// What it is.
    pub header: Header,
    /// What happened, in order.
    pub events: Vec<Event>,
    /// How it ended, if it did.
    pub end: Option<End>,
    /// Where it stands.
    pub state: State,
}

impl Past {
    /// Reads one journal. A torn last line, which a crash leaves behind, is passed over.
    ///
    /// # Errors
    /// A file that cannot be read, or with another line that is none of ours.
    pub fn read(path: &Path) -> Result<Self, JournalError> {
        let failed = |error| JournalError::file("read the journal", path, error);
        // Before it is read: a run that ends meanwhile would seem to have been cut short.
        let is_locked = match File::open(path).map_err(failed)?.try_lock_shared() {
            Ok(()) => false,
            Err(TryLockError::WouldBlock) => true,
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        };
        let bytes = fs::read(path).map_err(failed)?;
        let wrong = |line: usize, reason: String| JournalError::Line {
            path: path.to_owned(),
            line,
            reason,
        };
        let (mut header, mut events, mut end) = (None, Vec::new(), None);
        for (number, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
            match serde_json::from_slice(line) {
                Ok(Line::Run(first)) if number == 0 => header = Some(first),
                Ok(Line::Event(event)) if number > 0 => events.push(event),
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
    pub fn held(&self) -> HashMap<(&str, &str), &Held> {
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

    fn outcomes(&self) -> impl Iterator<Item = (usize, usize, &Arc<Record>)> {
        self.events.iter().filter_map(|event| match &event.fact {
            Fact::Finished { node, item, record } => Some((*node, *item, record)),
            _ => None,
        })
    }

    /// The plan, as far as reports need it: without logins, ways and policy.
    ///
    /// # Errors
    /// What is wrong with it, for a journal that somebody changed.
    pub fn plan(&self) -> Result<Plan, String> {
        let images = |names: &[String]| {
            let image = |name: &String| name.parse().map_err(|error| format!("{error}"));
            names.iter().map(image).collect::<Result<Vec<_>, String>>()
        };
        let work = match &self.header.work {
            JournalWork::Pull(names) => {
                let plain = |image| PlannedImage { image, login: None };
                Work::Pull(images(names)?.into_iter().map(plain).collect())
            }
            JournalWork::Check(names) => Work::Check(images(names)?),
            JournalWork::Exec(command) => Work::Exec(command.clone()),
            JournalWork::Probe(names) => Work::Probe(images(names)?),
        };
        let nodes = self.header.nodes.iter().map(|node| Node {
            address: node.address.clone(),
            port: node.port,
            user: node.user.clone(),
            runtime: node.runtime,
            ..Node::named(&node.name)
        });
        Ok(Plan {
            fleet: Fleet::new(nodes.collect()).map_err(|error| error.to_string())?,
            work,
            policy: Policy {
                lease: Duration::from_secs(self.header.lease),
                ..Policy::default()
            },
            held: HashMap::new(),
            contents: Vec::new(),
            mark: String::new(),
        })
    }

    /// One record for each node; what has no outcome is not run.
    pub fn records(&self, plan: &Plan) -> Vec<NodeRecord> {
        let open = Record {
            outcome: Outcome::NotRun(StopReason::CutShort),
            attempts: Vec::new(),
            elapsed: Duration::ZERO,
            arrived: None,
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
            if let Fact::RuntimeFound { node, runtime } = event.fact
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

    /// When it ended, or when it was last heard of.
    pub fn finished(&self) -> SystemTime {
        self.end.map_or_else(
            || self.header.started + self.events.last().map_or(Duration::ZERO, |event| event.at),
            |end| end.finished,
        )
    }
}
