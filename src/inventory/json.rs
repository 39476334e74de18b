//! JSON text as the tree that YAML becomes: what programs print can be large, and this is several times faster.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::error::{InputError, InventoryError, Position, shortened};
use super::yaml::{DEPTH_LIMIT, Key, Tree, VALUE_LIMIT, Value, too_large};

/// Reads one JSON document.
///
/// # Errors
/// What the parser says, with its place; a key that stands twice; texts that are too large or too deep.
pub(super) fn parse(text: &str, name: &str) -> Result<Tree, InventoryError> {
    let whole: &RawValue =
        serde_json::from_str(text).map_err(|error| not_json(&error, text, name))?;
    Reader::new(text, name, DEPTH_LIMIT).tree(whole, 0)
}

/// Reads JSON documents that stand one after the other, which may be deeper than inventories.
///
/// # Errors
/// As for [`parse`].
pub(super) fn parse_many(
    text: &str,
    name: &str,
    depth: usize,
) -> Result<Vec<Tree>, InventoryError> {
    let mut reader = Reader::new(text, name, depth);
    let values = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    let trees = values.map(|value| {
        let value = value.map_err(|error| not_json(&error, text, name))?;
        reader.tree(value, 0)
    });
    trees.collect()
}

/// Whether a text that begins with `{` is meant as JSON: YAML seldom quotes keys.
pub(super) fn is_meant(text: &str) -> bool {
    let inside = text.split_once('{').map(|(_, rest)| rest.trim_start());
    inside.is_some_and(|inside| inside.starts_with('"'))
}

fn not_json(error: &serde_json::Error, text: &str, name: &str) -> InventoryError {
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or_default();
    let fault = InputError::new(format!("this is not JSON: {message}"));
    // The parser counts columns in bytes.
    let line = text.lines().nth(error.line().saturating_sub(1));
    let before = line.and_then(|line| line.get(..error.column()));
    let column = before.map_or(error.column(), |before| before.chars().count());
    let place = Position {
        line: shortened(error.line()),
        column: shortened(column),
    };
    InventoryError::at(name, place, fault)
}

struct Reader<'a> {
    text: &'a str,
    name: &'a str,
    depth: usize,
    lines: Lines,
    values: usize,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str, name: &'a str, depth: usize) -> Self {
        Self {
            text,
            name,
            depth,
            lines: Lines::new(text),
            values: 0,
        }
    }

    fn tree(&mut self, raw: &'a RawValue, depth: usize) -> Result<Tree, InventoryError> {
        let raw = raw.get();
        let at = self.offset(raw);
        let place = self.lines.place(self.text, at);
        self.values += 1;
        if depth > self.depth || self.values > VALUE_LIMIT {
            return Err(InventoryError::at(self.name, place, too_large(self.depth)));
        }
        // The whole text was found to be JSON, but for the names of keys and what only a string can hold.
        let wrong = |error: serde_json::Error| {
            InventoryError::at(
                self.name,
                place,
                InputError::new(format!("this is not JSON: {error}")),
            )
        };
        let value = match raw.as_bytes().first() {
            Some(b'{') => {
                let Entries(entries) = serde_json::from_str(raw).map_err(wrong)?;
                Value::Map(self.entries(entries, depth)?)
            }
            Some(b'[') => {
                let items: Vec<&RawValue> = serde_json::from_str(raw).map_err(wrong)?;
                let items = items.into_iter().map(|item| self.tree(item, depth + 1));
                Value::List(items.collect::<Result<_, _>>()?)
            }
            Some(b'"') => Value::Text(serde_json::from_str(raw).map_err(wrong)?),
            Some(b'n') => Value::Null,
            // A number or a truth value stays as it was written, as in YAML.
            _ => Value::Text(raw.to_string()),
        };
        Ok(Tree::new(place, value, (at, at + raw.len())))
    }

    fn entries(
        &mut self,
        entries: Vec<(Cow<'a, str>, &'a RawValue)>,
        depth: usize,
    ) -> Result<Vec<(Key, Tree)>, InventoryError> {
        let mut seen = HashSet::with_capacity(entries.len());
        for (key, raw) in &entries {
            if !seen.insert(&**key) {
                let place = self.key_place(key, raw);
                let fault = InputError::new(format!("the key \"{key}\" stands here twice"));
                return Err(InventoryError::at(self.name, place, fault));
            }
        }
        drop(seen);
        let mut found = Vec::with_capacity(entries.len());
        for (key, raw) in entries {
            let place = self.key_place(&key, raw);
            let text = key.into_owned();
            found.push((Key { place, text }, self.tree(raw, depth + 1)?));
        }
        Ok(found)
    }

    /// Where the key of a value stands; where the value does if the key has escapes.
    fn key_place(&mut self, key: &str, raw: &RawValue) -> Position {
        let at = self.offset(raw.get());
        let before = self.text[..at].trim_end();
        let before = before.strip_suffix(':').unwrap_or(before).trim_end();
        let quoted = before.len().checked_sub(key.len() + 2);
        let at = quoted
            .filter(|start| before.get(start + 1..before.len() - 1) == Some(key))
            .unwrap_or(at);
        self.lines.place(self.text, at)
    }

    /// Where a part of the text begins in it.
    fn offset(&self, part: &str) -> usize {
        (part.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize)
    }
}

/// Where lines begin.
struct Lines(Vec<usize>);

impl Lines {
    fn new(text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Self([0].into_iter().chain(ends.map(|(at, _)| at + 1)).collect())
    }

    fn place(&self, text: &str, at: usize) -> Position {
        let line = self.0.partition_point(|start| *start <= at).max(1) - 1;
        let start = self.0[line];
        // A program may print everything in one line: characters are counted where that is cheap.
        let within = text.get(start..at).unwrap_or_default();
        let column = if within.len() > 1000 {
            within.len() + 1
        } else {
            within.chars().count() + 1
        };
        Position {
            line: shortened(line + 1),
            column: shortened(column),
        }
    }
}

/// A map in its order, with keys that may stand twice.
struct Entries<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(AnyEntries)
    }
}

struct AnyEntries;

impl<'de> Visitor<'de> for AnyEntries {
    type Value = Entries<'de>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<'de>, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry::<Cow<'de, str>, &RawValue>()? {
            entries.push(entry);
        }
        Ok(Entries(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::super::yaml;
    use super::*;

    #[test]
    fn a_document_means_what_it_means_as_yaml() {
        let text = "{\n  \"a\": [1, -2.50, true, null, \"x\\u00e4\\n\"],\n  \"ü\": {\"b\\\"\": {}, \"\": []},\n  \"c\" : 1e3\n}\n";
        let shown = |tree: Tree| {
            let mut out = String::new();
            show(&tree, &mut out);
            out
        };
        assert_eq!(
            shown(parse(text, "j").unwrap()),
            shown(yaml::parse(text, "j").unwrap())
        );
    }

    fn show(tree: &Tree, out: &mut String) {
        match &tree.value {
            Value::Map(entries) => entries.iter().for_each(|(key, tree)| {
                out.push_str(&format!(
                    "{:?}{}:{} ",
                    key.text, key.place.line, tree.place.line
                ));
                show(tree, out);
            }),
            Value::List(items) => items.iter().for_each(|item| show(item, out)),
            other => out.push_str(&format!("{other:?} at {:?};", tree.place)),
        }
    }

    #[test]
    fn keys_and_values_have_the_places_of_an_editor() {
        let tree = parse("{\n  \"größe\": {\"k\" :\n \"v\"}}", "j").unwrap();
        let Value::Map(entries) = tree.value else {
            panic!()
        };
        assert_eq!(entries[0].0.place, Position { line: 2, column: 3 });
        let Value::Map(inner) = &entries[0].1.value else {
            panic!()
        };
        assert_eq!(
            inner[0].0.place,
            Position {
                line: 2,
                column: 13
            }
        );
        assert_eq!(inner[0].1.place, Position { line: 3, column: 2 });
    }

    #[test]
    fn what_is_no_json_or_too_much_of_it_is_refused() {
        for (text, start) in [
            (
                "{\"a\": 1,\n \"a\": 2}",
                "j:2:2: the key \"a\" stands here twice",
            ),
            (
                "{\"a\": 1} x",
                "j:1:10: this is not JSON: trailing characters",
            ),
            ("{\"a\": ", "j:1:6: this is not JSON: EOF"),
            ("{a: 1}", "j:1:2: this is not JSON: key must be a string"),
        ] {
            let error = parse(text, "j").unwrap_err().to_string();
            assert!(error.starts_with(start), "{text}: {error}");
        }
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(&deep(DEPTH_LIMIT), "j").is_ok());
        for text in [
            deep(100),
            deep(100_000),
            format!("[{}1]", "1,".repeat(VALUE_LIMIT)),
        ] {
            let error = parse(&text, "j").unwrap_err().to_string();
            assert!(
                error.contains("too large or too deep") || error.contains("recursion"),
                "{error}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "[\\[\\]{}\", :0-9a\\\\nü]{0,30}|\\PC*") {
            let _ = parse(&text, "j");
        }
    }
}
