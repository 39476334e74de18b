//! What is not as it was wanted, for people: a paragraph for each kind, the nodes before the cause, once with the
//! advice.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::RunResult;
use super::format::escape_truncated;
use super::groups::{Group, groups};
use super::styled::Line;
use crate::model::fold;
use crate::model::text::format_count;

/// How many characters the names of a group may take before "and N more".
const NAMES: usize = 400;
/// How many groups of failures are listed.
const GROUPS: usize = 20;
/// How many host keys of one group are listed.
const HOST_KEYS: usize = 200;

/// The paragraphs, with an empty line between two of them.
pub(super) fn failures(result: &RunResult) -> Vec<Line> {
    let groups = groups(result);
    let (listed, hidden) = groups.split_at(groups.len().min(GROUPS));
    let mut out = Vec::new();
    let is_same = |one: &Group, other: &Group| {
        one.kind_word().is_some()
            && (one.kind_word(), one.advice()) == (other.kind_word(), other.advice())
    };
    for paragraph in listed.chunk_by(is_same) {
        if !out.is_empty() {
            out.push(Line::default());
        }
        match paragraph {
            [one] => alone(&mut out, result, one),
            several => together(&mut out, result, several),
        }
        if let Some(advice) = paragraph[0].advice() {
            out.push(Line::new(2).text(format!("What next: {advice}")));
        }
    }
    if !hidden.is_empty() {
        let nodes = hidden.iter().map(|group| group.nodes.len()).sum();
        out.push(Line::new(0).text(format!(
            "and {} on {}; `prepull runs show {} -o json` has all of them",
            format_count(hidden.len(), "further cause"),
            format_count(nodes, "node"),
            result.info.id
        )));
    }
    out
}

/// "registry-auth (pull) on 2 nodes: node-1, node-3", then the cause.
fn alone(out: &mut Vec<Line>, result: &RunResult, group: &Group) {
    let count = format_count(group.nodes.len(), "node");
    let line = match group.kind_word() {
        Some(kind) => Line::new(0).kind(kind).text(format!(" ({})", group.about)),
        None => Line::new(0).kind(group.what.as_str()),
    };
    members(out, line.text(format!(" on {count}")), result, group, 2);
}

/// "registry-auth on 4 nodes", then each cause with its nodes before it.
fn together(out: &mut Vec<Line>, result: &RunResult, groups: &[Group]) {
    let nodes: BTreeSet<usize> = groups
        .iter()
        .flat_map(|group| group.nodes.clone())
        .collect();
    let count = format_count(nodes.len(), "node");
    let kind = groups[0].kind_word().unwrap_or_default();
    out.push(Line::new(0).kind(kind).text(format!(" on {count}")));
    for group in groups {
        let count = format_count(group.nodes.len(), "node");
        let line = Line::new(2).text(format!("({}) on {count}", group.about));
        members(out, line, result, group, 4);
    }
}

/// The names of a group at the end of its line, or its host keys, and the cause in lines of their own.
fn members(out: &mut Vec<Line>, line: Line, result: &RunResult, group: &Group, indent: usize) {
    let nodes: Vec<&str> = (group.nodes.iter().map(|node| node_name(result, *node))).collect();
    out.push(match group.fingerprints.is_empty() {
        true => line.text(": ").nodes(names(&nodes)),
        false => line,
    });
    if !group.example.is_empty() {
        out.push(Line::new(indent).text(group.example.as_str()));
    }
    host_keys(out, result, &group.fingerprints, indent);
}

pub(super) fn node_name(result: &RunResult, node: usize) -> &str {
    let node = result.info.plan.fleet.nodes().get(node);
    node.map_or("?", |node| &node.name)
}

/// "node-[1-3,7], gateway and 40 more".
pub(super) fn names(nodes: &[&str]) -> String {
    let mut out = String::new();
    let mut left = nodes.len();
    for (expression, names) in fold(nodes) {
        // Writing to a String cannot fail, here and below.
        if !out.is_empty() && out.len() + expression.len() > NAMES {
            let _ = write!(out, " and {left} more");
            break;
        }
        let comma = if out.is_empty() { "" } else { ", " };
        let _ = write!(out, "{comma}{}", escape_truncated(&expression, NAMES));
        left = left.saturating_sub(names);
    }
    out
}

/// A line for each host key that is to be compared: "  node-1  SHA256:...", and the known one where it has changed.
fn host_keys(
    out: &mut Vec<Line>,
    result: &RunResult,
    fingerprints: &[(usize, Vec<String>)],
    indent: usize,
) {
    let listed = &fingerprints[..fingerprints.len().min(HOST_KEYS)];
    for (node, found) in listed {
        let mut line = Line::new(indent).nodes(escape_truncated(node_name(result, *node), NAMES));
        for (place, fingerprint) in found.iter().enumerate() {
            let known = if place == 0 { "" } else { "known: " };
            line = line.text(format!("  {known}{fingerprint}"));
        }
        out.push(line);
    }
    if fingerprints.len() > listed.len() {
        let more = fingerprints.len() - listed.len();
        out.push(Line::new(indent).text(format!("and {more} more")));
    }
}
