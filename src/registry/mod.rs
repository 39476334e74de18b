//! Asks registries, from the operator's machine, what images are made of: the OCI distribution protocol, reading only.

mod challenge;
mod http;
mod manifest;
#[cfg(test)]
mod tests;

use std::path::Path;

use futures::stream::{self, StreamExt as _};

use crate::model::{Image, Manifest, PlannedImage};
use http::{Http, Talk};

/// How many images are asked about at one time.
const AT_ONE_TIME: usize = 4;

/// Where docker keeps the authorities of registries: a folder `HOST[:PORT]` with `*.crt` for each.
pub const DOCKER_CERTIFICATES: &str = "/etc/docker/certs.d";

/// Why a registry did not tell, as a sentence for the operator.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct RegistryError(String);

/// What each image is made of, in their order. `certificates` is [`DOCKER_CERTIFICATES`] but in tests.
pub async fn contents(
    images: &[PlannedImage],
    platform: Option<&str>,
    certificates: &Path,
) -> Vec<Result<Vec<Manifest>, RegistryError>> {
    let http = Http::new(certificates);
    stream::iter(images)
        .map(|planned| content(&http, planned, platform))
        .buffered(AT_ONE_TIME)
        .collect()
        .await
}

async fn content(
    http: &Http,
    planned: &PlannedImage,
    platform: Option<&str>,
) -> Result<Vec<Manifest>, RegistryError> {
    let image = &planned.image;
    let login = planned.login.as_ref().map(|found| &found.login);
    let mut talk = Talk::new(http, image.registry(), image.repository(), login);
    let asked = async {
        let first = talk.manifest(reference(image)).await?;
        let entries = match manifest::read(&first)? {
            manifest::Answer::Image(layers) => {
                return Ok(vec![Manifest {
                    platform: None,
                    layers,
                }]);
            }
            manifest::Answer::Index(entries) => entries,
        };
        let mut manifests = Vec::new();
        for entry in entries.into_iter().filter(|entry| entry.is_for(platform)) {
            let answer = talk.manifest(&entry.digest).await?;
            if let manifest::Answer::Image(layers) = manifest::read(&answer)? {
                manifests.push(Manifest {
                    platform: entry.platform,
                    layers,
                });
            }
        }
        Ok(manifests)
    };
    asked
        .await
        .map_err(|RegistryError(why)| RegistryError(format!("{image}: {why}")))
}

/// A digest says more than a tag beside it.
fn reference(image: &Image) -> &str {
    image.digest().or(image.tag()).unwrap_or("latest")
}
