//! The only place that touches the program's own standard output and error outside a run.

use std::io::{self, IsTerminal as _, Write as _};

use console::Term;

use super::styled::{Layout, Line};
use crate::model::text::escape_multiline;

/// Writes a text to standard output. A reader that went away is not an error: the rest is not wanted.
///
/// # Errors
/// Any other error of writing, e.g. a full disk.
pub fn print_stdout(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    forgive_closed_pipe(
        output
            .write_all(text.as_bytes())
            .and_then(|()| output.flush()),
    )
}

/// Lets `write` write to standard output, as [`print_stdout`] does.
///
/// # Errors
/// Any other error of writing, or of `write` itself.
pub fn write_stdout(write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> io::Result<()> {
    let mut output = io::BufWriter::new(io::stdout().lock());
    forgive_closed_pipe(write(&mut output).and_then(|()| output.flush()))
}

/// Writes a text to standard error, wrapped at words where that is a terminal. An error is ignored: there is nowhere to
/// report it.
pub fn print_stderr(text: &str) {
    let size = io::stderr()
        .is_terminal()
        .then(|| Term::stderr().size_checked());
    let width = size.flatten().map(|(_, columns)| usize::from(columns));
    let _ = io::stderr()
        .lock()
        .write_all(wrapped(text, width).as_bytes());
}

/// Wraps what is longer than `width` columns at words, with a hanging indent. Commands to paste stay whole: what a line has
/// between backquotes, and indented lines, which lists are too.
fn wrapped(text: &str, width: Option<usize>) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        match line.strip_suffix('\n') {
            Some(line) if width.is_some() && !line.starts_with(' ') => {
                let layout = Layout {
                    width,
                    color: false,
                };
                let pieces = line.split_inclusive('`').enumerate();
                let words = pieces.fold(Line::new(0), |words, (number, piece)| match number % 2 {
                    0 => words.text(piece),
                    _ => words.command(piece),
                });
                out.push_str(&words.render(layout));
            }
            // A question, whose answer is typed behind it, has no end.
            _ => out.push_str(line),
        }
    }
    out
}

/// The reader is gone: that ends the writing, not the run.
///
/// # Errors
/// Any other error of writing.
pub fn forgive_closed_pipe(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// An error with its causes in prepull's one style, ending with a newline.
///
/// A cause that the message before it already ends with is not said twice. Lines stay lines;
/// everything else that a terminal would obey is escaped.
pub fn error_text(error: &anyhow::Error) -> String {
    let mut message = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if message.is_empty() {
            message = cause;
        } else if !message.ends_with(&cause) {
            message = format!("{message}: {cause}");
        }
    }
    format!("prepull: error: {}\n", escape_multiline(&message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_whole_words_and_all_others_whole_lines() {
        let text = "prepull: warning: no name is known for node-1\n  prepull hosts scan --limit node-1,node-2\nGo on? ";
        assert_eq!(wrapped(text, None), text);
        assert_eq!(wrapped(text, Some(200)), text);
        assert_eq!(
            wrapped(text, Some(30)),
            "prepull: warning: no name is\n  known for node-1\n  prepull hosts scan --limit node-1,node-2\nGo on? "
        );
        let with_command = "it was ended: `prepull pull --resume 2026-11-23T21` goes on\n";
        assert_eq!(
            wrapped(with_command, Some(30)),
            "it was ended:\n  `prepull pull --resume 2026-11-23T21`\n  goes on\n"
        );
    }
}
