//! What is not as it should be, grouped by cause: a thousand nodes with one trouble are one thing to read.

use std::collections::BTreeMap;

use super::RunResult;
use super::lines::shown;
use crate::model::{ExitStatus, FailureKind, Outcome, Stage, Work};

/// How much of a node's words tells one group from another, in characters.
const COMPARED: usize = 300;

/// Nodes with one cause.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Group<'a> {
    /// The cause in short, e.g. `registry-auth (pull)`, `missing: IMAGE`.
    pub(super) what: String,
    /// The words of most of the nodes; empty where the cause says it all.
    pub(super) example: &'a str,
    /// The sort of the failure, if it is one.
    pub(super) kind: Option<FailureKind>,
    /// The nodes by number, each once.
    pub(super) nodes: Vec<usize>,
}

/// The groups: failures first, those of one kind together.
pub(super) fn groups(result: &RunResult) -> Vec<Group<'_>> {
    type Cause = (&'static str, Stage, String, String);
    let mut failed: BTreeMap<Cause, (Group<'_>, BTreeMap<&str, usize>)> = BTreeMap::new();
    let mut others: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let plan = &result.info.plan;
    for (index, (node, record)) in plan.fleet.nodes().iter().zip(&result.nodes).enumerate() {
        for (item, record) in record.items.iter().enumerate() {
            let other = match &record.outcome {
                Outcome::Failed(failure) => {
                    let first = failure.detail.trim().lines().next().unwrap_or("");
                    let words = normalised(first, &[&node.name, &node.address]);
                    let image = image_of(&plan.work, item, failure.stage);
                    let (kind, stage) = (failure.kind, failure.stage);
                    let what = format!("{kind} ({stage}{image})");
                    let (group, examples) = failed
                        .entry((kind.as_str(), stage, image, words))
                        .or_insert_with(|| {
                            let group = Group {
                                what,
                                example: "",
                                kind: Some(kind),
                                nodes: vec![],
                            };
                            (group, BTreeMap::new())
                        });
                    add(&mut group.nodes, index);
                    *examples.entry(first).or_insert(0) += 1;
                    continue;
                }
                Outcome::NotRun(reason) => format!("not run: {reason}"),
                Outcome::Missing => {
                    let image = plan.work.image(item).map(ToString::to_string);
                    format!("missing: {}", image.unwrap_or_default())
                }
                Outcome::Ran(output) if !output.success() => match &output.exit {
                    ExitStatus::Code(code) => format!("exit status {code}"),
                    ExitStatus::Signal(name) => format!("ended by signal {}", shown(name, 20)),
                },
                Outcome::Ran(_) | Outcome::Pulled(_) | Outcome::Present(_) | Outcome::Probed(_) => {
                    continue;
                }
            };
            add(others.entry(other).or_default(), index);
        }
    }
    let failed = failed.into_values().map(|(group, examples)| {
        let commonest = examples.into_iter().max_by_key(|(_, times)| *times);
        Group {
            example: commonest.map_or("", |(words, _)| words),
            ..group
        }
    });
    let others = others.into_iter().map(|(what, nodes)| Group {
        what,
        example: "",
        kind: None,
        nodes,
    });
    failed.chain(others).collect()
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
fn add(nodes: &mut Vec<usize>, node: usize) {
    if nodes.last() != Some(&node) {
        nodes.push(node);
    }
}

/// What is the same in equal failures of different nodes: names and addresses gone, and of the rest
/// every word with a digit (ports, times, request identities), but not a status from 400 to 599.
fn normalised(detail: &str, own: &[&str]) -> String {
    let mut text: String = detail.chars().take(COMPARED).collect();
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
