//! What may be said about a node at one level (command line, node, group, defaults), and who wins.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::error::InputError;
use super::hosts::{self, HostSpec};
use crate::model::node::PROXY_COMMAND;
use crate::model::{Choice, Hop, Node, RuntimeChoice};

/// The default port.
const SSH_PORT: u16 = 22;
/// The most hops of one chain: more is a mistake.
const HOP_LIMIT: usize = 16;

/// Everything that may be said about a node at one level; `None` is not said here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeSettings {
    /// Who logs in.
    pub user: Option<String>,
    /// The SSH server's port.
    pub port: Option<u16>,
    /// Private key files; an empty list says that there are none.
    pub identities: Option<Vec<PathBuf>>,
    /// The hosts to go through; an empty list says that the node is reached directly.
    pub jump: Option<Vec<JumpSpec>>,
    /// The command whose input and output lead to the node, as in ssh_config; `none` is none. Of this and
    /// `jump` the stronger level's counts.
    pub proxy_command: Option<String>,
    /// Lines of ssh_config as in `ssh -o`, the first of a name counts.
    pub ssh_options: Option<Vec<String>>,
    /// What holds the images.
    pub runtime: Option<RuntimeChoice>,
    /// The runtime's socket.
    pub endpoint: Option<String>,
    /// Whether to become root through `sudo`.
    pub become_root: Option<bool>,
    /// Labels; those of all levels are joined, the strongest level's value wins.
    pub labels: BTreeMap<String, String>,
    /// See [`Node::facts`]; joined like labels.
    pub facts: BTreeMap<String, String>,
}

/// A node as far as command line and inventory describe it, for the source of defaults behind them.
#[derive(Debug, Clone, Copy)]
pub struct SshQuery<'a> {
    /// The address that the inventory names, or else the node's name.
    pub host: &'a str,
    /// Another name under which ssh_config may know it.
    pub also: Option<&'a str>,
    /// Who logs in, where that is said.
    pub user: Option<&'a str>,
    /// The port, where that is said.
    pub port: Option<u16>,
    /// The hosts to go through, where that is said.
    pub jump: Option<&'a [JumpSpec]>,
    /// The command that leads there, where that is said; never beside a jump.
    pub proxy_command: Option<&'a str>,
    /// Lines of ssh_config that the inventory gives, the first of a name counts.
    pub options: &'a [String],
}

/// What stands behind the inventory for one node: ssh_config and what is built in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SshDefaults {
    /// Who logs in, where nothing else says it.
    pub user: Option<String>,
    /// The port, where nothing else says it.
    pub port: Option<u16>,
    /// Private key files, where nothing else names one.
    pub identities: Vec<PathBuf>,
    /// The host to dial, where the inventory names no address.
    pub address: Option<String>,
    /// The way, resolved; it follows [`SshQuery::jump`] where that is said.
    pub jump: Vec<Hop>,
    /// The command that leads to it, or to the first host on the way: only shown.
    pub proxy_command: Option<String>,
    /// See [`Node::ssh_settings`].
    pub ssh_settings: usize,
}

/// Tells what stands behind the inventory for a node.
///
/// Its error is one sentence about that node.
pub type SshConfigSource<'a> = &'a dyn Fn(&SshQuery<'_>) -> Result<SshDefaults, String>;

/// Reads which runtime is asked for.
pub(super) fn parse_runtime(text: &str) -> Result<RuntimeChoice, InputError> {
    RuntimeChoice::from_word(text).ok_or_else(|| {
        InputError::new(format!("unknown runtime \"{text}\""))
            .with_hint(format!("use {}", RuntimeChoice::names()))
    })
}

/// One host on the way, as it was said; user and port may come from the defaults.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct JumpSpec {
    /// Who logs in there; `None` is the node's own user.
    pub user: Option<String>,
    /// Host name or IP address without brackets.
    pub host: String,
    /// The port; `None` is 22.
    pub port: Option<u16>,
}

/// Reads a jump chain as `ssh -J` takes it: `ops@bastion:2222,inner,[2001:db8::1]:22`. `none` is not a jump.
///
/// # Errors
/// What is wrong with it, and what would be right.
pub fn parse_jump(text: &str) -> Result<Vec<JumpSpec>, String> {
    jump_chain(text).map_err(|fault| fault.to_string())
}

/// [`parse_jump`] with the fault in two parts.
pub(super) fn jump_chain(text: &str) -> Result<Vec<JumpSpec>, InputError> {
    if text == "none" {
        return Ok(Vec::new());
    }
    let pieces = hosts::pieces(text).map_err(|error| error.fault)?;
    if pieces.len() > HOP_LIMIT {
        return Err(InputError::new(format!(
            "a jump chain of more than {HOP_LIMIT} hosts"
        )));
    }
    pieces
        .into_iter()
        .map(|piece| jump_host(piece.text))
        .collect()
}

pub(super) fn jump_host(text: &str) -> Result<JumpSpec, InputError> {
    if text == "none" {
        return Err(InputError::new("\"none\" stands alone, not in a chain"));
    }
    let HostSpec { user, host, port } = single_host(text)?;
    Ok(JumpSpec { user, host, port })
}

/// An expression that must name exactly one host.
pub(super) fn single_host(text: &str) -> Result<HostSpec, InputError> {
    let several =
        || InputError::new(format!("\"{text}\" names more than one host")).with_hint("name one");
    let pieces = hosts::pieces(text).map_err(|error| error.fault)?;
    let [piece] = pieces[..] else {
        return Err(several());
    };
    let mut found = hosts::expand_piece(&piece, 1).map_err(|error| {
        if error.fault == hosts::too_many() {
            several()
        } else {
            error.fault
        }
    })?;
    // An expression names at least one host; two are refused above.
    found
        .pop()
        .ok_or_else(|| InputError::new("a host is missing here"))
}

/// A runtime's socket as docker and crictl take it: a URI; a bare path becomes a `unix://` one.
///
/// # Errors
/// What is wrong with it.
pub fn parse_endpoint(text: &str) -> Result<String, InputError> {
    let uri = if text.starts_with('/') {
        format!("unix://{text}")
    } else {
        text.to_string()
    };
    let known = ["unix:///", "tcp://", "npipe://"].iter().any(|scheme| {
        uri.strip_prefix(scheme)
            .is_some_and(|rest| !rest.is_empty())
    });
    if !known || !uri.chars().all(|c| c.is_ascii_graphic()) {
        return Err(
            InputError::new(format!("\"{text}\" is no runtime endpoint"))
                .with_hint("write e.g. unix:///run/containerd/containerd.sock"),
        );
    }
    Ok(uri)
}

/// Bytes of settings that all nodes of a fleet may hold together: every node has its own copy, so that
/// one long label and one wide range could otherwise fill the memory.
pub(super) const WEIGHT_LIMIT: usize = 256 * 1024 * 1024;

/// What is said when a fleet passes [`WEIGHT_LIMIT`].
pub(super) fn too_heavy() -> InputError {
    InputError::new("the settings of all nodes together would take more than 256 MiB")
        .with_hint("shorten labels and lists of keys, or split the fleet")
}

impl NodeSettings {
    /// About how many bytes a copy takes.
    pub(super) fn weight(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let paths = self
            .identities
            .iter()
            .flatten()
            .map(|path| path.as_os_str().len());
        let hops = self
            .jump
            .iter()
            .flatten()
            .map(|hop| hop.host.len() + text(&hop.user));
        let labels = self
            .labels
            .iter()
            .map(|(key, value)| key.len() + value.len());
        let options = self.ssh_options.iter().flatten().map(String::len);
        // Each list element costs some bytes of its own.
        let lists: usize = paths
            .chain(hops)
            .chain(labels)
            .chain(options)
            .map(|bytes| bytes + 48)
            .sum();
        text(&self.user) + text(&self.endpoint) + text(&self.proxy_command) + lists
    }

    /// Joins what a second mention of the same node says.
    ///
    /// # Errors
    /// The key about which the two mentions disagree.
    pub(super) fn join(&mut self, other: &Self) -> Result<(), String> {
        join_one(&mut self.user, &other.user, "user")?;
        join_one(&mut self.port, &other.port, "port")?;
        join_one(&mut self.identities, &other.identities, "identity")?;
        join_one(&mut self.jump, &other.jump, "jump")?;
        join_one(
            &mut self.proxy_command,
            &other.proxy_command,
            "ProxyCommand",
        )?;
        join_one(
            &mut self.ssh_options,
            &other.ssh_options,
            "list of ssh options",
        )?;
        join_one(&mut self.runtime, &other.runtime, "runtime")?;
        join_one(&mut self.endpoint, &other.endpoint, "runtime_endpoint")?;
        join_one(&mut self.become_root, &other.become_root, "become")?;
        for (key, value) in &other.labels {
            if self.labels.get(key).is_some_and(|said| said != value) {
                return Err(format!("label {key}"));
            }
            self.labels.insert(key.clone(), value.clone());
        }
        Ok(())
    }
}

impl NodeSettings {
    /// Takes from `other` what is not said here.
    pub(super) fn fall_back_on(&mut self, other: &Self) {
        fn one<T: Clone>(said: &mut Option<T>, other: &Option<T>) {
            if said.is_none() {
                said.clone_from(other);
            }
        }
        one(&mut self.user, &other.user);
        one(&mut self.port, &other.port);
        one(&mut self.identities, &other.identities);
        if self.jump.is_none() && self.proxy_command.is_none() {
            self.jump.clone_from(&other.jump);
            self.proxy_command.clone_from(&other.proxy_command);
        }
        one(&mut self.ssh_options, &other.ssh_options);
        one(&mut self.runtime, &other.runtime);
        one(&mut self.endpoint, &other.endpoint);
        one(&mut self.become_root, &other.become_root);
        for (said, other) in [
            (&mut self.labels, &other.labels),
            (&mut self.facts, &other.facts),
        ] {
            for (key, value) in other {
                said.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
    }
}

fn join_one<T: Clone + PartialEq>(
    said: &mut Option<T>,
    other: &Option<T>,
    key: &str,
) -> Result<(), String> {
    match (&said, other) {
        (Some(one), Some(two)) if one != two => Err(key.to_string()),
        (None, Some(_)) => {
            said.clone_from(other);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Why a node cannot be made of what is said about it.
#[derive(Debug)]
pub(super) enum Unresolved {
    /// No level names a user.
    NoUser,
    /// What stands behind the inventory refuses it.
    Refused(String),
}

/// A node from the levels that speak about it, strongest first, and what stands behind them. `also_by_name`: ssh_config
/// may know it by its name as well as its address.
pub(super) fn resolve(
    name: String,
    address: Option<String>,
    groups: Vec<String>,
    layers: &[&NodeSettings],
    also_by_name: bool,
    background: SshConfigSource<'_>,
) -> Result<Node, Unresolved> {
    let user = first(layers, |level| level.user.as_deref());
    let port = first(layers, |level| level.port);
    let way = first(layers, |level| {
        (level.jump.is_some() || level.proxy_command.is_some()).then_some(level)
    });
    let jump = way.and_then(|level| level.jump.as_deref());
    let behind = background(&SshQuery {
        host: address
            .as_deref()
            .filter(|address| !address.is_empty())
            .unwrap_or(&name),
        also: also_by_name.then_some(name.as_str()),
        user,
        port,
        jump,
        proxy_command: way
            .and_then(|level| level.proxy_command.as_deref())
            .filter(|_| jump.is_none()),
        options: first(layers, |level| level.ssh_options.as_deref()).unwrap_or_default(),
    })
    .map_err(Unresolved::Refused)?;
    let user = user.map(String::from).or(behind.user);
    let mut labels = BTreeMap::new();
    let mut facts = BTreeMap::new();
    for level in layers.iter().rev() {
        labels.extend(level.labels.clone());
        facts.extend(level.facts.clone());
    }
    if let Some(command) = behind.proxy_command {
        facts.insert(PROXY_COMMAND.to_owned(), command);
    }
    Ok(Node {
        address: address.or(behind.address).unwrap_or_else(|| name.clone()),
        name,
        port: port.or(behind.port).unwrap_or(SSH_PORT),
        identities: first(layers, |level| level.identities.clone()).unwrap_or(behind.identities),
        jump: behind.jump,
        runtime: match first(layers, |level| level.runtime) {
            Some(RuntimeChoice::Kind(kind)) => Some(kind),
            Some(RuntimeChoice::Auto) | None => None,
        },
        endpoint: first(layers, |level| level.endpoint.clone()),
        become_root: first(layers, |level| level.become_root).unwrap_or_default(),
        become_password: None,
        ssh_settings: behind.ssh_settings,
        labels,
        facts,
        groups,
        user: user.ok_or(Unresolved::NoUser)?,
    })
}

/// The background without any ssh_config: this user, port 22, hops as they are said.
pub fn built_in(user: &str) -> impl Fn(&SshQuery<'_>) -> Result<SshDefaults, String> + '_ {
    move |asked| {
        let login = asked.user.unwrap_or(user);
        let hop = |hop: &JumpSpec| Hop {
            user: hop.user.clone().unwrap_or_else(|| login.to_string()),
            host: hop.host.clone(),
            port: hop.port.unwrap_or(SSH_PORT),
            identities: vec![],
            ssh_settings: 0,
        };
        Ok(SshDefaults {
            user: (!user.is_empty()).then(|| user.to_string()),
            jump: asked.jump.unwrap_or_default().iter().map(hop).collect(),
            ..SshDefaults::default()
        })
    }
}

fn first<'a, T>(
    layers: &[&'a NodeSettings],
    read: impl Fn(&'a NodeSettings) -> Option<T>,
) -> Option<T> {
    layers.iter().find_map(|level| read(level))
}

#[cfg(test)]
#[path = "layers_tests.rs"]
mod tests;
