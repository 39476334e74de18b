//! Finds the cause in a masked message: the order in which rules and HTTP statuses are asked.
//!
//! The rules themselves are in [`super::rules`].

use super::rules::{LOCAL_AND_SPECIFIC, PHRASES, Rule};
use crate::model::FailureKind::{
    self, ImageNotFound, NodeSetup, RateLimited, RegistryAuth, RegistryAuthExpired,
    RegistryRefused, RegistryUnavailable,
};

/// The kind of a masked message; `in_layers` says that layers were on their way when it was printed.
pub(super) fn of(plain: &str, in_layers: bool) -> Option<FailureKind> {
    let in_layers = in_layers || LAYER_WORDS.iter().any(|word| plain.contains(word));
    let status = http_status(plain);
    // A server's own trouble wins over its words: its disk may be full, not the node's.
    let kind = status
        .filter(|status| *status >= 500)
        .map(|status| of_status(status, plain))
        .or_else(|| first_match(LOCAL_AND_SPECIFIC, plain))
        .or_else(|| status.map(|status| of_status(status, plain)))
        .or_else(|| first_match(PHRASES, plain))?;
    // The manifest was given to this login; a layer that then is refused has an outdated token or address, unless the
    // registry says in its own words that this one is denied.
    let is_of_manifest = MANIFEST_WORDS.iter().any(|word| plain.contains(word));
    if kind == RegistryAuth && in_layers && !is_of_manifest && !is_denied(plain) {
        return Some(RegistryAuthExpired);
    }
    Some(kind)
}

/// Whether the registry's own code for "you may not" stands there, with or without a message. A bare one that a client
/// made of a status has an empty message, or the page of a store for layers.
fn is_denied(plain: &str) -> bool {
    if plain.contains("access to the resource is denied") {
        return true;
    }
    plain.lines().any(|line| {
        let after = match line.strip_prefix("denied") {
            Some(after) => Some(after),
            None => line.split_once(": denied").map(|(_, after)| after),
        };
        after.is_some_and(|after| match after.trim().strip_prefix(':') {
            Some(message) => !message.trim().is_empty() && !message.trim().starts_with('<'),
            None => after.trim().is_empty(),
        })
    })
}

/// What runtimes say when the trouble is with a layer.
const LAYER_WORDS: [&str; 5] = [
    "httpreadseeker",
    "failed to copy",
    "fetching blob",
    "reading blob",
    "writing blob",
];

/// What they say when it is before the first layer.
const MANIFEST_WORDS: [&str; 3] = [
    "pull access denied",
    "failed to resolve",
    "reading manifest",
];

/// The kind of the first rule with a pattern that is in the text.
pub(super) fn first_match(rules: &[Rule], plain: &str) -> Option<FailureKind> {
    let lines: Vec<&str> = plain.lines().map(str::trim).collect();
    rules
        .iter()
        .find(|Rule(_, patterns)| {
            patterns
                .iter()
                .any(|pattern| lines.iter().any(|line| is_in(line, pattern)))
        })
        .map(|Rule(kind, _)| *kind)
}

fn is_in(line: &str, pattern: &str) -> bool {
    let (at_start, pattern) = match pattern.strip_prefix('^') {
        Some(rest) => (true, rest),
        None => (false, pattern),
    };
    let (at_end, pattern) = match pattern.strip_suffix('$') {
        Some(rest) => (true, rest),
        None => (false, pattern),
    };
    let mut rest = line;
    let mut parts = pattern.split('*').peekable();
    let mut is_first = true;
    while let Some(part) = parts.next() {
        let found = if is_first && at_start {
            rest.starts_with(part).then_some(0)
        } else if at_end && parts.peek().is_none() {
            rest.ends_with(part).then(|| rest.len() - part.len())
        } else if rest.contains(part) {
            rest.find(part)
        } else {
            // Nearly always, and `contains` is many times faster than `find`.
            None
        };
        let Some(found) = found else {
            return false;
        };
        rest = &rest[found + part.len()..];
        is_first = false;
    }
    !at_end || rest.is_empty()
}

/// The HTTP status that a message names, from 300 to 599.
///
/// A number alone is not a status (`expected 503 bytes`): "status" or "http" stands before it, or its
/// reason phrase after it.
fn http_status(plain: &str) -> Option<u16> {
    plain.lines().find_map(|line| {
        let words: Vec<&str> = line.split([' ', '=']).collect();
        words.iter().enumerate().find_map(|(at, word)| {
            let digits = word.trim_matches(|c: char| c.is_ascii_punctuation());
            if digits.len() != 3 {
                return None;
            }
            let status = digits
                .parse()
                .ok()
                .filter(|status| (300..600).contains(status))?;
            let before = &words[at.saturating_sub(8)..at];
            let is_announced = before
                .iter()
                .any(|word| ["status", "http", "statuscode"].contains(&word.trim_end_matches(':')))
                && !before.iter().any(|word| word.ends_with("exit"));
            let after = words[at + 1..].join(" ");
            let is_followed = reason_phrase(status)
                .is_some_and(|phrase| after.trim_start_matches('(').starts_with(phrase));
            (is_announced || is_followed).then_some(status)
        })
    })
}

/// The phrases of RFC 9110 and RFC 6585 for statuses that registries and proxies use.
fn reason_phrase(status: u16) -> Option<&'static str> {
    Some(match status {
        400 => "bad request",
        401 => "unauthorized",
        403 => "forbidden",
        404 => "not found",
        405 => "method not allowed",
        407 => "proxy authentication required",
        408 => "request timeout",
        410 => "gone",
        412 => "precondition failed",
        416 => "requested range not satisfiable",
        429 => "too many requests",
        451 => "unavailable for legal reasons",
        500 => "internal server error",
        501 => "not implemented",
        502 => "bad gateway",
        503 => "service unavailable",
        504 => "gateway time",
        _ => return None,
    })
}

fn of_status(status: u16, plain: &str) -> FailureKind {
    match status {
        401 | 403 => RegistryAuth,
        // A web server that is not a registry answers with a page.
        404 if plain.contains("<html") || plain.contains("<!doctype") => RegistryRefused,
        404 | 410 => ImageNotFound,
        407 => NodeSetup,
        408 | 425 => RegistryUnavailable,
        429 => RateLimited,
        501 | 505 | 511 => RegistryRefused,
        500.. => RegistryUnavailable,
        _ => RegistryRefused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::FailureKind::{DiskFull, Platform};

    #[test]
    fn patterns_know_starts_ends_and_gaps() {
        assert!(is_in(
            "dial unix ~: connect: permission denied",
            "dial unix*permission denied"
        ));
        assert!(!is_in(
            "permission denied: dial unix ~",
            "dial unix*permission denied"
        ));
        assert!(is_in("head ~: forbidden", "~: forbidden$"));
        assert!(!is_in("head ~: forbidden fruit", "~: forbidden$"));
        assert!(is_in("denied: no", "^denied"));
        assert!(!is_in("is denied", "^denied"));
        assert!(is_in(
            "sudo: docker: command not found",
            "^sudo: *: command not found$"
        ));
        assert!(!is_in(
            "sudo: command not found",
            "^sudo: *: command not found$"
        ));
        assert!(is_in("eof", "^eof$"));
    }

    #[test]
    fn statuses_are_found_in_every_wording_and_numbers_alone_are_none() {
        for (text, status) in [
            (
                "received unexpected http status: 503 service unavailable",
                Some(503),
            ),
            (
                "error parsing http 429 response body: invalid character",
                Some(429),
            ),
            (
                "failed with status code [manifests ~: 401 unauthorized",
                Some(401),
            ),
            (
                "unexpected status from head request to ~: 502 bad gateway",
                Some(502),
            ),
            ("unexpected status code ~: 520 ", Some(520)),
            (
                "invalid status code from registry 403 (forbidden)",
                Some(403),
            ),
            ("statuscode: 404 not found", Some(404)),
            ("expected 503 bytes but got 429", None),
            ("exit status 125", None),
            ("file(exit status 1): container id 503 is odd", None),
            ("rpc error: code = unknown desc = expected 503 bytes", None),
            ("404 page not found", None),
        ] {
            assert_eq!(http_status(text), status, "{text}");
        }
    }

    #[test]
    fn a_layer_is_denied_for_good_only_by_the_registrys_own_word() {
        for (text, is) in [
            ("fetching blob: denied", true),
            ("403 forbidden\ndenied", true),
            ("fetching blob: denied: as it is", true),
            ("denied: requested access to the resource is denied", true),
            (
                "error from registry: requested access to the resource is denied",
                true,
            ),
            ("download failed after attempts=1: denied:", false),
            ("denied: <?xml version", false),
            ("accessdenied request has expired", false),
            ("invalid status code from registry 403 (forbidden)", false),
        ] {
            assert_eq!(is_denied(text), is, "{text}");
        }
    }

    #[test]
    fn the_first_cause_wins() {
        assert_eq!(
            of(
                "failed to extract layer ~: write ~: no space left on device: unknown",
                false
            ),
            Some(DiskFull)
        );
        assert_eq!(
            of(
                "unexpected status from get request to ~: 500 internal server error no space left on device",
                false
            ),
            Some(RegistryUnavailable),
            "the registry's disk, not the node's"
        );
        assert_eq!(
            of("connect: connection refused", false),
            Some(RegistryUnavailable)
        );
        assert_eq!(
            of("no match for platform in manifest ~: not found", false),
            Some(Platform)
        );
        assert_eq!(of("unauthorized", true), Some(RegistryAuthExpired));
        assert_eq!(of("unauthorized", false), Some(RegistryAuth));
        assert_eq!(of("something new", false), None);
    }
}
