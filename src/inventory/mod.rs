//! Where nodes come from: inventory files and host expressions, resolved to a fleet.
//!
//! Each format becomes a [`Draft`]; `resolve::resolve` alone decides what a node gets from which level. A
//! new format (Ansible, plain lists, Kubernetes) is a new file that makes a [`Draft`].

mod ansible;
mod clustershell;
mod configparser;
mod draft;
mod error;
mod expression;
pub mod hosts;
mod json;
mod kubernetes;
mod layers;
mod lines;
mod manifests;
mod names;
mod native;
mod ownership;
mod program;
mod read;
mod recognise;
mod resolve;
mod select;
mod sets;
mod sources;
mod suggest;
mod yaml;

use std::path::PathBuf;

pub use draft::{Draft, Group, Mention};
pub use error::{InputError, InventoryError, Position};
pub use kubernetes::{
    Api, Change, KubernetesQuery, Refusal, WATCH_SECONDS, Watch, WatchEvent, api_query, connect,
    pull_secret,
};
pub use layers::{
    JumpSpec, NodeSettings, SshConfigSource, SshDefaults, SshQuery, built_in, parse_endpoint,
    parse_jump,
};
pub use manifests::{ManifestImages, NamedImage, images, images_in};
pub use names::{check_host, check_user, parse_port};
pub use native::Origin;
pub use select::Selection;
pub use suggest::nearest;

use crate::model::Fleet;

/// One place that names nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// An inventory file, or a folder of them.
    File(PathBuf),
    /// An inventory on standard input.
    Stdin,
    /// One `-H` expression; `^FILE` in it is read.
    Hosts(String),
    /// The Kubernetes API.
    Kubernetes(KubernetesQuery),
}

/// Reads all sources and resolves them to a fleet in the order of first mention.
///
/// `strongest` is what the command line says about every node, `background` what ssh_config says and
/// what is built in; between them stand the node's entry, its groups (nearest first), and the
/// `defaults` of the files that mention it.
///
/// # Errors
/// An [`InventoryError`] for the first fault, with its place.
pub fn load(
    sources: &[Source],
    strongest: &NodeSettings,
    background: SshConfigSource<'_>,
) -> Result<Fleet, InventoryError> {
    load_selected(sources, &Selection::default(), strongest, background)
}

/// Like [`load`], for the nodes that a selection leaves, in the same order.
///
/// # Errors
/// As for [`load`], and for a pattern that matches nothing.
pub fn load_selected(
    sources: &[Source],
    selection: &Selection,
    strongest: &NodeSettings,
    background: SshConfigSource<'_>,
) -> Result<Fleet, InventoryError> {
    let home = std::env::var_os("HOME")
        .filter(|home| !home.is_empty())
        .map(PathBuf::from);
    let drafts = sources::drafts(sources, home)?;
    let warnings = drafts.iter().flat_map(|draft| draft.warnings.clone());
    let warnings = warnings.collect();
    let fleet = resolve::resolve(&drafts, selection, strongest, background)?;
    Ok(fleet.with_warnings(warnings))
}

/// The names of the nodes and groups in inventory files, in order, for completion: what cannot be read
/// or would have to be run names nothing.
pub fn names_in(paths: &[PathBuf]) -> Vec<String> {
    let mut names = std::collections::BTreeSet::new();
    for path in paths {
        if sources::holds_programs(path, 0) {
            continue;
        }
        let source = Source::File(path.clone());
        if let Ok(fleet) = load(&[source], &NodeSettings::default(), &built_in("nobody")) {
            for node in fleet.nodes() {
                names.insert(node.name.clone());
                names.extend(node.groups.iter().cloned());
            }
        }
    }
    names.into_iter().collect()
}

/// Reads an inventory in prepull's YAML without touching files or environment; `~` is an error here.
///
/// # Errors
/// An [`InventoryError`] for the first fault, with its place.
pub fn parse_yaml(text: &str, name: &str) -> Result<Draft, InventoryError> {
    let origin = Origin {
        name: name.into(),
        folder: PathBuf::new(),
        home: None,
    };
    parse_with(text, &origin)
}

/// Like [`parse_yaml`], with what paths in it are relative to.
///
/// # Errors
/// An [`InventoryError`] for the first fault, with its place.
pub fn parse_with(text: &str, origin: &Origin) -> Result<Draft, InventoryError> {
    native::read(&yaml::parse(text, &origin.name)?, origin)
}

/// Reads an inventory in any format, recognised by its content, without touching files or environment.
///
/// # Errors
/// An [`InventoryError`] for the first fault, with its place.
pub fn parse(text: &str, name: &str) -> Result<Vec<Draft>, InventoryError> {
    sources::parse(text, name)
}

/// Makes a fleet of drafts, as [`load_selected`] does.
///
/// # Errors
/// An [`InventoryError`] when mentions disagree, a pattern matches nothing, or there is no node.
pub fn resolve(
    drafts: &[Draft],
    selection: &Selection,
    strongest: &NodeSettings,
    background: SshConfigSource<'_>,
) -> Result<Fleet, InventoryError> {
    resolve::resolve(drafts, selection, strongest, background)
}
