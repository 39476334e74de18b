//! Makes the DaemonSet, and takes it away.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;

use super::cluster::DaemonSet;
use super::objects::{self, MANAGER};
use super::rules;
use super::session::{Object as _, Session};
use crate::inventory::{Change, InputError, Refusal};
use crate::model::{DaemonSetSpec, Fleet, Node, PodMode};

/// The first minor version in which image volumes are on by default, in API servers and in kubelets
/// (`pkg/features/kube_features.go`, `ImageVolume`).
const ON_BY_DEFAULT: u32 = 35;
/// The first in which they are beta, and can be switched on.
const BETA: u32 = 33;
/// The first versions of runtimes that mount them.
const RUNTIMES: [(&str, (u32, u32)); 2] = [("containerd", (2, 1)), ("cri-o", (1, 33))];

/// Checks that prepull may do what it needs to.
///
/// # Errors
/// The rules that are missing.
pub async fn check_access(
    session: &Session,
    spec: &DaemonSetSpec,
    creates_namespace: bool,
) -> Result<(), InputError> {
    let missing = rules::missing(&session.api(), &spec.namespace, creates_namespace).await;
    let missing = missing.map_err(|refusal| refused(refusal, "ask what you may do"))?;
    if missing.is_empty() {
        return Ok(());
    }
    let what = format!("the API does not let you {}", missing.join("; "));
    Err(InputError::new(what).with_hint(
        "`prepull daemonset render --rbac` prints the roles that are needed; a pull over SSH (prepull pull --kube) needs \
         none of them but to list nodes",
    ))
}

/// Creates the namespace, if it is not there.
///
/// # Errors
/// What the API answered.
pub async fn create_namespace(session: &Session, spec: &DaemonSetSpec) -> Result<(), InputError> {
    let path = format!("/api/v1/namespaces?fieldManager={MANAGER}");
    let body = objects::namespace(spec);
    match session
        .change::<IgnoredAny>(Change::Create, &path, &body)
        .await
    {
        Ok(_) | Err(Refusal::Status(409, _)) => Ok(()),
        Err(refusal) => Err(refused(
            refusal,
            &format!("create the namespace {}", spec.namespace),
        )),
    }
}

fn path(spec: &DaemonSetSpec) -> String {
    format!(
        "/apis/apps/v1/namespaces/{}/daemonsets/{}",
        spec.namespace, spec.name
    )
}

/// The DaemonSet as it is; `None` where there is none.
async fn find(session: &Session, spec: &DaemonSetSpec) -> Result<Option<DaemonSet>, InputError> {
    match session.get::<DaemonSet>(&path(spec)).await {
        Ok(found) => Ok(Some(found)),
        Err(Refusal::Status(404, _)) => Ok(None),
        Err(refusal) => Err(refused(refusal, &format!("read {}", named(spec)))),
    }
}

/// What prepull did not make, it does not change.
fn is_ours(found: &DaemonSet, spec: &DaemonSetSpec) -> Result<(), InputError> {
    let manager = found.metadata().labels.get("app.kubernetes.io/managed-by");
    if manager.is_some_and(|manager| manager == MANAGER) {
        return Ok(());
    }
    let what = format!(
        "{} is not prepull's: it has no label app.kubernetes.io/managed-by=prepull",
        named(spec)
    );
    Err(InputError::new(what)
        .with_hint("choose another name with --name, or another namespace with -n"))
}

fn named(spec: &DaemonSetSpec) -> String {
    format!(
        "the DaemonSet {} in the namespace {}",
        spec.name, spec.namespace
    )
}

async fn patch(session: &Session, spec: &DaemonSetSpec, query: &str) -> Result<DaemonSet, Refusal> {
    let path = format!("{}?fieldManager={MANAGER}{query}", path(spec));
    let body = objects::daemonset(spec);
    session.change(Change::Apply, &path, &body).await
}

/// Creates it, or makes one of an earlier time like this. The mode has to be known.
///
/// # Errors
/// What the API answered, or that there is a DaemonSet of this name that is not prepull's.
pub async fn apply(session: &Session, spec: &DaemonSetSpec) -> Result<(), InputError> {
    if let Some(found) = find(session, spec).await? {
        is_ours(&found, spec)?;
    }
    match patch(session, spec, "").await {
        Ok(_) => Ok(()),
        Err(refusal) => Err(refused(refusal, &format!("apply {}", named(spec)))),
    }
}

/// Deletes it; its pods follow by themselves. False where there was none.
///
/// # Errors
/// What the API answered, or that the DaemonSet of this name is not prepull's.
pub async fn remove(session: &Session, spec: &DaemonSetSpec) -> Result<bool, InputError> {
    let Some(found) = find(session, spec).await? else {
        return Ok(false);
    };
    is_ours(&found, spec)?;
    let options = json!({
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "propagationPolicy": "Background",
        "preconditions": {"uid": found.metadata().uid},
    });
    match session
        .change::<IgnoredAny>(Change::Delete, &path(spec), &options)
        .await
    {
        Ok(_) | Err(Refusal::Status(404, _)) => Ok(true),
        Err(refusal) => Err(refused(refusal, &format!("delete {}", named(spec)))),
    }
}

/// What a DaemonSet that is there was rendered from.
///
/// # Errors
/// What the API answered, or that there is none, or none of prepull's.
pub async fn read(session: &Session, spec: &DaemonSetSpec) -> Result<DaemonSetSpec, InputError> {
    let Some(found) = find(session, spec).await? else {
        let what = format!("there is no {}", named(spec).trim_start_matches("the "));
        return Err(InputError::new(what).with_hint(
            "`prepull daemonset apply` creates one; -n and --name say which one is meant",
        ));
    };
    is_ours(&found, spec)?;
    let read = found.rendered_from(&spec.name, &spec.namespace);
    read.ok_or_else(|| {
        InputError::new(format!(
            "{} has no pods that prepull could have rendered",
            named(spec)
        ))
    })
}

/// The label of the pods that the DaemonSet makes now.
pub(super) async fn template(
    session: &Session,
    spec: &DaemonSetSpec,
) -> Result<String, InputError> {
    let found = find(session, spec).await?;
    let template = found
        .as_ref()
        .and_then(|found| found.template())
        .map(str::to_string);
    template.ok_or_else(|| InputError::new(format!("{} is gone", named(spec))))
}

#[derive(Deserialize)]
struct Version {
    #[serde(default)]
    minor: String,
}

/// The mode for these nodes: image volumes where the API server takes them and every node has a kubelet and a runtime
/// for them. The namespace has to be there.
///
/// # Errors
/// What the API answered.
pub async fn resolve_mode(
    session: &Session,
    spec: &DaemonSetSpec,
    fleet: &Fleet,
) -> Result<PodMode, InputError> {
    if spec.mode != PodMode::Auto {
        return Ok(spec.mode);
    }
    let version: Result<Version, Refusal> = session.get("/version").await;
    let server = version.ok().and_then(|version| number(&version.minor));
    let least = match server {
        None | Some(..BETA) => return Ok(PodMode::NoOp),
        // They were switched on by hand, in the kubelets as well.
        Some(BETA..ON_BY_DEFAULT) => BETA,
        Some(_) => ON_BY_DEFAULT,
    };
    if !fleet
        .nodes()
        .iter()
        .all(|node| has_image_volumes(node, least))
    {
        return Ok(PodMode::NoOp);
    }
    // An API server whose gate is off drops the field, and then misses the volume's type.
    let trial = DaemonSetSpec {
        mode: PodMode::ImageVolume,
        ..spec.clone()
    };
    match patch(session, &trial, "&dryRun=All&force=true").await {
        Ok(_) => Ok(PodMode::ImageVolume),
        Err(Refusal::Status(400 | 422 | 500, _)) => Ok(PodMode::NoOp),
        Err(refusal) => Err(refused(refusal, &format!("try {}", named(spec)))),
    }
}

/// The digits that a text begins with: `33+` is 33.
fn number(text: &str) -> Option<u32> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text[..end].parse().ok()
}

/// `v1.35.1` and `containerd://2.1.4`.
fn has_image_volumes(node: &Node, least: u32) -> bool {
    let fact = |name: &str| node.facts.get(name).map(String::as_str).unwrap_or_default();
    let pair = |version: &str| -> Option<(u32, u32)> {
        let (major, rest) = version.split_once('.')?;
        Some((number(major)?, number(rest)?))
    };
    let kubelet = fact("kubelet").strip_prefix('v').and_then(pair);
    let runtime = fact("runtime-version").split_once("://");
    let has_runtime = runtime.is_some_and(|(name, version)| {
        let known = RUNTIMES.iter().find(|(known, _)| *known == name);
        known.is_some_and(|(_, first)| pair(version).is_some_and(|version| version >= *first))
    });
    has_runtime && kubelet.is_some_and(|version| version >= (1, least))
}

/// What a refusal means, and what helps.
pub(super) fn refused(refusal: Refusal, what: &str) -> InputError {
    let (status, said) = match refusal {
        Refusal::Status(status, said) => (status, said),
        Refusal::InputError(fault) => return fault,
    };
    let error = InputError::new(format!("cannot {what}: the API answered {status}: {said}"));
    match status {
        401 => error.with_hint(
            "the login has expired, and reading the kubeconfig again gave no better one: log in again (does `kubectl get nodes` \
             work?), or choose another context with --context",
        ),
        403 => error.with_hint(
            "`prepull daemonset render --rbac` prints the roles that are needed, unless a quota or an admission policy \
             refuses, which the message would say; a pull over SSH needs none of this",
        ),
        404 => error.with_hint(
            "create the namespace with --create-namespace or `kubectl create namespace`, or name another one with -n",
        ),
        409 => error.with_hint("something else manages it; remove it first, or choose another name with --name"),
        422 => error.with_hint("the API takes this object in no form; correct what the message names"),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_volumes_need_a_kubelet_and_a_runtime_for_them() {
        let node = |kubelet: &str, runtime: &str| {
            let mut node = Node::named("n");
            node.facts.insert("kubelet".into(), kubelet.into());
            node.facts.insert("runtime-version".into(), runtime.into());
            node
        };
        for (kubelet, runtime, has) in [
            ("v1.35.1", "containerd://2.1.4", true),
            ("v1.36.0+k3s1", "containerd://2.1.4-k3s1", true),
            ("v1.35.0-eks-1", "cri-o://1.35.0", true),
            ("v1.34.2", "containerd://2.1.4", false),
            ("v1.35.1", "containerd://2.0.5", false),
            ("v1.35.1", "docker://28.0.1", false),
            ("", "", false),
        ] {
            assert_eq!(
                has_image_volumes(&node(kubelet, runtime), 35),
                has,
                "{kubelet} {runtime}"
            );
        }
        assert!(has_image_volumes(
            &node("v1.33.2", "containerd://2.1.0"),
            33
        ));
        assert_eq!((number("33+"), number("x")), (Some(33), None));
    }
}
