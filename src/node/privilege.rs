//! Becoming root before our program starts, and saying why a node does not let us.
//!
//! The login shell runs `escalate.sh`, which says what it uses (`root sudo PID`) and turns into it. What it
//! started says `root begun`; until then the only thing that is ever sent is the password, once, and only
//! after sudo has shown the prompt that we gave it: where sudo does not ask, the password is not sent.

use std::time::Duration;

use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::model::{
    ExitStatus, Failure, FailureKind, Limit, Node, Permit, Retry, Secret, Stage,
    text::truncate_bytes,
};
use crate::ports::{Channel, Session};

use super::conversation::{Conversation, WORDS_SHOWN};
use super::frames::{Frame, Reader};
use super::request::{self, nonce};

const SCRIPT: &str = include_str!("escalate.sh");

/// How long sudo may take, with the directories and delays of its login. Below the limit for starting.
const BECOMING_LIMIT: Duration = Duration::from_secs(45);
/// How long a sudo that asks again may take to be ended.
const END_LIMIT: Duration = Duration::from_secs(5);

/// What was heard until now.
#[derive(Default)]
struct EscalationState {
    /// What `escalate.sh` found.
    tool: Option<Tool>,
    /// The process that became the tool.
    process: u32,
    /// Whether the password was sent.
    sent: bool,
    /// Leave to send it, until it is known what became of it.
    permit: Option<Permit>,
    /// Whether sudo asked once more after that.
    asked_again: bool,
    /// Whether there is a password that this host must not get: its key is another one than is known.
    withheld: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tool {
    /// The user is root.
    None,
    Sudo,
    Doas,
    /// Neither is there.
    Missing,
}

impl<C: Channel> Conversation<C> {
    /// Becomes root on the node. Afterwards the channel's reader is root's, and nothing was sent to it.
    pub(super) async fn become_root<S: Session<Channel = C>>(
        &mut self,
        session: &mut S,
        node: &Node,
        start: &Limit,
    ) -> Result<(), Failure> {
        let mark = nonce();
        let program_reader = std::mem::replace(&mut self.reader, Reader::new(&mark, (0, 0), 0));
        let mut heard = EscalationState::default();
        let limits = [start, &Limit::new(BECOMING_LIMIT)];
        let privilege = self.privilege(session, node, &mark, &mut heard, limits);
        match limits[1].within(privilege).await {
            Some(result) => result.map_err(|failure| once(failure, heard.sent))?,
            None => {
                if heard.tool == Some(Tool::Sudo) {
                    end(session, heard.process).await;
                }
                return Err(self.silent(node, &heard, &mark));
            }
        }
        self.reader = program_reader;
        self.stderr.clear();
        Ok(())
    }

    async fn privilege<S: Session<Channel = C>>(
        &mut self,
        session: &mut S,
        node: &Node,
        mark: &str,
        heard: &mut EscalationState,
        limits: [&Limit; 2],
    ) -> Result<(), Failure> {
        // Another host than the one that is known gets no password.
        heard.withheld = session.host_key_changed() && node.become_password.is_some();
        let password = node.become_password.as_ref().filter(|_| !heard.withheld);
        let given = if password.is_some() { "yes" } else { "no" };
        let start = format!(
            "{}{mark}\n{given}\n",
            request::program(SCRIPT, request::Part::Call)
        );
        if let Err(lost) = self.channel.write(start.into()).await {
            return Err(self.last_words(lost).await);
        }
        let prompt = prompt(mark);
        loop {
            let next = self.reader.next().map_err(|broken| self.broken(&broken))?;
            match next {
                Some(Frame::Root(said)) if said == "begun" => {
                    if let Some(permit) = heard.permit.take() {
                        permit.accepted();
                    }
                    return Ok(());
                }
                Some(Frame::Root(said)) if heard.tool.is_none() => {
                    let read = found(&said);
                    let (tool, process) =
                        read.ok_or_else(|| self.broken(&"it became root in an unknown way"))?;
                    (heard.tool, heard.process) = (Some(tool), process);
                    // sudo writes to standard output what PAM's modules tell the user.
                    let noise = self.reader.expect_noise();
                    noise.map_err(|broken| self.broken(&broken))?;
                    continue;
                }
                Some(_) => return Err(self.broken(&"a line came where another was due")),
                None => {}
            }
            let stderr = String::from_utf8_lossy(&self.stderr);
            let prompts = stderr.matches(&prompt).count();
            // sudo goes on to ask for the old password and a new one.
            let expired = stderr.contains("is expired, reset your password");
            match password {
                Some(password) if prompts == 1 && !heard.sent => {
                    if let Some(passwords) = session.root_passwords() {
                        let server = node.server();
                        let permit = passwords.permit(&node.user, password, &server);
                        // How long other nodes take is not this one's fault.
                        match limits[0].pausing(limits[1].pausing(permit)).await {
                            Ok(permit) => heard.permit = Some(permit),
                            Err(withheld) => {
                                end(session, heard.process).await;
                                let detail = format!(
                                    "sudo wants the password of {}, and it was not sent: {withheld}",
                                    node.user
                                );
                                return Err(Failure::new(
                                    FailureKind::Privilege,
                                    Stage::Start,
                                    detail,
                                ));
                            }
                        }
                    }
                    heard.sent = true;
                    if self.channel.write(line(password).into()).await.is_err() {
                        return Err(self.not_root(node, heard, mark));
                    }
                }
                _ if prompts > 1 || expired => {
                    heard.asked_again = heard.sent;
                    end(session, heard.process).await;
                    return Err(self.not_root(node, heard, mark));
                }
                _ => {}
            }
            match self.channel.next().await {
                Ok(Some(event)) => self.take(event)?,
                Ok(None) if heard.tool.is_none() || self.exit.is_none() => {
                    return Err(self.closed());
                }
                Ok(None) => return Err(self.not_root(node, heard, mark)),
                Err(lost) => return Err(self.here(lost)),
            }
        }
    }

    /// What sudo or doas said, on standard error first.
    fn said(&self, mark: &str) -> String {
        let both = [self.stderr.as_slice(), b"\n", &self.reader.words()].concat();
        shown(&both, mark)
    }

    /// Never retried where something else than us may have taken it for a wrong password.
    fn silent(&self, node: &Node, heard: &EscalationState, mark: &str) -> Failure {
        let kind = match heard.tool {
            Some(Tool::Sudo) if node.become_password.is_some() => FailureKind::Privilege,
            _ => FailureKind::TimedOut,
        };
        let what = match heard.tool {
            None => "the node's login shell did not start our program",
            Some(Tool::Sudo) if heard.sent => "sudo took the password and did nothing more",
            Some(Tool::Sudo) => {
                "sudo neither started our program nor asked for a password with the prompt it was \
                 given (-p; is passprompt_override off in sudoers?)"
            }
            Some(_) => "root's shell did not start our program",
        };
        let detail = format!(
            "{what} within {} s{}",
            BECOMING_LIMIT.as_secs(),
            escape_multiline(&self.said(mark))
        );
        Failure::new(kind, self.stage, detail)
    }

    fn not_root(&self, node: &Node, heard: &mut EscalationState, mark: &str) -> Failure {
        let words = self.said(mark);
        let end = match &self.exit {
            Some(ExitStatus::Code(code)) => format!("exit status {code}"),
            Some(ExitStatus::Signal(name)) => format!("signal {name}"),
            None => "no exit status".to_string(),
        };
        let why = match heard.tool {
            Some(Tool::Missing) => Some(
                "neither sudo nor doas is installed on the node: log in as root, or install one of them"
                    .to_string(),
            ),
            Some(Tool::Doas) => doas_refused(&node.user, &words),
            Some(Tool::Sudo) if heard.withheld && wants_password(&words) => Some(
                "sudo wants a password, and this host gets none: its host key is another one than known_hosts has"
                    .to_string(),
            ),
            Some(Tool::Sudo) => {
                let why = sudo_refused(&node.user, &words, heard.sent);
                if why.as_ref().is_some_and(|why| *why != not_taken(&node.user))
                    && let Some(permit) = heard.permit.take()
                {
                    // sudo looks at the password first, so this one was not wrong.
                    permit.unused();
                }
                // Whatever words sudoers has for it (badpass_message, insults).
                why.or_else(|| heard.asked_again.then(|| not_taken(&node.user)))
            }
            Some(Tool::None) | None => None,
        };
        let why = why.unwrap_or_else(|| {
            let who = match heard.tool {
                Some(Tool::Sudo) => "sudo",
                Some(Tool::Doas) => "doas",
                _ => "root's shell",
            };
            format!("{who} did not start our program: {end}")
        });
        let detail = format!("{why}{}", escape_multiline(&words));
        Failure::new(FailureKind::Privilege, Stage::Start, detail)
    }
}

/// A failure that leaves open whether sudo took the password: a second try may be a second wrong one to what locks
/// accounts.
fn once(failure: Failure, sent: bool) -> Failure {
    if !sent || failure.kind.retry() == Retry::Never {
        return failure;
    }
    let detail = format!(
        "{}; sudo had asked for the password and been given it, which is done once in a run",
        failure.detail
    );
    Failure::new(FailureKind::Privilege, failure.stage, detail)
}

/// Ends a sudo that asks. The end of its input would be a further wrong password to what locks accounts
/// (pam_faillock); this is not, and until sudo has become root its process is the user's own.
async fn end<S: Session>(session: &mut S, process: u32) {
    // Every login shell, csh too, reads this form.
    let ending = async {
        let mut channel = session.exec(&format!("kill -KILL {process}")).await?;
        while channel.next().await?.is_some() {}
        Ok::<(), Failure>(())
    };
    // Where there is no second channel, or it does not work, the end of the input has to do.
    let _ = timeout(END_LIMIT, ending).await;
}

/// What sudo is told to ask with.
fn prompt(mark: &str) -> String {
    format!("prepull-{mark} password")
}

/// The password as sudo reads it: a line.
fn line(password: &Secret) -> Secret {
    let mut line = Zeroizing::new(Vec::with_capacity(password.expose().len() + 1));
    line.extend_from_slice(password.expose());
    line.push(b'\n');
    Secret::new(std::mem::take(&mut *line))
}

fn found(said: &str) -> Option<(Tool, u32)> {
    let (tool, process) = said.split_once(' ')?;
    let tool = match tool {
        "root" => Tool::None,
        "sudo" => Tool::Sudo,
        "doas" => Tool::Doas,
        "none" => Tool::Missing,
        _ => return None,
    };
    // 0 and 1 are never a process of ours: 0 would be the process group.
    let process = process.parse().ok().filter(|&process| process > 1)?;
    Some((tool, process))
}

/// What the node printed, without the prompt and without what came before it (sudo's lecture).
fn shown(stderr: &[u8], mark: &str) -> String {
    let words = truncate_bytes(stderr, WORDS_SHOWN);
    let prompt = prompt(mark);
    let words = words.split_once(&prompt).map_or(&*words, |(_, rest)| rest);
    let mut lines = words.replace(&prompt, "");
    // sudo repeats all of the command that it refuses.
    if let (Some(from), Some(to)) = (lines.find(" -c printf"), lines.rfind("' as "))
        && from < to
    {
        lines.replace_range(from..to, " -c ...");
    }
    let lines: Vec<&str> = lines.lines().map(str::trim).collect();
    let lines: Vec<&str> = lines.into_iter().filter(|line| !line.is_empty()).collect();
    lines.join("\n")
}

fn escape_multiline(words: &str) -> String {
    if words.is_empty() {
        String::new()
    } else {
        format!(", and printed: {words}")
    }
}

/// Why sudo refused, and what would help; `None` for words that are unknown. Its messages are those of
/// sudo 1.8 and 1.9 (plugins/sudoers: check.c, logging.c, sudoers.c, auth/) and of sudo-rs.
fn sudo_refused(user: &str, words: &str, sent: bool) -> Option<String> {
    let says = |signs: &[&str]| signs.iter().any(|sign| words.contains(sign));
    let nopasswd = if sent { "" } else { "NOPASSWD: " };
    if says(&["must have a tty", "no tty present"]) && !says(&["askpass"]) {
        return Some(format!(
            "sudo wants a terminal (requiretty), and a run has none: add \"Defaults:{user} !requiretty\" to \
             the node's sudoers"
        ));
    }
    if says(&[
        "has expired",
        "is expired",
        "Account expired",
        "account validation failure",
    ]) {
        return Some(format!(
            "sudo does not let {user} in because the account or its password has expired: `chage -l {user}` \
             on the node says which"
        ));
    }
    if says(&[
        "not in the sudoers file",
        "may not run ",
        "not in sudoers",
        "afraid I can't do that",
    ]) {
        return Some(format!(
            "the node's sudoers does not name {user}: add \"{user} ALL=(root) {nopasswd}/bin/sh\" there, or \
             log in as another user"
        ));
    }
    if let Some((_, command)) = words.split_once("not allowed to execute '") {
        let shell = command.split([' ', '\'']).next().unwrap_or_default();
        return Some(format!(
            "the node's sudoers lets {user} run other commands only; prepull runs {shell}: add \
             \"{user} ALL=(root) {nopasswd}{shell}\" there, which allows as much as ALL"
        ));
    }
    if sent {
        // A second prompt, or the end after passwd_tries=1. Only once: accounts are locked by number.
        if words.is_empty()
            || says(&[
                "try again",
                "incorrect password",
                "incorrect authentication",
                "uthentication failed",
            ])
        {
            return Some(not_taken(user));
        }
    } else if wants_password(words) {
        return Some(format!(
            "sudo wants a password: give it with --ask-become-pass (-K), or add \
             \"{user} ALL=(root) NOPASSWD: /bin/sh\" to the node's sudoers"
        ));
    }
    None
}

/// Whether sudo says that it cannot do without a password.
fn wants_password(words: &str) -> bool {
    let signs = [
        "password is required",
        "terminal is required",
        "no askpass program",
        "authentication is required",
        "uthentication required",
    ];
    signs.iter().any(|sign| words.contains(sign))
}

fn not_taken(user: &str) -> String {
    format!("sudo did not take the password for {user}; it was tried once")
}

/// As for sudo, with the words of doas of OpenBSD and of opendoas (doas.c, pam.c).
fn doas_refused(user: &str, words: &str) -> Option<String> {
    let permit = format!("add \"permit nopass {user} as root\" to the node's doas.conf");
    if [
        "uthentication required",
        "tty is required",
        "uthorization required",
    ]
    .iter()
    .any(|sign| words.contains(sign))
    {
        return Some(format!(
            "there is no sudo on the node, and doas wants a password, which it reads from a terminal only: {permit}"
        ));
    }
    if words.contains("not permitted") || words.contains("doas.conf") {
        return Some(format!(
            "there is no sudo on the node, and doas does not let {user} become root: {permit}"
        ));
    }
    None
}

#[cfg(test)]
#[path = "privilege_tests.rs"]
mod tests;
