//! Report files and event lines: against the published schemas, what CI systems accept, and a real browser.
//! Needs what lab/install installs: chromium and its driver, xmllint, jq, promtool,
//! python3-jsonschema.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test file: a panic is a failed test

#[path = "reports/browser.rs"]
mod browser;
#[path = "reports/runs.rs"]
mod runs;
#[path = "support/schemas.rs"]
mod schemas;

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use prepull::model::{
    CommandOutput, Delivery, ExitStatus, Failure, FailureKind, FanOutTotals, Outcome, PlannedImage,
    Record, Stage, StopReason, Via, Work,
};
use prepull::report::ReportForm;
use serde_json::Value;
use tempfile::TempDir;

use browser::Browser;
use runs::{MadeUp, held, image};
use schemas::{check_junit, fits, validate};

/// What a node may be called, or say, to hurt whoever reads it.
const HOSTILE: [&str; 4] = [
    "<img src=http://leak.example/x onerror=document.title='pwned'>",
    "</script><script>document.title='pwned'</script>",
    "a\u{202e}txt.exe \u{1b}[2J\u{0}\u{9b}\u{fffe}\u{ffff}",
    "\" onmouseover=\"document.title='pwned' {{data}} {{script}} ]]> &amp; &#x0;",
];

fn failed(detail: &str) -> Outcome {
    Outcome::Failed(Failure::new(FailureKind::Unknown, Stage::Pull, detail))
}

fn ran(exit: ExitStatus, stdout: &str) -> Outcome {
    Outcome::Ran(
        CommandOutput {
            exit,
            stdout: stdout.as_bytes().to_vec(),
            stderr: b"\xff\x1b[31mwords\n".to_vec(),
            truncated: true,
        }
        .into(),
    )
}

fn hostile() -> MadeUp {
    let work = Work::Pull(vec![PlannedImage {
        image: image(),
        login: None,
    }]);
    runs::outcomes(
        work,
        HOSTILE
            .iter()
            .map(|text| (*text, vec![failed(text)]))
            .collect(),
    )
}

/// Runs of every command that together have every kind of outcome.
fn every_sort() -> Vec<MadeUp> {
    let other = "other:v1".parse().unwrap();
    let check = runs::outcomes(
        Work::Check(vec![image(), other]),
        vec![
            ("a", vec![Outcome::Present(held("ab", 1)), Outcome::Missing]),
            (
                "b",
                vec![
                    Outcome::Present(held("cd", 1)),
                    Outcome::NotRun(StopReason::Interrupted),
                ],
            ),
        ],
    );
    let exec = runs::outcomes(
        Work::Exec(vec!["sh".into(), "-c".into(), "echo <b>".into()]),
        vec![
            ("a", vec![ran(ExitStatus::Code(0), "fine\n")]),
            ("b", vec![ran(ExitStatus::Code(3), HOSTILE[0])]),
            (
                "c",
                vec![ran(ExitStatus::Signal("KILL".into()), HOSTILE[2])],
            ),
        ],
    );
    vec![runs::pull(300), check, exec, delivered(), hostile()]
}

/// Two nodes where nobody answers, and what prepull makes of them.
struct Desk {
    home: TempDir,
    port: u16,
}

impl Desk {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        Self {
            home: TempDir::new().unwrap(),
            port,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_prepull"));
        command
            .args(arguments)
            .current_dir(self.home.path())
            .env_clear()
            .env("HOME", self.home.path());
        command
    }

    fn prepull(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// A pull that ends with status 1 after two attempts on each node.
    fn pull(&self, more: &[&str]) -> Output {
        let hosts = format!("127.0.0.1:{0},localhost:{0}", self.port);
        let usual = [
            "pull",
            "-F",
            "none",
            "-H",
            &hosts,
            "--runtime",
            "docker",
            "--retries",
            "1",
            "--backoff",
            "0..0",
            "reg.example/app:v1",
        ];
        self.prepull(&[&usual, more].concat())
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A JSON file as one line.
fn line(path: &Path) -> String {
    serde_json::from_str::<Value>(&fs::read_to_string(path).unwrap())
        .unwrap()
        .to_string()
}

fn succeed(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}: see lab/install"));
    assert!(
        output.status.success(),
        "{command:?}\n{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

#[test]
fn documents_and_events_of_every_sort_fit_their_schemas() {
    let folder = TempDir::new().unwrap();
    let (mut documents, mut events) = (vec![], vec![]);
    for run in every_sort() {
        let path = folder.path().join("run.json");
        run.report(&path, ReportForm::Json);
        documents.push(line(&path));
        events.extend(run.lines());
    }
    validate("document-1.json", &documents);
    validate("events-1.json", &events);

    // Every kind of line was among them.
    let schema = fs::read_to_string("docs/schema/events-1.json").unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let kinds = schema["oneOf"]
        .as_array()
        .unwrap()
        .iter()
        .map(|kind| kind["$ref"].as_str().unwrap());
    let documented: BTreeSet<String> = kinds.map(|kind| kind.replace("#/$defs/", "")).collect();
    let seen: BTreeSet<String> = events
        .iter()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["event"]
                .as_str()
                .unwrap_or("result")
                .to_string()
        })
        .collect();
    assert_eq!(seen, documented);

    // The validator is none that finds everything good.
    for (right, wrong) in [
        ("\"schema\":1", "\"schema\":2"),
        ("\"failed\":", "\"broken\":"),
        ("\"kind\":\"", "\"kind\":\"x"),
    ] {
        assert!(documents[0].contains(right));
        let wrong = documents[0].replacen(right, wrong, 1);
        assert!(fits("document-1.json", &[wrong]).is_err(), "{right}");
    }
}

#[test]
fn the_program_writes_what_it_prints_and_what_it_recorded() {
    let desk = Desk::new();
    let reports = [
        "--report", "run.json", "--report", "run.xml", "--report", "run.html",
    ];
    let run = desk.pull(&[&reports[..], &["-o", "jsonl"]].concat());
    assert_eq!(run.status.code(), Some(1), "{}", text(&run.stderr));
    let lines: Vec<String> = text(&run.stdout).lines().map(String::from).collect();
    validate("events-1.json", &lines);
    let failed = lines
        .iter()
        .filter(|line| line.contains("\"attempt-failed\""))
        .count();
    assert_eq!(failed, 2);
    let document = line(&desk.path("run.json"));
    assert_eq!(
        serde_json::from_str::<Value>(lines.last().unwrap()).unwrap()["result"].to_string(),
        document
    );
    validate("document-1.json", std::slice::from_ref(&document));
    check_junit(&desk.path("run.xml"));
    let mode = fs::metadata(desk.path("run.html"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(
        mode & 0o777,
        0o644,
        "as for any new file under the usual umask"
    );

    // The same, afterwards, from the journal.
    let later = [
        "runs",
        "report",
        "last",
        "--html",
        "later.page",
        "--report",
        "later.json",
        "--report",
        "later.xml",
    ];
    let told = desk.prepull(&later);
    assert_eq!(told.status.code(), Some(0), "{}", text(&told.stderr));
    assert_eq!(
        fs::read(desk.path("run.json")).unwrap(),
        fs::read(desk.path("later.json")).unwrap()
    );
    check_junit(&desk.path("later.xml"));
    let data = |name: &str| {
        let page = fs::read_to_string(desk.path(name)).unwrap();
        let (_, rest) = page.split_once("id=\"data\">").unwrap();
        serde_json::from_str::<Value>(rest.split_once("</script>").unwrap().0).unwrap()
    };
    let (now, later) = (data("run.html"), data("later.page"));
    assert_eq!(
        (&now["document"], &now["nodes"], &now["groups"]),
        (&later["document"], &later["nodes"], &later["groups"])
    );
    assert_eq!(now["nodes"][1]["failures"].as_array().unwrap().len(), 2);
    let shown = desk.prepull(&["runs", "show", "last", "-o", "json"]);
    assert_eq!(
        text(&shown.stdout),
        fs::read_to_string(desk.path("run.json")).unwrap()
    );
    let shown = desk.prepull(&["runs", "show", "last", "-o", "jsonl"]);
    assert_eq!(
        text(&shown.stdout),
        text(&run.stdout),
        "no progress was told: nothing is missing"
    );
    let none = desk.prepull(&["runs", "report", "last"]);
    assert_eq!(none.status.code(), Some(2));
    // No file that was on its way is left.
    let left: Vec<_> = fs::read_dir(desk.home.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(
        left.iter()
            .all(|name| !name.to_str().unwrap().starts_with(".prepull")),
        "{left:?}"
    );
}

#[test]
fn a_report_that_cannot_be_written_stops_the_run_before_it_starts() {
    let desk = Desk::new();
    fs::create_dir(desk.path("folder.html")).unwrap();
    for (file, why) in [
        (
            "run.txt",
            "it must end in .json, .xml (JUnit), .html or .prom (metrics)",
        ),
        (
            "run",
            "it must end in .json, .xml (JUnit), .html or .prom (metrics)",
        ),
        (
            "nowhere/run.html",
            "the report nowhere/run.html cannot be written: No such file or directory",
        ),
        (
            "/proc/run.json",
            "the report /proc/run.json cannot be written: ",
        ),
        ("folder.html", "this is a folder, name a file in it"),
    ] {
        for run in [
            desk.pull(&["--report", file]),
            desk.prepull(&["runs", "report", "last", "--report", file]),
        ] {
            let said = text(&run.stderr);
            assert_eq!(run.status.code(), Some(2), "{said}");
            assert!(said.contains(why), "{said}");
        }
    }
    let runs = desk.prepull(&["runs", "list"]);
    assert!(
        text(&runs.stdout).starts_with("No run is recorded"),
        "{}",
        text(&runs.stdout)
    );
}

#[test]
fn a_full_disk_at_the_end_leaves_the_old_report_and_the_outcomes() {
    let desk = Desk::new();
    let hosts = format!("127.0.0.1:{}", desk.port);
    let script = "mkdir small && mount -t tmpfs -o size=16k none small && echo old >small/run.html && \"$@\"; status=$?; ls -A small; cat small/run.html; exit $status";
    let exec = [
        "exec",
        "-F",
        "none",
        "-H",
        &hosts,
        "--retries",
        "0",
        "--report",
        "small/run.html",
        "--report",
        "run.json",
        "--",
        "true",
    ];
    let run = Command::new("unshare")
        .args([
            "-m",
            "sh",
            "-c",
            script,
            "sh",
            env!("CARGO_BIN_EXE_prepull"),
        ])
        .args(exec)
        .current_dir(desk.home.path())
        .env("HOME", desk.home.path())
        .output()
        .unwrap();
    let (said, told) = (text(&run.stderr), text(&run.stdout));
    assert!(said.contains("prepull: error: cannot write the result: report small/run.html: No space left on device"), "{said}");
    assert!(
        told.starts_with("NOT DONE: 0 of 1 node ok") && told.ends_with("run.html\nold\n"),
        "{told}"
    );
    assert_eq!(run.status.code(), Some(1), "{said}");
    let document: Value = serde_json::from_str(&line(&desk.path("run.json"))).unwrap();
    assert_eq!(
        document["nodes"][0]["outcomes"][0]["failure"]["kind"],
        "unreachable"
    );
}

#[test]
fn junit_files_are_what_ci_systems_accept() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("run.xml");
    let xpath = |query: &str| {
        succeed(Command::new("xmllint").args(["--xpath", query]).arg(&path))
            .trim()
            .to_string()
    };
    for run in every_sort() {
        run.report(&path, ReportForm::Junit);
        check_junit(&path);
        let agree = "string(/testsuites/@tests = count(//testcase) and /testsuites/@failures = count(//testcase[failure])
            and not(//testsuite[@tests != count(testcase) or @skipped != count(testcase[skipped])]))";
        assert_eq!(xpath(agree), "true");
        let document = folder.path().join("run.json");
        run.report(&document, ReportForm::Json);
        let document: Value = serde_json::from_str(&fs::read_to_string(document).unwrap()).unwrap();
        let outcomes = document["nodes"].as_array().unwrap().iter();
        let outcomes = outcomes.flat_map(|node| node["outcomes"].as_array().unwrap());
        let arrived = outcomes
            .filter(|outcome| outcome["arrived"].is_u64())
            .count();
        let told = "count(//testcase/system-out[starts-with(., 'arrived_bytes=')])";
        assert_eq!(xpath(told), arrived.to_string());
    }
    // The last were the hostile ones: they are names and words, and nothing else.
    assert_eq!(
        xpath("count(//testcase[failure[@type='unknown']])"),
        HOSTILE.len().to_string()
    );
    assert_eq!(xpath("string(//testcase[1]/@name)"), HOSTILE[0]);
    assert_eq!(
        xpath("string(//testcase[3]/@name)"),
        "a\\u{202e}txt.exe \\u{1b}[2J\\u{0}\\u{9b}"
    );
    assert!(
        xpath("string(//testcase[1]/failure)")
            .starts_with(&format!("{}\n\nWhat next: ", HOSTILE[0]))
    );

    let sorts = every_sort();
    sorts[0].report(&path, ReportForm::Junit);
    let counts =
        ["skipped", "flakyFailure", "rerunFailure"].map(|name| xpath(&format!("count(//{name})")));
    assert!(counts.iter().all(|count| count != "0"), "{counts:?}");
    assert_eq!(
        xpath("string(//skipped[1]/@message)"),
        "the deadline passed"
    );
    sorts[1].report(&path, ReportForm::Junit);
    let differs = "string(//testcase[@name='one digest on all nodes']/failure/@message)";
    assert_eq!(xpath(differs), "the nodes do not hold the same image");
    assert_eq!(
        xpath("string(//testcase[@classname='docker.io/library/other:v1']/failure/@type)"),
        "missing"
    );
    sorts[2].report(&path, ReportForm::Junit);
    assert_eq!(
        xpath("string(//testcase[@name='b']/failure/@message)"),
        "exit status 3"
    );
    assert_eq!(xpath("string(//testcase[@name='a']/system-out)"), "fine");
}

/// Prometheus' own parser and linter take the metrics of every sort of run. node_exporter's collector has the same parser.
#[test]
fn metrics_are_what_prometheus_reads() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("run.prom");
    let check = |path: &Path| {
        let mut promtool = Command::new("promtool");
        promtool.args(["check", "metrics"]);
        promtool.stdin(fs::File::open(path).unwrap());
        let output = promtool.output();
        output.expect("promtool is missing: apt-get install prometheus")
    };
    for run in every_sort() {
        run.report(&path, ReportForm::Prometheus);
        let output = check(&path);
        let said = [text(&output.stdout), text(&output.stderr)].concat();
        assert!(output.status.success() && said.is_empty(), "{said}");
    }
    // It is no oracle that takes everything.
    for wrong in [
        "a{b=\"c} 1\n",
        "a 1\na 2\n",
        "# TYPE a gauge\na{b=\"\\x\"} 1\n",
    ] {
        fs::write(&path, wrong).unwrap();
        assert!(!check(&path).status.success(), "{wrong}");
    }
}

#[test]
fn the_examples_with_jq_do_what_the_document_says() {
    let folder = TempDir::new().unwrap();
    let run = runs::pull(300);
    run.report(&folder.path().join("run.json"), ReportForm::Json);
    fs::write(
        folder.path().join("run.jsonl"),
        run.lines().join("\n") + "\n",
    )
    .unwrap();
    let guide = fs::read_to_string("docs/output.md").unwrap();
    let examples: Vec<&str> = guide
        .split("```sh\n")
        .skip(1)
        .map(|rest| rest.split_once("\n```").unwrap().0)
        .filter(|script| script.starts_with("jq "))
        .collect();
    let [failed, slowest, retried, progress] = examples[..] else {
        panic!("{} examples", examples.len());
    };
    let said = |script: &str| {
        succeed(
            Command::new("sh")
                .args(["-euc", script])
                .current_dir(folder.path()),
        )
        .lines()
        .map(String::from)
        .collect::<Vec<_>>()
    };
    assert_eq!(said(failed).len(), 23);
    assert!(
        said(failed)
            .iter()
            .all(|line| line.starts_with("worker-") && line.contains('\t')),
        "{:?}",
        said(failed)
    );
    assert_eq!(said(slowest).len(), 5);
    assert!(
        said(retried).contains(&"registry-unavailable 32".to_string()),
        "{:?}",
        said(retried)
    );
    assert_eq!(said(progress).last().unwrap(), "300 of 300");
}

/// A time on the page of a run that took more than ten minutes and less than an hour.
fn in_minutes(time: Duration) -> String {
    let seconds = time.as_secs_f64().round() as u64;
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

/// The command is copied, times are round and of one form, headings have counts, and a window of 400 px shows all of it.
#[test]
fn the_page_is_legible_in_a_narrow_window_and_its_command_can_be_copied() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("run.html");
    let run = runs::pull(60);
    run.report(&path, ReportForm::Html);
    let browser = Browser::start();
    browser.open(&path, "");
    // Where the clipboard is, and what is in it, is the browser's secret: what the page gives it is seen.
    browser.run(
        "Object.defineProperty(navigator, 'clipboard', {value: {writeText: (text) => { window.copied = text; }}})",
    );
    browser.click("#verdict button.copy");
    let resume = run.result.info.resume.clone().unwrap();
    assert_eq!(browser.run("return window.copied"), resume);
    assert_eq!(browser.texts("#verdict button.copy"), ["Copied"]);
    let headings = browser.texts("h2");
    assert!(
        headings.contains(&"Nodes (60)".to_string())
            && headings
                .iter()
                .any(|text| text.starts_with("What is wrong (")),
        "{headings:?}"
    );
    let chart = browser
        .run("return [...document.querySelectorAll('#chart text')].map((one) => one.textContent)");
    let chart: Vec<String> = serde_json::from_value(chart).unwrap();
    let mut seconds = Vec::new();
    for label in &chart {
        if let Some(number) = label.strip_suffix(" s") {
            seconds.push(number.parse::<u32>().expect("a whole number"));
        }
    }
    assert!(seconds.len() >= 3, "{chart:?}");
    let step = seconds[1];
    assert!([1, 2, 5, 10, 20, 30, 60, 120].contains(&step), "{chart:?}");
    let even = seconds.windows(2).all(|pair| pair[1] - pair[0] == step);
    assert!(even, "{chart:?}");
    let times = browser.texts("#rows td[data-label=Time]");
    assert!(times.iter().all(|time| time.ends_with(" s")), "{times:?}");
    let axis = browser.texts(".axis span");
    assert!(axis.iter().all(|label| label.ends_with(" s")), "{axis:?}");

    for width in [400, 700, 1280] {
        browser.resize(width, 900);
        browser.open(&path, "");
        browser.click("#rows button");
        let wide = browser.run("return document.documentElement.scrollWidth");
        assert!(wide.as_u64() <= Some(width), "{width}: {wide}");
        // Nothing is cut off, runs over what is beside it, or is too small to read.
        let bad = browser.run(
            "const bad = [];
            for (const one of document.querySelectorAll('h1, h2, h3, p, td, th, dt, dd, button, select, input, li, .axis span')) {
                const box = one.getBoundingClientRect();
                if (!box.width || one.closest('.unseen')) continue;
                const scrolls = one.closest('.scroll') && innerWidth > 704;
                if (!scrolls && (box.right > innerWidth + 1 || box.left < -1)) bad.push('outside: ' + one.outerHTML.slice(0, 200));
                if (parseFloat(getComputedStyle(one).fontSize) < 12) bad.push('small: ' + one.outerHTML.slice(0, 200));
            }
            const labels = [...document.querySelectorAll('.axis span')].map((one) => one.getBoundingClientRect());
            labels.forEach((box, place) => { if (place && labels[place - 1].right > box.left) bad.push('labels overlap'); });
            return bad.join(' ')",
        );
        assert_eq!(bad, "", "{width}");
    }
}

/// A run through SSH: one node that fell back, for a reason that would hurt, and one that did not.
fn delivered() -> MadeUp {
    let work = Work::Pull(vec![PlannedImage {
        image: image(),
        login: None,
    }]);
    let pulled = || vec![Outcome::Pulled(held("ab", 5))];
    let mut run = runs::outcomes(work, vec![("a", pulled()), ("b", pulled())]);
    let deliveries = [
        (Via::Ssh, None),
        (Via::Registry, Some(format!("no port: {}", HOSTILE[0]))),
    ];
    for (node, (via, note)) in run.result.nodes.iter_mut().zip(deliveries) {
        let record = Record {
            delivery: Some(Delivery { via, note }),
            ..Record::clone(&node.items[0])
        };
        node.items[0] = record;
    }
    run.result.fan_out = Some(FanOutTotals {
        nodes: 2,
        roots: 1,
        depth: 2,
        from_source: 1_020_000,
        from_peers: 1_000_000,
        image_bytes: 1_000_000,
        fallbacks: 1,
    });
    run
}

#[test]
fn reports_say_how_images_came() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("run.html");
    let run = delivered();
    run.report(&path, ReportForm::Html);
    let browser = Browser::start();
    browser.open(&path, "");
    for row in 0..2 {
        browser.click(&format!("#rows tr[data-node=\"{row}\"] button"));
    }
    let facts = browser.texts("#rows .outcome .mono");
    assert!(facts[0].contains("through SSH"), "{facts:?}");
    assert!(facts[1].contains("from the registry"), "{facts:?}");
    let note = format!("no port: {}", HOSTILE[0]);
    assert_eq!(
        browser.texts("#rows [aria-label='How it came']"),
        [note.as_str()]
    );
    assert_eq!(
        browser.texts("#ways-counts"),
        ["1 pull through SSH, 1 pull from the registry"]
    );
    assert_eq!(
        browser.texts("#ways-notes li"),
        [format!("b from the registry: {note}")]
    );
    let facts = browser.texts("#fan-out div");
    assert!(
        facts[3].contains("1.02 copies") && facts[3].contains("1.0 MB"),
        "{facts:?}"
    );
    assert_eq!(
        browser.run("return document.querySelectorAll('img').length"),
        0
    );

    let path = folder.path().join("run.xml");
    run.report(&path, ReportForm::Junit);
    check_junit(&path);
    let said = |node: &str| {
        let mut xmllint = Command::new("xmllint");
        let expression = format!("string(//testcase[@name='{node}']/system-out)");
        succeed(xmllint.args(["--xpath", &expression]).arg(&path))
            .trim()
            .to_string()
    };
    assert!(said("a").ends_with("via=ssh"), "{}", said("a"));
    assert!(
        said("b").ends_with(&format!("via=registry\nvia_note={note}")),
        "{}",
        said("b")
    );

    let path = folder.path().join("run.prom");
    run.report(&path, ReportForm::Prometheus);
    let metrics = fs::read_to_string(&path).unwrap();
    for way in ["ssh", "registry"] {
        let sample = format!("via=\"{way}\"}} 1\n");
        assert!(metrics.contains(&sample), "{metrics}");
    }
}

/// How much a page has asked for besides itself.
const ASKED: &str = "return performance.getEntriesByType('resource').length";

/// Hostile, and a few of every sort: what does not run its script shows nothing at all.
#[test]
fn what_nodes_say_is_text_in_the_page_and_nothing_leaves_it() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("hostile.html");
    hostile().report(&path, ReportForm::Html);
    let browser = Browser::start();
    browser.open(&path, "");
    let names = browser.texts("#rows th button");
    assert_eq!(names.len(), HOSTILE.len());
    assert!(
        names.contains(&HOSTILE[0].to_string()) && names.contains(&HOSTILE[1].to_string()),
        "{names:?}"
    );
    assert!(
        names.contains(&"a\\u{202e}txt.exe \\u{1b}[2J\\u{0}\\u{9b}\u{fffe}\u{ffff}".to_string()),
        "{names:?}"
    );
    for row in 1..=HOSTILE.len() {
        // The rows of details come between.
        browser.click(&format!("#rows tr[data-node=\"{}\"] button", row - 1));
    }
    assert_eq!(browser.texts("#rows tr.more").len(), HOSTILE.len());
    assert_eq!(
        browser.run("return document.title"),
        "NOT READY 0 of 4: prepull pull 2026-11-23T21-17-09Z-3f9c"
    );
    assert_eq!(browser.run("return document.querySelectorAll('img, iframe, object, script[src], link[href^=http]').length"), 0);
    assert_eq!(browser.run("return document.scripts.length"), 2);

    assert_eq!(browser.run(ASKED), 0);

    // And if something got in all the same, the page's own policy stops it.
    let attack = "const blocked = [];
        document.addEventListener('securitypolicyviolation', (event) => blocked.push(event.effectiveDirective));
        const script = document.createElement('script');
        script.textContent = 'document.title = \"pwned\"';
        document.body.append(script);
        document.body.insertAdjacentHTML('beforeend', '<img src=\"http://leak.example/x\" onerror=\"document.title = 1\"><a onclick=\"document.title = 1\" id=trap>.</a>');
        document.getElementById('trap').click();
        fetch('http://leak.example/y').catch(() => 0);
        return new Promise((done) => setTimeout(() => done(blocked.sort().join(' ')), 500));";
    let blocked = browser.run(attack);
    let blocked = blocked.as_str().unwrap();
    for directive in [
        "connect-src",
        "img-src",
        "script-src-elem",
        "script-src-attr",
    ] {
        assert!(blocked.contains(directive), "{blocked}");
    }
    assert_eq!(
        browser.run("return document.title"),
        "NOT READY 0 of 4: prepull pull 2026-11-23T21-17-09Z-3f9c"
    );
    for sort in every_sort() {
        sort.report(&path, ReportForm::Html);
        browser.open(&path, "");
        if matches!(sort.result.info.plan.work, Work::Exec(_)) {
            let ends = ["exit status 3", "signal KILL", "ran"];
            assert_eq!(browser.texts("#rows .pill"), ends);
            browser.click("#rows button");
            let output = browser.texts("#rows pre");
            assert_eq!(output, [HOSTILE[0], "\u{fffd}\\u{1b}[31mwords"]);
            browser.click("#rows button");
        }
        let nodes = sort.result.nodes.len().min(100);
        assert_eq!(
            browser.run("return document.querySelectorAll('#rows tr').length"),
            nodes
        );
    }
    assert_eq!(browser.asked("leak.example"), [""; 0]);
    // It would have been seen.
    fs::write(&path, "<img src=http://leak.example/control>").unwrap();
    browser.open(&path, "");
    let asked = browser.asked("leak.example");
    assert!(
        asked.len() == 1 && asked[0].contains("leak.example/control"),
        "{asked:?}"
    );
}

#[test]
fn five_thousand_nodes_are_shown_searched_sorted_and_paged() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("run.html");
    let run = runs::pull(5000);
    run.report(&path, ReportForm::Html);
    let size = fs::metadata(&path).unwrap().len();
    assert!(size < 5_000_000, "{size} bytes");
    let browser = Browser::start();
    browser.open(&path, "");
    assert!(
        browser.texts("h1")[0].starts_with("Not ready: 4,"),
        "{:?}",
        browser.texts("h1")
    );
    let rows = || browser.texts("#rows th button");
    assert_eq!(rows().len(), 100, "a page of the table");
    assert_eq!(browser.texts("#shown"), ["5,000 nodes"]);
    assert_eq!(browser.texts("#pages span"), ["page 1 of 50"]);
    // Failures first; a second click on a heading turns the order around.
    assert!(
        browser
            .texts("#rows .pill")
            .iter()
            .all(|word| word == "failed")
    );
    browser.click("#sort-name");
    assert_eq!(
        rows()[..2],
        ["worker-1.rack1.example", "worker-2.rack2.example"]
    );
    browser.click("#sort-name");
    assert_eq!(rows()[0], "worker-5000.rack2.example");
    assert_eq!(
        browser.run("return document.querySelector('[aria-sort=descending]').innerText.trim()"),
        "Node"
    );
    browser.click("#pages button:last-child");
    assert_eq!(rows()[0], "worker-4900.rack0.example");
    browser.click("#sort-seconds");
    browser.click("#sort-seconds");
    let slowest = run
        .result
        .nodes
        .iter()
        .map(|node| node.items[0].elapsed)
        .max()
        .unwrap();
    assert_eq!(
        browser.texts("#rows tr:first-child .number:nth-child(6)"),
        [in_minutes(slowest)]
    );

    // By words of a failure, by status, by cause; and by an address that somebody sends on.
    browser.type_into("#search", "NO SPACE");
    let full = run
        .result
        .nodes
        .iter()
        .filter(|node| format!("{node:?}").contains("no space"))
        .count();
    assert_eq!(browser.texts("#shown"), [format!("{full} nodes of 5,000")]);
    browser.click("#clear");
    assert_eq!(browser.texts("#shown"), ["5,000 nodes"]);
    browser.click("#groups li:nth-child(2) button");
    let group = browser.texts("#groups li:nth-child(2) h3 span");
    assert!(
        browser.texts("#shown")[0].ends_with(&format!("nodes of 5,000: {}", group[0])),
        "{:?}",
        browser.texts("#shown")
    );
    browser.open(&path, "status=not-run&sort=-name&axis=own&q=rack3");
    assert_eq!(rows()[0], "worker-4994.rack3.example");
    assert!(
        browser
            .texts("#rows .pill")
            .iter()
            .all(|word| word == "not run")
    );
    assert_eq!(
        browser.run("return document.getElementById('status').value"),
        "not-run"
    );

    browser.open(&path, "q=503+service");
    let retried = run
        .result
        .nodes
        .iter()
        .filter(|node| format!("{node:?}").contains("503 Service"))
        .count();
    assert!(retried > 100);
    assert_eq!(
        browser.texts("#shown"),
        [format!("{retried} nodes of 5,000")],
        "attempts before a success count too"
    );

    // A node's attempts stand below it, its bar tells what was when.
    browser.open(&path, "status=ok&sort=-attempts");
    browser.click("#rows button");
    let attempts = browser.texts("#rows tr.more li");
    assert!(
        attempts[0].contains("registry-unavailable (pull): received unexpected HTTP status: 503"),
        "{attempts:?}"
    );
    assert!(attempts[1].ends_with(": success"), "{attempts:?}");
    let bar = browser.run("const bar = document.querySelector('#rows .bar'); return [...bar.querySelectorAll('rect')].map((rect) => rect.getAttribute('class')).join(' ')");
    assert_eq!(
        bar,
        "connect check pull wait connect check pull check failure"
    );
    assert_eq!(
        browser.run("return document.querySelectorAll('#chart polygon').length"),
        4
    );

    // The chart ends where the verdict does.
    let areas = "const heights = [...document.querySelectorAll('#chart polygon')].map((area) => {
            const points = area.getAttribute('points').split(' ').map((point) => point.split(',').map(Number));
            const last = Math.max(...points.map(([x]) => x));
            const ys = points.filter(([x]) => x === last).map(([, y]) => y);
            return Math.max(...ys) - Math.min(...ys);
        }); return heights[0] / (heights[0] + heights[1])";
    let ok = run
        .result
        .nodes
        .iter()
        .filter(|node| node.items[0].outcome.is_ok())
        .count() as f64;
    let failed = run
        .result
        .nodes
        .iter()
        .filter(|node| matches!(node.items[0].outcome, Outcome::Failed(_)))
        .count() as f64;
    let drawn = browser.run(areas).as_f64().unwrap();
    assert!((drawn - ok / (ok + failed)).abs() < 0.01, "{drawn}");

    // The operator's system decides on light and dark.
    let brightness = || {
        let color = browser
            .run("return getComputedStyle(document.body).backgroundColor.match(/[0-9]+/)[0]");
        color.as_str().unwrap().parse::<u8>().unwrap()
    };
    browser.dark(true);
    assert!(brightness() < 50);
    browser.dark(false);
    assert!(brightness() > 200);
    assert_eq!(browser.run(ASKED), 0);
}
