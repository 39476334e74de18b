//! Looks at the keys of hosts without logging in to them, and records those that are new.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use futures::FutureExt as _;
use russh::keys::{HashAlg, PublicKey};

use super::connect;
use super::handler::Slot;
use super::host_keys::KeyStatus;
use super::known_hosts::KnownName;
use super::stream::RawStream;
use super::target::Target;
use super::{SshTransport, dial, jump};
use crate::model::{Failure, FailureKind, Hop, Stage};

/// An SSH server whose key is looked at.
#[derive(Debug, Clone, Copy)]
pub struct ScanTarget<'a> {
    /// What is dialled.
    pub host: &'a str,
    /// The server's port.
    pub port: u16,
    /// The hosts to go through. They are logged in to.
    pub route: &'a [Hop],
    /// The keys to log in with there, where the hops name none.
    pub identities: &'a [PathBuf],
    /// The number of its settings.
    pub settings: usize,
}

/// A host and the key that it showed.
#[derive(Debug, Clone)]
pub struct ScannedKey {
    /// The host as known_hosts calls it.
    pub host: String,
    /// The type of the key, such as `ssh-ed25519`.
    pub algorithm: String,
    /// The fingerprint, such as `SHA256:...`.
    pub fingerprint: String,
    /// What known_hosts says of it.
    pub status: KeyStatus,
    name: KnownName,
    key: PublicKey,
    settings: usize,
}

impl SshTransport {
    /// Looks at a host's key, without logging in to it. Like `ssh`, it asks for the types of keys that are known first.
    ///
    /// # Errors
    /// unreachable, or whatever goes wrong on the way through jump hosts.
    pub async fn scan(&self, target: &ScanTarget<'_>) -> Result<ScannedKey, Failure> {
        let settings = &self.0.host(target.settings)?.settings;
        let name = connect::known_name(settings, target.host, target.port);
        let slot = Slot::default();
        let login = Target {
            host: target.host,
            port: target.port,
            user: "",
            identities: target.identities,
            password: None,
            route: target.route,
            is_jump_host: false,
            settings: target.settings,
        };
        let dialled = || {
            async {
                if target.route.is_empty() {
                    return dial::carrier(target.host, target.port, settings).await;
                }
                let stream = jump::through(
                    Arc::clone(&self.0),
                    target.route,
                    target.identities,
                    target.host,
                    target.port,
                    settings.connect_timeout,
                );
                stream.await.map(RawStream::Jump)
            }
            .boxed()
        };
        let ended = connect::exchange(&self.0, &login, &|_| {}, &dialled, Some(&slot)).await;
        let seen = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (seen, ended) {
            (Some((key, status)), _) => Ok(ScannedKey {
                host: name.full.clone(),
                algorithm: key.algorithm().to_string(),
                fingerprint: key.fingerprint(HashAlg::Sha256).to_string(),
                status,
                name,
                key,
                settings: target.settings,
            }),
            (None, Err(failure)) => Err(failure),
            (None, Ok(_)) => Err(Failure::new(
                FailureKind::Internal,
                Stage::Handshake,
                "the key exchange ended without a key",
            )),
        }
    }

    /// Records a new key. Blocks for the disk.
    ///
    /// # Errors
    /// A sentence: the file cannot be written, or another key was recorded meanwhile.
    pub fn record(&self, scanned: &ScannedKey) -> Result<(), String> {
        let host = self
            .0
            .host(scanned.settings)
            .map_err(|failure| failure.detail)?;
        let hash = host.settings.hash_known_hosts;
        host.host_keys.record(&scanned.name, &scanned.key, 0, hash)
    }

    /// The file where a new key is recorded.
    pub fn records_in(&self, scanned: &ScannedKey) -> Option<PathBuf> {
        let host = self.0.host(scanned.settings).ok()?;
        host.settings.known_hosts.first().cloned()
    }
}
