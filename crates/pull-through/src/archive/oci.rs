//! The OCI image layout, version 1: `index.json` and `blobs/sha256/`. Docker 25 and later save it, too.

use std::collections::HashMap;

use serde::Deserialize;

use super::Entry;

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    #[serde(default)]
    annotations: HashMap<String, String>,
}

/// Where names stand: the full one of docker and containerd, and that of the specification, which is often a tag only.
const NAMES: [&str; 2] = [
    "io.containerd.image.name",
    "org.opencontainers.image.ref.name",
];

pub(super) fn read(index: &[u8]) -> Result<Vec<Entry>, String> {
    let index: Index =
        serde_json::from_slice(index).map_err(|error| format!("in index.json: {error}"))?;
    let entries = index.manifests.into_iter().map(|found| {
        let digest = found.digest.parse();
        let digest = digest.map_err(|error| format!("in index.json: {error}"))?;
        let names = NAMES.iter().filter_map(|name| found.annotations.get(*name));
        let names = names.cloned().collect();
        Ok(Entry { digest, names })
    });
    entries.collect()
}
