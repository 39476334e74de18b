//! Whom a connection is for.

use std::path::PathBuf;

use crate::model::{Hop, Secret};

/// Whom to connect to, and as whom.
pub(super) struct Target<'a> {
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) user: &'a str,
    pub(super) identities: &'a [PathBuf],
    pub(super) password: Option<&'a Secret>,
    /// The hosts to go through.
    pub(super) route: &'a [Hop],
    pub(super) is_jump_host: bool,
    /// The number of its settings.
    pub(super) settings: usize,
}
