//! What every reporter shows of the same runs, and that none of them holds a run up.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::document::document;
use super::json::ascii_controls;
use super::lines::line;
use super::summary::write_summary;
use super::timeline::{Phase, Timeline};
use super::writer_thread::Output;
use super::*;
use crate::model::*;

#[derive(Clone, Default)]
pub(super) struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Captured {
    pub(super) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
    pub(super) fn output(&self) -> Output {
        Box::new(self.clone())
    }
}

fn node(number: usize) -> Node {
    Node {
        name: format!("worker-{number}"),
        address: format!("10.0.0.{number}"),
        port: 22,
        user: "ops".into(),
        identities: vec![],
        jump: vec![],
        runtime: Some(RuntimeKind::Docker),
        endpoint: None,
        become_root: false,
        become_password: None,
        ssh_settings: 0,
        labels: BTreeMap::new(),
        facts: BTreeMap::new(),
        groups: vec![],
    }
}

pub(super) fn image() -> Image {
    "reg.example:5000/team/app:v1".parse().unwrap()
}

pub(super) fn pull() -> Work {
    let login = Credential {
        login: RegistryLogin::Password {
            username: "ci".into(),
            password: Secret::new("hunter2"),
        },
        source: LoginSource::Prompt,
    };
    Work::Pull(vec![PlannedImage {
        image: image(),
        login: Some(login),
    }])
}

pub(super) fn result(work: Work, outcomes: Vec<Vec<Outcome>>) -> RunResult {
    let fleet = Fleet::new((1..=outcomes.len()).map(node).collect()).unwrap();
    let policy = Policy::default();
    let started = SystemTime::UNIX_EPOCH + Duration::from_secs(1_763_932_629);
    let info = RunInfo {
        id: "run-1".into(),
        started,
        plan: Arc::new(Plan::new(fleet, work, policy)),
        resume: None,
        words: vec![],
        earlier: Default::default(),
    };
    let record = |outcome| Record {
        outcome,
        attempts: vec![],
        elapsed: Duration::from_micros(12_300_400),
        arrived: None,
        delivery: None,
        kept: None,
    };
    RunResult {
        info: Arc::new(info),
        finished: started + Duration::from_secs(151),
        fan_out: None,
        nodes: outcomes
            .into_iter()
            .map(|items| NodeRecord {
                runtime: None,
                items: items.into_iter().map(record).collect(),
            })
            .collect(),
        stopped: None,
        forecast: None,
    }
}

pub(super) fn held(digest: &str) -> LocalImage {
    LocalImage {
        digest: Some(digest.into()),
        image_id: None,
        bytes: Some(80_028_485),
        platform: None,
    }
}

pub(super) fn failed(kind: FailureKind, detail: impl Into<String>) -> Outcome {
    Outcome::Failed(Failure::new(kind, Stage::Pull, detail))
}

pub(super) fn finished(outcome: Outcome) -> Event {
    let arrived = matches!(outcome, Outcome::Pulled(_)).then_some(80_000_000);
    let record = Record {
        outcome,
        attempts: vec![],
        elapsed: Duration::from_secs(2),
        arrived,
        delivery: None,
        kept: None,
    };
    Event {
        number: 1,
        at: Duration::from_millis(12_340),
        fact: EventKind::Finished {
            node: 0,
            item: 0,
            record: Arc::new(record),
        },
    }
}

pub(super) fn fan_out_totals() -> FanOutTotals {
    FanOutTotals {
        nodes: 400,
        roots: 2,
        depth: 9,
        from_source: 1_095_216_660,
        from_peers: 399_100_000_000,
        image_bytes: 1_073_741_824,
        fallbacks: 3,
    }
}

pub(super) fn summary(result: &RunResult) -> String {
    let mut out = Vec::new();
    write_summary(result, &mut out, Layout::default()).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn the_document_has_every_field_of_the_contract() {
    let mut run = result(pull(), vec![vec![Outcome::Pulled(held("sha256:aa"))]]);
    let failure = Failure::new(FailureKind::RegistryUnavailable, Stage::Pull, "503");
    run.nodes[0].items[0].arrived = Some(80_000_000);
    run.nodes[0].items[0].attempts = vec![
        Attempt {
            number: 1,
            elapsed: Duration::from_millis(4100),
            failure: Some(failure),
        },
        Attempt {
            number: 2,
            elapsed: Duration::from_millis(8200),
            failure: None,
        },
    ];
    let got = serde_json::to_value(document(&run)).unwrap();
    let want = serde_json::json!({
        "schema": 1, "run": "run-1", "command": "pull",
        "started": "2025-11-23T21:17:09Z", "finished": "2025-11-23T21:19:40Z", "seconds": 151.0,
        "arrived": 80_000_000,
        "images": [{"reference": "reg.example:5000/team/app:v1", "digest": "sha256:aa"}],
        "nodes": [{
            "name": "worker-1", "address": "10.0.0.1", "port": 22, "user": "ops", "runtime": "docker",
            "outcomes": [{
                "image": "reg.example:5000/team/app:v1", "status": "pulled",
                "digest": "sha256:aa", "bytes": 80_000_000, "arrived": 80_000_000, "disk_bytes": 80_028_485, "seconds": 12.3,
                "attempts": [
                    {"number": 1, "seconds": 4.1, "failure": {"kind": "registry-unavailable",
                        "stage": "pull", "retryable": true, "detail": "503"}},
                    {"number": 2, "seconds": 8.2}],
            }],
        }],
        "summary": {"nodes": 1, "ok": 1, "failed": 0, "not_run": 0, "pulled": 1, "present": 0},
    });
    assert_eq!(got, want);
}

#[test]
fn differing_digests_are_told_and_no_digest_is_agreed() {
    let held = |digest| vec![Outcome::Present(held(digest))];
    let run = result(
        Work::Check(vec![image()]),
        vec![held("sha256:aa"), held("sha256:bb"), held("sha256:aa")],
    );
    assert!(!digests_agree(&run));
    let got = serde_json::to_value(document(&run)).unwrap();
    assert!(got["images"][0]["digest"].is_null());
    let digests = &got["disagreements"][0]["digests"];
    assert_eq!(
        digests[0],
        serde_json::json!({"digest": "sha256:aa", "nodes": 2, "names": ["worker-1", "worker-3"]})
    );
    let text = summary(&run);
    assert!(
        text.starts_with("NOT READY: 3 of 3 nodes ok, with different digests, in "),
        "{text}"
    );
    assert!(text.contains("DIFFERENT DIGESTS"), "{text}");
    assert!(text.contains("sha256:aa on 2 nodes\n"), "{text}");
    assert!(text.contains("sha256:bb on 1 node: worker-2\n"), "{text}");
}

#[test]
fn a_cancelled_run_says_which_pulls_it_could_not_end() {
    let not_run = || vec![Outcome::NotRun(StopReason::Interrupted)];
    let mut run = result(pull(), (0..5).map(|_| not_run()).collect());
    run.stopped = Some(StopReason::Interrupted);
    let attempt = |failure: Option<(FailureKind, Stage)>| Attempt {
        number: 1,
        elapsed: Duration::from_secs(1),
        failure: failure.map(|(kind, stage)| Failure::new(kind, stage, "gone")),
    };
    let lost = (FailureKind::ConnectionLost, Stage::Pull);
    let refused = (FailureKind::Unreachable, Stage::Connect);
    // One was not begun, two were ended, one is lost, and one never was there.
    run.nodes[1].items[0].attempts = vec![attempt(None)];
    run.nodes[2].items[0].attempts = vec![attempt(Some(lost)), attempt(None)];
    run.nodes[3].items[0].attempts = vec![attempt(Some(lost)), attempt(Some(refused))];
    let text = summary(&run);
    let wanted = "\nCancelled on 2 nodes; worker-4 cannot be reached, its pull ends within 10m\n";
    assert!(text.contains(wanted), "{text}");
    run.nodes[3].items[0].attempts = vec![attempt(Some(refused))];
    assert!(!summary(&run).contains("Cancelled on"));
}

/// The result of a command with these words.
pub(super) fn of_command(work: Work, words: &str, outcomes: Vec<Vec<Outcome>>) -> RunResult {
    let mut run = result(work, outcomes);
    let mut info = RunInfo::clone(&run.info);
    info.words = words.split(' ').map(String::from).collect();
    run.info = Arc::new(info);
    run
}

#[test]
fn a_pull_that_leaves_different_digests_says_which_where_and_what_mends_it() {
    let run = of_command(
        pull(),
        "prepull pull -i n.yml --limit w* --pull=missing --pull missing app:v1",
        vec![
            vec![Outcome::Present(held("sha256:bb"))],
            vec![Outcome::Pulled(held("sha256:aa"))],
            vec![Outcome::Present(held("sha256:aa"))],
            vec![Outcome::Present(held("sha256:bb"))],
        ],
    );
    let text = summary(&run);
    for line in [
        "NOT READY: 4 of 4 nodes ok, with different digests, in ",
        "  sha256:aa on 2 nodes (1 pulled now, 1 there before): worker-2, worker-3\n",
        "  sha256:bb on 2 nodes (there before): worker-1, worker-4\n",
        "\nTo give every node what the registry has now: prepull pull -i n.yml --limit 'w*' app:v1 --pull always\n",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

#[test]
fn a_check_says_how_many_have_no_image_and_what_pulls_it() {
    let missing = || vec![Outcome::Missing];
    let words = "prepull check -i n.yml --limit=w* -- app:v1";
    let present = || vec![Outcome::Present(held("sha256:aa"))];
    let check = || Work::Check(vec![image()]);
    let outcomes = vec![missing(), present(), missing(), missing(), missing()];
    let text = summary(&of_command(check(), words, outcomes));
    assert!(
        text.starts_with("NOT READY: 1 of 5 nodes ok, 4 without the image, in "),
        "{text}"
    );
    let wanted = "To pull what is missing on 4 nodes: prepull pull -i n.yml --limit 'worker-[1,3-5]' -- app:v1\n";
    assert!(text.ends_with(wanted), "{text}");
    // For all nodes it needs no list, but the limit that it had.
    let text = summary(&of_command(check(), words, vec![missing(), missing()]));
    let wanted = "on 2 nodes: prepull pull -i n.yml '--limit=w*' -- app:v1\n";
    assert!(text.ends_with(wanted), "{text}");
    // A failure is one beside it.
    let lost = vec![failed(FailureKind::Unreachable, "refused")];
    let text = summary(&of_command(
        check(),
        words,
        vec![missing(), lost, present()],
    ));
    assert!(
        text.contains("1 of 3 nodes ok, 1 without the image, 1 failed, in "),
        "{text}"
    );
    for wanted in [
        "on 1 node: prepull pull -i n.yml --limit worker-1 -- app:v1\n",
        "Just this node again: prepull check -i n.yml --limit worker-2 -- app:v1\n",
    ] {
        assert!(text.contains(wanted), "{wanted} in {text}");
    }
}

#[test]
fn equal_failures_are_one_group_with_names_and_one_advice() {
    let outcomes = (1..=12)
        .map(|n| {
            let detail = format!("10.0.0.{n}:4{n}: unauthorized: request f{n}a");
            vec![failed(FailureKind::RegistryAuth, detail)]
        })
        .chain([vec![Outcome::NotRun(StopReason::FailureLimit)]])
        .collect();
    let text = summary(&result(pull(), outcomes));
    assert!(
        text.contains("0 of 13 nodes ok, 12 failed, 1 not run, in 2m 31s"),
        "{text}"
    );
    assert!(
        text.contains("registry-auth (pull) on 12 nodes: worker-[1-12]\n  10.0.0.1:41: unauth"),
        "{text}"
    );
    assert_eq!(text.matches("What next:").count(), 1, "{text}");
    assert!(
        text.ends_with("\n\nnot run on 1 node: worker-13\n  the failure limit was reached\n"),
        "{text}"
    );
    assert_eq!(text.matches("\n\n").count(), 2, "a paragraph each: {text}");
}

#[test]
fn causes_of_one_kind_stand_together_with_their_count_and_one_advice() {
    let stage =
        |kind, stage, detail: &str| vec![Outcome::Failed(Failure::new(kind, stage, detail))];
    let auth = |detail: &str| stage(FailureKind::RegistryAuth, Stage::Pull, detail);
    let outcomes = vec![
        auth("status 401"),
        stage(FailureKind::Unreachable, Stage::Connect, "refused"),
        auth("Error response from daemon: status 403"),
        auth("pulling image: rpc error: code = Unknown desc = status 403"),
    ];
    let text = summary(&result(pull(), outcomes));
    let wanted = format!(
        "\n\nregistry-auth on 3 nodes\n  (pull) on 2 nodes: worker-3, worker-4\n    status 403\n  (pull) on 1 node: worker-1\n    \
         status 401\n  What next: {}\n\nunreachable (connect) on 1 node: worker-2\n  refused\n  What next: ",
        FailureKind::RegistryAuth.advice()
    );
    assert!(text.contains(&wanted), "{text}");
}

/// One node's broken name server or proxy is that node's, where others reach the registry; else it may be the registry's.
#[test]
fn a_nodes_own_way_to_the_registry_is_headed_as_the_nodes() {
    let lookup = "Get \"https://reg.example/v2/\": dial tcp: lookup reg.example on 10.0.0.9:53: server misbehaving";
    let proxy = "proxyconnect tcp: dial tcp 10.0.0.8:3128: connect: connection refused";
    let own = |words: &str| vec![failed(FailureKind::RegistryUnavailable, words)];
    let good = vec![Outcome::Pulled(held("sha256:aa"))];
    let busy = own("503 Service Unavailable");
    let mixed = result(pull(), vec![own(lookup), own(proxy), busy, good]);
    let text = summary(&mixed);
    for part in [
        "registry-unavailable (pull) on 1 node: worker-3\n  503",
        "registry-unavailable (pull, the node's name server) on 1 node: worker-1\n  Get",
        "  What next: Other nodes reach the registry: check /etc/resolv.conf",
        "registry-unavailable (pull, the node's proxy) on 1 node: worker-2\n  proxyconnect",
        "  What next: Other nodes reach the registry: check the proxy",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let all = summary(&result(pull(), vec![own(lookup), own(lookup)]));
    assert!(
        all.contains("registry-unavailable (pull) on 2 nodes: worker-1, worker-2\n"),
        "{all}"
    );
    assert!(all.contains("  What next: Check the registry, "), "{all}");
}

/// Words that were doubtful to an operator at night.
#[test]
fn advice_and_examples_fit_what_failed() {
    let at = |kind, stage, words: &str| vec![Outcome::Failed(Failure::new(kind, stage, words))];
    let good = vec![Outcome::Pulled(held("sha256:aa"))];
    let offered = format!("SHA256:{}", "o".repeat(43));
    let known = format!("SHA256:{}", "k".repeat(43));
    let changed = format!(
        "the host key of 10.0.0.3 has changed: it offers ssh-ed25519 {offered}, and /home/ops/.ssh/known_hosts:17 has ssh-ed25519 {known}; {}",
        "someone may be listening in, or the node was installed anew: if so, remove the old key with `ssh-keygen -R 10.0.0.3`"
    );
    let dialled =
        "Head \"https://reg.example/\": dial tcp 10.0.0.9:5000: connect: no route to host";
    let text = summary(&result(
        pull(),
        vec![
            at(
                FailureKind::NodeSetup,
                Stage::Start,
                "the node's login shell did not start our program",
            ),
            at(
                FailureKind::NodeSetup,
                Stage::Preflight,
                "the node's clock is 59m behind",
            ),
            at(FailureKind::HostKey, Stage::Handshake, &changed),
            at(FailureKind::RegistryUnavailable, Stage::Preflight, dialled),
            good,
        ],
    ));
    for part in [
        "  What next: Let the account run commands over SSH",
        "  What next: Set the node's clock",
        &format!("it offers ssh-ed25519 {offered}, and"),
        "registry-unavailable (preflight, the node's way there) on 1 node: worker-4",
        "check the node's route, its firewall",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(!text.contains("Mend the runtime's configuration"), "{text}");
}

/// What a probe found, for a terminal of this many columns.
#[test]
fn a_probe_says_no_room_and_shows_versions_in_full_where_there_is_room() {
    let facts = |obstacles: Vec<Failure>| {
        vec![Outcome::Probed(Box::new(NodeFacts {
            os: "linux".into(),
            architecture: "amd64".into(),
            system: "Debian GNU/Linux 12 (bookworm)".into(),
            clock: ClockOffset {
                milliseconds: 1,
                uncertainty: 2,
            },
            runtime: "containerd 1.7.24~ds1-6+deb12u1".into(),
            client: "docker".into(),
            endpoint: Some("unix:///run/containerd/containerd.sock".into()),
            root: "/var/lib/containerd".into(),
            free: Some(1_000_000),
            images: vec![None],
            unusable_registries: vec![],
            obstacles,
            forecast: None,
        }))]
    };
    let full = Failure::new(
        FailureKind::DiskFull,
        Stage::Preflight,
        "1.0 MB are free in /var/lib/containerd, and 24.5 MB are needed",
    );
    let images = vec![PlannedImage {
        image: image(),
        login: None,
    }];
    let run = result(Work::Probe(images), vec![facts(vec![full]), facts(vec![])]);
    let table = |columns| probed_table(&run, false, Layout::default(), columns);
    let wide = table(200);
    let rows: Vec<&str> = wide.lines().collect();
    for part in ["no room", " 0/1 ", "containerd 1.7.24~ds1-6+deb12u1"] {
        assert!(rows[1].contains(part), "{wide}");
    }
    assert!(rows[2].contains(" ok "), "{wide}");
    let ending = "disk-full (preflight) on 1 node: worker-1\n  1.0 MB are free in /var/lib/containerd, and 24.5 MB are needed\n  \
                  What next: Free space where the runtime keeps its images, then run the same command again.\n\n1 of 2 nodes ok, 1 failed\n";
    assert!(wide.ends_with(ending), "{wide}");
    // The version is worth more than the socket, which has another column's rank.
    for columns in [80, 100] {
        let table = table(columns);
        assert!(
            table
                .lines()
                .take(3)
                .all(|row| row.chars().count() <= columns),
            "{table}"
        );
        assert!(table.contains("containerd 1.7.24"), "{table}");
    }
    let json = probed_json(&run);
    let probe = &json["nodes"][0]["probe"];
    assert_eq!(probe["obstacles"][0]["kind"], "disk-full");
    assert_eq!(
        json["nodes"][1]["probe"]["obstacles"],
        serde_json::json!([])
    );
}

#[test]
fn a_terminal_has_the_verdict_last_and_wrapped_words_but_whole_commands() {
    let words = "prepull check -i inventory.yml --known-hosts /etc/prepull/known_hosts app:v1";
    let auth = failed(
        FailureKind::RegistryAuth,
        "Error response from daemon: unauthorized: authentication required",
    );
    let run = of_command(Work::Check(vec![image()]), words, vec![vec![auth]]);
    let mut out = Vec::new();
    let layout = Layout {
        width: Some(50),
        color: false,
    };
    write_summary(&run, &mut out, layout).unwrap();
    let text = String::from_utf8(out).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines.last(),
        Some(&"NOT READY: 0 of 1 node ok, 1 failed, in 2m 31s")
    );
    assert!(lines.contains(&words), "{text}");
    assert!(
        text.contains("  What next: Check the registry's user and\n    password"),
        "{text}"
    );
    let is_wide = |line: &&&str| line.len() > 50 && **line != words;
    assert_eq!(lines.iter().find(is_wide), None);
    assert!(summary(&run).starts_with("NOT READY: "));
}

#[test]
fn an_absent_image_of_a_check_is_no_failure_anywhere() {
    let outcomes = vec![
        vec![Outcome::Missing],
        vec![Outcome::Present(held("sha256:aa"))],
        vec![failed(FailureKind::Unreachable, "refused")],
        vec![Outcome::Missing],
    ];
    let run = result(Work::Check(vec![image()]), outcomes);
    let counts = serde_json::to_value(document(&run)).unwrap()["summary"].take();
    assert_eq!(
        counts,
        serde_json::json!({"nodes": 4, "ok": 1, "failed": 1, "not_run": 0, "pulled": 0, "present": 1, "missing": 2, "absent": 2})
    );
    let table = runs_table(&[RunEntry::new(&run, "ended")]);
    let cells: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(cells[3..8], ["4", "1", "2", "1", "0"], "{table}");
    let mut state = super::run_state::RunState::new(Arc::clone(&run.info));
    state.apply(&finished(Outcome::Missing));
    assert_eq!(state.tally().failed, 0);
}

#[test]
fn hostile_words_stay_one_escaped_bounded_line() {
    let detail = format!("\u{1b}[2J\n\u{202e}\u{9b}{}", "\u{1b}".repeat(1_000_000));
    let outcome = failed(FailureKind::Unknown, detail);
    let run = result(pull(), vec![vec![outcome.clone()]]);
    let shown = line(&run.info, &finished(outcome), false).unwrap();
    assert!(shown.len() < 1000, "{}", shown.len());
    assert!(!shown.contains(|c: char| c.is_control() || c == '\u{202e}'));
    let text = summary(&run);
    assert!(text.len() < 2000);
    assert!(!text.contains('\u{1b}'));
    let json = ascii_controls(&serde_json::to_string(&document(&run)).unwrap());
    assert!(!json.contains(|c: char| c.is_control() || c == '\u{202e}'));
    let read: serde_json::Value = serde_json::from_str(&json).unwrap();
    let words = read["nodes"][0]["outcomes"][0]["failure"]["detail"]
        .as_str()
        .unwrap();
    assert!(words.starts_with("\u{1b}[2J\n\u{202e}\u{9b}"));
    assert!(words.len() < 20_000);
}

#[test]
fn lines_are_timed_and_greppable() {
    let run = result(pull(), vec![vec![Outcome::Missing]]);
    let pulled = finished(Outcome::Pulled(held("sha256:aa")));
    assert_eq!(
        line(&run.info, &pulled, false).unwrap(),
        "12.3s node=worker-1 image=reg.example:5000/team/app:v1 status=pulled digest=sha256:aa bytes=80000000 seconds=2.0"
    );
    let retry = Event {
        fact: EventKind::AttemptFailed {
            node: 0,
            item: 0,
            attempt: 1,
            failure: Failure::new(
                FailureKind::RegistryUnavailable,
                Stage::Pull,
                "said \"no\" twice",
            ),
            retry_in: Duration::from_millis(1400),
        },
        ..pulled
    };
    assert_eq!(
        line(&run.info, &retry, false).unwrap(),
        "12.3s node=worker-1 image=reg.example:5000/team/app:v1 status=retry kind=registry-unavailable \
         stage=pull attempt=1 retry_in=1.4s detail=\"said \\\"no\\\" twice\""
    );
}

#[test]
fn commands_show_their_output_by_node_and_a_bad_status() {
    let output = CommandOutput {
        exit: ExitStatus::Code(3),
        stdout: b"one\ntwo\x1b\n".to_vec(),
        stderr: b"\xffbad".to_vec(),
        truncated: true,
    };
    let run = result(
        Work::Exec(vec!["false".into()]),
        vec![vec![Outcome::Ran(output.into())]],
    );
    let text = summary(&run);
    for wanted in [
        "worker-1 | one\n",
        "worker-1 | two\\u{1b}\n",
        "worker-1 stderr| \u{fffd}bad\n",
        "worker-1 [output cut]\n",
        "exit status 3 on 1 node: worker-1\n",
    ] {
        assert!(text.contains(wanted), "{wanted:?} is not in {text}");
    }
    let got = serde_json::to_value(document(&run)).unwrap();
    let outcome = &got["nodes"][0]["outcomes"][0];
    assert_eq!(
        (&outcome["exit"], &outcome["stderr"]),
        (&3.into(), &"\u{fffd}bad".into())
    );
    assert!(outcome.get("image").is_none());
    assert_eq!(got["summary"]["ran"], 1);
    assert_eq!(got["summary"]["failed"], 1);
}

#[test]
fn what_many_nodes_printed_alike_is_shown_once_and_who_differs_last() {
    let ran = |stdout: &str, code| {
        Outcome::Ran(
            CommandOutput {
                exit: ExitStatus::Code(code),
                stdout: stdout.into(),
                stderr: vec![],
                truncated: false,
            }
            .into(),
        )
    };
    let mut outcomes = vec![vec![ran("6.1.0-30\nup\n", 0)]; 97];
    outcomes[40] = vec![ran("6.1.0-29\nup\n", 0)];
    // The same words, whatever the status.
    outcomes[50] = vec![ran("6.1.0-30\nup\n", 1)];
    outcomes.extend(vec![vec![ran("", 0)]; 3]);
    let text = summary(&result(Work::Exec(vec!["uname".into()]), outcomes));
    let alike = "96 nodes: worker-[1-40,42-97]\n | 6.1.0-30\n | up\n";
    let other = "worker-41 | 6.1.0-29\nworker-41 | up\n";
    assert!(
        text.starts_with(&format!("{alike}{other}NOT DONE: 99 of 100")),
        "{text}"
    );
}

#[test]
fn plans_show_the_user_of_a_login_and_never_the_password() {
    let run = result(pull(), vec![vec![Outcome::Missing]]);
    let text = plan_text(&run.info.plan);
    let json = plan_json(&run.info.plan);
    assert!(
        text.contains(
            "reg.example:5000/team/app:v1 from reg.example:5000 (as ci: the password is asked for)"
        ),
        "{text}"
    );
    assert_eq!(json["images"][0]["user"], "ci");
    assert_eq!(json["images"][0]["login"]["source"], "prompt");
    assert!(!format!("{text}{json}").contains("hunter2"));
    assert_eq!(
        fleet_table(&run.info.plan.fleet, false),
        "NAME      ADDRESS   PORT  USER  RUNTIME  JUMP\nworker-1  10.0.0.1  22    ops   docker   -\n"
    );
    assert_eq!(
        fleet_json(&run.info.plan.fleet)["nodes"][0]["address"],
        "10.0.0.1"
    );
}

/// Blocks on its first write until it is let go.
struct Stuck(mpsc::Receiver<()>, Captured);

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.recv();
        self.1.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_blocked_writer_does_not_hold_up_the_senders() {
    let run = result(pull(), vec![vec![Outcome::Missing]]);
    let (let_go, wait) = mpsc::channel();
    let captured = Captured::default();
    let stuck = Box::new(Stuck(wait, captured.clone()));
    let (results, lines) = (Captured::default(), Captured::default());
    let options = HumanOptions {
        progress: ProgressStyle::Lines,
        verbose: true,
        ..HumanOptions::default()
    };
    let human = Human::new(
        Arc::clone(&run.info),
        options,
        results.output(),
        lines.output(),
    );
    let (facts, receiver) = tokio::sync::mpsc::channel(8);
    let running = start(
        receiver,
        None,
        vec![
            Box::new(Jsonl::new(Arc::clone(&run.info), stuck)),
            Box::new(human),
        ],
    );
    let (sent, all_sent) = mpsc::channel();
    std::thread::spawn(move || {
        for _ in 0..5000 {
            let fact = EventKind::NodeStarted { node: 0 };
            facts.blocking_send((Duration::ZERO, fact)).unwrap();
        }
        sent.send(()).unwrap();
    });
    all_sent
        .recv_timeout(Duration::from_secs(20))
        .expect("the sender was held up by a blocked writer");
    drop(let_go);
    assert!(running.finish(&run).is_empty());
    let text = captured.text();
    let numbers: Vec<u64> = text
        .lines()
        .filter_map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["number"].as_u64()
        })
        .collect();
    assert_eq!(numbers, (0..=5000).collect::<Vec<_>>());
    let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["result"]["run"], "run-1");
    // What the run is, the facts, and where it ended.
    assert_eq!(lines.text().lines().count(), 5002);
    assert!(results.text().starts_with("NOT READY"));
}

/// A terminal that reads nothing until it is let go.
#[derive(Debug)]
struct Deaf(Mutex<mpsc::Receiver<()>>, Arc<Mutex<String>>);

impl super::screen::Device for Deaf {
    fn size(&self) -> (u16, u16) {
        (24, 80)
    }
    fn write(&self, text: &str) -> io::Result<()> {
        let _ = self.0.lock().unwrap().recv();
        self.1.lock().unwrap().push_str(text);
        Ok(())
    }
}

#[test]
fn a_terminal_that_does_not_read_holds_nothing_up_and_fills_no_memory() {
    let run = result(pull(), vec![vec![Outcome::Missing]; 3]);
    let (let_go, wait) = mpsc::channel();
    let seen = Arc::new(Mutex::new(String::new()));
    let deaf = Box::new(Deaf(Mutex::new(wait), Arc::clone(&seen)));
    let mut bars = super::bars::Bars::on(deaf, Arc::clone(&run.info), true, false);
    for number in 0..20_000 {
        let fact = match number {
            19_999 => EventKind::NodeStarted { node: 2 },
            _ => EventKind::NodeStarted { node: number % 2 },
        };
        bars.event(&Event {
            number: number as u64,
            at: Duration::from_secs(number as u64),
            fact,
        });
    }
    drop(let_go);
    bars.finish();
    let seen = seen.lock().unwrap();
    assert!(seen.contains("lines are not shown]"), "{seen}");
    assert!(seen.contains("19999.0s node=worker-3 status=started"));
    // Some of them may have been on their way already.
    assert!(seen.lines().count() < 3000, "{}", seen.lines().count());
}

#[test]
fn the_command_that_retries_names_the_nodes_and_stands_before_the_operators_own() {
    let mut run = result(
        Work::Exec(vec!["df".into()]),
        vec![
            vec![failed(FailureKind::Unreachable, "refused")],
            vec![Outcome::Ran(
                CommandOutput {
                    exit: ExitStatus::Code(0),
                    stdout: vec![],
                    stderr: vec![],
                    truncated: false,
                }
                .into(),
            )],
            vec![failed(FailureKind::Unreachable, "refused")],
        ],
    );
    let mut info = RunInfo::clone(&run.info);
    info.words = ["prepull", "exec", "-H", "a b", "--", "df"]
        .map(String::from)
        .to_vec();
    run.info = Arc::new(info.clone());
    let text = summary(&run);
    assert!(
        text.starts_with("NOT DONE: 1 of 3 nodes ok, 2 failed, in 2m 31s\n"),
        "{text}"
    );
    let wanted = "Just these nodes again: prepull exec -H 'a b' --limit worker-1,worker-3 -- df\n";
    assert!(text.ends_with(wanted), "{text}");
    info.resume = Some("prepull pull --resume run-1".into());
    run.info = Arc::new(info);
    let text = summary(&run);
    assert!(
        text.ends_with("\nRetry just these nodes: prepull pull --resume run-1\n"),
        "{text}"
    );
}

#[test]
fn the_summary_lists_each_host_key_that_is_to_be_compared() {
    let fails = |detail: String| {
        let failure = Failure::new(FailureKind::HostKey, Stage::Handshake, detail);
        vec![Outcome::Failed(failure)]
    };
    let unknown = |node: usize, key: &str| {
        fails(format!(
            "the host key of 10.0.0.{node} is unknown: it offers ssh-ed25519 SHA256:{key}; known hosts were read from \
             /home/ops/.ssh/known_hosts and /etc/ssh/ssh_known_hosts; compare the fingerprint with the node's own"
        ))
    };
    let changed = fails(
        "the host key of 10.0.0.4 has changed: it offers ssh-ed25519 SHA256:offered+one, but /home/ops/.ssh/known_hosts:7 \
         knows ssh-ed25519 SHA256:known/other; someone may be listening in"
            .into(),
    );
    let outcomes = vec![
        unknown(1, "abc+def/one"),
        unknown(2, "ghi+jkl/two"),
        unknown(3, "mno/pqr+three"),
        changed,
    ];
    let text = summary(&result(pull(), outcomes));
    for part in [
        "host-key on 4 nodes\n  (handshake) on 3 nodes\n    the host key of 10.0.0.1 is unknown: ",
        "known hosts were read from",
        "\n    worker-1  SHA256:abc+def/one\n    worker-2  SHA256:ghi+jkl/two\n    worker-3  SHA256:mno/pqr+three\n",
        "\n    worker-4  SHA256:offered+one  known: SHA256:known/other\n",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn the_summary_names_the_slowest_the_registries_and_what_arrived() {
    let mut run = result(pull(), vec![vec![Outcome::Pulled(held("sha256:aa"))]; 9]);
    for (number, node) in run.nodes.iter_mut().enumerate() {
        let attempt = |number, failure| Attempt {
            number,
            elapsed: Duration::from_secs(1),
            failure,
        };
        let limited = Failure::new(FailureKind::RateLimited, Stage::Pull, "429");
        node.items[0].attempts = vec![attempt(1, Some(limited)), attempt(2, None)];
        node.items[0].elapsed = Duration::from_secs(10 * (number as u64 + 1));
    }
    run.nodes[8].items[0].attempts.remove(0);
    for node in &mut run.nodes {
        node.items[0].arrived = Some(10_000_000);
    }
    run.nodes[0].items[0].arrived = Some(1_430_000_000);
    let text = summary(&run);
    for wanted in [
        "READY: 9 of 9 nodes ok, in 2m 31s\n",
        "  sha256:aa on 9 nodes (pulled now)\n",
        "reg.example:5000: 9 pulls went well, 8 tries failed (8 rate-limited)\n",
        "Slowest: worker-9 1m 30s, worker-8 1m 20s (2 tries), worker-7 1m 10s (2 tries); half of the nodes took at most 50s\n",
        "Arrived: 1.5 GB, 10.0 MB/s over the run\n",
    ] {
        assert!(text.contains(wanted), "{wanted:?} is not in {text}");
    }
    assert!(!text.contains("Retry"), "{text}");
}

/// A smaller number, or a rate of a part, would be taken for the whole.
#[test]
fn what_was_not_counted_is_said_to_be_unknown() {
    let mut run = result(pull(), vec![vec![Outcome::Pulled(held("sha256:aa"))]; 4]);
    let told = |run: &RunResult| {
        let text = summary(run);
        let line = text.lines().find(|line| line.starts_with("Arrived: "));
        let document = serde_json::to_value(document(run)).unwrap();
        let number = |name: &str| document.get(name).and_then(serde_json::Value::as_u64);
        (
            line.map(String::from),
            number("arrived"),
            number("arrived_unseen"),
        )
    };
    let line = |text: &str| Some(format!("Arrived: {text}"));
    let nothing = "not known, it could not be counted on 4 nodes";
    assert_eq!(told(&run), (line(nothing), None, Some(4)));
    for node in &mut run.nodes[..3] {
        node.items[0].arrived = Some(80_000_000);
    }
    let some = "240.0 MB counted, all of it on 3 of 4 nodes";
    assert_eq!(told(&run), (line(some), Some(240_000_000), Some(1)));
    // What was there before is not a pull, and a login that is refused brings no layer.
    run.nodes[3].items[0].outcome = Outcome::Present(held("sha256:aa"));
    let all = "240.0 MB, 1.6 MB/s over the run";
    assert_eq!(told(&run), (line(all), Some(240_000_000), None));
    for (kind, unseen) in [
        (FailureKind::RegistryAuth, None),
        (FailureKind::Stalled, Some(1)),
    ] {
        let item = &mut run.nodes[3].items[0];
        item.outcome = failed(kind, "x");
        item.attempts = vec![Attempt {
            number: 1,
            elapsed: Duration::from_secs(1),
            failure: Some(Failure::new(kind, Stage::Pull, "x")),
        }];
        assert_eq!(told(&run).2, unseen, "{kind}");
    }
    run.finished = run.info.started + Duration::from_millis(500);
    run.nodes.pop();
    let fast = "240.0 MB, 480.0 MB/s over the run";
    assert_eq!(told(&run).0, line(fast));
}

#[test]
fn what_nobody_reads_does_not_fill_the_memory_and_outcomes_are_told_all_the_same() {
    let run = result(pull(), vec![vec![Outcome::Missing]]);
    let (let_go, wait) = mpsc::channel();
    let captured = Captured::default();
    let mut jsonl = Jsonl::new(
        Arc::clone(&run.info),
        Box::new(Stuck(wait, captured.clone())),
    );
    let event = |number, fact| Event {
        number,
        at: Duration::ZERO,
        fact,
    };
    for number in 0..200_000 {
        let fact = EventKind::Progress {
            node: 0,
            item: 0,
            bytes: number,
            total: None,
        };
        jsonl.event(&event(number, fact));
    }
    jsonl.event(&finished(Outcome::Missing));
    drop(let_go);
    jsonl.finish(&run).unwrap();
    let text = captured.text();
    assert!(text.len() < 2 << 20, "{} bytes were kept", text.len());
    assert!(text.contains(r#""event":"finished""#), "{text}");
}

/// Keeps nothing before it is let go, and counts how often it is asked to.
struct SlowDisk(mpsc::Receiver<()>, Arc<Mutex<Vec<usize>>>);

impl EventSink for SlowDisk {
    fn keep(&mut self, events: &[Event]) {
        let _ = self.0.recv();
        self.1.lock().unwrap().push(events.len());
    }

    fn end(&mut self, _: &RunResult) {}
}

#[test]
fn a_slow_disk_is_given_what_piled_up_in_one_piece_and_loses_nothing() {
    let run = result(pull(), vec![vec![Outcome::Missing]]);
    let (let_go, wait) = mpsc::channel();
    let pieces = Arc::new(Mutex::new(Vec::new()));
    let ledger = Box::new(SlowDisk(wait, Arc::clone(&pieces)));
    let (facts, receiver) = tokio::sync::mpsc::channel(4096);
    let running = start(receiver, Some(ledger), vec![]);
    let fact = || (Duration::ZERO, EventKind::NodeStarted { node: 0 });
    // The engine may be so far ahead of the disk without waiting; progress is not waited with at all.
    let mut sent = 0;
    while facts.try_send(fact()).is_ok() {
        sent += 1;
    }
    assert!(sent >= 4096, "{sent}");
    drop((let_go, facts));
    assert!(running.finish(&run).is_empty());
    let pieces = pieces.lock().unwrap();
    assert_eq!(pieces.iter().sum::<usize>(), sent);
    assert!(pieces.len() <= sent / 1024 + 3, "{pieces:?}");
}

#[test]
fn quiet_says_nothing_of_success_and_everything_of_failure() {
    for (outcome, silent) in [
        (Outcome::Present(held("sha256:aa")), true),
        (Outcome::Missing, false),
    ] {
        let run = result(Work::Check(vec![image()]), vec![vec![outcome]]);
        let out = Captured::default();
        let options = HumanOptions {
            quiet: true,
            ..HumanOptions::default()
        };
        let mut human = Human::new(
            Arc::clone(&run.info),
            options,
            out.output(),
            Box::new(io::sink()),
        );
        human.finish(&run).unwrap();
        assert_eq!(out.text().is_empty(), silent);
    }
}

#[test]
fn errors_have_one_style_and_say_nothing_twice() {
    let error = anyhow::anyhow!("no such file\u{1b}").context("cannot read fleet.yaml");
    assert_eq!(
        error_text(&error),
        "prepull: error: cannot read fleet.yaml: no such file\\u{1b}\n"
    );
    let repeated = anyhow::anyhow!("refused").context("cannot connect: refused");
    assert_eq!(
        error_text(&repeated),
        "prepull: error: cannot connect: refused\n"
    );
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::Pulled(held("sha256:aa"))),
        Just(Outcome::Present(held("sha256:bb"))),
        ".*".prop_map(|detail| failed(FailureKind::Unknown, detail)),
        Just(Outcome::NotRun(StopReason::Interrupted)),
    ]
}

proptest! {
    #[test]
    fn every_node_and_item_is_counted_once(
        outcomes in (1usize..4).prop_flat_map(|items| {
            prop::collection::vec(prop::collection::vec(any_outcome(), items), 1..20)
        })
    ) {
        let items = outcomes[0].len();
        let images = vec![PlannedImage { image: image(), login: None }; items];
        let total = outcomes.len() * items;
        let of = |wanted: &str| outcomes.iter().flatten().filter(|o| o.status() == wanted).count();
        let (pulled, present, others) = (of("pulled"), of("present"), of("failed") + of("not-run"));
        let run = result(Work::Pull(images), outcomes.clone());
        let counts = document(&run).summary;
        prop_assert_eq!(counts.ok + counts.failed + counts.not_run, outcomes.len());
        prop_assert_eq!((counts.pulled, counts.present), (pulled, present));
        prop_assert_eq!(counts.pulled + counts.present + others, total);
        prop_assert!(!summary(&run).contains(27 as char));
    }
}

#[test]
fn a_long_failure_keeps_its_cause_which_stands_at_the_end() {
    let text = format!(
        "failed to pull: {} status code [manifests v1]: 401 Unauthorized",
        "nested: ".repeat(100)
    );
    let told = super::format::truncate_middle(&text, 120);
    assert!(told.starts_with("failed to pull: nested:"), "{told}");
    assert!(
        told.ends_with("status code [manifests v1]: 401 Unauthorized"),
        "{told}"
    );
    assert!(
        told.contains(" ... ") && told.chars().count() <= 125,
        "{told}"
    );
    assert_eq!(super::format::truncate_middle("short", 120), "short");
    let words = "ü".repeat(400);
    assert!(super::format::truncate_middle(&words, 120).chars().count() <= 125);
}

/// What the bar of the one node shows after these facts.
fn bar(facts: Vec<(f64, EventKind)>) -> Vec<(Phase, u64, u64)> {
    let mut timeline = Timeline::new(1);
    for (number, (at, fact)) in (1..).zip(facts) {
        let at = Duration::from_secs_f64(at);
        timeline.note(&Event { number, at, fact });
    }
    timeline.end(Duration::from_secs(100)).remove(0).spans
}

fn stage(stage: Stage) -> EventKind {
    EventKind::NodeStage {
        node: 0,
        item: Some(0),
        stage,
    }
}

fn left(done: bool) -> EventKind {
    EventKind::NodeLeft { node: 0, done }
}

#[test]
fn bars_show_where_nothing_arrived_and_what_was_waited_for() {
    let stalled = |seconds| EventKind::Stalled {
        node: 0,
        item: 0,
        length: Duration::from_secs(seconds),
    };
    let failed = EventKind::AttemptFailed {
        node: 0,
        item: 0,
        attempt: 1,
        failure: Failure::new(FailureKind::Stalled, Stage::Pull, "nothing arrived"),
        retry_in: Duration::from_secs(10),
    };
    let told = vec![
        (0.0, EventKind::NodeStarted { node: 0 }),
        (0.5, stage(Stage::Handshake)),
        (1.0, stage(Stage::Pull)),
        (20.0, stalled(18)),
        (30.0, stalled(9)),
        (30.0, failed),
        (30.0, left(false)),
        (40.0, EventKind::NodeStarted { node: 0 }),
        (41.0, stage(Stage::Queue)),
        (50.0, left(false)),
        (60.0, EventKind::NodeStarted { node: 0 }),
        (61.0, stage(Stage::Pull)),
        // Of before it came there, as a changed journal may have it.
        (62.0, stalled(30)),
        (64.0, stage(Stage::Verify)),
        (65.0, left(true)),
        (66.0, stalled(5)),
        // As a changed journal may have it.
        (66.0, EventKind::NodeStarted { node: 7 }),
    ];
    let wanted = [
        (Phase::Connect, 0, 1000),
        (Phase::Pull, 1000, 2000),
        (Phase::Stall, 2000, 20_000),
        (Phase::Pull, 20_000, 21_000),
        (Phase::Stall, 21_000, 30_000),
        (Phase::Wait, 30_000, 40_000),
        (Phase::Connect, 40_000, 41_000),
        // It left without a failure: the registry pauses for others' failures.
        (Phase::Queue, 41_000, 60_000),
        (Phase::Connect, 60_000, 61_000),
        (Phase::Stall, 61_000, 62_000),
        (Phase::Pull, 62_000, 64_000),
        (Phase::Check, 64_000, 65_000),
    ];
    assert_eq!(bar(told), wanted);
}

#[test]
fn what_is_not_told_to_end_goes_on_to_the_end_and_giving_up_ends_a_wait() {
    let began = || (0.0, EventKind::NodeStarted { node: 0 });
    let pulling = vec![began(), (1.0, stage(Stage::Pull))];
    let wanted = [(Phase::Connect, 0, 1000), (Phase::Pull, 1000, 100_000)];
    assert_eq!(
        bar(pulling),
        wanted,
        "where no progress is told, no stall is"
    );
    let given_up = vec![
        began(),
        (1.0, left(false)),
        (3.0, finished(Outcome::NotRun(StopReason::Deadline)).fact),
    ];
    assert_eq!(
        bar(given_up),
        [(Phase::Connect, 0, 1000), (Phase::Queue, 1000, 3000)]
    );
}
