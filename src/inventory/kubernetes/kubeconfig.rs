//! Kubeconfigs as kubectl finds, merges and checks them: the cluster and the user of one context.
//!
//! Nothing that stands in one is quoted in an error but names: it may hold tokens and keys.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Uri;
use zeroize::Zeroizing;

use super::super::error::{Fault, InventoryError};
use super::super::read;
use super::super::yaml::{self, Tree, Value};
use super::KubernetesQuery;
use super::exec::Exec;
use super::tls::Identity;
use crate::model::Secret;

/// The YAML of a kubeconfig may hold extensions of any shape.
const DEPTH_LIMIT: usize = 64;
/// How many contexts an error names.
const SHOWN_CONTEXTS: usize = 10;

const HOW_TO_CHOOSE: &str = "name one with --kubeconfig or $KUBECONFIG, and a context with --context; \
    `kubectl config get-contexts` shows them";

/// What a context says: which cluster, as whom, in which namespace.
#[derive(Debug)]
pub(super) struct Access {
    pub(super) cluster: Cluster,
    pub(super) user: User,
    pub(super) namespace: Option<String>,
}

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

#[derive(Debug, Default)]
pub(super) struct User {
    pub(super) token: Option<Secret>,
    pub(super) basic: Option<(String, Secret)>,
    pub(super) identity: Option<Identity>,
    pub(super) exec: Option<Exec>,
    /// `Impersonate-*` headers.
    pub(super) impersonation: Vec<(String, String)>,
}

/// Reads what the query names.
///
/// `None` where there is no kubeconfig at all, and none was asked for.
pub(super) fn read(query: &KubernetesQuery) -> Result<Option<Access>, InventoryError> {
    let found = files(query)?;
    let is_empty = |file: &File| file.named("contexts").is_ok_and(|list| list.is_empty());
    if found.files.iter().all(is_empty) {
        let is_asked_for = query.kubeconfig.is_some() || query.context.is_some();
        if !is_asked_for && super::in_cluster::is_possible() {
            return Ok(None);
        }
        let looked = found.looked_at.join(", ");
        let what = if found.files.is_empty() {
            format!("no usable kubeconfig: there is no {looked}")
        } else {
            format!("no usable kubeconfig: there is no context in {looked}")
        };
        return Err(InventoryError::of_file(
            "Kubernetes",
            Fault::new(what).but(HOW_TO_CHOOSE),
        ));
    }
    choose(&found.files, query.context.as_deref()).map(Some)
}

struct Found {
    files: Vec<File>,
    /// All that were looked for, those that do not exist included.
    looked_at: Vec<String>,
}

/// The files that kubectl would read: those of `$KUBECONFIG` need not exist.
fn files(query: &KubernetesQuery) -> Result<Found, InventoryError> {
    let mut paths: Vec<PathBuf> = Vec::new();
    let listed = std::env::var_os("KUBECONFIG").filter(|listed| !listed.is_empty());
    match (&query.kubeconfig, listed) {
        (Some(path), _) => paths.push(path.clone()),
        (None, Some(listed)) => {
            for path in std::env::split_paths(&listed) {
                if !path.as_os_str().is_empty() && !paths.contains(&path) {
                    paths.push(path);
                }
            }
        }
        (None, None) => {
            let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
            paths.extend(home.map(|home| Path::new(&home).join(".kube/config")));
        }
    }
    let mut looked_at: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    if looked_at.is_empty() {
        looked_at.push("file in $KUBECONFIG".into());
    }
    if query.kubeconfig.is_none() {
        paths.retain(|path| path.try_exists().unwrap_or(true));
    }
    let files = paths.iter().map(|path| File::read(path));
    let files = files.collect::<Result<_, _>>()?;
    Ok(Found { files, looked_at })
}

/// One file.
struct File {
    name: String,
    folder: PathBuf,
    tree: Tree,
}

impl File {
    fn read(path: &Path) -> Result<Self, InventoryError> {
        let unread = |error: InventoryError| InventoryError {
            suggestion: Some(HOW_TO_CHOOSE.into()),
            ..error
        };
        let text = Zeroizing::new(read::file(path).map_err(unread)?);
        let folder = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        let folder = folder.parent().unwrap_or(Path::new("/")).to_path_buf();
        Self::parse(&text, path.display().to_string(), folder)
    }

    fn parse(text: &str, name: String, folder: PathBuf) -> Result<Self, InventoryError> {
        let tree = yaml::parse_deep(first_document(text), &name, DEPTH_LIMIT)?;
        let file = Self { name, folder, tree };
        if matches!(file.tree.value, Value::Null) {
            return Ok(file);
        }
        let fields = file.fields(&file.tree)?;
        let kind = fields.text("kind")?.unwrap_or("Config");
        let version = fields.text("apiVersion")?.unwrap_or("v1");
        if kind != "Config" || version != "v1" {
            let fault =
                Fault::new("this is no kubeconfig: those have kind: Config, apiVersion: v1");
            return Err(InventoryError::of_file(&file.name, fault));
        }
        for list in ["clusters", "contexts", "users"] {
            let named = file.named(list)?;
            for (index, (name, entry)) in named.iter().enumerate() {
                if named[..index].iter().any(|(before, _)| before == name) {
                    let fault = Fault::new(format!("\"{name}\" stands twice in {list}"));
                    return Err(InventoryError::at(&file.name, entry.tree.place, fault));
                }
            }
        }
        Ok(file)
    }

    fn fields<'a>(&'a self, tree: &'a Tree) -> Result<Fields<'a>, InventoryError> {
        match tree.value {
            Value::Map(_) => Ok(Fields { file: self, tree }),
            _ => {
                let fault = Fault::new("a map is expected here").but("is this a kubeconfig?");
                Err(InventoryError::at(&self.name, tree.place, fault))
            }
        }
    }

    /// The entries of a list, by their names.
    fn named(&self, list: &str) -> Result<Vec<(&str, Fields<'_>)>, InventoryError> {
        if matches!(self.tree.value, Value::Null) {
            return Ok(Vec::new());
        }
        let items = self.fields(&self.tree)?.list(list)?;
        let mut named = Vec::new();
        for item in items {
            let fields = self.fields(item)?;
            named.push((fields.text("name")?.unwrap_or_default(), fields));
        }
        Ok(named)
    }
}

/// kubectl reads one document, whatever follows it.
fn first_document(text: &str) -> &str {
    let mut has_content = false;
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let is_mark = line.trim_end() == "---" || line.starts_with("--- ");
        if is_mark && has_content {
            return &text[..start];
        }
        let bare = line.trim();
        has_content |=
            !bare.is_empty() && !bare.starts_with('#') && !bare.starts_with('%') && !is_mark;
        start += line.len();
    }
    text
}

/// A map in a file.
#[derive(Clone, Copy)]
struct Fields<'a> {
    file: &'a File,
    tree: &'a Tree,
}

impl<'a> Fields<'a> {
    fn fault(&self, tree: &Tree, fault: Fault) -> InventoryError {
        InventoryError::at(&self.file.name, tree.place, fault)
    }

    /// A fault of the whole entry.
    fn wrong(&self, what: impl Into<String>, suggestion: impl Into<String>) -> InventoryError {
        self.fault(self.tree, Fault::new(what).but(suggestion))
    }

    fn get(&self, key: &str) -> Option<&'a Tree> {
        let Value::Map(entries) = &self.tree.value else {
            return None;
        };
        let found = entries.iter().find(|(known, _)| known.text == key);
        found
            .map(|(_, tree)| tree)
            .filter(|tree| tree.value != Value::Null)
    }

    /// A text that is not empty.
    fn text(&self, key: &str) -> Result<Option<&'a str>, InventoryError> {
        match self.get(key).map(|tree| (tree, &tree.value)) {
            None => Ok(None),
            Some((_, Value::Text(text))) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
            Some((tree, _)) => Err(self.fault(tree, Fault::new(format!("{key} must be a text")))),
        }
    }

    /// As YAML 1.1 has truth values, for kubectl's parser has them so.
    fn flag(&self, key: &str) -> Result<bool, InventoryError> {
        let Some(text) = self.text(key)? else {
            return Ok(false);
        };
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "y" => Ok(true),
            "false" | "no" | "off" | "n" => Ok(false),
            _ => Err(self.wrong(format!("{key} must be true or false"), "correct it")),
        }
    }

    fn list(&self, key: &str) -> Result<&'a [Tree], InventoryError> {
        match self.get(key).map(|tree| (tree, &tree.value)) {
            None => Ok(&[]),
            Some((_, Value::List(items))) => Ok(items),
            Some((tree, _)) => Err(self.fault(tree, Fault::new(format!("{key} must be a list")))),
        }
    }

    fn texts(&self, key: &str) -> Result<Vec<String>, InventoryError> {
        let texts = self.list(key)?.iter().map(|item| match &item.value {
            Value::Text(text) => Ok(text.clone()),
            _ => Err(self.fault(item, Fault::new(format!("{key} must be a list of texts")))),
        });
        texts.collect()
    }

    fn map(&self, key: &str) -> Result<Option<Fields<'a>>, InventoryError> {
        self.get(key).map(|tree| self.file.fields(tree)).transpose()
    }

    /// A path, from the kubeconfig's folder.
    fn path(&self, key: &str) -> Result<Option<PathBuf>, InventoryError> {
        Ok(self.text(key)?.map(|path| self.file.folder.join(path)))
    }

    /// What stands in `KEY-data` in base64, or in the file that `KEY` names; not both, as kubectl has it.
    fn data(&self, key: &str) -> Result<Option<Vec<u8>>, InventoryError> {
        let inline = format!("{key}-data");
        let path = self.path(key)?;
        let Some(text) = self.text(&inline)? else {
            return path
                .map(|path| {
                    std::fs::read(&path).map_err(|error| {
                        let what = format!("cannot read {key}, {}: {error}", path.display());
                        self.wrong(
                            what,
                            "correct the path; it counts from the kubeconfig's folder",
                        )
                    })
                })
                .transpose();
        };
        if path.is_some() {
            return Err(self.wrong(format!("{key} and {inline} are both given"), "keep one"));
        }
        let folded: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
        let folded = Zeroizing::new(folded);
        let bytes = STANDARD.decode(folded.as_bytes());
        let not_base64 = || {
            self.wrong(
                format!("{inline} is not base64"),
                "copy the kubeconfig again",
            )
        };
        bytes.map(Some).map_err(|_| not_base64())
    }
}

/// The first entry of this name: as for kubectl, the first file that has one decides all of it.
fn find<'a>(
    files: &'a [File],
    list: &str,
    name: &str,
) -> Result<Option<Fields<'a>>, InventoryError> {
    for file in files {
        let named = file.named(list)?;
        if let Some((_, fields)) = named.into_iter().find(|(known, _)| *known == name) {
            return Ok(Some(fields));
        }
    }
    Ok(None)
}

fn choose(files: &[File], wanted: Option<&str>) -> Result<Access, InventoryError> {
    let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
    let names = names.join(", ");
    let missing = |what: String, suggestion: String| {
        InventoryError::of_file(&names, Fault::new(what).but(suggestion))
    };
    let mut current = None;
    for file in files {
        if current.is_none() && !matches!(file.tree.value, Value::Null) {
            current = file.fields(&file.tree)?.text("current-context")?;
        }
    }
    let choose_one = || {
        let mut known: Vec<&str> = files
            .iter()
            .filter_map(|file| file.named("contexts").ok())
            .flatten()
            .map(|(name, _)| name)
            .collect();
        let more = if known.len() > SHOWN_CONTEXTS {
            ", ..."
        } else {
            ""
        };
        known.truncate(SHOWN_CONTEXTS);
        format!("choose one with --context: {}{more}", known.join(", "))
    };
    let Some(context_name) = wanted.filter(|name| !name.is_empty()).or(current) else {
        return Err(missing("no current-context is set".into(), choose_one()));
    };
    let Some(context) = find(files, "contexts", context_name)? else {
        return Err(missing(
            format!("there is no context \"{context_name}\""),
            choose_one(),
        ));
    };
    let Some(context) = context.map("context")? else {
        return Err(context.wrong(
            format!("the context \"{context_name}\" is empty"),
            choose_one(),
        ));
    };
    let Some(cluster_name) = context.text("cluster")? else {
        let what = format!("the context \"{context_name}\" names no cluster");
        return Err(context.wrong(what, choose_one()));
    };
    let cluster = find(files, "clusters", cluster_name)?;
    let Some(cluster) = cluster
        .map(|entry| entry.map("cluster"))
        .transpose()?
        .flatten()
    else {
        let what = format!(
            "the cluster \"{cluster_name}\" of the context \"{context_name}\" is not there"
        );
        return Err(context.wrong(what, choose_one()));
    };
    let cluster = read_cluster(cluster_name, cluster)?;
    let user = match context.text("user")? {
        None => User::default(),
        Some(name) => match find(files, "users", name)? {
            Some(entry) => match entry.map("user")? {
                Some(user) => read_user(name, user, &cluster)?,
                None => User::default(),
            },
            None => {
                let what =
                    format!("the user \"{name}\" of the context \"{context_name}\" is not there");
                return Err(context.wrong(what, choose_one()));
            }
        },
    };
    Ok(Access {
        cluster,
        user,
        namespace: context.text("namespace")?.map(str::to_string),
    })
}

fn read_cluster(name: &str, fields: Fields<'_>) -> Result<Cluster, InventoryError> {
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

fn read_user(name: &str, fields: Fields<'_>, cluster: &Cluster) -> Result<User, InventoryError> {
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
