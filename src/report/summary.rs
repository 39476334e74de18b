//! The end of a run for a person: is the fleet ready, what failed where and why, what next.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::RunResult;
use super::document::{counts, digests_of, disagreements};
use super::lines::{in_seconds, shown, telling};
use crate::model::{ExitStatus, FailureKind, Outcome, Stage, Work, text::count};

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

struct Group<'a> {
    nodes: Vec<&'a str>,
    examples: BTreeMap<&'a str, usize>,
}

fn failures(out: &mut String, result: &RunResult) {
    let mut failed: BTreeMap<(&str, Stage, String, String), (FailureKind, Group<'_>)> =
        BTreeMap::new();
    let mut others: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let plan = &result.info.plan;
    for (node, record) in plan.fleet.nodes().iter().zip(&result.nodes) {
        for (item, record) in record.items.iter().enumerate() {
            match &record.outcome {
                Outcome::Failed(failure) => {
                    let first = failure.detail.trim().lines().next().unwrap_or("");
                    let key = normalised(first, &[&node.name, &node.address]);
                    let image = image_of(&plan.work, item, failure.stage);
                    let (_, group) = failed
                        .entry((failure.kind.as_str(), failure.stage, image, key))
                        .or_insert_with(|| {
                            (
                                failure.kind,
                                Group {
                                    nodes: vec![],
                                    examples: BTreeMap::new(),
                                },
                            )
                        });
                    add(&mut group.nodes, &node.name);
                    *group.examples.entry(first).or_insert(0) += 1;
                }
                Outcome::NotRun(reason) => {
                    add(
                        others.entry(format!("not run: {reason}")).or_default(),
                        &node.name,
                    );
                }
                Outcome::Missing => {
                    let image = plan
                        .work
                        .image(item)
                        .map(ToString::to_string)
                        .unwrap_or_default();
                    add(
                        others.entry(format!("missing: {image}")).or_default(),
                        &node.name,
                    );
                }
                Outcome::Ran(output) if !output.success() => {
                    let how = match &output.exit {
                        ExitStatus::Code(code) => format!("exit status {code}"),
                        ExitStatus::Signal(name) => format!("ended by signal {}", shown(name, 20)),
                    };
                    add(others.entry(how).or_default(), &node.name);
                }
                _ => {}
            }
        }
    }
    let mut groups = failed.into_iter().peekable();
    while let Some(((kind, stage, image, _), (sort, group))) = groups.next() {
        let example = group.examples.iter().max_by_key(|(_, times)| **times);
        let _ = writeln!(
            out,
            "{kind} ({stage}{image}) on {}: {}",
            count(group.nodes.len(), "node"),
            telling(example.map_or("", |(text, _)| text), EXAMPLE),
        );
        let _ = writeln!(out, "  {}", names(&group.nodes));
        if groups.peek().is_none_or(|((next, ..), _)| *next != kind) {
            let _ = writeln!(out, "  What next: {}", sort.advice());
        }
    }
    for (what, nodes) in others {
        let _ = writeln!(
            out,
            "{what} on {}\n  {}",
            count(nodes.len(), "node"),
            names(&nodes)
        );
    }
}

/// The image that a failure is about, where the run has several: what goes wrong before is the same for all of them.
fn image_of(work: &Work, item: usize, stage: Stage) -> String {
    let is_about = matches!(stage, Stage::Inspect | Stage::Pull | Stage::Verify);
    match work.image(item) {
        Some(image) if is_about && work.items() > 1 => format!(" {image}"),
        _ => String::new(),
    }
}

/// Each node once: its items stand together.
fn add<'a>(nodes: &mut Vec<&'a str>, name: &'a str) {
    if nodes.last() != Some(&name) {
        nodes.push(name);
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

/// What is the same in equal failures of different nodes: names and addresses gone, and of the rest
/// every word with a digit (ports, times, request identities), but not a status from 400 to 599.
fn normalised(detail: &str, own: &[&str]) -> String {
    let mut text: String = detail.chars().take(EXAMPLE).collect();
    for name in own.iter().filter(|name| !name.is_empty()) {
        text = text.replace(name, "NODE");
    }
    let mut before = ' ';
    text.split_inclusive(|c: char| !c.is_alphanumeric())
        .map(|word| {
            let bare = word.trim_end_matches(|c: char| !c.is_alphanumeric());
            // After a colon or a dot it is a port or a part of an address.
            let status = !matches!(before, ':' | '.')
                && bare.parse::<u16>().is_ok_and(|n| (400..600).contains(&n));
            before = word.chars().next_back().unwrap_or(' ');
            if !status && bare.contains(|c: char| c.is_ascii_digit()) {
                word.replacen(bare, "#", 1)
            } else {
                word.to_string()
            }
        })
        .collect()
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
