//! What russh asks and tells us while a session lives: the host key, what the server does unasked, and the end.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use russh::Channel;
use russh::client::{ChannelOpenHandle, DisconnectReason, Handler, Msg, Session};
use russh::keys::ssh_encoding::Error as EncodingError;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, HashAlg, PublicKey, PublicKeyOrCertificate};

use super::forward::Forwarding;
use super::host_keys::{HostKeys, KeyStatus, Trust};
use super::known_hosts::KnownName;
use super::link::ConnectionHandle;
use super::revoked::Revoked;
use super::settings::HostSettings;
use crate::model::text::truncate_bytes;

/// The most of a server's own words that is kept.
const WORDS: usize = 500;
/// How many requests that nothing asked for are refused before the connection is ended. An honest server makes none,
/// but for OpenSSH's one announcement of its host keys.
const MOST_UNREQUESTED: usize = 8;

/// What ends a session from within.
#[derive(Debug)]
pub(super) enum Fault {
    HostKey(String),
    /// The host should be asked for these types of keys, in this order.
    Order(Vec<Algorithm>),
    Ssh(russh::Error),
}

impl From<russh::Error> for Fault {
    fn from(error: russh::Error) -> Self {
        Self::Ssh(error)
    }
}

/// Where the handler of a connection leaves what it saw.
pub(super) type Slot = Arc<Mutex<Option<(PublicKey, KeyStatus)>>>;

/// What russh asks and tells us while a session lives.
pub(super) struct Client {
    pub(super) has_changed: Arc<AtomicBool>,
    pub(super) host_keys: Arc<HostKeys>,
    pub(super) revoked: Option<Arc<Result<Revoked, String>>>,
    pub(super) name: KnownName,
    /// The types of keys that the host was asked for, in order; none where it must not be asked in another one.
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) settings: Arc<HostSettings>,
    pub(super) link: ConnectionHandle,
    /// How often the server has asked for something that only a server that misbehaves asks for.
    pub(super) unrequested: usize,
    /// The port that the server was asked to forward, once it does.
    pub(super) forwarding: Forwarding,
    /// Where the host's key is left, when nothing else is wanted of the host.
    pub(super) scan: Option<Slot>,
}

impl Client {
    /// Counts what the server asked for unasked, and ends the connection when it does not stop. russh would accept
    /// every channel that it opens, and keep each in memory.
    fn refuse(&mut self) -> Result<(), Fault> {
        self.unrequested += 1;
        if self.unrequested <= MOST_UNREQUESTED {
            return Ok(());
        }
        self.link.kill(
            "the server kept opening channels or announcing host keys that prepull had not asked for",
        );
        Err(Fault::Ssh(russh::Error::Disconnect))
    }

    /// What RevokedHostKeys lists is refused whatever known_hosts says.
    fn check_revoked(
        &self,
        revoked: &Result<Revoked, String>,
        offered: &PublicKeyOrCertificate,
        key: &PublicKey,
    ) -> Result<(), Fault> {
        match revoked {
            Ok(list) if !list.holds(offered) => Ok(()),
            Ok(_) => Err(Fault::HostKey(format!(
                "the host key of {} is revoked: {} (RevokedHostKeys of ssh_config) forbids {} {} or its certificate; give the node a new one",
                self.name,
                self.settings
                    .revoked_host_keys
                    .as_deref()
                    .unwrap_or(Path::new(""))
                    .display(),
                key.algorithm(),
                key.fingerprint(HashAlg::Sha256)
            ))),
            Err(unread) => Err(Fault::HostKey(format!(
                "{unread}; no host key is taken then, by ssh neither"
            ))),
        }
    }
}

impl Handler for Client {
    type Error = Fault;

    async fn check_server_key(&mut self, offered: &PublicKeyOrCertificate) -> Result<bool, Fault> {
        let key = offered.public_key();
        if let KeyData::Rsa(rsa) = key.key_data()
            && rsa.key_size() < self.settings.required_rsa_size
        {
            return Err(Fault::HostKey(format!(
                "the host key of {} is an RSA key of {} bits; RequiredRSASize of ssh_config asks for {}",
                self.name,
                rsa.key_size(),
                self.settings.required_rsa_size
            )));
        }
        if let Some(revoked) = self.revoked.as_deref() {
            self.check_revoked(revoked, offered, &key)?;
        }
        if let Some(slot) = &self.scan {
            let vouched = offered.certificate().map(|certificate| {
                self.host_keys
                    .check_certificate(&self.name, certificate, &self.settings)
            });
            let status = match vouched {
                Some(Ok(Trust::Yes)) => Ok(KeyStatus::Known),
                // No order of types brings another key: certificates are asked for first.
                Some(_) => self.host_keys.status(&self.name, &key, &[key.algorithm()]),
                None => self.host_keys.status(&self.name, &key, &self.algorithms),
            }
            .map_err(Fault::Order)?;
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some((key, status));
            return Err(Fault::HostKey("only the key was wanted".to_owned()));
        }
        let trust = match offered.certificate() {
            Some(certificate) => {
                self.host_keys
                    .check_certificate(&self.name, certificate, &self.settings)
            }
            None => self.host_keys.check(&self.name, &key, &self.algorithms),
        };
        match trust.map_err(Fault::HostKey)? {
            Trust::Yes => Ok(true),
            Trust::Changed => {
                self.has_changed.store(true, Ordering::Relaxed);
                Ok(true)
            }
            Trust::AskFor(algorithms) => Err(Fault::Order(algorithms)),
            Trust::OnceRecorded { lines } => {
                let (host_keys, name) = (Arc::clone(&self.host_keys), self.name.clone());
                let hash = self.settings.hash_known_hosts;
                tokio::task::spawn_blocking(move || host_keys.record(&name, &key, lines, hash))
                    .await
                    .unwrap_or_else(|error| Err(format!("recording the host key failed: {error}")))
                    .map_err(Fault::HostKey)?;
                Ok(true)
            }
        }
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Fault>) -> Result<(), Fault> {
        match reason {
            DisconnectReason::ReceivedDisconnect(farewell) => {
                self.link
                    .note_farewell(truncate_bytes(farewell.message.as_bytes(), WORDS));
                Ok(())
            }
            DisconnectReason::Error(fault) => {
                if let Fault::Ssh(error) = &fault {
                    match error {
                        russh::Error::NoAuthMethod => self
                            .link
                            .note_farewell("it offers no other way to log in".to_owned()),
                        // russh reads all text as UTF-8, as RFC 4252 has it, and offers no other way.
                        russh::Error::SshEncoding(EncodingError::CharacterEncoding) => {
                            self.link.note_farewell(
                                "it sent text that is not UTF-8, which RFC 4252 wants and prepull cannot do without: \
                                 is it the Banner of its sshd_config? Write that file anew in UTF-8"
                                    .to_owned(),
                            );
                        }
                        russh::Error::KeepaliveTimeout | russh::Error::InactivityTimeout => {
                            self.link.note_fault(|| {
                                "the other side has not answered keep-alives".to_owned()
                            });
                        }
                        // What the stream said is clearer, and came first.
                        other => self.link.note_fault(|| other.to_string()),
                    }
                }
                Err(fault)
            }
        }
    }
    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        channel: Channel<Msg>,
        address: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Fault> {
        if self.forwarding.is_at(address, port) {
            // Any program of the node may connect as often as it likes: that is not the server's fault.
            self.forwarding
                .accept(channel, reply, self.link.clone())
                .await;
            return Ok(());
        }
        // Dropping the handle refuses the channel, here and below.
        self.refuse()
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Fault> {
        self.refuse()
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        _: Channel<Msg>,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Fault> {
        self.refuse()
    }

    async fn server_channel_open_session(
        &mut self,
        _: Channel<Msg>,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Fault> {
        self.refuse()
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Fault> {
        self.refuse()
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Fault> {
        self.refuse()
    }

    async fn server_channel_open_x11(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Fault> {
        self.refuse()
    }

    async fn should_accept_unknown_server_channel(&mut self, _: russh::ChannelId, _: &str) -> bool {
        // The error has no way out here, but the link is dead already when there is one.
        let _ = self.refuse();
        false
    }

    async fn openssh_ext_host_keys_announced(
        &mut self,
        _: Vec<PublicKey>,
        _: &mut Session,
    ) -> Result<(), Fault> {
        self.refuse()
    }
}
