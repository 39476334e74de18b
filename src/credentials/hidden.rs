//! A secret in JSON that docker, podman and helpers write.

use std::fmt;

use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

/// Text that is wiped when dropped and never shown; `null` is empty.
#[derive(Default)]
pub(super) struct Hidden(pub(super) Zeroizing<String>);

impl fmt::Debug for Hidden {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("[redacted]")
    }
}

impl<'de> Deserialize<'de> for Hidden {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        Ok(Self(Zeroizing::new(text.unwrap_or_default())))
    }
}
