//! The only place that touches the program's own standard output and error outside a run.

use std::io::{self, Write as _};

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

/// Writes a text to standard error. There is nowhere to tell of an error, so none is told.
pub fn print_stderr(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
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
