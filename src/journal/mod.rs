//! A run on disk: every event is written before it is shown, so that nothing is lost when prepull dies.
//!
//! A journal is a file of JSON lines, `RUN.jsonl`: the first line says what the run is, then comes one line an event,
//! and a last one when the run ended. The process that writes it holds a lock on it until it is gone.

mod folder;
mod lookup;
mod recorded_run;
mod write;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::model::{
    Counts, Event, ForecastTotals, Foretold, Node, Plan, Policy, RuntimeKind, StopReason, Work,
};

pub use folder::{Claim, Runs, claim, find, list, names};
pub use lookup::{foretold, history, last_held, overdue};
pub use recorded_run::{Listed, RecordedRun, State};
pub use write::Journal;

/// The form of the files; a newer form gets another number.
const SCHEMA: u32 = 1;
/// What a journal's file name ends with.
const ENDING: &str = "jsonl";

/// What a run is: a journal's first line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    schema: u32,
    /// The run's own name.
    pub run: String,
    /// The version of prepull that ran it.
    pub version: String,
    /// When it started.
    #[serde(with = "humantime_text")]
    pub started: SystemTime,
    /// Where it was started.
    pub directory: PathBuf,
    /// The command line without the program's name. It holds no secret: prepull takes none there.
    pub arguments: Vec<String>,
    /// Names its pulls on nodes.
    #[serde(default, rename = "mark")]
    pub pull_token: String,
    /// How long, in seconds, a pull goes on when its connection is lost.
    #[serde(default = "usual_lease")]
    pub lease: u64,
    /// What was done.
    pub work: JournalWork,
    /// Until when what was pulled is kept from the kubelet's garbage collection: a time, or `released`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<String>,
    /// The forecast that the run is compared with, if one was made before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foretold: Option<Foretold>,
    /// The fleet, in its order.
    pub nodes: Vec<JournalNode>,
}

fn usual_lease() -> u64 {
    Policy::default().lease.as_secs()
}

/// What was done on every node, without logins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JournalWork {
    /// Pull these images.
    Pull(Vec<String>),
    /// Look for these images.
    Check(Vec<String>),
    /// Run this command.
    Exec(Vec<String>),
    /// Find out what the nodes are, and look for these images.
    Probe(Vec<String>),
}

/// A node as reports show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JournalNode {
    /// Its name.
    pub name: String,
    /// What was dialled.
    pub address: String,
    /// The SSH server's port.
    pub port: u16,
    /// Who logged in.
    pub user: String,
    /// What holds its images, where that was known before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeKind>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// When.
    #[serde(with = "humantime_text")]
    pub finished: SystemTime,
    /// Why early, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<StopReason>,
    /// What came of it, for lists. Older versions did not write it down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<Counts>,
    /// For a forecast: what it said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forecast: Option<ForecastTotals>,
}

/// A line as it is read.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Line {
    Run(Header),
    Event(Event),
    End(End),
}

/// A line as it is written.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
enum NewLine<'a> {
    Run(&'a Header),
    Event(&'a Event),
    End(&'a End),
}

/// What can go wrong with a journal.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A file or folder cannot be used.
    #[error("cannot {what} {}: {error}", .path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system answered.
        error: io::Error,
    },
    /// A line says nothing that prepull wrote.
    #[error("{}:{line}: this is no line of a journal: {reason}", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// No journal of that name.
    #[error("there is no run \"{wanted}\" in {}; {there}", .folder.display())]
    Missing {
        /// What was asked for.
        wanted: String,
        /// Where journals are.
        folder: PathBuf,
        /// What is there instead.
        there: String,
    },
    /// Another prepull is at work on the same pulls.
    #[error(
        "another prepull is at work on the pulls of the run {run}: wait for its end, or interrupt it first"
    )]
    Claimed {
        /// The run that was asked for.
        run: String,
    },
}

impl JournalError {
    fn file(what: &'static str, path: &Path, error: io::Error) -> Self {
        Self::File {
            what,
            path: path.to_owned(),
            error,
        }
    }
}

impl Header {
    /// What `plan` does, started now and here with these arguments.
    pub fn new(
        run: &str,
        started: SystemTime,
        plan: &Plan,
        directory: PathBuf,
        arguments: Vec<String>,
    ) -> Self {
        let node = |node: &Node| JournalNode {
            name: node.name.clone(),
            address: node.address.clone(),
            port: node.port,
            user: node.user.clone(),
            runtime: node.runtime,
        };
        Self {
            schema: SCHEMA,
            run: run.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started,
            directory,
            arguments,
            pull_token: plan.pull_token.clone(),
            lease: plan.policy.lease.as_secs(),
            work: match &plan.work {
                Work::Pull(images) => {
                    JournalWork::Pull(images.iter().map(|one| one.image.to_string()).collect())
                }
                Work::Check(images) => {
                    JournalWork::Check(images.iter().map(ToString::to_string).collect())
                }
                Work::Exec(command) => JournalWork::Exec(command.clone()),
                Work::Probe(images) => {
                    let names = images.iter().map(|one| one.image.to_string());
                    JournalWork::Probe(names.collect())
                }
            },
            keep: plan.policy.keep.map(|keep| keep.label()),
            foretold: None,
            nodes: plan.fleet.nodes().iter().map(node).collect(),
        }
    }
}

/// Where journals are kept: `prepull/runs` in `$XDG_STATE_HOME`, by default `~/.local/state` (XDG Base Directory
/// Specification). `None` without a home.
pub fn folder(variable: &dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let folder = |name| {
        variable(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let state =
        folder("XDG_STATE_HOME").or_else(|| folder("HOME").map(|home| home.join(".local/state")));
    state.map(|state| state.join("prepull/runs"))
}

/// A point in time as RFC 3339 text, to the microsecond.
mod humantime_text {
    use std::time::SystemTime;

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(time: &SystemTime, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(&humantime::format_rfc3339_micros(*time))
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<SystemTime, D::Error> {
        let text = String::deserialize(from)?;
        humantime::parse_rfc3339(&text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests;
