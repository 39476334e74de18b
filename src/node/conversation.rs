//! One conversation with our program on a node: starts it, hears its frames, ends it in time.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::time::{Instant, sleep_until, timeout};

use crate::model::{
    CommandOutput, ExecOutput, ExitStatus, Failure, FailureKind, Limit, Node, Stage,
    text::{self, truncate_bytes},
};
use crate::ports::{Channel, ChannelEvent, Session};

use super::frames::{Frame, LateFor, Reader};
use super::hang_up::PullState;
use super::protocol::{GRACE, TAKEN_OVER, word};
use super::request::{DetachedPull, LINE, Part, Request};
use super::transfer::Transfer;
use super::{
    ANSWER_LIMIT, Interrupted, Layers, STRAGGLER_LIMIT, StallPolicy, no_answer, too_long,
    waited_too_long,
};

/// How long the node may take to end a command and clean up: the grace period, and time for a slow node.
const CLEAN_UP_LIMIT: Duration = Duration::from_secs(GRACE.as_secs() + 5);
/// How long a command that no longer reads may take to say why.
const LAST_WORDS_LIMIT: Duration = Duration::from_secs(5);
/// How much of standard error is kept, and how much of a node's words is shown.
const WORDS_KEPT: usize = 16 << 10;
pub(super) const WORDS_SHOWN: usize = 2000;
/// What came of a command: its output, or why it was ended: it took too long, or a pull got on too slowly.
pub(super) type Answer = Result<CommandOutput, Failure>;

/// What a wait came to.
enum Wait {
    Output(CommandOutput),
    Cancel,
    /// It took too long, or a pull got on too slowly, and how.
    TooLate(Failure),
    /// The node ended the pull for that.
    EndedThere(Failure),
    /// The connection is to be given away.
    HangUp(PullState),
}

/// What a node told, and when.
pub(super) struct NodeOutput {
    pub(super) said: String,
    /// How long after our program was sent it was here.
    pub(super) round_trip: Duration,
    pub(super) at: SystemTime,
}

/// The conversation. Dropping it closes the channel: the node sees its input end and cleans up.
pub(super) struct Conversation<C> {
    pub(super) channel: C,
    pub(super) reader: Reader,
    pub(super) stage: Stage,
    pub(super) stderr: Vec<u8>,
    pub(super) exit: Option<ExitStatus>,
    /// For what goes on without us: how often it has to hear that we are here.
    beat: Option<Duration>,
    /// How long the node may wait for another pull of the same image; taken once it says that it does.
    turn_limit: Option<Duration>,
    /// How long the pull may take, that wait included.
    pull_timeout: Option<Duration>,
    /// When that wait began, while it lasts.
    waiting_since: Option<Instant>,
    /// How long it took.
    waited: Duration,
    /// Whether it cannot go on without us: the node's login manager ends it with the connection.
    is_tied: bool,
    /// Where the frames end that were there before this connection.
    replay_until: Option<usize>,
    /// When our program was sent.
    sent: Instant,
    /// What the node told about itself.
    pub(super) host: Option<NodeOutput>,
    /// What it told about the disk where images live.
    pub(super) disk: Option<String>,
    /// What the operator's command printed, where that is spooled: the output that is returned is then empty.
    pub(super) spooled: Option<ExecOutput>,
}

impl<C: Channel> Conversation<C> {
    /// Starts our program. Failures later on are at `stage`.
    pub(super) async fn start<S: Session<Channel = C>, F: Future<Output = ()> + Send>(
        session: &mut S,
        node: &Node,
        request: &Request<'_>,
        stage: Stage,
        mut cancel: Pin<&mut F>,
    ) -> Result<Self, Interrupted> {
        let values = request.values()?;
        let limit = Limit::new(ANSWER_LIMIT);
        let starting = async {
            let mut protocol = Self {
                channel: session.exec(LINE).await?,
                reader: Reader::new(&request.nonce, request.limits(), request.commands.len()),
                stage: Stage::Start,
                stderr: Vec::new(),
                exit: None,
                beat: request.own.as_ref().map(DetachedPull::beat),
                turn_limit: request.own.as_ref().map(|own| own.turn_limit),
                pull_timeout: request.own.as_ref().and_then(|own| own.timeout),
                waiting_since: None,
                waited: Duration::ZERO,
                is_tied: false,
                replay_until: None,
                sent: Instant::now(),
                host: None,
                disk: None,
                spooled: None,
            };
            if let Some(spool) = &request.spool {
                protocol.reader.spool_into(Arc::clone(spool));
            }
            if node.become_root {
                protocol.become_root(session, node, &limit).await?;
            }
            protocol.sent = Instant::now();
            for bytes in [Part::of(request.action.word()).text(), values] {
                if let Err(lost) = protocol.channel.write(bytes).await {
                    return Err(protocol.last_words(lost).await);
                }
            }
            match protocol.frame().await? {
                Frame::Hello => Ok(protocol),
                _ => Err(protocol.broken(&"its first line is not the first")),
            }
        };
        // In a place of its own, which is given back once it is done: there is one for each node at work.
        let mut starting = Box::pin(starting);
        let mut protocol = tokio::select! {
            biased;
            () = cancel.as_mut() => {
                // What goes on without us may have begun already, and has to be told.
                if request.own.is_some()
                    && let Ok(Ok(mut protocol)) = timeout(CLEAN_UP_LIMIT, starting).await
                {
                    protocol.stop().await;
                }
                return Err(Interrupted::Cancelled);
            }
            started = limit.within(starting.as_mut()) => started.unwrap_or_else(|| Err(Failure::new(
                FailureKind::TimedOut,
                Stage::Start,
                format!(
                    "the node's login shell did not start our program within {} s",
                    ANSWER_LIMIT.as_secs()
                ),
            )))?,
        };
        protocol.stage = stage;
        Ok(protocol)
    }

    /// Names the stage of failures from here on.
    pub(super) fn stage(&mut self, stage: Stage) {
        self.stage = stage;
    }

    /// How long the node waited for another pull of the same image.
    pub(super) fn waited(&self) -> Duration {
        self.waited
    }

    /// The next command's output, within `limit` from now.
    pub(super) async fn output<F: Future<Output = ()> + Send>(
        &mut self,
        limit: Option<Duration>,
        cancel: Pin<&mut F>,
    ) -> Result<Answer, Interrupted> {
        let none = Layers::default();
        let mut nothing = Transfer::new(&none, None, StallPolicy::default(), &|_| {});
        self.watched_output(limit, &mut nothing, cancel).await
    }

    /// The next command's output, within `limit` from now, and meanwhile how a pull gets on. Where there is none, the
    /// node was told to stop, and has cleaned up unless it did not answer.
    pub(super) async fn watched_output<F: Future<Output = ()> + Send>(
        &mut self,
        limit: Option<Duration>,
        transfer: &mut Transfer<'_>,
        cancel: Pin<&mut F>,
    ) -> Result<Answer, Interrupted> {
        match self.wait(limit, transfer, cancel).await? {
            Wait::Output(output) => Ok(Ok(output)),
            Wait::Cancel => {
                let has_stopped = self.stop().await;
                if has_stopped || self.beat.is_none() {
                    return Err(Interrupted::Cancelled);
                }
                let detail = "the node did not answer when the pull was to be cancelled";
                Err(Failure::new(FailureKind::ConnectionLost, self.stage, detail).into())
            }
            Wait::TooLate(failure) => {
                self.stop().await;
                Ok(Err(failure))
            }
            Wait::EndedThere(failure) => {
                self.finish().await;
                Ok(Err(failure))
            }
            Wait::HangUp(state) => {
                self.leave().await?;
                Err(Interrupted::HungUp(Box::new(state)))
            }
        }
    }

    /// Waits for the next command's output.
    ///
    /// A node that waits for another pull first has a limit of its own for that. No other frame moves the limit, so
    /// that a node cannot hold the run by announcing stages for ever.
    async fn wait<F: Future<Output = ()> + Send>(
        &mut self,
        limit: Option<Duration>,
        transfer: &mut Transfer<'_>,
        mut cancel: Pin<&mut F>,
    ) -> Result<Wait, Failure> {
        let mut stragglers = None;
        // An endless limit may be beyond what the clock can count.
        let from_now = || limit.and_then(|limit| Instant::now().checked_add(limit));
        let mut deadline = from_now();
        let mut beat = self.beat.map(|beat| Instant::now() + beat);
        loop {
            let frame = match self.frame_here()? {
                Some(frame) => frame,
                None => {
                    if self.has_caught_up() {
                        transfer.caught_up();
                    }
                    if self.may_leave() {
                        match transfer.gives_way() {
                            Ok(None) => {}
                            Ok(Some(state)) => return Ok(Wait::HangUp(state)),
                            Err(too_slow) => return Ok(Wait::TooLate(too_slow)),
                        }
                    }
                    // One timer for all: to set one costs more than to hear a frame.
                    let unseen = transfer.unseen_until();
                    let look = transfer.visit.look_again(Instant::now());
                    let times = [
                        deadline,
                        transfer.stalled_at,
                        unseen,
                        stragglers,
                        beat,
                        look,
                    ];
                    tokio::select! {
                        biased;
                        () = cancel.as_mut() => return Ok(Wait::Cancel),
                        () = at(times.into_iter().flatten().min()) => {
                            let now = Instant::now();
                            let is_over = |time: Option<Instant>| time.is_some_and(|time| time <= now);
                            if is_over(deadline) {
                                return Ok(Wait::TooLate(self.time_up()));
                            }
                            if is_over(transfer.stalled_at) {
                                return Ok(Wait::TooLate(transfer.stalled()));
                            }
                            if is_over(unseen) {
                                return Ok(Wait::TooLate(transfer.unseen()));
                            }
                            if is_over(stragglers) {
                                stragglers = None;
                                // It may have ended by now; what it said last is still to be read, and tells more.
                                let _ = self.say(word::ENOUGH).await;
                            }
                            if is_over(beat) {
                                beat = self.beat.map(|beat| now + beat);
                                self.say(word::BEAT).await?;
                            }
                            continue;
                        }
                        frame = self.frame() => frame?,
                    }
                }
            };
            match frame {
                Frame::Output(output) => {
                    transfer.end();
                    return Ok(Wait::Output(output));
                }
                Frame::Ran(output) => {
                    let exit = output.exit.clone();
                    self.spooled = Some(output);
                    return Ok(Wait::Output(CommandOutput {
                        exit,
                        stdout: Vec::new(),
                        stderr: Vec::new(),
                        truncated: false,
                    }));
                }
                Frame::Host(said) => {
                    self.host = Some(NodeOutput {
                        said,
                        round_trip: self.sent.elapsed(),
                        at: SystemTime::now(),
                    });
                }
                Frame::Disk(said) => self.disk = Some(said),
                Frame::ProgressAvailable => transfer.begin(),
                Frame::Progress(parts) => {
                    if let Err(stalled) = transfer.progress(parts) {
                        return Ok(Wait::TooLate(stalled));
                    }
                }
                Frame::Manifest(json) => transfer.manifest(&json),
                Frame::LayerComplete(digest) => transfer.there(digest),
                Frame::Came(layers) => transfer.came(layers),
                Frame::Counted => transfer.counted(),
                Frame::SessionBound => self.is_tied = true,
                Frame::Replay(size) => {
                    self.replay_until = Some(self.reader.position().saturating_add(size));
                    transfer.visit.replay();
                }
                Frame::Guarded => transfer.visit.guarded(true),
                Frame::Late(why) => {
                    return Ok(Wait::EndedThere(match why {
                        LateFor::Stall => transfer.stalled(),
                        LateFor::Limit => self.time_up(),
                        LateFor::Unseen => transfer.unseen(),
                    }));
                }
                Frame::Stage(stage) if stage == "turn" => {
                    if let Some(limit) = self.turn_limit.take() {
                        let now = Instant::now();
                        self.waiting_since = Some(now);
                        deadline = now.checked_add(transfer.visit.left_of(limit));
                        // A visit sees to that limit.
                        transfer.visit.guarded(true);
                    }
                }
                // The pull's comes again where it turns to another way: what was before says nothing of that.
                Frame::Stage(stage) => {
                    if let Some(since) = self.waiting_since.take() {
                        self.waited = since.elapsed();
                        deadline = from_now();
                    }
                    stragglers = None;
                    transfer.stage(stage == "pull");
                }
                Frame::Exited => stragglers = Some(Instant::now() + STRAGGLER_LIMIT),
                Frame::Refused(why) => {
                    let failure = self.refused(&why);
                    self.finish().await;
                    return Err(failure);
                }
                Frame::End => {
                    return Err(Failure::new(
                        FailureKind::ConnectionLost,
                        self.stage,
                        "the node saw nothing of us for too long, and stopped",
                    ));
                }
                Frame::Hello | Frame::Root(_) => {
                    return Err(self.broken(&"a line came where another was due"));
                }
            }
        }
    }

    /// Whether the pull was there before this connection.
    pub(super) fn is_found(&self) -> bool {
        self.replay_until.is_some()
    }

    /// Whether all that happened before this connection has been read.
    fn has_caught_up(&self) -> bool {
        let until = self.replay_until.unwrap_or(0);
        self.reader.position() >= until
    }

    /// Whether the pull goes on by itself.
    fn may_leave(&self) -> bool {
        (self.stage == Stage::Pull || self.waiting_since.is_some()) && !self.is_tied
    }

    /// Lets the pull go on by itself. What it says from now on is read by the next visit.
    pub(super) async fn leave(&mut self) -> Result<(), Failure> {
        let leaving = timeout(CLEAN_UP_LIMIT, async {
            self.say(word::LEAVE).await?;
            loop {
                match self.channel.next().await {
                    Ok(Some(ChannelEvent::Exited(exit))) => self.exit = Some(exit),
                    Ok(Some(_)) => {}
                    Ok(None) => return Ok(()),
                    Err(lost) => return Err(self.here(lost)),
                }
            }
        });
        let left = leaving.await.unwrap_or_else(|_| {
            let detail = "the node did not answer when its pull was to go on by itself";
            Err(Failure::new(
                FailureKind::ConnectionLost,
                self.stage,
                detail,
            ))
        });
        match self.exit {
            Some(ExitStatus::Code(TAKEN_OVER)) => Err(self.closed()),
            _ => left,
        }
    }

    /// What it means that a limit has passed.
    fn time_up(&self) -> Failure {
        match self.stage {
            _ if self.waiting_since.is_some() => waited_too_long(self.pull_timeout),
            // Without a limit, the one of the wait has passed.
            Stage::Pull => too_long(self.pull_timeout.unwrap_or_default()),
            stage => no_answer(stage),
        }
    }

    /// Waits until the node has cleaned up. All that matters is known by now, so nothing here is a failure. Returns
    /// whether the node said that it has.
    pub(super) async fn finish(&mut self) -> bool {
        let mut is_over = false;
        let _ = timeout(CLEAN_UP_LIMIT, async {
            is_over = loop {
                match self.frame().await {
                    Ok(Frame::End) => break true,
                    Ok(_) => {}
                    Err(_) => break false,
                }
            };
            // What goes on without us keeps its last words until we have them.
            if self.beat.is_some() && self.say(word::DONE).await.is_ok() {
                while let Ok(Some(_)) = self.channel.next().await {}
            }
        })
        .await;
        is_over
    }

    /// Tells our program something.
    async fn say(&mut self, line: &'static str) -> Result<(), Failure> {
        let written = self
            .channel
            .write(Bytes::from_static(line.as_bytes()))
            .await;
        written.map_err(|lost| self.here(lost))
    }

    /// Ends what runs and waits until the node has cleaned up, but not for ever. Returns whether it has.
    pub(super) async fn stop(&mut self) -> bool {
        let stopping = timeout(CLEAN_UP_LIMIT, async {
            // It may have ended, and no longer hear.
            let _ = self.say(word::CANCEL).await;
            self.finish().await
        });
        stopping.await.unwrap_or(false)
    }

    /// The next frame. Cancel-safe: all state is in `self`.
    async fn frame(&mut self) -> Result<Frame, Failure> {
        loop {
            if let Some(frame) = self.frame_here()? {
                return Ok(frame);
            }
            match self.channel.next().await {
                Ok(Some(event)) => self.take(event)?,
                Ok(None) => return Err(self.closed()),
                Err(lost) => return Err(self.here(lost)),
            }
        }
    }

    /// The next frame, if it has come already.
    fn frame_here(&mut self) -> Result<Option<Frame>, Failure> {
        self.reader.next().map_err(|broken| self.broken(&broken))
    }

    pub(super) fn take(&mut self, event: ChannelEvent) -> Result<(), Failure> {
        match event {
            ChannelEvent::Stdout(bytes) => {
                let pushed = self.reader.push(&bytes);
                pushed.map_err(|broken| self.broken(&broken))?;
            }
            ChannelEvent::Stderr(bytes) => {
                let room = WORDS_KEPT.saturating_sub(self.stderr.len());
                self.stderr.extend(bytes.into_iter().take(room));
            }
            ChannelEvent::Exited(exit) => self.exit = Some(exit),
        }
        Ok(())
    }

    /// Our input was refused: the command has probably ended, and says why.
    pub(super) async fn last_words(&mut self, lost: Failure) -> Failure {
        match timeout(LAST_WORDS_LIMIT, self.frame()).await {
            Ok(Err(failure)) => failure,
            Ok(Ok(_)) | Err(_) => self.here(lost),
        }
    }

    /// A failure of the connection, at the stage that we are in.
    pub(super) fn here(&self, lost: Failure) -> Failure {
        let mut detail = lost.detail;
        if self.is_tied {
            detail.push_str(
                "; the node's login manager ends the pull with it (KillUserProcesses, and no lingering)",
            );
        }
        Failure {
            stage: self.stage,
            detail,
            ..lost
        }
    }

    pub(super) fn broken(&self, what: &dyn std::fmt::Display) -> Failure {
        Failure::new(
            FailureKind::Unknown,
            self.stage,
            format!("the node broke the protocol: {what}"),
        )
    }

    /// What it means that the channel closed before our program was done.
    pub(super) fn closed(&self) -> Failure {
        let words = self.words();
        let end = match &self.exit {
            None => {
                let detail =
                    format!("the channel closed before our program on the node ended{words}");
                return self.here(Failure::new(
                    FailureKind::ConnectionLost,
                    self.stage,
                    detail,
                ));
            }
            Some(ExitStatus::Code(TAKEN_OVER)) if self.beat.is_some() => {
                return Failure::new(
                    FailureKind::TakenOver,
                    self.stage,
                    "another prepull goes on with this pull over a connection of its own",
                );
            }
            Some(ExitStatus::Code(code)) => format!("exit status {code}"),
            Some(ExitStatus::Signal(name)) => format!("signal {name}"),
        };
        if self.reader.begun() {
            return Failure::new(
                FailureKind::Unknown,
                self.stage,
                format!("our program on the node was ended from outside: {end}{words}"),
            );
        }
        Failure::new(
            FailureKind::NodeSetup,
            self.stage,
            format!("the node's login shell did not start our program: {end}{words}"),
        )
    }

    /// ", and printed: ...", or nothing.
    fn words(&self) -> String {
        let mut bytes = self.stderr.clone();
        if !self.reader.begun() {
            bytes.extend_from_slice(&self.reader.words());
        }
        let words = truncate_bytes(&bytes, WORDS_SHOWN);
        if words.trim().is_empty() {
            String::new()
        } else {
            format!(", and printed: {}", words.trim())
        }
    }

    fn refused(&self, why: &str) -> Failure {
        let (kind, detail) = match why.split_once(' ').unwrap_or((why, "")) {
            ("memory", _) => (
                FailureKind::NodeSetup,
                "refusing to put credentials on a disk: neither /dev/shm nor /run nor the user's \
                 runtime directory is a memory file system (as stat -f tells) where the user can have a \
                 private directory with room in it"
                    .to_string(),
            ),
            ("directory", reasons) => (
                FailureKind::NodeSetup,
                format!(
                    "could not make a private temporary directory or write to it: {}{}",
                    text::escape_line(reasons.trim_start_matches("; ")),
                    self.words()
                ),
            ),
            ("tool", tool) => (
                FailureKind::NodeSetup,
                format!(
                    "the node's shell finds no usable \"{}\"",
                    text::escape_line(tool)
                ),
            ),
            _ => return self.broken(&"it refused for an unknown reason"),
        };
        Failure::new(kind, self.stage, detail)
    }
}

/// Resolves at the deadline; never when there is none.
async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
