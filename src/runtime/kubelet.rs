//! Whether the node's kubelet sees what a client holds: an image in another store is none of a pod's.

use super::rules::Rule;
use crate::model::FailureKind::NodeSetup;

/// A script that begins with `runs`, which says whether one of these programs runs on the node, and not in a container
/// on it (where the kubelet of a node of kind would be): such a process has a number in a second namespace.
macro_rules! with_kubelet {
    ($script:expr) => {
        concat!(
            r#"runs() {
    for file in $(grep -lxE "$1" /proc/[0-9]*/comm 2>/dev/null); do
        grep -q '^NSpid:[[:space:]]*[0-9]*$' "${file%comm}status" 2>/dev/null && return
    done
    return 1
}
kubelet_runs() { runs 'kubelet|kubelite|k3s-server|k3s-agent'; }
"#,
            $script
        )
    };
}
pub(super) use with_kubelet;

/// A script that begins with `tell_kubelet`, which prints when the node's kubelet collects images, as
/// `kubelet HIGH LOW AGE KNOWN`, or nothing where none runs.
///
/// The thresholds are in its configuration file, in drop-ins that override it (`--config-dir`), or in flags, which
/// override both; k3s, RKE2 and microk8s have files of such flags.
macro_rules! with_gc {
    ($script:expr) => {
        $crate::runtime::kubelet::with_kubelet!(concat!(
            r#"value() {
    sed -n 's/^[[:space:]]*"\{0,1\}'"$1"'"\{0,1\}[[:space:]]*:[[:space:]]*"\{0,1\}\([0-9a-z.]*\).*/\1/p' "$2" | tail -n 1
}
given() { printf '%s\n' "$words" | sed -n "s/^--$1=//p; /^--$1\$/{n;p;}" | tail -n 1; }
flag() {
    { printf '%s\n' "$words"; cat /etc/rancher/k3s/config.yaml /etc/rancher/rke2/config.yaml /var/snap/microk8s/current/args/kubelet; } 2>/dev/null |
        sed -n "s/.*$1=\([0-9a-z.]*\).*/\1/p; /^--$1\$/{n;p;}" | tail -n 1
}
tell_kubelet() {
    if kubelet_runs; then
        words=$(tr '\0' '\n' <"${file%comm}cmdline" 2>/dev/null)
        config=$(given config)
        folder=$(given config-dir)
        known= high= low= age=
        [ -n "$config" ] || [ -z "$words" ] || known=yes
        for part in "${config:-/var/lib/kubelet/config.yaml}" "${folder:-/var/lib/rancher/k3s/agent/etc/kubelet.conf.d}"/*.conf; do
            [ -f "$part" ] && [ -r "$part" ] || continue
            known=yes
            found=$(value imageGCHighThresholdPercent "$part") && high=${found:-$high}
            found=$(value imageGCLowThresholdPercent "$part") && low=${found:-$low}
            found=$(value imageMaximumGCAge "$part") && age=${found:-$age}
        done
        found=$(flag image-gc-high-threshold) && high=${found:-$high}
        found=$(flag image-gc-low-threshold) && low=${found:-$low}
        echo "kubelet ${high:-85} ${low:-80} ${age:-0s} ${known:-no}"
    fi
}
"#,
            $script
        ))
    };
}
pub(super) use with_gc;

/// A script that ends where a kubelet does not see what docker or podman, which stands in `$0`, holds. docker's store is
/// the kubelet's behind cri-dockerd, as it was with dockershim before Kubernetes 1.24; that of root's podman is also
/// CRI-O's.
macro_rules! if_seen {
    ($script:expr) => {
        $crate::runtime::kubelet::with_kubelet!(concat!(
            r#"unseen=
if kubelet_runs; then
    unseen=yes
    case $0 in
        docker)
            for socket in /run/dockershim.sock /run/k3s/cri-dockerd/cri-dockerd.sock /run/cri-dockerd.sock; do
                [ ! -S "$socket" ] || unseen=
            done
            ! runs cri-dockerd || unseen=
            ;;
        *) [ "$(id -u)" != 0 ] || ! runs crio || unseen= ;;
    esac
fi
if [ -n "$unseen" ]; then
    echo "the kubelet on this node does not see images of $0: use crictl, or --runtime ctr where its runtime is containerd" >&2
    exit 1
fi
"#,
            $script
        ))
    };
}
pub(super) use if_seen;

/// How the scripts say it.
pub(super) const UNSEEN: Rule = Rule(NodeSetup, &["the kubelet on this node does not see"]);
