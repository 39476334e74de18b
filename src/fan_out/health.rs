//! How the trees of a run are: what reporters are told while it goes on, and its totals.

use std::collections::{BTreeMap, BTreeSet};

use prepull_relay::protocol::Stats;

use super::hub::locked;
use super::state::State;
use crate::model::{EventKind, FanOutTotals};

impl State {
    /// No relay is given orders any more, so all of them end. What the trees looked like stays known.
    pub(super) fn end_all(&mut self) {
        self.last_shape = Some(self.planner.shape());
        self.relays.clear();
    }

    /// The totals up to now.
    pub(super) fn totals(&self) -> FanOutTotals {
        let shape = self.last_shape.unwrap_or_else(|| self.planner.shape());
        let sum = |bytes: fn(&Stats) -> u64| {
            let sent = self.sent.iter().map(|(_, sent)| bytes(&locked(sent)));
            sent.fold(0, u64::saturating_add)
        };
        let nodes: BTreeSet<usize> = self.sent.iter().map(|(node, _)| *node).collect();
        // Images may share layers.
        let parts = self.parts.iter();
        let blobs: BTreeMap<(&str, &str), u64> = parts
            .filter_map(|((_, architecture), parts)| Some((*architecture, parts.as_ref().ok()?)))
            .flat_map(|(architecture, parts)| {
                let blobs = parts.blobs.iter();
                blobs.map(move |(digest, size)| ((architecture, digest.as_str()), *size))
            })
            .collect();
        FanOutTotals {
            nodes: nodes.len(),
            roots: shape.roots,
            depth: shape.depth,
            from_source: sum(|sent| sent.from_registry),
            from_peers: sum(|sent| sent.from_peers),
            image_bytes: blobs.values().copied().fold(0, u64::saturating_add),
            fallbacks: self.fallbacks.len(),
        }
    }

    /// What changed since this was last asked: nodes that got nothing from others, then the totals.
    pub(super) fn news(&mut self) -> Vec<EventKind> {
        let untold = std::mem::take(&mut self.untold_fallbacks);
        let fallback = |node: usize| {
            let why = self.fallbacks.get(&node)?.clone();
            Some(EventKind::FanOutFallback { node, why })
        };
        let mut news: Vec<EventKind> = untold.into_iter().filter_map(fallback).collect();
        let totals = self.totals();
        if totals != self.told {
            self.told = totals;
            news.push(EventKind::FanOut { totals });
        }
        news
    }
}
