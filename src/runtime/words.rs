//! Picks the telling lines out of what a command printed, and makes them fit to be shown.

use crate::model::text::capped;

/// The longest detail of a failure, in bytes.
const DETAIL_LIMIT: usize = 2000;

/// Of a longer output only the end is read: errors come last.
const READ_LIMIT: usize = 64 * 1024;

/// The most lines of one detail: an HTML page must not become a report.
const DETAIL_LINES: usize = 4;

/// Lines that sudo prints although it then runs the command.
const SUDO_WARNINGS: [&str; 2] = ["sudo: unable to resolve host", "sudo: setrlimit("];

/// The lines of an output without colours, empty lines and sudo's warnings.
pub(super) fn lines(bytes: &[u8]) -> Vec<String> {
    let start = bytes.len().saturating_sub(READ_LIMIT);
    String::from_utf8_lossy(&bytes[start..])
        .split(['\n', '\r'])
        .map(|line| without_colours(line).trim_end().to_string())
        .filter(|line| !line.is_empty() && !SUDO_WARNINGS.iter().any(|w| line.starts_with(w)))
        .collect()
}

/// Drops terminal sequences of the form `ESC [ ... letter`: a runtime under a pty colours its errors.
fn without_colours(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        if character != '\u{1b}' {
            out.push(character);
        } else if characters.next() == Some('[') {
            // The sequence ends with a byte from @ to ~.
            for inside in characters.by_ref() {
                if ('@'..='~').contains(&inside) {
                    break;
                }
            }
        }
    }
    out
}

/// A few lines as one, without anything secret, at most about 2 KB.
pub(super) fn detail(lines: &[String]) -> String {
    let mut text = lines
        .iter()
        .take(DETAIL_LINES)
        .map(|line| without_secrets(line))
        .collect::<Vec<_>>()
        .join("; ");
    if lines.len() > DETAIL_LINES {
        text.push_str("; ...");
    }
    capped(text.as_bytes(), DETAIL_LIMIT)
}

/// Blanks what would let a reader in: the query of an address (it may be signed), a password before its
/// host, and the values that prepull itself handed over.
///
/// No runtime was seen to print the latter; a shell or proxy that repeats its environment might.
fn without_secrets(line: &str) -> String {
    let mut hide_next = false;
    line.split(' ')
        .map(|word| {
            let lower = word.to_ascii_lowercase();
            if hide_next && !word.is_empty() {
                hide_next = false;
                return "[redacted]".to_string();
            }
            // `Authorization: Basic VALUE`; "basic auth credentials" is a common message, not a value.
            hide_next = lower.ends_with("bearer")
                || lower == "\"auth\":"
                || (lower.ends_with("basic")
                    && line.to_ascii_lowercase().contains("authorization:"));
            for key in ["crictl_auth=", "crictl_creds=", "\"auth\":\""] {
                if let Some(at) = lower.find(key) {
                    return format!("{}[redacted]", &word[..at + key.len()]);
                }
            }
            without_query(word)
        })
        .collect::<Vec<_>>()
        .join(" ")
}

fn without_query(word: &str) -> String {
    let Some(scheme) = word.find("://") else {
        return word.to_string();
    };
    let (before, address) = word.split_at(scheme + 3);
    let host_end = address.find(['/', '?', '"']).unwrap_or(address.len());
    let address = match address[..host_end].rfind('@') {
        Some(at) => format!("[redacted]{}", &address[at..]),
        None => address.to_string(),
    };
    match address.split_once('?') {
        Some((path, query)) => {
            let tail_at = query
                .rfind(|c: char| !"\":,;)".contains(c))
                .map_or(0, |last| {
                    last + query[last..].chars().next().map_or(1, char::len_utf8)
                });
            format!("{before}{path}?[redacted]{}", &query[tail_at..])
        }
        None => format!("{before}{address}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_empty_lines_and_sudos_warnings_are_dropped() {
        let bytes = b"sudo: unable to resolve host n1: Name or service not known\n\x1b[31mERRO\x1b[0m[0000] no\n\n";
        assert_eq!(lines(bytes), ["ERRO[0000] no"]);
    }

    #[test]
    fn nothing_that_opens_a_door_is_shown() {
        for (line, hidden) in [
            ("Get \"https://cdn.example/b?X-Sig=s3cret\": EOF", "s3cret"),
            ("Get \"https://ci:s3cret@reg.example/v2/\": EOF", "s3cret"),
            ("sh: CRICTL_AUTH=s3cret: bad variable", "s3cret"),
            ("{\"auths\":{\"r\":{\"auth\":\"s3cret\"}}}", "s3cret"),
            ("header Authorization: Basic s3cret refused", "s3cret"),
            ("header Authorization: Bearer s3cret refused", "s3cret"),
        ] {
            let shown = detail(&[line.to_string()]);
            assert!(!shown.contains(hidden), "{shown}");
            assert!(shown.contains("[redacted]"), "{shown}");
        }
        assert_eq!(
            detail(&["Get \"https://cdn.example/b?X-Sig=s3cret\": EOF".into()]),
            "Get \"https://cdn.example/b?[redacted]\": EOF"
        );
        let harmless = "Head \"http://reg.example/v2/app/manifests/v1\": no basic auth credentials";
        assert_eq!(detail(&[harmless.to_string()]), harmless);
    }

    #[test]
    fn a_long_page_is_cut() {
        let page: Vec<String> = (0..50)
            .map(|n| format!("{n} {}", "x".repeat(900)))
            .collect();
        let shown = detail(&page);
        assert!(shown.len() < 2100, "{}", shown.len());
        assert!(shown.ends_with("[cut]"));
        assert!(detail(&page[..1]).len() < 910);
    }
}
