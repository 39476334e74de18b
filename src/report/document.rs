//! The JSON document of a run: the contract with programs that read prepull's results.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::ser::Error as _;
use serde::{Serialize, Serializer};

use super::RunResult;
use crate::model::{
    Attempt, Counts, ExitStatus, Failure, FailureKind, FanOutTotals, Kept, NodeRecord, Outcome,
    Overdue, Record, Retry, Stage, Work, text::truncate_bytes,
};

/// The longest detail in a document, in bytes: a node's words must not fill a disk.
const DETAIL_LIMIT: usize = 16 * 1024;

/// The document, version 1: `docs/schema/document-1.json` describes it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Document {
    schema: u32,
    run: String,
    command: &'static str,
    started: String,
    finished: String,
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    arrived: Option<u64>,
    #[serde(skip_serializing_if = "is_none")]
    arrived_unseen: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    forecast: Option<ForecastEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fan_out: Option<FanOutTotals>,
    images: Vec<ImageEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    disagreements: Vec<Disagreement>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    keep_overdue: Vec<Overdue>,
    nodes: Vec<NodeEntry>,
    /// The counts.
    pub(super) summary: Counts,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct ImageEntry {
    reference: String,
    digest: Option<String>,
}

/// An image that nodes hold in different versions.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Disagreement {
    pub image: String,
    pub digests: Vec<DigestCount>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct DigestCount {
    pub digest: String,
    pub nodes: usize,
    pub names: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct NodeEntry {
    name: String,
    address: String,
    port: u16,
    user: String,
    runtime: Option<&'static str>,
    outcomes: Vec<OutcomeEntry>,
}

/// One outcome, as documents and event lines write it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct OutcomeEntry {
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<String>,
    pub(super) status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    arrived: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disk_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    via: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    via_note: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kept_note: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gone_since: Option<String>,
    #[serde(flatten)]
    output: Option<OutputEntry>,
    seconds: f64,
    attempts: Vec<AttemptEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) failure: Option<FailureEntry>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct OutputEntry {
    exit: Option<u32>,
    signal: Option<String>,
    stdout: Printed,
    stderr: Printed,
    truncated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stdout_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stderr_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<String>,
}

/// What a command printed, read when it is written: a fleet's output is more than memory should hold.
#[derive(Debug, Clone, PartialEq)]
struct Printed {
    kept: Kept,
    limit: usize,
}

impl Serialize for Printed {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let bytes = self.kept.read(self.limit).map_err(S::Error::custom)?;
        out.serialize_str(&String::from_utf8_lossy(&bytes))
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct AttemptEntry {
    number: u32,
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<FailureEntry>,
}

/// A failure, as documents and event lines write it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct FailureEntry {
    kind: &'static str,
    stage: &'static str,
    retryable: bool,
    detail: String,
}

/// The whole result as a document.
pub fn document(result: &RunResult) -> Document {
    document_within(result, usize::MAX)
}

/// The same, with at most so many bytes of what each command printed.
pub(super) fn document_within(result: &RunResult, limit: usize) -> Document {
    let plan = &result.info.plan;
    let images = (0..plan.work.items())
        .filter_map(|item| {
            let digests = digests_of(result, item);
            let agreed = (digests.len() == 1)
                .then(|| digests.keys().next().map(ToString::to_string))
                .flatten();
            Some(ImageEntry {
                reference: plan.work.image(item)?.to_string(),
                digest: agreed,
            })
        })
        .collect();
    let nodes = plan
        .fleet
        .nodes()
        .iter()
        .zip(&result.nodes)
        .map(|(node, record)| NodeEntry {
            name: node.name.clone(),
            address: node.address.clone(),
            port: node.port,
            user: node.user.clone(),
            runtime: record.runtime.or(node.runtime).map(|kind| kind.as_str()),
            outcomes: record
                .items
                .iter()
                .enumerate()
                .map(|(item, record)| OutcomeEntry {
                    gone_since: gone_since(result, &node.name, item, record).map(String::from),
                    ..outcome_entry(&plan.work, item, record, limit)
                })
                .collect(),
        })
        .collect();
    Document {
        schema: 1,
        run: result.info.id.clone(),
        command: plan.work.command(),
        started: timestamp(result.info.started),
        finished: timestamp(result.finished),
        seconds: seconds(took(result)),
        arrived: arrived(result),
        arrived_unseen: unseen(result),
        forecast: forecast_entry(result),
        stopped: result.stopped.map(|reason| reason.as_str()),
        fan_out: result.fan_out,
        images,
        disagreements: disagreements(result),
        keep_overdue: result.info.earlier.overdue.clone(),
        nodes,
        summary: counts(result),
    }
}

/// How a pull compares with the forecast that was made before it, for programs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct ForecastEntry {
    pub(super) run: String,
    pub(super) bytes: u64,
    /// Arrived bytes against foretold ones, less 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bytes_error: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) seconds: Option<f64>,
    /// Real time against foretold time, less 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) seconds_error: Option<f64>,
}

/// The comparison; `None` where there was no forecast, or the run did not do all of what was foretold.
pub(super) fn forecast_entry(result: &RunResult) -> Option<ForecastEntry> {
    let foretold = result.info.earlier.foretold.as_ref()?;
    let counts = counts(result);
    if result.stopped.is_some() || counts.ok != counts.nodes {
        return None;
    }
    let totals = &foretold.totals;
    let is_counted = totals.unknown == 0 && unseen(result) == 0;
    let came = is_counted.then(|| arrived(result).unwrap_or(0));
    let error = |real: f64, told: f64| match told > 0.0 {
        true => Some((real / told - 1.0) * 10_000.0).map(|error| error.round() / 10_000.0),
        false => (real <= 0.0).then_some(0.0),
    };
    let time = totals.time.as_ref().map(|time| time.seconds);
    Some(ForecastEntry {
        run: foretold.run.clone(),
        bytes: totals.bytes,
        bytes_error: came.and_then(|came| error(came as f64, totals.bytes as f64)),
        seconds: time.map(|time| seconds(Duration::try_from_secs_f64(time).unwrap_or_default())),
        seconds_error: time.and_then(|time| error(took(result).as_secs_f64(), time)),
    })
}

/// The run that found an image on a node that does not hold it any more.
pub(super) fn gone_since<'a>(
    result: &'a RunResult,
    node: &str,
    item: usize,
    record: &Record,
) -> Option<&'a str> {
    if !matches!(record.outcome, Outcome::Missing) {
        return None;
    }
    let image = result.info.plan.work.image(item)?.to_string();
    let place = (node.to_string(), image);
    result
        .info
        .earlier
        .last_held
        .get(&place)
        .map(String::as_str)
}

/// How long the run took.
pub(super) fn took(result: &RunResult) -> Duration {
    let took = result.finished.duration_since(result.info.started);
    took.unwrap_or_default()
}

/// For serde, which hands over a reference.
fn is_none(number: &usize) -> bool {
    *number == 0
}

/// How many bytes arrived on all nodes where that was counted; `None` where it was on none.
pub(super) fn arrived(result: &RunResult) -> Option<u64> {
    let records = result.nodes.iter().flat_map(|node| &node.items);
    records
        .filter_map(|record| record.arrived)
        .reduce(u64::saturating_add)
}

/// On how many nodes something came that was not counted.
pub(super) fn unseen(result: &RunResult) -> usize {
    let is_any_unseen = |node: &&NodeRecord| node.items.iter().any(is_unseen);
    result.nodes.iter().filter(is_any_unseen).count()
}

/// Whether something may have come that was not counted. What fails before the first layer brings nothing.
pub(super) fn is_unseen(record: &Record) -> bool {
    let brings_layers = |attempt: &Attempt| match &attempt.failure {
        Some(failure) => {
            let stage = matches!(failure.stage, Stage::Pull | Stage::Verify);
            stage
                && matches!(
                    failure.kind,
                    FailureKind::ConnectionLost
                        | FailureKind::Stalled
                        | FailureKind::TimedOut
                        | FailureKind::Corrupt
                        | FailureKind::DiskFull
                        | FailureKind::Platform
                        | FailureKind::Unknown
                )
        }
        None => matches!(record.outcome, Outcome::NotRun(_)),
    };
    let is_pulled = matches!(record.outcome, Outcome::Pulled(_));
    record.arrived.is_none() && (is_pulled || record.attempts.iter().any(brings_layers))
}

/// Whether no image is held with different digests on different nodes.
pub fn digests_agree(result: &RunResult) -> bool {
    disagreements(result).is_empty()
}

pub(super) fn disagreements(result: &RunResult) -> Vec<Disagreement> {
    let work = &result.info.plan.work;
    (0..work.items())
        .filter_map(|item| {
            let digests = digests_of(result, item);
            let image = work.image(item)?.to_string();
            (digests.len() > 1).then(|| Disagreement {
                image,
                digests: digests
                    .into_iter()
                    .map(|(digest, nodes)| DigestCount {
                        digest: digest.into(),
                        nodes: nodes.len(),
                        names: nodes.into_iter().map(String::from).collect(),
                    })
                    .collect(),
            })
        })
        .collect()
}

/// The digests of an item and the nodes that hold each.
pub(super) fn digests_of(result: &RunResult, item: usize) -> BTreeMap<&str, Vec<&str>> {
    let mut digests: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (described, node) in result.info.plan.fleet.nodes().iter().zip(&result.nodes) {
        if let Some(Outcome::Pulled(held) | Outcome::Present(held)) =
            node.items.get(item).map(|record| &record.outcome)
            && let Some(digest) = &held.digest
        {
            digests
                .entry(digest.as_str())
                .or_default()
                .push(&described.name);
        }
    }
    digests
}

/// What a node's outcomes come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum NodeStatus {
    /// All is as wanted.
    Ok,
    /// Something is not.
    Failed,
    /// A check did not find an image, and nothing else is wrong.
    Missing,
    /// Something was not run, and nothing else is wrong.
    NotRun,
}

pub(super) fn node_status(node: &NodeRecord) -> NodeStatus {
    let mut wrong = node
        .items
        .iter()
        .filter(|record| !record.outcome.is_ok())
        .peekable();
    if wrong.peek().is_none() {
        NodeStatus::Ok
    } else if wrong
        .clone()
        .all(|record| matches!(record.outcome, Outcome::NotRun(_)))
    {
        NodeStatus::NotRun
    } else if wrong.all(|record| matches!(record.outcome, Outcome::Missing)) {
        NodeStatus::Missing
    } else {
        NodeStatus::Failed
    }
}

/// The counts of a run.
pub fn counts(result: &RunResult) -> Counts {
    let work = &result.info.plan.work;
    let mut counts = Counts {
        nodes: result.nodes.len(),
        missing: matches!(work, Work::Check(_)).then_some(0),
        absent: matches!(work, Work::Check(_)).then_some(0),
        ran: matches!(work, Work::Exec(_)).then_some(0),
        ..Counts::default()
    };
    for node in &result.nodes {
        for record in &node.items {
            match &record.outcome {
                Outcome::Pulled(_) => counts.pulled += 1,
                Outcome::Present(_) => counts.present += 1,
                Outcome::Missing => *counts.missing.get_or_insert(0) += 1,
                Outcome::Ran(_) => *counts.ran.get_or_insert(0) += 1,
                Outcome::NotRun(_) | Outcome::Failed(_) | Outcome::Probed(_) => {}
            }
        }
        match node_status(node) {
            NodeStatus::Ok => counts.ok += 1,
            NodeStatus::Failed => counts.failed += 1,
            NodeStatus::Missing => *counts.absent.get_or_insert(0) += 1,
            NodeStatus::NotRun => counts.not_run += 1,
        }
    }
    counts
}

pub(super) fn outcome_entry(
    work: &Work,
    item: usize,
    record: &Record,
    limit: usize,
) -> OutcomeEntry {
    let mut entry = OutcomeEntry {
        image: work.image(item).map(ToString::to_string),
        status: record.outcome.status(),
        digest: None,
        bytes: record.arrived,
        arrived: record.arrived,
        disk_bytes: None,
        via: record
            .delivery
            .as_ref()
            .map(|delivery| delivery.via.as_str()),
        via_note: (record.delivery.as_ref())
            .and_then(|delivery| delivery.note.as_ref())
            .map(|note| truncate_bytes(note.as_bytes(), DETAIL_LIMIT)),
        kept: record.kept.as_ref().map(|kept| kept.state.as_str()),
        kept_note: (record.kept.as_ref())
            .and_then(|kept| kept.note.as_ref())
            .map(|note| truncate_bytes(note.as_bytes(), DETAIL_LIMIT)),
        gone_since: None,
        output: None,
        seconds: seconds(record.elapsed),
        attempts: record.attempts.iter().map(attempt_entry).collect(),
        failure: None,
    };
    match &record.outcome {
        Outcome::Pulled(held) | Outcome::Present(held) => {
            entry.digest.clone_from(&held.digest);
            entry.disk_bytes = held.bytes;
        }
        Outcome::Missing | Outcome::Probed(_) => {}
        Outcome::Ran(output) => {
            let (exit, signal) = match &output.exit {
                ExitStatus::Code(code) => (Some(*code), None),
                ExitStatus::Signal(name) => (None, Some(name.clone())),
            };
            let printed = |kept: &Kept| Printed {
                kept: kept.clone(),
                limit,
            };
            entry.output = Some(OutputEntry {
                exit,
                signal,
                stdout: printed(&output.stdout),
                stderr: printed(&output.stderr),
                truncated: output.truncated,
                stdout_bytes: output.stdout.excerpt_of(),
                stderr_bytes: output.stderr.excerpt_of(),
                lost: output.lost().map(String::from),
            });
        }
        Outcome::Failed(failure) => entry.failure = Some(failure_entry(failure)),
        Outcome::NotRun(reason) => {
            let last = record
                .attempts
                .iter()
                .rev()
                .find_map(|a| a.failure.as_ref());
            entry.failure = Some(FailureEntry {
                kind: "not-run",
                stage: last
                    .map_or(Stage::Connect, |failure| failure.stage)
                    .as_str(),
                retryable: false,
                detail: reason.to_string(),
            });
        }
    }
    entry
}

fn attempt_entry(attempt: &Attempt) -> AttemptEntry {
    AttemptEntry {
        number: attempt.number,
        seconds: seconds(attempt.elapsed),
        failure: attempt.failure.as_ref().map(failure_entry),
    }
}

pub(super) fn failure_entry(failure: &Failure) -> FailureEntry {
    FailureEntry {
        kind: failure.kind.as_str(),
        stage: failure.stage.as_str(),
        retryable: failure.kind.retry() != Retry::Never,
        detail: truncate_bytes(failure.detail.as_bytes(), DETAIL_LIMIT),
    }
}

/// Seconds, rounded to milliseconds.
pub(super) fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

pub(super) fn timestamp(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}
