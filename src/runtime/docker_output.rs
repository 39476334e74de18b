//! What docker's client prints, and podman's and skopeo's, which speak as it does.
//!
//! What is read here was seen from docker CLI 20.10 and 28 with dockerd 20.10 and 28
//! (`tests/fixtures/transcripts/docker*`).

use serde::Deserialize;

use super::kubelet::UNSEEN;
use super::rules::{DAEMON_GONE, HELD_BY_ANOTHER, MALFORMED, Rule};
use super::{ErrorLines, digests, docker_api, explain, output};
use crate::model::FailureKind::{
    self, NodeSetup, RegistryAuth, RegistryRefused, RegistryUnavailable, RuntimeAbsent, RuntimeDown,
};
use crate::model::{CommandOutput, Failure, Image, LocalImage, RuntimeKind, Stage, text};

/// What only docker's client and daemon say; the shared causes are in [`super::rules`].
const RULES: &[Rule] = &[
    UNSEEN,
    Rule(
        RuntimeAbsent,
        &[
            "error during connect*dial",
            "error during connect*no such host",
        ],
    ),
    HELD_BY_ANOTHER,
    DAEMON_GONE,
    Rule(
        RuntimeDown,
        &["error during connect", "for api route and version"],
    ),
    Rule(FailureKind::Privilege, &["authorization denied by plugin"]),
    Rule(
        NodeSetup,
        &[
            "client version*is too",
            "client is newer than server",
            "requires api version",
            "is only supported on a docker daemon with experimental",
            "unable to parse docker host",
            "unable to resolve docker endpoint",
            "context not found",
            "is not found on the file system",
            // DOCKER_CONTENT_TRUST is set on the node.
            "trust data",
            // podman, of its own set-up.
            "oci runtime*not found",
            "cannot re-exec process",
            "an unhandled reboot has occurred",
            "try resetting the pause process",
            "unknown flag",
            "unknown shorthand flag",
            "flag provided but not defined",
        ],
    ),
    MALFORMED,
    // A 4xx whose empty body tells nothing (a proxy's 407, for one). With a body, the body is classified.
    Rule(RegistryRefused, &["error response from daemon: unknown:$"]),
];

/// Asked last. With containerd's image store the daemon passes a registry's words on without the status that they came
/// with (`daemon/containerd/registry_errors.go`). Before the layers that is done for a refusal alone; of a layer it may
/// be any, and the most of those pass.
const WITHOUT_STATUS: &[Rule] = &[
    // A registry's server error without a message.
    Rule(
        RegistryUnavailable,
        &[
            "^unknown$",
            "^unknown: unknown error$",
            "error response from daemon: unknown$",
            "error response from daemon: unknown: unknown error$",
            "error from registry: unknown",
        ],
    ),
    Rule(
        RegistryAuth,
        &["error response from daemon: error from registry: "],
    ),
    Rule(RegistryUnavailable, &["^error from registry: "]),
];

/// The answer to `docker version`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Versions {
    client: Option<Part>,
    server: Option<Part>,
}

/// One side of it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Part {
    version: Option<String>,
    #[serde(rename = "APIVersion")]
    podman_api: Option<String>,
}

/// Asks what is held of an image, which comes last.
pub(super) const INSPECT: &[&str] = &[
    "image",
    "inspect",
    "--format",
    "{{json .RepoDigests}} {{.Os}}/{{.Architecture}} {{.Size}} {{.Id}}",
];

/// How `docker image inspect` says that an image is not there; podman's stand-in says the last.
const ABSENT: [&str; 3] = ["no such image", "no such object", "image not known"];

/// What became of a command of docker's client, or of podman, which speaks as it does.
pub(super) fn failure(
    kind: RuntimeKind,
    stage: Stage,
    image: Option<&Image>,
    output: &CommandOutput,
) -> Failure {
    explained(kind, stage, image, output, &complaint(output))
}

fn explained(
    kind: RuntimeKind,
    stage: Stage,
    image: Option<&Image>,
    output: &CommandOutput,
    complaint: &ErrorLines,
) -> Failure {
    explain(
        kind,
        [RULES, WITHOUT_STATUS],
        stage,
        image,
        output,
        complaint,
    )
}

/// Reads the answer to `version --format '{{json .}}'`.
pub(super) fn check_alive(kind: RuntimeKind, output: &CommandOutput) -> Result<String, Failure> {
    if !output.success() {
        return Err(failure(kind, Stage::Probe, None, output));
    }
    let printed = String::from_utf8_lossy(&output.stdout);
    let answer = printed
        .lines()
        .find_map(|line| serde_json::from_str::<Versions>(line.trim()).ok());
    let truncate_bytes = |version: String| text::truncate_bytes(version.as_bytes(), 100);
    let (fault, what) = match answer {
        // podman in docker's place needs no daemon. It spells the version of its API unlike docker.
        Some(Versions {
            client:
                Some(Part {
                    version: Some(version),
                    podman_api: Some(_),
                }),
            ..
        }) => return Ok(format!("podman {}", truncate_bytes(version))),
        Some(Versions {
            server:
                Some(Part {
                    version: Some(version),
                    ..
                }),
            ..
        }) => return Ok(format!("docker {}", truncate_bytes(version))),
        // Some clients exit with 0 although the daemon's part of the answer is missing.
        Some(_) => (RuntimeAbsent, "docker version names no server"),
        None => (
            FailureKind::Unknown,
            "docker version printed no JSON that names a server",
        ),
    };
    let mut said = vec![what.to_string()];
    said.extend(output::lines(match fault {
        RuntimeAbsent => &output.stderr,
        _ => &output.stdout,
    }));
    Err(Failure::new(fault, Stage::Probe, output::detail(&said)))
}

/// Reads the answer to [`INSPECT`].
pub(super) fn read_inspect(
    kind: RuntimeKind,
    image: &Image,
    output: &CommandOutput,
    stage: Stage,
) -> Result<Option<LocalImage>, Failure> {
    if !output.success() {
        let said = String::from_utf8_lossy(&output.stderr).to_ascii_lowercase();
        if ABSENT.iter().any(|absent| said.contains(absent)) {
            return Ok(None);
        }
        return Err(failure(kind, stage, Some(image), output));
    }
    let printed = String::from_utf8_lossy(&output.stdout);
    printed
        .lines()
        .find_map(|line| read_held(image, line.trim()))
        .map(Some)
        .ok_or_else(|| {
            Failure::new(
                FailureKind::Unknown,
                stage,
                output::detail(
                    &[
                        vec!["docker image inspect printed something else than asked for".into()],
                        output::lines(&output.stdout),
                    ]
                    .concat(),
                ),
            )
        })
}

/// Reads how a pull ended.
pub(super) fn read_pull(
    kind: RuntimeKind,
    image: &Image,
    output: &CommandOutput,
) -> Result<(), Failure> {
    let answered = docker_api::escape_multiline(output);
    let output = answered.as_ref().unwrap_or(output);
    let stdout = output::lines(&output.stdout);
    // Exit status 0 is not proof: CLI 28, ended while it asks for a login, exits with 0.
    if let Some(asked) = stdout
        .iter()
        .position(|line| line.starts_with("Login prior to pull"))
    {
        let mut said =
            vec!["the registry refused the login and docker asked for another one".to_string()];
        said.extend(stdout[asked..].iter().take(1).cloned());
        said.extend(output::lines(&output.stderr));
        return Err(Failure::new(
            FailureKind::RegistryAuth,
            Stage::Pull,
            output::detail(&said),
        ));
    }
    if !output.success() {
        return Err(failure(kind, Stage::Pull, Some(image), output));
    }
    // podman that is ended in the middle of a pull exits with 0 as well; when it is done, it prints the image's ID.
    if stdout.is_empty()
        && output::lines(&output.stderr)
            .iter()
            .any(|line| line.starts_with(TRYING))
    {
        let mut complaint = complaint(output);
        complaint.lines.insert(
            0,
            "podman was ended before the pull was done: it named no image".to_string(),
        );
        return Err(explained(
            kind,
            Stage::Pull,
            Some(image),
            output,
            &complaint,
        ));
    }
    // docker's status line is not proof either: what the node holds is asked afterwards in any case.
    Ok(())
}

/// What docker's client and podman in its place print that is not part of an error.
const NO_COMPLAINT: [&str; 9] = [
    "Run 'docker",
    "See 'docker",
    "Emulate Docker CLI using podman",
    TRYING,
    "Getting image source signatures",
    "Copying blob",
    "Copying config",
    "Writing manifest",
    "Storing signatures",
];

/// How podman begins a pull, on standard error.
const TRYING: &str = "Trying to pull ";

/// docker's telling lines.
///
/// Errors before the first layer are `Error response from daemon: ...` on stderr; once layers are on
/// their way the same error has no prefix. A warning about the node's config.json is kept after the error
/// because it explains a pull that went on without a login. Under a pty everything is on stdout.
fn complaint(output: &CommandOutput) -> ErrorLines {
    let mut lines = output::lines(&output.stderr);
    if lines.is_empty() {
        lines = output::lines(&output.stdout);
        lines.retain(|line| !is_progress(line));
    }
    lines.retain(|line| !NO_COMPLAINT.iter().any(|start| line.starts_with(start)));
    // podman reports its own retries as warnings: the last of them is the cause where it was ended before it gave up.
    let tried = lines
        .iter()
        .rev()
        .filter_map(|line| output::log_message(line, "warning"))
        .find(|message| message.contains("retrying in"));
    let (mut warnings, mut lines): (Vec<String>, Vec<String>) =
        lines.into_iter().partition(|line| output::is_warning(line));
    warnings.retain(|line| !line.contains(" level="));
    for line in &mut lines {
        let message =
            output::log_message(line, "error").or_else(|| output::log_message(line, "fatal"));
        if let Some(message) = message {
            *line = message;
        }
    }
    // What a shell's start-up files print comes before the error, an HTML page after it.
    let prefixed = lines.iter().position(|line| {
        line.contains("rror response from daemon: ") || line.starts_with("Error: ")
    });
    lines.drain(..prefixed.unwrap_or_default());
    if lines.is_empty() {
        lines.extend(tried);
    }
    let is_started = output::lines(&output.stdout)
        .iter()
        .any(|line| is_progress(line) && !line.starts_with("HTTP/"));
    // Without a prefix and after progress, a lost connection is the client's to the daemon, unless the
    // daemon itself answers or had announced tries of its own at a layer.
    let only_eof = lines.len() == 1 && matches!(lines[0].as_str(), "unexpected EOF" | "EOF");
    let is_layers = output.stdout.starts_with(b"HTTP/")
        || String::from_utf8_lossy(&output.stdout).contains(": Retrying in ");
    if only_eof && !is_layers {
        lines[0] = format!("error during connect: {}", lines[0]);
    }
    ErrorLines {
        in_layers: is_started && prefixed.is_none(),
        lines: [lines, warnings].concat(),
    }
}

/// `c5a04032aca7: Pull complete`, `v1: Pulling from team/app`, the two last lines, and JSON and HTTP answers.
fn is_progress(line: &str) -> bool {
    let is_layer = line
        .split_once(": ")
        .is_some_and(|(id, _)| id.len() == 12 && id.bytes().all(|b| b.is_ascii_hexdigit()));
    is_layer
        || line.contains(": Pulling from ")
        || line.starts_with("Digest: ")
        || line.starts_with("Status: ")
        || line.starts_with("HTTP/")
        || line.starts_with(['{', '['])
}

/// Reads `["REPOSITORY@DIGEST",...] OS/ARCHITECTURE SIZE ID`, the format that [`INSPECT`] asks for.
fn read_held(image: &Image, line: &str) -> Option<LocalImage> {
    let mut json = serde_json::Deserializer::from_str(line).into_iter::<Option<Vec<String>>>();
    let repo_digests = json.next()?.ok()?.unwrap_or_default();
    let mut rest = line[json.byte_offset()..].split_whitespace();
    let platform = rest.next()?.to_string();
    let bytes = rest.next()?.parse().ok()?;
    let image_id = rest.next()?.to_string();
    Some(LocalImage {
        digest: digests::digest_of(image, repo_digests.iter().map(String::as_str)),
        image_id: Some(image_id),
        bytes: Some(bytes),
        platform: Some(platform),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::FailureKind::Privilege;
    use crate::runtime::testing::{image, output};

    #[test]
    fn what_is_held_is_read_from_the_line_that_was_asked_for() {
        let digest = format!("sha256:{}", "b".repeat(64));
        let line = format!(
            "noise of a start-up file\n[\"other/nginx@sha256:{}\",\"nginx@{digest}\"] linux/arm64 123 sha256:id\n",
            "a".repeat(64)
        );
        let held = read_inspect(
            RuntimeKind::Docker,
            &image("nginx"),
            &output(0, &line, ""),
            Stage::Verify,
        )
        .unwrap();
        assert_eq!(
            held,
            Some(LocalImage {
                digest: Some(digest),
                image_id: Some("sha256:id".into()),
                bytes: Some(123),
                platform: Some("linux/arm64".into()),
            })
        );
        for never_pushed in ["[] linux/amd64 1 x\n", "null linux/amd64 1 x\n"] {
            let held = read_inspect(
                RuntimeKind::Docker,
                &image("nginx"),
                &output(0, never_pushed, ""),
                Stage::Verify,
            )
            .unwrap();
            assert_eq!(held.unwrap().digest, None);
        }
        let failure = read_inspect(
            RuntimeKind::Docker,
            &image("nginx"),
            &output(0, "hello", ""),
            Stage::Inspect,
        )
        .unwrap_err();
        assert_eq!(failure.kind, FailureKind::Unknown);
        assert_eq!(failure.stage, Stage::Inspect);
    }

    #[test]
    fn absent_images_are_no_failure_and_everything_else_is() {
        let read = |stderr: &str| {
            read_inspect(
                RuntimeKind::Docker,
                &image("nginx"),
                &output(1, "\n", stderr),
                Stage::Inspect,
            )
        };
        for absent in [
            "Error: No such image: nginx",
            "Error response from daemon: No such image: nginx:latest",
            "Error response from daemon: no such image: nginx: No such image: nginx:latest",
            "Error: nginx: image not known",
        ] {
            assert_eq!(read(absent).unwrap(), None, "{absent}");
        }
        for (said, kind) in [
            (
                "Cannot connect to the Docker daemon at unix:///x.sock. Is the docker daemon running?",
                RuntimeAbsent,
            ),
            (
                "permission denied while trying to connect to the docker API at unix:///x.sock",
                Privilege,
            ),
            ("context deadline exceeded", RuntimeDown),
            ("sudo: a password is required", Privilege),
        ] {
            assert_eq!(read(said).unwrap_err().kind, kind, "{said}");
        }
    }

    #[test]
    fn a_version_without_a_server_is_a_daemon_that_is_not_there() {
        let client = "{\"Client\":{\"Version\":\"28.2.2\"},\"Server\":null}\n";
        let failure = check_alive(RuntimeKind::Docker, &output(0, client, "")).unwrap_err();
        assert_eq!((failure.kind, failure.stage), (RuntimeAbsent, Stage::Probe));
        let failure = check_alive(RuntimeKind::Docker, &output(
                1,
                client,
                "Cannot connect to the Docker daemon at unix:///x.sock. Is the docker daemon running?",
            ))
            .unwrap_err();
        assert_eq!(failure.kind, RuntimeAbsent);
        assert!(!failure.detail.contains("28.2.2"), "{failure}");
        let both = "{\"Client\":{},\"Server\":{\"Version\":\"28.5.2\"}}\n";
        assert_eq!(
            check_alive(RuntimeKind::Docker, &output(0, both, "")).unwrap(),
            "docker 28.5.2"
        );
        let failure = check_alive(
            RuntimeKind::Docker,
            &output(127, "", "sh: 1: docker: not found"),
        )
        .unwrap_err();
        assert_eq!(failure.kind, FailureKind::RuntimeMissing);
    }

    #[test]
    fn a_layers_lost_connection_is_told_from_the_daemons() {
        let pull = |stdout: &str| {
            read_pull(
                RuntimeKind::Docker,
                &image("nginx"),
                &output(1, stdout, "unexpected EOF\n"),
            )
            .unwrap_err()
            .kind
        };
        assert_eq!(pull("latest: Pulling from library/nginx\n"), RuntimeDown);
        let answer = "HTTP/1.1 200 OK\r\n\r\n{\"status\":\"Pulling fs layer\",\"id\":\"c5a04032aca7\"}\r\n\
            {\"error\":\"unexpected EOF\"}\r\n0\r\n";
        let failure = read_pull(RuntimeKind::Docker, &image("nginx"), &output(0, answer, ""));
        assert_eq!(failure.unwrap_err().kind, FailureKind::RegistryUnavailable);
        assert_eq!(
            pull("latest: Pulling from library/nginx\nc5a04032aca7: Retrying in 5 seconds\n"),
            FailureKind::RegistryUnavailable
        );
    }

    #[test]
    fn podman_in_dockers_place_is_known_by_what_it_says() {
        let answer = "{\"Client\":{\"APIVersion\":\"4.3.1\",\"Version\":\"4.3.1\",\"GoVersion\":\"go1.19.8\",\"Os\":\"linux\"}}\n";
        let note =
            "Emulate Docker CLI using podman. Create /etc/containers/nodocker to quiet msg.\n";
        for note in [note, ""] {
            assert_eq!(
                check_alive(RuntimeKind::Docker, &output(0, answer, note)).unwrap(),
                "podman 4.3.1"
            );
        }
        let remote = "{\"Client\":{\"APIVersion\":\"5.2.0\",\"Version\":\"5.2.0\"},\"Server\":{\"APIVersion\":\"5.2.0\",\"Version\":\"5.2.0\"}}\n";
        assert_eq!(
            check_alive(RuntimeKind::Docker, &output(0, remote, "")).unwrap(),
            "podman 5.2.0"
        );
        let docker = "{\"Client\":{\"Version\":\"28.2.2\",\"ApiVersion\":\"1.50\"}}\n";
        let failure = check_alive(RuntimeKind::Docker, &output(0, docker, "")).unwrap_err();
        assert_eq!(failure.kind, RuntimeAbsent);
    }

    #[test]
    fn podman_that_was_ended_is_no_success_though_it_exits_with_0() {
        let pull = |stdout: &str, stderr: &str| {
            read_pull(
                RuntimeKind::Docker,
                &image("reg.example/app:v1"),
                &output(0, stdout, stderr),
            )
        };
        let trying = "Trying to pull reg.example/app:v1...\nGetting image source signatures\nCopying blob sha256:7b65\n";
        let failure = pull("", trying).unwrap_err();
        assert_eq!(
            (failure.kind, failure.detail.as_str()),
            (
                FailureKind::Unknown,
                "podman was ended before the pull was done: it named no image"
            )
        );
        let retrying = "time=\"x\" level=warning msg=\"Failed, retrying in 1s ... (1/3). Error: reading manifest 1 in reg.example/app: toomanyrequests: later\"\n";
        let failure = pull("", &format!("{trying}{retrying}")).unwrap_err();
        assert_eq!(failure.kind, FailureKind::RateLimited);
        assert_eq!(pull(&format!("{}\n", "9".repeat(64)), trying), Ok(()));
    }
}
