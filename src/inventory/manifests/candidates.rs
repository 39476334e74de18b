//! What may be an image and is left out: texts in fields with other names, annotations, repositories without a version.

use super::super::yaml::{Tree, Value};
use super::Position;
use super::certainty::{Certainty, candidate};
use super::find::{Done, Finder};
use super::loose;
use super::object::Object;
use super::parts::{entry, text};
use super::reference::Reference;

impl Finder<'_> {
    /// A text in a field that is not called an image.
    pub(super) fn unnamed<'t>(
        &mut self,
        beside: &'t Tree,
        place: Position,
        text: &'t str,
        path: &[&'t str],
        list: Option<&str>,
        object: &Object<'t>,
    ) -> Done {
        let key = path.last().copied().unwrap_or_default();
        if matches!(key, "values" | "valuesContent") && !object.kind.is_empty() {
            if let Some((what, more)) = loose::chart_values(text) {
                let what = format!("{}, {what}", path.join("."));
                self.leave_out(place, object, &what, loose::OF_VALUES, None);
                if let Some(warning) = self.found.warnings.last_mut() {
                    warning.more = more;
                }
            }
            return Ok(());
        }
        // The environment is looked through with its names.
        if list == Some("env") {
            return Ok(());
        }
        match candidate(beside, text, path, object) {
            Some(whole) => self.reference(&whole, place, Certainty::Loose, path, object),
            None => Ok(()),
        }
    }

    /// The annotations of a resource, in which Istio and others have images.
    pub(super) fn annotations<'t>(&mut self, metadata: &'t Tree, object: &Object<'t>) -> Done {
        let annotations = entry(metadata, "annotations").map(|tree| &tree.value);
        let Some(Value::Map(entries)) = annotations.filter(|_| !object.is_policy) else {
            return Ok(());
        };
        for (key, value) in entries {
            if let Some(text) = text(value).filter(|text| loose::is_whole(text)) {
                let path = ["metadata", "annotations", key.text.as_str()];
                self.reference(text, value.place, Certainty::Loose, &path, object)?;
            }
        }
        Ok(())
    }

    /// A repository whose version stands nowhere: what runs is decided by the operator.
    pub(super) fn without_version(
        &mut self,
        text: &str,
        place: Position,
        path: &[&str],
        object: &Object<'_>,
    ) -> Done {
        if !matches!(Reference::of(text), Reference::Image(_)) {
            return self.reference(text, place, Certainty::Known, path, object);
        }
        let what = format!("{} \"{text}\"", path.join("."));
        let why = "left out, for it has no tag or digest and the operator chooses one; name the image that it runs too";
        self.leave_out(place, object, &what, why, None);
        Ok(())
    }
}
