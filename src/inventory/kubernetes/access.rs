//! Which cluster is asked, and as whom.

use super::cluster::Cluster;
use super::user::User;

/// What a context says: which cluster, as whom, in which namespace.
#[derive(Debug)]
pub(super) struct Access {
    pub(super) cluster: Cluster,
    pub(super) user: User,
    pub(super) namespace: Option<String>,
}
