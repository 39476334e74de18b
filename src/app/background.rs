//! What stands behind the inventory: the operator's ssh_config, asked for each node as `ssh` asks it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};

use crate::inventory::{Asked, Behind, JumpSpec};
use crate::model::Hop;
use crate::ssh::config::{
    AddressFamily, AlgorithmList, Ambient, Given, HostKeyChecking, IdentityAgent, JumpHost, Proxy,
    Resolved, Source, SshConfig, System,
};

/// The ssh_config of a run, and what it says that prepull does not do.
pub(super) struct SshBackground {
    config: SshConfig,
    home: PathBuf,
    user: String,
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
        let (home, user) = (ambient.home.clone(), ambient.user.clone());
        let outside = Box::new(System);
        let config = SshConfig::load(&source, ambient, outside)
            .map_err(|error| anyhow!("{error}; --ssh-config none leaves the files out"))?;
        Ok(Self {
            config,
            home,
            user,
            warnings: RefCell::default(),
        })
    }

    /// What the configuration says and prepull does not do, one sentence an option.
    pub(super) fn warnings(&self) -> Vec<String> {
        self.warnings.borrow().values().cloned().collect()
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
        for host in &way {
            self.look_over(host)?;
        }
        let Some((host, hops)) = way.split_last() else {
            return Err(format!("{}: no way leads there", asked.host));
        };
        let hop = |hop: &Resolved| Hop {
            user: hop.user.clone(),
            host: hop.host_name.clone(),
            port: hop.port,
            identities: identities(hop),
        };
        Ok(Behind {
            user: Some(host.user.clone()),
            port: Some(host.port),
            identities: identities(host),
            address: Some(host.host_name.clone()),
            jump: hops.iter().map(hop).collect(),
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

    /// Refuses what would make a connection other than `ssh` makes it, and remembers what is left out.
    fn look_over(&self, host: &Resolved) -> Result<(), String> {
        if let Proxy::Command { .. } = host.proxy {
            return Err(format!(
                "{}: ssh_config sets ProxyCommand for it, which prepull does not run; use ProxyJump or --jump, or --ssh-config none",
                host.given
            ));
        }
        if host.revoked_host_keys.is_some() {
            return Err(format!(
                "{}: ssh_config sets RevokedHostKeys for it, which prepull does not read; mark the keys @revoked in known_hosts",
                host.given
            ));
        }
        for warning in &host.warnings {
            self.warn(warning.option, warning.to_string());
        }
        let ssh = |name: &str| self.home.join(".ssh").join(name);
        let own = [ssh("known_hosts"), ssh("known_hosts2")];
        let global = ["/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"].map(PathBuf::from);
        let is_set = |list: &AlgorithmList| list.written.is_some();
        let loose = matches!(
            host.host_key_checking,
            HostKeyChecking::AcceptNew | HostKeyChecking::Off
        );
        let agent = !matches!(host.identity_agent, IdentityAgent::Unset);
        for (option, set, instead) in [
            (
                "StrictHostKeyChecking",
                loose,
                "host keys are checked as --host-keys says",
            ),
            (
                "UserKnownHostsFile",
                host.user_known_hosts_files != own,
                "known host keys come from ~/.ssh/known_hosts or --known-hosts",
            ),
            (
                "GlobalKnownHostsFile",
                host.global_known_hosts_files != global,
                "known host keys come from ~/.ssh/known_hosts or --known-hosts",
            ),
            (
                "HostKeyAlias",
                host.host_key_alias.is_some(),
                "host keys are looked up by host name",
            ),
            (
                "IdentitiesOnly",
                host.identities_only,
                "keys of the agent are offered after the named ones",
            ),
            (
                "IdentityAgent",
                agent,
                "the agent is the one of SSH_AUTH_SOCK",
            ),
            (
                "HostKeyAlgorithms",
                is_set(&host.host_key_algorithms),
                "prepull's own list is used",
            ),
            (
                "KexAlgorithms",
                is_set(&host.kex_algorithms),
                "prepull's own list is used",
            ),
            (
                "Ciphers",
                is_set(&host.ciphers),
                "prepull's own list is used",
            ),
            ("MACs", is_set(&host.macs), "prepull's own list is used"),
            (
                "PubkeyAcceptedAlgorithms",
                is_set(&host.pubkey_accepted_algorithms),
                "prepull's own list is used",
            ),
            (
                "PreferredAuthentications",
                host.preferred_authentications.is_some(),
                "keys come first, then the password",
            ),
            (
                "AddressFamily",
                host.address_family != AddressFamily::Any,
                "all addresses are dialled",
            ),
            (
                "BindAddress",
                host.bind_address.is_some(),
                "the system chooses the address to dial from",
            ),
            (
                "ConnectTimeout",
                host.connect_timeout.is_some(),
                "--connect-timeout holds",
            ),
        ] {
            if set {
                let sentence = format!(
                    "ssh_config sets {option} for {}, which is not honoured: {instead}",
                    host.given
                );
                self.warn(option, sentence);
            }
        }
        if host.certificate_files.iter().any(|file| file.named) {
            let sentence = format!(
                "ssh_config sets CertificateFile for {}, which is not honoured: keys are offered without it",
                host.given
            );
            self.warn("CertificateFile", sentence);
        }
        Ok(())
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
