//! crictl: any CRI runtime (containerd, CRI-O, cri-dockerd) through the `crictl` client on the node.
//!
//! What is read here was seen from crictl with containerd 1.6, 1.7 and 2.1
//! (`tests/fixtures/transcripts/crictl*`); CRI-O's texts are those of containers/image.

use serde_json::Value;

use super::podman::{self, with_store};
use super::rules::{DAEMON_GONE, HELD_BY_ANOTHER, MALFORMED, Rule};
use super::{ErrorLines, digests, explain, keep, local_names, output, stock};
use crate::model::FailureKind::{self, NodeSetup, Platform, RuntimeAbsent, RuntimeDown};
use crate::model::{
    CommandOutput, ExitStatus, Failure, Image, KeepOutcome, LocalImage, RegistryLogin, RuntimeKind,
    Secret, Stage, Stock, basic, text,
};
use crate::ports::{
    Description, KeepRequest, Naming, NodeCommand, PullRequest, Runtime, SecretDelivery,
    StockQuestion,
};

/// Any CRI runtime, through `crictl`.
#[derive(Debug, Clone, Copy)]
pub struct Crictl;

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

/// Runs crictl. Its arguments stay arguments.
///
/// Where no endpoint was named, crictl looks for its configuration in /etc and beside itself, and then tries the sockets of containerd, CRI-O and
/// cri-dockerd. Where a distribution of Kubernetes keeps its own containerd, or the kubelet is joined to docker, that
/// finds nothing, or a containerd that the kubelet does not use: their sockets come first, in the order in which they
/// exclude each other. RKE2 writes a configuration of its own, and k3s has a crictl inside that knows its socket
/// (docs.rke2.io, docs.k3s.io, docs.k0sproject.io, microk8s.io).
///
/// A default socket that exists and that this user may not use is named as well, unless another one may be used: crictl
/// would try each of its defaults for seconds, and report only that the last one does not exist.
const FIND: &str = r#"client=$0
if ! command -v "$client" >/dev/null; then
    command -v k3s >/dev/null || { echo "$0: not found" >&2; exit 127; }
    client="k3s $0"
fi
if [ -z "${CONTAINER_RUNTIME_ENDPOINT-}${IMAGE_SERVICE_ENDPOINT-}${CRI_CONFIG_FILE-}" ] &&
    ! [ -e /etc/crictl.yaml ] && ! [ -e "$(command -v "${client%% *}").yaml" ]; then
    CRI_CONFIG_FILE=/var/lib/rancher/rke2/agent/etc/crictl.yaml
    if [ -e "$CRI_CONFIG_FILE" ]; then
        export CRI_CONFIG_FILE
    else
        unset CRI_CONFIG_FILE
        found=
        for socket in /run/k3s/containerd/containerd.sock /run/k0s/containerd.sock \
            /var/snap/microk8s/common/run/containerd.sock /run/cri-dockerd.sock; do
            [ -S "$socket" ] && found=$socket && break
        done
        [ -n "$found" ] || for socket in /run/containerd/containerd.sock /run/crio/crio.sock; do
            [ -S "$socket" ] || continue
            if [ -w "$socket" ]; then
                found=
                break
            fi
            found=$socket
        done
        if [ -n "$found" ]; then
            CONTAINER_RUNTIME_ENDPOINT=unix://$found
            IMAGE_SERVICE_ENDPOINT=unix://$found
            export CONTAINER_RUNTIME_ENDPOINT IMAGE_SERVICE_ENDPOINT
        fi
    fi
fi
if [ "$1" = config ]; then
    echo "client $client"
    [ -z "${CONTAINER_RUNTIME_ENDPOINT-}" ] || { echo "$CONTAINER_RUNTIME_ENDPOINT"; exit; }
fi
exec $client "$@""#;

/// A script that begins with containerd's socket as `$address`; `$crio` is "yes" where the CRI is CRI-O's. `"$@"` is crictl.
macro_rules! with_cri {
    ($script:expr) => {
        concat!(
            r#"address=$("$@" info 2>/dev/null | sed -n 's/^ *"containerdEndpoint": "\(.*\)".*/\1/p' | head -n 1)
crio=
[ -n "$address" ] || ! "$@" version 2>/dev/null | grep -q '^RuntimeName: *cri-o' || crio=yes
"#,
            $script
        )
    };
}

/// Pulls what leads to prepull: `LOCAL CRICTL...`. CRI-O wants TLS there: podman pulls into its store.
const PULL_LOCALLY: &str = concat!(
    "local=$1\nshift\n",
    with_cri!(with_store!(
        r#"if [ -z "$crio" ]; then
    CRICTL_AUTH=$(sed -n 's/.*"auth":"\([^"]*\)".*/\1/p' "$PREPULL_LOGIN/auth.json")
    export CRICTL_AUTH
    exec "$@" pull "$local"
fi
export REGISTRY_AUTH_FILE="$PREPULL_LOGIN/auth.json"
podman pull --tls-verify=false "$local""#
    ))
);

/// Gives an image its own name, through ctr in containerd and through podman in CRI-O's store: `MODE LOCAL NAME TAG
/// CRICTL...`.
///
/// crictl cannot: its rmi takes every name of an image. containerd tells the CRI of a new name a moment later.
const NAME: &str = concat!(
    "mode=$1 local=$2 name=$3 tag=$4\nshift 4\n",
    with_cri!(concat!(
        r#"wait_for_cri() {
    wanted=$1
    shift
    tries=0
    until "$@" inspecti -o json "$wanted" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ "$tries" -lt 30 ] || { echo 'the CRI does not know the image by its own name' >&2; return 1; }
        [ "$tries" -lt 10 ] || sleep 1
    done
}
if [ -n "$crio" ]; then
"#,
        with_store!(podman::with_local_names!(
            r#"case $mode in
    check)
        command -v podman >/dev/null || { echo 'there is no podman, which pulls into the store of CRI-O' >&2; exit 1; }
        [ -n "$tag" ] || { echo 'CRI-O needs its registry for a name by digest' >&2; exit 1; }
        ;;
    name) podman tag "$local" "$name:$tag" && wait_for_cri "$name:$tag" "$@" && forget ;;
    forget)
        forget
        sleep 1
        forget
        ;;
esac
exit
fi
"#
        )),
        r#"client=
for words in ctr 'k3s ctr' 'k0s ctr' 'microk8s ctr'; do
    command -v "${words%% *}" >/dev/null && client=$words && break
done
images() { $client -a "$address" -n k8s.io images "$@"; }
"#,
        local_names::with_local_names!(
            r#"case $mode in
    check)
        [ -n "$address" ] || { echo 'the CRI runtime is neither containerd nor CRI-O' >&2; exit 1; }
        [ -n "$client" ] || { echo 'there is no ctr, which names images in containerd' >&2; exit 1; }
        images ls -q >/dev/null
        ;;
    name)
        for wanted in ${tag:+"$name:$tag"} "$name@$digest"; do
            images tag --force "$local" "$wanted" >/dev/null || exit
        done
        wanted=$name@$digest
        [ -z "$tag" ] || wanted=$name:$tag
        wait_for_cri "$wanted" "$@" && forget
        ;;
    forget)
        forget
        sleep 1
        forget
        ;;
esac"#
        )
    ))
);

impl Crictl {
    /// The endpoint goes by environment. `CONTAINER_RUNTIME_ENDPOINT` alone would lose against an
    /// `image-endpoint` in the node's crictl.yaml, and images are what we ask for.
    fn command<'a>(endpoint: Option<&'a str>, arguments: &[&'a str]) -> NodeCommand<'a> {
        let mut environment = Vec::new();
        if let Some(endpoint) = endpoint {
            environment.extend(
                ["CONTAINER_RUNTIME_ENDPOINT", "IMAGE_SERVICE_ENDPOINT"]
                    .map(|variable| (variable, endpoint)),
            );
        }
        NodeCommand {
            argv: [&["sh", "-c", FIND, "crictl"], arguments].concat(),
            environment,
            secret: None,
            stdin: b"",
        }
    }

    fn failure(stage: Stage, image: Option<&Image>, output: &CommandOutput) -> Failure {
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
}

impl Runtime for Crictl {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Crictl
    }

    /// `crictl images -q` and not `crictl version`: the latter asks the runtime service, which may answer
    /// where the image service (another socket, a disabled plugin) does not; and not `imagefsinfo`,
    /// which some runtimes answer only after they have counted all their bytes.
    fn version<'a>(&self, endpoint: Option<&'a str>) -> NodeCommand<'a> {
        Self::command(endpoint, &["images", "-q"])
    }

    fn check_alive(&self, output: &CommandOutput) -> Result<String, Failure> {
        if !output.success() {
            return Err(Self::failure(Stage::Probe, None, output));
        }
        let images = output::lines(&output.stdout).len();
        let at_least = if output.truncated { "at least " } else { "" };
        Ok(format!(
            "CRI, {at_least}{} held",
            text::format_count(images, "image")
        ))
    }

    fn describe<'a>(&self, endpoint: Option<&'a str>) -> [NodeCommand<'a>; 2] {
        [
            Self::command(endpoint, &["version"]),
            Self::command(endpoint, &["config", "--get", "runtime-endpoint"]),
        ]
    }

    /// The socket is what crictl is configured with; where it looks for sockets itself, containerd tells its own.
    fn read_description(
        &self,
        [info, version, configured]: [&CommandOutput; 3],
    ) -> Result<Description, Failure> {
        if !version.success() {
            return Err(Self::failure(Stage::Probe, None, version));
        }
        let lines = output::lines(&version.stdout);
        let said = |key: &str| {
            let value = lines.iter().find_map(|line| line.strip_prefix(key))?;
            Some(text::truncate_bytes(value.trim().as_bytes(), 100))
        };
        let (Some(name), Some(version)) = (said("RuntimeName:"), said("RuntimeVersion:")) else {
            let mut said = vec!["crictl version names no runtime".to_string()];
            said.extend(lines);
            let detail = output::detail(&said);
            return Err(Failure::new(FailureKind::Unknown, Stage::Probe, detail));
        };
        let (client, configured) = output::client_and_socket(configured, "crictl");
        Ok(Description {
            runtime: format!("{name} {version}"),
            client,
            endpoint: configured.or_else(|| containerd_socket(info)),
        })
    }

    fn inspect<'a>(&self, image: &'a Image, endpoint: Option<&'a str>) -> NodeCommand<'a> {
        Self::command(endpoint, &["inspecti", "-o", "json", image.exact()])
    }

    fn read_inspect(
        &self,
        image: &Image,
        output: &CommandOutput,
        stage: Stage,
    ) -> Result<Option<LocalImage>, Failure> {
        if !output.success() {
            let said = messages(output).join("\n").to_ascii_lowercase();
            if said.contains("no such image") || said.contains("code = notfound") {
                return Ok(None);
            }
            return Err(Self::failure(stage, Some(image), output));
        }
        let start = output.stdout.iter().position(|byte| *byte == b'{');
        let answer: Value = start
            .and_then(|start| serde_json::from_slice(&output.stdout[start..]).ok())
            .ok_or_else(|| {
                let mut said = vec!["crictl inspecti printed no JSON".to_string()];
                said.extend(output::lines(&output.stdout));
                Failure::new(FailureKind::Unknown, stage, output::detail(&said))
            })?;
        Ok(read_held(image, &answer))
    }

    fn data_dir<'a>(&self, endpoint: Option<&'a str>) -> NodeCommand<'a> {
        Self::command(endpoint, &["info"])
    }

    fn pull<'a>(&self, request: &PullRequest<'a>) -> Result<NodeCommand<'a>, Failure> {
        own_platform(request)?;
        let secret =
            request
                .login
                .map(auth)
                .transpose()?
                .map(|value| SecretDelivery::Environment {
                    variable: "CRICTL_AUTH",
                    value,
                });
        Ok(NodeCommand {
            secret,
            ..Self::command(request.endpoint, &["pull", request.image.exact()])
        })
    }

    fn pull_locally<'a>(&self, request: &PullRequest<'a>) -> Result<NodeCommand<'a>, Failure> {
        own_platform(request)?;
        let crictl = Self::command(request.endpoint, &[]);
        let words = ["sh", "-c", PULL_LOCALLY, "sh", request.image.exact()];
        Ok(NodeCommand {
            argv: [&words, &crictl.argv[..]].concat(),
            secret: podman::login_file(RuntimeKind::Podman, request)?,
            ..crictl
        })
    }

    fn naming<'a>(&self, naming: &Naming<'a>) -> Result<[NodeCommand<'a>; 3], Failure> {
        let PullRequest {
            image, endpoint, ..
        } = naming.request;
        // As a pull by digest leaves it.
        let tag = image.tag().filter(|_| image.digest().is_none());
        Ok(["check", "name", "forget"].map(|mode| {
            let crictl = Self::command(endpoint, &[]);
            let words = [
                "sh",
                "-c",
                NAME,
                "sh",
                mode,
                naming.local.as_str(),
                image.name(),
                tag.unwrap_or_default(),
            ];
            NodeCommand {
                argv: [&words, &crictl.argv[..]].concat(),
                ..crictl
            }
        }))
    }

    fn keep<'a>(&self, request: &KeepRequest<'a>) -> Option<NodeCommand<'a>> {
        let client = Self::command(request.endpoint, &[]);
        let argv = keep::question(RuntimeKind::Crictl, request, &client.argv);
        Some(NodeCommand { argv, ..client })
    }

    fn read_keep(&self, output: &CommandOutput) -> KeepOutcome {
        keep::read(output)
    }

    fn stock<'a>(&self, question: &StockQuestion<'a>) -> Option<NodeCommand<'a>> {
        Some(stock::question(RuntimeKind::Crictl, question, &[]))
    }

    fn read_stock(&self, output: &CommandOutput) -> Stock {
        stock::read(output)
    }

    fn names_digests(&self) -> bool {
        true
    }

    fn read_pull(&self, image: &Image, output: &CommandOutput) -> Result<(), Failure> {
        if !output.success() {
            return Err(Self::failure(Stage::Pull, Some(image), output));
        }
        // Its line is the same for a fresh pull and a present image, and its digest is the image's ID:
        // only the inspection afterwards tells what is there.
        Ok(())
    }
}

fn own_platform(request: &PullRequest<'_>) -> Result<(), Failure> {
    let Some(platform) = request.platform else {
        return Ok(());
    };
    let detail = format!(
        "crictl cannot ask for platform {platform}: a CRI runtime pulls for its own node; leave --platform out for this node"
    );
    Err(Failure::new(Platform, Stage::Pull, detail))
}

/// The socket in containerd's answer to `crictl info`.
fn containerd_socket(info: &CommandOutput) -> Option<String> {
    let answer: Value = serde_json::from_slice(&info.stdout).ok()?;
    let path = answer["config"]["containerdEndpoint"].as_str()?;
    Some(format!(
        "unix://{}",
        text::truncate_bytes(path.as_bytes(), 200)
    ))
}

/// What crictl takes for a login, which is a user and a password in any case.
///
/// containerd reads an empty user name as the sign of an identity token (`ParseAuth` in its CRI server); other runtimes
/// may refuse it.
fn auth(login: &RegistryLogin) -> Result<Secret, Failure> {
    match login {
        RegistryLogin::Password { username, password } => Ok(basic(username, password.expose())),
        RegistryLogin::IdentityToken { token, .. } => Ok(basic("", token.expose())),
        RegistryLogin::RegistryToken(_) => Err(Failure::new(
            FailureKind::RegistryAuth,
            Stage::Pull,
            "this login is a registry token, which crictl cannot be told; use --registry-user, or another --auth-file",
        )),
    }
}

/// crictl's telling lines: the message of its last error.
///
/// It prints three layers: warnings (on success too), the CRI client's klog line, and
/// `time=... level=error msg="..."`, which under a pty reads `ERRO[0000] ...` (`FATA` in older versions).
/// Without the last, whatever else is there is taken: sudo's or the shell's words, or the klog line.
fn messages(output: &CommandOutput) -> Vec<String> {
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
fn read_held(image: &Image, answer: &Value) -> Option<LocalImage> {
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

    fn image(name: &str) -> Image {
        name.parse().unwrap()
    }

    fn output(code: u32, stdout: &str, stderr: &str) -> CommandOutput {
        CommandOutput {
            exit: ExitStatus::Code(code),
            stdout: stdout.into(),
            stderr: stderr.into(),
            truncated: false,
        }
    }

    #[test]
    fn the_endpoint_and_the_login_go_by_environment() {
        let image = image("reg.example/app:v1");
        let login = RegistryLogin::Password {
            username: "ci".into(),
            password: Secret::new("hunter2"),
        };
        let command = Crictl
            .pull(&PullRequest {
                image: &image,
                endpoint: Some("unix:///run/crio/crio.sock"),
                platform: None,
                login: Some(&login),
            })
            .unwrap();
        assert_eq!(command.argv[3..], ["crictl", "pull", "reg.example/app:v1"]);
        assert_eq!(
            command.environment,
            [
                ("CONTAINER_RUNTIME_ENDPOINT", "unix:///run/crio/crio.sock"),
                ("IMAGE_SERVICE_ENDPOINT", "unix:///run/crio/crio.sock"),
            ]
        );
        assert_eq!(
            command.secret,
            Some(SecretDelivery::Environment {
                variable: "CRICTL_AUTH",
                value: basic("ci", b"hunter2"),
            })
        );
        assert!(!format!("{command:?}").contains("hunter2"));
        assert_eq!(
            Crictl.inspect(&image, None).argv,
            [
                "sh",
                "-c",
                FIND,
                "crictl",
                "inspecti",
                "-o",
                "json",
                "reg.example/app:v1"
            ]
        );
        assert_eq!(Crictl.version(None).environment, []);
    }

    #[test]
    fn an_identity_token_is_a_password_without_a_user_and_a_registry_token_is_refused() {
        let image = image("reg.example/app:v1");
        let pull = |login: RegistryLogin| {
            let asked = Crictl.pull(&PullRequest {
                image: &image,
                endpoint: None,
                platform: None,
                login: Some(&login),
            });
            asked.map(|command| command.secret)
        };
        let token = Secret::new("hunter2");
        let identity = RegistryLogin::IdentityToken {
            username: "ci".into(),
            token: token.clone(),
        };
        let Some(SecretDelivery::Environment { value, .. }) = pull(identity).unwrap() else {
            panic!("no login");
        };
        assert_eq!(value, basic("", b"hunter2"));
        let failure = pull(RegistryLogin::RegistryToken(token)).unwrap_err();
        assert_eq!(failure.kind, FailureKind::RegistryAuth);
        assert!(!failure.detail.contains("hunter2"), "{failure}");
    }

    #[test]
    fn a_platform_cannot_be_asked_for() {
        let image = image("reg.example/app:v1");
        let failure = Crictl
            .pull(&PullRequest {
                image: &image,
                endpoint: None,
                platform: Some("linux/arm64"),
                login: None,
            })
            .unwrap_err();
        assert_eq!((failure.kind, failure.stage), (Platform, Stage::Pull));
        assert!(failure.detail.contains("linux/arm64"), "{failure}");
    }

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
    fn a_probe_counts_images_as_a_sign_of_life() {
        assert_eq!(
            Crictl
                .check_alive(&output(0, "sha256:a\nsha256:b\n", ""))
                .unwrap(),
            "CRI, 2 images held"
        );
        let failure = Crictl
            .check_alive(&output(127, "", "sh: crictl: not found"))
            .unwrap_err();
        assert_eq!(
            (failure.kind, failure.stage),
            (FailureKind::RuntimeMissing, Stage::Probe)
        );
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

    #[test]
    fn a_description_names_the_runtime_behind_crictl_and_its_socket() {
        let version = output(
            0,
            "Version:  0.1.0\nRuntimeName:  containerd\nRuntimeVersion:  1.6.20\nRuntimeApiVersion:  v1\n",
            "",
        );
        let info = output(
            0,
            r#"{"config": {"containerdEndpoint": "/run/k3s/containerd/containerd.sock"}}"#,
            "",
        );
        let silent = output(1, "", "");
        let configured = output(0, "client crictl\nunix:///run/crio/crio.sock\n", "");
        for (info, configured, expected) in [
            (&info, &configured, Some("unix:///run/crio/crio.sock")),
            (
                &info,
                &silent,
                Some("unix:///run/k3s/containerd/containerd.sock"),
            ),
            (
                &info,
                &output(0, "\n", ""),
                Some("unix:///run/k3s/containerd/containerd.sock"),
            ),
            (&silent, &silent, None),
        ] {
            assert_eq!(
                Crictl.read_description([info, &version, configured]),
                Ok(Description {
                    runtime: "containerd 1.6.20".into(),
                    client: "crictl".into(),
                    endpoint: expected.map(String::from),
                })
            );
        }
        let odd = Crictl.read_description([&info, &output(0, "?", ""), &configured]);
        assert_eq!(odd.unwrap_err().kind, FailureKind::Unknown);
        let down = output(
            1,
            "",
            "time=\"x\" level=fatal msg=\"validate service connection: no\"",
        );
        let failure = Crictl
            .read_description([&info, &down, &configured])
            .unwrap_err();
        assert_eq!(failure.kind, RuntimeAbsent);
    }
}
