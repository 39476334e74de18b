//! The ways that an image can come to a node, in the order in which they are tried.

use super::attempt::{ImageAttempt, Missed};
use super::fan_out;
use super::means::Means;
use super::mirrors;
use super::through_ssh::{self, Tunnel};
use crate::model::{Delivery, Failure, Outcome, PullVia, Via};
use crate::node::Interrupted;
use crate::ports::Session;

type Ended = Result<(Outcome, Option<Delivery>), Interrupted>;

/// Pulls the image by the first way that works.
pub(super) async fn pull<T, S: Session>(
    attempt: &ImageAttempt<'_, T>,
    session: &mut S,
    means: &mut Means,
) -> Ended {
    let tunnel = &mut means.tunnel;
    if attempt.context.plan.policy.fan_out.is_none() {
        return pull_alone(attempt, session, tunnel, None).await;
    }
    // A node that holds it needs no relay.
    if attempt.is_present(session).await? {
        return pull_alone(attempt, session, tunnel, None).await;
    }
    if let Some(engine) = mirrors::engine(attempt, session, means).await? {
        return mirrors::pull(attempt, session, means, engine).await;
    }
    let mut pulled = fan_out::pull(attempt, session, means).await;
    let hub = attempt.context.hub.as_ref();
    if matches!(pulled, Err(Missed::Impossible(_)))
        && hub.is_some_and(|hub| hub.may_join_again(attempt.node))
    {
        // Its relay was killed.
        pulled = fan_out::pull(attempt, session, means).await;
    }
    match pulled {
        Ok((Outcome::Pulled(held), digest, via)) => {
            let (outcome, delivery) = attempt.named(session, held, &digest, via).await?;
            let fallback = hub.filter(|_| via != Via::Peers);
            let fallback = fallback.and_then(|hub| hub.fallback(attempt.node));
            let delivery = delivery.map(|delivery| Delivery {
                note: delivery.note.or(fallback),
                ..delivery
            });
            Ok((outcome, delivery))
        }
        Ok((outcome, _, _)) => Ok((outcome, None)),
        Err(Missed::Interrupted(interrupted)) => Err(interrupted),
        Err(Missed::Impossible(missed)) => {
            let context = attempt.context;
            if let Some(hub) = hub {
                hub.fell_back(attempt.node, missed.detail.clone());
            }
            if means.slot.is_none() {
                means.slot = context.slot().await?;
            }
            let _permit = context.permit(attempt.node, attempt.item).await?;
            pull_alone(attempt, session, &mut means.tunnel, Some(missed)).await
        }
    }
}

/// Without other nodes, from which it did not come because of what was `missed`.
async fn pull_alone<T, S: Session>(
    attempt: &ImageAttempt<'_, T>,
    session: &mut S,
    tunnel: &mut Tunnel,
    missed: Option<Failure>,
) -> Ended {
    let wanted = attempt.context.plan.policy.via;
    if wanted == PullVia::Registry {
        return match missed {
            None => Ok((attempt.pull_from_registry(session).await?, None)),
            Some(missed) => {
                let what = "it did not come from other nodes";
                attempt.pull_after(session, missed, what).await
            }
        };
    }
    let failure = match through_ssh::pull(attempt, session, tunnel).await {
        Ok((Outcome::Pulled(held), digest)) => {
            let (outcome, delivery) = attempt.named(session, held, &digest, Via::Ssh).await?;
            let delivery = delivery.map(|delivery| Delivery {
                note: delivery.note.or(missed.map(|missed| missed.detail)),
                ..delivery
            });
            return Ok((outcome, delivery));
        }
        Ok((outcome, _)) => return Ok((outcome, None)),
        Err(Missed::Interrupted(interrupted)) => return Err(interrupted),
        Err(Missed::Impossible(failure)) => failure,
    };
    if wanted == PullVia::SshOnly {
        return Err(failure.into());
    }
    let what = "it did not come through SSH";
    attempt.pull_after(session, failure, what).await
}
