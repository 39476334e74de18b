//! Picks the telling lines out of what a command printed, and makes them fit to be shown.

use crate::model::CommandOutput;
use crate::model::redact::redact;
use crate::model::text::truncate_bytes;

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
        .map(|line| without_shell(without_colours(line).trim_end()).to_string())
        .filter(|line| !line.is_empty() && !SUDO_WARNINGS.iter().any(|w| line.starts_with(w)))
        .collect()
}

/// Reads which client is called and its socket: lines `client WORDS` and `SCHEME://PATH`. `client` where none is named.
pub(super) fn client_and_socket(output: &CommandOutput, client: &str) -> (String, Option<String>) {
    let lines = lines(&output.stdout);
    let fit = |text: &str| truncate_bytes(text.as_bytes(), 200);
    let named = lines.iter().find_map(|line| line.strip_prefix("client "));
    let socket = lines
        .iter()
        .find(|line| output.success() && line.contains('/'));
    (
        fit(named.unwrap_or(client)),
        socket.map(|socket| fit(socket)),
    )
}

/// Whether a line reports something that the client could live with (an unreadable config.json, for one): shown,
/// but no reason for the failure.
pub(super) fn is_warning(line: &str) -> bool {
    let is_logged = ["warning", "info", "debug"]
        .iter()
        .any(|level| log_message(line, level).is_some());
    is_logged || line.starts_with("WARNING") || line.starts_with("Warning:")
}

/// The message of a line that logrus wrote at this level: `time=... level=error msg="..."`, or `ERRO[0000] ...` on a
/// terminal.
pub(super) fn log_message(line: &str, level: &str) -> Option<String> {
    if let Some((_, rest)) = line.split_once(" level=") {
        let message = rest.strip_prefix(level)?.strip_prefix(" msg=")?;
        return Some(unquoted(message));
    }
    let short = level.get(..4)?.to_ascii_uppercase();
    let rest = line.strip_prefix(&short)?.strip_prefix('[')?;
    rest.split_once("] ")
        .map(|(_, message)| message.to_string())
}

/// Takes Go's quoting (`%q`) away: the text between the quotes.
pub(super) fn unquoted(message: &str) -> String {
    let Some(quoted) = message.strip_prefix('"') else {
        return message.to_string();
    };
    let mut out = String::with_capacity(quoted.len());
    let mut characters = quoted.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => break,
            '\\' => match characters.next() {
                Some('n' | 'r') => out.push('\n'),
                Some('t') => out.push(' '),
                Some(plain @ ('"' | '\\')) => out.push(plain),
                // Other escapes stay as they are: they stand for bytes that must not be shown raw.
                Some(other) => out.extend(['\\', other]),
                None => break,
            },
            other => out.push(other),
        }
    }
    out
}

/// A line without what a client said of its own later tries: the first failure is the cause.
///
/// containers/image asks again for the rest of a layer that broke off, perhaps at an address that has run out by then
/// (`docker/body_reader.go`), and names the mirrors that it tried before (`docker/docker_image_src.go`). CRI-O takes an
/// image that it cannot pull for an artifact (`internal/storage/image.go`).
pub(super) fn first_failure(line: &str) -> String {
    let end = [
        "(after reconnecting",
        "(while reconnecting",
        "; artifact err: ",
    ]
    .iter()
    .filter_map(|later| line.find(later))
    .min()
    .unwrap_or(line.len());
    let line = &line[..end];
    let Some(start) = line.find("(Mirrors also failed: [") else {
        return line.to_string();
    };
    match line[start..].find("]): ") {
        Some(length) => [&line[..start], &line[start + length + 4..]].concat(),
        None => line.to_string(),
    }
}

/// Drops what a shell says of itself where it finds no client (`sh: 166: exec: crictl: not found`): the line is one of
/// our own program.
fn without_shell(line: &str) -> &str {
    let Some((before, after)) = line.split_once("exec: ") else {
        return line;
    };
    let of_a_shell = |word: &str| {
        let word = word.trim_end_matches(':');
        word.ends_with("sh") || word == "line" || word.bytes().all(|b| b.is_ascii_digit())
    };
    if before.is_empty() || !before.split_whitespace().all(of_a_shell) {
        return line;
    }
    // busybox's names the line after that.
    match after
        .strip_prefix("line ")
        .and_then(|rest| rest.split_once(": "))
    {
        Some((_, after)) => after,
        None => after,
    }
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
        .map(|line| without_secrets(&redact(line)))
        .collect::<Vec<_>>()
        .join("; ");
    if lines.len() > DETAIL_LINES {
        text.push_str("; ...");
    }
    truncate_bytes(text.as_bytes(), DETAIL_LIMIT)
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
    fn gos_quoting_is_taken_away_and_control_bytes_stay_escaped() {
        assert_eq!(
            unquoted(r#""a \"b\" c\nd \\ \x1b" rest"#),
            "a \"b\" c\nd \\ \\x1b"
        );
        assert_eq!(unquoted("bare words"), "bare words");
        assert_eq!(unquoted("\"open end\\"), "open end");
    }

    #[test]
    fn a_line_that_was_logged_gives_its_message_at_its_own_level_only() {
        let line = r#"time="x" level=warning msg="Failed, retrying in 1s" file=a.go"#;
        assert_eq!(
            log_message(line, "warning").as_deref(),
            Some("Failed, retrying in 1s")
        );
        assert_eq!(log_message(line, "error"), None);
        assert!(is_warning(line));
        assert_eq!(log_message("ERRO[0002] no", "error").as_deref(), Some("no"));
        assert!(is_warning("WARN[0000] as it is"));
        assert!(!is_warning("ERRO[0002] no"));
        assert!(!is_warning("Error: level=warning"));
    }

    #[test]
    fn what_a_client_said_of_its_later_tries_is_left_out() {
        for (line, first) in [
            (
                "happened during read: unexpected EOF (after reconnecting, fetching blob: StatusCode: 404)",
                "happened during read: unexpected EOF ",
            ),
            (
                "happened during read: EOF (while reconnecting: Get x: denied)",
                "happened during read: EOF ",
            ),
            (
                "pull image err: reading manifest: denied; artifact err: not an OCI artifact",
                "pull image err: reading manifest: denied",
            ),
            (
                "initializing source x: (Mirrors also failed: [m/x: reading manifest: manifest unknown]): r/x: EOF",
                "initializing source x: r/x: EOF",
            ),
            ("nothing of the kind", "nothing of the kind"),
        ] {
            assert_eq!(first_failure(line), first);
        }
    }

    #[test]
    fn a_line_of_our_own_program_is_not_told() {
        for (line, told) in [
            ("sh: 166: exec: crictl: not found", "crictl: not found"),
            ("sh: line 166: exec: docker: not found", "docker: not found"),
            ("/bin/sh: 7: exec: crictl: not found", "crictl: not found"),
            ("sh: exec: line 9: docker: not found", "docker: not found"),
            ("sh: 1: docker: not found", "sh: 1: docker: not found"),
            (
                "OCI runtime exec: failed: not found",
                "OCI runtime exec: failed: not found",
            ),
            ("exec: \"x\": not found", "exec: \"x\": not found"),
        ] {
            assert_eq!(lines(line.as_bytes()), [told]);
        }
    }

    #[test]
    fn nothing_that_opens_a_door_is_shown() {
        for (line, hidden) in [
            ("Get \"https://cdn.example/b?X-Sig=s3cret\": EOF", "s3cret"),
            ("Get \"https://ci:s3cret@reg.example/v2/\": EOF", "s3cret"),
            ("sh: CRICTL_AUTH=s3cret: bad variable", "s3cret"),
            ("{\"auths\":{\"r\":{\"auth\":\"s3cret\"}}}", "s3cret"),
            // A credential helper of the node's own that failed, as docker reports it.
            (
                "error getting credentials - err: exit status 1, out: `{\"Username\":\"ci\",\"Secret\":\"s3cret\"}`",
                "s3cret",
            ),
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
