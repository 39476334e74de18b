//! prepull's own inventory format: `defaults`, `groups`, `nodes`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::draft::{Draft, Group, Mention};
use super::error::{InputError, InventoryError, Position};
use super::hosts::{self, NODE_LIMIT};
use super::layers::{self, NodeSettings};
use super::names;
use super::suggest;
use super::yaml::{Key, Tree, Value};

const TOP_KEYS: &[&str] = &["defaults", "groups", "nodes"];
const GROUP_KEYS: &[&str] = &["nodes"];
const NODE_KEYS: &[&str] = &["name", "address"];
const SETTING_KEYS: &[&str] = &[
    "user",
    "port",
    "identity",
    "jump",
    "runtime",
    "runtime_endpoint",
    "become",
    "labels",
];

/// Many more than any fleet has; joining a node's groups takes time for each pair of them.
const GROUP_LIMIT: usize = 10_000;

type Entries = [(Key, Tree)];

/// Where an inventory comes from, for errors and for the paths in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// What errors call it.
    pub name: String,
    /// What relative paths in it are relative to.
    pub folder: PathBuf,
    /// What `~` stands for.
    pub home: Option<PathBuf>,
}

/// Reads the tree of an inventory file.
pub(super) fn read(tree: &Tree, origin: &Origin) -> Result<Draft, InventoryError> {
    let mut reader = Reader {
        origin,
        draft: Draft {
            source: origin.name.clone(),
            ..Draft::default()
        },
        weight: 0,
    };
    reader.top(tree)?;
    Ok(reader.draft)
}

struct Reader<'a> {
    origin: &'a Origin,
    draft: Draft,
    /// Bytes of settings that entries gave to their nodes so far.
    weight: usize,
}

impl Reader<'_> {
    fn wrong<T>(&self, place: Position, fault: InputError) -> Result<T, InventoryError> {
        Err(InventoryError::at(&self.origin.name, place, fault))
    }

    fn top(&mut self, tree: &Tree) -> Result<(), InventoryError> {
        let entries = match &tree.value {
            Value::Map(entries) => entries,
            Value::Null => {
                return self.wrong(
                    Position::default(),
                    InputError::new("the file is empty").with_hint("list nodes under \"nodes:\""),
                );
            }
            Value::List(_) => {
                return self.wrong(
                    tree.place,
                    InputError::new("a list where keys are expected")
                        .with_hint("write \"nodes:\" above it and indent the list"),
                );
            }
            Value::Text(_) | Value::Unfilled => {
                return self.wrong(
                    tree.place,
                    InputError::new("this is no inventory")
                        .with_hint("write \"nodes:\" and below it one \"- HOST\" a line"),
                );
            }
        };
        self.check_keys(entries, &[TOP_KEYS])?;
        // Defaults and groups hold for nodes wherever the keys stand in the file.
        if let Some(defaults) = find(entries, "defaults") {
            let said = self.map(defaults, "defaults")?;
            self.check_keys(said, &[SETTING_KEYS])?;
            self.draft.defaults = self.settings(said)?;
        }
        for (key, value) in entries {
            match key.text.as_str() {
                "groups" if value.value != Value::Null => {
                    for (name, group) in self.map(value, "groups")? {
                        self.group(name, group)?;
                    }
                }
                "nodes" => self.nodes(value, &[])?,
                _ => {}
            }
        }
        Ok(())
    }

    fn group(&mut self, name: &Key, tree: &Tree) -> Result<(), InventoryError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.text.is_empty() || name.text.starts_with('-') || !name.text.chars().all(fits) {
            return self.wrong(
                name.place,
                InputError::new(format!("\"{}\" is no group name", name.text))
                    .with_hint("use letters, digits and - . _"),
            );
        }
        let nothing = Vec::new();
        let entries = match tree.value {
            Value::Null => &nothing,
            _ => self.map(tree, "a group")?,
        };
        self.check_keys(entries, &[GROUP_KEYS, SETTING_KEYS])?;
        let settings = self.settings(entries)?;
        if self.draft.groups.len() == GROUP_LIMIT {
            return self.wrong(
                name.place,
                InputError::new(format!("more than {GROUP_LIMIT} groups")),
            );
        }
        self.draft.groups.push(Group {
            name: name.text.clone(),
            settings,
        });
        let index = self.draft.groups.len() - 1;
        match find(entries, "nodes") {
            Some(nodes) => self.nodes(nodes, &[index]),
            None => Ok(()),
        }
    }

    fn nodes(&mut self, tree: &Tree, groups: &[usize]) -> Result<(), InventoryError> {
        match &tree.value {
            Value::Null => Ok(()),
            Value::Text(_) => self.node(tree, groups),
            Value::List(items) => items.iter().try_for_each(|item| self.node(item, groups)),
            _ => self.wrong(
                tree.place,
                InputError::new("\"nodes\" is a list").with_hint("start each node with \"- \""),
            ),
        }
    }

    fn node(&mut self, tree: &Tree, groups: &[usize]) -> Result<(), InventoryError> {
        match &tree.value {
            Value::Text(text) => {
                let found = self.expand(tree, text)?;
                for spec in found {
                    let settings = NodeSettings {
                        user: spec.user,
                        port: spec.port,
                        ..NodeSettings::default()
                    };
                    self.mention(spec.host, None, settings, groups, tree.place);
                }
                Ok(())
            }
            Value::Map(entries) => self.node_entry(tree.place, entries, groups),
            Value::Null | Value::List(_) | Value::Unfilled => self.wrong(
                tree.place,
                InputError::new("this is no node")
                    .with_hint("write a host, or a map with \"name:\""),
            ),
        }
    }

    fn node_entry(
        &mut self,
        place: Position,
        entries: &Entries,
        groups: &[usize],
    ) -> Result<(), InventoryError> {
        self.check_keys(entries, &[NODE_KEYS, SETTING_KEYS])?;
        let settings = self.settings(entries)?;
        let Some(name) = find(entries, "name") else {
            return self.wrong(
                place,
                InputError::new("a node without a name").with_hint("add \"name:\""),
            );
        };
        let found = self.expand(name, self.text(name, "name")?)?;
        if found
            .iter()
            .any(|spec| spec.user.is_some() || spec.port.is_some())
        {
            return self.wrong(
                name.place,
                InputError::new("a name with a user or port in it")
                    .with_hint("write them as \"user:\" and \"port:\" beside it"),
            );
        }
        let address = match find(entries, "address") {
            Some(_) if found.len() > 1 => {
                return self.wrong(
                    name.place,
                    InputError::new("several nodes with one address")
                        .with_hint("give each its own entry, or leave \"address:\" out"),
                );
            }
            Some(tree) => Some(self.address(tree)?),
            None => None,
        };
        let weight = settings.weight().saturating_mul(found.len());
        self.weight = self.weight.saturating_add(weight);
        if self.weight > layers::WEIGHT_LIMIT {
            return self.wrong(place, layers::too_heavy());
        }
        for spec in found {
            self.mention(spec.host, address.clone(), settings.clone(), groups, place);
        }
        Ok(())
    }

    fn mention(
        &mut self,
        name: String,
        address: Option<String>,
        settings: NodeSettings,
        groups: &[usize],
        place: Position,
    ) {
        self.draft.mentions.push(Mention {
            name,
            address,
            settings,
            groups: groups.to_vec(),
            place,
        });
    }

    fn expand(&self, tree: &Tree, text: &str) -> Result<Vec<hosts::HostSpec>, InventoryError> {
        let room = NODE_LIMIT.saturating_sub(self.draft.mentions.len());
        hosts::expand_within(text, room)
            .or_else(|error| self.wrong(tree.place_within(error.at), error.fault))
    }

    fn address(&self, tree: &Tree) -> Result<String, InventoryError> {
        let spec = self.checked(tree, "address", layers::single_host)?;
        if spec.user.is_some() || spec.port.is_some() {
            return self.wrong(
                tree.place,
                InputError::new("an address with a user or port in it")
                    .with_hint("write them as \"user:\" and \"port:\" beside it"),
            );
        }
        Ok(spec.host)
    }

    /// The settings among the entries; other keys are left to the caller.
    fn settings(&self, entries: &Entries) -> Result<NodeSettings, InventoryError> {
        let mut settings = NodeSettings::default();
        for (key, tree) in entries {
            match key.text.as_str() {
                "user" => {
                    settings.user = Some(self.checked(tree, "user", |text| {
                        names::check_user(text).map(|()| text.to_string())
                    })?);
                }
                "port" => settings.port = Some(self.checked(tree, "port", names::parse_port)?),
                "identity" => settings.identities = Some(self.identities(tree)?),
                "jump" => settings.jump = Some(self.jump(tree)?),
                "runtime" => {
                    settings.runtime =
                        Some(self.checked(tree, "runtime", layers::parse_runtime)?);
                }
                "runtime_endpoint" => {
                    settings.endpoint =
                        Some(self.checked(tree, "runtime_endpoint", layers::parse_endpoint)?);
                }
                "become" => settings.become_root = Some(self.checked(tree, "become", truth)?),
                "labels" => settings.labels = self.labels(tree)?,
                _ => {}
            }
        }
        Ok(settings)
    }

    fn identities(&self, tree: &Tree) -> Result<Vec<PathBuf>, InventoryError> {
        self.texts(tree, "identity")?
            .into_iter()
            .map(|(place, text)| path(text, self.origin).or_else(|fault| self.wrong(place, fault)))
            .collect()
    }

    fn jump(&self, tree: &Tree) -> Result<Vec<layers::JumpSpec>, InventoryError> {
        if let Value::Text(text) = &tree.value {
            return layers::jump_chain(text).or_else(|fault| self.wrong(tree.place, fault));
        }
        self.texts(tree, "jump")?
            .into_iter()
            .map(|(place, text)| layers::jump_host(text).or_else(|fault| self.wrong(place, fault)))
            .collect()
    }

    fn labels(&self, tree: &Tree) -> Result<BTreeMap<String, String>, InventoryError> {
        let mut labels = BTreeMap::new();
        for (key, tree) in self.map(tree, "labels")? {
            let value = match &tree.value {
                Value::Null => "",
                _ => self.text(tree, &key.text)?,
            };
            let plain = |text: &str| !text.chars().any(|c| c.is_control() || c.is_whitespace());
            if key.text.is_empty() || !plain(&key.text) || !plain(value) {
                return self.wrong(
                    key.place,
                    InputError::new("a label with spaces, control characters or no name"),
                );
            }
            labels.insert(key.text.clone(), value.to_string());
        }
        Ok(labels)
    }

    fn map<'t>(&self, tree: &'t Tree, what: &str) -> Result<&'t Vec<(Key, Tree)>, InventoryError> {
        match &tree.value {
            Value::Map(entries) => Ok(entries),
            _ => self.wrong(
                tree.place,
                InputError::new(format!("{what} must be a map"))
                    .with_hint("write \"key: value\" lines below it"),
            ),
        }
    }

    fn text<'t>(&self, tree: &'t Tree, key: &str) -> Result<&'t str, InventoryError> {
        match &tree.value {
            Value::Text(text) => Ok(text),
            Value::Null | Value::Unfilled => self.wrong(
                tree.place,
                InputError::new(format!("\"{key}\" has no value"))
                    .with_hint("give it one, or leave the key out"),
            ),
            Value::List(_) | Value::Map(_) => self.wrong(
                tree.place,
                InputError::new(format!("\"{key}\" takes one value, not a list or map")),
            ),
        }
    }

    /// One text or a list of texts.
    fn texts<'t>(
        &self,
        tree: &'t Tree,
        key: &str,
    ) -> Result<Vec<(Position, &'t str)>, InventoryError> {
        match &tree.value {
            Value::List(items) => items
                .iter()
                .map(|item| Ok((item.place, self.text(item, key)?)))
                .collect(),
            _ => Ok(vec![(tree.place, self.text(tree, key)?)]),
        }
    }

    fn checked<T>(
        &self,
        tree: &Tree,
        key: &str,
        read: impl Fn(&str) -> Result<T, InputError>,
    ) -> Result<T, InventoryError> {
        read(self.text(tree, key)?).or_else(|fault| self.wrong(tree.place, fault))
    }

    fn check_keys(&self, entries: &Entries, known: &[&[&str]]) -> Result<(), InventoryError> {
        let known: Vec<&str> = known.concat();
        for (key, _) in entries {
            if !known.contains(&key.text.as_str()) {
                return self.wrong(key.place, suggest::unknown_key(&key.text, &known));
            }
        }
        Ok(())
    }
}

fn find<'t>(entries: &'t Entries, key: &str) -> Option<&'t Tree> {
    entries
        .iter()
        .find_map(|(found, tree)| (found.text == key).then_some(tree))
}

/// YAML 1.1's words as well, which Ansible's users still write.
pub(super) fn truth(text: &str) -> Result<bool, InputError> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" => Ok(true),
        "false" | "no" | "off" => Ok(false),
        _ => Err(InputError::new(format!(
            "\"{text}\" is neither true nor false"
        ))),
    }
}

/// A path as an inventory says it: `~/` is the operator's home, relative to the inventory's folder.
pub(super) fn path(text: &str, origin: &Origin) -> Result<PathBuf, InputError> {
    if text.is_empty() || text.contains('\0') {
        return Err(InputError::new("this is no path of a file"));
    }
    let Some(rest) = text.strip_prefix('~') else {
        return Ok(origin.folder.join(text));
    };
    let Some(home) = &origin.home else {
        return Err(
            InputError::new("~ has no meaning: HOME is not set").with_hint("write the whole path")
        );
    };
    match rest.strip_prefix('/') {
        Some(rest) => Ok(home.join(Path::new(rest.trim_start_matches('/')))),
        None => Err(InputError::new(format!("\"{text}\": only ~/ is read"))
            .with_hint("write the whole path")),
    }
}

#[cfg(test)]
#[path = "native_tests.rs"]
mod tests;
