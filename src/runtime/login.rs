//! A pull's login, as the file that a client takes.

use std::collections::BTreeMap;

use crate::model::{Failure, FailureKind, Image, RegistryLogin, RuntimeKind, Secret, Stage, basic};
use crate::ports::{PullRequest, SecretDelivery};

/// Docker Hub's key in docker's `config.json`.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// What docker calls the image's registry where it keeps logins.
pub(super) fn server_of(image: &Image) -> &str {
    match image.registry() {
        "docker.io" => HUB_KEY,
        other => other,
    }
}

/// A pull's login as docker's client and nerdctl take it.
///
/// The folder replaces the node's own config.json, its credential helpers and contexts with it: a mix of the operator's
/// login and whatever the node has could use the wrong one unseen.
pub(super) fn docker_config(request: &PullRequest<'_>) -> Result<Option<SecretDelivery>, Failure> {
    in_directory(request, "DOCKER_CONFIG", "config.json")
}

/// docker's `config.json` with one login.
fn config_json(image: &Image, login: &RegistryLogin) -> Result<Secret, Failure> {
    let impossible = || {
        Failure::new(
            FailureKind::Internal,
            Stage::Pull,
            "cannot write docker's config.json",
        )
    };
    let key = server_of(image);
    let (field, secret) = match login {
        RegistryLogin::Password { username, password } => {
            ("auth", basic(username, password.expose()))
        }
        RegistryLogin::IdentityToken { token, .. } => ("identitytoken", token.clone()),
        RegistryLogin::RegistryToken(token) => ("registrytoken", token.clone()),
    };
    let secret = std::str::from_utf8(secret.expose()).map_err(|_| impossible())?;
    let entry = BTreeMap::from([(key, BTreeMap::from([(field, secret)]))]);
    // Large enough from the start, escapes included: a buffer that grows leaves copies of the secret behind.
    let mut json = Vec::with_capacity(key.len() + 6 * secret.len() + 64);
    serde_json::to_writer(&mut json, &BTreeMap::from([("auths", entry)]))
        .map_err(|_| impossible())?;
    Ok(Secret::new(json))
}

/// A pull's login as podman and skopeo take it: a file (containers-auth.json(5)).
pub(super) fn containers_auth(
    runtime: RuntimeKind,
    request: &PullRequest<'_>,
) -> Result<Option<SecretDelivery>, Failure> {
    if let Some(RegistryLogin::RegistryToken(_)) = request.login {
        return Err(Failure::new(
            FailureKind::RegistryAuth,
            Stage::Pull,
            format!(
                "this login is a registry token, which {runtime} cannot be told; use --registry-user, or another --auth-file"
            ),
        ));
    }
    in_directory(request, "PREPULL_LOGIN", "auth.json")
}

/// The login in this file, the only one of a directory that the variable names.
fn in_directory(
    request: &PullRequest<'_>,
    variable: &'static str,
    file: &'static str,
) -> Result<Option<SecretDelivery>, Failure> {
    let content = request
        .login
        .map(|login| config_json(request.image, login))
        .transpose()?;
    Ok(content.map(|content| SecretDelivery::Directory {
        variable,
        file,
        content,
    }))
}
