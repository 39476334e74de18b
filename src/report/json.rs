//! Reporters for programs: one document at the end, or one event a line.

use std::io;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::background::{Background, Output};
use super::document::{document, failure_entry, outcome_entry, seconds, timestamp};
use super::{Reporter, RunInfo, RunResult};
use crate::model::{Event, Fact};

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
        self.0.write_all(document_text(result)?.as_bytes())?;
        self.0.flush()
    }
}

/// The document of a run as text, ending with a newline.
///
/// # Errors
/// What the JSON writer answers; it writes to memory.
pub fn document_text(result: &RunResult) -> serde_json::Result<String> {
    let text = serde_json::to_string_pretty(&document(result))?;
    Ok(ascii_controls(&text) + "\n")
}

/// One event a line, and the document as the last line's `result`.
pub struct Jsonl {
    info: Arc<RunInfo>,
    output: Background,
}

impl Jsonl {
    /// Writes the lines to `output`, from a thread of its own. The first says what the run is.
    pub fn new(info: Arc<RunInfo>, output: Output) -> Self {
        let output = Background::new(output);
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
        let line = event_json(&self.info, event).to_string();
        self.output.write(ascii_controls(&line) + "\n");
    }

    fn finish(&mut self, result: &RunResult) -> io::Result<()> {
        #[derive(Serialize)]
        struct Last {
            result: super::Document,
        }
        let line = serde_json::to_string(&Last {
            result: document(result),
        })?;
        self.output.write(ascii_controls(&line) + "\n");
        self.output.finish()
    }
}

/// JSON whose strings hold no control or invisible character that a terminal would obey.
pub(super) fn ascii_controls(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut buffer = [0; 4];
    for character in text.chars() {
        let piece: &str = character.encode_utf8(&mut buffer);
        // Line ends stand only between values: within strings serde_json has escaped them.
        if character == '\n' || crate::model::text::printable(piece) == piece {
            out.push(character);
        } else {
            for unit in piece.encode_utf16() {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out
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
        Fact::WaveStarted { wave, nodes } => {
            ("wave-started", json!({ "wave": wave, "nodes": nodes }))
        }
        Fact::Preflighted { ready, failed } => {
            ("preflighted", json!({ "ready": ready, "failed": failed }))
        }
        Fact::NodeStarted { node } => ("node-started", json!({ "node": name(*node) })),
        Fact::RuntimeFound { node, runtime } => (
            "runtime-found",
            json!({ "node": name(*node), "runtime": runtime.as_str() }),
        ),
        Fact::NodeStage { node, item, stage } => (
            "node-stage",
            json!({ "node": name(*node), "image": item.and_then(image), "stage": stage.as_str() }),
        ),
        Fact::Progress {
            node,
            item,
            bytes,
            total,
        } => (
            "progress",
            json!({ "node": name(*node), "image": image(*item), "bytes": bytes, "total": total }),
        ),
        Fact::Stalled { node, item, length } => (
            "stalled",
            json!({ "node": name(*node), "image": image(*item), "seconds": seconds(*length) }),
        ),
        Fact::RegistryPaused { registry, length } => (
            "registry-paused",
            json!({ "registry": registry, "seconds": seconds(*length) }),
        ),
        Fact::AttemptFailed {
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
        Fact::Finished { node, item, record } => (
            "finished",
            json!({ "node": name(*node), "outcome": outcome_entry(&plan.work, *item, record) }),
        ),
        Fact::NodeLeft { node, done } => {
            ("node-left", json!({ "node": name(*node), "done": done }))
        }
        Fact::Stopping { reason } => ("stopping", json!({ "reason": reason.as_str() })),
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
