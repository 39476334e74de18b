//! Nodes from the Kubernetes API, by the `kube` crate: kubeconfig, contexts, certificates, tokens, exec plugins, proxies
//! and in-cluster service accounts are its business. Here is what is asked, and what the answer means.
//!
//! Of a node only what is needed is read (core/v1 `Node`): 5,000 of them are some 50 MB of JSON.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::core::{ListMeta, Request, params::ListParams};
use kube::{Client, Config};
use serde::Deserialize;

use super::draft::{Draft, Group, Mention};
use super::error::{Fault, InventoryError, Place};
use super::levels::{NodeSettings, RuntimeChoice};
use super::names;
use crate::model::RuntimeKind;

/// What a page of the answer holds at most: as `kubectl` asks.
const PAGE: u32 = 500;
/// How long a connection, and one page, may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const PAGE_LIMIT: Duration = Duration::from_secs(60);
/// How often a listing begins anew when the server has forgotten where it was (410).
const STARTS: usize = 3;

/// Which cluster, which of its nodes, and which of their addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KubernetesQuery {
    /// A kubeconfig file instead of `$KUBECONFIG`, `~/.kube/config` or the pod's own account.
    pub kubeconfig: Option<PathBuf>,
    /// A context instead of the current one.
    pub context: Option<String>,
    /// As `kubectl -l`.
    pub selector: Option<String>,
    /// As `kubectl --field-selector`.
    pub field_selector: Option<String>,
    /// Not only workers.
    pub include_control_plane: bool,
    /// The type of address to dial.
    pub address_type: AddressType,
    /// Only nodes that are ready.
    pub ready_only: bool,
    /// Only nodes that are not cordoned.
    pub schedulable_only: bool,
}

/// The types of a node's addresses (core/v1 `NodeAddressType`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AddressType {
    /// `InternalIP`.
    #[default]
    InternalIp,
    /// `ExternalIP`.
    ExternalIp,
    /// `Hostname`.
    Hostname,
    /// `InternalDNS`.
    InternalDns,
    /// `ExternalDNS`.
    ExternalDns,
}

impl AddressType {
    /// The word in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InternalIp => "InternalIP",
            Self::ExternalIp => "ExternalIP",
            Self::Hostname => "Hostname",
            Self::InternalDns => "InternalDNS",
            Self::ExternalDns => "ExternalDNS",
        }
    }
}

/// Asks the API for the nodes.
///
/// # Errors
/// What keeps them from us, and what the operator can do about it.
pub(super) fn draft(query: &KubernetesQuery) -> Result<Draft, InventoryError> {
    let of_kubernetes = |fault| InventoryError::of_file("Kubernetes", fault);
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| of_kubernetes(Fault::new(format!("cannot start tokio: {error}"))))?;
    let (url, nodes) = tokio.block_on(async {
        let config = config(query).await.map_err(of_kubernetes)?;
        let url = config.cluster_url.to_string();
        let answered = nodes(config, query).await;
        answered
            .map(|nodes| (url.clone(), nodes))
            .map_err(|fault| InventoryError::of_file(format!("Kubernetes at {url}"), fault))
    })?;
    read(&nodes, query, format!("Kubernetes at {url}"))
}

pub(super) async fn config(query: &KubernetesQuery) -> Result<Config, Fault> {
    let options = KubeConfigOptions {
        context: query.context.clone(),
        ..KubeConfigOptions::default()
    };
    let found = match &query.kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    let from_file = match found {
        Ok(mut kubeconfig) => {
            for user in &mut kubeconfig.auth_infos {
                user.auth_info.iter_mut().for_each(read_token);
            }
            Config::from_custom_kubeconfig(kubeconfig, &options).await
        }
        Err(error) => Err(error),
    };
    let mut config = match from_file {
        Ok(config) => config,
        Err(error) => {
            let is_asked_for = query.kubeconfig.is_some()
                || query.context.is_some()
                || std::env::var_os("KUBECONFIG").is_some();
            match Config::incluster() {
                Ok(config) if !is_asked_for => config,
                _ => {
                    let said = chain(&error);
                    return Err(Fault::new(format!("no usable kubeconfig: {said}")).but(
                        "name one with --kubeconfig or $KUBECONFIG, and a context with --context; `kubectl config get-contexts` shows them",
                    ));
                }
            }
        }
    };
    config.connect_timeout = Some(CONNECT_LIMIT);
    config.read_timeout = Some(PAGE_LIMIT);
    Ok(config)
}

/// Takes a token out of its file, as `kubectl` does: without the line end, which the crate would send along. A file that
/// cannot be read is left to the crate, which complains only where that user is asked for.
fn read_token(user: &mut AuthInfo) {
    if let Some(Ok(token)) = user.token_file.as_ref().map(std::fs::read_to_string) {
        user.token = Some(token.trim().into());
        user.token_file = None;
    }
}

#[derive(Debug, Deserialize)]
struct Page {
    metadata: ListMeta,
    /// `null` where an empty list has no other form.
    #[serde(default)]
    items: Option<Vec<ApiNode>>,
}

#[derive(Debug, Deserialize)]
struct ApiNode {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    name: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
struct Spec {
    #[serde(default)]
    unschedulable: bool,
    #[serde(default)]
    taints: Vec<Taint>,
}

#[derive(Debug, Deserialize)]
struct Taint {
    key: String,
    #[serde(default)]
    value: String,
    effect: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    addresses: Vec<Address>,
    conditions: Vec<Condition>,
    node_info: NodeInfo,
}

#[derive(Debug, Deserialize)]
struct Address {
    r#type: String,
    address: String,
}

#[derive(Debug, Deserialize)]
struct Condition {
    r#type: String,
    status: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct NodeInfo {
    container_runtime_version: String,
    operating_system: String,
    architecture: String,
    os_image: String,
}

async fn nodes(config: Config, query: &KubernetesQuery) -> Result<Vec<ApiNode>, Fault> {
    let client = Client::try_from(config).map_err(|error| unreachable(&chain(&error)))?;
    let mut fault = None;
    for _ in 0..STARTS {
        match listing(&client, query).await {
            Ok(nodes) => return Ok(nodes),
            // The place in the listing is too old: it begins anew.
            Err(kube::Error::Api(status)) if status.code == 410 => {
                fault = Some(Fault::new(format!(
                    "the listing broke off: {}",
                    status.message
                )));
            }
            Err(error) => return Err(refused(&error)),
        }
    }
    Err(fault.unwrap_or_else(|| Fault::new("the listing broke off")))
}

async fn listing(client: &Client, query: &KubernetesQuery) -> Result<Vec<ApiNode>, kube::Error> {
    let mut nodes = Vec::new();
    let mut parameters = ListParams {
        label_selector: query.selector.clone(),
        field_selector: query.field_selector.clone(),
        limit: Some(PAGE),
        ..ListParams::default()
    };
    loop {
        let request = Request::new("/api/v1/nodes")
            .list(&parameters)
            .map_err(kube::Error::BuildRequest)?;
        let page: Page = client.request(request).await?;
        nodes.extend(page.items.unwrap_or_default());
        parameters.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        if parameters.continue_token.is_none() {
            return Ok(nodes);
        }
    }
}

/// What a refusal means, and what helps.
fn refused(error: &kube::Error) -> Fault {
    let kube::Error::Api(status) = error else {
        return unreachable(&chain(error));
    };
    let said = &status.message;
    match status.code {
        401 => Fault::new(format!("the API does not accept these credentials (401): {said}"))
            .but("log in again, or choose another context with --context"),
        403 => Fault::new(format!("the API does not let you list nodes (403): {said}")).but(
            "the RBAC rule that is missing: apiGroups [\"\"], resources [\"nodes\"], verbs [\"list\"] in a ClusterRole \
             that is bound to you, e.g. kubectl create clusterrole node-reader --verb=list --resource=nodes",
        ),
        400 => Fault::new(format!("the API does not understand the question (400): {said}"))
            .but("look at --selector and --field-selector"),
        code => Fault::new(format!("the API answered with status {code}: {said}")),
    }
}

pub(super) fn unreachable(said: &str) -> Fault {
    let lower = said.to_ascii_lowercase();
    let fault = Fault::new(format!("the API cannot be asked: {said}"));
    if lower.contains("certificate") || lower.contains("unknownissuer") {
        fault.but("its certificate is not trusted: is certificate-authority-data of the kubeconfig that of this cluster?")
    } else if lower.contains("exec") || lower.contains("auth") {
        fault.but("the login of the kubeconfig failed: does `kubectl get nodes` work?")
    } else {
        fault.but("is this the right context, and its network (VPN, proxy) there? `kubectl get nodes` asks the same")
    }
}

/// An error with all its causes, each once.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut said = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !said.contains(&text) {
            said.push_str(": ");
            said.push_str(&text);
        }
        next = cause.source();
    }
    said
}

/// Makes a draft of what the API said.
fn read(
    nodes: &[ApiNode],
    query: &KubernetesQuery,
    source: String,
) -> Result<Draft, InventoryError> {
    let mut draft = Draft {
        source,
        gives_way: true,
        ..Draft::default()
    };
    for node in nodes {
        let roles = roles(&node.metadata.labels);
        let is_control_plane = roles
            .iter()
            .any(|role| ["control-plane", "master"].contains(role));
        let is_ready = is_ready(&node.status);
        if (is_control_plane && !query.include_control_plane)
            || (query.ready_only && !is_ready)
            || (query.schedulable_only && node.spec.unschedulable)
        {
            continue;
        }
        let name = &node.metadata.name;
        let wrong = |what: String| InventoryError::of_file(&draft.source, Fault::new(what));
        names::check_host(name).map_err(|why| wrong(format!("a node's name: {why}")))?;
        // Several of a type are possible (dual stack); the first is the node's primary one. None is left empty: such a
        // node is reported, not dropped, and not dialled by some other address.
        let address = node
            .status
            .addresses
            .iter()
            .find(|address| address.r#type == query.address_type.as_str())
            .map_or("", |address| address.address.as_str());
        if !address.is_empty() {
            names::check_host(address)
                .map_err(|why| wrong(format!("an address of the node \"{name}\": {why}")))?;
        }
        let groups = roles
            .iter()
            .map(|role| group(&mut draft.groups, role))
            .collect();
        draft.mentions.push(Mention {
            name: name.clone(),
            address: Some(address.to_string()),
            settings: NodeSettings {
                runtime: runtime(&node.status.node_info).map(RuntimeChoice::Kind),
                labels: node.metadata.labels.clone(),
                facts: facts(node, is_ready),
                ..NodeSettings::default()
            },
            groups,
            place: Place::default(),
        });
    }
    Ok(draft)
}

/// What follows `node-role.kubernetes.io/`.
fn roles(labels: &BTreeMap<String, String>) -> Vec<&str> {
    labels
        .keys()
        .filter_map(|label| label.strip_prefix("node-role.kubernetes.io/"))
        .filter(|role| !role.is_empty())
        .collect()
}

/// The index of a group of this name.
fn group(groups: &mut Vec<Group>, name: &str) -> usize {
    let known = groups.iter().position(|group| group.name == name);
    known.unwrap_or_else(|| {
        groups.push(Group {
            name: name.to_string(),
            settings: NodeSettings::default(),
        });
        groups.len() - 1
    })
}

fn is_ready(status: &Status) -> bool {
    let ready = |condition: &Condition| condition.r#type == "Ready" && condition.status == "True";
    status.conditions.iter().any(ready)
}

/// `containerd://1.7.24`, `cri-o://1.32.1`, `docker://28.0.1`: all but the last speak CRI.
fn runtime(info: &NodeInfo) -> Option<RuntimeKind> {
    match info.container_runtime_version.split_once("://")?.0 {
        "docker" => Some(RuntimeKind::Docker),
        _ => Some(RuntimeKind::Crictl),
    }
}

/// What is shown of a node beyond what is used.
fn facts(node: &ApiNode, is_ready: bool) -> BTreeMap<String, String> {
    let info = &node.status.node_info;
    let taints: Vec<String> = node
        .spec
        .taints
        .iter()
        .map(|taint| {
            let equals = if taint.value.is_empty() { "" } else { "=" };
            format!("{}{equals}{}:{}", taint.key, taint.value, taint.effect)
        })
        .collect();
    let said = [
        ("architecture", info.architecture.clone()),
        ("operating-system", info.operating_system.clone()),
        ("system", info.os_image.clone()),
        ("runtime-version", info.container_runtime_version.clone()),
        ("ready", is_ready.to_string()),
        ("cordoned", node.spec.unschedulable.to_string()),
        ("taints", taints.join(",")),
    ];
    said.into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (name.to_string(), value))
        .collect()
}
