//! Files as Python's `configparser` reads them: the configuration of Ansible and of ClusterShell.

use super::error::{Position, shortened};

/// One option: its section, its name in lower case, and its value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) section: String,
    pub(super) key: String,
    pub(super) value: String,
    pub(super) place: Position,
}

/// All options in order. Lines that are none are left out: whose file it is will complain of them.
///
/// `comment_sign` starts a comment after a space within a line, where the program has it so.
pub(super) fn parse(text: &str, comment_sign: Option<char>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut section = String::new();
    let mut indent = 0;
    for (index, raw) in text.lines().enumerate() {
        let line = without_comment(raw, comment_sign).trim_end();
        let bare = line.trim_start();
        if bare.is_empty() || bare.starts_with(['#', ';']) {
            continue;
        }
        let depth = line.len() - bare.len();
        let last = entries.last_mut().filter(|entry| entry.section == section);
        if let Some(entry) = last.filter(|_| depth > indent) {
            entry.value.push('\n');
            entry.value.push_str(bare);
            continue;
        }
        indent = depth;
        if let Some((name, _)) = bare.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            section = name.to_string();
        } else if let Some(at) = bare.find(['=', ':']) {
            entries.push(Entry {
                section: section.clone(),
                key: bare[..at].trim().to_ascii_lowercase(),
                value: bare[at + 1..].trim().to_string(),
                place: Position {
                    line: shortened(index + 1),
                    column: shortened(depth + 1),
                },
            });
        }
    }
    entries
}

fn without_comment(line: &str, sign: Option<char>) -> &str {
    let Some(sign) = sign else { return line };
    let mut before = ' ';
    for (at, character) in line.char_indices() {
        if character == sign && before.is_whitespace() {
            return &line[..at];
        }
        before = character;
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_as_python_reads_them() {
        let text = "# a comment\n[Defaults]\nRemote_User = ops ; me\nargs: -o A=1\n   -o B=2\n\nempty =\n[other]\n; x = 1\nurl=a;b\n";
        let entries = parse(text, Some(';'));
        let seen: Vec<_> = entries
            .iter()
            .map(|entry| {
                (
                    entry.section.as_str(),
                    entry.key.as_str(),
                    entry.value.as_str(),
                    entry.place.line,
                )
            })
            .collect();
        assert_eq!(
            seen,
            [
                ("Defaults", "remote_user", "ops", 3),
                ("Defaults", "args", "-o A=1\n-o B=2", 4),
                ("Defaults", "empty", "", 7),
                ("other", "url", "a;b", 10),
            ]
        );
        assert_eq!(parse("[a]\nx = 1 ; y\n", None)[0].value, "1 ; y");
    }
}
