//! What will be done, decided before anything is touched: fleet, work and policy.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use super::choice::{PullVia, PullWhen};
use super::content::Manifest;
use super::facts::LocalImage;
use super::image::Image;
use super::keep::Keep;
use super::mirror::Mirror;
use super::node::Fleet;
use super::secret::Credential;

/// Fleet, work and policy.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The nodes, in order.
    pub fleet: Fleet,
    /// What is done on each of them.
    pub work: Work,
    /// How.
    pub policy: Policy,
    /// What an earlier run left on nodes, by the numbers of node and item: left alone in this one.
    pub already_present: HashMap<(usize, usize), LocalImage>,
    /// What the registry says the images are made of, where it was asked: one entry for each item, or none at all.
    pub contents: Vec<Option<Vec<Manifest>>>,
    /// Whether nodes are also asked which layers they hold, for a forecast of a pull.
    pub forecast: bool,
    /// Names the run's pulls on nodes, so that they are found again, also by a run that resumes this one.
    pub pull_token: String,
}

impl Plan {
    /// The plan of a first run: nothing was done before, no registry was asked, and pulls have no name yet.
    pub fn new(fleet: Fleet, work: Work, policy: Policy) -> Self {
        Self {
            fleet,
            work,
            policy,
            already_present: HashMap::new(),
            contents: Vec::new(),
            forecast: false,
            pull_token: String::new(),
        }
    }

    /// Whether nodes are asked before any of them pulls.
    pub fn wants_preflight(&self) -> bool {
        self.policy.preflight.is_some() && self.work.uses_registry()
    }
}

/// A new name for a run's pulls on nodes. Other users of a node see it, so it says nothing.
pub fn pull_token() -> String {
    format!("{:032x}", fastrand::u128(..))
}

/// What is done on every node: one or more items.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Work {
    /// Pull these images, in order.
    Pull(Vec<PlannedImage>),
    /// Say whether these images are there; change nothing.
    Check(Vec<Image>),
    /// Run this command: program and arguments, no shell.
    Exec(Vec<String>),
    /// Find out what the node is and has, and whether these images are there; change nothing.
    Probe(Vec<PlannedImage>),
}

impl Work {
    /// The images that registries can be asked about before anything is done.
    pub fn planned(&self) -> &[PlannedImage] {
        match self {
            Self::Pull(images) | Self::Probe(images) => images,
            Self::Check(_) | Self::Exec(_) => &[],
        }
    }

    /// How many items each node has; every one of them ends with exactly one outcome.
    pub fn items(&self) -> usize {
        match self {
            Self::Pull(images) => images.len(),
            Self::Check(images) => images.len(),
            Self::Exec(_) | Self::Probe(_) => 1,
        }
    }

    /// The image that is item `index`; `None` past the end and where an item is not an image.
    pub fn image(&self, index: usize) -> Option<&Image> {
        match self {
            Self::Pull(images) => images.get(index).map(|planned| &planned.image),
            Self::Check(images) => images.get(index),
            Self::Exec(_) | Self::Probe(_) => None,
        }
    }

    /// The operator's login for the registry of item `index`.
    pub fn login(&self, index: usize) -> Option<&Credential> {
        match self {
            Self::Pull(images) => images.get(index)?.login.as_ref(),
            Self::Check(_) | Self::Exec(_) | Self::Probe(_) => None,
        }
    }

    /// Whether nodes talk to registries: then registries can refuse, be overrun, and fail for all nodes alike.
    pub fn uses_registry(&self) -> bool {
        matches!(self, Self::Pull(_))
    }

    /// Whether it goes on by itself on a node whose connection is lost.
    pub fn is_detached(&self) -> bool {
        matches!(self, Self::Pull(_))
    }

    /// Whether a later run can go on where this one ended.
    pub fn is_resumable(&self) -> bool {
        matches!(self, Self::Pull(_))
    }

    /// Whether it can begin again once it has begun. A command may have done its work already.
    pub fn is_repeatable(&self) -> bool {
        !matches!(self, Self::Exec(_))
    }

    /// Whether the node's runtime has to be known.
    pub fn needs_runtime(&self) -> bool {
        !matches!(self, Self::Exec(_))
    }

    /// The subcommand's name.
    pub fn command(&self) -> &'static str {
        match self {
            Self::Pull(_) => "pull",
            Self::Check(_) => "check",
            Self::Exec(_) => "exec",
            Self::Probe(_) => "nodes",
        }
    }
}

/// An image and the login for its registry.
#[derive(Debug, Clone)]
pub struct PlannedImage {
    /// What to pull.
    pub image: Image,
    /// The operator's credentials; without them the node's own are used.
    pub login: Option<Credential>,
}

/// How the plan is run.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Nodes at work at one time; at least 1.
    pub parallel: usize,
    /// Connections at one time, where pulls can go on without one.
    pub connections: usize,
    /// Further attempts after the first, for kinds that are retried.
    pub retries: u32,
    /// The pause before a further attempt.
    pub backoff: Backoff,
    /// The longest one attempt at a pull may take; `None` for no limit.
    pub pull_timeout: Option<Duration>,
    /// The longest one attempt may take where the node cannot see what arrives, so that nothing tells a stall; `None`
    /// for no limit.
    pub unseen_timeout: Option<Duration>,
    /// The longest a pull may go without progress, where the node can see what arrives; `None` for no limit.
    pub stall_timeout: Option<Duration>,
    /// The fewest bytes a second that may arrive over the stall time-out.
    pub min_rate: Option<u64>,
    /// How long a pull on a node goes on by itself when no connection asks after it.
    pub lease: Duration,
    /// The longest the whole run may take.
    pub deadline: Option<Duration>,
    /// How many nodes try first, while all others wait for the first sign that it can work; 0 for none.
    pub canary: usize,
    /// Attempts at one registry at one time, over all nodes; `None` for no limit.
    pub per_registry: Option<usize>,
    /// When to stop starting nodes.
    pub max_failures: Option<Portion>,
    /// Cumulative sizes of the waves; empty for one wave of all.
    pub waves: Vec<Portion>,
    /// Whether to pull what is already there.
    pub pull: PullWhen,
    /// Whether a login may be put on a node's disk, where there is no memory file system.
    pub disk_credentials: bool,
    /// What is asked of every node before any of them pulls; `None` to ask nothing.
    pub preflight: Option<Preflight>,
    /// Whether every node must end with the same digest for an image.
    pub pin_digest: bool,
    /// `os/architecture[/variant]` to ask the registry for, where it is not the node's own.
    pub platform: Option<String>,
    /// Where nodes pull from.
    pub via: PullVia,
    /// Whether nodes pass images on to each other, and how.
    pub fan_out: Option<FanOut>,
    /// Whom prepull itself asks before the registries.
    pub mirrors: Vec<Mirror>,
    /// Whether what was pulled is kept from the kubelet's garbage collection.
    pub keep: Option<Keep>,
    /// Seeds the jitter: the same seed gives the same schedule.
    pub seed: u64,
}

/// An image of 10 GB over a line of 25 Mbit/s takes 55 minutes.
pub const UNSEEN_TIMEOUT: Duration = Duration::from_secs(3600);

impl Default for Policy {
    fn default() -> Self {
        Self {
            parallel: 32,
            connections: 256,
            retries: 3,
            backoff: Backoff {
                min: Duration::from_secs(1),
                max: Duration::from_secs(60),
            },
            pull_timeout: None,
            unseen_timeout: Some(UNSEEN_TIMEOUT),
            stall_timeout: Some(Duration::from_secs(300)),
            min_rate: None,
            lease: Duration::from_secs(600),
            canary: 0,
            per_registry: None,
            deadline: None,
            max_failures: None,
            waves: Vec::new(),
            pull: PullWhen::Missing,
            disk_credentials: false,
            preflight: None,
            pin_digest: false,
            platform: None,
            via: PullVia::Registry,
            fan_out: None,
            mirrors: Vec::new(),
            keep: None,
            seed: 0,
        }
    }
}

/// How nodes pass images on to each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FanOut {
    /// The port that nodes listen on for others; `None` for one that the node's kernel chooses.
    pub port: Option<u16>,
    /// The most bytes a second that a node sends to others.
    pub max_upload: Option<u64>,
}

/// What every node is asked before any of them pulls: whether its runtime answers, what is there, and the room for the
/// rest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Preflight {
    /// How large layers are expected to be once they are unpacked, against what is sent.
    pub unpack_factor: f64,
}

impl Default for Preflight {
    fn default() -> Self {
        Self { unpack_factor: 2.5 }
    }
}

/// Exponential back-off with full jitter: before retry n (from 1) a pause between zero and
/// `min * 2^(n-1)`, at most `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The ceiling before the first retry.
    pub min: Duration,
    /// The highest ceiling.
    pub max: Duration,
}

impl Backoff {
    /// The longest pause before retry `number`, counted from 1.
    pub fn ceiling(&self, number: u32) -> Duration {
        let doublings = number.saturating_sub(1).min(31);
        self.min.saturating_mul(1 << doublings).min(self.max)
    }
}

/// A part of the fleet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Portion {
    /// This many nodes.
    Count(usize),
    /// This share, in percent, rounded up.
    Percent(f64),
}

impl Portion {
    /// How many nodes of a fleet of `nodes` that is: at least 1. A count may be more than there are.
    pub fn nodes(self, nodes: usize) -> usize {
        let wanted = match self {
            Self::Count(count) => count,
            // A share of a length fits; a NaN or a negative share becomes 0 and then 1.
            Self::Percent(percent) => (percent * nodes as f64 / 100.0).ceil() as usize,
        };
        wanted.max(1)
    }
}

impl fmt::Display for Portion {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(out, "{count}"),
            Self::Percent(percent) => write!(out, "{percent}%"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceilings_double_up_to_the_highest() {
        let backoff = Policy::default().backoff;
        let seconds: Vec<u64> = (1..=8).map(|n| backoff.ceiling(n).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(backoff.ceiling(u32::MAX).as_secs(), 60);
    }

    #[test]
    fn shares_round_up_and_are_at_least_one_node() {
        assert_eq!(Portion::Percent(10.0).nodes(12), 2);
        assert_eq!(Portion::Percent(0.0).nodes(12), 1);
        assert_eq!(Portion::Percent(100.0).nodes(12), 12);
        assert_eq!(Portion::Count(50).nodes(12), 50);
        assert_eq!(Portion::Percent(25.0).nodes(12), 3);
        assert_eq!(Portion::Count(0).nodes(12), 1);
    }
}
