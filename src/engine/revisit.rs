//! Cancels pulls that go on without a visit.

use std::time::Duration;

use tokio::time::timeout;

use super::context::RunContext;
use super::pull_job::PullParts;
use super::retry::is_out_of_reach;
use super::state::NodeState;
use super::unwatched::Unwatched;
use crate::model::{Failure, FailureKind, Image, Stage};
use crate::node;
use crate::ports::{Session, Transport};

/// How long all visits together may take that cancel what goes on without one. What they do not reach ends with its
/// lease.
pub(super) const CANCEL_LIMIT: Duration = Duration::from_secs(120);
/// How long one of them may take.
const CANCEL_VISIT_LIMIT: Duration = Duration::from_secs(30);

/// Cancels the pull of a node that nobody visits.
pub(super) async fn cancel<T: Transport>(
    context: &RunContext<'_, T>,
    state: &mut NodeState,
    unwatched: Unwatched,
) {
    let Unwatched { item, began, .. } = unwatched;
    let cancelling = timeout(CANCEL_VISIT_LIMIT, tell(context, state, item)).await;
    let late = || {
        let detail = format!("the node did not answer within {CANCEL_VISIT_LIMIT:?}");
        Err(Failure::new(FailureKind::TimedOut, Stage::Connect, detail))
    };
    match cancelling.unwrap_or_else(|_| late()) {
        Ok(()) => state.note_cancelled(item, began),
        Err(failure) => give_up(context, state, unwatched, &failure.detail).await,
    }
}

/// Notes that a pull could not be cancelled.
pub(super) async fn give_up<T>(
    context: &RunContext<'_, T>,
    state: &mut NodeState,
    unwatched: Unwatched,
    why: &str,
) {
    let lease = humantime::format_duration(context.plan.policy.lease);
    let detail = format!("its pull was not cancelled and ends by itself within {lease}: {why}");
    let failure = Failure::new(FailureKind::ConnectionLost, Stage::Pull, detail);
    let Unwatched { item, began, .. } = unwatched;
    state
        .record_attempt(context, item, Err(failure), began)
        .await;
}

/// What it means for a pull that goes on that its node could not be visited: as much as a connection that is lost.
pub(super) fn missed(failure: &Failure) -> Failure {
    if !is_out_of_reach(failure) {
        return failure.clone();
    }
    let detail = format!(
        "the pull goes on by itself, and its node could not be visited: {}",
        failure.detail
    );
    Failure::new(FailureKind::ConnectionLost, Stage::Pull, detail)
}

async fn tell<T: Transport>(
    context: &RunContext<'_, T>,
    state: &NodeState,
    item: usize,
) -> Result<(), Failure> {
    let described = &context.plan.fleet.nodes()[state.node];
    let mut session = context.transport.connect(described, &|_| {}).await?;
    let told = cancel_over(context, state, &mut session, item).await;
    session.close().await;
    told
}

/// Cancels the pull over a connection that is there.
pub(super) async fn cancel_over<T, S: Session>(
    context: &RunContext<'_, T>,
    state: &NodeState,
    session: &mut S,
    item: usize,
) -> Result<(), Failure> {
    let described = &context.plan.fleet.nodes()[state.node];
    let parts = PullParts {
        runtime: context.runtime(state.runtime)?,
        login: None,
        hang_up: None,
    };
    let Some(image) = context.plan.work.image(item) else {
        return Ok(());
    };
    let job = parts.job(context, state, item, image);
    node::cancel(session, described, &job).await
}

/// The registry whose place an item keeps.
pub(super) fn registry<'a, T>(context: &'a RunContext<'_, T>, item: usize) -> Option<&'a str> {
    context.plan.work.image(item).map(Image::registry)
}
