//! What `--via ssh` serves: each image from its registry, or from the files that `--from` names.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use pull_through::{Archive, Digest, Form, InvalidDigest, Reference, Source};

use super::logins::{CredentialRefresher, RenewedLogins};
use crate::cli::{ArchiveForm, ImageArchive};
use crate::model::text::escape_line;
use crate::model::{Image, PlannedImage, Work};
use crate::ports::OriginSource;
use crate::registry::{self, Registries};
use crate::settings::{RunSettings, ThroughSshSettings};
use crate::via::ServedImages;

type Sourced = (Image, Arc<dyn Source>, Reference);
type Origins = Option<Arc<dyn OriginSource>>;

/// The images of the plan with their sources, where they are to be served.
///
/// # Errors
/// The cache or an archive cannot be used, or no archive has an image.
pub(super) async fn served(settings: &RunSettings) -> Result<Option<ServedImages>> {
    let (Some(through), Work::Pull(planned)) = (&settings.through_ssh, &settings.plan.work) else {
        return Ok(None);
    };
    let cache = through.cache.as_ref().context(
        "--via and --fan-out: neither XDG_CACHE_HOME nor HOME says where to keep what is sent to nodes",
    )?;
    let (images, origins) = match through.archives.is_empty() {
        true => from_registries(settings, planned)?,
        false => (from_archives(through, planned).await?, Vec::new()),
    };
    let served = ServedImages::new(cache, through.cache_limit, through.upload_limit, images);
    Ok(Some(served.context("--via")?.with_origins(origins)))
}

/// Each image from its registry, with the login that prepull found for it, and finds again when it is refused.
fn from_registries(
    settings: &RunSettings,
    planned: &[PlannedImage],
) -> Result<(Vec<Sourced>, Vec<Origins>)> {
    let registries = Registries::new(Path::new(registry::DOCKER_CERTIFICATES));
    let mirrors = &settings.plan.policy.mirrors;
    let refresher = CredentialRefresher::new(&settings.login_sources, &settings.plan);
    let logins = Arc::new(RenewedLogins::new(Box::new(refresher)));
    let sourced = |(item, planned): (usize, &PlannedImage)| {
        let PlannedImage { image, login } = planned;
        let login = login.as_ref().map(|found| found.login.clone());
        let renewal = Arc::new(RenewedLogins::of(&logins, item));
        let source = Arc::new(registries.source(image, login, Some(renewal), mirrors));
        let reference = match image.digest() {
            Some(digest) => Reference::Digest(digest.parse().with_context(|| {
                format!("--via: {image} cannot be sent through SSH, only digests of SHA-256 can")
            })?),
            None => Reference::Tag(image.tag().unwrap_or("latest").to_string()),
        };
        let origin = Some(Arc::clone(&source) as Arc<dyn OriginSource>);
        Ok((
            (image.clone(), source as Arc<dyn Source>, reference),
            origin,
        ))
    };
    planned.iter().enumerate().map(sourced).collect()
}

/// Each image from the first archive that has it.
async fn from_archives(
    through: &ThroughSshSettings,
    planned: &[PlannedImage],
) -> Result<Vec<Sourced>> {
    let given = through.archives.clone();
    let opening = tokio::task::spawn_blocking(move || {
        let open = |given: &ImageArchive| {
            let form = match given.form {
                ArchiveForm::OciDirectory => Form::OciDirectory,
                ArchiveForm::OciArchive => Form::OciArchive,
                ArchiveForm::DockerArchive => Form::DockerArchive,
            };
            Archive::open(&given.path, form).map(Arc::new)
        };
        given.iter().map(open).collect::<Result<Vec<_>, _>>()
    });
    let archives = opening.await?.context("--from")?;
    let mut images = Vec::new();
    for PlannedImage { image, .. } in planned {
        let mut why = Vec::new();
        let found = archives.iter().find_map(|archive| {
            let digest = match image.digest() {
                Some(digest) => held(archive, digest),
                None => archive
                    .find(image.as_str())
                    .map_err(|error| error.to_string()),
            };
            match digest {
                Ok(digest) => {
                    let source = Arc::clone(archive) as Arc<dyn Source>;
                    Some((image.clone(), source, Reference::Digest(digest)))
                }
                Err(error) => {
                    why.push(error);
                    None
                }
            }
        });
        images.push(found.with_context(|| {
            let why = why.join("; ");
            format!("--from has no {image}: {}", escape_line(&why))
        })?);
    }
    Ok(images)
}

/// The digest, where the archive has an image with it.
fn held(archive: &Archive, wanted: &str) -> Result<Digest, String> {
    let digest: Digest = wanted
        .parse()
        .map_err(|error: InvalidDigest| error.to_string())?;
    let is_there = archive.images().any(|(held, _)| held == digest);
    is_there
        .then_some(digest)
        .ok_or_else(|| format!("no image in the file is {wanted}"))
}
