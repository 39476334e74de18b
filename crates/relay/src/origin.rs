//! Fetches from a registry, as a root does.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{
    AUTHORIZATION, CONTENT_RANGE, HOST, HeaderValue, LOCATION, RANGE, WWW_AUTHENTICATE,
};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use crate::fill::{Trouble, Writer};
use crate::identity;
use crate::protocol::Origin;
use crate::shared::Shared;

/// Tries without a single byte before a source is given up.
const TRIES: u32 = 5;
/// Redirections of one request.
const REDIRECTS: u32 = 5;
/// Bytes of an answer's head: names of files in clouds are long.
const BUFFER: usize = 64 << 10;

/// Where an image's blobs are.
pub(crate) struct Registry {
    base: String,
    authorization: Option<HeaderValue>,
    tls: TlsConnector,
}

/// Why one request was of no use.
enum Refused {
    Unauthorized(Option<String>),
    /// Asking again may help.
    Now(String),
    Lasting(String),
}

impl Registry {
    pub(crate) fn new(origin: &Origin) -> Result<Self, String> {
        let base = &origin.base;
        match base.parse::<Uri>() {
            Ok(uri) if is_http(&uri) && base.ends_with('/') => {}
            _ => {
                return Err(format!(
                    "the source {base:?} is not an http or https URL that ends in /"
                ));
            }
        }
        let authorization = origin.authorization.as_ref().map(|secret| {
            let mut value = HeaderValue::from_str(&secret.0)?;
            value.set_sensitive(true);
            Ok::<_, hyper::header::InvalidHeaderValue>(value)
        });
        let authorization = authorization.transpose();
        Ok(Self {
            base: base.clone(),
            authorization: authorization
                .map_err(|_| "the authorization is not a header's value")?,
            tls: connector(&origin.ca)?,
        })
    }
}

fn is_http(uri: &Uri) -> bool {
    matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some()
}

/// Trusts what the node's system trusts, and these certificates.
fn connector(ca: &[String]) -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for text in ca {
        for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
            let added = certificate
                .map_err(|error| error.to_string())
                .and_then(|certificate| roots.add(certificate).map_err(|error| error.to_string()));
            added
                .map_err(|error| format!("a certificate of the source cannot be read: {error}"))?;
        }
    }
    let config = ClientConfig::builder_with_provider(identity::crypto())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The rest of a blob, until it is whole.
pub(crate) async fn fetch(registry: &Registry, writer: &mut Writer) -> Result<(), Trouble> {
    let image = Arc::clone(&writer.blob.image);
    let demoted = image.demoted();
    tokio::pin!(demoted);
    let mut tries = 0;
    while !writer.is_done() {
        let before = writer.reached();
        let refused = tokio::select! {
            answer = ask(registry, writer) => answer,
            () = &mut demoted => return Err(Trouble::Replaced),
        };
        let failed = match refused {
            Ok((body, skipped)) => {
                let mut body = Body { body, skipped };
                loop {
                    let bytes = tokio::select! {
                        bytes = body.next(writer.shared.timing.source) => bytes,
                        () = &mut demoted => return Err(Trouble::Replaced),
                    };
                    match bytes {
                        Ok(bytes) => {
                            writer.append(bytes).await?;
                            if writer.is_done() {
                                return Ok(());
                            }
                        }
                        Err(why) => break Refused::Now(why),
                    }
                }
            }
            Err(refused) => refused,
        };
        tries = if writer.reached() > before {
            1
        } else {
            tries + 1
        };
        match failed {
            Refused::Unauthorized(challenge) => return Err(Trouble::Unauthorized(challenge)),
            Refused::Lasting(why) => return Err(Trouble::Source(why)),
            Refused::Now(why) if tries >= TRIES => return Err(Trouble::Source(why)),
            Refused::Now(_) => sleep(writer.shared.timing.pause * 2_u32.pow(tries - 1)).await,
        }
    }
    Ok(())
}

impl Writer {
    /// The bytes of the blob that are here, with those of a chunk that is not whole.
    fn reached(&self) -> u64 {
        self.index * crate::chunk::CHUNK + self.part.len() as u64
    }

    async fn append(&mut self, mut bytes: Bytes) -> Result<(), Trouble> {
        let counter = &self.shared.counters.from_registry;
        counter.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        while !bytes.is_empty() && !self.is_done() {
            let due = self.due();
            self.part.reserve_exact(due.saturating_sub(self.part.len()));
            let part = bytes.split_to(bytes.len().min(due - self.part.len()));
            self.part.extend_from_slice(&part);
            if self.part.len() == due {
                let chunk = std::mem::take(&mut self.part);
                self.accept(chunk, None).await?;
            }
        }
        Ok(())
    }
}

struct Body {
    body: Incoming,
    /// Bytes before those that were asked for: a server may ignore a range.
    skipped: u64,
}

impl Body {
    async fn next(&mut self, limit: Duration) -> Result<Bytes, String> {
        loop {
            let frame = timeout(limit, self.body.frame()).await;
            let late = || format!("the registry sent nothing for {} s", limit.as_secs_f32());
            let frame = frame.map_err(|_| late())?;
            let frame = frame.ok_or("the registry sent less than the whole blob")?;
            let frame = frame.map_err(|error| format!("the registry broke off: {error}"))?;
            let mut bytes = frame.into_data().unwrap_or_default();
            // No more than there are.
            let before = self.skipped.min(bytes.len() as u64) as usize;
            self.skipped -= before as u64;
            let bytes = bytes.split_off(before);
            if !bytes.is_empty() {
                return Ok(bytes);
            }
        }
    }
}

/// Asks for the rest of a blob, where redirections lead to; with it comes how many bytes of it are not wanted.
async fn ask(registry: &Registry, writer: &Writer) -> Result<(Incoming, u64), Refused> {
    let from = writer.reached();
    let url = format!("{}{}", registry.base, writer.blob.digest);
    let wrong = || Refused::Lasting(format!("{url} is not a URL"));
    let first: Uri = url.parse().map_err(|_| wrong())?;
    let mut uri = first.clone();
    for _ in 0..=REDIRECTS {
        let is_home = origin_of(&uri) == origin_of(&first);
        let authorization = registry.authorization.as_ref().filter(|_| is_home);
        let limit = writer.shared.timing.source;
        let asking = timeout(
            limit,
            request(&writer.shared, registry, &uri, authorization, from),
        )
        .await;
        let late = || {
            Refused::Now(format!(
                "{} did not answer for {} s",
                host(&uri),
                limit.as_secs_f32()
            ))
        };
        let answer = asking.map_err(|_| late())?.map_err(Refused::Now)?;
        let status = answer.status();
        let said = || format!("{} answered {}", host(&uri), status.as_u16());
        match status {
            StatusCode::OK => return Ok((answer.into_body(), from)),
            StatusCode::PARTIAL_CONTENT => {
                let first = first_byte(&answer).filter(|first| *first <= from);
                let first = first
                    .ok_or_else(|| Refused::Lasting(format!("{} with another range", said())))?;
                return Ok((answer.into_body(), from - first));
            }
            StatusCode::UNAUTHORIZED if is_home => {
                let challenge = answer.headers().get(WWW_AUTHENTICATE);
                let challenge = challenge.and_then(|challenge| challenge.to_str().ok());
                return Err(Refused::Unauthorized(
                    challenge.map(|text| text.chars().take(2000).collect()),
                ));
            }
            status if status.is_redirection() => {
                uri = target(&uri, &answer).ok_or_else(|| Refused::Lasting(said()))?
            }
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                return Err(Refused::Now(said()));
            }
            status if status.is_server_error() => return Err(Refused::Now(said())),
            // A link that a registry made for a cloud's store may have expired.
            StatusCode::FORBIDDEN if !is_home => return Err(Refused::Now(said())),
            _ => return Err(Refused::Lasting(said())),
        }
    }
    Err(Refused::Lasting(format!(
        "{} redirects again and again",
        host(&first)
    )))
}

/// The host, for messages: the rest of a URL may hold secrets.
fn host(uri: &Uri) -> &str {
    uri.authority()
        .map_or("the registry", |authority| authority.as_str())
}

fn origin_of(uri: &Uri) -> (Option<&str>, Option<String>, u16) {
    let host = uri.host().map(str::to_ascii_lowercase);
    (uri.scheme_str(), host, port(uri))
}

fn port(uri: &Uri) -> u16 {
    let usual = if uri.scheme_str() == Some("https") {
        443
    } else {
        80
    };
    uri.port_u16().unwrap_or(usual)
}

/// Where an answer leads to; never from TLS to where there is none.
fn target<B>(from: &Uri, answer: &Response<B>) -> Option<Uri> {
    let location = answer.headers().get(LOCATION)?.to_str().ok()?;
    let uri: Uri = match location.starts_with('/') && !location.starts_with("//") {
        true => format!("{}://{}{location}", from.scheme_str()?, from.authority()?)
            .parse()
            .ok()?,
        false => location.parse().ok()?,
    };
    let is_worse = from.scheme_str() == Some("https") && uri.scheme_str() != Some("https");
    (is_http(&uri) && !is_worse).then_some(uri)
}

/// The first byte of a part, by its header.
fn first_byte<B>(answer: &Response<B>) -> Option<u64> {
    let range = answer.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    let range = range.trim_start_matches("bytes").trim_start();
    range.split('-').next()?.parse().ok()
}

async fn request(
    shared: &Shared,
    registry: &Registry,
    uri: &Uri,
    authorization: Option<&HeaderValue>,
    from: u64,
) -> Result<Response<Incoming>, String> {
    let name = uri.host().unwrap_or_default();
    // An IPv6 address has brackets in a URL.
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((name, port(uri))).await;
    let stream = stream.map_err(|error| format!("cannot connect to {}: {error}", host(uri)))?;
    let _ = stream.set_nodelay(true);
    if uri.scheme_str() != Some("https") {
        return talk(shared, stream, uri, authorization, from).await;
    }
    let server = ServerName::try_from(name.to_string());
    let server = server.map_err(|_| format!("{name:?} is not a host's name"))?;
    let stream = registry.tls.connect(server, stream).await;
    let stream = stream.map_err(|error| format!("no TLS with {}: {error}", host(uri)))?;
    talk(shared, stream, uri, authorization, from).await
}

async fn talk<S>(
    shared: &Shared,
    stream: S,
    uri: &Uri,
    authorization: Option<&HeaderValue>,
    from: u64,
) -> Result<Response<Incoming>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let said = |error: hyper::Error| {
        let source = error.source().map(|source| format!(": {source}"));
        format!(
            "no answer of {}: {error}{}",
            host(uri),
            source.unwrap_or_default()
        )
    };
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(BUFFER)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(said)?;
    shared.spawn(async {
        let _ = connection.await;
    });
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::get(path).header(HOST, host(uri));
    if let Some(value) = authorization {
        request = request.header(AUTHORIZATION, value.clone());
    }
    if from > 0 {
        request = request.header(RANGE, format!("bytes={from}-"));
    }
    let request = request
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    sender.send_request(request).await.map_err(said)
}
