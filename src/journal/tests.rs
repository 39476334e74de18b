//! A journal gives back what was put into it, whatever became of the file.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::model::{
    Attempt, CommandOutput, EventKind, ExitStatus, Failure, FailureKind, FanOutTotals, Fleet,
    KeepOutcome, KeptState, LocalImage, Outcome, Overdue, PlannedImage, Policy, Record, Stage,
};

const APP: &str = "reg.example/team/app:v1";

fn plan(nodes: usize) -> Plan {
    let image = APP.parse().unwrap();
    let nodes = (0..nodes).map(|number| Node::named(&format!("node-{number}")));
    Plan::new(
        Fleet::new(nodes.collect()).unwrap(),
        Work::Pull(vec![PlannedImage { image, login: None }]),
        Policy::default(),
    )
}

fn header(run: &str, nodes: usize) -> Header {
    let started = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_000_000_123);
    let arguments = vec!["pull".to_string(), APP.to_string()];
    Header::new(run, started, &plan(nodes), "/work/here".into(), arguments)
}

fn held() -> LocalImage {
    LocalImage {
        digest: Some("sha256:ab".into()),
        image_id: None,
        bytes: Some(80_000_000),
        platform: Some("linux/amd64".into()),
    }
}

fn fan_out(number: u64, from_peers: u64) -> Event {
    let totals = FanOutTotals {
        from_peers,
        ..FanOutTotals::default()
    };
    let fact = EventKind::FanOut { totals };
    let at = Duration::ZERO;
    Event { number, at, fact }
}

fn finished(number: u64, node: usize, outcome: Outcome) -> Event {
    Event {
        number,
        at: Duration::from_nanos(1_234_567_891),
        fact: EventKind::Finished {
            node,
            item: 0,
            record: Arc::new(Record {
                outcome,
                attempts: vec![Attempt {
                    number: 1,
                    elapsed: Duration::from_micros(17),
                    failure: Some(Failure::new(
                        FailureKind::RuntimeAbsent,
                        Stage::Pull,
                        "a\n\u{1b}",
                    )),
                }],
                elapsed: Duration::from_secs(3),
                arrived: Some(17),
                delivery: None,
                kept: None,
            }),
        },
    }
}

/// A folder with a journal of these events, ended or not; the writer is gone.
fn written(events: &[Event], end: Option<End>) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = Journal::create(folder.path(), &header("2026-a", 3)).unwrap();
    journal.events(events).unwrap();
    if let Some(end) = end {
        journal.end(&end).unwrap();
    }
    let path = folder.path().join("2026-a.jsonl");
    (folder, path)
}

#[test]
fn a_run_that_ended_reads_back_as_it_was() {
    let output = CommandOutput {
        exit: ExitStatus::Signal("KILL".into()),
        stdout: vec![0, 255, b'\n'],
        stderr: vec![],
        truncated: true,
    };
    let events = [
        finished(1, 0, Outcome::Pulled(held())),
        finished(2, 2, Outcome::Ran(output.into())),
        Event {
            number: 3,
            at: Duration::ZERO,
            fact: EventKind::NodeStage {
                node: 1,
                item: None,
                stage: Stage::Handshake,
            },
        },
    ];
    let end = End {
        finished: SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_009),
        stopped: Some(StopReason::Deadline),
        counts: None,
        forecast: None,
    };
    let (_folder, path) = written(&events, Some(end));
    let past = RecordedRun::read(&path).unwrap();
    assert_eq!(past.header, header("2026-a", 3));
    assert_eq!(past.events, events);
    assert_eq!((past.end, past.state), (Some(end), State::Ended));
    assert_eq!(past.finished(), end.finished);
    assert_eq!(past.plan().unwrap().fleet, plan(3).fleet);
}

#[test]
fn a_run_that_ended_is_listed_by_its_first_and_last_line() {
    let counts = Counts {
        nodes: 3,
        ok: 1,
        ran: Some(1),
        ..Counts::default()
    };
    let end = End {
        finished: SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_009),
        stopped: None,
        counts: Some(counts),
        forecast: None,
    };
    let (folder, path) = written(&[finished(1, 0, Outcome::Missing)], Some(end));
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    // What stands between is not looked at: it may be long.
    let torn = format!("{}\nnot a line of ours\n{}\n", lines[0], lines[2]);
    std::fs::write(&path, torn).unwrap();
    let listed: Vec<_> = list(folder.path())
        .unwrap()
        .map(|(_, listed)| listed)
        .collect();
    let [Ok(listed)] = &listed[..] else {
        panic!("{listed:?}");
    };
    assert_eq!(listed.past.header.run, "2026-a");
    assert_eq!(listed.counts, Some(counts));
    assert!(RecordedRun::read(&path).is_err());
    // Without its end, and as older versions ended it, it is read.
    for end in [
        None,
        Some(End {
            counts: None,
            ..end
        }),
    ] {
        let (folder, _) = written(&[finished(1, 0, Outcome::Missing)], end);
        let listed = list(folder.path()).unwrap().next().unwrap().1.unwrap();
        assert_eq!((listed.past.events.len(), listed.counts), (1, None));
    }
}

#[test]
fn a_journal_has_the_start_of_what_commands_printed() {
    let output = CommandOutput {
        exit: ExitStatus::Code(0),
        stdout: vec![0; 1 << 20],
        stderr: b"short".to_vec(),
        truncated: false,
    };
    let (_folder, path) = written(&[finished(1, 0, Outcome::Ran(output.into()))], None);
    assert!(std::fs::metadata(&path).unwrap().len() < 10_000);
    let past = RecordedRun::read(&path).unwrap();
    let EventKind::Finished { record, .. } = &past.events[0].fact else {
        panic!("{past:?}");
    };
    let Outcome::Ran(ran) = &record.outcome else {
        panic!("{record:?}");
    };
    assert_eq!(
        (ran.stdout.len(), ran.stdout.excerpt_of()),
        (4096, Some(1 << 20))
    );
    assert_eq!(ran.stderr.read(9).unwrap(), b"short");
    assert!(ran.truncated);
}

#[test]
fn what_has_no_outcome_was_cut_short_and_what_is_held_is_known() {
    let failure = Failure::new(FailureKind::DiskFull, Stage::Pull, "full");
    let events = [
        finished(1, 0, Outcome::Present(held())),
        finished(2, 1, Outcome::Failed(failure)),
        Event {
            number: 3,
            at: Duration::ZERO,
            fact: EventKind::RuntimeFound {
                node: 1,
                runtime: RuntimeKind::Crictl,
            },
        },
        fan_out(4, 7),
        fan_out(5, 9),
    ];
    let (_folder, path) = written(&events, None);
    let past = RecordedRun::read(&path).unwrap();
    assert_eq!(past.state, State::CutShort);
    assert_eq!(past.fan_out().map(|totals| totals.from_peers), Some(9));
    let records = past.records(&past.plan().unwrap());
    let runtimes: Vec<_> = records.iter().map(|node| node.runtime).collect();
    assert_eq!(runtimes, [None, Some(RuntimeKind::Crictl), None]);
    let statuses: Vec<_> = records
        .iter()
        .map(|node| node.items[0].outcome.status())
        .collect();
    assert_eq!(statuses, ["present", "failed", "not-run"]);
    assert_eq!(past.held(), HashMap::from([(("node-0", APP), &held())]));
}

#[test]
fn a_file_torn_at_any_byte_keeps_every_whole_line() {
    let events: Vec<Event> = (0..3)
        .map(|node| finished(node + 1, node as usize, Outcome::Pulled(held())))
        .collect();
    let (folder, path) = written(&events, None);
    let bytes = std::fs::read(&path).unwrap();
    let first = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let torn = folder.path().join("torn.jsonl");
    for length in first..=bytes.len() {
        std::fs::write(&torn, &bytes[..length]).unwrap();
        let whole = bytes[first..length]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count();
        let read = RecordedRun::read(&torn).unwrap().events;
        // A line that only lacks its newline says all that it has to say.
        assert!(read.len() == whole || read.len() == whole + 1, "{length}");
        assert_eq!(read, events[..read.len()]);
    }
    for length in 0..first - 1 {
        std::fs::write(&torn, &bytes[..length]).unwrap();
        assert!(RecordedRun::read(&torn).is_err(), "{length}");
    }
}

#[test]
fn a_line_that_is_not_ours_is_named() {
    let (_folder, path) = written(&[finished(1, 0, Outcome::Missing)], None);
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .open(&path)
        .unwrap();
    file.write_all(b"{\"event\":1}\n").unwrap();
    let error = RecordedRun::read(&path).unwrap_err().to_string();
    assert!(
        error.contains("2026-a.jsonl:3: this is no line of a journal"),
        "{error}"
    );
}

#[test]
fn a_run_that_goes_on_is_known_by_its_lock() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::create(folder.path(), &header("r", 1)).unwrap();
    let path = folder.path().join("r.jsonl");
    assert_eq!(RecordedRun::read(&path).unwrap().state, State::Running);
    drop(journal);
    assert_eq!(RecordedRun::read(&path).unwrap().state, State::CutShort);
}

#[test]
fn a_run_is_found_by_its_name_its_beginning_or_as_the_last() {
    let folder = tempfile::tempdir().unwrap();
    let missing = find(folder.path(), "last", Runs::All)
        .unwrap_err()
        .to_string();
    assert!(missing.contains("no run has been recorded"), "{missing}");
    for run in ["2026-01-a1", "2026-01-b2", "2026-02-c3"] {
        drop(Journal::create(folder.path(), &header(run, 1)).unwrap());
    }
    let named = |wanted: &str| {
        let path = find(folder.path(), wanted, Runs::All).map_err(|error| error.to_string());
        path.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
    };
    assert_eq!(named("last").unwrap(), "2026-02-c3");
    assert_eq!(named("2026-02").unwrap(), "2026-02-c3");
    assert_eq!(named("2026-01-a1").unwrap(), "2026-01-a1");
    assert!(named("2026-01").unwrap_err().contains("2 begin so"));
    assert!(
        named("2025")
            .unwrap_err()
            .contains("the last is 2026-02-c3")
    );
    assert!(named("").is_err());
    let listed = list(folder.path())
        .unwrap()
        .map(|(_, listed)| listed.unwrap().past.header.run);
    assert_eq!(
        listed.collect::<Vec<_>>(),
        ["2026-01-a1", "2026-01-b2", "2026-02-c3"]
    );
}

/// Begins a run of this kind, and ends it if it is to be.
fn run_of(folder: &Path, run: &str, work: JournalWork, is_ended: bool) -> Journal {
    let header = Header {
        work,
        ..header(run, 1)
    };
    let mut journal = Journal::create(folder, &header).unwrap();
    if is_ended {
        let end = End {
            finished: SystemTime::UNIX_EPOCH,
            stopped: None,
            counts: None,
            forecast: None,
        };
        journal.end(&end).unwrap();
    }
    journal
}

/// Copies of a journal.
fn fill(folder: &Path, of: &str, begin: &str, numbers: std::ops::Range<usize>) {
    let text = std::fs::read(folder.join(format!("{of}.jsonl"))).unwrap();
    for number in numbers {
        std::fs::write(folder.join(format!("{begin}-{number:04}.jsonl")), &text).unwrap();
    }
}

fn pull() -> JournalWork {
    JournalWork::Pull(vec![APP.into()])
}

fn check() -> JournalWork {
    JournalWork::Check(vec![APP.into()])
}

#[test]
fn journals_are_for_the_operators_eyes_and_not_for_ever() {
    use std::os::unix::fs::PermissionsExt as _;

    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("a/runs");
    drop(run_of(&folder, "run-0000", pull(), true));
    fill(&folder, "run-0000", "run", 1..501);
    drop(run_of(&folder, "run-0501", pull(), true));
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    assert_eq!(mode(&folder.join("run-0501.jsonl")), 0o600);
    assert_eq!(list(&folder).unwrap().count(), 500);
    assert!(!folder.join("run-0001.jsonl").exists());
}

#[test]
fn no_journal_goes_that_somebody_needs() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path();
    let is_there = |run: &str| folder.join(format!("{run}.jsonl")).exists();
    let running = run_of(folder, "a-running", pull(), false);
    drop(run_of(folder, "b-cut-short", pull(), false));
    drop(run_of(folder, "c-ended", pull(), true));
    drop(run_of(folder, "d-ended-and-gone-on-with", pull(), true));
    let torn = folder.join("e-torn.jsonl");
    drop(run_of(folder, "e-torn", pull(), true));
    let text = std::fs::read_to_string(&torn).unwrap();
    std::fs::write(&torn, &text[..text.len() - 2]).unwrap();
    let path = folder.join("d-ended-and-gone-on-with.jsonl");
    let claim = claim(folder, &RecordedRun::read(&path).unwrap()).unwrap();
    // Checks take nothing away from pulls.
    drop(run_of(folder, "m-0000", check(), true));
    fill(folder, "m-0000", "m", 1..500);
    drop(run_of(folder, "m-0500", check(), true));
    assert!(is_there("c-ended") && !is_there("m-0000") && is_there("m-0001"));
    fill(folder, "c-ended", "y", 0..499);
    drop(run_of(folder, "z", pull(), true));
    assert!(!is_there("c-ended") && is_there("y-0000"));
    for needed in [
        "a-running",
        "b-cut-short",
        "d-ended-and-gone-on-with",
        "e-torn",
    ] {
        assert!(is_there(needed), "{needed}");
    }
    // With the clock set back, its own is the oldest of all.
    let own = run_of(folder, "0-own", pull(), false);
    assert!(is_there("0-own"));
    drop((running, claim, own));
}

#[test]
fn the_last_pull_is_found_behind_other_runs() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path();
    let quoted = r#""work":{"pull":[]}"#.to_string();
    drop(run_of(
        folder,
        "2026-01",
        JournalWork::Exec(vec![quoted]),
        true,
    ));
    let last = |runs| find(folder, "last", runs).map_err(|error| error.to_string());
    assert!(
        last(Runs::Pulls)
            .unwrap_err()
            .ends_with("no pull has been recorded there, only other runs")
    );
    drop(run_of(folder, "2026-02", pull(), true));
    drop(run_of(folder, "2026-03", check(), true));
    drop(run_of(folder, "2026-04", JournalWork::Probe(vec![]), true));
    assert_eq!(last(Runs::Pulls).unwrap(), folder.join("2026-02.jsonl"));
    assert_eq!(last(Runs::All).unwrap(), folder.join("2026-04.jsonl"));
    assert_eq!(names(folder, Runs::Pulls).unwrap(), ["2026-02"]);
    assert_eq!(names(folder, Runs::All).unwrap().len(), 4);
    // Who names another is told what it is.
    assert!(find(folder, "2026-03", Runs::Pulls).is_ok());
}

#[test]
fn a_run_is_gone_on_with_by_one_prepull_whatever_it_was_called() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path();
    let marked = |run: &str, pull_token: &str| {
        let header = Header {
            pull_token: pull_token.into(),
            ..header(run, 1)
        };
        drop(Journal::create(folder, &header).unwrap());
        RecordedRun::read(&folder.join(format!("{run}.jsonl"))).unwrap()
    };
    let (first, second) = (marked("2026-01", "5a"), marked("2026-02", "5a"));
    let (other, unmarked) = (marked("2026-03", "6b"), marked("2026-04", ""));
    let claimed = claim(folder, &second).unwrap();
    let why = |past| claim(folder, past).unwrap_err().to_string();
    assert!(why(&second).starts_with("another prepull is at work on the pulls of the run 2026-02"));
    assert!(why(&first).starts_with("another prepull is at work on the pulls of the run 2026-01"));
    let free = [
        claim(folder, &other).unwrap(),
        claim(folder, &unmarked).unwrap(),
    ];
    drop((claimed, free));
    assert!(claim(folder, &first).is_ok());
}

#[test]
fn the_folder_is_where_programs_keep_their_state() {
    let folder = |variables: &[(&str, &str)]| {
        let variables: HashMap<_, _> = variables.iter().copied().collect();
        super::folder(&|name| variables.get(name).map(OsString::from))
    };
    assert_eq!(
        folder(&[("HOME", "/h")]),
        Some("/h/.local/state/prepull/runs".into())
    );
    let both = [("HOME", "/h"), ("XDG_STATE_HOME", "/s")];
    assert_eq!(folder(&both), Some("/s/prepull/runs".into()));
    assert_eq!(folder(&[("XDG_STATE_HOME", "not/absolute")]), None);
}

proptest! {
    #[test]
    fn no_file_makes_the_reader_panic(text in "(\\{\"(run|event|end)\":[^\n]{0,40}\\}\n?){0,3}", bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.jsonl");
        for content in [text.as_bytes(), &bytes] {
            std::fs::write(&path, content).unwrap();
            prop_assert!(RecordedRun::read(&path).is_err());
        }
    }
}

/// A finished item that came at the first try.
fn arrived(node: usize, outcome: Outcome, bytes: Option<u64>, seconds: u64) -> Event {
    let mut event = finished(1, node, outcome);
    if let EventKind::Finished { record, .. } = &mut event.fact {
        let record = Arc::make_mut(record);
        record.attempts[0].failure = None;
        record.arrived = bytes;
        record.elapsed = Duration::from_secs(seconds);
    }
    event
}

/// A journal of this work on nodes 0 and 1, with these events.
fn run_with(folder: &Path, run: &str, work: JournalWork, events: &[Event], end: End) {
    let header = Header {
        work,
        ..header(run, 2)
    };
    let mut journal = Journal::create(folder, &header).unwrap();
    journal.events(events).unwrap();
    journal.end(&end).unwrap();
}

fn end(forecast: Option<ForecastTotals>) -> End {
    End {
        finished: SystemTime::UNIX_EPOCH,
        stopped: None,
        counts: Some(Counts::default()),
        forecast,
    }
}

fn pulled_app() -> JournalWork {
    JournalWork::Pull(vec![APP.into()])
}

#[test]
fn a_forecast_counts_until_the_images_are_pulled() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (images, nodes) = ([APP.to_string()], ["node-1", "node-0"]);
    let found = || foretold(folder, &images, &nodes);
    assert_eq!(found(), None);
    let totals = ForecastTotals {
        bytes: 7,
        at_most: Some(7),
        unknown: 0,
        through_ssh: 7,
        fan_out: 7,
        time: None,
    };
    let probe = JournalWork::Probe(vec![APP.into()]);
    run_with(folder, "2026-01", probe, &[], end(Some(totals)));
    let told = found().unwrap();
    assert_eq!((told.run.as_str(), told.totals), ("2026-01", totals));
    let other = ["node-0", "node-2"];
    assert_eq!(foretold(folder, &images, &other), None, "other nodes");
    assert_eq!(foretold(folder, &["other:v1".into()], &nodes), None);
    run_with(
        folder,
        "2026-02",
        JournalWork::Check(images.to_vec()),
        &[],
        end(None),
    );
    assert!(found().is_some(), "a check changes nothing");
    run_with(folder, "2026-03", pulled_app(), &[], end(None));
    assert_eq!(found(), None, "the images were pulled since");
}

#[test]
fn earlier_pulls_tell_how_long_a_node_takes() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let event = |fact| Event {
        number: 1,
        at: Duration::ZERO,
        fact,
    };
    let events = [
        event(EventKind::NodeStarted { node: 0 }),
        event(EventKind::NodeStarted { node: 1 }),
        arrived(0, Outcome::Pulled(held()), Some(100), 10),
        // Neither a time with failed tries in it nor bytes that were not counted tell a rate.
        finished(1, 1, Outcome::Pulled(held())),
    ];
    run_with(folder, "2026-01", pulled_app(), &events, end(None));
    let history = format!("{:?}", history(folder, &["node-0", "node-1"]));
    assert!(history.contains("bytes: 100, seconds: 10.0"), "{history}");
    assert!(history.contains("at_once: 2"), "{history}");
    assert_eq!(history.matches("Sample {").count(), 1, "{history}");
    let none = format!("{:?}", super::history(folder, &["node-7"]));
    assert!(!none.contains("Sample {"), "{none}");
}

#[test]
fn what_a_node_held_is_what_the_last_run_found() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let check = || JournalWork::Check(vec![APP.into()]);
    let events = [0, 1].map(|node| finished(1, node, Outcome::Pulled(held())));
    run_with(folder, "2026-01", pulled_app(), &events, end(None));
    run_with(
        folder,
        "2026-02",
        check(),
        &[finished(1, 1, Outcome::Missing)],
        end(None),
    );
    let found = last_held(folder, &["node-0", "node-1"]);
    let expected = (
        ("node-0".to_string(), APP.to_string()),
        "2026-01".to_string(),
    );
    assert_eq!(found, HashMap::from([expected]));
}

#[test]
fn a_pull_whose_images_are_kept_too_long_is_remembered_until_they_are_released() {
    const OTHER: &str = "reg.example/other:v1";
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let write = |header: Header, kept: Option<KeptState>, nodes: &[usize]| {
        let outcomes = (1..).zip(nodes).map(|(number, &node)| {
            let mut event = finished(number, node, Outcome::Present(held()));
            if let EventKind::Finished { record, .. } = &mut event.fact {
                Arc::make_mut(record).kept = kept.map(|state| KeepOutcome { state, note: None });
            }
            event
        });
        let mut journal = Journal::create(folder, &header).unwrap();
        journal.events(&outcomes.collect::<Vec<_>>()).unwrap();
        journal.end(&end(None)).unwrap();
    };
    let pull = |run: &str, until: &str, state: KeptState| {
        let header = Header {
            keep: Some(until.into()),
            ..header(run, 2)
        };
        write(header, Some(state), &[1, 0]);
    };
    let release = |run: &str, images: &[&str], nodes: &[usize]| {
        let words = ["sh", "-c", "script", "release"].iter().chain(images);
        let header = Header {
            arguments: ["keep", "release"].map(String::from).to_vec(),
            work: JournalWork::Exec(words.map(ToString::to_string).collect()),
            ..header(run, 2)
        };
        write(header, None, nodes);
    };
    let now = humantime::parse_rfc3339("2026-12-01T00:00:00Z").unwrap();
    let (over, later) = ("2026-11-30T00:00:00Z", "2026-12-02T00:00:00Z");
    let asked = |image: &str| -> Vec<(String, String)> {
        let found = overdue(folder, &[image.into()], &["node-0", "node-1"], now);
        let pair = |overdue: Overdue| (overdue.run, overdue.nodes.join(","));
        found.into_iter().map(pair).collect()
    };
    let found = |run: &str, nodes: &str| vec![(run.to_string(), nodes.to_string())];
    pull("2026-01", over, KeptState::Pinned);
    assert_eq!(asked(APP), found("2026-01", "node-0,node-1"));
    assert_eq!(asked(OTHER), []);
    release("2026-02", &[OTHER], &[0, 1]);
    release("2026-03", &[APP], &[1]);
    assert_eq!(asked(APP), found("2026-01", "node-0"), "node-1 released it");
    release("2026-04", &[], &[0]);
    assert_eq!(asked(APP), []);
    // Nothing was pinned.
    pull("2026-05", over, KeptState::NotPinned);
    assert_eq!(asked(APP), []);
    pull("2026-06", over, KeptState::Unconfirmed);
    assert_eq!(asked(APP), found("2026-06", "node-0,node-1"));
    pull("2026-07", later, KeptState::Pinned);
    assert_eq!(asked(APP), [], "it was kept again, for longer");
    pull("2026-08", "released", KeptState::Pinned);
    assert_eq!(asked(APP), [], "it is kept without an end");
}
