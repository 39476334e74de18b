//! Reads manifests and indexes: OCI's, and docker's of schema 2.

use serde::Deserialize;

use crate::{Digest, Error};

/// Registries refuse larger manifests.
pub(crate) const MOST_BYTES: usize = 4 << 20;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const KNOWN: [&str; 4] = [
    INDEX,
    IMAGE,
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// A manifest as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) media_type: String,
    pub(crate) content: Content,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// Manifests, usually one for each platform.
    Index(Vec<(Digest, Option<Platform>)>),
    /// An image of one platform.
    Image { config: Blob, layers: Vec<Blob> },
}

/// A blob that a manifest names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blob {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// A platform as an index states it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// The system, such as `linux`; `unknown` for attestations.
    pub os: String,
    /// The architecture, such as `amd64`.
    pub architecture: String,
    /// The variant, such as `v7`.
    #[serde(default)]
    pub variant: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u32,
    media_type: Option<String>,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    size: u64,
    #[serde(default)]
    platform: Option<Platform>,
}

impl Descriptor {
    fn blob(&self) -> Result<Blob, String> {
        let digest = self.digest.parse();
        Ok(Blob {
            digest: digest.map_err(|error| format!("{error}"))?,
            size: self.size,
        })
    }
}

/// Reads a manifest whose digest has been checked.
pub(crate) fn read(digest: Digest, bytes: &[u8]) -> Result<Manifest, Error> {
    let problem = |problem: String| Error::Manifest { digest, problem };
    parse(bytes).map_err(problem)
}

fn parse(bytes: &[u8]) -> Result<Manifest, String> {
    let document: Document =
        serde_json::from_slice(bytes).map_err(|error| format!("not a manifest ({error})"))?;
    if document.schema_version != 2 {
        let version = document.schema_version;
        return Err(format!("a manifest of schema version {version}, not 2"));
    }
    let (default, content) = match document {
        Document {
            manifests: Some(manifests),
            layers: None,
            ..
        } => {
            // What has a digest of another algorithm is left out: it cannot be asked for.
            let children = manifests.into_iter().filter_map(|child| {
                let digest = child.digest.parse().ok()?;
                Some((digest, child.platform))
            });
            (INDEX, Content::Index(children.collect()))
        }
        Document {
            config: Some(config),
            layers: Some(layers),
            manifests: None,
            ..
        } => {
            let layers: Result<Vec<Blob>, String> = layers.iter().map(Descriptor::blob).collect();
            let (config, layers) = (config.blob()?, layers?);
            (IMAGE, Content::Image { config, layers })
        }
        _ => return Err("neither an image with config and layers nor an index".into()),
    };
    let media_type = match document.media_type {
        None => default.to_string(),
        Some(stated) if KNOWN.contains(&stated.as_str()) => stated,
        Some(other) => return Err(format!("unknown media type {other:?}")),
    };
    Ok(Manifest {
        media_type,
        content,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hex(digit: char) -> String {
        format!("sha256:{}", digit.to_string().repeat(64))
    }

    #[test]
    fn images_and_indexes_are_read_in_both_dialects() {
        let (a, b) = (hex('a'), hex('b'));
        let image = format!(
            r#"{{"schemaVersion":2,"config":{{"digest":"{a}","size":3}},"layers":[{{"digest":"{b}","size":9}}]}}"#
        );
        let read = parse(image.as_bytes()).unwrap();
        assert_eq!(read.media_type, IMAGE);
        let Content::Image { config, layers } = read.content else {
            panic!("not an image");
        };
        assert_eq!((config.digest.to_string(), config.size), (a.clone(), 3));
        assert_eq!(layers.len(), 1);
        let docker = KNOWN[2];
        let index = format!(
            r#"{{"schemaVersion":2,"mediaType":"{docker}","manifests":[
            {{"digest":"{a}","size":3,"platform":{{"os":"linux","architecture":"arm","variant":"v7"}}}},
            {{"digest":"sha512:00","size":3}}]}}"#
        );
        let read = parse(index.as_bytes()).unwrap();
        assert_eq!(read.media_type, docker);
        let Content::Index(children) = read.content else {
            panic!("not an index");
        };
        assert_eq!(children.len(), 1);
        assert_eq!(
            children[0].1.as_ref().unwrap().variant.as_deref(),
            Some("v7")
        );
    }

    #[test]
    fn what_is_not_a_manifest_is_refused_with_its_reason() {
        let a = hex('a');
        for (text, why) in [
            ("", "not a manifest"),
            ("[]", "not a manifest"),
            (r#"{"schemaVersion":1,"layers":[]}"#, "schema version 1"),
            (r#"{"schemaVersion":2}"#, "neither"),
            (r#"{"schemaVersion":2,"layers":[]}"#, "neither"),
            (
                r#"{"schemaVersion":2,"mediaType":"text/html","manifests":[]}"#,
                "text/html",
            ),
            (
                &format!(
                    r#"{{"schemaVersion":2,"config":{{"digest":"{a}","size":1}},"layers":[{{"digest":"x","size":1}}]}}"#
                ),
                "not a digest",
            ),
            (
                r#"{"schemaVersion":2,"manifests":[],"layers":[],"config":null}"#,
                "neither",
            ),
        ] {
            let problem = parse(text.as_bytes()).unwrap_err();
            assert!(problem.contains(why), "{text}: {problem}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
