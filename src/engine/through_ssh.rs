//! Pulls that come through the connection to the node, from the registry inside prepull.

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use super::attempt::{ImageAttempt, LocalPlace, Missed, refuse_changed_key};
use super::context::RunContext;
use crate::model::{Failure, FailureKind, Outcome, Stage};
use crate::ports::{ImageReader, NodeStream, Session};

/// What a visit to a node knows of the way through its connection.
#[derive(Default)]
pub(super) enum Tunnel {
    #[default]
    NotAsked,
    Open(OpenTunnel),
    Refused(Failure),
}

pub(super) struct OpenTunnel {
    pub(super) port: u16,
    pub(super) reader: Arc<dyn ImageReader>,
    serving: JoinHandle<()>,
}

impl Drop for OpenTunnel {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// The attempt through the connection: its outcome, and the digest that was served.
pub(super) async fn pull<T, S: Session>(
    attempt: &ImageAttempt<'_, T>,
    session: &mut S,
    tunnel: &mut Tunnel,
) -> Result<(Outcome, String), Missed> {
    let context = attempt.context;
    let Some(server) = context.images else {
        let detail = "prepull serves no images in this run";
        return Err(Failure::new(FailureKind::Internal, Stage::Pull, detail).into());
    };
    refuse_changed_key(session)?;
    let resolving = context.unless_cancelled(server.image(attempt.item)).await;
    let served = resolving
        .map_err(Missed::Interrupted)?
        .map_err(Missed::Impossible)?;
    let opened = opened(context, session, tunnel).await?;
    let reader = &opened.reader;
    let before = reader.requests();
    let place = LocalPlace {
        port: opened.port,
        served: &served,
        login: reader.login(),
    };
    match attempt
        .pull_locally(session, &place, std::future::pending())
        .await?
    {
        Ok(outcome) => Ok((outcome, served.digest)),
        Err(mut failure) => {
            if reader.requests() == before && tells_of_the_way(&failure) {
                if failure.kind != FailureKind::NodeSetup {
                    failure.detail =
                        format!("the runtime asked prepull for nothing: {}", failure.detail);
                }
                return Err(Missed::Impossible(failure));
            }
            if let Some(cause) = reader.failure() {
                failure.detail.push_str("; here: ");
                failure.detail.push_str(&cause);
            }
            Err(failure.into())
        }
    }
}

/// Whether a pull that asked for nothing failed because this way leads nowhere.
fn tells_of_the_way(failure: &Failure) -> bool {
    let is_another = matches!(
        failure.kind,
        FailureKind::ConnectionLost
            | FailureKind::TimedOut
            | FailureKind::Stalled
            | FailureKind::Internal
            | FailureKind::DiskFull
            | FailureKind::RuntimeDown
    );
    failure.stage == Stage::Pull && !is_another
}

/// The port on the node, asked for once a visit.
pub(super) async fn opened<'a, T, S: Session>(
    context: &RunContext<'_, T>,
    session: &mut S,
    tunnel: &'a mut Tunnel,
) -> Result<&'a OpenTunnel, Missed> {
    if let (Tunnel::NotAsked, Some(server)) = (&*tunnel, context.images) {
        let asking = context.unless_cancelled(session.forward_port()).await;
        *tunnel = match asking.map_err(Missed::Interrupted)? {
            Ok(port) => {
                let reader = server.admit();
                let serving = serve(port.connections, Arc::clone(&reader));
                Tunnel::Open(OpenTunnel {
                    port: port.port,
                    reader,
                    serving: tokio::spawn(serving),
                })
            }
            Err(failure) if failure.kind == FailureKind::NodeSetup => Tunnel::Refused(failure),
            Err(failure) => return Err(failure.into()),
        };
    }
    match tunnel {
        Tunnel::Open(open) => Ok(open),
        Tunnel::Refused(failure) => Err(Missed::Impossible(failure.clone())),
        Tunnel::NotAsked => {
            let detail = "no port was asked for";
            Err(Failure::new(FailureKind::Internal, Stage::Pull, detail).into())
        }
    }
}

/// Serves all that connects to the node's port, until no more can.
async fn serve(mut connections: mpsc::Receiver<Box<dyn NodeStream>>, reader: Arc<dyn ImageReader>) {
    let mut serving: JoinSet<()> = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = serving.join_next(), if !serving.is_empty() => {}
            connection = connections.recv() => match connection {
                Some(stream) => {
                    let answering: BoxFuture<'static, ()> = reader.serve(stream);
                    serving.spawn(answering);
                }
                None => return,
            },
        }
    }
}
