//! What is kept from the kubelet's garbage collection, and what is kept for too long.

use std::collections::BTreeMap;

use super::RunResult;
use super::failures::{names, node_name};
use super::format::escape_truncated;
use super::styled::Line;
use crate::model::text::format_count;
use crate::model::{KeptState, Overdue};

/// The most of a note that is shown, in characters.
const NOTE: usize = 400;

/// "Kept from the kubelet's garbage collection: 3 images on 3 nodes", and each note once with its nodes.
pub(super) fn kept(result: &RunResult) -> Vec<Line> {
    let mut pinned = (0, 0);
    let mut notes: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    let mut is_asked = false;
    for (node, record) in result.nodes.iter().enumerate() {
        let kept: Vec<_> = record
            .items
            .iter()
            .filter_map(|item| item.kept.as_ref())
            .collect();
        let own = kept
            .iter()
            .filter(|kept| kept.state == KeptState::Pinned)
            .count();
        is_asked |= !kept.is_empty();
        pinned = (pinned.0 + own, pinned.1 + usize::from(own > 0));
        for kept in kept {
            let what = match kept.state {
                KeptState::Pinned => "pinned",
                KeptState::Unconfirmed => "not confirmed",
                KeptState::NotPinned => "not kept",
            };
            if let Some(note) = &kept.note {
                let nodes = notes.entry((what, note)).or_default();
                let name = node_name(result, node);
                if nodes.last() != Some(&name) {
                    nodes.push(name);
                }
            }
        }
    }
    if !is_asked {
        return Vec::new();
    }
    let mut out = vec![Line::new(0).text(format!(
        "Kept from the kubelet's garbage collection: {} on {}",
        format_count(pinned.0, "image"),
        format_count(pinned.1, "node")
    ))];
    for ((what, note), nodes) in notes {
        let note = escape_truncated(note, NOTE);
        out.push(
            Line::new(2)
                .nodes(names(&nodes))
                .text(format!(" {what}: {note}")),
        );
    }
    out
}

/// Which images are kept for longer than was wanted, and what releases them.
pub(super) fn overdue(result: &RunResult) -> Vec<Line> {
    let line = |overdue: &Overdue| {
        let Overdue { run, until, nodes } = overdue;
        let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
        Line::new(0)
            .kind("STILL KEPT")
            .text(" on ")
            .nodes(names(&nodes))
            .text(format!(
                ": images of the run {run}, which were wanted until {until}; "
            ))
            .command("prepull keep release")
            .text(" with the options for these nodes takes the pins off")
    };
    result.info.earlier.overdue.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::super::document::document;
    use super::super::tests::{pull, result};
    use super::*;
    use crate::model::{KeepOutcome, LocalImage, Outcome, Work};
    use crate::report::Layout;
    use std::sync::Arc;

    fn text(lines: Vec<Line>) -> String {
        lines
            .iter()
            .map(|line| line.render(Layout::default()))
            .collect()
    }

    #[test]
    fn what_is_not_kept_is_told_once_with_its_nodes() {
        let held = || LocalImage {
            digest: None,
            image_id: None,
            bytes: None,
            platform: None,
        };
        let mut run = result(pull(), vec![vec![Outcome::Pulled(held())]; 3]);
        assert!(kept(&run).is_empty(), "it was not asked for");
        run.nodes[0].items[0].kept = Some(KeepOutcome {
            state: KeptState::Pinned,
            note: None,
        });
        for node in [1, 2] {
            run.nodes[node].items[0].kept = Some(KeepOutcome {
                state: KeptState::NotPinned,
                note: Some("docker has no pins\u{1b}".into()),
            });
        }
        assert_eq!(
            text(kept(&run)),
            "Kept from the kubelet's garbage collection: 1 image on 1 node\n  worker-2, worker-3 not kept: docker has no pins\\u{1b}\n"
        );
        let shown = serde_json::to_value(document(&run)).unwrap();
        assert_eq!(shown["nodes"][0]["outcomes"][0]["kept"], "pinned");
        assert_eq!(shown["nodes"][1]["outcomes"][0]["kept"], "not-pinned");
    }

    #[test]
    fn a_check_reminds_of_what_is_kept_too_long() {
        let image = "reg.example:5000/team/app:v1".parse().unwrap();
        let mut run = result(Work::Check(vec![image]), vec![vec![Outcome::Missing]; 2]);
        assert!(overdue(&run).is_empty());
        let kept = Overdue {
            run: "2026-b".into(),
            until: "2026-11-01T00:00:00Z".into(),
            nodes: vec!["worker-2".into()],
        };
        Arc::make_mut(&mut run.info).earlier.overdue.push(kept);
        assert_eq!(
            text(overdue(&run)),
            "STILL KEPT on worker-2: images of the run 2026-b, which were wanted until 2026-11-01T00:00:00Z; prepull keep release with the options for these nodes takes the pins off\n"
        );
        let shown = serde_json::to_value(document(&run)).unwrap();
        assert_eq!(shown["keep_overdue"][0]["nodes"][0], "worker-2");
    }
}
