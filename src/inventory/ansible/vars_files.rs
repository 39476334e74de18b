//! `group_vars` and `host_vars` beside an inventory: one file for each name, or a folder of them.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::super::error::{InputError, InventoryError, Position};
use super::super::read;
use super::super::yaml::{self, Value};
use super::files::Files;
use super::variables::{self, Said, Spot, VAULT, Variables};

const GROUPS: &str = "group_vars";
const HOSTS: &str = "host_vars";
/// In Ansible's order: the first that exists is read, the others are not.
const ENDINGS: &[&str] = &["", ".yml", ".yaml", ".json"];
/// A folder of variables is one or two deep; a link to a folder above must end.
const DEPTH_LIMIT: usize = 8;

/// Whether a folder holds variables, which only Ansible's formats use.
pub(in crate::inventory) fn exist_beside(folder: &Path) -> bool {
    let folder = read::or_here(folder);
    folder.join(GROUPS).is_dir() || folder.join(HOSTS).is_dir()
}

/// The variable files beside all sources.
pub(super) struct VarsFiles {
    groups: Vec<Folder>,
    hosts: Vec<Folder>,
    /// What was read already.
    read: HashMap<PathBuf, Variables>,
}

struct Folder {
    path: PathBuf,
    /// Read once: asking for four names for each of 10,000 hosts takes too long.
    names: HashSet<OsString>,
}

impl VarsFiles {
    pub(super) fn open(folders: &[PathBuf]) -> Result<Self, InventoryError> {
        let list = |kind| folders.iter().filter_map(move |path| listed(path, kind));
        Ok(Self {
            groups: list(GROUPS).collect::<Result<_, _>>()?,
            hosts: list(HOSTS).collect::<Result<_, _>>()?,
            read: HashMap::new(),
        })
    }

    /// Adds what is said about groups, weakest first: a later source beats an earlier one.
    pub(super) fn add_groups(
        &mut self,
        names: &[String],
        files: &mut Files,
        said: &mut Variables,
    ) -> Result<(), InventoryError> {
        for folder in &self.groups {
            for name in names {
                add(folder, name, files, &mut self.read, said)?;
            }
        }
        Ok(())
    }

    pub(super) fn add_host(
        &mut self,
        name: &str,
        files: &mut Files,
        said: &mut Variables,
    ) -> Result<(), InventoryError> {
        for folder in &self.hosts {
            add(folder, name, files, &mut self.read, said)?;
        }
        Ok(())
    }
}

fn listed(beside: &Path, kind: &str) -> Option<Result<Folder, InventoryError>> {
    let path = beside.join(kind);
    if !read::or_here(beside).join(kind).is_dir() {
        return None;
    }
    let names = read::folder(&path).map(|names| names.into_iter().collect());
    Some(names.map(|names| Folder { path, names }))
}

fn add(
    folder: &Folder,
    name: &str,
    files: &mut Files,
    read: &mut HashMap<PathBuf, Variables>,
    said: &mut Variables,
) -> Result<(), InventoryError> {
    let file = ENDINGS
        .iter()
        .map(|ending| OsString::from(format!("{name}{ending}")))
        .find(|file| folder.names.contains(file));
    let Some(file) = file else {
        return Ok(());
    };
    let path = folder.path.join(file);
    if !read.contains_key(&path) {
        let mut found = Variables::new();
        read_path(&path, files, &mut found, 0)?;
        read.insert(path.clone(), found);
    }
    let found = read[&path].iter();
    said.extend(found.map(|(name, said)| (*name, said.clone())));
    Ok(())
}

fn read_path(
    path: &Path,
    files: &mut Files,
    found: &mut Variables,
    depth: usize,
) -> Result<(), InventoryError> {
    if !path.is_dir() {
        return read_file(path, files, found);
    }
    if depth == DEPTH_LIMIT {
        let fault = InputError::new("folders of variables are too deep here")
            .with_hint("is a link a ring?");
        return Err(InventoryError::of_file(path.display().to_string(), fault));
    }
    for name in read::folder(path)? {
        let inner = path.join(&name);
        let name = name.to_string_lossy();
        if name.starts_with('.') || name.ends_with('~') {
            continue;
        }
        let ending = name.rfind('.').map_or("", |dot| &name[dot..]);
        let wanted = if inner.is_dir() {
            ending.is_empty()
        } else {
            ENDINGS.contains(&ending)
        };
        if wanted {
            read_path(&inner, files, found, depth + 1)?;
        }
    }
    Ok(())
}

fn read_file(path: &Path, files: &mut Files, found: &mut Variables) -> Result<(), InventoryError> {
    let name = path.display().to_string();
    let text = read::file(path)?;
    let file = files.add(&name);
    let top = Spot {
        file,
        place: Position { line: 1, column: 1 },
    };
    if text.starts_with(VAULT) {
        let fault = InputError::new("this file is encrypted by Ansible's vault").with_hint(
            "let Ansible read it: ansible-inventory -i INVENTORY --list --ask-vault-pass | prepull ... -i -",
        );
        return files.wrong(top, fault);
    }
    let tree = yaml::parse(&text, &name)?;
    let entries = match &tree.value {
        Value::Null => return Ok(()),
        Value::Map(entries) => entries,
        _ => {
            return files.wrong(
                top,
                InputError::new("a file of variables must be a map")
                    .with_hint("write one \"name: value\" a line"),
            );
        }
    };
    for (key, tree) in entries {
        let spot = Spot {
            file,
            place: key.place,
        };
        let known = variables::known(&key.text).or_else(|fault| files.wrong(spot, fault))?;
        // A priority in such a file comes too late for Ansible as well.
        if let Some(known) = known.filter(|known| *known != variables::PRIORITY) {
            let content = variables::content(tree);
            found.insert(known, Said { content, spot });
        }
    }
    Ok(())
}
