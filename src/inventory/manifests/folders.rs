//! Folders of manifests, and those that are no such folder: what runs is what a program makes of them.

use std::path::Path;

use super::super::error::{InputError, InventoryError};
use super::super::read;
use super::super::yaml::{self, Value};
use super::{Found, one};

/// Files of a folder that are manifests.
const ENDINGS: [&str; 3] = [".yaml", ".yml", ".json"];
/// What kustomize reads in a folder, and the fields there that leave images as they are.
const KUSTOMIZATIONS: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];
const HARMLESS: [&str; 15] = [
    "apiVersion",
    "kind",
    "metadata",
    "resources",
    "bases",
    "namespace",
    "namePrefix",
    "nameSuffix",
    "labels",
    "commonLabels",
    "commonAnnotations",
    "configMapGenerator",
    "secretGenerator",
    "generatorOptions",
    "sortOptions",
];
/// Folders within folders.
const DEPTH: usize = 8;

/// Reads a file, or every manifest of a folder.
pub(super) fn each(path: &Path, depth: usize, found: &mut Found) -> Result<(), InventoryError> {
    let name = path.display().to_string();
    if !path.is_dir() {
        return one(&read::file(path)?, &name, found);
    }
    if depth == DEPTH {
        let fault = InputError::new("folders are too deep here").with_hint("is a link a ring?");
        return Err(InventoryError::of_file(name, fault));
    }
    let names = read::folder(path)?;
    let has = |name: &str| names.iter().any(|known| known == name);
    if has("Chart.yaml") {
        let fault = InputError::new("this is a Helm chart, not a folder of manifests").with_hint(
            format!("give what it renders to: helm template {name} | prepull images -f -"),
        );
        return Err(InventoryError::of_file(name, fault));
    }
    if let Some(file) = KUSTOMIZATIONS.iter().find(|name| has(name)) {
        kustomization(&path.join(file), &name, found)?;
    }
    for name in &names {
        let inner = path.join(name);
        let name = name.to_string_lossy();
        let is_manifest = ENDINGS.iter().any(|ending| name.ends_with(ending));
        let is_kustomization = KUSTOMIZATIONS.contains(&&*name);
        if !name.starts_with('.') && !is_kustomization && (inner.is_dir() || is_manifest) {
            each(&inner, depth + 1, found)?;
        }
    }
    Ok(())
}

/// A folder that kustomize builds from: an error where that changes images, and a warning where it names other places.
fn kustomization(file: &Path, folder: &str, found: &mut Found) -> Result<(), InventoryError> {
    let name = file.display().to_string();
    let tree = yaml::parse(&read::file(file)?, &name)?;
    let Value::Map(entries) = &tree.value else {
        return Ok(());
    };
    let command = format!("kustomize build {folder} | prepull images -f -");
    let is_harmless = |key: &str| HARMLESS.contains(&key);
    if let Some((key, _)) = entries.iter().find(|(key, _)| !is_harmless(&key.text)) {
        let what = format!(
            "what runs is not what the files here say, but what kustomize makes of them ({})",
            key.text
        );
        let fault = InputError::new(what).with_hint(format!("give what it builds: {command}"));
        return Err(InventoryError::at(name, key.place, fault));
    }
    let what =
        format!("kustomize may build from other places than this folder; to be sure: {command}");
    found.note(&name, &what);
    Ok(())
}
