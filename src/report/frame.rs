//! A board as lines that fit a terminal: counts, causes of failures, and the nodes at work, the slowest first.

use std::borrow::Cow;
use std::time::Duration;

use console::{Style, measure_text_width, truncate_str};

use super::format::{escape_truncated, source};
use super::groups::Group;
use super::run_state::{AtWork, RunState};
use crate::model::text::{format_bytes, format_count, format_duration};
use crate::model::{Image, Stage, StopReason};

/// How many columns and lines there are, and whether colour is welcome.
#[derive(Debug, Clone, Copy)]
pub struct View {
    /// Lines.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Colour.
    pub color: bool,
    /// Whether bars may be drawn with block characters, or with ASCII alone.
    pub unicode: bool,
}

/// How many nodes a cause names at most, and how many columns there are for each: what was said needs room too.
const NAMES: usize = 3;
/// The longest reason, in characters.
const EXAMPLE: usize = 300;
const COLUMNS: usize = 30;
/// In fewer columns the end of a text tells less than its beginning.
const LITTLE: usize = 24;
/// The widest name of a node, in columns.
const NAME: usize = 40;

impl View {
    fn style(self) -> Style {
        Style::new().force_styling(self.color)
    }

    fn fit(self, line: &str) -> String {
        // Where all is cut off, no line may be blank.
        let line = if self.width < 10 {
            line.trim_start()
        } else {
            line
        };
        // By columns, not characters: a wide character takes two.
        truncate_str(line, self.width, if self.width > 3 { "..." } else { "" }).into_owned()
    }
}

/// The board at `now` since the start. No line is blank, and none wider or more than fit.
pub fn frame(board: &RunState, now: Duration, view: View) -> Vec<String> {
    // What changes with time alone changes once a second.
    let now = Duration::from_secs(now.as_secs());
    let mut lines = vec![counts(board, now, view), pace(board, now, view)];
    lines.extend(fan_out(board, view));
    if let Some(reason) = board.stopping {
        let tally = board.tally();
        let rest = match tally.running {
            0 => String::new(),
            running => {
                let again = match reason {
                    StopReason::Interrupted => "; Ctrl-C again ends at once",
                    _ => "",
                };
                format!(
                    ": waiting for {} to end{again}",
                    format_count(running, "node")
                )
            }
        };
        let line = format!("stopping, {reason}{rest}");
        lines.push(view.style().yellow().apply_to(line).to_string());
    }
    let yellow = view.style().yellow();
    for (registry, until) in board.paused.iter().filter(|(_, until)| **until > now) {
        let left = format_duration(Duration::from_secs(
            (*until - now).as_secs_f64().ceil() as u64
        ));
        let line = format!("  {registry} is left alone by all nodes for {left} more");
        lines.push(yellow.apply_to(line).to_string());
    }
    for (registry, nodes) in board.queued() {
        lines.push(format!("  {nodes} queued for a turn at {registry}"));
    }
    lines.truncate(view.height);
    let room = view.height - lines.len();
    let mut causes = failures(board, view);
    causes.extend(tries(board, now, view));
    causes.extend(fallbacks(board, view));
    // The nodes at work need less than a third only when there are few of them.
    let most = room.saturating_sub((room / 3).max(1).min(pulling(board).count()));
    let hidden = causes.len().saturating_sub(most);
    if hidden > 0 && most > 0 {
        causes.truncate(most - 1);
        causes.push(format!("  and {} more causes", hidden + 1));
    }
    causes.truncate(most);
    lines.extend(causes);
    lines.extend(at_work(board, now, view, view.height - lines.len()));
    lines.iter().map(|line| view.fit(line)).collect()
}

/// "412 done, 32 running, 3 failed, 4553 left of 5000 nodes, 1m 12s".
fn counts(board: &RunState, now: Duration, view: View) -> String {
    let tally = board.tally();
    let style = view.style();
    let word = |number: usize, word: &str, style: Style| {
        let styled = style.apply_to(format!("{number} {word}"));
        if number > 0 {
            styled.to_string()
        } else {
            format!("{number} {word}")
        }
    };
    let mut words = vec![
        word(tally.done, "done", style.clone().green()),
        word(tally.running, "running", style.clone().bold()),
        word(tally.failed, "failed", style.clone().red().bold()),
    ];
    if tally.not_run > 0 {
        words.push(word(tally.not_run, "not run", style.yellow()));
    }
    words.push(match tally.left {
        // While nodes run, "0 left" would read as if all was done.
        0 if tally.running > 0 => "none left to start".into(),
        left => format!("{left} left"),
    });
    let nodes = board.info.plan.fleet.nodes().len();
    let mut line = words.join(", ");
    if measure_text_width(&line) > view.width {
        line = words.join(" ");
    }
    let wave = board
        .wave
        .filter(|(wave, _)| *wave > 1 || board.info.plan.policy.waves.len() > 1);
    for part in [
        Some(format!(" of {}", format_count(nodes, "node"))),
        Some(format!(", {}", format_duration(now))),
        wave.map(|(wave, end)| format!(", wave {wave} up to node {end}")),
    ] {
        let part = part.unwrap_or_default();
        if measure_text_width(&line) + part.len() <= view.width {
            line.push_str(&part);
        }
    }
    line
}

/// "[######--------------]  31%  12.1 GB  301.2 MB/s  about 2m 10s left".
fn pace(board: &RunState, now: Duration, view: View) -> String {
    let tally = board.tally();
    // 100 only when nothing is left: what has arrived is still to be unpacked and looked at.
    let most = if tally.running + tally.left > 0 {
        0.99
    } else {
        1.0
    };
    let share = board.share().clamp(0.0, most);
    let mut line = format!(
        "{} {:>3.0}%",
        bar(share, (view.width / 4).clamp(10, 40), view),
        (share * 100.0).floor()
    );
    let rate = board
        .rate(now)
        .map(|rate| format!("  {}/s", format_bytes(rate)));
    let left = board.time_left(now).filter(|left| !left.is_zero());
    let left = left.map(|left| {
        // A guess that looks exact would be believed.
        let left = match left.as_secs() {
            0..60 => Duration::from_secs(left.as_secs().div_ceil(5) * 5),
            60..600 => Duration::from_secs(left.as_secs().div_ceil(10) * 10),
            seconds => Duration::from_secs(seconds.div_ceil(60) * 60),
        };
        format!("  about {} left", format_duration(left).replace(" 00s", ""))
    });
    for part in [
        board
            .arrived()
            .map(|sum| format!("  {}", format_bytes(sum))),
        rate,
        left,
    ] {
        let part = part.unwrap_or_default();
        if measure_text_width(&line) + part.len() <= view.width {
            line.push_str(&part);
        }
    }
    line
}

/// "fan-out: 2 roots, depth 9, 1.0 GB from the registry, 399.1 GB between nodes", with `--fan-out`.
fn fan_out(board: &RunState, view: View) -> Option<String> {
    let totals = board.fan_out.filter(|totals| totals.nodes > 0)?;
    let roots = format_count(totals.roots, "root");
    let mut line = format!("fan-out: {roots}, depth {}", totals.depth);
    for part in [
        format!(
            ", {} from {}",
            format_bytes(totals.from_source),
            source(&board.info.plan.policy)
        ),
        format!(", {} between nodes", format_bytes(totals.from_peers)),
        format!(", {}", format_count(totals.nodes, "relay")),
    ] {
        if measure_text_width(&line) + part.len() <= view.width {
            line.push_str(&part);
        }
    }
    Some(line)
}

/// Why nodes get nothing from others, the most frequent reason first.
fn fallbacks(board: &RunState, view: View) -> Vec<String> {
    let mut groups: Vec<(&String, &Vec<usize>)> = board.fell_back.iter().collect();
    groups.sort_by_key(|(_, nodes)| std::cmp::Reverse(nodes.len()));
    let yellow = view.style().yellow();
    let line = |(why, nodes): (&String, &Vec<usize>)| {
        let head = format!("{} fell back", nodes.len());
        let head = yellow.apply_to(head).to_string();
        let why = escape_truncated(why, EXAMPLE);
        explained(board, format!("  {head}:"), &why, nodes, view)
    };
    groups.into_iter().map(line).collect()
}

/// "[####------]", or "████▌░░░░░" with an eighth of a column as the smallest step.
fn bar(share: f64, width: usize, view: View) -> String {
    const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    if !view.unicode {
        let full = ((share * width as f64) as usize).min(width);
        return format!("[{}{}]", "#".repeat(full), "-".repeat(width - full));
    }
    // As wide as the other, whose brackets take two columns.
    let width = width + 2;
    let eighths = ((share * (8 * width) as f64) as usize).min(8 * width);
    let (full, part) = (eighths / 8, PARTS[eighths % 8]);
    let empty = width - full - usize::from(!part.is_empty());
    format!("{}{part}{}", "█".repeat(full), "░".repeat(empty))
}

/// What failed for good, the biggest first.
fn failures(board: &RunState, view: View) -> Vec<String> {
    let mut groups: Vec<&Group> = board.failed.groups().iter().collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.nodes.len()));
    let red = view.style().red();
    let line = |group: &Group| {
        let newest: Vec<usize> = group.nodes.iter().rev().copied().collect();
        let head = match group.what.strip_prefix("missing: ") {
            Some(_) => format_count(group.nodes.len(), "node"),
            None => format!("{} failed", group.nodes.len()),
        };
        let head = red.apply_to(head);
        cause(board, &head.to_string(), group, &newest, view)
    };
    let bad = groups
        .into_iter()
        .filter(|group| !group.what.starts_with("not run"));
    bad.map(line).collect()
}

/// Why nodes wait for another try, the most frequent first.
fn tries(board: &RunState, now: Duration, view: View) -> Vec<String> {
    let mut groups: Vec<(Vec<usize>, Duration)> = Vec::new();
    groups.resize(board.retried.groups().len(), (Vec::new(), Duration::MAX));
    for (node, again) in board.waiting() {
        if let Some((nodes, due)) = groups.get_mut(again.cause) {
            nodes.push(node);
            *due = board.due(again).min(*due);
        }
    }
    let yellow = view.style().yellow();
    let groups = groups.into_iter().zip(board.retried.groups());
    let mut groups: Vec<_> = groups.filter(|((nodes, _), _)| !nodes.is_empty()).collect();
    groups.sort_by_key(|((nodes, _), _)| std::cmp::Reverse(nodes.len()));
    let line = |((nodes, due), group): ((Vec<usize>, Duration), &Group)| {
        let is_full = board.working.len() >= board.info.plan.policy.parallel;
        let next = match due.saturating_sub(now).as_secs() {
            0 if is_full => "once another node is done".to_string(),
            0 => "now".to_string(),
            seconds => format!("in {}", format_duration(Duration::from_secs(seconds))),
        };
        let head = yellow.apply_to(format!("{} to try again {next}", nodes.len()));
        cause(board, &head.to_string(), group, &nodes, view)
    };
    groups.into_iter().map(line).collect()
}

/// "  3 failed: registry-auth (pull) on node-7, node-3, node-1: unauthorized".
fn cause(board: &RunState, head: &str, group: &Group, nodes: &[usize], view: View) -> String {
    let line = format!("  {head}: {} on", group.what);
    explained(board, line, &group.example, nodes, view)
}

/// A line that goes on with some names, and ends with what was said, as far as there is room.
fn explained(
    board: &RunState,
    mut line: String,
    said: &str,
    nodes: &[usize],
    view: View,
) -> String {
    let most = (view.width / COLUMNS).clamp(1, NAMES);
    let names: Vec<String> = nodes
        .iter()
        .take(most)
        .map(|node| name(board, *node))
        .collect();
    let more = if nodes.len() > most { ", ..." } else { "" };
    line.push_str(&format!(" {}{more}", names.join(", ")));
    if !said.is_empty() {
        let room = view
            .width
            .saturating_sub(measure_text_width(&line) + ": ".len());
        line.push_str(": ");
        line.push_str(&end_of(said, room));
    }
    line
}

/// What fits of the words of a failure: runtimes nest their messages, so the cause stands at the end.
fn end_of(said: &str, room: usize) -> Cow<'_, str> {
    const CUT: &str = "... ";
    if room < LITTLE || measure_text_width(said) <= room {
        return said.into();
    }
    let (at, _) = said
        .char_indices()
        .nth_back(room - CUT.len() - 1)
        .unwrap_or_default();
    // From the beginning of a word, where there is one.
    let end = said[at..]
        .split_once(' ')
        .map_or(&said[at..], |(_, end)| end);
    format!("{CUT}{end}").into()
}

fn name(board: &RunState, node: usize) -> String {
    let node = board.info.plan.fleet.nodes().get(node);
    escape_truncated(node.map_or("?", |node| &node.name), NAME).into_owned()
}

/// The nodes at work that do not just wait for a turn.
fn pulling(board: &RunState) -> impl Iterator<Item = (&usize, &AtWork)> {
    board.working.iter().filter(|(_, work)| !work.is_queued())
}

/// Those in `room` lines, the ones that take longest first.
fn at_work(board: &RunState, now: Duration, view: View, room: usize) -> Vec<String> {
    let mut nodes: Vec<(&usize, &AtWork)> = pulling(board).collect();
    nodes.sort_by_key(|(node, work)| (work.since, **node));
    let hidden = match nodes.len() > room {
        true => nodes.len() - room.saturating_sub(1),
        false => 0,
    };
    nodes.truncate(nodes.len() - hidden);
    let mut rows: Vec<Vec<String>> = nodes
        .iter()
        .map(|(node, work)| row(board, now, **node, work, view))
        .collect();
    fit_columns(&mut rows, view.width);
    let mut lines: Vec<String> = rows
        .iter()
        .map(|row| format!("  {}", row.join("  ").trim_end()))
        .collect();
    if hidden > 0 && room > 0 {
        lines.push(match nodes.is_empty() {
            true => format!("  {} at work", format_count(hidden, "node")),
            false => format!(
                "  and {} more, at work for less time",
                format_count(hidden, "node")
            ),
        });
    }
    lines
}

/// The columns that may go when there is no room, the first to go first.
const DISPENSABLE: [usize; 5] = [BAR, RATE, WHAT, ARRIVED, NOTE];
const WHAT: usize = 1;
const ARRIVED: usize = 2;
const BAR: usize = 3;
const RATE: usize = 4;
const NOTE: usize = 6;

/// Name, what is done, how much has arrived, a bar, how fast, since when, which try.
fn row(board: &RunState, now: Duration, node: usize, work: &AtWork, view: View) -> Vec<String> {
    let image = work.item.filter(|_| board.info.plan.work.items() > 1);
    let image = image.and_then(|item| board.info.plan.work.image(item));
    let stage = work.stage.map_or("starting", Stage::as_str);
    // What has arrived completely is being unpacked.
    let is_whole = matches!(work.arrived, Some((there, Some(total))) if there >= total);
    let stage = match work.stage {
        Some(Stage::Pull) if is_whole => "unpack",
        _ => stage,
    };
    let what = image.map_or(stage.into(), |image| format!("{stage} {}", short(image)));
    let took = Duration::from_secs(now.saturating_sub(work.since).as_secs());
    let arrived = work.arrived.map(|(there, total)| {
        let of = total.map_or(String::new(), |total| {
            format!(" of {}", format_bytes(total))
        });
        format!("{}{of}", format_bytes(there))
    });
    let share = work.arrived.and_then(|(there, total)| {
        let total = total.filter(|total| *total > 0)?;
        Some(bar(there as f64 / total as f64, 10, view))
    });
    let rate = work.arrived.and_then(|_| work.meter.rate(now));
    let rate = rate.map(|rate| format!("{}/s", format_bytes(rate)));
    let note = board
        .again
        .get(&node)
        .map(|again| format!("try {}", again.attempt));
    vec![
        name(board, node),
        what,
        arrived.unwrap_or_default(),
        share.unwrap_or_default(),
        rate.unwrap_or_default(),
        format_duration(took),
        note.unwrap_or_default(),
    ]
}

/// The image without its registry and the path there: what tells a run's images apart.
fn short(image: &Image) -> String {
    let whole = image.to_string();
    let name = whole
        .rsplit_once('/')
        .map_or(whole.as_str(), |(_, name)| name);
    escape_truncated(name, 30).into_owned()
}

/// Makes the columns equally wide, numbers to the right, and leaves out what does not fit `width`.
fn fit_columns(rows: &mut [Vec<String>], width: usize) {
    let columns = rows.first().map_or(0, Vec::len);
    let mut widths: Vec<usize> = (0..columns)
        .map(|column| {
            let cells = rows.iter().map(|row| measure_text_width(&row[column]));
            cells.max().unwrap_or(0)
        })
        .collect();
    let needed = |widths: &[usize]| {
        widths
            .iter()
            .filter(|w| **w > 0)
            .map(|w| w + 2)
            .sum::<usize>()
    };
    for column in DISPENSABLE {
        if needed(&widths) > width {
            widths[column] = 0;
        }
    }
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate();
        let kept = cells.filter(|(_, (_, width))| **width > 0);
        *row = kept
            .map(|(column, (cell, &width))| {
                let padding = " ".repeat(width.saturating_sub(measure_text_width(cell)));
                match column {
                    ARRIVED | RATE => format!("{padding}{cell}"),
                    _ => format!("{cell}{padding}"),
                }
            })
            .collect();
    }
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
