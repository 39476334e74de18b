//! The images that Kubernetes manifests name: files, folders of them, and what `helm template` or `kustomize build`
//! print.
//!
//! Containers of pods count wherever they stand: in every kind of workload, in Lists, in custom resources that embed
//! them. Of custom resources that name images in other ways there is a table (`kinds.tsv`). What looks like an image
//! and is not understood is a warning.

mod candidates;
mod certainty;
mod documents;
mod find;
mod folders;
mod kinds;
mod loose;
mod object;
mod parts;
mod reference;

use std::path::PathBuf;

use super::error::{InputError, InventoryError, Position};
use super::{read, sources};
use crate::model::Image;

const STACK: usize = 64 << 20;

/// An image and the places that name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedImage {
    /// The image.
    pub image: Image,
    /// `FILE:LINE:COLUMN KIND/NAME`, in the order in which they were found.
    pub places: Vec<String>,
}

/// What manifests name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ManifestImages {
    /// The images, each once, in the order in which they were found.
    pub images: Vec<NamedImage>,
    /// What looks like an image and was left out, or taken without knowing: `FILE:LINE:COLUMN KIND/NAME: WHAT: WHY`.
    pub warnings: Vec<String>,
}

/// What has been found so far.
#[derive(Debug, Default)]
struct Found {
    images: Vec<NamedImage>,
    warnings: Vec<Warning>,
}

#[derive(Debug)]
struct Warning {
    text: String,
    /// Whether something was left out.
    left_out: bool,
    /// The image that was: the warning is void if another place names it for certain.
    image: Option<Image>,
    /// How much else in the same document this stands for.
    more: usize,
}

impl Warning {
    fn shown(self) -> String {
        match self.more {
            0 => self.text,
            more => format!("{} ({more} more like it here)", self.text),
        }
    }
}

impl Found {
    fn take(&mut self, image: Image, place: String) {
        match self.images.iter_mut().find(|named| named.image == image) {
            Some(named) => named.places.push(place),
            None => {
                let places = vec![place];
                self.images.push(NamedImage { image, places });
            }
        }
    }

    fn note(&mut self, place: &str, what: &str) {
        self.warnings.push(Warning {
            text: format!("{place}: {what}"),
            left_out: false,
            image: None,
            more: 0,
        });
    }

    fn leave_out(&mut self, place: &str, what: &str, image: Option<Image>) {
        self.warnings.push(Warning {
            text: format!("{place}: {what}"),
            left_out: true,
            image,
            more: 0,
        });
    }

    fn finished(self) -> ManifestImages {
        let Self { images, warnings } = self;
        let is_taken = |image: &Image| images.iter().any(|named| named.image == *image);
        let left = warnings.into_iter();
        let left = left.filter(|warning| !warning.image.as_ref().is_some_and(is_taken));
        let mut warnings: Vec<String> = left.map(Warning::shown).collect();
        warnings.dedup();
        ManifestImages { images, warnings }
    }
}

/// The images that manifests name. `-` is standard input.
///
/// # Errors
/// A file that cannot be read or is not YAML, a name that is not an image, a template that was never rendered, a folder
/// that a program has to render; and when there is nothing that looks like an image at all.
pub fn images(paths: &[PathBuf]) -> Result<ManifestImages, InventoryError> {
    let mut found = Found::default();
    for path in paths {
        if path.as_os_str() == "-" {
            one(&read::stdin(sources::STDIN)?, sources::STDIN, &mut found)?;
        } else {
            folders::each(path, 0, &mut found)?;
        }
    }
    let says_why = found.warnings.iter().any(|warning| warning.left_out);
    let says_nothing = found.images.is_empty() && !says_why;
    let found = found.finished();
    if says_nothing {
        return Err(nothing(paths, &found.warnings));
    }
    Ok(found)
}

fn nothing(paths: &[PathBuf], warnings: &[String]) -> InventoryError {
    let names: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let names = names.join(", ");
    let hint = match warnings {
        [] => "manifests name them under containers, initContainers and ephemeralContainers, and custom resources under \
            fields of their own"
            .to_string(),
        // The error names the only file already.
        [first] => {
            let what = first.strip_prefix(&format!("{names}: "));
            what.unwrap_or(first).to_string()
        }
        [first, rest @ ..] => format!("{first}; and {} more", rest.len()),
    };
    InventoryError::of_file(
        names,
        InputError::new("no image is named here").with_hint(hint),
    )
}

/// The images in one text of manifests, which errors call `name`; none is not an error here.
///
/// # Errors
/// As for [`images`], but for files.
pub fn images_in(text: &str, name: &str) -> Result<ManifestImages, InventoryError> {
    let mut found = Found::default();
    one(text, name, &mut found)?;
    Ok(found.finished())
}

/// Reads the documents of one text, which errors call `name`.
fn one(text: &str, name: &str, found: &mut Found) -> Result<(), InventoryError> {
    if !documents::says_something(text) {
        found.note(name, "this is empty, or holds nothing but comments");
        return Ok(());
    }
    let lost = || InventoryError::of_file(name, InputError::new("reading it failed unexpectedly"));
    std::thread::scope(|scope| {
        let reader = std::thread::Builder::new()
            .stack_size(STACK)
            .spawn_scoped(scope, || {
                documents::each_document(text, name, |tree, lines| {
                    find::Finder {
                        name,
                        lines,
                        found,
                        plain: None,
                    }
                    .document(tree)
                })
            })
            .map_err(|_| lost())?;
        reader.join().unwrap_or_else(|_| Err(lost()))
    })
}

#[cfg(test)]
mod tests;
