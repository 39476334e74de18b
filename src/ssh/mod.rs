//! The transport over SSH: connects, checks host keys, authenticates, runs commands. The only user of russh.

mod agent;
mod auth;
pub mod config;
mod connect;
mod host_keys;
mod identities;
mod jump;
mod jump_stream;
mod known_hosts;
mod link;
mod session;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use connect::Target;
use host_keys::HostKeys;
use identities::Identities;
use link::Carrier;

pub use session::{SshChannel, SshSession};

use crate::model::{Failure, Node, Secret, Stage};
use crate::ports::Transport;

/// What is done with a host whose key is not in known_hosts. A revoked key is refused in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostKeyPolicy {
    /// Unknown and changed keys are refused.
    Strict,
    /// Unknown keys are recorded and trusted from then on; changed ones are refused.
    AcceptNew,
    /// Every key is taken. Whoever sits on the way to the node can read everything.
    Off,
}

/// How connections are made: the same for all nodes of a run.
#[derive(Debug, Clone)]
pub struct SshOptions {
    /// What is done with unknown host keys.
    pub host_keys: HostKeyPolicy,
    /// The operator's own known_hosts files; new keys are recorded in the first.
    pub known_hosts: Vec<PathBuf>,
    /// The machine's known_hosts files: read only.
    pub global_known_hosts: Vec<PathBuf>,
    /// Private keys for nodes that name none; those that do not exist or are no use are passed over.
    pub default_identities: Vec<PathBuf>,
    /// The agent's socket (`SSH_AUTH_SOCK`).
    pub agent: Option<PathBuf>,
    /// The login password, the same on all nodes and jump hosts.
    pub password: Option<Secret>,
    /// The most that each phase may take: look-up and dialling, key exchange, login, opening a channel.
    pub connect_timeout: Duration,
    /// The silence after which the other side is asked for a sign of life; zero for never. Four
    /// times this, and the connection counts as lost.
    pub keepalive: Duration,
}

impl SshOptions {
    /// What OpenSSH's client would use for an operator with this home folder.
    pub fn for_home(home: &Path) -> Self {
        let ssh = home.join(".ssh");
        let in_ssh = |names: &[&str]| names.iter().map(|name| ssh.join(name)).collect();
        Self {
            host_keys: HostKeyPolicy::Strict,
            known_hosts: in_ssh(&["known_hosts", "known_hosts2"]),
            global_known_hosts: vec!["/etc/ssh/ssh_known_hosts".into()],
            default_identities: in_ssh(&["id_ed25519", "id_ecdsa", "id_rsa"]),
            agent: None,
            password: None,
            connect_timeout: Duration::from_secs(10),
            keepalive: Duration::from_secs(15),
        }
    }
}

/// Something about the operator's SSH files that can be seen before the first connection.
#[derive(Debug, thiserror::Error)]
pub enum SshError {
    /// A file cannot be read or written.
    #[error("{what} {}: {error}", .path.display())]
    File {
        /// What was tried, e.g. "cannot read".
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system answered.
        error: io::Error,
    },
    /// A file that should hold a key does not.
    #[error("the identity {} cannot be used: {reason}; name a private key in OpenSSH's, PKCS#1 or PKCS#8 form", .path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The key has a passphrase, and the agent does not hold it.
    #[error("the identity {path} is encrypted, and no ssh-agent holds its key: run `ssh-add {path}` first", path = .0.display())]
    Encrypted(PathBuf),
    /// The password is no text.
    #[error("the SSH password is not UTF-8, which SSH wants (RFC 4252)")]
    Password,
}

impl SshError {
    fn file(what: &'static str, path: &Path, error: &io::Error) -> Self {
        Self::File {
            what,
            path: path.to_owned(),
            // io::Error cannot be cloned; kind and text are all that is shown.
            error: io::Error::new(error.kind(), error.to_string()),
        }
    }
}

/// Reaches nodes over SSH. Clones share everything.
#[derive(Clone)]
pub struct SshTransport(Arc<Inner>);

struct Inner {
    options: SshOptions,
    host_keys: Arc<HostKeys>,
    identities: Identities,
    pool: jump::Pool,
    warnings: Vec<String>,
}

impl SshTransport {
    /// Reads known_hosts, the identities that the nodes name and the agent's list of keys: once, for
    /// all connections. Blocks for a moment.
    ///
    /// # Errors
    /// Everything that can be found wrong before the first connection.
    pub fn new(options: SshOptions, nodes: &[Node]) -> Result<Self, SshError> {
        let (host_keys, mut warnings) = HostKeys::read(
            options.host_keys,
            &options.known_hosts,
            &options.global_known_hosts,
        )?;
        let identities = Identities::read(&options, nodes)?;
        warnings.extend(identities.notes.iter().cloned());
        Ok(Self(Arc::new(Inner {
            options,
            host_keys: Arc::new(host_keys),
            identities,
            pool: jump::Pool::default(),
            warnings,
        })))
    }

    /// What was passed over while reading: known_hosts lines (with file and line), default keys, the agent.
    pub fn warnings(&self) -> &[String] {
        &self.0.warnings
    }

    /// Ends the sessions to jump hosts politely, within two seconds; for the end of a run.
    pub async fn close(&self) {
        let bastions = self.0.pool.clear();
        futures::future::join_all(bastions.iter().map(|bastion| bastion.close())).await;
    }
}

impl Transport for SshTransport {
    type Session = SshSession;

    async fn connect(
        &self,
        node: &Node,
        progress: &(dyn Fn(Stage) + Send + Sync),
    ) -> Result<SshSession, Failure> {
        let wait = self.0.options.connect_timeout;
        progress(Stage::Connect);
        let carrier = if node.jump.is_empty() {
            Carrier::Tcp(connect::dial(&node.address, node.port, wait).await?)
        } else {
            let stream = jump::through(
                Arc::clone(&self.0),
                &node.jump,
                &node.identities,
                &node.address,
                node.port,
            );
            Carrier::Jump(stream.await?)
        };
        let target = Target {
            host: &node.address,
            port: node.port,
            user: &node.user,
            identities: &node.identities,
        };
        let live = connect::open(&self.0, carrier, &target, progress).await?;
        Ok(SshSession::new(live, wait))
    }
}
