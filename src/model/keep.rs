//! Images that are kept from the kubelet's garbage collection: for how long, and whether a node can.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// How long images are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Until when they are wanted; `None` until they are released.
    pub until: Option<SystemTime>,
}

impl Keep {
    /// As a node's label and the journal have it: a time, or `released`.
    pub fn label(&self) -> String {
        match self.until {
            Some(until) => humantime::format_rfc3339_seconds(until).to_string(),
            None => "released".into(),
        }
    }
}

/// Whether an image is kept, where that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepOutcome {
    /// Whether it is.
    pub state: KeptState,
    /// Why it is not, and what the kubelet will do; or what there is to say about the pin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Whether an image is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeptState {
    /// The runtime reports it as pinned.
    Pinned,
    /// It has the label of a pin, and nothing on the node tells whether that counts.
    Unconfirmed,
    /// It is not.
    NotPinned,
}

impl KeptState {
    /// The word in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pinned => "pinned",
            Self::Unconfirmed => "unconfirmed",
            Self::NotPinned => "not-pinned",
        }
    }
}

/// Images that are still kept although their time is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Overdue {
    /// The run that pulled them.
    pub run: String,
    /// Until when they were to be kept.
    pub until: String,
    /// The nodes that keep them.
    pub nodes: Vec<String>,
}
