//! A command that ran on a node.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// How a command on a node ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExitStatus {
    /// It exited with this status.
    Code(u32),
    /// A signal ended it; the name without `SIG`.
    Signal(String),
}

/// What a command on a node printed, and how it ended. The bytes are the node's: never trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandOutput {
    /// How it ended.
    pub exit: ExitStatus,
    /// Standard output, perhaps cut.
    #[serde(serialize_with = "as_base64", deserialize_with = "from_base64")]
    pub stdout: Vec<u8>,
    /// Standard error, perhaps cut.
    #[serde(serialize_with = "as_base64", deserialize_with = "from_base64")]
    pub stderr: Vec<u8>,
    /// Whether something was cut because it was too long.
    pub truncated: bool,
}

fn as_base64<S: Serializer>(bytes: &[u8], out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(&STANDARD.encode(bytes))
}

fn from_base64<'a, D: Deserializer<'a>>(from: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(from)?;
    STANDARD.decode(text).map_err(D::Error::custom)
}

impl CommandOutput {
    /// Whether it exited with status 0.
    pub fn success(&self) -> bool {
        self.exit == ExitStatus::Code(0)
    }
}
