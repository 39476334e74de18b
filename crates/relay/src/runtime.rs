//! The runtime's side: a registry on 127.0.0.1 that serves the run's images while they arrive.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use pull_through::{Arriving, BlobStream, Digest, PullThrough, Reference, Source, SourceError};
use tokio::net::TcpListener;
use tokio::time::{Duration, sleep};

use crate::image::Image;
use crate::shared::{Shared, locked};

/// Accepts connections of the node until the relay ends. Their number is limited by the registry.
pub(crate) async fn serve(listener: TcpListener, registry: PullThrough, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                let (registry, access) = (registry.clone(), Arc::clone(&shared.access));
                shared.spawn(async move {
                    // What goes wrong there is the client's.
                    let _ = registry.serve(stream, access).await;
                });
            }
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

/// An image as a source for that registry.
pub(crate) struct Spooled {
    pub(crate) image: Arc<Image>,
    pub(crate) shared: Arc<Shared>,
}

impl Source for Spooled {
    fn manifest<'a>(
        &'a self,
        reference: &'a Reference,
    ) -> BoxFuture<'a, Result<Bytes, SourceError>> {
        let found = match reference {
            Reference::Digest(digest) => locked(&self.image.manifests).get(digest).cloned(),
            Reference::Tag(_) => None,
        };
        let missing = || SourceError::permanent(format!("prepull sent no manifest {reference}"));
        Box::pin(std::future::ready(found.ok_or_else(missing)))
    }

    fn blob<'a>(
        &'a self,
        digest: &'a Digest,
        _from: u64,
    ) -> BoxFuture<'a, Result<BlobStream, SourceError>> {
        let error = SourceError::permanent(format!("prepull named no blob {digest}"));
        Box::pin(std::future::ready(Err(error)))
    }

    fn arriving(&self, digest: &Digest) -> Option<Arriving> {
        let blob = self.shared.blob(digest)?;
        blob.demand(&self.shared);
        Some(blob.reading(&self.shared))
    }
}
