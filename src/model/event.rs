//! The facts of a run: the only thing that reporters see.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::failure::{Failure, Stage};
use super::node::RuntimeKind;
use super::outcome::{FanOutTotals, Record, StopReason};

/// A numbered and timed fact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// From 1, without gaps.
    pub number: u64,
    /// Since the run started.
    pub at: Duration,
    /// What happened.
    pub fact: EventKind,
}

/// Something that happened. Nodes and items are indices into the plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum EventKind {
    /// A wave may start: nodes up to this count (exclusive) are let in.
    WaveStarted {
        /// From 1.
        wave: usize,
        /// How many nodes of the fleet may be at work from now on.
        nodes: usize,
    },
    /// Every node was asked whether it is ready to pull.
    Preflighted {
        /// Nodes that are.
        ready: usize,
        /// Nodes that are not.
        failed: usize,
    },
    /// A node takes a place in the window.
    NodeStarted {
        /// The node.
        node: usize,
    },
    /// A node that named no runtime was asked, and has this one.
    RuntimeFound {
        /// The node.
        node: usize,
        /// Its runtime.
        runtime: RuntimeKind,
    },
    /// What a node in the window does now.
    NodeStage {
        /// The node.
        node: usize,
        /// The item it is about; `None` while connecting or probing.
        item: Option<usize>,
        /// What is done.
        stage: Stage,
    },
    /// What a node pulls is arriving. Comes about once a second, may be left out, and is not recorded.
    Progress {
        /// The node.
        node: usize,
        /// The item.
        item: usize,
        /// How many compressed bytes of layers have arrived, without those of layers that were there before.
        bytes: u64,
        /// How many will have in the end, where that is known.
        #[serde(skip_serializing_if = "Option::is_none")]
        total: Option<u64>,
    },
    /// A pull goes on by itself: its connection is needed for other nodes. The node keeps its place in the window.
    LeftAlone {
        /// The node.
        node: usize,
        /// The item.
        item: usize,
        /// When it is visited next, from now.
        visit_in: Duration,
    },
    /// Of what a node pulls nothing arrived for this long, up to now. Comes once it is over, and only when it was long.
    Stalled {
        /// The node.
        node: usize,
        /// The item.
        item: usize,
        /// For how long.
        length: Duration,
    },
    /// All nodes leave a registry alone, from now on for this long.
    RegistryPaused {
        /// The registry.
        registry: String,
        /// For how long.
        length: Duration,
    },
    /// A try failed and another will follow.
    AttemptFailed {
        /// The node.
        node: usize,
        /// The item.
        item: usize,
        /// Which try, from 1.
        attempt: u32,
        /// Why.
        failure: Failure,
        /// The pause before the next try.
        retry_in: Duration,
    },
    /// An item has its outcome.
    Finished {
        /// The node.
        node: usize,
        /// The item.
        item: usize,
        /// Outcome and attempts.
        record: Arc<Record>,
    },
    /// A node gives its place in the window back: it is done, or waits for its next try.
    NodeLeft {
        /// The node.
        node: usize,
        /// Whether all its items have an outcome.
        done: bool,
    },
    /// With `--fan-out`: how the relays of the run are, whenever that changed, about every two seconds.
    FanOut {
        /// Up to now.
        totals: FanOutTotals,
    },
    /// With `--fan-out`: a node gets nothing from other nodes.
    FanOutFallback {
        /// The node.
        node: usize,
        /// The reason.
        why: String,
    },
    /// No further node is started.
    Stopping {
        /// Why.
        reason: StopReason,
    },
}

impl EventKind {
    /// The node that it is about, to be replaced by its number in another fleet.
    pub fn node_mut(&mut self) -> Option<&mut usize> {
        match self {
            Self::NodeStarted { node }
            | Self::RuntimeFound { node, .. }
            | Self::NodeStage { node, .. }
            | Self::Progress { node, .. }
            | Self::LeftAlone { node, .. }
            | Self::Stalled { node, .. }
            | Self::AttemptFailed { node, .. }
            | Self::Finished { node, .. }
            | Self::FanOutFallback { node, .. }
            | Self::NodeLeft { node, .. } => Some(node),
            Self::WaveStarted { .. }
            | Self::Preflighted { .. }
            | Self::RegistryPaused { .. }
            | Self::FanOut { .. }
            | Self::Stopping { .. } => None,
        }
    }

    /// Whether a reporter that lags behind may miss it, because another one follows soon.
    pub fn may_be_lost(&self) -> bool {
        matches!(self, Self::NodeStage { .. } | Self::Progress { .. })
    }
}
