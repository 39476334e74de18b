//! One connection from the first packet to the login, every phase under a deadline of its own.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::BoxFuture;
use russh::client::{self, GexParams, Handle};
use russh::keys::Algorithm;
use russh::{Preferred, SshId, compression};
use tokio::time::timeout;

use super::algorithms::{
    certificate_algorithms, chosen, ciphers, computes_aes, key_algorithms, key_exchanges,
};
use super::forward::Forwarding;
use super::handler::{Client, Fault, Slot};
use super::known_hosts::KnownName;
use super::link::KillOnDrop;
use super::settings::HostSettings;
use super::stream::{self, RawStream};
use super::target::Target;
use super::{Host, Inner, auth};
use crate::model::{Failure, FailureKind, Stage};

/// A session that is logged in. Dropping it ends it.
pub(super) struct Authenticated {
    pub(super) handle: Handle<Client>,
    pub(super) link: KillOnDrop,
    pub(super) forwarding: Forwarding,
    /// Whether another host key is known for it, and this one was taken all the same.
    pub(super) has_changed: bool,
}

/// Opens what a session to the host runs over.
pub(super) type Dial<'a> =
    &'a (dyn Fn() -> BoxFuture<'a, Result<RawStream, Failure>> + Send + Sync);

/// A stage of connecting has begun.
pub(super) type Progress<'a> = &'a (dyn Fn(Stage) + Send + Sync);

/// Dials, key exchange, host key and login. `dial` is called once more where the host has to be asked for another of
/// its keys.
///
/// # Errors
/// unreachable until the key exchange is done, host-key, ssh-auth, connection-lost.
pub(super) async fn open(
    inner: &Inner,
    target: &Target<'_>,
    progress: Progress<'_>,
    dial: Dial<'_>,
) -> Result<Authenticated, Failure> {
    let mut live = exchange(inner, target, progress, dial, None).await?;
    let host = inner.host(target.settings)?;
    progress(Stage::Authenticate);
    let link = live.link.0.clone();
    auth::authenticate(
        &mut live.handle,
        &link,
        inner,
        &host.settings,
        target,
        live.has_changed,
    )
    .await?;
    Ok(live)
}

/// The host as known_hosts calls it.
pub(super) fn known_name(settings: &HostSettings, host: &str, port: u16) -> KnownName {
    match &settings.host_key_alias {
        Some(alias) => KnownName::alias(alias),
        None => KnownName::new(host, port),
    }
}

/// Dials, key exchange and host key. With `scan` the key is left there, and the exchange ends in a failure.
///
/// # Errors
/// As [`open`], up to host-key.
pub(super) async fn exchange(
    inner: &Inner,
    target: &Target<'_>,
    progress: Progress<'_>,
    dial: Dial<'_>,
    scan: Option<&Slot>,
) -> Result<Authenticated, Failure> {
    let host = inner.host(target.settings)?;
    let name = known_name(&host.settings, target.host, target.port);
    let mut carrier = dial().await?;
    progress(Stage::Handshake);
    let mut algorithms = key_algorithms(host, &name);
    let mut greeting = greet(host, target, &name, &algorithms, carrier, scan).await;
    if let Err(Refused::Order(wanted)) = greeting {
        carrier = dial().await?;
        algorithms = wanted;
        greeting = greet(host, target, &name, &algorithms, carrier, scan).await;
    }
    greeting.map_err(|refused| match refused {
        Refused::Failed(failure) => failure,
        // It was asked in the right order by now, unless it plays with us.
        Refused::Order(_) => Failure::new(
            FailureKind::HostKey,
            Stage::Handshake,
            format!(
                "the host key of {name} is unknown: it shows another one each time it is asked"
            ),
        ),
    })
}

/// Why a key exchange led to nothing.
enum Refused {
    Failed(Failure),
    /// Asked for these types of keys, in this order, the host may show one that is known.
    Order(Vec<Algorithm>),
}

/// The key exchange, and the check of the host's key.
async fn greet(
    host: &Host,
    target: &Target<'_>,
    name: &KnownName,
    algorithms: &[Algorithm],
    carrier: RawStream,
    scan: Option<&Slot>,
) -> Result<Authenticated, Refused> {
    let wait = host.settings.connect_timeout;
    let (link, stream) = stream::link(carrier);
    let guard = KillOnDrop(link.clone());
    let config = Arc::new(config(host, name, algorithms));
    let has_changed = Arc::new(AtomicBool::new(false));
    let forwarding = Forwarding::default();
    let client = Client {
        forwarding: forwarding.clone(),
        has_changed: Arc::clone(&has_changed),
        host_keys: Arc::clone(&host.host_keys),
        revoked: host.revoked.clone(),
        name: name.clone(),
        algorithms: match host.settings.host_key_order {
            true => Vec::new(),
            false => algorithms.to_vec(),
        },
        settings: Arc::clone(&host.settings),
        link: link.clone(),
        unrequested: 0,
        scan: scan.cloned(),
    };
    let failed = |kind, detail| Refused::Failed(Failure::new(kind, Stage::Handshake, detail));
    let unreachable = |detail| failed(FailureKind::Unreachable, detail);
    match timeout(wait, client::connect_stream(config, stream, client)).await {
        Ok(Ok(handle)) => Ok(Authenticated {
            handle,
            link: guard,
            forwarding,
            has_changed: has_changed.load(Ordering::Relaxed),
        }),
        Ok(Err(Fault::HostKey(detail))) => Err(failed(FailureKind::HostKey, detail)),
        Ok(Err(Fault::Order(algorithms))) => Err(Refused::Order(algorithms)),
        Ok(Err(Fault::Ssh(error))) => Err(unreachable(match error {
            russh::Error::IO(_) | russh::Error::HUP | russh::Error::Disconnect => format!(
                "no SSH server answered on port {}: {}",
                target.port,
                link.cause().await
            ),
            other => format!("the SSH key exchange failed: {other}"),
        })),
        Err(_) => {
            link.kill("the key exchange took too long");
            Err(unreachable(format!(
                "port {} is open, but no SSH server finished the key exchange within {wait:?}",
                target.port
            )))
        }
    }
}

fn config(host: &Host, name: &KnownName, keys: &[Algorithm]) -> client::Config {
    let settings = &host.settings;
    let (keepalive, keepalive_max) = (settings.keepalive, settings.keepalive_max);
    client::Config {
        client_id: SshId::Standard(Cow::Borrowed(concat!(
            "SSH-2.0-prepull_",
            env!("CARGO_PKG_VERSION")
        ))),
        preferred: Preferred {
            kex: key_exchanges(settings),
            host_key_certificates: Cow::Owned(certificate_algorithms(host, name, keys)),
            key: Cow::Owned(keys.to_vec()),
            cipher: ciphers(settings, computes_aes()),
            mac: chosen(&settings.macs, Preferred::DEFAULT.mac),
            compression: Cow::Borrowed(&[compression::NONE]),
        },
        // The default of 8192 bits costs 80 ms. These bounds are valid; were they not, the default works.
        gex: GexParams::new(2048, 4096, 4096).unwrap_or_default(),
        keepalive_interval: (!keepalive.is_zero()).then_some(keepalive),
        keepalive_max: keepalive_max as usize,
        // Only a second net: it must not be faster than the keep-alives.
        inactivity_timeout: (!keepalive.is_zero())
            .then_some(keepalive * keepalive_max.saturating_add(2)),
        ..client::Config::default()
    }
}
