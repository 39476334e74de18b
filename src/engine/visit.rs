//! One visit to a node: connect, find out its runtime, try every item that is due, leave.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::TryFutureExt;
use tokio::time::Instant;

use super::attempt::ImageAttempt;
use super::context::{RunContext, guarded};
use super::means::Means;
use super::pull_job::PullParts;
use super::registries::Permit;
use super::revisit;
use super::state::NodeState;
use super::through_ssh::Tunnel;
use super::{forecast, keep, preflight, ways};
use crate::model::{
    Delivery, EventKind, Failure, FailureKind, Outcome, RegistryLogin, Stage, Work,
};
use crate::node::{self, BytesTransferred, HangUp, Interrupted, Progress};
use crate::ports::{Session, Transport};

/// When a visit that gave its connection away, for it had to wait for a registry, is made again.
const GAVE_WAY: Duration = Duration::from_secs(5);

/// Tries every item of the node that is due, once. Whatever happens on the way, the state comes back.
pub(super) async fn visit<T: Transport>(
    context: &RunContext<'_, T>,
    mut state: NodeState,
) -> NodeState {
    let index = state.node;
    // Where the run is cancelled meanwhile, so is what follows.
    let slot = context.slot().await.ok().flatten();
    let mut began = Instant::now();
    let due = state.due_items(began);
    let going = state.unwatched.take();
    match going {
        Some(unwatched) if context.is_cancelled() => {
            // In a place of its own, as it is rare.
            Box::pin(revisit::cancel(context, &mut state, unwatched)).await;
            return left(context, state).await;
        }
        Some(unwatched) => began = unwatched.began,
        None => context.emit(EventKind::NodeStarted { node: index }).await,
    }
    state.begin(&due, began);
    let kept = going.and_then(|unwatched| revisit::registry(context, unwatched.item));
    let kept = kept.map(|registry| context.registries.resume(registry));
    match open(context, &mut state, going.is_some()).await {
        Ok(session) if !state.is_ready => {
            preflight::ask(context, &mut state, session, &due, began).await;
        }
        Ok(session) => {
            let tunnel = Tunnel::default();
            let engines = BTreeMap::new();
            let means = Means {
                tunnel,
                slot,
                engines,
            };
            work(context, &mut state, session, &due, means, began, kept).await;
        }
        Err(Interrupted::Cancelled | Interrupted::HungUp(_)) => {
            if let Some(unwatched) = going {
                Box::pin(revisit::cancel(context, &mut state, unwatched)).await;
            }
            let others = |item: &usize| going.is_none_or(|unwatched| unwatched.item != *item);
            for item in due.into_iter().filter(others) {
                state.note_cancelled(item, began);
            }
        }
        Err(Interrupted::Failed(failure)) => {
            for item in due {
                let failure = match going {
                    Some(unwatched) if unwatched.item == item => revisit::missed(&failure),
                    _ => failure.clone(),
                };
                state
                    .record_attempt(context, item, Err(failure), began)
                    .await;
            }
        }
    }
    left(context, state).await
}

/// Ends the visit, and tells so unless the node keeps its place for a pull that goes on by itself.
async fn left<T>(context: &RunContext<'_, T>, state: NodeState) -> NodeState {
    context.connections.settle(&state.claims);
    if state.unwatched.is_none() {
        let done = state.next_due().is_none();
        let node = state.node;
        context.emit(EventKind::NodeLeft { node, done }).await;
    }
    state
}

/// Connects, and asks the node for its runtime where none was named.
async fn open<T: Transport>(
    context: &RunContext<'_, T>,
    state: &mut NodeState,
    is_revisit: bool,
) -> Result<T::Session, Interrupted> {
    let node = &context.plan.fleet.nodes()[state.node];
    let index = state.node;
    let progress = move |stage| {
        // What a node does that is visited again is to pull.
        if is_revisit {
            return;
        }
        context.try_emit(EventKind::NodeStage {
            node: index,
            item: None,
            stage,
        });
    };
    // In a place of its own, which is given back once it is done: what a session holds all its life should be small.
    let connecting = Box::pin(context.transport.connect(node, &progress));
    let connecting = guarded(Stage::Connect, connecting.map_err(Interrupted::from));
    let mut session = context.unless_cancelled(connecting).await??;
    if state.runtime.is_none() && context.plan.work.needs_runtime() {
        progress(Stage::Probe);
        let cancel = context.cancelled();
        let probing = node::probe(&mut session, node, context.runtimes, cancel);
        match guarded(Stage::Probe, probing).await {
            Ok(runtime) => {
                state.runtime = Some(runtime);
                let node = index;
                let fact = EventKind::RuntimeFound { node, runtime };
                context.emit(fact).await;
            }
            Err(interrupted) => {
                session.close().await;
                return Err(interrupted);
            }
        }
    }
    Ok(session)
}

/// Tries the due items one after the other over one connection.
async fn work<T: Transport>(
    context: &RunContext<'_, T>,
    state: &mut NodeState,
    mut session: T::Session,
    due: &[usize],
    mut means: Means,
    mut began: Instant,
    mut kept: Option<Permit<'_>>,
) {
    let mut no_root: Option<Failure> = None;
    for &item in due {
        let result = match &no_root {
            Some(failure) => Err(failure.clone().into()),
            None => {
                let permit = kept.take();
                attempt(context, state, &mut session, item, &mut means, permit).await
            }
        };
        match result {
            Ok(None) if state.claims.load(Ordering::Relaxed) > 0 => break,
            Ok(None) => continue,
            Ok(Some(outcome)) => {
                state
                    .record_attempt(context, item, Ok(outcome), began)
                    .await;
            }
            Err(Interrupted::Cancelled) => {
                state.note_cancelled(item, began);
                break;
            }
            Err(Interrupted::HungUp(standing)) => {
                let node = state.node;
                let visit_in = state.leave_alone(&context.plan.policy, item, began, *standing);
                let fact = EventKind::LeftAlone {
                    node,
                    item,
                    visit_in,
                };
                context.emit(fact).await;
                break;
            }
            Err(Interrupted::Failed(failure)) => {
                let is_over = matches!(
                    failure.kind,
                    FailureKind::ConnectionLost | FailureKind::Internal
                );
                // The same for every item, and a wrong password tried once for each would lock the account.
                if failure.kind == FailureKind::Privilege && failure.stage == Stage::Start {
                    no_root = Some(failure.clone());
                }
                state
                    .record_attempt(context, item, Err(failure), began)
                    .await;
                if is_over {
                    // The other items cost no attempt: the next visit takes them up at once.
                    break;
                }
            }
        }
        began = Instant::now();
    }
    leave(context, state.node, session, means.tunnel).await;
}

/// Ends the connection, but not before the node's relay has ended: others may need it.
async fn leave<T: Transport>(
    context: &RunContext<'_, T>,
    node: usize,
    session: T::Session,
    tunnel: Tunnel,
) {
    match context
        .hub
        .as_ref()
        .filter(|hub| hub.joined(node).is_some())
    {
        Some(hub) => {
            hub.completed(node);
            hub.after(node, async move {
                drop(tunnel);
                session.close().await;
            });
        }
        None => session.close().await,
    }
}

/// Tries one item, once its registry lets it; `None` where it has to wait for a pause.
async fn attempt<T: Transport>(
    context: &RunContext<'_, T>,
    state: &mut NodeState,
    session: &mut T::Session,
    item: usize,
    means: &mut Means,
    kept: Option<Permit<'_>>,
) -> Result<Option<Outcome>, Interrupted> {
    let is_going = kept.is_some();
    let permit = match kept {
        Some(kept) => Some(kept),
        // Where nodes pass images on, few pull from a registry: they wait for their place when they do.
        None if context.plan.policy.fan_out.is_some() => None,
        None => match permit(context, state, item).await? {
            Some(permit) => permit,
            None => {
                state.items[item].due = Instant::now() + GAVE_WAY;
                return Ok(None);
            }
        },
    };
    // Another node may have learnt meanwhile that this registry wants a pause.
    state.postpone(context, Instant::now());
    if state.items[item].due > Instant::now() && !is_going {
        return Ok(None);
    }
    let login = match context.unless_cancelled(context.logins.of(item)).await {
        Err(cancelled) if is_going => {
            // The pull does not know, and ends with its lease where it cannot be told.
            let _ = revisit::cancel_over(context, state, session, item).await;
            return Err(cancelled);
        }
        login => login?,
    };
    if login.is_some() && session.host_key_changed() {
        let failure = Failure::new(
            FailureKind::HostKey,
            Stage::Pull,
            "the host key is another one than known_hosts has, so this host gets no registry login; \
             --no-auth pulls with the node's own",
        );
        return Err(failure.into());
    }
    let tried = try_item(context, state, session, item, login.as_ref(), means).await;
    let is_refused = |failure: &Failure| failure.kind == FailureKind::RegistryAuth;
    if let (Err(Interrupted::HungUp(_)), Some(permit)) = (&tried, permit) {
        permit.keep();
    }
    match tried {
        Err(Interrupted::Failed(mut failure))
            if is_refused(&failure) && !state.items[item].has_new_login =>
        {
            let renewing = (context.logins).is_renewed(item, login.as_ref(), &mut failure);
            let is_renewed = context.unless_cancelled(renewing).await;
            state.items[item].has_new_login = is_renewed.unwrap_or(false);
            Err(failure.into())
        }
        result => {
            let (outcome, delivery) = result?;
            state.items[item].delivery = delivery;
            let place = (state.node, item);
            state.items[item].kept =
                keep::keep(context, session, place, state.runtime, &outcome).await;
            Ok(Some(outcome))
        }
    }
}

/// A place at the item's registry, where it pulls from one; `None` where the connection is needed for a pull that has
/// one.
async fn permit<'a, T>(
    context: &'a RunContext<'_, T>,
    state: &NodeState,
    item: usize,
) -> Result<Option<Option<Permit<'a>>>, Interrupted> {
    tokio::select! {
        biased;
        permit = context.permit(state.node, item) => permit.map(Some),
        () = context.connections.needed_for_visit(&state.claims) => Ok(None),
    }
}

/// One attempt at one item.
async fn try_item<T: Transport>(
    context: &RunContext<'_, T>,
    state: &NodeState,
    session: &mut T::Session,
    item: usize,
    login: Option<&RegistryLogin>,
    means: &mut Means,
) -> Result<(Outcome, Option<Delivery>), Interrupted> {
    let node = &context.plan.fleet.nodes()[state.node];
    let index = state.node;
    let begins = move |stage| {
        context.try_emit(EventKind::NodeStage {
            node: index,
            item: Some(item),
            stage,
        });
    };
    let transfer_stats = &state.items[item].transfer_stats;
    let before = state.items[item].standing;
    let stalled = |length| EventKind::Stalled {
        node: index,
        item,
        length,
    };
    let progress = |progress| match progress {
        Progress::Stage(stage) => {
            if let Some(length) = transfer_stats.end(Instant::now()) {
                context.facts.note(stalled(length));
            }
            if stage == Stage::Pull {
                context.first_pull.send_if_modified(|began| {
                    let is_first = began.is_none();
                    began.get_or_insert_with(Instant::now);
                    is_first
                });
            }
            // A visit sees again what was shown before.
            if before.is_none() || stage == Stage::Verify {
                begins(stage);
            }
        }
        Progress::BytesTransferred(there) => {
            if let Some(length) = transfer_stats.progress(Instant::now(), there) {
                context.facts.note(stalled(length));
            }
            let BytesTransferred { bytes, total } = there;
            context.try_emit(EventKind::Progress {
                node: index,
                item,
                bytes,
                total,
            });
        }
    };
    let cancel = context.cancelled();
    match &context.plan.work {
        Work::Pull(images) => {
            let policy = &context.plan.policy;
            let is_wanted = || !context.is_cancelled() && context.connections.claim(&state.claims);
            let parts = PullParts {
                runtime: context.runtime(state.runtime)?,
                login,
                hang_up: context.connections.is_short.then_some(HangUp {
                    before,
                    is_wanted: &is_wanted,
                }),
            };
            let job = parts.job(context, state, item, &images[item].image);
            let attempt = ImageAttempt {
                context,
                node: index,
                item,
                job: &job,
                progress: &progress,
            };
            let ended = guarded(Stage::Pull, ways::pull(&attempt, session, means)).await;
            let now = Instant::now();
            let length = match &ended {
                Err(Interrupted::Failed(failure)) if failure.kind == FailureKind::Stalled => {
                    transfer_stats.abandon(now, policy.stall_timeout)
                }
                Ok(_) | Err(_) => transfer_stats.end(now),
            };
            if let Some(length) = length {
                context.emit(stalled(length)).await;
            }
            let (outcome, delivery) = ended?;
            let outcome = (context.pins).compare(context.plan, index, item, outcome)?;
            Ok((outcome, delivery))
        }
        Work::Check(images) => {
            begins(Stage::Inspect);
            let runtime = context.runtime(state.runtime)?;
            let platform = context.plan.policy.platform.as_deref();
            let asking = node::check(session, node, runtime, &images[item], platform, cancel);
            let held = guarded(Stage::Inspect, asking).await?;
            Ok((held.map_or(Outcome::Missing, Outcome::Present), None))
        }
        Work::Probe(images) => {
            begins(Stage::Probe);
            let runtime = context.runtime(state.runtime)?;
            let images: Vec<_> = images.iter().map(|one| one.image.clone()).collect();
            let asking = node::facts(session, node, runtime, &images, cancel);
            let mut facts = guarded(Stage::Probe, asking).await?;
            if context.plan.forecast {
                let asking = forecast::ask(context, session, node, runtime, &facts);
                facts.forecast = Some(guarded(Stage::Probe, asking).await?);
            }
            facts.obstacles = preflight::obstacles(context.plan, &facts);
            Ok((Outcome::Probed(Box::new(facts)), None))
        }
        Work::Exec(argv) => {
            begins(Stage::Run);
            let running = node::run(session, node, argv, &context.spool, cancel);
            let output = guarded(Stage::Run, running).await?;
            Ok((Outcome::Ran(output), None))
        }
    }
}
