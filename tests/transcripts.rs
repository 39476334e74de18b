//! Walks every recorded run of docker and crictl and checks what prepull makes of it: the kind of failure,
//! how often that is retried, and that the detail is short and shows no progress lines.

#![allow(clippy::unwrap_used)] // a test file: a panic is a failed test

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use prepull::model::{
    CommandOutput, ExitStatus, Failure, FailureKind, Image, Retry, RuntimeKind, Stage,
};
use prepull::ports::Runtime;
use prepull::runtime::{Docker, of_kind};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// One row of `expected.tsv`.
struct Expected {
    tool: String,
    case: String,
    asked: String,
    kind: String,
    retry: String,
}

fn expected() -> Vec<Expected> {
    rows(&fixtures().join("transcripts/expected.tsv"), 5)
        .into_iter()
        .map(|row| {
            let mut cells = row.into_iter();
            let mut next = || cells.next().unwrap();
            Expected {
                tool: next(),
                case: next(),
                asked: next(),
                kind: next(),
                retry: next(),
            }
        })
        .collect()
}

/// One recorded run: a line of `TOOL.jsonl`.
#[derive(serde::Deserialize)]
struct Recording {
    case: String,
    cmd: String,
    exit: u32,
    stdout: String,
    stderr: String,
}

/// Every recording, by tool and case.
static RECORDINGS: LazyLock<BTreeMap<(String, String), Recording>> = LazyLock::new(|| {
    let mut found = BTreeMap::new();
    for file in fs::read_dir(fixtures().join("transcripts")).unwrap() {
        let file = file.unwrap().path();
        if file
            .extension()
            .is_none_or(|extension| extension != "jsonl")
        {
            continue;
        }
        let tool = file.file_stem().unwrap().to_str().unwrap().to_string();
        for line in fs::read_to_string(&file).unwrap().lines() {
            let recording: Recording = serde_json::from_str(line).unwrap();
            let key = (tool.clone(), recording.case.clone());
            assert!(found.insert(key, recording).is_none(), "{line}");
        }
    }
    found
});

impl Recording {
    fn output(&self) -> CommandOutput {
        CommandOutput {
            exit: ExitStatus::Code(self.exit),
            stdout: self.stdout.clone().into_bytes(),
            stderr: self.stderr.clone().into_bytes(),
            truncated: false,
        }
    }

    /// The image that the recorded command names; any other where it names none that is valid.
    fn image(&self) -> Image {
        self.cmd
            .split_whitespace()
            .filter(|word| word.contains('/'))
            .map(|word| word.trim_matches(|c| c == '\'' || c == '"'))
            .filter_map(|word| word.parse().ok())
            .next_back()
            .unwrap_or_else(|| "reg.example/team/app:v1".parse().unwrap())
    }
}

/// The rows of a table with tabs between its cells and `#` before its comments.
fn rows(path: &Path, cells: usize) -> Vec<Vec<String>> {
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let row: Vec<String> = line.split('\t').map(str::to_string).collect();
            assert_eq!(row.len(), cells, "{}: {line}", path.display());
            row
        })
        .collect()
}

fn retry_word(retry: Retry) -> &'static str {
    match retry {
        Retry::Never => "never",
        Retry::Limited => "few",
        Retry::Full => "yes",
        Retry::RegistryPause => "paused",
    }
}

/// What prepull makes of a run: `ok`, `absent`, or the failure.
fn judged(row: &Expected) -> Result<&'static str, Failure> {
    let recording = &RECORDINGS[&(row.tool.clone(), row.case.clone())];
    let (output, image) = (recording.output(), recording.image());
    // podman may stand in docker's place.
    let runtime: &dyn Runtime = if row.tool.starts_with("ctr") {
        of_kind(RuntimeKind::Ctr)
    } else if row.tool.starts_with("cr") {
        of_kind(RuntimeKind::Crictl)
    } else {
        of_kind(RuntimeKind::Docker)
    };
    match row.asked.as_str() {
        "pull" => runtime.read_pull(&image, &output).map(|()| "ok"),
        "version" => runtime.check_alive(&output).map(|_| "ok"),
        "inspect" => Ok(
            match runtime.read_inspect(&image, &output, Stage::Verify)? {
                Some(held) => {
                    assert!(held.digest.unwrap().starts_with("sha256:"));
                    assert!(held.image_id.unwrap().len() >= 64);
                    assert_eq!(held.platform.unwrap(), "linux/amd64");
                    assert!(held.bytes.unwrap() > 10_000_000);
                    "ok"
                }
                None => "absent",
            },
        ),
        other => panic!("{other}: no such question"),
    }
}

#[test]
fn every_recorded_run_gets_its_kind_and_its_retries() {
    let table = expected();
    assert!(table.len() > 1000, "only {} rows", table.len());
    let mut wrong = Vec::new();
    for row in &table {
        let (kind, retry, detail) = match judged(row) {
            Ok(word) => (word, "-", String::new()),
            Err(failure) => (
                failure.kind.as_str(),
                retry_word(failure.kind.retry()),
                failure.detail,
            ),
        };
        let retry_is_right = row.retry == "-" || row.retry == retry;
        if kind != row.kind || !retry_is_right {
            wrong.push(format!(
                "{}/{}: {kind} {retry}, expected {} {}: {detail}",
                row.tool, row.case, row.kind, row.retry
            ));
        }
    }
    assert!(wrong.is_empty(), "{}\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn no_recorded_run_is_left_out_of_the_table() {
    let listed: BTreeSet<String> = expected()
        .iter()
        .map(|row| format!("{}/{}", row.tool, row.case))
        .collect();
    let found = RECORDINGS
        .keys()
        .map(|(tool, case)| format!("{tool}/{case}"))
        .collect();
    assert_eq!(listed, found);
}

#[test]
fn details_are_the_telling_lines_alone() {
    for row in expected() {
        if let Err(failure) = judged(&row) {
            let detail = &failure.detail;
            let at = format!("{}/{}: {detail}", row.tool, row.case);
            assert!(!detail.is_empty(), "{at}");
            assert!(detail.len() < 2100, "{at}");
            for noise in [
                "Pulling fs layer",
                "Pull complete",
                "Downloading",
                "level=",
                "remote_image.go",
                "trying next: ",
                "\\\"",
                "\u{1b}",
                "USAGE",
            ] {
                assert!(!detail.contains(noise), "{at}");
            }
        }
    }
}

#[test]
fn a_detail_reads_as_the_node_said_it() {
    for (tool, case, detail) in [
        (
            "docker",
            "unauthorized",
            "Error response from daemon: Head \"http://127.0.0.1:5000/v2/team/app/manifests/v1\": no basic auth credentials",
        ),
        (
            "crictl",
            "unauthorized",
            "pulling image: failed to pull and unpack image \"127.0.0.1:5000/team/app:v1\": failed to resolve reference \"127.0.0.1:5000/team/app:v1\": pulling from host 127.0.0.1:5000 failed with status code [manifests v1]: 401 Unauthorized",
        ),
        (
            "docker-cli20",
            "config-malformed-json",
            "Error response from daemon: Head \"http://127.0.0.1:5000/v2/team/app/manifests/v1\": no basic auth credentials; WARNING: Error loading config file: /run/imgcfg/bad/config.json: unexpected EOF",
        ),
        (
            "docker",
            "killed-sigkill-mid-pull",
            "docker was ended by signal number 9",
        ),
    ] {
        let row = expected()
            .into_iter()
            .find(|row| row.tool == tool && row.case == case)
            .unwrap();
        assert_eq!(judged(&row).unwrap_err().detail, detail, "{tool}/{case}");
    }
}

/// Messages of versions that were not recorded, from docker 17 to 29, containerd 1.4 to 2.2, CRI-O and
/// cri-dockerd, in each runtime's own wrapping.
#[test]
fn messages_of_other_versions_get_their_kind() {
    let table = rows(&fixtures().join("runtime-messages.tsv"), 5);
    assert!(table.len() > 100, "only {} rows", table.len());
    let image: Image = "reg.example/team/app:v1".parse().unwrap();
    let mut wrong = Vec::new();
    for row in table {
        let (runtime, exit, kind, retry, text) = (&row[0], &row[1], &row[2], &row[3], &row[4]);
        let output = CommandOutput {
            exit: ExitStatus::Code(exit.parse().unwrap()),
            // Layers had begun where docker's error has no prefix.
            stdout: b"v1: Pulling from team/app\nc5a04032aca7: Pulling fs layer\n".to_vec(),
            stderr: text.replace("\\n", "\n").into_bytes(),
            truncated: false,
        };
        let runtime = runtime.parse().unwrap();
        let runtime: &dyn Runtime = of_kind(runtime);
        let failure = runtime.read_pull(&image, &output).unwrap_err();
        let found = retry_word(failure.kind.retry());
        if failure.kind.as_str() != kind || found != retry {
            wrong.push(format!(
                "{} {found}, expected {kind} {retry}: {text}",
                failure.kind
            ));
        }
    }
    assert!(wrong.is_empty(), "{}\n{}", wrong.len(), wrong.join("\n"));
}

/// What crictl passed on in a message of the table; the causes of containerd and of containers/image are also those of
/// their other clients.
fn passed_on(text: &str) -> Option<String> {
    let message = text
        .rsplit_once("msg=\"pulling image: rpc error: code = ")?
        .1;
    let (_, message) = message.split_once(" desc = ")?;
    let message = message.split("\\n").next()?.strip_suffix('"')?;
    (!message.contains("\\\\")).then(|| message.replace("\\\"", "\""))
}

/// A message of the table as nerdctl, ctr and podman print it, for an image of this name.
fn wrapped(text: &str, name: &str) -> Vec<(RuntimeKind, String)> {
    let Some(message) = passed_on(text) else {
        return Vec::new();
    };
    let message = message.replace("reg.example/team/app", name);
    let message = message.replace("reg.example", name.split('/').next().unwrap());
    if let Some(rest) = message.strip_prefix("failed to pull and unpack image \"") {
        let Some((_, cause)) = rest.split_once("\": ") else {
            return Vec::new();
        };
        let quoted = cause.replace('"', "\\\"");
        return vec![
            (RuntimeKind::Ctr, format!("ctr: {cause}")),
            (
                RuntimeKind::Ctr,
                format!(
                    "time=\"2026-11-27T13:00:00Z\" level=warning msg=\"DEPRECATION: x\"\nctr: {cause}"
                ),
            ),
            (RuntimeKind::Nerdctl, format!("FATA[0012] {cause}")),
            (
                RuntimeKind::Nerdctl,
                format!(
                    "time=\"2026-11-27T13:00:00Z\" level=info msg=\"trying next host\" error=\"x\" host={name}\ntime=\"2026-11-27T13:00:00Z\" level=fatal msg=\"{quoted}\""
                ),
            ),
            (
                RuntimeKind::Crictl,
                format!("ERRO[0003] pulling image: rpc error: code = Unknown desc = {message}"),
            ),
        ];
    }
    let image_err = "unable to pull image or OCI artifact: pull image err: ";
    let cause = message.strip_prefix(image_err).unwrap_or(&message);
    if ![
        "initializing source ",
        "copying system image",
        "writing blob",
        "reading ",
    ]
    .iter()
    .any(|start| cause.starts_with(start))
    {
        return Vec::new();
    }
    let cause = cause.split("; artifact err").next().unwrap();
    let trying = format!(
        "Trying to pull {name}:v1...\nGetting image source signatures\nCopying blob sha256:aa\n"
    );
    vec![
        (RuntimeKind::Podman, format!("Error: {cause}")),
        (RuntimeKind::Podman, format!("{trying}Error: {cause}")),
        (
            RuntimeKind::Podman,
            format!("{trying}Error: unable to copy from source docker://{name}:v1: {cause}"),
        ),
        (
            RuntimeKind::Docker,
            format!(
                "Emulate Docker CLI using podman. Create /etc/containers/nodocker to quiet msg.\n{trying}Error: {cause}"
            ),
        ),
    ]
}

#[test]
fn a_cause_is_the_same_in_every_clients_wrapping_and_of_every_registry() {
    let table = rows(&fixtures().join("runtime-messages.tsv"), 5);
    let (mut tried, mut wrong) = (0, BTreeSet::new());
    for name in [
        "reg.example/team/app",
        "registry-1.docker.io/library/nginx",
        "10.1.2.3:5000/a/b_c/d.e",
        "localhost:5000/forbidden/unauthorized",
        "eof.example/timeout/not-found",
        "[fd00::7]:5000/x",
    ] {
        let image: Image = format!("{name}:v1").parse().unwrap();
        for row in &table {
            for (kind, text) in wrapped(&row[4], name) {
                tried += 1;
                let output = CommandOutput {
                    exit: ExitStatus::Code(if kind == RuntimeKind::Podman { 125 } else { 1 }),
                    stdout: Vec::new(),
                    stderr: text.clone().into_bytes(),
                    truncated: false,
                };
                let failure = of_kind(kind).read_pull(&image, &output).unwrap_err();
                if failure.kind.as_str() != row[2] {
                    wrong.insert(format!(
                        "{kind}: {}, expected {}: {text}",
                        failure.kind, row[2]
                    ));
                }
            }
        }
    }
    assert!(tried > 2500, "only {tried}");
    let wrong: Vec<String> = wrong.into_iter().collect();
    assert!(
        wrong.is_empty(),
        "{} of {tried}\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn an_exit_without_an_error_is_left_to_the_inspection_and_a_signal_is_a_failure() {
    let image: Image = "reg.example/team/app:v1".parse().unwrap();
    let silent = CommandOutput {
        exit: ExitStatus::Code(0),
        stdout: b"v1: Pulling from team/app\n".to_vec(),
        stderr: Vec::new(),
        truncated: false,
    };
    for kind in [RuntimeKind::Docker, RuntimeKind::Crictl] {
        assert_eq!(of_kind(kind).read_pull(&image, &silent), Ok(()), "{kind}");
    }
    let killed = CommandOutput {
        exit: ExitStatus::Signal("KILL".into()),
        ..silent
    };
    let failure = Docker.read_pull(&image, &killed).unwrap_err();
    assert_eq!(
        (failure.kind, failure.stage),
        (FailureKind::Unknown, Stage::Pull)
    );
    assert!(failure.detail.contains("signal KILL"), "{failure}");
}
