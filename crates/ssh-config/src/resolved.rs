//! What the configuration says of one host, in types.

use std::path::PathBuf;
use std::time::Duration;

use super::error::Warning;
use super::types::{AddressFamily, JumpHost};

/// StrictHostKeyChecking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HostKeyChecking {
    /// `yes`: an unknown host key is refused.
    Strict,
    /// `ask`, the default: the operator confirms an unknown host key.
    Ask,
    /// An unknown host key is taken and remembered, a changed one refused.
    AcceptNew,
    /// `no` or `off`: unknown and changed host keys are taken.
    Off,
}

/// CanonicalizeHostname.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Canonicalize {
    /// The default.
    No,
    /// Where no proxy looks the name up.
    Yes,
    /// Behind a proxy too.
    Always,
}

/// CanonicalizeHostname and its companions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canonicalization {
    /// Whether names are made canonical.
    pub mode: Canonicalize,
    /// The suffixes to try, in order; may be `none` alone.
    pub domains: Vec<String>,
    /// A name with more dots is left alone.
    pub max_dots: u32,
    /// Whether a name that no suffix fits is used as it is; else it is an error.
    pub fallback_local: bool,
    /// Which names may be aliases of which: lists of patterns.
    pub permitted_cnames: Vec<(String, String)>,
}

/// A key or certificate file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFile {
    /// As it is written, for messages.
    pub written: String,
    /// With `~`, tokens and variables replaced.
    pub path: PathBuf,
    /// Whether it was named; `false` for the files that `ssh` tries by itself, which may well be missing.
    pub named: bool,
}

/// Where the agent is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentityAgent {
    /// Nothing is set: the socket that `SSH_AUTH_SOCK` names.
    Unset,
    /// The socket that this environment variable names; no agent where it is not set.
    Variable(String),
    /// This socket.
    Socket(PathBuf),
    /// No agent is used.
    Disabled,
}

/// How the host is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proxy {
    /// By dialling it.
    Direct,
    /// Through the stdin and stdout of a command. `ssh` gives it to the user's shell as `exec COMMAND`.
    Command {
        /// As it is written.
        written: String,
        /// With tokens replaced.
        command: String,
    },
    /// Through these hosts, first hop first. Where only one is written, that host's own ProxyJump or ProxyCommand
    /// applies to it: see [`super::SshConfig::route`].
    Jump(Vec<JumpHost>),
}

/// A list of algorithms, best first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlgorithmList {
    /// What is written, if anything: `None` leaves the choice of defaults to the caller.
    pub written: Option<String>,
    /// The list as OpenSSH 9.2 would have it.
    pub names: Vec<String>,
}

/// What the configuration says of one host.
///
/// Words of options that have no type of their own are in lower case, as in `yes`, `ask`, `auto`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The host as it was given.
    pub given: String,
    /// The name or address to dial, and to look up in known_hosts where there is no alias.
    pub host_name: String,
    /// Who logs in.
    pub user: String,
    /// The server's port.
    pub port: u16,
    /// Private keys to offer, in order.
    pub identity_files: Vec<KeyFile>,
    /// Whether the agent's other keys stay unused.
    pub identities_only: bool,
    /// Where the agent is.
    pub identity_agent: IdentityAgent,
    /// Certificates to offer, in order.
    pub certificate_files: Vec<KeyFile>,
    /// AddKeysToAgent: yes, no, ask or confirm.
    pub add_keys_to_agent: String,
    /// How the host is reached.
    pub proxy: Proxy,
    /// known_hosts of the user, the first of which learns new keys. Empty for `none`.
    pub user_known_hosts_files: Vec<PathBuf>,
    /// known_hosts of the system. Empty for `none`.
    pub global_known_hosts_files: Vec<PathBuf>,
    /// What happens to unknown and changed host keys.
    pub host_key_checking: HostKeyChecking,
    /// The name to look up in known_hosts instead of the host name.
    pub host_key_alias: Option<String>,
    /// Host keys that are refused whatever known_hosts says.
    pub revoked_host_keys: Option<PathBuf>,
    /// Whether names are hashed where a key is remembered.
    pub hash_known_hosts: bool,
    /// UpdateHostKeys: yes, no or ask.
    pub update_host_keys: String,
    /// CheckHostIP.
    pub check_host_ip: bool,
    /// VerifyHostKeyDNS: yes, no or ask.
    pub verify_host_key_dns: String,
    /// KnownHostsCommand as written.
    pub known_hosts_command: Option<String>,
    /// RSA keys with fewer bits are refused, the host's and the user's.
    pub required_rsa_size: u32,
    /// Host key algorithms.
    pub host_key_algorithms: AlgorithmList,
    /// Key exchanges.
    pub kex_algorithms: AlgorithmList,
    /// Ciphers.
    pub ciphers: AlgorithmList,
    /// Message authentication codes.
    pub macs: AlgorithmList,
    /// Signatures of user keys.
    pub pubkey_accepted_algorithms: AlgorithmList,
    /// Signatures of certificate authorities.
    pub ca_signature_algorithms: AlgorithmList,
    /// Signatures of host-based authentication.
    pub hostbased_accepted_algorithms: AlgorithmList,
    /// The methods to try, in order; `None` for `ssh`'s own order.
    pub preferred_authentications: Option<Vec<String>>,
    /// PubkeyAuthentication: yes, no, unbound or host-bound.
    pub pubkey_authentication: String,
    /// Whether a password may be tried.
    pub password_authentication: bool,
    /// Whether prompts of the server are answered.
    pub kbd_interactive_authentication: bool,
    /// HostbasedAuthentication.
    pub hostbased_authentication: bool,
    /// GSSAPIAuthentication.
    pub gssapi_authentication: bool,
    /// How often a password is asked for.
    pub number_of_password_prompts: u32,
    /// Whether nothing may be asked.
    pub batch_mode: bool,
    /// For TCP, key exchange and banner together; `None` for the system's own.
    pub connect_timeout: Option<Duration>,
    /// How often a connection is tried; at least 1.
    pub connection_attempts: u32,
    /// How long a server may be silent before it is asked for a sign of life; zero for never.
    pub server_alive_interval: Duration,
    /// How many of these it may leave unanswered.
    pub server_alive_count_max: u32,
    /// TCPKeepAlive.
    pub tcp_keep_alive: bool,
    /// Which addresses are dialled.
    pub address_family: AddressFamily,
    /// The local address to dial from.
    pub bind_address: Option<String>,
    /// The interface whose address to dial from.
    pub bind_interface: Option<String>,
    /// How the host name was made canonical.
    pub canonicalization: Canonicalization,
    /// Compression.
    pub compression: bool,
    /// ForwardAgent: yes, no or a socket as written.
    pub forward_agent: String,
    /// RequestTTY: yes, no, force or auto.
    pub request_tty: String,
    /// RemoteCommand with tokens replaced.
    pub remote_command: Option<String>,
    /// ControlMaster: yes, no, auto, ask or autoask.
    pub control_master: String,
    /// ControlPath, expanded.
    pub control_path: Option<PathBuf>,
    /// Names of environment variables that `ssh` would send.
    pub send_env: Vec<String>,
    /// `NAME=value` pairs that `ssh` would send.
    pub set_env: Vec<String>,
    /// The tag that `Match tagged` sees.
    pub tag: Option<String>,
    /// What is set and not honoured.
    pub warnings: Vec<Warning>,
}
