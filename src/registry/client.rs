//! Questions to one repository: logins and tokens, redirects, pauses.

use std::time::Duration;

use hyper::body::Bytes;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::uri::{Authority, PathAndQuery, Scheme};
use hyper::{StatusCode, Uri};
use serde::Deserialize;
use tokio::time::sleep;

use super::RegistryError;
use super::challenge::{self, Challenge};
use super::http::{Answer, Body, Http, Wanted, is_here};
use crate::model::{RegistryLogin, Secret, basic};

/// Requests for one answer: redirects, the login, pauses.
const MOST_STEPS: usize = 8;
/// The longest pause that a registry asks for and that is waited for.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Questions about one repository.
pub(super) struct RegistryClient<'a> {
    http: &'a Http,
    base: String,
    /// Follows every path.
    query: String,
    login: Option<&'a RegistryLogin>,
    host: String,
    /// What this host wants to see, once it said so.
    pub(super) authorization: Option<(Authority, HeaderValue)>,
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
            base: format!("{host}/v2/{repository}"),
            query: String::new(),
            login,
            host: host.to_string(),
            authorization: None,
        }
    }

    /// Questions to a mirror of a registry, which is told whose images are meant, as containerd does, and never sees the
    /// registry's login.
    pub(super) fn of_mirror(
        http: &'a Http,
        mirror: &str,
        registry: &str,
        repository: &str,
    ) -> Self {
        Self {
            query: format!("?{}", form(&[("ns", Some(registry))])),
            ..Self::new(http, mirror, repository, None)
        }
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// What a blob's digest is appended to.
    pub(super) fn blobs(&self) -> String {
        let scheme = if is_here(&self.host) { "http" } else { "https" };
        format!("{scheme}://{}/blobs/", self.base)
    }

    /// The manifest or index under a tag or digest.
    pub(super) async fn manifest(&mut self, reference: &str) -> Result<Bytes, RegistryError> {
        let path = format!("manifests/{reference}");
        match self.get(&path, Wanted::Manifest).await?.body {
            Body::Whole(bytes) => Ok(bytes),
            // Bodies of blobs only are left to be read.
            Body::Blob(_) => Ok(Bytes::new()),
        }
    }

    /// The configuration of an image, a small blob.
    pub(super) async fn configuration(&mut self, digest: &str) -> Result<Bytes, RegistryError> {
        match self
            .get(&format!("blobs/{digest}"), Wanted::Token)
            .await?
            .body
        {
            Body::Whole(bytes) => Ok(bytes),
            Body::Blob(_) => Ok(Bytes::new()),
        }
    }

    /// What the repository answers for a path below it.
    pub(super) async fn get(
        &mut self,
        path: &str,
        wanted: Wanted,
    ) -> Result<Answer, RegistryError> {
        let address = format!("{}/{path}{}", self.base, self.query);
        match self
            .follow(uri(&format!("https://{address}"))?, wanted)
            .await
        {
            // As docker does: a registry on this machine may do without TLS.
            Err(_) if is_here(&self.host) => {
                self.follow(uri(&format!("http://{address}"))?, wanted)
                    .await
            }
            answer => answer,
        }
    }

    async fn follow(&mut self, mut uri: Uri, wanted: Wanted) -> Result<Answer, RegistryError> {
        let mut is_login_told = false;
        for _ in 0..MOST_STEPS {
            let shown = self
                .authorization
                .as_ref()
                .filter(|(host, _)| Some(host) == uri.authority());
            let shown = shown.map(|(_, value)| value);
            let answer = self.http.ask(&uri, wanted, shown, None).await?;
            let (status, headers) = (answer.status, &answer.headers);
            let host = uri.authority().map_or("", Authority::as_str);
            match status {
                StatusCode::OK | StatusCode::PARTIAL_CONTENT => return Ok(answer),
                StatusCode::UNAUTHORIZED if !is_login_told => {
                    let value = self.prove(&uri, headers).await?;
                    self.authorization = uri.authority().cloned().zip(Some(value));
                    is_login_told = true;
                }
                status if status.is_redirection() => {
                    uri = next(&uri, headers).ok_or_else(|| {
                        RegistryError::lasting(format!("{host} sends us nowhere ({status})"))
                    })?;
                    is_login_told = false;
                }
                StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                    match pause(headers) {
                        Some(pause) if pause <= LONGEST_PAUSE => sleep(pause).await,
                        Some(pause) => {
                            let pause = humantime::format_duration(pause);
                            let why = RegistryError::lasting(format!(
                                "{host} answers {status} and wants to be left alone for {pause}"
                            ));
                            return Err(self.http.give_up(&uri, why).await);
                        }
                        None => {
                            let why = RegistryError::passing(format!("{host} answers {status}"));
                            return Err(self.http.give_up(&uri, why).await);
                        }
                    }
                }
                status if status.is_server_error() => {
                    return Err(RegistryError::passing(format!("{host} answers {status}")));
                }
                status => {
                    let why = format!("{host} answers {status}");
                    return Err(RegistryError::of_status(status, why));
                }
            }
        }
        Err(RegistryError::lasting(format!(
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
            RegistryError::lasting(format!(
                "{host} wants a login of a kind that is not known here"
            ))
        })?;
        match (challenge, login) {
            (_, Some(RegistryLogin::RegistryToken(token))) => sensitive("Bearer", token.expose()),
            (Challenge::Basic, Some(RegistryLogin::Password { username, password })) => {
                sensitive("Basic", basic(username, password.expose()).expose())
            }
            (Challenge::Basic, _) => Err(RegistryError::lasting(format!(
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
        let asking = match login.filter(|_| is_safe) {
            Some(RegistryLogin::IdentityToken { token, .. }) => {
                let token = std::str::from_utf8(token.expose()).ok();
                let grant = [
                    ("grant_type", Some("refresh_token")),
                    ("client_id", Some("prepull")),
                    ("refresh_token", token),
                ];
                let form = Secret::new(form(&[&grant, wanted].concat()));
                self.http.ask(&at, Wanted::Token, None, Some(form)).await?
            }
            Some(RegistryLogin::Password { username, password }) => {
                let basic = sensitive("Basic", basic(username, password.expose()).expose())?;
                self.http
                    .ask(&with_query, Wanted::Token, Some(&basic), None)
                    .await?
            }
            Some(RegistryLogin::RegistryToken(_)) | None => {
                self.http
                    .ask(&with_query, Wanted::Token, None, None)
                    .await?
            }
        };
        let host = at.authority().map_or("", Authority::as_str);
        let body = match (asking.status, asking.body) {
            (StatusCode::OK, Body::Whole(body)) => body,
            (status, _) => {
                let why = format!("{host} gives no token: it answers {status}");
                return Err(match status.is_server_error() {
                    true => RegistryError::passing(why),
                    false => RegistryError::of_status(status, why),
                });
            }
        };
        let token = serde_json::from_slice::<Token>(&body).ok();
        let token = token.and_then(|answer| answer.token.or(answer.access_token));
        let token = token.map(Secret::new);
        let token =
            token.ok_or_else(|| RegistryError::lasting(format!("{host} answers no token")))?;
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
        .map_err(|_| RegistryError::lasting("the login cannot be sent in a header"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn uri(text: &str) -> Result<Uri, RegistryError> {
    text.parse()
        .map_err(|error| RegistryError::lasting(format!("cannot ask at {text}: {error}")))
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
