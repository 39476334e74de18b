//! Pulls by pods: a DaemonSet whose pods use the images and do nothing, watched until every node holds them.

mod cluster;
mod control;
mod objects;
mod pods;
mod rules;
#[cfg(test)]
mod sample;
mod session;
mod tracker;
mod wait;
mod yaml;

pub use control::{apply, check_access, create_namespace, read, remove, resolve_mode};
pub use objects::{daemonset, namespace, rbac};
pub use session::Session;
pub use tracker::Purpose;
pub use wait::{Ended, wait};
pub use yaml::documents;
