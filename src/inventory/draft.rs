//! What an inventory says, whatever its format, before levels are resolved.

use std::collections::{BTreeMap, HashMap};

use super::error::{InventoryError, Position};
use super::layers::NodeSettings;

/// What one source says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Draft {
    /// What errors call the source.
    pub source: String,
    /// What holds for all of its nodes.
    pub defaults: NodeSettings,
    /// Its groups, in order.
    pub groups: Vec<Group>,
    /// Its nodes, in order; one node may be mentioned several times.
    pub mentions: Vec<Mention>,
    /// Whether all mentions are host expressions, where a host under two explicit ports is two nodes.
    pub expressions: bool,
    /// Whether what another source says about a node counts more.
    pub gives_way: bool,
    /// The members of groups, by the group's index, where the format has an order of its own.
    pub member_order: BTreeMap<usize, Vec<String>>,
    /// Nodes that cannot be used as they were said, and why: an error for those who select them.
    pub refusals: HashMap<String, InventoryError>,
    /// What the operator should know of how it was read.
    pub warnings: Vec<String>,
}

/// A group and what is said for all of its nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its name, unique in the source.
    pub name: String,
    /// What holds for its nodes.
    pub settings: NodeSettings,
}

/// One mention of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mention {
    /// The node's name.
    pub name: String,
    /// What to dial where it is not the name.
    pub address: Option<String>,
    /// What the entry itself says.
    pub settings: NodeSettings,
    /// The groups it stands in here, nearest first, as indices into the draft's.
    pub groups: Vec<usize>,
    /// Where.
    pub place: Position,
}
