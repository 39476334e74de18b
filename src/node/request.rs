//! What is sent to a node: the line for its login shell, the program, and the values as data.
//!
//! A value travels as the number of its lines, then its lines, so that newlines within it survive.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use sha1::{Digest as _, Sha1};

use super::protocol::{
    GRACE, GUARD_SLACK, TAKEN_OVER,
    word::{BEAT, CANCEL, DONE, ENOUGH, LEAVE},
};
use super::{PullJob, TURN_LIMIT};
use crate::model::{Failure, FailureKind, Node, PullWhen, Secret, Spool, Stage};
use crate::ports::{NodeCommand, SecretDelivery};

/// The program itself.
pub(super) const PROGRAM: &str = concat!(
    include_str!("program/values.sh"),
    include_str!("program/private.sh"),
    include_str!("program/run.sh"),
    include_str!("program/measure.sh"),
    include_str!("program/detached.sh"),
    include_str!("program/main.sh"),
);
/// As it is sent ahead of the values, the same to every node: in one piece of memory.
static SENT_TO_PULL: LazyLock<Bytes> = LazyLock::new(|| with_words(Part::Pull).into());
/// As it is sent for all that ends with its connection.
static SENT_TO_CALL: LazyLock<Bytes> = LazyLock::new(|| with_words(Part::Call).into());

/// Given to the login shell. bash, dash, zsh, fish, csh, tcsh and busybox ash read it alike: in single
/// quotes stands nothing that any of them treats specially (`!`, a newline, two backslashes).
pub(super) const LINE: &str = r#"sh -c 'IFS= read -r l; eval "$l"'"#;

/// The first line that `sh` reads: it gathers the program's lines up to `#go` and runs them.
///
/// `read` takes single bytes from a pipe, so what follows is left for the program; `sh -s` would read
/// ahead. A connection that breaks off in between runs nothing.
pub(super) const GATHER: &str = r##"set +x +v;locale=${LC_ALL-};LC_ALL=C;export LC_ALL;n=$(printf "\nx");n=${n%x};p=;while :;do IFS= read -r l||exit 1;[ "$l" = "#go" ]&&break;p=$p$l$n;done;eval "$p""##;

/// Ends the program.
pub(super) const GO: &str = "#go";

/// The most bytes of a command's output that the node sends. Inspect and pull and inspect together
/// stay below the limit for one call (`frames`).
const RUNTIME_LIMITS: (usize, usize) = (1 << 20, 256 << 10);

/// What the node does with the commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// The first inspects, the second pulls, the first inspects again.
    Pull(PullWhen),
    /// Nothing is started: a pull that is there is shown, to be cancelled.
    CancelPull,
    /// Each in turn, each a question to a runtime.
    Ask,
    /// As [`Action::Ask`]; the first asks where images live, and the node also describes itself.
    Facts,
    /// The operator's own.
    Run,
}

impl Action {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Pull(PullWhen::Missing) => "pull-missing",
            Self::Pull(PullWhen::Always) => "pull-always",
            Self::CancelPull => "pull-cancel",
            Self::Ask => "ask",
            Self::Facts => "facts",
            Self::Run => "run",
        }
    }
}

/// Which lines of the program are sent: the node's shell reads byte by byte, so it gets only what it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Those marked `#pull`, and those for both.
    Pull,
    /// Those marked `#call`, and those for both.
    Call,
}

impl Part {
    /// What an action is sent, by its word in the request.
    pub(super) fn of(action: &str) -> Self {
        if action.starts_with("pull-") {
            Self::Pull
        } else {
            Self::Call
        }
    }

    /// The text itself.
    pub(super) fn text(self) -> Bytes {
        match self {
            Self::Pull => SENT_TO_PULL.clone(),
            Self::Call => SENT_TO_CALL.clone(),
        }
    }
}

/// Everything for one call.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) action: Action,
    pub(super) commands: Vec<NodeCommand<'a>>,
    /// What the node marks its frames with: start-up files cannot know it. A pull's is its name.
    pub(super) nonce: String,
    /// For a pull: what makes it go on without us.
    pub(super) own: Option<DetachedPull>,
    /// For the operator's own command: where its output goes.
    pub(super) spool: Option<Arc<Spool>>,
}

/// What a pull needs to go on without us.
#[derive(Debug, Clone)]
pub(super) struct DetachedPull {
    /// The same for pulls of the same image through the same runtime: one at a time.
    pub(super) turn: String,
    /// How long it goes on when no connection asks after it.
    pub(super) lease: Duration,
    /// How long it may wait for another pull of the same image. The node is not trusted with it.
    pub(super) turn_limit: Duration,
    /// How long the pull may take, that wait included.
    pub(super) timeout: Option<Duration>,
    /// How long it may go without progress, where the node sees what arrives.
    pub(super) stall: Option<Duration>,
    /// How long it may take where the node does not.
    pub(super) unseen: Option<Duration>,
    /// Whether a login may be put on a disk.
    pub(super) disk_credentials: bool,
    /// Which of the commands is the first of the three of [`Runtime::naming`](crate::ports::Runtime::naming), from 1.
    pub(super) naming: Option<usize>,
}

impl DetachedPull {
    /// How often the node has to hear of us: a few of them may be late.
    pub(super) fn beat(&self) -> Duration {
        (self.lease / 5).min(Duration::from_secs(30))
    }

    /// The limits that the node keeps by itself, in seconds; empty for none.
    fn limits(&self) -> [String; 3] {
        [self.stall, self.timeout, self.unseen].map(|limit| {
            let seconds = |limit: Duration| limit.saturating_add(GUARD_SLACK).as_secs().to_string();
            limit.map_or_else(String::new, seconds)
        })
    }

    /// The lease as the node counts it: seconds of one tick, and their number.
    fn ticks(&self) -> (usize, usize) {
        let seconds = self.lease.as_secs().max(1);
        let tick = (seconds / 10).max(1);
        let number = |value| usize::try_from(value).unwrap_or(usize::MAX);
        (number(tick), number(seconds.div_ceil(tick)))
    }
}

impl<'a> Request<'a> {
    pub(super) fn new(action: Action, commands: Vec<NodeCommand<'a>>) -> Self {
        Self {
            action,
            commands,
            nonce: nonce(),
            own: None,
            spool: None,
        }
    }

    /// The operator's own command, whose output goes to `spool`.
    pub(super) fn run(command: NodeCommand<'a>, spool: &Arc<Spool>) -> Self {
        Self {
            spool: Some(Arc::clone(spool)),
            ..Self::new(Action::Run, vec![command])
        }
    }

    /// A pull, under the name by which a later call finds it.
    pub(super) fn pull(
        job: &PullJob<'_>,
        when: PullWhen,
        node: &Node,
        mut commands: Vec<NodeCommand<'a>>,
        naming: Option<[NodeCommand<'a>; 3]>,
    ) -> Self {
        let is_local = naming.is_some();
        let first = commands.len() + 1;
        commands.extend(naming.into_iter().flatten());
        let mut request = Self::named(job, Action::Pull(when), node, is_local);
        if let Some(own) = &mut request.own {
            own.naming = is_local.then_some(first);
        }
        Self {
            commands,
            ..request
        }
    }

    /// The end of a pull that was left alone.
    pub(super) fn cancel(job: &PullJob<'_>, node: &Node) -> Self {
        Self::named(job, Action::CancelPull, node, false)
    }

    /// What concerns a pull, without its commands.
    fn named(job: &PullJob<'_>, action: Action, node: &Node, is_local: bool) -> Self {
        let what = [
            job.runtime.kind().as_str(),
            job.request.endpoint.unwrap_or_default(),
            job.request.platform.unwrap_or_default(),
            job.request.image.as_str(),
        ]
        .join("\0");
        // A pull of either sort does not go on with one of the other.
        let way = if is_local { "local" } else { "" };
        Self {
            action,
            nonce: fingerprint(&[job.pull_token, &node.name, &what, way].join("\0")),
            own: Some(DetachedPull {
                turn: fingerprint(&what),
                lease: job.lease,
                turn_limit: job.timeout.unwrap_or(TURN_LIMIT),
                timeout: job.timeout,
                stall: job.patience.stall,
                unseen: job.patience.unseen,
                // The login for a local pull is worth nothing once its connection has ended.
                disk_credentials: job.disk_credentials || is_local,
                naming: None,
            }),
            commands: Vec::new(),
            spool: None,
        }
    }

    /// The most bytes of standard output and of standard error for one command.
    pub(super) fn limits(&self) -> (usize, usize) {
        match &self.spool {
            Some(spool) => (spool.share(), spool.share()),
            None => RUNTIME_LIMITS,
        }
    }

    /// What the program reads from its standard input: secret where a command has a secret. Locking and wiping pages
    /// costs more than all else of a request.
    pub(super) fn values(&self) -> Result<Bytes, Failure> {
        let (stdout, stderr) = self.limits();
        let (mut size, mut is_secret) = (256, false);
        for command in &self.commands {
            size += command.argv.iter().map(|a| a.len() + 8).sum::<usize>();
            size += command
                .environment
                .iter()
                .map(|(name, value)| name.len() + value.len() + 8)
                .sum::<usize>();
            size += command.stdin.len() + 128;
            if let Some(delivery) = &command.secret {
                size += delivery.secret().expose().len();
                is_secret |= !delivery.secret().is_plain();
            }
        }
        // Big enough from the start: a buffer that grows leaves copies of the secret behind.
        let mut values = Values(Vec::with_capacity(size));
        values.text(&self.nonce)?;
        values.text(self.action.word())?;
        values.number(stdout);
        values.number(stderr);
        let (tick, ticks) = self.own.as_ref().map_or((0, 0), DetachedPull::ticks);
        values.text(self.own.as_ref().map_or("", |own| &own.turn))?;
        values.number(tick);
        values.number(ticks);
        let may_use_disk = self.own.as_ref().is_some_and(|own| own.disk_credentials);
        values.text(if may_use_disk { "yes" } else { "" })?;
        let naming = self.own.as_ref().and_then(|own| own.naming);
        values.text(&naming.map_or_else(String::new, |number| number.to_string()))?;
        for limit in self.own.iter().flat_map(DetachedPull::limits) {
            values.text(&limit)?;
        }
        values.number(self.commands.len());
        for command in &self.commands {
            values.command(command)?;
        }
        debug_assert!(values.0.len() <= size, "it grew to {}", values.0.len());
        Ok(match is_secret {
            true => Secret::new(values.0).into(),
            false => values.0.into(),
        })
    }
}

/// 32 hexadecimal digits that stand for a text.
fn fingerprint(text: &str) -> String {
    let digest = Sha1::digest(text.as_bytes());
    let mut digits = String::with_capacity(32);
    for byte in &digest[..16] {
        digits.extend(
            [byte >> 4, byte & 15].map(|digit| char::from_digit(digit.into(), 16).unwrap_or('0')),
        );
    }
    digits
}

/// A mark that what a node prints by itself does not hold.
pub(super) fn nonce() -> String {
    format!("{:032x}", fastrand::u128(..))
}

/// A program as it is sent: without what is not for this part, comments, empty lines and indentation.
pub(super) fn program(source: &str, part: Part) -> String {
    let mut text = format!("{GATHER}\n");
    let mut is_wanted = true;
    for line in source.lines().map(str::trim_start) {
        match line {
            "#both" => is_wanted = true,
            "#pull" => is_wanted = part == Part::Pull,
            "#call" => is_wanted = part == Part::Call,
            _ => {}
        }
        if is_wanted && !line.is_empty() && !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text.push_str(GO);
    text.push('\n');
    text
}

/// What starts another program than ours: the line for the login shell, and what `sh` reads from its standard input. What
/// is written after that is the program's.
pub(super) fn script(source: &str) -> (&'static str, String) {
    (LINE, program(source, Part::Call))
}

/// The program with the words and times that it shares with us, as variables.
fn with_words(part: Part) -> String {
    let words = format!(
        "say_cancel={} say_enough={} say_beat={} say_leave={} say_done={} grace={} taken_over={TAKEN_OVER}\n",
        CANCEL.trim_end(),
        ENOUGH.trim_end(),
        BEAT.trim_end(),
        LEAVE.trim_end(),
        DONE.trim_end(),
        GRACE.as_secs()
    );
    program(&(words + PROGRAM), part)
}

struct Values(Vec<u8>);

impl Values {
    fn value(&mut self, parts: &[&[u8]]) -> Result<(), Failure> {
        if parts.iter().any(|part| part.contains(&0)) {
            return Err(Failure::new(
                FailureKind::Internal,
                Stage::Start,
                "a value for the node holds a NUL byte, which no command can take",
            ));
        }
        let newlines = |part: &&[u8]| part.iter().filter(|&&byte| byte == b'\n').count();
        self.digits(parts.iter().map(newlines).sum::<usize>() + 1);
        self.0.push(b'\n');
        for part in parts {
            self.0.extend_from_slice(part);
        }
        self.0.push(b'\n');
        Ok(())
    }

    fn text(&mut self, value: &str) -> Result<(), Failure> {
        self.value(&[value.as_bytes()])
    }

    fn number(&mut self, value: usize) {
        self.0.extend_from_slice(b"1\n");
        self.digits(value);
        self.0.push(b'\n');
    }

    fn digits(&mut self, number: usize) {
        if number > 9 {
            self.digits(number / 10);
        }
        self.0.push(b'0' + (number % 10) as u8);
    }

    fn command(&mut self, command: &NodeCommand<'_>) -> Result<(), Failure> {
        self.number(command.argv.len());
        for argument in &command.argv {
            self.text(argument)?;
        }
        self.number(command.environment.len());
        for (name, value) in &command.environment {
            self.value(&[name.as_bytes(), b"=", value.as_bytes()])?;
        }
        let (delivery, variable, file, secret): (_, _, _, &[u8]) = match &command.secret {
            None => ("none", "", "", b""),
            Some(SecretDelivery::Directory {
                variable,
                file,
                content,
            }) => ("directory", variable, file, content.expose()),
            Some(SecretDelivery::Environment { variable, value }) => {
                ("environment", variable, "", value.expose())
            }
            Some(SecretDelivery::Input(secret)) => ("input", "", "", secret.expose()),
        };
        self.text(delivery)?;
        self.text(variable)?;
        self.text(file)?;
        self.value(&[secret])?;
        self.value(&[command.stdin])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command<'a>(argv: &[&'a str]) -> NodeCommand<'a> {
        NodeCommand {
            argv: argv.to_vec(),
            environment: vec![],
            secret: None,
            stdin: b"",
        }
    }

    #[test]
    fn the_line_for_the_login_shell_has_nothing_that_a_shell_reads_its_own_way() {
        let quoted = LINE
            .strip_prefix("sh -c '")
            .and_then(|rest| rest.strip_suffix('\''))
            .unwrap();
        for special in ["!", "\n", "\\", "'"] {
            assert!(!quoted.contains(special), "{special:?} in {quoted}");
        }
    }

    #[test]
    fn the_program_is_sent_without_comments_and_ends_once() {
        for (part, most) in [(Part::Pull, 24 << 10), (Part::Call, 12 << 10)] {
            let text = program(PROGRAM, part);
            assert_eq!(text.lines().filter(|line| *line == GO).count(), 1);
            assert!(text.ends_with("\nmain\n#go\n"));
            assert!(!text.lines().any(|line| line.starts_with("# ")));
            // bash before 5.1 writes a here-document to a file, for which there may be no room.
            assert!(!text.contains("<<"));
            assert!(text.len() < most, "{part:?}: {} bytes", text.len());
        }
    }

    #[test]
    fn a_value_keeps_its_newlines_by_their_number() {
        let mut values = Values(vec![]);
        values.text("").unwrap();
        values.text("a\nb\n").unwrap();
        assert_eq!(values.0, b"1\n\n3\na\nb\n\n");
    }

    #[test]
    fn the_room_for_the_values_is_large_enough_from_the_start() {
        let long = "x".repeat(1 << 14);
        let mut crictl = command(&["crictl", "pull", &long]);
        crictl.environment = vec![("CONTAINER_RUNTIME_ENDPOINT", &long); 2];
        crictl.secret = Some(SecretDelivery::Environment {
            variable: "CRICTL_AUTH",
            value: Secret::new("\n".repeat(1 << 14)),
        });
        let mut docker = command(&["docker"]);
        docker.stdin = b"\n";
        docker.secret = Some(SecretDelivery::Directory {
            variable: "DOCKER_CONFIG",
            file: "config.json",
            content: Secret::new("hunter2"),
        });
        for commands in [vec![crictl; 9], vec![docker; 9], vec![command(&[]); 9]] {
            // It would panic.
            assert!(Request::new(Action::Ask, commands).values().is_ok());
        }
    }

    #[test]
    fn a_nul_is_refused() {
        let request = Request::new(Action::Run, vec![command(&["a\0b"])]);
        assert_eq!(request.values().unwrap_err().kind, FailureKind::Internal);
    }
}
