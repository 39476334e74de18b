//! How one host is reached and trusted, beyond its address, port, user and the keys that the inventory names:
//! what ssh_config says about it, with the command line on top.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::config::{
    AddressFamily, AlgorithmList, HostKeyChecking, IdentityAgent, Proxy, Resolved,
};
use crate::model::HostKeyPolicy;

/// The default for the longest that each phase of connecting may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The default for the silence after which a sign of life is asked for.
pub const KEEPALIVE: Duration = Duration::from_secs(15);
/// ssh_config's own ServerAliveCountMax.
const KEEPALIVE_MAX: u32 = 3;
/// ssh_config's own RequiredRSASize.
const RSA_SIZE: u32 = 1024;

/// A way to log in (RFC 4252, section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LoginMethod {
    /// With a key, and its certificate where there is one.
    PublicKey,
    /// By answering the server's questions (RFC 4256).
    KeyboardInteractive,
    /// With a password.
    Password,
}

/// The methods in the order in which `ssh` tries them.
const METHODS: [LoginMethod; 3] = [
    LoginMethod::PublicKey,
    LoginMethod::KeyboardInteractive,
    LoginMethod::Password,
];

/// How a host is reached and trusted. Hosts with equal settings share them.
///
/// Lists of algorithms hold OpenSSH's names, best first; `None` leaves the choice to prepull.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostSettings {
    /// What is done with unknown host keys.
    pub host_keys: HostKeyPolicy,
    /// The operator's own known_hosts files; new keys are recorded in the first.
    pub known_hosts: Vec<PathBuf>,
    /// The machine's known_hosts files: read only.
    pub global_known_hosts: Vec<PathBuf>,
    /// The name to look up in known_hosts instead of the address.
    pub host_key_alias: Option<String>,
    /// A file of keys that are refused whatever known_hosts says: public keys, one a line, or a list that
    /// `ssh-keygen -k` made.
    pub revoked_host_keys: Option<PathBuf>,
    /// Whether names are hashed where a new key is recorded.
    pub hash_known_hosts: bool,
    /// RSA keys with fewer bits are refused, the host's and our own.
    pub required_rsa_size: u32,
    /// The host key algorithms that are taken.
    pub host_key_algorithms: Option<Vec<String>>,
    /// Whether they are asked for in just this order, also where the host is known by a key of another type.
    pub host_key_order: bool,
    /// The signatures of certificate authorities that are taken.
    pub ca_signature_algorithms: Option<Vec<String>>,

    /// The methods to log in with, in order.
    pub methods: Vec<LoginMethod>,
    /// Private keys for nodes that name none; those that do not exist or are of no use are passed over.
    pub default_identities: Vec<PathBuf>,
    /// Whether the agent's other keys stay unused.
    pub identities_only: bool,
    /// The agent's socket.
    pub agent: Option<PathBuf>,
    /// Certificates to log in with. One that is missing is passed over.
    pub certificates: Vec<PathBuf>,
    /// The signature algorithms of our keys that are used.
    pub accepted_algorithms: Option<Vec<String>>,
    /// How often a password is tried.
    pub password_prompts: u32,
    /// Whether nothing may be asked for this host.
    pub batch_mode: bool,

    /// The command whose standard input and output lead to the host: it is given to the operator's shell.
    pub proxy_command: Option<String>,
    /// The most that each phase may take: look-up and dialling, key exchange, login, opening a channel.
    pub connect_timeout: Duration,
    /// How often the host is dialled, a second apart, before it counts as unreachable.
    pub connection_attempts: u32,
    /// The silence after which the other side is asked for a sign of life; zero for never.
    pub keepalive: Duration,
    /// How many of these it may leave unanswered.
    pub keepalive_max: u32,
    /// Which of the host's addresses are dialled.
    pub address_family: AddressFamily,
    /// The local address to dial from.
    pub bind_address: Option<String>,
    /// The interface whose address to dial from.
    pub bind_interface: Option<String>,
    /// Key exchanges.
    pub key_exchanges: Option<Vec<String>>,
    /// Ciphers.
    pub ciphers: Option<Vec<String>>,
    /// Message authentication codes.
    pub macs: Option<Vec<String>>,
}

/// What the command line says for all hosts: it beats ssh_config.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--host-keys`.
    pub host_keys: Option<HostKeyPolicy>,
    /// `--known-hosts`: the only files that count.
    pub known_hosts: Vec<PathBuf>,
    /// `--connect-timeout`.
    pub connect_timeout: Option<Duration>,
    /// `--keepalive`.
    pub keepalive: Option<Duration>,
}

impl HostSettings {
    /// What OpenSSH's client would use for an operator with this home folder and no ssh_config.
    pub fn for_home(home: &Path) -> Self {
        let ssh = home.join(".ssh");
        let in_ssh = |names: &[&str]| names.iter().map(|name| ssh.join(name)).collect();
        Self {
            host_keys: HostKeyPolicy::Strict,
            known_hosts: in_ssh(&["known_hosts", "known_hosts2"]),
            global_known_hosts: vec!["/etc/ssh/ssh_known_hosts".into()],
            host_key_alias: None,
            revoked_host_keys: None,
            hash_known_hosts: false,
            required_rsa_size: RSA_SIZE,
            host_key_algorithms: None,
            host_key_order: false,
            ca_signature_algorithms: None,
            methods: METHODS.to_vec(),
            default_identities: in_ssh(&["id_ed25519", "id_ecdsa", "id_rsa"]),
            identities_only: false,
            agent: None,
            certificates: vec![],
            accepted_algorithms: None,
            password_prompts: 3,
            batch_mode: false,
            proxy_command: None,
            connect_timeout: CONNECT_TIMEOUT,
            connection_attempts: 1,
            keepalive: KEEPALIVE,
            keepalive_max: KEEPALIVE_MAX,
            address_family: AddressFamily::Any,
            bind_address: None,
            bind_interface: None,
            key_exchanges: None,
            ciphers: None,
            macs: None,
        }
    }

    /// What ssh_config says about a host. `variable` reads the environment.
    pub fn of(host: &Resolved, variable: &dyn Fn(&str) -> Option<PathBuf>) -> Self {
        let written = |list: &AlgorithmList| list.written.as_ref().map(|_| list.names.clone());
        Self {
            host_keys: match host.host_key_checking {
                // The operator cannot be asked while a thousand nodes connect.
                HostKeyChecking::Strict | HostKeyChecking::Ask => HostKeyPolicy::Strict,
                HostKeyChecking::AcceptNew => HostKeyPolicy::AcceptNew,
                HostKeyChecking::Off => HostKeyPolicy::Off,
            },
            known_hosts: host.user_known_hosts_files.clone(),
            global_known_hosts: host.global_known_hosts_files.clone(),
            host_key_alias: host.host_key_alias.clone(),
            revoked_host_keys: host.revoked_host_keys.clone(),
            hash_known_hosts: host.hash_known_hosts,
            required_rsa_size: host.required_rsa_size,
            host_key_algorithms: written(&host.host_key_algorithms),
            // As with ssh: what only changes the defaults leaves their order open.
            host_key_order: (host.host_key_algorithms.written.as_ref())
                .is_some_and(|written| !written.starts_with(['+', '-'])),
            ca_signature_algorithms: written(&host.ca_signature_algorithms),
            methods: methods(host),
            default_identities: host
                .identity_files
                .iter()
                .filter(|file| !file.named)
                .map(|file| file.path.clone())
                .collect(),
            identities_only: host.identities_only,
            agent: match &host.identity_agent {
                IdentityAgent::Unset => variable("SSH_AUTH_SOCK"),
                IdentityAgent::Variable(name) => variable(name),
                IdentityAgent::Socket(path) => Some(path.clone()),
                IdentityAgent::Disabled => None,
            },
            certificates: host
                .certificate_files
                .iter()
                .map(|file| file.path.clone())
                .collect(),
            accepted_algorithms: written(&host.pubkey_accepted_algorithms),
            password_prompts: host.number_of_password_prompts,
            batch_mode: host.batch_mode,
            proxy_command: match &host.proxy {
                Proxy::Command { command, .. } => Some(command.clone()),
                Proxy::Direct | Proxy::Jump(_) => None,
            },
            connect_timeout: host.connect_timeout.unwrap_or(CONNECT_TIMEOUT),
            connection_attempts: host.connection_attempts,
            // ssh asks never where nothing is set; a run of hours must notice a node that has gone.
            keepalive: Some(host.server_alive_interval)
                .filter(|interval| !interval.is_zero())
                .unwrap_or(KEEPALIVE),
            keepalive_max: host.server_alive_count_max,
            address_family: host.address_family,
            bind_address: host.bind_address.clone(),
            bind_interface: host.bind_interface.clone(),
            key_exchanges: written(&host.kex_algorithms),
            ciphers: written(&host.ciphers),
            macs: written(&host.macs),
        }
    }

    /// Whether both trust the same host keys.
    pub(super) fn trusts_as(&self, other: &Self) -> bool {
        self.host_keys == other.host_keys
            && self.known_hosts == other.known_hosts
            && self.global_known_hosts == other.global_known_hosts
    }

    /// Puts the command line on top.
    pub fn with(mut self, command_line: &Overrides) -> Self {
        self.host_keys = command_line.host_keys.unwrap_or(self.host_keys);
        if !command_line.known_hosts.is_empty() {
            self.known_hosts = command_line.known_hosts.clone();
            self.global_known_hosts.clear();
        }
        self.connect_timeout = command_line.connect_timeout.unwrap_or(self.connect_timeout);
        self.keepalive = command_line.keepalive.unwrap_or(self.keepalive);
        self
    }
}

/// PreferredAuthentications without what is switched off.
fn methods(host: &Resolved) -> Vec<LoginMethod> {
    let usable = |method: &LoginMethod| match method {
        LoginMethod::PublicKey => host.pubkey_authentication != "no",
        LoginMethod::KeyboardInteractive => host.kbd_interactive_authentication,
        LoginMethod::Password => host.password_authentication,
    };
    let by_name = |name: &String| match name.as_str() {
        "publickey" => Some(LoginMethod::PublicKey),
        "keyboard-interactive" => Some(LoginMethod::KeyboardInteractive),
        "password" => Some(LoginMethod::Password),
        _ => None,
    };
    let preferred = match &host.preferred_authentications {
        Some(names) => names.iter().filter_map(by_name).collect(),
        None => METHODS.to_vec(),
    };
    preferred.into_iter().filter(usable).collect()
}

#[cfg(test)]
mod tests {
    use super::super::config::{CommandLine, LocalEnv, Source, SshConfig, System};
    use super::*;

    /// The settings of `node` by an ssh_config of this text.
    fn settings(text: &str) -> HostSettings {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config");
        std::fs::write(&file, text).unwrap();
        let ambient = LocalEnv::of_this_process().unwrap();
        let config = SshConfig::load(&Source::Only(file), ambient, Box::new(System)).unwrap();
        let host = config.resolve("node", &CommandLine::default()).unwrap();
        HostSettings::of(&host, &|name| {
            (name == "SSH_AUTH_SOCK").then(|| "/agent".into())
        })
    }

    #[test]
    fn ssh_config_decides_and_the_command_line_beats_it() {
        let plain = settings("");
        assert_eq!(plain.host_keys, HostKeyPolicy::Strict);
        assert_eq!(plain.agent, Some("/agent".into()));
        assert_eq!(plain.methods, METHODS);
        assert_eq!(plain.connect_timeout, CONNECT_TIMEOUT);
        assert_eq!(plain.key_exchanges, None);

        let set = settings(
            "StrictHostKeyChecking accept-new\nIdentityAgent none\nConnectTimeout 3\n\
             PreferredAuthentications password,hostbased,publickey\nPubkeyAuthentication no\n\
             KexAlgorithms curve25519-sha256\nUserKnownHostsFile /known\nProxyCommand nc %h %p\n",
        );
        assert_eq!(set.host_keys, HostKeyPolicy::AcceptNew);
        assert_eq!(set.agent, None);
        assert_eq!(set.methods, [LoginMethod::Password]);
        assert_eq!(set.connect_timeout, Duration::from_secs(3));
        assert_eq!(
            set.key_exchanges.as_deref(),
            Some(&["curve25519-sha256".to_string()][..])
        );
        assert_eq!(set.proxy_command.as_deref(), Some("nc node 22"));

        let over = set.with(&Overrides {
            host_keys: Some(HostKeyPolicy::Strict),
            known_hosts: vec!["/mine".into()],
            connect_timeout: Some(Duration::from_secs(7)),
            keepalive: None,
        });
        assert_eq!(over.host_keys, HostKeyPolicy::Strict);
        assert_eq!(over.known_hosts, [PathBuf::from("/mine")]);
        assert_eq!(over.global_known_hosts, Vec::<PathBuf>::new());
        assert_eq!(over.connect_timeout, Duration::from_secs(7));
        assert_eq!(over.keepalive, KEEPALIVE);
    }
}
