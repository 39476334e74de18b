//! Credential helpers: `docker-credential-NAME get`, as docker runs them.
//!
//! The protocol is that of github.com/docker/docker-credential-helpers: the server's address on standard input, JSON on
//! standard output, or a known sentence when there is no login.

use std::io::{self, ErrorKind, Read, Write as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use zeroize::Zeroizing;

use super::hidden::Hidden;
use crate::model::redact::redact_strictly;
use crate::model::{RegistryLogin, Secret, text};

/// How long a helper may take: some ask a cloud.
const LIMIT: Duration = Duration::from_secs(30);
/// Far beyond any login.
const OUTPUT_LIMIT: u64 = 256 * 1024;
/// What helpers print when they know no login (`credentials.ErrCredentialsNotFound`).
const NOT_FOUND: &str = "credentials not found";
/// The protocol's other sentences about what is wrong.
const SENTENCES: [&str; 2] = ["no credentials server url", "no credentials username"];
/// The most of a helper's words that is shown, in bytes.
const WORDS_SHOWN: usize = 300;
/// The user name that says that the secret is an identity token.
const TOKEN: &str = "<token>";

/// What a helper prints.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    username: String,
    secret: Hidden,
}

/// Asks a helper for the login of a server, at most `until` then; `None` when it has none.
///
/// # Errors
/// Why it could not be asked, in words without a secret.
pub(super) fn ask(
    name: &str,
    server: &str,
    until: Option<Instant>,
) -> Result<Option<RegistryLogin>, String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+');
    if name.is_empty() || !name.chars().all(is_name) {
        return Err("that is no name of a helper".into());
    }
    let program = program(name);
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            ErrorKind::NotFound => format!("{program} is not in $PATH"),
            _ => format!("{program} cannot be started: {error}"),
        })?;
    if let Some(mut input) = child.stdin.take() {
        // A helper that does not read it fails by itself.
        let _ = input.write_all(server.as_bytes());
    }
    let left = until.map(|until| until.saturating_duration_since(Instant::now()));
    let limit = left.map_or(LIMIT, |left| left.min(LIMIT));
    let end = Instant::now() + limit;
    let (stdout, stderr) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let wait = |stream: mpsc::Receiver<_>| {
        stream.recv_timeout(end.saturating_duration_since(Instant::now()))
    };
    let (stdout, stderr) = (wait(stdout), wait(stderr));
    let ended = ended(&mut child, end);
    let (Ok(stdout), Ok(stderr), Some(status)) = (stdout, stderr, ended) else {
        let _ = child.kill();
        let _ = child.wait();
        return Err(format!(
            "{program} did not answer within {}",
            text::format_duration(limit)
        ));
    };
    let status = status.map_err(|error| format!("{program} was lost: {error}"))?;
    if !status.success() {
        return match complaint(&stdout, &stderr) {
            None => Ok(None),
            Some(words) => Err(format!("{program} failed ({status}){words}")),
        };
    }
    // The parser's own words may quote the secret.
    let answer: Answer = serde_json::from_slice(&stdout)
        .map_err(|_| format!("{program} printed something other than a login"))?;
    if answer.secret.0.is_empty() {
        return Ok(None);
    }
    let secret = Secret::new(answer.secret.0.as_bytes());
    if secret.expose().contains(&0) {
        return Err(format!("{program} gives a secret that holds a NUL byte"));
    }
    if answer.username == TOKEN {
        return Ok(Some(RegistryLogin::IdentityToken {
            username: String::new(),
            token: secret,
        }));
    }
    super::check_user_name(&answer.username)
        .map_err(|_| format!("{program} names no usable user"))?;
    Ok(Some(RegistryLogin::Password {
        username: answer.username,
        password: secret,
    }))
}

/// How a child ended; `None` when it has not until then. One may close its outputs and go on.
fn ended(child: &mut Child, end: Instant) -> Option<io::Result<ExitStatus>> {
    loop {
        match child.try_wait() {
            Ok(None) if Instant::now() < end => thread::sleep(Duration::from_millis(5)),
            ended => return ended.transpose(),
        }
    }
}

/// Why a helper failed; `None` when it only says that it has no login.
///
/// By the protocol a helper prints its errors where it prints logins, on standard output. A wrapper may print a login
/// there and fail afterwards, so of standard output only the protocol's own sentences are repeated.
fn complaint(stdout: &[u8], stderr: &[u8]) -> Option<String> {
    let has = |bytes: &[u8], sentence: &str| {
        let text = String::from_utf8_lossy(bytes).to_ascii_lowercase();
        text.contains(sentence)
    };
    if has(stdout, NOT_FOUND) || has(stderr, NOT_FOUND) {
        return None;
    }
    let sentence = SENTENCES.iter().find(|sentence| has(stdout, sentence));
    let said = Zeroizing::new(String::from_utf8_lossy(stderr).into_owned());
    let secrets = secrets(stdout);
    let known: Vec<&[u8]> = secrets.iter().map(|secret| secret.as_bytes()).collect();
    // Blanked before it is cut: half of a secret is not known as one.
    let said = redact_strictly(&said, &known);
    let said = text::truncate_bytes(said.trim().as_bytes(), WORDS_SHOWN);
    Some(match (sentence, said.as_str()) {
        (Some(sentence), "") => format!(": {sentence}"),
        (Some(sentence), said) => format!(": {sentence}; {said}"),
        (None, "") if stdout.is_empty() => " and said nothing".into(),
        (None, "") => ". What it printed is not shown, as it may hold a login".into(),
        (None, said) => format!(": {said}"),
    })
}

/// What in a helper's answer may be secret, also where it is not an answer that can be used.
fn secrets(stdout: &[u8]) -> Vec<Zeroizing<String>> {
    let text = Zeroizing::new(String::from_utf8_lossy(stdout).into_owned());
    let mut found = Vec::new();
    if let Ok(answer) = serde_json::from_slice::<Answer>(stdout) {
        let login = Zeroizing::new(format!("{}:{}", answer.username, *answer.secret.0));
        found.extend([login, answer.secret.0]);
    }
    // Lines and words of what is not JSON, or torn.
    found.extend(
        text.lines()
            .map(|line| Zeroizing::new(line.trim().to_string())),
    );
    let words = text.split(|c: char| c.is_whitespace() || "\"',{}[]".contains(c));
    let is_telling = |word: &&str| word.len() >= 6 && !word.chars().all(|c| c.is_ascii_lowercase());
    found.extend(
        words
            .filter(is_telling)
            .map(|word| Zeroizing::new(word.to_string())),
    );
    found
}

/// The program of the helper with this name.
pub(super) fn program(name: &str) -> String {
    format!("docker-credential-{name}")
}

/// What a stream holds, as far as it is taken: read on a thread of its own, and wiped when dropped.
fn collect(stream: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Zeroizing<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        // Room from the start: growing would leave copies behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(8 * 1024));
        if let Some(stream) = stream {
            // A broken pipe ends it like its end does.
            let _ = stream.take(OUTPUT_LIMIT).read_to_end(&mut bytes);
        }
        // Nothing listens any more once the time is up.
        let _ = sender.send(bytes);
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helper_that_closes_its_outputs_and_goes_on_is_not_waited_for() {
        let mut child = Command::new("sh")
            .args(["-c", "exec >&- 2>&-; exec sleep 300"])
            .spawn()
            .unwrap();
        assert!(ended(&mut child, Instant::now() + Duration::from_millis(100)).is_none());
        child.kill().unwrap();
        let status = ended(&mut child, Instant::now() + LIMIT).unwrap().unwrap();
        assert!(!status.success());
    }
}
