//! How a node's words and lengths of time are written.

use std::borrow::Cow;
use std::time::Duration;

use crate::model::text::escape_line;
use crate::model::{Policy, PullVia};

/// A node's words on one line, escaped and at most `limit` characters.
pub fn escape_truncated(text: &str, limit: usize) -> Cow<'_, str> {
    let text = text.trim();
    // Cut first, so that a huge text is not escaped only to be thrown away; escaping lengthens, so cut again.
    let start = text
        .char_indices()
        .nth(limit)
        .map_or(text, |(at, _)| &text[..at]);
    let escaped = escape_line(start);
    if start.len() == text.len() && escaped.chars().count() <= limit {
        return escaped;
    }
    Cow::Owned(
        escaped
            .chars()
            .take(limit)
            .chain(" [cut]".chars())
            .collect(),
    )
}

/// Like [`escape_truncated`], for the words of a failure: what is too long loses its middle. Runtimes nest their
/// messages, so the cause stands at the end.
pub fn truncate_middle(text: &str, limit: usize) -> Cow<'_, str> {
    let text = text.trim();
    let first = limit / 3;
    let last = limit - first;
    let (Some((head_end, _)), Some((tail_start, _))) = (
        text.char_indices().nth(first),
        text.char_indices().rev().nth(last.saturating_sub(1)),
    ) else {
        return escape_truncated(text, limit);
    };
    if tail_start <= head_end {
        return escape_truncated(text, limit);
    }
    let (head, tail) = (&text[..head_end], &text[tail_start..]);
    // Both ends at a word's border, where there is one.
    let head = head.rsplit_once(' ').map_or(head, |(words, _)| words);
    let tail = tail.split_once(' ').map_or(tail, |(_, words)| words);
    Cow::Owned(format!(
        "{} ... {}",
        escape_truncated(head, first),
        escape_truncated(tail, last)
    ))
}

/// What relays get images from.
pub(super) fn source(policy: &Policy) -> &'static str {
    match policy.via {
        PullVia::Registry | PullVia::DaemonSet => "the registry",
        PullVia::Ssh | PullVia::SshOnly => "prepull",
    }
}

/// "1.4"
pub(super) fn tenths(duration: Duration) -> String {
    format!("{:.1}", duration.as_secs_f64())
}

/// "1.4s".
pub fn in_seconds(duration: Duration) -> String {
    tenths(duration) + "s"
}
