//! The registry logins that the operator named, and the password that is asked for once everything else is right.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};

use super::Environment;
use super::fleet::kubernetes;
use crate::cli::{FleetArgs, RegistryArgs};
use crate::credentials::{self, FoundLogins, LoginSources, PullSecret, PullSecretContent};
use crate::inventory::{self, KubernetesQuery};
use crate::model::{Credential, Image, LoginSource, RegistryLogin, Secret};

/// Where logins come from, what was found there, and when that was known: typing a password takes its own time.
pub(super) fn logins(
    args: &RegistryArgs,
    fleet: &FleetArgs,
    images: &[Image],
    dry_run: bool,
    until: Option<Instant>,
    ambient: &Environment,
) -> Result<(LoginSources, FoundLogins, Instant)> {
    let user = args.registry_user.clone().map(|username| Credential {
        login: RegistryLogin::Password {
            username,
            password: Secret::new(""),
        },
        source: match (&args.registry_password_file, args.registry_password_stdin) {
            (Some(path), _) => LoginSource::File(ambient.path(path)),
            (None, true) => LoginSource::Stdin,
            (None, false) => LoginSource::Prompt,
        },
    });
    let query = kubernetes(fleet, ambient);
    let pull_secrets = args.pull_secret.iter();
    let mut sources = LoginSources {
        user,
        registries: args.registry.clone(),
        pull_secrets: pull_secrets
            .map(|given| pull_secret(given, &query))
            .collect(),
        auth_file: args.auth_file.as_deref().map(|path| ambient.path(path)),
        default_files: credentials::default_auth_files(|name| ambient.variable(name)),
        no_auth: args.no_auth,
        until,
    };
    // Everything is looked at once before anybody types a password that a typo would waste.
    let mut found = credentials::logins(&sources, images)?;
    let known = Instant::now();
    // The plan shows who logs in where; it needs no password.
    if let Some(user) = sources.user.as_mut().filter(|_| !dry_run) {
        let empty = user.clone();
        if let RegistryLogin::Password { password, .. } = &mut user.login {
            *password = registry_password(args, images, ambient)?;
        }
        for login in found.logins.iter_mut().flatten() {
            if *login == empty {
                *login = user.clone();
            }
        }
    }
    Ok((sources, found, known))
}

fn pull_secret(given: &str, query: &KubernetesQuery) -> PullSecret {
    let (name, query) = (given.to_string(), query.clone());
    PullSecret {
        name: name.clone(),
        read: Arc::new(move || {
            let (json, is_bare) =
                inventory::pull_secret(&query, &name).map_err(|error| error.to_string())?;
            Ok(PullSecretContent { json, is_bare })
        }),
    }
}

fn registry_password(
    args: &RegistryArgs,
    images: &[Image],
    ambient: &Environment,
) -> Result<Secret> {
    if let Some(path) = &args.registry_password_file {
        return credentials::password_file(&ambient.path(path)).context("--registry-password-file");
    }
    let stdin = std::io::stdin();
    // At a terminal it is going to be typed: it must not be shown, and the operator should know that we wait for it.
    if args.registry_password_stdin && !stdin.is_terminal() {
        return credentials::password_from(stdin.lock()).context("--registry-password-stdin");
    }
    let user = args.registry_user.as_deref().unwrap_or_default();
    let mut registries: Vec<&str> = if args.registry.is_empty() {
        images.iter().map(Image::registry).collect()
    } else {
        args.registry.iter().map(String::as_str).collect()
    };
    registries.sort_unstable();
    registries.dedup();
    let question = format!("Password of {user} for {}: ", registries.join(", "));
    Ok(credentials::prompt(&question)?)
}
