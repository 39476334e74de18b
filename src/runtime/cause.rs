//! What went wrong, found in plain words: the causes that every runtime passes on in its own wrapping.
//!
//! The words come from [`super::mask`]: lower case, names gone. **To teach prepull a new message, add a
//! pattern to the rule of its kind below** (or to the runtime's own rules, if only that runtime says it),
//! and a line to `tests/fixtures/runtime-messages.tsv`. The rules are tried from top to bottom, so the
//! most specific cause wins: a full disk that surfaces as "failed to extract layer" is a full disk.

use crate::model::FailureKind::{self, *};

/// A kind and the patterns that mean it.
///
/// A pattern is found anywhere in a line. `*` stands for any text, `^` at its start for the line's start,
/// `$` at its end for the line's end, and `~` is what a masked name has become.
pub(super) struct Rule(pub FailureKind, pub &'static [&'static str]);

/// The client did not run: sudo said no, or there is no client.
pub(super) const NOT_STARTED: &[Rule] = &[
    Rule(
        Privilege,
        &[
            "sudo: command not found",
            "sudo: not found",
            "command not found: sudo",
            "unknown command: sudo",
            "'sudo': no such file",
            "sudo: a password is required",
            "sudo: a terminal is required",
            "sudo: sorry, you must have a tty",
            "sudo: no tty present",
            "sudo: no password was provided",
            "sudo: effective uid is not 0",
            "sudo: unable to",
            "sudo: pam",
            "sudo: account validation failure",
            "sudo: authentication failure",
            "sudo: no valid sudoers sources",
            "sudo: error in",
            "sudo: parse error",
            "sudo: the \"no new privileges\" flag",
            "must be owned by uid 0 and have the setuid bit",
            "is not in the sudoers file",
            "is not allowed to execute",
            "is not allowed to run sudo",
            "may not run sudo",
            "incorrect password attempt",
            "interactive authentication is required",
            "^sudo-rs: ",
            "^doas: ",
        ],
    ),
    Rule(
        RuntimeMissing,
        &[
            "^sudo: *: command not found$",
            "error while loading shared libraries",
            "cannot execute binary file",
        ],
    ),
];

/// Before HTTP statuses are looked at: causes whose texts may carry a status or a registry's words along.
const LOCAL_AND_SPECIFIC: &[Rule] = &[
    // The runtime's own socket, not the registry's.
    Rule(Privilege, &["dial unix*permission denied"]),
    Rule(
        RuntimeAbsent,
        &[
            "cannot connect to the docker daemon",
            "is the docker daemon running",
            "dial unix",
        ],
    ),
    Rule(RuntimeDown, &["read unix", "write unix"]),
    Rule(
        DiskFull,
        &[
            "no space left",
            "disk quota exceeded",
            "not enough space",
            "insufficient space",
            "free data blocks which is less than minimum",
            "free space which is less than minimum",
            "enospc",
        ],
    ),
    // The node is short of something for the moment: worth another try, and no kind says so better.
    Rule(
        Unknown,
        &[
            "cannot allocate memory",
            "too many open files",
            "resource temporarily unavailable",
            "device or resource busy",
            "signal: killed",
            "out of memory",
        ],
    ),
    Rule(
        NodeSetup,
        &[
            "read-only file system",
            "input/output error",
            "structure needs cleaning",
            "stale file handle",
            "stale nfs file handle",
            "operation not permitted",
            "operation not supported",
            "cannot be mapped to",
            "subordinate ids",
            "error creating overlay mount",
            "failed to mount",
            "unknown filesystem type",
            "^mkdir ~: permission denied",
            "~: permission denied",
            "~: not a directory",
            "illegal base64 data",
            "error getting credentials",
            "executable file not found",
            "client certificate",
            "signaturevalidationfailed",
            "source image rejected",
            "is rejected by policy",
            "a signature was required",
            "is blocked in",
            "is blocked by configuration",
            "short-name",
            "no unqualified-search registries",
            "proxy authentication required",
            // A proxy's answer to CONNECT: the request, and only the answer's phrase.
            "~: forbidden$",
            "~: method not allowed$",
            "~: bad request$",
        ],
    ),
    Rule(
        Platform,
        &[
            "no matching manifest for",
            "no match for platform",
            "does not match the specified platform",
            "does not provide the specified platform",
            "no image found in manifest list for architecture",
            "no image found in image index for architecture",
            "no unpack platforms defined",
            "cannot be used on this platform",
            "operating system is not supported",
            "is not a supported platform",
            "exec format error",
        ],
    ),
    // Somebody else's page in the registry's place, or bytes that are not what the manifest says. Short
    // layers stand here too although a broken link can cut them: the texts are the same.
    Rule(
        Corrupt,
        &[
            "text/html",
            "missing signature key",
            "verification failed for digest",
            "unexpected commit digest",
            "failed size validation",
            "size validation failed",
            "failed to read expected number of bytes",
            "short read",
            "digest did not match",
            "digest mismatch",
            "does not match provided manifest digest",
            "hash mismatch",
            "unexpected size",
            "failed precondition",
            "content digest ~",
        ],
    ),
    Rule(
        ImageInvalid,
        &[
            "archive/tar:",
            "invalid tar header",
            "gzip: invalid",
            "flate: corrupt",
            "zstd: ",
            "magic number mismatch",
            "unknown compression",
            "wrong diff id",
            "diff id mismatch",
            "diffid mismatch",
            "don't match image configuration",
            "does not match image configuration",
            "mismatched image rootfs",
            "invalid rootfs",
            "unsupported media type",
            "unsupported manifest media type",
            "unexpected media type",
            "unsupported image type",
            "unsupported image-specific operation",
            "unsupported schema version",
            "encountered remote",
            "encountered unknown type",
            "schema 1",
            "schema version 1",
            "docker image format v1",
            "is no longer supported",
            "duplicates of file paths",
            "failed to register layer",
        ],
    ),
    Rule(
        RegistryUnavailable,
        &[
            "tls handshake timeout",
            "bad record mac",
            "tls: use of closed connection",
            "remote error: tls: internal error",
            "~: service unavailable$",
            "~: bad gateway$",
            "~: gateway time*out$",
            "~: internal server error$",
        ],
    ),
    Rule(
        TlsTrust,
        &[
            "x509:",
            "tls: ",
            "server gave http response to https client",
            "http request to an https server",
            "plain http request was sent to https port",
            "malformed http response \"\\x15",
            "certificate signed by",
            "certificate has expired",
            "certificate verify failed",
        ],
    ),
    Rule(
        RateLimited,
        &[
            "toomanyrequests",
            "too many requests",
            "rate exceeded",
            "rate limit",
            "quota exceeded",
            "data limit exceeded",
            "request limit exceeded",
            "throttl",
        ],
    ),
    Rule(
        RegistryRefused,
        &[
            "due to configured policy",
            "policy violation",
            "blocked by policy",
        ],
    ),
];

/// After HTTP statuses: what registries and networks say without one.
const WORDS: &[Rule] = &[
    // A login that has run out (ECR's last twelve hours) is no token that the runtime renews.
    Rule(RegistryAuth, &["your authorization token has expired"]),
    Rule(
        RegistryAuthExpired,
        &[
            "invalid_token",
            "expired token",
            "token expired",
            "token has expired",
            "token is expired",
            "request has expired",
            "signature expired",
        ],
    ),
    Rule(
        RegistryAuth,
        &[
            "unauthorized",
            "unauthenticated",
            "no basic auth credentials",
            "authentication required",
            "authentication failed",
            "authorization failed",
            "insufficient_scope",
            "incorrect username or password",
            "invalid username/password",
            "invalid credentials",
            "bad credentials",
            "not authorized",
            "access denied",
            "access to the resource is denied",
            "access forbidden",
            "denied on resource",
            "^denied",
            ": denied",
            "code denied",
            "login prior to pull",
        ],
    ),
    Rule(
        RegistryRefused,
        &[
            "manifest invalid",
            "manifest_invalid",
            "did not include a token",
            "stopped after*redirects",
            "unsupported protocol scheme",
            "bad request",
            "not acceptable",
            "method not allowed",
            "operation is unsupported",
            "name invalid",
            "tag invalid:",
            "tag invalid$",
            "digest invalid",
            "unknown: <",
            "is not a registry",
        ],
    ),
    Rule(
        ImageNotFound,
        &[
            "manifest unknown",
            "manifest_unknown",
            "unknown manifest",
            "name unknown",
            "name_unknown",
            "blob unknown",
            "blob_unknown",
            "unknown blob",
            "no such manifest",
            "page not found",
            "not found",
            "does not exist",
            "code = notfound",
        ],
    ),
    Rule(
        RegistryUnresolved,
        &[
            "no such host",
            "name or service not known",
            "nodename nor servname",
            "no address associated",
        ],
    ),
    Rule(
        RuntimeDown,
        &["code = unavailable", "error reading from server"],
    ),
    Rule(
        RegistryUnavailable,
        &[
            "connection refused",
            "connection reset",
            "connection timed out",
            "operation timed out",
            "connection aborted",
            "connection lost",
            "connection broken",
            "closed network connection",
            "server closed idle connection",
            "broken pipe",
            "i/o timeout",
            "no route to host",
            "host is down",
            "network is unreachable",
            "network is down",
            "deadline exceeded",
            "deadlineexceeded",
            "exceeded while awaiting headers",
            "request canceled",
            "timeout awaiting response headers",
            "server misbehaving",
            "temporary failure in name resolution",
            "stream error",
            "goaway",
            "malformed http",
            "protocol error",
            "proxyconnect",
            "unexpected eof",
            ": eof",
            "^eof$",
            "service unavailable",
            "server error",
            "bad gateway",
            "gateway time",
            "registryunavailable",
            "^unavailable",
            ": unavailable",
        ],
    ),
    // A body that is no JSON, without a status that says more: most likely a proxy's or sign-in page.
    Rule(
        Corrupt,
        &[
            "unexpected end of json input",
            "looking for beginning of",
            "invalid character",
            "cannot unmarshal",
        ],
    ),
    // containerd gives up on a transfer that stands still in these words.
    Rule(Stalled, &["code = canceled", "code = cancelled"]),
];

/// The kind of a masked message; `in_layers` says that layers were on their way when it was printed.
pub(super) fn of(plain: &str, in_layers: bool) -> Option<FailureKind> {
    let in_layers = in_layers || LAYER_WORDS.iter().any(|word| plain.contains(word));
    let kind = first_match(LOCAL_AND_SPECIFIC, plain)
        .or_else(|| http_status(plain).map(|status| of_status(status, plain)))
        .or_else(|| first_match(WORDS, plain))?;
    // The manifest was given to this login; a layer that then is refused has an outdated token or address.
    if kind == RegistryAuth && in_layers && !MANIFEST_WORDS.iter().any(|word| plain.contains(word))
    {
        return Some(RegistryAuthExpired);
    }
    Some(kind)
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
    rules
        .iter()
        .find(|Rule(_, patterns)| {
            patterns
                .iter()
                .any(|pattern| plain.lines().any(|line| is_in(line.trim(), pattern)))
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
        } else {
            rest.find(part)
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
/// A number alone is no status (`expected 503 bytes`): "status", "http" or "code" stands before it, or its
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
            let is_announced = words[at.saturating_sub(8)..at].iter().any(|word| {
                ["status", "http", "code", "statuscode"].contains(&word.trim_end_matches(':'))
            });
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
        // A web server that is no registry answers with a page.
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
            ("404 page not found", None),
        ] {
            assert_eq!(http_status(text), status, "{text}");
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
            of("connect: connection refused", false),
            Some(RegistryUnavailable)
        );
        assert_eq!(
            of("dial unix ~: connect: connection refused", false),
            Some(RuntimeAbsent)
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
