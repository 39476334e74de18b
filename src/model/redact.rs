//! Blanks secrets in what programs print, before it is shown or kept.
//!
//! [`redact`] knows the shapes in which secrets are written down everywhere and leaves prose alone. [`redact_strictly`]
//! is for a program that was handling a secret just now: it also blanks what that secret is known or likely to be.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use regex::{Captures, Regex};

/// What stands where a secret was.
const BLANK: &str = "[redacted]";

/// Shorter texts would blank half of a message.
const SHORTEST: usize = 3;

/// `"Secret":"VALUE"` and its like, also inside another string (`\"Secret\":\"VALUE\"`) and cut off in the middle.
static QUOTED: LazyLock<Regex> = LazyLock::new(|| {
    pattern(concat!(
        r#"(?is)(\\*["'][\w .-]*(?:secret|password|passwd|passphrase|token|auth|api_?key|access_?key|private_?key)"#,
        r#"(?:[\w.-]*)\\*["']\s*[:=]\s*)"#,
        r#"(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|\\+".*?\\+"|\\*["'].*|[^\s,}\]"']+)"#
    ))
});

/// `Authorization: SCHEME VALUE` up to the end of the line, and bearer tokens anywhere.
static HEADER: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)((?:proxy-)?authorization\s*[:=]\s*|\bbearer\s+|x-[\w-]*(?:token|auth)\s*:\s*)([^\r\n]+)",
    )
});

/// Tokens that show what they are: JSON Web Tokens, those of well-known services, private keys.
static SHAPE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(concat!(
        r"(?s)\beyJ[\w-]{8,}(?:\.[\w-]+)*",
        r"|\b(?:gh[pousr]|github_pat|glpat|dckr_[po]at|xox[abprs]|npm|hf|hvs)[_.-][\w.-]{8,}",
        r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\z)"
    ))
});

/// A password in front of an address's host.
static USER_INFO: LazyLock<Regex> = LazyLock::new(|| pattern(r#"(://)[^/\s"'@]*:[^/\s"']*@"#));

/// `password=VALUE`, `--token VALUE`, `Secret:VALUE`: the first group stays.
static NAMED: LazyLock<Regex> = LazyLock::new(|| {
    pattern(concat!(
        r#"(?i)([\w.-]*(?:secret|password|passwd|passphrase|pwd|token|api_?key|access_?key)[\w-]*\s*"#,
        r#"(=\s*|:\s*|\s+))("[^"]*"?|'[^']*'?|[^\s,;}\]]+)"#
    ))
});

/// A run of letters, digits and signs that may be a token or a password; not a digest or fingerprint.
static WORD: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(sha\d+:|SHA\d+:)?[A-Za-z0-9+/=_~.-]{20,}"));

// A literal of this file that does not compile fails the tests below.
#[allow(clippy::expect_used)]
fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a valid pattern")
}

/// Blanks what is a secret by its shape: values of JSON fields that are named so, authorization headers, passwords in
/// addresses, well-known tokens and private keys.
pub fn redact(text: &str) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(text);
    for (pattern, with) in [
        (&*SHAPE, BLANK),
        (&*QUOTED, "${1}[redacted]"),
        (&*HEADER, "${1}[redacted]"),
        (&*USER_INFO, "${1}[redacted]@"),
    ] {
        if let Cow::Owned(changed) = pattern.replace_all(&text, with) {
            text = Cow::Owned(changed);
        }
    }
    text
}

/// [`redact`] for a program that handles secrets. Blanks, in addition to what is `known` to be secret, in every common
/// encoding, what follows a word for a secret, and whatever looks random.
pub fn redact_strictly(text: &str, known: &[&[u8]]) -> String {
    let mut text = text.to_string();
    for spelling in spellings(known) {
        text = text.replace(&spelling, BLANK);
    }
    let text = redact(&text);
    let text = NAMED.replace_all(&text, |found: &Captures<'_>| {
        let (name, between, value) = (&found[1], &found[2], &found[3]);
        let lower = name.to_ascii_lowercase();
        // "the token has expired" and "cannot get a token: connection refused" are prose.
        let is_prose = match between.trim() {
            "=" => false,
            ":" => lower.contains("token") && !between.ends_with(':') && !looks_random(value),
            _ => !name.starts_with("--") && !looks_random(value),
        };
        match is_prose || value == BLANK {
            true => found[0].to_string(),
            false => format!("{name}{BLANK}"),
        }
    });
    let text = WORD.replace_all(&text, |found: &Captures<'_>| {
        match found.get(1).is_none() && looks_random(&found[0]) {
            true => BLANK.to_string(),
            false => found[0].to_string(),
        }
    });
    text.into_owned()
}

/// Letters of both cases or letters with digits, in a word that no path, host or version is.
fn looks_random(word: &str) -> bool {
    let has = |is: fn(&char) -> bool| word.chars().any(|c| is(&c));
    let is_name =
        word.contains("://") || word.starts_with(['/', '.']) || word.matches('.').count() > 1;
    let kinds = [
        char::is_ascii_lowercase,
        char::is_ascii_uppercase,
        char::is_ascii_digit,
    ];
    word.len() >= 6
        && !is_name
        && has(|c| c.is_ascii_digit())
        && kinds.iter().filter(|is| has(**is)).count() > 1
}

/// The ways in which secrets may be written down, the longest first.
fn spellings(known: &[&[u8]]) -> Vec<String> {
    let mut found = BTreeSet::new();
    for secret in known.iter().filter(|secret| secret.len() >= SHORTEST) {
        found.insert(String::from_utf8_lossy(secret).into_owned());
        for engine in [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD] {
            found.insert(engine.encode(secret));
        }
        let (mut percent, mut hexadecimal) = (String::new(), String::new());
        for &byte in *secret {
            match byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
                true => percent.push(char::from(byte)),
                false => percent.push_str(&format!("%{byte:02X}")),
            }
            hexadecimal.push_str(&format!("{byte:02x}"));
        }
        found.extend([percent, hexadecimal]);
        // As JSON and Go's %q write it, without the quotes.
        if let Ok(text) = std::str::from_utf8(secret) {
            let quoted = serde_json::Value::from(text).to_string();
            found.insert(quoted[1..quoted.len() - 1].to_string());
        }
    }
    let mut found: Vec<String> = found.into_iter().collect();
    found.sort_by_key(|spelling| std::cmp::Reverse(spelling.len()));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_known_by_their_shape() {
        for text in [
            r#"{"ServerURL":"x","Username":"ci","Secret":"hunter2"}"#,
            "{\n  \"Secret\" :\n    \"hunter2\"\n}",
            r#"{"Secret":"a\"hunter2"}"#,
            r#"{"Secret":"hunter2"#,
            r#"out: "{\"Secret\":\"hunter2\"}" "#,
            r#"{"auths":{"r":{"auth":"hunter2"}}}"#,
            r#"{'password': 'hunter2'}"#,
            r#"{"identitytoken":"hunter2"}"#,
            r#"{"secretAccessKey":"hunter2"}"#,
            "Authorization: Basic hunter2",
            "authorization=Bearer hunter2",
            "got Bearer hunter2",
            "X-Registry-Auth: hunter2",
            "https://ci:hunter2@reg.example/v2/",
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.hunter2",
            "glpat-hunter2hunter2",
            "-----BEGIN RSA PRIVATE KEY-----\nhunter2\n-----END RSA PRIVATE KEY-----",
            "-----BEGIN PRIVATE KEY-----\nhunter2",
        ] {
            let shown = redact(text);
            assert!(!shown.contains("hunter2"), "{text}: {shown}");
            assert!(shown.contains(BLANK), "{text}: {shown}");
        }
    }

    #[test]
    fn what_is_no_secret_stays() {
        for text in [
            "pull access denied, repository does not exist or may require 'docker login': denied: requested access",
            "failed to fetch oauth token: unexpected status: 401 Unauthorized",
            "unauthorized: incorrect username or password",
            "Head \"https://reg.example/v2/app/manifests/v1\": no basic auth credentials",
            "{\"errors\":[{\"code\":\"UNAUTHORIZED\",\"message\":\"authentication required\"}]}",
        ] {
            assert_eq!(redact(text), text);
        }
        for text in [
            "error getting credentials - err: exit status 1",
            "the token has expired, log in again with `aws sso login`",
            "cannot get a token: dial tcp 10.0.0.1:443: connection refused",
            "gpg: decryption failed: No secret key",
            "ED25519 key fingerprint is SHA256:kT5Zr0J9vPpQmFvXyYb6Yc1wZ8u3JqS2dLhN4aXo0Ws.",
            "ssh: connect to host ec2-10-0-7-1.eu-west-1.compute.amazonaws.com port 22: Connection refused",
            "ops@bastion: Permission denied (publickey,password).",
            "/usr/lib/docker-credential-pass-0.8.2/bin: permission denied",
        ] {
            assert_eq!(redact_strictly(text, &[]), text);
        }
    }

    #[test]
    fn a_program_that_handles_secrets_is_read_strictly() {
        for text in [
            "password=hunter2",
            "Password: hunter2",
            "token: hunter2",
            "token:hunter2",
            "--password hunter2",
            "{ServerURL:x Username:ci Secret:hunter2}",
            "AWS_SECRET_ACCESS_KEY=hunter2",
            "login ci aB3xhunter2Kq9RtY7uPz",
        ] {
            let shown = redact_strictly(text, &[]);
            assert!(!shown.contains("hunter2"), "{text}: {shown}");
        }
        let secret = b"correct horse";
        for text in [
            "correct horse",
            "is Y29ycmVjdCBob3JzZQ==",
            "is correct%20horse",
            "is 636f727265637420686f727365",
        ] {
            let shown = redact_strictly(text, &[secret]);
            assert!(shown.ends_with(BLANK), "{text}: {shown}");
        }
        assert_eq!(redact_strictly("a \\\"b\\\" c", &[b"a \"b\" c"]), BLANK);
    }
}
