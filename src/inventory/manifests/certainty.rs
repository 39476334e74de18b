//! How sure it is that a field names an image that nodes pull.

use super::super::yaml::Tree;
use super::kinds::{Meaning, Rule};
use super::loose;
use super::object::{Object, in_values};
use super::parts::{
    DIGESTS, REPOSITORIES, composed, entry, is_of_machine, names_registry, pair, text,
};
use super::reference::{has_registry, is_explicit};

/// What stands in a container, and beside hardly any other image.
const OF_CONTAINERS: [&str; 15] = [
    "args",
    "command",
    "env",
    "envFrom",
    "imagePullPolicy",
    "lifecycle",
    "livenessProbe",
    "ports",
    "pullPolicy",
    "readinessProbe",
    "resources",
    "script",
    "startupProbe",
    "volumeMounts",
    "workingDir",
];

/// How sure it is that a field names an image that nodes pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Certainty {
    /// A container of a pod.
    Pod,
    /// The table or a shape says so.
    Known,
    /// It is called `image`, in a resource that the table does not have.
    Guess,
    /// It may be one.
    Loose,
}

/// The image that an address names. KServe has a node pull what stands behind `oci://`; the importer of KubeVirt pulls
/// what stands behind `docker://` itself, unless `pullMethod` says `node`.
pub(super) fn addressed<'t>(address: &'t str, beside: &Tree) -> Option<(&'t str, Certainty)> {
    if let Some(image) = address.strip_prefix("oci://") {
        return Some((image, Certainty::Known));
    }
    let image = address.strip_prefix("docker://")?;
    let is_of_node = entry(beside, "pullMethod").and_then(text) == Some("node");
    Some(match is_of_node {
        true => (image, Certainty::Known),
        false => (image, Certainty::Loose),
    })
}

/// How sure it is that a field names an image that nodes pull; `None` where it does not look like one.
pub(super) fn certainty(
    beside: &Tree,
    whole: &str,
    path: &[&str],
    list: Option<&str>,
    rule: Option<&'static Rule>,
    object: &Object<'_>,
) -> Option<Certainty> {
    let [.., key] = path else { return None };
    match rule.map(|rule| rule.meaning) {
        Some(Meaning::Candidate) => return Some(Certainty::Loose),
        Some(_) if !in_values(path) => return Some(Certainty::Known),
        _ => {}
    }
    if !loose::is_image_key(key) || loose::is_of_another_sort(whole) {
        return None;
    }
    if object.kind.is_empty() || in_values(path) || *key != "image" {
        let is_likely = loose::is_likely(whole) || *key == "baseImage";
        return is_likely.then_some(Certainty::Loose);
    }
    let of_list = list
        .is_some_and(|list| list.ends_with("ontainers") || matches!(list, "sidecars" | "steps"));
    let of_map = parent(path) == "container" || parent(path).ends_with("Container");
    let has = |keys: &[&str]| keys.iter().any(|key| entry(beside, key).is_some());
    let is_joined = has(&DIGESTS) || has(&["tag", "repository"]);
    if of_list || of_map || has(&OF_CONTAINERS) || is_joined && has_registry(whole) {
        return Some(Certainty::Known);
    }
    Some(match is_explicit(whole) && !lacks_registry(whole, object) {
        true => Certainty::Guess,
        false => Certainty::Loose,
    })
}

/// The key of the map that a field stands in.
pub(super) fn parent<'a>(path: &[&'a str]) -> &'a str {
    match path {
        [.., parent, _] => parent,
        _ => "",
    }
}

/// How sure it is that a map of parts is an image that nodes pull; `None` where it is not one.
pub(super) fn certainty_of_parts(
    parts: &Tree,
    whole: &str,
    path: &[&str],
    rule: Option<&'static Rule>,
    object: &Object<'_>,
) -> Option<Certainty> {
    if object.kind.is_empty() || in_values(path) {
        return Some(Certainty::Loose);
    }
    if let Some(rule) = rule {
        return Some(match rule.meaning {
            Meaning::Candidate => Certainty::Loose,
            _ => Certainty::Known,
        });
    }
    if is_of_machine(parts) {
        return None;
    }
    let has_repository = ["repository", "repo"]
        .iter()
        .any(|key| entry(parts, key).is_some());
    let is_named_alone = !has_repository && !has_registry(whole);
    Some(match is_named_alone || lacks_registry(whole, object) {
        true => Certainty::Loose,
        false => Certainty::Known,
    })
}

/// Whether a registry may have to come in front of an image: it names none, and its resource does elsewhere.
fn lacks_registry(whole: &str, object: &Object<'_>) -> bool {
    !has_registry(whole) && names_registry(object.root)
}

/// Whether a map under this key is an image in parts.
pub(super) fn is_called_image(key: &str) -> bool {
    key == "image" || key.ends_with("Image") || key.ends_with("ImageSpec")
}

/// Whether a field is the repository of an image in parts, which counts with the map that it stands in.
pub(super) fn is_part(beside: &Tree, path: &[&str], object: &Object<'_>) -> bool {
    let [outer @ .., key] = path else {
        return false;
    };
    let is_called = is_called_image(parent(path)) || object.rule(outer).is_some();
    is_called && REPOSITORIES.contains(key) && composed(beside).is_some()
}

/// Whether nothing but the name of a field, or its shape, says that an image may stand there.
pub(super) fn candidate(
    beside: &Tree,
    text: &str,
    path: &[&str],
    object: &Object<'_>,
) -> Option<String> {
    let [.., key] = path else { return None };
    if object.kind.is_empty() || is_part(beside, path, object) {
        return None;
    }
    if loose::is_whole(text) {
        return Some(text.to_string());
    }
    let is_other = loose::is_of_another_sort(text) || loose::is_source(text);
    pair(beside, key, text).filter(|_| !is_other)
}
