//! All groups and hosts that Ansible's sources name, and the draft that is made of them.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use super::super::draft::{Draft, Group, Mention};
use super::super::error::{InputError, InventoryError};
use super::super::hosts::{self, NODE_LIMIT};
use super::super::layers;
use super::config::Config;
use super::files::Files;
use super::graph::{self, ALL, GroupNode, UNGROUPED};
use super::settings;
use super::variables::{self, Content, PRIORITY, Said, Spot, Variables};
use super::vars_files::VarsFiles;

/// Many more groups than any fleet has.
const GROUP_LIMIT: usize = 10_000;
/// Stands for memberships of hosts in groups, those of their parents included.
const MEMBERSHIP_LIMIT: usize = 5_000_000;

/// What all Ansible sources say together.
#[derive(Debug)]
pub(in crate::inventory) struct World {
    files: Files,
    groups: Vec<GroupNode>,
    group_index: HashMap<String, usize>,
    hosts: Vec<Host>,
    host_index: HashMap<String, usize>,
    /// What `group_vars` and `host_vars` are looked for in, in the order of the sources.
    folders: Vec<PathBuf>,
    home: Option<PathBuf>,
    /// What ansible.cfg says, weaker than everything else.
    configured: Variables,
}

#[derive(Debug)]
struct Host {
    name: String,
    variables: Variables,
    /// The groups that list it.
    groups: Vec<usize>,
    spot: Spot,
}

impl World {
    /// A world without hosts. `home` is what `~` stands for.
    pub(in crate::inventory) fn new(home: Option<PathBuf>) -> Self {
        let mut world = Self {
            files: Files::default(),
            groups: Vec::new(),
            group_index: HashMap::new(),
            hosts: Vec::new(),
            host_index: HashMap::new(),
            folders: Vec::new(),
            home,
            configured: Variables::new(),
        };
        for (index, name) in ["all", "ungrouped"].into_iter().enumerate() {
            world.groups.push(GroupNode::new(name));
            world.group_index.insert(name.to_string(), index);
        }
        world
    }

    /// Looks for variables beside a source too.
    pub(in crate::inventory) fn add_folder(&mut self, folder: PathBuf) {
        self.folders.push(folder);
    }

    /// Begins a file; the number stands for it in spots.
    pub(super) fn add_file(&mut self, name: &str) -> usize {
        self.files.add(name)
    }

    pub(super) fn wrong<T>(&self, spot: Spot, fault: InputError) -> Result<T, InventoryError> {
        self.files.wrong(spot, fault)
    }

    pub(super) fn find_host(&self, name: &str) -> Option<usize> {
        self.host_index.get(name).copied()
    }

    /// The name of a host by its number.
    pub(in crate::inventory) fn host_name(&self, index: usize) -> &str {
        &self.hosts[index].name
    }

    pub(super) fn find_group(&self, name: &str) -> Option<usize> {
        self.group_index.get(name).copied()
    }

    /// The group of this name, made where it is new.
    pub(super) fn group(&mut self, name: &str, spot: Spot) -> Result<usize, InventoryError> {
        if let Some(&index) = self.group_index.get(name) {
            return Ok(index);
        }
        // Ansible warns of odd characters in names, and takes them: clouds' tags have blanks and commas.
        if name.is_empty() || name.len() > 1000 {
            return self.wrong(
                spot,
                InputError::new("a group without a name, or with one too long"),
            );
        }
        if self.groups.len() == GROUP_LIMIT {
            return self.wrong(
                spot,
                InputError::new(format!("more than {GROUP_LIMIT} groups")),
            );
        }
        self.groups.push(GroupNode::new(name));
        let index = self.groups.len() - 1;
        self.group_index.insert(name.to_string(), index);
        Ok(index)
    }

    pub(super) fn add_child(&mut self, parent: usize, child: usize, spot: Spot) {
        if !self.groups[parent].children.contains(&child) {
            self.groups[parent].children.push(child);
            self.groups[child].parents.push((parent, spot));
        }
    }

    /// Adds the hosts of a pattern to a group.
    pub(super) fn add_hosts(
        &mut self,
        pattern: &str,
        group: usize,
        spot: Spot,
    ) -> Result<Vec<usize>, InventoryError> {
        let room = NODE_LIMIT.saturating_sub(self.hosts.len());
        let (names, port) =
            super::names::expand(pattern, room.max(1)).or_else(|fault| self.wrong(spot, fault))?;
        names
            .into_iter()
            .map(|name| self.add_host(name, port, group, spot))
            .collect()
    }

    pub(super) fn add_host(
        &mut self,
        name: String,
        port: Option<u16>,
        group: usize,
        spot: Spot,
    ) -> Result<usize, InventoryError> {
        let index = match self.host_index.get(&name) {
            Some(&index) => {
                if let Some(port) = port {
                    self.same_port(index, port, spot)?;
                }
                index
            }
            None => {
                if self.hosts.len() == NODE_LIMIT {
                    return self.wrong(spot, hosts::too_many());
                }
                let mut variables = Variables::new();
                if let Some(port) = port {
                    let content = Content::Text(port.to_string());
                    variables.insert("ansible_port", Said { content, spot });
                }
                self.hosts.push(Host {
                    name: name.clone(),
                    variables,
                    groups: Vec::new(),
                    spot,
                });
                self.host_index.insert(name, self.hosts.len() - 1);
                self.hosts.len() - 1
            }
        };
        if !self.hosts[index].groups.contains(&group) {
            self.hosts[index].groups.push(group);
            self.groups[group].hosts.push(index);
        }
        Ok(index)
    }

    /// Ansible drops the port of a second `host:port` in silence, and reaches one machine twice.
    fn same_port(&self, host: usize, port: u16, spot: Spot) -> Result<(), InventoryError> {
        let host = &self.hosts[host];
        match host.variables.get("ansible_port") {
            Some(said) if said.content == Content::Text(port.to_string()) => Ok(()),
            _ => self.wrong(
                spot,
                InputError::new(format!(
                    "the host \"{}\" was named before without this port, which Ansible ignores here",
                    host.name
                ))
                .with_hint("give two machines two names, with ansible_host and ansible_port"),
            ),
        }
    }

    pub(super) fn set_on_host(
        &mut self,
        host: usize,
        name: &str,
        content: Content,
        spot: Spot,
    ) -> Result<(), InventoryError> {
        match self.known(name, spot)? {
            Some(known) if known != PRIORITY => {
                let said = Said { content, spot };
                self.hosts[host].variables.insert(known, said);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn set_on_group(
        &mut self,
        group: usize,
        name: &str,
        content: Content,
        spot: Spot,
    ) -> Result<(), InventoryError> {
        match self.known(name, spot)? {
            Some(PRIORITY) => {
                let number = match &content {
                    Content::Text(text) => text.trim().parse().ok(),
                    _ => None,
                };
                match number {
                    Some(number) => self.groups[group].priority = number,
                    None => {
                        return self
                            .wrong(spot, InputError::new(format!("{PRIORITY} is no number")));
                    }
                }
            }
            Some(known) => {
                self.groups[group]
                    .variables
                    .insert(known, Said { content, spot });
            }
            None => {}
        }
        Ok(())
    }

    fn known(&self, name: &str, spot: Spot) -> Result<Option<&'static str>, InventoryError> {
        variables::known(name).or_else(|fault| self.wrong(spot, fault))
    }

    /// The draft of all hosts in the order in which they were first named.
    ///
    /// A host that cannot be reached as its variables say becomes a refusal: an error only for those who
    /// select it.
    pub(in crate::inventory) fn into_draft(
        mut self,
        config: &Config,
    ) -> Result<Draft, InventoryError> {
        for host in 0..self.hosts.len() {
            let direct = &mut self.hosts[host].groups;
            if direct.iter().all(|group| *group <= UNGROUPED) {
                if !direct.contains(&UNGROUPED) {
                    direct.push(UNGROUPED);
                    self.groups[UNGROUPED].hosts.push(host);
                }
            } else if direct.contains(&UNGROUPED) {
                direct.retain(|group| *group != UNGROUPED);
                self.groups[UNGROUPED].hosts.retain(|other| *other != host);
            }
        }
        let ranks = match graph::ranks(&mut self.groups) {
            Ok(ranks) => ranks,
            Err((child, spot)) => {
                let name = &self.groups[child].name;
                let fault = InputError::new(format!("the group \"{name}\" is its own parent"))
                    .with_hint("remove it from one of the children lists");
                return self.wrong(spot, fault);
            }
        };
        let mut files = VarsFiles::open(&self.folders)?;
        let mut draft = Draft {
            source: self.files.names(),
            ..Draft::default()
        };
        draft.warnings.extend(config.warnings.iter().cloned());
        draft.warnings.extend(config.summary());
        for (variable, value, source, place) in &config.said {
            let content = variables::of_text(value.clone());
            let file = self.add_file(source);
            let spot = Spot {
                file,
                place: *place,
            };
            self.configured.insert(variable, Said { content, spot });
        }
        self.list_groups(&mut draft);
        let mut lineages: HashMap<Vec<usize>, Lineage> = HashMap::new();
        let (mut memberships, mut weight) = (0_usize, 0_usize);
        for host in 0..self.hosts.len() {
            let direct = self.hosts[host].groups.clone();
            if !lineages.contains_key(&direct) {
                let lineage = self.lineage(&direct, &ranks, &mut files)?;
                lineages.insert(direct.clone(), lineage);
            }
            let lineage = &lineages[&direct];
            memberships = memberships.saturating_add(lineage.nearest_first.len());
            if memberships > MEMBERSHIP_LIMIT {
                let fault = InputError::new("too many hosts in too many groups")
                    .with_hint("split the fleet");
                return self.wrong(self.hosts[host].spot, fault);
            }
            let own = &self.hosts[host];
            let mut said = lineage.variables.clone();
            said.extend(
                own.variables
                    .iter()
                    .map(|(name, said)| (*name, said.clone())),
            );
            let name = own.name.clone();
            files.add_host(&name, &mut self.files, &mut said)?;
            let own = &self.hosts[host];
            let mut mention = Mention {
                name: name.clone(),
                address: None,
                settings: layers::NodeSettings::default(),
                groups: lineage.nearest_first.clone(),
                place: own.spot.place,
            };
            let may_run = |spot| self.files.may_name_programs(spot);
            match settings::read(&own.name, own.spot, &said, self.home.as_deref(), &may_run) {
                Ok((address, settings)) => {
                    weight = weight.saturating_add(settings.weight());
                    if weight > layers::WEIGHT_LIMIT {
                        return self.wrong(own.spot, layers::too_heavy());
                    }
                    (mention.address, mention.settings) = (address, settings);
                }
                Err((spot, fault)) => {
                    let refusal = self.files.error(spot, fault);
                    draft.refusals.insert(name, refusal);
                }
            }
            draft.mentions.push(mention);
        }
        Ok(draft)
    }

    /// Gives the draft all groups, each with its members in Ansible's order.
    fn list_groups(&self, draft: &mut Draft) {
        let mut left = MEMBERSHIP_LIMIT;
        for (index, group) in self.groups.iter().enumerate() {
            draft.groups.push(Group {
                name: group.name.clone(),
                settings: layers::NodeSettings::default(),
            });
            let members = graph::members(&self.groups, index, left);
            left = left.saturating_sub(members.len());
            let names = members
                .into_iter()
                .map(|host| self.hosts[host].name.clone());
            draft.member_order.insert(index, names.collect());
        }
    }

    /// What hosts that stand in these groups inherit.
    fn lineage(
        &mut self,
        direct: &[usize],
        ranks: &[usize],
        files: &mut VarsFiles,
    ) -> Result<Lineage, InventoryError> {
        let mut groups = graph::ancestors(&self.groups, direct);
        groups.sort_by_key(|group| ranks[*group]);
        groups.retain(|group| *group != ALL);
        let mut said = self.configured.clone();
        let of_all = self.groups[ALL].variables.iter();
        said.extend(of_all.map(|(name, said)| (*name, said.clone())));
        for group in &groups {
            let own = self.groups[*group].variables.iter();
            said.extend(own.map(|(name, said)| (*name, said.clone())));
        }
        let names: Vec<String> = groups
            .iter()
            .map(|group| self.groups[*group].name.clone())
            .collect();
        files.add_groups(&["all".to_string()], &mut self.files, &mut said)?;
        files.add_groups(&names, &mut self.files, &mut said)?;
        groups.retain(|group| *group != UNGROUPED);
        groups.reverse();
        Ok(Lineage {
            variables: said,
            nearest_first: groups,
        })
    }
}

struct Lineage {
    variables: BTreeMap<&'static str, Said>,
    nearest_first: Vec<usize>,
}
