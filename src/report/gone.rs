//! Which images a check misses that an earlier run found.

use std::collections::BTreeMap;

use super::RunResult;
use super::document::gone_since;
use super::failures::{names, node_name};
use super::styled::Line;

/// "GONE: app:v1 from worker-2, where the run ... found it: ...", a line for each image and run.
pub(super) fn gone(result: &RunResult) -> Vec<Line> {
    let mut gone: BTreeMap<(String, &str), Vec<&str>> = BTreeMap::new();
    for (node, record) in result.nodes.iter().enumerate() {
        let name = node_name(result, node);
        for (item, record) in record.items.iter().enumerate() {
            if let Some(run) = gone_since(result, name, item, record)
                && let Some(image) = result.info.plan.work.image(item)
            {
                gone.entry((image.to_string(), run)).or_default().push(name);
            }
        }
    }
    let line = |((image, run), nodes): ((String, &str), Vec<&str>)| {
        Line::new(0)
            .kind("GONE")
            .text(format!(" {image} from "))
            .nodes(names(&nodes))
            .text(format!(
                ", where the run {run} found it: removed since then, by the kubelet's garbage collection or by hand"
            ))
    };
    gone.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::super::document::document;
    use super::super::tests::result;
    use super::*;
    use crate::model::{Outcome, Work};
    use crate::report::Layout;
    use std::sync::Arc;

    #[test]
    fn a_check_names_what_is_gone() {
        let image: crate::model::Image = "reg.example:5000/team/app:v1".parse().unwrap();
        let outcomes = vec![vec![Outcome::Missing], vec![Outcome::Missing]];
        let mut run = result(Work::Check(vec![image.clone()]), outcomes);
        assert!(gone(&run).is_empty(), "no run found it before");
        let place = ("worker-2".to_string(), image.to_string());
        let earlier = &mut Arc::make_mut(&mut run.info).earlier;
        earlier.last_held.insert(place, "2026-a".into());
        let told: String = gone(&run)
            .iter()
            .map(|line| line.render(Layout::default()))
            .collect();
        assert_eq!(
            told,
            "GONE reg.example:5000/team/app:v1 from worker-2, where the run 2026-a found it: removed since then, by the kubelet's garbage collection or by hand\n"
        );
        let shown = serde_json::to_value(document(&run)).unwrap();
        assert_eq!(shown["nodes"][1]["outcomes"][0]["gone_since"], "2026-a");
        assert!(shown["nodes"][0]["outcomes"][0]["gone_since"].is_null());
    }
}
