//! The transport over SSH: connects, checks host keys, authenticates, runs commands. The only user of russh.

mod agent;
mod algorithms;
mod auth;
mod channel_stream;
mod connect;
mod dial;
mod forward;
mod handler;
mod host_certificate;
mod host_keys;
mod identities;
mod jump;

mod key_candidate;
mod key_files;
mod keyboard_interactive;
pub mod known_hosts;
mod link;
mod proxy_command;
mod queue;
mod revoked;
mod scan;
mod session;
mod settings;
mod stream;
mod target;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Semaphore;

use futures::FutureExt as _;
use host_keys::HostKeys;
use identities::Identities;
use revoked::Revoked;
use stream::RawStream;
use target::Target;

pub use host_keys::KeyStatus;
pub use identities::AskPassphrase;
pub use key_files::public_key_of;
pub use scan::{ScanTarget, ScannedKey};
pub use session::{SshChannel, SshSession};
/// OpenSSH's configuration files: a crate of its own.
pub use ssh_config_resolver as config;

pub use settings::{CONNECT_TIMEOUT, HostSettings, KEEPALIVE, LoginMethod, Overrides};

pub use crate::model::HostKeyPolicy;
use crate::model::{Failure, FailureKind, Hop, Node, Passwords, Secret, Stage};
use crate::ports::Transport;

/// How many nodes are connected to at one time, however many are at work: key exchanges of thousands at once would take
/// longer, one with another, than each of them may.
pub const CONNECTING: usize = 512;

/// How the nodes of a run are reached.
#[derive(Debug, Clone, Default)]
pub struct SshOptions {
    /// How each host is reached: nodes and hops name theirs by its number.
    pub hosts: Vec<HostSettings>,
    /// The login password, the same on all nodes. No jump host gets it.
    pub password: Option<Secret>,
    /// The login passwords of jump hosts, by the [`Hop`] as it is written.
    pub jump_passwords: HashMap<String, Secret>,
}

impl SshOptions {
    fn password_of(&self, hop: &Hop) -> Option<&Secret> {
        self.jump_passwords.get(&hop.to_string())
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
    /// The key has a passphrase that was not given, and the agent does not hold it.
    #[error("the identity {path} is encrypted, no ssh-agent holds its key, and nobody gave its passphrase: run `ssh-add {path}` first, or start prepull on a terminal and without BatchMode", path = .0.display())]
    Encrypted(PathBuf),
    /// What was given as its passphrase opens no key.
    #[error("the identity {path} did not open with the passphrase that was given: check it with `ssh-keygen -y -f {path}`; a key in an old PEM form may have to be rewritten by `ssh-keygen -p -f {path}`", path = .0.display())]
    WrongPassphrase(PathBuf),
    /// Others may read the private key.
    #[error("the private key {path} is not protected: its mode is {mode:04o}, so others may read it, and ssh does not use it either: run `chmod 600 {path}`", path = .path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A list of algorithms leaves nothing to agree on.
    #[error("{option} of ssh_config names nothing that prepull can do: {listed}")]
    Algorithms {
        /// The option.
        option: &'static str,
        /// What it lists.
        listed: String,
    },
    /// The password is not text.
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

/// How some hosts are reached and whom they may be.
struct Host {
    settings: Arc<HostSettings>,
    host_keys: Arc<HostKeys>,
    /// What RevokedHostKeys names; the error refuses every key.
    revoked: Option<Arc<Result<Revoked, String>>>,
}

/// Reaches nodes over SSH. Clones share everything.
#[derive(Clone)]
pub struct SshTransport(Arc<Inner>);

struct Inner {
    hosts: Vec<Host>,
    identities: Identities,
    password: Option<Secret>,
    jump_passwords: HashMap<String, Secret>,
    /// What became of these passwords.
    tried: Passwords,
    /// What became of those for becoming root.
    root_passwords: Arc<Passwords>,
    pool: jump::Pool,
    connecting: Semaphore,
    warnings: Vec<String>,
}

impl SshTransport {
    /// Reads known_hosts, the identities that the nodes name and the agent's list of keys: once, for
    /// all connections. Blocks for a moment.
    ///
    /// # Errors
    /// Everything that can be found wrong before the first connection.
    pub fn new(options: SshOptions, nodes: &[Node]) -> Result<Self, SshError> {
        Self::asking(options, nodes, &|_, _| None)
    }

    /// As [`SshTransport::new`], and asks for the passphrases of encrypted keys that will be needed.
    ///
    /// # Errors
    /// As there.
    pub fn asking(
        options: SshOptions,
        nodes: &[Node],
        ask: AskPassphrase<'_>,
    ) -> Result<Self, SshError> {
        let mut warnings = Vec::new();
        let mut hosts: Vec<Host> = Vec::with_capacity(options.hosts.len());
        let mut lists: HashMap<PathBuf, Arc<Result<Revoked, String>>> = HashMap::new();
        let identities = Identities::read(&options, nodes, ask)?;
        for settings in options.hosts {
            if let Some((option, listed)) = algorithms::impossible(&settings) {
                return Err(SshError::Algorithms { option, listed });
            }
            let host_keys = match hosts.iter().find(|host| host.settings.trusts_as(&settings)) {
                Some(host) => Arc::clone(&host.host_keys),
                None => {
                    let (host_keys, unread) = HostKeys::read(
                        settings.host_keys,
                        &settings.known_hosts,
                        &settings.global_known_hosts,
                    );
                    warnings.extend(unread);
                    Arc::new(host_keys)
                }
            };
            let revoked = settings.revoked_host_keys.as_ref().map(|path| {
                let list = lists.entry(path.clone());
                Arc::clone(list.or_insert_with(|| Arc::new(Revoked::read(path))))
            });
            hosts.push(Host {
                settings: Arc::new(settings),
                host_keys,
                revoked,
            });
        }
        warnings.extend(identities.notes.iter().cloned());
        Ok(Self(Arc::new(Inner {
            hosts,
            identities,
            password: options.password,
            jump_passwords: options.jump_passwords,
            tried: Passwords::default(),
            root_passwords: Arc::default(),
            pool: jump::Pool::default(),
            connecting: Semaphore::new(CONNECTING),
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

impl Inner {
    /// # Errors
    /// There are no settings with this number: a bug in prepull.
    fn host(&self, number: usize) -> Result<&Host, Failure> {
        self.hosts.get(number).ok_or_else(|| {
            Failure::new(
                FailureKind::Internal,
                Stage::Connect,
                format!("there are no SSH settings number {number}"),
            )
        })
    }
}

impl Transport for SshTransport {
    type Session = SshSession;

    async fn connect(
        &self,
        node: &Node,
        progress: &(dyn Fn(Stage) + Send + Sync),
    ) -> Result<SshSession, Failure> {
        let settings = &self.0.host(node.ssh_settings)?.settings;
        let wait = settings.connect_timeout;
        // It is never closed, so there is no error.
        let _place = self.0.connecting.acquire().await;
        progress(Stage::Connect);
        if node.address.is_empty() {
            return Err(Failure::new(
                FailureKind::NodeSetup,
                Stage::Connect,
                "the Kubernetes API names no address of the wanted type for this node: choose another with --address-type, or \
                 give the node an address in an inventory beside it",
            ));
        }
        let target = Target {
            host: &node.address,
            port: node.port,
            user: &node.user,
            identities: &node.identities,
            password: self.0.password.as_ref(),
            route: &node.jump,
            is_jump_host: false,
            settings: node.ssh_settings,
        };
        let live = connect::open(&self.0, &target, progress, &|| {
            async move {
                if node.jump.is_empty() {
                    return dial::carrier(&node.address, node.port, settings).await;
                }
                let stream = jump::through(
                    Arc::clone(&self.0),
                    &node.jump,
                    &node.identities,
                    &node.address,
                    node.port,
                    wait,
                );
                stream.await.map(RawStream::Jump)
            }
            .boxed()
        })
        .await?;
        let root_passwords = Arc::clone(&self.0.root_passwords);
        Ok(SshSession::new(live, wait, root_passwords))
    }

    fn has_given_up_a_password(&self) -> bool {
        self.0.tried.is_any_given_up() || self.0.root_passwords.is_any_given_up()
    }
}
