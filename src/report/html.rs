//! One page that needs nothing else: its style and its script are in it, and what nodes said is in it as data.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::RunResult;
use super::document::{document_within, node_status, took};
use super::groups::groups;
use super::timeline::{Timeline, milliseconds};
use crate::model::text::{escape_multiline, truncate_bytes};

const PAGE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// The longest text in the page, in bytes: it has to open in a browser with thousands of them.
const TEXT: usize = 2000;

/// The page, as text.
///
/// # Errors
/// What the JSON writer answers; it writes to memory.
pub(super) fn page(result: &RunResult, timeline: Timeline) -> serde_json::Result<String> {
    let passed = took(result).max(Duration::from_millis(1));
    let nodes = result.nodes.iter().zip(timeline.end(passed));
    let nodes: Vec<Value> = nodes
        .map(|(record, course)| {
            json!({"standing": node_status(record), "spans": course.spans, "failures": course.failures})
        })
        .collect();
    let groups: Vec<Value> = groups(result)
        .into_iter()
        .map(|group| {
            json!({
                "what": group.what, "example": group.example, "nodes": group.nodes,
                "advice": group.advice(),
            })
        })
        .collect();
    let mut data = json!({
        "document": document_within(result, 2 * TEXT), "nodes": nodes, "groups": groups, "total": milliseconds(passed),
        "resume": result.info.resume, "version": env!("CARGO_PKG_VERSION"),
    });
    tame(&mut data);
    // Nothing in the data can end the element that it stands in.
    let data = serde_json::to_string(&data)?.replace('<', "\\u003c");
    let policy = format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; img-src data:; base-uri 'none'; form-action 'none'",
        hash(SCRIPT),
        hash(STYLE)
    );
    // The data comes last: what stands in it is not looked at again.
    let parts = [
        ("{{policy}}", policy.as_str()),
        ("{{style}}", STYLE),
        ("{{script}}", SCRIPT),
        ("{{data}}", &data),
    ];
    let page = parts
        .into_iter()
        .fold(PAGE.to_string(), |page, (mark, text)| {
            page.replacen(mark, text, 1)
        });
    Ok(page)
}

/// Takes from every text what a browser would obey or hide, and what is beyond measure.
fn tame(value: &mut Value) {
    match value {
        Value::String(text) => *text = escape_multiline(&truncate_bytes(text.as_bytes(), TEXT)),
        Value::Array(values) => values.iter_mut().for_each(tame),
        Value::Object(fields) => fields.values_mut().for_each(tame),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// By which a browser knows the one script, and the one style, that may be used.
fn hash(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text)))
}
