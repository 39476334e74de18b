//! Logging in: which keys and passwords are tried in which order, and what a refusal is told as.

use std::collections::VecDeque;

use russh::client::{AuthResult, Handle, KeyboardInteractiveAuthResponse};
use russh::keys::HashAlg;
use russh::keys::agent::AgentSessionBinding;
use russh::{AgentAuthError, MethodKind, MethodSet};
use tokio::time::timeout;

use super::agent::TOUCH_WAIT;
use super::connect::{Client, Target};
use super::identities::Identities;
use super::link::Link;
use super::offer::{Offer, OfferSigner};
use super::questions::{self, Answer};
use super::{HostSettings, LoginMethod};
use crate::model::text::capped;
use crate::model::{Failure, FailureKind, Secret, Stage};

/// With a password at hand this many keys are tried before it: OpenSSH's server ends the connection at the
/// sixth refusal (MaxAuthTries), and two ways of sending a password may be left.
const KEYS_BEFORE_PASSWORD: usize = 4;
/// A server may want several proofs, and say after each which comes next; nobody wants more than this.
const TURNS: usize = 12;
/// The rounds of questions that a keyboard-interactive exchange may go through.
const QUESTIONS: usize = 8;
/// The most of a prompt that is shown.
const PROMPT: usize = 200;

/// Proves to the server that we are the target's user. One whose host key `has_changed` gets no password and no answer,
/// as with `ssh`: it may be somebody else.
///
/// # Errors
/// ssh-auth with what was tried and what the server still offers, or connection-lost.
pub(super) async fn authenticate(
    handle: &mut Handle<Client>,
    link: &Link,
    identities: &Identities,
    settings: &HostSettings,
    target: &Target<'_>,
    has_changed: bool,
) -> Result<(), Failure> {
    let keys = identities
        .offer(settings, target.identities)
        .map_err(|path| {
            refused(format!(
                "the identity {} was not read at the start",
                path.display()
            ))
        })?;
    let mut wait = settings.connect_timeout;
    if keys.iter().any(Offer::wants_touch) {
        wait += TOUCH_WAIT;
    }
    // Where ssh may ask for no password, it sends none.
    let password = identities
        .password
        .as_ref()
        .filter(|_| settings.password_prompts > 0 && !has_changed);
    let mut login = Login {
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
        offered: None,
        partial: false,
    };
    match timeout(wait, login.run()).await {
        Ok(ended) => ended,
        Err(_) => {
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
    /// What an agent is told of the session.
    session: Option<AgentSessionBinding>,
    handle: &'a mut Handle<Client>,
    link: &'a Link,
    identities: &'a Identities,
    settings: &'a HostSettings,
    user: &'a str,
    /// Whether the host key is another one than is known.
    has_changed: bool,
    /// The keys that were not tried yet.
    keys: VecDeque<Offer<'a>>,
    /// How many more keys may be tried, where something else comes after them.
    left: Option<usize>,
    /// The password, until the server refused it: once more would only lock the account.
    password: Option<&'a Secret>,
    /// The methods that have nothing left to try.
    over: Vec<LoginMethod>,
    tried: Vec<String>,
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
                        && self.identities.password.is_none()
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
                self.keys.push_front(key);
                self.left = self.left.map(|left| left + 1);
            }
        }
        Ok(false)
    }

    async fn try_key(&mut self, key: &Offer<'a>) -> Result<bool, Failure> {
        self.tried.push(key.to_string());
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
        key: &Offer<'a>,
        hash: Option<HashAlg>,
    ) -> Result<bool, Failure> {
        self.left = self.left.map(|left| left.saturating_sub(1));
        let mut signer = OfferSigner {
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
            // Nobody could sign.
            Err(AgentAuthError::Key(_)) => Ok(false),
        }
    }

    async fn try_password(&mut self) -> Result<bool, Failure> {
        let Some(password) = self.password else {
            return Ok(false);
        };
        self.tried.push("password".to_owned());
        let answer = self
            .handle
            .authenticate_password(self.user, text(password))
            .await;
        let is_in = self.settle(answer).await?;
        if !is_in && !self.partial && self.offers(MethodKind::Password) {
            // It was looked at.
            self.password = None;
        }
        Ok(is_in)
    }

    /// Answers hidden questions for a password: that is how servers with PAM ask for it.
    async fn try_keyboard(&mut self) -> Result<bool, Failure> {
        use KeyboardInteractiveAuthResponse as Response;

        self.tried.push("keyboard-interactive".to_owned());
        let mut answer = self
            .handle
            .authenticate_keyboard_interactive_start(self.user, None)
            .await;
        let mut was_sent = false;
        for _ in 0..QUESTIONS {
            let prompts = match answer {
                Ok(Response::Success) => return Ok(true),
                Ok(Response::Failure {
                    remaining_methods,
                    partial_success,
                }) => {
                    if was_sent && !partial_success {
                        self.password = None;
                    }
                    let failure = AuthResult::Failure {
                        remaining_methods,
                        partial_success,
                    };
                    return self.settle(Ok(failure)).await;
                }
                Ok(Response::InfoRequest { prompts, .. }) => prompts,
                Err(_) => return Err(self.lost().await),
            };
            let mut answers = Vec::with_capacity(prompts.len());
            for prompt in &prompts {
                let why = match (
                    questions::answer(&prompt.prompt, prompt.echo),
                    self.password,
                ) {
                    (Answer::Password, Some(password)) if !was_sent => {
                        was_sent = true;
                        answers.push(text(password));
                        continue;
                    }
                    (Answer::Password, Some(_)) => {
                        "after it got the password, which is not sent twice"
                    }
                    (Answer::Password, None) => {
                        "and there is no password to give: --ask-pass asks for it"
                    }
                    (Answer::NewPassword, _) => {
                        "because the password has expired: log in once with ssh to change it"
                    }
                    (Answer::Person, _) => "which only a person can answer",
                };
                let tried = self.tried.join(", ");
                let prompt = capped(prompt.prompt.trim().as_bytes(), PROMPT);
                return Err(refused(format!(
                    "{} may not log in: the server asks {prompt:?}, {why}; tried {tried}",
                    self.user
                )));
            }
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
        let mut detail = format!("{} may not log in: ", self.user);
        if self.tried.is_empty() {
            detail.push_str("there was no key and no password to try");
        } else {
            detail.push_str("tried ");
            detail.push_str(&self.tried.join(", "));
        }
        if self.offers(MethodKind::PublicKey) {
            detail.push_str(&self.not_tried());
        }
        if let Some(offered) = &self.offered {
            let names: Vec<&str> = offered.iter().map(|method| method.into()).collect();
            detail.push_str("; the server offers ");
            detail.push_str(&names.join(", "));
        }
        if self.settings.password_prompts == 0 && self.identities.password.is_some() {
            detail.push_str("; NumberOfPasswordPrompts 0 of ssh_config allows no password");
        }
        if self.has_changed && self.identities.password.is_some() {
            detail.push_str(
                "; its host key is another one than known_hosts has, so it gets no password",
            );
        }
        for note in &self.identities.notes {
            detail.push_str("; ");
            detail.push_str(note);
        }
        refused(detail)
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

/// russh wants text, and wipes it; that the password is UTF-8 was checked at the start.
fn text(password: &Secret) -> String {
    String::from_utf8_lossy(password.expose()).into_owned()
}
