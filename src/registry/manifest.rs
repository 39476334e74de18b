//! Reads manifests and indexes: OCI's, and docker's of schema 2.

use serde::Deserialize;

use super::RegistryError;
use crate::model::Layer;

/// Manifests of one index that are asked for; more would be a strange image.
const MOST_ENTRIES: usize = 32;

/// What a registry answers for a tag or digest.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The layers of one manifest, and the digest of its configuration.
    Image(Vec<Layer>, Option<String>),
    /// Manifests of several platforms.
    Index(Vec<Entry>),
}

/// One line of an index.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) digest: String,
    pub(super) platform: Option<(String, String)>,
}

impl Entry {
    /// Whether it is an image for this `os/architecture[/variant]`, or for any.
    pub(super) fn is_for(&self, wanted: Option<&str>) -> bool {
        match (&self.platform, wanted) {
            // Attestations stand beside images as "unknown/unknown".
            (Some((os, _)), _) if os == "unknown" => false,
            (Some((os, machine)), Some(wanted)) => {
                let mut parts = wanted.split('/');
                parts.next() == Some(os) && parts.next() == Some(machine)
            }
            _ => true,
        }
    }
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    config: Option<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    size: u64,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    os: String,
    architecture: String,
}

/// An image's configuration.
#[derive(Deserialize)]
struct Configuration {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<String>,
}

/// The digests of the unpacked layers that a configuration names; none where it names none.
pub(super) fn diff_ids(configuration: &[u8]) -> Vec<String> {
    serde_json::from_slice(configuration)
        .map(|Configuration { rootfs }| rootfs.diff_ids)
        .unwrap_or_default()
}

pub(super) fn read(json: &[u8]) -> Result<Answer, RegistryError> {
    let document: Document = serde_json::from_slice(json)
        .map_err(|error| RegistryError::lasting(format!("it answered no manifest ({error})")))?;
    match document {
        Document {
            manifests: Some(manifests),
            ..
        } => Ok(Answer::Index(
            manifests
                .into_iter()
                .take(MOST_ENTRIES)
                .map(|entry| Entry {
                    digest: entry.digest,
                    platform: entry.platform.map(|p| (p.os, p.architecture)),
                })
                .collect(),
        )),
        Document {
            layers: Some(layers),
            config,
            ..
        } => Ok(Answer::Image(
            layers
                .into_iter()
                .map(|layer| Layer {
                    digest: layer.digest,
                    bytes: layer.size,
                })
                .collect(),
            config.map(|config| config.digest),
        )),
        Document { .. } => Err(RegistryError::lasting(
            "it answered a manifest without sizes: an image of a format before docker 1.10",
        )),
    }
}
