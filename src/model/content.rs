//! What an image is made of, as its registry says: a manifest for each platform, and its layers.

use serde::{Deserialize, Serialize};

/// One manifest of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// System and architecture as images write them; `None` where an image has one manifest for all platforms.
    pub platform: Option<(String, String)>,
    /// What a pull brings, compressed.
    pub layers: Vec<Layer>,
    /// The digests of the layers once they are unpacked, in their order; empty where the registry was not asked.
    pub diff_ids: Vec<String>,
}

/// One layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// `sha256:...` of the compressed bytes.
    pub digest: String,
    /// How many there are.
    pub bytes: u64,
}

/// The manifest that a node of this system and architecture takes; `None` when there is none for it.
///
/// Machines also take what their elders took: an amd64 what is for a 386, an arm64 what is for an arm.
pub fn manifest_for<'a>(
    manifests: &'a [Manifest],
    os: &str,
    architecture: &str,
) -> Option<&'a Manifest> {
    let elder = match architecture {
        "amd64" => "386",
        "arm64" => "arm",
        other => other,
    };
    let of = |wanted: &str| {
        manifests.iter().find(|manifest| match &manifest.platform {
            Some((system, machine)) => system == os && machine == wanted,
            None => true,
        })
    };
    of(architecture).or_else(|| of(elder))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(platform: Option<(&str, &str)>, bytes: u64) -> Manifest {
        Manifest {
            platform: platform.map(|(os, machine)| (os.into(), machine.into())),
            layers: vec![Layer {
                digest: "sha256:1".into(),
                bytes,
            }],
            diff_ids: Vec::new(),
        }
    }

    #[test]
    fn a_node_takes_its_own_platform_or_its_elders() {
        let many = [
            manifest(Some(("linux", "386")), 1),
            manifest(Some(("linux", "amd64")), 2),
            manifest(Some(("linux", "arm")), 3),
            manifest(Some(("windows", "arm64")), 4),
        ];
        let bytes = |os, machine| manifest_for(&many, os, machine).map(|m| m.layers[0].bytes);
        assert_eq!(bytes("linux", "amd64"), Some(2));
        assert_eq!(bytes("linux", "arm64"), Some(3));
        assert_eq!(bytes("linux", "s390x"), None);
        let one = [manifest(None, 9)];
        assert!(manifest_for(&one, "linux", "riscv64").is_some());
    }
}
