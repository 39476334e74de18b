//! Which images a node holds that others can get from it through a mirror: one node pulls first, and the others wait.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::PeerEngine;

/// So many nodes pull an image one after the other, at most, where none of them gets it.
pub(super) const FIRST_TRIES: u32 = 3;

/// Which images nodes hold that others can get them from, for each engine.
#[derive(Default)]
pub(super) struct FirstPulls(Mutex<BTreeMap<(usize, PeerEngine), Gate>>);

type Gate = Arc<tokio::sync::Mutex<Progress>>;

/// How far the first pull of an image is. Locked while it goes on.
#[derive(Default)]
pub(super) struct Progress {
    pub(super) is_held: bool,
    pub(super) failed: u32,
}

impl FirstPulls {
    pub(super) fn gate(&self, item: usize, engine: PeerEngine) -> Gate {
        // Nothing panics with the lock held.
        let mut gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(gates.entry((item, engine)).or_default())
    }
}
