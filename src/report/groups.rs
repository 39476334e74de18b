//! What is not as it should be, grouped by cause: a thousand nodes with one trouble are one thing to read.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::RunResult;
use super::cause::cause;
use super::format::{escape_truncated, truncate_middle};
use crate::model::{ExitStatus, Failure, FailureKind, Outcome, Plan, Record, Stage};

/// The longest example of a cause, in characters.
const EXAMPLE: usize = 300;
/// The same where two fingerprints are in it: cut in the middle, one would be taken for the other.
const HOST_KEY_EXAMPLE: usize = 600;

/// What tells one cause from another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Cause {
    kind: String,
    stage: Option<Stage>,
    /// The image, where it is about one of several.
    image: Option<usize>,
    part: Option<NodePart>,
    words: String,
}

/// Nodes with one cause.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Group {
    /// The cause in short, e.g. `registry-auth (pull)`, `missing: IMAGE`.
    pub(super) what: String,
    /// The stage of a failure, and the image where it is about one of several.
    pub(super) about: String,
    /// What one of the nodes said, escaped; empty where the cause says it all.
    pub(super) example: String,
    /// The sort of the failure, if it is one.
    pub(super) kind: Option<FailureKind>,
    /// Where it failed.
    stage: Option<Stage>,
    /// What of the node's own keeps it from the registry, where other nodes reach that one.
    pub(super) part: Option<NodePart>,
    /// The nodes by number, each once, in the order in which it hit them.
    pub(super) nodes: Vec<usize>,
    /// Host keys: the fingerprints that each node's failure tells, the one that it offers first.
    pub(super) fingerprints: Vec<(usize, Vec<String>)>,
}

impl Group {
    /// The kind's public name, which several kinds may share.
    pub(super) fn kind_word(&self) -> Option<&'static str> {
        self.kind.map(FailureKind::as_str)
    }

    /// What to do next.
    pub(super) fn advice(&self) -> Option<&'static str> {
        if let Some(part) = self.part {
            return Some(part.advice());
        }
        match (self.kind?, self.stage) {
            // It has two causes that are not about the runtime.
            (FailureKind::NodeSetup, Some(Stage::Start)) => Some(
                "Let the account run commands over SSH: its login shell, its start-up files and sshd's ForceCommand decide that.",
            ),
            (FailureKind::NodeSetup, Some(Stage::Preflight)) => Some(
                "Set the node's clock (`timedatectl`, chrony), then run the same command again.",
            ),
            (kind, _) => Some(kind.advice()),
        }
    }
}

/// What a node has of its own between itself and a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum NodePart {
    NameServer,
    Proxy,
    Way,
}

impl NodePart {
    /// The part that failed, by the words of Go's `net` and `net/http`, in which all runtimes are written.
    fn of(failure: &Failure) -> Option<Self> {
        let is_about_a_registry = matches!(
            failure.kind,
            FailureKind::RegistryUnavailable | FailureKind::RegistryUnresolved
        );
        if !is_about_a_registry {
            return None;
        }
        if failure.detail.contains("proxyconnect ") {
            return Some(Self::Proxy);
        }
        if failure.kind == FailureKind::RegistryUnresolved
            || failure.detail.contains("dial tcp: lookup ")
        {
            return Some(Self::NameServer);
        }
        // Asked at the same time as the others. Later, a registry may have been away for a moment.
        let is_dialled = failure.stage == Stage::Preflight && failure.detail.contains("dial tcp ");
        is_dialled.then_some(Self::Way)
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::NameServer => "the node's name server",
            Self::Proxy => "the node's proxy",
            Self::Way => "the node's way there",
        }
    }

    fn advice(self) -> &'static str {
        match self {
            Self::NameServer => {
                "Other nodes reach the registry: check /etc/resolv.conf and /etc/hosts on the node, and the name server that they lead to."
            }
            Self::Proxy => {
                "Other nodes reach the registry: check the proxy that the node's runtime uses (HTTPS_PROXY and NO_PROXY of its service)."
            }
            Self::Way => {
                "Other nodes reach the registry: check the node's route, its firewall, and what /etc/hosts says of the registry."
            }
        }
    }
}

/// The groups of a finished run: failures first, those of one kind together, the kinds and groups with most nodes
/// first.
pub(super) fn groups(result: &RunResult) -> Vec<Group> {
    let mut causes = FailureGroups::default();
    for (node, record) in result.nodes.iter().enumerate() {
        for (item, record) in record.items.iter().enumerate() {
            causes.outcome(&result.info.plan, node, item, &record.outcome);
        }
    }
    let mut groups = causes.groups;
    for group in &mut groups {
        match group.part {
            Some(part) if others_reach_it(result, group) => {
                group.about = format!("{}, {}", group.about, part.as_str());
                group.what = format!(
                    "{} ({})",
                    group.kind_word().unwrap_or_default(),
                    group.about
                );
            }
            _ => group.part = None,
        }
    }
    let word = Group::kind_word;
    let mut kinds: BTreeMap<_, usize> = BTreeMap::new();
    for group in &groups {
        *kinds.entry(word(group)).or_default() += group.nodes.len();
    }
    groups.sort_by_key(|group| {
        let (kind, size) = (word(group), group.nodes.len());
        // What was left out is a consequence.
        (
            kind.is_none(),
            Reverse(kinds.get(&kind).copied()),
            kind,
            group.advice(),
            Reverse(size),
        )
    });
    groups
}

/// Whether a registry answered any node outside this group. A run that its preflight stopped has asked all of them.
fn others_reach_it(result: &RunResult, group: &Group) -> bool {
    let was_reached = |record: &Record| match &record.outcome {
        Outcome::Pulled(_) => true,
        Outcome::Probed(facts) => facts.unusable_registries.is_empty(),
        Outcome::NotRun(_) => group.stage == Some(Stage::Preflight),
        Outcome::Failed(failure) => {
            failure.stage == Stage::Pull
                && matches!(
                    failure.kind,
                    FailureKind::RegistryAuth
                        | FailureKind::RegistryAuthExpired
                        | FailureKind::ImageNotFound
                        | FailureKind::RateLimited
                        | FailureKind::DiskFull
                )
        }
        Outcome::Present(_) | Outcome::Missing | Outcome::Ran(_) => false,
    };
    let mut others =
        (result.nodes.iter().enumerate()).filter(|(node, _)| !group.nodes.contains(node));
    others.any(|(_, node)| node.items.iter().any(was_reached))
}

/// Causes with the nodes that they hit.
#[derive(Debug, Clone, Default)]
pub struct FailureGroups {
    places: BTreeMap<Cause, usize>,
    groups: Vec<Group>,
}

impl FailureGroups {
    /// All groups, in order of appearance.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Takes note of a failure. Returns the place of its group.
    pub fn failure(&mut self, plan: &Plan, node: usize, item: usize, failure: &Failure) -> usize {
        let first = cause(failure.detail.trim().lines().next().unwrap_or(""));
        // What goes wrong before the image is looked at is the same for all of them.
        let about_one = matches!(failure.stage, Stage::Inspect | Stage::Pull | Stage::Verify);
        let about_one = about_one && plan.work.items() > 1;
        let found = match failure.kind {
            FailureKind::HostKey => fingerprints(first),
            _ => Vec::new(),
        };
        // Each host has a key of its own.
        let general = found
            .iter()
            .fold(first.to_owned(), |text, one| text.replace(one, "#"));
        let names = plan.fleet.nodes().get(node);
        let names = names.map(|node| [node.name.as_str(), &node.address]);
        let key = Cause {
            kind: failure.kind.as_str().to_string(),
            stage: Some(failure.stage),
            image: Some(item).filter(|_| about_one),
            part: NodePart::of(failure),
            words: normalised(&general, names.as_ref().map_or(&[], |names| &names[..])),
        };
        let image = key.image.and_then(|item| plan.work.image(item));
        let image = image.map_or(String::new(), |image| format!(" {image}"));
        let about = format!("{}{image}", failure.stage);
        let what = format!("{} ({about})", failure.kind);
        let place = self.add(node, key, what, first, Some(failure.kind));
        self.groups[place].about = about;
        let noted = &mut self.groups[place].fingerprints;
        if !found.is_empty() && noted.last().is_none_or(|(last, _)| *last != node) {
            noted.push((node, found));
        }
        place
    }

    /// Takes note of an outcome, if it is not what the operator wanted.
    pub fn outcome(&mut self, plan: &Plan, node: usize, item: usize, outcome: &Outcome) {
        let image = plan.work.image(item).map(ToString::to_string);
        let (kind, about, words) = match outcome {
            Outcome::Failed(failure) => {
                self.failure(plan, node, item, failure);
                return;
            }
            Outcome::NotRun(reason) => {
                let cause = Cause {
                    kind: "not run".into(),
                    stage: None,
                    image: None,
                    part: None,
                    words: reason.to_string(),
                };
                self.add(node, cause, "not run".into(), reason.as_str(), None);
                return;
            }
            Outcome::Missing => ("missing".to_string(), Some(item), image.unwrap_or_default()),
            Outcome::Ran(output) if !output.success() => match &output.exit {
                ExitStatus::Code(code) => (format!("exit status {code}"), None, String::new()),
                ExitStatus::Signal(name) => {
                    let how = format!("ended by signal {}", escape_truncated(name, 20));
                    (how, None, String::new())
                }
            },
            Outcome::Probed(facts) => {
                for failure in &facts.obstacles {
                    self.failure(plan, node, item, failure);
                }
                return;
            }
            Outcome::Pulled(_) | Outcome::Present(_) | Outcome::Ran(_) => return,
        };
        let what = match words.is_empty() {
            true => kind.clone(),
            false => format!("{kind}: {words}"),
        };
        let cause = Cause {
            kind,
            stage: None,
            image: about,
            part: None,
            words,
        };
        self.add(node, cause, what, "", None);
    }

    fn add(
        &mut self,
        node: usize,
        cause: Cause,
        what: String,
        words: &str,
        kind: Option<FailureKind>,
    ) -> usize {
        let (part, stage) = (cause.part, cause.stage);
        let place = *self.places.entry(cause).or_insert(self.groups.len());
        if place == self.groups.len() {
            let most = match kind {
                Some(FailureKind::HostKey) => HOST_KEY_EXAMPLE,
                _ => EXAMPLE,
            };
            self.groups.push(Group {
                what,
                about: String::new(),
                example: truncate_middle(words, most).into_owned(),
                kind,
                stage,
                part,
                nodes: Vec::new(),
                fingerprints: Vec::new(),
            });
        }
        let nodes = &mut self.groups[place].nodes;
        // A node's items stand together, nearly always.
        if nodes.last() != Some(&node) && !nodes[nodes.len().saturating_sub(8)..].contains(&node) {
            nodes.push(node);
        }
        place
    }
}

/// The fingerprints of keys in a node's failure, escaped.
fn fingerprints(detail: &str) -> Vec<String> {
    let words = detail.split(|c: char| c.is_whitespace() || ",;()".contains(c));
    words
        .filter(|word| word.starts_with("SHA256:"))
        .map(|word| escape_truncated(word, 60).into_owned())
        .collect()
}

/// What is the same in equal failures of different nodes: names and addresses gone, and of the rest
/// every word with a digit (ports, times, request identities), but not a status from 400 to 599.
fn normalised(detail: &str, own: &[&str]) -> String {
    let mut text: String = detail.chars().take(EXAMPLE).collect();
    for name in own.iter().filter(|name| !name.is_empty()) {
        text = text.replace(name, "NODE");
    }
    let mut before = ' ';
    text.split_inclusive(|c: char| !c.is_alphanumeric())
        .map(|word| {
            let bare = word.trim_end_matches(|c: char| !c.is_alphanumeric());
            // After a colon or a dot it is a port or a part of an address.
            let status = !matches!(before, ':' | '.')
                && bare.parse::<u16>().is_ok_and(|n| (400..600).contains(&n));
            before = word.chars().next_back().unwrap_or(' ');
            if !status && bare.contains(|c: char| c.is_ascii_digit()) {
                word.replacen(bare, "#", 1)
            } else {
                word.to_string()
            }
        })
        .collect()
}
