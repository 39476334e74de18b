//! Resources: what they are called, and what the table says of their fields.

use super::super::yaml::Tree;
use super::kinds::{self, Meaning, Rule};
use super::parts::{entry, text};

/// A resource, and how it is read.
pub(super) struct Object<'a> {
    /// `Deployment/web`.
    pub(super) shown: String,
    pub(super) kind: &'a str,
    pub(super) rules: Vec<&'static Rule>,
    pub(super) is_policy: bool,
    /// Whether it is an object of an OpenShift template.
    pub(super) in_template: bool,
    pub(super) root: &'a Tree,
}

impl Object<'_> {
    /// What stands around all resources.
    pub(super) fn outside(root: &Tree) -> Object<'_> {
        Object {
            shown: String::new(),
            kind: "",
            rules: Vec::new(),
            is_policy: false,
            in_template: false,
            root,
        }
    }

    pub(super) fn is_ignored(&self) -> bool {
        let mut rules = self.rules.iter();
        rules.any(|rule| rule.meaning == Meaning::Ignored && rule.is_whole())
    }

    pub(super) fn ignores(&self, path: &[&str]) -> bool {
        let mut rules = self.rules.iter();
        rules.any(|rule| rule.meaning == Meaning::Ignored && rule.covers(path))
    }

    /// What the table says of a field; most of its lines say that an image stands there.
    pub(super) fn rule(&self, path: &[&str]) -> Option<&'static Rule> {
        let mut about = self
            .rules
            .iter()
            .filter(|rule| !rule.is_whole() && rule.covers(path));
        let special = about.clone().find(|rule| rule.meaning != Meaning::Image);
        special.or_else(|| about.next()).copied()
    }

    pub(super) fn is_config_map(&self) -> bool {
        self.kind == "ConfigMap"
    }
}

/// The resource that a map is, if it is one.
pub(super) fn resource<'t>(tree: &'t Tree, outside: &Object<'t>) -> Option<Object<'t>> {
    let kind = text(entry(tree, "kind")?)?;
    let version = text(entry(tree, "apiVersion")?)?;
    let parts = [
        "metadata", "spec", "template", "data", "items", "objects", "image", "webhooks",
    ];
    let is_reference =
        !outside.kind.is_empty() && !parts.iter().any(|key| entry(tree, key).is_some());
    if is_reference {
        return None;
    }
    let name = entry(tree, "metadata").and_then(|metadata| {
        let name = entry(metadata, "name").or_else(|| entry(metadata, "generateName"));
        text(name?)
    });
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let rules = kinds::rules(group, kind);
    Some(Object {
        shown: name.map_or_else(|| kind.to_string(), |name| format!("{kind}/{name}")),
        kind,
        is_policy: rules.iter().any(|rule| rule.meaning == Meaning::Policy),
        in_template: outside.in_template
            || kind == "Template" && group == "template.openshift.io"
            || kind == "Template" && group.is_empty(),
        rules,
        root: tree,
    })
}

/// Whether a path leads into the values of a chart, which name parts of images, or images that a switch turns off.
pub(super) fn in_values(path: &[&str]) -> bool {
    path.iter()
        .any(|key| matches!(*key, "values" | "valuesObject" | "valuesInline"))
}
