//! `--limit` and `--exclude`: Ansible's patterns of hosts and groups.
//!
//! `a,b` or `a:b` is both, `&a` only those also in a, `!a` without those in a; first all plain ones are
//! joined, then `&`, then `!`. A pattern is a node's name, a group, a glob, `~` and a regular expression, or
//! a pattern with a subscript (`web[0]`, `web[0:2]` with both ends). `@FILE` has a pattern a line. Not as in
//! Ansible, a pattern that matches nothing is an error, and ranges of names are understood as prepull prints them
//! (`web[1-3,7].example`).

use std::collections::{HashMap, HashSet};
use std::path::Path;

use regex::{Regex, RegexBuilder};

use super::draft::Draft;
use super::error::{InputError, InventoryError};
use super::{hosts, read, suggest};
use crate::model::text::{escape_line, format_count};

/// Bytes that one compiled pattern may take.
const PATTERN_LIMIT: usize = 1024 * 1024;
/// How many names are listed where one is not known.
const LISTED: usize = 20;

/// Which nodes of an inventory are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only these, where there is one.
    pub limit: Vec<String>,
    /// Without these.
    pub exclude: Vec<String>,
}

/// The names of the nodes that are wanted; `None` is all of them.
pub(super) fn choose(
    selection: &Selection,
    drafts: &[Draft],
) -> Result<Option<HashSet<String>>, InventoryError> {
    if selection.limit.is_empty() && selection.exclude.is_empty() {
        return Ok(None);
    }
    let known = Known::new(drafts);
    let mut chosen: HashSet<String> = if selection.limit.is_empty() {
        known.nodes.iter().map(ToString::to_string).collect()
    } else {
        known.matching("--limit", &selection.limit)?
    };
    if !selection.exclude.is_empty() {
        for name in known.matching("--exclude", &selection.exclude)? {
            chosen.remove(&name);
        }
    }
    if chosen.is_empty() {
        let fault =
            InputError::new("no node is left").with_hint("widen --limit or narrow --exclude");
        return Err(InventoryError::of_file("--limit, --exclude", fault));
    }
    Ok(Some(chosen))
}

/// All names, and the members of all groups, in order.
struct Known<'a> {
    nodes: Vec<&'a str>,
    is_node: HashSet<&'a str>,
    groups: Vec<(&'a str, Vec<&'a str>)>,
}

impl<'a> Known<'a> {
    fn new(drafts: &'a [Draft]) -> Self {
        let mut known = Self {
            nodes: Vec::new(),
            is_node: HashSet::new(),
            groups: vec![("all", Vec::new()), ("ungrouped", Vec::new())],
        };
        let mut index = HashMap::from([("all", 0), ("ungrouped", 1)]);
        for draft in drafts {
            let places: Vec<usize> = draft
                .groups
                .iter()
                .map(|group| {
                    *index.entry(group.name.as_str()).or_insert_with(|| {
                        known.groups.push((&group.name, Vec::new()));
                        known.groups.len() - 1
                    })
                })
                .collect();
            for (group, members) in &draft.member_order {
                let names = members.iter().map(String::as_str);
                known.groups[places[*group]].1.extend(names);
            }
            for mention in &draft.mentions {
                let name = mention.name.as_str();
                if known.is_node.insert(name) {
                    known.nodes.push(name);
                }
                if !draft.member_order.is_empty() {
                    continue;
                }
                known.groups[0].1.push(name);
                if mention.groups.is_empty() {
                    known.groups[1].1.push(name);
                }
                for group in &mention.groups {
                    known.groups[places[*group]].1.push(name);
                }
            }
        }
        for (_, members) in &mut known.groups {
            let mut seen = HashSet::new();
            members.retain(|name| seen.insert(*name));
        }
        known
    }

    fn matching(
        &self,
        option: &str,
        patterns: &[String],
    ) -> Result<HashSet<String>, InventoryError> {
        let mut terms = Vec::new();
        for pattern in patterns {
            for term in self.split(pattern) {
                match term.strip_prefix('@') {
                    Some(path) => {
                        let text = read::file(Path::new(path)).map_err(|error| {
                            let file = format!("{option} @{path}");
                            InventoryError { file, ..error }
                        })?;
                        let lines = text.lines().map(str::trim);
                        let said = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
                        terms.extend(said.map(str::to_string));
                    }
                    None => terms.push(term.to_string()),
                }
            }
        }
        let found = |term: &str| {
            let hosts = self.one(term);
            hosts.map_err(|fault| InventoryError::of_file(option, fault))
        };
        let is_plain = |term: &&String| !term.starts_with(['!', '&']);
        let mut chosen: HashSet<&str> = HashSet::new();
        if terms.iter().any(|term| is_plain(&term)) {
            for term in terms.iter().filter(is_plain) {
                chosen.extend(found(term)?);
            }
        } else if terms.is_empty() {
            return Err(InventoryError::of_file(
                option,
                InputError::new("the pattern is empty"),
            ));
        } else {
            chosen.extend(&self.nodes);
        }
        for term in terms.iter().filter_map(|term| term.strip_prefix('&')) {
            let kept: HashSet<&str> = found(term)?.into_iter().collect();
            chosen.retain(|name| kept.contains(name));
        }
        for term in terms.iter().filter_map(|term| term.strip_prefix('!')) {
            for name in found(term)? {
                chosen.remove(name);
            }
        }
        Ok(chosen.into_iter().map(str::to_string).collect())
    }

    /// Splits at commas outside brackets; without any, at colons outside brackets, unless the whole is a node's name
    /// or an IPv6 address.
    fn split<'t>(&self, text: &'t str) -> Vec<&'t str> {
        let text = text.trim();
        let name = text.trim_start_matches(['!', '&']);
        let whole = self.is_node.contains(name) || name.parse::<std::net::Ipv6Addr>().is_ok();
        let has_comma = outside_brackets(text).any(|(_, sign)| sign == ',');
        let sign = if has_comma { ',' } else { ':' };
        let mut pieces = Vec::new();
        let mut begin = 0;
        for (at, _) in outside_brackets(text).filter(|(_, c)| !whole && *c == sign) {
            pieces.push(&text[begin..at]);
            begin = at + 1;
        }
        pieces.push(&text[begin..]);
        pieces
            .into_iter()
            .map(str::trim)
            .filter(|piece| !piece.is_empty())
            .collect()
    }

    /// The groups that there are, or else some of the nodes.
    fn listed(&self) -> String {
        let own = self.groups.iter().skip(2).map(|(name, _)| *name);
        let (what, all): (_, Vec<&str>) = match own.clone().next() {
            Some(_) => ("groups", own.collect()),
            None => ("nodes", self.nodes.clone()),
        };
        let shown = all.iter().take(LISTED).map(|name| escape_line(name));
        let shown = shown.collect::<Vec<_>>().join(", ");
        match all.len().saturating_sub(LISTED) {
            0 => format!("the {what} are: {shown}"),
            more => format!("the {what} are: {shown} and {more} more"),
        }
    }

    /// What a pattern such as `web[1-3,7]` means as a range of names.
    fn range(&self, pattern: &str) -> NameRange<'a> {
        let inside = pattern.split_once('[').map_or("", |(_, inside)| inside);
        // Ansible's own subscripts have a colon, and a single number is one.
        let names = match inside.contains(['-', ',']) && !inside.contains(':') {
            true => hosts::expand(pattern).unwrap_or_default(),
            false => Vec::new(),
        };
        let nodes = names
            .iter()
            .filter_map(|spec| self.is_node.get(&*spec.host));
        let nodes: Vec<&str> = nodes.copied().collect();
        NameRange {
            is_whole: !names.is_empty() && nodes.len() == names.len(),
            nodes,
        }
    }

    /// The nodes that one pattern without its sign matches, in order.
    fn one(&self, pattern: &str) -> Result<Vec<&'a str>, InputError> {
        if let Some(name) = self.is_node.get(pattern) {
            return Ok(vec![*name]);
        }
        let range = self.range(pattern);
        if range.is_whole {
            return Ok(range.nodes);
        }
        let (plain, subscript) = subscript(pattern);
        let matcher = matcher(plain)?;
        let mut hosts = Vec::new();
        let mut group_matched = false;
        for (name, members) in &self.groups {
            if matcher.is_match(name) {
                group_matched = true;
                hosts.extend(members);
            }
        }
        if !group_matched || plain.starts_with('~') || plain.contains(['.', '?', '*', '[']) {
            hosts.extend(self.nodes.iter().filter(|name| matcher.is_match(name)));
        }
        let mut seen = HashSet::new();
        hosts.retain(|name| seen.insert(*name));
        if hosts.is_empty() && !range.nodes.is_empty() {
            return Ok(range.nodes);
        }
        let all = hosts.len();
        if let Some((first, last)) = subscript {
            let at = |index: i64| match usize::try_from(index) {
                Ok(index) => index,
                Err(_) => all.saturating_sub(usize::try_from(-index).unwrap_or(usize::MAX)),
            };
            // Before the first one is nothing, as after the last one.
            let within = first >= 0 || usize::try_from(-first).is_ok_and(|back| back <= all);
            let (first, last) = (at(first), at(last).min(all.wrapping_sub(1)));
            hosts = hosts
                .get(first..=last)
                .filter(|_| within && all > 0)
                .unwrap_or_default()
                .to_vec();
        }
        if hosts.is_empty() {
            let fault = InputError::new(if all > 0 {
                format!(
                    "\"{pattern}\" matches nothing: \"{plain}\" has {}, counted from 0",
                    format_count(all, "node")
                )
            } else {
                format!("\"{pattern}\" matches no node and no group")
            });
            if all > 0 {
                return Err(fault);
            }
            let groups = self.groups.iter().map(|(name, _)| *name);
            let names: Vec<&str> = self.nodes.iter().copied().chain(groups).collect();
            return Err(fault.with_hint(match suggest::nearest(plain, &names) {
                Some(name) => format!("did you mean \"{name}\"?"),
                None => self.listed(),
            }));
        }
        Ok(hosts)
    }
}

/// The characters of a text that stand in no brackets.
fn outside_brackets(text: &str) -> impl Iterator<Item = (usize, char)> {
    let mut depth = 0_u32;
    text.char_indices().filter(move |(_, c)| {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0
    })
}

/// A pattern as a range of names.
struct NameRange<'a> {
    /// Those of them that are nodes.
    nodes: Vec<&'a str>,
    /// Whether all of them are: then nothing else can be meant.
    is_whole: bool,
}

/// `pattern[1]`, `pattern[0:2]` and `pattern[1:]`; a negative number counts from the end.
fn subscript(pattern: &str) -> (&str, Option<(i64, i64)>) {
    let read = || {
        let (plain, inside) = pattern.strip_suffix(']')?.rsplit_once('[')?;
        if plain.is_empty() || plain.starts_with('~') {
            return None;
        }
        let Some((first, last)) = inside
            .split_once([':', '-'])
            .filter(|(first, _)| !first.is_empty())
        else {
            let index = inside.parse().ok()?;
            return Some((plain, Some((index, index))));
        };
        let last = if last.is_empty() {
            -1
        } else {
            last.parse().ok()?
        };
        Some((plain, Some((first.parse().ok()?, last))))
    };
    read().unwrap_or((pattern, None))
}

/// A regular expression after `~`, which must match from the start, or a glob, which must match all.
fn matcher(pattern: &str) -> Result<Regex, InputError> {
    let expression = match pattern.strip_prefix('~') {
        Some(expression) => format!("^(?:{expression})"),
        None => format!("^(?s:{})$", glob(pattern)),
    };
    let built = RegexBuilder::new(&expression)
        .size_limit(PATTERN_LIMIT)
        .build();
    built.map_err(|_| {
        InputError::new(format!("\"{pattern}\" is no pattern that can be read"))
            .with_hint("look-around and back-references are not supported")
    })
}

/// `*`, `?`, `[abc]`, `[!abc]` as a regular expression.
fn glob(pattern: &str) -> String {
    let mut out = String::new();
    let mut rest = pattern;
    while let Some(character) = rest.chars().next() {
        rest = &rest[character.len_utf8()..];
        let class = (character == '[')
            .then(|| rest.get(1..)?.find(']'))
            .flatten();
        match (character, class) {
            ('*', _) => out.push_str(".*"),
            ('?', _) => out.push('.'),
            ('[', Some(end)) => {
                let inside = &rest[..=end];
                rest = &rest[end + 2..];
                let (sign, inside) = match inside.strip_prefix('!') {
                    Some(inside) => ("^", inside),
                    None => ("", inside),
                };
                out.push('[');
                out.push_str(sign);
                for character in inside.chars() {
                    if !(character == '-' || character.is_alphanumeric()) {
                        out.push('\\');
                    }
                    out.push(character);
                }
                out.push(']');
            }
            (other, _) => out.push_str(&regex::escape(other.encode_utf8(&mut [0; 4]))),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::{Group, Mention, NodeSettings, Position};

    fn drafts() -> Vec<Draft> {
        let mention = |name: &str, groups: &[usize]| Mention {
            name: name.into(),
            address: None,
            settings: NodeSettings::default(),
            groups: groups.to_vec(),
            place: Position::default(),
        };
        let group = |name: &str| Group {
            name: name.into(),
            settings: NodeSettings::default(),
        };
        vec![Draft {
            groups: vec![group("web"), group("db")],
            mentions: vec![
                mention("w1.x", &[0]),
                mention("w2.x", &[0, 1]),
                mention("d1", &[1]),
                mention("e:22", &[]),
            ],
            ..Draft::default()
        }]
    }

    fn chosen(limit: &str) -> String {
        let selection = Selection {
            limit: vec![limit.into()],
            exclude: vec![],
        };
        match choose(&selection, &drafts()) {
            Ok(chosen) => {
                let mut names: Vec<_> = chosen.unwrap().into_iter().collect();
                names.sort();
                names.join(" ")
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn patterns_are_ansibles() {
        for (limit, names) in [
            ("web", "w1.x w2.x"),
            ("all", "d1 e:22 w1.x w2.x"),
            ("ungrouped", "e:22"),
            ("e:22", "e:22"),
            ("w1.x,d1", "d1 w1.x"),
            ("web:d1", "d1 w1.x w2.x"),
            ("web:&db", "w2.x"),
            ("web:!db", "w1.x"),
            ("!web", "d1 e:22"),
            ("w*", "w1.x w2.x"),
            ("w[13]*", "w1.x"),
            ("w[!1].x", "w2.x"),
            ("~w[0-9]\\.x", "w1.x w2.x"),
            ("web[0]", "w1.x"),
            ("web[-1]", "w2.x"),
            ("web[0:1]", "w1.x w2.x"),
            ("all[1:]", "d1 e:22 w2.x"),
        ] {
            assert_eq!(chosen(limit), names, "{limit}");
        }
    }

    #[test]
    fn what_prepull_prints_means_the_same_nodes() {
        let group = |name: &str| Group {
            name: name.into(),
            settings: NodeSettings::default(),
        };
        let names: Vec<String> = (1..=12)
            .map(|number| format!("web{number}"))
            .chain((7..=11).map(|number| format!("n-{number:02}.dc1.x")))
            .chain(["gateway".to_string()])
            .collect();
        let mention = |name: &String| Mention {
            name: name.clone(),
            address: None,
            settings: NodeSettings::default(),
            groups: if name.starts_with("web") {
                vec![0]
            } else {
                vec![]
            },
            place: Position::default(),
        };
        let drafts = [Draft {
            groups: vec![group("web")],
            mentions: names.iter().map(mention).collect(),
            ..Draft::default()
        }];
        let chosen = |limit: String| {
            let selection = Selection {
                limit: vec![limit],
                exclude: vec![],
            };
            let chosen = choose(&selection, &drafts).unwrap().unwrap();
            let mut chosen: Vec<_> = chosen.into_iter().collect();
            chosen.sort_by_key(|name| names.iter().position(|one| one == name));
            chosen
        };
        let few: Vec<String> = [0, 1, 2, 6, 13, 14, 16, 17]
            .map(|place: usize| names[place].clone())
            .to_vec();
        for wanted in [&names, &few] {
            let wanted_names: Vec<&str> = wanted.iter().map(String::as_str).collect();
            let folded = crate::model::fold(&wanted_names);
            let printed: Vec<String> = folded.into_iter().map(|(text, _)| text).collect();
            assert_eq!(chosen(printed.join(", ")), *wanted, "{printed:?}");
        }
        // A range that goes on beyond the last node, and Ansible's subscripts of the group.
        let last = ["n-10.dc1.x", "n-11.dc1.x"];
        assert_eq!(chosen("n-[10-20].dc1.x".into()), last);
        assert_eq!(chosen("web[0:1]".into()), ["web1", "web2"]);
        assert_eq!(chosen("web[0-1]".into()), ["web1", "web2"]);
        assert_eq!(chosen("web[1]".into()), ["web2"]);
    }

    #[test]
    fn a_pattern_that_matches_nothing_is_an_error_with_a_near_name() {
        for (limit, part) in [
            ("wbe", "did you mean \"web\"?"),
            ("elsewhere", "the groups are: web, db"),
            ("w[1-2].y", "matches no node and no group"),
            ("web,!ungruped", "did you mean \"ungrouped\"?"),
            ("web[7]", "has 2 nodes"),
            ("web[-3]", "has 2 nodes"),
            ("web:!web", "no node is left"),
            ("~(", "no pattern"),
            (",", "empty"),
            ("@/no/such", "cannot open"),
        ] {
            assert!(chosen(limit).contains(part), "{limit}: {}", chosen(limit));
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_patterns_never_panic(limit in "[wx1\\[\\]!&:~*?,.-]{0,12}|\\PC*") {
            proptest::prop_assume!(!limit.contains('@'));
            let _ = chosen(&limit);
        }
    }
}
