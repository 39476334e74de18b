//! The cluster of a kubeconfig: where it is, and whom to trust there.

use hyper::Uri;

use super::super::error::InventoryError;
use super::super::yaml::{Tree, Value};
use super::fields::Fields;

#[derive(Debug, Clone)]
pub(super) struct Cluster {
    /// `https://` or `http://`, without a user.
    pub(super) url: Uri,
    /// Certificates in PEM.
    pub(super) authorities: Option<Vec<u8>>,
    pub(super) is_insecure: bool,
    pub(super) server_name: Option<String>,
    pub(super) proxy: Option<Uri>,
    /// For a login program that wants to know of the cluster: the extension that is meant for it.
    pub(super) exec_config: serde_json::Value,
}

/// Reads one entry.
pub(super) fn read_cluster(name: &str, fields: Fields<'_>) -> Result<Cluster, InventoryError> {
    let Some(server) = fields.text("server")? else {
        let what = format!("the cluster \"{name}\" has no server");
        return Err(fields.wrong(what, "write server: https://HOST:6443"));
    };
    let url = server_url(server).map_err(|why| {
        let what = format!("the server of the cluster \"{name}\" cannot be used: {why}");
        fields.wrong(what, "write https://HOST:PORT")
    })?;
    let authorities = fields.data("certificate-authority")?;
    let is_insecure = fields.flag("insecure-skip-tls-verify")?;
    if is_insecure && authorities.is_some() {
        let what = format!(
            "the cluster \"{name}\" has a certificate authority and insecure-skip-tls-verify"
        );
        return Err(fields.wrong(what, "keep the certificate authority"));
    }
    let proxy = fields.text("proxy-url")?.map(|text| {
        let url: Option<Uri> = text.parse().ok();
        let is_known = |url: &Uri| matches!(url.scheme_str(), Some("http" | "https" | "socks5"));
        url.filter(|url| is_known(url) && url.host().is_some_and(|host| !host.is_empty()))
            .ok_or_else(|| {
                let what =
                    format!("the proxy-url of the cluster \"{name}\" is none that can be used");
                fields.wrong(
                    what,
                    "write http://, https:// or socks5:// before HOST:PORT",
                )
            })
    });
    let mut exec_config = serde_json::Value::Null;
    for extension in fields.list("extensions")? {
        let extension = fields.file.fields(extension)?;
        if extension.text("name")? == Some("client.authentication.k8s.io/exec") {
            exec_config = extension.get("extension").map_or(exec_config, json);
        }
    }
    Ok(Cluster {
        url,
        authorities,
        is_insecure,
        server_name: fields.text("tls-server-name")?.map(str::to_string),
        proxy: proxy.transpose()?,
        exec_config,
    })
}

/// A server as Go's client takes it: without a scheme it is `http`, and then it may have no path.
fn server_url(server: &str) -> Result<Uri, &'static str> {
    let server = server.trim();
    let lower = server.to_ascii_lowercase();
    let has_scheme = lower.starts_with("https://") || lower.starts_with("http://");
    let url = if has_scheme {
        server.to_string()
    } else if server.contains("://") {
        return Err("it is neither https:// nor http://");
    } else {
        format!("http://{server}")
    };
    let url: Uri = url.parse().map_err(|_| "it is no URL")?;
    if url.host().is_none_or(str::is_empty) {
        return Err("it names no host");
    }
    if url
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'))
    {
        return Err("it holds a user, which belongs under users:");
    }
    if !has_scheme && !matches!(url.path(), "" | "/") {
        return Err("it has a path, but no https:// before it");
    }
    Ok(url)
}

/// YAML as JSON, for the extension that a login program gets. Scalars keep the text that was written.
fn json(tree: &Tree) -> serde_json::Value {
    match &tree.value {
        Value::Null | Value::Unfilled => serde_json::Value::Null,
        Value::Text(text) => text.as_str().into(),
        Value::List(items) => items.iter().map(json).collect(),
        Value::Map(entries) => entries
            .iter()
            .map(|(key, value)| (key.text.clone(), json(value)))
            .collect(),
    }
}
