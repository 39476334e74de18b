//! Asks registries, from the operator's machine, what images are made of, and fetches images from them: the OCI distribution
//! protocol, reading only.

mod challenge;
mod client;
mod http;
mod manifest;
mod source;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use hyper::StatusCode;
use tokio::time::{Instant, timeout_at};

use crate::model::text::format_duration;
use crate::model::{Image, Manifest, Mirror, PlannedImage};
use client::RegistryClient;
use http::Http;
pub use source::{LoginRenewal, Registries, RegistrySource};

/// How many images are asked about at one time.
const AT_ONE_TIME: usize = 4;

/// Where docker keeps the authorities of registries: a folder `HOST[:PORT]` with `*.crt` for each.
pub const DOCKER_CERTIFICATES: &str = "/etc/docker/certs.d";

/// Why a registry did not tell, as a sentence for the operator.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("{why}")]
pub struct RegistryError {
    why: String,
    is_temporary: bool,
    /// Whether another login might help.
    is_login_refused: bool,
}

impl RegistryError {
    /// Asking again does not help.
    fn lasting(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            is_temporary: false,
            is_login_refused: false,
        }
    }

    /// It may pass.
    fn passing(why: impl Into<String>) -> Self {
        Self {
            is_temporary: true,
            ..Self::lasting(why)
        }
    }

    /// Asking again does not help, but with another login it might.
    fn of_status(status: StatusCode, why: impl Into<String>) -> Self {
        Self {
            is_login_refused: matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN),
            ..Self::lasting(why)
        }
    }
}

/// What each image is made of, in their order, as far as that is known within `limit`. Mirrors are asked first. A host
/// that cannot be reached, is silent or wants to be left alone is not asked again for the next image. The digests of
/// unpacked layers cost a request more for each manifest. `certificates` is [`DOCKER_CERTIFICATES`]
/// but in tests.
pub async fn contents(
    images: &[PlannedImage],
    platform: Option<&str>,
    mirrors: &[Mirror],
    certificates: &Path,
    limit: Duration,
    with_diff_ids: bool,
) -> Vec<Result<Vec<Manifest>, RegistryError>> {
    let http = Http::new(certificates);
    let until = Instant::now() + limit;
    stream::iter(images)
        .map(|planned| async {
            let asked = content(&http, planned, platform, mirrors, with_diff_ids);
            let asked = timeout_at(until, asked);
            asked.await.unwrap_or_else(|_| {
                let (registry, limit) = (planned.image.registry(), format_duration(limit));
                let why = format!("{registry} did not tell within {limit}");
                Err(RegistryError::passing(why))
            })
        })
        .buffered(AT_ONE_TIME)
        .collect()
        .await
}

async fn content(
    http: &Http,
    planned: &PlannedImage,
    platform: Option<&str>,
    mirrors: &[Mirror],
    with_diff_ids: bool,
) -> Result<Vec<Manifest>, RegistryError> {
    let image = &planned.image;
    let (registry, repository) = (image.registry(), image.repository());
    for mirror in Mirror::hosts(mirrors, registry) {
        let talk = RegistryClient::of_mirror(http, mirror, registry, repository);
        if let Ok(content) = content_from(talk, image, platform, with_diff_ids).await {
            return Ok(content);
        }
    }
    let login = planned.login.as_ref().map(|found| &found.login);
    let talk = RegistryClient::new(http, registry, repository, login);
    content_from(talk, image, platform, with_diff_ids).await
}

async fn content_from(
    mut talk: RegistryClient<'_>,
    image: &Image,
    platform: Option<&str>,
    with_diff_ids: bool,
) -> Result<Vec<Manifest>, RegistryError> {
    let first = talk.manifest(reference(image)).await?;
    let entries = match manifest::read(&first)? {
        manifest::Answer::Image(layers, config) => {
            return Ok(vec![Manifest {
                platform: None,
                layers,
                diff_ids: diff_ids(&mut talk, config.filter(|_| with_diff_ids)).await,
            }]);
        }
        manifest::Answer::Index(entries) => entries,
    };
    let mut manifests = Vec::new();
    for entry in entries.into_iter().filter(|entry| entry.is_for(platform)) {
        let answer = talk.manifest(&entry.digest).await?;
        if let manifest::Answer::Image(layers, config) = manifest::read(&answer)? {
            manifests.push(Manifest {
                platform: entry.platform,
                layers,
                diff_ids: diff_ids(&mut talk, config.filter(|_| with_diff_ids)).await,
            });
        }
    }
    Ok(manifests)
}

/// What an image's configuration says; nothing where it cannot be had: then a node's own layers cannot be compared.
async fn diff_ids(talk: &mut RegistryClient<'_>, config: Option<String>) -> Vec<String> {
    let Some(digest) = config else {
        return Vec::new();
    };
    match talk.configuration(&digest).await {
        Ok(answer) => manifest::diff_ids(&answer),
        Err(_) => Vec::new(),
    }
}

/// A digest says more than a tag beside it.
fn reference(image: &Image) -> &str {
    image.digest().or(image.tag()).unwrap_or("latest")
}
