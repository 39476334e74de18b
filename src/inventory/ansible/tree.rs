//! Ansible's YAML inventories, and the JSON that `ansible-inventory --list` and executables print.

use std::collections::HashSet;

use super::super::error::{InputError, InventoryError, Position};
use super::super::yaml::{Key, Tree, Value};
use super::graph::UNGROUPED;
use super::variables::{self, Spot};
use super::world::World;

/// The parts of a group.
pub(in crate::inventory) const PARTS: &[&str] = &["hosts", "vars", "children"];

/// Groups within groups; the YAML reader allows little more.
const DEPTH_LIMIT: usize = 64;

struct Reader<'a> {
    world: &'a mut World,
    file: usize,
}

/// Adds what a YAML inventory says.
///
/// # Errors
/// The first fault with its place.
pub(in crate::inventory) fn read_yaml(
    tree: &Tree,
    name: &str,
    world: &mut World,
) -> Result<(), InventoryError> {
    let file = world.add_file(name);
    let mut reader = Reader { world, file };
    for (key, tree) in reader.map(tree, "an inventory")? {
        reader.group(key, tree, 0)?;
    }
    Ok(())
}

/// Adds what `--list` printed, and gives back what it did not hold.
///
/// # Errors
/// The first fault, with its place where there is one.
pub(in crate::inventory) fn read_listing(
    tree: &Tree,
    name: &str,
    world: &mut World,
) -> Result<Listing, InventoryError> {
    let file = world.add_file(name);
    let mut reader = Reader { world, file };
    let mut listing = Listing {
        has_variables: false,
        hosts: Vec::new(),
        file,
    };
    let mut variables = None;
    for (key, tree) in reader.map(tree, "the list of groups")? {
        if key.text == "_meta" {
            let meta = reader.map(tree, "_meta")?;
            variables = meta.iter().find(|(key, _)| key.text == "hostvars");
        } else {
            listing.hosts.extend(reader.listed_group(key, tree)?);
        }
    }
    if let Some((_, tree)) = variables {
        listing.has_variables = true;
        for (host, said) in reader.map(tree, "hostvars")? {
            // Variables of hosts that no group names are not hosts, to Ansible too.
            if let Some(index) = reader.world.find_host(&host.text) {
                reader.host_variables(index, said)?;
            }
        }
    }
    let mut seen = HashSet::new();
    listing.hosts.retain(|host| seen.insert(*host));
    Ok(listing)
}

/// What a listing held.
pub(in crate::inventory) struct Listing {
    /// Whether the variables of hosts were part of it.
    pub has_variables: bool,
    /// Its hosts, as numbers of the world.
    pub hosts: Vec<usize>,
    file: usize,
}

impl Listing {
    /// Adds the variables of one host, which were asked for alone.
    pub(in crate::inventory) fn add_variables(
        &self,
        host: usize,
        tree: &Tree,
        world: &mut World,
    ) -> Result<(), InventoryError> {
        let file = self.file;
        Reader { world, file }.host_variables(host, tree)
    }
}

impl Reader<'_> {
    fn spot(&self, place: Position) -> Spot {
        Spot {
            file: self.file,
            place,
        }
    }

    fn wrong<T>(&self, place: Position, fault: InputError) -> Result<T, InventoryError> {
        self.world.wrong(self.spot(place), fault)
    }

    fn map<'t>(&self, tree: &'t Tree, what: &str) -> Result<&'t [(Key, Tree)], InventoryError> {
        match &tree.value {
            Value::Map(entries) => Ok(entries),
            Value::Null => Ok(&[]),
            Value::List(_) => {
                let fault = InputError::new(format!("{what} must be a map, not a list"))
                    .with_hint("write each name as a key with a colon: \"web1:\"");
                self.wrong(tree.place, fault)
            }
            _ => self.wrong(tree.place, InputError::new(format!("{what} must be a map"))),
        }
    }

    fn group(&mut self, key: &Key, tree: &Tree, depth: usize) -> Result<usize, InventoryError> {
        if depth == DEPTH_LIMIT {
            return self.wrong(
                key.place,
                InputError::new("groups are nested too deep here"),
            );
        }
        let group = self.world.group(&key.text, self.spot(key.place))?;
        let what = format!("the group \"{}\"", key.text);
        for (part, tree) in self.map(tree, &what)? {
            match part.text.as_str() {
                "vars" => self.group_variables(group, tree)?,
                "children" => {
                    if let Value::Text(name) = &tree.value {
                        let spot = self.spot(tree.place);
                        let child = self.world.group(name, spot)?;
                        self.world.add_child(group, child, spot);
                        continue;
                    }
                    for (key, tree) in self.map(tree, "\"children\"")? {
                        let child = self.group(key, tree, depth + 1)?;
                        self.world.add_child(group, child, self.spot(key.place));
                    }
                }
                "hosts" => {
                    if let Value::Text(pattern) = &tree.value {
                        self.world
                            .add_hosts(pattern, group, self.spot(tree.place))?;
                        continue;
                    }
                    for (key, tree) in self.map(tree, "\"hosts\"")? {
                        let spot = self.spot(key.place);
                        for host in self.world.add_hosts(&key.text, group, spot)? {
                            self.host_variables(host, tree)?;
                        }
                    }
                }
                other => {
                    let fault = InputError::new(format!("\"{other}\" is no part of a group"))
                        .with_hint("write hosts, vars or children");
                    return self.wrong(part.place, fault);
                }
            }
        }
        Ok(group)
    }

    fn group_variables(&mut self, group: usize, tree: &Tree) -> Result<(), InventoryError> {
        for (key, tree) in self.map(tree, "\"vars\"")? {
            let spot = self.spot(key.place);
            let content = variables::content(tree);
            self.world.set_on_group(group, &key.text, content, spot)?;
        }
        Ok(())
    }

    fn host_variables(&mut self, host: usize, tree: &Tree) -> Result<(), InventoryError> {
        for (key, tree) in self.map(tree, "the variables of a host")? {
            let spot = self.spot(key.place);
            let content = variables::content(tree);
            self.world.set_on_host(host, &key.text, content, spot)?;
        }
        Ok(())
    }

    fn listed_group(&mut self, key: &Key, tree: &Tree) -> Result<Vec<usize>, InventoryError> {
        let spot = self.spot(key.place);
        let group = self.world.group(&key.text, spot)?;
        if matches!(tree.value, Value::List(_)) {
            return self.listed_hosts(group, tree);
        }
        let mut hosts = Vec::new();
        let what = format!("the group \"{}\"", key.text);
        let parts = self.map(tree, &what)?;
        let has_parts = parts
            .iter()
            .any(|(part, _)| PARTS.contains(&part.text.as_str()));
        if !has_parts && tree.value != Value::Null && group > UNGROUPED {
            // As Ansible: a host of this name, with these variables.
            self.group_variables(group, tree)?;
            return Ok(vec![self.world.add_host(
                key.text.clone(),
                None,
                group,
                spot,
            )?]);
        }
        for (part, tree) in parts {
            match part.text.as_str() {
                "hosts" => hosts = self.listed_hosts(group, tree)?,
                "vars" => self.group_variables(group, tree)?,
                "children" => {
                    for (place, name) in self.names(tree, "children")? {
                        let spot = self.spot(place);
                        let child = self.world.group(name, spot)?;
                        self.world.add_child(group, child, spot);
                    }
                }
                // Ansible passes over the rest.
                _ => {}
            }
        }
        Ok(hosts)
    }

    fn listed_hosts(&mut self, group: usize, tree: &Tree) -> Result<Vec<usize>, InventoryError> {
        let mut hosts = Vec::new();
        for (place, name) in self.names(tree, "hosts")? {
            let spot = self.spot(place);
            hosts.push(self.world.add_host(name.to_string(), None, group, spot)?);
        }
        Ok(hosts)
    }

    fn names<'t>(
        &self,
        tree: &'t Tree,
        what: &str,
    ) -> Result<Vec<(Position, &'t str)>, InventoryError> {
        let Value::List(items) = &tree.value else {
            return self.wrong(
                tree.place,
                InputError::new(format!("\"{what}\" must be a list")),
            );
        };
        let text = |item: &'t Tree| match &item.value {
            Value::Text(text) => Ok((item.place, text.as_str())),
            _ => self.wrong(
                item.place,
                InputError::new(format!("\"{what}\" must hold names")),
            ),
        };
        items.iter().map(text).collect()
    }
}
