//! Logging in: which keys and passwords are tried in which order, and what a refusal is told as.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use russh::client::{AuthResult, Handle, KeyboardInteractiveAuthResponse};
use russh::keys::{Algorithm, HashAlg, PrivateKeyWithHashAlg};
use russh::{AgentAuthError, MethodKind, MethodSet};

use super::agent::AgentSigner;
use super::connect::Client;
use super::identities::{Identities, Identity};
use super::link::Link;
use crate::model::text::capped;
use crate::model::{Failure, FailureKind, Secret, Stage};

/// OpenSSH's server ends the connection at the sixth refusal (MaxAuthTries).
const TRIES: usize = 5;
/// A server may want several proofs; nobody wants more than this.
const ROUNDS: usize = 3;
/// The questions a keyboard-interactive exchange may go through.
const QUESTIONS: usize = 4;

/// Proves to the server that we are `user`.
///
/// # Errors
/// ssh-auth with what was tried and what the server still offers, or connection-lost.
pub(super) async fn authenticate(
    handle: &mut Handle<Client>,
    link: &Link,
    identities: &Identities,
    user: &str,
    named: &[PathBuf],
) -> Result<(), Failure> {
    let offer = identities.offer(named).map_err(|path| {
        refused(format!(
            "the identity {} was not read at the start",
            path.display()
        ))
    })?;
    let mut login = Login {
        handle,
        link,
        identities,
        user,
        left: TRIES - usize::from(identities.password.is_some()),
        tried: Vec::new(),
        offered: None,
        partial: false,
    };
    let mut keys: VecDeque<&Arc<Identity>> = offer.into();
    if keys.is_empty() && identities.password.is_none() {
        // Only to learn what the server wants.
        let answer = login.handle.authenticate_none(user).await;
        if login.settle(answer).await? {
            return Ok(());
        }
    }
    for _ in 0..ROUNDS {
        login.partial = false;
        if login.try_keys(&mut keys).await? || login.try_password().await? {
            return Ok(());
        }
        if !login.partial {
            break;
        }
    }
    Err(login.refusal(keys.len()))
}

struct Login<'a> {
    handle: &'a mut Handle<Client>,
    link: &'a Link,
    identities: &'a Identities,
    user: &'a str,
    /// How many more keys may be tried.
    left: usize,
    tried: Vec<String>,
    /// What the server offered last.
    offered: Option<MethodSet>,
    /// Whether the server took a proof and wants another one.
    partial: bool,
}

impl Login<'_> {
    fn offers(&self, method: MethodKind) -> bool {
        self.offered
            .as_ref()
            .is_none_or(|offered| offered.contains(&method))
    }

    /// Tries the keys until one is enough.
    async fn try_keys(&mut self, keys: &mut VecDeque<&Arc<Identity>>) -> Result<bool, Failure> {
        while self.left > 0 && self.offers(MethodKind::PublicKey) {
            let Some(key) = keys.pop_front() else { break };
            if self.try_key(key).await? {
                return Ok(true);
            }
            if !self.offers(MethodKind::PublicKey) && !self.partial {
                // The server did not even look at it: it may want the password first.
                self.tried.pop();
                keys.push_front(key);
            }
        }
        Ok(false)
    }

    async fn try_key(&mut self, key: &Identity) -> Result<bool, Failure> {
        self.tried.push(key.to_string());
        // A hash must be named for RSA: SHA-1 would be the default, and is never used.
        if !matches!(key.public.algorithm(), Algorithm::Rsa { .. }) {
            return self.try_key_with(key, None).await;
        }
        if self.try_key_with(key, Some(HashAlg::Sha512)).await? {
            return Ok(true);
        }
        if self.partial || self.left == 0 || !self.offers(MethodKind::PublicKey) {
            return Ok(false);
        }
        // Asked only now: by this time the server has said which hashes it knows, if ever.
        match self.handle.best_supported_rsa_hash().await {
            Ok(None | Some(Some(HashAlg::Sha256))) => {
                self.try_key_with(key, Some(HashAlg::Sha256)).await
            }
            _ => Ok(false),
        }
    }

    async fn try_key_with(
        &mut self,
        key: &Identity,
        hash: Option<HashAlg>,
    ) -> Result<bool, Failure> {
        self.left = self.left.saturating_sub(1);
        if let (true, Some(agent)) = (key.in_agent, &self.identities.agent) {
            let answer = self
                .handle
                .authenticate_publickey_with(
                    self.user,
                    key.public.clone(),
                    hash,
                    &mut AgentSigner(agent),
                )
                .await;
            match answer {
                Ok(answer) => return self.settle(Ok(answer)).await,
                Err(AgentAuthError::Send(_)) => return Err(self.lost().await),
                Err(AgentAuthError::Key(error)) => {
                    self.tried
                        .push(format!("the agent did not sign with it: {error}"));
                }
            }
        }
        let Some(private) = &key.private else {
            return Ok(false);
        };
        let key = PrivateKeyWithHashAlg::new(Arc::clone(private), hash);
        let answer = self.handle.authenticate_publickey(self.user, key).await;
        self.settle(answer).await
    }

    async fn try_password(&mut self) -> Result<bool, Failure> {
        let Some(password) = &self.identities.password else {
            return Ok(false);
        };
        if self.offers(MethodKind::Password) {
            self.tried.push("password".to_owned());
            let answer = self
                .handle
                .authenticate_password(self.user, text(password))
                .await;
            if self.settle(answer).await? {
                return Ok(true);
            }
            if self.offers(MethodKind::Password) || self.partial {
                // It was looked at. The same password once more would only lock the account.
                return Ok(false);
            }
        }
        if self.offers(MethodKind::KeyboardInteractive) {
            return self.try_keyboard(password).await;
        }
        Ok(false)
    }

    /// Answers one hidden question with the password: that is how servers with PAM ask for it.
    async fn try_keyboard(&mut self, password: &Secret) -> Result<bool, Failure> {
        use KeyboardInteractiveAuthResponse as Response;

        self.tried.push("keyboard-interactive".to_owned());
        let mut answer = self
            .handle
            .authenticate_keyboard_interactive_start(self.user, None)
            .await;
        let mut answered = false;
        for _ in 0..QUESTIONS {
            let prompts = match answer {
                Ok(Response::Success) => return Ok(true),
                Ok(Response::Failure {
                    remaining_methods,
                    partial_success,
                }) => {
                    return self
                        .settle(Ok(AuthResult::Failure {
                            remaining_methods,
                            partial_success,
                        }))
                        .await;
                }
                Ok(Response::InfoRequest { prompts, .. }) => prompts,
                Err(_) => return Err(self.lost().await),
            };
            let answers = match prompts.as_slice() {
                [] => Vec::new(),
                [one] if !one.echo && !answered => {
                    answered = true;
                    vec![text(password)]
                }
                [one, ..] => {
                    return Err(refused(format!(
                        "the server asks {:?}, which only a person can answer",
                        capped(one.prompt.as_bytes(), 200)
                    )));
                }
            };
            answer = self
                .handle
                .authenticate_keyboard_interactive_respond(answers)
                .await;
        }
        Err(refused("the server does not stop asking questions"))
    }

    /// Reads an answer of the server: whether we are in.
    async fn settle(&mut self, answer: Result<AuthResult, russh::Error>) -> Result<bool, Failure> {
        match answer {
            Ok(AuthResult::Success) => Ok(true),
            // russh tells a lost connection as a refusal that leaves no method.
            Ok(AuthResult::Failure {
                remaining_methods, ..
            }) if remaining_methods.is_empty() => Err(self.lost().await),
            Ok(AuthResult::Failure {
                remaining_methods,
                partial_success,
            }) => {
                self.offered = Some(remaining_methods);
                self.partial |= partial_success;
                Ok(false)
            }
            Err(_) => Err(self.lost().await),
        }
    }

    /// The connection is gone. A server that says goodbye after a try means the try.
    async fn lost(&self) -> Failure {
        let cause = self.link.cause().await;
        match self.link.farewell() {
            Some(words) if !self.tried.is_empty() => refused(format!(
                "the server ended the login of {}: {words}; tried {}",
                self.user,
                self.tried.join(", ")
            )),
            _ => Failure::new(FailureKind::ConnectionLost, Stage::Authenticate, cause),
        }
    }

    fn refusal(&self, not_tried: usize) -> Failure {
        let mut detail = format!("{} may not log in: ", self.user);
        if self.tried.is_empty() {
            detail.push_str("there was no key and no password to try");
        } else {
            detail.push_str("tried ");
            detail.push_str(&self.tried.join(", "));
        }
        if self.offers(MethodKind::PublicKey) && not_tried > 0 {
            detail.push_str(&format!(
                "; {not_tried} more in the agent or among the defaults, not tried because servers allow about six: name the right one"
            ));
        }
        if let Some(offered) = &self.offered {
            let names: Vec<&str> = offered.iter().map(|method| method.into()).collect();
            detail.push_str("; the server offers ");
            detail.push_str(&names.join(", "));
        }
        for note in &self.identities.notes {
            detail.push_str("; ");
            detail.push_str(note);
        }
        refused(detail)
    }
}

fn refused(detail: impl Into<String>) -> Failure {
    Failure::new(FailureKind::SshAuth, Stage::Authenticate, detail)
}

/// russh wants text, and wipes it; that the password is UTF-8 was checked at the start.
fn text(password: &Secret) -> String {
    String::from_utf8_lossy(password.expose()).into_owned()
}
