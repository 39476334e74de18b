//! A kubeconfig file as fields with places, each of the kind that is expected of it.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::super::error::{InputError, InventoryError};
use super::super::read;
use super::super::yaml::{self, Tree, Value};

pub(super) const HOW_TO_CHOOSE: &str = "name one with --kubeconfig or $KUBECONFIG, and a context with --context; \
    `kubectl config get-contexts` shows them";

/// The YAML of a kubeconfig may hold extensions of any shape.
const DEPTH_LIMIT: usize = 64;

/// One file.
pub(super) struct File {
    pub(super) name: String,
    pub(super) folder: PathBuf,
    pub(super) tree: Tree,
}

impl File {
    pub(super) fn read(path: &Path) -> Result<Self, InventoryError> {
        let unread = |error: InventoryError| InventoryError {
            suggestion: Some(HOW_TO_CHOOSE.into()),
            ..error
        };
        let text = Zeroizing::new(read::file(path).map_err(unread)?);
        let folder = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        let folder = folder.parent().unwrap_or(Path::new("/")).to_path_buf();
        Self::parse(&text, path.display().to_string(), folder)
    }

    fn parse(text: &str, name: String, folder: PathBuf) -> Result<Self, InventoryError> {
        let tree = yaml::parse_deep(first_document(text), &name, DEPTH_LIMIT)?;
        let file = Self { name, folder, tree };
        if matches!(file.tree.value, Value::Null) {
            return Ok(file);
        }
        let fields = file.fields(&file.tree)?;
        let kind = fields.text("kind")?.unwrap_or("Config");
        let version = fields.text("apiVersion")?.unwrap_or("v1");
        if kind != "Config" || version != "v1" {
            let fault =
                InputError::new("this is no kubeconfig: those have kind: Config, apiVersion: v1");
            return Err(InventoryError::of_file(&file.name, fault));
        }
        for list in ["clusters", "contexts", "users"] {
            let named = file.named(list)?;
            for (index, (name, entry)) in named.iter().enumerate() {
                if named[..index].iter().any(|(before, _)| before == name) {
                    let fault = InputError::new(format!("\"{name}\" stands twice in {list}"));
                    return Err(InventoryError::at(&file.name, entry.tree.place, fault));
                }
            }
        }
        Ok(file)
    }

    pub(super) fn fields<'a>(&'a self, tree: &'a Tree) -> Result<Fields<'a>, InventoryError> {
        match tree.value {
            Value::Map(_) => Ok(Fields { file: self, tree }),
            _ => {
                let fault =
                    InputError::new("a map is expected here").with_hint("is this a kubeconfig?");
                Err(InventoryError::at(&self.name, tree.place, fault))
            }
        }
    }

    /// The entries of a list, by their names.
    pub(super) fn named(&self, list: &str) -> Result<Vec<(&str, Fields<'_>)>, InventoryError> {
        if matches!(self.tree.value, Value::Null) {
            return Ok(Vec::new());
        }
        let items = self.fields(&self.tree)?.list(list)?;
        let mut named = Vec::new();
        for item in items {
            let fields = self.fields(item)?;
            named.push((fields.text("name")?.unwrap_or_default(), fields));
        }
        Ok(named)
    }
}

/// kubectl reads one document, whatever follows it.
fn first_document(text: &str) -> &str {
    let mut has_content = false;
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let is_mark = line.trim_end() == "---" || line.starts_with("--- ");
        if is_mark && has_content {
            return &text[..start];
        }
        let bare = line.trim();
        has_content |=
            !bare.is_empty() && !bare.starts_with('#') && !bare.starts_with('%') && !is_mark;
        start += line.len();
    }
    text
}

/// A map in a file.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    pub(super) file: &'a File,
    pub(super) tree: &'a Tree,
}

impl<'a> Fields<'a> {
    fn fault(&self, tree: &Tree, fault: InputError) -> InventoryError {
        InventoryError::at(&self.file.name, tree.place, fault)
    }

    /// A fault of the whole entry.
    pub(super) fn wrong(
        &self,
        what: impl Into<String>,
        suggestion: impl Into<String>,
    ) -> InventoryError {
        self.fault(self.tree, InputError::new(what).with_hint(suggestion))
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Tree> {
        let Value::Map(entries) = &self.tree.value else {
            return None;
        };
        let found = entries.iter().find(|(known, _)| known.text == key);
        found
            .map(|(_, tree)| tree)
            .filter(|tree| tree.value != Value::Null)
    }

    /// A text that is not empty.
    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>, InventoryError> {
        match self.get(key).map(|tree| (tree, &tree.value)) {
            None => Ok(None),
            Some((_, Value::Text(text))) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
            Some((tree, _)) => {
                Err(self.fault(tree, InputError::new(format!("{key} must be a text"))))
            }
        }
    }

    /// As YAML 1.1 has truth values, for kubectl's parser has them so.
    pub(super) fn flag(&self, key: &str) -> Result<bool, InventoryError> {
        let Some(text) = self.text(key)? else {
            return Ok(false);
        };
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "y" => Ok(true),
            "false" | "no" | "off" | "n" => Ok(false),
            _ => Err(self.wrong(format!("{key} must be true or false"), "correct it")),
        }
    }

    pub(super) fn list(&self, key: &str) -> Result<&'a [Tree], InventoryError> {
        match self.get(key).map(|tree| (tree, &tree.value)) {
            None => Ok(&[]),
            Some((_, Value::List(items))) => Ok(items),
            Some((tree, _)) => {
                Err(self.fault(tree, InputError::new(format!("{key} must be a list"))))
            }
        }
    }

    pub(super) fn texts(&self, key: &str) -> Result<Vec<String>, InventoryError> {
        let texts = self.list(key)?.iter().map(|item| match &item.value {
            Value::Text(text) => Ok(text.clone()),
            _ => Err(self.fault(
                item,
                InputError::new(format!("{key} must be a list of texts")),
            )),
        });
        texts.collect()
    }

    pub(super) fn map(&self, key: &str) -> Result<Option<Fields<'a>>, InventoryError> {
        self.get(key).map(|tree| self.file.fields(tree)).transpose()
    }

    /// A path, from the kubeconfig's folder.
    pub(super) fn path(&self, key: &str) -> Result<Option<PathBuf>, InventoryError> {
        Ok(self.text(key)?.map(|path| self.file.folder.join(path)))
    }

    /// What stands in `KEY-data` in base64, or in the file that `KEY` names; not both, as kubectl has it.
    pub(super) fn data(&self, key: &str) -> Result<Option<Vec<u8>>, InventoryError> {
        let inline = format!("{key}-data");
        let path = self.path(key)?;
        let Some(text) = self.text(&inline)? else {
            return path
                .map(|path| {
                    std::fs::read(&path).map_err(|error| {
                        let what = format!("cannot read {key}, {}: {error}", path.display());
                        self.wrong(
                            what,
                            "correct the path; it counts from the kubeconfig's folder",
                        )
                    })
                })
                .transpose();
        };
        if path.is_some() {
            return Err(self.wrong(format!("{key} and {inline} are both given"), "keep one"));
        }
        let folded: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
        let folded = Zeroizing::new(folded);
        let bytes = STANDARD.decode(folded.as_bytes());
        let not_base64 = || {
            self.wrong(
                format!("{inline} is not base64"),
                "copy the kubeconfig again",
            )
        };
        bytes.map(Some).map_err(|_| not_base64())
    }
}
