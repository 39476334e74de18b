//! The account of the pod that prepull runs in, where there is one.

use std::fs;

use hyper::Uri;

use super::super::error::InputError;
use super::access::Access;
use super::cluster::Cluster;
use super::user::User;
use crate::model::Secret;

const HOST: &str = "KUBERNETES_SERVICE_HOST";
const PORT: &str = "KUBERNETES_SERVICE_PORT";
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Whether this is a pod.
pub(super) fn is_possible() -> bool {
    std::env::var_os(HOST).is_some() && std::env::var_os(PORT).is_some()
}

/// The pod's own account.
pub(super) fn read() -> Result<Access, InputError> {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let (host, port) = (variable(HOST), variable(PORT));
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host
    };
    let url: Uri = format!("https://{host}:{port}")
        .parse()
        .map_err(|_| InputError::new(format!("{HOST} and {PORT} name no server")))?;
    let file = |name: &str| {
        let path = format!("{ACCOUNT}/{name}");
        fs::read(&path).map_err(|error| {
            InputError::new(format!("cannot read this pod's account, {path}: {error}"))
                .with_hint("has the pod automountServiceAccountToken: false? Or name a kubeconfig with --kubeconfig")
        })
    };
    Ok(Access {
        cluster: Cluster {
            url,
            authorities: Some(file("ca.crt")?),
            is_insecure: false,
            server_name: None,
            proxy: None,
            exec_config: serde_json::Value::Null,
        },
        user: User {
            token: Some(Secret::new(file("token")?.trim_ascii())),
            ..User::default()
        },
        namespace: fs::read_to_string(format!("{ACCOUNT}/namespace"))
            .ok()
            .map(|text| text.trim().to_string()),
    })
}
