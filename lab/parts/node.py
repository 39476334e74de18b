"""One node: its namespaces, its disk, its services, and the first process that looks after them.

The node's root is an overlay: the machine's own files below, read only, and a layer in memory above that takes every
change. So each node has a disk of its own, the machine's files are never touched, and when the last process of the
lab ends the kernel throws all of it away.
"""

import glob
import os
import select
import shutil
import signal
import socket
import subprocess

from . import kernel, plan
from .kernel import bind, mount, run

LAB = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
CRICTL = os.path.join(LAB, "crictl/target/debug/crictl")
DATA = {"docker": "/var/lib/docker", "containerd": "/var/lib/containerd", "ctr": "/var/lib/containerd",
        "podman": "/var/lib/containers", "rootless": "/home/ops/.local/share/containers", "registry": "/var/lib/docker-registry",
        **{name: layout.data for name, layout in plan.LAYOUTS.items()}}
# Folders that start empty on a node, whatever the machine has in them.
EMPTY = {"root": 0o700, "home": 0o755, "tmp": 0o1777, "var/tmp": 0o1777, "var/log": 0o755, "etc/ssh": 0o755,
         "etc/docker": 0o755, "etc/containerd": 0o755, "etc/sudoers.d": 0o750, "var/lib/docker": 0o711,
         "var/lib/containerd": 0o711, "var/lib/containers": 0o711, "var/lib/docker-registry": 0o755}
CLIENTS = ("docker", "dockerd", "docker-init", "docker-proxy", "crictl", "ctr", "containerd", "nerdctl", "podman", "skopeo")
KEEPS = {"docker": ("docker", "dockerd", "docker-init", "docker-proxy", "ctr", "containerd"),
         "containerd": ("ctr", "containerd"), "ctr": ("ctr", "containerd"), "podman": ("podman", "skopeo"), "rootless": ("podman",)}
# What a distribution of Kubernetes brings along, where no PATH leads.
HIDDEN = "/usr/libexec/lab"
# Hands a distribution's own clients on to those, with its socket as the default.
PROGRAM = """#!/bin/sh
[ $# -gt 0 ] && tool=$1 && shift
case $tool in {clients}) ;; *) echo "{program}: unknown command \\"$tool\\"" >&2; exit 1 ;; esac
export CONTAINERD_ADDRESS="${{CONTAINERD_ADDRESS:-{socket}}}" CONTAINERD_NAMESPACE="${{CONTAINERD_NAMESPACE:-k8s.io}}"
export CONTAINER_RUNTIME_ENDPOINT="${{CONTAINER_RUNTIME_ENDPOINT:-unix://{socket}}}"
export IMAGE_SERVICE_ENDPOINT="$CONTAINER_RUNTIME_ENDPOINT"
exec {hidden}/$tool "$@"
"""


def start(node, state, disk=None):
    """Begin to build a node in a process of its own; `outcome` reads the other end of the pipe.

    Without a size for the disk it boots with the one that it has.
    """
    home = os.path.join(state, "world", node.name)
    if disk and node.runtime in DATA:
        # Not in the node's own namespace: what is on it outlives the node.
        mount("tmpfs", os.path.join(home, "data"), f"mode=711,size={disk}")
    reader, writer = os.pipe()
    if os.fork() == 0:
        status = 1
        try:
            os.close(reader)
            first = _build(node, state, home, is_new=bool(disk))
            os.write(writer, f"{first}".encode())
            status = 0
        except Exception as trouble:  # whatever it was, the world must hear of it
            os.write(writer, f"{node.name}: {trouble}".encode())
        finally:
            os._exit(status)
    os.close(writer)
    return reader


def outcome(reader):
    """The process ID of a node's first process, once it runs."""
    # One read: other nodes hold copies of the writing end, so an end of file may never come.
    ready, _, _ = select.select([reader], [], [], 60)
    said = os.read(reader, 65536).decode() if ready else "a node was not built within 60 s"
    os.close(reader)
    if not said.isdigit():
        raise kernel.Trouble(said or "a node's first process ended before it said why")
    return int(said)


def _build(node, state, home, is_new):
    kernel.set_name(node.name)
    os.setsid()
    # Not the streams of whoever boots it: he may wait for their end.
    log = os.open(os.path.join(state, "logs", "lab.log"), os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(log, stream)
    kernel.unshare(kernel.NEW_MOUNTS | kernel.NEW_NETWORK | kernel.NEW_HOSTNAME | kernel.NEW_IPC)
    kernel.private_mounts()
    socket.sethostname(node.name)
    _connect(node)
    if is_new:
        _make_disk(state, home)
    root = _mount_disk(node, home)
    if is_new:
        _write_files(node, state, root)
    for source, target in tools(node):
        bind(source, root + target)
    logs = {name: os.open(os.path.join(state, "logs", f"{node.name}.{name}.log"), os.O_CREAT | os.O_APPEND | os.O_WRONLY)
            for name in services(node)}
    kernel.unshare(kernel.NEW_PIDS)
    first = os.fork()
    if first == 0:
        try:
            _enter(root)
            _look_after(services(node), logs)
        finally:
            os._exit(1)
    return first


def tools(node):
    """Programs that a node has beside those of the machine: each with its place there."""
    if node.runtime == "containerd":
        return [(CRICTL, "/usr/local/bin/crictl")]
    if node.runtime not in plan.LAYOUTS:
        return []
    folder = "/var/lib/rancher/rke2/bin" if node.runtime == "rke2" else HIDDEN
    return [(CRICTL, folder + "/crictl"), *((shutil.which(name), f"{folder}/{name}") for name in ("ctr", "containerd"))]


def _connect(node):
    # The process of the world has number 1 here, and its network is where the bridge is.
    outside = ["nsenter", "--net=/proc/1/ns/net", "ip", "link"]
    # The same card at every boot: others remember its address.
    card = "02:" + ":".join(f"{int(part):02x}" for part in ("0", *node.address.split(".")))
    run(*outside, "add", node.name, "type", "veth", "peer", "name", "eth0", "address", card, "netns", str(os.getpid()))
    run(*outside, "set", node.name, "master", "lab", "up")
    run("ip", "link", "set", "lo", "up")
    run("ip", "address", "add", f"{node.address}/16", "dev", "eth0")
    run("ip", "link", "set", "eth0", "up")


def _make_disk(state, home):
    upper = os.path.join(home, "disk")
    for part in ("disk", "work", "root"):
        os.makedirs(os.path.join(home, part))
    for name, mode in {**EMPTY, state.lstrip("/"): 0o755}.items():
        folder = os.path.join(upper, name)
        os.makedirs(folder, exist_ok=True)
        os.chmod(folder, mode)
        os.setxattr(folder, "trusted.overlay.opaque", b"y")


def _mount_disk(node, home):
    root = os.path.join(home, "root")
    os.chdir(home)  # so that no sign in the path can break the options
    mount("overlay", root, "lowerdir=/,upperdir=disk,workdir=work")
    run("mount", "--rbind", "/sys", root + "/sys")
    bind("/dev", root + "/dev")
    mount("devpts", root + "/dev/pts", "newinstance,ptmxmode=0666,mode=620,gid=5")
    mount("tmpfs", root + "/dev/shm", "mode=1777,size=64m")
    mount("tmpfs", root + "/run", "mode=755,size=64m")
    for folder, mode in (("lock", 0o1777), ("sshd", 0o755), ("lab", 0o700), ("lab/disk", 0o700)):
        os.mkdir(f"{root}/run/{folder}")
        os.chmod(f"{root}/run/{folder}", mode)
    # What this node alone has on its disk, so that tests can search it without reading the machine's files.
    bind(os.path.join(home, "disk"), root + "/run/lab/disk", "-r")
    if node.runtime in DATA:
        os.makedirs(root + DATA[node.runtime], exist_ok=True)
        bind(os.path.join(home, "data"), root + DATA[node.runtime])
    if node.runtime == "rootless":
        # What logind makes for a session; and root's own store, for one who becomes root.
        _give_ops(root, "/run/user/2000", 0o700)
        os.makedirs(root + DATA["podman"], exist_ok=True)
        mount("tmpfs", root + DATA["podman"], "mode=711,size=512m")
    return root


def _give_ops(root, folder, mode):
    os.makedirs(root + folder, exist_ok=True)
    os.chmod(root + folder, mode)
    os.chown(root + folder, 2000, 2000)


def _write(path, text, mode=0o644, owner=0):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if os.path.lexists(path):
        os.unlink(path)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, mode)
    os.chown(path, owner, owner)


def _append(path, line):
    with open(path, "a", encoding="utf-8") as file:
        file.write(line + "\n")


def _read(*path):
    with open(os.path.join(*path), encoding="utf-8") as file:
        return file.read()


def _write_files(node, state, root):
    for folder in ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"):
        for name in CLIENTS:
            # Nodes have the distribution's own programs: one from /usr/local is on this machine only.
            if name not in KEEPS.get(node.runtime, ()) or folder.startswith("/usr/local"):
                if os.path.lexists(path := f"{root}{folder}/{name}"):
                    os.unlink(path)
    _write(root + "/etc/hostname", node.name + "\n")
    _write(root + "/etc/hosts", _read(state, "hosts"))
    _write(root + "/etc/resolv.conf", "nameserver 127.0.0.1\n")
    if node.runtime == "registry":
        _write_registry(state, root)
        return
    _write_accounts(node, state, root)
    authority = _read(state, "ca.crt")
    if node.runtime == "docker":
        _write(f"{root}/etc/docker/certs.d/{plan.REGISTRY}/ca.crt", authority)
    elif node.runtime in ("podman", "rootless"):
        _write(f"{root}/etc/containers/certs.d/{plan.REGISTRY}/ca.crt", authority)
    elif node.runtime in ("containerd", "ctr"):
        _write_containerd(root, authority, "/etc/containerd", DATA[node.runtime])
    elif node.runtime in plan.LAYOUTS:
        _write_layout(node, root, authority)
    for _, target in tools(node):
        _write(root + target, "")


def _write_containerd(root, authority, config, data, more=""):
    folder = f"{config}/certs.d/{plan.REGISTRY}"
    _write(f"{root}{folder}/ca.crt", authority)
    # The authority stands beside the server, not in a [host] of its own: a [host] that answers 404 makes
    # containerd ask the server again, which would then not be trusted.
    _write(f"{root}{folder}/hosts.toml", f'server = "https://{plan.REGISTRY}"\nca = "{folder}/ca.crt"\n')
    _write(f"{root}{config}/config.toml", f'version = 2\n{more}'
           f'[plugins."io.containerd.grpc.v1.cri".registry]\n  config_path = "{config}/certs.d"\n'
           f'[plugins."io.containerd.internal.v1.opt"]\n  path = "{data}/opt"\n')
    if os.path.lexists(root + "/etc/crictl.yaml"):
        os.unlink(root + "/etc/crictl.yaml")


def _write_layout(node, root, authority):
    """A distribution of Kubernetes around the real containerd."""
    layout = plan.LAYOUTS[node.runtime]
    place = (f'root = "{layout.data}"\nstate = "{os.path.dirname(layout.socket)}/state"\n'
             f'[grpc]\n  address = "{layout.socket}"\n')
    _write_containerd(root, authority, layout.config, layout.data, place)
    os.makedirs(root + layout.kubelet, exist_ok=True)
    if layout.program:
        _write(root + layout.program, PROGRAM.format(clients="|".join(layout.clients), program=os.path.basename(layout.program),
                                                     socket=layout.socket, hidden=HIDDEN), 0o755)
    else:
        _write(f"{root}{os.path.dirname(layout.config)}/crictl.yaml", f"runtime-endpoint: unix://{layout.socket}\n")


def _write_accounts(node, state, root):
    for kind in ("ed25519", "ecdsa", "rsa"):
        bits = ["-b", "2048"] if kind == "rsa" else []
        run("ssh-keygen", "-q", "-t", kind, *bits, "-N", "", "-C", node.name, "-f", f"{root}/etc/ssh/ssh_host_{kind}_key")
    _write(root + "/var/log/lastlog", "")
    root_login = "prohibit-password" if node.user == "root" else "no"
    session = "SetEnv XDG_RUNTIME_DIR=/run/user/2000\n" if node.runtime == "rootless" else ""
    _write(root + "/etc/ssh/sshd_config", f"PermitRootLogin {root_login}\nPasswordAuthentication yes\nUsePAM no\n"
           f"PrintMotd no\nSubsystem sftp internal-sftp\n{session}")
    for name, home, number in (("root", "/root", 0), ("ops", "/home/ops", 2000)):
        for skeleton in glob.glob("/etc/skel/.*"):
            _write(f"{root}{home}/{os.path.basename(skeleton)}", _read(skeleton), owner=number)
        if name == node.user:
            _write(f"{root}{home}/.ssh/authorized_keys", _read(state, "id_ed25519.pub"), 0o600, number)
            os.chmod(f"{root}{home}/.ssh", 0o700)
            os.chown(f"{root}{home}/.ssh", number, number)
        os.chown(root + home, number, number)
    _append(root + "/etc/passwd", "ops:x:2000:2000::/home/ops:/bin/bash")
    _append(root + "/etc/group", "ops:x:2000:")
    password = run("openssl", "passwd", "-6", "-stdin", text=_read(state, "ops-password")).strip()
    _append(root + "/etc/shadow", f"ops:{password}:19000:0:99999:7:::")
    if node.runtime == "rootless":
        for name in ("subuid", "subgid"):
            _write(f"{root}/etc/{name}", "ops:100000:65536\n")
        for folder in (".local", ".local/share", ".local/share/containers"):
            _give_ops(root, f"/home/ops/{folder}", 0o700)
    if node.user == "ops":
        _write(root + "/etc/sudoers.d/ops", "ops ALL=(ALL:ALL) NOPASSWD: ALL\n", 0o440)


def _write_registry(state, root):
    for name in ("registry.crt", "registry.key", "ca.crt", "ca.key", "htpasswd"):
        _write(f"{root}/etc/docker/registry/{name}", _read(state, name), 0o600)
    # The repository may lie on a file system that the machine does not see.
    with open(os.path.join(os.path.dirname(os.path.realpath(__file__)), "faulty.py"), encoding="utf-8") as file:
        _write(root + "/etc/docker/registry/faulty.py", file.read())
    _write(root + "/etc/docker/registry/config.yml", "version: 0.1\nlog: {level: info}\n"
           "storage: {filesystem: {rootdirectory: /var/lib/docker-registry}, delete: {enabled: true}}\n"
           "http:\n  addr: :5000\n  tls: {certificate: /etc/docker/registry/registry.crt,"
           " key: /etc/docker/registry/registry.key}\n"
           "auth: {htpasswd: {realm: lab, path: /etc/docker/registry/htpasswd}}\n")


def services(node):
    """The services of a node and the commands that run them."""
    found = {}
    if node.runtime == "registry":
        return {"registry": ["sh", "-c", "if [ -e /run/lab/fault ]; then exec python3 /etc/docker/registry/faulty.py $(cat /run/lab/fault); fi;"
                             " exec docker-registry serve /etc/docker/registry/config.yml"]}
    found["sshd"] = [shutil.which("sshd") or "/usr/sbin/sshd", "-D", "-e"]
    if node.runtime == "docker":
        found["dockerd"] = ["dockerd", "--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false",
                            "--storage-driver=overlay2", "--exec-opt=native.cgroupdriver=cgroupfs"]
    elif node.runtime in ("containerd", "ctr"):
        found["containerd"] = ["containerd"]
    elif layout := plan.LAYOUTS.get(node.runtime):
        found["containerd"] = [tools(node)[-1][1], "--config", layout.config + "/config.toml"]
    return found


def _enter(root):
    mount("proc", root + "/proc")
    os.chdir(root)
    # The old root goes on top of the new one and is taken off at once: no folder is needed for it.
    run("pivot_root", ".", ".")
    run("umount", "-l", ".")
    os.chdir("/")


def _defaults(name):
    """What /etc/default/NAME adds to a service's environment, as with Debian's units: a proxy, for example."""
    try:
        lines = _read("/etc/default", name).splitlines()
    except OSError:
        return {}
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def _look_after(wanted, logs):
    """Be the node's first process: run its services, stop one while /run/lab/NAME.stop exists, bury the dead.

    One that ended starts again when NAME.stop and NAME.ended are gone and a SIGUSR1 comes.
    """
    signals = {signal.SIGCHLD, signal.SIGUSR1}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
    running = {}
    while True:
        for name, command in wanted.items():
            if os.path.exists(f"/run/lab/{name}.stop"):
                if name in running:
                    running[name].send_signal(signal.SIGTERM)
            elif name not in running and not os.path.exists(f"/run/lab/{name}.ended"):
                running[name] = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=logs[name], stderr=logs[name], cwd="/",
                    env={**environment, **_defaults(name)},
                    start_new_session=True, preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, signals))
                _write(f"/run/lab/{name}.pid", f"{running[name].pid}\n")
        signal.sigwait(signals)
        for number, status in kernel.bury():
            for name in [name for name, process in running.items() if process.pid == number]:
                running.pop(name).returncode = status
                os.unlink(f"/run/lab/{name}.pid")
                _write(f"/run/lab/{name}.ended", f"{status}\n")
