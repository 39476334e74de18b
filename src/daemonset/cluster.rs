//! Nodes and the DaemonSet as the API has them, and why a node has no pod.

use serde::Deserialize;
use serde_json::Value;

use super::objects::{IMAGE, TEMPLATE_LABEL};
use super::session::{Metadata, Object};
use crate::model::daemonset::TOLERATED;
use crate::model::{
    DaemonSetSpec, Image, LabelOperator, LabelRequirement, NodeChoice, PodMode, Taint, Toleration,
};

/// The part of a core/v1 `Node` that is read.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct ClusterNode {
    pub(super) metadata: Metadata,
    spec: NodeSpec,
    status: NodeStatus,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct NodeSpec {
    taints: Vec<Taint>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct NodeStatus {
    conditions: Vec<super::pods::Condition>,
}

impl Object for ClusterNode {
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

impl ClusterNode {
    /// Why its kubelet starts nothing; `None` where it is ready.
    pub(super) fn not_ready(&self) -> Option<String> {
        let ready = self
            .status
            .conditions
            .iter()
            .find(|one| one.r#type == "Ready")?;
        let is_ready = ready.status == "True";
        (!is_ready).then(|| format!("the node is not ready: {} {}", ready.reason, ready.message))
    }

    /// Why a DaemonSet makes no pod here.
    pub(super) fn why_no_pod(&self, spec: &DaemonSetSpec) -> Option<String> {
        let system = self
            .metadata
            .labels
            .get("kubernetes.io/os")
            .map(String::as_str);
        if system.is_some_and(|system| system != "linux") {
            return Some("no pod here: it does not run Linux".into());
        }
        if !spec
            .nodes
            .chooses(&self.metadata.name, &self.metadata.labels)
        {
            return Some("no pod here: the DaemonSet's node selector leaves it out".into());
        }
        let is_refused = |taint: &&Taint| {
            taint.effect != "PreferNoSchedule"
                && !spec.tolerations.is_empty()
                && !TOLERATED.contains(&taint.key.as_str())
                && !spec.tolerations.iter().any(|one| one.tolerates(taint))
        };
        let taint = self.spec.taints.iter().find(is_refused)?;
        let equals = if taint.value.is_empty() { "" } else { "=" };
        let text = format!("{}{equals}{}:{}", taint.key, taint.value, taint.effect);
        Some(format!(
            "no pod here: its taint {text} is not tolerated (--toleration {text})"
        ))
    }
}

/// The part of an apps/v1 `DaemonSet` that is read.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct DaemonSet {
    pub(super) metadata: Metadata,
    spec: Value,
    status: Scheduled,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Scheduled {
    observed_generation: i64,
    desired_number_scheduled: i64,
    current_number_scheduled: i64,
    updated_number_scheduled: i64,
}

impl Object for DaemonSet {
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

impl DaemonSet {
    /// Whether the controller has made every pod that it wants.
    pub(super) fn is_scheduled(&self) -> bool {
        let status = &self.status;
        status.observed_generation >= self.metadata.generation
            && status.current_number_scheduled >= status.desired_number_scheduled
            && status.updated_number_scheduled >= status.desired_number_scheduled
    }

    /// The label that its present pods have.
    pub(super) fn template(&self) -> Option<&str> {
        let labels = self.spec.pointer("/template/metadata/labels")?;
        labels[TEMPLATE_LABEL].as_str()
    }

    /// What it was rendered from, as far as that shows. `None` where prepull did not render it.
    pub(super) fn rendered_from(&self, name: &str, namespace: &str) -> Option<DaemonSetSpec> {
        self.template()?;
        let pod = self.spec.pointer("/template/spec")?;
        let text = |value: &Value| value.as_str().map(str::to_string);
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let mode = match pod["initContainers"].is_array() {
            true => PodMode::NoOp,
            false => PodMode::ImageVolume,
        };
        let is_image = |object: &&Value| {
            object["name"]
                .as_str()
                .is_some_and(|name| name.starts_with(IMAGE))
        };
        let reference = |object: &Value| match mode {
            PodMode::ImageVolume => text(&object["image"]["reference"]),
            PodMode::NoOp | PodMode::Auto => text(&object["image"]),
        };
        let holders = match mode {
            PodMode::ImageVolume => list(&pod["volumes"]),
            PodMode::NoOp | PodMode::Auto => list(&pod["containers"]),
        };
        let images: Option<Vec<Image>> = holders
            .iter()
            .filter(is_image)
            .map(|object| reference(object)?.parse().ok())
            .collect();
        let tolerations = list(&pod["tolerations"])
            .iter()
            .map(|one| {
                Some(Toleration {
                    key: text(&one["key"])?,
                    value: text(&one["value"]),
                    effect: text(&one["effect"]),
                })
            })
            .collect::<Option<Vec<_>>>();
        let terms = pod.pointer("/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms");
        let terms = terms.map(list).unwrap_or_default();
        let names: Vec<String> = terms
            .iter()
            .filter_map(|term| text(&term["matchFields"][0]["values"][0]))
            .collect();
        let labels = terms
            .iter()
            .flat_map(|term| list(&term["matchExpressions"]));
        Some(DaemonSetSpec {
            name: name.to_string(),
            namespace: namespace.to_string(),
            images: images?,
            always_pull: false,
            mode,
            no_op_image: String::new(),
            pause_image: String::new(),
            // A toleration without a key is for every taint.
            tolerations: tolerations.unwrap_or_default(),
            pull_secrets: Vec::new(),
            priority_class: None,
            nodes: NodeChoice {
                labels: labels.filter_map(|one| requirement(&one)).collect(),
                names: (!names.is_empty()).then_some(names),
            },
        })
    }
}

fn requirement(one: &Value) -> Option<LabelRequirement> {
    let operators = [
        LabelOperator::In,
        LabelOperator::NotIn,
        LabelOperator::Exists,
        LabelOperator::DoesNotExist,
    ];
    let operator = operators
        .into_iter()
        .find(|operator| one["operator"] == operator.as_str())?;
    let values = one["values"].as_array().into_iter().flatten();
    Some(LabelRequirement {
        key: one["key"].as_str()?.to_string(),
        operator,
        values: values
            .filter_map(|value| value.as_str().map(str::to_string))
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::objects::daemonset;
    use super::super::sample::spec;
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_rendered_is_read_back() {
        for mode in [PodMode::NoOp, PodMode::ImageVolume] {
            for names in [None, Some(vec!["a".to_string(), "b".to_string()])] {
                let mut spec = spec(mode);
                spec.tolerations = vec![
                    Toleration::parse("a=b:NoSchedule").unwrap(),
                    Toleration::parse("c").unwrap(),
                ];
                let labels = LabelRequirement::parse_all("pool=gpu,!old,zone in (a,b)").unwrap();
                spec.nodes = match names {
                    Some(names) => NodeChoice {
                        labels: Vec::new(),
                        names: Some(names),
                    },
                    None => NodeChoice {
                        labels,
                        names: None,
                    },
                };
                let object: DaemonSet = serde_json::from_value(daemonset(&spec)).unwrap();
                let read = object.rendered_from("images", "warm").unwrap();
                assert_eq!(
                    (read.images, read.mode, read.tolerations, read.nodes),
                    (spec.images, spec.mode, spec.tolerations, spec.nodes)
                );
            }
        }
        let foreign =
            json!({"metadata": {"name": "x"}, "spec": {"template": {"spec": {"containers": []}}}});
        let foreign: DaemonSet = serde_json::from_value(foreign).unwrap();
        assert!(foreign.rendered_from("x", "y").is_none());
    }

    #[test]
    fn a_node_without_a_pod_says_why() {
        let node = |labels: Value, taints: Value| -> ClusterNode {
            let object =
                json!({"metadata": {"name": "n", "labels": labels}, "spec": {"taints": taints}});
            serde_json::from_value(object).unwrap()
        };
        let mut spec = spec(PodMode::NoOp);
        let gpu = json!([{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]);
        assert_eq!(
            node(json!({}), gpu.clone()).why_no_pod(&spec),
            None,
            "all are tolerated"
        );
        spec.tolerations = vec![Toleration::parse("other").unwrap()];
        let said = node(json!({}), gpu).why_no_pod(&spec).unwrap();
        assert!(said.contains("gpu=yes:NoSchedule"), "{said}");
        let cordoned = json!([{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]);
        assert_eq!(node(json!({}), cordoned).why_no_pod(&spec), None);
        let windows = node(json!({"kubernetes.io/os": "windows"}), json!([]));
        assert!(windows.why_no_pod(&spec).unwrap().contains("Linux"));
        spec.nodes.labels = LabelRequirement::parse_all("pool=gpu,tier!=edge").unwrap();
        assert_eq!(
            node(json!({"pool": "gpu"}), json!([])).why_no_pod(&spec),
            None
        );
        for labels in [
            json!({}),
            json!({"pool": "cpu"}),
            json!({"pool": "gpu", "tier": "edge"}),
        ] {
            let said = node(labels, json!([])).why_no_pod(&spec).unwrap();
            assert!(said.contains("selector"), "{said}");
        }
    }
}
