//! A relay's key, and what peers know each other by: TLS with raw public keys (RFC 7250), and a proof of the run's ticket.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring as provider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer,
    UnixTime,
};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::protocol::{Key, Ticket};

/// What an Ed25519 key begins with as a SubjectPublicKeyInfo (RFC 8410).
const SPKI: [u8; 12] = [48, 42, 48, 5, 6, 3, 43, 101, 112, 3, 33, 0];
/// The label under which both ends of a TLS connection derive what a proof is made of.
const LABEL: &[u8] = b"EXPORTER-prepull-relay-ticket";

/// The key pair that a relay makes for its life.
pub(crate) struct Identity {
    pair: Ed25519KeyPair,
    key: Key,
    acceptor: TlsAcceptor,
}

impl Identity {
    pub(crate) fn new() -> Result<Self, String> {
        let trouble = |error: &dyn std::fmt::Display| format!("cannot make a key: {error}");
        let document =
            Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|e| trouble(&e))?;
        let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).map_err(|e| trouble(&e))?;
        let mut key = [0; 32];
        key.copy_from_slice(pair.public_key().as_ref());
        let key = Key(key);
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(document.as_ref()));
        let signing = provider::sign::any_supported_type(&private).map_err(|e| trouble(&e))?;
        let certified = CertifiedKey::new(vec![CertificateDer::from(spki(&key))], signing);
        let mut config = ServerConfig::builder_with_provider(crypto())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| trouble(&e))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::new(
                certified,
            ))));
        config.send_tls13_tickets = 0;
        Ok(Self {
            pair,
            key,
            acceptor: TlsAcceptor::from(Arc::new(config)),
        })
    }

    pub(crate) fn key(&self) -> Key {
        self.key
    }

    pub(crate) fn sign(&self, statement: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.pair.sign(statement).as_ref());
        signature
    }

    /// The server's end of a connection to a peer, and what a proof on it is made of.
    pub(crate) async fn accept<S>(
        &self,
        stream: S,
    ) -> std::io::Result<(server::TlsStream<S>, [u8; 32])>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = self.acceptor.accept(stream).await?;
        let exported = stream
            .get_ref()
            .1
            .export_keying_material([0; 32], LABEL, None);
        Ok((stream, exported.map_err(std::io::Error::other)?))
    }
}

/// The client's end of a connection to the peer with this key and no other, and what a proof on it is made of.
pub(crate) async fn connect<S>(
    stream: S,
    address: SocketAddr,
    key: &Key,
) -> std::io::Result<(client::TlsStream<S>, [u8; 32])>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let provider = crypto();
    let verifier = Pinned {
        spki: spki(key),
        provider: Arc::clone(&provider),
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(std::io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    let name = ServerName::IpAddress(address.ip().into());
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await?;
    let exported = stream
        .get_ref()
        .1
        .export_keying_material([0; 32], LABEL, None);
    Ok((stream, exported.map_err(std::io::Error::other)?))
}

/// Shows that its maker knows the run's ticket, on one TLS connection only.
pub(crate) struct Proof(hmac::Key);

impl Proof {
    pub(crate) fn new(ticket: &Ticket) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &ticket.0))
    }

    /// The header `Authorization` for a connection with this exported value.
    pub(crate) fn make(&self, exported: &[u8; 32]) -> String {
        format!("Relay {}", STANDARD.encode(hmac::sign(&self.0, exported)))
    }

    pub(crate) fn is_right(&self, shown: &[u8], exported: &[u8; 32]) -> bool {
        let code = shown
            .strip_prefix(b"Relay ")
            .map(|code| STANDARD.decode(code));
        matches!(code, Some(Ok(code)) if hmac::verify(&self.0, exported, &code).is_ok())
    }
}

pub(crate) fn crypto() -> Arc<CryptoProvider> {
    Arc::new(provider::default_provider())
}

fn spki(key: &Key) -> Vec<u8> {
    [&SPKI[..], &key.0].concat()
}

/// Accepts one key.
#[derive(Debug)]
struct Pinned {
    spki: Vec<u8>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match end_entity.as_ref() == self.spki {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(Error::InvalidCertificate(
                CertificateError::ApplicationVerificationFailure,
            )),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.3 only".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(cert.as_ref());
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &key, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
