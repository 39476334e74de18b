//! The end of a run for a person: is the fleet ready, what failed where and why, what next.

use std::fmt::Write as _;

use super::RunResult;
use super::document::{counts, digests_of, disagreements};
use super::groups::{Group, groups};
use super::lines::{in_seconds, shown, telling};
use crate::model::{FailureKind, Outcome, Work, text::count};

/// How many node names a group lists before "and N more".
const NAMES: usize = 10;
/// The longest example of a group, in characters.
const EXAMPLE: usize = 300;

/// The summary as plain text, ending with a newline.
pub fn summary(result: &RunResult) -> String {
    let plan = &result.info.plan;
    let counts = counts(result);
    let differing = disagreements(result);
    let ready = counts.ok == counts.nodes && differing.is_empty();
    let mut out = String::new();
    exec_output(&mut out, result);
    // Writing to a String cannot fail, here and below.
    let _ = writeln!(
        out,
        "{}: {} of {} ok, {} failed, {} not run, in {}",
        if ready { "READY" } else { "NOT READY" },
        counts.ok,
        count(counts.nodes, "node"),
        counts.failed,
        counts.not_run,
        in_seconds(
            result
                .finished
                .duration_since(result.info.started)
                .unwrap_or_default()
        ),
    );
    for item in 0..plan.work.items() {
        let Some(image) = plan.work.image(item) else {
            continue;
        };
        let _ = writeln!(out, "{image}");
        let digests = digests_of(result, item);
        let most = digests.values().map(Vec::len).max().unwrap_or_default();
        for (digest, nodes) in &digests {
            let _ = write!(
                out,
                "  {} on {}",
                shown(digest, 80),
                count(nodes.len(), "node")
            );
            // Who differs from the others.
            if nodes.len() < most {
                let _ = write!(out, ": {}", names(nodes));
            }
            out.push('\n');
        }
    }
    for differing in &differing {
        let _ = writeln!(
            out,
            "DIFFERENT DIGESTS of {}: the nodes do not hold the same image.",
            differing.image
        );
    }
    failures(&mut out, result);
    if !ready && let Some(command) = &result.info.resume {
        let _ = writeln!(out, "To go on with what is open, and only that: {command}");
    }
    out
}

pub(super) fn failures(out: &mut String, result: &RunResult) {
    let nodes = result.info.plan.fleet.nodes();
    let word = |group: &Group<'_>| group.kind.map(FailureKind::as_str);
    let mut groups = groups(result).into_iter().peekable();
    while let Some(group) = groups.next() {
        let _ = write!(
            out,
            "{} on {}",
            group.what,
            count(group.nodes.len(), "node")
        );
        if group.kind.is_some() {
            let _ = write!(out, ": {}", telling(group.example, EXAMPLE));
        }
        let there: Vec<&str> = group
            .nodes
            .iter()
            .map(|node| nodes[*node].name.as_str())
            .collect();
        let _ = writeln!(out, "\n  {}", names(&there));
        if let Some(kind) = group.kind
            && groups.peek().and_then(word) != Some(kind.as_str())
        {
            let _ = writeln!(out, "  What next: {}", kind.advice());
        }
    }
}

fn names(nodes: &[&str]) -> String {
    let listed: Vec<_> = nodes
        .iter()
        .take(NAMES)
        .map(|name| shown(name, 100))
        .collect();
    let more = nodes.len().saturating_sub(NAMES);
    let rest = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    listed.join(", ") + &rest
}

fn exec_output(out: &mut String, result: &RunResult) {
    let plan = &result.info.plan;
    if !matches!(plan.work, Work::Exec(_)) {
        return;
    }
    for (node, record) in plan.fleet.nodes().iter().zip(&result.nodes) {
        for record in &record.items {
            if let Outcome::Ran(output) = &record.outcome {
                for (mark, bytes) in [("|", &output.stdout), ("stderr|", &output.stderr)] {
                    for line in String::from_utf8_lossy(bytes).lines() {
                        let line = crate::model::text::printable(line);
                        let _ = writeln!(out, "{} {mark} {line}", shown(&node.name, 100));
                    }
                }
                if output.truncated {
                    let _ = writeln!(out, "{} [output cut]", shown(&node.name, 100));
                }
            }
        }
    }
}
