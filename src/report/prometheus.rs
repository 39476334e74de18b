//! The run as metrics, for node_exporter's textfile collector: Prometheus' text format 0.0.4.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use super::RunResult;
use super::document::{arrived, counts, digests_agree, took};
use crate::model::Outcome;

/// Writes the result as metrics.
///
/// # Errors
/// What writing answered.
pub(super) fn prometheus(result: &RunResult, out: &mut dyn io::Write) -> io::Result<()> {
    out.write_all(metrics(result).as_bytes())
}

fn metrics(result: &RunResult) -> String {
    let work = &result.info.plan.work;
    let command = work.command();
    let counts = counts(result);
    let is_good = counts.ok == counts.nodes && digests_agree(result);
    let mut out = String::new();
    let mut gauge = |name: &str, help: &str, samples: &[(Vec<(&str, &str)>, f64)]| {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge");
        for (labels, value) in samples {
            let labels = [&[("command", command)], labels.as_slice()].concat();
            let labels: Vec<String> = labels
                .iter()
                .map(|(label, value)| format!("{label}=\"{}\"", escaped(value)))
                .collect();
            let _ = writeln!(out, "{name}{{{}}} {value}", labels.join(","));
        }
    };
    let one = |value: f64| vec![(Vec::new(), value)];
    gauge(
        "prepull_run_success",
        "Whether every node is as wanted: 1 or 0.",
        &one(f64::from(u8::from(is_good))),
    );
    gauge(
        "prepull_run_start_timestamp_seconds",
        "When the last run started.",
        &one(seconds(result.info.started)),
    );
    gauge(
        "prepull_run_end_timestamp_seconds",
        "When the last run ended.",
        &one(seconds(result.finished)),
    );
    gauge(
        "prepull_run_duration_seconds",
        "How long the last run took.",
        &one(took(result).as_secs_f64()),
    );
    let nodes = [
        ("ok", counts.ok),
        ("failed", counts.failed),
        ("absent", counts.absent.unwrap_or(0)),
        ("not-run", counts.not_run),
    ];
    let nodes = nodes.map(|(status, number)| (vec![("status", status)], number as f64));
    gauge(
        "prepull_run_nodes",
        "Nodes of the last run by what became of them.",
        &nodes,
    );
    if let Some(bytes) = arrived(result) {
        gauge(
            "prepull_run_arrived_bytes",
            "Bytes of layers that arrived, where that was counted.",
            &one(bytes as f64),
        );
    }
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    let mut images: BTreeMap<(usize, &str), usize> = BTreeMap::new();
    let mut ways: BTreeMap<&str, usize> = BTreeMap::new();
    for node in &result.nodes {
        for (item, record) in node.items.iter().enumerate() {
            if let Outcome::Failed(failure) = &record.outcome {
                *kinds.entry(failure.kind.as_str()).or_default() += 1;
            }
            if let Some(delivery) = &record.delivery {
                *ways.entry(delivery.via.as_str()).or_default() += 1;
            }
            let status = record.outcome.status();
            *images.entry((item, status)).or_default() += 1;
        }
    }
    let kinds: Vec<_> = kinds
        .into_iter()
        .map(|(kind, number)| (vec![("kind", kind)], number as f64))
        .collect();
    let ways: Vec<_> = ways
        .into_iter()
        .map(|(via, number)| (vec![("via", via)], number as f64))
        .collect();
    if !ways.is_empty() {
        gauge(
            "prepull_run_deliveries",
            "Pulls of the last run by where nodes got the image from.",
            &ways,
        );
    }
    if !kinds.is_empty() {
        gauge(
            "prepull_run_failures",
            "Outcomes of the last run that failed, by the kind of failure.",
            &kinds,
        );
    }
    let names: Vec<String> = (0..work.items())
        .map(|item| work.image(item).map_or(String::new(), ToString::to_string))
        .collect();
    let outcomes: Vec<_> = images
        .into_iter()
        .map(|((item, status), number)| {
            let image = names[item].as_str();
            (vec![("image", image), ("status", status)], number as f64)
        })
        .collect();
    gauge(
        "prepull_run_outcomes",
        "Outcomes of the last run by image and status.",
        &outcomes,
    );
    out
}

/// Seconds since 1970.
fn seconds(time: SystemTime) -> f64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs_f64()
}

/// A label's value, as the format wants it.
fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::tests::{pull, result};
    use super::*;
    use crate::model::{Failure, FailureKind, LocalImage, Stage, Work};

    /// Name, labels and value.
    type Sample = (String, Vec<(String, String)>, f64);

    /// Each sample, by the grammar of the exposition format: each family once and whole, after its HELP and
    /// TYPE, with no label twice.
    fn parse(text: &str) -> Vec<Sample> {
        assert!(text.ends_with('\n'));
        let is_name = |name: &str| {
            name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        let (mut samples, mut families, mut last) = (Vec::new(), BTreeSet::new(), String::new());
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                last = rest.split(' ').next().unwrap().to_string();
                assert!(families.insert(last.clone()), "twice: {last}");
                continue;
            }
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                assert_eq!(rest, format!("{last} gauge"));
                continue;
            }
            let (name, rest) = line.split_once('{').unwrap();
            assert!(is_name(name) && name == last, "{line}");
            let mut rest = rest.chars();
            let mut labels: Vec<(String, String)> = Vec::new();
            loop {
                let label: String = rest.by_ref().take_while(|c| *c != '=').collect();
                assert!(is_name(&label), "{line}");
                assert_eq!(rest.next(), Some('"'), "{line}");
                let mut value = String::new();
                loop {
                    match rest.next().unwrap() {
                        '"' => break,
                        '\\' => value.push(match rest.next().unwrap() {
                            'n' => '\n',
                            c @ ('\\' | '"') => c,
                            c => panic!("\\{c} in {line}"),
                        }),
                        c => value.push(c),
                    }
                }
                assert!(labels.iter().all(|(known, _)| *known != label), "{line}");
                labels.push((label, value));
                match rest.next() {
                    Some(',') => {}
                    Some('}') => break,
                    other => panic!("{other:?} in {line}"),
                }
            }
            assert_eq!(rest.next(), Some(' '));
            let value: String = rest.collect();
            samples.push((name.to_string(), labels, value.parse().unwrap()));
        }
        let keys: BTreeSet<_> = samples
            .iter()
            .map(|(name, labels, _)| (name, labels))
            .collect();
        assert_eq!(keys.len(), samples.len(), "a sample is there twice");
        samples
    }

    #[test]
    fn a_run_is_valid_metrics_with_its_counts() {
        let held = LocalImage {
            digest: Some("sha256:aa".into()),
            image_id: None,
            bytes: None,
            platform: None,
        };
        let refused = Failure::new(FailureKind::RegistryAuth, Stage::Pull, "\"no\"\n{}");
        let mut run = result(
            pull(),
            vec![
                vec![Outcome::Pulled(held.clone())],
                vec![Outcome::Pulled(held)],
                vec![Outcome::Failed(refused)],
            ],
        );
        run.nodes[0].items[0].arrived = Some(80_000_000);
        let samples = parse(&metrics(&run));
        let value = |name: &str, label: &str| {
            let found = samples.iter().find(|(known, labels, _)| {
                known == name
                    && (label.is_empty() || labels.iter().any(|(_, value)| value == label))
            });
            found.map(|(.., value)| *value)
        };
        for (name, label, wanted) in [
            ("prepull_run_success", "", 0.0),
            ("prepull_run_duration_seconds", "", 151.0),
            ("prepull_run_end_timestamp_seconds", "", 1_763_932_780.0),
            ("prepull_run_nodes", "ok", 2.0),
            ("prepull_run_nodes", "failed", 1.0),
            ("prepull_run_arrived_bytes", "", 80_000_000.0),
            ("prepull_run_failures", "registry-auth", 1.0),
            ("prepull_run_outcomes", "pulled", 2.0),
            ("prepull_run_outcomes", "reg.example:5000/team/app:v1", 1.0),
        ] {
            assert_eq!(value(name, label), Some(wanted), "{name} {label}");
        }
        let odd = result(
            Work::Exec(vec!["true".into()]),
            vec![vec![Outcome::Missing]],
        );
        parse(&metrics(&odd));
        assert_eq!(escaped("a\\b\"c\nd"), "a\\\\b\\\"c\\nd");
    }
}
