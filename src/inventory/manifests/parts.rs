//! Images in parts: a repository and a tag in fields of their own, parameters with their values.

use super::super::yaml::{Tree, Value};
use super::Position;
use super::kinds::{Meaning, Rule};
use super::reference::{Reference, has_registry, is_explicit};
use crate::model::Image;

/// What an image's repository, its version and its digest are called where each has a field of its own.
pub(super) const REPOSITORIES: [&str; 3] = ["repository", "repo", "name"];
const VERSIONS: [&str; 3] = ["tag", "version", "versionTag"];
pub(super) const DIGESTS: [&str; 5] = ["digest", "hash", "digestHash", "sha256", "sha"];

/// An image whose parts stand in fields of their own, and where.
pub(super) fn composed(tree: &Tree) -> Option<(Position, String)> {
    let part = |keys: &[&str]| {
        let found = keys.iter().find_map(|key| entry(tree, key));
        found.and_then(|tree| Some((tree.place, text(tree).filter(|text| !text.is_empty())?)))
    };
    let (place, repository) = part(&REPOSITORIES)?;
    let mut whole = repository.trim_end_matches('/').to_string();
    // `{registry, repository, name, tag}`
    if let Some((_, name)) = part(&["name"]).filter(|_| entry(tree, "repository").is_some()) {
        whole = format!("{whole}/{name}");
    }
    if let Some((_, registry)) = part(&["registry"]) {
        whole = format!("{}/{whole}", registry.trim_end_matches('/'));
    }
    Some((
        place,
        with_version(
            whole,
            part(&VERSIONS).map(|(_, text)| text),
            part(&DIGESTS).map(|(_, text)| text),
        ),
    ))
}

/// Whether a map names an image of a machine or of another resource rather than one of a container: nothing but a name
/// without a registry and a version, or a name of a `kind`.
pub(super) fn is_of_machine(tree: &Tree) -> bool {
    let has = |keys: &[&str]| keys.iter().any(|key| entry(tree, key).is_some());
    let name = entry(tree, "name").and_then(text).unwrap_or_default();
    let is_bare = !has(&["repository", "repo", "registry", "tag", "versionTag"])
        && !has(&DIGESTS)
        && !has_registry(name);
    has(&["kind"]) || is_bare && !is_explicit(name)
}

/// A repository with the version that a line of the table finds for it, beside it or in `spec`.
pub(super) fn versioned(rule: &Rule, beside: &Tree, root: &Tree, whole: String) -> String {
    let Some(key) = rule.version.filter(|_| !whole.is_empty()) else {
        return whole;
    };
    let said = |tree: &Tree| {
        let version = entry(tree, key).and_then(text);
        version.filter(|text| !text.is_empty()).map(String::from)
    };
    let version = said(beside).or_else(|| said(entry(root, "spec")?));
    let version = version.map(|version| match rule.meaning {
        Meaning::K0s => k0s_tag(&version),
        _ => version,
    });
    with_version(whole, version.as_deref(), None)
}

/// The tag of a version, as `ClusterSpec.GetImage` of k0smotron makes it.
fn k0s_tag(version: &str) -> String {
    let tag = version.replacen("+k0s.", "-k0s.", 1);
    match tag.contains("-k0s.") {
        true => tag,
        false => format!("{tag}-k0s.0"),
    }
}

/// The field that may hold the version of the image beside it, and what it says.
pub(super) fn version_beside(beside: &Tree) -> Option<(&'static str, &str)> {
    let said = |key: &&'static str| {
        let version = entry(beside, key).and_then(text)?;
        (!version.is_empty()).then_some((*key, version))
    };
    VERSIONS.iter().find_map(said)
}

/// A repository in a field that is called one, with the version that the field beside it gives: `agentRepository` and
/// `agentVersion`.
pub(super) fn pair(beside: &Tree, key: &str, written: &str) -> Option<String> {
    let stem = ["Repository", "_repository"]
        .iter()
        .find_map(|end| key.strip_suffix(end));
    let is_of_image = stem.is_some_and(|stem| stem.to_ascii_lowercase().ends_with("image"));
    // NVIDIA's `{repository, image, version}` counts with its `image`.
    if stem.is_none() && (key != "repository" || entry(beside, "image").is_some())
        || !(is_of_image || written.contains('/'))
    {
        return None;
    }
    let said = |key: String| {
        entry(beside, &key)
            .and_then(text)
            .filter(|text| !text.is_empty())
    };
    let version = match stem {
        None => said("tag".into()).or_else(|| said("version".into())),
        Some(stem) => ["Tag", "Version", "_tag", "_version"]
            .iter()
            .find_map(|end| said(format!("{stem}{end}"))),
    };
    if version.is_none() && !(is_of_image && has_registry(written)) {
        return None;
    }
    Some(with_version(written.to_string(), version, None))
}

/// Whether a resource names a registry in a field of its own, which may come in front of its images.
pub(super) fn names_registry(tree: &Tree) -> bool {
    match &tree.value {
        Value::List(items) => items.iter().any(names_registry),
        Value::Map(entries) => entries.iter().any(|(key, value)| {
            let is_registry = matches!(
                key.text.as_str(),
                "registry" | "imageRegistry" | "image_registry" | "hub"
            );
            is_registry && text(value).is_some_and(|text| !text.is_empty()) || names_registry(value)
        }),
        Value::Null | Value::Text(_) | Value::Unfilled => false,
    }
}

/// The text of a field with what stands beside it: a repository in front, a tag, a version or a digest behind.
pub(super) fn joined(beside: &Tree, key: &str, written: &str, with_versions: bool) -> String {
    let said = |key: &str| {
        entry(beside, key)
            .and_then(text)
            .filter(|text| !text.is_empty())
    };
    let mut whole = written.to_string();
    let is_last = key == "image" && !written.is_empty() && !written.contains('/');
    if let Some(repository) = said("repository").filter(|_| is_last) {
        whole = format!("{}/{written}", repository.trim_end_matches('/'));
    }
    if written.is_empty() || is_explicit(&whole) {
        return whole;
    }
    let own = ["Tag", "_tag", "Version", "_version"].map(|end| format!("{key}{end}"));
    let own = own.iter().find_map(|key| said(key));
    let is_alone = with_versions && matches!(key, "image" | "baseImage");
    let version = own.or_else(|| {
        VERSIONS
            .iter()
            .find_map(|key| said(key))
            .filter(|_| is_alone)
    });
    let digest = DIGESTS
        .iter()
        .find_map(|key| said(key))
        .filter(|_| is_alone);
    with_version(whole, version, digest)
}

fn with_version(whole: String, version: Option<&str>, digest: Option<&str>) -> String {
    if is_explicit(&whole) {
        return whole;
    }
    match (version, digest) {
        (_, Some(digest)) if digest.contains(':') => format!("{whole}@{digest}"),
        (_, Some(digest)) => format!("{whole}@sha256:{digest}"),
        (Some(version), None) if version.contains(':') => format!("{whole}@{version}"),
        (Some(version), None) => format!("{whole}:{version}"),
        (None, None) => whole,
    }
}

/// What a text is once the parameters in it have the values that the resource itself gives them.
pub(super) fn resolved(text: &str, root: &Tree) -> Option<Image> {
    let mut whole = text.to_string();
    for _ in 0..8 {
        let (open, close) = if whole.contains("$(") {
            ("$(", ")")
        } else {
            ("{{", "}}")
        };
        let Some(start) = whole.find(open) else { break };
        let end = start + whole[start..].find(close)?;
        let inside = whole[start + open.len()..end].trim();
        let name = inside
            .rsplit(['.', '['])
            .next()?
            .trim_matches(['"', '\'', ']']);
        if !inside.contains("param") {
            return None;
        }
        let mut values = Vec::new();
        parameters(root, name, &mut values);
        values.sort_unstable();
        values.dedup();
        let [value] = values[..] else { return None };
        whole.replace_range(start..end + close.len(), value);
    }
    match Reference::of(&whole) {
        Reference::Image(image) => Some(image),
        _ => None,
    }
}

/// The values and defaults of the parameters with this name in a resource.
fn parameters<'t>(tree: &'t Tree, name: &str, values: &mut Vec<&'t str>) {
    match &tree.value {
        Value::List(items) => items.iter().for_each(|item| parameters(item, name, values)),
        Value::Map(entries) => {
            for (key, value) in entries {
                if let (Value::List(items), "params" | "parameters") =
                    (&value.value, key.text.as_str())
                {
                    let named = items
                        .iter()
                        .filter(|item| entry(item, "name").and_then(text) == Some(name));
                    let said = named.filter_map(|item| {
                        text(entry(item, "value").or_else(|| entry(item, "default"))?)
                    });
                    values.extend(said);
                }
                parameters(value, name, values);
            }
        }
        Value::Null | Value::Text(_) | Value::Unfilled => {}
    }
}

pub(super) fn entry<'a>(tree: &'a Tree, key: &str) -> Option<&'a Tree> {
    let Value::Map(entries) = &tree.value else {
        return None;
    };
    let found = entries.iter().find(|(known, _)| known.text == key);
    found.map(|(_, value)| value)
}

pub(super) fn text(tree: &Tree) -> Option<&str> {
    match &tree.value {
        Value::Text(text) => Some(text.as_str()),
        _ => None,
    }
}
