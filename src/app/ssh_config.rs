//! What stands behind the inventory: the operator's ssh_config, asked for each node as `ssh` asks it.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};

use crate::inventory::{JumpSpec, SshDefaults, SshQuery};
use crate::model::Hop;
use crate::ssh::config::{
    CommandLine, HostKeyChecking, JumpHost, LocalEnv, Proxy, Resolved, Source, SshConfig, System,
};
use crate::ssh::{HostSettings, Overrides, public_key_of};

/// The hosts to go through, and the command that leads to the first of them where it is not dialled.
type Route = (Vec<Hop>, Option<String>);

/// The ssh_config of a run, and what it says that prepull does not do.
pub(super) struct SshConfigFiles {
    config: SshConfig,
    user: String,
    /// The settings that hosts share, and their numbers in order of appearance.
    settings: RefCell<HashMap<HostSettings, usize>>,
    /// Whether a key file is there: asked once, however many hosts it is named for.
    key_files: RefCell<HashMap<PathBuf, bool>>,
    /// The way through jump hosts, by how they were said.
    routes: RefCell<HashMap<Vec<JumpHost>, Route>>,
    /// Who logs in to a jump host, as far as ssh_config says.
    jump_users: RefCell<HashMap<String, String>>,
    /// Option and what becomes of it: said once, however many hosts it is set for.
    warnings: RefCell<BTreeMap<String, String>>,
}

impl SshConfigFiles {
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
        let ambient = LocalEnv::of_this_process().map_err(anyhow::Error::msg)?;
        let user = ambient.user.clone();
        let system_probe = Box::new(System);
        let config = SshConfig::load(&source, ambient, system_probe)
            .map_err(|error| anyhow!("{error}; --ssh-config none leaves the files out"))?;
        Ok(Self {
            config,
            user,
            settings: RefCell::default(),
            key_files: RefCell::default(),
            routes: RefCell::default(),
            jump_users: RefCell::default(),
            warnings: RefCell::default(),
        })
    }

    /// Which files could not be read, and what the others say and prepull does not do: one sentence an option.
    pub(super) fn warnings(&self) -> Vec<String> {
        let unread = self.config.unread().iter();
        unread
            .chain(self.warnings.borrow().values())
            .cloned()
            .collect()
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
    pub(super) fn ask(&self, asked: &SshQuery<'_>) -> Result<SshDefaults, String> {
        let mut given = CommandLine {
            user: asked.user.map(String::from),
            port: asked.port,
            jump: asked.jump.map(|_| Vec::new()),
            also: asked.also.map(String::from),
            ..CommandLine::default()
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
        let (jump, proxy_command) = match &host.proxy {
            Proxy::Direct => (Vec::new(), None),
            Proxy::Command { command, .. } => (Vec::new(), Some(command.clone())),
            Proxy::Jump(chain) => self.route(asked.host, chain)?,
        };
        Ok(SshDefaults {
            user: Some(host.user.clone()),
            port: Some(host.port),
            identities: self.identities(&host),
            address: Some(host.host_name.clone()),
            jump,
            proxy_command,
            ssh_settings: self.note(&host),
        })
    }

    /// The way to a host through these, and the command that leads to the first of them.
    fn route(&self, host: &str, chain: &[JumpHost]) -> Result<Route, String> {
        if let Some(route) = self.routes.borrow().get(chain) {
            return Ok(route.clone());
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
        let command = match hops.first().map(|first| &first.proxy) {
            Some(Proxy::Command { command, .. }) => Some(command.clone()),
            _ => None,
        };
        let route: Route = (hops.iter().map(hop).collect(), command);
        self.routes
            .borrow_mut()
            .insert(chain.to_vec(), route.clone());
        Ok(route)
    }

    fn resolve(&self, host: &str, given: &CommandLine) -> Result<Resolved, String> {
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
        let user = self.resolve(host, &CommandLine::default())?.user;
        let mut users = self.jump_users.borrow_mut();
        users.insert(host.to_string(), user.clone());
        Ok(user)
    }

    /// Remembers what is left out, and how the host is reached: the number of its settings.
    fn note(&self, host: &Resolved) -> usize {
        if host.host_key_checking == HostKeyChecking::Off {
            let option = "StrictHostKeyChecking";
            self.warn(
                option,
                format!(
                    "ssh_config sets {option} for {}: any host key is taken, and whoever sits on the route can read everything; \
                     --host-keys strict beats it",
                    host.given
                ),
            );
        }
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

    /// The key files that the configuration names. As with `ssh`, one that is missing is passed over, unless its public
    /// key is there: an agent may hold it.
    fn identities(&self, host: &Resolved) -> Vec<PathBuf> {
        let mut known = self.key_files.borrow_mut();
        let named = host.identity_files.iter().filter(|file| file.named);
        let named = named.map(|file| &file.path);
        let there = named.filter(|path| match known.get(*path) {
            Some(there) => *there,
            None => {
                let there = path.exists() || public_key_of(path).exists();
                known.insert((*path).clone(), there);
                there
            }
        });
        there.cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh::HostKeyPolicy;

    fn asked(host: &str) -> SshQuery<'_> {
        SshQuery {
            host,
            also: None,
            user: None,
            port: None,
            jump: None,
            proxy_command: None,
            options: &[],
        }
    }

    fn background(text: &str) -> SshConfigFiles {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config");
        std::fs::write(&file, text).unwrap();
        SshConfigFiles::read(Some(&file)).unwrap()
    }

    fn settings(background: &SshConfigFiles, behind: &SshDefaults) -> HostSettings {
        background.host_settings(&Overrides::default())[behind.ssh_settings].clone()
    }

    #[test]
    fn options_of_an_inventory_beat_ssh_config() {
        let background =
            background("ConnectTimeout 9\nUser conf\nHost node other\nProxyJump gate\n");
        let options = ["ConnectTimeout=5".to_string(), "Ciphers aes256-ctr".into()];
        let behind = background
            .ask(&SshQuery {
                proxy_command: Some("nc -q 1 %h %p # %r"),
                options: &options,
                user: Some("ops"),
                port: Some(2222),
                ..asked("node")
            })
            .unwrap();
        assert_eq!(behind.jump, []);
        let shown = behind.proxy_command.as_deref();
        assert_eq!(shown, Some("nc -q 1 node 2222 # ops"));
        let settings = settings(&background, &behind);
        let command = settings.proxy_command.as_deref();
        assert_eq!(command, Some("nc -q 1 node 2222 # ops"));
        assert_eq!(settings.connect_timeout.as_secs(), 5);
        assert_eq!(settings.ciphers, Some(vec!["aes256-ctr".to_string()]));
        // They hold for their node, not for others and not for the hosts on the way.
        let other = background.ask(&asked("other")).unwrap();
        assert_eq!(other.jump[0].to_string(), "conf@gate:22");
        let settings = self::settings(&background, &other);
        assert_eq!(settings.connect_timeout.as_secs(), 9);
        assert_eq!(background.warnings(), Vec::<String>::new());
    }

    #[test]
    fn no_option_of_an_inventory_loosens_the_check_of_host_keys() {
        let background = background("UserKnownHostsFile /known\nStrictHostKeyChecking yes\n");
        let options: Vec<String> = [
            "StrictHostKeyChecking=no",
            "\"StrictHostKeyChecking\" accept-new",
            "stricthostkeychecking off",
            "UserKnownHostsFile=/dev/null",
            "GlobalKnownHostsFile /dev/null",
            "RevokedHostKeys=none",
            "RequiredRSASize=1",
            "HostKeyAlias=mallory",
        ]
        .map(String::from)
        .to_vec();
        for host in ["a", "b"] {
            let behind = background
                .ask(&SshQuery {
                    options: &options,
                    ..asked(host)
                })
                .unwrap();
            let settings = settings(&background, &behind);
            assert_eq!(settings.host_keys, HostKeyPolicy::Strict);
            assert_eq!(settings.known_hosts, [PathBuf::from("/known")]);
            assert_eq!(settings.required_rsa_size, 1024);
        }
        let warnings = background.warnings();
        assert_eq!(warnings.len(), 6, "{warnings:?}");
        let part = "stricthostkeychecking: an inventory cannot loosen the check of host keys";
        assert!(
            warnings.iter().any(|warning| warning.contains(part)),
            "{warnings:?}"
        );
    }

    #[test]
    fn an_inventory_may_ask_for_a_stricter_check() {
        let background = background("StrictHostKeyChecking accept-new\n");
        let options = ["StrictHostKeyChecking=yes".to_string()];
        let behind = background
            .ask(&SshQuery {
                options: &options,
                ..asked("a")
            })
            .unwrap();
        let settings = settings(&background, &behind);
        assert_eq!(settings.host_keys, HostKeyPolicy::Strict);
        assert_eq!(background.warnings(), Vec::<String>::new());
    }

    #[test]
    fn an_option_that_ssh_would_refuse_is_an_error() {
        let background = background("");
        for (option, part) in [
            ("Foo=bar", "this is not an option of ssh"),
            ("ConnectTimeout=soon", "\"ConnectTimeout=soon\""),
            (
                "Include=/etc/passwd",
                "this is not an option of ssh that can be given",
            ),
            ("ProxyCommand=nc %z", "proxycommand"),
        ] {
            let options = [option.to_string()];
            let error = background.ask(&SshQuery {
                options: &options,
                ..asked("a")
            });
            let error = error.unwrap_err();
            assert!(error.contains(part), "{option}: {error}");
        }
    }

    #[test]
    fn a_command_that_leads_to_the_first_hop_is_known() {
        let background =
            background("Host gate\nProxyCommand nc %h %p\nHost node\nProxyJump gate\n");
        let behind = background.ask(&asked("node")).unwrap();
        assert_eq!(behind.jump.len(), 1);
        assert_eq!(behind.proxy_command.as_deref(), Some("nc gate 22"));
    }

    #[test]
    fn the_way_through_jump_hosts_is_the_same_for_all_behind_them() {
        let background = background(
            "Host gate\n  User jumper\n  ProxyJump outer\nHost deep*\n  ProxyJump gate,inner\n",
        );
        let hops = |host: &str| {
            let behind = background.ask(&asked(host)).unwrap();
            let hops = behind
                .jump
                .iter()
                .map(|hop| format!("{}:{}", hop.user, hop.host));
            hops.collect::<Vec<_>>().join(" ")
        };
        let me = background.user.clone();
        let route = format!("{me}:outer jumper:gate {me}:inner");
        assert_eq!(hops("deep1"), route);
        assert_eq!(hops("deep2"), route);
        let through = |user| {
            let jump = [JumpSpec {
                user: None,
                host: "outer".into(),
                port: None,
            }];
            let behind = background.ask(&SshQuery {
                user: Some(user),
                jump: Some(&jump),
                ..asked("n")
            });
            behind.unwrap().jump[0].user.clone()
        };
        // A hop without a user of its own is logged in to as the node is, however often it was asked for.
        assert_eq!(
            (through("one"), through("two")),
            ("one".into(), "two".into())
        );
    }
}
