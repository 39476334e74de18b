//! What of an image has arrived on a node, from what the node sees of it while it is pulled.

use std::collections::HashMap;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;

use crate::model::{self, Failure, FailureKind, Stage, text};

/// How much of an image has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transferred {
    /// Bytes of layers, as the registry sends them.
    pub bytes: u64,
    /// How many there will be, where the node knows the image's manifest. Layers it had before count as arrived.
    pub total: Option<u64>,
}

/// One layer on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// Its digest without `sha256:`, or another name of the runtime's.
    pub(super) name: String,
    /// Bytes that are there.
    pub(super) bytes: u64,
    /// Bytes in all; 0 when that is not known.
    pub(super) total: u64,
}

/// What makes a pull too slow.
#[derive(Debug, Clone, Copy, Default)]
pub struct Patience {
    /// The longest time without progress.
    pub stall: Option<Duration>,
    /// The fewest bytes a second, over that time.
    pub min_rate: Option<u64>,
}

/// Follows one pull.
pub(super) struct Transfer<'a> {
    layers: HashMap<String, Layer>,
    /// Sizes of the image's layers, by digest without `sha256:`.
    manifest: Option<HashMap<String, u64>>,
    /// Whether the registry itself said so.
    is_expected: bool,
    patience: Patience,
    tell: &'a (dyn Fn(Transferred) + Send + Sync),
    /// When it is given up unless something arrives; nothing while nobody can see what arrives.
    pub(super) stalled_at: Option<Instant>,
    /// The most bytes that were told.
    most: u64,
    /// Since when the rate is counted, and how much there was then.
    window: Option<(Instant, u64)>,
}

struct Layer {
    bytes: u64,
    total: u64,
    on_its_way: bool,
}

/// The more layers a node tells of, the more of ours it fills.
const LAYERS: usize = 1000;

impl<'a> Transfer<'a> {
    pub(super) fn new(patience: Patience, tell: &'a (dyn Fn(Transferred) + Send + Sync)) -> Self {
        Self {
            layers: HashMap::new(),
            manifest: None,
            is_expected: false,
            patience,
            tell,
            stalled_at: None,
            most: 0,
            window: None,
        }
    }

    /// Something can be seen from now on.
    pub(super) fn begin(&mut self) {
        let now = Instant::now();
        self.window = Some((now, 0));
        self.wait(now);
    }

    /// Nothing is waited for any more, and nothing can be seen.
    pub(super) fn end(&mut self) {
        self.stalled_at = None;
        self.window = None;
    }

    fn wait(&mut self, now: Instant) {
        // A node that only hears of whole layers cannot tell a large one from a stall.
        let stall = self.patience.stall.filter(|_| self.window.is_some());
        self.stalled_at = stall.and_then(|stall| now.checked_add(stall));
    }

    /// The registry was asked what the image is made of.
    pub(super) fn expect(&mut self, layers: &[model::Layer]) {
        let layers = layers.iter().take(LAYERS);
        self.manifest = Some(layers.map(|l| (hex(&l.digest), l.bytes)).collect());
        self.is_expected = true;
    }

    /// Takes a manifest; one that cannot be read tells nothing. docker's node makes one up, in which layers that it had
    /// before are empty.
    pub(super) fn manifest(&mut self, json: &[u8]) {
        #[derive(Deserialize)]
        struct Manifest {
            layers: Vec<Descriptor>,
        }
        #[derive(Deserialize)]
        struct Descriptor {
            digest: String,
            size: u64,
        }
        if self.is_expected {
            return;
        }
        if let Ok(manifest) = serde_json::from_slice::<Manifest>(json) {
            let layers = manifest.layers.into_iter().take(LAYERS);
            self.manifest = Some(layers.map(|d| (hex(&d.digest), d.size)).collect());
        }
    }

    /// The layer's digest, of which docker names the first digits.
    fn digest_of(&self, name: String) -> String {
        let mut all = self.manifest.iter().flat_map(HashMap::keys);
        let found = all.find(|digest| name.len() >= 12 && digest.starts_with(&name));
        found.cloned().unwrap_or(name)
    }

    /// This layer is there.
    pub(super) fn there(&mut self, name: String) {
        let name = self.digest_of(name);
        if self.layers.len() < LAYERS {
            let layer = Layer {
                bytes: 0,
                total: 0,
                on_its_way: false,
            };
            self.layers.entry(name).or_insert(layer);
        }
    }

    /// Takes what is on its way; layers that no longer are have arrived. An error ends the pull.
    pub(super) fn progress(&mut self, parts: Vec<Part>) -> Result<(), Failure> {
        for layer in self.layers.values_mut() {
            layer.on_its_way = false;
        }
        for part in parts {
            let name = self.digest_of(part.name);
            if self.layers.len() < LAYERS || self.layers.contains_key(&name) {
                let layer = Layer {
                    bytes: part.bytes,
                    total: part.total,
                    on_its_way: true,
                };
                self.layers.insert(name, layer);
            }
        }
        let now = Instant::now();
        let mut transferred = self.transferred();
        // A layer of docker's is for a moment neither on its way nor unpacked.
        self.most = self.most.max(transferred.bytes);
        transferred.bytes = self.most;
        (self.tell)(transferred);
        self.wait(now);
        self.fast_enough(now, transferred.bytes)
    }

    fn transferred(&self) -> Transferred {
        let size = |name: &str| {
            self.manifest
                .as_ref()
                .and_then(|all| all.get(name).copied())
        };
        let bytes = self.layers.iter().fold(0_u64, |sum, (name, layer)| {
            let whole = size(name).unwrap_or(layer.total);
            let there = match layer.on_its_way {
                true => layer.bytes,
                // docker's own name for what it fetched; the layer is there under its digest.
                false if self.manifest.is_some() && size(name).is_none() => 0,
                false => layer.bytes.max(whole),
            };
            sum.saturating_add(there)
        });
        let total = self.manifest.as_ref().map(|all| {
            let sum = all
                .values()
                .fold(0_u64, |sum, size| sum.saturating_add(*size));
            // A manifest of another image that shares a layer is smaller than what arrives.
            sum.max(bytes)
        });
        Transferred { bytes, total }
    }

    /// A trickle is as good as nothing.
    fn fast_enough(&mut self, now: Instant, bytes: u64) -> Result<(), Failure> {
        let (Some(rate), Some(stall), Some((began, before))) =
            (self.patience.min_rate, self.patience.stall, self.window)
        else {
            return Ok(());
        };
        let took = now - began;
        if took < stall {
            return Ok(());
        }
        self.window = Some((now, bytes));
        let gained = bytes.saturating_sub(before);
        let is_unpacking = !self.layers.values().any(|layer| layer.on_its_way);
        if is_unpacking || gained as f64 >= rate as f64 * took.as_secs_f64() {
            return Ok(());
        }
        let per_second = (gained as f64 / took.as_secs_f64()) as u64;
        Err(Failure::new(
            FailureKind::Stalled,
            Stage::Pull,
            format!(
                "only {} a second arrived for {}, less than --min-rate {}; the pull was ended",
                text::bytes(per_second),
                humantime::format_duration(stall),
                text::bytes(rate),
            ),
        ))
    }

    /// Nothing arrived for too long.
    pub(super) fn stalled(&self) -> Failure {
        let stall = self.patience.stall.unwrap_or_default();
        let Transferred { bytes, total } = self.transferred();
        let of = total.map_or(String::new(), |total| format!(" of {}", text::bytes(total)));
        Failure::new(
            FailureKind::Stalled,
            Stage::Pull,
            format!(
                "nothing arrived for {}, with {}{of} there; the pull was ended",
                humantime::format_duration(stall),
                text::bytes(bytes),
            ),
        )
    }
}

fn hex(digest: &str) -> String {
    digest.trim_start_matches("sha256:").to_string()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn part(name: &str, bytes: u64, total: u64) -> Part {
        Part {
            name: name.into(),
            bytes,
            total,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_longer_on_its_way_has_arrived() {
        let told = Mutex::new(vec![]);
        let tell = |transferred: Transferred| {
            told.lock()
                .unwrap()
                .push((transferred.bytes, transferred.total));
        };
        let mut transfer = Transfer::new(Patience::default(), &tell);
        transfer.begin();
        transfer
            .progress(vec![part("a", 10, 0), part("b", 5, 50)])
            .unwrap();
        transfer.progress(vec![part("a", 20, 0)]).unwrap();
        let manifest =
            br#"{"layers":[{"digest":"sha256:a","size":30},{"digest":"sha256:b","size":50},
            {"digest":"sha256:c","size":7},{"digest":"sha256:d","size":100}]}"#;
        transfer.manifest(manifest);
        transfer.there("c".into());
        transfer.there("x".into());
        transfer.progress(vec![part("d", 1, 100)]).unwrap();
        transfer.progress(vec![]).unwrap();
        assert_eq!(
            *told.lock().unwrap(),
            [(15, None), (70, None), (88, Some(187)), (187, Some(187))]
        );
    }

    /// docker's files have names of their own, and its lines say which layers are done.
    #[tokio::test(start_paused = true)]
    async fn docker_has_a_sum_when_the_registry_was_asked() {
        let told = Mutex::new(vec![]);
        let tell = |transferred: Transferred| {
            told.lock()
                .unwrap()
                .push((transferred.bytes, transferred.total));
        };
        let stall = Patience {
            stall: Some(SECOND),
            min_rate: None,
        };
        let mut transfer = Transfer::new(stall, &tell);
        let layer = |digit: &str, bytes| model::Layer {
            digest: format!("sha256:{}", digit.repeat(64)),
            bytes,
        };
        transfer.expect(&[layer("a", 100), layer("b", 50), layer("c", 7)]);
        transfer.there("c".repeat(12));
        transfer
            .progress(vec![
                part("GetImageBlob1", 60, 0),
                part("GetImageBlob2", 50, 0),
            ])
            .unwrap();
        // The second was unpacked, and its file is gone before docker says so.
        transfer
            .progress(vec![part("GetImageBlob1", 100, 0)])
            .unwrap();
        transfer.there("b".repeat(12));
        transfer
            .progress(vec![part("GetImageBlob1", 100, 0)])
            .unwrap();
        transfer.there("a".repeat(12));
        transfer.progress(vec![]).unwrap();
        let sums: Vec<u64> = told.lock().unwrap().iter().map(|told| told.0).collect();
        assert_eq!(sums, [117, 117, 157, 157]);
        assert!(told.lock().unwrap().iter().all(|told| told.1 == Some(157)));
        // Nothing was measured: whole layers are no sign of a stall.
        assert_eq!(transfer.stalled_at, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickle_and_a_pause_are_stalls_and_unpacking_is_none() {
        let patience = Patience {
            stall: Some(10 * SECOND),
            min_rate: Some(100),
        };
        let mut transfer = Transfer::new(patience, &|_| {});
        assert_eq!(transfer.stalled_at, None);
        transfer.begin();
        let began = Instant::now();
        let mut bytes = 0;
        let mut ended = Ok(());
        while ended.is_ok() {
            tokio::time::sleep(SECOND).await;
            // 200 bytes a second for 17 s, then 20.
            bytes += if began.elapsed() < 17 * SECOND {
                200
            } else {
                20
            };
            ended = transfer.progress(vec![part("a", bytes, 0)]);
            assert_eq!(transfer.stalled_at, Some(Instant::now() + 10 * SECOND));
        }
        assert_eq!(began.elapsed(), 30 * SECOND);
        assert_eq!(ended.unwrap_err().kind, FailureKind::Stalled);
        for _ in 0..30 {
            tokio::time::sleep(SECOND).await;
            transfer.progress(vec![]).unwrap();
        }
        let failure = transfer.stalled();
        assert_eq!(failure.kind, FailureKind::Stalled);
        assert!(failure.detail.contains("10s"), "{failure}");
    }
}
