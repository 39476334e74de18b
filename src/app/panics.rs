//! A panic is a fault of prepull or of a library that it uses: one plain line says so, and what to do with it.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;

use crate::model::text::escape_line;
use crate::report;

/// Sets how panics are told from here on.
pub(super) fn tell_plainly() {
    std::panic::set_hook(Box::new(|info| {
        let backtrace = Backtrace::capture();
        let place = info.location().map(ToString::to_string);
        let mut line = sentence(message(info), place.as_deref());
        if backtrace.status() == BacktraceStatus::Captured {
            line.push_str(&backtrace.to_string());
        }
        report::print_stderr(&line);
    }));
}

fn message<'a>(info: &'a PanicHookInfo<'_>) -> &'a str {
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or_default()
}

fn sentence(message: &str, place: Option<&str>) -> String {
    format!(
        "prepull: internal error at {}: {}; this is a fault of prepull: please report it with this line\n",
        escape_line(place.unwrap_or("an unknown place")),
        escape_line(message)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_one_printable_line() {
        let line = sentence("no \u{1b}[2J way", Some("src/x.rs:1:2"));
        assert!(line.starts_with("prepull: internal error at src/x.rs:1:2: no "));
        assert!(!line.contains('\u{1b}') && line.lines().count() == 1);
    }
}
