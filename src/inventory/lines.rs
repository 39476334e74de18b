//! Host expressions as a source: `-H`, and files with one or more expressions a line.

use super::draft::{Draft, Mention};
use super::error::{InventoryError, Place, shortened};
use super::hosts::{self, ExpressionError, HostSpec, NODE_LIMIT};
use super::levels::NodeSettings;

/// What errors call the command line's expressions.
const OPTION: &str = "--hosts";

/// One part of a `-H` expression.
pub(super) enum Part {
    /// These hosts.
    Hosts(Draft),
    /// `^FILE`: the hosts in this file.
    File(String),
}

/// Reads one `-H`, leaving the files it names to the caller.
pub(super) fn read_option(text: &str) -> Result<Vec<Part>, InventoryError> {
    let explain = |error: ExpressionError| InventoryError {
        excerpt: Some(text.to_string()),
        ..located(OPTION, 1, error)
    };
    let mut parts = Vec::new();
    let mut hosts = new_draft(OPTION);
    for piece in hosts::pieces(text).map_err(explain)? {
        if let Some(path) = piece.text.strip_prefix('^').filter(|path| !path.is_empty()) {
            parts.push(Part::Hosts(std::mem::replace(
                &mut hosts,
                new_draft(OPTION),
            )));
            parts.push(Part::File(path.to_string()));
            continue;
        }
        let room = NODE_LIMIT.saturating_sub(hosts.mentions.len());
        let found = hosts::expand_within(piece.text, room).map_err(|mut error| {
            error.at += piece.at;
            explain(error)
        })?;
        let place = Place {
            line: 1,
            column: shortened(piece.at + 1),
        };
        hosts
            .mentions
            .extend(found.into_iter().map(|spec| mention(spec, place)));
    }
    parts.push(Part::Hosts(hosts));
    Ok(parts)
}

/// Reads a file of expressions: one or more a line, `#` starts a comment.
pub(super) fn read_file(text: &str, name: &str) -> Result<Draft, InventoryError> {
    let mut draft = new_draft(name);
    for (index, line) in text.lines().enumerate() {
        let said = line.split_once('#').map_or(line, |(said, _)| said);
        if said.trim().is_empty() {
            continue;
        }
        let number = shortened(index + 1);
        let room = NODE_LIMIT.saturating_sub(draft.mentions.len());
        let found =
            hosts::expand_within(said, room).map_err(|error| located(name, number, error))?;
        let place = Place {
            line: number,
            column: 1,
        };
        draft
            .mentions
            .extend(found.into_iter().map(|spec| mention(spec, place)));
    }
    Ok(draft)
}

fn new_draft(source: &str) -> Draft {
    Draft {
        source: source.to_string(),
        ..Draft::default()
    }
}

fn located(source: &str, line: u32, error: ExpressionError) -> InventoryError {
    let place = Place {
        line,
        column: shortened(error.at + 1),
    };
    InventoryError::at(source, place, error.fault)
}

fn mention(spec: HostSpec, place: Place) -> Mention {
    Mention {
        name: spec.host,
        address: None,
        settings: NodeSettings {
            user: spec.user,
            port: spec.port,
            ..NodeSettings::default()
        },
        groups: Vec::new(),
        place,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_empty_lines_are_skipped() {
        let draft = read_file("# fleet\n\nops@a[1-2]:2222 # two\r\nb, c\n", "hosts.txt").unwrap();
        let names: Vec<_> = draft
            .mentions
            .iter()
            .map(|m| (m.name.as_str(), m.place.line))
            .collect();
        assert_eq!(names, [("a1", 3), ("a2", 3), ("b", 4), ("c", 4)]);
        assert_eq!(draft.mentions[0].settings.port, Some(2222));
    }

    #[test]
    fn a_bad_line_is_told_with_its_place() {
        let error = read_file("a\n  b[x]\n", "hosts.txt").unwrap_err();
        assert!(error.to_string().starts_with("hosts.txt:2:5: "), "{error}");
        let error = read_file("^other\n", "hosts.txt").unwrap_err();
        assert!(error.to_string().contains("--hosts"), "{error}");
    }

    #[test]
    fn a_bad_option_is_shown_with_a_caret() {
        let Err(error) = read_option("web-1, node[a-3]") else {
            panic!()
        };
        let shown = error.to_string();
        assert!(shown.starts_with("--hosts:1:13: "), "{shown}");
        assert!(
            shown.ends_with("\n  web-1, node[a-3]\n              ^"),
            "{shown}"
        );
    }
}
