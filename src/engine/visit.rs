//! One visit to a node: connect, find out its runtime, try every item that is due, leave.

use futures::FutureExt;
use tokio::time::Instant;

use super::context::{RunContext, guarded};
use super::preflight;
use super::registries::Permit;
use super::state::NodeState;
use crate::model::{EventKind, Failure, FailureKind, Outcome, RegistryLogin, Stage, Work};
use crate::node::{self, BytesTransferred, Completion, Progress, PullJob, StallPolicy};
use crate::ports::{PullRequest, Session, Transport};

/// Tries every item of the node that is due, once. Whatever happens on the way, the state comes back.
pub(super) async fn visit<T: Transport>(
    context: &RunContext<'_, T>,
    mut state: NodeState,
) -> NodeState {
    let index = state.node;
    let began = Instant::now();
    let due = state.due_items(began);
    context.emit(EventKind::NodeStarted { node: index }).await;
    state.begin(&due, began);
    match open(context, &mut state).await {
        Ok(Completion::Done(session)) if !state.is_ready => {
            preflight::ask(context, &mut state, session, &due, began).await;
        }
        Ok(Completion::Done(session)) => work(context, &mut state, session, &due, began).await,
        Ok(Completion::Cancelled) => {
            for item in due {
                state.note_cancelled(item, began);
            }
        }
        Err(failure) => {
            for item in due {
                state
                    .record_attempt(context, item, Err(failure.clone()), began)
                    .await;
            }
        }
    }
    let done = state.next_due().is_none();
    context
        .emit(EventKind::NodeLeft { node: index, done })
        .await;
    state
}

/// Connects, and asks the node for its runtime where nobody named it.
async fn open<T: Transport>(
    context: &RunContext<'_, T>,
    state: &mut NodeState,
) -> Result<Completion<T::Session>, Failure> {
    let node = &context.plan.fleet.nodes()[state.node];
    let index = state.node;
    let progress = move |stage| {
        context.try_emit(EventKind::NodeStage {
            node: index,
            item: None,
            stage,
        });
    };
    // In a place of its own, which is given back once it is done: what a session holds all its life should be small.
    let connecting = Box::pin(context.transport.connect(node, &progress));
    let connecting = guarded(Stage::Connect, connecting);
    let mut session = tokio::select! {
        biased;
        () = context.cancelled() => return Ok(Completion::Cancelled),
        session = connecting => session?,
    };
    if state.runtime.is_none() && context.plan.work.needs_runtime() {
        progress(Stage::Probe);
        let probing = node::probe(&mut session, node, context.runtimes, context.cancelled());
        match guarded(Stage::Probe, probing).await {
            Ok(Completion::Done(runtime)) => {
                state.runtime = Some(runtime);
                context
                    .emit(EventKind::RuntimeFound {
                        node: index,
                        runtime,
                    })
                    .await;
            }
            Ok(Completion::Cancelled) => {
                session.close().await;
                return Ok(Completion::Cancelled);
            }
            Err(failure) => {
                session.close().await;
                return Err(failure);
            }
        }
    }
    Ok(Completion::Done(session))
}

/// Tries the due items one after the other over one connection.
async fn work<T: Transport>(
    context: &RunContext<'_, T>,
    state: &mut NodeState,
    mut session: T::Session,
    due: &[usize],
    mut began: Instant,
) {
    let mut no_root: Option<Failure> = None;
    for &item in due {
        if let Some(failure) = &no_root {
            state
                .record_attempt(context, item, Err(failure.clone()), began)
                .await;
            continue;
        }
        let Some(_place) = place(context, state.node, item).await else {
            state.note_cancelled(item, began);
            break;
        };
        // Another node may have learnt meanwhile that this registry wants a pause.
        state.postpone(context, Instant::now());
        if state.items[item].due > Instant::now() {
            continue;
        }
        let Some(login) = login(context, item).await else {
            state.note_cancelled(item, began);
            break;
        };
        if login.is_some() && session.host_key_changed() {
            let failure = Failure::new(
                FailureKind::HostKey,
                Stage::Pull,
                "the host key is another one than known_hosts has, so this host gets no registry login; \
                 --no-auth pulls with the node's own",
            );
            state
                .record_attempt(context, item, Err(failure), began)
                .await;
            continue;
        }
        match try_item(context, state, &mut session, item, login.as_ref()).await {
            Ok(Completion::Done(outcome)) => {
                state
                    .record_attempt(context, item, Ok(outcome), began)
                    .await
            }
            Ok(Completion::Cancelled) => {
                state.note_cancelled(item, began);
                break;
            }
            Err(mut failure) => {
                if failure.kind == FailureKind::RegistryAuth && !state.items[item].has_new_login {
                    state.items[item].has_new_login = tokio::select! {
                        biased;
                        () = context.cancelled() => false,
                        renewed = context.logins.is_renewed(item, login.as_ref(), &mut failure) => renewed,
                    };
                }
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
    session.close().await;
}

/// A place at the item's registry, where it pulls from one; nothing when the run is cancelled meanwhile.
async fn place<'a, T>(
    context: &'a RunContext<'_, T>,
    node: usize,
    item: usize,
) -> Option<Option<Permit<'a>>> {
    let work = &context.plan.work;
    let Some(image) = work.image(item).filter(|_| work.uses_registry()) else {
        return Some(None);
    };
    let mut entering = std::pin::pin!(context.registries.enter(image.registry()));
    if let Some(place) = entering.as_mut().now_or_never() {
        return Some(Some(place));
    }
    context.try_emit(EventKind::NodeStage {
        node,
        item: Some(item),
        stage: Stage::Queue,
    });
    tokio::select! {
        biased;
        () = context.cancelled() => None,
        place = entering => Some(Some(place)),
    }
}

/// The login to try the item with; nothing when the run is cancelled meanwhile.
async fn login<T>(context: &RunContext<'_, T>, item: usize) -> Option<Option<RegistryLogin>> {
    tokio::select! {
        biased;
        () = context.cancelled() => None,
        login = context.logins.of(item) => Some(login),
    }
}

/// One attempt at one item.
async fn try_item<T: Transport>(
    context: &RunContext<'_, T>,
    state: &NodeState,
    session: &mut T::Session,
    item: usize,
    login: Option<&RegistryLogin>,
) -> Result<Completion<Outcome>, Failure> {
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
            begins(stage);
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
            let job = PullJob {
                runtime: context.runtime(state.runtime)?,
                layers: state.platform.as_ref().and_then(|(os, architecture)| {
                    let manifests = context.plan.contents.get(item)?.as_ref()?;
                    let manifest =
                        preflight::manifest_of(context.plan, manifests, os, architecture)?;
                    Some(manifest.layers.as_slice())
                }),
                request: PullRequest {
                    image: &images[item].image,
                    endpoint: node.endpoint.as_deref(),
                    platform: policy.platform.as_deref(),
                    login,
                },
                when: policy.pull,
                timeout: policy
                    .pull_timeout
                    .map(|limit| state.items[item].left_of(limit)),
                patience: StallPolicy {
                    stall: policy.stall_timeout,
                    min_rate: policy.min_rate,
                    unseen: policy
                        .unseen_timeout
                        .map(|limit| state.items[item].left_of(limit)),
                },
                arrived: &transfer_stats.layers,
                pull_token: &context.plan.pull_token,
                lease: policy.lease,
                disk_credentials: policy.disk_credentials,
            };
            let pulling = node::pull(session, node, &job, &progress, cancel);
            let ended = guarded(Stage::Pull, pulling).await;
            let now = Instant::now();
            let length = match &ended {
                Err(failure) if failure.kind == FailureKind::Stalled => {
                    transfer_stats.abandon(now, policy.stall_timeout)
                }
                Ok(_) | Err(_) => transfer_stats.end(now),
            };
            if let Some(length) = length {
                context.emit(stalled(length)).await;
            }
            match ended? {
                Completion::Done(outcome) => context
                    .pins
                    .compare(context.plan, index, item, outcome)
                    .map(Completion::Done),
                Completion::Cancelled => Ok(Completion::Cancelled),
            }
        }
        Work::Check(images) => {
            begins(Stage::Inspect);
            let runtime = context.runtime(state.runtime)?;
            let platform = context.plan.policy.platform.as_deref();
            let asking = node::check(session, node, runtime, &images[item], platform, cancel);
            let answer = guarded(Stage::Inspect, asking).await?;
            Ok(done(answer, |held| {
                held.map_or(Outcome::Missing, Outcome::Present)
            }))
        }
        Work::Probe(images) => {
            begins(Stage::Probe);
            let runtime = context.runtime(state.runtime)?;
            let asking = node::facts(session, node, runtime, images, cancel);
            let facts = guarded(Stage::Probe, asking).await?;
            Ok(done(facts, |facts| Outcome::Probed(Box::new(facts))))
        }
        Work::Exec(argv) => {
            begins(Stage::Run);
            let running = node::run(session, node, argv, &context.spool, cancel);
            Ok(done(guarded(Stage::Run, running).await?, Outcome::Ran))
        }
    }
}

fn done<A, B>(ended: Completion<A>, turn: impl FnOnce(A) -> B) -> Completion<B> {
    match ended {
        Completion::Done(value) => Completion::Done(turn(value)),
        Completion::Cancelled => Completion::Cancelled,
    }
}
