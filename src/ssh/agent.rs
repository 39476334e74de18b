//! The operator's ssh-agent: which keys it holds, and signatures from it. The protocol is
//! draft-ietf-sshm-ssh-agent; listing is done here because russh gives up on the whole list when one
//! key in it is of a kind it does not know.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use russh::keys::agent::client::AgentClient;
use russh::keys::agent::{AgentIdentity, AgentSessionBinding};
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Certificate, Error as KeyError, HashAlg, PublicKey};
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::time::timeout;

/// How long the agent may take to list its keys.
const LIST_WAIT: Duration = Duration::from_secs(5);
/// How long the operator may take to touch a FIDO device; sshd itself waits two minutes for a login.
pub(super) const TOUCH_WAIT: Duration = Duration::from_secs(60);
/// More than any agent lists.
const LONGEST_ANSWER: usize = 1 << 20;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;

/// What an agent holds: a key, or a user's certificate together with its key.
pub(super) enum AgentKey {
    Key(PublicKey),
    Certificate(Box<Certificate>),
}

impl AgentKey {
    pub(super) fn key(&self) -> &KeyData {
        match self {
            Self::Key(key) => key.key_data(),
            Self::Certificate(certificate) => certificate.public_key(),
        }
    }

    pub(super) fn certificate(&self) -> Option<&Certificate> {
        match self {
            Self::Key(_) => None,
            Self::Certificate(certificate) => Some(certificate),
        }
    }
}

/// The keys and certificates that the agent at `path` holds; those of unknown kinds are left out.
///
/// Blocks for at most a few seconds.
///
/// # Errors
/// The agent cannot be reached or does not speak the protocol.
pub(super) fn list(path: &Path) -> io::Result<Vec<AgentKey>> {
    let mut stream = BlockingStream::connect(path)?;
    stream.set_read_timeout(Some(LIST_WAIT))?;
    stream.set_write_timeout(Some(LIST_WAIT))?;
    stream.write_all(&[0, 0, 0, 1, REQUEST_IDENTITIES])?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > LONGEST_ANSWER {
        return Err(io::Error::other("its answer is too long"));
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer)?;
    parse(&answer).ok_or_else(|| io::Error::other("its answer is no list of keys"))
}

fn parse(answer: &[u8]) -> Option<Vec<AgentKey>> {
    let (kind, mut rest) = answer.split_first()?;
    if *kind != IDENTITIES_ANSWER {
        return None;
    }
    let count = take_number(&mut rest)?;
    let mut keys = Vec::new();
    for _ in 0..count {
        let blob = take_string(&mut rest)?;
        let _comment = take_string(&mut rest)?;
        let kind = take_string(&mut &*blob)?;
        if kind.ends_with(b"-cert-v01@openssh.com") {
            // The agent must find it again by what we send: byte for byte.
            if let Ok(certificate) = Certificate::from_bytes(blob)
                && certificate.cert_type() == CertType::User
                && certificate.to_bytes().is_ok_and(|bytes| bytes == blob)
            {
                keys.push(AgentKey::Certificate(Box::new(certificate)));
            }
        } else if let Ok(key) = PublicKey::from_bytes(blob) {
            keys.push(AgentKey::Key(key));
        }
    }
    Some(keys)
}

fn take_number(rest: &mut &[u8]) -> Option<u32> {
    let (number, after) = rest.split_first_chunk::<4>()?;
    *rest = after;
    Some(u32::from_be_bytes(*number))
}

fn take_string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = take_number(rest)? as usize;
    let (string, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(string)
}

/// Signs with the agent's keys, over one connection: agents answer one request at a time anyway,
/// and a thousand connections would overrun their queue.
pub(super) struct Agent {
    path: PathBuf,
    /// The most that one signature may take, waiting for its turn included.
    wait: Duration,
    connection: Mutex<Option<AgentClient<UnixStream>>>,
}

impl Agent {
    pub(super) fn new(path: PathBuf, wait: Duration) -> Self {
        Self {
            path,
            wait,
            connection: Mutex::new(None),
        }
    }

    /// The data with the signature behind it. A key that may have to be touched gets a minute. `session` is what the
    /// signature is for.
    ///
    /// # Errors
    /// The agent cannot be reached, refuses, or does not answer in time.
    pub(super) async fn sign(
        &self,
        identity: &AgentIdentity,
        hash: Option<HashAlg>,
        data: Vec<u8>,
        wants_touch: bool,
        session: Option<&AgentSessionBinding>,
    ) -> Result<Vec<u8>, KeyError> {
        let wait = if wants_touch { TOUCH_WAIT } else { self.wait };
        timeout(wait, self.sign_at_last(identity, hash, data, session))
            .await
            .unwrap_or_else(|_| Err(KeyError::IO(io::ErrorKind::TimedOut.into())))
    }

    async fn sign_at_last(
        &self,
        identity: &AgentIdentity,
        hash: Option<HashAlg>,
        data: Vec<u8>,
        session: Option<&AgentSessionBinding>,
    ) -> Result<Vec<u8>, KeyError> {
        let mut kept = self.connection.lock().await;
        // Taken out while in use: a call that is cancelled half-way takes its connection with it.
        let reused = kept.take();
        let was_reused = reused.is_some();
        let mut client = match reused {
            Some(client) => client,
            None => AgentClient::connect_uds(&self.path).await?,
        };
        let mut signed = client.sign_request(identity, hash, data.clone()).await;
        if was_reused && matches!(signed, Err(KeyError::IO(_))) {
            // The agent may have been restarted since: once more, on a new connection.
            client = AgentClient::connect_uds(&self.path).await?;
            signed = client.sign_request(identity, hash, data.clone()).await;
        }
        if !matches!(signed, Err(KeyError::IO(_))) {
            *kept = Some(client);
        }
        if let (Err(KeyError::AgentFailure), Some(session)) = (&signed, session) {
            // A key for certain hosts only (`ssh-add -h`) wants proof of the host, and a connection for it alone.
            let mut bound = AgentClient::connect_uds(&self.path).await?;
            bound.bind_session(session, false).await?;
            signed = bound.sign_request(identity, hash, data).await;
        }
        signed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use russh::keys::key::safe_rng;
    use russh::keys::{Algorithm, PrivateKey};

    use super::*;

    fn string(bytes: &[u8]) -> Vec<u8> {
        let mut string = (bytes.len() as u32).to_be_bytes().to_vec();
        string.extend(bytes);
        string
    }

    #[test]
    fn a_key_of_an_unknown_kind_does_not_hide_the_others() {
        let key = PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).unwrap();
        let mut answer = vec![IDENTITIES_ANSWER, 0, 0, 0, 3];
        for blob in [
            [string(b"ssh-ed25519"), b"broken".to_vec()].concat(),
            [string(b"ssh-ed25519-cert-v01@openssh.com"), string(b"x")].concat(),
            key.public_key().to_bytes().unwrap(),
        ] {
            answer.extend(string(&blob));
            answer.extend(string(b"comment"));
        }
        let keys = parse(&answer).unwrap();
        assert_eq!(keys.len(), 1);
        assert_eq!(keys[0].key(), key.public_key().key_data());
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_reader_panic(answer in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse(&answer);
            let _ = parse(&[&[IDENTITIES_ANSWER, 0, 0, 0, 1][..], &answer].concat());
        }
    }
}
