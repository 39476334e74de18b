//! What a node holds of images, and when its kubelet removes them: what a forecast asks.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::content::{Layer, Manifest};

/// How many hexadecimal digits of a digest tell layers apart: all digests of a fleet's images fit one argument.
pub const SHORT_DIGEST: usize = 16;

/// What a node's store holds, as far as it can be seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stock {
    /// The short digests of the compressed layers that are there, among those asked about.
    pub layers: Option<HashSet<String>>,
    /// For each image there, the digests of its unpacked layers in their order.
    pub chains: Option<Vec<Vec<String>>>,
    /// Why neither is known.
    pub unknown: Option<String>,
    /// The size of the file system where images live.
    pub size: Option<u64>,
    /// When the node's kubelet collects images; `None` where no kubelet runs.
    pub kubelet: Option<KubeletGc>,
}

/// The short form of `sha256:...`.
pub fn short_digest(digest: &str) -> &str {
    let hex = digest.split_once(':').map_or(digest, |(_, hex)| hex);
    hex.get(..SHORT_DIGEST).unwrap_or(hex)
}

impl Stock {
    /// The layers of an image that would come; `None` where that cannot be known.
    pub fn missing<'a>(&self, manifest: &'a Manifest) -> Option<Vec<&'a Layer>> {
        let layers = &manifest.layers;
        if let Some(there) = &self.layers {
            let lacks = |layer: &&Layer| !there.contains(short_digest(&layer.digest));
            return Some(layers.iter().filter(lacks).collect());
        }
        let chains = self.chains.as_ref()?;
        let wanted = &manifest.diff_ids;
        if wanted.len() != layers.len() {
            return None;
        }
        // Layers are reused only on top of the same layers.
        let shared = |chain: &Vec<String>| {
            let pairs = chain.iter().zip(wanted);
            pairs.take_while(|(there, layer)| there == layer).count()
        };
        let most = chains.iter().map(shared).max();
        Some(layers.iter().skip(most.unwrap_or(0)).collect())
    }
}

/// When a kubelet removes unused images by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubeletGc {
    /// `imageGCHighThresholdPercent`: how full the image file system is when it starts. 100 switches it off.
    pub high: u8,
    /// `imageGCLowThresholdPercent`: how full it is when it stops.
    pub low: u8,
    /// `imageMaximumGCAge`: unused images go after this time, whatever room there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<String>,
    /// Whether its configuration could be read; the kubelet's own defaults stand here otherwise.
    pub is_known: bool,
}

impl KubeletGc {
    /// The kubelet's defaults.
    pub const DEFAULT: Self = Self {
        high: 85,
        low: 80,
        max_age: None,
        is_known: false,
    };

    /// What the kubelet will do with an image that nothing keeps, and when; `None` where no kubelet runs.
    pub fn in_words(gc: Option<&Self>) -> String {
        let Some(gc) = gc else {
            return "no kubelet runs on the node, so nothing removes the image by itself".into();
        };
        let mut when: Vec<String> = Vec::new();
        if gc.high < 100 {
            when.push(format!(
                "once their disk is {}% full, those unused for longest first, down to {}%",
                gc.high, gc.low
            ));
        }
        if let Some(age) = &gc.max_age {
            when.push(format!("once unused for {age}"));
        }
        if when.is_empty() {
            return "the kubelet is configured to remove no images".into();
        }
        let assumed = match gc.is_known {
            true => "",
            false => " (its defaults: its configuration cannot be read)",
        };
        format!(
            "the kubelet removes unused images {}{assumed}",
            when.join(", and ")
        )
    }

    /// Whether it collects images at this use, in percent.
    pub fn collects_at(&self, used: u64) -> bool {
        self.high < 100 && used >= u64::from(self.high)
    }
}

/// What a forecast found out on a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeForecast {
    /// For each image the layers that would come, each at the first image that brings it; `None` where it cannot be
    /// known.
    pub missing: Option<Vec<Vec<Layer>>>,
    /// The bytes that would come if none of the layers were there; `None` where sizes are not known.
    pub at_most: Option<u64>,
    /// Why the layers are not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
    /// The size of the file system where images live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// When the node's kubelet collects images; `None` where no kubelet runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubelet: Option<KubeletGc>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(digest: &str, bytes: u64) -> Layer {
        Layer {
            digest: format!("sha256:{digest}"),
            bytes,
        }
    }

    fn manifest(diff_ids: &[&str]) -> Manifest {
        Manifest {
            platform: None,
            layers: vec![layer("aaaaaaaaaaaaaaaaaa", 1), layer("b", 2), layer("c", 4)],
            diff_ids: diff_ids.iter().map(ToString::to_string).collect(),
        }
    }

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_a_kubelet_will_do_is_said_in_words() {
        let words = |gc: Option<KubeletGc>| KubeletGc::in_words(gc.as_ref());
        assert!(words(None).starts_with("no kubelet runs"));
        let default = words(Some(KubeletGc::DEFAULT));
        assert!(
            default.contains("85% full") && default.contains("cannot be read"),
            "{default}"
        );
        let aged = KubeletGc {
            high: 100,
            max_age: Some("168h".into()),
            is_known: true,
            ..KubeletGc::DEFAULT
        };
        assert_eq!(
            words(Some(aged)),
            "the kubelet removes unused images once unused for 168h"
        );
        let off = KubeletGc {
            high: 100,
            ..KubeletGc::DEFAULT
        };
        assert_eq!(
            words(Some(off)),
            "the kubelet is configured to remove no images"
        );
    }

    #[test]
    fn a_store_of_blobs_lacks_what_it_does_not_list() {
        let stock = Stock {
            layers: Some(HashSet::from(["aaaaaaaaaaaaaaaa".into(), "c".into()])),
            ..Stock::default()
        };
        let manifest = manifest(&[]);
        let missing = stock.missing(&manifest).unwrap();
        assert_eq!(missing, [&layer("b", 2)]);
        assert_eq!(
            Stock::default().missing(&manifest),
            None,
            "nothing is known"
        );
    }

    #[test]
    fn unpacked_layers_count_only_on_top_of_the_same_ones() {
        let stock = |chains: &[&[&str]]| Stock {
            chains: Some(chains.iter().map(|chain| words(chain)).collect()),
            ..Stock::default()
        };
        let manifest = manifest(&["x", "y", "z"]);
        let missing = |chains: &[&[&str]]| stock(chains).missing(&manifest).map(|m| m.len());
        assert_eq!(missing(&[&["x", "q"], &["x", "y", "n"]]), Some(1));
        assert_eq!(missing(&[&["y", "z"]]), Some(3));
        assert_eq!(missing(&[]), Some(3));
        let untold = self::manifest(&[]);
        assert_eq!(
            stock(&[]).missing(&untold),
            None,
            "the registry did not tell"
        );
    }
}
