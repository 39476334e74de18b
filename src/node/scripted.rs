//! A scripted peer for the tests of code that drives nodes: it speaks the real protocol on tokio's time.
//!
//! ```ignore
//! let peer = Peer::new();                            // clones share everything
//! peer.node("n1")
//!     .connects([Dial::Fails(SECOND, failure)])      // the first dial fails, later ones succeed at once
//!     .probes(RuntimeKind::Docker)                   // a probe finds docker alone
//!     .image("reg.example/app:v1", [Step::Fails(SECOND, "rate-limited too many"), Step::Pulled(SECOND)]);
//! engine::run(&plan, &peer, &[&ScriptedRuntime(RuntimeKind::Docker), ...]).await;
//! assert_eq!(peer.counts("n1").pulls, 2);            // one node
//! assert_eq!(peer.total().sessions_peak, 32);        // all nodes together
//! ```
//!
//! - A node without a script dials at once, has both runtimes, and pulls everything in one second.
//! - Steps of an image are used one a pull; the last one is used for ever. A pull that succeeded leaves
//!   the image on the node: later calls find it present.
//! - `Step::Fails(after, "KIND words")`: [`ScriptedRuntime`] reads the kind's public name from the first word.
//! - A request that is not the real protocol, or commands that [`ScriptedRuntime`] did not make, panic.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::time::{Instant, sleep, sleep_until};

use crate::model::{
    CommandOutput, ExitStatus, Failure, FailureKind, Image, KeepOutcome, KeptState, LocalImage,
    Node, RegistryLogin, RuntimeKind, Stage,
};
use crate::ports::{
    Channel, ChannelEvent, Description, KeepRequest, Naming, NodeCommand, PullRequest, Runtime,
    SecretDelivery, Session, Transport,
};

use super::request::Part;
use super::word;
use asked::Request;

#[path = "../../tests/support/request.rs"]
mod asked;

/// What becomes of one dial.
#[derive(Debug, Clone)]
pub enum Dial {
    /// It succeeds after this time.
    After(Duration),
    /// It fails after this time.
    Fails(Duration, Failure),
    /// It never ends.
    Hangs,
}

/// What becomes of one pull.
#[derive(Debug, Clone)]
pub enum Step {
    /// The node holds the image already.
    Present,
    /// Pulled after this time.
    Pulled(Duration),
    /// The client fails after this time and prints this.
    Fails(Duration, String),
    /// Nothing happens until it is cancelled.
    Hangs,
    /// Nothing happens, and cancelling does not help either.
    Deaf,
    /// The connection breaks after this time, and the pull is gone with it.
    Lost(Duration),
    /// The connection breaks after the first time; the pull goes on, and has ended well after the second.
    GoesOn(Duration, Duration),
    /// The node ends it by itself after this time, because nothing arrives, and says so.
    EndsItself(Duration),
    /// Pulled after this time, in which so many bytes arrive evenly.
    Arrives(Duration, u64),
    /// The channel panics after this time.
    Panics(Duration),
}

/// A pull that goes on without a connection.
#[derive(Debug)]
enum Alone {
    /// The connection was lost: when it ends.
    Lost(Instant),
    /// The connection was given away: when it began, and what becomes of it.
    Left(Instant, Step),
}

impl Step {
    /// [`Step::Fails`] with the kind's name as first word.
    pub fn fails(after: Duration, kind: FailureKind) -> Self {
        Self::Fails(after, format!("{kind} as scripted"))
    }
}

/// What was seen, on one node or on all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Dials, failed ones too.
    pub connects: usize,
    /// Sessions open now.
    pub sessions: usize,
    /// The most sessions open at one time.
    pub sessions_peak: usize,
    /// Sessions that were closed politely.
    pub closed: usize,
    /// Channels opened.
    pub channels: usize,
    /// Pulls that really started (the image was not there).
    pub pulls: usize,
    /// Pulls running now.
    pub pulling: usize,
    /// The most pulls running at one time.
    pub pulling_peak: usize,
    /// Pulls and commands that the node was told to cancel.
    pub cancels: usize,
    /// Probes.
    pub probes: usize,
    /// Commands of `run`.
    pub runs: usize,
    /// How often a pull heard that we are here.
    pub beats: usize,
    /// How often a pull was left to go on by itself.
    pub left: usize,
}

#[derive(Debug, Default)]
struct NodeState {
    dials: VecDeque<Dial>,
    runtimes: Option<Vec<RuntimeKind>>,
    probe_takes: Duration,
    images: HashMap<String, VecDeque<Step>>,
    /// What its script for mirrors prints.
    mirrors: String,
    held: HashSet<String>,
    /// Pulls that go on without a connection, by their names.
    alone: HashMap<String, Alone>,
    run: Option<(Duration, CommandOutput)>,
    refusal: Option<Failure>,
    has_changed_key: bool,
    /// Kilobytes for images.
    free: Option<u64>,
    /// What its runtime says where a manifest does not exist.
    registry: Option<String>,
    counts: Counts,
    dialled_at: Vec<Instant>,
    pulled_at: Vec<Instant>,
}

#[derive(Debug, Default)]
struct World {
    nodes: HashMap<String, NodeState>,
    /// The one login that the registry accepts, where it asks for one.
    accepted: Option<String>,
    has_given_up_a_password: bool,
    /// How long dials take that no script tells of.
    dials_take: Duration,
    total: Counts,
}

impl World {
    fn node(&mut self, name: &str) -> &mut NodeState {
        self.nodes.entry(name.to_string()).or_default()
    }

    /// Changes the counts of the node and of all nodes alike.
    fn count(&mut self, name: &str, change: impl Fn(&mut Counts)) {
        for counts in [
            &mut self.nodes.entry(name.to_string()).or_default().counts,
            &mut self.total,
        ] {
            change(counts);
            counts.sessions_peak = counts.sessions_peak.max(counts.sessions);
            counts.pulling_peak = counts.pulling_peak.max(counts.pulling);
        }
    }
}

/// The scripted fleet: a [`Transport`]. Clones share everything.
#[derive(Debug, Clone, Default)]
pub struct Peer(Arc<Mutex<World>>);

impl Peer {
    /// A fleet without scripts.
    pub fn new() -> Self {
        Self::default()
    }

    fn world(&self) -> MutexGuard<'_, World> {
        // A scripted panic may have poisoned it; the counts are still right.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The script of this node, to be written.
    pub fn node(&self, name: &str) -> Script {
        Script {
            peer: self.clone(),
            node: name.to_string(),
        }
    }

    /// From now on the registry accepts this registry token only.
    pub fn accepts(&self, token: &str) {
        self.world().accepted = Some(token.to_string());
    }

    /// From now on dials take this long where no script says otherwise.
    pub fn dials_take(&self, time: Duration) {
        self.world().dials_take = time;
    }

    /// From now on a password that the nodes share is tried no more.
    pub fn gives_a_password_up(&self) {
        self.world().has_given_up_a_password = true;
    }

    /// What was seen on this node.
    pub fn counts(&self, node: &str) -> Counts {
        self.world().node(node).counts
    }

    /// What was seen on all nodes together.
    pub fn total(&self) -> Counts {
        self.world().total
    }

    /// The node restarts: what ran on it is gone.
    pub fn restarts(&self, node: &str) {
        let mut world = self.world();
        let gone = std::mem::take(&mut world.node(node).alone);
        let left = gone
            .values()
            .filter(|alone| matches!(alone, Alone::Left(..)));
        let left = left.count();
        world.count(node, |counts| counts.pulling -= left);
    }

    /// When this node was dialled, on tokio's clock.
    pub fn dialled_at(&self, node: &str) -> Vec<Instant> {
        self.world().node(node).dialled_at.clone()
    }

    /// When pulls started on this node, on tokio's clock.
    pub fn pulled_at(&self, node: &str) -> Vec<Instant> {
        self.world().node(node).pulled_at.clone()
    }
}

/// Writes one node's script.
#[derive(Debug)]
pub struct Script {
    peer: Peer,
    node: String,
}

impl Script {
    fn with(self, change: impl FnOnce(&mut NodeState)) -> Self {
        change(self.peer.world().node(&self.node));
        self
    }

    /// So many kilobytes are free for images.
    pub fn has_free(self, kilobytes: u64) -> Self {
        self.with(|node| node.free = Some(kilobytes))
    }

    /// What its runtime says of the registry when a preflight or a probe asks: the kind's public name, then words.
    pub fn finds_registry(self, said: &str) -> Self {
        self.with(|node| node.registry = Some(said.to_string()))
    }

    /// What the script of a fan-out prints of its configuration of registries.
    pub fn has_mirrors(self, printed: &str) -> Self {
        self.with(|node| node.mirrors = printed.to_string())
    }

    /// Its first dials, in order; later ones succeed at once.
    pub fn connects(self, dials: impl IntoIterator<Item = Dial>) -> Self {
        self.with(|node| node.dials = dials.into_iter().collect())
    }

    /// It has this runtime alone.
    pub fn probes(self, kind: RuntimeKind) -> Self {
        self.with(|node| node.runtimes = Some(vec![kind]))
    }

    /// It has no runtime at all.
    pub fn no_runtime(self) -> Self {
        self.with(|node| node.runtimes = Some(vec![]))
    }

    /// Each question for a runtime's version takes this long.
    pub fn probe_takes(self, time: Duration) -> Self {
        self.with(|node| node.probe_takes = time)
    }

    /// What becomes of pulls of this image (its full reference); the last step is used for ever.
    pub fn image(self, reference: &str, steps: impl IntoIterator<Item = Step>) -> Self {
        let steps: VecDeque<Step> = steps.into_iter().collect();
        assert!(!steps.is_empty(), "an image's script needs a step");
        self.with(|node| {
            node.images.insert(reference.to_string(), steps);
        })
    }

    /// Nothing can be started on it, for this reason.
    pub fn refuses(self, failure: Failure) -> Self {
        self.with(|node| node.refusal = Some(failure))
    }

    /// Its host key differs from the known one, and is not checked.
    pub fn has_changed_key(self) -> Self {
        self.with(|node| node.has_changed_key = true)
    }

    /// What the command of `run` prints, and when.
    pub fn runs(self, after: Duration, output: CommandOutput) -> Self {
        self.with(|node| node.run = Some((after, output)))
    }
}

impl Transport for Peer {
    type Session = ScriptedSession;

    async fn connect(
        &self,
        node: &Node,
        progress: &(dyn Fn(Stage) + Send + Sync),
    ) -> Result<ScriptedSession, Failure> {
        let dial = {
            let mut world = self.world();
            world.count(&node.name, |counts| counts.connects += 1);
            let state = world.node(&node.name);
            state.dialled_at.push(Instant::now());
            let scripted = state.dials.pop_front();
            scripted.unwrap_or(Dial::After(world.dials_take))
        };
        progress(Stage::Connect);
        match dial {
            Dial::After(time) => sleep(time).await,
            Dial::Fails(time, failure) => {
                sleep(time).await;
                return Err(failure);
            }
            Dial::Hangs => std::future::pending().await,
        }
        progress(Stage::Authenticate);
        self.world()
            .count(&node.name, |counts| counts.sessions += 1);
        Ok(ScriptedSession {
            peer: self.clone(),
            node: node.name.clone(),
        })
    }

    fn has_given_up_a_password(&self) -> bool {
        self.world().has_given_up_a_password
    }
}

/// A session of [`Peer`].
#[derive(Debug)]
pub struct ScriptedSession {
    peer: Peer,
    node: String,
}

impl Drop for ScriptedSession {
    fn drop(&mut self) {
        self.peer
            .world()
            .count(&self.node, |counts| counts.sessions -= 1);
    }
}

impl Session for ScriptedSession {
    type Channel = ScriptedChannel;

    async fn exec(&mut self, line: &str) -> Result<ScriptedChannel, Failure> {
        assert!(line.starts_with("sh -c '"), "not our line: {line}");
        self.peer
            .world()
            .count(&self.node, |counts| counts.channels += 1);
        if let Some(failure) = self.peer.world().node(&self.node).refusal.clone() {
            return Err(failure);
        }
        Ok(ScriptedChannel {
            peer: self.peer.clone(),
            node: self.node.clone(),
            input: Vec::new(),
            nonce: String::new(),
            events: VecDeque::new(),
            asked: false,
            question: false,
            pulling: false,
            deaf: false,
            course: None,
        })
    }

    fn host_key_changed(&self) -> bool {
        self.peer.world().node(&self.node).has_changed_key
    }

    async fn close(self) {
        self.peer
            .world()
            .count(&self.node, |counts| counts.closed += 1);
    }
}

/// What a channel does at some time.
#[derive(Debug)]
enum Act {
    Say(Vec<u8>),
    PullStarts,
    PullEnds,
    Hold(String),
    Lose,
    Panic,
    Close,
}

/// A channel of [`Peer`].
#[derive(Debug)]
pub struct ScriptedChannel {
    peer: Peer,
    node: String,
    input: Vec<u8>,
    nonce: String,
    events: VecDeque<(Instant, Act)>,
    asked: bool,
    question: bool,
    pulling: bool,
    deaf: bool,
    /// When the pull began, and what becomes of it.
    course: Option<(Instant, Step)>,
}

impl Drop for ScriptedChannel {
    fn drop(&mut self) {
        self.pull_ends();
    }
}

impl Channel for ScriptedChannel {
    async fn write(&mut self, bytes: Bytes) -> Result<(), Failure> {
        self.input.extend_from_slice(&bytes);
        if !self.asked {
            let input = std::mem::take(&mut self.input);
            if let Some(asked) = request_in(&input) {
                self.asked = true;
                self.question = asked.action == "ask";
                self.answer(&asked);
            } else {
                self.input = input;
            }
        } else if self.input.ends_with(b"\n") {
            let line = std::mem::take(&mut self.input);
            match line.as_slice() {
                line if line == word::BEAT.as_bytes() => {
                    self.peer
                        .world()
                        .count(&self.node, |counts| counts.beats += 1);
                    return Ok(());
                }
                line if line == word::DONE.as_bytes() => return Ok(()),
                line if line == word::LEAVE.as_bytes() => {
                    self.leave();
                    return Ok(());
                }
                other => assert_eq!(other, word::CANCEL.as_bytes(), "not a word of the protocol"),
            }
            self.peer.world().node(&self.node).alone.remove(&self.nonce);
            if !self.question {
                self.peer
                    .world()
                    .count(&self.node, |counts| counts.cancels += 1);
            }
            if !self.deaf {
                self.pull_ends();
                self.events.clear();
                let now = Instant::now();
                self.say(now, "end", b"");
                self.events.push_back((now, Act::Close));
            }
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<ChannelEvent>, Failure> {
        loop {
            let Some((at, _)) = self.events.front() else {
                return std::future::pending().await;
            };
            sleep_until(*at).await;
            // It was there above, and nothing ran in between.
            let (at, act) = self.events.pop_front().unwrap();
            match act {
                Act::Say(bytes) => return Ok(Some(ChannelEvent::Stdout(bytes))),
                Act::PullStarts => {
                    self.pulling = true;
                    let mut world = self.peer.world();
                    world.count(&self.node, |counts| {
                        counts.pulls += 1;
                        counts.pulling += 1;
                    });
                    world.node(&self.node).pulled_at.push(at);
                }
                Act::PullEnds => self.pull_ends(),
                Act::Hold(image) => {
                    self.peer.world().node(&self.node).held.insert(image);
                }
                Act::Lose => {
                    self.pull_ends();
                    return Err(Failure::new(
                        FailureKind::ConnectionLost,
                        Stage::Connect,
                        "connection reset, as scripted",
                    ));
                }
                Act::Panic => panic!("a panic, as scripted"),
                Act::Close => {
                    self.events.push_back((at, Act::Close));
                    return Ok(None);
                }
            }
        }
    }
}

impl ScriptedChannel {
    /// The pull goes on by itself.
    fn leave(&mut self) {
        self.pulling = false;
        let starts = self.events.iter();
        let starts = starts
            .filter(|(_, act)| matches!(act, Act::PullStarts))
            .count();
        self.events.clear();
        self.events.push_back((Instant::now(), Act::Close));
        let mut world = self.peer.world();
        world.count(&self.node, |counts| {
            counts.left += 1;
            counts.pulls += starts;
            counts.pulling += starts;
        });
        if let Some((began, step)) = self.course.take() {
            let alone = &mut world.node(&self.node).alone;
            alone.insert(self.nonce.clone(), Alone::Left(began, step));
        }
    }

    fn pull_ends(&mut self) {
        if std::mem::take(&mut self.pulling) {
            self.peer
                .world()
                .count(&self.node, |counts| counts.pulling -= 1);
        }
    }

    fn say(&mut self, at: Instant, frame: &str, payload: &[u8]) {
        let mut bytes = format!("prepull-{} {frame}\n", self.nonce).into_bytes();
        bytes.extend_from_slice(payload);
        self.events.push_back((at, Act::Say(bytes)));
    }

    fn output(&mut self, at: Instant, code: u32, stdout: &[u8], stderr: &[u8]) {
        let frame = format!("output {code} {} {} 0", stdout.len(), stderr.len());
        self.say(at, &frame, &[stdout, stderr].concat());
    }

    /// Plans the whole answer, each part at its time.
    fn answer(&mut self, asked: &Request<'_>) {
        self.nonce = asked.nonce.to_string();
        let now = Instant::now();
        self.say(now, "hello", b"");
        let end = match asked.action {
            "pull-missing" | "pull-always" => self.answer_pull(asked, now),
            "pull-cancel" => {
                let alone = self.peer.world().node(&self.node).alone.remove(&self.nonce);
                match alone {
                    Some(Alone::Left(_, step)) => {
                        self.deaf = matches!(step, Step::Deaf);
                        self.pulling = true;
                        None
                    }
                    Some(Alone::Lost(_)) => None,
                    None => Some(now),
                }
            }
            "ask" => self.answer_questions(asked, now),
            "facts" => {
                let clock = SystemTime::now().duration_since(UNIX_EPOCH);
                let (clock, free) = (
                    clock.unwrap_or_default(),
                    self.peer.world().node(&self.node).free,
                );
                let clock = format!("{}.{:09}", clock.as_secs(), clock.subsec_nanos());
                self.say(
                    now,
                    &format!("host {clock} Linux x86_64 \"Scripted 1\""),
                    b"",
                );
                self.say(
                    now,
                    &format!("disk {} /var/lib/scripted", free.unwrap_or(1000)),
                    b"",
                );
                self.answer_questions(asked, now)
            }
            "run" => {
                self.peer
                    .world()
                    .count(&self.node, |counts| counts.runs += 1);
                let scripted = self.peer.world().node(&self.node).run.clone();
                let (after, output) = scripted.unwrap_or_else(|| (Duration::ZERO, ran(0)));
                let ExitStatus::Code(code) = output.exit else {
                    panic!("script a signal as 128 and its number");
                };
                let at = now + after;
                self.output(at, code, &output.stdout, &output.stderr);
                Some(at)
            }
            other => panic!("unknown action {other}"),
        };
        if let Some(at) = end {
            self.say(at, "end", b"");
            self.events.push_back((at, Act::Close));
        }
    }

    fn answer_questions(&mut self, asked: &Request<'_>, now: Instant) -> Option<Instant> {
        let mut at = now;
        for command in &asked.commands {
            match command.argv[..] {
                [runtime, "version"] => {
                    let (has, takes) = {
                        let mut world = self.peer.world();
                        if at == now {
                            world.count(&self.node, |counts| counts.probes += 1);
                        }
                        let node = world.node(&self.node);
                        let has = node
                            .runtimes
                            .as_ref()
                            .is_none_or(|kinds| kinds.iter().any(|kind| kind.as_str() == runtime));
                        (has, node.probe_takes)
                    };
                    at += takes;
                    if has {
                        self.output(at, 0, b"1.0", b"");
                    } else {
                        self.output(at, 127, b"", b"runtime-missing not installed");
                    }
                }
                [_, "inspect", image] => {
                    let held = {
                        let mut world = self.peer.world();
                        let node = world.node(&self.node);
                        node.held.contains(image)
                            || matches!(
                                node.images.get(image).and_then(VecDeque::front),
                                Some(Step::Present)
                            )
                    };
                    self.inspected(at, image, held);
                }
                // The manifest that does not exist, by which a registry is judged.
                [_, "pull", image] if image.ends_with(&"0".repeat(64)) => {
                    let said = self.peer.world().node(&self.node).registry.clone();
                    let said = said.unwrap_or_else(|| "image-not-found as scripted".into());
                    self.output(at, 1, b"", said.as_bytes());
                }
                [_, "keep", image, until] => {
                    self.output(at, 0, format!("{image} until {until}").as_bytes(), b"");
                }
                [_, "root"] => self.output(at, 0, b"/var/lib/scripted\n", b""),
                [_, "socket"] => self.output(at, 0, b"unix:///run/scripted.sock", b""),
                ["sh", "-c", _, "mirrors", ..] => {
                    let printed = self.peer.world().node(&self.node).mirrors.clone();
                    self.output(at, 0, printed.as_bytes(), b"");
                }
                _ => panic!("a question that ScriptedRuntime does not ask: {command:?}"),
            }
        }
        Some(at)
    }

    fn inspected(&mut self, at: Instant, image: &str, held: bool) {
        if held {
            let digest = image.split_once('@').map_or(DIGEST, |(_, digest)| digest);
            self.output(at, 0, digest.as_bytes(), b"");
        } else {
            self.output(at, 1, b"", b"missing");
        }
    }

    fn answer_pull(&mut self, asked: &Request<'_>, now: Instant) -> Option<Instant> {
        let [inspect, pull, root] = &asked.commands[..] else {
            panic!("a pull has three commands: {asked:?}");
        };
        assert_eq!(root.argv[1], "root");
        let [_, verb, image] = pull.argv[..] else {
            panic!("not a pull of ScriptedRuntime: {pull:?}");
        };
        assert_eq!((verb, inspect.argv[1]), ("pull", "inspect"));
        let login: String = asked
            .commands
            .iter()
            .map(|command| command.secret)
            .collect();
        let (alone, step, held) = {
            let mut world = self.peer.world();
            let is_refused = world
                .accepted
                .as_ref()
                .is_some_and(|wanted| *wanted != login);
            let node = world.node(&self.node);
            let alone = node.alone.remove(&self.nonce);
            let held = alone.is_none() && node.held.contains(image);
            let missing_wanted = asked.action == "pull-missing";
            let step = match node.images.get_mut(image) {
                _ if held && missing_wanted => Step::Present,
                _ if alone.is_some() => Step::Present,
                _ if is_refused => Step::fails(Duration::from_secs(1), FailureKind::RegistryAuth),
                None => Step::Pulled(Duration::from_secs(1)),
                Some(steps) if steps.len() > 1 => steps.pop_front().unwrap(),
                Some(steps) => steps[0].clone(),
            };
            (alone, step, held)
        };
        if let Some(Alone::Left(began, step)) = alone {
            // All of it comes again, and what happens later at its time.
            let hello = self.events.len();
            self.course = Some((began, step.clone()));
            self.deaf = matches!(step, Step::Deaf);
            self.say(began, "stage inspect", b"");
            self.inspected(began, image, false);
            self.say(began, "stage pull", b"");
            let end = self.plan_pull(image, began, step);
            let was_there = |(at, act): &(Instant, Act)| match act {
                Act::Say(bytes) if *at <= now => bytes.len(),
                _ => 0,
            };
            let size: usize = self.events.iter().skip(hello).map(was_there).sum();
            self.say(now, &format!("replay {size}"), b"");
            let replay = self.events.pop_back();
            self.events.insert(hello, replay.unwrap());
            self.pulling = true;
            return end;
        }
        if let Some(Alone::Lost(end)) = alone {
            self.say(now, "stage inspect", b"");
            self.inspected(now, image, false);
            self.say(now, "stage pull", b"");
            let at = end.max(now);
            self.events.push_back((at, Act::Hold(image.to_string())));
            self.output(at, 0, b"", b"");
            self.say(at, "stage verify", b"");
            self.inspected(at, image, true);
            return Some(at);
        }
        let present = held || matches!(step, Step::Present);
        self.say(now, "stage inspect", b"");
        self.inspected(now, image, present);
        if present && asked.action == "pull-missing" {
            return Some(now);
        }
        self.say(now, "stage pull", b"");
        self.events.push_back((now, Act::PullStarts));
        self.course = Some((now, step.clone()));
        self.plan_pull(image, now, step)
    }

    /// Plans what becomes of a pull that begins at `now`.
    fn plan_pull(&mut self, image: &str, now: Instant, step: Step) -> Option<Instant> {
        self.say(now, "guarded", b"");
        let ends = |channel: &mut Self, at, act| {
            channel.events.push_back((at, Act::PullEnds));
            channel.events.push_back((at, act));
            None
        };
        match step {
            Step::Present | Step::Pulled(_) | Step::Arrives(..) => {
                let time = match step {
                    Step::Pulled(time) | Step::Arrives(time, _) => time,
                    _ => Duration::ZERO,
                };
                if let Step::Arrives(_, bytes) = step {
                    let layer = "a".repeat(64);
                    let manifest =
                        format!(r#"{{"layers":[{{"digest":"sha256:{layer}","size":{bytes}}}]}}"#);
                    self.say(now, "measured", b"");
                    let frame = format!("manifest {}", manifest.len());
                    self.say(now, &frame, manifest.as_bytes());
                    for second in 1..=time.as_secs() {
                        let there = bytes * second / time.as_secs();
                        let frame = format!("progress {layer}:{there}:{bytes}");
                        self.say(now + Duration::from_secs(second), &frame, b"");
                    }
                }
                let at = now + time;
                self.events.push_back((at, Act::PullEnds));
                self.events.push_back((at, Act::Hold(image.to_string())));
                self.output(at, 0, b"", b"");
                self.say(at, "stage verify", b"");
                self.inspected(at, image, true);
                Some(at)
            }
            Step::Fails(time, words) => {
                let at = now + time;
                self.events.push_back((at, Act::PullEnds));
                self.output(at, 1, b"", words.as_bytes());
                Some(at)
            }
            Step::EndsItself(time) => {
                let at = now + time;
                self.say(now, "measured", b"");
                self.events.push_back((at, Act::PullEnds));
                self.say(at, "late stall", b"");
                Some(at)
            }
            Step::Hangs => None,
            Step::Deaf => {
                self.deaf = true;
                None
            }
            Step::Lost(time) => ends(self, now + time, Act::Lose),
            Step::GoesOn(lost, whole) => {
                let mut world = self.peer.world();
                let alone = &mut world.node(&self.node).alone;
                alone.insert(self.nonce.clone(), Alone::Lost(now + whole));
                drop(world);
                ends(self, now + lost, Act::Lose)
            }
            Step::Panics(time) => ends(self, now + time, Act::Panic),
        }
    }
}

fn ran(code: u32) -> CommandOutput {
    CommandOutput {
        exit: ExitStatus::Code(code),
        stdout: Vec::new(),
        stderr: Vec::new(),
        truncated: false,
    }
}

/// The digest of every image that a scripted node holds, unless its reference names one.
pub const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// The request, once all of it is there; panics on what is none.
fn request_in(bytes: &[u8]) -> Option<Request<'_>> {
    let has_begun = |part: &Part| {
        let program = part.text();
        let checked = bytes.len().min(program.len());
        bytes[..checked] == program[..checked]
    };
    let begun: Vec<Part> = [Part::Pull, Part::Call]
        .into_iter()
        .filter(has_begun)
        .collect();
    let [part] = begun[..] else {
        assert!(!begun.is_empty(), "not our program, up to its last line");
        return None;
    };
    let (request, rest) = Request::read(bytes.get(part.text().len()..)?)?;
    assert_eq!(
        part,
        Part::of(request.action),
        "the program of another action"
    );
    assert!(rest.is_empty(), "more than one request on a channel");
    Some(request)
}

/// The runtime that [`Peer`]'s nodes have.
#[derive(Debug, Clone, Copy)]
pub struct ScriptedRuntime(pub RuntimeKind);

impl ScriptedRuntime {
    fn command<'a>(self, rest: &[&'a str]) -> NodeCommand<'a> {
        NodeCommand {
            argv: [&[self.0.as_str()], rest].concat(),
            environment: vec![],
            secret: None,
            stdin: b"",
        }
    }
}

/// The failure in `KIND words`.
fn scripted_failure(output: &CommandOutput, stage: Stage) -> Failure {
    use FailureKind as K;
    const KINDS: [FailureKind; 21] = [
        K::Unreachable,
        K::HostKey,
        K::SshAuth,
        K::ConnectionLost,
        K::Privilege,
        K::RuntimeMissing,
        K::RuntimeDown,
        K::NodeSetup,
        K::RegistryAuth,
        K::ImageNotFound,
        K::Platform,
        K::ImageInvalid,
        K::RegistryRefused,
        K::RateLimited,
        K::RegistryUnavailable,
        K::TlsTrust,
        K::Corrupt,
        K::DiskFull,
        K::Stalled,
        K::TimedOut,
        K::Unknown,
    ];
    let text = String::from_utf8_lossy(&output.stderr);
    let word = text.split(' ').next().unwrap_or_default();
    let kind = KINDS.into_iter().find(|kind| kind.as_str() == word);
    Failure::new(kind.unwrap_or(K::Unknown), stage, text.clone())
}

impl Runtime for ScriptedRuntime {
    fn kind(&self) -> RuntimeKind {
        self.0
    }

    fn version<'a>(&self, _: Option<&'a str>) -> NodeCommand<'a> {
        self.command(&["version"])
    }

    fn check_alive(&self, output: &CommandOutput) -> Result<String, Failure> {
        if output.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(scripted_failure(output, Stage::Probe))
        }
    }

    fn describe<'a>(&self, _: Option<&'a str>) -> [NodeCommand<'a>; 2] {
        [self.command(&["version"]), self.command(&["socket"])]
    }

    fn read_description(
        &self,
        [_, version, socket]: [&CommandOutput; 3],
    ) -> Result<Description, Failure> {
        let text = |output: &CommandOutput| String::from_utf8_lossy(&output.stdout).into_owned();
        self.check_alive(version)?;
        Ok(Description {
            runtime: format!("{} {}", self.0, text(version)),
            client: self.0.to_string(),
            endpoint: Some(text(socket)),
        })
    }

    fn inspect<'a>(&self, image: &'a Image, _: Option<&'a str>) -> NodeCommand<'a> {
        self.command(&["inspect", image.as_str()])
    }

    fn read_inspect(
        &self,
        _: &Image,
        output: &CommandOutput,
        _: Stage,
    ) -> Result<Option<LocalImage>, Failure> {
        Ok(output.success().then(|| LocalImage {
            digest: Some(String::from_utf8_lossy(&output.stdout).into_owned()),
            image_id: None,
            bytes: Some(1000),
            platform: None,
        }))
    }

    fn is_fallback(&self) -> bool {
        self.0 > RuntimeKind::Docker
    }

    fn data_dir<'a>(&self, _: Option<&'a str>) -> NodeCommand<'a> {
        self.command(&["root"])
    }

    fn pull<'a>(&self, request: &PullRequest<'a>) -> Result<NodeCommand<'a>, Failure> {
        let mut command = self.command(&["pull", request.image.as_str()]);
        command.secret = request.login.map(|login| SecretDelivery::Environment {
            variable: "SCRIPTED_AUTH",
            value: match login {
                RegistryLogin::RegistryToken(token) => token.clone(),
                other => panic!("script logins as registry tokens: {other:?}"),
            },
        });
        Ok(command)
    }

    fn naming<'a>(&self, _: &Naming<'a>) -> Result<[NodeCommand<'a>; 3], Failure> {
        Ok(["check", "name", "forget"].map(|mode| self.command(&["naming", mode])))
    }

    fn keep<'a>(&self, request: &KeepRequest<'a>) -> Option<NodeCommand<'a>> {
        let is_docker = self.0 == RuntimeKind::Docker;
        is_docker.then(|| self.command(&["keep", request.image.as_str(), request.until]))
    }

    fn read_keep(&self, output: &CommandOutput) -> KeepOutcome {
        KeepOutcome {
            state: KeptState::Pinned,
            note: Some(String::from_utf8_lossy(&output.stdout).into_owned()),
        }
    }

    fn read_pull(&self, _: &Image, output: &CommandOutput) -> Result<(), Failure> {
        if output.success() {
            Ok(())
        } else {
            Err(scripted_failure(output, Stage::Pull))
        }
    }
}
