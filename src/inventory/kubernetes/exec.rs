//! Login programs of kubeconfigs (client-go credential plugins): each runs once, as with kubectl, and its answer is
//! kept for whatever else is asked of the API in this run.

use std::io::{IsTerminal as _, Read as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use serde::Deserialize;
use zeroize::Zeroizing;

use super::super::error::InputError;
use super::tls::Identity;
use crate::model::Secret;

/// The most that a program may answer: a token and a certificate are kilobytes.
const ANSWER_LIMIT: u64 = 4 << 20;

/// What a kubeconfig says under `exec`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Exec {
    /// The user's name, for errors.
    pub(super) user: String,
    pub(super) command: PathBuf,
    pub(super) arguments: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
    pub(super) api_version: String,
    /// Whether it gets the terminal; `None` where there is one.
    pub(super) mode: Option<bool>,
    /// What it wants to know of the cluster.
    pub(super) cluster: Option<serde_json::Value>,
    pub(super) install_hint: Option<String>,
}

/// What it answered.
#[derive(Debug, Clone)]
pub(super) struct Credential {
    pub(super) token: Option<Secret>,
    pub(super) identity: Option<Identity>,
    expires: Option<SystemTime>,
}

static ANSWERS: Mutex<Vec<(Exec, Credential)>> = Mutex::new(Vec::new());

/// What the program answers, or answered before.
pub(super) fn credential(exec: &Exec) -> Result<Credential, InputError> {
    // Held while it runs: a second question waits for the answer to the first.
    let mut answers = ANSWERS.lock().unwrap_or_else(PoisonError::into_inner);
    let now = SystemTime::now();
    answers.retain(|(_, answer)| answer.expires.is_none_or(|end| end > now));
    if let Some((_, answer)) = answers.iter().find(|(known, _)| known == exec) {
        return Ok(answer.clone());
    }
    let answer = run(exec)?;
    answers.push((exec.clone(), answer.clone()));
    Ok(answer)
}

/// The API did not take an answer: the next question runs the program again.
pub(super) fn forget() {
    let mut answers = ANSWERS.lock().unwrap_or_else(PoisonError::into_inner);
    answers.clear();
}

fn run(exec: &Exec) -> Result<Credential, InputError> {
    let called = format!(
        "the login program \"{}\" of the kubeconfig's user \"{}\"",
        exec.command.display(),
        exec.user
    );
    let has_terminal = std::io::stdin().is_terminal();
    if exec.mode == Some(true) && !has_terminal {
        return Err(InputError::new(format!(
            "{called} wants to talk with you (interactiveMode: Always), and standard input is no terminal"
        ))
        .with_hint("start prepull from a terminal, and give it manifests and inventories as files"));
    }
    let interactive = exec.mode.unwrap_or(has_terminal);
    let mut spec = serde_json::json!({"interactive": interactive});
    if let Some(cluster) = &exec.cluster {
        spec["cluster"] = cluster.clone();
    }
    let info = serde_json::json!({
        "kind": "ExecCredential", "apiVersion": exec.api_version, "spec": spec,
    });
    let stdin = if interactive {
        Stdio::inherit()
    } else {
        Stdio::null()
    };
    let mut child = Command::new(&exec.command)
        .args(&exec.arguments)
        .envs(exec.environment.iter().map(|(name, value)| (name, value)))
        .env("KUBERNETES_EXEC_INFO", info.to_string())
        .stdin(stdin)
        .stdout(Stdio::piped())
        // What it has to say, a code to type into a browser perhaps, is for the operator, and now.
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|error| cannot_run(exec, &called, &error))?;
    let mut answer = Zeroizing::new(Vec::new());
    if let Some(stdout) = child.stdout.take() {
        // What it printed before a fault is told from its status.
        let _ = stdout.take(ANSWER_LIMIT).read_to_end(&mut answer);
    }
    let status = child
        .wait()
        .map_err(|error| InputError::new(format!("{called}: {error}")))?;
    if !status.success() {
        return Err(InputError::new(format!("{called} failed: {status}")).with_hint(
            "what it said stands above; log in again, and see whether `kubectl get nodes` works",
        ));
    }
    read(exec, &called, &answer)
}

fn cannot_run(exec: &Exec, called: &str, error: &std::io::Error) -> InputError {
    let is_missing = error.kind() == std::io::ErrorKind::NotFound;
    let fault = if is_missing && !exec.command.to_string_lossy().contains('/') {
        InputError::new(format!("{called} is not installed: it is not in $PATH"))
    } else {
        InputError::new(format!("{called} cannot be run: {error}"))
    };
    match &exec.install_hint {
        Some(hint) if is_missing => fault.with_hint(hint.trim()),
        _ => fault.with_hint("install it, or correct command in the kubeconfig"),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    api_version: Option<String>,
    kind: Option<String>,
    status: Option<Status>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    expiration_timestamp: Option<String>,
    token: Option<Secrecy>,
    client_certificate_data: Option<String>,
    client_key_data: Option<Secrecy>,
}

/// A text that is wiped.
#[derive(Deserialize)]
#[serde(from = "String")]
struct Secrecy(Secret);

impl From<String> for Secrecy {
    fn from(text: String) -> Self {
        Self(Secret::new(text))
    }
}

/// Reads an `ExecCredential`, which may be YAML. Nothing of it is quoted.
fn read(exec: &Exec, called: &str, bytes: &[u8]) -> Result<Credential, InputError> {
    let wrong = |what: &str| {
        InputError::new(format!("{called} answered {what}"))
            .with_hint("does `kubectl get nodes` work? Its apiVersion in the kubeconfig has to be one that the program knows")
    };
    let answer: Answer =
        serde_yaml::from_slice(bytes).map_err(|_| wrong("something that is no ExecCredential"))?;
    if answer.kind.as_deref() != Some("ExecCredential") {
        return Err(wrong("something that is no ExecCredential"));
    }
    if answer.api_version.as_deref() != Some(&exec.api_version) {
        return Err(wrong(&format!(
            "with another apiVersion than {}",
            exec.api_version
        )));
    }
    let status = answer.status.ok_or_else(|| wrong("without a status"))?;
    let full = |secret: Option<Secrecy>| {
        let secret = secret.map(|Secrecy(secret)| secret);
        secret.filter(|secret| !secret.is_empty())
    };
    let certificate = status.client_certificate_data.filter(|pem| !pem.is_empty());
    let identity = match (certificate, full(status.client_key_data)) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some(Identity {
            certificate: certificate.into_bytes(),
            key,
        }),
        _ => return Err(wrong("only one of certificate and key")),
    };
    let token = full(status.token);
    if token.is_none() && identity.is_none() {
        return Err(wrong("neither a token nor a certificate with its key"));
    }
    let expires = status
        .expiration_timestamp
        .and_then(|text| humantime::parse_rfc3339_weak(text.trim()).ok());
    Ok(Credential {
        token,
        identity,
        expires,
    })
}
