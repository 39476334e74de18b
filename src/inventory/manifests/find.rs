//! Looks through a document for images: the containers of pods wherever they stand, what the table says of custom
//! resources, and shapes that are plain without it.

use super::super::error::{InputError, InventoryError};
use super::super::yaml::{Key, Tree, Value};
use super::certainty::{
    Certainty, addressed, certainty, certainty_of_parts, is_called_image, parent,
};
use super::documents::{file_word, unrendered};
use super::kinds::{Meaning, Rule};
use super::loose;
use super::object::{Object, in_values, resource};
use super::parts::{composed, entry, joined, resolved, text, version_beside, versioned};
use super::reference::{Filler, Reference, is_explicit};
use super::{Found, Position};
use crate::model::Image;

/// The lists of containers in a pod's specification (core/v1 `PodSpec`).
const CONTAINERS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];
pub(super) struct Finder<'a> {
    pub(super) name: &'a str,
    /// Lines of the text before this document.
    pub(super) lines: u32,
    pub(super) found: &'a mut Found,
    /// The warning about a document that is not a Kubernetes object: there is one for all of it.
    pub(super) plain: Option<usize>,
}

pub(super) type Done = Result<(), InventoryError>;

impl<'a> Finder<'a> {
    /// Looks through a document.
    pub(super) fn document(&mut self, tree: &Tree) -> Done {
        let outside = Object::outside(tree);
        self.value(tree, &mut Vec::new(), None, &outside)
    }

    /// Looks through a value; `list` is the key of the list that it is an item of.
    fn value<'t>(
        &mut self,
        tree: &'t Tree,
        path: &mut Vec<&'t str>,
        list: Option<&str>,
        object: &Object<'t>,
    ) -> Done {
        match &tree.value {
            Value::List(items) => {
                let list = path.last().copied();
                for item in items {
                    if let Value::Text(text) = &item.value {
                        self.listed(item, text, path, object)?;
                    }
                    self.value(item, path, list, object)?;
                }
                Ok(())
            }
            Value::Map(entries) => match resource(tree, object) {
                Some(inner) if inner.is_ignored() => Ok(()),
                Some(inner) if inner.is_config_map() => {
                    self.leave_loose_out(loose::config_map(tree), &inner);
                    Ok(())
                }
                Some(inner) => self.map(tree, entries, &mut Vec::new(), None, &inner),
                None => self.map(tree, entries, path, list, object),
            },
            Value::Null | Value::Text(_) | Value::Unfilled => Ok(()),
        }
    }

    fn map<'t>(
        &mut self,
        tree: &'t Tree,
        entries: &'t [(Key, Tree)],
        path: &mut Vec<&'t str>,
        list: Option<&str>,
        object: &Object<'t>,
    ) -> Done {
        let is_top = path.is_empty() && !object.kind.is_empty();
        for (key, value) in entries {
            let key = key.text.as_str();
            if is_top && key == "metadata" {
                self.annotations(value, object)?;
            }
            if is_top && matches!(key, "metadata" | "status") {
                continue;
            }
            path.push(key);
            if object.is_policy {
                self.of_policy(key, value, list, object);
            } else if !object.ignores(path) {
                self.field(tree, key, value, path, list, object)?;
            }
            self.value(value, path, None, object)?;
            path.pop();
        }
        if !object.is_policy && !object.kind.is_empty() {
            self.leave_loose_out(loose::environment(tree, list), object);
        }
        Ok(())
    }

    /// A field that may name an image; `beside` is the map that it stands in.
    fn field<'t>(
        &mut self,
        beside: &'t Tree,
        key: &str,
        value: &'t Tree,
        path: &[&'t str],
        list: Option<&str>,
        object: &Object<'t>,
    ) -> Done {
        let is_pod = list.is_some_and(|list| CONTAINERS.contains(&list)) && key == "image";
        let rule = object.rule(path);
        // A volume of Ceph's block devices has an image that is none of a container.
        if parent(path) == "rbd" && rule.is_none() {
            return Ok(());
        }
        match &value.value {
            Value::Text(text) if is_pod => {
                self.reference(text, value.place, Certainty::Pod, path, object)
            }
            Value::Text(text) if rule.is_some_and(|rule| rule.meaning == Meaning::Address) => {
                match addressed(text, beside) {
                    Some((image, certainty)) => {
                        self.reference(image, value.place, certainty, path, object)
                    }
                    None => Ok(()),
                }
            }
            Value::Text(text) => self.text(beside, value.place, text, path, list, object),
            Value::Map(_) => {
                let volume = entry(value, "reference").filter(|_| key == "image");
                if let Some((tree, text)) = volume.and_then(|tree| Some((tree, text(tree)?))) {
                    let certainty = if list == Some("volumes") {
                        Certainty::Pod
                    } else {
                        Certainty::Known
                    };
                    return self.reference(text, tree.place, certainty, path, object);
                }
                match composed(value).filter(|_| is_called_image(key) || rule.is_some()) {
                    Some((place, whole)) => {
                        let whole = match rule {
                            Some(rule) => versioned(rule, value, object.root, whole),
                            None => whole,
                        };
                        match certainty_of_parts(value, &whole, path, rule, object) {
                            Some(Certainty::Known) if !is_explicit(&whole) => {
                                self.without_version(&whole, place, path, object)
                            }
                            Some(certainty) => {
                                self.reference(&whole, place, certainty, path, object)
                            }
                            None => Ok(()),
                        }
                    }
                    None => Ok(()),
                }
            }
            Value::List(_) | Value::Null | Value::Unfilled => Ok(()),
        }
    }

    /// A text that may be an image, together with what stands beside it.
    fn text<'t>(
        &mut self,
        beside: &'t Tree,
        place: Position,
        text: &'t str,
        path: &[&'t str],
        list: Option<&str>,
        object: &Object<'t>,
    ) -> Done {
        let key = path.last().copied().unwrap_or_default();
        let rule = object.rule(path);
        let with_versions =
            rule.is_none_or(|rule| rule.meaning != Meaning::Image && rule.version.is_none());
        let mut whole = joined(beside, key, text, with_versions);
        if let Some(rule) = rule {
            whole = versioned(rule, beside, object.root, whole);
        }
        let Some(certainty) = certainty(beside, &whole, path, list, rule, object) else {
            return self.unnamed(beside, place, text, path, list, object);
        };
        if certainty == Certainty::Known && !is_explicit(&whole) {
            if rule.is_some_and(Rule::is_versioned) {
                return self.without_version(&whole, place, path, object);
            }
            if let Some((key, version)) = version_beside(beside).filter(|_| rule.is_some()) {
                let why = format!("taken without {key} \"{version}\", which stands beside it");
                let shown = self.place(place, object);
                let field = path.join(".");
                self.found
                    .note(&shown, &format!("{field} \"{whole}\": {why}"));
            }
        }
        self.reference(&whole, place, certainty, path, object)
    }

    /// A text in a list: the table has lists of images.
    fn listed<'t>(
        &mut self,
        item: &Tree,
        text: &str,
        path: &[&'t str],
        object: &Object<'t>,
    ) -> Done {
        if object.is_policy || object.ignores(path) {
            return Ok(());
        }
        let key = path.last().copied().unwrap_or_default();
        // kustomize writes `NAME=IMAGE`.
        let image = text.rsplit('=').next().unwrap_or_default();
        match object.rule(path).map(|rule| rule.meaning) {
            Some(Meaning::Candidate) => {
                self.reference(image, item.place, Certainty::Loose, path, object)
            }
            Some(_) => self.reference(text, item.place, Certainty::Known, path, object),
            None if loose::is_image_key(key) && loose::is_likely(image) => {
                self.reference(image, item.place, Certainty::Loose, path, object)
            }
            None if !object.kind.is_empty() && loose::is_whole(text) => {
                self.reference(text, item.place, Certainty::Loose, path, object)
            }
            None => Ok(()),
        }
    }

    /// In a policy, only a container with a whole image in it may come into a pod.
    fn of_policy(&mut self, key: &str, value: &Tree, list: Option<&str>, object: &Object<'_>) {
        let text = text(value)
            .filter(|_| key == "image" && list.is_some_and(|list| CONTAINERS.contains(&list)));
        if let Some(Reference::Image(image)) = text.map(Reference::of) {
            let why = "left out, but this policy may put it into pods; name it too if it does";
            self.leave_out(
                value.place,
                object,
                &format!("\"{image}\""),
                why,
                Some(image.clone()),
            );
        }
    }

    /// Takes a text for what it is.
    pub(super) fn reference(
        &mut self,
        text: &str,
        place: Position,
        certainty: Certainty,
        path: &[&str],
        object: &Object<'_>,
    ) -> Done {
        let field = path.join(".");
        let is_sure = matches!(certainty, Certainty::Pod | Certainty::Known);
        let quoted = format!("{field} \"{text}\"");
        match Reference::of(text) {
            Reference::Image(image) => match certainty {
                Certainty::Pod | Certainty::Known => self.take(image, place, object),
                Certainty::Guess => {
                    let why = format!(
                        "taken for an image, but prepull does not know {} resources",
                        object.kind
                    );
                    let shown = self.place(place, object);
                    self.found.note(&shown, &format!("{quoted}: {why}"));
                    self.take(image, place, object);
                }
                Certainty::Loose => {
                    let why = if object.kind.is_empty() {
                        if let Some(warning) =
                            self.plain.and_then(|at| self.found.warnings.get_mut(at))
                        {
                            warning.more += 1;
                            return Ok(());
                        }
                        self.plain = Some(self.found.warnings.len());
                        "left out, for this is not a Kubernetes object (no apiVersion and kind); of a chart's values, give what it renders to: helm template CHART | prepull images -f -"
                    } else if in_values(path) {
                        loose::OF_VALUES
                    } else {
                        "looks like an image and is left out; name it too if nodes pull it"
                    };
                    self.leave_out(place, object, &quoted, why, Some(image));
                }
            },
            Reference::Late(_) if text.trim().is_empty() && certainty != Certainty::Pod => {}
            Reference::Late(why) => match resolved(text, object.root) {
                Some(image) if is_sure => self.take(image, place, object),
                _ if certainty == Certainty::Loose => {}
                _ => self.leave_out(place, object, &quoted, &format!("left out: {why}"), None),
            },
            Reference::Template if certainty != Certainty::Loose => {
                return Err(unrendered(self.name, self.line(place), place.column));
            }
            Reference::Placeholder(..) if self.is_late_variable(text, object) => {
                self.leave_out(
                    place,
                    object,
                    &quoted,
                    "left out: each node has its own",
                    None,
                );
            }
            Reference::Placeholder(what, filler) if is_sure => {
                let command = filler.command(file_word(self.name), object.in_template);
                let what = match object.in_template && filler == Filler::Variables {
                    true => "it is a parameter of an OpenShift template",
                    false => what,
                };
                let fault = InputError::new(format!("\"{text}\" is not an image: {what}"));
                let fault = fault.with_hint(format!("give what is going to run: {command}"));
                return Err(self.error(place, fault));
            }
            Reference::Placeholder(what, _) => {
                if certainty == Certainty::Guess {
                    self.leave_out(place, object, &quoted, &format!("left out: {what}"), None);
                }
            }
            Reference::Pattern if certainty == Certainty::Pod => {
                let fault = InputError::new(format!("\"{text}\" is a pattern, not an image"));
                return Err(self.error(place, fault));
            }
            Reference::Other(error) if certainty == Certainty::Pod => {
                return Err(self.error(place, InputError::new(error.to_string())));
            }
            Reference::Other(_) if certainty == Certainty::Known => {
                self.leave_out(
                    place,
                    object,
                    &quoted,
                    "left out: it is not an image reference",
                    None,
                );
            }
            Reference::Template | Reference::Pattern | Reference::Other(_) => {}
        }
        Ok(())
    }

    /// The variables of the kernel module operator differ between nodes.
    fn is_late_variable(&self, text: &str, object: &Object<'_>) -> bool {
        object.kind == "Module" && text.contains("KERNEL_")
    }

    fn take(&mut self, image: Image, place: Position, object: &Object<'_>) {
        let place = self.place(place, object);
        self.found.take(image, place);
    }

    fn leave_loose_out(&mut self, found: Vec<loose::LeftOut>, object: &Object<'_>) {
        for loose::LeftOut { place, what, image } in found {
            self.leave_out(place, object, &what, loose::WHY, image);
        }
    }

    /// Warns of what is not taken for an image.
    pub(super) fn leave_out(
        &mut self,
        place: Position,
        object: &Object<'_>,
        what: &str,
        why: &str,
        image: Option<Image>,
    ) {
        let place = self.place(place, object);
        self.found
            .leave_out(&place, &format!("{what}: {why}"), image);
    }

    fn error(&self, place: Position, fault: InputError) -> InventoryError {
        let place = Position {
            line: self.line(place),
            ..place
        };
        InventoryError::at(self.name, place, fault)
    }

    fn line(&self, place: Position) -> u32 {
        place.line.saturating_add(self.lines)
    }

    pub(super) fn place(&self, place: Position, object: &Object<'_>) -> String {
        let line = self.line(place);
        let place = format!("{}:{line}:{} {}", self.name, place.column, object.shown);
        place.trim_end().to_string()
    }
}
