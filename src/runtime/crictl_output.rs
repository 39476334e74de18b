//! What crictl and the CRI's server behind it print.
//!
//! What is read here was seen from crictl with containerd 1.6, 1.7 and 2.1
//! (`tests/fixtures/transcripts/crictl*`); CRI-O's texts are those of containers/image.

use serde_json::Value;

use super::rules::{DAEMON_GONE, HELD_BY_ANOTHER, MALFORMED, Rule};
use super::{ErrorLines, digests, explain, output};
use crate::model::FailureKind::{self, NodeSetup, RuntimeAbsent, RuntimeDown};
use crate::model::{
    CommandOutput, ExitStatus, Failure, Image, LocalImage, RuntimeKind, Stage, text,
};

/// What only crictl and the CRI's server say; the shared causes are in [`super::rules`].
pub(super) const RULES: &[Rule] = &[
    Rule(
        NodeSetup,
        &[
            "load config file",
            "get server config",
            "^protocol \"",
            "invalid endpoint",
            "unknown service",
            "unknown method",
            "flag provided but not defined",
            "specify only one of",
        ],
    ),
    Rule(
        FailureKind::Privilege,
        &["connect endpoint*permission denied"],
    ),
    Rule(
        RuntimeAbsent,
        &[
            "validate service connection",
            "unable to determine runtime api version",
            "unable to determine image api version",
            "connect endpoint",
            "make sure you are running as root",
            "error while dialing",
        ],
    ),
    HELD_BY_ANOTHER,
    DAEMON_GONE,
    Rule(
        RuntimeDown,
        &["server is not initialized yet", "code = unavailable"],
    ),
    MALFORMED,
];

/// Asked last.
pub(super) const LAST_RULES: &[Rule] = &[Rule(NodeSetup, &["code = unimplemented"])];

/// What became of a command that did not succeed.
pub(super) fn failure(stage: Stage, image: Option<&Image>, output: &CommandOutput) -> Failure {
    let complaint = ErrorLines {
        lines: messages(output),
        // crictl's texts name the layer's transfer themselves.
        in_layers: false,
    };
    explain(
        RuntimeKind::Crictl,
        [RULES, LAST_RULES],
        stage,
        image,
        output,
        &complaint,
    )
}

/// The socket in containerd's answer to `crictl info`.
pub(super) fn containerd_socket(info: &CommandOutput) -> Option<String> {
    let answer: Value = serde_json::from_slice(&info.stdout).ok()?;
    let path = answer["config"]["containerdEndpoint"].as_str()?;
    Some(format!(
        "unix://{}",
        text::truncate_bytes(path.as_bytes(), 200)
    ))
}

/// crictl's telling lines: the message of its last error.
///
/// It prints three layers: warnings (on success too), the CRI client's klog line, and
/// `time=... level=error msg="..."`, which under a pty reads `ERRO[0000] ...` (`FATA` in older versions).
/// Without the last, whatever else is there is taken: sudo's or the shell's words, or the klog line.
pub(super) fn messages(output: &CommandOutput) -> Vec<String> {
    let mut lines = output::lines(&output.stderr);
    if lines.is_empty() {
        lines = output::lines(&output.stdout);
    }
    let errors: Vec<String> = lines
        .iter()
        .filter_map(|line| {
            output::log_message(line, "error").or_else(|| output::log_message(line, "fatal"))
        })
        .collect();
    if !errors.is_empty() {
        return telling(errors, &output.exit);
    }
    let (klog, other) = split_klog(lines);
    if other.is_empty() { klog } else { other }
}

/// Without a configuration crictl tries its default sockets, and prints an error for each that it gets over. Those are
/// the cause only where nothing else is, and where crictl ended by itself: a signal finds it at work.
fn telling(errors: Vec<String>, exit: &ExitStatus) -> Vec<String> {
    let (of_sockets, others): (Vec<String>, Vec<String>) = errors.into_iter().partition(|error| {
        OF_SOCKETS
            .iter()
            .any(|beginning| error.starts_with(beginning))
    });
    let found = match others.last() {
        Some(last) => vec![last.clone()],
        None if matches!(exit, ExitStatus::Code(..=128)) => of_sockets,
        None => Vec::new(),
    };
    // An error that a registry wrote has lines of its own.
    found
        .iter()
        .flat_map(|error| error.lines())
        .map(str::to_string)
        .collect()
}

/// How crictl begins to say that a socket is not there, does not answer or is not a CRI's.
const OF_SOCKETS: [&str; 4] = [
    "validate service connection",
    "unable to determine",
    "connect: ",
    "connect endpoint",
];

/// The errors that klog wrote, and all other lines that are not warnings.
fn split_klog(lines: Vec<String>) -> (Vec<String>, Vec<String>) {
    let (mut klog, mut other) = (Vec::new(), Vec::new());
    let mut is_inside = false;
    for line in lines {
        if line.contains(".go:") && line.starts_with(['E', 'W', 'I']) {
            is_inside = line.starts_with('E') && line.ends_with(" err=<");
            if let Some((_, error)) = line.split_once(" err=\"") {
                klog.extend(
                    output::unquoted(&format!("\"{error}"))
                        .lines()
                        .map(String::from),
                );
            } else if !is_inside && line.starts_with('E') {
                klog.push(line);
            }
        } else if is_inside {
            // An error with lines of its own stands between `err=<` and ` >`.
            is_inside = !line.starts_with(" >");
            if is_inside {
                klog.push(line.trim_start().to_string());
            }
        } else if !output::is_warning(&line) {
            other.push(line);
        }
    }
    (klog, other)
}

/// Reads `crictl inspecti -o json`; `None` when it says that there is no image.
pub(super) fn read_held(image: &Image, answer: &Value) -> Option<LocalImage> {
    let status = &answer["status"];
    let id = status["id"].as_str().filter(|id| !id.is_empty())?;
    let repo_digests = status["repoDigests"].as_array();
    let spec = &answer["info"]["imageSpec"];
    Some(LocalImage {
        digest: digests::digest_of(
            image,
            repo_digests.into_iter().flatten().filter_map(Value::as_str),
        ),
        image_id: Some(id.to_string()),
        // A 64-bit number in protobuf's JSON is a string.
        bytes: status["size"]
            .as_u64()
            .or_else(|| status["size"].as_str()?.parse().ok()),
        platform: match (spec["os"].as_str(), spec["architecture"].as_str()) {
            (Some(os), Some(architecture)) => Some(match spec["variant"].as_str() {
                Some(variant) if !variant.is_empty() => format!("{os}/{architecture}/{variant}"),
                _ => format!("{os}/{architecture}"),
            }),
            _ => None,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::Runtime as _;
    use crate::runtime::Crictl;
    use crate::runtime::testing::{image, output};

    #[test]
    fn inspections_of_every_runtime_are_read() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let answer = format!(
            "{{\"status\":{{\"id\":\"0b9a\",\"repoTags\":[],\"repoDigests\":[\"other.example/app@sha256:{}\",\"reg.example/app@{digest}\"],\"size\":\"42\"}},\"info\":{{}}}}",
            "b".repeat(64)
        );
        let read = |stdout: &str| {
            Crictl.read_inspect(
                &image("reg.example/app:v1"),
                &output(0, stdout, ""),
                Stage::Verify,
            )
        };
        assert_eq!(
            read(&answer).unwrap(),
            Some(LocalImage {
                digest: Some(digest),
                image_id: Some("0b9a".into()),
                bytes: Some(42),
                platform: None,
            })
        );
        for absent in ["{\"status\":null}", "{}", "{\"status\":{\"id\":\"\"}}"] {
            assert_eq!(read(absent).unwrap(), None, "{absent}");
        }
        assert_eq!(read("").unwrap_err().kind, FailureKind::Unknown);
    }

    #[test]
    fn an_image_that_is_not_there_is_no_failure() {
        for said in [
            "time=\"x\" level=error msg=\"no such image \\\"reg.example/app:v1\\\" present\"",
            "FATA[0000] no such image \"reg.example/app:v1\" present",
            "time=\"x\" level=fatal msg=\"image status: rpc error: code = NotFound desc = no\"",
        ] {
            let answer = Crictl.read_inspect(
                &image("reg.example/app:v1"),
                &output(1, "", said),
                Stage::Inspect,
            );
            assert_eq!(answer.unwrap(), None, "{said}");
        }
        let failure = Crictl
            .read_inspect(
                &image("reg.example/app:v1"),
                &output(1, "", "FATA[0002] connect: connect endpoint 'unix:///x.sock': context deadline exceeded"),
                Stage::Inspect,
            )
            .unwrap_err();
        assert_eq!(failure.kind, RuntimeAbsent);
    }

    #[test]
    fn an_error_of_a_socket_that_was_got_over_is_no_cause() {
        let of_socket = "time=\"x\" level=error msg=\"validate service connection: validate CRI v1 image API for endpoint \\\"unix:///run/containerd/containerd.sock\\\": rpc error: code = Unavailable desc = connection error: desc = \\\"transport: Error while dialing: dial unix /run/containerd/containerd.sock: connect: no such file or directory\\\"\"\n";
        let older = "ERRO[0000] unable to determine image API version: rpc error: code = Unavailable desc = connection error: desc = \"transport: Error while dialing dial unix /var/run/dockershim.sock: connect: no such file or directory\"\n";
        let pull = |exit, stderr: &str| {
            let output = CommandOutput {
                exit,
                ..output(1, "", stderr)
            };
            Crictl
                .read_pull(&image("reg.example/app:v1"), &output)
                .unwrap_err()
        };
        let later =
            "FATA[0003] pulling image: reading manifest v1 in reg.example/app: unauthorized: no\n";
        for socket in [of_socket, older] {
            let failure = pull(ExitStatus::Code(1), &format!("{socket}{later}"));
            assert_eq!(failure.kind, FailureKind::RegistryAuth, "{socket}");
            assert!(!failure.detail.contains(".sock"), "{failure}");
            assert_eq!(pull(ExitStatus::Code(1), socket).kind, RuntimeAbsent);
            for ended in [ExitStatus::Code(143), ExitStatus::Signal("TERM".into())] {
                let failure = pull(ended, socket);
                assert_eq!(failure.kind, FailureKind::Unknown, "{failure}");
            }
        }
        let both = pull(ExitStatus::Code(1), &format!("{older}{of_socket}"));
        assert!(
            both.detail.contains("dockershim") && both.detail.contains("containerd.sock"),
            "{both}"
        );
    }

    #[test]
    fn klogs_errors_are_read_where_nothing_else_tells() {
        let said = |stderr: &str| messages(&output(1, "", stderr));
        assert_eq!(
            said(
                "W1127 13:07:34.1 1 x.go:1] \"odd\"\nE1127 13:07:34.8 1 remote_image.go:250] \"PullImage failed\" err=\"rpc error: code = Unknown desc = no\" image=\"a\"\n"
            ),
            ["rpc error: code = Unknown desc = no"]
        );
        assert_eq!(
            said(
                "E1127 13:07:34.8 1 remote_image.go:250] \"PullImage failed\" err=<\n\trpc error: 403 Forbidden\n\tdenied\n > image=\"a\"\n"
            ),
            ["rpc error: 403 Forbidden", "denied"]
        );
        assert_eq!(
            said("W1127 13:07:34.1 1 x.go:1] \"odd\"\nsudo: no\n"),
            ["sudo: no"]
        );
    }
}
