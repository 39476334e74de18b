//! What all visits of a run share.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use super::facts::Facts;
use super::first_pulls::FirstPulls;
use super::logins::CurrentLogins;
use super::pins::Pins;
use super::registries::{Permit, Registries};
use super::unwatched::Connections;
use crate::fan_out::Hub;
use crate::model::{EventKind, Failure, FailureKind, Plan, RuntimeKind, Spool, Stage};
use crate::node::Interrupted;
use crate::ports::{ImageServer, Runtime};

/// What all visits of a run share.
pub(super) struct RunContext<'a, T> {
    pub(super) plan: &'a Plan,
    pub(super) transport: &'a T,
    pub(super) runtimes: &'a [&'a dyn Runtime],
    pub(super) facts: Facts,
    pub(super) began: Instant,
    /// Set once what runs is to be cancelled.
    pub(super) cancel: watch::Receiver<bool>,
    pub(super) registries: Registries,
    pub(super) connections: Connections,
    pub(super) logins: CurrentLogins<'a>,
    /// What nodes pull from through their connections.
    pub(super) images: Option<&'a dyn ImageServer>,
    /// The relays, where nodes pass images on to each other.
    pub(super) hub: Option<Hub>,
    /// Places for nodes that are connected to, or pull from a registry, where those that wait for others do not count.
    pub(super) slots: Option<Arc<Semaphore>>,
    /// What nodes with a mirror of their own wait for.
    pub(super) first_pulls: FirstPulls,
    pub(super) pins: Pins,
    /// What commands print.
    pub(super) spool: Arc<Spool>,
    /// When the first pull began that has yet to show whether it can work.
    pub(super) first_pull: watch::Sender<Option<Instant>>,
}

impl<'a, T> RunContext<'a, T> {
    pub(super) async fn emit(&self, fact: EventKind) {
        self.facts.emit(fact).await;
    }

    pub(super) fn try_emit(&self, fact: EventKind) {
        self.facts.try_emit(fact);
    }

    /// Whether what runs is to be cancelled.
    pub(super) fn is_cancelled(&self) -> bool {
        *self.cancel.borrow()
    }

    /// The code for a node's runtime.
    pub(super) fn runtime(&self, kind: Option<RuntimeKind>) -> Result<&'a dyn Runtime, Failure> {
        let known = |runtime: &&&dyn Runtime| Some(runtime.kind()) == kind;
        self.runtimes.iter().find(known).copied().ok_or_else(|| {
            let detail = "no code for this node's runtime";
            Failure::new(FailureKind::Internal, Stage::Probe, detail)
        })
    }

    /// A place for a node that is connected to or pulls from a registry; waits for one where nodes pass images on.
    pub(super) async fn slot(&self) -> Result<Option<OwnedSemaphorePermit>, Interrupted> {
        let Some(slots) = &self.slots else {
            return Ok(None);
        };
        // It is never closed.
        Ok(self
            .unless_cancelled(Arc::clone(slots).acquire_owned())
            .await?
            .ok())
    }

    /// A place at the item's registry, where it pulls from one.
    pub(super) async fn permit(
        &self,
        node: usize,
        item: usize,
    ) -> Result<Option<Permit<'_>>, Interrupted> {
        let work = &self.plan.work;
        let Some(image) = work.image(item).filter(|_| work.uses_registry()) else {
            return Ok(None);
        };
        let mut entering = std::pin::pin!(self.registries.enter(image.registry()));
        if let Some(permit) = entering.as_mut().now_or_never() {
            return Ok(Some(permit));
        }
        self.try_emit(EventKind::NodeStage {
            node,
            item: Some(item),
            stage: Stage::Queue,
        });
        self.unless_cancelled(entering).await.map(Some)
    }

    /// What comes of waiting, unless the run is cancelled first.
    pub(super) async fn unless_cancelled<V>(
        &self,
        future: impl Future<Output = V>,
    ) -> Result<V, Interrupted> {
        tokio::select! {
            biased;
            () = self.cancelled() => Err(Interrupted::Cancelled),
            value = future => Ok(value),
        }
    }

    /// Resolves once what runs is to be cancelled.
    pub(super) fn cancelled(&self) -> impl Future<Output = ()> + Send + use<T> {
        let mut cancel = self.cancel.clone();
        async move {
            if cancel.wait_for(|is_cancelled| *is_cancelled).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Turns a panic below into a failure of this one attempt, so that every other node goes on.
///
/// No async function: that would hold the future twice, and there is one for each node at work.
pub(super) fn guarded<V>(
    stage: Stage,
    future: impl Future<Output = Result<V, Interrupted>>,
) -> impl Future<Output = Result<V, Interrupted>> {
    AssertUnwindSafe(future).catch_unwind().map(move |result| {
        result.unwrap_or_else(|panic| Err(panicked(stage, panic.as_ref()).into()))
    })
}

fn panicked(stage: Stage, panic: &(dyn Any + Send)) -> Failure {
    let message = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("panic without a message");
    Failure::new(FailureKind::Internal, stage, message)
}
