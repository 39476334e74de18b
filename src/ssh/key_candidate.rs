//! One key or certificate that is offered to a server, and who signs for it: an agent or a file.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use russh::keys::agent::{AgentIdentity, AgentSessionBinding};
use russh::keys::signature::Signer as _;
use russh::keys::ssh_encoding::Encode as _;
use russh::keys::ssh_key::private::KeypairData;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, Certificate, Error as KeyError, HashAlg, PrivateKey, PublicKey};
use russh::{AgentAuthError, Signer};

use super::HostSettings;
use super::agent::{Agent, AgentKey};
use super::key_files::KeyFile;

/// A key to log in with, or a certificate for it.
pub(super) struct KeyCandidate<'a> {
    key: &'a KeyData,
    pub(super) certificate: Option<&'a Certificate>,
    /// The agent that holds the key, and whether it wants to be asked by the certificate.
    agent: Option<(&'a Agent, bool)>,
    private: Option<&'a Arc<PrivateKey>>,
    /// Where it comes from, for people.
    origin: &'a Path,
    /// The hashes to sign with, best first; no hash for keys that leave no choice.
    pub(super) hashes: Vec<Option<HashAlg>>,
}

impl<'a> KeyCandidate<'a> {
    /// Looks for a signer for the key: the agent, then the files.
    pub(super) fn new(
        key: &'a KeyData,
        certificate: Option<&'a Certificate>,
        agent: Option<(&'a Agent, &'a [AgentKey])>,
        files: &[&'a KeyFile],
        origin: &'a Path,
    ) -> Self {
        let agent = agent.and_then(|(agent, held)| {
            let whole = |held: &AgentKey| held.key() == key && held.certificate() == certificate;
            if certificate.is_some() && held.iter().any(whole) {
                return Some((agent, true));
            }
            let plain = |held: &AgentKey| held.key() == key && held.certificate().is_none();
            held.iter().any(plain).then_some((agent, false))
        });
        let private = files
            .iter()
            .filter_map(|file| file.private.as_ref())
            .find(|private| private.public_key().key_data() == key);
        Self {
            key,
            certificate,
            agent,
            private,
            origin,
            hashes: Vec::new(),
        }
    }

    /// Whether the agent or a file holds the private key.
    pub(super) fn can_sign(&self) -> bool {
        self.agent.is_some() || self.private.is_some()
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.key == other.key && self.certificate == other.certificate
    }

    /// Whether the key is in a FIDO device that may have to be touched.
    pub(super) fn wants_touch(&self) -> bool {
        matches!(
            self.key.algorithm(),
            Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256
        )
    }

    pub(super) fn public(&self) -> PublicKey {
        PublicKey::new(self.key.clone(), "")
    }

    /// Chooses the hashes; false where PubkeyAcceptedAlgorithms or RequiredRSASize rule the key out.
    pub(super) fn allow(&mut self, host: &HostSettings) -> bool {
        if let KeyData::Rsa(key) = self.key
            && key.key_size() < host.required_rsa_size
        {
            return false;
        }
        let algorithms = match self.key.algorithm() {
            // SHA-1 is never used.
            Algorithm::Rsa { .. } => [HashAlg::Sha512, HashAlg::Sha256]
                .map(|hash| (Some(hash), Algorithm::Rsa { hash: Some(hash) }))
                .to_vec(),
            other => vec![(None, other)],
        };
        let place = |algorithm: &Algorithm| {
            let name = match self.certificate {
                Some(_) => algorithm.to_certificate_type(),
                None => algorithm.as_str().to_owned(),
            };
            match &host.accepted_algorithms {
                Some(accepted) => accepted.iter().position(|other| *other == name),
                None => Some(0),
            }
        };
        let mut usable: Vec<_> = algorithms
            .into_iter()
            .filter_map(|(hash, algorithm)| Some((place(&algorithm)?, hash)))
            .collect();
        usable.sort_by_key(|(place, _)| *place);
        self.hashes = usable.into_iter().map(|(_, hash)| hash).collect();
        !self.hashes.is_empty()
    }
}

impl fmt::Display for KeyCandidate<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} {} ({})",
            self.key.algorithm(),
            self.key.fingerprint(HashAlg::Sha256),
            self.origin.display()
        )?;
        if let Some(certificate) = self.certificate {
            let principals: Vec<String> = certificate
                .valid_principals()
                .iter()
                .map(|name| crate::model::text::truncate_bytes(name.as_bytes(), 100))
                .collect();
            write!(out, " with a certificate for {}", principals.join(", "))?;
            let now = std::time::SystemTime::now();
            if certificate.valid_before_time().is_some_and(|end| end < now) {
                out.write_str(" that has expired")?;
            } else if certificate
                .valid_after_time()
                .is_some_and(|start| start > now)
            {
                out.write_str(" that is not valid yet")?;
            }
        }
        Ok(())
    }
}

/// What russh asks for a signature.
pub(super) struct CandidateSigner<'a> {
    pub(super) offer: &'a KeyCandidate<'a>,
    /// The session that is signed for, as agents know it.
    pub(super) session: Option<&'a AgentSessionBinding>,
    /// Why the agent did not sign although it holds the key.
    pub(super) agents_refusal: Option<String>,
}

impl Signer for CandidateSigner<'_> {
    type Error = AgentAuthError;

    async fn auth_sign(
        &mut self,
        identity: &AgentIdentity,
        hash: Option<HashAlg>,
        mut data: Vec<u8>,
    ) -> Result<Vec<u8>, AgentAuthError> {
        if let Some((agent, by_certificate)) = self.offer.agent {
            let plain;
            let identity = if by_certificate {
                identity
            } else {
                plain = self.offer.public().into();
                &plain
            };
            let wants_touch = self.offer.wants_touch();
            let signing = agent.sign(identity, hash, data.clone(), wants_touch, self.session);
            match signing.await {
                Ok(signed) => return Ok(signed),
                Err(error) => {
                    self.agents_refusal = Some(error.to_string());
                    if self.offer.private.is_none() {
                        return Err(error.into());
                    }
                }
            }
        }
        let private = self.offer.private.ok_or(KeyError::CouldNotReadKey)?;
        let signature = match private.key_data() {
            KeypairData::Rsa(pair) => (pair, hash).try_sign(&data),
            other => other.try_sign(&data),
        };
        let signature = signature
            .map_err(|_| KeyError::InvalidSignature)?
            .encode_vec()
            .map_err(|_| KeyError::InvalidSignature)?;
        signature
            .encode(&mut data)
            .map_err(|_| KeyError::InvalidSignature)?;
        Ok(data)
    }
}
