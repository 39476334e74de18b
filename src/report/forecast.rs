//! A forecast for people and programs, and how a pull came to what was foretold.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::RunResult;
use super::document::{counts, forecast_entry, seconds};
use super::failures::{failures, names};
use super::format::escape_truncated;
use super::nodes::{column, probed_json};
use super::styled::{Layout, Line};
use super::table::table;
use crate::model::forecast::NodeExpectation;
use crate::model::text::{format_bytes, format_count, format_duration};
use crate::model::{Forecast, ForecastTotals, Node, NodeFacts, Outcome, TimeRange};

/// The longest cell of a table, in characters.
const CELL: usize = 200;

/// Each node with what it told and what is expected of it.
fn nodes<'a>(
    result: &'a RunResult,
    forecast: &'a Forecast,
) -> impl Iterator<
    Item = (
        &'a Node,
        &'a Outcome,
        Option<(&'a NodeFacts, &'a NodeExpectation)>,
    ),
> {
    let fleet = result.info.plan.fleet.nodes().iter();
    let outcomes = (result.nodes.iter()).filter_map(|node| Some(&node.items.first()?.outcome));
    let nodes = fleet.zip(outcomes).zip(&forecast.nodes);
    nodes.map(|((node, outcome), expected)| {
        let told = match (outcome, expected) {
            (Outcome::Probed(facts), Some(expected)) => Some((facts.as_ref(), expected)),
            _ => None,
        };
        (node, outcome, told)
    })
}

/// The forecast as a table of nodes, then the fleet, then what is in the way. A table has so many columns.
pub fn forecast_text(result: &RunResult, layout: Layout, columns: usize) -> String {
    let Some(forecast) = &result.forecast else {
        return String::new();
    };
    let shown = [
        column("NAME", 9, 8),
        column("PULL", 8, 9),
        column("LAYERS", 3, 6),
        column("FREE", 5, 8),
        column("DISK", 6, 9),
        column("TIME", 4, 6),
        column("STATE", 7, 12),
    ];
    let rows: Vec<Vec<String>> = nodes(result, forecast).map(row).collect();
    let mut out = table(&shown, &rows, Some(columns));
    let mut lines = vec![Line::default()];
    lines.extend(fleet(result, forecast));
    lines.extend(collecting(result, forecast));
    let failures = failures(result);
    if !failures.is_empty() {
        lines.push(Line::default());
        lines.extend(failures);
    }
    lines.extend([Line::default(), verdict(result)]);
    for line in lines {
        out += &line.render(layout);
    }
    out
}

fn row(
    (node, outcome, told): (&Node, &Outcome, Option<(&NodeFacts, &NodeExpectation)>),
) -> Vec<String> {
    let state = match outcome {
        Outcome::Failed(failure) => format!("{} ({})", failure.kind, failure.stage),
        Outcome::NotRun(reason) => format!("not run: {reason}"),
        Outcome::Probed(facts) => match facts.obstacles.first() {
            Some(obstacle) => super::nodes::in_the_way(obstacle).into(),
            None => "ok".into(),
        },
        _ => String::new(),
    };
    let mut row = vec![node.name.clone()];
    match told {
        Some((facts, expected)) => {
            row.push(match (expected.bytes, expected.at_most) {
                (Some(0), _) => "nothing".into(),
                (Some(bytes), _) => format_bytes(bytes),
                (None, Some(most)) => format!("up to {}", format_bytes(most)),
                (None, None) => "unknown".into(),
            });
            row.push(expected.layers.map_or("unknown".into(), |n| n.to_string()));
            row.push(facts.free.map_or("unknown".into(), format_bytes));
            row.push(match expected.used {
                Some((now, after)) if now == after => format!("{now}%"),
                Some((now, after)) => format!("{now}% to {after}%"),
                None => "unknown".into(),
            });
            let time = expected.seconds.map(duration).map(format_duration);
            row.push(time.unwrap_or_else(|| "unknown".into()));
            row.push(match expected.collects {
                Some(true) if state == "ok" => "kubelet collects".into(),
                _ => state,
            });
        }
        None => {
            row.extend(["", "", "", "", ""].map(String::from));
            row.push(state);
        }
    }
    let cell = |text: String| match text.as_str() {
        "" => "-".to_string(),
        text => escape_truncated(text, CELL).into_owned(),
    };
    row.into_iter().map(cell).collect()
}

/// A time that may have come out of a file.
fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

/// What registries send where each layer comes once.
fn once(totals: &ForecastTotals) -> String {
    let (ssh, others) = (
        format_bytes(totals.through_ssh),
        format_bytes(totals.fan_out),
    );
    match totals.through_ssh == totals.fan_out {
        true => format!("with --via ssh or --fan-out {ssh}, each layer once"),
        false => format!(
            "with --fan-out {others}, each layer once; with --via ssh {ssh}, as the rest is in the cache here"
        ),
    }
}

/// Bytes and time over the fleet.
fn fleet(result: &RunResult, forecast: &Forecast) -> Vec<Line> {
    let totals = &forecast.totals;
    let mut unknown: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut pulling = 0;
    for (node, _, told) in nodes(result, forecast) {
        let Some((facts, expected)) = told else {
            continue;
        };
        pulling += usize::from(expected.bytes.is_some_and(|bytes| bytes > 0));
        let why = facts
            .forecast
            .as_ref()
            .and_then(|asked| asked.unknown.as_deref());
        if let (None, Some(why)) = (expected.bytes, why) {
            unknown.entry(why).or_default().push(&node.name);
        }
    }
    let bytes = format_bytes(totals.bytes);
    let mut out = vec![Line::new(0).text(format!(
        "From registries: {bytes} to {}; {}",
        format_count(pulling, "node"),
        once(totals),
    ))];
    if totals.unknown > 0 {
        let on = format_count(totals.unknown, "node");
        let most = match totals.at_most {
            Some(most) => format!(
                "up to {} more",
                format_bytes(most.saturating_sub(totals.bytes))
            ),
            None => "an unknown number of bytes more".into(),
        };
        out.push(Line::new(0).text(format!("Not known: {most} on {on}")));
        for (why, nodes) in unknown {
            let why = escape_truncated(why, 300);
            out.push(Line::new(2).nodes(names(&nodes)).text(format!(": {why}")));
        }
    }
    out.push(Line::new(0).text(match &totals.time {
        Some(time) => format!(
            "Time: about {}, by {}",
            range(time),
            format_count(time.runs, "earlier run")
        ),
        None => "Time: not known, as no earlier run on these nodes tells".into(),
    }));
    out
}

/// "12s (9s to 15s)".
fn range(time: &TimeRange) -> String {
    let about = format_duration(duration(time.seconds));
    match time.range {
        Some((low, high)) => format!(
            "{about} ({} to {})",
            format_duration(duration(low)),
            format_duration(duration(high))
        ),
        None => format!("{about} (how exact that is shows after a second run)"),
    }
}

/// On which nodes the kubelet would start to remove unused images, by its threshold.
fn collecting(result: &RunResult, forecast: &Forecast) -> Vec<Line> {
    let mut by: BTreeMap<(u8, bool), Vec<&str>> = BTreeMap::new();
    for (node, _, told) in nodes(result, forecast) {
        if let Some((facts, expected)) = told
            && expected.collects == Some(true)
            && let Some(gc) = facts
                .forecast
                .as_ref()
                .and_then(|asked| asked.kubelet.as_ref())
        {
            by.entry((gc.high, gc.is_known))
                .or_default()
                .push(&node.name);
        }
    }
    let line = |((high, is_known), nodes): ((u8, bool), Vec<&str>)| {
        let assumed = match is_known {
            true => "",
            false => ", its default, as its configuration cannot be read (--become)",
        };
        let on = format_count(nodes.len(), "node");
        Line::new(0)
            .text(format!(
                "The kubelet starts to remove unused images on {on}: "
            ))
            .nodes(names(&nodes))
            .text(format!(" (from {high}% of the disk on{assumed})"))
    };
    by.into_iter().map(line).collect()
}

/// "3 of 4 nodes can pull, 1 failed".
fn verdict(result: &RunResult) -> Line {
    let counts = counts(result);
    let mut text = format!(
        "{} of {} can pull",
        counts.ok,
        format_count(counts.nodes, "node")
    );
    for (number, what) in [(counts.failed, "cannot"), (counts.not_run, "not asked")] {
        if number > 0 {
            text.push_str(&format!(", {number} {what}"));
        }
    }
    Line::new(0).verdict(counts.ok == counts.nodes, text)
}

/// The forecast for programs: docs/schema/forecast-1.json.
pub fn forecast_json(result: &RunResult) -> Value {
    let mut out = probed_json(result);
    let Some(forecast) = &result.forecast else {
        return out;
    };
    let planned = result.info.plan.work.planned();
    let images: Vec<String> = planned.iter().map(|one| one.image.to_string()).collect();
    out["run"] = json!(result.info.id);
    out["images"] = json!(images);
    for (index, (_, _, told)) in nodes(result, forecast).enumerate() {
        let Some((facts, expected)) = told else {
            continue;
        };
        let asked = facts.forecast.as_ref();
        out["nodes"][index]["forecast"] = json!({
            "bytes": expected.bytes, "at_most_bytes": expected.at_most, "layers": expected.layers,
            "unknown": asked.and_then(|asked| asked.unknown.as_deref()),
            "seconds": expected.seconds.map(|time| seconds(duration(time))),
            "disk_bytes": asked.and_then(|asked| asked.size),
            "disk_percent": expected.used.map(|(now, _)| now),
            "disk_percent_after": expected.used.map(|(_, after)| after),
            "kubelet": asked.and_then(|asked| asked.kubelet.as_ref()).map(|gc| json!({
                "image_gc_high_percent": gc.high, "image_gc_low_percent": gc.low, "image_maximum_age": gc.max_age,
                "known": gc.is_known, "collects": expected.collects,
            })),
        });
    }
    let totals = &forecast.totals;
    out["forecast"] = json!({
        "bytes": totals.bytes, "at_most_bytes": totals.at_most, "unknown_nodes": totals.unknown,
        "through_ssh_bytes": totals.through_ssh, "fan_out_bytes": totals.fan_out,
        "time": totals.time.as_ref().map(|time| json!({
            "seconds": seconds(duration(time.seconds)),
            "low_seconds": time.range.map(|(low, _)| seconds(duration(low))),
            "high_seconds": time.range.map(|(_, high)| seconds(duration(high))),
            "runs": time.runs,
        })),
    });
    let counts = counts(result);
    out["summary"] = json!({
        "nodes": counts.nodes, "ok": counts.ok, "failed": counts.failed, "not_run": counts.not_run,
    });
    out
}

/// "Foretold by ...: 320.1 MB (as it came), 12s (it took 8% more)".
pub(super) fn comparison(result: &RunResult) -> Option<Line> {
    let entry = forecast_entry(result)?;
    let off = |error: f64, as_told: &str, verb: &str| match (error * 100.0).round() {
        0.0 => as_told.to_string(),
        percent if percent > 0.0 => format!("{verb} {percent}% more"),
        percent => format!("{verb} {}% less", -percent),
    };
    let bytes = match entry.bytes_error {
        Some(error) => off(error, "as it came", "there came"),
        None => "what came is not known on all nodes".into(),
    };
    let mut text = format!(
        "Foretold by {}: {} ({bytes})",
        entry.run,
        format_bytes(entry.bytes)
    );
    match (entry.seconds, entry.seconds_error) {
        (Some(time), Some(error)) => text.push_str(&format!(
            ", {} ({})",
            format_duration(duration(time)),
            off(error, "as it was", "it took")
        )),
        _ => text.push_str(", no time, as no earlier run told"),
    }
    Some(Line::new(0).text(text))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{pull, result};
    use super::*;
    use crate::model::{
        ClockOffset, Failure, FailureKind, ForecastTotals, Foretold, KubeletGc, LocalImage,
        NodeForecast, PlannedImage, Stage, Work,
    };
    use std::sync::Arc;

    fn facts(unknown: Option<&str>, obstacles: Vec<Failure>) -> Outcome {
        Outcome::Probed(Box::new(NodeFacts {
            os: "linux".into(),
            architecture: "amd64".into(),
            system: String::new(),
            clock: ClockOffset {
                milliseconds: 1,
                uncertainty: 2,
            },
            runtime: "containerd 2".into(),
            client: "crictl".into(),
            endpoint: None,
            root: "/var/lib/containerd".into(),
            free: Some(1_000_000),
            images: vec![None],
            unusable_registries: vec![],
            obstacles,
            forecast: Some(NodeForecast {
                missing: None,
                at_most: Some(900),
                unknown: unknown.map(String::from),
                size: Some(2_000_000),
                kubelet: Some(KubeletGc::DEFAULT),
            }),
        }))
    }

    fn expected(bytes: Option<u64>, collects: bool) -> Option<NodeExpectation> {
        Some(NodeExpectation {
            bytes,
            at_most: bytes.or(Some(900)),
            layers: bytes.map(|_| 2),
            seconds: Some(4.0),
            used: bytes.map(|_| (50, 86)),
            collects: Some(collects),
        })
    }

    fn forecast() -> RunResult {
        let planned = PlannedImage {
            image: "reg.example/app:v1".parse().unwrap(),
            login: None,
        };
        let full = Failure::new(FailureKind::DiskFull, Stage::Preflight, "1 MB are free");
        let hostile = Some("only root\u{1b}[2J");
        let outcomes = vec![
            vec![facts(None, vec![])],
            vec![facts(hostile, vec![])],
            vec![facts(None, vec![full])],
        ];
        let mut run = result(Work::Probe(vec![planned]), outcomes);
        run.forecast = Some(Forecast {
            nodes: vec![
                expected(Some(80_000_000), true),
                expected(None, false),
                expected(Some(0), false),
            ],
            totals: ForecastTotals {
                bytes: 80_000_000,
                at_most: Some(80_000_900),
                unknown: 1,
                through_ssh: 80_000_000,
                fan_out: 80_000_000,
                time: Some(TimeRange {
                    seconds: 12.0,
                    range: Some((10.0, 15.0)),
                    runs: 3,
                }),
            },
        });
        run
    }

    #[test]
    fn a_forecast_shows_bytes_room_time_and_what_is_not_known() {
        let text = forecast_text(&forecast(), Layout::default(), 120);
        for part in [
            "80.0 MB      2        1.0 MB  50% to 86%  4s",
            "up to 900 B",
            "kubelet collects",
            "no room",
            "From registries: 80.0 MB to 1 node; with --via ssh or --fan-out 80.0 MB, each layer once\n",
            "Not known: up to 900 B more on 1 node\n  worker-2: only root\\u{1b}[2J\n",
            "Time: about 12s (10s to 15s), by 3 earlier runs\n",
            "The kubelet starts to remove unused images on 1 node: worker-1 (from 85% of the disk on, its default",
            "2 of 3 nodes can pull, 1 cannot\n",
        ] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
        let mut cached = forecast();
        if let Some(forecast) = &mut cached.forecast {
            forecast.totals.through_ssh = 1_000_000;
        }
        let text = forecast_text(&cached, Layout::default(), 120);
        let part = "; with --fan-out 80.0 MB, each layer once; with --via ssh 1.0 MB, as the rest is in the cache here\n";
        assert!(text.contains(part), "{text}");
        let shown = forecast_json(&cached);
        assert_eq!(shown["forecast"]["through_ssh_bytes"], 1_000_000);
        assert_eq!(shown["forecast"]["fan_out_bytes"], 80_000_000);
        assert_eq!(shown["forecast"]["time"]["low_seconds"], 10.0);
        assert_eq!(shown["nodes"][0]["forecast"]["kubelet"]["collects"], true);
        assert!(shown["nodes"][1]["forecast"]["bytes"].is_null());
        assert_eq!(shown["summary"]["failed"], 1);
    }

    #[test]
    fn a_pull_is_compared_with_its_forecast() {
        let held = || LocalImage {
            digest: None,
            image_id: None,
            bytes: None,
            platform: None,
        };
        let mut run = result(pull(), vec![vec![Outcome::Pulled(held())]]);
        run.nodes[0].items[0].arrived = Some(101_000_000);
        assert_eq!(comparison(&run).map(|_| ()), None);
        let told = |bytes, seconds: Option<f64>| Foretold {
            run: "2026-a".into(),
            totals: ForecastTotals {
                bytes,
                at_most: Some(bytes),
                unknown: 0,
                through_ssh: bytes,
                fan_out: bytes,
                time: seconds.map(|seconds| TimeRange {
                    seconds,
                    range: None,
                    runs: 1,
                }),
            },
        };
        let mut line = |foretold| {
            Arc::make_mut(&mut run.info).earlier.foretold = Some(foretold);
            comparison(&run).unwrap().render(Layout::default())
        };
        // The run took 151 seconds.
        assert_eq!(
            line(told(100_000_000, Some(151.1))),
            "Foretold by 2026-a: 100.0 MB (there came 1% more), 2m 31s (as it was)\n"
        );
        assert_eq!(
            line(told(101_000_000, None)),
            "Foretold by 2026-a: 101.0 MB (as it came), no time, as no earlier run told\n"
        );
        let entry = forecast_entry(&run).unwrap();
        assert_eq!((entry.bytes_error, entry.seconds_error), (Some(0.0), None));
        run.nodes[0].items[0].outcome = Outcome::Missing;
        assert!(
            comparison(&run).is_none(),
            "it did not do what was foretold"
        );
    }
}
