//! The keys and the password that we can log in with: read once, before the first connection.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use russh::keys::{HashAlg, PrivateKey, PublicKey, decode_secret_key};
use zeroize::Zeroizing;

use super::agent::{self, Agent};
use super::{SshError, SshOptions};
use crate::model::{Node, Secret};

/// A key to log in with. At least one of agent and file can sign for it.
pub(super) struct Identity {
    pub(super) public: PublicKey,
    /// The private key, when its file is at hand and not encrypted.
    pub(super) private: Option<Arc<PrivateKey>>,
    /// Whether the agent holds it.
    pub(super) in_agent: bool,
    /// Where it comes from, for people.
    origin: String,
}

impl std::fmt::Display for Identity {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            out,
            "{} {} ({})",
            self.public.algorithm(),
            self.public.fingerprint(HashAlg::Sha256),
            self.origin
        )
    }
}

/// All that we can log in with. Shared by all connections of a run.
pub(super) struct Identities {
    named: HashMap<PathBuf, Arc<Identity>>,
    defaults: Vec<Arc<Identity>>,
    in_agent: Vec<Arc<Identity>>,
    pub(super) agent: Option<Agent>,
    pub(super) password: Option<Secret>,
    /// What could not be used and why: told to an operator who is refused.
    pub(super) notes: Vec<String>,
}

impl Identities {
    /// Asks the agent for its keys and reads the key files that the nodes name, and the default
    /// ones when a node names none.
    ///
    /// # Errors
    /// A file that a node names and that is no use: missing, unreadable, no key, or encrypted while
    /// the agent does not hold its key. A password that is not UTF-8.
    pub(super) fn read(options: &SshOptions, nodes: &[Node]) -> Result<Self, SshError> {
        if let Some(password) = &options.password
            && std::str::from_utf8(password.expose()).is_err()
        {
            return Err(SshError::Password);
        }
        let mut identities = Self {
            named: HashMap::new(),
            defaults: Vec::new(),
            in_agent: Vec::new(),
            agent: None,
            password: options.password.clone(),
            notes: Vec::new(),
        };
        if let Some(host) = options.hosts.iter().find(|host| host.agent.is_some())
            && let Some(path) = &host.agent
        {
            // Sooner than the login's own deadline: the agent gets the blame.
            identities.ask_agent(path, host.connect_timeout * 3 / 4);
        }
        let of_hops = nodes
            .iter()
            .flat_map(|node| &node.jump)
            .flat_map(|hop| &hop.identities);
        for path in nodes
            .iter()
            .flat_map(|node| &node.identities)
            .chain(of_hops)
        {
            if !identities.named.contains_key(path) {
                let identity = identities.load(path)?;
                identities.named.insert(path.clone(), Arc::new(identity));
            }
        }
        if nodes.iter().any(|node| node.identities.is_empty()) {
            let mut seen = HashSet::new();
            let paths = options
                .hosts
                .iter()
                .flat_map(|host| &host.default_identities)
                .filter(|path| seen.insert(*path));
            for path in paths {
                match identities.load(path) {
                    Ok(identity) => identities.defaults.push(Arc::new(identity)),
                    Err(SshError::File { ref error, .. })
                        if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => identities.notes.push(format!("not used: {error}")),
                }
            }
        }
        Ok(identities)
    }

    fn ask_agent(&mut self, path: &Path, wait: Duration) {
        match agent::list(path) {
            Ok(keys) => {
                self.in_agent = keys
                    .into_iter()
                    .map(|public| {
                        Arc::new(Identity {
                            public,
                            private: None,
                            in_agent: true,
                            origin: "agent".to_owned(),
                        })
                    })
                    .collect();
                self.agent = Some(Agent::new(path.to_owned(), wait));
            }
            Err(error) => self.notes.push(format!(
                "the ssh-agent at {} was not used: {error}",
                path.display()
            )),
        }
    }

    fn load(&self, path: &Path) -> Result<Identity, SshError> {
        let bytes = Zeroizing::new(
            fs::read(path)
                .map_err(|error| SshError::file("cannot read the identity", path, &error))?,
        );
        let broken = |reason: String| SshError::Key {
            path: path.to_owned(),
            reason,
        };
        let text = std::str::from_utf8(&bytes).map_err(|_| broken("it is no text".into()))?;
        let (public, private) = parse(text, path).map_err(broken)?;
        let in_agent = public
            .as_ref()
            .is_some_and(|public| self.agent_holds(public));
        match (public, private) {
            (Some(public), private) if in_agent || private.is_some() => Ok(Identity {
                public,
                private: private.map(Arc::new),
                in_agent,
                origin: path.display().to_string(),
            }),
            _ if text.contains("PRIVATE KEY") => Err(SshError::Encrypted(path.to_owned())),
            _ => Err(broken(
                "it holds a public key, and no agent holds the private one".into(),
            )),
        }
    }

    fn agent_holds(&self, key: &PublicKey) -> bool {
        self.in_agent
            .iter()
            .any(|held| held.public.key_data() == key.key_data())
    }

    /// The keys to offer for a node that names these files, in the order of OpenSSH's client: the
    /// named ones first; without any, the default ones that the agent holds. Then what else the agent
    /// holds, then the default files.
    ///
    /// # Errors
    /// The first file that no node named when this was made.
    pub(super) fn offer<'a>(
        &'a self,
        named: &'a [PathBuf],
    ) -> Result<Vec<&'a Arc<Identity>>, &'a Path> {
        let mut first: Vec<&Arc<Identity>> = Vec::new();
        let mut last = Vec::new();
        for path in named {
            first.push(self.named.get(path).ok_or(path.as_path())?);
        }
        if named.is_empty() {
            (first, last) = self.defaults.iter().partition(|key| key.in_agent);
        }
        let mut offer: Vec<&Arc<Identity>> = Vec::new();
        for key in first.into_iter().chain(&self.in_agent).chain(last) {
            if !offer
                .iter()
                .any(|other| other.public.key_data() == key.public.key_data())
            {
                offer.push(key);
            }
        }
        Ok(offer)
    }
}

/// The keys in a file. A private key that is encrypted is `None`; its public key may be known all
/// the same. The error says what is wrong.
fn parse(text: &str, path: &Path) -> Result<(Option<PublicKey>, Option<PrivateKey>), String> {
    if !text.contains("PRIVATE KEY") && !text.starts_with("PuTTY-User-Key-File-") {
        return match PublicKey::from_openssh(text.trim()) {
            Ok(public) => Ok((Some(public), None)),
            Err(_) => Err("it is no private key in a form that OpenSSH writes".to_owned()),
        };
    }
    if text.contains("BEGIN OPENSSH PRIVATE KEY") {
        let key = PrivateKey::from_openssh(text).map_err(|error| error.to_string())?;
        let public = Some(key.public_key().clone());
        return Ok((public, (!key.is_encrypted()).then_some(key)));
    }
    if text.contains("ENCRYPTED") {
        // These forms hide the public key; OpenSSH looks beside them too.
        let mut beside = path.as_os_str().to_owned();
        beside.push(".pub");
        let public = fs::read_to_string(beside)
            .ok()
            .and_then(|text| PublicKey::from_openssh(text.trim()).ok());
        return Ok((public, None));
    }
    let key = decode_secret_key(text, None).map_err(|error| error.to_string())?;
    Ok((Some(key.public_key().clone()), Some(key)))
}

#[cfg(test)]
#[path = "identities_tests.rs"]
mod tests;
