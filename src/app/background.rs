//! What stands behind the inventory: the operator's ssh_config, asked for each node as `ssh` asks it.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};

use crate::inventory::{Asked, Behind, JumpSpec};
use crate::model::Hop;
use crate::ssh::config::{Ambient, Given, JumpHost, Proxy, Resolved, Source, SshConfig, System};
use crate::ssh::{HostSettings, Overrides};

/// The ssh_config of a run, and what it says that prepull does not do.
pub(super) struct SshBackground {
    config: SshConfig,
    user: String,
    /// The settings that hosts share, and their numbers in order of appearance.
    settings: RefCell<HashMap<HostSettings, usize>>,
    /// Whether a key file is there: asked once, however many hosts it is named for.
    key_files: RefCell<HashMap<PathBuf, bool>>,
    /// The way through jump hosts, by how they were said.
    ways: RefCell<HashMap<Vec<JumpHost>, Vec<Hop>>>,
    /// Who logs in to a jump host, as far as ssh_config says.
    jump_users: RefCell<HashMap<String, String>>,
    /// Option and what becomes of it: said once, however many hosts it is set for.
    warnings: RefCell<BTreeMap<String, String>>,
}

impl SshBackground {
    /// Reads the files. `file` is what `--ssh-config` says.
    ///
    /// # Errors
    /// A file that cannot be read, or must not be trusted, or holds what `ssh` would refuse.
    pub(super) fn read(file: Option<&Path>) -> Result<Self> {
        let source = match file {
            None => Source::Usual,
            Some(path) if path.as_os_str() == "none" => Source::Nothing,
            Some(path) => Source::Only(path.to_owned()),
        };
        let ambient = Ambient::of_this_process().map_err(anyhow::Error::msg)?;
        let user = ambient.user.clone();
        let outside = Box::new(System);
        let config = SshConfig::load(&source, ambient, outside)
            .map_err(|error| anyhow!("{error}; --ssh-config none leaves the files out"))?;
        Ok(Self {
            config,
            user,
            settings: RefCell::default(),
            key_files: RefCell::default(),
            ways: RefCell::default(),
            jump_users: RefCell::default(),
            warnings: RefCell::default(),
        })
    }

    /// What the configuration says and prepull does not do, one sentence an option.
    pub(super) fn warnings(&self) -> Vec<String> {
        self.warnings.borrow().values().cloned().collect()
    }

    /// How each host of the fleet is reached, in the order of their numbers; `command_line` beats ssh_config.
    pub(super) fn host_settings(&self, command_line: &Overrides) -> Vec<HostSettings> {
        let settings = self.settings.borrow();
        let mut numbered: Vec<_> = settings.iter().collect();
        numbered.sort_unstable_by_key(|(_, number)| **number);
        numbered
            .into_iter()
            .map(|(settings, _)| settings.clone().with(command_line))
            .collect()
    }

    /// What stands behind the inventory for one node.
    pub(super) fn ask(&self, asked: &Asked<'_>) -> Result<Behind, String> {
        let mut given = Given {
            user: asked.user.map(String::from),
            port: asked.port,
            jump: asked.jump.map(|_| Vec::new()),
            ..Given::default()
        };
        let command = asked.proxy_command;
        let command = command.map(|command| format!("ProxyCommand={command}"));
        given.inventory_options = command.into_iter().collect();
        given
            .inventory_options
            .extend(asked.options.iter().cloned());
        if let Some(hops) = asked.jump.filter(|hops| !hops.is_empty()) {
            let user = match &given.user {
                Some(user) => user.clone(),
                None => self.resolve(asked.host, &given)?.user,
            };
            let hops = hops.iter().map(|hop| self.jump_host(hop, &user));
            given.jump = Some(hops.collect::<Result<_, _>>()?);
        }
        let host = self.resolve(asked.host, &given)?;
        Ok(Behind {
            user: Some(host.user.clone()),
            port: Some(host.port),
            identities: self.identities(&host),
            address: Some(host.host_name.clone()),
            jump: match &host.proxy {
                Proxy::Jump(chain) => self.way(asked.host, chain)?,
                Proxy::Direct | Proxy::Command { .. } => Vec::new(),
            },
            ssh_settings: self.note(&host),
        })
    }

    /// The way to a host through these.
    fn way(&self, host: &str, chain: &[JumpHost]) -> Result<Vec<Hop>, String> {
        if let Some(way) = self.ways.borrow().get(chain) {
            return Ok(way.clone());
        }
        let hops = self.config.hops(host, chain);
        let hops = hops.map_err(|error| error.to_string())?;
        let hop = |hop: &Resolved| Hop {
            user: hop.user.clone(),
            host: hop.host_name.clone(),
            port: hop.port,
            identities: self.identities(hop),
            ssh_settings: self.note(hop),
        };
        let way: Vec<Hop> = hops.iter().map(hop).collect();
        self.ways.borrow_mut().insert(chain.to_vec(), way.clone());
        Ok(way)
    }

    fn resolve(&self, host: &str, given: &Given) -> Result<Resolved, String> {
        self.config
            .resolve(host, given)
            .map_err(|error| error.to_string())
    }

    /// A hop that inventory or command line name. Without a user of its own, there or in ssh_config, it is
    /// logged in to as the node is.
    fn jump_host(&self, hop: &JumpSpec, node_user: &str) -> Result<JumpHost, String> {
        let user = match &hop.user {
            Some(user) => user.clone(),
            None => {
                let own = self.jump_user(&hop.host)?;
                if own == self.user {
                    node_user.to_string()
                } else {
                    own
                }
            }
        };
        Ok(JumpHost {
            user: Some(user),
            host: hop.host.clone(),
            port: hop.port,
        })
    }

    fn jump_user(&self, host: &str) -> Result<String, String> {
        if let Some(user) = self.jump_users.borrow().get(host) {
            return Ok(user.clone());
        }
        let user = self.resolve(host, &Given::default())?.user;
        let mut users = self.jump_users.borrow_mut();
        users.insert(host.to_string(), user.clone());
        Ok(user)
    }

    /// Remembers what is left out, and how the host is reached: the number of its settings.
    fn note(&self, host: &Resolved) -> usize {
        for warning in &host.warnings {
            self.warn(warning.option, warning.to_string());
        }
        let variable = |name: &str| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let mut settings = self.settings.borrow_mut();
        let next = settings.len();
        *settings
            .entry(HostSettings::of(host, &variable))
            .or_insert(next)
    }

    fn warn(&self, option: &str, sentence: String) {
        self.warnings
            .borrow_mut()
            .entry(option.to_lowercase())
            .or_insert(sentence);
    }

    /// The key files that the configuration names. As with `ssh`, one that is missing is passed over.
    fn identities(&self, host: &Resolved) -> Vec<PathBuf> {
        let mut known = self.key_files.borrow_mut();
        let named = host.identity_files.iter().filter(|file| file.named);
        let named = named.map(|file| &file.path);
        let there = named.filter(|path| match known.get(*path) {
            Some(there) => *there,
            None => {
                let there = path.exists();
                known.insert((*path).clone(), there);
                there
            }
        });
        there.cloned().collect()
    }
}
