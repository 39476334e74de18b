//! What the clients of containerd itself (ctr and nerdctl) share: its socket, the namespace of its images, its causes.

use serde_json::Value;

use super::kubelet::{UNSEEN, with_kubelet};
use super::rules::Rule;
use super::{ErrorLines, crictl_output, explain, output};
use crate::model::{CommandOutput, Failure, FailureKind, Image, RuntimeKind, Stage, text};
use crate::ports::{Description, NodeCommand};

/// Runs `"$@"` with the environment that containerd's clients read, the client in `$client` and the folder with the
/// registries' configuration in `$certs`.
///
/// A node with a kubelet is known by the namespace that the CRI uses, or by the kubelet's folder. The sockets of
/// distributions of Kubernetes come first, as for crictl; k3s, k0s and microk8s have a `ctr` of their own inside.
const ENVIRONMENT: &str = with_kubelet!(
    r#"client=
for name in "$0" "k3s $0" "k0s $0" "microk8s $0"; do
    command -v "${name%% *}" >/dev/null && client=$name && break
done
if [ -z "$client" ]; then
    echo "$0: command not found" >&2
    for socket in /run/k3s/containerd/containerd.sock /run/k0s/containerd.sock /var/snap/microk8s/common/run/containerd.sock \
        /run/containerd/containerd.sock /run/crio/crio.sock /run/docker.sock; do
        case $socket in
            */docker.sock) needs=docker ;;
            */crio.sock) needs='crictl or podman' ;;
            *) needs='crictl, nerdctl or ctr' ;;
        esac
        [ ! -S "$socket" ] || echo "$socket is here, but no client for it ($needs)" >&2
    done
    exit 127
fi
certs=/etc/containerd/certs.d
if [ -z "${CONTAINERD_ADDRESS-}" ]; then
    for socket in /run/k3s/containerd/containerd.sock /run/k0s/containerd.sock \
        /var/snap/microk8s/common/run/containerd.sock /run/containerd/containerd.sock; do
        [ -S "$socket" ] && break
    done
    export CONTAINERD_ADDRESS="$socket"
fi
case $CONTAINERD_ADDRESS in
    /run/k3s/*) for certs in /var/lib/rancher/rke2/agent/etc/containerd/certs.d /var/lib/rancher/k3s/agent/etc/containerd/certs.d; do
        [ -d "$certs" ] && break
    done ;;
    /var/snap/microk8s/*) certs=/var/snap/microk8s/current/args/certs.d ;;
esac
kubelet=
for folder in /var/lib/kubelet /var/lib/k0s/kubelet /var/snap/microk8s/common/var/lib/kubelet; do
    [ ! -d "$folder" ] || kubelet=yes
done
! kubelet_runs || kubelet=runs
if [ -z "${CONTAINERD_NAMESPACE-}" ]; then
    [ -n "$kubelet" ] || case $($client namespace ls -q 2>/dev/null) in *k8s.io*) kubelet=yes ;; esac
    export CONTAINERD_NAMESPACE="${kubelet:+k8s.io}"
    export CONTAINERD_NAMESPACE="${CONTAINERD_NAMESPACE:-default}"
fi
unseen=
if [ "$kubelet" = runs ]; then
    if [ "$CONTAINERD_NAMESPACE" != k8s.io ]; then
        unseen="namespace $CONTAINERD_NAMESPACE: leave the namespace of the endpoint out"
    elif [ "${client##* }" = ctr ] && ! $client --connect-timeout 5s plugins ls id==cri | grep -q ' ok *$'; then
        unseen="the containerd at $CONTAINERD_ADDRESS, which has no CRI plugin: name the socket of the kubelet's with --runtime-endpoint"
    fi
fi
export client certs unseen
exec "$@""#
);

/// A script that ends where the kubelet would not see the image that it is about.
macro_rules! if_seen {
    ($script:expr) => {
        concat!(
            r#"if [ -n "$unseen" ]; then
    echo "the kubelet on this node does not see $unseen" >&2
    exit 1
fi
"#,
            $script
        )
    };
}
pub(super) use if_seen;

/// A command with that environment. An endpoint is a socket's path to these clients, and may end in [`NAMESPACE`] and a
/// name.
pub(super) fn command<'a>(
    client: RuntimeKind,
    endpoint: Option<&'a str>,
    argv: &[&'a str],
) -> NodeCommand<'a> {
    let mut environment = Vec::new();
    if let Some(uri) = endpoint {
        let path = uri.strip_prefix("unix://").unwrap_or(uri);
        let (path, namespace) = match path.split_once(NAMESPACE) {
            Some((path, namespace)) => (path, Some(namespace)),
            None => (path, None),
        };
        environment.push(("CONTAINERD_ADDRESS", path));
        environment.extend(namespace.map(|name| ("CONTAINERD_NAMESPACE", name)));
    }
    NodeCommand {
        argv: [&["sh", "-c", ENVIRONMENT, client.as_str()], argv].concat(),
        environment,
        secret: None,
        stdin: b"",
    }
}

/// How an endpoint chooses a namespace: `unix:///run/containerd/containerd.sock?namespace=build`.
const NAMESPACE: &str = "?namespace=";

/// Says which client, socket and namespace are used.
pub(super) fn socket(client: RuntimeKind, endpoint: Option<&str>) -> NodeCommand<'_> {
    let say = r#"echo "client $client"
        echo "unix://$CONTAINERD_ADDRESS"
        echo "namespace $CONTAINERD_NAMESPACE${unseen:+, which the kubelet does not see}""#;
    command(client, endpoint, &["sh", "-c", say])
}

/// What is said of a runtime with this version behind this client, and the answer to [`socket`].
pub(super) fn description(
    version: String,
    client: RuntimeKind,
    socket: &CommandOutput,
) -> Description {
    let said = output::lines(&socket.stdout);
    let namespace = said.iter().find(|line| line.starts_with("namespace "));
    let (client, endpoint) = output::client_and_socket(socket, client.as_str());
    let runtime = match namespace {
        Some(namespace) => {
            let namespace = text::truncate_bytes(namespace.as_bytes(), 200);
            format!("{version}, {namespace}")
        }
        None => version,
    };
    Description {
        runtime,
        client,
        endpoint,
    }
}

/// The platform in an index's entry or an image's configuration, as `linux/arm64/v8`. That of an attestation is
/// unknown.
pub(super) fn platform(of: &Value) -> Option<String> {
    let part = |name: &str| {
        of[name]
            .as_str()
            .filter(|word| !["", "unknown"].contains(word))
    };
    let platform = format!("{}/{}", part("os")?, part("architecture")?);
    Some(match part("variant") {
        Some(variant) => format!("{platform}/{variant}"),
        None => platform,
    })
}

/// Asks ctr's way where containerd keeps its files.
pub(super) const DATA_DIR: &str = r#"$client plugins ls -d id==content |
    sed -n 's|^ *root  *\(/.*\)/io.containerd.content.v1.content *$|containerd \1|p'"#;

/// What only these clients say.
const RULES: &[Rule] = &[
    UNSEEN,
    Rule(
        FailureKind::NodeSetup,
        &[
            "has its headers in one line",
            "awk: command not found",
            "awk: not found",
        ],
    ),
    Rule(
        FailureKind::RegistryRefused,
        &["token service*sent no token"],
    ),
    Rule(
        FailureKind::Privilege,
        &["cannot access containerd socket*permission denied"],
    ),
    Rule(
        FailureKind::RuntimeAbsent,
        &[
            "rootless containerd not running",
            "failed to dial*timeout",
            "failed to dial*no such file",
            "cannot access containerd socket",
        ],
    ),
];

/// What became of a failed command: the causes are containerd's, which crictl passes on too.
pub(super) fn failure(
    client: RuntimeKind,
    stage: Stage,
    image: Option<&Image>,
    output: &CommandOutput,
) -> Failure {
    let complaint = ErrorLines {
        lines: messages(output),
        in_layers: false,
    };
    let rules = [
        &[RULES, crictl_output::RULES].concat()[..],
        crictl_output::LAST_RULES,
    ];
    explain(client, rules, stage, image, output, &complaint)
}

/// The error that ended the client: what it logs before is about its own tries. nerdctl logs the last error as well.
fn messages(output: &CommandOutput) -> Vec<String> {
    let mut lines = output::lines(&output.stderr);
    if let Some(own) = lines.iter().position(|line| line.starts_with("ctr: ")) {
        return lines.split_off(own);
    }
    let fatal = lines
        .iter()
        .filter_map(|line| output::log_message(line, "fatal"))
        .next_back();
    if let Some(fatal) = fatal {
        return fatal.lines().map(str::to_string).collect();
    }
    let (logged, own): (Vec<String>, Vec<String>) = lines
        .into_iter()
        .filter(|line| !output::is_warning(line))
        .partition(|line| line.starts_with("time="));
    if !own.is_empty() {
        return own;
    }
    logged
        .iter()
        .filter_map(|line| output::log_message(line, "error"))
        .collect()
}
