# Prints the configuration of registries that the runtime $1 (its socket is $3, where one was named) uses for the registry $2.
show() {
  [ -r "$2" ] || return 0
  printf '#prepull %s\n' "$1"
  head -c 65536 "$2"
  printf '\n'
}
hosts() {
  for n in "$registry" "$with_underscores" _default; do
    if [ -r "$1/$n/hosts.toml" ]; then show hosts "$1/$n/hosts.toml"; return 0; fi
  done
}
containers() {
  show containers /etc/containers/registries.conf
  for f in /etc/containers/registries.conf.d/*.conf; do show containers "$f"; done
}
registry=$2
# containerd looks for reg.example_5000_ too.
with_underscores=$2
case $2 in *:*) with_underscores=${2%:*}_${2##*:}_ ;; esac
case $1 in
docker) show docker /etc/docker/daemon.json; exit 0 ;;
podman | skopeo) containers; exit 0 ;;
esac
s=${3#unix://}
if [ -z "$s" ]; then
  for s in /run/k3s/containerd/containerd.sock /run/k0s/containerd.sock /var/snap/microk8s/common/run/containerd.sock \
    /run/containerd/containerd.sock /run/crio/crio.sock; do
    [ -S "$s" ] && break
  done
fi
case $s in
*/crio.sock) containers ;;
/run/k3s/*)
  hosts /var/lib/rancher/rke2/agent/etc/containerd/certs.d
  hosts /var/lib/rancher/k3s/agent/etc/containerd/certs.d
  ;;
/var/snap/microk8s/*) hosts /var/snap/microk8s/current/args/certs.d ;;
*)
  hosts /etc/containerd/certs.d
  show containerd /etc/containerd/config.toml
  ;;
esac
