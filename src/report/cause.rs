//! The cause in a failure's words: runtimes wrap every message in what they were doing, and the cause stands last.

/// What stands before a cause and says no more than the failure's stage.
const PREFIXES: [&str; 9] = [
    "Error response from daemon: ",
    "error from registry: ",
    "Error: ",
    "pulling image: ",
    "failed to authorize: ",
    "failed to do request: ",
    "failed to copy: ",
    "httpReadSeeker: ",
    "failed open: ",
];
/// The same, followed by a quoted name and a colon.
const NAMED: [&str; 2] = [
    "failed to pull and unpack image \"",
    "failed to resolve reference \"",
];

/// The words from the cause on. Never empty unless `words` is.
pub(super) fn cause(words: &str) -> &str {
    let mut rest = words.trim();
    while let Some(inner) = inner(rest).filter(|inner| !inner.is_empty()) {
        rest = inner;
    }
    rest
}

/// What is inside the outermost wrapping, if there is one.
fn inner(words: &str) -> Option<&str> {
    let plain = || {
        PREFIXES
            .iter()
            .find_map(|prefix| words.strip_prefix(prefix))
    };
    let named = || {
        let rest = NAMED.iter().find_map(|prefix| words.strip_prefix(prefix))?;
        rest.split_once("\": ").map(|(_, rest)| rest)
    };
    // "rpc error: code = NotFound desc = ..."
    let rpc = || {
        let rest = words.strip_prefix("rpc error: code = ")?;
        rest.split_once(" desc = ").map(|(_, rest)| rest)
    };
    plain().or_else(named).or_else(rpc).map(str::trim_start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runtimes_put_before_a_cause_is_left_out() {
        for (words, wanted) in [
            (
                "Error response from daemon: unauthorized: authentication required",
                "unauthorized: authentication required",
            ),
            (
                "pulling image: rpc error: code = NotFound desc = failed to pull and unpack image \"reg:5000/a:v1\": \
                 failed to resolve reference \"reg:5000/a:v1\": reg:5000/a:v1: not found",
                "reg:5000/a:v1: not found",
            ),
            (
                "pulling image: failed to pull and unpack image \"r/a:v1\": failed to copy: httpReadSeeker: failed open: \
                 failed to do request: Get \"https://cdn.example/b\": EOF",
                "Get \"https://cdn.example/b\": EOF",
            ),
            ("no basic auth credentials", "no basic auth credentials"),
            (
                "Error response from daemon: ",
                "Error response from daemon:",
            ),
            ("", ""),
        ] {
            assert_eq!(cause(words), wanted);
        }
    }
}
