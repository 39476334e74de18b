//! The images that Kubernetes manifests name: files, folders of them, and what `helm template` or `kustomize build` print.
//!
//! Every list of containers counts, wherever it stands: in every kind of workload, in Lists, and in custom resources that
//! embed a pod template (core/v1 `PodSpec`: `containers`, `initContainers`, `ephemeralContainers`, volumes with an `image`).

use std::path::{Path, PathBuf};

use super::error::{Fault, InventoryError, Place};
use super::yaml::{self, Tree, Value};
use super::{read, sources};
use crate::model::Image;

/// The lists of containers in a pod's specification.
const CONTAINERS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];
/// Files of a folder that are manifests.
const ENDINGS: [&str; 3] = [".yaml", ".yml", ".json"];
/// Schemas of custom resources are deep, and reading them goes as deep into the stack.
const DEPTH: usize = 100;
const STACK: usize = 64 << 20;
/// Folders within folders.
const FOLDERS: usize = 8;

/// An image and the places that name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedImage {
    /// The image.
    pub image: Image,
    /// `FILE:LINE:COLUMN KIND/NAME`, in the order in which they were found.
    pub places: Vec<String>,
}

/// The images that manifests name, each once, in the order in which they were found. `-` is standard input.
///
/// # Errors
/// A file that cannot be read or is no YAML, a name that is no image, a template that was never rendered; and when no
/// image is named at all.
pub fn images(paths: &[PathBuf]) -> Result<Vec<NamedImage>, InventoryError> {
    let mut found = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            one(&read::stdin(sources::STDIN)?, sources::STDIN, &mut found)?;
        } else {
            each(path, 0, &mut found)?;
        }
    }
    if found.is_empty() {
        let names: Vec<String> = paths
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        let fault = Fault::new("no image is named here")
            .but("manifests name them under containers, initContainers and ephemeralContainers");
        return Err(InventoryError::of_file(names.join(", "), fault));
    }
    Ok(found)
}

/// The images in one text of manifests, which errors call `name`; none is no error here.
///
/// # Errors
/// As for [`images`], but for files.
pub fn images_in(text: &str, name: &str) -> Result<Vec<NamedImage>, InventoryError> {
    let mut found = Vec::new();
    one(text, name, &mut found)?;
    Ok(found)
}

fn each(path: &Path, depth: usize, found: &mut Vec<NamedImage>) -> Result<(), InventoryError> {
    if !path.is_dir() {
        return one(&read::file(path)?, &path.display().to_string(), found);
    }
    if depth == FOLDERS {
        let fault = Fault::new("folders are too deep here").but("is a link a ring?");
        return Err(InventoryError::of_file(path.display().to_string(), fault));
    }
    for name in read::folder(path)? {
        let inner = path.join(&name);
        let name = name.to_string_lossy();
        let is_manifest = ENDINGS.iter().any(|ending| name.ends_with(ending));
        if !name.starts_with('.') && (inner.is_dir() || is_manifest) {
            each(&inner, depth + 1, found)?;
        }
    }
    Ok(())
}

/// Reads the documents of one text, which errors call `name`.
fn one(text: &str, name: &str, found: &mut Vec<NamedImage>) -> Result<(), InventoryError> {
    let lost = || InventoryError::of_file(name, Fault::new("reading it failed unexpectedly"));
    std::thread::scope(|scope| {
        let reader = std::thread::Builder::new()
            .stack_size(STACK)
            .spawn_scoped(scope, || all_documents(text, name, found))
            .map_err(|_| lost())?;
        reader.join().unwrap_or_else(|_| Err(lost()))
    })
}

fn all_documents(
    text: &str,
    name: &str,
    found: &mut Vec<NamedImage>,
) -> Result<(), InventoryError> {
    for (line, document) in documents(text) {
        // Empty lines in front keep the places those of the file.
        let padded = format!("{}{document}", "\n".repeat(line));
        let tree = yaml::parse_deep(&padded, name, DEPTH).map_err(|error| {
            let template = document.lines().position(|line| line.contains("{{"));
            template.map_or(error, |at| unrendered(name, place(line + at + 1, 0)))
        })?;
        Reader { name, found }.tree(&tree, "")?;
    }
    Ok(())
}

/// The documents of a text, with the number of lines before each.
fn documents(text: &str) -> Vec<(usize, String)> {
    let mut documents = vec![(0, String::new())];
    for (number, line) in text.lines().enumerate() {
        let is_border = line == "---" || line.starts_with("--- ") || line.starts_with("---\t");
        if is_border || line == "..." {
            documents.push((number + 1, String::new()));
        } else if let Some((_, document)) = documents.last_mut() {
            document.push_str(line);
            document.push('\n');
        }
    }
    let says_something = |document: &str| {
        let mut lines = document.lines().map(str::trim);
        lines.any(|line| !line.is_empty() && !line.starts_with('#'))
    };
    documents.retain(|(_, document)| says_something(document));
    documents
}

fn place(line: usize, column: u32) -> Place {
    Place {
        line: u32::try_from(line).unwrap_or(u32::MAX),
        column,
    }
}

fn unrendered(name: &str, place: Place) -> InventoryError {
    let fault = Fault::new("this is a template that was never rendered")
        .but("give what it renders to: helm template CHART | prepull images -f -");
    InventoryError::at(name, place, fault)
}

struct Reader<'a> {
    name: &'a str,
    found: &'a mut Vec<NamedImage>,
}

impl Reader<'_> {
    /// Looks through a value; `object` is the resource that it is a part of.
    fn tree(&mut self, tree: &Tree, object: &str) -> Result<(), InventoryError> {
        match &tree.value {
            Value::List(items) => {
                for item in items {
                    self.tree(item, object)?;
                }
            }
            Value::Map(entries) => {
                let own = described(tree);
                let object = own.as_deref().unwrap_or(object);
                for (key, value) in entries {
                    if let Value::List(items) = &value.value {
                        for item in items {
                            self.item(&key.text, item, object)?;
                        }
                    }
                    self.tree(value, object)?;
                }
            }
            Value::Null | Value::Text(_) | Value::Unfilled => {}
        }
        Ok(())
    }

    /// An item of the list that `key` names: a container, or a volume that is an image.
    fn item(&mut self, key: &str, item: &Tree, object: &str) -> Result<(), InventoryError> {
        let image = if CONTAINERS.contains(&key) {
            entry(item, "image")
        } else if key == "volumes" {
            entry(item, "image").and_then(|image| entry(image, "reference"))
        } else {
            None
        };
        let Some((image, text)) = image.and_then(|image| Some((image, text(image)?))) else {
            return Ok(());
        };
        if text.contains("{{") {
            return Err(unrendered(self.name, image.place));
        }
        let parsed: Image = text.parse().map_err(|error: crate::model::ImageError| {
            InventoryError::at(self.name, image.place, Fault::new(error.to_string()))
        })?;
        let Place { line, column } = image.place;
        let place = format!("{}:{line}:{column} {object}", self.name);
        let place = place.trim_end().to_string();
        match self.found.iter_mut().find(|named| named.image == parsed) {
            Some(named) => named.places.push(place),
            None => self.found.push(NamedImage {
                image: parsed,
                places: vec![place],
            }),
        }
        Ok(())
    }
}

/// `Deployment/web`, for a resource.
fn described(tree: &Tree) -> Option<String> {
    let kind = text(entry(tree, "kind")?)?;
    entry(tree, "apiVersion")?;
    let name = entry(tree, "metadata").and_then(|metadata| text(entry(metadata, "name")?));
    Some(name.map_or_else(|| kind.to_string(), |name| format!("{kind}/{name}")))
}

fn entry<'a>(tree: &'a Tree, key: &str) -> Option<&'a Tree> {
    let Value::Map(entries) = &tree.value else {
        return None;
    };
    entries
        .iter()
        .find(|(known, _)| known.text == key)
        .map(|(_, value)| value)
}

fn text(tree: &Tree) -> Option<&str> {
    match &tree.value {
        Value::Text(text) => Some(text.as_str()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Vec<(String, String)>, String> {
        let mut found = Vec::new();
        one(text, "m.yml", &mut found).map_err(|error| error.to_string())?;
        let shown = |named: NamedImage| (named.image.to_string(), named.places.join(", "));
        Ok(found.into_iter().map(shown).collect())
    }

    #[test]
    fn every_kind_of_workload_and_every_sort_of_container_counts() {
        let text = "# Source: chart/templates/web.yaml\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n\
            spec:\n  template:\n    spec:\n      initContainers:\n      - {name: i, image: init:1}\n      containers:\n      \
            - name: c\n        image: 'reg.example/web:v1'\n      volumes:\n      - name: v\n        image: {reference: data:2}\n\
            ---\napiVersion: batch/v1\nkind: CronJob\nmetadata: {name: job}\nspec: {jobTemplate: {spec: {template: {spec: \
            {containers: [{image: reg.example/web:v1}], ephemeralContainers: [{image: debug:3}]}}}}}\n---\n# nothing\n---\n\
            {\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": [{\"apiVersion\": \"example/v1\", \"kind\": \"Engine\", \
            \"spec\": {\"podTemplate\": {\"spec\": {\"containers\": [{\"image\": \"engine@sha256:HEX\"}]}}}}]}\n---\n\
            kind: ConfigMap\napiVersion: v1\ndata: {containers: 'image: no', template: '{{ .x }}'}\nimage: no\n";
        let text = text.replace("HEX", &"a".repeat(64));
        let digest = format!("docker.io/library/engine@sha256:{}", "a".repeat(64));
        let expected = [
            ("docker.io/library/init:1", "m.yml:10:26 Deployment/web"),
            (
                "reg.example/web:v1",
                "m.yml:13:16 Deployment/web, m.yml:21:72 CronJob/job",
            ),
            ("docker.io/library/data:2", "m.yml:16:28 Deployment/web"),
            ("docker.io/library/debug:3", "m.yml:21:125 CronJob/job"),
            (&digest, "m.yml:25:136 Engine"),
        ];
        let read = read(&text).unwrap();
        let images: Vec<&str> = read.iter().map(|(image, _)| image.as_str()).collect();
        assert_eq!(images, expected.map(|(image, _)| image), "{read:?}");
        for ((_, places), (_, wanted)) in read.iter().zip(&expected) {
            let without_columns = |text: &str| {
                let words = text.split(' ').map(|word| {
                    let parts: Vec<&str> = word.split(':').collect();
                    if parts.len() == 3 {
                        parts[..2].join(":")
                    } else {
                        word.to_string()
                    }
                });
                words.collect::<Vec<_>>().join(" ")
            };
            assert_eq!(without_columns(places), without_columns(wanted));
        }
    }

    #[test]
    fn what_is_wrong_has_its_line() {
        for (text, start) in [
            (
                "a: 1\n---\nspec:\n  {{- if .Values.x }}\n  b: 2\n",
                "m.yml:4: this is a template",
            ),
            (
                "containers:\n- image: {{ .Values.image }}\n",
                "m.yml:2: this is a template",
            ),
            (
                "containers:\n- image: 'x:{{ .tag }}'\n",
                "m.yml:2:10: this is a template",
            ),
            (
                "a: 1\n---\ncontainers:\n- image: 'no image'\n",
                "m.yml:4:10: ",
            ),
            ("a: [\n", "m.yml:"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.starts_with(start), "{text}: {error}");
        }
    }

    #[test]
    fn deep_schemas_are_read_and_too_deep_ones_refused() {
        let deep = |levels: usize| {
            let mut text = String::new();
            for level in 0..levels {
                text.push_str(&format!("{}properties:\n", " ".repeat(level)));
            }
            text + &format!("{}x: 1\n", " ".repeat(levels))
        };
        assert!(read(&deep(60)).is_ok());
        assert!(read(&deep(300)).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "(?s)(containers:|- image: |---\\n|\\{\\{|[a-z: \\n\\-\\[\\]{}']){0,60}") {
            let _ = read(&text);
        }
    }
}
