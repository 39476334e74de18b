//! The end of a run for a person: is the fleet ready, what failed where and why, what next.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use super::RunResult;
use super::document::{arrived, counts, digests_of, disagreements, is_unseen, took, unseen};
use super::groups::groups;
use super::lines::escape_truncated;
use super::next::{is_without_image, next_commands};
use crate::model::text::{escape_line, format_bytes, format_count, format_duration};
use crate::model::{
    Counts, ExecOutput, Failure, FailureKind, Kept, LocalImage, NodeRecord, Outcome, Record, Stage,
    Tries, Work, fold,
};

/// How many characters the names of a group may take before "and N more".
const NAMES: usize = 400;
/// How many groups of failures are listed.
const GROUPS: usize = 20;
/// How many host keys of one group are listed.
const HOST_KEYS: usize = 200;
/// How many of the slowest nodes are named.
const SLOWEST: usize = 3;
/// How many bytes of a line are escaped at one time.
const PIECE: usize = 4096;

/// Writes the summary as plain text: what commands printed piece by piece, as it may be more than memory should hold, and
/// the rest as `styled` makes of each line.
///
/// # Errors
/// What writing answered, or reading back what was printed.
pub fn write_summary(
    result: &RunResult,
    out: &mut dyn io::Write,
    styled: &dyn Fn(&str) -> String,
) -> io::Result<()> {
    exec_output(out, result)?;
    for line in rest(result).lines() {
        writeln!(out, "{}", styled(line))?;
    }
    Ok(())
}

/// All but what commands printed.
fn rest(result: &RunResult) -> String {
    let counts = counts(result);
    let differing = disagreements(result);
    let mut out = String::new();
    verdict(&mut out, result, &counts, differing.is_empty());
    cancelled(&mut out, result);
    digests(&mut out, result);
    // Writing to a String cannot fail, here and below.
    for differing in &differing {
        let _ = writeln!(
            out,
            "DIFFERENT DIGESTS of {}: the nodes do not hold the same image.",
            differing.image
        );
    }
    let before = out.len();
    failures(&mut out, result);
    let mut rest = String::new();
    registries(&mut rest, result);
    pace(&mut rest, result);
    rest.push_str(&next_commands(result));
    if out.len() > before && !rest.is_empty() {
        out.push('\n');
    }
    out + &rest
}

/// "NOT READY: 10 of 12 nodes ok, 1 failed, 1 not run, in 2m 31s; stopped early: interrupted".
fn verdict(out: &mut String, result: &RunResult, counts: &Counts, agree: bool) {
    let ready = counts.ok == counts.nodes && agree;
    let is_exec = matches!(result.info.plan.work, Work::Exec(_));
    let word = match (ready, is_exec) {
        (true, false) => "READY",
        (false, false) => "NOT READY",
        (true, true) => "DONE",
        (false, true) => "NOT DONE",
    };
    let nodes = format_count(counts.nodes, "node");
    let _ = write!(out, "{word}: {} of {nodes} ok", counts.ok);
    // An image that a check does not find is an answer, and no failure.
    let absent = result.nodes.iter().filter(|node| is_without_image(node));
    let absent = absent.count();
    let without = match result.info.plan.work.items() {
        1 => "without the image",
        _ => "without all of the images",
    };
    let failed = counts.failed - absent;
    for (number, what) in [
        (absent, without),
        (failed, "failed"),
        (counts.not_run, "not run"),
    ] {
        if number > 0 {
            let _ = write!(out, ", {number} {what}");
        }
    }
    if !agree {
        out.push_str(", with different digests");
    }
    let _ = write!(out, ", in {}", format_duration(took(result)));
    if let Some(reason) = result.stopped {
        let _ = write!(out, "; stopped early: {reason}");
    }
    out.push('\n');
}

/// Where a pull goes on because its node could not be told to end it.
fn cancelled(out: &mut String, result: &RunResult) {
    let plan = &result.info.plan;
    if !matches!(plan.work, Work::Pull(_)) || result.stopped.is_none() {
        return;
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
        return;
    }
    let cancelled = nodes().filter(|(_, node)| any(node, &was_cancelled));
    let (their, ends) = match lost.len() {
        1 => ("its pull", "ends"),
        _ => ("their pulls", "end"),
    };
    let lease = humantime::format_duration(plan.policy.lease);
    let _ = writeln!(
        out,
        "Cancelled on {}; {} cannot be reached, {their} {ends} within {lease}",
        format_count(cancelled.count(), "node"),
        names(&lost),
    );
}

/// Each image with its digests, and on how many nodes each is.
fn digests(out: &mut String, result: &RunResult) {
    let plan = &result.info.plan;
    for item in 0..plan.work.items() {
        let Some(image) = plan.work.image(item) else {
            continue;
        };
        let _ = writeln!(out, "{image}");
        let digests = digests_of(result, item);
        let most = digests.values().map(Vec::len).max().unwrap_or_default();
        let mut digests: Vec<_> = digests.into_iter().collect();
        digests.sort_by_key(|(_, nodes)| Reverse(nodes.len()));
        let is_tied = digests.get(1).is_some_and(|(_, nodes)| nodes.len() == most);
        for (digest, nodes) in &digests {
            let nodes_of = format_count(nodes.len(), "node");
            let how = how(result, item, digest);
            let _ = write!(out, "  {} on {nodes_of}{how}", escape_truncated(digest, 80));
            // Where they differ, all but those with the most common one, or all.
            if nodes.len() < most || is_tied {
                let _ = write!(out, ": {}", names(nodes));
            }
            out.push('\n');
        }
        if digests.is_empty() {
            out.push_str("  on no node\n");
        }
    }
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

/// What is not as it was wanted, by cause: a paragraph for all that have the same advice.
pub(super) fn failures(out: &mut String, result: &RunResult) {
    let mut groups = groups(result);
    let hidden = groups.split_off(groups.len().min(GROUPS));
    let mut groups = groups.into_iter().peekable();
    let mut begins = true;
    while let Some(group) = groups.next() {
        let nodes: Vec<&str> = group.nodes.iter().map(|node| name(result, *node)).collect();
        if begins {
            out.push('\n');
        }
        let _ = write!(
            out,
            "{} on {}",
            group.what,
            format_count(nodes.len(), "node")
        );
        if !group.example.is_empty() {
            let _ = write!(out, ": {}", group.example);
        }
        out.push('\n');
        if group.fingerprints.is_empty() {
            let _ = writeln!(out, "  {}", names(&nodes));
        }
        host_keys(out, result, &group.fingerprints);
        let advice = group.kind.map(FailureKind::advice);
        let next = groups.peek().and_then(|next| next.kind);
        begins = next.map(FailureKind::advice) != advice;
        if let Some(advice) = advice.filter(|_| begins) {
            let _ = writeln!(out, "  What next: {advice}");
        }
    }
    if !hidden.is_empty() {
        let nodes = hidden.iter().map(|group| group.nodes.len()).sum();
        let _ = writeln!(
            out,
            "and {} on {}; `prepull runs show {} -o json` has all of them",
            format_count(hidden.len(), "further cause"),
            format_count(nodes, "node"),
            result.info.id
        );
    }
}

fn name(result: &RunResult, node: usize) -> &str {
    let node = result.info.plan.fleet.nodes().get(node);
    node.map_or("?", |node| &node.name)
}

/// "node-[1-3,7], gateway and 40 more".
fn names(nodes: &[&str]) -> String {
    let mut out = String::new();
    let mut left = nodes.len();
    for (expression, names) in fold(nodes) {
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
fn host_keys(out: &mut String, result: &RunResult, fingerprints: &[(usize, Vec<String>)]) {
    let listed = &fingerprints[..fingerprints.len().min(HOST_KEYS)];
    for (node, found) in listed {
        let _ = write!(out, "  {}", escape_truncated(name(result, *node), NAMES));
        for (place, fingerprint) in found.iter().enumerate() {
            let known = if place == 0 { "" } else { "known: " };
            let _ = write!(out, "  {known}{fingerprint}");
        }
        out.push('\n');
    }
    if fingerprints.len() > listed.len() {
        let more = fingerprints.len() - listed.len();
        let _ = writeln!(out, "  and {more} more");
    }
}

/// "registry.lab:5000: 15 tries failed (12 registry-unavailable, 3 rate-limited), 97 pulls went well", where tries failed.
fn registries(out: &mut String, result: &RunResult) {
    let plan = &result.info.plan;
    let mut registries: BTreeMap<&str, (usize, BTreeMap<&str, usize>)> = BTreeMap::new();
    for record in &result.nodes {
        for (item, record) in record.items.iter().enumerate() {
            let Some(image) = plan.work.image(item) else {
                continue;
            };
            let (pulls, kinds) = registries.entry(image.registry()).or_default();
            *pulls += usize::from(matches!(record.outcome, Outcome::Pulled(_)));
            let failures = record.attempts.iter().filter_map(|a| a.failure.as_ref());
            for failure in failures.filter(|failure| failure.stage == Stage::Pull) {
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
        let _ = writeln!(
            out,
            "{registry}: {} went well, {tries} {verb} failed ({})",
            format_count(pulls, "pull"),
            kinds.join(", ")
        );
    }
}

/// Which nodes took longest, and how much arrived.
fn pace(out: &mut String, result: &RunResult) {
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
    // Whoever is quick has no slowest.
    let is_slow = times.first().is_some_and(|(time, ..)| time.as_secs() > 0);
    if times.len() > 1 && is_slow {
        let slowest = times.iter().take(SLOWEST).map(|(time, tries, node)| {
            let again = match tries {
                0 | 1 => String::new(),
                tries => format!(" ({tries} tries)"),
            };
            format!(
                "{} {}{again}",
                escape_truncated(name(result, *node), 100),
                format_duration(*time)
            )
        });
        let slowest: Vec<String> = slowest.collect();
        let _ = write!(out, "Slowest: {}", slowest.join(", "));
        if times.len() > 2 * SLOWEST {
            let (half, ..) = times[times.len() / 2];
            let _ = write!(
                out,
                "; half of the nodes took at most {}",
                format_duration(half)
            );
        }
        out.push('\n');
    }
    what_arrived(out, result);
}

/// "Arrived: 320.1 MB, 145.5 MB/s over the run"; a rate only where all was counted.
fn what_arrived(out: &mut String, result: &RunResult) {
    let sum = arrived(result);
    let _ = match (sum, unseen(result)) {
        (None | Some(0), 0) => Ok(()),
        (Some(sum), 0) => {
            let seconds = took(result).as_secs_f64().max(0.001);
            let rate = format_bytes((sum as f64 / seconds) as u64);
            writeln!(out, "Arrived: {}, {rate}/s over the run", format_bytes(sum))
        }
        (None, unseen) => writeln!(
            out,
            "Arrived: not known, it could not be counted on {}",
            format_count(unseen, "node")
        ),
        (Some(sum), unseen) => {
            let was_counted = |record: &Record| record.arrived.is_some();
            let all = |node: &&NodeRecord| {
                node.items.iter().any(was_counted) && !node.items.iter().any(is_unseen)
            };
            let counted = result.nodes.iter().filter(all).count();
            writeln!(
                out,
                "Arrived: {} counted, all of it on {counted} of {}",
                format_bytes(sum),
                format_count(counted + unseen, "node")
            )
        }
    };
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
