//! Boards as frames, from a glance at twelve nodes to 5,000 in every size of terminal.

use std::sync::Arc;
use std::time::SystemTime;

use super::super::{RunInfo, lines::status_line, tests::fan_out_totals};
use super::*;
use crate::model::{
    Event, EventKind, Failure, FailureKind, Fleet, LocalImage, Node, Outcome, Plan, PlannedImage,
    Policy, Record, StopReason, Work,
};

const SECOND: Duration = Duration::from_secs(1);

struct Run {
    board: RunState,
    at: Duration,
}

impl Run {
    fn new(nodes: usize, images: &[&str]) -> Self {
        let named = |number| Node::named(&format!("worker-{number:04}"));
        let planned = |image: &&str| PlannedImage {
            image: image.parse().unwrap(),
            login: None,
        };
        let plan = Plan::new(
            Fleet::new((1..=nodes).map(named).collect()).unwrap(),
            Work::Pull(images.iter().map(planned).collect()),
            Policy::default(),
        );
        Self {
            board: RunState::new(Arc::new(RunInfo {
                id: "run".into(),
                started: SystemTime::UNIX_EPOCH,
                plan: Arc::new(plan),
                resume: None,
                words: vec![],
                earlier: Default::default(),
            })),
            at: Duration::ZERO,
        }
    }

    fn tell(&mut self, fact: EventKind) {
        let at = self.at;
        let number = 1;
        self.board.apply(&Event { number, at, fact });
    }

    fn start(&mut self, node: usize) {
        self.tell(EventKind::NodeStarted { node });
        self.stage(node, Stage::Pull);
    }

    fn stage(&mut self, node: usize, stage: Stage) {
        let item = Some(0);
        self.tell(EventKind::NodeStage { node, item, stage });
    }

    fn arrives(&mut self, node: usize, bytes: u64, total: Option<u64>) {
        let item = 0;
        self.tell(EventKind::Progress {
            node,
            item,
            bytes,
            total,
        });
    }

    fn ends(&mut self, node: usize, outcome: Outcome) {
        let record = Record {
            outcome,
            attempts: vec![],
            elapsed: SECOND,
            arrived: None,
            delivery: None,
            kept: None,
        };
        let (item, record) = (0, Arc::new(record));
        self.tell(EventKind::Finished { node, item, record });
        let done = true;
        self.tell(EventKind::NodeLeft { node, done });
    }

    fn tries_again(&mut self, node: usize, words: &str) {
        let failure = Failure::new(FailureKind::RegistryUnavailable, Stage::Pull, words);
        self.tell(EventKind::AttemptFailed {
            node,
            item: 0,
            attempt: 1,
            failure,
            retry_in: 12 * SECOND,
        });
        self.tell(EventKind::NodeLeft { node, done: false });
    }

    fn frame(&self, height: usize, width: usize) -> Vec<String> {
        let view = View {
            height,
            width,
            color: false,
            unicode: false,
        };
        frame(&self.board, self.at, view)
    }
}

fn pulled() -> Outcome {
    Outcome::Pulled(LocalImage {
        digest: None,
        image_id: None,
        bytes: None,
        platform: None,
    })
}

fn denied(node: usize) -> Outcome {
    let words = format!(
        "10.0.0.{node}: denied: request r{node}a for worker-{:04}",
        node + 1
    );
    Outcome::Failed(Failure::new(FailureKind::RegistryAuth, Stage::Pull, words))
}

const IMAGE: &str = "reg.example:5000/team/app:v1";

#[test]
fn twelve_nodes_are_seen_at_a_glance() {
    let mut run = Run::new(12, &[IMAGE]);
    for node in 0..10 {
        run.start(node);
    }
    for second in 0..=10 {
        run.at = second * SECOND;
        for node in 4..7 {
            run.arrives(node, u64::from(second) * 1_000_000, Some(40_000_000));
        }
    }
    run.ends(0, pulled());
    run.ends(1, denied(1));
    run.ends(2, denied(2));
    run.tries_again(3, "dial tcp 10.1.1.1:4711: connection refused");
    assert_eq!(
        run.frame(23, 100),
        [
            "1 done, 6 running, 2 failed, 3 left of 12 nodes, 10s",
            "[##-----------------------]   8%  30.0 MB  3.0 MB/s  about 1m 50s left",
            "  2 failed: registry-auth (pull) on worker-0003, worker-0002: ... request r1a for worker-0002",
            "  1 to try again in 12s: registry-unavailable (pull) on worker-0004: ... connection refused",
            "  worker-0005  pull  10.0 MB of 40.0 MB  [##--------]  1.0 MB/s  10s",
            "  worker-0006  pull  10.0 MB of 40.0 MB  [##--------]  1.0 MB/s  10s",
            "  worker-0007  pull  10.0 MB of 40.0 MB  [##--------]  1.0 MB/s  10s",
            "  worker-0008  pull                                              10s",
            "  worker-0009  pull                                              10s",
            "  worker-0010  pull                                              10s",
        ]
    );
}

#[test]
fn nothing_is_said_of_the_time_that_is_left_unless_it_is_known() {
    let mut run = Run::new(3, &[IMAGE]);
    run.start(0);
    let told = |run: &Run| run.frame(10, 100)[1].contains("left");
    run.at = SECOND;
    run.arrives(0, 1000, None);
    run.at = 9 * SECOND;
    run.arrives(0, 9_000_000, None);
    assert!(!told(&run), "the image's size is not known");
    run.arrives(0, 9_000_000, Some(20_000_000));
    assert!(!told(&run), "the first seconds are no pace");
    run.at = 11 * SECOND;
    assert!(told(&run));
    run.at = 30 * SECOND;
    assert!(!told(&run), "nothing arrives");
    run.arrives(0, 20_000_000, Some(20_000_000));
    run.at = 33 * SECOND;
    assert!(told(&run));
    run.tell(EventKind::Stopping {
        reason: StopReason::Interrupted,
    });
    assert!(!told(&run), "it is about to stop");
    let frame = run.frame(10, 100);
    assert_eq!(
        frame[2],
        "stopping, interrupted: waiting for 1 node to end; Ctrl-C again ends at once"
    );
}

#[test]
fn what_has_arrived_is_not_done_before_it_is() {
    let mut run = Run::new(1, &[IMAGE]);
    run.start(0);
    for second in 0..=10 {
        run.at = second * SECOND;
        run.arrives(0, u64::from(second) * 1_000_000, Some(10_000_000));
    }
    let pace = run.frame(23, 79).remove(1);
    assert_eq!(pace, "[##################-]  99%  10.0 MB  1.0 MB/s");
    run.ends(0, pulled());
    assert!(run.frame(23, 79)[1].starts_with("[###################] 100%"));
}

#[test]
fn the_time_that_is_left_is_not_rounded_up_to_twice_as_long() {
    for (bytes, told) in [
        (76, "about 1m 20s left"),
        (41, "about 45s left"),
        (599, "about 10m left"),
        (661, "about 12m left"),
    ] {
        let mut run = Run::new(1, &[IMAGE]);
        run.start(0);
        for second in 0..=10 {
            run.at = second * SECOND;
            let there = u64::from(second) * 1000;
            run.arrives(0, there, Some(10_000 + bytes * 1000));
        }
        let pace = run.frame(23, 79).remove(1);
        assert!(pace.ends_with(told), "{bytes}: {pace}");
    }
}

/// Twelve nodes of 80 MB look for their first layers for two seconds; then 12.5 MB a second arrive on all of them
/// together. Whatever is said of the time that is left is near what it turns out to be.
#[test]
fn the_time_that_is_left_is_right_from_the_first_time_it_is_told() {
    const SIZE: u64 = 80_000_000;
    let mut run = Run::new(12, &[IMAGE]);
    (0..12).for_each(|node| run.start(node));
    let end = 2.0 + 12.0 * SIZE as f64 / 12.5e6;
    let mut first = None;
    for second in 0..79 {
        run.at = second * SECOND;
        let each = (f64::from(second) - 2.0).max(0.001) * 12.5e6 / 12.0;
        for node in 0..12 {
            run.arrives(node, each as u64, Some(SIZE));
        }
        let Some(left) = run.board.time_left(run.at) else {
            continue;
        };
        first.get_or_insert(second);
        let truth = end - f64::from(second);
        let off = (left.as_secs_f64() - truth).abs();
        assert!(off <= 2.0 + 0.3 * truth, "{second}: {left:?}, not {truth}");
    }
    assert_eq!(first, Some(10));
}

#[test]
fn nothing_left_to_start_does_not_read_as_nothing_left() {
    let mut run = Run::new(2, &[IMAGE]);
    (0..2).for_each(|node| run.start(node));
    let counts = |run: &Run| run.frame(23, 79).remove(0);
    assert_eq!(
        counts(&run),
        "0 done, 2 running, 0 failed, none left to start of 2 nodes, 0s"
    );
    (0..2).for_each(|node| run.ends(node, pulled()));
    assert_eq!(
        counts(&run),
        "2 done, 0 running, 0 failed, 0 left of 2 nodes, 0s"
    );
}

#[test]
fn a_try_that_waits_for_its_registry_or_for_a_place_says_so() {
    let mut run = Run::new(40, &[IMAGE]);
    run.start(0);
    run.tries_again(0, "reset");
    let told = |run: &Run| {
        let frame = run.frame(23, 120);
        let line = frame.iter().find(|line| line.contains(" to try again "));
        line.unwrap().split(':').next().unwrap().trim().to_string()
    };
    run.tell(EventKind::RegistryPaused {
        registry: IMAGE.split('/').next().unwrap().into(),
        length: 24 * SECOND,
    });
    run.at = 13 * SECOND;
    assert_eq!(told(&run), "1 to try again in 11s");
    run.at = 25 * SECOND;
    assert_eq!(told(&run), "1 to try again now");
    (1..40).for_each(|node| run.start(node));
    assert_eq!(told(&run), "1 to try again once another node is done");
}

/// Images share layers: what the first one brought, the second does not bring again, on nodes that have not begun
/// either.
#[test]
fn a_total_holds_what_still_comes_and_no_more() {
    let mut run = Run::new(2, &[IMAGE, "reg.example:5000/team/other:v2"]);
    run.start(0);
    let arrives = |run: &mut Run, item, bytes, total| {
        let node = 0;
        run.tell(EventKind::Progress {
            node,
            item,
            bytes,
            total,
        });
    };
    arrives(&mut run, 0, 30, Some(30));
    // Before it was known which layers were there.
    arrives(&mut run, 1, 0, Some(40));
    arrives(&mut run, 1, 5, Some(10));
    let record = |arrived| {
        Arc::new(Record {
            outcome: pulled(),
            attempts: vec![],
            elapsed: SECOND,
            arrived,
            delivery: None,
            kept: None,
        })
    };
    for (item, arrived) in [(0, Some(30)), (1, Some(10))] {
        let record = record(arrived);
        run.tell(EventKind::Finished {
            node: 0,
            item,
            record,
        });
    }
    assert_eq!(run.board.arrived(), Some(40));
    // The other node is to bring as much.
    assert_eq!(run.board.share(), 0.5);
    assert_eq!(run.board.unseen(), 0);
    run.start(1);
    let record = record(None);
    run.tell(EventKind::Finished {
        node: 1,
        item: 0,
        record,
    });
    assert_eq!((run.board.arrived(), run.board.unseen()), (Some(40), 1));
    let standing = status_line(&run.board, run.at, "running");
    assert!(standing.ends_with(" bytes=40 unseen=1"), "{standing}");
}

#[test]
fn the_relays_of_a_fan_out_have_a_line_and_so_has_each_reason_for_none() {
    let mut run = Run::new(12, &[IMAGE]);
    run.start(0);
    assert!(
        !run.frame(24, 80)
            .iter()
            .any(|line| line.contains("fan-out"))
    );
    let totals = fan_out_totals();
    run.tell(EventKind::FanOut { totals });
    for node in 3..6 {
        let why = "no relay on this node: it is a riscv64\u{1b}[2J".into();
        run.tell(EventKind::FanOutFallback { node, why });
    }
    let said = run.frame(24, 80);
    assert_eq!(
        said[2],
        "fan-out: 2 roots, depth 9, 1.1 GB from the registry, 399.1 GB between nodes"
    );
    assert_eq!(
        said[3],
        "  3 fell back: worker-0004, worker-0005, ...: ... it is a riscv64\\u{1b}[2J"
    );
    let wide = run.frame(24, 120);
    assert!(wide[2].ends_with(" between nodes, 400 relays"), "{wide:#?}");
    for (height, width) in [(1, 80), (3, 40), (24, 20)] {
        let said = run.frame(height, width);
        assert!(
            said.len() <= height && said.iter().all(|line| line.len() <= width),
            "{said:#?}"
        );
    }
    let standing = status_line(&run.board, run.at, "running");
    let fields =
        "relays=400 roots=2 depth=9 from_source=1095216660 from_peers=399100000000 fallbacks=3";
    assert!(standing.ends_with(fields), "{standing}");
}

#[test]
fn a_node_that_is_at_it_again_says_so_and_which_image() {
    let mut run = Run::new(2, &[IMAGE, "reg.example:5000/team/other:v2"]);
    run.start(0);
    run.tries_again(0, "reset");
    run.at = 75 * SECOND;
    run.start(0);
    assert_eq!(
        run.frame(10, 100)[2..],
        ["  worker-0001  pull app:v1  0s  try 2"]
    );
}

#[test]
fn waiting_for_a_registry_has_a_word_of_its_own_and_takes_no_lines_from_those_that_pull() {
    let mut run = Run::new(50, &[IMAGE]);
    for node in 0..40 {
        run.start(node);
        match node % 4 {
            0 => run.arrives(node, 1000, Some(1_000_000)),
            _ => run.stage(node, Stage::Queue),
        }
    }
    let frame = run.frame(23, 79);
    let registry = IMAGE.split('/').next().unwrap();
    assert_eq!(frame[2], format!("  30 queued for a turn at {registry}"));
    let rows = |frame: &[String]| frame.iter().filter(|line| line.contains("  pull ")).count();
    assert_eq!((rows(&frame), frame.len()), (10, 13), "{frame:#?}");
    run.arrives(0, 1_000_000, Some(1_000_000));
    // The others' column is as wide.
    let unpacks = run
        .frame(23, 79)
        .iter()
        .any(|line| line.starts_with("  worker-0001  unpack  1.0 MB of "));
    assert!(unpacks, "{frame:#?}");
    let standing = status_line(&run.board, run.at, "running");
    assert!(
        standing.contains(" left=10 waiting=0 queued=30"),
        "{standing}"
    );
    run.tell(EventKind::RegistryPaused {
        registry: registry.into(),
        length: 12 * SECOND,
    });
    let paused = format!("  {registry} is left alone by all nodes for 12s more");
    assert_eq!(run.frame(23, 79)[2], paused);
    run.at += 12 * SECOND;
    assert!(!run.frame(23, 79).contains(&paused));
}

#[test]
fn every_size_holds_the_counts_and_no_more_than_fits() {
    let mut run = Run::new(5000, &[IMAGE]);
    for node in 0..2000 {
        run.at += SECOND / 10;
        run.start(node);
        match node % 5 {
            0 => run.ends(node, denied(node)),
            1 => run.ends(node, pulled()),
            2 => run.tries_again(node, &format!("reason {}", "x".repeat(node % 47))),
            _ => run.arrives(node, node as u64, Some(1_000_000)),
        }
    }
    for height in [1, 2, 3, 5, 8, 23, 49, 199] {
        for width in [1, 2, 9, 39, 79, 119, 199] {
            let frame = run.frame(height, width);
            assert!(frame.len() <= height, "{height}x{width}: {frame:#?}");
            assert_eq!(frame.len(), height, "{height}x{width} has room for more");
            let widest = frame.iter().map(|line| measure_text_width(line)).max();
            assert!(widest <= Some(width), "{height}x{width}: {frame:#?}");
            assert!(frame.iter().all(|line| !line.trim().is_empty()));
            if width >= 79 {
                let counts = "400 done, 800 running, 400 failed, 3400 left of 5000 nodes, 3m 20s";
                assert_eq!(frame[0], counts);
            }
        }
    }
    let frame = run.frame(23, 119);
    let text = frame.join("\n");
    // The newest of those that failed, the causes with most nodes, and those who take longest.
    assert!(
        frame[2].starts_with(
            "  400 failed: registry-auth (pull) on worker-1996, worker-1991, worker-1986, ...: "
        ),
        "{text}"
    );
    assert!(
        frame[3].contains(" to try again once another node is done: registry-unavailable"),
        "{text}"
    );
    assert!(text.contains("\n  and 35 more causes\n"), "{text}");
    assert!(
        text.contains("  worker-0004  pull   3 B of 1.0 MB"),
        "{text}"
    );
    assert!(frame[22].starts_with("  and 7"), "{text}");
}

#[test]
fn bars_have_block_characters_where_the_locale_has_them_in_the_same_width() {
    let view = |unicode| View {
        height: 10,
        width: 80,
        color: false,
        unicode,
    };
    for share in [0.0, 0.01, 0.5, 0.999, 1.0, 1.5] {
        let [ascii, blocks] = [false, true].map(|unicode| bar(share, 10, view(unicode)));
        assert_eq!(ascii.len(), 12, "{ascii}");
        assert_eq!(measure_text_width(&blocks), 12, "{blocks}");
    }
    assert_eq!(bar(0.5, 10, view(true)), "██████░░░░░░");
    assert_eq!(bar(0.55, 10, view(true)), "██████▌░░░░░");
    assert_eq!(bar(0.5, 10, view(false)), "[#####-----]");
}

#[test]
fn colour_adds_nothing_but_colour() {
    let mut run = Run::new(4, &[IMAGE]);
    run.start(0);
    run.start(1);
    run.ends(1, denied(1));
    let view = View {
        height: 10,
        width: 60,
        color: true,
        unicode: false,
    };
    let colored = frame(&run.board, run.at, view);
    assert!(colored[0].contains("\x1b[31m"), "{colored:?}");
    let plain = colored.iter().map(|line| console::strip_ansi_codes(line));
    assert_eq!(plain.collect::<Vec<_>>(), run.frame(10, 60));
}
