//! The order of Ansible's groups: depth, priority, name; who is above whom; who is a member.

use std::collections::{HashSet, VecDeque};

use super::super::error::Position;
use super::variables::{Spot, Variables};

/// The group that every host is in.
pub(super) const ALL: usize = 0;
/// The group of the hosts that are in no other.
pub(super) const UNGROUPED: usize = 1;

/// One group.
#[derive(Debug)]
pub(super) struct GroupNode {
    pub name: String,
    pub variables: Variables,
    pub priority: i64,
    pub children: Vec<usize>,
    /// Each with where it was said.
    pub parents: Vec<(usize, Spot)>,
    /// The hosts that it lists itself.
    pub hosts: Vec<usize>,
}

impl GroupNode {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_string(),
            variables: Variables::new(),
            priority: 1,
            children: Vec::new(),
            parents: Vec::new(),
            hosts: Vec::new(),
        }
    }
}

/// Puts groups without parents below `all` and gives each group its rank: what comes later wins.
///
/// # Errors
/// A group that is above itself, and where that was said.
pub(super) fn ranks(groups: &mut [GroupNode]) -> Result<Vec<usize>, (usize, Spot)> {
    for index in 1..groups.len() {
        if groups[index].parents.is_empty() {
            let nowhere = Spot {
                file: 0,
                place: Position::default(),
            };
            groups[index].parents.push((ALL, nowhere));
            groups[ALL].children.push(index);
        }
    }
    // Longest way from the top: parents are finished before their children.
    let mut depths = vec![0_usize; groups.len()];
    let mut waiting: Vec<usize> = groups.iter().map(|group| group.parents.len()).collect();
    let mut ready: VecDeque<usize> = (0..groups.len()).filter(|i| waiting[*i] == 0).collect();
    let mut done = 0;
    while let Some(parent) = ready.pop_front() {
        done += 1;
        for &child in &groups[parent].children {
            depths[child] = depths[child].max(depths[parent] + 1);
            waiting[child] -= 1;
            if waiting[child] == 0 {
                ready.push_back(child);
            }
        }
    }
    if done < groups.len() {
        return Err(cycle(groups, &waiting));
    }
    let mut order: Vec<usize> = (0..groups.len()).collect();
    order.sort_by(|&a, &b| {
        let key = |i: usize| (depths[i], groups[i].priority, &groups[i].name);
        key(a).cmp(&key(b))
    });
    let mut ranks = vec![0; groups.len()];
    for (rank, group) in order.into_iter().enumerate() {
        ranks[group] = rank;
    }
    Ok(ranks)
}

/// A group on a ring: going up from an unfinished group through unfinished ones, until one comes again.
fn cycle(groups: &[GroupNode], waiting: &[usize]) -> (usize, Spot) {
    let mut seen = HashSet::new();
    let mut at = waiting.iter().position(|left| *left > 0).unwrap_or(ALL);
    loop {
        let above = groups[at].parents.iter().find(|(up, _)| waiting[*up] > 0);
        // An unfinished group has an unfinished parent, else it would be finished.
        let Some((up, spot)) = above else {
            let place = Position::default();
            return (at, Spot { file: 0, place });
        };
        if !seen.insert(at) {
            return (at, *spot);
        }
        at = *up;
    }
}

/// These groups and all above them.
pub(super) fn ancestors(groups: &[GroupNode], from: &[usize]) -> Vec<usize> {
    let mut seen: HashSet<usize> = from.iter().copied().collect();
    let mut found = from.to_vec();
    let mut next = 0;
    while next < found.len() {
        for (parent, _) in &groups[found[next]].parents {
            if seen.insert(*parent) {
                found.push(*parent);
            }
        }
        next += 1;
    }
    found
}

/// The hosts of a group and the groups below it, level by level, at most about `limit`.
pub(super) fn members(groups: &[GroupNode], from: usize, limit: usize) -> Vec<usize> {
    let mut seen = HashSet::from([from]);
    let mut below = vec![from];
    let (mut known, mut members) = (HashSet::new(), Vec::new());
    let mut next = 0;
    while next < below.len() && members.len() < limit {
        let group = &groups[below[next]];
        members.extend(group.hosts.iter().filter(|host| known.insert(**host)));
        below.extend(group.children.iter().filter(|child| seen.insert(**child)));
        next += 1;
    }
    members
}
