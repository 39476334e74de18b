//! What a visit to a node has for its pulls.

use std::collections::BTreeMap;

use tokio::sync::OwnedSemaphorePermit;

use super::through_ssh::Tunnel;
use crate::model::PeerEngine;

/// What a visit to a node has for its pulls.
pub(super) struct Means {
    /// The way through its connection.
    pub(super) tunnel: Tunnel,
    /// Its place among the nodes at work, until it waits for other nodes.
    pub(super) slot: Option<OwnedSemaphorePermit>,
    /// The peer-to-peer mirror that its runtime has for a registry, where that was asked.
    pub(super) engines: BTreeMap<String, Option<PeerEngine>>,
}
