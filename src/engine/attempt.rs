//! One attempt at one image on one node: from its registry, or from a registry on the node itself.

use std::future::Future;
use std::sync::OnceLock;
use std::time::Duration;

use super::context::RunContext;
use crate::model::{
    Delivery, Failure, FailureKind, Image, LocalImage, Node, Outcome, PullVia, PullWhen,
    RegistryLogin, Stage, Via,
};
use crate::node::{self, Interrupted, Layers, LocalPull, Progress, PullJob};
use crate::ports::{PullRequest, ServedImage, Session};

/// How long docker may take to ask a registry for the digest of an image that it holds already.
const DIGEST_LIMIT: Duration = Duration::from_secs(60);

/// One attempt at one image on one node.
pub(super) struct ImageAttempt<'a, T> {
    pub(super) context: &'a RunContext<'a, T>,
    pub(super) node: usize,
    pub(super) item: usize,
    pub(super) job: &'a PullJob<'a>,
    pub(super) progress: &'a (dyn Fn(Progress) + Send + Sync),
}

/// A registry on the node's own 127.0.0.1.
pub(super) struct LocalPlace<'a> {
    pub(super) port: u16,
    pub(super) served: &'a ServedImage,
    pub(super) login: &'a RegistryLogin,
}

/// Why an image did not come in another way than from its registry.
pub(super) enum Missed {
    /// It cannot on this node: the next way is tried.
    Impossible(Failure),
    /// The attempt is over.
    Interrupted(Interrupted),
}

impl From<Failure> for Missed {
    fn from(failure: Failure) -> Self {
        Self::Interrupted(failure.into())
    }
}

impl<T> ImageAttempt<'_, T> {
    /// The ordinary pull.
    pub(super) async fn pull_from_registry<S: Session>(
        &self,
        session: &mut S,
    ) -> Result<Outcome, Interrupted> {
        let cancel = self.context.cancelled();
        node::pull(session, self.described(), self.job, self.progress, cancel).await
    }

    /// Whether the node is known to hold the image, so that nothing has to be fetched.
    pub(super) async fn is_present<S: Session>(
        &self,
        session: &mut S,
    ) -> Result<bool, Interrupted> {
        let job = self.job;
        if job.when == PullWhen::Always {
            return Ok(false);
        }
        let (image, platform) = (job.request.image, job.request.platform);
        let (node, cancel) = (self.described(), self.context.cancelled());
        match node::check(session, node, job.runtime, image, platform, cancel).await {
            Ok(held) => Ok(held.is_some()),
            // What is wrong shows again, and in full, when it is pulled.
            Err(Interrupted::Failed(failure)) if failure.kind != FailureKind::ConnectionLost => {
                Ok(false)
            }
            Err(interrupted) => Err(interrupted),
        }
    }

    /// The ordinary pull after another way was `missed`, which the delivery or the failure names.
    pub(super) async fn pull_after<S: Session>(
        &self,
        session: &mut S,
        missed: Failure,
        what: &str,
    ) -> Result<(Outcome, Option<Delivery>), Interrupted> {
        let pulling = self.pull_from_registry(session).await;
        let outcome = pulling.map_err(|interrupted| match interrupted {
            Interrupted::Failed(mut failure) => {
                let before = format!("; before, {what}: {}", missed.detail);
                failure.detail.push_str(&before);
                failure.into()
            }
            other => other,
        })?;
        let delivery = matches!(outcome, Outcome::Pulled(_)).then(|| Delivery {
            via: Via::Registry,
            note: Some(missed.detail),
        });
        Ok((outcome, delivery))
    }

    /// A pull from a registry on the node itself, which is given up once that is `gone`, and why. The outer error is not of that
    /// registry.
    pub(super) async fn pull_locally<S: Session>(
        &self,
        session: &mut S,
        place: &LocalPlace<'_>,
        gone: impl Future<Output = String> + Send,
    ) -> Result<Result<Outcome, Failure>, Missed> {
        let ServedImage { repository, digest } = place.served;
        let name = format!("127.0.0.1:{}/{repository}@{digest}", place.port);
        let name: Image = name.parse().map_err(|error| {
            let detail = format!("the image cannot be pulled from the node itself: {error}");
            Missed::Impossible(Failure::new(FailureKind::NodeSetup, Stage::Pull, detail))
        })?;
        let local = LocalPull {
            name: &name,
            login: place.login,
            may_ask_registry: self.context.plan.policy.via != PullVia::SshOnly,
        };
        let (node, cancelled) = (self.described(), self.context.cancelled());
        let why = OnceLock::new();
        let cancel = async {
            tokio::select! {
                () = cancelled => {}
                gone = gone => drop(why.set(gone)),
            }
        };
        let pulling = node::pull_locally(session, node, self.job, &local, self.progress, cancel);
        match pulling.await {
            Ok(Outcome::Pulled(mut held)) => {
                // That of an earlier pull, of another manifest with the same content.
                held.digest = held.digest.filter(|own| own == digest);
                Ok(Ok(Outcome::Pulled(held)))
            }
            Ok(outcome) => Ok(Ok(outcome)),
            Err(Interrupted::Failed(failure)) => Ok(Err(failure)),
            Err(Interrupted::Cancelled) if why.get().is_some() => {
                let why = why.get().map_or("", String::as_str);
                let detail = format!("what it was pulled from on the node ended meanwhile: {why}");
                let kind = FailureKind::NodeSetup;
                Ok(Err(Failure::new(kind, Stage::Pull, detail)))
            }
            Err(cancelled) => Err(Missed::Interrupted(cancelled)),
        }
    }

    /// What a pull from the node itself comes to. Docker's own store keeps the digest only of what it asked the registry
    /// for: it does so now, which brings no layer.
    pub(super) async fn named<S: Session>(
        &self,
        session: &mut S,
        held: LocalImage,
        digest: &str,
        via: Via,
    ) -> Result<(Outcome, Option<Delivery>), Interrupted> {
        let delivered = |held, note| Ok((Outcome::Pulled(held), Some(Delivery { via, note })));
        if held.digest.is_some() {
            let note = node::asks_registry(self.job).then(|| {
                let kind = self.job.runtime.kind();
                format!(
                    "{kind} asked the registry for its name by digest; no layer came from there"
                )
            });
            return delivered(held, note);
        }
        let missing = "the runtime keeps no digest of it, so it is found by its tag alone";
        let by_digest = format!("{}@{digest}", self.job.request.image.name());
        let Ok(image) = by_digest.parse::<Image>() else {
            return delivered(held, Some(missing.to_string()));
        };
        if self.context.plan.policy.via == PullVia::SshOnly {
            return delivered(held, Some(missing.to_string()));
        }
        let (none, limit) = (Layers::default(), self.job.timeout.unwrap_or(DIGEST_LIMIT));
        let asking = PullJob {
            layers: None,
            request: PullRequest {
                image: &image,
                ..self.job.request
            },
            when: PullWhen::Always,
            timeout: Some(limit.min(DIGEST_LIMIT)),
            arrived: &none,
            ..*self.job
        };
        // Its bytes are none of this pull's.
        let stages = |what: Progress| match what {
            Progress::Stage(Stage::Verify) => (self.progress)(what),
            Progress::Stage(_) | Progress::BytesTransferred(_) => {}
        };
        let cancel = self.context.cancelled();
        let asked = node::pull(session, self.described(), &asking, &stages, cancel).await;
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

    pub(super) fn described(&self) -> &Node {
        &self.context.plan.fleet.nodes()[self.node]
    }
}

/// A host that may be any gets no image: its layers may be as private as a login.
pub(super) fn refuse_changed_key<S: Session>(session: &S) -> Result<(), Failure> {
    match session.host_key_changed() {
        true => Err(Failure::new(
            FailureKind::HostKey,
            Stage::Pull,
            "the host key is another one than known_hosts has, so this host gets no image from prepull or other nodes",
        )),
        false => Ok(()),
    }
}
