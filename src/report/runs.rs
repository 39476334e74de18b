//! The runs that were recorded, as a table and as JSON.

use std::fmt::Write as _;
use std::time::SystemTime;

use serde::Serialize;

use super::RunResult;
use super::document::{counts, timestamp};
use super::format::escape_truncated;
use crate::model::{Counts, Work};

/// How many characters of images or a command a line of the table has.
const ABOUT: usize = 80;

/// One recorded run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunEntry {
    run: String,
    command: &'static str,
    #[serde(serialize_with = "as_text")]
    started: SystemTime,
    state: &'static str,
    /// What it was about, for people: its images, or its command.
    #[serde(skip)]
    about: String,
    images: Vec<String>,
    summary: Counts,
}

fn as_text<S: serde::Serializer>(time: &SystemTime, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(&timestamp(*time))
}

impl RunEntry {
    /// `state` is one word: running, ended or cut-short.
    pub fn new(result: &RunResult, state: &'static str) -> Self {
        let work = &result.info.plan.work;
        let images = (0..work.items()).filter_map(|item| work.image(item));
        let images: Vec<String> = images.map(ToString::to_string).collect();
        let about = match (work, result.info.words.as_slice()) {
            // Not the script that it runs on nodes.
            (Work::Exec(_), [_, keep, words @ ..]) if keep == "keep" => {
                format!("keep {}", words.join(" "))
            }
            (Work::Exec(command), _) => command.join(" "),
            (Work::Pull(_) | Work::Check(_) | Work::Probe(_), _) => images.join(" "),
        };
        Self {
            run: result.info.id.clone(),
            command: work.command(),
            about,
            images,
            started: result.info.started,
            state,
            summary: counts(result),
        }
    }

    /// The same, as a run that ended counted itself.
    pub fn with(self, summary: Counts) -> Self {
        Self { summary, ..self }
    }
}

/// The runs as a table, ending with a newline.
pub fn runs_table(runs: &[RunEntry]) -> String {
    let mut rows = vec![
        [
            "RUN", "COMMAND", "STATE", "NODES", "OK", "ABSENT", "FAILED", "OPEN", "IMAGES",
        ]
        .map(String::from),
    ];
    for entry in runs {
        let counts = &entry.summary;
        rows.push([
            escape_truncated(&entry.run, 100).into_owned(),
            entry.command.into(),
            entry.state.into(),
            counts.nodes.to_string(),
            counts.ok.to_string(),
            counts
                .absent
                .map_or("-".into(), |absent| absent.to_string()),
            counts.failed.to_string(),
            counts.not_run.to_string(),
            escape_truncated(&entry.about, ABOUT).into_owned(),
        ]);
    }
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: [usize; 9] = std::array::from_fn(width);
    let mut out = String::new();
    for row in &rows {
        let cells: Vec<_> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{}", cells.join("  ").trim_end());
    }
    out
}
