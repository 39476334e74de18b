//! Text that came from a node or a file: capped, decoded without trust, and escaped before it is shown.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

/// Escapes everything that could move a cursor, recolour, reorder or hide text on a terminal or in a
/// report: C0 and C1 controls, DEL, and Unicode's bidirectional and invisible format characters.
///
/// A tab becomes a space; a newline is escaped too, so the result is always one line.
pub fn escape_line(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hostile) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '\t' => out.push(' '),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            other if is_hostile(other) => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{{{:x}}}", u32::from(other));
            }
            other => out.push(other),
        }
    }
    Cow::Owned(out)
}

/// [`escape_line`] for a text of several lines, which stay lines.
pub fn escape_multiline(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(escape_line).collect();
    lines.join("\n")
}

fn is_hostile(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// The bytes as text, at most `limit` bytes of them, broken sequences replaced.
///
/// Where something is cut, the end says so.
pub fn truncate_bytes(bytes: &[u8], limit: usize) -> String {
    if bytes.len() <= limit {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let mut text = String::from_utf8_lossy(&bytes[..limit]).into_owned();
    text.push_str(" [cut]");
    text
}

/// Bytes for people, in powers of 1000 as registries and disks count them: `80.0 MB`.
pub fn format_bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if number < 1000 {
        return format!("{number} B");
    }
    let mut size = number as f64 / 1000.0;
    let mut unit = UNITS[0];
    for larger in &UNITS[1..] {
        // 999.95 would be shown as 1000.0.
        if size < 999.95 {
            break;
        }
        size /= 1000.0;
        unit = larger;
    }
    format!("{size:.1} {unit}")
}

/// "1 node", "2 nodes": a count with its noun.
pub fn format_count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// A length of time for people: "4.2s", "12s", "2m 31s", "1h 03m", "2d 04h".
pub fn format_duration(time: Duration) -> String {
    // What would be shown as 10.0s.
    if time < Duration::from_millis(9950) && time.subsec_nanos() > 0 {
        return format!("{:.1}s", time.as_secs_f64());
    }
    let seconds = time.saturating_add(Duration::from_millis(500)).as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    if minutes == 0 {
        format!("{seconds}s")
    } else if hours == 0 {
        format!("{minutes}m {:02}s", seconds % 60)
    } else if days == 0 {
        format!("{hours}h {:02}m", minutes % 60)
    } else {
        format!("{days}d {:02}h", hours % 24)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_two_units_at_most() {
        let shown = [
            0,
            4_240,
            9_949,
            9_950,
            59_499,
            59_500,
            151_000,
            3_599_500,
            3_780_000,
            187_200_000,
        ]
        .map(|millis| format_duration(Duration::from_millis(millis)));
        let wanted = [
            "0s", "4.2s", "9.9s", "10s", "59s", "1m 00s", "2m 31s", "1h 00m", "1h 03m", "2d 04h",
        ];
        assert_eq!(shown, wanted);
    }

    #[test]
    fn bytes_have_three_or_four_digits() {
        let shown = [0, 999, 1000, 80_028_485, 999_960_000, 12_345_678_901].map(format_bytes);
        assert_eq!(
            shown,
            ["0 B", "999 B", "1.0 kB", "80.0 MB", "1.0 GB", "12.3 GB"]
        );
    }

    #[test]
    fn plain_text_is_not_copied() {
        assert!(matches!(escape_line("größe 你好"), Cow::Borrowed(_)));
    }

    #[test]
    fn terminal_escapes_and_bidi_tricks_lose_their_power() {
        let shown = escape_line("a\u{1b}[2Jb\rc\nd\u{202e}e\u{9b}f\tg");
        assert_eq!(shown, "a\\u{1b}[2Jb\\rc\\nd\\u{202e}e\\u{9b}f g");
    }

    #[test]
    fn cut_text_says_that_it_was_cut() {
        assert_eq!(truncate_bytes(b"abcdef", 3), "abc [cut]");
        assert_eq!(truncate_bytes(b"abc", 3), "abc");
        assert_eq!(truncate_bytes(b"\xff\xfe", 10), "\u{fffd}\u{fffd}");
    }

    #[test]
    fn counts_agree_with_their_noun() {
        assert_eq!(format_count(1, "node"), "1 node");
        assert_eq!(format_count(0, "node"), "0 nodes");
    }
}
