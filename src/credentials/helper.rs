//! Credential helpers: `docker-credential-NAME get`, as docker runs them.
//!
//! The protocol is that of github.com/docker/docker-credential-helpers: the server's address on standard input, JSON on
//! standard output, or a known sentence when there is no login.

use std::io::{ErrorKind, Read, Write as _};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde::Deserialize;
use zeroize::Zeroizing;

use super::auth_file::Hidden;
use crate::model::{RegistryLogin, Secret, text};

/// How long a helper may take: some ask a cloud.
const LIMIT: Duration = Duration::from_secs(30);
/// Far beyond any login.
const OUTPUT_LIMIT: u64 = 256 * 1024;
/// What helpers print when they know no login (`credentials.ErrCredentialsNotFound`).
const NOT_FOUND: &str = "credentials not found";
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

/// Asks a helper for the login of a server; `None` when it has none.
///
/// # Errors
/// Why it could not be asked, in words without a secret.
pub(super) fn ask(name: &str, server: &str) -> Result<Option<RegistryLogin>, String> {
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
    let (sender, ended) = mpsc::channel();
    let streams = (child.stdout.take(), child.stderr.take());
    std::thread::spawn(move || {
        // Nobody listens any more once the time is up.
        let _ = sender.send((capped(streams.0), capped(streams.1)));
    });
    let Ok((stdout, stderr)) = ended.recv_timeout(LIMIT) else {
        let _ = child.kill();
        let _ = child.wait();
        return Err(format!(
            "{program} did not answer within {} s",
            LIMIT.as_secs()
        ));
    };
    let status = child
        .wait()
        .map_err(|error| format!("{program} was lost: {error}"))?;
    let said = |bytes: &[u8]| text::capped(bytes, 300).trim().to_string();
    if !status.success() {
        // Helpers print their errors to standard output.
        let words = [said(&stdout), said(&stderr)].join(" ");
        if words.to_ascii_lowercase().contains(NOT_FOUND) {
            return Ok(None);
        }
        return Err(format!("{program} failed: {}", words.trim()));
    }
    // The parser's own words may quote the secret.
    let answer: Answer = serde_json::from_slice(&stdout)
        .map_err(|_| format!("{program} printed something else than a login"))?;
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

/// The program of the helper with this name.
pub(super) fn program(name: &str) -> String {
    format!("docker-credential-{name}")
}

/// What a stream holds, as far as it is taken. Wiped when dropped.
fn capped(stream: Option<impl Read>) -> Zeroizing<Vec<u8>> {
    // Room from the start: growing would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(8 * 1024));
    if let Some(stream) = stream {
        // A broken pipe ends it like its end does.
        let _ = stream.take(OUTPUT_LIMIT).read_to_end(&mut bytes);
    }
    bytes
}
