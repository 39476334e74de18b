//! Logging in with a password, by itself or as the answer to a question, and never more often than an account stands.

use russh::client::{AuthResult, KeyboardInteractiveAuthResponse as Response};

use super::super::keyboard_interactive::{self, Answer};
use super::{Login, refused};
use crate::model::text::truncate_bytes;
use crate::model::{Failure, Permit, Secret};

/// The rounds of questions that a keyboard-interactive exchange may go through.
const QUESTIONS: usize = 8;
/// The most of a prompt that is shown.
const PROMPT: usize = 200;

impl Login<'_> {
    /// Leave to send the password; nothing where it must not be sent.
    async fn permit(&mut self, password: &Secret) -> Result<Option<Permit>, Failure> {
        // How long other hosts take is not this one's fault.
        let permit = self.passwords.permit(self.user, password, &self.server);
        match self.limit.pausing(permit).await {
            Ok(permit) if self.link.has_ended() => {
                permit.unused();
                Err(self.lost().await)
            }
            Ok(permit) => Ok(Some(permit)),
            Err(withheld) => {
                self.password = None;
                self.withheld = Some(withheld);
                Ok(None)
            }
        }
    }

    pub(super) async fn try_password(&mut self) -> Result<bool, Failure> {
        let Some(password) = self.password else {
            return Ok(false);
        };
        let Some(permit) = self.permit(password).await? else {
            return Ok(false);
        };
        self.tried.push("password".to_owned());
        self.was_password_tried = true;
        let answer = self
            .handle
            .authenticate_password(self.user, text(password))
            .await;
        match &answer {
            Ok(
                AuthResult::Success
                | AuthResult::Failure {
                    partial_success: true,
                    ..
                },
            ) => permit.accepted(),
            _ => self.password = None,
        }
        self.settle(answer).await
    }

    /// Answers hidden questions for a password: that is how servers with PAM ask for it.
    pub(super) async fn try_keyboard(&mut self) -> Result<bool, Failure> {
        self.tried.push("keyboard-interactive".to_owned());
        let mut answer = self
            .handle
            .authenticate_keyboard_interactive_start(self.user, None)
            .await;
        let mut sent: Option<Permit> = None;
        for _ in 0..QUESTIONS {
            let prompts = match answer {
                Ok(Response::Success) => {
                    if let Some(permit) = sent {
                        permit.accepted();
                    }
                    return Ok(true);
                }
                Ok(Response::Failure {
                    remaining_methods,
                    partial_success,
                }) => {
                    match sent {
                        Some(permit) if partial_success => permit.accepted(),
                        Some(_) => self.password = None,
                        None => {}
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
                    keyboard_interactive::answer(&prompt.prompt, prompt.echo),
                    self.password,
                ) {
                    (Answer::Password, Some(password)) if sent.is_none() => {
                        sent = self.permit(password).await?;
                        if sent.is_none() {
                            return Err(self.refusal());
                        }
                        self.was_password_tried = true;
                        answers.push(text(password));
                        continue;
                    }
                    (Answer::Password, Some(_)) => {
                        "after it got the password, which is not sent twice"
                    }
                    (Answer::Password, None) => match self.is_jump_host {
                        true => {
                            "and there is no password to give: --ask-jump-pass asks for the passwords of jump hosts"
                        }
                        false => "and there is no password to give: --ask-pass (-k) asks for it",
                    },
                    (Answer::NewPassword, _) => {
                        "because the password has expired: log in once with ssh to change it"
                    }
                    (Answer::Person, _) => "which only a person can answer",
                };
                let tried = self.tried.join(", ");
                let prompt = truncate_bytes(prompt.prompt.trim().as_bytes(), PROMPT);
                return Err(refused(format!(
                    "the login of {} ended because the server asks {prompt:?}, {why}; tried {tried}",
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
}

/// russh wants text, and wipes it; that the password is UTF-8 was checked at the start.
fn text(password: &Secret) -> String {
    String::from_utf8_lossy(password.expose()).into_owned()
}
