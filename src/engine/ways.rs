//! The ways that an image can come to a node, in the order in which they are tried.

use super::attempt::{ImageAttempt, Missed};
use super::through_ssh::{self, Tunnel};
use crate::model::{Delivery, Outcome, PullVia, Via};
use crate::node::Interrupted;
use crate::ports::Session;

/// Pulls the image by the first way that works.
pub(super) async fn pull<T, S: Session>(
    attempt: &ImageAttempt<'_, T>,
    session: &mut S,
    tunnel: &mut Tunnel,
) -> Result<(Outcome, Option<Delivery>), Interrupted> {
    let wanted = attempt.context.plan.policy.via;
    if wanted == PullVia::Registry {
        return Ok((attempt.pull_from_registry(session).await?, None));
    }
    let missed = match through_ssh::pull(attempt, session, tunnel).await {
        Ok((Outcome::Pulled(held), digest)) => {
            return attempt.named(session, held, &digest, Via::Ssh).await;
        }
        Ok((outcome, _)) => return Ok((outcome, None)),
        Err(Missed::Interrupted(interrupted)) => return Err(interrupted),
        Err(Missed::Impossible(failure)) => failure,
    };
    if wanted == PullVia::SshOnly {
        return Err(missed.into());
    }
    let what = "it did not come through SSH";
    attempt.pull_after(session, missed, what).await
}
