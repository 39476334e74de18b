//! What became of one item of work on one node, and how it got there.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::facts::{LocalImage, NodeFacts};
use super::failure::Failure;
use super::keep::KeepOutcome;
use super::output::ExecOutput;

/// Why something was never run to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum StopReason {
    /// SIGINT.
    Interrupted,
    /// SIGTERM.
    Terminated,
    /// SIGHUP: the operator's terminal is gone.
    HungUp,
    /// `--deadline` passed.
    Deadline,
    /// `--max-failures` was reached.
    FailureLimit,
    /// The first nodes all failed for a reason that is the same on every node.
    Canary,
    /// The first hosts that were sent a password did not accept it.
    PasswordRefused,
    /// A node of the wave before failed.
    WaveFailed,
    /// With `--fan-out`, too many nodes got the image from the registry.
    FanOut,
    /// prepull itself was ended, and only the journal is left.
    CutShort,
    /// It was asked how things stand, and not to wait.
    NotYet,
}

impl StopReason {
    /// The reason as a sentence's end: "not run: ...".
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Interrupted => "interrupted",
            Self::Terminated => "terminated",
            Self::HungUp => "the terminal hung up",
            Self::Deadline => "the deadline passed",
            Self::FailureLimit => "the failure limit was reached",
            Self::Canary => "the first nodes all failed in the same way",
            Self::PasswordRefused => "the first nodes did not accept the password",
            Self::WaveFailed => "the wave before it failed",
            Self::FanOut => "more than a tenth of the nodes could not get the image from others",
            Self::CutShort => "prepull was ended before it",
            Self::NotYet => "its pod is still at it",
        }
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

/// The final word on one item (an image, or the command) on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Outcome {
    /// The node holds it now and did not before.
    Pulled(LocalImage),
    /// The node held it already.
    Present(LocalImage),
    /// `check`: the node does not hold it.
    Missing,
    /// `exec`: the command ran to its end, whatever its status.
    Ran(ExecOutput),
    /// `nodes --probe`: what the node is and has.
    Probed(Box<NodeFacts>),
    /// It failed for good.
    Failed(Failure),
    /// It was not started, or was cancelled.
    NotRun(StopReason),
}

impl Outcome {
    /// Whether this is what the operator wanted.
    pub fn is_ok(&self) -> bool {
        match self {
            Self::Pulled(_) | Self::Present(_) => true,
            Self::Probed(facts) => facts.obstacles.is_empty(),
            Self::Ran(output) => output.success(),
            Self::Missing | Self::Failed(_) | Self::NotRun(_) => false,
        }
    }

    /// The word in JSON and lines. `exec` adds `ran` to the words of pull and check, `nodes` adds `probed`.
    pub fn status(&self) -> &'static str {
        match self {
            Self::Pulled(_) => "pulled",
            Self::Present(_) => "present",
            Self::Missing => "missing",
            Self::Ran(_) => "ran",
            Self::Probed(_) => "probed",
            Self::Failed(_) => "failed",
            Self::NotRun(_) => "not-run",
        }
    }
}

/// One try. Connecting counts as part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// From 1.
    pub number: u32,
    /// How long it took.
    pub elapsed: Duration,
    /// Why it failed; `None` for the one that succeeded or was cancelled.
    pub failure: Option<Failure>,
}

/// How an image came to a node that was to pull it through the SSH connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Where it came from.
    pub via: Via,
    /// Why it did not come through SSH, or what differs from an ordinary pull.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Where a node pulled an image from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Via {
    /// From prepull, through the SSH connection.
    Ssh,
    /// From other nodes of the run.
    Peers,
    /// Through a peer-to-peer mirror that the node's runtime is configured with: from other nodes, or from the registry
    /// where none of them had it.
    Mirror,
    /// From the image's registry.
    Registry,
}

impl Via {
    /// The word in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ssh => "ssh",
            Self::Peers => "peers",
            Self::Mirror => "mirror",
            Self::Registry => "registry",
        }
    }
}

/// A peer-to-peer mirror that runtimes of nodes can be configured with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)] // they are names
pub enum PeerEngine {
    Spegel,
    Dragonfly,
    Kraken,
}

impl fmt::Display for PeerEngine {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Spegel => "Spegel",
            Self::Dragonfly => "Dragonfly",
            Self::Kraken => "Kraken",
        })
    }
}

/// What came of nodes passing images on to each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FanOutTotals {
    /// Nodes that had a relay.
    pub nodes: usize,
    /// Nodes that fetched from the source: the registry, or prepull with `--via ssh`.
    pub roots: usize,
    /// Steps from the source to the node that was furthest from it.
    pub depth: usize,
    /// Bytes of blobs that the source sent to them.
    pub from_source: u64,
    /// Bytes of blobs that nodes sent to each other.
    pub from_peers: u64,
    /// The bytes of the images' blobs, for each architecture once.
    pub image_bytes: u64,
    /// Nodes that pulled from the registry, or reached no other.
    pub fallbacks: usize,
}

impl FanOutTotals {
    /// How often the source sent the images to relays.
    pub fn copies(&self) -> f64 {
        match self.image_bytes {
            0 => 0.0,
            bytes => self.from_source as f64 / bytes as f64,
        }
    }
}

/// Everything about one item on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The final word.
    pub outcome: Outcome,
    /// Every try, in order.
    pub attempts: Vec<Attempt>,
    /// From the start of the first attempt to the outcome, pauses included; zero when nothing was tried.
    pub elapsed: Duration,
    /// How many compressed bytes of the image's layers came to the node, without those of layers that were there
    /// before;
    /// `None` where that could not be counted, or nothing was pulled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrived: Option<u64>,
    /// How the image came to the node, where it was to come through the SSH connection and was pulled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Delivery>,
    /// Whether the image is kept from the kubelet's garbage collection, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<KeepOutcome>,
}

/// How many nodes and outcomes of a run there are of each sort.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // docs/schema/document-1.json says what each is
pub struct Counts {
    pub nodes: usize,
    pub ok: usize,
    pub failed: usize,
    pub not_run: usize,
    pub pulled: usize,
    pub present: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absent: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ran: Option<usize>,
}

/// Everything about one node: one record for each item of the work, in the work's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRecord {
    /// The runtime that was used, once it is known.
    pub runtime: Option<super::RuntimeKind>,
    /// One for each item.
    pub items: Vec<Record>,
}
