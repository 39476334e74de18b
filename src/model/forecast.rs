//! What a pull is going to cost: bytes by what nodes hold, time by what earlier runs took, room by the nodes' disks.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::content::Layer;
use super::outcome::{NodeRecord, Outcome};
use super::plan::{Plan, Portion};
use super::{Image, PullVia};

/// The way that images come.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Way {
    /// From this registry.
    Registry(String),
    /// Through SSH connections.
    Ssh,
}

/// How long one image took on one node in an earlier run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Which run, counted from any number.
    pub run: usize,
    /// The compressed bytes that came.
    pub bytes: u64,
    /// How long it took, from connecting to the end.
    pub seconds: f64,
}

/// What earlier runs took.
#[derive(Debug, Clone, Default)]
pub struct History {
    samples: HashMap<Way, HashMap<String, Vec<Sample>>>,
    runs: HashSet<usize>,
    /// The most nodes that were at work at one time.
    at_once: usize,
}

/// `seconds = start + bytes * per_byte`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Pace {
    start: f64,
    per_byte: f64,
}

impl Pace {
    fn seconds(self, bytes: u64) -> f64 {
        self.start + bytes as f64 * self.per_byte
    }

    /// The line through the samples with the least squares of relative errors; `None` where no sample has bytes.
    fn of<'a>(samples: impl Iterator<Item = &'a Sample>) -> Option<Self> {
        let (mut w, mut wx, mut wy, mut wxx, mut wxy) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for sample in samples {
            let (x, y) = (sample.bytes as f64, sample.seconds);
            let weight = y.max(0.1).powi(-2);
            w += weight;
            wx += weight * x;
            wy += weight * y;
            wxx += weight * x * x;
            wxy += weight * x * y;
        }
        if wx <= 0.0 {
            return None;
        }
        let straight = Self {
            start: 0.0,
            per_byte: wy / wx,
        };
        let width = w * wxx - wx * wx;
        // The samples differ in size by less than a hundredth.
        if width <= 1e-4 * wx * wx {
            return Some(straight);
        }
        let per_byte = (w * wxy - wx * wy) / width;
        let start = (wy - per_byte * wx) / w;
        let is_sound = per_byte > 0.0 && start >= 0.0;
        Some(if is_sound {
            Self { start, per_byte }
        } else {
            straight
        })
    }
}

impl History {
    /// Notes that a run had so many nodes at work at one time.
    pub fn add_run(&mut self, run: usize, at_once: usize) {
        self.runs.insert(run);
        self.at_once = self.at_once.max(at_once);
    }

    /// Notes how long an image took.
    pub fn add(&mut self, way: Way, node: &str, sample: Sample) {
        let nodes = self.samples.entry(way).or_default();
        nodes.entry(node.to_string()).or_default().push(sample);
    }

    /// The pace of a node, or that of all nodes where it never pulled that way.
    fn pace(&self, way: &Way, node: &str) -> Option<Pace> {
        let nodes = self.samples.get(way)?;
        let own = nodes.get(node).and_then(|own| Pace::of(own.iter()));
        own.or_else(|| Pace::of(nodes.values().flatten()))
    }

    /// By what factors real times differed from those that the other runs on the same node foretold, without the most
    /// extreme tenth on each side.
    fn spread(&self, ways: &HashSet<Way>) -> Option<(f64, f64)> {
        let mut factors = Vec::new();
        let nodes = ways.iter().filter_map(|way| self.samples.get(way));
        for samples in nodes.flat_map(HashMap::values) {
            for sample in samples.iter().filter(|sample| sample.bytes > 0) {
                let others = samples.iter().filter(|other| other.run != sample.run);
                if let Some(pace) = Pace::of(others) {
                    factors.push(sample.seconds / pace.seconds(sample.bytes).max(0.001));
                }
            }
        }
        factors.sort_by(f64::total_cmp);
        let cut = factors.len() / 10;
        let (low, high) = (factors.get(cut)?, factors.get(factors.len() - 1 - cut)?);
        Some((low.min(1.0), high.max(1.0)))
    }
}

/// A length of time with its uncertainty, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TimeRange {
    /// What is expected.
    pub seconds: f64,
    /// From where to where earlier runs would have been; `None` after a single one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<(f64, f64)>,
    /// How many earlier runs that rests on.
    pub runs: usize,
}

/// A forecast for the whole fleet, as it is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ForecastTotals {
    /// The bytes that come to the nodes where that is known; each registry sends as many to nodes that ask it.
    pub bytes: u64,
    /// With the most that may come to the others; `None` where no size is known.
    pub at_most: Option<u64>,
    /// On how many nodes it is not known which layers are missing.
    pub unknown: usize,
    /// The bytes that registries send where images go through SSH: each layer once, without what is in the cache.
    pub through_ssh: u64,
    /// The bytes that registries send where nodes pass images on to each other: each layer once.
    #[serde(default)]
    pub fan_out: u64,
    /// How long it takes; `None` where no earlier run tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<TimeRange>,
}

/// A forecast that was made before a pull.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Foretold {
    /// The run that made it.
    pub run: String,
    /// What it said.
    pub totals: ForecastTotals,
}

/// What is expected of one node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeExpectation {
    /// The bytes that come; `None` where that is not known.
    pub bytes: Option<u64>,
    /// The most that can come; `None` where no size is known.
    pub at_most: Option<u64>,
    /// How many layers come.
    pub layers: Option<usize>,
    /// How long it takes.
    pub seconds: Option<f64>,
    /// How full the file system for images is now, and afterwards, in percent as the kubelet counts.
    pub used: Option<(u64, u64)>,
    /// Whether its kubelet starts to collect images; `None` where no kubelet runs or that is not known.
    pub collects: Option<bool>,
}

/// A forecast.
#[derive(Debug, Clone, PartialEq)]
pub struct Forecast {
    /// One for each node, in the fleet's order; `None` for a node that did not answer.
    pub nodes: Vec<Option<NodeExpectation>>,
    /// All of them together.
    pub totals: ForecastTotals,
}

impl Forecast {
    /// What the plan's pull is going to cost, by what its nodes answered and earlier runs took. `cached` says how many
    /// bytes of a layer prepull has already, by its digest.
    pub fn new(
        plan: &Plan,
        records: &[NodeRecord],
        history: &History,
        cached: &dyn Fn(&str) -> u64,
    ) -> Self {
        let images: Vec<&Image> = plan.work.planned().iter().map(|one| &one.image).collect();
        let ways: Vec<Way> = images.iter().map(|image| way(plan, image)).collect();
        let mut layers: BTreeMap<&str, u64> = BTreeMap::new();
        let mut totals = ForecastTotals {
            bytes: 0,
            at_most: Some(0),
            unknown: 0,
            through_ssh: 0,
            fan_out: 0,
            time: None,
        };
        let mut nodes = Vec::with_capacity(records.len());
        for (node, record) in plan.fleet.nodes().iter().zip(records) {
            let Some(Outcome::Probed(facts)) = record.items.first().map(|item| &item.outcome)
            else {
                nodes.push(None);
                continue;
            };
            let Some(asked) = &facts.forecast else {
                nodes.push(None);
                continue;
            };
            let mut expected = NodeExpectation {
                at_most: asked.at_most,
                ..NodeExpectation::default()
            };
            match &asked.missing {
                Some(missing) => {
                    let all = missing.iter().flatten();
                    layers.extend(
                        all.clone()
                            .map(|layer| (layer.digest.as_str(), layer.bytes)),
                    );
                    let bytes = sum(all);
                    expected.bytes = Some(bytes);
                    expected.at_most = Some(bytes);
                    expected.layers = Some(missing.iter().map(Vec::len).sum());
                    totals.bytes = totals.bytes.saturating_add(bytes);
                    let times = missing.iter().zip(&ways).map(|(layers, way)| {
                        match history.pace(way, &node.name) {
                            Some(pace) => Some(pace.seconds(sum(layers.iter()))),
                            None => layers.is_empty().then_some(0.0),
                        }
                    });
                    expected.seconds = times.sum();
                }
                None => {
                    totals.unknown += 1;
                    // Its images may be of several registries: the first stands for all.
                    expected.seconds = (ways.first().zip(asked.at_most))
                        .and_then(|(way, most)| Some(history.pace(way, &node.name)?.seconds(most)));
                }
            }
            totals.at_most = totals
                .at_most
                .zip(expected.at_most)
                .map(|(all, own)| all.saturating_add(own));
            if let (Some(free), Some(size)) = (facts.free, asked.size.filter(|size| *size > 0)) {
                let factor = plan.policy.preflight.unwrap_or_default().unpack_factor;
                let after = expected.bytes.map(|bytes| {
                    // Bytes of a disk are far below what a float counts exactly.
                    let needed = bytes.saturating_add((bytes as f64 * factor) as u64);
                    used(free.saturating_sub(needed), size)
                });
                expected.used = after.map(|after| (used(free, size), after));
                expected.collects =
                    (asked.kubelet.as_ref().zip(after)).map(|(gc, after)| gc.collects_at(after));
            }
            nodes.push(Some(expected));
        }
        for (digest, bytes) in layers {
            let lacking = bytes.saturating_sub(cached(digest));
            totals.through_ssh = totals.through_ssh.saturating_add(lacking);
            totals.fan_out = totals.fan_out.saturating_add(bytes);
        }
        totals.time = time(plan, &nodes, &ways, history);
        Self { nodes, totals }
    }
}

fn way(plan: &Plan, image: &Image) -> Way {
    match plan.policy.via {
        PullVia::Registry | PullVia::DaemonSet => Way::Registry(image.registry().to_string()),
        PullVia::Ssh | PullVia::SshOnly => Way::Ssh,
    }
}

fn sum<'a>(layers: impl Iterator<Item = &'a Layer>) -> u64 {
    layers.fold(0, |sum, layer| sum.saturating_add(layer.bytes))
}

/// How full a file system is, in percent: as the kubelet's image manager counts it (`pkg/kubelet/images`).
fn used(free: u64, size: u64) -> u64 {
    let free = u128::from(free.min(size)) * 100 / u128::from(size);
    100 - u64::try_from(free).unwrap_or(100)
}

/// How long the fleet takes: its nodes one after the other in the places that there are, wave after wave.
fn time(
    plan: &Plan,
    nodes: &[Option<NodeExpectation>],
    ways: &[Way],
    history: &History,
) -> Option<TimeRange> {
    let ways: HashSet<Way> = ways.iter().cloned().collect();
    let answered = || nodes.iter().flatten();
    // Where one node's time is not known, that of the fleet is not.
    let times: Vec<f64> = answered().map(|node| node.seconds).collect::<Option<_>>()?;
    if times.is_empty() {
        return None;
    }
    let mut places = plan.policy.parallel.max(1);
    if let (Some(limit), 1) = (plan.policy.per_registry, ways.len()) {
        places = places.min(limit.max(1));
    }
    let at_once = places.min(answered().filter(|node| node.bytes != Some(0)).count());
    let seconds = makespan(&times, places, &plan.policy.waves);
    let crowd = match history.at_once {
        0 => 1.0,
        seen => at_once.max(1) as f64 / seen as f64,
    };
    let spread = history.spread(&ways);
    // More nodes at one time may share one line, fewer may each have more of it.
    let range = (spread.is_some() || crowd > 1.0).then(|| {
        let (low, high) = spread.unwrap_or((1.0, 1.0));
        (
            seconds * low * crowd.min(1.0),
            seconds * high * crowd.max(1.0),
        )
    });
    Some(TimeRange {
        seconds,
        range,
        runs: history.runs.len(),
    })
}

fn makespan(times: &[f64], places: usize, waves: &[Portion]) -> f64 {
    let count = times.len();
    let mut ends: Vec<usize> = waves
        .iter()
        .map(|wave| wave.nodes(count).min(count))
        .collect();
    ends.push(count);
    ends.sort_unstable();
    let (mut begin, mut clock) = (0, 0.0_f64);
    for end in ends {
        let mut free_at: Vec<f64> = vec![clock; places.min(count)];
        for time in &times[begin..end] {
            if let Some(first) = free_at.iter_mut().min_by(|a, b| a.total_cmp(b)) {
                *first += time;
            }
        }
        clock = free_at.into_iter().fold(clock, f64::max);
        begin = end;
    }
    clock
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        ClockOffset, Fleet, KubeletGc, Node, NodeFacts, NodeForecast, PlannedImage, Policy,
        Preflight, Record, Work,
    };
    use std::time::Duration;

    fn layer(digest: &str, bytes: u64) -> Layer {
        Layer {
            digest: format!("sha256:{digest}"),
            bytes,
        }
    }

    fn sample(run: usize, bytes: u64, seconds: f64) -> Sample {
        Sample {
            run,
            bytes,
            seconds,
        }
    }

    #[test]
    fn a_pace_has_a_start_where_runs_of_two_sizes_show_one() {
        let pace = |samples: &[Sample]| Pace::of(samples.iter());
        let line = pace(&[sample(0, 100, 12.0), sample(1, 300, 32.0)]).unwrap();
        assert!((line.seconds(200) - 22.0).abs() < 1e-6, "{line:?}");
        let one = pace(&[sample(0, 100, 12.0)]).unwrap();
        assert!((one.seconds(200) - 24.0).abs() < 1e-6);
        // More bytes in less time: the mean rate.
        let odd = pace(&[sample(0, 100, 10.0), sample(1, 200, 5.0)]).unwrap();
        assert!(odd.start == 0.0 && odd.per_byte > 0.0);
        assert_eq!(pace(&[sample(0, 0, 1.0)]), None);
    }

    /// One node for each entry: what it lacks, or `None` where that is not known.
    fn foretold(missing: &[Option<u64>], policy: Policy, history: &History) -> Forecast {
        let nodes = (1..=missing.len()).map(|number| Node::named(&format!("n{number}")));
        let planned = PlannedImage {
            image: "reg.example/app:v1".parse().unwrap(),
            login: None,
        };
        let policy = Policy {
            preflight: Some(Preflight { unpack_factor: 1.0 }),
            ..policy
        };
        let fleet = Fleet::new(nodes.collect()).unwrap();
        let plan = Plan::new(fleet, Work::Probe(vec![planned]), policy);
        let record = |missing: &Option<u64>| NodeRecord {
            runtime: None,
            items: vec![Record {
                outcome: Outcome::Probed(Box::new(NodeFacts {
                    os: String::new(),
                    architecture: String::new(),
                    system: String::new(),
                    clock: ClockOffset {
                        milliseconds: 0,
                        uncertainty: 0,
                    },
                    runtime: String::new(),
                    client: String::new(),
                    endpoint: None,
                    root: String::new(),
                    free: Some(400),
                    images: vec![None],
                    unusable_registries: vec![],
                    obstacles: vec![],
                    forecast: Some(NodeForecast {
                        missing: missing.map(|bytes| vec![vec![layer("a", bytes)]]),
                        at_most: Some(100),
                        unknown: None,
                        size: Some(1000),
                        kubelet: Some(KubeletGc::DEFAULT),
                    }),
                })),
                attempts: vec![],
                elapsed: Duration::ZERO,
                arrived: None,
                delivery: None,
                kept: None,
            }],
        };
        let records: Vec<NodeRecord> = missing.iter().map(record).collect();
        let cached = |digest: &str| if digest == "sha256:a" { 30 } else { 0 };
        Forecast::new(&plan, &records, history, &cached)
    }

    fn history(samples: &[(&str, Sample)]) -> History {
        let mut history = History::default();
        for (node, sample) in samples {
            history.add_run(sample.run, 2);
            history.add(Way::Registry("reg.example".into()), node, *sample);
        }
        history
    }

    #[test]
    fn bytes_are_summed_and_what_is_not_known_is_a_limit() {
        let forecast = foretold(
            &[Some(100), None, Some(100)],
            Policy::default(),
            &History::default(),
        );
        let ForecastTotals {
            bytes,
            at_most,
            unknown,
            through_ssh,
            fan_out,
            time,
        } = forecast.totals;
        assert_eq!((bytes, at_most, unknown), (200, Some(300), 1));
        assert_eq!(fan_out, 100, "the layer is the same");
        assert_eq!(through_ssh, 70, "and a part of it is in the cache");
        assert_eq!(time, None, "no earlier run");
    }

    #[test]
    fn a_kubelet_collects_from_its_threshold_on() {
        // 600 of 1000 are used: 124 bytes and as many once unpacked leave 152 free, 125 leave 150.
        let policy = Policy::default;
        let forecast = foretold(&[Some(124), Some(125)], policy(), &History::default());
        let told: Vec<_> = forecast.nodes.iter().flatten().collect();
        assert_eq!(
            (told[0].used, told[0].collects),
            (Some((60, 85)), Some(true))
        );
        let forecast = foretold(&[Some(119), None], policy(), &History::default());
        let told: Vec<_> = forecast.nodes.iter().flatten().collect();
        assert_eq!(
            (told[0].used, told[0].collects),
            (Some((60, 84)), Some(false))
        );
        assert_eq!((told[1].used, told[1].collects), (None, None));
        let off = KubeletGc {
            high: 100,
            ..KubeletGc::DEFAULT
        };
        assert!(!off.collects_at(100));
    }

    #[test]
    fn time_comes_from_the_nodes_own_pace_and_the_places_that_there_are() {
        let known = history(&[
            ("n1", sample(0, 100, 10.0)),
            ("n2", sample(0, 100, 20.0)),
            ("n1", sample(1, 200, 22.0)),
        ]);
        let with = |parallel| Policy {
            parallel,
            ..Policy::default()
        };
        let one = foretold(&[Some(50), Some(50)], with(1), &known)
            .totals
            .time
            .unwrap();
        assert!((one.seconds - (5.2 + 10.0)).abs() < 0.5, "{one:?}");
        let two = foretold(&[Some(50), Some(50)], with(2), &known)
            .totals
            .time
            .unwrap();
        assert!((two.seconds - 10.0).abs() < 0.1, "{two:?}");
        assert_eq!(two.runs, 2);
        let (low, high) = two.range.unwrap();
        assert!(low < two.seconds && two.seconds < high, "{two:?}");
        // A node that never pulled has the pace of the others.
        let third = foretold(&[Some(0), Some(0), Some(100)], with(2), &known);
        assert!(third.nodes[2].as_ref().unwrap().seconds.unwrap() > 10.0);
        let single = history(&[("n1", sample(0, 100, 10.0))]);
        let single = foretold(&[Some(100), Some(100)], with(2), &single)
            .totals
            .time;
        assert_eq!(single.unwrap().range, None, "one run shows no spread");
    }

    #[test]
    fn waves_wait_for_each_other() {
        let times = [4.0, 1.0, 1.0, 1.0];
        assert_eq!(makespan(&times, 4, &[]), 4.0);
        assert_eq!(makespan(&times, 4, &[Portion::Count(1)]), 5.0);
        assert_eq!(makespan(&times, 1, &[]), 7.0);
        assert_eq!(makespan(&[], 4, &[]), 0.0);
    }
}
