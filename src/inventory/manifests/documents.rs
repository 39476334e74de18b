//! A text of manifests as its documents: YAML with `---` between them, or JSON values one after the other.

use super::super::error::{InputError, InventoryError, shortened};
use super::super::yaml::{self, Tree};
use super::super::{json, sources};

/// Schemas of custom resources are deep, and reading them goes as deep into the stack.
const DEPTH: usize = 100;

/// A part of a text, between borders.
struct Chunk<'a> {
    /// The lines of the text before it.
    lines: u32,
    text: &'a str,
}

/// Calls `each` with every document and the number of lines that stand before it in the text.
///
/// # Errors
/// What the parsers say, with its place in the whole text; whatever `each` says.
pub(super) fn each_document(
    text: &str,
    name: &str,
    mut each: impl FnMut(&Tree, u32) -> Result<(), InventoryError>,
) -> Result<(), InventoryError> {
    for chunk in chunks(text) {
        for tree in parse(chunk.text, name).map_err(|error| explained(error, &chunk, name))? {
            each(&tree, chunk.lines)?;
        }
    }
    Ok(())
}

fn parse(text: &str, name: &str) -> Result<Vec<Tree>, InventoryError> {
    let yaml = || yaml::parse_deep(text, name, DEPTH).map(|tree| vec![tree]);
    if !text.trim_start().starts_with('{') {
        return yaml();
    }
    json::parse_many(text, name, DEPTH).or_else(|json| {
        // YAML's `{a: b}` is not JSON.
        yaml().map_err(|yaml| if json::is_meant(text) { json } else { yaml })
    })
}

/// An error with its place in the whole text. Where a template was not rendered, that is what is wrong.
fn explained(error: InventoryError, chunk: &Chunk<'_>, name: &str) -> InventoryError {
    if let Some(line) = action(chunk.text, error.line) {
        return unrendered(name, chunk.lines.saturating_add(line), 0);
    }
    let line = match error.line {
        0 => 0,
        line => line.saturating_add(chunk.lines),
    };
    InventoryError { line, ..error }
}

/// The error about a template that stands where its result should.
pub(super) fn unrendered(name: &str, line: u32, column: u32) -> InventoryError {
    let fault = InputError::new("this is a template that was never rendered")
        .with_hint("give what it renders to: helm template CHART | prepull images -f -");
    let place = super::Position { line, column };
    InventoryError::at(name, place, fault)
}

/// The documents of a text that say something.
fn chunks(text: &str) -> Vec<Chunk<'_>> {
    let mut chunks = Vec::new();
    let (mut start, mut first, mut at) = (0, 0, 0);
    let mut only_directives = false;
    let mut push = |from: usize, to: usize, lines: usize| {
        let text = text[from..to].trim_start_matches('\u{feff}');
        if says_something(text) {
            let lines = shortened(lines);
            chunks.push(Chunk { lines, text });
        }
    };
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let said = line.trim_start_matches('\u{feff}').trim_end();
        let rest = said.strip_prefix("---");
        // Directives belong to the document behind the next border.
        if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t']))
            && !only_directives
        {
            push(start, at, first);
            // A document may begin on the line of its border.
            let behind = if rest == Some("") { line.len() } else { 0 };
            (start, first) = (at + behind, number + usize::from(behind > 0));
        } else if said == "..." {
            push(start, at, first);
            (start, first) = (at + line.len(), number + 1);
        }
        let before = text[start.min(at)..at].trim_start_matches('\u{feff}');
        only_directives = said.starts_with('%') && !says_something(before)
            || only_directives && (said.is_empty() || said.starts_with('#'));
        at += line.len();
    }
    push(start, text.len(), first);
    chunks
}

/// Whether there is more than comments.
pub(super) fn says_something(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim);
    lines.any(|line| {
        let line = line.trim_start_matches('\u{feff}');
        let line = line.strip_prefix("---").map_or(line, str::trim_start);
        !line.is_empty() && !line.starts_with('#') && line != "..."
    })
}

/// The first line, up to the one where the parser gave up, that begins with an action of a Go template or has one for a
/// value. Quoted text, comments and block scalars may hold what looks like one.
fn action(text: &str, last: u32) -> Option<u32> {
    let mut scalar: Option<usize> = None;
    for (number, line) in text.lines().enumerate().take(last as usize) {
        let said = line.trim();
        let indent = line.len() - line.trim_start().len();
        if said.is_empty() || scalar.is_some_and(|outer| indent > outer) {
            continue;
        }
        scalar = None;
        if said.starts_with('#') {
            continue;
        }
        let entry = said.trim_start_matches("- ").trim_start();
        let value = entry.split_once(": ").map(|(_, value)| value.trim_start());
        if entry.starts_with("{{") || value.is_some_and(|value| value.starts_with("{{")) {
            return Some(shortened(number + 1));
        }
        let header = said.split(" #").next().unwrap_or_default().trim_end();
        let header = header.rsplit([' ', ':']).next().unwrap_or_default();
        let marks = |mark: char| matches!(mark, '|' | '>' | '+' | '-' | '0'..='9');
        if header.starts_with(['|', '>']) && header.chars().all(marks) {
            scalar = Some(indent);
        }
    }
    None
}

/// What a command would read this text from.
pub(super) fn file_word(name: &str) -> &str {
    if name == sources::STDIN { "FILE" } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(text: &str) -> Vec<(u32, String)> {
        let mut found = Vec::new();
        each_document(text, "m", |tree, lines| {
            let keys = match &tree.value {
                yaml::Value::Map(entries) => entries
                    .iter()
                    .map(|(key, _)| format!("{}@{}", key.text, key.place.line + lines))
                    .collect(),
                other => vec![format!("{other:?}")],
            };
            found.push((lines, keys.join(" ")));
            Ok(())
        })
        .unwrap();
        found
    }

    #[test]
    fn documents_begin_on_and_after_borders_and_keep_their_lines() {
        for (text, keys) in [
            ("a: 1\n---\nb: 1\n...\nc: 1\n", "a@1 b@3 c@5"),
            ("a: 1\r\n---\r\nb: 1\r\n", "a@1 b@3"),
            ("--- {a: 1}\n--- # x\nb: 1\n", "a@1 b@3"),
            ("%YAML 1.1\n# x\n---\na: 1\n---\n\n---\n# y\n", "a@4"),
            ("\u{feff}---\na: 1\n\u{feff}---\n\u{feff}b: 1\n", "a@2 b@4"),
            (
                "{\"a\": 1}\n{\n \"b\": 1}{\"c\": 1}\n---\nd: 1\n",
                "a@1 b@3 c@3 d@5",
            ),
            ("{a: 1}\n---\n{\"b\": 1}\n", "a@1 b@3"),
            ("a: |\n  ---\n  b\n", "a@1"),
        ] {
            let found: Vec<String> = places(text).into_iter().map(|(_, keys)| keys).collect();
            assert_eq!(found.join(" "), keys, "{text:?}");
        }
    }

    fn error(text: &str) -> String {
        each_document(text, "m", |_, _| Ok(()))
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn a_fault_is_the_parsers_unless_a_template_stands_before_it() {
        let rule = "spec:\n  - alert: Down\n    annotations:\n      summary: \"{{ $labels.x }} is down\"\n      \
            text: |\n        {{ $value }}\n    expr: up\n   for: 5m\n";
        assert!(error(rule).starts_with("m:8:"), "{}", error(rule));
        let twice = "a: '{{x}}'\n# {{ y }}\n- {{ z }}\n";
        assert!(
            error(twice).starts_with("m:3: this is a template"),
            "{}",
            error(twice)
        );
        let later = "a: \"1\" 2\nb: {{ x }}\n";
        assert!(error(later).starts_with("m:1:"), "{}", error(later));
        for text in ["{\"a\": 1}\n{\"b\": }\n", "a: 1\n---\n{\"b\": ]\n"] {
            let shown = error(text);
            assert!(shown.contains("this is not JSON"), "{shown}");
        }
        assert!(error("{\"a\": 1}\n{\"b\": }\n").starts_with("m:2:7: "));
        assert!(error("a: 1\n---\n{\"b\": ]\n").starts_with("m:3:7: "));
    }
}
