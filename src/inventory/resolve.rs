//! The fleet that drafts make together: only here is decided what a node gets from where.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::draft::{Draft, Group, Mention};
use super::error::{InputError, InventoryError, Position};
use super::hosts;
use super::layers::{self, NodeSettings, SshConfigSource, Unresolved};
use super::select::{self, Selection};
use crate::model::{Fleet, Node};

/// All mentions of one node, joined.
struct Joined<'a> {
    name: &'a str,
    address: Option<&'a str>,
    settings: NodeSettings,
    /// Draft and group.
    groups: Vec<(&'a Draft, &'a Group)>,
    /// Drafts that mention it, in order, with the first place in each.
    drafts: Vec<(&'a Draft, Position)>,
}

/// Makes the fleet: nodes in the order of their first mention.
///
/// # Errors
/// Two mentions of a node that disagree, too many nodes, a node without a user, no node at all.
pub fn resolve(
    drafts: &[Draft],
    selection: &Selection,
    strongest: &NodeSettings,
    background: SshConfigSource<'_>,
) -> Result<Fleet, InventoryError> {
    let mentions: usize = drafts.iter().map(|draft| draft.mentions.len()).sum();
    if mentions > hosts::NODE_LIMIT {
        let source = drafts.last().map(|draft| draft.source.clone());
        return Err(InventoryError::of_file(
            source.unwrap_or_default(),
            hosts::too_many(),
        ));
    }
    let drafts = &*separate_ports(drafts);
    let mut nodes = Vec::new();
    let mut weight = 0;
    let refusals: Vec<_> = drafts.iter().map(|draft| &draft.refusals).collect();
    let chosen = select::choose(selection, drafts)?;
    for joined in join(drafts)? {
        if chosen
            .as_ref()
            .is_some_and(|names| !names.contains(joined.name))
        {
            continue;
        }
        if let Some(refusal) = refusals.iter().find_map(|known| known.get(joined.name)) {
            return Err(refusal.clone());
        }
        nodes.push(joined.resolve(strongest, background, &mut weight)?);
    }
    // Names are unique after joining, so the one error left is an empty fleet.
    Fleet::new(nodes).map_err(|error| {
        let sources: Vec<_> = drafts.iter().map(|draft| draft.source.as_str()).collect();
        InventoryError::of_file(
            if sources.is_empty() {
                "inventory".into()
            } else {
                sources.join(", ")
            },
            InputError::new(error.to_string())
                .with_hint("list nodes under \"nodes:\" or name them with --hosts"),
        )
    })
}

/// Names a host `host:port` wherever expressions give it more than one port: behind one address may be
/// many machines, and each needs a name of its own.
fn separate_ports(drafts: &[Draft]) -> Cow<'_, [Draft]> {
    let mut ports: HashMap<&str, u16> = HashMap::new();
    let mut shared: HashSet<String> = HashSet::new();
    let expressions = drafts.iter().filter(|draft| draft.expressions);
    for mention in expressions.flat_map(|draft| &draft.mentions) {
        if let Some(port) = mention.settings.port
            && *ports.entry(&mention.name).or_insert(port) != port
        {
            shared.insert(mention.name.clone());
        }
    }
    if shared.is_empty() {
        return Cow::Borrowed(drafts);
    }
    let mut drafts = drafts.to_vec();
    let expressions = drafts.iter_mut().filter(|draft| draft.expressions);
    for mention in expressions.flat_map(|draft| &mut draft.mentions) {
        if let Some(port) = mention.settings.port
            && shared.contains(&mention.name)
        {
            let named = if mention.name.contains(':') {
                format!("[{}]:{port}", mention.name)
            } else {
                format!("{}:{port}", mention.name)
            };
            mention.address = Some(std::mem::replace(&mut mention.name, named));
        }
    }
    Cow::Owned(drafts)
}

fn join(drafts: &[Draft]) -> Result<Vec<Joined<'_>>, InventoryError> {
    let mut joined: Vec<Joined<'_>> = Vec::new();
    let mut known: HashMap<&str, usize> = HashMap::new();
    for draft in drafts {
        for mention in &draft.mentions {
            let index = *known.entry(&mention.name).or_insert_with(|| {
                joined.push(Joined::new(&mention.name));
                joined.len() - 1
            });
            joined[index].add(draft, mention)?;
        }
    }
    Ok(joined)
}

impl<'a> Joined<'a> {
    fn new(name: &'a str) -> Self {
        Self {
            name,
            address: None,
            settings: NodeSettings::default(),
            groups: Vec::new(),
            drafts: Vec::new(),
        }
    }

    fn add(&mut self, draft: &'a Draft, mention: &'a Mention) -> Result<(), InventoryError> {
        let differs = self
            .address
            .zip(mention.address.as_deref())
            .is_some_and(|(one, two)| one != two);
        let joined = if draft.gives_way {
            self.settings.fall_back_on(&mention.settings);
            Ok(())
        } else if differs {
            Err("address".to_string())
        } else {
            self.settings.join(&mention.settings)
        };
        if let Err(key) = joined {
            return Err(self.disagreement(draft, mention, &key));
        }
        self.address = self.address.or(mention.address.as_deref());
        for &index in &mention.groups {
            let group = (draft, &draft.groups[index]);
            if !self
                .groups
                .iter()
                .any(|(_, known)| std::ptr::eq(*known, group.1))
            {
                self.groups.push(group);
            }
        }
        if !self
            .drafts
            .iter()
            .any(|(known, _)| std::ptr::eq(*known, draft))
        {
            self.drafts.push((draft, mention.place));
        }
        Ok(())
    }

    fn first_place(&self) -> (&str, Position) {
        self.drafts
            .first()
            .map_or_else(Default::default, |(draft, place)| {
                (draft.source.as_str(), *place)
            })
    }

    fn disagreement(&self, draft: &Draft, mention: &Mention, key: &str) -> InventoryError {
        let first = self
            .drafts
            .first()
            .map_or_else(String::new, |(first, place)| {
                format!(" ({}:{}:{})", first.source, place.line, place.column)
            });
        InventoryError::at(
            &draft.source,
            mention.place,
            InputError::new(format!(
                "the node \"{}\" was mentioned before{first} with another {key}",
                self.name
            ))
            .with_hint(
                "say it once; two machines need two names: {name: ..., address: ..., port: ...}",
            ),
        )
    }

    fn resolve(
        self,
        strongest: &NodeSettings,
        background: SshConfigSource<'_>,
        weight: &mut usize,
    ) -> Result<Node, InventoryError> {
        let mut layers = vec![strongest, &self.settings];
        layers.extend(self.groups.iter().map(|(_, group)| &group.settings));
        layers.extend(self.drafts.iter().map(|(draft, _)| &draft.defaults));
        let bytes = layers.iter().map(|level| level.weight()).sum::<usize>();
        *weight = weight.saturating_add(bytes);
        if *weight > layers::WEIGHT_LIMIT {
            let (source, place) = self.first_place();
            return Err(InventoryError::at(source, place, layers::too_heavy()));
        }
        let mut groups: Vec<String> = Vec::new();
        for (_, group) in &self.groups {
            if !groups.contains(&group.name) {
                groups.push(group.name.clone());
            }
        }
        let address = self.address.map(str::to_string);
        let name = self.name.to_string();
        let also_by_name = self.drafts.iter().any(|(draft, _)| draft.gives_way);
        let resolved = layers::resolve(name, address, groups, &layers, also_by_name, background);
        resolved.map_err(|unresolved| {
            let (source, place) = self.first_place();
            let fault = match unresolved {
                Unresolved::Refused(sentence) => InputError::new(sentence),
                Unresolved::NoUser => {
                    InputError::new(format!("nobody says who logs in to \"{}\"", self.name))
                        .with_hint("add \"user:\" to the node or to \"defaults:\", or use --user")
                }
            };
            InventoryError::at(source, place, fault)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::built_in;

    fn resolve(
        drafts: &[Draft],
        strongest: &NodeSettings,
        background: SshConfigSource<'_>,
    ) -> Result<Fleet, InventoryError> {
        super::resolve(drafts, &Selection::default(), strongest, background)
    }

    fn mention(name: &str, line: u32, settings: NodeSettings) -> Mention {
        Mention {
            name: name.into(),
            address: None,
            settings,
            groups: vec![],
            place: Position { line, column: 3 },
        }
    }

    fn draft(source: &str, mentions: Vec<Mention>) -> Draft {
        Draft {
            source: source.into(),
            mentions,
            ..Draft::default()
        }
    }

    fn user(name: &str) -> NodeSettings {
        NodeSettings {
            user: Some(name.into()),
            ..NodeSettings::default()
        }
    }

    #[test]
    fn mentions_in_two_sources_are_one_node() {
        let one = draft(
            "a.yml",
            vec![mention("n", 1, user("ops")), mention("m", 2, user("ops"))],
        );
        let two = draft(
            "b.yml",
            vec![mention(
                "n",
                1,
                NodeSettings {
                    port: Some(2222),
                    ..NodeSettings::default()
                },
            )],
        );
        let fleet = resolve(&[one, two], &NodeSettings::default(), &built_in("")).unwrap();
        let seen: Vec<_> = fleet
            .nodes()
            .iter()
            .map(|node| (node.name.as_str(), node.user.as_str(), node.port))
            .collect();
        assert_eq!(seen, [("n", "ops", 2222), ("m", "ops", 22)]);
    }

    #[test]
    fn mentions_that_disagree_are_an_error_with_both_places() {
        let drafts = [
            draft("a.yml", vec![mention("n", 4, user("ops"))]),
            draft("b.yml", vec![mention("n", 7, user("root"))]),
        ];
        let error = resolve(&drafts, &NodeSettings::default(), &built_in("")).unwrap_err();
        let shown = error.to_string();
        assert!(shown.starts_with("b.yml:7:3: "), "{shown}");
        assert!(shown.contains("(a.yml:4:3) with another user"), "{shown}");
    }

    #[test]
    fn a_node_without_a_user_is_an_error_at_its_place() {
        let drafts = [draft(
            "a.yml",
            vec![mention("n", 4, NodeSettings::default())],
        )];
        let error = resolve(&drafts, &NodeSettings::default(), &built_in("")).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("a.yml:4:3: nobody says who logs in"),
            "{error}"
        );
    }

    #[test]
    fn the_command_line_beats_the_entry_and_the_built_in_is_last() {
        let drafts = [draft("a.yml", vec![mention("n", 4, user("ops"))])];
        let fleet = resolve(&drafts, &user("root"), &built_in("nobody")).unwrap();
        assert_eq!(fleet.nodes()[0].user, "root");
        let drafts = [draft(
            "a.yml",
            vec![mention("n", 4, NodeSettings::default())],
        )];
        let fleet = resolve(&drafts, &NodeSettings::default(), &built_in("nobody")).unwrap();
        assert_eq!(fleet.nodes()[0].user, "nobody");
    }

    #[test]
    fn no_node_at_all_is_an_error_that_names_the_source() {
        let nothing = NodeSettings::default();
        let error = resolve(&[draft("a.yml", vec![])], &nothing, &built_in("")).unwrap_err();
        assert!(
            error.to_string().starts_with("a.yml: the fleet is empty"),
            "{error}"
        );
    }

    fn expressions(text: &str) -> Vec<Draft> {
        let no_file = |path: &str| panic!("{path} was read");
        let no_group = |text: &str, _| panic!("{text} was looked up");
        super::super::lines::read_option(text, no_file, no_group).unwrap()
    }

    fn named(drafts: &[Draft]) -> Vec<(String, String, u16)> {
        let fleet = resolve(drafts, &NodeSettings::default(), &built_in("ops")).unwrap();
        let nodes = fleet.nodes().iter();
        nodes
            .map(|node| (node.name.clone(), node.address.clone(), node.port))
            .collect()
    }

    fn node(name: &str, address: &str, port: u16) -> (String, String, u16) {
        (name.into(), address.into(), port)
    }

    #[test]
    fn one_host_under_two_explicit_ports_is_two_nodes() {
        let drafts = expressions("127.0.0.1:2201,127.0.0.1:2202,n:22,[::1]:1,[::1]:2");
        assert_eq!(
            named(&drafts),
            [
                node("127.0.0.1:2201", "127.0.0.1", 2201),
                node("127.0.0.1:2202", "127.0.0.1", 2202),
                node("n", "n", 22),
                node("[::1]:1", "::1", 1),
                node("[::1]:2", "::1", 2),
            ]
        );
        let drafts = [expressions("a:1,b:1"), expressions("a:2,a")].concat();
        assert_eq!(
            named(&drafts),
            [
                node("a:1", "a", 1),
                node("b", "b", 1),
                node("a:2", "a", 2),
                node("a", "a", 22)
            ]
        );
    }

    #[test]
    fn two_users_of_one_host_and_port_are_an_error_with_both_places() {
        let nothing = NodeSettings::default();
        let drafts = expressions("a:2201,ops@a:2202,root@a:2202");
        let error = resolve(&drafts, &nothing, &built_in(""))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("--hosts:1:19: the node \"a:2202\""),
            "{error}"
        );
        assert!(error.contains("(--hosts:1:8) with another user"), "{error}");
    }
}
