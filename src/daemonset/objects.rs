//! The objects: the DaemonSet, its namespace, and the roles that prepull needs for it.

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::rules::{Scope, rules};
use crate::model::{DaemonSetSpec, LabelOperator, LabelRequirement, NodeChoice, PodMode};

/// The manager of fields for server-side apply, and the value of the label `app.kubernetes.io/managed-by`.
pub(super) const MANAGER: &str = "prepull";
/// The label of pods that says which template made them: those of an earlier one do not count.
pub(super) const TEMPLATE_LABEL: &str = "prepull/template";
/// The names of containers, and of image volumes, before the image's number.
pub(super) const IMAGE: &str = "image-";
/// The init container of [`PodMode::NoOp`].
pub(super) const INIT: &str = "no-op";
/// Where the static program is in every container: a folder that no image has.
const FOLDER: &str = "/.prepull";
/// The user of every container. `nobody` in most images, and no user of this number has to exist.
const USER: u32 = 65534;
/// How long the no-op sleeps: the most that 32 bits hold, 68 years.
const LONG: &str = "2147483647";

/// The namespace, with the strictest profile of Pod Security: these pods meet it.
pub fn namespace(spec: &DaemonSetSpec) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": spec.namespace,
            "labels": {
                "app.kubernetes.io/managed-by": MANAGER,
                "pod-security.kubernetes.io/enforce": "restricted",
            },
        },
    })
}

/// The DaemonSet. [`PodMode::Auto`] counts as no-op, which every cluster can run.
pub fn daemonset(spec: &DaemonSetSpec) -> Value {
    let labels = labels(spec);
    let pod = pod(spec);
    let template = template_hash(&pod);
    let mut pod_labels = labels.clone();
    pod_labels.insert(TEMPLATE_LABEL.into(), template.into());
    json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": spec.name, "namespace": spec.namespace, "labels": labels},
        "spec": {
            "revisionHistoryLimit": 0,
            "selector": {"matchLabels": selector_labels(spec)},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "100%"}},
            "template": {"metadata": {"labels": pod_labels}, "spec": pod},
        },
    })
}

/// What tells the pods of this template from those of others.
fn template_hash(pod: &Value) -> String {
    let digest = Sha256::digest(pod.to_string());
    digest[..6]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// What the pods of a DaemonSet are found by; it cannot be changed once it is there.
fn selector_labels(spec: &DaemonSetSpec) -> Map<String, Value> {
    let mut labels = Map::new();
    labels.insert(
        "app.kubernetes.io/instance".into(),
        spec.name.as_str().into(),
    );
    labels.insert("app.kubernetes.io/name".into(), "prepull".into());
    labels
}

fn labels(spec: &DaemonSetSpec) -> Map<String, Value> {
    let mut labels = selector_labels(spec);
    labels.insert("app.kubernetes.io/managed-by".into(), MANAGER.into());
    labels
}

fn pod(spec: &DaemonSetSpec) -> Value {
    let mut pod = json!({
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": USER,
            "runAsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        // The program that sleeps heeds no signal.
        "terminationGracePeriodSeconds": 1,
        "tolerations": tolerations(spec),
    });
    if let Some(affinity) = affinity(&spec.nodes) {
        pod["affinity"] = affinity;
    }
    if !spec.pull_secrets.is_empty() {
        let secrets = spec.pull_secrets.iter().map(|name| json!({"name": name}));
        pod["imagePullSecrets"] = secrets.collect();
    }
    if let Some(class) = &spec.priority_class {
        pod["priorityClassName"] = class.as_str().into();
    }
    match spec.mode {
        PodMode::ImageVolume => with_image_volumes(&mut pod, spec),
        PodMode::NoOp | PodMode::Auto => with_no_op(&mut pod, spec),
    }
    pod
}

fn with_image_volumes(pod: &mut Value, spec: &DaemonSetSpec) {
    let names = || (0..spec.images.len()).map(|number| format!("{IMAGE}{number}"));
    // One container an image: each says what became of its own volume.
    let containers = names().map(|name| {
        let mount = json!({"name": name, "mountPath": "/image", "readOnly": true});
        container(&name, &spec.pause_image, "IfNotPresent", mount)
    });
    pod["containers"] = containers.collect();
    let volumes = names().zip(&spec.images).map(|(name, image)| {
        json!({"name": name, "image": {"reference": image.exact(), "pullPolicy": policy(spec)}})
    });
    pod["volumes"] = volumes.collect();
}

fn with_no_op(pod: &mut Value, spec: &DaemonSetSpec) {
    let program = format!("{FOLDER}/busybox");
    let mount =
        |is_read_only: bool| json!({"name": INIT, "mountPath": FOLDER, "readOnly": is_read_only});
    let mut init = container(INIT, &spec.no_op_image, "IfNotPresent", mount(false));
    init["command"] = json!(["/bin/busybox", "cp", "/bin/busybox", program]);
    pod["initContainers"] = json!([init]);
    let containers = spec.images.iter().enumerate().map(|(number, image)| {
        let name = format!("{IMAGE}{number}");
        let mut own = container(&name, image.exact(), policy(spec), mount(true));
        own["command"] = json!([program, "sleep", LONG]);
        own
    });
    pod["containers"] = containers.collect();
    // In memory: the kubelet's disk may be mounted noexec.
    pod["volumes"] = json!([{"name": INIT, "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}}]);
}

fn policy(spec: &DaemonSetSpec) -> &'static str {
    match spec.always_pull {
        true => "Always",
        false => "IfNotPresent",
    }
}

fn container(name: &str, image: &str, policy: &str, mount: Value) -> Value {
    json!({
        "name": name,
        "image": image,
        "imagePullPolicy": policy,
        "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
        },
        "volumeMounts": [mount],
    })
}

fn tolerations(spec: &DaemonSetSpec) -> Value {
    if spec.tolerations.is_empty() {
        return json!([{"operator": "Exists"}]);
    }
    let tolerations = spec.tolerations.iter().map(|one| {
        let mut toleration = match &one.value {
            Some(value) => json!({"key": one.key, "operator": "Equal", "value": value}),
            None => json!({"key": one.key, "operator": "Exists"}),
        };
        if let Some(effect) = &one.effect {
            toleration["effect"] = effect.as_str().into();
        }
        toleration
    });
    tolerations.collect()
}

/// Terms are alternatives. A term may name one node only (`matchFields` takes one value), so that names make a term each.
fn affinity(nodes: &NodeChoice) -> Option<Value> {
    let labels: Vec<Value> = nodes.labels.iter().map(requirement).collect();
    let terms: Vec<Value> = match &nodes.names {
        Some(names) => {
            let term = |name: &String| {
                let field = json!({"key": "metadata.name", "operator": "In", "values": [name]});
                json!({"matchFields": [field]})
            };
            names.iter().map(term).collect()
        }
        None if labels.is_empty() => return None,
        None => vec![json!({"matchExpressions": labels})],
    };
    Some(json!({"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms},
    }}))
}

fn requirement(one: &LabelRequirement) -> Value {
    let mut requirement = json!({"key": one.key, "operator": one.operator.as_str()});
    if matches!(one.operator, LabelOperator::In | LabelOperator::NotIn) {
        requirement["values"] = json!(one.values);
    }
    requirement
}

/// The roles that prepull needs, with an account to bind them to.
pub fn rbac(spec: &DaemonSetSpec, creates_namespace: bool) -> Vec<Value> {
    let role_rules = |scope: Scope| -> Vec<Value> {
        rules(creates_namespace)
            .iter()
            .filter(|rule| rule.scope == scope)
            .map(|rule| {
                json!({"apiGroups": [rule.group], "resources": [rule.resource], "verbs": rule.verbs})
            })
            .collect()
    };
    let labels = labels(spec);
    let cluster = format!("{}-{}", spec.namespace, spec.name);
    let subjects =
        json!([{"kind": "ServiceAccount", "name": spec.name, "namespace": spec.namespace}]);
    let bound = |kind: &str, name: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name});
    let local = json!({"name": spec.name, "namespace": spec.namespace, "labels": labels});
    let global = json!({"name": cluster, "labels": labels});
    let group = "rbac.authorization.k8s.io/v1";
    vec![
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": local}),
        json!({"apiVersion": group, "kind": "ClusterRole", "metadata": global, "rules": role_rules(Scope::Cluster)}),
        json!({"apiVersion": group, "kind": "ClusterRoleBinding", "metadata": global,
            "roleRef": bound("ClusterRole", &cluster), "subjects": subjects}),
        json!({"apiVersion": group, "kind": "Role", "metadata": local, "rules": role_rules(Scope::Namespace)}),
        json!({"apiVersion": group, "kind": "RoleBinding", "metadata": local,
            "roleRef": bound("Role", &spec.name), "subjects": subjects}),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::sample::spec;
    use super::*;
    use crate::model::Toleration;

    /// Every container meets the restricted profile (Pod Security Standards): what it demands, one by one.
    #[test]
    fn pods_meet_the_restricted_profile() {
        for mode in [PodMode::NoOp, PodMode::ImageVolume] {
            let object = daemonset(&spec(mode));
            let pod = &object["spec"]["template"]["spec"];
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
            assert_eq!(
                pod["securityContext"]["seccompProfile"]["type"],
                "RuntimeDefault"
            );
            assert_ne!(pod["securityContext"]["runAsUser"], 0);
            for forbidden in ["hostNetwork", "hostPID", "hostIPC"] {
                assert!(pod.get(forbidden).is_none());
            }
            let lists = [&pod["initContainers"], &pod["containers"]];
            let containers: Vec<&Value> = lists
                .iter()
                .filter_map(|list| list.as_array())
                .flatten()
                .collect();
            assert_eq!(containers.len(), if mode == PodMode::NoOp { 3 } else { 2 });
            for container in containers {
                let context = &container["securityContext"];
                assert_eq!(context["allowPrivilegeEscalation"], false);
                assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}));
                assert!(container.get("ports").is_none());
            }
            for volume in pod["volumes"].as_array().unwrap() {
                assert!(volume.get("emptyDir").is_some() || volume.get("image").is_some());
            }
        }
    }

    #[test]
    fn the_selector_stays_and_the_template_label_follows_the_pods() {
        let template = |spec: &DaemonSetSpec| {
            daemonset(spec)["spec"]["template"]["metadata"]["labels"].clone()
        };
        let (one, mut two) = (spec(PodMode::NoOp), spec(PodMode::NoOp));
        assert_eq!(template(&one), template(&two));
        two.images.pop();
        assert_ne!(
            template(&one)[TEMPLATE_LABEL],
            template(&two)[TEMPLATE_LABEL]
        );
        assert_eq!(
            daemonset(&one)["spec"]["selector"],
            daemonset(&two)["spec"]["selector"]
        );
        let labels = template(&two);
        let selected = daemonset(&two)["spec"]["selector"]["matchLabels"].clone();
        for (key, value) in selected.as_object().unwrap() {
            assert_eq!(&labels[key], value);
        }
    }

    #[test]
    fn every_choice_reaches_the_pods() {
        let mut spec = spec(PodMode::NoOp);
        spec.always_pull = true;
        spec.tolerations = vec![
            Toleration::parse("gpu=yes:NoSchedule").unwrap(),
            Toleration::parse("edge").unwrap(),
        ];
        spec.pull_secrets = vec!["regcred".into()];
        spec.priority_class = Some("low".into());
        spec.nodes.labels = LabelRequirement::parse_all("pool=gpu,!old").unwrap();
        let object = daemonset(&spec);
        let pod = &object["spec"]["template"]["spec"];
        assert_eq!(pod["containers"][1]["imagePullPolicy"], "Always");
        assert_eq!(
            pod["containers"][1]["image"],
            "docker.io/library/nginx:latest"
        );
        assert_eq!(pod["initContainers"][0]["imagePullPolicy"], "IfNotPresent");
        assert_eq!(pod["imagePullSecrets"], json!([{"name": "regcred"}]));
        assert_eq!(pod["priorityClassName"], "low");
        let tolerations = json!([
            {"key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoSchedule"},
            {"key": "edge", "operator": "Exists"},
        ]);
        assert_eq!(pod["tolerations"], tolerations);
        let expressions = json!([
            {"key": "pool", "operator": "In", "values": ["gpu"]},
            {"key": "old", "operator": "DoesNotExist"},
        ]);
        let pointer = "/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
        assert_eq!(
            pod.pointer(pointer).unwrap(),
            &json!([{"matchExpressions": expressions}])
        );
        spec.nodes.names = Some(vec!["n1".into(), "n2".into()]);
        let object = daemonset(&spec);
        let terms = object["spec"]["template"]["spec"]
            .pointer(pointer)
            .unwrap()
            .as_array()
            .unwrap()
            .clone();
        assert_eq!(terms.len(), 2);
        assert_eq!(
            terms[1]["matchFields"],
            json!([{"key": "metadata.name", "operator": "In", "values": ["n2"]}])
        );
    }
}
