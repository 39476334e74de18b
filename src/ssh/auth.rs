//! Logging in: which keys and passwords are tried in which order, and what a refusal is told as.

mod passwords;

use std::collections::VecDeque;

use russh::client::{AuthResult, Handle};
use russh::keys::HashAlg;
use russh::keys::agent::AgentSessionBinding;
use russh::{AgentAuthError, MethodKind, MethodSet};

use super::agent::TOUCH_WAIT;
use super::handler::Client;
use super::identities::Identities;
use super::key_candidate::{CandidateSigner, KeyCandidate};
use super::link::ConnectionHandle;
use super::target::Target;
use super::{HostSettings, Inner, LoginMethod};
use crate::model::node::server;
use crate::model::{Failure, FailureKind, Limit, Passwords, Secret, Stage, Withheld};

/// With a password at hand this many keys are tried before it: OpenSSH's server ends the connection at the
/// sixth refusal (MaxAuthTries), and two ways of sending a password may be left.
const KEYS_BEFORE_PASSWORD: usize = 4;
/// A server may want several proofs, and say after each which comes next; no real server wants more than this.
const TURNS: usize = 12;

/// Proves to the server that we are the target's user. One whose host key `has_changed` gets no password and no answer,
/// as with `ssh`: it may be another machine.
///
/// # Errors
/// ssh-auth with what was tried and what the server still offers, or connection-lost.
pub(super) async fn authenticate(
    handle: &mut Handle<Client>,
    link: &ConnectionHandle,
    inner: &Inner,
    settings: &HostSettings,
    target: &Target<'_>,
    has_changed: bool,
) -> Result<(), Failure> {
    let identities = &inner.identities;
    let keys = identities
        .offer(settings, target.identities)
        .map_err(|path| {
            refused(format!(
                "the identity {} was not read at the start",
                path.display()
            ))
        })?;
    let mut wait = settings.connect_timeout;
    if keys.iter().any(KeyCandidate::wants_touch) {
        wait += TOUCH_WAIT;
    }
    // Where ssh may ask for no password, it sends none.
    let password = target
        .password
        .filter(|_| settings.password_prompts > 0 && !has_changed);
    let limit = Limit::new(wait);
    let mut login = Login {
        limit: &limit,
        passwords: &inner.tried,
        server: server(target.host, target.port, target.route),
        given: target.password,
        withheld: None,
        session: handle.agent_session_binding().cloned(),
        handle,
        link,
        identities,
        settings,
        user: target.user,
        has_changed,
        keys: keys.into(),
        left: password.map(|_| KEYS_BEFORE_PASSWORD),
        password,
        over: Vec::new(),
        tried: Vec::new(),
        was_key_tried: false,
        was_password_tried: false,
        is_jump_host: target.is_jump_host,
        offered: None,
        partial: false,
    };
    match limit.within(login.run()).await {
        Some(ended) => ended,
        None => {
            let tried = login.tried.last();
            let mut after = tried.map_or(String::new(), |last| format!(" after {last}"));
            if after == " after password" {
                // russh says nothing when the server asks for a new one instead (RFC 4252, section 8).
                after.push_str(
                    "; does the server want a new one? To choose it, log in once with ssh",
                );
            }
            link.kill("the login took too long");
            Err(Failure::new(
                FailureKind::ConnectionLost,
                Stage::Authenticate,
                format!("the login did not end within {wait:?}{after}"),
            ))
        }
    }
}

struct Login<'a> {
    /// How long it may take.
    limit: &'a Limit,
    passwords: &'a Passwords,
    /// Tells the server from others.
    server: String,
    /// The password for this host, whether or not it may be sent.
    given: Option<&'a Secret>,
    /// Why the password was not sent after all.
    withheld: Option<Withheld>,
    /// What an agent learns about the session.
    session: Option<AgentSessionBinding>,
    handle: &'a mut Handle<Client>,
    link: &'a ConnectionHandle,
    identities: &'a Identities,
    settings: &'a HostSettings,
    user: &'a str,
    /// Whether the host key is another one than is known.
    has_changed: bool,
    /// The keys that were not tried yet.
    keys: VecDeque<KeyCandidate<'a>>,
    /// How many more keys may be tried, where something else comes after them.
    left: Option<usize>,
    /// The password that may be sent, until the server refused it: once more would only lock the account.
    password: Option<&'a Secret>,
    /// The methods that have nothing left to try.
    over: Vec<LoginMethod>,
    tried: Vec<String>,
    was_key_tried: bool,
    was_password_tried: bool,
    is_jump_host: bool,
    /// What the server offered last.
    offered: Option<MethodSet>,
    /// Whether the server took the last proof and wants another one.
    partial: bool,
}

impl<'a> Login<'a> {
    async fn run(&mut self) -> Result<(), Failure> {
        let first = self.next();
        if first != Some(LoginMethod::PublicKey) {
            // To learn which methods the server has: a try that it does not look at would count as a refusal.
            let answer = self.handle.authenticate_none(self.user).await;
            if self.settle(answer).await? {
                return Ok(());
            }
        }
        for _ in 0..TURNS {
            let Some(method) = self.next() else { break };
            if method != LoginMethod::PublicKey && self.offered.is_none() {
                // No key got as far as an answer.
                let answer = self.handle.authenticate_none(self.user).await;
                if self.settle(answer).await? {
                    return Ok(());
                }
                continue;
            }
            self.partial = false;
            let is_in = match method {
                LoginMethod::PublicKey => self.try_keys().await?,
                LoginMethod::Password => self.try_password().await?,
                LoginMethod::KeyboardInteractive => self.try_keyboard().await?,
            };
            if is_in {
                return Ok(());
            }
            if self.partial {
                self.over.clear();
            } else if self.offers(kind(method)) {
                self.over.push(method);
            }
        }
        // The last resort. It is not asked first: servers that let everybody in are rare, and it costs a
        // round trip. A server that ends the connection now has refused what was tried before.
        if !self.partial && self.offered.is_some() && !self.tried.is_empty() {
            let answer = self.handle.authenticate_none(self.user).await;
            if let Ok(AuthResult::Success) = answer {
                return Ok(());
            }
        }
        Err(self.refusal())
    }

    /// The first of our methods that the server has and that there is something left for.
    fn next(&self) -> Option<LoginMethod> {
        let mut methods = self.settings.methods.iter().copied();
        methods.find(|method| {
            !self.over.contains(method) && self.offers(kind(*method)) && self.has(*method)
        })
    }

    fn offers(&self, method: MethodKind) -> bool {
        self.offered
            .as_ref()
            .is_none_or(|offered| offered.contains(&method))
    }

    /// Whether there is something to try by this method.
    fn has(&self, method: LoginMethod) -> bool {
        match method {
            LoginMethod::PublicKey => !self.keys.is_empty() && self.left != Some(0),
            LoginMethod::Password => self.password.is_some(),
            // It may want no answer at all. Only where the server is known to have it.
            LoginMethod::KeyboardInteractive => {
                self.password.is_some()
                    || (!self.has_changed
                        && self.offered.is_some()
                        && self.given.is_none()
                        && self.settings.password_prompts > 0
                        && !self.settings.batch_mode)
            }
        }
    }

    /// Tries the keys until one is taken.
    async fn try_keys(&mut self) -> Result<bool, Failure> {
        while self.left != Some(0) && self.offers(MethodKind::PublicKey) {
            let Some(key) = self.keys.pop_front() else {
                break;
            };
            let is_in = self.try_key(&key).await?;
            if is_in || self.partial {
                return Ok(is_in);
            }
            if !self.offers(MethodKind::PublicKey) {
                // The server did not even look at it: it may want the password first.
                self.tried.pop();
                self.was_key_tried = !self.tried.is_empty();
                self.keys.push_front(key);
                self.left = self.left.map(|left| left + 1);
            }
        }
        Ok(false)
    }

    async fn try_key(&mut self, key: &KeyCandidate<'a>) -> Result<bool, Failure> {
        self.tried.push(key.to_string());
        self.was_key_tried = true;
        for (number, hash) in key.hashes.iter().enumerate() {
            if number > 0 {
                // Asked only now: by this time the server has said which hashes it knows, if ever.
                match self.handle.best_supported_rsa_hash().await {
                    Ok(None) => {}
                    Ok(Some(best)) if best == *hash => {}
                    _ => break,
                }
            }
            if self.try_key_with(key, *hash).await? {
                return Ok(true);
            }
            if self.partial || self.left == Some(0) || !self.offers(MethodKind::PublicKey) {
                break;
            }
        }
        Ok(false)
    }

    async fn try_key_with(
        &mut self,
        key: &KeyCandidate<'a>,
        hash: Option<HashAlg>,
    ) -> Result<bool, Failure> {
        self.left = self.left.map(|left| left.saturating_sub(1));
        let mut signer = CandidateSigner {
            offer: key,
            session: self.session.as_ref(),
            agents_refusal: None,
        };
        let answer = match key.certificate {
            Some(certificate) => {
                let certificate = certificate.clone();
                self.handle
                    .authenticate_certificate_with(self.user, certificate, hash, &mut signer)
                    .await
            }
            None => {
                self.handle
                    .authenticate_publickey_with(self.user, key.public(), hash, &mut signer)
                    .await
            }
        };
        if let Some(reason) = signer.agents_refusal {
            self.tried
                .push(format!("the agent did not sign with it: {reason}"));
        }
        match answer {
            Ok(answer) => self.settle(Ok(answer)).await,
            Err(AgentAuthError::Send(_)) => Err(self.lost().await),
            // No signer was found.
            Err(AgentAuthError::Key(_)) => Ok(false),
        }
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
                self.partial = partial_success;
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
                "the server ended the login of {}: {words}; tried {}{}",
                self.user,
                self.tried.join(", "),
                self.not_tried()
            )),
            _ => Failure::new(FailureKind::ConnectionLost, Stage::Authenticate, cause),
        }
    }

    fn not_tried(&self) -> String {
        match self.keys.len() {
            0 => String::new(),
            more => format!(
                "; {more} more in the agent or among the files were not tried because servers allow about six: \
                 name the right one (--identity, or IdentityFile in ssh_config)"
            ),
        }
    }

    fn refusal(&self) -> Failure {
        let mut detail = format!("{} for {}", self.not_accepted(), self.user);
        if !self.tried.is_empty() {
            detail.push_str(": tried ");
            detail.push_str(&self.tried.join(", "));
        } else if self.given.is_none() {
            detail.push_str(": there is no key and no password to try");
        }
        if self.offers(MethodKind::PublicKey) {
            detail.push_str(&self.not_tried());
        }
        if let Some(offered) = &self.offered {
            let names: Vec<&str> = offered.iter().map(|method| method.into()).collect();
            detail.push_str("; the server offers ");
            detail.push_str(&names.join(", "));
        }
        if let Some(note) = self.password_note() {
            detail.push_str("; ");
            detail.push_str(&note);
        }
        for note in &self.identities.notes {
            detail.push_str("; ");
            detail.push_str(note);
        }
        refused(detail)
    }

    /// What was tried without success, in words for the person who reads the failure.
    fn not_accepted(&self) -> &'static str {
        match (self.was_key_tried, self.was_password_tried) {
            (true, true) => "neither a key nor the password was accepted",
            (true, false) => "no key was accepted",
            (false, true) => "the password was not accepted",
            (false, false) => "no key was offered",
        }
    }

    /// Why the password was not tried, or what to do where there is none.
    fn password_note(&self) -> Option<String> {
        let wanted = [MethodKind::Password, MethodKind::KeyboardInteractive];
        if let Some(withheld) = &self.withheld {
            return Some(format!("the password was not sent: {withheld}"));
        }
        let note = match self.given {
            Some(_) if self.has_changed => {
                "its host key is another one than known_hosts has, so it gets no password"
            }
            Some(_) if self.settings.password_prompts == 0 => {
                "NumberOfPasswordPrompts 0 of ssh_config allows no password"
            }
            None if self.offered.is_some()
                && wanted.into_iter().any(|method| self.offers(method)) =>
            {
                match self.is_jump_host {
                    true => "--ask-jump-pass asks for the passwords of jump hosts",
                    false => "--ask-pass (-k) asks for a password",
                }
            }
            _ => return None,
        };
        Some(note.to_owned())
    }
}

fn kind(method: LoginMethod) -> MethodKind {
    match method {
        LoginMethod::PublicKey => MethodKind::PublicKey,
        LoginMethod::KeyboardInteractive => MethodKind::KeyboardInteractive,
        LoginMethod::Password => MethodKind::Password,
    }
}

fn refused(detail: impl Into<String>) -> Failure {
    Failure::new(FailureKind::SshAuth, Stage::Authenticate, detail)
}
