//! The user of a kubeconfig: how to log in, and in whose name to ask.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::super::error::InventoryError;
use super::super::yaml::Value;
use super::cluster::Cluster;
use super::exec::Exec;
use super::fields::Fields;
use super::tls::Identity;
use crate::model::Secret;

#[derive(Debug, Default)]
pub(super) struct User {
    pub(super) token: Option<Secret>,
    pub(super) basic: Option<(String, Secret)>,
    pub(super) identity: Option<Identity>,
    pub(super) exec: Option<Exec>,
    /// `Impersonate-*` headers.
    pub(super) impersonation: Vec<(String, String)>,
}

/// Reads one entry.
pub(super) fn read_user(
    name: &str,
    fields: Fields<'_>,
    cluster: &Cluster,
) -> Result<User, InventoryError> {
    let mut user = User::default();
    let token = fields.text("token")?.map(str::trim).map(Secret::new);
    let from_file = fields.path("tokenFile")?.map(|path| {
        let text = std::fs::read(&path).map(Zeroizing::new);
        // As kubectl: a file that can be read is stronger than the token beside it.
        match text {
            Ok(bytes) => Ok(Secret::new(bytes.trim_ascii())),
            Err(error) => Err(fields.wrong(
                format!(
                    "cannot read the tokenFile of the user \"{name}\", {}: {error}",
                    path.display()
                ),
                "correct the path; it counts from the kubeconfig's folder",
            )),
        }
    });
    user.token = match (from_file, token) {
        (Some(Ok(from_file)), _) => Some(from_file),
        (Some(Err(error)), None) => return Err(error),
        (_, token) => token,
    };
    if let Some(login) = fields.text("username")? {
        let password = fields.text("password")?.unwrap_or_default();
        user.basic = Some((login.to_string(), Secret::new(password)));
    }
    if user.token.is_some() && user.basic.is_some() {
        let what = format!("the user \"{name}\" has both a token and a username");
        return Err(fields.wrong(what, "keep one of them"));
    }
    let certificate = fields.data("client-certificate")?;
    let key = fields.data("client-key")?.map(Secret::new);
    user.identity = match (certificate, key) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some(Identity { certificate, key }),
        (certificate, _) => {
            let missing = if certificate.is_some() {
                "client-key"
            } else {
                "client-certificate"
            };
            let what = format!("the user \"{name}\" has no {missing}");
            return Err(fields.wrong(what, format!("add {missing} or {missing}-data")));
        }
    };
    let exec = fields.map("exec")?;
    if let Some(provider) = fields.map("auth-provider")? {
        if exec.is_some() {
            let what = format!("the user \"{name}\" has both exec and auth-provider");
            return Err(fields.wrong(what, "keep exec"));
        }
        if user.token.is_none() && user.basic.is_none() {
            user.token = Some(provider_token(name, provider)?);
        }
    }
    user.exec = exec
        .map(|exec| read_exec(name, exec, cluster))
        .transpose()?;
    user.impersonation = impersonation(name, fields)?;
    Ok(user)
}

/// What is left of kubectl's built-in logins: of OpenID Connect the token that is still good.
fn provider_token(name: &str, provider: Fields<'_>) -> Result<Secret, InventoryError> {
    let kind = provider.text("name")?.unwrap_or_default();
    let what = format!("the login \"auth-provider: {kind}\" of the user \"{name}\"");
    let instead = match kind {
        "oidc" => {
            let token = match provider.map("config")? {
                Some(config) => config.text("id-token")?,
                None => None,
            };
            match token.filter(|token| is_still_good(token)) {
                Some(token) => return Ok(Secret::new(token)),
                None => {
                    let what = format!(
                        "{what} has no id-token that is still good, and prepull renews none"
                    );
                    let next = "run `kubectl get nodes` once, which writes a new one into the kubeconfig; \
                        or change to a login program (kubectl oidc-login)";
                    return Err(provider.wrong(what, next));
                }
            }
        }
        "gcp" => {
            "install gke-gcloud-auth-plugin, then gcloud container clusters get-credentials CLUSTER"
        }
        "azure" => "install kubelogin, then kubelogin convert-kubeconfig",
        _ => "log in with a program (exec), a token or a certificate",
    };
    Err(provider.wrong(format!("{what} is gone from Kubernetes"), instead))
}

/// Whether the `exp` of a JSON Web Token lies ahead.
fn is_still_good(token: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct Claims {
        exp: f64,
    }
    let payload = token.split('.').nth(1).unwrap_or_default();
    let url_safe = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let claims = url_safe.decode(payload.trim_end_matches('='));
    let claims: Option<Claims> = claims
        .ok()
        .and_then(|json| serde_json::from_slice(&json).ok());
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970")]
    claims.is_some_and(|claims| claims.exp > super::x509::now() as f64 + 10.0)
}

fn read_exec(name: &str, fields: Fields<'_>, cluster: &Cluster) -> Result<Exec, InventoryError> {
    let what = format!("the login program of the user \"{name}\"");
    let Some(command) = fields.text("command")? else {
        return Err(fields.wrong(format!("{what} has no command"), "add command:"));
    };
    let version = fields.text("apiVersion")?.unwrap_or_default();
    let number = version.strip_prefix("client.authentication.k8s.io/");
    if !matches!(number, Some("v1" | "v1beta1" | "v1alpha1")) {
        let suggestion = "write apiVersion: client.authentication.k8s.io/v1 or client.authentication.k8s.io/v1beta1";
        return Err(fields.wrong(
            format!("{what} has no apiVersion that is known"),
            suggestion,
        ));
    }
    let mode = match fields.text("interactiveMode")? {
        Some("Never") => Some(false),
        Some("Always") => Some(true),
        Some("IfAvailable") => None,
        None if number != Some("v1") => None,
        _ => {
            let suggestion = "write interactiveMode: IfAvailable, Never or Always";
            return Err(fields.wrong(
                format!("{what} has no interactiveMode that is known"),
                suggestion,
            ));
        }
    };
    let mut environment = Vec::new();
    for variable in fields.list("env")? {
        let variable = fields.file.fields(variable)?;
        let value = variable.text("value")?.unwrap_or_default();
        match variable.text("name")? {
            Some(key) if !key.contains(['=', '\0']) => {
                environment.push((key.to_string(), value.to_string()))
            }
            _ => {
                return Err(
                    variable.wrong(format!("{what} has a variable without a name"), "name it")
                );
            }
        }
    }
    // As for kubectl: a bare name is looked for in $PATH.
    let path = if command.contains('/') {
        fields.file.folder.join(command)
    } else {
        PathBuf::from(command)
    };
    Ok(Exec {
        user: name.to_string(),
        command: path,
        arguments: fields.texts("args")?,
        environment,
        api_version: version.to_string(),
        mode,
        cluster: fields
            .flag("provideClusterInfo")?
            .then(|| cluster_for_exec(cluster)),
        install_hint: fields.text("installHint")?.map(str::to_string),
    })
}

/// What a login program may want to know of the cluster (client.authentication.k8s.io, `Cluster`).
fn cluster_for_exec(cluster: &Cluster) -> serde_json::Value {
    let url = cluster.url.to_string();
    let mut told = serde_json::json!({
        "server": url.trim_end_matches('/'),
        "config": cluster.exec_config,
    });
    if let Some(name) = &cluster.server_name {
        told["tls-server-name"] = name.as_str().into();
    }
    if cluster.is_insecure {
        told["insecure-skip-tls-verify"] = true.into();
    }
    if let Some(authorities) = &cluster.authorities {
        told["certificate-authority-data"] = STANDARD.encode(authorities).into();
    }
    if let Some(proxy) = &cluster.proxy {
        told["proxy-url"] = proxy.to_string().into();
    }
    told
}

fn impersonation(name: &str, fields: Fields<'_>) -> Result<Vec<(String, String)>, InventoryError> {
    let mut headers = Vec::new();
    let mut add = |key: &str, value: String| headers.push((key.to_string(), value));
    if let Some(user) = fields.text("as")? {
        add("impersonate-user", user.to_string());
    }
    if let Some(uid) = fields.text("as-uid")? {
        add("impersonate-uid", uid.to_string());
    }
    for group in fields.texts("as-groups")? {
        add("impersonate-group", group);
    }
    if let Some(extra) = fields.map("as-user-extra")?
        && let Value::Map(entries) = &extra.tree.value
    {
        for (key, _) in entries {
            for value in extra.texts(&key.text)? {
                add(&format!("impersonate-extra-{}", escaped(&key.text)), value);
            }
        }
    }
    if headers
        .first()
        .is_some_and(|(key, _)| key != "impersonate-user")
    {
        let what = format!("the user \"{name}\" impersonates groups, a uid or more, but no user");
        return Err(fields.wrong(what, "add as:"));
    }
    Ok(headers)
}

/// As client-go writes a key into the name of a header: what may not stand there as `%XX`.
fn escaped(key: &str) -> String {
    let mut text = String::new();
    for byte in key.bytes() {
        match byte {
            b'%' => text.push_str("%25"),
            byte if byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte) => {
                text.push(char::from(byte));
            }
            byte => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}
