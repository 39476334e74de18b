//! What is wrong in an inventory: file, line, column, and what would be right.

use std::borrow::Cow;
use std::fmt;

use crate::model::text::escape_line;

/// The longest expression that an error shows again with a caret under the place.
const EXCERPT_LIMIT: usize = 200;

/// The longest message that is shown whole: it may quote a name of any length.
const MESSAGE_LIMIT: usize = 600;
/// The longest suggestion: it may end with what a program complained about.
const SUGGESTION_LIMIT: usize = 3000;

/// A fault in an inventory or a host expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InventoryError {
    /// The file as the operator named it; `standard input` or `--hosts` where there is none.
    pub file: String,
    /// From 1; 0 when the fault is about the whole file.
    pub line: u32,
    /// From 1, in characters; 0 when the fault is about the whole line or file.
    pub column: u32,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub suggestion: Option<String>,
    /// The expression given on the command line. Never a line of a file: it could hold a secret.
    pub excerpt: Option<String>,
}

impl InventoryError {
    /// A fault of a whole file.
    pub fn of_file(file: impl Into<String>, fault: InputError) -> Self {
        Self::at(file, Position::default(), fault)
    }

    /// A fault at a place in a file.
    pub(super) fn at(file: impl Into<String>, place: Position, fault: InputError) -> Self {
        Self {
            file: file.into(),
            line: place.line,
            column: place.column,
            message: fault.message,
            suggestion: fault.suggestion,
            excerpt: None,
        }
    }
}

impl std::error::Error for InventoryError {}

impl fmt::Display for InventoryError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", escape_line(&self.file))?;
        if self.line > 0 {
            write!(out, ":{}", self.line)?;
            if self.column > 0 {
                write!(out, ":{}", self.column)?;
            }
        }
        write!(out, ": {}", shown(&self.message, MESSAGE_LIMIT))?;
        if let Some(suggestion) = &self.suggestion {
            write!(out, "; {}", shown(suggestion, SUGGESTION_LIMIT))?;
        }
        if let Some(excerpt) = &self.excerpt {
            let shown = escape_line(excerpt);
            // An escaped character is wider than one column: the caret would lie.
            if shown == excerpt.as_str() && shown.chars().count() <= EXCERPT_LIMIT {
                let indent = (self.column as usize).saturating_sub(1);
                write!(out, "\n  {shown}\n  {:indent$}^", "")?;
            }
        }
        Ok(())
    }
}

/// What is wrong, before it is known where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputError {
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub suggestion: Option<String>,
}

impl InputError {
    /// A fault without a suggestion.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            suggestion: None,
        }
    }

    /// The same fault with what would be right.
    #[must_use]
    pub fn with_hint(mut self, suggestion: impl Into<String>) -> Self {
        self.suggestion = Some(suggestion.into());
        self
    }
}

impl fmt::Display for InputError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", shown(&self.message, MESSAGE_LIMIT))?;
        if let Some(suggestion) = &self.suggestion {
            write!(out, "; {}", shown(suggestion, SUGGESTION_LIMIT))?;
        }
        Ok(())
    }
}

/// The text for a terminal; of a very long one the middle is left out, for the end says what is wrong.
fn shown(text: &str, limit: usize) -> Cow<'_, str> {
    if text.len() <= limit {
        return escape_line(text);
    }
    let boundary = |at: usize| (at..text.len()).find(|at| text.is_char_boundary(*at));
    let start = &text[..boundary(limit / 3 * 2).unwrap_or_default()];
    let end = &text[boundary(text.len() - limit / 3).unwrap_or(text.len())..];
    Cow::Owned(format!("{} [...] {}", escape_line(start), escape_line(end)))
}

/// Line and column from 1; 0 where not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// The line.
    pub line: u32,
    /// The column, in characters.
    pub column: u32,
}

/// The place of the byte at `offset` in `text`.
pub(super) fn place_of(text: &str, offset: usize) -> Position {
    let before = text.get(..offset).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Position {
        line: shortened(before.matches('\n').count() + 1),
        column: shortened(before[start..].chars().count() + 1),
    }
}

/// A line or column as it is kept; files are too small for it to be cut.
pub(super) fn shortened(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reads_file_line_column_fault_and_remedy() {
        let error = InventoryError::at(
            "fleet.yml",
            Position { line: 3, column: 5 },
            InputError::new("unknown key \"usr\"").with_hint("did you mean \"user\"?"),
        );
        assert_eq!(
            error.to_string(),
            "fleet.yml:3:5: unknown key \"usr\"; did you mean \"user\"?"
        );
    }

    #[test]
    fn an_expression_is_shown_with_a_caret_under_the_place() {
        let mut error = InventoryError::at(
            "--hosts",
            Position { line: 1, column: 6 },
            InputError::new("no"),
        );
        error.excerpt = Some("node[a]".into());
        assert_eq!(error.to_string(), "--hosts:1:6: no\n  node[a]\n       ^");
        error.excerpt = Some("node\u{1b}[a]".into());
        assert_eq!(error.to_string(), "--hosts:1:6: no");
    }

    #[test]
    fn a_message_that_quotes_too_much_keeps_its_end() {
        let long = "ü".repeat(1_000_000);
        let fault = InputError::new(format!("\"{long}\" is no host")).with_hint(long);
        let shown = InventoryError::at("f", Position::default(), fault).to_string();
        assert!(shown.len() < 4_000, "{}", shown.len());
        assert!(shown.starts_with("f: \"üü") && shown.contains("ü\" is no host; ü"));
    }

    #[test]
    fn places_count_characters_not_bytes() {
        assert_eq!(place_of("a\nßb", 4), Position { line: 2, column: 2 });
        assert_eq!(place_of("", 9), Position { line: 1, column: 1 });
    }
}
