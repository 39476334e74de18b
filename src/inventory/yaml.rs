//! YAML text as a tree with places: the only file that uses the YAML parser.
//!
//! Scalars stay the text that was written (`010`, `1.10`, `yes`); what they mean is decided by who reads
//! the key. Anchors, aliases and merge keys work, within budgets that stop bombs.

use std::collections::HashSet;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::budget::BudgetBreach;
use serde_yaml::options::NonFiniteFloatPolicy;
use serde_yaml::{DuplicateKeyPolicy, Error, Location, Spanned, UserMessageFormatter};

use super::error::{InputError, InventoryError, Position, place_of, shortened};

/// Values in one document: ten for each of [`super::hosts::NODE_LIMIT`] nodes.
pub(super) const VALUE_LIMIT: usize = 1_000_000;
/// Values that aliases may repeat.
const REPEAT_LIMIT: usize = 100_000;
/// An inventory is at most seven deep.
pub(super) const DEPTH_LIMIT: usize = 32;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// Where it starts.
    pub place: Position,
    /// What it is.
    pub value: Value,
    /// The bytes of the source it was written with.
    span: (usize, usize),
}

/// What may stand in YAML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// Any scalar, as it was written.
    Text(String),
    /// A sequence.
    List(Vec<Tree>),
    /// A mapping; keys are unique.
    Map(Vec<(Key, Tree)>),
    /// A scalar that the parser took for a number or a truth value, until its text is filled in.
    Unfilled,
}

/// A key of a mapping and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Where.
    pub place: Position,
    /// The key.
    pub text: String,
}

impl Tree {
    /// A value at its place; `span` is where it was written, in bytes.
    pub(super) fn new(place: Position, value: Value, span: (usize, usize)) -> Self {
        Self { place, value, span }
    }

    /// Where the character at `offset` of a text value stands, as far as that can be told.
    pub fn place_within(&self, offset: usize) -> Position {
        let width = match &self.value {
            Value::Text(text) => text.len(),
            _ => return self.place,
        };
        // In quotes the text starts one later; escapes and folded lines are not followed.
        let quote = match (self.span.1 - self.span.0).checked_sub(width) {
            Some(0) => 0,
            Some(2) => 1,
            _ => return self.place,
        };
        Position {
            line: self.place.line,
            column: self.place.column.saturating_add(shortened(quote + offset)),
        }
    }
}

/// Reads one YAML document.
///
/// # Errors
/// What the parser says, with its place; also for texts that would take too much memory.
pub fn parse(text: &str, name: &str) -> Result<Tree, InventoryError> {
    parse_with(text, name, DEPTH_LIMIT, DuplicateKeyPolicy::Error)
}

/// Like [`parse`], for what kubectl reads: deeper than inventories, and the last of equal keys counts.
///
/// # Errors
/// As for [`parse`].
pub(super) fn parse_deep(text: &str, name: &str, depth: usize) -> Result<Tree, InventoryError> {
    let mut tree = parse_with(text, name, depth, DuplicateKeyPolicy::LastWins)?;
    keep_last(&mut tree);
    Ok(tree)
}

fn parse_with(
    text: &str,
    name: &str,
    depth: usize,
    duplicate_keys: DuplicateKeyPolicy,
) -> Result<Tree, InventoryError> {
    let options = serde_yaml::options! {
        budget: serde_yaml::budget! {
            max_nodes: VALUE_LIMIT,
            max_events: 3 * VALUE_LIMIT,
            max_depth: depth,
            flow_nesting_limit: depth,
            max_documents: 1,
            max_aliases: REPEAT_LIMIT,
            max_anchors: 1_000,
            max_merge_keys: REPEAT_LIMIT,
            enforce_alias_anchor_ratio: false,
        },
        alias_limits: serde_yaml::alias_limits! {
            max_total_replayed_events: REPEAT_LIMIT,
        },
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        duplicate_keys: duplicate_keys,
        // Where comments are kept, they have a limit of their own.
        emit_comments: false,
        with_snippet: false,
    };
    let mut tree: Tree = serde_yaml::from_str_with_options(text, options)
        .map_err(|error| explain(&error, text, name, depth))?;
    fill(&mut tree, text);
    Ok(tree)
}

/// What is said of more values, or deeper ones, than are read.
pub(super) fn too_large(depth: usize) -> InputError {
    if depth == DEPTH_LIMIT {
        return InputError::new("this is too large or too deep for an inventory")
            .with_hint("write ranges, e.g. node[001-128], or split the file");
    }
    let limit = format!("{VALUE_LIMIT} values, {depth} layers");
    InputError::new(format!(
        "this document is larger or deeper than is read ({limit})"
    ))
    .with_hint("split the file")
}

fn explain(error: &Error, text: &str, name: &str, depth: usize) -> InventoryError {
    let place = error
        .location()
        .map_or_else(Position::default, |location| place(&location));
    let cause = cause(error);
    match cause {
        Error::Budget {
            breach: BudgetBreach::Documents { .. },
            ..
        } => {
            return InventoryError::at(
                name,
                place,
                InputError::new("a second YAML document")
                    .with_hint("keep one inventory a file, without ---"),
            );
        }
        Error::Budget { .. }
        | Error::AliasReplayCounterOverflow { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => {
            return InventoryError::at(name, place, too_large(depth));
        }
        _ => {}
    }
    // The parser ends its message with the place, which stands in front already.
    let message = cause.render_with_formatter(&UserMessageFormatter);
    let message = match message.rsplit_once(" at line ") {
        Some((before, after)) if after.contains("column") => before,
        _ => &message,
    };
    if message.contains("recursion limit") {
        return InventoryError::at(name, place, too_large(depth));
    }
    let fault = InputError::new(format!("this is not YAML that prepull can read: {message}"));
    // A tab is what people fall over most.
    let line = text
        .lines()
        .nth((place.line as usize).saturating_sub(1))
        .unwrap_or_default();
    let indent = &line[..line.len() - line.trim_start().len()];
    if indent.contains('\t') {
        return InventoryError::at(
            name,
            place,
            fault.with_hint("indent with spaces, not with tabs"),
        );
    }
    InventoryError::at(name, place, fault)
}

/// What is wrong, without where an alias led there.
fn cause(error: &Error) -> &Error {
    match error.without_snippet() {
        Error::AliasError { error, .. } => cause(error),
        other => other,
    }
}

fn place(location: &Location) -> Position {
    Position {
        line: u32::try_from(location.line()).unwrap_or(u32::MAX),
        column: u32::try_from(location.column()).unwrap_or(u32::MAX),
    }
}

/// Puts the written text in where the parser gave a number or a truth value.
fn fill(tree: &mut Tree, source: &str) {
    match &mut tree.value {
        Value::Unfilled => {
            let written = source.get(tree.span.0..tree.span.1).unwrap_or_default();
            tree.value = Value::Text(written.trim().to_string());
        }
        Value::List(items) => items.iter_mut().for_each(|item| fill(item, source)),
        Value::Map(entries) => entries
            .iter_mut()
            .for_each(|(_, value)| fill(value, source)),
        Value::Null | Value::Text(_) => {}
    }
}

/// Removes all but the last of equal keys: the parser hands every one of them over.
fn keep_last(tree: &mut Tree) {
    match &mut tree.value {
        Value::List(items) => items.iter_mut().for_each(keep_last),
        Value::Map(entries) => {
            let mut seen = HashSet::new();
            entries.reverse();
            entries.retain(|(key, _)| seen.insert(key.text.clone()));
            entries.reverse();
            entries.iter_mut().for_each(|(_, value)| keep_last(value));
        }
        Value::Null | Value::Text(_) | Value::Unfilled => {}
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        let span = spanned.defined.span();
        let start = span
            .byte_offset()
            .and_then(|offset| usize::try_from(offset).ok());
        let length = span
            .byte_len()
            .and_then(|length| usize::try_from(length).ok());
        let start = start.unwrap_or_default();
        Ok(Self {
            place: place(&spanned.referenced),
            value: spanned.value,
            span: (start, start.saturating_add(length.unwrap_or_default())),
        })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
        Ok(Value::Unfilled)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value, E> {
        Ok(Value::Unfilled)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Value, E> {
        Ok(Value::Unfilled)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Unfilled)
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_string()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = entries.next_key::<Spanned<String>>()? {
            let key = Key {
                place: place(&key.referenced),
                text: key.value,
            };
            map.push((key, entries.next_value()?));
        }
        Ok(Value::Map(map))
    }
}

/// The place of the first byte that is not UTF-8, as an error.
pub fn not_utf8(bytes: &[u8], valid: usize, name: &str) -> InventoryError {
    let before = std::str::from_utf8(&bytes[..valid]).unwrap_or_default();
    InventoryError::at(
        name,
        place_of(before, before.len()),
        InputError::new("the file is not UTF-8 text").with_hint("save it as UTF-8"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(text: &str) -> Vec<(Key, Tree)> {
        match parse(text, "t.yml").unwrap().value {
            Value::Map(entries) => entries,
            other => panic!("{other:?}"),
        }
    }

    fn text_of(tree: &Tree) -> &str {
        match &tree.value {
            Value::Text(text) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn scalars_keep_the_text_that_was_written() {
        let entries = map(
            "a: 010\nb: 1.10\nc: yes # really\nd: 'x y'\ne: .inf\nf: ~\ng: 0x1F\nh: [1_0, -7, true]\ni: \"22\"\n",
        );
        let texts: Vec<_> = [0, 1, 2, 3, 4, 6, 8]
            .map(|i: usize| text_of(&entries[i].1))
            .to_vec();
        assert_eq!(texts, ["010", "1.10", "yes", "x y", ".inf", "0x1F", "22"]);
        assert_eq!(entries[5].1.value, Value::Null);
        let Value::List(items) = &entries[7].1.value else {
            panic!()
        };
        assert_eq!(
            items.iter().map(text_of).collect::<Vec<_>>(),
            ["1_0", "-7", "true"]
        );
    }

    #[test]
    fn places_are_those_of_an_editor() {
        let entries = map("größe: x\nb:\n  - ok\n  - 'node[a]'\n");
        assert_eq!(entries[0].0.place, Position { line: 1, column: 1 });
        assert_eq!(entries[0].1.place, Position { line: 1, column: 8 });
        let Value::List(items) = &entries[1].1.value else {
            panic!()
        };
        assert_eq!(items[0].place_within(1), Position { line: 3, column: 6 });
        assert_eq!(items[1].place, Position { line: 4, column: 5 });
        assert_eq!(
            items[1].place_within(5),
            Position {
                line: 4,
                column: 11
            }
        );
    }

    #[test]
    fn aliases_and_merge_keys_work() {
        let entries = map("a: &a {x: 1}\nb: *a\nc: {<<: *a, y: 2}\n");
        let Value::Map(inner) = &entries[1].1.value else {
            panic!()
        };
        assert_eq!((inner[0].0.text.as_str(), text_of(&inner[0].1)), ("x", "1"));
        let Value::Map(inner) = &entries[2].1.value else {
            panic!()
        };
        assert_eq!(inner.len(), 2);
    }

    #[test]
    fn comments_may_be_any_number_anywhere() {
        let many = "  # remark\n".repeat(5_000);
        for text in [
            format!("a:\n{many}  b: 1\n"),
            format!("{many}a: {{b: 1}}\n{many}"),
            format!("a:\n  b: # here\n{many}    1\n"),
            format!("a: {{\n{many}  b: 1}}\n"),
            format!("c:\n{many}- x\n{many}- y\n{many}a:\n{many}  ? b\n{many}  : 1\n"),
            format!("x: &x\n{many}  k: v\na: !t\n{many}  b: 1\n"),
            format!("c: [\n{many} x,\n{many} y\n{many}]\na:\n  b: 1\n"),
        ] {
            let entries = map(&text);
            let Value::Map(inner) = &entries.last().unwrap().1.value else {
                panic!("{entries:?}")
            };
            assert_eq!(inner[0].0.text, "b");
            assert_eq!(text_of(&inner[0].1), "1");
        }
    }

    fn refused(text: &str) -> String {
        parse(text, "t.yml").unwrap_err().to_string()
    }

    #[test]
    fn faults_of_syntax_have_a_place() {
        for (text, start) in [
            ("a: [1, 2\nb: 3\n", "t.yml:"),
            ("a: 1\na: 2\n", "t.yml:2:1: "),
            ("a: *nowhere\n", "t.yml:1:"),
            ("a:\n\tb: 1\n", "t.yml:2:"),
            ("a: 1\n---\nb: 2\n", "t.yml:"),
        ] {
            let shown = refused(text);
            assert!(shown.starts_with(start), "{text:?}: {shown}");
            assert!(!shown.contains(" at line "), "{shown}");
        }
        assert!(refused("a:\n\tb: 1\n").contains("tabs"));
        assert!(refused("a: 1\n---\nb: 2\n").contains("one inventory a file"));
    }

    #[test]
    fn bombs_are_refused_in_time() {
        let mut laughs = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for level in 1..12 {
            let below = format!("*a{},", level - 1).repeat(10);
            laughs.push_str(&format!("a{level}: &a{level} [{below}]\n"));
        }
        for text in [
            laughs,
            "[".repeat(100_000),
            "- ".repeat(100_000),
            "{a: ".repeat(100_000),
            "- x\n".repeat(VALUE_LIMIT + 1),
            "&a [*a]".to_string(),
        ] {
            let started = std::time::Instant::now();
            assert!(parse(&text, "t.yml").is_err());
            assert!(
                started.elapsed().as_secs() < 120,
                "{:?}",
                &text[..20.min(text.len())]
            );
        }
    }
}
