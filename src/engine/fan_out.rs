//! Pulls from a relay on the node itself, which gets the image from other nodes or, at a root, from its source.

use super::attempt::{ImageAttempt, LocalPlace, Missed, refuse_changed_key};
use super::means::Means;
use super::through_ssh::opened;
use crate::fan_out;
use crate::model::{
    Failure, FailureKind, Outcome, PullVia, RegistryLogin, Secret, Stage, Via, basic,
};
use crate::ports::{ImageReader, Session};

/// The attempt through a relay: its outcome, the digest that was served, and where the relay got it.
pub(super) async fn pull<T, S: Session>(
    attempt: &ImageAttempt<'_, T>,
    session: &mut S,
    means: &mut Means,
) -> Result<(Outcome, String, Via), Missed> {
    let (context, node, item) = (attempt.context, attempt.node, attempt.item);
    let (Some(hub), Some(images)) = (&context.hub, context.images) else {
        return Err(Missed::Impossible(internal(
            "prepull has no relays in this run",
        )));
    };
    refuse_changed_key(session)?;
    let resolving = context.unless_cancelled(images.image(item)).await;
    resolving
        .map_err(Missed::Interrupted)?
        .map_err(Missed::Impossible)?;
    let joined = match hub.joined(node) {
        Some(joined) => joined,
        None => {
            let own = match context.plan.policy.via {
                PullVia::Registry | PullVia::DaemonSet => None,
                PullVia::Ssh | PullVia::SshOnly => {
                    let open = opened(context, session, &mut means.tunnel).await?;
                    Some(fan_out::Tunnel {
                        port: open.port,
                        authorization: authorization(open.reader.as_ref())?,
                    })
                }
            };
            let items = context.plan.work.items();
            // In a place of its own, which is given back once it is done.
            let joining = Box::pin(hub.join(node, session, images, items, own));
            let joining = context.unless_cancelled(joining).await;
            joining.map_err(Missed::Interrupted)?.map_err(missed)?
        }
    };
    let served = hub.served(node, item).map_err(Missed::Impossible)?;
    // Others may be connected to while this one waits for its parent.
    means.slot = None;
    let place = LocalPlace {
        port: joined.port,
        served: &served,
        login: &joined.login,
    };
    let outcome = attempt
        .pull_locally(session, &place, hub.ended(node))
        .await?
        .map_err(missed)?;
    let via = match (hub.is_root(node), context.plan.policy.via) {
        (false, _) => Via::Peers,
        (true, PullVia::Registry | PullVia::DaemonSet) => Via::Registry,
        (true, PullVia::Ssh | PullVia::SshOnly) => Via::Ssh,
    };
    Ok((outcome, served.digest, via))
}

/// What a failure on this way means: another way may work, unless it is the node or its connection that failed.
fn missed(failure: Failure) -> Missed {
    match failure.kind {
        FailureKind::ConnectionLost
        | FailureKind::TimedOut
        | FailureKind::DiskFull
        | FailureKind::RuntimeDown
        | FailureKind::Corrupt
        | FailureKind::Internal => failure.into(),
        _ => Missed::Impossible(failure),
    }
}

fn authorization(reader: &dyn ImageReader) -> Result<Secret, Missed> {
    match reader.login() {
        RegistryLogin::Password { username, password } => {
            let basic = basic(username, password.expose());
            let mut header = b"Basic ".to_vec();
            header.extend_from_slice(basic.expose());
            Ok(Secret::new(header))
        }
        RegistryLogin::IdentityToken { .. } | RegistryLogin::RegistryToken(_) => {
            Err(internal("prepull's own login is no password").into())
        }
    }
}

fn internal(detail: &str) -> Failure {
    Failure::new(FailureKind::Internal, Stage::Pull, detail)
}
