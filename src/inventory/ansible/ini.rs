//! Ansible's INI inventories: `[group]`, `[group:children]`, `[group:vars]`.

use std::collections::HashMap;

use super::super::error::{InputError, InventoryError, Position, shortened};
use super::graph::UNGROUPED;
use super::ini_words::{self, Word};
use super::literal;
use super::variables::Spot;
use super::world::World;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Hosts,
    Children,
    Vars,
}

/// Adds what an INI inventory says.
///
/// # Errors
/// The first line that is wrong, with its place.
pub(in crate::inventory) fn read(
    text: &str,
    name: &str,
    world: &mut World,
) -> Result<(), InventoryError> {
    let file = world.add_file(name);
    let mut reader = Reader {
        world,
        file,
        group: UNGROUPED,
        kind: Kind::Hosts,
        pending: HashMap::new(),
    };
    for (index, raw) in text.lines().enumerate() {
        let line = raw.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        let indent = raw.chars().take_while(|c| c.is_whitespace()).count();
        let place = Position {
            line: shortened(index + 1),
            column: shortened(indent + 1),
        };
        reader.line(line, Spot { file, place })?;
    }
    reader.finish()
}

/// The group and the kind of a section header, `None` where a line is not a header.
pub(in crate::inventory) fn header(line: &str) -> Option<(&str, Option<&str>)> {
    let (inside, after) = line.strip_prefix('[')?.split_once(']')?;
    let after = after.trim_start();
    if !(after.is_empty() || after.starts_with('#')) {
        return None;
    }
    let (name, kind) = match inside.split_once(':') {
        Some((name, kind)) => (name, Some(kind)),
        None => (inside, None),
    };
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let fits = !name.is_empty()
        && !name.contains(char::is_whitespace)
        && kind.is_none_or(|kind| !kind.is_empty() && kind.chars().all(word));
    fits.then_some((name, kind))
}

struct Reader<'a> {
    world: &'a mut World,
    file: usize,
    group: usize,
    kind: Kind,
    /// Groups that were named but not declared yet, with where and how.
    pending: HashMap<usize, (Spot, Kind)>,
}

impl Reader<'_> {
    fn line(&mut self, line: &str, spot: Spot) -> Result<(), InventoryError> {
        if let Some((name, kind)) = header(line) {
            return self.section(name, kind, spot);
        }
        if line.starts_with('[') && line.ends_with(']') {
            let fault = InputError::new("this is no section")
                .with_hint("write [group], [group:children] or [group:vars], without spaces");
            return self.world.wrong(spot, fault);
        }
        match self.kind {
            Kind::Hosts => self.hosts(line, spot),
            Kind::Children => self.child(line, spot),
            Kind::Vars => {
                let Some((key, value)) = line.split_once('=') else {
                    let fault = InputError::new("a variable is expected here")
                        .with_hint("write name=value");
                    return self.world.wrong(spot, fault);
                };
                let content = literal::read(value.trim());
                self.world
                    .set_on_group(self.group, key.trim(), content, spot)
            }
        }
    }

    fn section(
        &mut self,
        name: &str,
        kind: Option<&str>,
        spot: Spot,
    ) -> Result<(), InventoryError> {
        self.kind = match kind {
            None | Some("hosts") => Kind::Hosts,
            Some("children") => Kind::Children,
            Some("vars") => Kind::Vars,
            Some(_) => {
                let fault = InputError::new("a section of an unknown kind")
                    .with_hint("write [group], [group:children] or [group:vars]");
                return self.world.wrong(spot, fault);
            }
        };
        let new = self.world.find_group(name).is_none();
        self.group = self.world.group(name, spot)?;
        if self.kind != Kind::Vars {
            self.pending.remove(&self.group);
        } else if new {
            self.pending.insert(self.group, (spot, Kind::Vars));
        }
        Ok(())
    }

    fn hosts(&mut self, line: &str, spot: Spot) -> Result<(), InventoryError> {
        let at = |offset: usize| Spot {
            place: Position {
                column: spot.place.column.saturating_add(shortened(offset)),
                ..spot.place
            },
            ..spot
        };
        let words = ini_words::split(line)
            .or_else(|(offset, fault)| self.world.wrong(at(offset), fault))?;
        let Some((pattern, variables)) = words.split_first() else {
            return Ok(());
        };
        if pattern.text == "---" {
            let fault = InputError::new("\"---\" begins YAML, but other lines here are INI")
                .with_hint("keep one format a file");
            return self.world.wrong(spot, fault);
        }
        let hosts = self.world.add_hosts(&pattern.text, self.group, spot)?;
        for Word { at: offset, text } in variables {
            let Some((key, value)) = text.split_once('=') else {
                let fault = if line.contains("{{") {
                    InputError::new(
                        "this is a template without quotes, which only Ansible can fill in",
                    )
                    .with_hint("write its value")
                } else {
                    InputError::new("a variable of the host is expected here")
                        .with_hint("write name=value, one host a line")
                };
                return self.world.wrong(at(*offset), fault);
            };
            let content = literal::read(value);
            for host in &hosts {
                self.world
                    .set_on_host(*host, key, content.clone(), at(*offset))?;
            }
        }
        Ok(())
    }

    fn child(&mut self, line: &str, spot: Spot) -> Result<(), InventoryError> {
        let name = line.split_once('#').map_or(line, |(name, _)| name).trim();
        if name.contains(|c: char| c.is_whitespace() || c == ':' || c == ']') {
            let fault = InputError::new("one group name is expected here")
                .with_hint("hosts stand below [group]");
            return self.world.wrong(spot, fault);
        }
        let new = self.world.find_group(name).is_none();
        let child = self.world.group(name, spot)?;
        if new {
            self.pending.insert(child, (spot, Kind::Children));
        }
        self.world.add_child(self.group, child, spot);
        Ok(())
    }

    /// A group that is never declared is a misspelt one.
    fn finish(self) -> Result<(), InventoryError> {
        let first = self
            .pending
            .iter()
            .min_by_key(|(_, (spot, _))| spot.place.line);
        let Some((_, (spot, kind))) = first else {
            return Ok(());
        };
        debug_assert_eq!(spot.file, self.file);
        let what = match kind {
            Kind::Vars => "variables of a group that is not declared",
            _ => "a group that is not declared",
        };
        let fault = InputError::new(what).with_hint("declare it with [group], or correct its name");
        self.world.wrong(*spot, fault)
    }
}
