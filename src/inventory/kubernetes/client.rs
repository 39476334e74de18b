//! Questions to an API server: the way there, who asks, and what a refusal means.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::{sleep, timeout};

use super::super::error::InputError;
use super::access::Access;
use super::cluster::Cluster;
use super::exec;
use super::tls::{self, Trust};
use crate::model::{Secret, basic};

/// How long a connection may take, and how long an answer may stand still.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const READ_LIMIT: Duration = Duration::from_secs(60);
/// The largest answer: a page of 500 nodes is some 5 to 25 MB.
const BODY_LIMIT: usize = 256 << 20;
/// How often a server that is busy is asked again, and the longest pause that it may ask for.
const TRIES: u32 = 4;
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

type Http<C> = Client<HttpsConnector<C>, Empty<Bytes>>;

/// A connection to the server, and what is before it.
enum Dispatch {
    Direct(Http<HttpConnector>),
    HttpProxy(Http<Tunnel<HttpConnector>>),
    HttpsProxy(Http<Tunnel<HttpsConnector<HttpConnector>>>),
    SocksProxy(Http<SocksV5<HttpConnector>>),
}

/// An API server, and who asks.
pub(super) struct Api {
    dispatch: Dispatch,
    base: Uri,
    headers: HeaderMap,
    /// The namespace of the context.
    pub(super) namespace: String,
}

/// Why there is no answer.
pub(super) enum Refusal {
    /// The server's own words, with the HTTP status.
    Status(StatusCode, String),
    /// No server answered, or none that is an API server.
    InputError(InputError),
}

/// The part of a `Status` that is read.
#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    message: String,
}

impl Api {
    pub(super) fn new(access: Access) -> Result<Self, InputError> {
        let Access {
            cluster,
            user,
            namespace,
        } = access;
        let mut headers = HeaderMap::new();
        let program = concat!("prepull/", env!("CARGO_PKG_VERSION"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(program));
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        for (name, value) in &user.impersonation {
            let sent = HeaderName::from_bytes(name.to_ascii_lowercase().as_bytes());
            match (sent, HeaderValue::from_str(value)) {
                (Ok(name), Ok(value)) => headers.append(name, value),
                _ => {
                    return Err(InputError::new(format!(
                        "{name} of the kubeconfig cannot be sent"
                    )));
                }
            };
        }
        let mut identity = None;
        // As kubectl: without TLS, anyone who listens on the way would get the login.
        if cluster.url.scheme_str() == Some("https") {
            let mut token = user.token;
            identity = user.identity;
            if let Some(exec) = &user.exec
                && token.is_none()
                && user.basic.is_none()
                && identity.is_none()
            {
                let answer = exec::credential(exec)?;
                (token, identity) = (answer.token, answer.identity);
            }
            let value = match (&token, &user.basic) {
                (Some(token), _) => Some(authorization("Bearer", token)?),
                (None, Some((name, password))) => {
                    Some(authorization("Basic", &basic(name, password.expose()))?)
                }
                (None, None) => None,
            };
            headers.extend(value.map(|value| (header::AUTHORIZATION, value)));
        }
        let tls = tls::config(&trust(&cluster), identity.as_ref())?;
        Ok(Self {
            dispatch: dispatch(&cluster, tls)?,
            base: cluster.url,
            headers,
            namespace: namespace.unwrap_or_else(|| "default".into()),
        })
    }

    /// What to call the server.
    pub(super) fn url(&self) -> String {
        self.base.to_string()
    }

    /// What the server answers at this path, which may hold a query.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Refusal> {
        let unreached =
            |error: &dyn fmt::Display| Refusal::InputError(unreachable(&error.to_string()));
        let base = self.base.to_string();
        let uri: Uri = format!("{}{path}", base.trim_end_matches('/'))
            .parse()
            .map_err(|error| unreached(&error))?;
        let mut tried = 1;
        loop {
            let mut request = Request::get(&uri)
                .body(Empty::new())
                .map_err(|error| unreached(&error))?;
            request.headers_mut().extend(self.headers.clone());
            let (status, headers, body) = self.ask(request).await?;
            let is_busy = matches!(status.as_u16(), 429 | 503 | 504);
            if is_busy && tried < TRIES {
                sleep(pause(&headers, tried)).await;
                tried += 1;
            } else if status.is_success() {
                return serde_json::from_slice(&body).map_err(|_| {
                    Refusal::InputError(no_api("something that is not what the API says there"))
                });
            } else {
                if status == StatusCode::UNAUTHORIZED {
                    exec::forget();
                }
                let said: Option<Status> = serde_json::from_slice(&body).ok();
                let said = said
                    .filter(|said| !said.message.is_empty())
                    .ok_or_else(|| {
                        Refusal::InputError(no_api(&format!(
                            "{status}, and not in the words of an API server"
                        )))
                    })?;
                return Err(Refusal::Status(status, said.message));
            }
        }
    }

    async fn ask(
        &self,
        request: Request<Empty<Bytes>>,
    ) -> Result<(StatusCode, HeaderMap, Vec<u8>), Refusal> {
        let late = |_| {
            let seconds = READ_LIMIT.as_secs();
            Refusal::InputError(unreachable(&format!("nothing came for {seconds} s")))
        };
        let answering = match &self.dispatch {
            Dispatch::Direct(client) => client.request(request),
            Dispatch::HttpProxy(client) => client.request(request),
            Dispatch::HttpsProxy(client) => client.request(request),
            Dispatch::SocksProxy(client) => client.request(request),
        };
        let response: Response<Incoming> = timeout(READ_LIMIT, answering)
            .await
            .map_err(late)?
            .map_err(|error| Refusal::InputError(unreachable(&chain(&error))))?;
        let (head, mut incoming) = response.into_parts();
        let mut body = Vec::new();
        while let Some(frame) = timeout(READ_LIMIT, incoming.frame()).await.map_err(late)? {
            let frame = frame.map_err(|error| Refusal::InputError(unreachable(&chain(&error))))?;
            if let Ok(data) = frame.into_data() {
                body.extend_from_slice(&data);
            }
            if body.len() > BODY_LIMIT {
                return Err(Refusal::InputError(no_api("far more than any API server")));
            }
        }
        Ok((head.status, head.headers, body))
    }
}

fn trust(cluster: &Cluster) -> Trust<'_> {
    match &cluster.authorities {
        _ if cluster.is_insecure => Trust::Anything,
        Some(pem) => Trust::Authorities(pem),
        None => Trust::System,
    }
}

fn authorization(scheme: &str, secret: &Secret) -> Result<HeaderValue, InputError> {
    let bytes = zeroize::Zeroizing::new([scheme.as_bytes(), b" ", secret.expose()].concat());
    let mut value = HeaderValue::from_bytes(&bytes).map_err(|_| {
        InputError::new("the login of the kubeconfig cannot be sent: there is a line end in it, or something else that no header may hold")
            .with_hint("copy the token again, on one line")
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn dispatch(cluster: &Cluster, tls: rustls::ClientConfig) -> Result<Dispatch, InputError> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(CONNECT_LIMIT));
    let secured = HttpsConnectorBuilder::new()
        .with_tls_config(tls.clone())
        .https_or_http();
    let secured = match &cluster.server_name {
        None => secured.enable_http1(),
        Some(name) => {
            let wrong = |_| {
                InputError::new(format!(
                    "tls-server-name of the kubeconfig, \"{name}\", is no name"
                ))
            };
            let name = name.clone().try_into().map_err(wrong)?;
            secured
                .with_server_name_resolver(FixedServerNameResolver::new(name))
                .enable_http1()
        }
    };
    let builder = Client::builder(TokioExecutor::new());
    let Some(proxy) = proxy(cluster) else {
        return Ok(Dispatch::Direct(builder.build(secured.wrap_connector(tcp))));
    };
    let uri = proxy.uri().clone();
    let login = proxy.basic_auth().cloned();
    Ok(match uri.scheme_str() {
        Some("socks5" | "socks5h") => {
            let mut socks = SocksV5::new(uri, tcp);
            if let Some((name, password)) = proxy.raw_auth() {
                socks = socks.with_auth(name.to_string(), password.to_string());
            }
            Dispatch::SocksProxy(builder.build(secured.wrap_connector(socks)))
        }
        Some("https") => {
            let outer = HttpsConnectorBuilder::new()
                .with_tls_config(tls)
                .https_or_http()
                .enable_http1()
                .wrap_connector(tcp);
            let mut tunnel = Tunnel::new(uri, outer);
            if let Some(login) = login {
                tunnel = tunnel.with_auth(login);
            }
            Dispatch::HttpsProxy(builder.build(secured.wrap_connector(tunnel)))
        }
        _ => {
            let mut tunnel = Tunnel::new(uri, tcp);
            if let Some(login) = login {
                tunnel = tunnel.with_auth(login);
            }
            Dispatch::HttpProxy(builder.build(secured.wrap_connector(tunnel)))
        }
    })
}

/// The proxy of the cluster, or the one of the environment; that is not for this machine itself, as in Go.
fn proxy(cluster: &Cluster) -> Option<Intercept> {
    if let Some(proxy) = &cluster.proxy {
        let only = Matcher::builder().all(proxy.to_string());
        return only.build().intercept(&cluster.url);
    }
    let host = cluster.url.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_here = host
        .parse::<IpAddr>()
        .is_ok_and(|address| address.is_loopback());
    let is_here = is_here || host.eq_ignore_ascii_case("localhost");
    (!is_here).then(|| Matcher::from_env().intercept(&cluster.url))?
}

/// How long to wait for a server that is busy.
fn pause(headers: &HeaderMap, tried: u32) -> Duration {
    let seconds = headers.get(header::RETRY_AFTER);
    let seconds = seconds.and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let asked_for = seconds.map_or(
        Duration::from_secs(1 << tried.min(4)) / 2,
        Duration::from_secs,
    );
    asked_for.min(LONGEST_PAUSE)
}

/// A query of a URL, `?` included.
pub(super) fn query(fields: &[(&str, Option<&str>)]) -> String {
    let mut text = String::new();
    for (name, value) in fields {
        let Some(value) = value else { continue };
        text.push(if text.is_empty() { '?' } else { '&' });
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                    text.push(char::from(byte));
                }
                b' ' => text.push('+'),
                other => text.push_str(&format!("%{other:02X}")),
            }
        }
    }
    text
}

fn no_api(answered: &str) -> InputError {
    InputError::new(format!("the server answered {answered}"))
        .with_hint("is it an API server, or something before it? See server: and proxy-url: of the kubeconfig, and $HTTPS_PROXY")
}

fn unreachable(said: &str) -> InputError {
    let fault = InputError::new(format!("the API cannot be asked: {said}"));
    if said.contains("not valid for name") {
        fault.with_hint("correct server: in the kubeconfig to a name in this certificate, or say one with tls-server-name:")
    } else if ["Expired", "certificate expired"]
        .iter()
        .any(|word| said.contains(&format!("invalid peer certificate: {word}")))
    {
        fault.with_hint("renew the server's certificate, and look at this machine's clock")
    } else if said.contains("invalid peer certificate") {
        fault.with_hint("its certificate is not trusted: is certificate-authority-data of the kubeconfig that of this cluster?")
    } else if said.contains("received fatal alert") {
        fault.with_hint("the server did not take the client certificate of the kubeconfig, or wants one: does `kubectl get nodes` work?")
    } else {
        fault.with_hint("is this the right context, and its network (VPN, proxy) there? `kubectl get nodes` asks the same")
    }
}

/// An error with all its causes, each once.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut said = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !said.contains(&text) {
            said.push_str(": ");
            said.push_str(&text);
        }
        next = cause.source();
    }
    said
}
