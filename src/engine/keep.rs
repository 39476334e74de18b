//! Keeps what was pulled from the kubelet's garbage collection.

use super::context::{RunContext, guarded};
use crate::model::{KeepOutcome, KeptState, Outcome, RuntimeKind, Stage};
use crate::node::{self, Interrupted};
use crate::ports::{KeepRequest, Session};

/// Pins the image of an item that succeeded, where that is wanted. A pin that cannot be made is reported and fails
/// nothing: the image is there.
pub(super) async fn keep<T, S: Session>(
    context: &RunContext<'_, T>,
    session: &mut S,
    (node, item): (usize, usize),
    runtime: Option<RuntimeKind>,
    outcome: &Outcome,
) -> Option<KeepOutcome> {
    let until = context.plan.policy.keep?.label();
    if !matches!(outcome, Outcome::Pulled(_) | Outcome::Present(_)) {
        return None;
    }
    let node = &context.plan.fleet.nodes()[node];
    let runtime = context.runtime(runtime).ok()?;
    let request = KeepRequest {
        image: context.plan.work.image(item)?,
        until: &until,
        endpoint: node.endpoint.as_deref(),
    };
    let not_pinned = |why: String| KeepOutcome {
        state: KeptState::NotPinned,
        note: Some(why),
    };
    let Some(command) = runtime.keep(&request) else {
        return Some(not_pinned(format!("{} has no pins", runtime.kind())));
    };
    let asking = node::ask(session, node, command, Stage::Verify, context.cancelled());
    Some(match guarded(Stage::Verify, asking).await {
        Ok(output) => runtime.read_keep(&output),
        Err(Interrupted::Failed(failure)) => not_pinned(failure.to_string()),
        Err(Interrupted::Cancelled | Interrupted::HungUp(_)) => {
            not_pinned("the run was cancelled before".into())
        }
    })
}
