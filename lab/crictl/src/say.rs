//! How crictl talks: logrus and klog lines on standard error, Go's quoting, tables, sizes.

use std::io::IsTerminal;
use std::time::SystemTime;

use tonic::{Code, Status};

/// A logrus line. On a terminal it has colours and no time.
pub fn log(level: &str, message: &str) {
    if std::io::stderr().is_terminal() {
        let (colour, name) = if level == "warning" {
            (33, "WARN")
        } else {
            (31, "ERRO")
        };
        eprintln!("\x1b[{colour}m{name}\x1b[0m[0000] {message} ");
    } else {
        let now = humantime::format_rfc3339_seconds(SystemTime::now());
        eprintln!("time=\"{now}\" level={level} msg={}", quoted(message));
    }
}

/// The klog line that precedes the error of a pull.
pub fn klog(status: &Status, image: &str) {
    // 2026-11-23T21:56:00.259070Z becomes 1123 21:56:00.259070.
    let now = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
    eprintln!(
        "E{}{} {} {:>7} remote_image.go:250] \"PullImage from image service failed\" err={} image={}",
        &now[5..7],
        &now[8..10],
        &now[11..26],
        std::process::id(),
        quoted(&rpc_error(status)),
        quoted(image)
    );
}

/// Go's `%q`, near enough for what is printed here.
pub fn quoted(text: &str) -> String {
    format!("{text:?}")
}

/// An error as gRPC's Go library writes it.
pub fn rpc_error(status: &Status) -> String {
    // tonic says what it met itself; the Go library has words of its own for a connection that ends.
    let message = match (status.code(), status.message()) {
        (Code::Unavailable | Code::Unknown, text) if is_broken_transport(text) => {
            "error reading from server: EOF"
        }
        (_, text) => text,
    };
    format!(
        "rpc error: code = {:?} desc = {message}",
        effective_code(status)
    )
    .replace("code = Cancelled", "code = Canceled")
}

fn is_broken_transport(text: &str) -> bool {
    text.starts_with("transport error")
        || text.starts_with("h2 protocol error")
        || text.contains("broken pipe")
}

fn effective_code(status: &Status) -> Code {
    if is_broken_transport(status.message()) {
        Code::Unavailable
    } else {
        status.code()
    }
}

/// An error as crictl's last line has it: without the code where that is Unknown.
pub fn last_words(status: &Status) -> String {
    match effective_code(status) {
        Code::Unknown => status.message().to_owned(),
        _ => rpc_error(status),
    }
}

/// A size with three digits and a decimal unit: 80MB, 602kB.
pub fn size(bytes: u64) -> String {
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1000.0 && unit < 4 {
        value /= 1000.0;
        unit += 1;
    }
    let digits = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    let mut number = format!("{value:.digits$}");
    if number.contains('.') {
        number = number
            .trim_end_matches('0')
            .trim_end_matches('.')
            .to_owned();
    }
    format!("{number}{}", ["B", "kB", "MB", "GB", "TB"][unit])
}

/// Columns of at least 20, three apart; the last one is not padded.
pub fn table(rows: &[Vec<String>]) {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].len() + 3)
            .max()
            .unwrap_or(0)
            .max(20)
    };
    for row in rows {
        let last = row.len() - 1;
        let line: String = row[..last]
            .iter()
            .enumerate()
            .map(|(at, cell)| format!("{cell:<0$}", width(at)))
            .collect();
        println!("{line}{}", row[last]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        assert_eq!(size(80_028_485), "80MB");
        assert_eq!(size(602_384), "602kB");
        assert_eq!(size(1_234_567), "1.23MB");
        assert_eq!(size(12), "12B");
    }

    #[test]
    fn the_last_line_drops_only_the_unknown_code() {
        assert_eq!(last_words(&Status::unknown("why")), "why");
        assert_eq!(
            last_words(&Status::not_found("why")),
            "rpc error: code = NotFound desc = why"
        );
        assert_eq!(
            last_words(&Status::unavailable("transport error")),
            "rpc error: code = Unavailable desc = error reading from server: EOF"
        );
    }
}
