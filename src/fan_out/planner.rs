//! Who gets an image from whom: trees that grow as nodes join, and are mended as nodes are lost. Pure.
//!
//! Every node has a place in an order, and its parent and spare parents come before it. So no nodes ever wait for each
//! other in a circle, also while several of them go to their spares at the same time. A node that comes to fetch from the
//! source itself moves to the front of the order.

use std::collections::BTreeMap;

/// The most nodes that one node sends to at a time. [`Planner`] gives fewer where links are not faster than the source.
pub const MOST_CHILDREN: usize = 4;
/// And so many in any case: with fewer a tree is a chain.
const FEWEST_CHILDREN: usize = 2;
/// Parents that a node can go to by itself when the first is lost.
const SPARES: usize = 2;
/// Nodes of one group that a joining node is to try.
const CANDIDATES: usize = 3;
/// Groups that it is to try.
const GROUPS_TRIED: usize = 4;
/// A node whose rate is this part of the mean of its group, or less, sends to no other while others have room.
const SLOW: f64 = 0.25;
/// The part of its rate that a node can give away.
const USABLE: f64 = 0.8;

/// Where a node gets its images from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// From the source: a registry, or prepull itself.
    Root,
    /// From these nodes: the first, or the next where that one is lost. Never empty.
    Below(Vec<usize>),
}

/// What a joining node found out about another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reached {
    /// The other node.
    pub node: usize,
    /// How fast it sent, in bytes a second; `None` where the node was not reached.
    pub rate: Option<u64>,
}

/// What the trees look like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shape {
    /// Nodes in them.
    pub nodes: usize,
    /// Nodes that fetch from the source.
    pub roots: usize,
    /// Steps from the source to the node that is furthest from it; a root is 1.
    pub depth: usize,
}

/// The trees of a run. Nodes are numbers, as in the fleet.
#[derive(Debug, Default)]
pub struct Planner {
    groups: Vec<Group>,
    members: BTreeMap<usize, Member>,
    /// The last and the first place in the order that was given.
    last: i64,
    first: i64,
}

/// Nodes that need the same content and reach each other, as far as is known.
#[derive(Debug)]
struct Group {
    /// What they need: nodes of another architecture need other layers.
    content: String,
    members: Vec<usize>,
    /// The sum and the number of the rates that are known.
    rates: (f64, u32),
    /// How fast the source sends to a root, in bytes a second.
    source_rate: Option<u64>,
}

#[derive(Debug)]
struct Member {
    group: usize,
    order: i64,
    is_root: bool,
    /// Empty for a root, and for a node that lost all that it had.
    parents: Vec<usize>,
    rate: Option<u64>,
    is_complete: bool,
    /// Nodes that have it as their first parent, and are not complete.
    load: usize,
    /// Steps from the source when it was placed.
    depth: usize,
}

impl Planner {
    /// The nodes that a joining node should try: those that would be its parents, of several groups. None where it is to
    /// be the first.
    pub fn candidates(&self, content: &str) -> Vec<usize> {
        let groups = self
            .groups
            .iter()
            .enumerate()
            .filter(|(_, group)| group.content == content && !group.members.is_empty());
        groups
            .take(GROUPS_TRIED)
            .flat_map(|(index, _)| self.best(index, CANDIDATES, usize::MAX, |_, _| true))
            .collect()
    }

    /// Gives a node its place. It goes to the group that it reaches best, and where it reaches none becomes the root of a
    /// group of its own.
    pub fn join(&mut self, node: usize, content: &str, tried: &[Reached]) -> Place {
        self.remove(node);
        let rate = |reached: &&Reached| reached.rate;
        let best = tried
            .iter()
            .filter(|reached| self.is_of(reached.node, content))
            .filter(|reached| reached.rate.is_some())
            .max_by_key(rate);
        let Some(best) = best else {
            return self.found(node, content);
        };
        // It is there: it was found above.
        let group = self.members[&best.node].group;
        if let Some(rate) = best.rate {
            self.groups[group].rates.0 += rate as f64;
            self.groups[group].rates.1 += 1;
        }
        self.last += 1;
        let member = Member {
            group,
            order: self.last,
            is_root: false,
            parents: Vec::new(),
            rate: best.rate,
            is_complete: false,
            load: 0,
            depth: 0,
        };
        self.groups[group].members.push(node);
        self.members.insert(node, member);
        let unreached: Vec<usize> = tried
            .iter()
            .filter(|reached| reached.rate.is_none())
            .map(|reached| reached.node)
            .collect();
        self.place(node, &unreached)
    }

    /// How fast a root gets the image from the source, in bytes a second.
    pub fn source_rate(&mut self, root: usize, rate: u64) {
        if let Some(member) = self.members.get(&root) {
            self.groups[member.group].source_rate = Some(rate);
        }
    }

    /// The node has all of the image.
    pub fn completed(&mut self, node: usize) {
        let Some(member) = self.members.get_mut(&node).filter(|one| !one.is_complete) else {
            return;
        };
        member.is_complete = true;
        let parent = member.parents.first().copied();
        self.unload(parent);
    }

    /// The node lost this parent, and went to its next one by itself.
    pub fn moved(&mut self, node: usize, lost: usize) {
        let Some(member) = self.members.get_mut(&node) else {
            return;
        };
        let is_first = member.parents.first() == Some(&lost);
        member.parents.retain(|parent| *parent != lost);
        let (next, is_complete) = (member.parents.first().copied(), member.is_complete);
        if is_first {
            self.unload(Some(lost));
            if let (Some(next), false) = (next, is_complete) {
                self.load(next);
            }
        }
    }

    /// A new place for a node that has no parent left. It does not get those again that it tells of as lost.
    pub fn orphaned(&mut self, node: usize, lost: &[usize]) -> Option<Place> {
        let member = self.members.get_mut(&node)?;
        if member.is_root {
            return Some(Place::Root);
        }
        let parent = std::mem::take(&mut member.parents).first().copied();
        if !member.is_complete {
            self.unload(parent);
        }
        // One that nobody waits for may go to the end of the order, where all others can be its parents.
        let is_needed = self
            .members
            .values()
            .any(|other| other.parents.contains(&node));
        if !is_needed {
            self.last += 1;
            let last = self.last;
            self.members.get_mut(&node)?.order = last;
        }
        Some(self.place(node, lost))
    }

    /// Forgets a node: it ended, or cannot be reached any more. Those below it go to their spares by themselves.
    pub fn remove(&mut self, node: usize) {
        let Some(gone) = self.members.remove(&node) else {
            return;
        };
        if !gone.is_complete {
            self.unload(gone.parents.first().copied());
        }
        let group = &mut self.groups[gone.group];
        group.members.retain(|member| *member != node);
        if let Some(rate) = gone.rate {
            group.rates.0 -= rate as f64;
            group.rates.1 -= 1;
        }
        let children: Vec<usize> = self
            .members
            .iter()
            .filter(|(_, member)| member.parents.contains(&node))
            .map(|(child, _)| *child)
            .collect();
        for child in children {
            self.moved(child, node);
        }
    }

    /// Whether it fetches from the source.
    pub fn is_root(&self, node: usize) -> bool {
        self.members.get(&node).is_some_and(|member| member.is_root)
    }

    /// Its parents, in the order in which it tries them; none for a root.
    pub fn parents(&self, node: usize) -> &[usize] {
        let member = self.members.get(&node);
        member.map_or(&[], |member| &member.parents)
    }

    /// Whether it has a place.
    pub fn has(&self, node: usize) -> bool {
        self.members.contains_key(&node)
    }

    /// What the trees look like.
    pub fn shape(&self) -> Shape {
        let mut members: Vec<(&usize, &Member)> = self.members.iter().collect();
        members.sort_unstable_by_key(|(_, member)| member.order);
        let mut depths: BTreeMap<usize, usize> = BTreeMap::new();
        let mut shape = Shape {
            nodes: members.len(),
            ..Shape::default()
        };
        for (node, member) in members {
            let parent = member.parents.first();
            shape.roots += usize::from(member.is_root);
            let depth = 1 + parent.and_then(|parent| depths.get(parent)).unwrap_or(&0);
            depths.insert(*node, depth);
            shape.depth = shape.depth.max(depth);
        }
        shape
    }

    /// The first of a group of its own.
    fn found(&mut self, node: usize, content: &str) -> Place {
        self.first -= 1;
        let member = Member {
            group: self.groups.len(),
            order: self.first,
            is_root: true,
            parents: Vec::new(),
            rate: None,
            is_complete: false,
            load: 0,
            depth: 1,
        };
        self.groups.push(Group {
            content: content.to_string(),
            members: vec![node],
            rates: (0.0, 0),
            source_rate: None,
        });
        self.members.insert(node, member);
        Place::Root
    }

    /// Parents for a member that has none, from those before it; where there are none it becomes a root.
    fn place(&mut self, node: usize, unreached: &[usize]) -> Place {
        let (group, order) = match self.members.get(&node) {
            Some(member) => (member.group, member.order),
            None => return Place::Root,
        };
        let may_send = |other: usize, member: &Member| {
            member.order < order && other != node && !unreached.contains(&other)
        };
        let parent = self.best(group, 1, node, may_send).first().copied();
        let Some(parent) = parent else {
            self.first -= 1;
            let first = self.first;
            if let Some(member) = self.members.get_mut(&node) {
                (member.order, member.depth, member.is_root) = (first, 1, true);
            }
            return Place::Root;
        };
        let is_spare = |other: usize, member: &Member| other != parent && may_send(other, member);
        let mut parents = vec![parent];
        parents.extend(self.least_busy(group, node, is_spare));
        let depth = self
            .members
            .get(&parent)
            .map_or(1, |member| member.depth + 1);
        if let Some(member) = self.members.get_mut(&node) {
            member.parents.clone_from(&parents);
            member.depth = depth;
            if !member.is_complete {
                self.load(parent);
            }
        }
        Place::Below(parents)
    }

    /// The best parents in a group: those with room, not slow, that have all of it already or are near the source.
    fn best(
        &self,
        group: usize,
        number: usize,
        seed: usize,
        may_send: impl Fn(usize, &Member) -> bool,
    ) -> Vec<usize> {
        self.lowest(group, number, may_send, |node, member| {
            let load = member.load;
            let is_full = load >= self.most_children(member);
            let depth = if member.is_complete { 0 } else { member.depth };
            let is_slow = self.is_slow(member);
            (is_full, is_slow, depth, load, mixed(seed, node))
        })
    }

    /// Spares: those that send the least now, others for each node.
    fn least_busy(
        &self,
        group: usize,
        seed: usize,
        may_send: impl Fn(usize, &Member) -> bool,
    ) -> Vec<usize> {
        self.lowest(group, SPARES, may_send, |node, member| {
            (self.is_slow(member), member.load, mixed(seed, node))
        })
    }

    fn lowest<K: Ord + Copy>(
        &self,
        group: usize,
        number: usize,
        may_send: impl Fn(usize, &Member) -> bool,
        key: impl Fn(usize, &Member) -> K,
    ) -> Vec<usize> {
        // A handful: kept in order while all are looked at once.
        let mut lowest: Vec<(K, usize)> = Vec::with_capacity(number + 1);
        for node in &self.groups[group].members {
            let Some(member) = self.members.get(node) else {
                continue;
            };
            if !may_send(*node, member) {
                continue;
            }
            let key = key(*node, member);
            let at = lowest.partition_point(|(other, _)| *other <= key);
            if at < number {
                lowest.insert(at, (key, *node));
                lowest.truncate(number);
            }
        }
        lowest.into_iter().map(|(_, node)| node).collect()
    }

    /// How many a node may send to, by the rates that are known.
    fn most_children(&self, member: &Member) -> usize {
        let group = &self.groups[member.group];
        let rate = member.rate.map(|rate| rate as f64).or_else(|| group.mean());
        match (rate, group.source_rate) {
            (Some(rate), Some(source)) if source > 0 => {
                // A fraction of a length fits, and what is beyond is cut.
                let children = (USABLE * rate / source as f64) as usize;
                children.clamp(FEWEST_CHILDREN, MOST_CHILDREN)
            }
            _ => FEWEST_CHILDREN,
        }
    }

    fn is_slow(&self, member: &Member) -> bool {
        let mean = self.groups[member.group].mean();
        match (member.rate, mean) {
            (Some(rate), Some(mean)) => rate as f64 <= mean * SLOW,
            _ => false,
        }
    }

    fn is_of(&self, node: usize, content: &str) -> bool {
        let group = self.members.get(&node).map(|member| member.group);
        group.is_some_and(|group| self.groups[group].content == content)
    }

    fn load(&mut self, node: usize) {
        if let Some(member) = self.members.get_mut(&node) {
            member.load += 1;
        }
    }

    fn unload(&mut self, node: Option<usize>) {
        if let Some(member) = node.and_then(|node| self.members.get_mut(&node)) {
            member.load = member.load.saturating_sub(1);
        }
    }
}

impl Group {
    fn mean(&self) -> Option<f64> {
        (self.rates.1 > 0).then(|| self.rates.0 / f64::from(self.rates.1))
    }
}

/// Spreads nodes evenly over others (the finaliser of splitmix64).
fn mixed(seed: usize, node: usize) -> u64 {
    let mut x = (seed as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ node as u64;
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AMD64: &str = "linux/amd64";

    fn reached(nodes: &[usize], rate: u64) -> Vec<Reached> {
        let reached = |node: &usize| Reached {
            node: *node,
            rate: Some(rate),
        };
        nodes.iter().map(reached).collect()
    }

    /// A group whose nodes all reach each other at these rates, in this order.
    fn grown(rates: &[u64]) -> Planner {
        let mut planner = Planner::default();
        for (node, rate) in rates.iter().enumerate() {
            let candidates = planner.candidates(AMD64);
            planner.join(node, AMD64, &reached(&candidates, *rate));
        }
        planner
    }

    fn parent(planner: &Planner, node: usize) -> Option<usize> {
        planner.members[&node].parents.first().copied()
    }

    #[test]
    fn the_first_is_the_root_and_the_others_make_a_shallow_tree() {
        let planner = grown(&[1000; 15]);
        assert_eq!(parent(&planner, 0), None);
        assert_eq!([1, 2].map(|node| parent(&planner, node)), [Some(0); 2]);
        let shape = planner.shape();
        assert_eq!((shape.nodes, shape.roots, shape.depth), (15, 1, 4));
    }

    #[test]
    fn links_that_are_faster_than_the_source_get_more_children() {
        let mut planner = Planner::default();
        planner.join(0, AMD64, &[]);
        planner.source_rate(0, 100);
        for node in 1..6 {
            planner.join(node, AMD64, &reached(&[0], 1000));
        }
        let children = (1..6).filter(|node| parent(&planner, *node) == Some(0));
        assert_eq!(children.count(), 4);
        // 0.8 x 300 / 100.
        let mut planner = Planner::default();
        planner.join(0, AMD64, &[]);
        planner.source_rate(0, 100);
        for node in 1..6 {
            planner.join(node, AMD64, &reached(&[0], 300));
        }
        let children = (1..6).filter(|node| parent(&planner, *node) == Some(0));
        assert_eq!(children.count(), 2);
    }

    #[test]
    fn slow_nodes_are_leaves() {
        let mut rates = vec![1000; 60];
        for slow in [3, 10, 20, 30] {
            rates[slow] = 100;
        }
        let planner = grown(&rates);
        for (node, member) in &planner.members {
            let parents = &member.parents;
            let is_slow = |parent: &usize| rates[*parent] == 100;
            assert!(!parents.iter().any(is_slow), "{node} below {parents:?}");
        }
    }

    #[test]
    fn another_architecture_and_another_site_have_roots_of_their_own() {
        let mut planner = grown(&[1000; 3]);
        assert_eq!(planner.candidates("linux/arm64"), [0; 0]);
        assert_eq!(planner.join(3, "linux/arm64", &[]), Place::Root);
        let unreached: Vec<Reached> = planner
            .candidates(AMD64)
            .into_iter()
            .map(|node| Reached { node, rate: None })
            .collect();
        assert!(!unreached.is_empty());
        assert_eq!(planner.join(4, AMD64, &unreached), Place::Root);
        // The next of that site tries both, and goes to the one that it reaches.
        assert!(planner.candidates(AMD64).contains(&4));
        let tried = [&unreached[..], &reached(&[4], 10)].concat();
        assert_eq!(planner.join(5, AMD64, &tried), Place::Below(vec![4]));
    }

    #[test]
    fn a_node_that_has_all_of_it_serves_first() {
        let mut planner = grown(&[1000; 4]);
        planner.completed(3);
        let candidates = planner.candidates(AMD64);
        assert_eq!(candidates[0], 3);
        let Place::Below(parents) = planner.join(4, AMD64, &reached(&candidates, 1000)) else {
            panic!("a root");
        };
        assert_eq!(parents[0], 3);
    }

    #[test]
    fn one_of_the_children_of_a_dead_root_takes_its_place() {
        let mut planner = grown(&[1000; 7]);
        let children: Vec<usize> = (0..7).filter(|n| parent(&planner, *n) == Some(0)).collect();
        planner.remove(0);
        let first = children[0];
        // It had no spare: all others joined after it.
        assert_eq!(planner.orphaned(first, &[0]), Some(Place::Root));
        assert_eq!(planner.shape().roots, 1);
        assert_eq!(planner.shape().nodes, 6);
        assert_eq!(planner.orphaned(0, &[]), None, "it is gone");
    }

    #[test]
    fn an_orphan_is_not_sent_back_to_those_that_it_lost() {
        let mut planner = grown(&[1000; 3]);
        let Some(Place::Below(parents)) = planner.orphaned(2, &[0]) else {
            panic!("a root");
        };
        assert_eq!(parents, [1]);
        assert_eq!(planner.orphaned(2, &[0, 1]), Some(Place::Root));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Join(u64, bool),
        Lose(usize),
        Orphan(usize),
        Complete(usize),
        SourceRate(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (1_u64..2000, prop::bool::weighted(0.9)).prop_map(|(rate, is)| Step::Join(rate, is)),
            2 => any::<usize>().prop_map(Step::Lose),
            2 => any::<usize>().prop_map(Step::Orphan),
            1 => any::<usize>().prop_map(Step::Complete),
            1 => (1_u64..2000).prop_map(Step::SourceRate),
        ];
        prop::collection::vec(step, 1..150)
    }

    /// No parent comes after its child, so nothing runs in a circle, and all that are named are there.
    fn check(planner: &Planner) -> Result<(), TestCaseError> {
        let mut loads: BTreeMap<usize, usize> = BTreeMap::new();
        for (node, member) in &planner.members {
            for parent in &member.parents {
                let above = planner.members.get(parent);
                prop_assert!(above.is_some(), "{node} below {parent}, which is gone");
                prop_assert!(above.is_some_and(|above| above.order < member.order));
                prop_assert!(!member.is_root);
                prop_assert_eq!(above.map(|above| above.group), Some(member.group));
            }
            if let Some(parent) = member.parents.first().filter(|_| !member.is_complete) {
                *loads.entry(*parent).or_default() += 1;
            }
        }
        for (node, member) in &planner.members {
            let load = loads.get(node).copied().unwrap_or_default();
            prop_assert_eq!(member.load, load, "of {}", node);
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn whatever_is_lost_nothing_waits_in_a_circle(steps in steps()) {
            let mut planner = Planner::default();
            for (number, step) in steps.into_iter().enumerate() {
                let nodes: Vec<usize> = planner.members.keys().copied().collect();
                let chosen = |at: usize| nodes.get(at % nodes.len().max(1)).copied();
                match step {
                    Step::Join(rate, is_reached) => {
                        let tried: Vec<Reached> = planner
                            .candidates(AMD64)
                            .into_iter()
                            .map(|node| Reached { node, rate: is_reached.then_some(rate) })
                            .collect();
                        let place = planner.join(number, AMD64, &tried);
                        if let Place::Below(parents) = place {
                            let parent = &planner.members[&parents[0]];
                            prop_assert!(parent.load <= MOST_CHILDREN, "{} children", parent.load);
                        }
                    }
                    Step::Lose(at) => if let Some(node) = chosen(at) {
                        planner.remove(node);
                        prop_assert!(!planner.has(node));
                    },
                    Step::Orphan(at) => if let Some(node) = chosen(at) {
                        let parents = planner.members[&node].parents.clone();
                        match planner.orphaned(node, &parents) {
                            Some(Place::Below(new)) => {
                                prop_assert!(!new.iter().any(|one| parents.contains(one)));
                            }
                            Some(Place::Root) => prop_assert!(planner.members[&node].parents.is_empty()),
                            None => prop_assert!(false, "it is there"),
                        }
                    },
                    Step::Complete(at) => if let Some(node) = chosen(at) {
                        planner.completed(node);
                    },
                    Step::SourceRate(rate) => if let Some(node) = nodes.first() {
                        planner.source_rate(*node, rate);
                    },
                }
                check(&planner)?;
            }
        }
    }
}
