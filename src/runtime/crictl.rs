//! crictl: any CRI runtime (containerd, CRI-O, cri-dockerd) through the `crictl` client on the node.

use serde_json::Value;

use super::crictl_output::{containerd_socket, failure, messages, read_held};
use super::podman::{self, with_store};
use super::{keep, local_names, login, output, stock};
use crate::model::FailureKind::{self, Platform};
use crate::model::{
    CommandOutput, Failure, Image, KeepOutcome, LocalImage, RegistryLogin, RuntimeKind, Secret,
    Stage, Stock, basic, text,
};
use crate::ports::{
    Description, KeepRequest, Naming, NodeCommand, PullRequest, Runtime, SecretDelivery,
    StockQuestion,
};

/// Any CRI runtime, through `crictl`.
#[derive(Debug, Clone, Copy)]
pub struct Crictl;

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
            return Err(failure(Stage::Probe, None, output));
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
            return Err(failure(Stage::Probe, None, version));
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
            return Err(failure(stage, Some(image), output));
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
            secret: login::containers_auth(RuntimeKind::Podman, request)?,
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
            return Err(failure(Stage::Pull, Some(image), output));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::testing::{image, output};

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
        assert_eq!(failure.kind, FailureKind::RuntimeAbsent);
    }
}
