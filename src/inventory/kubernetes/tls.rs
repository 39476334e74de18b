//! TLS to an API server as Go's library does it, so that what works with kubectl works here.
//!
//! Certificates are checked by webpki, which is stricter than Go in three things that clusters have: a server whose own
//! certificate stands in the kubeconfig, a server's certificate that is marked as an authority, and client certificates
//! of X.509 version 1.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use super::super::error::InputError;
use super::x509::{Certificate, key_in, now};
use crate::model::Secret;

/// A client's certificate and its key, both in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) certificate: Vec<u8>,
    pub(super) key: Secret,
}

/// Whom to trust.
#[derive(Debug)]
pub(super) enum Trust<'a> {
    /// The machine's own authorities.
    System,
    /// The authorities in this PEM text, and no others.
    Authorities(&'a [u8]),
    /// `insecure-skip-tls-verify`.
    Anything,
}

/// A client that trusts these servers and shows this identity.
pub(super) fn config(
    trust: &Trust<'_>,
    identity: Option<&Identity>,
) -> Result<ClientConfig, InputError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Trust::System => {
            let found = rustls_native_certs::load_native_certs().certs;
            Arc::new(Verifier::new(found, Arc::clone(&provider)))
        }
        Trust::Authorities(pem) => {
            let found: Vec<_> = CertificateDer::pem_slice_iter(pem).flatten().collect();
            if found.is_empty() {
                return Err(
                    InputError::new("the certificate authority of the kubeconfig holds no certificate")
                        .with_hint("it has to be PEM, -----BEGIN CERTIFICATE-----; in certificate-authority-data once more in base64"),
                );
            }
            Arc::new(Verifier::new(found, Arc::clone(&provider)))
        }
        Trust::Anything => Arc::new(TrustAnything(Arc::clone(&provider))),
    };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| InputError::new(format!("TLS cannot be used on this machine: {error}")))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    Ok(match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let key = certified_key(identity, &provider)?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)))
        }
    })
}

/// The certificate with its key. That both belong together is checked here: rustls does that too, but not for version
/// 1.
fn certified_key(
    identity: &Identity,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, InputError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&identity.certificate)
        .flatten()
        .collect();
    let Some(first) = chain.first() else {
        return Err(
            InputError::new("the client certificate of the kubeconfig holds no certificate")
                .with_hint("it has to be PEM, -----BEGIN CERTIFICATE-----; in client-certificate-data once more in base64"),
        );
    };
    let key = PrivateKeyDer::from_pem_slice(identity.key.expose()).map_err(|_| {
        InputError::new("the client key of the kubeconfig holds no private key in the clear").with_hint(
            "it has to be PEM, -----BEGIN PRIVATE KEY----- or the like, without a passphrase; in client-key-data once more in base64",
        )
    })?;
    let key = provider.key_provider.load_private_key(key).map_err(|error| {
        InputError::new(format!("the client key of the kubeconfig cannot be used: {error}"))
            .with_hint("RSA keys of 2048 to 8192 bits, ECDSA keys on P-256 and P-384, and Ed25519 keys can; without a passphrase")
    })?;
    let parsed = Certificate::read(first).ok_or_else(|| {
        InputError::new("the client certificate of the kubeconfig is damaged")
            .with_hint("openssl x509 -text shows what is in it")
    })?;
    let public = key.public_key();
    if public.is_some_and(|public| key_in(&public) != Some(parsed.key)) {
        return Err(InputError::new(
            "the client key of the kubeconfig does not belong to its client certificate",
        )
        .with_hint("take both from the same kubeconfig, or log in again"));
    }
    if !parsed.is_valid_at(now()) {
        // The server decides; but it would only say "unauthorized" or "bad certificate".
        return Err(
            InputError::new("the client certificate of the kubeconfig has expired, or is not valid yet")
                .with_hint("renew it (kubeadm certs renew, k3s kubeconfig, or whatever made it), and look at this machine's clock"),
        );
    }
    Ok(CertifiedKey::new(chain, key))
}

/// Go's rules: webpki's, and two exceptions for certificates that the kubeconfig itself names.
#[derive(Debug)]
struct Verifier {
    /// `None` where no authority is one that webpki knows.
    webpki: Option<Arc<WebPkiServerVerifier>>,
    trusted: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(mut trusted: Vec<CertificateDer<'static>>, provider: Arc<CryptoProvider>) -> Self {
        // webpki takes every anchor for an authority, and for ever; Go does not.
        let now = now();
        trusted.retain(|der| Certificate::read(der).is_some_and(|parsed| parsed.is_valid_at(now)));
        let mut roots = RootCertStore::empty();
        let issuers = trusted
            .iter()
            .filter(|der| Certificate::read(der).is_some_and(|parsed| parsed.may_issue()));
        roots.add_parsable_certificates(issuers.cloned());
        let webpki =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        Self {
            webpki: webpki.build().ok(),
            trusted,
            provider,
        }
    }

    /// Whether Go would trust it although webpki does not: it stands among the trusted ones itself, or is marked as an
    /// authority and issued by one of them. Its name, its time and its purpose count as everywhere.
    fn is_trusted_by_go(
        &self,
        server: &CertificateDer<'_>,
        name: &ServerName<'_>,
        now: i64,
    ) -> bool {
        let Some(parsed) = Certificate::read(server) else {
            return false;
        };
        let stands_for_name = ParsedCertificate::try_from(server)
            .is_ok_and(|certificate| verify_server_name(&certificate, name).is_ok());
        if !stands_for_name || !parsed.is_valid_at(now) || !parsed.may_serve() {
            return false;
        }
        self.trusted.iter().any(|der| der == server)
            || (parsed.is_authority() && self.trusted.iter().any(|der| self.issued(der, &parsed)))
    }

    /// Whether this trusted certificate issued that one.
    fn issued(&self, issuer: &CertificateDer<'_>, certificate: &Certificate<'_>) -> bool {
        let Some(issuer) = Certificate::read(issuer) else {
            return false;
        };
        let algorithms = self.provider.signature_verification_algorithms.all;
        issuer.subject == certificate.issuer
            && issuer.may_issue()
            && !issuer.limits_names()
            && algorithms.iter().any(|algorithm| {
                algorithm.signature_alg_id().as_ref() == certificate.algorithm
                    && algorithm.public_key_alg_id().as_ref() == issuer.key_algorithm
                    && algorithm
                        .verify_signature(issuer.key, certificate.signed, certificate.signature)
                        .is_ok()
            })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        server: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let refusal = match &self.webpki {
            Some(webpki) => {
                match webpki.verify_server_cert(server, intermediates, name, ocsp, now) {
                    Ok(verified) => return Ok(verified),
                    Err(error) => error,
                }
            }
            None => CertificateError::UnknownIssuer.into(),
        };
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if self.is_trusted_by_go(server, name, now) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(refusal)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// `insecure-skip-tls-verify`: what the kubeconfig asks for in so many words.
#[derive(Debug)]
struct TrustAnything(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustAnything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
