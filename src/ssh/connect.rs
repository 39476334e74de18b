//! One connection from the first packet to the login, every phase under a deadline of its own.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use russh::client::{self, DisconnectReason, GexParams, Handle, Handler};
use russh::keys::PublicKeyOrCertificate;
use russh::{Preferred, SshId, compression, kex};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};

use super::host_keys::{HostKeys, Trust};
use super::known_hosts::known_name;
use super::link::{Carrier, KillOnDrop, Link, plain};
use super::{Host, Inner, auth};
use crate::model::text::capped;
use crate::model::{Failure, FailureKind, Stage};

/// Unanswered keep-alives after which a connection counts as lost.
const KEEPALIVE_MAX: u32 = 3;
/// The most of a server's own words that is kept.
const WORDS: usize = 500;

/// Cheap ones first: group exchange costs a hundred times as much as a curve.
const KEY_EXCHANGES: &[kex::Name] = &[
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::ECDH_SHA2_NISTP256,
    kex::ECDH_SHA2_NISTP384,
    kex::ECDH_SHA2_NISTP521,
    kex::DH_G14_SHA256,
    kex::DH_G16_SHA512,
    kex::DH_GEX_SHA256,
    kex::EXTENSION_SUPPORT_AS_CLIENT,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
];

/// Whom to connect to, and as whom.
pub(super) struct Target<'a> {
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) user: &'a str,
    pub(super) identities: &'a [PathBuf],
    /// The number of its settings.
    pub(super) settings: usize,
}

/// A session that is logged in. Dropping it ends it.
pub(super) struct Live {
    pub(super) handle: Handle<Client>,
    pub(super) link: KillOnDrop,
}

/// A stage of connecting has begun.
pub(super) type Progress<'a> = &'a (dyn Fn(Stage) + Send + Sync);

/// Looks the name up and dials its addresses in turn.
///
/// # Errors
/// unreachable, with what each address answered.
pub(super) async fn dial(host: &str, port: u16, wait: Duration) -> Result<TcpStream, Failure> {
    let unreachable =
        |detail: String| Failure::new(FailureKind::Unreachable, Stage::Connect, detail);
    let deadline = Instant::now() + wait;
    let addresses: Vec<_> = match timeout_at(deadline, lookup_host((host, port))).await {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(error)) => return Err(unreachable(format!("cannot look up {host:?}: {error}"))),
        Err(_) => {
            return Err(unreachable(format!(
                "looking up {host:?} took more than {wait:?}"
            )));
        }
    };
    let mut answers = Vec::new();
    for (number, address) in addresses.iter().enumerate() {
        // A silent address may only use its share, so that the ones after it get theirs.
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - number).unwrap_or(u32::MAX);
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Without it every round trip costs 40 ms; but a socket works without it too.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => answers.push(format!("{address}: {}", plain(&error))),
            Err(_) => answers.push(format!(
                "{address}: no answer within {:.1} s",
                share.as_secs_f64()
            )),
        }
    }
    Err(unreachable(if answers.is_empty() {
        format!("the name {host:?} has no address")
    } else {
        answers.join("; ")
    }))
}

/// Key exchange, host key and login over a carrier that is open.
///
/// # Errors
/// unreachable until the key exchange is done, host-key, ssh-auth, connection-lost.
pub(super) async fn open(
    inner: &Inner,
    carrier: Carrier,
    target: &Target<'_>,
    progress: Progress<'_>,
) -> Result<Live, Failure> {
    let host = inner.host(target.settings)?;
    let wait = host.settings.connect_timeout;
    let name = known_name(target.host, target.port);
    let config = Arc::new(config(host, &name));
    let (link, stream) = Link::new(carrier);
    let guard = KillOnDrop(link.clone());

    progress(Stage::Handshake);
    let client = Client {
        host_keys: Arc::clone(&host.host_keys),
        name,
        link: link.clone(),
    };
    let unreachable = |detail| Failure::new(FailureKind::Unreachable, Stage::Handshake, detail);
    let mut handle = match timeout(wait, client::connect_stream(config, stream, client)).await {
        Ok(Ok(handle)) => handle,
        Ok(Err(Fault::HostKey(detail))) => {
            return Err(Failure::new(FailureKind::HostKey, Stage::Handshake, detail));
        }
        Ok(Err(Fault::Ssh(error))) => {
            return Err(unreachable(match error {
                russh::Error::IO(_) | russh::Error::HUP | russh::Error::Disconnect => format!(
                    "no SSH server answered on port {}: {}",
                    target.port,
                    link.cause().await
                ),
                other => format!("the SSH key exchange failed: {other}"),
            }));
        }
        Err(_) => {
            link.kill("the key exchange took too long");
            return Err(unreachable(format!(
                "port {} is open, but no SSH server finished the key exchange within {wait:?}",
                target.port
            )));
        }
    };

    progress(Stage::Authenticate);
    auth::authenticate(
        &mut handle,
        &link,
        &inner.identities,
        &host.settings,
        target,
    )
    .await?;
    Ok(Live {
        handle,
        link: guard,
    })
}

fn config(host: &Host, name: &str) -> client::Config {
    let keepalive = host.settings.keepalive;
    client::Config {
        client_id: SshId::Standard(Cow::Borrowed(concat!(
            "SSH-2.0-prepull_",
            env!("CARGO_PKG_VERSION")
        ))),
        preferred: Preferred {
            kex: Cow::Borrowed(KEY_EXCHANGES),
            key: Cow::Owned(host.host_keys.preferred(name)),
            compression: Cow::Borrowed(&[compression::NONE]),
            ..Preferred::DEFAULT
        },
        // The default of 8192 bits costs 80 ms. These bounds are valid; were they not, the default works.
        gex: GexParams::new(2048, 4096, 4096).unwrap_or_default(),
        keepalive_interval: (!keepalive.is_zero()).then_some(keepalive),
        keepalive_max: KEEPALIVE_MAX as usize,
        // Only a second net: it must not be faster than the keep-alives.
        inactivity_timeout: (!keepalive.is_zero()).then_some(keepalive * (KEEPALIVE_MAX + 2)),
        ..client::Config::default()
    }
}

/// What ends a session from within.
#[derive(Debug)]
pub(super) enum Fault {
    HostKey(String),
    Ssh(russh::Error),
}

impl From<russh::Error> for Fault {
    fn from(error: russh::Error) -> Self {
        Self::Ssh(error)
    }
}

/// What russh asks and tells us while a session lives.
pub(super) struct Client {
    host_keys: Arc<HostKeys>,
    name: String,
    link: Link,
}

impl Handler for Client {
    type Error = Fault;

    async fn check_server_key(&mut self, offered: &PublicKeyOrCertificate) -> Result<bool, Fault> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = offered else {
            // We never ask for one.
            return Err(Fault::HostKey(
                "the host offers a certificate instead of a key".to_owned(),
            ));
        };
        let trust = self.host_keys.check(&self.name, key);
        if trust.map_err(Fault::HostKey)? == Trust::OnceRecorded {
            let (host_keys, name, key) =
                (Arc::clone(&self.host_keys), self.name.clone(), key.clone());
            tokio::task::spawn_blocking(move || host_keys.record(&name, &key))
                .await
                .unwrap_or_else(|error| Err(format!("recording the host key failed: {error}")))
                .map_err(Fault::HostKey)?;
        }
        Ok(true)
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Fault>) -> Result<(), Fault> {
        match reason {
            DisconnectReason::ReceivedDisconnect(farewell) => {
                self.link
                    .note_farewell(capped(farewell.message.as_bytes(), WORDS));
                Ok(())
            }
            DisconnectReason::Error(fault) => {
                if let Fault::Ssh(error) = &fault {
                    match error {
                        russh::Error::NoAuthMethod => self
                            .link
                            .note_farewell("it offers no other way to log in".to_owned()),
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
}
