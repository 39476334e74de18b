//! What of an image has arrived on a node, from what the node sees of it while it is pulled.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;

use super::hang_up::{HangUp, PullState, Visit};
use super::protocol::GUARD_SLACK;
use crate::model::{self, Failure, FailureKind, Stage, text};

/// How much of an image has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BytesTransferred {
    /// Bytes of layers, as the registry sends them, without the layers that were there before.
    pub bytes: u64,
    /// How many there will be, once that is known.
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
pub struct StallPolicy {
    /// The longest time without progress.
    pub stall: Option<Duration>,
    /// The fewest bytes a second, over that time.
    pub min_rate: Option<u64>,
    /// The longest a pull may take where nothing shows whether it gets on.
    pub unseen: Option<Duration>,
}

/// What came of one image to one node, over all attempts: the one place where that is counted.
///
/// Each layer counts once. What an attempt fetched in part and the next one from its beginning is not added up.
#[derive(Debug, Default)]
pub struct Layers(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    layers: HashMap<String, Layer>,
    /// Sizes of the image's layers, by digest without `sha256:`.
    manifest: Option<HashMap<String, u64>>,
    /// Whether the registry itself said so.
    is_expected: bool,
    /// Whether the pull has succeeded.
    is_done: bool,
    /// Whether the node has named every layer that came or was there.
    is_counted: bool,
    /// The most bytes that were told.
    most: u64,
}

#[derive(Debug)]
struct Layer {
    /// The most that was there.
    bytes: u64,
    /// 0 when that is not known.
    size: u64,
    standing: Standing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    OnItsWay,
    /// It was on its way, and its file is gone.
    Gone,
    /// All of it came.
    Came,
    /// It was there before.
    LayerComplete,
}

/// The more layers a node reports, the more of our memory it fills.
const LAYERS: usize = 1000;
/// The digits of a digest, and how many of them docker shows.
const DIGEST: usize = 64;
const SHORT: usize = 12;

impl Layers {
    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing panics with the lock held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many bytes came with a pull that succeeded; `None` while none did, and where the node could not count them.
    pub fn arrived(&self) -> Option<u64> {
        self.known().arrived()
    }
}

impl Known {
    /// An attempt begins, or is looked at again from its beginning. `expected`: the registry was asked what the image
    /// is made of.
    fn begin(&mut self, expected: Option<&[model::Layer]>) {
        self.is_done = false;
        self.is_counted = false;
        // The next attempt's files have other names.
        self.layers.retain(|name, _| is_digits(name));
        for layer in self.layers.values_mut() {
            if layer.standing == Standing::OnItsWay {
                layer.standing = Standing::Gone;
            }
        }
        self.is_expected = expected.is_some();
        self.manifest = expected.map(|layers| {
            let layers = layers.iter().take(LAYERS);
            layers.map(|l| (hex(&l.digest), l.bytes)).collect()
        });
    }

    /// Takes a manifest; one that cannot be read tells nothing. docker's node makes one up, in which layers that it had
    /// before are empty.
    fn manifest(&mut self, json: &[u8]) {
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
        let found = all.find(|digest| name.len() >= SHORT && digest.starts_with(&name));
        found.cloned().unwrap_or(name)
    }

    fn layer(&mut self, name: String) -> Option<&mut Layer> {
        let name = self.digest_of(name);
        if self.layers.len() >= LAYERS && !self.layers.contains_key(&name) {
            return None;
        }
        Some(self.layers.entry(name).or_insert(Layer {
            bytes: 0,
            size: 0,
            standing: Standing::LayerComplete,
        }))
    }

    /// This layer was there before the attempt: also before the run, unless an earlier attempt fetched it.
    fn there(&mut self, name: String) {
        if let Some(layer) = self.layer(name) {
            layer.standing = match layer.standing {
                Standing::LayerComplete if layer.bytes == 0 => Standing::LayerComplete,
                _ => Standing::Came,
            };
        }
    }

    /// All of this layer came.
    fn came(&mut self, part: Part) {
        if let Some(layer) = self.layer(part.name) {
            layer.size = layer.size.max(part.total);
            layer.standing = Standing::Came;
        }
    }

    /// Takes what is on its way. What no longer is has come, if the runtime calls it by its digest.
    fn progress(&mut self, parts: Vec<Part>) {
        for (name, layer) in &mut self.layers {
            if layer.standing == Standing::OnItsWay {
                layer.standing = match name.len() {
                    DIGEST => Standing::Came,
                    _ => Standing::Gone,
                };
            }
        }
        for part in parts {
            if let Some(layer) = self.layer(part.name) {
                layer.bytes = layer.bytes.max(part.bytes);
                layer.size = layer.size.max(part.total);
                layer.standing = Standing::OnItsWay;
            }
        }
    }

    fn is_any_on_its_way(&self) -> bool {
        let mut all = self.layers.values();
        all.any(|layer| layer.standing == Standing::OnItsWay)
    }

    /// The size in the manifest.
    fn size_of(&self, name: &str) -> Option<u64> {
        self.manifest.as_ref()?.get(name).copied()
    }

    fn so_far(&mut self) -> BytesTransferred {
        let bytes = self.layers.iter().fold(0_u64, |sum, (name, layer)| {
            let size = self.size_of(name);
            let there = match layer.standing {
                Standing::LayerComplete => 0,
                // Whose layer it is shows in the manifest only: another pull may be at it.
                _ if name.len() == DIGEST && size.is_none() => 0,
                Standing::OnItsWay => layer.bytes,
                // docker's own name for what it fetched: the layer came under its digest.
                Standing::Gone if self.manifest.is_some() && size.is_none() => 0,
                Standing::Gone => layer.bytes,
                Standing::Came => size.unwrap_or(layer.size).max(layer.bytes),
            };
            sum.saturating_add(there)
        });
        // A layer of docker's is for a moment neither on its way nor called complete.
        self.most = self.most.max(bytes);
        let total = self.manifest.as_ref().map(|all| {
            let is_to_come = |name: &String| {
                let layer = self.layers.get(name);
                layer.is_none_or(|layer| layer.standing != Standing::LayerComplete)
            };
            let sizes = all.iter().filter(|(name, _)| is_to_come(name));
            let sum = sizes.fold(0_u64, |sum, (_, size)| sum.saturating_add(*size));
            // A manifest of another image that shares a layer is smaller than what arrives.
            sum.max(self.most)
        });
        let bytes = self.most;
        BytesTransferred { bytes, total }
    }

    fn arrived(&self) -> Option<u64> {
        if !self.is_done || !(self.is_counted || self.manifest.is_some()) {
            return None;
        }
        // What the image is made of, or else what docker named of it.
        let names: Vec<&String> = match &self.manifest {
            // The image was up to date.
            Some(_) if self.is_expected && self.layers.is_empty() => Vec::new(),
            Some(manifest) => manifest.keys().collect(),
            None => self.layers.keys().filter(|name| is_digits(name)).collect(),
        };
        names.into_iter().try_fold(0_u64, |sum, name| {
            let layer = self.layers.get(name)?;
            let size = match layer.standing {
                Standing::LayerComplete => 0,
                Standing::Came => self.size_of(name).unwrap_or(0).max(layer.size),
                // It was seen to come, and the image is whole.
                Standing::OnItsWay | Standing::Gone => self.size_of(name)?,
            };
            // A layer of no bytes does not exist: its size is not known.
            (size > 0 || layer.standing == Standing::LayerComplete)
                .then(|| sum.saturating_add(size))
        })
    }
}

/// Follows one attempt.
pub(super) struct Transfer<'a> {
    layers: &'a Layers,
    patience: StallPolicy,
    tell: &'a (dyn Fn(BytesTransferred) + Send + Sync),
    /// When it is given up unless something arrives; `None` while arrivals cannot be seen.
    pub(super) stalled_at: Option<Instant>,
    /// When it is given up while arrivals cannot be seen.
    blind_until: Option<Instant>,
    /// Since when the rate is counted, and how much there was then.
    window: Option<(Instant, u64)>,
    /// What this connection sees of it.
    pub(super) visit: Visit<'a>,
}

impl<'a> Transfer<'a> {
    pub(super) fn new(
        layers: &'a Layers,
        expected: Option<&[model::Layer]>,
        patience: StallPolicy,
        tell: &'a (dyn Fn(BytesTransferred) + Send + Sync),
    ) -> Self {
        layers.known().begin(expected);
        Self {
            layers,
            patience,
            tell,
            stalled_at: None,
            blind_until: None,
            window: None,
            visit: Visit::new(None),
        }
    }

    /// The pull may go on without this connection.
    pub(super) fn may_hang_up(mut self, hang_up: Option<HangUp<'a>>) -> Self {
        self.visit = Visit::new(hang_up);
        self
    }

    /// All that happened before this connection is known.
    pub(super) fn caught_up(&mut self) {
        if !self.visit.is_replay() {
            return;
        }
        let changed_at = self.visit.caught_up(Instant::now());
        if self.window.is_none() {
            return;
        }
        let before = self.visit.before();
        self.window = before.and_then(|before| before.window).or(self.window);
        // The node acts first, at the end of its own slack.
        let slack = before.map_or(Duration::ZERO, |_| 2 * GUARD_SLACK);
        let stall = self.patience.stall;
        self.stalled_at = stall.and_then(|stall| changed_at.checked_add(stall + slack));
    }

    /// Whether this connection is to be given away now: how the pull stands. An error ends the pull.
    pub(super) fn gives_way(&mut self) -> Result<Option<PullState>, Failure> {
        let now = Instant::now();
        if !self.visit.gives_way(now) {
            return Ok(None);
        }
        let (transferred, is_unpacking) = {
            let mut known = self.layers.known();
            (known.so_far(), !known.is_any_on_its_way())
        };
        self.fast_enough(now, transferred.bytes, is_unpacking)?;
        let arrived = (transferred.bytes, transferred.total);
        Ok(Some(self.visit.state(now, arrived, self.window)))
    }

    /// A stage begins, of which nothing is seen yet. However often that of the pull is announced, its limit runs once.
    pub(super) fn stage(&mut self, is_pull: bool) {
        self.stalled_at = None;
        self.window = None;
        self.visit.guarded(false);
        if is_pull && self.blind_until.is_none() {
            let limit = self.patience.unseen;
            let limit = limit.map(|limit| self.visit.left_of(limit));
            self.blind_until = limit.and_then(|limit| Instant::now().checked_add(limit));
        }
    }

    /// When a pull of which nothing is seen is given up.
    pub(super) fn unseen_until(&self) -> Option<Instant> {
        self.blind_until.filter(|_| self.window.is_none())
    }

    /// Something can be seen from now on.
    pub(super) fn begin(&mut self) {
        let now = Instant::now();
        let BytesTransferred { bytes, .. } = self.layers.known().so_far();
        self.window = Some((now, bytes));
        self.wait(now);
    }

    /// Nothing is waited for any more, and nothing can be seen.
    pub(super) fn end(&mut self) {
        self.stalled_at = None;
        self.blind_until = None;
        self.window = None;
    }

    fn wait(&mut self, now: Instant) {
        // A node that only hears of whole layers cannot tell a large one from a stall.
        let stall = self.patience.stall.filter(|_| self.window.is_some());
        self.stalled_at = stall.and_then(|stall| now.checked_add(stall));
    }

    pub(super) fn manifest(&mut self, json: &[u8]) {
        self.layers.known().manifest(json);
    }

    pub(super) fn there(&mut self, name: String) {
        self.layers.known().there(name);
    }

    pub(super) fn came(&mut self, parts: Vec<Part>) {
        let mut known = self.layers.known();
        parts.into_iter().for_each(|part| known.came(part));
    }

    /// The node has named all that came.
    pub(super) fn counted(&mut self) {
        self.layers.known().is_counted = true;
    }

    /// The node holds the image.
    pub(super) fn succeeded(&mut self) {
        self.layers.known().is_done = true;
    }

    /// Takes what is on its way. An error ends the pull.
    pub(super) fn progress(&mut self, parts: Vec<Part>) -> Result<(), Failure> {
        let (transferred, is_unpacking) = {
            let mut known = self.layers.known();
            known.progress(parts);
            (known.so_far(), !known.is_any_on_its_way())
        };
        (self.tell)(transferred);
        let now = Instant::now();
        self.visit.changed(now);
        if self.visit.is_replay() {
            return Ok(());
        }
        self.wait(now);
        self.fast_enough(now, transferred.bytes, is_unpacking)
    }

    /// A trickle is as good as nothing.
    fn fast_enough(&mut self, now: Instant, bytes: u64, is_unpacking: bool) -> Result<(), Failure> {
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
        if is_unpacking || gained as f64 >= rate as f64 * took.as_secs_f64() {
            return Ok(());
        }
        let per_second = (gained as f64 / took.as_secs_f64()) as u64;
        Err(Failure::new(
            FailureKind::Stalled,
            Stage::Pull,
            format!(
                "only {} a second arrived for {}, less than --min-rate {}; the pull was ended",
                text::format_bytes(per_second),
                humantime::format_duration(stall),
                text::format_bytes(rate),
            ),
        ))
    }

    /// Nothing arrived for too long.
    pub(super) fn stalled(&self) -> Failure {
        let stall = self.patience.stall.unwrap_or_default();
        let BytesTransferred { bytes, total } = self.layers.known().so_far();
        let of = total.map_or(String::new(), |total| {
            format!(" of {}", text::format_bytes(total))
        });
        Failure::new(
            FailureKind::Stalled,
            Stage::Pull,
            format!(
                "nothing arrived for {}, with {}{of} there; the pull was ended",
                humantime::format_duration(stall),
                text::format_bytes(bytes),
            ),
        )
    }

    /// It took too long for a pull of which nothing is seen.
    pub(super) fn unseen(&self) -> Failure {
        let limit = self.patience.unseen.unwrap_or_default();
        Failure::new(
            FailureKind::TimedOut,
            Stage::Pull,
            format!(
                "the pull was not done within {} and was ended: what arrives cannot be seen on this node, so a slow pull \
                 looks like one that hangs (--pull-timeout sets this limit)",
                humantime::format_duration(limit)
            ),
        )
    }
}

fn hex(digest: &str) -> String {
    digest.trim_start_matches("sha256:").to_string()
}

/// Whether this is a digest, or the beginning of one, rather than the name of a file.
fn is_digits(name: &str) -> bool {
    matches!(name.len(), SHORT | DIGEST) && name.bytes().all(|byte| byte.is_ascii_hexdigit())
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

    fn digest(digit: &str) -> String {
        digit.repeat(DIGEST)
    }

    fn manifest(layers: &[(&str, u64)]) -> Vec<u8> {
        let layers = layers.iter().map(|(digit, size)| {
            format!(r#"{{"digest":"sha256:{}","size":{size}}}"#, digest(digit))
        });
        let layers: Vec<String> = layers.collect();
        format!(r#"{{"layers":[{}]}}"#, layers.join(",")).into_bytes()
    }

    fn whole(digit: &str, size: u64) -> Vec<Part> {
        vec![part(&digest(digit), size, size)]
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_counts_and_what_was_there_or_is_anothers_does_not() {
        let told = Mutex::new(vec![]);
        let tell = |transferred: BytesTransferred| {
            told.lock()
                .unwrap()
                .push((transferred.bytes, transferred.total));
        };
        let layers = Layers::default();
        let mut transfer = Transfer::new(&layers, None, StallPolicy::default(), &tell);
        transfer.begin();
        let on_its_way = |name: &str, bytes| part(&digest(name), bytes, 0);
        // Until the manifest is known, any of them may be another pull's.
        transfer
            .progress(vec![on_its_way("a", 10), on_its_way("f", 5)])
            .unwrap();
        transfer.manifest(&manifest(&[("a", 30), ("b", 50), ("c", 7)]));
        transfer.there(digest("c"));
        transfer
            .progress(vec![on_its_way("a", 20), on_its_way("f", 9)])
            .unwrap();
        transfer.progress(vec![on_its_way("b", 1)]).unwrap();
        transfer.progress(vec![]).unwrap();
        assert_eq!(
            *told.lock().unwrap(),
            [(0, None), (20, Some(80)), (31, Some(80)), (80, Some(80))]
        );
        assert_eq!(layers.arrived(), None, "the pull has not come to its end");
        transfer.succeeded();
        assert_eq!(layers.arrived(), Some(80));
    }

    #[test]
    fn a_pull_too_fast_to_be_seen_is_counted_at_its_end() {
        let layers = Layers::default();
        let mut transfer = Transfer::new(&layers, None, StallPolicy::default(), &|_| {});
        transfer.came(whole("a", 30));
        transfer.came(whole("9", 3));
        transfer.manifest(&manifest(&[("a", 30), ("b", 50)]));
        transfer.counted();
        transfer.succeeded();
        assert_eq!(layers.arrived(), None, "nobody knows of b");
        transfer.there(digest("b"));
        assert_eq!(layers.arrived(), Some(30));
    }

    #[test]
    fn a_size_that_nobody_knows_is_no_zero() {
        let layers = Layers::default();
        let mut transfer = Transfer::new(&layers, None, StallPolicy::default(), &|_| {});
        transfer.succeeded();
        assert_eq!(layers.arrived(), None, "the node cannot count");
        transfer.counted();
        assert_eq!(layers.arrived(), Some(0), "it was up to date");
        transfer.there("c".repeat(SHORT));
        assert_eq!(layers.arrived(), Some(0));
        transfer.came(vec![part(&"a".repeat(SHORT), 0, 0)]);
        assert_eq!(layers.arrived(), None);
        transfer.came(vec![part(&"a".repeat(SHORT), 40, 40)]);
        assert_eq!(layers.arrived(), Some(40));
    }

    #[test]
    fn a_layer_counts_once_over_all_attempts() {
        let layers = Layers::default();
        let mut first = Transfer::new(&layers, None, StallPolicy::default(), &|_| {});
        first.there(digest("c"));
        first.came(whole("a", 30));
        first.progress(vec![part(&digest("b"), 20, 50)]).unwrap();
        let mut second = Transfer::new(&layers, None, StallPolicy::default(), &|_| {});
        for name in ["a", "c"] {
            second.there(digest(name));
        }
        second.came(whole("b", 50));
        second.manifest(&manifest(&[("a", 30), ("b", 50), ("c", 7)]));
        second.counted();
        second.succeeded();
        assert_eq!(layers.arrived(), Some(80));
        // It is looked at again, over another connection.
        let mut again = Transfer::new(&layers, None, StallPolicy::default(), &|_| {});
        assert_eq!(layers.arrived(), None);
        for name in ["a", "c"] {
            again.there(digest(name));
        }
        again.came(whole("b", 50));
        again.manifest(&manifest(&[("a", 30), ("b", 50), ("c", 7)]));
        again.counted();
        again.succeeded();
        assert_eq!(layers.arrived(), Some(80));
    }

    /// docker's files have names of their own, and its lines say which layers are done.
    #[tokio::test(start_paused = true)]
    async fn docker_has_a_sum_when_the_registry_was_asked() {
        let told = Mutex::new(vec![]);
        let tell = |transferred: BytesTransferred| {
            told.lock()
                .unwrap()
                .push((transferred.bytes, transferred.total));
        };
        let stall = StallPolicy {
            stall: Some(SECOND),
            ..StallPolicy::default()
        };
        let layer = |digit: &str, bytes| model::Layer {
            digest: format!("sha256:{}", digest(digit)),
            bytes,
        };
        let expected = [layer("a", 100), layer("b", 50), layer("c", 7)];
        let layers = Layers::default();
        let mut transfer = Transfer::new(&layers, Some(&expected), stall, &tell);
        let short = |digit: &str| digit.repeat(SHORT);
        let blob = |number: u32, bytes| part(&format!("GetImageBlob{number}"), bytes, 0);
        transfer.there(short("c"));
        transfer.progress(vec![blob(1, 60), blob(2, 50)]).unwrap();
        // The second was unpacked, and its file is gone before docker says so.
        transfer.progress(vec![blob(1, 100)]).unwrap();
        transfer.came(vec![part(&short("b"), 0, 0)]);
        transfer.progress(vec![blob(1, 100)]).unwrap();
        transfer.came(vec![part(&short("a"), 0, 0)]);
        transfer.progress(vec![]).unwrap();
        let sums: Vec<u64> = told.lock().unwrap().iter().map(|told| told.0).collect();
        assert_eq!(sums, [110, 110, 150, 150]);
        assert!(told.lock().unwrap().iter().all(|told| told.1 == Some(150)));
        // Nothing was measured: whole layers are not a sign of a stall.
        assert_eq!(transfer.stalled_at, None);
        transfer.succeeded();
        assert_eq!(layers.arrived(), Some(150));
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_pull_that_nobody_can_see_has_a_limit_of_its_own() {
        let patience = StallPolicy {
            stall: Some(10 * SECOND),
            unseen: Some(100 * SECOND),
            ..StallPolicy::default()
        };
        let layers = Layers::default();
        let mut transfer = Transfer::new(&layers, None, patience, &|_| {});
        assert_eq!(transfer.unseen_until(), None, "it has not begun");
        transfer.stage(false);
        assert_eq!(transfer.unseen_until(), None, "it is inspected");
        transfer.stage(true);
        let limit = Instant::now() + 100 * SECOND;
        assert_eq!(transfer.unseen_until(), Some(limit));
        tokio::time::sleep(SECOND).await;
        transfer.stage(true);
        assert_eq!(
            transfer.unseen_until(),
            Some(limit),
            "it is announced again"
        );
        assert_eq!(transfer.stalled_at, None);
        transfer.begin();
        assert_eq!(transfer.unseen_until(), None);
        assert_eq!(transfer.stalled_at, Some(Instant::now() + 10 * SECOND));
        let failure = transfer.unseen();
        assert_eq!(failure.kind, FailureKind::TimedOut);
        assert!(failure.detail.contains("--pull-timeout"), "{failure}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickle_and_a_pause_are_stalls_and_unpacking_is_none() {
        let patience = StallPolicy {
            stall: Some(10 * SECOND),
            min_rate: Some(100),
            unseen: None,
        };
        let layers = Layers::default();
        let mut transfer = Transfer::new(&layers, None, patience, &|_| {});
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
            ended = transfer.progress(vec![part("GetImageBlob1", bytes, 0)]);
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
