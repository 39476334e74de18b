//! The commands to run next, as they can be pasted into a shell.

use super::RunResult;
use super::document::{NodeStatus, digests_agree, node_status};
use super::styled::Line;
use crate::model::text::{escape_line, format_count};
use crate::model::{Work, fold};

/// How many characters of names a command may have.
const LIMIT: usize = 2000;

/// What mends different digests, what pulls images that a check did not find, and what does again what is open. A line
/// each.
pub(super) fn next_commands(result: &RunResult) -> Vec<Line> {
    let info = &result.info;
    let nodes: Vec<_> = info.plan.fleet.nodes().iter().zip(&result.nodes).collect();
    let those = |is_one: &dyn Fn(NodeStatus) -> bool| -> Vec<&str> {
        let found = nodes
            .iter()
            .filter(|(_, record)| is_one(node_status(record)));
        found.map(|(node, _)| node.name.as_str()).collect()
    };
    let open = those(&|status| matches!(status, NodeStatus::Failed | NodeStatus::NotRun));
    let absent = those(&|status| status == NodeStatus::Missing);
    let mut out = Vec::new();
    let mut add = |what: &str, command: String| {
        out.push(Line::new(0).text(format!("{what}: ")).command(command));
    };
    if !digests_agree(result) {
        if let Some(command) = command(result, Change::PullAlways, None) {
            add("To give every node what the registry has now", command);
        }
    } else if !absent.is_empty()
        && let Some(command) = command(result, Change::Pull, Some(&absent))
    {
        let on = format_count(absent.len(), "node");
        add(&format!("To pull what is missing on {on}"), command);
    }
    if open.is_empty() {
        return out;
    }
    let these = match open.len() {
        1 => "this node",
        _ => "these nodes",
    };
    if let Some(command) = &info.resume {
        add(&format!("Retry just {these}"), command.clone());
    } else if let Some(command) = command(result, Change::None, Some(&open)) {
        match open.len() == nodes.len() {
            true => add("To try again", command),
            false => add(&format!("Just {these} again"), command),
        }
    }
    out
}

/// What another command does than the run's own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    None,
    /// It pulls. All options of a check are a pull's, too.
    Pull,
    /// It pulls what nodes hold already, too.
    PullAlways,
}

/// The run's own command, changed, for these nodes or for all. `None` where it is not known.
fn command(result: &RunResult, change: Change, nodes: Option<&[&str]>) -> Option<String> {
    let words = &result.info.words;
    let end = words.iter().position(|word| word == "--");
    let (options, rest) = words.split_at(end.unwrap_or(words.len()));
    let [program, own, options @ ..] = options else {
        return None;
    };
    let all = result.nodes.len();
    let mut options = options.to_vec();
    let mut how = "";
    // With the limit that it had it means all nodes again.
    if let Some(nodes) = nodes.filter(|nodes| nodes.len() < all) {
        without(&mut options, "--limit");
        let folded: Vec<String> = fold(nodes).into_iter().map(|(text, _)| text).collect();
        let mut limit = folded.join(",");
        if limit.len() > LIMIT {
            limit = "@FILE".into();
            how = "  (with their names in FILE, one a line)";
        }
        options.extend(["--limit".into(), limit]);
    }
    if change == Change::PullAlways {
        without(&mut options, "--pull");
        options.extend(["--pull".into(), "always".into()]);
    }
    let verb = match (&result.info.plan.work, change) {
        (Work::Check(_), Change::Pull | Change::PullAlways) => "pull",
        _ => own,
    };
    let words = [program.as_str(), verb].into_iter();
    let words = words.chain(options.iter().chain(rest).map(String::as_str));
    let words: Vec<String> = words.map(quoted).collect();
    Some(words.join(" ") + how)
}

/// Takes every occurrence of an option away, with its value.
fn without(options: &mut Vec<String>, option: &str) {
    let mut is_value = false;
    options.retain(|word| {
        if std::mem::take(&mut is_value) {
            return false;
        }
        is_value = word == option;
        let is_both = word
            .strip_prefix(option)
            .is_some_and(|rest| rest.starts_with('='));
        !is_value && !is_both
    });
}

/// A word as a shell takes it. What a terminal would obey is escaped, and the word with it no longer the same.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_string();
    }
    format!("'{}'", escape_line(word).replace('\'', r"'\''"))
}
