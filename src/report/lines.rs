//! One plain line a fact: timed, greppable, the same on a terminal and in a log.

use std::fmt::Write as _;
use std::time::Duration;

use super::RunInfo;
use super::format::{in_seconds, tenths, truncate_middle};
use super::run_state::RunState;
use crate::model::{
    Event, EventKind, ExitStatus, Failure, FanOutTotals, Outcome, Record, Stage, Tries,
};

/// The longest piece of a node's words in a line, in characters.
const DETAIL_LIMIT: usize = 500;

/// The line for a fact; `None` for facts that only `verbose` lines show.
pub fn line(info: &RunInfo, event: &Event, verbose: bool) -> Option<String> {
    let mut out = in_seconds(event.at);
    let node = |out: &mut String, node: usize| {
        let name = info.plan.fleet.nodes().get(node);
        field(out, "node", name.map_or("?", |node| node.name.as_str()));
    };
    let image = |out: &mut String, item: usize| {
        if let Some(image) = info.plan.work.image(item) {
            field(out, "image", &image.to_string());
        }
    };
    match &event.fact {
        EventKind::WaveStarted { wave, nodes } => {
            // The one wave of an ordinary run is not news.
            if *wave == 1 && !verbose {
                return None;
            }
            field(&mut out, "wave", &wave.to_string());
            field(&mut out, "status", "started");
            field(&mut out, "nodes", &nodes.to_string());
        }
        EventKind::Preflighted { ready, failed } => {
            field(&mut out, "preflight", "done");
            field(&mut out, "ready", &ready.to_string());
            field(&mut out, "failed", &failed.to_string());
        }
        EventKind::NodeStarted { node: index } => {
            node(&mut out, *index);
            field(&mut out, "status", "started");
        }
        EventKind::NodeStage {
            node: index,
            item,
            stage,
        } => {
            // That a pull begins, or has to wait, is news; the other steps are over at once, nearly always.
            if !verbose && !matches!(stage, Stage::Pull | Stage::Queue) {
                return None;
            }
            node(&mut out, *index);
            if let Some(item) = item {
                image(&mut out, *item);
            }
            field(&mut out, "status", "working");
            field(&mut out, "stage", stage.as_str());
        }
        EventKind::LeftAlone {
            node: index,
            item,
            visit_in,
        } => {
            if !verbose {
                return None;
            }
            node(&mut out, *index);
            image(&mut out, *item);
            field(&mut out, "status", "left-alone");
            field(&mut out, "visit_in", &in_seconds(*visit_in));
        }
        EventKind::Stalled {
            node: index,
            item,
            length,
        } => {
            if !verbose {
                return None;
            }
            node(&mut out, *index);
            image(&mut out, *item);
            field(&mut out, "status", "stalled");
            field(&mut out, "seconds", &tenths(*length));
        }
        EventKind::RegistryPaused { registry, length } => {
            field(&mut out, "registry", registry);
            field(&mut out, "status", "paused");
            field(&mut out, "seconds", &tenths(*length));
        }
        EventKind::AttemptFailed {
            node: index,
            item,
            attempt,
            failure,
            retry_in,
        } => {
            node(&mut out, *index);
            image(&mut out, *item);
            field(&mut out, "status", "retry");
            field(&mut out, "kind", failure.kind.as_str());
            field(&mut out, "stage", failure.stage.as_str());
            field(&mut out, "attempt", &attempt.to_string());
            field(&mut out, "retry_in", &in_seconds(*retry_in));
            field(&mut out, "detail", &failure.detail);
        }
        EventKind::Finished {
            node: index,
            item,
            record,
        } => {
            node(&mut out, *index);
            image(&mut out, *item);
            field(&mut out, "status", record.outcome.status());
            outcome(&mut out, record);
            field(&mut out, "seconds", &tenths(record.elapsed));
            let tries = Tries::of(info.plan.work.is_detached(), &record.attempts);
            if tries > 1 {
                field(&mut out, "attempts", &tries.to_string());
            }
        }
        // A line a second for every node is nothing to read: `standing` tells all of it now and then.
        EventKind::Progress { .. }
        | EventKind::NodeLeft { .. }
        | EventKind::RuntimeFound { .. } => return None,
        EventKind::FanOut { totals } => {
            // Every heartbeat has these too.
            if !verbose {
                return None;
            }
            field(&mut out, "status", "fan-out");
            fan_out(&mut out, totals);
        }
        EventKind::FanOutFallback { node: index, why } => {
            node(&mut out, *index);
            field(&mut out, "status", "fell-back");
            field(&mut out, "detail", why);
        }
        EventKind::Stopping { reason } => {
            field(&mut out, "status", "stopping");
            field(&mut out, "reason", reason.as_str());
        }
    }
    Some(out)
}

/// The first line of a run: its name, and what it does.
pub fn beginning(info: &RunInfo) -> String {
    let mut out = String::from("0.0s");
    field(&mut out, "run", &info.id);
    field(&mut out, "status", "started");
    field(&mut out, "command", info.plan.work.command());
    let nodes = info.plan.fleet.nodes().len();
    field(&mut out, "nodes", &nodes.to_string());
    for item in 0..info.plan.work.items() {
        if let Some(image) = info.plan.work.image(item) {
            field(&mut out, "image", &image.to_string());
        }
    }
    out
}

/// Where all nodes stand: the heartbeat of a run, and its last line.
pub fn status_line(board: &RunState, now: Duration, status: &str) -> String {
    let mut out = in_seconds(now);
    let tally = board.tally();
    field(&mut out, "status", status);
    for (name, number) in [
        ("done", tally.done),
        ("running", tally.running),
        ("failed", tally.failed),
        ("not_run", tally.not_run),
        ("left", tally.left),
        ("waiting", board.waiting().count()),
        ("queued", board.queued().map(|(_, nodes)| nodes).sum()),
    ] {
        field(&mut out, name, &number.to_string());
    }
    let unseen = Some(board.unseen() as u64).filter(|nodes| *nodes > 0);
    // A rate of some would be taken for that of all.
    let rate = board.rate(now).filter(|_| unseen.is_none());
    for (name, number) in [
        ("bytes", board.arrived()),
        ("rate", rate),
        ("unseen", unseen),
    ] {
        if let Some(number) = number {
            field(&mut out, name, &number.to_string());
        }
    }
    if let Some(totals) = &board.fan_out {
        fan_out(&mut out, totals);
    }
    out
}

fn fan_out(out: &mut String, totals: &FanOutTotals) {
    let FanOutTotals {
        nodes,
        roots,
        depth,
        from_source,
        from_peers,
        image_bytes: _,
        fallbacks,
    } = totals;
    for (name, number) in [
        ("relays", *nodes as u64),
        ("roots", *roots as u64),
        ("depth", *depth as u64),
        ("from_source", *from_source),
        ("from_peers", *from_peers),
        ("fallbacks", *fallbacks as u64),
    ] {
        field(out, name, &number.to_string());
    }
}

fn outcome(out: &mut String, record: &Record) {
    match &record.outcome {
        Outcome::Pulled(held) | Outcome::Present(held) => {
            field(out, "digest", held.digest.as_deref().unwrap_or("unknown"));
            if let Some(bytes) = record.arrived {
                field(out, "bytes", &bytes.to_string());
            }
        }
        Outcome::Failed(Failure {
            kind,
            stage,
            detail,
        }) => {
            field(out, "kind", kind.as_str());
            field(out, "stage", stage.as_str());
            field(out, "detail", detail);
        }
        Outcome::Ran(output) => match &output.exit {
            ExitStatus::Code(code) => field(out, "exit", &code.to_string()),
            ExitStatus::Signal(name) => field(out, "signal", name),
        },
        Outcome::NotRun(reason) => field(out, "reason", reason.as_str()),
        Outcome::Probed(facts) => field(out, "runtime", &facts.runtime),
        Outcome::Missing => {}
    }
}

fn field(out: &mut String, name: &str, value: &str) {
    let value = truncate_middle(value, DETAIL_LIMIT);
    let plain = !value.is_empty() && !value.contains([' ', '"', '=', '\\']);
    // Writing to a String cannot fail.
    let _ = if plain {
        write!(out, " {name}={value}")
    } else {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"");
        write!(out, " {name}=\"{value}\"")
    };
}
