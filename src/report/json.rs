//! Reporters for programs: one document at the end, or one event a line.

use std::io::{self, Write};
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::document::{OutcomeEntry, document, failure_entry, outcome_entry, seconds, timestamp};
use super::writer_thread::{Output, WriterThread};
use super::{Reporter, RunInfo, RunResult};
use crate::model::{Event, EventKind, Outcome};

/// One document at the end of the run.
pub struct Json(Output);

impl Json {
    /// Writes the document to `output`.
    pub fn new(output: Output) -> Self {
        Self(output)
    }
}

impl Reporter for Json {
    fn event(&mut self, _event: &Event) {}

    fn finish(&mut self, result: &RunResult) -> io::Result<()> {
        write_document(result, &mut self.0)
    }
}

/// Writes the document of a run, ending with a newline.
///
/// # Errors
/// What writing answered, or reading back what commands printed.
pub fn write_document(result: &RunResult, out: &mut dyn Write) -> io::Result<()> {
    let mut out = Escaped::new(out);
    serde_json::to_writer_pretty(&mut out, &document(result))?;
    out.write_all(b"\n")?;
    out.flush()
}

/// One event a line, and the document as the last line's `result`.
pub struct Jsonl {
    info: Arc<RunInfo>,
    output: WriterThread,
}

impl Jsonl {
    /// Writes the lines to `output`, from a thread of its own. The first says what the run is.
    pub fn new(info: Arc<RunInfo>, output: Output) -> Self {
        let output = WriterThread::new(output);
        let line = start_json(&info).to_string();
        output.write(ascii_controls(&line) + "\n");
        Self { info, output }
    }
}

impl Reporter for Jsonl {
    fn event(&mut self, event: &Event) {
        if event.fact.may_be_lost() && self.output.is_behind() {
            return;
        }
        if let EventKind::Finished { node, item, record } = &event.fact
            && matches!(record.outcome, Outcome::Ran(_))
        {
            let plan = &self.info.plan;
            let node = plan.fleet.nodes().get(*node);
            let line = Ran {
                number: event.number,
                at_seconds: seconds(event.at),
                event: "finished",
                node: node.map(|node| node.name.clone()),
                outcome: outcome_entry(&plan.work, *item, record, usize::MAX),
            };
            self.output.write_later(move |out| write_line(&line, out));
            return;
        }
        let line = event_json(&self.info, event).to_string();
        self.output.write(ascii_controls(&line) + "\n");
    }

    fn finish(&mut self, result: &RunResult) -> io::Result<()> {
        #[derive(Serialize)]
        struct Last {
            result: super::Document,
        }
        let last = Last {
            result: document(result),
        };
        self.output.write_later(move |out| write_line(&last, out));
        self.output.finish()
    }
}

fn write_line(line: &impl Serialize, out: &mut dyn Write) -> io::Result<()> {
    let mut out = Escaped::new(out);
    serde_json::to_writer(&mut out, line)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Passes JSON on as [`ascii_controls`] makes it. What it is given at one time is whole characters, as serde_json does.
struct Escaped<'a>(io::BufWriter<&'a mut dyn Write>);

impl<'a> Escaped<'a> {
    fn new(out: &'a mut dyn Write) -> Self {
        Self(io::BufWriter::new(out))
    }
}

impl Write for Escaped<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let is_plain = |byte: &u8| (b' '..=b'~').contains(byte) || *byte == b'\n';
        if bytes.iter().all(is_plain) {
            self.0.write_all(bytes)?;
        } else {
            let text = std::str::from_utf8(bytes).map_err(io::Error::other)?;
            self.0.write_all(ascii_controls(text).as_bytes())?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// JSON whose strings hold no control or invisible character that a terminal would obey.
pub(super) fn ascii_controls(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut buffer = [0; 4];
    for character in text.chars() {
        let piece: &str = character.encode_utf8(&mut buffer);
        // Line ends stand only between values: within strings serde_json has escaped them.
        if character == '\n' || crate::model::text::escape_line(piece) == piece {
            out.push(character);
        } else {
            for unit in piece.encode_utf16() {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out
}

/// The line for a command that ran, whose output may be long.
#[derive(Serialize)]
struct Ran {
    number: u64,
    at_seconds: f64,
    event: &'static str,
    node: Option<String>,
    outcome: OutcomeEntry,
}

/// Every line's form: `docs/schema/events-1.json`.
fn start_json(info: &RunInfo) -> Value {
    let work = &info.plan.work;
    let images = (0..work.items()).filter_map(|item| work.image(item));
    json!({
        "number": 0, "at_seconds": 0.0, "event": "run-started", "schema": 1,
        "run": info.id, "command": work.command(), "started": timestamp(info.started),
        "images": images.map(ToString::to_string).collect::<Vec<_>>(),
        "nodes": info.plan.fleet.nodes().len(),
    })
}

fn event_json(info: &RunInfo, event: &Event) -> Value {
    let plan = &info.plan;
    let name = |node: usize| plan.fleet.nodes().get(node).map(|node| node.name.clone());
    let image = |item: usize| plan.work.image(item).map(ToString::to_string);
    let (word, fields) = match &event.fact {
        EventKind::WaveStarted { wave, nodes } => {
            ("wave-started", json!({ "wave": wave, "nodes": nodes }))
        }
        EventKind::Preflighted { ready, failed } => {
            ("preflighted", json!({ "ready": ready, "failed": failed }))
        }
        EventKind::NodeStarted { node } => ("node-started", json!({ "node": name(*node) })),
        EventKind::RuntimeFound { node, runtime } => (
            "runtime-found",
            json!({ "node": name(*node), "runtime": runtime.as_str() }),
        ),
        EventKind::NodeStage { node, item, stage } => (
            "node-stage",
            json!({ "node": name(*node), "image": item.and_then(image), "stage": stage.as_str() }),
        ),
        EventKind::Progress {
            node,
            item,
            bytes,
            total,
        } => (
            "progress",
            json!({ "node": name(*node), "image": image(*item), "bytes": bytes, "total": total }),
        ),
        EventKind::LeftAlone {
            node,
            item,
            visit_in,
        } => (
            "left-alone",
            json!({ "node": name(*node), "image": image(*item), "visit_in_seconds": seconds(*visit_in) }),
        ),
        EventKind::Stalled { node, item, length } => (
            "stalled",
            json!({ "node": name(*node), "image": image(*item), "seconds": seconds(*length) }),
        ),
        EventKind::RegistryPaused { registry, length } => (
            "registry-paused",
            json!({ "registry": registry, "seconds": seconds(*length) }),
        ),
        EventKind::AttemptFailed {
            node,
            item,
            attempt,
            failure,
            retry_in,
        } => (
            "attempt-failed",
            json!({
                "node": name(*node), "image": image(*item), "attempt": attempt,
                "failure": failure_entry(failure), "retry_in_seconds": seconds(*retry_in),
            }),
        ),
        EventKind::Finished { node, item, record } => (
            "finished",
            json!({ "node": name(*node), "outcome": outcome_entry(&plan.work, *item, record, usize::MAX) }),
        ),
        EventKind::NodeLeft { node, done } => {
            ("node-left", json!({ "node": name(*node), "done": done }))
        }
        EventKind::FanOut { totals } => ("fan-out", json!(totals)),
        EventKind::FanOutFallback { node, why } => (
            "fan-out-fallback",
            json!({ "node": name(*node), "reason": why }),
        ),
        EventKind::Stopping { reason } => ("stopping", json!({ "reason": reason.as_str() })),
    };
    let mut line = Map::new();
    line.insert("number".into(), event.number.into());
    line.insert("at_seconds".into(), seconds(event.at).into());
    line.insert("event".into(), word.into());
    if let Value::Object(fields) = fields {
        line.extend(fields);
    }
    Value::Object(line)
}
