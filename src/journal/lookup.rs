//! What earlier runs tell of a new one: the forecast that was made for it, how long pulls took, what nodes held.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::SystemTime;

use super::folder::journals;
use super::recorded_run::{Listed, RecordedRun, State};
use super::{Header, JournalWork};
use crate::model::{
    EventKind, Foretold, History, Image, KeptState, Outcome, Overdue, Record, Sample, Via, Way,
};

/// How many journals are looked at: older runs say little of today.
const LOOKED_AT: usize = 200;
/// How many of them are read from beginning to end.
const READ: usize = 20;

/// The runs of this folder, the newest first; what cannot be read is passed over.
fn newest(folder: &Path) -> impl Iterator<Item = Listed> {
    let paths = journals(folder).unwrap_or_default();
    let newest = paths.into_iter().rev().take(LOOKED_AT);
    newest.filter_map(|path| Listed::read(&path).ok())
}

/// Of those that are over, all that was recorded; at most [`READ`] runs that are about one of these nodes.
fn read(folder: &Path, nodes: &[&str]) -> impl Iterator<Item = RecordedRun> {
    let wanted: HashSet<String> = nodes.iter().map(ToString::to_string).collect();
    let listed = newest(folder).filter(move |listed| {
        let header = &listed.past.header;
        let is_about_images = matches!(header.work, JournalWork::Pull(_) | JournalWork::Check(_));
        listed.past.state != State::Running
            && is_about_images
            && header.nodes.iter().any(|node| wanted.contains(&node.name))
    });
    let paths = listed.map(move |listed| folder.join(format!("{}.jsonl", listed.past.header.run)));
    paths
        .take(READ)
        .filter_map(|path| RecordedRun::read(&path).ok())
}

/// The newest forecast of a pull of these images on these nodes, unless they were pulled since.
pub fn foretold(folder: &Path, images: &[String], nodes: &[&str]) -> Option<Foretold> {
    let images: HashSet<&str> = images.iter().map(String::as_str).collect();
    let nodes: HashSet<&str> = nodes.iter().copied().collect();
    let is_same = |header: &Header| {
        let (JournalWork::Pull(named) | JournalWork::Probe(named)) = &header.work else {
            return false;
        };
        named.iter().map(String::as_str).collect::<HashSet<_>>() == images
            && header
                .nodes
                .iter()
                .map(|node| node.name.as_str())
                .collect::<HashSet<_>>()
                == nodes
    };
    let last = newest(folder).find(|listed| is_same(&listed.past.header))?;
    Some(Foretold {
        totals: last.past.end?.forecast?,
        run: last.past.header.run,
    })
}

/// How long pulls on these nodes took.
pub fn history(folder: &Path, nodes: &[&str]) -> History {
    let mut history = History::default();
    for (number, run) in read(folder, nodes).enumerate() {
        let JournalWork::Pull(images) = &run.header.work else {
            continue;
        };
        let mut samples = Vec::new();
        for (node, item, record) in run.outcomes() {
            let way = match record.delivery.as_ref().map(|delivery| delivery.via) {
                Some(Via::Ssh) => Some(Way::Ssh),
                // How fast that is depends on the other nodes.
                Some(Via::Peers | Via::Mirror) => None,
                Some(Via::Registry) | None => images
                    .get(item)
                    .and_then(|image| image.parse::<Image>().ok())
                    .map(|image| Way::Registry(image.registry().to_string())),
            };
            let node = run.header.nodes.get(node);
            if let (Some(way), Some(node), Some(bytes)) = (way, node, plain_bytes(record)) {
                let sample = Sample {
                    run: number,
                    bytes,
                    seconds: record.elapsed.as_secs_f64(),
                };
                samples.push((way, node, sample));
            }
        }
        if samples.iter().any(|(_, _, sample)| sample.bytes > 0) {
            history.add_run(number, at_once(&run));
        }
        for (way, node, sample) in samples {
            history.add(way, &node.name, sample);
        }
    }
    history
}

/// The bytes of an image that came at the first try; a time with retries and pauses in it says nothing of a rate.
fn plain_bytes(record: &Record) -> Option<u64> {
    let [only] = record.attempts.as_slice() else {
        return None;
    };
    match &record.outcome {
        _ if only.failure.is_some() => None,
        Outcome::Pulled(_) => record.arrived,
        Outcome::Present(_) => Some(record.arrived.unwrap_or(0)),
        _ => None,
    }
}

/// The most nodes that were at work at one time.
fn at_once(run: &RecordedRun) -> usize {
    let (mut now, mut most) = (0_usize, 0);
    for event in &run.events {
        match event.fact {
            EventKind::NodeStarted { .. } => now += 1,
            EventKind::NodeLeft { .. } => now = now.saturating_sub(1),
            _ => {}
        }
        most = most.max(now);
    }
    most
}

/// For each of these nodes the images that it held when a run last looked, by node and image, and which run that was.
pub fn last_held(folder: &Path, nodes: &[&str]) -> HashMap<(String, String), String> {
    let mut last: HashMap<(String, String), Option<String>> = HashMap::new();
    for run in read(folder, nodes) {
        let (JournalWork::Pull(images) | JournalWork::Check(images)) = &run.header.work else {
            continue;
        };
        for (node, item, record) in run.outcomes() {
            let held = match &record.outcome {
                Outcome::Pulled(_) | Outcome::Present(_) => Some(run.header.run.clone()),
                Outcome::Missing => None,
                _ => continue,
            };
            if let (Some(node), Some(image)) = (run.header.nodes.get(node), images.get(item)) {
                let place = (node.name.clone(), image.clone());
                last.entry(place).or_insert(held);
            }
        }
    }
    last.into_iter()
        .filter_map(|(place, run)| Some((place, run?)))
        .collect()
}

/// The pulls that keep some of these images on some of these nodes for longer than was wanted at the time `now`; the
/// newest first, their nodes in the order of `nodes`. Where an image was kept again, or released, what came before does
/// not count.
pub fn overdue(folder: &Path, images: &[String], nodes: &[&str], now: SystemTime) -> Vec<Overdue> {
    let mut found = Vec::new();
    // By node and image; a release of all images has no image.
    let mut settled: HashSet<(String, Option<String>)> = HashSet::new();
    for listed in newest(folder) {
        let header = &listed.past.header;
        let released = released(header);
        if header.keep.is_none() && released.is_none() {
            continue;
        }
        let path = folder.join(format!("{}.jsonl", header.run));
        let Ok(run) = RecordedRun::read(&path) else {
            continue;
        };
        let mut places = Vec::new();
        for (node, item, record) in run.outcomes() {
            let Some(node) = run.header.nodes.get(node).map(|node| &node.name) else {
                continue;
            };
            match (&released, &run.header.work) {
                (Some([]), _) if record.outcome.is_ok() => places.push((node.clone(), None)),
                (Some(images), _) if record.outcome.is_ok() => {
                    places.extend(
                        images
                            .iter()
                            .map(|image| (node.clone(), Some(image.clone()))),
                    );
                }
                (None, JournalWork::Pull(pulled)) if is_pinned(record) => {
                    places.extend(
                        pulled
                            .get(item)
                            .map(|image| (node.clone(), Some(image.clone()))),
                    );
                }
                _ => {}
            }
        }
        if let Some(until) = run.header.keep.filter(|until| is_over(until, now)) {
            let is_open = |(node, image): &&(String, Option<String>)| {
                nodes.contains(&node.as_str())
                    && image.as_ref().is_some_and(|image| images.contains(image))
                    && !settled.contains(&(node.clone(), image.clone()))
                    && !settled.contains(&(node.clone(), None))
            };
            let open: HashSet<&str> = (places.iter().filter(is_open))
                .map(|(node, _)| node.as_str())
                .collect();
            let in_order = nodes.iter().filter(|node| open.contains(*node));
            let open: Vec<String> = in_order.map(ToString::to_string).collect();
            if !open.is_empty() {
                found.push(Overdue {
                    run: run.header.run,
                    until,
                    nodes: open,
                });
            }
        }
        settled.extend(places);
    }
    found
}

fn is_over(until: &str, now: SystemTime) -> bool {
    humantime::parse_rfc3339(until).is_ok_and(|until| until < now)
}

fn is_pinned(record: &Record) -> bool {
    let kept = record.kept.as_ref();
    kept.is_some_and(|kept| kept.state != KeptState::NotPinned)
}

/// The images that a `keep release` is about, empty for all of them; `None` for any other run. It runs a program on each
/// node: `sh -c SCRIPT release IMAGE...`.
fn released(header: &Header) -> Option<&[String]> {
    let mut words = header.arguments.iter().skip_while(|word| *word != "keep");
    let is_release = words.next().is_some() && words.next().is_some_and(|word| word == "release");
    match &header.work {
        JournalWork::Exec(words) if is_release => words.get(4..),
        _ => None,
    }
}
