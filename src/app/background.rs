//! What stands behind the inventory: the operator's ssh_config, asked for each node as `ssh` asks it.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};

use crate::inventory::{Asked, Behind, JumpSpec};
use crate::model::Hop;
use crate::ssh::config::{Ambient, Given, JumpHost, Resolved, Source, SshConfig, System};
use crate::ssh::{HostSettings, Overrides};

/// The ssh_config of a run, and what it says that prepull does not do.
pub(super) struct SshBackground {
    config: SshConfig,
    user: String,
    /// The settings that hosts share, and their numbers in order of appearance.
    settings: RefCell<HashMap<HostSettings, usize>>,
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
        if let Some(hops) = asked.jump.filter(|hops| !hops.is_empty()) {
            let user = self.resolve(asked.host, &given)?.user;
            let hops = hops.iter().map(|hop| self.jump_host(hop, &user));
            given.jump = Some(hops.collect::<Result<_, _>>()?);
        }
        let way = self
            .config
            .way(asked.host, &given)
            .map_err(|error| error.to_string())?;
        let Some((host, hops)) = way.split_last() else {
            return Err(format!("{}: no way leads there", asked.host));
        };
        let hop = |hop: &Resolved| Hop {
            user: hop.user.clone(),
            host: hop.host_name.clone(),
            port: hop.port,
            identities: identities(hop),
            ssh_settings: self.note(hop),
        };
        Ok(Behind {
            user: Some(host.user.clone()),
            port: Some(host.port),
            identities: identities(host),
            address: Some(host.host_name.clone()),
            jump: hops.iter().map(hop).collect(),
            ssh_settings: self.note(host),
        })
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
                let own = self.resolve(&hop.host, &Given::default())?.user;
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
}

/// The key files that the configuration names. As with `ssh`, one that is missing is passed over.
fn identities(host: &Resolved) -> Vec<PathBuf> {
    let named = host
        .identity_files
        .iter()
        .filter(|file| file.named && file.path.exists());
    named.map(|file| file.path.clone()).collect()
}
