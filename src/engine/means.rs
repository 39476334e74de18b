//! What a visit to a node has for its pulls.

use tokio::sync::OwnedSemaphorePermit;

use super::through_ssh::Tunnel;

/// What a visit to a node has for its pulls.
pub(super) struct Means {
    /// The way through its connection.
    pub(super) tunnel: Tunnel,
    /// Its place among the nodes at work, until it waits for other nodes.
    pub(super) slot: Option<OwnedSemaphorePermit>,
}
