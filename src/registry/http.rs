//! HTTP to registries: whom to trust, the way through a proxy, and limits on every answer.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::uri::Authority;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;

use super::RegistryError;
use crate::model::Secret;

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// For one answer, its body included.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Manifests are kilobytes; registries refuse them beyond 4 MiB.
const BODY_LIMIT: usize = 4 << 20;

const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// Clients for hosts, each with the authorities that are trusted for it.
pub(super) struct Http {
    certificates: PathBuf,
    authorities: RootCertStore,
    proxies: Matcher,
    clients: Mutex<HashMap<String, Dispatch>>,
    /// Nothing where a host that failed is asked again.
    hosts: Option<Mutex<HashMap<String, Arc<FirstContact>>>>,
}

/// What is asked for.
#[derive(Clone, Copy)]
pub(super) enum Wanted {
    Manifest,
    /// A blob from this byte on.
    Blob(u64),
    Token,
}

/// The body of an answer.
pub(super) enum Body {
    Whole(Bytes),
    /// A blob's, which is left to be read.
    Blob(Incoming),
}

pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
}

/// What came of asking a host: nothing yet, an answer, or the reason to ask it no more. While the first question is
/// under way the others wait, so that a host that is silent is waited for once.
type FirstContact = tokio::sync::Mutex<Option<Result<(), RegistryError>>>;

/// A client, with a proxy before it or without.
#[derive(Clone)]
enum Dispatch {
    Direct(Client<HttpsConnector<HttpConnector>, Full<Bytes>>),
    Proxied(Client<HttpsConnector<Tunnel<HttpConnector>>, Full<Bytes>>),
}

impl Http {
    /// A host that failed once is not asked again.
    pub(super) fn new(certificates: &Path) -> Self {
        Self {
            hosts: Some(Mutex::default()),
            ..Self::patient(certificates)
        }
    }

    /// A host that failed is asked again.
    pub(super) fn patient(certificates: &Path) -> Self {
        let mut authorities = RootCertStore::empty();
        // Those of the machine, or of SSL_CERT_FILE; whichever cannot be read is not trusted.
        authorities.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Self {
            certificates: certificates.to_path_buf(),
            authorities,
            proxies: Matcher::from_env(),
            clients: Mutex::default(),
            hosts: None,
        }
    }

    /// What is trusted for a host, in PEM.
    pub(super) fn authorities(&self, host: &str) -> Vec<String> {
        let own = certificates_in(&self.certificates.join(host));
        let all = own
            .into_iter()
            .chain(rustls_native_certs::load_native_certs().certs);
        all.map(|certificate| pem(&certificate)).collect()
    }

    fn contact(&self, uri: &Uri) -> Option<Arc<FirstContact>> {
        let host = uri.authority().map_or("", Authority::as_str);
        let host = format!("{}://{host}", uri.scheme_str().unwrap_or_default());
        let hosts = self.hosts.as_ref()?.lock();
        let mut hosts = hosts.unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(hosts.entry(host).or_default()))
    }

    /// The host is asked nothing more in this run, unless this client is patient.
    pub(super) async fn give_up(&self, uri: &Uri, why: RegistryError) -> RegistryError {
        if let Some(contact) = self.contact(uri) {
            *contact.lock().await = Some(Err(why.clone()));
        }
        why
    }

    fn client(&self, uri: &Uri) -> Result<Dispatch, RegistryError> {
        let host = uri.authority().map_or("", Authority::as_str);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(host) {
            return Ok(client.clone());
        }
        let client = self.new_client(uri, host)?;
        clients.insert(host.to_string(), client.clone());
        Ok(client)
    }

    fn new_client(&self, uri: &Uri, host: &str) -> Result<Dispatch, RegistryError> {
        let mut authorities = self.authorities.clone();
        authorities.add_parsable_certificates(certificates_in(&self.certificates.join(host)));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| RegistryError::lasting(format!("no TLS on this machine: {error}")))?
            .with_root_certificates(authorities)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT_LIMIT));
        let secured = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1();
        let builder = Client::builder(TokioExecutor::new());
        // What is on this machine is never asked through a proxy, as with programs in Go.
        let proxy = (!is_here(host)).then(|| self.proxies.intercept(uri));
        Ok(match proxy.flatten() {
            None => Dispatch::Direct(builder.build(secured.wrap_connector(tcp))),
            Some(proxy) => {
                let mut tunnel = Tunnel::new(proxy.uri().clone(), tcp);
                if let Some(login) = proxy.basic_auth() {
                    tunnel = tunnel.with_auth(login.clone());
                }
                Dispatch::Proxied(builder.build(secured.wrap_connector(tunnel)))
            }
        })
    }

    /// One request, one answer. With a form it is sent, not asked.
    pub(super) async fn ask(
        &self,
        uri: &Uri,
        wanted: Wanted,
        authorization: Option<&HeaderValue>,
        form: Option<Secret>,
    ) -> Result<Answer, RegistryError> {
        let Some(contact) = self.contact(uri) else {
            return self.exchange(uri, wanted, authorization, form).await;
        };
        let mut first = contact.lock().await;
        match &*first {
            Some(Err(why)) => Err(why.clone()),
            Some(Ok(())) => {
                drop(first);
                let answer = self.exchange(uri, wanted, authorization, form).await;
                match answer {
                    Err(why) => Err(self.give_up(uri, why).await),
                    answer => answer,
                }
            }
            None => {
                let answer = self.exchange(uri, wanted, authorization, form).await;
                *first = Some(answer.as_ref().map(drop).map_err(Clone::clone));
                answer
            }
        }
    }

    async fn exchange(
        &self,
        uri: &Uri,
        wanted: Wanted,
        authorization: Option<&HeaderValue>,
        form: Option<Secret>,
    ) -> Result<Answer, RegistryError> {
        let host = uri.authority().map_or("", Authority::as_str);
        let program = concat!("prepull/", env!("CARGO_PKG_VERSION"));
        let mut request = Request::get(uri).header(header::USER_AGENT, program);
        request = match wanted {
            Wanted::Manifest => request.header(header::ACCEPT, MANIFESTS),
            Wanted::Token => request.header(header::ACCEPT, "application/json"),
            Wanted::Blob(0) => request,
            Wanted::Blob(from) => request.header(header::RANGE, format!("bytes={from}-")),
        };
        let mut body = Bytes::new();
        if let Some(form) = form {
            let kind = "application/x-www-form-urlencoded";
            request = request
                .method(Method::POST)
                .header(header::CONTENT_TYPE, kind);
            body = Bytes::from_owner(form);
        }
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| RegistryError::lasting(format!("cannot ask {host}: {error}")))?;
        let answering = match self.client(uri)? {
            Dispatch::Direct(client) => client.request(request),
            Dispatch::Proxied(client) => client.request(request),
        };
        let reading = async {
            let response: Response<Incoming> =
                answering.await.map_err(|error| unreached(host, &error))?;
            let (head, body) = response.into_parts();
            let body = if head.status.is_success() && matches!(wanted, Wanted::Blob(_)) {
                Body::Blob(body)
            } else {
                let body = Limited::new(body, BODY_LIMIT).collect().await;
                let body = body.map_err(|error| {
                    RegistryError::passing(format!("{host} broke off its answer: {error}"))
                })?;
                Body::Whole(body.to_bytes())
            };
            Ok(Answer {
                status: head.status,
                headers: head.headers,
                body,
            })
        };
        timeout(ANSWER_LIMIT, reading).await.unwrap_or_else(|_| {
            let seconds = ANSWER_LIMIT.as_secs();
            Err(RegistryError::passing(format!(
                "{host} did not answer within {seconds} s"
            )))
        })
    }
}

fn certificates_in(folder: &Path) -> Vec<CertificateDer<'static>> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let files = entries.flatten().map(|entry| entry.path());
    files
        .filter(|path| path.extension().is_some_and(|end| end == "crt"))
        .filter_map(|path| CertificateDer::pem_file_iter(path).ok())
        .flat_map(|certificates| certificates.flatten())
        .collect()
}

/// A certificate as text (RFC 7468).
fn pem(certificate: &CertificateDer<'_>) -> String {
    let text = STANDARD.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

/// What it means that no answer came: the innermost cause is the telling one.
fn unreached(host: &str, error: &hyper_util::client::legacy::Error) -> RegistryError {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let cause = cause.to_string();
    let next = if cause.contains("certificate") {
        format!(
            "; put its authority into {}/{host}/ca.crt, or name it in SSL_CERT_FILE",
            super::DOCKER_CERTIFICATES
        )
    } else {
        String::new()
    };
    let why = format!("cannot reach {host} from here: {cause}{next}");
    match next.is_empty() {
        true => RegistryError::passing(why),
        false => RegistryError::lasting(why),
    }
}

/// Whether a host and port are on this machine, where docker and containerd need no TLS. As with containerd, a name
/// other than `localhost` is not: its name server may lead it anywhere.
pub(super) fn is_here(host: &str) -> bool {
    let has_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let name = match host.rsplit_once(':') {
        Some((name, port)) if has_port(port) && !name.ends_with(':') => name,
        _ => host,
    };
    let address = match name
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        Some(inner) => inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => name.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    };
    name == "localhost" || address.is_some_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_or_localhost_is_this_machine() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1",
            "127.1.2.3:5000",
            "[::1]",
            "[::1]:5000",
            "[::ffff:127.0.0.1]:80",
        ] {
            assert!(is_here(host), "{host}");
        }
        for host in [
            "",
            "127.evil.test",
            "127.evil.test:5000",
            "127.0.0.1.nip.io",
            "127.0.0.1.",
            "127.1",
            "127.0.0.1.2",
            "0127.0.0.1",
            "2130706433",
            "0x7f000001",
            "localhost.evil",
            "localhost.",
            "localhost.localdomain:5000",
            "my-localhost",
            "::1",
            "[::1].evil",
            "[::2]",
            "[127.0.0.1]",
            "0.0.0.0",
            "128.0.0.1",
            "127.0.0.1@evil.test",
            "localhost:80@evil.test",
        ] {
            assert!(!is_here(host), "{host}");
        }
    }
}
