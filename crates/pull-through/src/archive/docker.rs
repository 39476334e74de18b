//! `manifest.json`, as `docker save` wrote it before version 25, and as podman, skopeo and kaniko write it.
//!
//! Such an archive has no manifest of the distribution protocol, so one is made. The layers are uncompressed and served as
//! they are: their digests stand in the configuration.

use std::collections::HashMap;
use std::os::unix::fs::FileExt as _;

use bytes::Bytes;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::Entry;
use super::files::{Files, whole};
use crate::{Digest, LocalBlob};

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
const GZIP: &[u8] = b"\x1f\x8b";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

/// What was read and made.
#[derive(Debug, Default)]
pub(super) struct Made {
    pub(super) entries: Vec<Entry>,
    pub(super) manifests: HashMap<Digest, Bytes>,
    pub(super) blobs: HashMap<Digest, LocalBlob>,
}

pub(super) fn read(list: &[u8], files: &Files) -> Result<Made, String> {
    let list: Vec<Saved> =
        serde_json::from_slice(list).map_err(|error| format!("in manifest.json: {error}"))?;
    let mut made = Made::default();
    for saved in list {
        let find = |name: &str| {
            let found = files.find(name);
            found.ok_or_else(|| format!("manifest.json names {name:?}, which is not in it"))
        };
        let found = find(&saved.config)?;
        let bytes = whole(&found).map_err(|error| format!("{}: {error}", saved.config))?;
        let config: Config = serde_json::from_slice(&bytes)
            .map_err(|error| format!("in {}: {error}", saved.config))?;
        let diff_ids = config.rootfs.diff_ids;
        if diff_ids.len() != saved.layers.len() {
            let (layers, ids) = (saved.layers.len(), diff_ids.len());
            return Err(format!(
                "{layers} layers in manifest.json, {ids} in {}",
                saved.config
            ));
        }
        let mut layers = Vec::new();
        for (name, diff_id) in saved.layers.iter().zip(&diff_ids) {
            let found = find(name)?;
            let compressed = gzip_digest(&found).map_err(|error| format!("{name}: {error}"))?;
            let (digest, kind) = match compressed {
                Some(digest) => (digest, format!("{LAYER}.gzip")),
                None => {
                    let digest = diff_id.parse();
                    let digest = digest.map_err(|error| format!("in {}: {error}", saved.config))?;
                    (digest, LAYER.to_string())
                }
            };
            layers.push(descriptor(&kind, &digest, found.size));
            made.blobs.insert(digest, found);
        }
        let config = Digest::of(&bytes);
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &config, found.size),
            "layers": layers,
        });
        made.blobs.insert(config, found);
        let manifest = Bytes::from(manifest.to_string());
        let digest = Digest::of(&manifest);
        let names = saved.repo_tags.unwrap_or_default();
        made.entries.push(Entry { digest, names });
        made.manifests.insert(digest, manifest);
    }
    Ok(made)
}

fn descriptor(kind: &str, digest: &Digest, size: u64) -> serde_json::Value {
    serde_json::json!({ "mediaType": kind, "digest": digest.to_string(), "size": size })
}

/// The digest of a layer that is compressed after all, as kaniko's are; the configuration knows the uncompressed one.
fn gzip_digest(layer: &LocalBlob) -> std::io::Result<Option<Digest>> {
    let mut buffer = vec![0; 256 << 10];
    let mut hasher = Sha256::new();
    let mut at = 0;
    while at < layer.size {
        let most = (layer.size - at).min(buffer.len() as u64) as usize;
        layer
            .file
            .read_exact_at(&mut buffer[..most], layer.offset + at)?;
        if at == 0 && !buffer[..most].starts_with(GZIP) {
            return Ok(None);
        }
        hasher.update(&buffer[..most]);
        at += most as u64;
    }
    Ok((at > 0).then(|| Digest::from_hash(hasher)))
}
