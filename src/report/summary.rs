//! The end of a run for a person: is the fleet ready, what failed where and why, what next.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use super::RunResult;
use super::document::{
    arrived, counts, digests_agree, digests_of, disagreements, is_unseen, took, unseen,
};
use super::failures::{failures, names, node_name};
use super::forecast::comparison;
use super::format::{escape_truncated, source};
use super::gone::gone;
use super::kept::{kept, overdue};
use super::next::next_commands;
use super::styled::{Layout, Line};
use crate::model::text::{escape_line, format_bytes, format_count, format_duration};
use crate::model::{
    ExecOutput, Failure, FailureKind, Kept, LocalImage, NodeRecord, Outcome, Record, Stage, Tries,
    Via, Work,
};

/// How many of the slowest nodes are named.
const SLOWEST: usize = 3;
/// How much of a note is shown, in characters.
const NOTE: usize = 300;
/// How many bytes of a line are escaped at one time.
const PIECE: usize = 4096;

/// Writes the summary: what commands printed piece by piece, as it may be more than memory should hold, then the rest.
///
/// On a terminal the verdict comes last, where the prompt is; in a file or a pipe it comes first.
///
/// # Errors
/// What writing answered, or reading back what was printed.
pub fn write_summary(
    result: &RunResult,
    out: &mut dyn io::Write,
    layout: Layout,
) -> io::Result<()> {
    exec_output(out, result)?;
    let verdict = verdict(result);
    let mut lines = body(result);
    let place = if layout.width.is_some() {
        lines.len()
    } else {
        0
    };
    lines.insert(place, verdict);
    lines
        .iter()
        .try_for_each(|line| out.write_all(line.render(layout).as_bytes()))
}

/// All but the verdict and what commands printed.
fn body(result: &RunResult) -> Vec<Line> {
    let mut out: Vec<Line> = cancelled(result).into_iter().collect();
    out.extend(digests(result));
    for differing in disagreements(result) {
        let line = Line::new(0).kind("DIFFERENT DIGESTS").text(format!(
            " of {}: the nodes do not hold the same image.",
            differing.image
        ));
        out.push(line);
    }
    let failures = failures(result);
    let mut rest = gone(result);
    rest.extend(deliveries(result));
    rest.extend(kept(result));
    rest.extend(registries(result));
    rest.extend(pace(result));
    rest.extend(comparison(result));
    rest.extend(overdue(result));
    rest.extend(next_commands(result));
    if !failures.is_empty() {
        out.push(Line::default());
        out.extend(failures);
        if !rest.is_empty() {
            out.push(Line::default());
        }
    }
    out.extend(rest);
    out
}

/// "NOT READY: 10 of 12 nodes ok, 1 failed, 1 not run, in 2m 31s; stopped early: interrupted".
fn verdict(result: &RunResult) -> Line {
    let counts = counts(result);
    let is_agreed = digests_agree(result);
    let is_ready = counts.ok == counts.nodes && is_agreed;
    let is_exec = matches!(result.info.plan.work, Work::Exec(_));
    let word = match (is_ready, is_exec) {
        (true, false) => "READY",
        (false, false) => "NOT READY",
        (true, true) => "DONE",
        (false, true) => "NOT DONE",
    };
    let nodes = format_count(counts.nodes, "node");
    let mut out = format!("{word}: {} of {nodes} ok", counts.ok);
    // Writing to a String cannot fail, here and below.
    let without = match result.info.plan.work.items() {
        1 => "without the image",
        _ => "without all of the images",
    };
    for (number, what) in [
        (counts.absent.unwrap_or(0), without),
        (counts.failed, "failed"),
        (counts.not_run, "not run"),
    ] {
        if number > 0 {
            let _ = write!(out, ", {number} {what}");
        }
    }
    if !is_agreed {
        out.push_str(", with different digests");
    }
    let _ = write!(out, ", in {}", format_duration(took(result)));
    if let Some(reason) = result.stopped {
        let _ = write!(out, "; stopped early: {reason}");
    }
    Line::new(0).verdict(is_ready, out)
}

/// Where a pull goes on because its node could not be told to end it.
fn cancelled(result: &RunResult) -> Option<Line> {
    let plan = &result.info.plan;
    if !plan.work.is_detached() || result.stopped.is_none() {
        return None;
    }
    let not_run = |record: &&Record| matches!(record.outcome, Outcome::NotRun(_));
    let was_cancelled = |record: &Record| {
        let last = record.attempts.last();
        last.is_some_and(|attempt| attempt.failure.is_none())
    };
    let goes_on = |record: &Record| {
        let failures = || {
            record
                .attempts
                .iter()
                .filter_map(|try_| try_.failure.as_ref())
        };
        let is_lost_pull = |failure: &Failure| {
            failure.kind == FailureKind::ConnectionLost
                && matches!(failure.stage, Stage::Inspect | Stage::Pull | Stage::Verify)
        };
        let last = record
            .attempts
            .last()
            .and_then(|last| last.failure.as_ref());
        let is_out_of_reach = last.is_some_and(|failure| {
            matches!(
                failure.kind,
                FailureKind::ConnectionLost | FailureKind::Unreachable
            )
        });
        is_out_of_reach && failures().any(is_lost_pull)
    };
    let any = |node: &NodeRecord, is_so: &dyn Fn(&Record) -> bool| {
        node.items.iter().filter(not_run).any(is_so)
    };
    let nodes = || plan.fleet.nodes().iter().zip(&result.nodes);
    let lost: Vec<&str> = nodes()
        .filter(|(_, node)| any(node, &goes_on))
        .map(|(node, _)| node.name.as_str())
        .collect();
    if lost.is_empty() {
        return None;
    }
    let cancelled = nodes().filter(|(_, node)| any(node, &was_cancelled));
    let (their, ends) = match lost.len() {
        1 => ("its pull", "ends"),
        _ => ("their pulls", "end"),
    };
    let lease = humantime::format_duration(plan.policy.lease);
    let cancelled = format_count(cancelled.count(), "node");
    Some(
        Line::new(0)
            .text(format!("Cancelled on {cancelled}; "))
            .nodes(names(&lost))
            .text(format!(" cannot be reached, {their} {ends} within {lease}")),
    )
}

/// Each image with its digests, and on how many nodes each is.
fn digests(result: &RunResult) -> Vec<Line> {
    let plan = &result.info.plan;
    let mut out = Vec::new();
    for item in 0..plan.work.items() {
        let Some(image) = plan.work.image(item) else {
            continue;
        };
        out.push(Line::new(0).text(image.to_string()));
        let digests = digests_of(result, item);
        let most = digests.values().map(Vec::len).max().unwrap_or_default();
        let mut digests: Vec<_> = digests.into_iter().collect();
        digests.sort_by_key(|(_, nodes)| Reverse(nodes.len()));
        let is_tied = digests.get(1).is_some_and(|(_, nodes)| nodes.len() == most);
        for (digest, nodes) in &digests {
            let nodes_of = format_count(nodes.len(), "node");
            let how = how(result, item, digest);
            let digest = escape_truncated(digest, 80);
            let mut line = Line::new(2).text(format!("{digest} on {nodes_of}{how}"));
            // Where they differ, all but those with the most common one, or all.
            if nodes.len() < most || is_tied {
                line = line.text(": ").nodes(names(nodes));
            }
            out.push(line);
        }
        let unnamed = without_digest(result, item);
        if unnamed > 0 {
            let nodes = format_count(unnamed, "node");
            out.push(Line::new(2).text(format!("on {nodes}, which do not tell its digest")));
        } else if digests.is_empty() {
            out.push(Line::new(2).text("on no node"));
        }
    }
    out
}

/// On how many nodes an image is whose digest is not told there.
fn without_digest(result: &RunResult, item: usize) -> usize {
    let records = result.nodes.iter().filter_map(|node| node.items.get(item));
    let is_unnamed = |record: &&Record| match &record.outcome {
        Outcome::Pulled(held) | Outcome::Present(held) => held.digest.is_none(),
        _ => false,
    };
    records.filter(is_unnamed).count()
}

/// " (10 pulled now, 2 there before)" for a digest, or nothing where nothing is pulled.
fn how(result: &RunResult, item: usize, digest: &str) -> String {
    let records = || result.nodes.iter().filter_map(|node| node.items.get(item));
    let is_this = |held: &LocalImage| held.digest.as_deref() == Some(digest);
    let pulled = records()
        .filter(|record| matches!(&record.outcome, Outcome::Pulled(held) if is_this(held)))
        .count();
    let present = records()
        .filter(|record| matches!(&record.outcome, Outcome::Present(held) if is_this(held)))
        .count();
    match (&result.info.plan.work, pulled, present) {
        (Work::Check(_) | Work::Exec(_) | Work::Probe(_), ..) => String::new(),
        (_, 0, _) => " (there before)".into(),
        (_, _, 0) => " (pulled now)".into(),
        _ => format!(" ({pulled} pulled now, {present} there before)"),
    }
}

/// "Through SSH: 10 pulls; from the registry: 2 pulls", and what there is to say of them, each once with its nodes.
fn deliveries(result: &RunResult) -> Vec<Line> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut notes: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for (node, record) in result.nodes.iter().enumerate() {
        for delivery in record
            .items
            .iter()
            .filter_map(|item| item.delivery.as_ref())
        {
            let via = match delivery.via {
                Via::Ssh => "through SSH",
                Via::Peers => "from other nodes",
                Via::Mirror => "through a mirror",
                Via::Registry => "from the registry",
            };
            *counts.entry(via).or_default() += 1;
            if let Some(note) = &delivery.note {
                let nodes = notes.entry((via, note)).or_default();
                let name = node_name(result, node);
                if nodes.last() != Some(&name) {
                    nodes.push(name);
                }
            }
        }
    }
    if counts.is_empty() {
        return Vec::new();
    }
    let counts: Vec<String> = counts
        .iter()
        .rev()
        .map(|(via, pulls)| format!("{} {via}", format_count(*pulls, "pull")))
        .collect();
    let mut out = vec![Line::new(0).text(format!("Pulled: {}", counts.join(", ")))];
    if let Some(totals) = result.fan_out.filter(|totals| totals.nodes > 0) {
        out.push(Line::new(2).text(format!(
            "{} sent {:.2} copies for {}, they sent {} to each other",
            source(&result.info.plan.policy),
            totals.copies(),
            format_count(totals.nodes, "node"),
            format_bytes(totals.from_peers),
        )));
    }
    for ((via, note), nodes) in notes {
        out.push(
            Line::new(2)
                .nodes(names(&nodes))
                .text(format!(" {via}: {}", escape_truncated(note, NOTE))),
        );
    }
    out
}

/// "registry.lab:5000: 15 tries failed (12 registry-unavailable, 3 rate-limited), 97 pulls went well", where tries
/// failed.
fn registries(result: &RunResult) -> Vec<Line> {
    let plan = &result.info.plan;
    let mut out = Vec::new();
    let mut registries: BTreeMap<&str, (usize, BTreeMap<&str, usize>)> = BTreeMap::new();
    for record in &result.nodes {
        for (item, record) in record.items.iter().enumerate() {
            let Some(image) = plan.work.image(item) else {
                continue;
            };
            let (pulls, kinds) = registries.entry(image.registry()).or_default();
            *pulls += usize::from(matches!(record.outcome, Outcome::Pulled(_)));
            let failures = record.attempts.iter().filter_map(|a| a.failure.as_ref());
            // A name that is not resolved is no registry's failure.
            let is_its = |failure: &&Failure| {
                failure.stage == Stage::Pull && failure.kind != FailureKind::RegistryUnresolved
            };
            for failure in failures.filter(is_its) {
                *kinds.entry(failure.kind.as_str()).or_default() += 1;
            }
        }
    }
    for (registry, (pulls, kinds)) in registries {
        let tries: usize = kinds.values().sum();
        if tries == 0 {
            continue;
        }
        let mut kinds: Vec<_> = kinds.into_iter().collect();
        kinds.sort_by_key(|(_, tries)| Reverse(*tries));
        let kinds: Vec<String> = kinds
            .iter()
            .map(|(kind, n)| format!("{n} {kind}"))
            .collect();
        let verb = if tries == 1 { "try" } else { "tries" };
        out.push(Line::new(0).text(format!(
            "{registry}: {} went well, {tries} {verb} failed ({})",
            format_count(pulls, "pull"),
            kinds.join(", ")
        )));
    }
    out
}

/// Which nodes took longest, and how much arrived.
fn pace(result: &RunResult) -> Vec<Line> {
    let mut out = Vec::new();
    let is_pull = matches!(result.info.plan.work, Work::Pull(_));
    let slowest_of = |record: &crate::model::NodeRecord| {
        let tried = record.items.iter().filter(|item| !item.attempts.is_empty());
        let slowest = tried.max_by_key(|item| item.elapsed)?;
        let tries = record
            .items
            .iter()
            .map(|item| Tries::of(is_pull, &item.attempts))
            .max();
        Some((slowest.elapsed, tries.unwrap_or_default()))
    };
    let nodes = result.nodes.iter().enumerate();
    let mut times: Vec<(Duration, usize, usize)> = nodes
        .filter_map(|(node, record)| slowest_of(record).map(|(time, tries)| (time, tries, node)))
        .collect();
    times.sort_by_key(|(time, _, node)| (Reverse(*time), *node));
    // A quick run has no slowest nodes worth naming.
    let is_slow = times.first().is_some_and(|(time, ..)| time.as_secs() > 0);
    if times.len() > 1 && is_slow {
        let mut line = Line::new(0).text("Slowest: ");
        for (place, (time, tries, node)) in times.iter().take(SLOWEST).enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            let again = match tries {
                0 | 1 => String::new(),
                tries => format!(" ({tries} tries)"),
            };
            line = line
                .text(comma)
                .nodes(escape_truncated(node_name(result, *node), 100))
                .text(format!(" {}{again}", format_duration(*time)));
        }
        if times.len() > 2 * SLOWEST {
            let (half, ..) = times[times.len() / 2];
            line = line.text(format!(
                "; half of the nodes took at most {}",
                format_duration(half)
            ));
        }
        out.push(line);
    }
    out.extend(what_arrived(result).map(|text| Line::new(0).text(text)));
    out
}

/// "Arrived: 320.1 MB, 145.5 MB/s over the run"; a rate only where all was counted.
fn what_arrived(result: &RunResult) -> Option<String> {
    match (arrived(result), unseen(result)) {
        (None | Some(0), 0) => None,
        (Some(sum), 0) => {
            let seconds = took(result).as_secs_f64().max(0.001);
            let rate = format_bytes((sum as f64 / seconds) as u64);
            let sum = format_bytes(sum);
            Some(format!("Arrived: {sum}, {rate}/s over the run"))
        }
        (None, unseen) => Some(format!(
            "Arrived: not known, it could not be counted on {}",
            format_count(unseen, "node")
        )),
        (Some(sum), unseen) => {
            let was_counted = |record: &Record| record.arrived.is_some();
            let all = |node: &&NodeRecord| {
                node.items.iter().any(was_counted) && !node.items.iter().any(is_unseen)
            };
            let counted = result.nodes.iter().filter(all).count();
            Some(format!(
                "Arrived: {} counted, all of it on {counted} of {}",
                format_bytes(sum),
                format_count(counted + unseen, "node")
            ))
        }
    }
}

/// What commands printed: once for all nodes that printed the same, most nodes first, so that who differs stands last.
fn exec_output(out: &mut dyn io::Write, result: &RunResult) -> io::Result<()> {
    let plan = &result.info.plan;
    if !matches!(plan.work, Work::Exec(_)) {
        return Ok(());
    }
    let mut places = HashMap::new();
    let mut groups: Vec<(&ExecOutput, Vec<&str>)> = Vec::new();
    for (node, record) in plan.fleet.nodes().iter().zip(&result.nodes) {
        for record in &record.items {
            if let Outcome::Ran(output) = &record.outcome {
                let of = |kept: &Kept| (kept.digest(), kept.len(), kept.excerpt_of());
                let said = (
                    of(&output.stdout),
                    of(&output.stderr),
                    output.truncated,
                    output.lost(),
                );
                let place = *places.entry(said).or_insert(groups.len());
                if place == groups.len() {
                    groups.push((output, Vec::new()));
                }
                groups[place].1.push(&node.name);
            }
        }
    }
    groups.sort_by_key(|(_, nodes)| Reverse(nodes.len()));
    for (output, nodes) in groups {
        let note = cut_note(output);
        let is_silent = output.stdout.is_empty() && output.stderr.is_empty() && note.is_none();
        let mut before = String::new();
        match nodes.as_slice() {
            [one] => before = escape_truncated(one, 100).into_owned(),
            // A thousand times nothing is nothing to read.
            several if !is_silent => {
                writeln!(out, "{} nodes: {}", several.len(), names(several))?;
            }
            _ => {}
        }
        for (mark, kept) in [("|", &output.stdout), ("stderr|", &output.stderr)] {
            for line in String::from_utf8_lossy(&kept.read(usize::MAX)?).lines() {
                write!(out, "{before} {mark} ")?;
                write_printable(out, line)?;
                out.write_all(b"\n")?;
            }
        }
        if let Some(note) = note {
            writeln!(out, "{before} {note}")?;
        }
    }
    Ok(())
}

/// What is missing of an output, and why.
fn cut_note(output: &ExecOutput) -> Option<String> {
    let excerpts = [&output.stdout, &output.stderr];
    let were: u64 = excerpts.iter().filter_map(|kept| kept.excerpt_of()).sum();
    match output.lost() {
        Some(why) => Some(format!("[output lost: {}]", escape_line(why))),
        None if were > 0 => Some(format!(
            "[output cut: only its start is recorded, of {}]",
            format_bytes(were)
        )),
        None => output.truncated.then(|| "[output cut]".into()),
    }
}

/// A line, escaped piece by piece: a control character becomes eight.
fn write_printable(out: &mut dyn io::Write, line: &str) -> io::Result<()> {
    let mut rest = line;
    while !rest.is_empty() {
        let mut end = rest.len().min(PIECE);
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        out.write_all(escape_line(&rest[..end]).as_bytes())?;
        rest = &rest[end..];
    }
    Ok(())
}
