//! Images in parts: a repository and a tag in fields of their own, parameters with their values.

use super::super::yaml::{Tree, Value};
use super::Position;
use super::reference::{Reference, is_explicit};
use crate::model::Image;

/// What an image's repository, its version and its digest are called where each has a field of its own.
const REPOSITORIES: [&str; 3] = ["repository", "repo", "name"];
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
