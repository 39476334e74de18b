//! The table of custom resources that name images: `kinds.tsv`, where each line has its source.

use std::sync::LazyLock;

/// What a line of the table says about its paths, or about the whole resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// An image stands there.
    Image,
    /// An address stands there: of an image behind `oci://`, of one that a node may pull behind `docker://`, else of
    /// none.
    Address,
    /// A repository stands there, and its version in a field of its own.
    Versioned,
    /// The same, and the tag is the version as k0smotron writes it.
    K0s,
    /// An image stands there that a node may never pull.
    Candidate,
    /// Nothing there is an image that a node pulls.
    Ignored,
    /// The resource judges or changes others: what stands in it are patterns.
    Policy,
}

/// A line of the table.
#[derive(Debug)]
pub(super) struct Rule {
    group: &'static str,
    kinds: Vec<&'static str>,
    /// What the line says.
    pub(super) meaning: Meaning,
    /// The field that the version stands in, beside the repository or in `spec`; `None`: one of the usual ones beside it.
    pub(super) version: Option<&'static str>,
    path: Vec<&'static str>,
}

const TABLE: &str = include_str!("kinds.tsv");

static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let lines = TABLE.lines().filter(|line| !line.starts_with('#'));
    lines.flat_map(rules_of).collect()
});

fn rules_of(line: &'static str) -> Vec<Rule> {
    let mut columns = line.split('\t');
    let mut next = || columns.next().unwrap_or_default();
    let (group, kinds, meaning, paths) = (next(), next(), next(), next());
    let (meaning, version) = match meaning.split_once(':') {
        Some((meaning, key)) => (meaning, Some(key)),
        None => (meaning, (meaning == "k0s").then_some("version")),
    };
    let meaning = match meaning {
        "image" => Meaning::Image,
        "address" => Meaning::Address,
        "versioned" => Meaning::Versioned,
        "k0s" => Meaning::K0s,
        "candidate" => Meaning::Candidate,
        "policy" => Meaning::Policy,
        _ => Meaning::Ignored,
    };
    let rule = |path: &'static str| Rule {
        group,
        kinds: kinds.split(',').collect(),
        meaning,
        version,
        path: path.split('.').collect(),
    };
    paths.split(' ').map(rule).collect()
}

/// The lines about a resource.
pub(super) fn rules(group: &str, kind: &str) -> Vec<&'static Rule> {
    let group = if group.is_empty() { "core" } else { group };
    let is_about = |rule: &&Rule| {
        let of_group = match rule.group.strip_prefix("*.") {
            Some(parent) => group
                .strip_suffix(parent)
                .is_some_and(|rest| rest.ends_with('.')),
            None => rule.group == group,
        };
        of_group && (rule.kinds == ["*"] || rule.kinds.contains(&kind))
    };
    RULES.iter().filter(is_about).collect()
}

impl Rule {
    /// Whether the line is about all of the resource.
    pub(super) fn is_whole(&self) -> bool {
        self.path == ["**"]
    }

    /// Whether the version of what stands there has a field of its own.
    pub(super) fn is_versioned(&self) -> bool {
        matches!(self.meaning, Meaning::Versioned | Meaning::K0s)
    }

    /// Whether the line is about the field at this path; lists have no element in it.
    pub(super) fn covers(&self, path: &[&str]) -> bool {
        covers(&self.path, path)
    }
}

fn covers(pattern: &[&str], path: &[&str]) -> bool {
    match (pattern, path) {
        ([], []) => true,
        (["**", rest @ ..], _) => (0..=path.len()).any(|at| covers(rest, &path[at..])),
        ([first, rest @ ..], [key, keys @ ..]) => {
            let fits = match first.strip_prefix('*') {
                Some(end) => key.ends_with(end),
                None => first == key,
            };
            fits && covers(rest, keys)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_whole_and_in_order() {
        let lines: Vec<&str> = TABLE
            .lines()
            .filter(|line| !line.starts_with('#'))
            .collect();
        assert!(lines.len() > 80, "{}", lines.len());
        assert!(lines.is_sorted(), "the table is not in order");
        for line in lines {
            let columns: Vec<&str> = line.split('\t').collect();
            let [group, kinds, meaning, paths, source] = columns[..] else {
                panic!("not five columns: {line}")
            };
            let plain = |text: &str| !text.is_empty() && !text.contains(char::is_whitespace);
            assert!(plain(group) && plain(kinds) && !source.is_empty(), "{line}");
            assert!(
                [
                    "address",
                    "candidate",
                    "ignored",
                    "image",
                    "k0s",
                    "policy",
                    "versioned"
                ]
                .contains(&meaning.split(':').next().unwrap_or_default()),
                "{line}"
            );
            assert!(paths.split(' ').all(plain), "{line}");
        }
    }

    #[test]
    fn paths_are_matched_key_by_key() {
        for (pattern, path, fits) in [
            ("spec.image", "spec.image", true),
            ("spec.image", "spec.x.image", false),
            ("**.image", "spec.x.image", true),
            ("**.image", "image", true),
            ("**.*Image", "spec.initImage", true),
            ("**.*Image", "spec.image", false),
            ("spec.images.*", "spec.images.a", true),
            ("spec.images.*", "spec.images", false),
            ("**", "", true),
        ] {
            let split = |text: &'static str| {
                text.split('.')
                    .filter(|key| !key.is_empty())
                    .collect::<Vec<_>>()
            };
            assert_eq!(
                covers(&split(pattern), &split(path)),
                fits,
                "{pattern} {path}"
            );
        }
        assert!(!rules("compute.azure.com", "Disk").is_empty());
        assert!(rules("azure.com", "Disk").is_empty());
    }
}
