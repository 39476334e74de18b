//! Pull secrets from the Kubernetes API, with the same kubeconfig as its nodes. What is in one is for the credentials
//! room.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::super::error::{InputError, InventoryError};
use super::client::{Api, Refusal};
use super::{KubernetesQuery, ask};
use crate::model::Secret;

/// The part of a core/v1 `Secret` that is read.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    data: BTreeMap<String, String>,
}

/// The keys of `kubernetes.io/dockerconfigjson`, and of the old form, `kubernetes.io/dockercfg`.
const KEYS: [(&str, bool); 2] = [(".dockerconfigjson", false), (".dockercfg", true)];

/// What is in the pull secret `[NAMESPACE/]NAME`, and whether it is of the old form. Without a namespace, that of the
/// context is meant.
///
/// # Errors
/// What keeps it from us, and what the operator can do about it.
pub fn pull_secret(query: &KubernetesQuery, given: &str) -> Result<(Secret, bool), InventoryError> {
    ask(query, async |api| {
        let named = |fault| InventoryError::of_file(format!("pull secret {given}"), fault);
        read(api, given).await.map_err(named)
    })
}

async fn read(api: &Api, given: &str) -> Result<(Secret, bool), InputError> {
    let (namespace, name) = given.split_once('/').unwrap_or((&api.namespace, given));
    // They become part of a path.
    let is_name = |text: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
        !text.is_empty() && !text.starts_with('.') && text.bytes().all(is_plain)
    };
    if !is_name(namespace) || !is_name(name) {
        return Err(InputError::new(
            "write [NAMESPACE/]NAME, as kubectl shows them",
        ));
    }
    let mut answer: Answer = api
        .get(&format!("/api/v1/namespaces/{namespace}/secrets/{name}"))
        .await
        .map_err(|refusal| refused(refusal, &api.url(), namespace, name))?;
    let found = KEYS
        .iter()
        .find_map(|(key, is_bare)| Some((Zeroizing::new(answer.data.remove(*key)?), *is_bare)));
    let (text, is_bare) = found.ok_or_else(|| {
        InputError::new("it is no pull secret: it has neither .dockerconfigjson nor .dockercfg").with_hint(
            "`kubectl create secret docker-registry` makes one; its type is kubernetes.io/dockerconfigjson",
        )
    })?;
    let bytes = STANDARD
        .decode(text.as_bytes())
        .map_err(|_| InputError::new("what the API sent is not base64"))?;
    Ok((Secret::new(bytes), is_bare))
}

/// What a refusal means, and what helps.
fn refused(refusal: Refusal, url: &str, namespace: &str, name: &str) -> InputError {
    let (status, said) = match refusal {
        Refusal::Status(status, said) => (status, said),
        Refusal::InputError(fault) => return fault,
    };
    match status {
        401 => InputError::new(format!("the API at {url} does not accept these credentials (401): {said}"))
            .with_hint("log in again, or choose another context with --context"),
        403 => InputError::new(format!("the API at {url} does not let you read it (403): {said}")).with_hint(format!(
            "the RBAC rule that is missing: apiGroups [\"\"], resources [\"secrets\"], resourceNames [\"{name}\"], verbs [\"get\"] in a \
             Role of the namespace {namespace} that is bound to you"
        )),
        404 => InputError::new(format!("there is no such secret in the namespace {namespace} of {url}")).with_hint(format!(
            "`kubectl get secrets -n {namespace}` lists them; write NAMESPACE/NAME for another namespace"
        )),
        code => InputError::new(format!("the API at {url} answered with status {code}: {said}")),
    }
}
