//! The planner of `--fan-out` on a model of links: how long fleets take, against one node alone, and what the source sends,
//! with slow nodes and with nodes that die. `cargo bench --profile measure --bench fan_out` prints the tables.
//!
//! The model: full-duplex links, a node's upload shared evenly by those that take from it, chunks passed on once they are
//! whole, the source's rate shared by the roots. A node notices after two seconds that its parent is dead. Nodes join
//! evenly over four seconds.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // no part of the program: a panic is a failed measurement

use prepull::fan_out::{Place, Planner, Reached};

const IMAGE: f64 = (1_u64 << 30) as f64;
const CHUNK: f64 = (1_u64 << 20) as f64;
const STEP: f64 = 0.005;
const JOINING: f64 = 4.0;
const NOTICED: f64 = 2.0;
/// Seconds after which a fleet that is not done is given up: the model has a fault.
const LONGEST: f64 = 3600.0;
/// Bytes a second.
const MBIT: f64 = 1e6 / 8.0;

struct Case {
    name: &'static str,
    slow: f64,
    dying: f64,
}

const CASES: [Case; 3] = [
    Case {
        name: "all alike",
        slow: 0.0,
        dying: 0.0,
    },
    Case {
        name: "2 % at a tenth of the rate",
        slow: 0.02,
        dying: 0.0,
    },
    Case {
        name: "those, and 5 % die",
        slow: 0.02,
        dying: 0.05,
    },
];

struct Node {
    rate: f64,
    got: f64,
    joined: bool,
    dies: f64,
    parents: Vec<usize>,
    is_root: bool,
    waiting: f64,
    done: Option<f64>,
}

struct Ran {
    /// Of the last node that is neither slow nor dead, as a multiple of the time of one node alone.
    times: f64,
    /// Those that took more than half again as long as one alone.
    late: usize,
    copies: f64,
    depth: usize,
    /// Nodes that live, and did not get it.
    without: usize,
}

fn main() {
    println!(
        "| nodes | case | source / nodes, Mbit/s | time | late nodes | copies from the source | depth |\n\
         | ---: | --- | --- | ---: | ---: | ---: | ---: |"
    );
    for nodes in [100, 1_000, 10_000] {
        for case in &CASES {
            for (source, link) in [(200, 1_000), (600, 1_000), (1_000, 1_000), (1_000, 10_000)] {
                let ran = simulate(
                    nodes,
                    case,
                    f64::from(source) * MBIT,
                    f64::from(link) * MBIT,
                );
                assert_eq!(ran.without, 0, "nodes that live did not get it");
                println!(
                    "| {nodes} | {} | {source} / {link} | {:.2} | {} | {:.2} | {} |",
                    case.name, ran.times, ran.late, ran.copies, ran.depth
                );
            }
        }
    }
}

fn simulate(count: usize, case: &Case, source: f64, link: f64) -> Ran {
    let mut random = fastrand::Rng::with_seed(count as u64);
    let alone = IMAGE / source.min(link);
    let mut nodes: Vec<Node> = (0..count)
        .map(|number| Node {
            // The planner does not know how fast the first is, which no other has tried.
            rate: match number > 0 && random.f64() < case.slow {
                true => link / 10.0,
                false => link,
            },
            got: 0.0,
            joined: false,
            dies: match random.f64() < case.dying {
                true => random.f64() * (alone + JOINING),
                false => f64::INFINITY,
            },
            parents: Vec::new(),
            is_root: false,
            waiting: 0.0,
            done: None,
        })
        .collect();
    let mut planner = Planner::default();
    let (mut now, mut sent, mut depth) = (0.0, 0.0, 0);
    let mut next = 0;
    loop {
        while next < count && now >= JOINING * next as f64 / count as f64 {
            join(&mut planner, &mut nodes, next, now);
            next += 1;
        }
        if now == 0.0 || (now % 1.0) < STEP {
            depth = depth.max(planner.shape().depth);
        }
        let mut children = vec![0_u32; count];
        let mut roots = 0_u32;
        for node in nodes.iter().filter(|node| node.is_at_work(now)) {
            match node.parents.first() {
                Some(parent) => children[*parent] += 1,
                None => roots += u32::from(node.is_root),
            }
        }
        let before: Vec<f64> = nodes.iter().map(|node| node.got).collect();
        for number in 0..count {
            if !nodes[number].is_at_work(now) {
                continue;
            }
            let (rate, there) = match nodes[number].parents.first() {
                Some(parent) if nodes[*parent].dies > now => {
                    let whole = match before[*parent] >= IMAGE {
                        true => IMAGE,
                        false => (before[*parent] / CHUNK).floor() * CHUNK,
                    };
                    (nodes[*parent].rate / f64::from(children[*parent]), whole)
                }
                None if nodes[number].is_root => (source / f64::from(roots), IMAGE),
                _ => {
                    nodes[number].waiting += STEP;
                    if nodes[number].waiting >= NOTICED {
                        nodes[number].waiting = 0.0;
                        goes_on(&mut planner, &mut nodes[number], number);
                    }
                    continue;
                }
            };
            let node = &mut nodes[number];
            let bytes = (rate.min(node.rate) * STEP).min((there - node.got).max(0.0));
            node.got += bytes;
            if node.is_root {
                sent += bytes;
                planner.source_rate(number, rate.min(node.rate) as u64);
            }
            if node.got >= IMAGE {
                node.done = Some(now);
                planner.completed(number);
            }
        }
        for (number, node) in nodes.iter_mut().enumerate() {
            if node.joined && node.dies <= now {
                node.joined = false;
                planner.remove(number);
            }
        }
        now += STEP;
        let is_over = |node: &Node| node.done.is_some() || node.dies <= now;
        if next == count && nodes.iter().all(is_over) || now > LONGEST {
            break;
        }
    }
    let living = nodes.iter().filter(|node| node.dies > now);
    let without = living.filter(|node| node.done.is_none()).count();
    let fast = nodes.iter().filter(|node| node.rate >= link);
    let ends: Vec<f64> = fast.filter_map(|node| node.done).collect();
    Ran {
        times: ends.iter().copied().fold(0.0, f64::max) / alone,
        late: ends.iter().filter(|end| **end > 1.5 * alone).count(),
        copies: sent / IMAGE,
        depth,
        without,
    }
}

impl Node {
    fn is_at_work(&self, now: f64) -> bool {
        self.joined && self.done.is_none() && self.dies > now
    }
}

/// A node comes, tries those that it is told, and gets its place.
fn join(planner: &mut Planner, nodes: &mut [Node], number: usize, now: f64) {
    if nodes[number].dies <= now {
        return;
    }
    let own = nodes[number].rate;
    let tried: Vec<Reached> = planner
        .candidates("")
        .into_iter()
        .map(|node| Reached {
            node,
            rate: Some(own.min(nodes[node].rate) as u64),
        })
        .collect();
    let place = planner.join(number, "", &tried);
    nodes[number].joined = true;
    nodes[number].takes(place);
}

/// Its parent is dead: the next one, or those that the planner names.
fn goes_on(planner: &mut Planner, node: &mut Node, number: usize) {
    if node.parents.is_empty() {
        return;
    }
    let lost = node.parents.remove(0);
    planner.moved(number, lost);
    if node.parents.is_empty() {
        let place = planner.orphaned(number, &[lost]).unwrap();
        node.takes(place);
    }
}

impl Node {
    fn takes(&mut self, place: Place) {
        self.is_root = place == Place::Root;
        self.parents = match place {
            Place::Root => Vec::new(),
            Place::Below(parents) => parents,
        };
    }
}
