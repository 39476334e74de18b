//! The fleet as tables, names, JSON and an inventory, with what a probe found out about its nodes.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::RunResult;
use super::document::{counts, failure_entry, outcome_entry};
use super::failures::failures;
use super::format::escape_truncated;
use super::styled::{Layout, Line};
use super::table::{Column, table, width};
use crate::model::node::PROXY_COMMAND;
use crate::model::{
    ClockOffset, Failure, FailureKind, Fleet, Node, NodeFacts, Outcome, Record, Work,
    text::{format_bytes, format_count},
};

/// The longest cell of a table, in characters.
const CELL: usize = 200;

pub(super) const fn column(head: &'static str, rank: u8, least: usize) -> Column {
    Column { head, rank, least }
}

/// The fleet as a table, ending with a newline; `wide` shows groups, labels and endpoints too, and cuts nothing.
pub fn fleet_table(fleet: &Fleet, wide: bool) -> String {
    let mut columns = vec![
        column("NAME", 9, 8),
        column("ADDRESS", 8, 15),
        column("PORT", 6, 4),
        column("USER", 5, 6),
        column("RUNTIME", 7, 7),
        column("JUMP", 2, 6),
    ];
    let has_facts = (fleet.nodes().iter())
        .flat_map(|node| node.facts.keys())
        .any(|fact| fact != PROXY_COMMAND);
    if has_facts {
        columns.extend([column("SYSTEM", 1, 6), column("STATE", 4, 10)]);
    }
    if wide {
        columns.extend(["ENDPOINT", "GROUPS", "LABELS"].map(|head| column(head, 1, 6)));
    }
    let row = |node: &Node| {
        let runtime = node.runtime.map_or("auto", |kind| kind.as_str());
        let mut row = vec![
            node.name.clone(),
            node.address.clone(),
            node.port.to_string(),
            node.user.clone(),
            runtime.to_string(),
            way(node),
        ];
        if has_facts {
            row.extend([system(node), state(node)]);
        }
        if wide {
            row.push(node.endpoint.clone().unwrap_or_default());
            row.extend(groups_and_labels(node));
        }
        cells(row)
    };
    let rows: Vec<Vec<String>> = fleet.nodes().iter().map(row).collect();
    table(&columns, &rows, (!wide).then(width))
}

/// What a probe found, as a table, after it what went wrong in full, and the count of good nodes last; `wide` as for
/// [`fleet_table`]. A table that is not wide has so many columns.
pub fn probed_table(result: &RunResult, wide: bool, layout: Layout, columns: usize) -> String {
    let Work::Probe(images) = &result.info.plan.work else {
        return String::new();
    };
    let mut shown = vec![
        column("NAME", 9, 8),
        column("SYSTEM", 5, 8),
        column("RUNTIME", 3, 12),
        column("CLIENT", 2, 8),
        column("FREE", 8, 8),
        column("CLOCK", 7, 8),
    ];
    if !images.is_empty() {
        shown.push(column("IMAGES", 8, 6));
    }
    shown.extend([column("STATE", 4, 12), column("ENDPOINT", 2, 8)]);
    if wide {
        shown.extend(["ADDRESS", "OS", "ROOT", "GROUPS", "LABELS"].map(|head| column(head, 1, 8)));
    }
    let row = |(node, outcome): (&Node, &Outcome)| {
        let facts = match outcome {
            Outcome::Probed(facts) => Some(facts),
            _ => None,
        };
        let of = |tell: &dyn Fn(&NodeFacts) -> String| {
            facts.map(|facts| tell(facts)).unwrap_or_default()
        };
        let mut row = vec![
            node.name.clone(),
            of(&|facts| format!("{}/{}", facts.os, facts.architecture)),
            of(&|facts| facts.runtime.clone()),
            of(&|facts| facts.client.clone()),
            of(&|facts| facts.free.map(format_bytes).unwrap_or_default()),
            of(&|facts| clock(facts.clock)),
        ];
        if !images.is_empty() {
            row.push(of(&|facts| format!("{}/{}", facts.present(), images.len())));
        }
        row.push(match outcome {
            // What was said comes below the table: here it would take the room of the version.
            Outcome::Failed(failure) => format!("{} ({})", failure.kind, failure.stage),
            Outcome::NotRun(reason) => format!("not run: {reason}"),
            Outcome::Probed(facts) if !facts.obstacles.is_empty() => {
                let words: Vec<&str> = facts.obstacles.iter().map(in_the_way).collect();
                words.join(", ")
            }
            _ => "ok".into(),
        });
        row.push(of(&|facts| facts.endpoint.clone().unwrap_or_default()));
        if wide {
            row.push(node.address.clone());
            row.push(of(&|facts| facts.system.clone()));
            row.push(of(&|facts| facts.root.clone()));
            row.extend(groups_and_labels(node));
        }
        cells(row)
    };
    let rows: Vec<Vec<String>> = outcomes(result)
        .map(|(node, record)| row((node, &record.outcome)))
        .collect();
    let mut out = table(&shown, &rows, (!wide).then_some(columns));
    let failures = failures(result);
    if !failures.is_empty() {
        out.push('\n');
    }
    for line in failures
        .into_iter()
        .chain([Line::default(), verdict(result)])
    {
        out += &line.render(layout);
    }
    out
}

/// What stands in the way of the images, in a few words: the whole sentence comes below the table.
pub(super) fn in_the_way(obstacle: &Failure) -> &'static str {
    match obstacle.kind {
        FailureKind::DiskFull => "no room",
        FailureKind::RegistryUnresolved => "cannot resolve registry",
        FailureKind::RegistryUnavailable => "cannot reach registry",
        FailureKind::TlsTrust => "does not trust registry",
        FailureKind::Platform => "no image for its platform",
        FailureKind::NodeSetup => "wrong clock",
        other => other.as_str(),
    }
}

/// "9 of 12 nodes ok, 3 failed".
fn verdict(result: &RunResult) -> Line {
    let counts = counts(result);
    let nodes = format_count(counts.nodes, "node");
    let mut text = format!("{} of {nodes} ok", counts.ok);
    for (number, what) in [(counts.failed, "failed"), (counts.not_run, "not run")] {
        if number > 0 {
            // Writing to a String cannot fail.
            let _ = write!(text, ", {number} {what}");
        }
    }
    Line::new(0).verdict(counts.ok == counts.nodes, text)
}

/// Every node with its one outcome.
fn outcomes(result: &RunResult) -> impl Iterator<Item = (&Node, &Record)> {
    let nodes = result.info.plan.fleet.nodes().iter();
    nodes
        .zip(&result.nodes)
        .filter_map(|(node, record)| Some((node, record.items.first()?)))
}

/// "+12ms ±3ms", and long times in seconds.
fn clock(offset: ClockOffset) -> String {
    let ClockOffset {
        milliseconds,
        uncertainty,
    } = offset;
    if milliseconds.unsigned_abs() < 10_000 {
        format!("{milliseconds:+}ms ±{uncertainty}ms")
    } else {
        let seconds = milliseconds / 1000;
        format!("{seconds:+}s ±{uncertainty}ms")
    }
}

/// A row as it may be shown.
fn cells(row: Vec<String>) -> Vec<String> {
    let shown = |text: String| match text.as_str() {
        "" => "-".to_string(),
        text => escape_truncated(text, CELL).into_owned(),
    };
    row.into_iter().map(shown).collect()
}

fn hops(node: &Node) -> Vec<String> {
    node.jump.iter().map(ToString::to_string).collect()
}

/// The way to it in one cell.
fn way(node: &Node) -> String {
    let command = node
        .proxy_command()
        .map(|command| format!("(command) {command}"));
    let legs: Vec<String> = command.into_iter().chain(hops(node)).collect();
    legs.join(",")
}

fn groups_and_labels(node: &Node) -> [String; 2] {
    let labels = node.labels.iter();
    let labels: Vec<String> = labels
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    [node.groups.join(","), labels.join(",")]
}

/// The names, one a line.
pub fn fleet_names(fleet: &Fleet) -> String {
    let nodes = fleet.nodes().iter();
    nodes
        .map(|node| format!("{}\n", escape_truncated(&node.name, 500)))
        .collect()
}

/// The fleet as an inventory in prepull's own YAML, with everything resolved. Each scalar is written as in JSON, which
/// YAML reads alike.
pub fn fleet_yaml(fleet: &Fleet) -> String {
    yaml(fleet.nodes().iter().map(|node| (node, says(node), None)))
}

/// [`fleet_yaml`] with the runtime that a probe found, and the rest of what it found as a comment.
pub fn probed_yaml(result: &RunResult) -> String {
    let kinds = result.nodes.iter().map(|record| record.runtime);
    let nodes = outcomes(result).zip(kinds).map(|((node, record), kind)| {
        let mut says = says(node);
        if let Some(kind) = kind {
            says["runtime"] = kind.as_str().into();
        }
        let found = probe_json(&result.info.plan.work, record);
        (node, says, Some(found))
    });
    yaml(nodes)
}

fn yaml<'a>(nodes: impl Iterator<Item = (&'a Node, Value, Option<Value>)>) -> String {
    let mut out = String::from("nodes:\n");
    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (node, says, found) in nodes {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "  - {says}");
        if let Some(command) = node.proxy_command() {
            let _ = writeln!(
                out,
                "    # not said here: the ProxyCommand that leads to it, {}",
                json!(command)
            );
        }
        if let Some(found) = found {
            let _ = writeln!(out, "    # {found}");
        }
        for group in &node.groups {
            groups.entry(group).or_default().push(&node.name);
        }
    }
    if !groups.is_empty() {
        out.push_str("groups:\n");
    }
    for (name, nodes) in groups {
        let _ = writeln!(out, "  {}: {}", json!(name), json!({ "nodes": nodes }));
    }
    out
}

/// A node as an inventory says it.
fn says(node: &Node) -> Value {
    let mut says = json!({ "name": node.name, "port": node.port, "user": node.user });
    if !node.address.is_empty() {
        says["address"] = node.address.as_str().into();
    }
    if !node.identities.is_empty() {
        let paths = node.identities.iter().map(|path| path.to_string_lossy());
        says["identity"] = paths.collect::<Vec<_>>().into();
    }
    if !node.jump.is_empty() {
        says["jump"] = hops(node).into();
    }
    if let Some(runtime) = node.runtime {
        says["runtime"] = runtime.as_str().into();
    }
    if let Some(endpoint) = &node.endpoint {
        says["runtime_endpoint"] = endpoint.as_str().into();
    }
    if node.become_root {
        says["become"] = true.into();
    }
    if !node.labels.is_empty() {
        says["labels"] = json!(node.labels);
    }
    says
}

/// "linux/amd64", where the node's source knows.
fn system(node: &Node) -> String {
    let known = ["operating-system", "architecture"].map(|fact| node.facts.get(fact));
    let known: Vec<&str> = known.into_iter().flatten().map(String::as_str).collect();
    known.join("/")
}

/// Whether it is ready and takes pods, and its taints, where its source knows.
fn state(node: &Node) -> String {
    let is = |fact: &str, value: &str| node.facts.get(fact).is_some_and(|said| said == value);
    let words = [
        is("ready", "true").then_some("Ready"),
        is("ready", "false").then_some("NotReady"),
        is("cordoned", "true").then_some("cordoned"),
        node.facts.get("taints").map(String::as_str),
    ];
    let words: Vec<&str> = words.into_iter().flatten().collect();
    words.join(",")
}

/// The fleet as `prepull nodes -o json` prints it.
pub fn fleet_json(fleet: &Fleet) -> Value {
    let nodes: Vec<Value> = fleet.nodes().iter().map(node_json).collect();
    json!({ "schema": 1, "nodes": nodes })
}

/// [`fleet_json`] with what a probe found beside each node.
pub fn probed_json(result: &RunResult) -> Value {
    let nodes = outcomes(result).map(|(node, record)| {
        let mut found = node_json(node);
        found["probe"] = probe_json(&result.info.plan.work, record);
        found
    });
    json!({ "schema": 1, "nodes": nodes.collect::<Vec<_>>() })
}

fn node_json(node: &Node) -> Value {
    let identities = node.identities.iter().map(|path| path.to_string_lossy());
    json!({
        "name": node.name, "address": node.address, "port": node.port, "user": node.user,
        "identities": identities.collect::<Vec<_>>(), "jump": hops(node), "proxy_command": node.proxy_command(),
        "runtime": node.runtime.map(|kind| kind.as_str()),
        "labels": node.labels, "groups": node.groups, "facts": node.facts,
    })
}

/// The socket's path, where an endpoint names one.
fn socket(endpoint: &str) -> Option<&str> {
    let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
    let (path, _namespace) = path.split_once('?').unwrap_or((path, ""));
    path.starts_with('/').then_some(path)
}

/// What was found, or why nothing was.
fn probe_json(work: &Work, record: &Record) -> Value {
    let entry = outcome_entry(work, 0, record, usize::MAX);
    let (Outcome::Probed(facts), Work::Probe(images)) = (&record.outcome, work) else {
        return json!({ "status": entry.status, "failure": entry.failure });
    };
    let held = images.iter().zip(&facts.images).map(|(one, held)| {
        json!({
            "image": one.image.to_string(), "present": held.is_some(),
            "digest": held.as_ref().and_then(|held| held.digest.as_deref()),
        })
    });
    let obstacles: Vec<_> = facts.obstacles.iter().map(failure_entry).collect();
    json!({
        "status": entry.status, "obstacles": obstacles,
        "os": facts.os, "architecture": facts.architecture, "system": facts.system,
        "runtime": facts.runtime, "client": facts.client, "endpoint": facts.endpoint,
        "socket": facts.endpoint.as_deref().and_then(socket),
        "root": facts.root, "free_bytes": facts.free,
        "clock": {
            "offset_milliseconds": facts.clock.milliseconds,
            "uncertainty_milliseconds": facts.clock.uncertainty,
        },
        "present": facts.present(), "images": held.collect::<Vec<_>>(),
    })
}
