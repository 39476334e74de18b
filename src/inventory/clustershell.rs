//! Groups of ClusterShell (`@gpu`, `@racks:rack[1-3]`, `@*`), out of the files that it keeps them in.
//!
//! Its sources are YAML files, a flat file in its stock configuration, or commands of the site. Commands are not run:
//! an error says how `nodeset` looks such a group up.

use std::cell::Cell;
use std::path::{Path, PathBuf};

use super::configparser::{self, Entry};
use super::error::{InputError, InventoryError};
use super::hosts::{self, HostSpec};
use super::read;
use super::sets::{self, HostSet, Operator};
use super::yaml::{self, Value};

/// Groups within groups.
const DEPTH_LIMIT: usize = 32;
/// Groups that one expression may lead to.
const LOOKUP_LIMIT: usize = 10_000;
/// How many groups an error names.
const SHOWN_GROUPS: usize = 10;
/// The command of ClusterShell's own configuration, which reads a flat file.
const STOCK_MAP: &str = r"sed -n 's/^$GROUP:\(.*\)/\1/p'";

/// What ClusterShell's configuration defines.
#[derive(Debug, Default)]
pub(super) struct Groups {
    sources: Vec<Source>,
    default: Option<String>,
    /// Where a configuration was looked for.
    looked_in: Vec<String>,
    is_configured: bool,
}

#[derive(Debug)]
struct Source {
    name: String,
    file: String,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// Groups and their nodes, in order.
    Groups(Vec<(String, String)>),
    /// Commands of the site.
    Commands,
}

impl Groups {
    /// Reads the configuration from where ClusterShell has it.
    pub(super) fn find() -> Result<Self, InventoryError> {
        let variable = |name: &str| {
            let value = std::env::var_os(name).filter(|value| !value.is_empty());
            value.map(PathBuf::from)
        };
        let home = variable("HOME");
        let mut folders = vec![PathBuf::from("/etc/clustershell")];
        folders.extend(
            home.as_ref()
                .map(|home| home.join(".local/etc/clustershell")),
        );
        let own = variable("XDG_CONFIG_HOME").or_else(|| Some(home?.join(".config")));
        folders.extend(own.map(|own| own.join("clustershell")));
        folders.extend(variable("CLUSTERSHELL_CFGDIR"));
        Self::find_in(&folders)
    }

    /// The last folder with a configuration is what `$CFGDIR` stands for.
    fn find_in(folders: &[PathBuf]) -> Result<Self, InventoryError> {
        let mut groups = Self {
            looked_in: folders
                .iter()
                .map(|path| path.display().to_string())
                .collect(),
            ..Self::default()
        };
        let mut options: Vec<Entry> = Vec::new();
        let mut chosen = None;
        for folder in folders {
            let path = folder.join("groups.conf");
            if path.is_file() {
                for entry in configparser::parse(&read::file(&path)?, None) {
                    options.retain(|old| (&old.section, &old.key) != (&entry.section, &entry.key));
                    options.push(entry);
                }
                chosen = Some((folder, path));
            }
        }
        let Some((folder, path)) = chosen else {
            return Ok(groups);
        };
        groups.is_configured = true;
        let main = |key: &str| {
            let entry = options
                .iter()
                .find(|entry| entry.section == "Main" && entry.key == key);
            entry.map(|entry| entry.value.as_str())
        };
        for part in listed(main("groupsdir").or(main("confdir")), folder, "conf")? {
            let entries = configparser::parse(&read::file(&part)?, None);
            groups.add_commands(&entries, &part, part.parent().unwrap_or(folder))?;
        }
        for part in listed(main("autodir"), folder, "yaml")? {
            groups.add_yaml(&part)?;
        }
        groups.add_commands(&options, &path, folder)?;
        let first = || groups.sources.first().map(|source| source.name.clone());
        groups.default = match main("default").filter(|name| !name.is_empty()) {
            Some(name) => Some(name.to_string()),
            None => first(),
        };
        Ok(groups)
    }

    fn add_commands(
        &mut self,
        entries: &[Entry],
        file: &Path,
        folder: &Path,
    ) -> Result<(), InventoryError> {
        for entry in entries
            .iter()
            .filter(|entry| entry.section != "Main" && entry.key == "map")
        {
            let flat = entry.value.contains(STOCK_MAP).then(|| {
                let own = folder.join("groups");
                if own.is_file() {
                    own
                } else {
                    folder.join("groups.d/local.cfg")
                }
            });
            for name in entry.section.split(',') {
                let content = match flat.as_ref().filter(|path| path.is_file()) {
                    Some(path) => Content::Groups(flat_groups(&read::file(path)?)),
                    None => Content::Commands,
                };
                self.sources.push(Source {
                    name: name.to_string(),
                    file: file.display().to_string(),
                    content,
                });
            }
        }
        Ok(())
    }

    /// A map of sources, each a map of groups, each a text or a list of texts.
    fn add_yaml(&mut self, path: &Path) -> Result<(), InventoryError> {
        let name = path.display().to_string();
        let tree = yaml::parse(&read::file(path)?, &name)?;
        let wrong = |place, what: &str| {
            let fault = InputError::new(what).with_hint(
                "write SOURCE: {GROUP: NODES}, as in ClusterShell's cluster.yaml.example",
            );
            InventoryError::at(&name, place, fault)
        };
        let Value::Map(sources) = &tree.value else {
            return Err(wrong(tree.place, "a file of groups must be a map"));
        };
        for (source, tree) in sources {
            let Value::Map(entries) = &tree.value else {
                return Err(wrong(tree.place, "a source of groups must be a map"));
            };
            let mut groups = Vec::new();
            for (group, tree) in entries {
                let nodes = match &tree.value {
                    Value::Text(text) => text.clone(),
                    Value::Null => String::new(),
                    Value::List(items) => {
                        let texts = items.iter().map(|item| match &item.value {
                            Value::Text(text) => Ok(text.as_str()),
                            _ => Err(wrong(item.place, "a group must list texts")),
                        });
                        texts.collect::<Result<Vec<_>, _>>()?.join(",")
                    }
                    _ => return Err(wrong(tree.place, "a group must be a text or a list")),
                };
                groups.push((group.text.clone(), nodes));
            }
            self.sources.push(Source {
                name: source.text.clone(),
                file: name.clone(),
                content: Content::Groups(groups),
            });
        }
        Ok(())
    }

    /// The hosts of `@GROUP`, `@SOURCE:GROUP` or `@*`, at most `room`.
    pub(super) fn hosts(&self, text: &str, room: usize) -> Result<Vec<HostSpec>, InputError> {
        let lookup = Lookup {
            groups: self,
            asked: text,
            left: Cell::new(LOOKUP_LIMIT),
            room,
        };
        lookup.group(text, None, 0)
    }
}

/// Looks up one expression.
struct Lookup<'a> {
    groups: &'a Groups,
    /// What stood on the command line.
    asked: &'a str,
    left: Cell<usize>,
    room: usize,
}

impl Lookup<'_> {
    /// `@...`, within the source of the group that named it.
    fn group(
        &self,
        text: &str,
        within: Option<&str>,
        depth: usize,
    ) -> Result<Vec<HostSpec>, InputError> {
        let bare = text.strip_prefix('@').unwrap_or(text);
        if bare.starts_with('@') || bare.contains(":@") {
            return Err(
                InputError::new("@@SOURCE lists the names of groups, not nodes")
                    .with_hint("write @GROUP or @SOURCE:GROUP"),
            );
        }
        let (source, pattern) = match bare.split_once(':') {
            Some((source, pattern)) => (Some(source), pattern),
            None => (within.or(self.groups.default.as_deref()), bare),
        };
        let source = self.source(source)?;
        let Content::Groups(groups) = &source.content else {
            return Err(InputError::new(format!(
                "the groups of \"{}\" come from commands in {}, which prepull does not run",
                source.name, source.file
            ))
            .with_hint(self.by_nodeset()));
        };
        if pattern == "*" {
            let all = groups.iter().find(|(name, _)| name == "all");
            let mut named: Vec<_> = all.map_or_else(|| groups.iter().collect(), |all| vec![all]);
            // One text of all groups, in the order in which ClusterShell lists them.
            named.sort();
            let texts = named.iter().map(|(_, nodes)| nodes.as_str());
            return self.nodes(&texts.collect::<Vec<_>>().join(","), &source.name, depth);
        }
        let names = if pattern.contains('[') {
            let expanded = hosts::expand(pattern).map_err(|error| error.fault)?;
            expanded.into_iter().map(|spec| spec.host).collect()
        } else {
            vec![pattern.to_string()]
        };
        let mut found = HostSet::new(self.room);
        for name in names {
            let Some((_, nodes)) = groups.iter().find(|(known, _)| *known == name) else {
                let known: Vec<_> = groups.iter().map(|(name, _)| name.as_str()).collect();
                let more = if known.len() > SHOWN_GROUPS {
                    ", ..."
                } else {
                    ""
                };
                let known = known[..known.len().min(SHOWN_GROUPS)].join(", ");
                return Err(InputError::new(format!(
                    "there is no group \"{name}\" in the source \"{}\" of ClusterShell ({})",
                    source.name, source.file
                ))
                .with_hint(format!("its groups are {known}{more}")));
            };
            let hosts = self.nodes(nodes, &source.name, depth)?;
            found.apply(
                Operator::Union,
                hosts.into_iter().map(|spec| (spec, ())).collect(),
            )?;
        }
        Ok(found.into_entries().map(|(spec, ())| spec).collect())
    }

    /// What stands in a group: expressions with operators, and other groups.
    fn nodes(&self, text: &str, source: &str, depth: usize) -> Result<Vec<HostSpec>, InputError> {
        let left = self.left.get();
        if depth == DEPTH_LIMIT || left == 0 {
            return Err(InputError::new(format!(
                "the groups of ClusterShell's source \"{source}\" name each other without end"
            ))
            .with_hint(format!("`nodeset -e {}` shows where", self.asked)));
        }
        self.left.set(left - 1);
        // Blanks part what a command prints, and mean nothing beside a sign.
        let text = text.split_whitespace().collect::<Vec<_>>().join(",");
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let in_group = |fault: InputError| InputError {
            message: format!(
                "in a group of ClusterShell's source \"{source}\": {}",
                fault.message
            ),
            ..fault
        };
        let mut found = HostSet::new(self.room);
        for term in sets::terms(&text).map_err(|error| in_group(error.fault))? {
            let hosts = if term.piece.text.starts_with('@') {
                self.group(term.piece.text, Some(source), depth + 1)?
            } else {
                let room = found.room(term.operator);
                hosts::expand_piece(&term.piece, room).map_err(|error| in_group(error.fault))?
            };
            found.apply(
                term.operator,
                hosts.into_iter().map(|spec| (spec, ())).collect(),
            )?;
        }
        Ok(found.into_entries().map(|(spec, ())| spec).collect())
    }

    fn source(&self, name: Option<&str>) -> Result<&Source, InputError> {
        let groups = self.groups;
        if !groups.is_configured {
            let looked_in = groups.looked_in.join(", ");
            return Err(InputError::new(format!(
                "\"{}\" is a group of ClusterShell, and there is no groups.conf in {looked_in}",
                self.asked
            ))
            .with_hint("write user@host if a host was meant, or name an inventory with -i"));
        }
        let Some(name) = name else {
            return Err(
                InputError::new("ClusterShell's groups.conf defines no source of groups")
                    .with_hint(self.by_nodeset()),
            );
        };
        groups
            .sources
            .iter()
            .find(|source| source.name == name)
            .ok_or_else(|| {
                let known: Vec<_> = groups
                    .sources
                    .iter()
                    .map(|source| source.name.as_str())
                    .collect();
                InputError::new(format!("ClusterShell has no source of groups \"{name}\""))
                    .with_hint(format!("its sources are {}", known.join(", ")))
            })
    }

    fn by_nodeset(&self) -> String {
        format!("write -H \"$(nodeset -e -S , '{}')\"", self.asked)
    }
}

/// The files with this ending in the folders that an option lists.
fn listed(folders: Option<&str>, own: &Path, ending: &str) -> Result<Vec<PathBuf>, InventoryError> {
    let mut seen: Vec<PathBuf> = Vec::new();
    let mut files = Vec::new();
    for folder in folders.unwrap_or_default().split_whitespace() {
        let folder = folder.trim_matches(['"', '\'']);
        let own = own.display().to_string();
        let folder = PathBuf::from(folder.replace("${CFGDIR}", &own).replace("$CFGDIR", &own));
        if !folder.is_dir() || seen.contains(&folder) {
            continue;
        }
        for name in read::folder(&folder)? {
            let path = folder.join(&name);
            let is_hidden = name.to_string_lossy().starts_with('.');
            if !is_hidden && path.extension().is_some_and(|end| end == ending) && path.is_file() {
                files.push(path);
            }
        }
        seen.push(folder);
    }
    Ok(files)
}

/// `GROUP: NODES` a line, as ClusterShell's stock configuration reads them.
fn flat_groups(text: &str) -> Vec<(String, String)> {
    let mut groups: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        let Some((name, nodes)) = line.split_once(':') else {
            continue;
        };
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        if name.is_empty() || !name.chars().all(fits) {
            continue;
        }
        match groups.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => {
                known.push(' ');
                known.push_str(nodes);
            }
            None => groups.push((name.to_string(), nodes.to_string())),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(files: &[(&str, &str)]) -> (tempfile::TempDir, Groups) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let found = Groups::find_in(&[folder.path().to_path_buf()]).unwrap();
        (folder, found)
    }

    fn shown(groups: &Groups, text: &str) -> String {
        match groups.hosts(text, 1000) {
            Ok(hosts) => hosts
                .into_iter()
                .map(|spec| spec.host)
                .collect::<Vec<_>>()
                .join(" "),
            Err(fault) => fault.to_string(),
        }
    }

    #[test]
    fn a_ring_of_groups_ends_and_what_is_missing_is_named() {
        let yaml = "s:\n  a: '@b'\n  b: '@a'\n  c: n1\n  wide: 'n[1-2000]'\n";
        let conf = "[Main]\ndefault: s\nautodir: $CFGDIR/groups.d\n[slurm,sl]\nmap: sinfo $GROUP\n";
        let (_folder, groups) = groups(&[("groups.conf", conf), ("groups.d/x.yaml", yaml)]);
        for (text, part) in [
            ("@a", "without end"),
            ("@nowhere", "its groups are a, b, c, wide"),
            ("@x:c", "its sources are s, slurm, sl"),
            ("@sl:gpu", "write -H \"$(nodeset -e -S , '@sl:gpu')\""),
            ("@@s", "not nodes"),
            ("@wide", "more than"),
        ] {
            let said = shown(&groups, text);
            assert!(said.contains(part), "{text}: {said}");
        }
        assert_eq!(shown(&groups, "@c"), "n1");
        let none = Groups::find_in(&[PathBuf::from("/nonexistent")]).unwrap();
        let said = shown(&none, "@gpu");
        assert!(said.contains("no groups.conf in /nonexistent"), "{said}");
    }
}
