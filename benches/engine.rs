//! The engine alone, against nodes that answer at once and in memory: what a run costs in time and memory, without a
//! network. `cargo bench --bench engine` prints the table; the budget is 3 s and 300 MiB for
//! 100,000 nodes x 3 images.
//!
//! `engine run NODES` is one run by itself, which `benches/instructions` counts.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // no part of the program: a panic is a failed measurement

mod scripted;

use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use prepull::engine::{self, Supply};
use prepull::model::{
    Backoff, EventKind, ExitStatus, Failure, FailureKind, Fleet, Node, Outcome, Plan, PlannedImage,
    Policy, RegistryLogin, RuntimeKind, Stage, Work,
};
use prepull::node::word;
use prepull::ports::{Channel, ChannelEvent, CredentialSource, Session, Transport};
use prepull::runtime;
use scripted::{Answer, Pulls};
use tokio::sync::{mpsc, watch};

const IMAGES: [&str; 3] = [
    "registry.example/team/app:v1",
    "registry.example/team/web:v1",
    "registry.example/team/db:v1",
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["run", nodes] => run(nodes.parse().unwrap()),
        _ => table(),
    }
}

/// Every size in a process of its own: memory is a process's.
fn table() {
    println!(
        "| nodes | images | s | us per image | peak MiB |\n| ---: | ---: | ---: | ---: | ---: |"
    );
    for nodes in ["1000", "10000", "100000"] {
        let this = std::env::current_exe().unwrap();
        let output = Command::new(this).args(["run", nodes]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        print!("{}", String::from_utf8(output.stdout).unwrap());
    }
}

fn run(nodes: usize) {
    let began = Instant::now();
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let plan = plan(nodes);
    let (facts, mut receiver) = mpsc::channel(4096);
    let (_stop, stop) = watch::channel(None);
    let runtimes = runtime::all();
    let (finish, told) = tokio.block_on(async {
        let running = engine::run(
            &plan,
            &InMemory,
            &runtimes,
            &NoLogins,
            Supply::default(),
            facts,
            stop,
        );
        let counting = async {
            let mut told = 0;
            while let Some((_, fact)) = receiver.recv().await {
                told += usize::from(matches!(fact, EventKind::Finished { .. }));
            }
            told
        };
        tokio::join!(running, counting)
    });
    let items = nodes * IMAGES.len();
    assert_eq!(told, items);
    let failed = finish.nodes.iter().flat_map(|node| &node.items);
    let failed = failed
        .filter(|item| matches!(item.outcome, Outcome::Failed(_)))
        .count();
    assert_eq!(
        failed,
        (0..nodes).filter(|node| node % 10 == 0).count() * IMAGES.len()
    );
    let took = began.elapsed();
    println!(
        "| {nodes} | {} | {:.2} | {:.1} | {} |",
        IMAGES.len(),
        took.as_secs_f64(),
        took.as_secs_f64() * 1e6 / items as f64,
        peak_mib()
    );
}

fn plan(nodes: usize) -> Plan {
    let node = |number: usize| Node {
        runtime: Some(RuntimeKind::Docker),
        user: "ops".into(),
        ..Node::named(&format!("node-{number:06}"))
    };
    let planned = |image: &&str| PlannedImage {
        image: image.parse().unwrap(),
        login: None,
    };
    Plan {
        pull_token: "bench".into(),
        ..Plan::new(
            Fleet::new((0..nodes).map(node).collect()).unwrap(),
            Work::Pull(IMAGES.iter().map(planned).collect()),
            Policy {
                parallel: 512,
                backoff: Backoff {
                    min: Duration::from_millis(1),
                    max: Duration::from_millis(4),
                },
                ..Policy::default()
            },
        )
    }
}

/// Nobody logs in.
struct NoLogins;

impl CredentialSource for NoLogins {
    fn ask(&self) -> BoxFuture<'_, Result<Vec<Option<RegistryLogin>>, String>> {
        Box::pin(async { Ok(vec![None; IMAGES.len()]) })
    }
}

/// One node of ten fails: every other of these cannot be reached, and is tried again.
struct InMemory;

impl Transport for InMemory {
    type Session = Connection;

    async fn connect(
        &self,
        node: &Node,
        progress: &(dyn Fn(Stage) + Send + Sync),
    ) -> Result<Connection, Failure> {
        let number: usize = node.name["node-".len()..].parse().unwrap();
        progress(Stage::Connect);
        tokio::task::yield_now().await;
        if number % 20 == 10 {
            let words = "connection refused";
            return Err(Failure::new(
                FailureKind::Unreachable,
                Stage::Connect,
                words,
            ));
        }
        progress(Stage::Authenticate);
        Ok(Connection(if number.is_multiple_of(20) {
            Pulls::Fail
        } else {
            Pulls::Succeed
        }))
    }
}

struct Connection(Pulls);

impl Session for Connection {
    type Channel = Running;

    async fn exec(&mut self, _: &str) -> Result<Running, Failure> {
        Ok(Running {
            pulls: self.0,
            node: scripted::Node::default(),
            answer: None,
            closing: false,
        })
    }

    async fn close(self) {}
}

struct Running {
    pulls: Pulls,
    node: scripted::Node,
    answer: Option<Answer>,
    closing: bool,
}

impl Channel for Running {
    async fn write(&mut self, bytes: Bytes) -> Result<(), Failure> {
        if &bytes[..] == word::DONE.as_bytes() {
            self.closing = true;
        } else if let Some(answer) = self.node.take(&bytes, self.pulls) {
            self.answer = Some(answer);
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<ChannelEvent>, Failure> {
        if let Some(answer) = self.answer.take() {
            tokio::task::yield_now().await;
            return Ok(Some(ChannelEvent::Stdout(answer.frames)));
        }
        if std::mem::take(&mut self.closing) {
            return Ok(Some(ChannelEvent::Exited(ExitStatus::Code(0))));
        }
        Ok(None)
    }
}

fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib / 1024
}
