//! Nodes from the Kubernetes API, asked as kubectl asks it: the same kubeconfig, the same server, the same login.
//!
//! Of a node only what is needed is read (core/v1 `Node`): 5,000 of them are some 50 MB of JSON.

mod access;
mod client;
mod cluster;
mod exec;
mod fields;
mod in_cluster;
mod kubeconfig;
mod pull_secrets;
mod tls;
mod user;
mod watch;
mod x509;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

pub use client::{Api, Change, Refusal, query as api_query};
pub use pull_secrets::pull_secret;
pub use watch::{WATCH_SECONDS, Watch, WatchEvent};

use super::draft::{Draft, Group, Mention};
use super::error::{InputError, InventoryError, Position};
use super::layers::NodeSettings;
use super::names;
use crate::model::{AddressType, RuntimeChoice, RuntimeKind};

/// What a page of the answer holds at most: as `kubectl` asks.
const PAGE: &str = "500";
/// How often a listing starts again when the server has forgotten where it was (410).
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

/// Asks the API for the nodes.
///
/// # Errors
/// What keeps them from us, and what the operator can do about it.
pub(super) fn draft(query: &KubernetesQuery) -> Result<Draft, InventoryError> {
    ask(query, async |api| {
        let source = format!("Kubernetes at {}", api.url());
        let wrong = |fault| InventoryError::of_file(&source, fault);
        let nodes = nodes(api, query).await.map_err(wrong)?;
        let draft = read(&nodes, query, source.clone())?;
        if draft.mentions.is_empty() {
            return Err(wrong(nothing_left(api, query, &nodes).await));
        }
        Ok(draft)
    })
}

/// A client for the cluster of a query: reads the kubeconfig, and runs its login program where it has one. Blocks while
/// that runs.
///
/// # Errors
/// What is wrong with the kubeconfig, or what the login program said.
pub fn connect(query: &KubernetesQuery) -> Result<Api, InventoryError> {
    let access = match kubeconfig::read(query)? {
        Some(access) => access,
        None => in_cluster::read().map_err(|fault| InventoryError::of_file("Kubernetes", fault))?,
    };
    let url = access.cluster.url.to_string();
    Api::new(access).map_err(|fault| InventoryError::of_file(format!("Kubernetes at {url}"), fault))
}

/// Connects to the API server and asks it something.
fn ask<T: Send>(
    query: &KubernetesQuery,
    question: impl AsyncFnOnce(&Api) -> Result<T, InventoryError> + Send,
) -> Result<T, InventoryError> {
    let wrong = |fault| InventoryError::of_file("Kubernetes", fault);
    let answer = || {
        let api = connect(query)?;
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| wrong(InputError::new(format!("cannot start tokio: {error}"))))?
            .block_on(question(&api))
    };
    // A panic in a library ends this thread, not the program.
    std::thread::scope(|scope| scope.spawn(answer).join()).unwrap_or_else(|_| {
        Err(wrong(
            InputError::new("an internal error while asking the API; this is a fault of prepull")
                .with_hint("report it with the line above; `kubectl get nodes -o name | prepull ... -i -` works without it"),
        ))
    })
}

#[derive(Debug, Deserialize)]
struct Page {
    #[serde(default)]
    metadata: PageMetadata,
    /// `null` where an empty list has no other form.
    #[serde(default)]
    items: Option<Vec<ApiNode>>,
}

#[derive(Debug, Default, Deserialize)]
struct PageMetadata {
    /// Where the next page starts.
    #[serde(default)]
    r#continue: Option<String>,
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
    kubelet_version: String,
}

async fn nodes(api: &Api, query: &KubernetesQuery) -> Result<Vec<ApiNode>, InputError> {
    let mut fault = None;
    for _ in 0..STARTS {
        match listing(api, query).await {
            Ok(nodes) => return Ok(nodes),
            // The place in the listing is too old: it starts again.
            Err(Refusal::Status(410, said)) => {
                fault = Some(InputError::new(format!("the listing broke off: {said}")));
            }
            Err(error) => return Err(refused(error)),
        }
    }
    Err(fault.unwrap_or_else(|| InputError::new("the listing broke off")))
}

async fn listing(api: &Api, query: &KubernetesQuery) -> Result<Vec<ApiNode>, Refusal> {
    let mut nodes = Vec::new();
    let mut next = None;
    loop {
        let asked = client::query(&[
            ("limit", Some(PAGE)),
            ("labelSelector", query.selector.as_deref()),
            ("fieldSelector", query.field_selector.as_deref()),
            ("continue", next.as_deref()),
        ]);
        let page: Page = api.get(&format!("/api/v1/nodes{asked}")).await?;
        nodes.extend(page.items.unwrap_or_default());
        next = page.metadata.r#continue.filter(|token| !token.is_empty());
        if next.is_none() {
            return Ok(nodes);
        }
    }
}

/// Why no node is left of what the API said.
async fn nothing_left(api: &Api, query: &KubernetesQuery, found: &[ApiNode]) -> InputError {
    let selectors: Vec<String> = [
        ("-l", &query.selector),
        ("--field-selector", &query.field_selector),
    ]
    .iter()
    .filter_map(|(option, text)| Some(format!("{option} {}", text.as_deref()?)))
    .collect();
    let selectors = selectors.join(" ");
    if found.is_empty() {
        if selectors.is_empty() {
            return InputError::new("the cluster has no nodes")
                .with_hint("is this the right context? --context chooses another");
        }
        let everything = KubernetesQuery::default();
        let all = match nodes(api, &everything).await {
            Ok(all) if all.is_empty() => "; the cluster has no nodes at all".to_string(),
            Ok(all) => format!("; without it the cluster has {}", counted(all.len())),
            Err(_) => String::new(),
        };
        return InputError::new(format!("no node matches {selectors}{all}"))
            .with_hint("`kubectl get nodes --show-labels` shows what there is to select by");
    }
    let mut left_out = Vec::new();
    let mut leave_out = |count: usize, what: &str| {
        if count > 0 {
            left_out.push(format!("{count} {what}"));
        }
    };
    let count = |is_left_out: &dyn Fn(&ApiNode) -> bool| {
        found.iter().filter(|node| is_left_out(node)).count()
    };
    if !query.include_control_plane {
        leave_out(
            count(&is_control_plane),
            "of the control plane (--include-control-plane takes them)",
        );
    }
    if query.ready_only {
        leave_out(
            count(&|node| !is_ready(&node.status)),
            "not ready (--ready-only leaves them out)",
        );
    }
    if query.schedulable_only {
        leave_out(
            count(&|node| node.spec.unschedulable),
            "cordoned (--schedulable-only leaves them out)",
        );
    }
    let matched = if selectors.is_empty() {
        String::new()
    } else {
        format!(" that matches {selectors}")
    };
    InputError::new(format!(
        "no node is left of {}{matched}: {}",
        counted(found.len()),
        left_out.join(", ")
    ))
}

/// `1 node`, `2 nodes`.
fn counted(number: usize) -> String {
    format!("{number} node{}", if number == 1 { "" } else { "s" })
}

/// What a refusal means, and what helps.
fn refused(refusal: Refusal) -> InputError {
    let (status, said) = match refusal {
        Refusal::Status(status, said) => (status, said),
        Refusal::InputError(fault) => return fault,
    };
    match status {
        401 => InputError::new(format!("the API does not accept these credentials (401): {said}"))
            .with_hint("log in again, or choose another context with --context"),
        403 => InputError::new(format!("the API does not let you list nodes (403): {said}")).with_hint(
            "the RBAC rule that is missing: apiGroups [\"\"], resources [\"nodes\"], verbs [\"list\"] in a ClusterRole \
             that is bound to you, e.g. kubectl create clusterrole node-reader --verb=list --resource=nodes",
        ),
        400 => InputError::new(format!("the API does not understand the question (400): {said}"))
            .with_hint("look at --selector and --field-selector"),
        code => InputError::new(format!("the API answered with status {code}: {said}")),
    }
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
        let is_ready = is_ready(&node.status);
        if (is_control_plane(node) && !query.include_control_plane)
            || (query.ready_only && !is_ready)
            || (query.schedulable_only && node.spec.unschedulable)
        {
            continue;
        }
        let name = &node.metadata.name;
        let wrong = |what: String| InventoryError::of_file(&draft.source, InputError::new(what));
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
            place: Position::default(),
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

fn is_control_plane(node: &ApiNode) -> bool {
    let roles = roles(&node.metadata.labels);
    roles
        .iter()
        .any(|role| ["control-plane", "master"].contains(role))
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
        ("kubelet", info.kubelet_version.clone()),
        ("ready", is_ready.to_string()),
        ("cordoned", node.spec.unschedulable.to_string()),
        ("taints", taints.join(",")),
    ];
    said.into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (name.to_string(), value))
        .collect()
}
