//! The relays of a run against nodes that this file plays.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use prepull_relay::protocol::{FromRelay, Key, Ready, Stats, ToRelay, Words as _};
use tokio::sync::mpsc;

use super::*;
use crate::model::{EventKind, Failure, FailureKind, FanOut, Secret};
use crate::ports::{
    BlobOrigin, Channel, ChannelEvent, ImageReader, ImageServer, ServedImage, ServedParts, Session,
};

const PROGRAM: &[u8] = b"the relay";

/// All nodes: what they were told, and a way to have them say something.
#[derive(Clone, Default)]
struct World(Arc<Mutex<Nodes>>);

#[derive(Default)]
struct Nodes {
    told: BTreeMap<usize, Vec<ToRelay>>,
    mouths: BTreeMap<usize, mpsc::UnboundedSender<ChannelEvent>>,
    /// Nodes that no other reaches.
    unreached: Vec<usize>,
    /// What a node says instead of where it is.
    refusal: Option<String>,
    /// Times that the registry was asked for where blobs are.
    origins: usize,
}

impl World {
    fn lock(&self) -> MutexGuard<'_, Nodes> {
        self.0.lock().unwrap()
    }

    fn says(&self, node: usize, said: &FromRelay) {
        self.prints(node, &said.line());
    }

    fn prints(&self, node: usize, text: &str) {
        let event = ChannelEvent::Stdout(text.as_bytes().to_vec());
        self.lock().mouths[&node].send(event).unwrap();
    }

    fn dies(&self, node: usize) {
        self.lock().mouths.remove(&node);
    }

    /// What a node was told since this was asked last.
    fn told(&self, node: usize) -> Vec<ToRelay> {
        std::mem::take(self.lock().told.entry(node).or_default())
    }
}

fn address(node: usize) -> SocketAddr {
    format!("10.0.0.{node}:4000").parse().unwrap()
}

fn key(node: usize) -> Key {
    Key([node as u8; 32])
}

struct Connection {
    world: World,
    node: usize,
}

impl Session for Connection {
    type Channel = Shell;

    async fn exec(&mut self, _: &str) -> Result<Shell, Failure> {
        let (mouth, ear) = mpsc::unbounded_channel();
        self.world.lock().mouths.insert(self.node, mouth);
        Ok(Shell {
            world: self.world.clone(),
            node: self.node,
            input: Vec::new(),
            phase: Phase::Script,
            ear,
        })
    }

    async fn close(self) {}
}

struct Shell {
    world: World,
    node: usize,
    input: Vec<u8>,
    phase: Phase,
    ear: mpsc::UnboundedReceiver<ChannelEvent>,
}

enum Phase {
    Script,
    Announced,
    Program(usize),
    Relay,
}

impl Channel for Shell {
    async fn write(&mut self, bytes: Bytes) -> Result<(), Failure> {
        self.input.extend_from_slice(&bytes);
        loop {
            if let Phase::Program(size) = self.phase {
                if self.input.len() < size {
                    return Ok(());
                }
                let program: Vec<u8> = self.input.drain(..size).collect();
                assert_eq!(program, PROGRAM);
                assert!(self.input.is_empty(), "head may have read that");
                self.phase = Phase::Relay;
                self.world.prints(self.node, "prepull-relay started\n");
            }
            let Some(end) = self.input.iter().position(|byte| *byte == b'\n') else {
                return Ok(());
            };
            let line: Vec<u8> = self.input.drain(..=end).collect();
            let line = String::from_utf8(line).unwrap();
            match self.phase {
                Phase::Script if line == "#go\n" => {
                    let refusal = self.world.lock().refusal.clone();
                    let said = refusal.unwrap_or_else(|| {
                        let node = self.node;
                        format!("here x86_64 1000000 10.0.0.{node} /var/tmp")
                    });
                    self.world
                        .prints(self.node, &format!("hello\nprepull-relay {said}\n"));
                    self.phase = Phase::Announced;
                }
                Phase::Script => {}
                Phase::Announced => {
                    let size = line.split(' ').next().unwrap().parse().unwrap();
                    self.phase = Phase::Program(size);
                }
                Phase::Program(_) => unreachable!("it was taken above"),
                Phase::Relay => self.relay(ToRelay::read(line.as_bytes()).unwrap().unwrap()),
            }
        }
    }

    async fn next(&mut self) -> Result<Option<ChannelEvent>, Failure> {
        Ok(self.ear.recv().await)
    }
}

impl Shell {
    fn relay(&self, said: ToRelay) {
        let node = self.node;
        match &said {
            ToRelay::Start(_) => self.world.says(
                node,
                &FromRelay::Ready(Ready {
                    port: 5000,
                    peer_port: 4000,
                    key: key(node),
                }),
            ),
            ToRelay::Probe(probe) => {
                for peer in &probe.peers {
                    let unreached = self.world.lock().unreached.clone();
                    let is_reached = !unreached.iter().any(|one| address(*one) == peer.address);
                    let reached = FromRelay::Reached {
                        address: peer.address,
                        bytes_per_second: is_reached.then_some(1000),
                        error: None,
                    };
                    self.world.says(node, &reached);
                }
            }
            ToRelay::End {} => self.world.dies(node),
            _ => {}
        }
        let is_beat = matches!(said, ToRelay::Beat {});
        if !is_beat {
            self.world.lock().told.entry(node).or_default().push(said);
        }
    }
}

struct Images(World);

impl ImageServer for Images {
    fn image(&self, _: usize) -> BoxFuture<'_, Result<ServedImage, Failure>> {
        Box::pin(std::future::ready(Ok(ServedImage {
            repository: "prepull/app".into(),
            digest: format!("sha256:{}", "a".repeat(64)),
        })))
    }

    fn admit(&self) -> Arc<dyn ImageReader> {
        panic!("nothing comes through SSH")
    }

    fn parts(&self, item: usize, _: &'static str) -> BoxFuture<'_, Result<ServedParts, Failure>> {
        Box::pin(async move {
            Ok(ServedParts {
                image: self.image(item).await?,
                manifests: Vec::new(),
                blobs: vec![("sha256:b".into(), 1000)],
            })
        })
    }

    fn origin(&self, _: usize) -> BoxFuture<'_, Result<BlobOrigin, Failure>> {
        self.0.lock().origins += 1;
        Box::pin(std::future::ready(Ok(BlobOrigin {
            base: "https://reg.example/v2/app/blobs/".into(),
            authorization: Some(Secret::new("Bearer t")),
            authorities: Vec::new(),
        })))
    }
}

struct Run {
    world: World,
    hub: Hub,
    images: Images,
    /// What reporters were told.
    facts: Mutex<Vec<EventKind>>,
}

impl Run {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("prepull-relay-x86_64"), PROGRAM).unwrap();
        let programs = Programs::read(&[PathBuf::from(folder.path())]).unwrap();
        let world = World::default();
        Self {
            hub: Hub::new(programs, FanOut::default()).unwrap(),
            images: Images(world.clone()),
            facts: Mutex::default(),
            world,
        }
    }

    async fn join(&self, node: usize) -> Result<Joined, Failure> {
        let world = self.world.clone();
        let mut connection = Connection { world, node };
        self.hub
            .join(node, &mut connection, &self.images, 1, None)
            .await
    }

    /// Does this while the hub hears what relays say.
    async fn while_heard<T>(&self, what: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            done = what => done,
            () = self.hub.attend(&self.images, 1, |fact| self.facts.lock().unwrap().push(fact)) => panic!("it hears nothing more"),
        }
    }

    /// Waits until a node was told this.
    async fn told(&self, node: usize, is_it: impl Fn(&ToRelay) -> bool) -> ToRelay {
        for _ in 0..3000 {
            if let Some(said) = self.world.told(node).into_iter().find(|said| is_it(said)) {
                return said;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{node} was not told that");
    }

    /// The first words that a node was told.
    async fn all_told(&self, node: usize, number: usize) -> Vec<ToRelay> {
        let mut all = Vec::new();
        while all.len() < number {
            all.extend(self.world.told(node));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        all
    }

    async fn gone(&self, node: usize) {
        for _ in 0..3000 {
            if self.hub.joined(node).is_none() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{node} is still there");
    }
}

fn is_source(said: &ToRelay) -> bool {
    matches!(said, ToRelay::Source(_))
}

fn peers(said: &ToRelay) -> Vec<SocketAddr> {
    match said {
        ToRelay::Parents(parents) => parents.peers.iter().map(|peer| peer.address).collect(),
        other => panic!("{other:?}"),
    }
}

fn is_parents(said: &ToRelay) -> bool {
    matches!(said, ToRelay::Parents(_))
}

#[tokio::test(start_paused = true)]
async fn the_first_node_fetches_from_the_registry_and_the_next_from_it() {
    let run = Run::new();
    run.while_heard(async {
        let joined = run.join(1).await.unwrap();
        assert_eq!(joined.port, 5000);
        let told = run.all_told(1, 3).await;
        let [
            ToRelay::Start(start),
            ToRelay::Image(image),
            ToRelay::Source(source),
        ] = &told[..]
        else {
            panic!("{told:?}");
        };
        assert_eq!(start.peer_listen, "10.0.0.1:0".parse().unwrap());
        assert_eq!(
            (start.spool.as_str(), start.user.as_str()),
            ("/var/tmp", "prepull")
        );
        assert_eq!(
            (image.repository.as_str(), image.blobs[0].size),
            ("prepull/app", 1000)
        );
        assert_eq!(source.base, "https://reg.example/v2/app/blobs/");
        assert_eq!(source.authorization.as_ref().unwrap().0, "Bearer t");
        run.join(2).await.unwrap();
        let parents = run.told(2, is_parents).await;
        assert_eq!(peers(&parents), [address(1)]);
        let ToRelay::Parents(parents) = &parents else {
            unreachable!()
        };
        assert_eq!(parents.signers, [key(1)]);
        assert!(run.hub.is_root(1) && !run.hub.is_root(2));
        assert_eq!(run.world.lock().origins, 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_child_of_a_dead_root_takes_its_place_and_all_know_its_key() {
    let run = Run::new();
    run.while_heard(async {
        for node in 1..=3 {
            run.join(node).await.unwrap();
        }
        for node in 2..=3 {
            let parents = run.told(node, is_parents).await;
            assert_eq!(peers(&parents)[0], address(1));
        }
        run.world.dies(1);
        run.gone(1).await;
        let orphaned = FromRelay::Orphaned {
            image: "prepull/app".into(),
        };
        run.world.says(2, &orphaned);
        run.told(2, is_source).await;
        // The other goes to its spare by itself, and needs the new key.
        let parents = run.told(3, is_parents).await;
        assert_eq!(peers(&parents), [address(2)]);
        let ToRelay::Parents(parents) = &parents else {
            unreachable!()
        };
        assert_eq!(parents.signers, [key(1), key(2)]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn nodes_that_reach_no_other_fetch_by_themselves_and_count() {
    let run = Run::new();
    run.while_heard(async {
        run.world.lock().unreached = (1..=9).collect();
        for node in 1..=6 {
            run.join(node).await.unwrap();
            run.told(node, is_source).await;
        }
        assert!(run.hub.is_failing(6));
        assert!(!run.hub.is_failing(100), "five of a hundred");
        tokio::time::sleep(Duration::from_secs(3)).await;
    })
    .await;
    let facts = run.facts.lock().unwrap().clone();
    let fell_back = |node| {
        facts.iter().find_map(|fact| match fact {
            EventKind::FanOutFallback { node: one, why } if *one == node => Some(why.as_str()),
            _ => None,
        })
    };
    assert_eq!(fell_back(1), None, "it had no other to try");
    let why = "it reached no other node (tried 4 nodes), so it fetched the image itself";
    assert_eq!(fell_back(6), Some(why), "{facts:#?}");
    assert_eq!(run.hub.fallback(6).as_deref(), Some(why));
    let Some(EventKind::FanOut { totals }) = facts.last() else {
        panic!("{facts:#?}");
    };
    assert_eq!((totals.roots, totals.fallbacks), (6, 5));
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_gives_relays_nothing_is_left_alone() {
    let run = Run::new();
    run.while_heard(async {
        for node in 1..=3 {
            run.join(node).await.unwrap();
        }
        let failed = |why: &str| FromRelay::SourceFailed {
            image: "prepull/app".into(),
            why: why.into(),
        };
        run.world.says(1, &failed("403\u{1b}[2J"));
        run.gone(1).await;
        run.world.says(
            2,
            &FromRelay::Orphaned {
                image: "prepull/app".into(),
            },
        );
        run.told(2, is_source).await;
        run.world.says(2, &failed("403\u{1b}[2J"));
        run.gone(2).await;
        run.gone(3).await;
        let failure = run.join(4).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::NodeSetup);
        assert!(failure.detail.contains("403"), "{failure}");
        assert!(!failure.detail.contains('\u{1b}'), "{failure}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_login_is_renewed_but_not_for_ever() {
    let run = Run::new();
    run.while_heard(async {
        run.join(1).await.unwrap();
        run.told(1, is_source).await;
        let refused = FromRelay::Unauthorized {
            image: "prepull/app".into(),
            challenge: None,
        };
        for _ in 0..5 {
            run.world.says(1, &refused);
            run.told(1, is_source).await;
        }
        run.world.says(1, &refused);
        run.gone(1).await;
        assert_eq!(run.world.lock().origins, 6);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_says_what_cannot_be_loses_its_relay() {
    for garbage in ["not JSON\n".to_string(), "a".repeat(1 << 20)] {
        let run = Run::new();
        run.while_heard(async {
            run.join(1).await.unwrap();
            run.world.prints(1, &garbage);
            run.gone(1).await;
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_node_refuses_is_shown() {
    let run = Run::new();
    run.world.lock().refusal = Some("refused it runs SunOS\u{7}, not Linux".into());
    let failure = run.join(1).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::NodeSetup);
    assert!(failure.detail.contains("SunOS\\u{7}"), "{failure}");

    run.world.lock().refusal = Some("here riscv64 1000000 10.0.0.1 /var/tmp".into());
    let failure = run.join(1).await.unwrap_err();
    assert!(failure.detail.contains("no relay for riscv64"), "{failure}");

    run.world.lock().refusal = Some("here x86_64 10 10.0.0.1 /var/tmp".into());
    let failure = run.join(1).await.unwrap_err();
    assert!(
        failure.detail.contains("/var/tmp has room for 10.2 kB"),
        "{failure}"
    );
}

#[tokio::test(start_paused = true)]
async fn at_the_end_all_relays_are_told_to_end_and_what_they_sent_is_known() {
    let run = Run::new();
    run.while_heard(async {
        run.join(1).await.unwrap();
        run.join(2).await.unwrap();
        let sent = Stats {
            from_registry: 1010,
            ..Stats::default()
        };
        run.world.says(1, &FromRelay::Stats(sent));
        let sent = Stats {
            from_peers: 990,
            ..Stats::default()
        };
        run.world.says(2, &FromRelay::Stats(sent));
        tokio::time::sleep(Duration::from_secs(5)).await;
    })
    .await;
    let told = std::mem::take(&mut *run.facts.lock().unwrap());
    // Once: what does not change is not told again.
    let [EventKind::FanOut { totals }] = &told[..] else {
        panic!("{told:#?}");
    };
    assert_eq!((totals.roots, totals.from_peers), (1, 990));
    let (world, ended) = (run.world.clone(), Arc::new(Mutex::new(None)));
    let seen = Arc::clone(&ended);
    run.hub.after(1, async move {
        let has_ended = world.lock().told[&1].contains(&ToRelay::End {});
        *seen.lock().unwrap() = Some(has_ended);
    });
    let totals = run.hub.finish().await;
    // Its connection would be closed then.
    assert_eq!(*ended.lock().unwrap(), Some(true));
    for node in [1, 2] {
        assert!(run.world.told(node).contains(&ToRelay::End {}), "{node}");
    }
    assert_eq!((totals.nodes, totals.roots, totals.depth), (2, 1, 2));
    assert_eq!((totals.from_source, totals.from_peers), (1010, 990));
    assert!((totals.copies() - 1.01).abs() < 1e-9, "{totals:?}");
    assert_eq!(totals.fallbacks, 0);
}
