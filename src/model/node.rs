//! A node, how it is reached, and the fleet of them.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::choice::Choice;
use super::secret::Secret;

/// One machine to warm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Unique in its fleet; what reports call it.
    pub name: String,
    /// What is dialled: a host name or an IP address without brackets. Empty when its source names none of the kind
    /// that was asked for: then it cannot be reached.
    pub address: String,
    /// The SSH server's port.
    pub port: u16,
    /// Who logs in.
    pub user: String,
    /// Private key files to offer first, in this order.
    pub identities: Vec<PathBuf>,
    /// The hosts to go through, from the first hop on.
    pub jump: Vec<Hop>,
    /// What holds the images; `None` asks the node.
    pub runtime: Option<RuntimeKind>,
    /// The runtime's socket where it is not the runtime's own default, e.g. `unix:///run/crio/crio.sock`.
    pub endpoint: Option<String>,
    /// Whether to become root first, through `sudo` or `doas`.
    pub become_root: bool,
    /// What sudo is told when it asks.
    pub become_password: Option<Secret>,
    /// Which of the settings that the transport is given holds for it: their number.
    pub ssh_settings: usize,
    /// Free-form labels.
    pub labels: BTreeMap<String, String>,
    /// What is known about it and only shown: architecture, readiness, taints, [`PROXY_COMMAND`].
    pub facts: BTreeMap<String, String>,
    /// The groups it stands in, nearest first.
    pub groups: Vec<String>,
}

impl Node {
    /// A node of this name and address about which nothing else is said.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            address: name.to_owned(),
            port: 22,
            user: String::new(),
            identities: Vec::new(),
            jump: Vec::new(),
            runtime: None,
            endpoint: None,
            become_root: false,
            become_password: None,
            ssh_settings: 0,
            labels: BTreeMap::new(),
            facts: BTreeMap::new(),
            groups: Vec::new(),
        }
    }
}

/// The fact that holds the command whose standard input and output lead to a node, or to the first host on the way
/// there.
pub const PROXY_COMMAND: &str = "proxy-command";

impl Node {
    /// The command that leads to it, or to the first host on the way, where it is not dialled.
    pub fn proxy_command(&self) -> Option<&str> {
        self.facts.get(PROXY_COMMAND).map(String::as_str)
    }

    /// What tells its SSH server from others, for people: the address, the port and the way there.
    pub fn server(&self) -> String {
        server(&self.address, self.port, &self.jump)
    }
}

/// An SSH server: its address, its port and the way there.
pub fn server(host: &str, port: u16, way: &[Hop]) -> String {
    let mut server = match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    };
    for (number, hop) in way.iter().enumerate() {
        server.push_str(if number == 0 { " behind " } else { "," });
        server.push_str(&hop.to_string());
    }
    server
}

/// One host on the way to a node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Hop {
    /// Who logs in there.
    pub user: String,
    /// Host name or IP address without brackets.
    pub host: String,
    /// The SSH server's port.
    pub port: u16,
    /// Private key files to offer there; those of the node behind it where this is empty.
    pub identities: Vec<PathBuf>,
    /// As [`Node::ssh_settings`].
    pub ssh_settings: usize,
}

impl fmt::Display for Hop {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}@{}", self.user, server(&self.host, self.port, &[]))
    }
}

/// Lists the runtimes once: the enum, [`RuntimeKind::ALL`] and the names follow from it.
macro_rules! runtime_kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal,)*) => {
        /// What holds images on a node, in the order in which a probe asks (decision 12).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        #[non_exhaustive]
        pub enum RuntimeKind {
            $($(#[$doc])* $kind,)*
        }

        impl RuntimeKind {
            /// Each of them, in the order in which a probe asks.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$kind),*];

            /// Its name on the command line, in inventories and in JSON.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }
        }
    };
}

runtime_kinds! {
    /// Any CRI runtime, through `crictl`.
    Crictl = "crictl",
    /// The docker daemon, through the `docker` client.
    Docker = "docker",
    /// podman, through its own client.
    Podman = "podman",
    /// containerd, through `nerdctl`.
    Nerdctl = "nerdctl",
    /// containerd, through `ctr`.
    Ctr = "ctr",
    /// CRI-O's store, through `skopeo`.
    Skopeo = "skopeo",
}

impl RuntimeKind {
    /// What one may choose from: `crictl, docker or podman`.
    pub fn names() -> String {
        let [first @ .., last] = Self::ALL.map(Self::as_str);
        format!("{} or {last}", first.join(", "))
    }

    /// Whether it can be asked for an image of another platform than the node's: the CRI cannot.
    pub fn takes_platform(self) -> bool {
        self != Self::Crictl
    }
}

impl fmt::Display for RuntimeKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

/// Which runtime is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuntimeChoice {
    /// Ask the node, whatever weaker levels say.
    Auto,
    /// This one.
    Kind(RuntimeKind),
}

impl RuntimeChoice {
    /// What one may choose from: `auto, crictl or docker`.
    pub fn names() -> String {
        format!("auto, {}", RuntimeKind::names())
    }
}

impl Choice for RuntimeChoice {
    fn all() -> Vec<(Self, &'static str, &'static str)> {
        let kinds = RuntimeKind::ALL.map(|kind| (Self::Kind(kind), kind.as_str(), ""));
        [&[(Self::Auto, "auto", "")], &kinds[..]].concat()
    }
}

impl FromStr for RuntimeKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = |kind: &Self| kind.as_str() == text;
        Self::ALL.into_iter().find(named).ok_or_else(|| {
            let names = Self::names();
            format!("unknown runtime \"{text}\": use {names}")
        })
    }
}

/// The resolved nodes: unique by name, in order, never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fleet {
    nodes: Vec<Node>,
    warnings: Vec<String>,
}

/// Why some nodes do not make a fleet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FleetError {
    /// There is no node at all.
    #[error("the fleet is empty: no inventory and no --hosts named a node")]
    Empty,
    /// Two nodes share a name.
    #[error("the node \"{0}\" stands in the fleet twice")]
    Duplicate(String),
}

impl Fleet {
    /// Checks that there is at least one node and that no name stands twice.
    pub fn new(nodes: Vec<Node>) -> Result<Self, FleetError> {
        if nodes.is_empty() {
            return Err(FleetError::Empty);
        }
        let mut seen = HashMap::with_capacity(nodes.len());
        for node in &nodes {
            if seen.insert(node.name.as_str(), ()).is_some() {
                return Err(FleetError::Duplicate(node.name.clone()));
            }
        }
        Ok(Self {
            nodes,
            warnings: Vec::new(),
        })
    }

    /// The same fleet, with what the operator should know of how it was read.
    #[must_use]
    pub fn with_warnings(self, warnings: Vec<String>) -> Self {
        Self { warnings, ..self }
    }

    /// What the operator should know of how it was read.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Gives every node this password for sudo.
    pub fn set_become_password(&mut self, password: &Secret) {
        for node in &mut self.nodes {
            node.become_password = Some(password.clone());
        }
    }

    /// The nodes in order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> Node {
        Node {
            name: name.into(),
            address: name.into(),
            port: 22,
            user: "ops".into(),
            identities: vec![],
            jump: vec![],
            runtime: None,
            endpoint: None,
            become_root: false,
            become_password: None,
            ssh_settings: 0,
            labels: BTreeMap::new(),
            facts: BTreeMap::new(),
            groups: vec![],
        }
    }

    #[test]
    fn a_fleet_has_nodes_and_each_once() {
        assert_eq!(Fleet::new(vec![]), Err(FleetError::Empty));
        assert_eq!(
            Fleet::new(vec![node("a"), node("b"), node("a")]),
            Err(FleetError::Duplicate("a".into()))
        );
        assert_eq!(
            Fleet::new(vec![node("b"), node("a")]).unwrap().nodes()[0].name,
            "b"
        );
    }

    #[test]
    fn hops_are_written_as_users_type_them() {
        let hop = |host: &str| Hop {
            user: "ops".into(),
            host: host.into(),
            port: 2222,
            identities: vec![],
            ssh_settings: 0,
        };
        assert_eq!(hop("bastion").to_string(), "ops@bastion:2222");
        assert_eq!(hop("2001:db8::7").to_string(), "ops@[2001:db8::7]:2222");
    }
}
