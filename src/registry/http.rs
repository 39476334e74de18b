//! HTTP to a registry: whom to trust, the way through a proxy, logins and tokens, redirects, and limits on all of it.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::uri::{Authority, PathAndQuery, Scheme};
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
use serde::Deserialize;
use tokio::time::{sleep, timeout};

use super::RegistryError;
use super::challenge::{self, Challenge};
use crate::model::{RegistryLogin, Secret, basic};

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// For one answer, its body included.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Manifests are kilobytes; registries refuse them beyond 4 MiB.
const BODY_LIMIT: usize = 4 << 20;
/// Requests for one answer: redirects, the login, pauses.
const MOST_STEPS: usize = 8;
/// The longest pause that a registry asks for and that is waited for.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// Clients for hosts, each with the authorities that are trusted for it.
pub(super) struct Http {
    certificates: PathBuf,
    authorities: RootCertStore,
    proxies: Matcher,
    clients: Mutex<HashMap<String, Dispatch>>,
    hosts: Mutex<HashMap<String, Arc<FirstContact>>>,
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
    pub(super) fn new(certificates: &Path) -> Self {
        let mut authorities = RootCertStore::empty();
        // Those of the machine, or of SSL_CERT_FILE; whichever cannot be read is not trusted.
        authorities.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Self {
            certificates: certificates.to_path_buf(),
            authorities,
            proxies: Matcher::from_env(),
            clients: Mutex::default(),
            hosts: Mutex::default(),
        }
    }

    fn contact(&self, uri: &Uri) -> Arc<FirstContact> {
        let host = uri.authority().map_or("", Authority::as_str);
        let host = format!("{}://{host}", uri.scheme_str().unwrap_or_default());
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(hosts.entry(host).or_default())
    }

    /// The host is asked nothing more in this run.
    async fn give_up(&self, uri: &Uri, why: RegistryError) -> RegistryError {
        *self.contact(uri).lock().await = Some(Err(why.clone()));
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
            .map_err(|error| RegistryError(format!("no TLS on this machine: {error}")))?
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

    /// One request, one answer: its status, headers and body. With a form it is sent, not asked.
    async fn ask(
        &self,
        uri: &Uri,
        accept: &'static str,
        authorization: Option<&HeaderValue>,
        form: Option<Secret>,
    ) -> Result<(StatusCode, HeaderMap, Bytes), RegistryError> {
        let contact = self.contact(uri);
        let mut first = contact.lock().await;
        match &*first {
            Some(Err(why)) => Err(why.clone()),
            Some(Ok(())) => {
                drop(first);
                let answer = self.exchange(uri, accept, authorization, form).await;
                match answer {
                    Err(why) => Err(self.give_up(uri, why).await),
                    answer => answer,
                }
            }
            None => {
                let answer = self.exchange(uri, accept, authorization, form).await;
                *first = Some(answer.as_ref().map(drop).map_err(Clone::clone));
                answer
            }
        }
    }

    async fn exchange(
        &self,
        uri: &Uri,
        accept: &'static str,
        authorization: Option<&HeaderValue>,
        form: Option<Secret>,
    ) -> Result<(StatusCode, HeaderMap, Bytes), RegistryError> {
        let host = uri.authority().map_or("", Authority::as_str);
        let program = concat!("prepull/", env!("CARGO_PKG_VERSION"));
        let mut request = Request::get(uri)
            .header(header::ACCEPT, accept)
            .header(header::USER_AGENT, program);
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
            .map_err(|error| RegistryError(format!("cannot ask {host}: {error}")))?;
        let answering = match self.client(uri)? {
            Dispatch::Direct(client) => client.request(request),
            Dispatch::Proxied(client) => client.request(request),
        };
        let reading = async {
            let response: Response<Incoming> =
                answering.await.map_err(|error| unreached(host, &error))?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, BODY_LIMIT).collect().await;
            let body = body
                .map_err(|error| RegistryError(format!("{host} broke off its answer: {error}")))?;
            Ok((head.status, head.headers, body.to_bytes()))
        };
        timeout(ANSWER_LIMIT, reading).await.unwrap_or_else(|_| {
            let seconds = ANSWER_LIMIT.as_secs();
            Err(RegistryError(format!(
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
    RegistryError(format!("cannot reach {host} from here: {cause}{next}"))
}

/// Questions about one repository.
pub(super) struct RegistryClient<'a> {
    http: &'a Http,
    base: String,
    login: Option<&'a RegistryLogin>,
    host: String,
    /// What this host wants to see, once it said so.
    authorization: Option<(Authority, HeaderValue)>,
}

impl<'a> RegistryClient<'a> {
    pub(super) fn new(
        http: &'a Http,
        registry: &str,
        repository: &str,
        login: Option<&'a RegistryLogin>,
    ) -> Self {
        let host = match registry {
            "docker.io" => "registry-1.docker.io",
            other => other,
        };
        Self {
            http,
            base: format!("{host}/v2/{repository}/manifests/"),
            login,
            host: host.to_string(),
            authorization: None,
        }
    }

    /// The manifest or index under a tag or digest.
    pub(super) async fn manifest(&mut self, reference: &str) -> Result<Bytes, RegistryError> {
        let address = format!("{}{reference}", self.base);
        match self.follow(uri(&format!("https://{address}"))?).await {
            // As docker does: a registry on this machine may do without TLS.
            Err(_) if is_here(&self.host) => self.follow(uri(&format!("http://{address}"))?).await,
            answer => answer,
        }
    }

    async fn follow(&mut self, mut uri: Uri) -> Result<Bytes, RegistryError> {
        let mut is_login_told = false;
        for _ in 0..MOST_STEPS {
            let shown = self
                .authorization
                .as_ref()
                .filter(|(host, _)| Some(host) == uri.authority());
            let shown = shown.map(|(_, value)| value);
            let (status, headers, body) = self.http.ask(&uri, MANIFESTS, shown, None).await?;
            let host = uri.authority().map_or("", Authority::as_str);
            match status {
                StatusCode::OK => return Ok(body),
                StatusCode::UNAUTHORIZED if !is_login_told => {
                    let value = self.prove(&uri, &headers).await?;
                    self.authorization = uri.authority().cloned().zip(Some(value));
                    is_login_told = true;
                }
                status if status.is_redirection() => {
                    uri = next(&uri, &headers).ok_or_else(|| {
                        RegistryError(format!("{host} sends us nowhere ({status})"))
                    })?;
                    is_login_told = false;
                }
                StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                    match pause(&headers) {
                        Some(pause) if pause <= LONGEST_PAUSE => sleep(pause).await,
                        Some(pause) => {
                            let pause = humantime::format_duration(pause);
                            let why = RegistryError(format!(
                                "{host} answers {status} and wants to be left alone for {pause}"
                            ));
                            return Err(self.http.give_up(&uri, why).await);
                        }
                        None => {
                            let why = RegistryError(format!("{host} answers {status}"));
                            return Err(self.http.give_up(&uri, why).await);
                        }
                    }
                }
                status => return Err(RegistryError(format!("{host} answers {status}"))),
            }
        }
        Err(RegistryError(format!(
            "no answer after {MOST_STEPS} requests"
        )))
    }

    /// What to show to a host that wants to know who asks.
    async fn prove(&self, uri: &Uri, headers: &HeaderMap) -> Result<HeaderValue, RegistryError> {
        let host = uri.authority().map_or("", Authority::as_str);
        // A login is for the host that the operator named, not for one that it sends us to.
        let login = self.login.filter(|_| host == self.host);
        let wanted = headers.get_all(header::WWW_AUTHENTICATE).iter();
        let mut challenges = wanted.filter_map(|value| challenge::read(value.to_str().ok()?));
        let challenge = challenges.next().ok_or_else(|| {
            RegistryError(format!(
                "{host} wants a login of a kind that is not known here"
            ))
        })?;
        match (challenge, login) {
            (_, Some(RegistryLogin::RegistryToken(token))) => sensitive("Bearer", token.expose()),
            (Challenge::Basic, Some(RegistryLogin::Password { username, password })) => {
                sensitive("Basic", basic(username, password.expose()).expose())
            }
            (Challenge::Basic, _) => Err(RegistryError(format!(
                "{host} wants a login, and none was given"
            ))),
            (
                Challenge::Bearer {
                    realm,
                    service,
                    scope,
                },
                login,
            ) => {
                let wanted = [("service", service.as_deref()), ("scope", scope.as_deref())];
                self.token(uri, &realm, &wanted, login).await
            }
        }
    }

    /// Gets a token: with a password in the header, with a log-in's token in a form, else as anybody.
    async fn token(
        &self,
        from: &Uri,
        realm: &str,
        wanted: &[(&str, Option<&str>)],
        login: Option<&RegistryLogin>,
    ) -> Result<HeaderValue, RegistryError> {
        let at = uri(realm)?;
        // As docker and containerd, whatever host the registry names; without TLS only on this machine.
        let stays_here = from.scheme() == Some(&Scheme::HTTP)
            && is_here(at.authority().map_or("", Authority::as_str));
        let is_safe = at.scheme() == Some(&Scheme::HTTPS) || stays_here;
        let mut query = form(wanted);
        if !query.is_empty() {
            query.insert(0, if realm.contains('?') { '&' } else { '?' });
        }
        let with_query = uri(&format!("{realm}{query}"))?;
        let json = "application/json";
        let asking = match login.filter(|_| is_safe) {
            Some(RegistryLogin::IdentityToken { token, .. }) => {
                let token = std::str::from_utf8(token.expose()).ok();
                let grant = [
                    ("grant_type", Some("refresh_token")),
                    ("client_id", Some("prepull")),
                    ("refresh_token", token),
                ];
                let form = Secret::new(form(&[&grant, wanted].concat()));
                self.http.ask(&at, json, None, Some(form)).await?
            }
            Some(RegistryLogin::Password { username, password }) => {
                let basic = sensitive("Basic", basic(username, password.expose()).expose())?;
                self.http.ask(&with_query, json, Some(&basic), None).await?
            }
            Some(RegistryLogin::RegistryToken(_)) | None => {
                self.http.ask(&with_query, json, None, None).await?
            }
        };
        let host = at.authority().map_or("", Authority::as_str);
        let (status, _, body) = asking;
        if status != StatusCode::OK {
            return Err(RegistryError(format!(
                "{host} gives no token: it answers {status}"
            )));
        }
        let token = serde_json::from_slice::<Token>(&body).ok();
        let token = token.and_then(|answer| answer.token.or(answer.access_token));
        let token = token.map(Secret::new);
        let token = token.ok_or_else(|| RegistryError(format!("{host} answers no token")))?;
        sensitive("Bearer", token.expose())
    }
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

fn sensitive(scheme: &str, secret: &[u8]) -> Result<HeaderValue, RegistryError> {
    let bytes = [scheme.as_bytes(), b" ", secret].concat();
    let mut value = HeaderValue::from_bytes(&bytes)
        .map_err(|_| RegistryError("the login cannot be sent in a header".into()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn uri(text: &str) -> Result<Uri, RegistryError> {
    text.parse()
        .map_err(|error| RegistryError(format!("cannot ask at {text}: {error}")))
}

/// Where a redirect leads.
fn next(from: &Uri, headers: &HeaderMap) -> Option<Uri> {
    let location = headers.get(header::LOCATION)?.to_str().ok()?;
    let to: Uri = location.parse().ok()?;
    if to.authority().is_some() {
        let is_worse = from.scheme() == Some(&Scheme::HTTPS) && to.scheme() != Some(&Scheme::HTTPS);
        return (!is_worse).then_some(to);
    }
    let mut parts = from.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(location).ok()?);
    Uri::from_parts(parts).ok()
}

/// `Retry-After` in seconds; as a date it is not understood.
fn pause(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    seconds.trim().parse().ok().map(Duration::from_secs)
}

/// `name=value&...`, with everything but letters, digits and a few signs as `%XX`.
fn form(fields: &[(&str, Option<&str>)]) -> String {
    let mut text = String::new();
    for (name, value) in fields {
        let Some(value) = value else { continue };
        if !text.is_empty() {
            text.push('&');
        }
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                    text.push(char::from(byte))
                }
                other => text.push_str(&format!("%{other:02X}")),
            }
        }
    }
    text
}

/// Whether a host and port are on this machine, where docker and containerd need no TLS. As with containerd, a name
/// other than `localhost` is not: its name server may lead it anywhere.
fn is_here(host: &str) -> bool {
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
