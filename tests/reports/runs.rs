//! Made-up runs: what the engine would have told of fleets of any size, with every kind of fact and of outcome.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use prepull::model::*;
use prepull::report::{FileReport, Jsonl, ReportForm, Reporter, RunInfo, RunResult};

/// A run with everything that was told of it.
pub struct MadeUp {
    pub events: Vec<Event>,
    pub result: RunResult,
}

/// Places at one time.
const PARALLEL: usize = 32;

struct Story {
    random: fastrand::Rng,
    facts: Vec<(Duration, EventKind)>,
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

pub fn held(digest: &str, bytes: u64) -> LocalImage {
    LocalImage {
        digest: Some(format!("sha256:{}", digest.repeat(32))),
        image_id: None,
        bytes: Some(bytes),
        platform: None,
    }
}

impl Story {
    fn tell(&mut self, at: f64, fact: EventKind) {
        self.facts.push((seconds(at), fact));
    }

    fn stages(
        &mut self,
        node: usize,
        at: f64,
        item: Option<usize>,
        stages: &[(Stage, f64)],
    ) -> f64 {
        let mut now = at;
        for (stage, length) in stages {
            let stage = *stage;
            self.tell(now, EventKind::NodeStage { node, item, stage });
            now += length * (0.5 + self.random.f64());
        }
        now
    }

    /// Comes to the node and, when `item` is there, to the beginning of the pull.
    fn arrive(&mut self, node: usize, at: f64) -> f64 {
        self.tell(at, EventKind::NodeStarted { node });
        let way = [
            (Stage::Connect, 0.1),
            (Stage::Handshake, 0.2),
            (Stage::Authenticate, 0.4),
            (Stage::Probe, 0.5),
        ];
        let now = self.stages(node, at, None, &way);
        self.stages(node, now, Some(0), &[(Stage::Inspect, 0.2)])
    }

    fn pull(&mut self, node: usize, at: f64, stall: Option<f64>) -> f64 {
        let (item, total) = (0, Some(80_028_485));
        self.stages(node, at, Some(0), &[(Stage::Pull, 0.0)]);
        let (mut now, mut bytes) = (at, 0);
        let rate = 4_000_000 + self.random.u64(..8_000_000);
        while bytes < 80_028_485 {
            self.tell(
                now,
                EventKind::Progress {
                    node,
                    item,
                    bytes,
                    total,
                },
            );
            bytes += rate;
            now += 1.0;
            if let Some(length) = stall
                && bytes > 40_000_000
                && bytes - rate <= 40_000_000
            {
                now += length;
                let length = seconds(length + 1.0);
                self.tell(now, EventKind::Stalled { node, item, length });
                let visit_in = seconds(5.0);
                let left = EventKind::LeftAlone {
                    node,
                    item,
                    visit_in,
                };
                self.tell(now, left);
            }
        }
        self.stages(node, now, Some(0), &[(Stage::Verify, 0.3)])
    }

    fn finish(&mut self, node: usize, at: f64, outcome: Outcome, attempts: Vec<Attempt>) -> f64 {
        let elapsed = attempts.iter().map(|attempt| attempt.elapsed).sum();
        let arrived = match &outcome {
            Outcome::Pulled(held) => held.bytes,
            _ => None,
        };
        let record = Arc::new(Record {
            outcome,
            attempts,
            elapsed,
            arrived,
            delivery: None,
            kept: None,
        });
        self.tell(
            at,
            EventKind::Finished {
                node,
                item: 0,
                record,
            },
        );
        self.tell(at, EventKind::NodeLeft { node, done: true });
        at
    }

    /// One node's whole story from `at` on; when it is over.
    fn node(&mut self, node: usize, at: f64) -> f64 {
        let attempt = |number, took: f64, failure: Option<&Failure>| Attempt {
            number,
            elapsed: seconds(took),
            failure: failure.cloned(),
        };
        let refused = |kind, stage, detail: String| Failure::new(kind, stage, detail);
        match self.random.u32(..100) {
            0..3 => {
                let failure = refused(
                    FailureKind::Unreachable,
                    Stage::Connect,
                    format!(
                        "connecting to 10.1.{}.{}:22 took longer than 10s",
                        node / 250,
                        node % 250
                    ),
                );
                let mut now = at;
                let mut attempts = vec![];
                for number in 1..=3 {
                    self.tell(now, EventKind::NodeStarted { node });
                    now = self.stages(node, now, None, &[(Stage::Connect, 10.0)]);
                    attempts.push(attempt(number, 10.0, Some(&failure)));
                    if number < 3 {
                        let fact = EventKind::AttemptFailed {
                            node,
                            item: 0,
                            attempt: number,
                            failure: failure.clone(),
                            retry_in: seconds(4.0),
                        };
                        self.tell(now, fact);
                        self.tell(now, EventKind::NodeLeft { node, done: false });
                        now += 4.0;
                    }
                }
                self.finish(node, now, Outcome::Failed(failure), attempts)
            }
            3..6 => {
                let now = self.arrive(node, at);
                let now = self.stages(node, now, Some(0), &[(Stage::Pull, 1.0)]);
                let failure = refused(FailureKind::RegistryAuth, Stage::Pull,
                    "failed to pull and unpack image \"registry.example:5000/team/app:v2\": failed to resolve reference: pull access denied, repository does not exist or may require authorization: authorization failed: no basic auth credentials".into());
                let attempts = vec![attempt(1, now - at, Some(&failure))];
                self.finish(node, now, Outcome::Failed(failure), attempts)
            }
            6..8 => {
                let now = self.arrive(node, at);
                let now = self.stages(node, now, Some(0), &[(Stage::Pull, 6.0)]);
                let failure = refused(
                    FailureKind::DiskFull,
                    Stage::Pull,
                    "write /var/lib/docker/tmp/GetImageBlob1234: no space left on device".into(),
                );
                let attempts = vec![attempt(1, now - at, Some(&failure))];
                self.finish(node, now, Outcome::Failed(failure), attempts)
            }
            8..20 => {
                let mut now = self.arrive(node, at);
                now = self.stages(node, now, Some(0), &[(Stage::Pull, 3.0)]);
                let failure = refused(
                    FailureKind::RegistryUnavailable,
                    Stage::Pull,
                    "received unexpected HTTP status: 503 Service Unavailable".into(),
                );
                let fact = EventKind::AttemptFailed {
                    node,
                    item: 0,
                    attempt: 1,
                    failure: failure.clone(),
                    retry_in: seconds(6.0),
                };
                let pause = EventKind::RegistryPaused {
                    registry: image().registry().into(),
                    length: seconds(6.0),
                };
                self.tell(now, pause);
                self.tell(now, fact);
                self.tell(now, EventKind::NodeLeft { node, done: false });
                let first = attempt(1, now - at, Some(&failure));
                let again = now + 6.0;
                now = self.arrive(node, again);
                now = self.pull(node, now, None);
                let attempts = vec![first, attempt(2, now - again, None)];
                self.finish(node, now, Outcome::Pulled(held("ab", 80_028_485)), attempts)
            }
            20..30 => {
                let now = self.arrive(node, at);
                let (item, stage) = (Some(0), Stage::Queue);
                self.tell(now, EventKind::NodeStage { node, item, stage });
                let now = now + 2.0;
                let attempts = vec![attempt(1, now - at, None)];
                self.finish(
                    node,
                    now,
                    Outcome::Present(held("ab", 80_028_485)),
                    attempts,
                )
            }
            chance => {
                let now = self.arrive(node, at);
                let now = self.pull(node, now, (chance > 92).then_some(15.0));
                let attempts = vec![attempt(1, now - at, None)];
                self.finish(node, now, Outcome::Pulled(held("ab", 80_028_485)), attempts)
            }
        }
    }
}

pub fn image() -> Image {
    "registry.example:5000/team/app:v2".parse().unwrap()
}

fn info(work: Work, nodes: Vec<Node>) -> RunInfo {
    RunInfo {
        id: "2026-11-23T21-17-09Z-3f9c".into(),
        started: SystemTime::UNIX_EPOCH + seconds(1_795_468_629.0),
        resume: Some("prepull pull --resume 2026-11-23T21-17-09Z-3f9c".into()),
        words: Vec::new(),
        earlier: Default::default(),
        plan: Arc::new(Plan::new(
            Fleet::new(nodes).unwrap(),
            work,
            Policy::default(),
        )),
    }
}

fn node(name: String, number: usize) -> Node {
    Node {
        address: format!("10.1.{}.{}", number / 250, number % 250),
        port: 22,
        user: "ops".into(),
        runtime: Some(if number.is_multiple_of(3) {
            RuntimeKind::Crictl
        } else {
            RuntimeKind::Docker
        }),
        ..Node::named(&name)
    }
}

/// A pull on so many nodes, the last few of which are stopped by a deadline.
pub fn pull(nodes: usize) -> MadeUp {
    let names = (1..=nodes).map(|number| {
        node(
            format!("worker-{number}.rack{}.example", number % 7),
            number,
        )
    });
    let login = None;
    let work = Work::Pull(vec![PlannedImage {
        image: image(),
        login,
    }]);
    let info = Arc::new(info(work, names.collect()));
    let mut story = Story {
        random: fastrand::Rng::with_seed(7),
        facts: vec![],
    };
    let (ready, failed) = (nodes, 0);
    story.tell(0.0, EventKind::Preflighted { ready, failed });
    story.tell(0.0, EventKind::WaveStarted { wave: 1, nodes });
    let runtime = RuntimeKind::Docker;
    story.tell(0.0, EventKind::RuntimeFound { node: 0, runtime });
    let mut places = vec![0.0_f64; PARALLEL];
    let left_out = nodes / 40;
    for node in 0..nodes - left_out {
        let place = (0..PARALLEL)
            .min_by(|a, b| places[*a].total_cmp(&places[*b]))
            .unwrap();
        places[place] = story.node(node, places[place]);
    }
    let end = places.iter().copied().fold(1.0, f64::max);
    if left_out > 0 {
        let reason = StopReason::Deadline;
        story.tell(end, EventKind::Stopping { reason });
        let totals = FanOutTotals::default();
        story.tell(end, EventKind::FanOut { totals });
        let why = "no relay on this node".to_string();
        story.tell(end, EventKind::FanOutFallback { node: 0, why });
        for node in nodes - left_out..nodes {
            let outcome = Outcome::NotRun(reason);
            let record = Arc::new(Record {
                outcome,
                attempts: vec![],
                elapsed: Duration::ZERO,
                arrived: None,
                delivery: None,
                kept: None,
            });
            story.tell(
                end,
                EventKind::Finished {
                    node,
                    item: 0,
                    record,
                },
            );
        }
    }
    told(
        info,
        story.facts,
        (left_out > 0).then_some(StopReason::Deadline),
    )
}

/// A run of these outcomes, one a node, each told as it would be.
pub fn outcomes(work: Work, outcomes: Vec<(&str, Vec<Outcome>)>) -> MadeUp {
    let nodes = outcomes
        .iter()
        .enumerate()
        .map(|(number, (name, _))| node((*name).to_string(), number));
    let info = Arc::new(info(work, nodes.collect()));
    let mut story = Story {
        random: fastrand::Rng::with_seed(7),
        facts: vec![],
    };
    for (node, (_, outcomes)) in outcomes.into_iter().enumerate() {
        let now = story.arrive(node, node as f64);
        for (item, outcome) in outcomes.into_iter().enumerate() {
            let failure = match &outcome {
                Outcome::Failed(failure) => Some(failure.clone()),
                _ => None,
            };
            let attempts = vec![Attempt {
                number: 1,
                elapsed: seconds(2.0),
                failure,
            }];
            let record = Arc::new(Record {
                outcome,
                attempts,
                elapsed: seconds(2.0),
                arrived: None,
                delivery: None,
                kept: None,
            });
            story.tell(now + 1.0, EventKind::Finished { node, item, record });
        }
        story.tell(now + 1.0, EventKind::NodeLeft { node, done: true });
    }
    told(info, story.facts, None)
}

fn told(
    info: Arc<RunInfo>,
    mut facts: Vec<(Duration, EventKind)>,
    stopped: Option<StopReason>,
) -> MadeUp {
    facts.sort_by_key(|(at, _)| *at);
    let items = info.plan.work.items();
    let mut nodes: Vec<Vec<Option<Record>>> =
        vec![vec![None; items]; info.plan.fleet.nodes().len()];
    let mut events = Vec::new();
    for (number, (at, fact)) in (1..).zip(facts) {
        if let EventKind::Finished { node, item, record } = &fact {
            nodes[*node][*item] = Some(Record::clone(record));
        }
        events.push(Event { number, at, fact });
    }
    let nodes = nodes.into_iter().map(|items| NodeRecord {
        runtime: None,
        items: items.into_iter().map(Option::unwrap).collect(),
    });
    let result = RunResult {
        finished: info.started + events.last().unwrap().at,
        nodes: nodes.collect(),
        stopped,
        fan_out: None,
        forecast: None,
        info,
    };
    MadeUp { events, result }
}

impl MadeUp {
    fn tell(&self, reporter: &mut dyn Reporter) {
        self.events.iter().for_each(|event| reporter.event(event));
        reporter.finish(&self.result).unwrap();
    }

    /// Writes the report file.
    pub fn report(&self, path: &Path, form: ReportForm) {
        self.tell(&mut FileReport::new(
            &self.result.info,
            path.to_owned(),
            form,
        ));
    }

    /// What `-o jsonl` prints.
    pub fn lines(&self) -> Vec<String> {
        #[derive(Clone, Default)]
        struct Captured(Arc<Mutex<Vec<u8>>>);
        impl std::io::Write for Captured {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let captured = Captured::default();
        self.tell(&mut Jsonl::new(
            Arc::clone(&self.result.info),
            Box::new(captured.clone()),
        ));
        let bytes = captured.0.lock().unwrap().clone();
        String::from_utf8(bytes)
            .unwrap()
            .lines()
            .map(String::from)
            .collect()
    }
}
