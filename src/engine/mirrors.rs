//! Nodes whose runtime has a peer-to-peer mirror of its own: one of them pulls first, and the others get the image through
//! the mirror.

use std::sync::Arc;

use tokio::sync::OwnedMutexGuard;

use super::attempt::ImageAttempt;
use super::first_pulls::{FIRST_TRIES, Progress};
use super::means::Means;
use crate::fan_out;
use crate::model::{Delivery, EventKind, FailureKind, Outcome, PeerEngine, PullVia, Stage, Via};
use crate::node::Interrupted;
use crate::ports::Session;

/// The engine that this node's runtime gets the image through, if any; asked once a visit for each registry.
pub(super) async fn engine<T, S: Session>(
    attempt: &ImageAttempt<'_, T>,
    session: &mut S,
    means: &mut Means,
) -> Result<Option<PeerEngine>, Interrupted> {
    let (context, image) = (attempt.context, attempt.job.request.image);
    // Through SSH the registry need not be there for the node.
    if context.plan.policy.via != PullVia::Registry {
        return Ok(None);
    }
    let registry = image.registry().to_string();
    if let Some(known) = means.engines.get(&registry) {
        return Ok(*known);
    }
    let kind = attempt.job.runtime.kind();
    let (node, cancel) = (attempt.described(), context.cancelled());
    let engine = match fan_out::engine(session, node, kind, image, cancel).await {
        Ok(engine) => engine,
        // What is wrong shows again when it is pulled.
        Err(Interrupted::Failed(failure)) if failure.kind != FailureKind::ConnectionLost => None,
        Err(interrupted) => return Err(interrupted),
    };
    means.engines.insert(registry, engine);
    Ok(engine)
}

/// Pulls through the mirror, after another node has the image.
pub(super) async fn pull<T, S: Session>(
    attempt: &ImageAttempt<'_, T>,
    session: &mut S,
    means: &mut Means,
    engine: PeerEngine,
) -> Result<(Outcome, Option<Delivery>), Interrupted> {
    let context = attempt.context;
    let gate = context.first_pulls.gate(attempt.item, engine);
    let mut first: Option<OwnedMutexGuard<Progress>> = match Arc::clone(&gate).try_lock_owned() {
        Ok(progress) => Some(progress),
        Err(_) => {
            // Others may be connected to while this one waits.
            means.slot = None;
            context.try_emit(EventKind::NodeStage {
                node: attempt.node,
                item: Some(attempt.item),
                stage: Stage::Queue,
            });
            Some(context.unless_cancelled(gate.lock_owned()).await?)
        }
    };
    first = first.filter(|progress| !progress.is_held && progress.failed < FIRST_TRIES);
    if means.slot.is_none() {
        means.slot = context.slot().await?;
    }
    let _permit = context.permit(attempt.node, attempt.item).await?;
    let pulling = attempt.pull_from_registry(session).await;
    let is_first = first.is_some();
    if let Some(progress) = &mut first {
        match &pulling {
            Ok(_) => progress.is_held = true,
            Err(_) => progress.failed += 1,
        }
    }
    let outcome = pulling?;
    let (via, note) = match is_first {
        true => (
            Via::Registry,
            format!("the first node with {engine}, which passes it on"),
        ),
        false => (Via::Mirror, format!("the runtime pulls through {engine}")),
    };
    let note = Some(note);
    let delivery = matches!(outcome, Outcome::Pulled(_)).then_some(Delivery { via, note });
    Ok((outcome, delivery))
}
