//! Requests to an API server: the way there, who asks, and what a refusal means.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
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
pub(super) const READ_LIMIT: Duration = Duration::from_secs(60);
/// The largest answer: a page of 500 nodes is some 5 to 25 MB.
pub(super) const BODY_LIMIT: usize = 256 << 20;
/// How often a server that is busy is asked again, and the longest pause that it may ask for.
const TRIES: u32 = 4;
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

type Http<C> = Client<HttpsConnector<C>, Full<Bytes>>;

/// A connection to the server, and what is before it.
enum Dispatch {
    Direct(Http<HttpConnector>),
    HttpProxy(Http<Tunnel<HttpConnector>>),
    HttpsProxy(Http<Tunnel<HttpsConnector<HttpConnector>>>),
    SocksProxy(Http<SocksV5<HttpConnector>>),
}

/// An API server, and who asks.
pub struct Api {
    dispatch: Dispatch,
    base: Uri,
    headers: HeaderMap,
    /// The namespace of the context.
    pub namespace: String,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Refusal {
    /// The server's own words, with the HTTP status.
    Status(u16, String),
    /// No server answered, or none that is an API server.
    InputError(InputError),
}

/// A request that changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Creates an object.
    Create,
    /// Server-side apply: the fields in the body are to be as they are there.
    Apply,
    /// Deletes an object; the body is its `DeleteOptions`.
    Delete,
}

impl Change {
    /// The method and the type of the body. JSON is YAML, and the only form of an apply patch is YAML.
    fn request(self) -> (Method, &'static str) {
        match self {
            Self::Create => (Method::POST, "application/json"),
            Self::Apply => (Method::PATCH, "application/apply-patch+yaml"),
            Self::Delete => (Method::DELETE, "application/json"),
        }
    }
}

/// The part of a `Status` that is read.
#[derive(Deserialize)]
pub(super) struct Status {
    #[serde(default)]
    pub(super) message: String,
    #[serde(default)]
    pub(super) code: u16,
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
    pub fn url(&self) -> String {
        self.base.to_string()
    }

    /// What the server answers at this path, which may hold a query.
    ///
    /// # Errors
    /// What the server refused, or why there is no answer.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Refusal> {
        self.answer(Method::GET, path, None).await
    }

    /// Changes something, and reads the answer. Tried again only where the server was too busy to begin.
    ///
    /// # Errors
    /// What the server refused, or why there is no answer.
    pub async fn change<T: DeserializeOwned>(
        &self,
        change: Change,
        path: &str,
        body: &serde_json::Value,
    ) -> Result<T, Refusal> {
        let (method, form) = change.request();
        let body = Bytes::from(body.to_string());
        self.answer(method, path, Some((form, body))).await
    }

    /// An answer that goes on: its body, once the server has said that it will.
    pub(super) async fn open(&self, path: &str) -> Result<Incoming, Refusal> {
        let request = self.request(&Method::GET, path, None)?;
        let response = self.ask(request).await?;
        if response.status() == StatusCode::OK {
            return Ok(response.into_body());
        }
        let (status, _, body) = read_body(response).await?;
        Err(refusal(status, &body))
    }

    async fn answer<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<(&'static str, Bytes)>,
    ) -> Result<T, Refusal> {
        let mut tried = 1;
        loop {
            let request = self.request(&method, path, body.clone())?;
            let (status, headers, body) = read_body(self.ask(request).await?).await?;
            let is_busy = matches!(status.as_u16(), 429 | 503 | 504);
            if is_busy && tried < TRIES {
                sleep(pause(&headers, tried)).await;
                tried += 1;
            } else if status.is_success() {
                return serde_json::from_slice(&body).map_err(|_| {
                    Refusal::InputError(no_api("something that is not what the API says there"))
                });
            } else {
                return Err(refusal(status, &body));
            }
        }
    }

    fn request(
        &self,
        method: &Method,
        path: &str,
        body: Option<(&'static str, Bytes)>,
    ) -> Result<Request<Full<Bytes>>, Refusal> {
        let wrong = |error: &dyn fmt::Display| Refusal::InputError(unreachable(&error.to_string()));
        let base = self.base.to_string();
        let uri: Uri = format!("{}{path}", base.trim_end_matches('/'))
            .parse()
            .map_err(|error| wrong(&error))?;
        let mut request = Request::builder().method(method).uri(uri);
        let (form, body) = body.unzip();
        if let Some(form) = form {
            request = request.header(header::CONTENT_TYPE, form);
        }
        let mut request = request
            .body(Full::new(body.unwrap_or_default()))
            .map_err(|error| wrong(&error))?;
        request.headers_mut().extend(self.headers.clone());
        Ok(request)
    }

    async fn ask(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Refusal> {
        let answering = match &self.dispatch {
            Dispatch::Direct(client) => client.request(request),
            Dispatch::HttpProxy(client) => client.request(request),
            Dispatch::HttpsProxy(client) => client.request(request),
            Dispatch::SocksProxy(client) => client.request(request),
        };
        timeout(READ_LIMIT, answering)
            .await
            .map_err(late)?
            .map_err(|error| Refusal::InputError(unreachable(&chain(&error))))
    }
}

/// No byte came for too long.
pub(super) fn late(_: tokio::time::error::Elapsed) -> Refusal {
    let seconds = READ_LIMIT.as_secs();
    Refusal::InputError(unreachable(&format!("nothing came for {seconds} s")))
}

/// The next bytes of an answer; `None` at its end.
pub(super) async fn read_frame(incoming: &mut Incoming) -> Result<Option<Bytes>, Refusal> {
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|error| Refusal::InputError(unreachable(&chain(&error))))?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

async fn read_body(
    response: Response<Incoming>,
) -> Result<(StatusCode, HeaderMap, Vec<u8>), Refusal> {
    let (head, mut incoming) = response.into_parts();
    let mut body = Vec::new();
    while let Some(data) = timeout(READ_LIMIT, read_frame(&mut incoming))
        .await
        .map_err(late)??
    {
        body.extend_from_slice(&data);
        if body.len() > BODY_LIMIT {
            return Err(Refusal::InputError(no_api("far more than any API server")));
        }
    }
    Ok((head.status, head.headers, body))
}

/// An answer that is not a success.
fn refusal(status: StatusCode, body: &[u8]) -> Refusal {
    if status == StatusCode::UNAUTHORIZED {
        exec::forget();
    }
    let said: Option<Status> = serde_json::from_slice(body).ok();
    match said.filter(|said| !said.message.is_empty()) {
        Some(said) => Refusal::Status(status.as_u16(), said.message),
        None => Refusal::InputError(no_api(&format!(
            "{status}, and not in the words of an API server"
        ))),
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
pub fn query(fields: &[(&str, Option<&str>)]) -> String {
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

pub(super) fn no_api(answered: &str) -> InputError {
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
