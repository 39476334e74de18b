//! The shell protocol between us and a node: start, watch, cancel, collect, clean up.
//!
//! Every call is one command on the node: the login shell starts `sh`, which reads the program in `program/` and
//! then its values from standard input. What it prints is a row of frames, read in `frames`.

mod conversation;
mod facts;
mod frames;
mod hang_up;
mod privilege;
mod protocol;
mod request;
#[cfg(test)]
pub mod scripted;
#[cfg(test)]
mod tests;
mod transfer;

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use crate::model::text::truncate_bytes;
use crate::model::{
    CommandOutput, ExecOutput, Failure, FailureKind, Image, Layer, LocalImage, Node, Outcome,
    PullWhen, RegistryLogin, RuntimeKind, Spool, Stage, text,
};
use crate::ports::{Channel, Naming, NodeCommand, PullRequest, Runtime, Session};

use conversation::Conversation;
pub use facts::facts;
pub use hang_up::{HangUp, PullState};
pub use protocol::word;
use request::{Action, Request};
use transfer::Transfer;
pub use transfer::{BytesTransferred, Layers, StallPolicy};

/// What starts a script on a node: the line for [`Session::exec`], and what is written to it first. What is written after
/// that is for the script.
pub fn script(source: &str) -> (&'static str, String) {
    request::script(source)
}

/// Why a call into a node came to no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interrupted {
    /// `cancel` resolved first: the node was told and has cleaned up, or did not answer within 10 s.
    Cancelled,
    /// The pull runs well, and goes on by itself: its connection is needed elsewhere. The next call finds it.
    HungUp(Box<PullState>),
    /// It failed.
    Failed(Failure),
}

impl Interrupted {
    /// The failure; `None` where there is none.
    pub fn failed(self) -> Option<Failure> {
        match self {
            Self::Cancelled | Self::HungUp(_) => None,
            Self::Failed(failure) => Some(failure),
        }
    }
}

impl From<Failure> for Interrupted {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// How a pull gets on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// This begins.
    Stage(Stage),
    /// So much has arrived.
    BytesTransferred(BytesTransferred),
}

/// One attempt at one image.
pub struct PullJob<'a> {
    /// Who pulls.
    pub runtime: &'a dyn Runtime,
    /// What the image is made of, where the registry was asked.
    pub layers: Option<&'a [Layer]>,
    /// What is pulled.
    pub request: PullRequest<'a>,
    /// Whether a node that holds the image is left alone.
    pub when: PullWhen,
    /// How long the pull itself may take, and a wait for another pull of the same image before it; inspecting has a
    /// limit of its own.
    pub timeout: Option<Duration>,
    /// When it is too slow.
    pub patience: StallPolicy,
    /// Counts what comes, over all attempts.
    pub arrived: &'a Layers,
    /// Names the run's pulls on nodes: the same mark, node and image find the same pull again.
    pub pull_token: &'a str,
    /// How long the pull goes on by itself when the connection is lost.
    pub lease: Duration,
    /// Whether the login may be put on a disk, where there is no memory file system.
    pub disk_credentials: bool,
    /// Lets a pull that runs well go on without the connection; `None` where it is watched to its end. It says when that
    /// pull was left, from where all limits count.
    pub hang_up: Option<HangUp<'a>>,
}

/// Where an image is pulled from when its registry is not asked.
pub struct LocalPull<'a> {
    /// Its name there: a port of the node's own 127.0.0.1, which ends with the connection, and the digest.
    pub name: &'a Image,
    /// The login that is asked for there.
    pub login: &'a RegistryLogin,
    /// Whether the image's registry may be asked for a name that the runtime does not give by itself.
    pub may_ask_registry: bool,
}

/// How long a question to a runtime, or the start of our program, may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// How much of its words is shown of a client that says less than another, in bytes.
const OTHER_CLIENT: usize = 300;
/// How long a node may wait for another pull of the same image where a pull has no limit.
const TURN_LIMIT: Duration = Duration::from_secs(3600);
/// How long output is waited for once the operator's command has ended: something it left running in
/// the background may hold its output open for ever.
const STRAGGLER_LIMIT: Duration = Duration::from_secs(2);

/// Finds out which runtime the node has: the node's own word limits the choice, and the first in
/// [`RuntimeKind::ALL`] that answers is taken.
///
/// # Errors
/// Cancelled, or the most telling [`Failure`] of the runtimes, or one at stage start.
pub async fn probe<S: Session>(
    session: &mut S,
    node: &Node,
    runtimes: &[&dyn Runtime],
    cancel: impl Future<Output = ()> + Send,
) -> Result<RuntimeKind, Interrupted> {
    let mut cancel = pin!(cancel);
    let mut asked: Vec<&dyn Runtime> = runtimes
        .iter()
        .copied()
        .filter(|runtime| node.runtime.is_none_or(|kind| kind == runtime.kind()))
        .collect();
    asked.sort_by_key(|runtime| runtime.kind());
    let endpoint = node.endpoint.as_deref();
    let commands = asked.iter().map(|r| r.version(endpoint)).collect();
    let request = Request::new(Action::Ask, commands);

    let mut protocol =
        Conversation::start(session, node, &request, Stage::Probe, cancel.as_mut()).await?;
    let mut answers = Vec::with_capacity(asked.len());
    for runtime in &asked {
        let output = match protocol.output(Some(ANSWER_LIMIT), cancel.as_mut()).await? {
            Ok(output) => output,
            Err(too_late) => {
                answers.push(Err(too_late));
                return Ok(choose(&asked, answers)?);
            }
        };
        let answer = runtime.check_alive(&output).map(|_| runtime.kind());
        let found = answer.is_ok();
        answers.push(answer);
        // Runtimes that were not asked yet cannot change the choice.
        if found && answers.len() < asked.len() {
            protocol.stop().await;
            return Ok(choose(&asked, answers)?);
        }
    }
    protocol.finish().await;
    Ok(choose(&asked, answers)?)
}

/// Pulls the image unless the node holds it, and looks afterwards whether it really does.
///
/// The pull does not need us: when this call is dropped or its connection lost, it goes on for the lease. The next
/// call with the same mark finds it, running or ended, and starts no other.
///
/// The outcome is [`Outcome::Pulled`] or [`Outcome::Present`].
///
/// # Errors
/// Cancelled, or a [`Failure`] at stage start, inspect, pull or verify.
pub async fn pull<S: Session>(
    session: &mut S,
    node: &Node,
    job: &PullJob<'_>,
    progress: &(dyn Fn(Progress) + Send + Sync),
    cancel: impl Future<Output = ()> + Send,
) -> Result<Outcome, Interrupted> {
    pull_from(session, node, job, None, progress, pin!(cancel)).await
}

/// The same from elsewhere than the image's registry: the node pulls the image under another name, gives it its own by
/// the runtime's means, and removes the other name, also where the pull fails, is cancelled or loses its connection.
///
/// Such a pull ends with its connection.
///
/// # Errors
/// As for [`pull`]; of kind node-setup at stage pull, before anything was asked of the other place, where the image
/// cannot be given its name on this node.
pub async fn pull_locally<S: Session>(
    session: &mut S,
    node: &Node,
    job: &PullJob<'_>,
    local: &LocalPull<'_>,
    progress: &(dyn Fn(Progress) + Send + Sync),
    cancel: impl Future<Output = ()> + Send,
) -> Result<Outcome, Interrupted> {
    pull_from(session, node, job, Some(local), progress, pin!(cancel)).await
}

async fn pull_from<S: Session, F: Future<Output = ()> + Send>(
    session: &mut S,
    node: &Node,
    job: &PullJob<'_>,
    local: Option<&LocalPull<'_>>,
    progress: &(dyn Fn(Progress) + Send + Sync),
    mut cancel: Pin<&mut F>,
) -> Result<Outcome, Interrupted> {
    let first = pull_when(
        session,
        node,
        job,
        local,
        job.when,
        progress,
        cancel.as_mut(),
    );
    if let Some(ended) = first.await? {
        return Ok(ended);
    }
    // The tag holds an image for another platform: only the registry has the one that was asked for.
    let always = PullWhen::Always;
    let second = pull_when(session, node, job, local, always, progress, cancel);
    Ok(second.await?.ok_or_else(|| contradiction(Stage::Inspect))?)
}

/// One pull, as `when` says. `None` where nothing was pulled and the image that is there is for another platform.
async fn pull_when<S: Session, F: Future<Output = ()> + Send>(
    session: &mut S,
    node: &Node,
    job: &PullJob<'_>,
    local: Option<&LocalPull<'_>>,
    when: PullWhen,
    progress: &(dyn Fn(Progress) + Send + Sync),
    mut cancel: Pin<&mut F>,
) -> Result<Option<Outcome>, Interrupted> {
    let (runtime, image) = (job.runtime, job.request.image);
    let (asked, pull, naming) = match local {
        Some(local) => {
            let asked = PullRequest {
                image: local.name,
                login: Some(local.login),
                ..job.request
            };
            let pull = runtime.pull_locally(&asked)?;
            (asked, pull, Some(naming(job, local)?))
        }
        None => (job.request, runtime.pull(&job.request)?, None),
    };
    let mut commands = vec![
        runtime.inspect(image, job.request.endpoint),
        pull,
        runtime.data_dir(job.request.endpoint),
    ];
    commands.extend(runtime.daemon_pull(&asked));
    let transferred = |bytes| progress(Progress::BytesTransferred(bytes));
    // A second pull, for the platform, is not found by its own way again.
    let hang_up = job.hang_up.filter(|_| local.is_none() && when == job.when);
    let mut transfer =
        Transfer::new(job.arrived, job.layers, job.patience, &transferred).may_hang_up(hang_up);
    let request = Request::pull(job, when, node, commands, naming);
    let mut protocol =
        Conversation::start(session, node, &request, Stage::Inspect, cancel.as_mut()).await?;

    let inspected = step(
        &mut protocol,
        Stage::Inspect,
        Some(ANSWER_LIMIT),
        &mut transfer,
        progress,
        cancel.as_mut(),
    )
    .await?;
    let before = match runtime.read_inspect(image, &inspected, Stage::Inspect) {
        Ok(before) => before,
        Err(failure) => {
            // The node cannot tell this from a missing image and goes on to pull.
            protocol.stop().await;
            return Err(failure.into());
        }
    };
    if when == PullWhen::Missing && inspected.success() {
        protocol.finish().await;
        let held = before.ok_or_else(|| contradiction(Stage::Inspect))?;
        if !held.suits(job.request.platform) {
            return Ok(None);
        }
        let held = expected(&job.request, held, Stage::Inspect)?;
        return Ok(Some(Outcome::Present(held)));
    }

    if local.is_some() {
        let possible = step(
            &mut protocol,
            Stage::Pull,
            Some(ANSWER_LIMIT),
            &mut transfer,
            progress,
            cancel.as_mut(),
        )
        .await?;
        if !possible.success() {
            protocol.finish().await;
            return Err(not_named(&possible, FailureKind::NodeSetup, Stage::Pull).into());
        }
    }

    if hang_up.is_some_and(|hang_up| hang_up.before.is_some()) && !protocol.is_found() {
        protocol.stage(Stage::Pull);
        protocol.leave().await?;
        let detail = "the pull that went on by itself is gone: the node was restarted, or ended it; it begins again";
        return Err(Failure::new(FailureKind::ConnectionLost, Stage::Pull, detail).into());
    }
    let left = job.timeout.map(|limit| {
        let limit = transfer.visit.left_of(limit);
        limit.saturating_sub(protocol.waited())
    });
    let pulled = step(
        &mut protocol,
        Stage::Pull,
        left,
        &mut transfer,
        progress,
        cancel.as_mut(),
    )
    .await?;
    if !pulled.success() {
        protocol.finish().await;
        runtime.read_pull(asked.image, &pulled)?;
        let detail = "the pull failed, and the runtime did not say why";
        return Err(Failure::new(FailureKind::Unknown, Stage::Pull, detail).into());
    }
    if local.is_some() {
        let named = step(
            &mut protocol,
            Stage::Verify,
            Some(ANSWER_LIMIT),
            &mut transfer,
            progress,
            cancel.as_mut(),
        )
        .await?;
        if !named.success() {
            protocol.finish().await;
            // A pull that did not bring the image may say why.
            runtime.read_pull(asked.image, &pulled)?;
            if asks_registry(job) {
                runtime.read_pull(image, &named).map_err(|mut failure| {
                    let kind = runtime.kind();
                    failure.detail.insert_str(
                        0,
                        &format!("the layers came through SSH, but {kind} asks the registry for a name by digest: "),
                    );
                    failure
                })?;
            }
            return Err(not_named(&named, FailureKind::Unknown, Stage::Verify).into());
        }
    }

    let verified = step(
        &mut protocol,
        Stage::Verify,
        Some(ANSWER_LIMIT),
        &mut transfer,
        progress,
        cancel,
    )
    .await?;
    protocol.finish().await;
    runtime.read_pull(asked.image, &pulled)?;
    let held = runtime
        .read_inspect(image, &verified, Stage::Verify)?
        .ok_or_else(|| {
            Failure::new(
                FailureKind::Unknown,
                Stage::Verify,
                "the runtime said it pulled but does not hold it",
            )
        })?;
    let held = expected(&job.request, held, Stage::Verify)?;
    transfer.succeeded();
    let unchanged = before.is_some_and(|before| {
        (before.digest.is_some() || before.image_id.is_some())
            && before.digest == held.digest
            && before.image_id == held.image_id
    });
    Ok(Some(match unchanged {
        true => Outcome::Present(held),
        false => Outcome::Pulled(held),
    }))
}

/// Ends a pull that goes on by itself, and waits until the node has cleaned up.
///
/// # Errors
/// A [`Failure`] at stage start or pull, after which the pull may still go on.
pub async fn cancel<S: Session>(
    session: &mut S,
    node: &Node,
    job: &PullJob<'_>,
) -> Result<(), Failure> {
    let request = Request::cancel(job, node);
    let never = pin!(std::future::pending());
    let started = Conversation::start(session, node, &request, Stage::Pull, never).await;
    match started {
        Ok(mut protocol) => match protocol.stop().await {
            true => Ok(()),
            false => {
                let detail = "the node did not answer when the pull was to be cancelled";
                Err(Failure::new(
                    FailureKind::ConnectionLost,
                    Stage::Pull,
                    detail,
                ))
            }
        },
        Err(Interrupted::Failed(failure)) => Err(failure),
        Err(Interrupted::Cancelled | Interrupted::HungUp(_)) => Ok(()),
    }
}

/// The commands that give the image its own name.
fn naming<'a>(job: &PullJob<'a>, local: &LocalPull<'a>) -> Result<[NodeCommand<'a>; 3], Failure> {
    if asks_registry(job) && !local.may_ask_registry {
        let kind = job.runtime.kind();
        let detail = format!(
            "{kind} gives an image a name by digest only when it asks the registry: use --via ssh, or name the image by its tag"
        );
        return Err(Failure::new(FailureKind::NodeSetup, Stage::Pull, detail));
    }
    job.runtime.naming(&Naming {
        request: job.request,
        local: local.name,
    })
}

/// Whether the image gets its own name from the registry: by an ordinary pull of the digest, which finds all layers.
pub fn asks_registry(job: &PullJob<'_>) -> bool {
    job.request.image.digest().is_some() && !job.runtime.names_digests()
}

/// Why the image did not get its name.
fn not_named(output: &CommandOutput, kind: FailureKind, stage: Stage) -> Failure {
    let said = text::truncate_bytes(output.stderr.trim_ascii(), conversation::WORDS_SHOWN);
    let detail = match said.is_empty() {
        true => {
            "the image could not be given its name, and the runtime did not say why".to_string()
        }
        false => format!("the image cannot be given its name: {said}"),
    };
    Failure::new(kind, stage, detail)
}

/// One command of a pull: its stage announced, and its output.
async fn step<C: Channel, F: Future<Output = ()> + Send>(
    protocol: &mut Conversation<C>,
    stage: Stage,
    limit: Option<Duration>,
    transfer: &mut Transfer<'_>,
    progress: &(dyn Fn(Progress) + Send + Sync),
    cancel: Pin<&mut F>,
) -> Result<CommandOutput, Interrupted> {
    progress(Progress::Stage(stage));
    protocol.stage(stage);
    let answer = protocol.watched_output(limit, transfer, cancel).await?;
    Ok(answer?)
}

/// Runs one command of a runtime that answers within a minute, whatever its status.
///
/// # Errors
/// Cancelled, or a [`Failure`] at stage start or `stage`.
pub async fn ask<S: Session>(
    session: &mut S,
    node: &Node,
    command: NodeCommand<'_>,
    stage: Stage,
    cancel: impl Future<Output = ()> + Send,
) -> Result<CommandOutput, Interrupted> {
    let request = Request::new(Action::Ask, vec![command]);
    let asked = one_command(session, node, &request, stage, Some(ANSWER_LIMIT), cancel);
    Ok(asked.await?.0)
}

/// Asks whether the node holds the image, and changes nothing.
///
/// # Errors
/// Cancelled, or a [`Failure`] at stage start or inspect, also when the image is for another platform than `platform`.
pub async fn check<S: Session>(
    session: &mut S,
    node: &Node,
    runtime: &dyn Runtime,
    image: &Image,
    platform: Option<&str>,
    cancel: impl Future<Output = ()> + Send,
) -> Result<Option<LocalImage>, Interrupted> {
    let command = runtime.inspect(image, node.endpoint.as_deref());
    let request = Request::new(Action::Ask, vec![command]);
    let asked = one_command(
        session,
        node,
        &request,
        Stage::Inspect,
        Some(ANSWER_LIMIT),
        cancel,
    );
    let (output, _) = asked.await?;
    let held = runtime.read_inspect(image, &output, Stage::Inspect)?;
    if let Some(held) = &held {
        suits(held, platform, Stage::Inspect)?;
    }
    Ok(held)
}

/// Runs the operator's command as it stands, without a shell in between and without input.
///
/// What it prints goes to `spool`, of each stream as much as the spool's share; the node drops the rest.
///
/// # Errors
/// Cancelled, or a [`Failure`] at stage start or run; a command that fails is not a failure here.
pub async fn run<S: Session>(
    session: &mut S,
    node: &Node,
    argv: &[String],
    spool: &Arc<Spool>,
    cancel: impl Future<Output = ()> + Send,
) -> Result<ExecOutput, Interrupted> {
    let command = NodeCommand {
        argv: argv.iter().map(String::as_str).collect(),
        environment: Vec::new(),
        secret: None,
        stdin: b"",
    };
    let request = Request::run(command, spool);
    let running = one_command(session, node, &request, Stage::Run, None, cancel);
    let (output, spooled) = running.await?;
    Ok(spooled.unwrap_or_else(|| output.into()))
}

/// A request of one command, from start to end: its output, or what the spool has of it.
async fn one_command<S: Session>(
    session: &mut S,
    node: &Node,
    request: &Request<'_>,
    stage: Stage,
    limit: Option<Duration>,
    cancel: impl Future<Output = ()> + Send,
) -> Result<(CommandOutput, Option<ExecOutput>), Interrupted> {
    let mut cancel = pin!(cancel);
    let mut protocol = Conversation::start(session, node, request, stage, cancel.as_mut()).await?;
    let output = protocol.output(limit, cancel.as_mut()).await??;
    protocol.finish().await;
    Ok((output, protocol.spooled))
}

/// The first runtime that answered, else the failure that tells most, with what the other clients said.
fn choose(
    asked: &[&dyn Runtime],
    answers: Vec<Result<RuntimeKind, Failure>>,
) -> Result<RuntimeKind, Failure> {
    let (mut failed, mut missing, mut unused) = (Vec::new(), Vec::new(), None);
    for (runtime, answer) in asked.iter().zip(answers) {
        match answer {
            Ok(kind) if runtime.is_fallback() && !failed.is_empty() => {
                unused = unused.or(Some(kind));
            }
            Ok(kind) => return Ok(kind),
            Err(failure) if failure.kind == FailureKind::RuntimeMissing => missing.push(failure),
            Err(failure) => failed.push((runtime.kind(), failure)),
        }
    }
    let is_refusal = |(_, failure): &(_, Failure)| failure.kind == FailureKind::Privilege;
    let telling = failed.iter().position(is_refusal).unwrap_or_default();
    if failed.is_empty() {
        let names: Vec<&str> = asked.iter().map(|r| r.kind().as_str()).collect();
        let names = match names.as_slice() {
            [first @ .., last] if !first.is_empty() => {
                format!("{} and {last}", first.join(", "))
            }
            all => all.join(""),
        };
        let mut detail = format!("looked for {names} and found none");
        // After "command not found": sockets without a client.
        let more = missing.iter().find_map(|f| f.detail.split_once("; "));
        if let Some((_, sockets)) = more {
            detail.push_str(&format!("; {sockets}"));
        }
        return Err(Failure::new(
            FailureKind::RuntimeMissing,
            Stage::Probe,
            detail,
        ));
    }
    let (first, mut failure) = failed.remove(telling);
    if asked.len() > 1 {
        failure.detail = format!("{first} is here, but {}", failure.detail);
    }
    for (kind, other) in failed {
        let detail = truncate_bytes(other.detail.as_bytes(), OTHER_CLIENT);
        failure
            .detail
            .push_str(&format!("; {kind} is here, but {detail}"));
    }
    if let Some(kind) = unused {
        failure.detail.push_str(&format!(
            "; {kind} is here too, but is taken by itself only where no other client is installed: --runtime {kind} takes it"
        ));
    }
    Err(failure)
}

/// Refuses an image whose digest or platform is not the one that was asked for.
fn expected(
    request: &PullRequest<'_>,
    held: LocalImage,
    stage: Stage,
) -> Result<LocalImage, Failure> {
    suits(&held, request.platform, stage)?;
    match request.image.digest() {
        Some(wanted) if held.digest.as_deref() != Some(wanted) => Err(Failure::new(
            FailureKind::Corrupt,
            stage,
            format!(
                "wanted {wanted}, but the runtime holds {}",
                held.digest
                    .as_deref()
                    .unwrap_or("an image without a digest")
            ),
        )),
        _ => Ok(held),
    }
}

/// Refuses an image for another platform than the one that was asked for.
fn suits(held: &LocalImage, wanted: Option<&str>, stage: Stage) -> Result<(), Failure> {
    let (true, Some(wanted), Some(platform)) = (!held.suits(wanted), wanted, &held.platform) else {
        return Ok(());
    };
    Err(Failure::new(
        FailureKind::Platform,
        stage,
        format!("asked for {wanted}, but the image on the node is for {platform}"),
    ))
}

fn no_answer(stage: Stage) -> Failure {
    Failure::new(
        FailureKind::RuntimeDown,
        stage,
        format!("did not answer within {} s", ANSWER_LIMIT.as_secs()),
    )
}

fn too_long(limit: Duration) -> Failure {
    Failure::new(
        FailureKind::TimedOut,
        Stage::Pull,
        format!(
            "the pull was not done within {} and was ended",
            humantime::format_duration(limit)
        ),
    )
}

fn waited_too_long(limit: Option<Duration>) -> Failure {
    let origin = match limit {
        Some(_) => "--pull-timeout, which counts the wait",
        None => "the limit for this wait without --pull-timeout",
    };
    Failure::new(
        FailureKind::TimedOut,
        Stage::Inspect,
        format!(
            "waited {} for another pull of the same image on this node ({origin}), which is still running",
            humantime::format_duration(limit.unwrap_or(TURN_LIMIT))
        ),
    )
}

fn contradiction(stage: Stage) -> Failure {
    Failure::new(
        FailureKind::Unknown,
        stage,
        "the runtime said that it holds the image, but its answer does not show it",
    )
}
