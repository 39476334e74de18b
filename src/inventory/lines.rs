//! Host expressions as a source: `-H`, and files with one or more expressions a line.

use super::draft::{Draft, Mention};
use super::error::{InputError, InventoryError, Position, shortened};
use super::hosts::{self, ExpressionError, HostSpec, NODE_LIMIT};
use super::layers::NodeSettings;
use super::sets::{self, HostSet, Term};

/// What errors call the command line's expressions.
const OPTION: &str = "--hosts";

/// Reads one `-H`: the hosts of its own text, and of the files it names (`^FILE`), in one draft a source.
///
/// `listed` reads such a file; `grouped` looks up a group of ClusterShell (`@GROUP`), which may have so many hosts.
pub(super) fn read_option(
    text: &str,
    listed: impl Fn(&str) -> Result<Draft, InventoryError>,
    grouped: impl Fn(&str, usize) -> Result<Vec<HostSpec>, InputError>,
) -> Result<Vec<Draft>, InventoryError> {
    let explain = |error: ExpressionError| InventoryError {
        excerpt: Some(text.to_string()),
        ..located(OPTION, 1, error)
    };
    let mut sources = vec![OPTION.to_string()];
    let mut found = HostSet::new(NODE_LIMIT);
    for Term { operator, piece } in sets::terms(text).map_err(explain)? {
        let hosts = match piece.text.strip_prefix('^').map(str::trim) {
            Some(path) if !path.is_empty() => {
                let draft = listed(path)?;
                sources.push(draft.source);
                let mentions = draft.mentions.into_iter();
                mentions
                    .map(|mention| (spec(&mention), (sources.len() - 1, mention.place)))
                    .collect()
            }
            _ => {
                let place = Position {
                    line: 1,
                    column: shortened(piece.at + 1),
                };
                let room = found.room(operator);
                let hosts = if piece.text.starts_with('@') {
                    let at = piece.at;
                    grouped(piece.text, room).map_err(|fault| ExpressionError { at, fault })
                } else {
                    hosts::expand_piece(&piece, room)
                };
                let hosts = hosts.map_err(explain)?;
                hosts.into_iter().map(|spec| (spec, (0, place))).collect()
            }
        };
        let at = piece.at;
        found
            .apply(operator, hosts)
            .map_err(|fault| explain(ExpressionError { at, fault }))?;
    }
    let mut drafts: Vec<Draft> = Vec::new();
    let mut last = None;
    for (spec, (source, place)) in found.into_entries() {
        if last != Some(source) {
            drafts.push(new_draft(&sources[source]));
            last = Some(source);
        }
        if let Some(draft) = drafts.last_mut() {
            draft.mentions.push(mention(spec, place));
        }
    }
    if drafts.is_empty() {
        return Err(explain(ExpressionError {
            at: 0,
            fault: InputError::new("nothing is left of this expression")
                .with_hint("check what stands after ! and &"),
        }));
    }
    Ok(drafts)
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
        let place = Position {
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
        expressions: true,
        ..Draft::default()
    }
}

fn located(source: &str, line: u32, error: ExpressionError) -> InventoryError {
    let place = Position {
        line,
        column: shortened(error.at + 1),
    };
    InventoryError::at(source, place, error.fault)
}

fn spec(mention: &Mention) -> HostSpec {
    HostSpec {
        user: mention.settings.user.clone(),
        host: mention.name.clone(),
        port: mention.settings.port,
    }
}

fn mention(spec: HostSpec, place: Position) -> Mention {
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
        let error = read_option("web-1, node[a-3]", no_file, no_group).unwrap_err();
        let shown = error.to_string();
        assert!(shown.starts_with("--hosts:1:13: "), "{shown}");
        assert!(
            shown.ends_with("\n  web-1, node[a-3]\n              ^"),
            "{shown}"
        );
    }

    fn no_group(text: &str, _: usize) -> Result<Vec<HostSpec>, InputError> {
        panic!("{text} was looked up")
    }

    #[test]
    fn a_group_takes_part_in_the_operators() {
        let grouped = |text: &str, _: usize| match text {
            "@gpu" => Ok(hosts::expand("n[2-3]").unwrap()),
            other => Err(InputError::new(format!("no {other}"))),
        };
        let named = |text: &str| {
            let drafts = read_option(text, no_file, grouped)?;
            let mentions = drafts.into_iter().flat_map(|draft| draft.mentions);
            Ok::<_, InventoryError>(mentions.map(|mention| mention.name).collect::<Vec<_>>())
        };
        assert_eq!(named("n[1-4]!@gpu").unwrap(), ["n1", "n4"]);
        assert_eq!(named("@gpu,n9").unwrap(), ["n2", "n3", "n9"]);
        let error = named("n1, @cpu").unwrap_err().to_string();
        assert!(
            error.starts_with("--hosts:1:5: no @cpu\n  n1, @cpu\n      ^"),
            "{error}"
        );
    }

    fn no_file(path: &str) -> Result<Draft, InventoryError> {
        panic!("{path} was read")
    }

    fn named(drafts: &[Draft]) -> Vec<(&str, &str, u32)> {
        let mentions = drafts.iter().flat_map(|draft| {
            let mentions = draft.mentions.iter();
            mentions.map(|m| (draft.source.as_str(), m.name.as_str(), m.place.line))
        });
        mentions.collect()
    }

    #[test]
    fn a_file_takes_part_in_the_operators() {
        let listed = |path: &str| read_file("# down\nn2\nn9\n", path);
        let drafts = read_option("n[1-3]!^down.txt", listed, no_group).unwrap();
        assert_eq!(named(&drafts), [("--hosts", "n1", 1), ("--hosts", "n3", 1)]);
        let drafts = read_option("n[1-2]^^down.txt,m", listed, no_group).unwrap();
        assert_eq!(
            named(&drafts),
            [
                ("--hosts", "n1", 1),
                ("down.txt", "n9", 3),
                ("--hosts", "m", 1)
            ]
        );
        let error = read_option("n1!n1", no_file, no_group)
            .unwrap_err()
            .to_string();
        assert!(error.contains("nothing is left"), "{error}");
    }
}
