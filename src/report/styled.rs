//! Lines of the summary: words with a role, wrapped at words to a terminal's width and coloured where that is wanted.

use std::env;
use std::io;

use console::{Style, measure_text_width};

use super::table;

/// How far the continuation of a wrapped line is indented further than its first part.
const HANG: usize = 2;
/// In fewer columns nothing is wrapped: a hanging indent would leave no room for words.
const LEAST_WIDTH: usize = 20;

/// How text for people is laid out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Layout {
    /// The terminal's columns; `None` for a file or a pipe, where no line is wrapped and the verdict comes first.
    pub width: Option<usize>,
    /// Whether to use colour.
    pub color: bool,
}

impl Layout {
    /// The layout for standard output as it is.
    pub fn stdout(color: bool) -> Self {
        let is_terminal = io::IsTerminal::is_terminal(&io::stdout());
        Self {
            width: is_terminal.then(table::width),
            color,
        }
    }
}

/// What a piece of a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Plain,
    Good,
    Bad,
    Kind,
    Nodes,
    /// A command to paste: never wrapped.
    Command,
}

impl Role {
    fn style(self, color: bool) -> Style {
        let style = Style::new().force_styling(color);
        match self {
            Self::Plain => style,
            Self::Good => style.green().bold(),
            Self::Bad => style.red().bold(),
            Self::Kind => style.red(),
            Self::Nodes => style.cyan(),
            Self::Command => style.bold(),
        }
    }
}

/// One line before it is wrapped.
#[derive(Debug, Clone, Default)]
pub(super) struct Line {
    indent: usize,
    pieces: Vec<(Role, String)>,
}

impl Line {
    /// An empty line that starts after `indent` columns.
    pub(super) fn new(indent: usize) -> Self {
        Self {
            indent,
            pieces: Vec::new(),
        }
    }

    fn with(mut self, role: Role, text: impl Into<String>) -> Self {
        self.pieces.push((role, text.into()));
        self
    }

    pub(super) fn text(self, text: impl Into<String>) -> Self {
        self.with(Role::Plain, text)
    }

    pub(super) fn kind(self, text: impl Into<String>) -> Self {
        self.with(Role::Kind, text)
    }

    pub(super) fn nodes(self, text: impl Into<String>) -> Self {
        self.with(Role::Nodes, text)
    }

    pub(super) fn command(self, text: impl Into<String>) -> Self {
        self.with(Role::Command, text)
    }

    /// The verdict's word.
    pub(super) fn verdict(self, is_good: bool, text: impl Into<String>) -> Self {
        self.with(if is_good { Role::Good } else { Role::Bad }, text)
    }

    /// The line, or the lines that it is wrapped to, each with its end.
    pub(super) fn render(&self, layout: Layout) -> String {
        let width = layout.width.filter(|width| *width >= LEAST_WIDTH);
        let mut out = " ".repeat(self.indent);
        let mut column = self.indent;
        // Pieces of one role that stand together are styled together.
        let mut run = Run::default();
        for (number, word) in self.words().iter().enumerate() {
            let wide: usize = word
                .pieces
                .iter()
                .map(|(_, text)| measure_text_width(text))
                .sum();
            let overflows = width.is_some_and(|width| column + word.blanks + wide > width);
            if overflows && number > 0 {
                // A command begins at the margin, so that it can be marked and copied as a whole.
                let indent = match word.is_command() {
                    true => 0,
                    false => self.indent + HANG,
                };
                run.end(&mut out, layout.color);
                out.push('\n');
                out.push_str(&" ".repeat(indent));
                column = indent;
            } else {
                run.blanks = word.blanks;
                column += word.blanks;
            }
            for (role, text) in &word.pieces {
                run.add(*role, text, &mut out, layout.color);
            }
            column += wide;
        }
        run.end(&mut out, layout.color);
        out.push('\n');
        out
    }

    /// The pieces between which the line may be wrapped.
    fn words(&self) -> Vec<Word> {
        let mut words = vec![Word::default()];
        for (role, text) in &self.pieces {
            if *role == Role::Command {
                add(&mut words, *role, text);
                continue;
            }
            for (number, part) in text.split(' ').enumerate() {
                if number > 0 {
                    match words.last_mut() {
                        // Several blanks in a row.
                        Some(last) if last.pieces.is_empty() => last.blanks += 1,
                        _ => words.push(Word {
                            blanks: 1,
                            pieces: Vec::new(),
                        }),
                    }
                }
                add(&mut words, *role, part);
            }
        }
        words.retain(|word| !word.pieces.is_empty());
        words
    }
}

fn add(words: &mut [Word], role: Role, text: &str) {
    if let Some(word) = words.last_mut().filter(|_| !text.is_empty()) {
        word.pieces.push((role, text.to_string()));
    }
}

/// Pieces of one role, and the blanks that come before the next.
#[derive(Default)]
struct Run {
    role: Option<Role>,
    text: String,
    blanks: usize,
}

impl Run {
    fn add(&mut self, role: Role, text: &str, out: &mut String, color: bool) {
        let blanks = " ".repeat(std::mem::take(&mut self.blanks));
        if self.role == Some(role) {
            self.text.push_str(&blanks);
        } else {
            self.end(out, color);
            out.push_str(&blanks);
            self.role = Some(role);
        }
        self.text.push_str(text);
    }

    fn end(&mut self, out: &mut String, color: bool) {
        if let Some(role) = self.role.take() {
            let styled = role.style(color).apply_to(std::mem::take(&mut self.text));
            out.push_str(&styled.to_string());
        }
    }
}

/// What no line break may part, and how many blanks stand before it.
#[derive(Debug, Default)]
struct Word {
    blanks: usize,
    pieces: Vec<(Role, String)>,
}

impl Word {
    fn is_command(&self) -> bool {
        matches!(self.pieces.as_slice(), [(Role::Command, _), ..])
    }
}

/// Whether the terminal's locale writes UTF-8.
pub(super) fn is_utf8_locale() -> bool {
    is_utf8(|name| env::var(name).ok())
}

/// The first of the variables that is set decides, as for setlocale(3).
fn is_utf8(variable: impl Fn(&str) -> Option<String>) -> bool {
    let names = ["LC_ALL", "LC_CTYPE", "LANG"];
    let set = names.into_iter().filter_map(variable);
    let locale = set.into_iter().find(|value| !value.is_empty());
    locale.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn within(line: &Line, width: usize) -> String {
        line.render(Layout {
            width: Some(width),
            color: false,
        })
    }

    #[test]
    fn a_line_is_wrapped_at_words_with_a_hanging_indent_and_a_command_is_not() {
        let line = Line::new(2).text("What next: check the registry's user and password.");
        assert_eq!(
            within(&line, 30),
            "  What next: check the\n    registry's user and\n    password.\n"
        );
        let whole = "  What next: check the registry's user and password.\n";
        assert_eq!(line.render(Layout::default()), whole);
        assert_eq!(within(&line, 10), whole, "too narrow to be wrapped");
        let command = "prepull pull --resume 2026-11-23T21-17-09Z-3f9c";
        let line = Line::new(0)
            .text("Retry just these nodes: ")
            .command(command);
        assert_eq!(
            within(&line, 40),
            format!("Retry just these nodes:\n{command}\n")
        );
        assert_eq!(
            within(&line, 100),
            format!("Retry just these nodes: {command}\n")
        );
    }

    #[test]
    fn roles_have_colours_and_glue_holds() {
        let line = Line::new(0)
            .kind("ssh-auth")
            .text(" (")
            .nodes("n1")
            .text("), done");
        assert_eq!(line.render(Layout::default()), "ssh-auth (n1), done\n");
        let colored = Layout {
            width: None,
            color: true,
        };
        assert_eq!(
            line.render(colored),
            "\u{1b}[31mssh-auth\u{1b}[0m (\u{1b}[36mn1\u{1b}[0m), done\n"
        );
        let narrow = Line::new(0)
            .text("a word and then, (")
            .nodes("glued")
            .text(")");
        assert_eq!(within(&narrow, 20), "a word and then,\n  (glued)\n");
    }

    #[test]
    fn the_first_variable_that_is_set_says_which_locale_it_is() {
        let of = |pairs: &'static [(&str, &str)]| {
            is_utf8(move |name| {
                let found = pairs.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| (*value).to_string())
            })
        };
        assert!(of(&[("LANG", "C.UTF-8")]));
        assert!(of(&[
            ("LC_ALL", ""),
            ("LC_CTYPE", "de_DE.utf8"),
            ("LANG", "C")
        ]));
        assert!(!of(&[("LC_ALL", "C"), ("LANG", "C.UTF-8")]));
        assert!(!of(&[]));
    }
}
