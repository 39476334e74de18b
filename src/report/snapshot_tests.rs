//! Whole texts, as an operator reads them. A change of words shows up in the diff of a file in `snapshots/`:
//! `INSTA_UPDATE=always cargo test --lib report::snapshot_tests` accepts it.

use insta::assert_snapshot;

use super::lines::line;
use super::summary::write_summary;
use super::tests::{
    failed, fan_out_totals, finished, held, image, of_command, pull, result, summary,
};
use super::*;
use crate::model::*;

const COMMAND: &str = "prepull pull -i nodes.yml app:v1";

/// A fleet of which one node pulled, and each other failed in its own way.
fn every_kind() -> RunResult {
    let mut outcomes = vec![vec![Outcome::Pulled(held("sha256:aa"))]];
    for kind in FailureKind::ALL {
        let detail = format!("what the runtime said of {kind}");
        outcomes.push(vec![failed(kind, detail)]);
    }
    of_command(pull(), COMMAND, outcomes)
}

fn on_terminal(result: &RunResult) -> String {
    let layout = Layout {
        width: Some(80),
        color: false,
    };
    let mut out = Vec::new();
    write_summary(result, &mut out, layout).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_summary_of_every_failure_kind() {
    assert_snapshot!("every_kind_in_a_file", summary(&every_kind()));
    assert_snapshot!("every_kind_on_a_terminal", on_terminal(&every_kind()));
}

#[test]
fn a_summary_of_success() {
    let outcomes = vec![
        vec![Outcome::Pulled(held("sha256:aa"))],
        vec![Outcome::Present(held("sha256:aa"))],
    ];
    assert_snapshot!(
        "success",
        on_terminal(&of_command(pull(), COMMAND, outcomes))
    );
}

#[test]
fn a_check_of_a_fleet_where_digests_differ_and_an_image_is_missing() {
    let outcomes = vec![
        vec![Outcome::Present(held("sha256:aa"))],
        vec![Outcome::Present(held("sha256:bb"))],
        vec![Outcome::Missing],
    ];
    let words = "prepull check -i nodes.yml app:v1";
    let run = of_command(Work::Check(vec![image()]), words, outcomes);
    assert_snapshot!("check", on_terminal(&run));
}

#[test]
fn a_line_for_every_event_that_has_one() {
    let run = result(pull(), vec![vec![Outcome::Missing]]);
    let (node, item, second) = (0, 0, Duration::from_secs(1));
    let failure = Failure::new(
        FailureKind::RegistryUnavailable,
        Stage::Pull,
        "dial tcp 10.1.1.1:5000: connect: connection refused",
    );
    let facts = [
        EventKind::WaveStarted { wave: 2, nodes: 1 },
        EventKind::Preflighted {
            ready: 1,
            failed: 2,
        },
        EventKind::NodeStarted { node },
        EventKind::RuntimeFound {
            node,
            runtime: RuntimeKind::Docker,
        },
        EventKind::NodeStage {
            node,
            item: Some(item),
            stage: Stage::Pull,
        },
        EventKind::Progress {
            node,
            item,
            bytes: 10_000_000,
            total: Some(80_000_000),
        },
        EventKind::Stalled {
            node,
            item,
            length: 42 * second,
        },
        EventKind::RegistryPaused {
            registry: "reg.example:5000".into(),
            length: 12 * second,
        },
        EventKind::AttemptFailed {
            node,
            item,
            attempt: 1,
            failure: failure.clone(),
            retry_in: second,
        },
        EventKind::NodeLeft { node, done: false },
        EventKind::FanOut {
            totals: fan_out_totals(),
        },
        EventKind::FanOutFallback {
            node,
            why: "no relay on this node: it is a riscv64".into(),
        },
        EventKind::Stopping {
            reason: StopReason::Interrupted,
        },
    ];
    let mut events: Vec<Event> = facts
        .map(|fact| Event {
            number: 1,
            at: second,
            fact,
        })
        .into();
    events.push(finished(Outcome::Pulled(held("sha256:aa"))));
    events.push(finished(Outcome::Failed(failure)));
    for is_verbose in [false, true] {
        let lines = events
            .iter()
            .filter_map(|event| line(&run.info, event, is_verbose));
        let text: Vec<String> = lines.collect();
        assert_snapshot!(
            if is_verbose { "lines_with_v" } else { "lines" },
            text.join("\n")
        );
    }
}
