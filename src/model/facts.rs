//! What a node is and has, as it was asked over a connection.

use serde::{Deserialize, Serialize};

use super::failure::Failure;
use super::platform::is_platform;
use super::stock::NodeForecast;

/// A node's answer to a probe. Every text is the node's: never trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// The kernel's name as images write it, e.g. `linux`.
    pub os: String,
    /// The machine as images write it, e.g. `amd64`.
    pub architecture: String,
    /// What the system calls itself, e.g. `Debian GNU/Linux 12 (bookworm)`; empty where it does not say.
    pub system: String,
    /// The node's clock against the operator's.
    pub clock: ClockOffset,
    /// The runtime and its version, e.g. `containerd 1.7.24`.
    pub runtime: String,
    /// The program that is called for it, e.g. `k3s crictl`.
    #[serde(default)]
    pub client: String,
    /// The runtime's socket, where its client tells.
    pub endpoint: Option<String>,
    /// Where images live.
    pub root: String,
    /// The bytes that are free there, where they can be counted.
    pub free: Option<u64>,
    /// For each image asked about: as what the node holds it, if it does.
    pub images: Vec<Option<LocalImage>>,
    /// The registries that the node's runtime cannot reach, resolve or trust.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unusable_registries: Vec<(String, Failure)>,
    /// Why the node could not pull the images asked about that it does not hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub obstacles: Vec<Failure>,
    /// What a forecast asked besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forecast: Option<NodeForecast>,
}

impl NodeFacts {
    /// How many of the images asked about are there.
    pub fn present(&self) -> usize {
        self.images.iter().flatten().count()
    }
}

/// How far a node's clock is ahead of ours, and how wrong that may be, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockOffset {
    /// Below zero for a clock that is behind.
    pub milliseconds: i64,
    /// Half the round trip of the question, and how coarse the node's clock is told.
    pub uncertainty: u64,
}

/// An image as the node's runtime says it holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalImage {
    /// The manifest's digest (`sha256:...`), as the registry knows it; `None` for an image that was never pushed or
    /// pulled.
    pub digest: Option<String>,
    /// The runtime's own identity of the image: its configuration's digest.
    pub image_id: Option<String>,
    /// The size as the runtime tells it: unpacked for docker, compressed for crictl, both for docker with containerd's
    /// store.
    pub bytes: Option<u64>,
    /// `os/architecture[/variant]`, where the runtime tells.
    pub platform: Option<String>,
}

impl LocalImage {
    /// Whether it may be for the platform that was asked for: a runtime that names none cannot be contradicted.
    pub fn suits(&self, wanted: Option<&str>) -> bool {
        match (&self.platform, wanted) {
            (Some(held), Some(wanted)) => is_platform(held, wanted),
            (None, _) | (_, None) => true,
        }
    }
}
