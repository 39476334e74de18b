//! Pulls that come through the connection to the node, from the registry inside prepull, and what is done where they
//! cannot.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use super::context::RunContext;
use crate::model::{
    Delivery, Failure, FailureKind, Image, LocalImage, Outcome, PullVia, PullWhen, Stage, Via,
};
use crate::node::{self, Interrupted, Layers, LocalPull, Progress, PullJob};
use crate::ports::{ImageReader, NodeStream, PullRequest, Session};

/// How long docker may take to ask a registry for the digest of an image that it holds already.
const DIGEST_LIMIT: Duration = Duration::from_secs(60);

/// What a visit to a node knows of the way through its connection.
#[derive(Default)]
pub(super) enum Tunnel {
    #[default]
    NotAsked,
    Open(OpenTunnel),
    Refused(Failure),
}

pub(super) struct OpenTunnel {
    port: u16,
    reader: Arc<dyn ImageReader>,
    serving: JoinHandle<()>,
}

impl Drop for OpenTunnel {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Why an image did not come through the connection.
enum Missed {
    /// It cannot: nothing of it was sent.
    Impossible(Failure),
    Interrupted(Interrupted),
}

impl From<Failure> for Missed {
    fn from(failure: Failure) -> Self {
        Self::Interrupted(failure.into())
    }
}

/// One attempt at one image, through the connection where that was asked for.
pub(super) async fn pull<T, S: Session>(
    context: &RunContext<'_, T>,
    session: &mut S,
    node: usize,
    item: usize,
    job: &PullJob<'_>,
    tunnel: &mut Tunnel,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<(Outcome, Option<Delivery>), Interrupted> {
    let described = &context.plan.fleet.nodes()[node];
    let wanted = context.plan.policy.via;
    if wanted == PullVia::Registry {
        let pulling = node::pull(session, described, job, progress, context.cancelled());
        return Ok((pulling.await?, None));
    }
    let missed = match through(context, session, node, item, job, tunnel, progress).await {
        Ok((Outcome::Pulled(held), digest)) => {
            let served = (held, digest.as_str());
            return completed(context, session, node, job, wanted, served, progress).await;
        }
        Ok((outcome, _)) => return Ok((outcome, None)),
        Err(Missed::Interrupted(interrupted)) => return Err(interrupted),
        Err(Missed::Impossible(failure)) => failure,
    };
    if wanted == PullVia::SshOnly {
        return Err(missed.into());
    }
    let pulling = node::pull(session, described, job, progress, context.cancelled());
    let outcome = pulling.await.map_err(|interrupted| match interrupted {
        Interrupted::Failed(mut failure) => {
            failure.detail.push_str(&format!(
                "; before, it did not come through SSH: {}",
                missed.detail
            ));
            failure.into()
        }
        cancelled @ Interrupted::Cancelled => cancelled,
    })?;
    let delivery = matches!(outcome, Outcome::Pulled(_)).then(|| Delivery {
        via: Via::Registry,
        note: Some(missed.detail),
    });
    Ok((outcome, delivery))
}

/// The attempt through the connection: its outcome, and the digest that was served.
async fn through<T, S: Session>(
    context: &RunContext<'_, T>,
    session: &mut S,
    node: usize,
    item: usize,
    job: &PullJob<'_>,
    tunnel: &mut Tunnel,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<(Outcome, String), Missed> {
    let Some(server) = context.images else {
        let detail = "prepull serves no images in this run";
        return Err(Failure::new(FailureKind::Internal, Stage::Pull, detail).into());
    };
    // Its layers may be as private as a login.
    if session.host_key_changed() {
        let failure = Failure::new(
            FailureKind::HostKey,
            Stage::Pull,
            "the host key is another one than known_hosts has, so this host gets no image through SSH",
        );
        return Err(failure.into());
    }
    let resolving = context.unless_cancelled(server.image(item)).await;
    let served = resolving
        .map_err(Missed::Interrupted)?
        .map_err(Missed::Impossible)?;
    let opened = opened(context, session, tunnel).await?;
    let name = format!(
        "127.0.0.1:{}/{}@{}",
        opened.port, served.repository, served.digest
    );
    let name: Image = name.parse().map_err(|error| {
        let detail = format!("the image cannot be pulled through SSH: {error}");
        Missed::Impossible(Failure::new(FailureKind::NodeSetup, Stage::Pull, detail))
    })?;
    let before = opened.reader.requests();
    let local = LocalPull {
        name: &name,
        login: opened.reader.login(),
    };
    let described = &context.plan.fleet.nodes()[node];
    let cancel = context.cancelled();
    let pulling = node::pull_locally(session, described, job, &local, progress, cancel);
    match pulling.await {
        Ok(Outcome::Pulled(held)) => {
            differs(&held, &served.digest)?;
            Ok((Outcome::Pulled(held), served.digest))
        }
        Ok(outcome) => Ok((outcome, served.digest)),
        Err(Interrupted::Failed(mut failure)) => {
            if opened.reader.requests() == before && tells_of_the_way(&failure) {
                if failure.kind != FailureKind::NodeSetup {
                    failure.detail =
                        format!("the runtime asked prepull for nothing: {}", failure.detail);
                }
                return Err(Missed::Impossible(failure));
            }
            if let Some(cause) = opened.reader.failure() {
                failure.detail.push_str("; here: ");
                failure.detail.push_str(&cause);
            }
            Err(failure.into())
        }
        Err(cancelled) => Err(Missed::Interrupted(cancelled)),
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

fn differs(held: &LocalImage, served: &str) -> Result<(), Failure> {
    match held.digest.as_deref() {
        Some(digest) if digest != served => Err(Failure::new(
            FailureKind::Corrupt,
            Stage::Verify,
            format!("{served} was sent through SSH, but the runtime holds {digest}"),
        )),
        Some(_) | None => Ok(()),
    }
}

/// The port on the node, asked for once a visit.
async fn opened<'a, T, S: Session>(
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

/// What a pull through the connection comes to. Docker's own store keeps the digest only of what it asked the registry
/// for: it does so now, which brings no layer.
async fn completed<T, S: Session>(
    context: &RunContext<'_, T>,
    session: &mut S,
    node: usize,
    job: &PullJob<'_>,
    wanted: PullVia,
    (held, digest): (LocalImage, &str),
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<(Outcome, Option<Delivery>), Interrupted> {
    let delivered = |held, note| {
        let via = Via::Ssh;
        Ok((Outcome::Pulled(held), Some(Delivery { via, note })))
    };
    if held.digest.is_some() {
        return delivered(held, None);
    }
    let missing = "the runtime keeps no digest of it, so it is found by its tag alone";
    if wanted == PullVia::SshOnly {
        return delivered(held, Some(missing.to_string()));
    }
    let by_digest = format!("{}@{digest}", job.request.image.name());
    let Ok(image) = by_digest.parse::<Image>() else {
        return delivered(held, Some(missing.to_string()));
    };
    let (none, limit) = (Layers::default(), job.timeout.unwrap_or(DIGEST_LIMIT));
    let asking = PullJob {
        layers: None,
        request: PullRequest {
            image: &image,
            ..job.request
        },
        when: PullWhen::Always,
        timeout: Some(limit.min(DIGEST_LIMIT)),
        arrived: &none,
        ..*job
    };
    let described = &context.plan.fleet.nodes()[node];
    // Its bytes are none of this pull's.
    let stages = |what: Progress| match what {
        Progress::Stage(Stage::Verify) => progress(what),
        Progress::Stage(_) | Progress::BytesTransferred(_) => {}
    };
    let asked = node::pull(session, described, &asking, &stages, context.cancelled()).await;
    match asked {
        Ok(Outcome::Pulled(known) | Outcome::Present(known)) => {
            let digest = known.digest;
            delivered(LocalImage { digest, ..held }, None)
        }
        Err(Interrupted::Failed(failure)) if failure.kind != FailureKind::ConnectionLost => {
            let note = format!("{missing}; the registry gave none: {}", failure.detail);
            delivered(held, Some(note))
        }
        Ok(_) => delivered(held, Some(missing.to_string())),
        Err(interrupted) => Err(interrupted),
    }
}
