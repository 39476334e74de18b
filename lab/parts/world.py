"""The world around the nodes: one outer set of namespaces that holds the bridge, the nodes and the registry.

Its first process has number 1 in a process namespace of its own. When it ends, in whatever way, the kernel ends every
other process in there; and with the last of them go the mounts, the links and the memory.
"""

import http.client
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time

from . import images, kernel, node, plan
from .kernel import Trouble, run

PROGRAMS = {"sshd": "openssh-server", "ssh-keygen": "openssh-client", "docker": "docker.io", "dockerd": "docker.io",
            "containerd": "containerd", "runc": "runc", "docker-registry": "docker-registry", "ip": "iproute2",
            "tc": "iproute2", "sudo": "sudo", "htpasswd": "apache2-utils", "openssl": "openssl",
            "pivot_root": "util-linux", "nsenter": "util-linux"}


def check_machine():
    """Say in one sentence what this machine lacks."""
    if sys.platform != "linux":
        raise Trouble("the lab needs Linux: its nodes are made of Linux namespaces")
    if os.geteuid() != 0:
        raise Trouble("the lab needs root, for namespaces and mounts: run it with sudo")
    missing = sorted({package for program, package in PROGRAMS.items() if not shutil.which(program)})
    if missing:
        raise Trouble(f"these packages are missing: {' '.join(missing)}; install them with lab/install")
    if not os.path.exists(node.CRICTL):
        raise Trouble(f"{node.CRICTL} is missing; build it with lab/install")


def outer(state, count, extra, disk, command):
    """Be the process outside: hold the world, pass signals on, return its exit status."""
    try:
        check_machine()
        _prepare(state, plan.fleet(count, extra))
    except Trouble as trouble:
        return _fail(state, trouble)
    kernel.unshare(kernel.NEW_MOUNTS | kernel.NEW_NETWORK | kernel.NEW_HOSTNAME | kernel.NEW_IPC | kernel.NEW_PIDS)
    up, up_writer = os.pipe()
    first = os.fork()
    if first == 0:
        status = 1
        try:
            kernel.die_with_parent()
            os.close(up)
            status = _inner(state, plan.fleet(count, extra), disk, command, up_writer)
        except Trouble as trouble:
            _fail(state, trouble)
        except Exception as trouble:  # a fault of the lab itself: still one sentence, and no traceback over a terminal
            _fail(state, f"{type(trouble).__name__}: {trouble}")
        finally:
            sys.stdout.flush()
            os._exit(status)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(first, signal.SIGTERM))
    signal.signal(signal.SIGHUP, lambda *_: os.kill(first, signal.SIGTERM))
    signal.signal(signal.SIGINT, lambda *_: None if _is_foreground() else os.kill(first, signal.SIGUSR1))
    os.close(up_writer)
    if took := os.read(up, 16).decode():
        # Until now the lab was to end with the command that started it, if that was killed.
        kernel.live_on()
        _keep(state, "ready", took)
    _, status = os.waitpid(first, 0)
    if os.path.basename(state).startswith("run-") and took:
        # Made by `lab run` for this run alone. A lab that did not come up leaves its logs to be read.
        kernel.detach(os.path.join(state, "world"))
        shutil.rmtree(state, ignore_errors=True)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _is_foreground():
    # Ctrl-C has then reached the command already: it is in the same process group.
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False


def _fail(state, trouble):
    if os.path.isdir(state):
        with open(os.path.join(state, "error"), "w", encoding="utf-8") as file:
            file.write(f"{trouble}\n")
    print(f"lab: {trouble}", file=sys.stderr, flush=True)
    return 1


def _prepare(state, nodes):
    """A fresh state folder: keys, certificates, passwords, inventories."""
    if os.path.isdir(state) and os.listdir(state) and not os.path.exists(os.path.join(state, "nodes.json")):
        raise Trouble(f"{state} is not empty and is no lab's state folder: name another one with --state")
    shutil.rmtree(state, ignore_errors=True)
    os.makedirs(os.path.join(state, "logs"))
    os.makedirs(os.path.join(state, "world"))
    os.chmod(state, 0o700)
    plan.write(state, nodes)
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "operator", "-f", os.path.join(state, "id_ed25519"))
    # Signs that a careless shell line, JSON document or header would break on; tests search for the part before them.
    password = secrets.token_hex(12) + "'\" $(:) \\%&"
    _keep(state, "password", password)
    _keep(state, "ops-password", secrets.token_hex(12))
    _keep(state, "htpasswd", run("htpasswd", "-n", "-i", "-B", "ci", text=password).strip() + "\n")
    _certify(state)


def _keep(state, name, text):
    descriptor = os.open(os.path.join(state, name), os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def _certify(state):
    path = {name: os.path.join(state, name) for name in ("ca.key", "ca.crt", "registry.key", "registry.csr", "registry.crt", "san")}
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    run("openssl", "req", "-x509", *new_key, "-days", "30", "-subj", "/CN=prepull lab",
        "-keyout", path["ca.key"], "-out", path["ca.crt"])
    run("openssl", "req", *new_key, "-subj", "/CN=registry.lab", "-keyout", path["registry.key"], "-out", path["registry.csr"])
    _keep(state, "san", f"subjectAltName=DNS:registry.lab,IP:{plan.REGISTRY_ADDRESS}\n")
    run("openssl", "x509", "-req", "-in", path["registry.csr"], "-CA", path["ca.crt"], "-CAkey", path["ca.key"],
        "-CAcreateserial", "-days", "30", "-extfile", path["san"], "-out", path["registry.crt"])


def _inner(state, nodes, disk, command, up):
    kernel.set_name("lab-world")
    stop = _Stop()
    kernel.private_mounts()
    kernel.mount("proc", "/proc")
    kernel.mount("tmpfs", os.path.join(state, "world"), "mode=700")
    socket.sethostname("operator")
    show_names(state)
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", "lab", "type", "bridge")
    run("ip", "address", "add", f"{plan.OPERATOR_ADDRESS}/16", "dev", "lab")
    run("ip", "link", "set", "lab", "up")
    began = time.monotonic()
    _bring_up(state, nodes, disk, began + 60 + 5 * len(nodes))
    took = time.monotonic() - began
    os.write(up, f"{took:.1f}\n".encode())
    print(f"lab: {len(nodes)} nodes and a registry are up after {took:.1f} s; state in {state}", file=sys.stderr, flush=True)
    return stop.wait_for(command, environment(state))


def show_names(state):
    """Let this mount namespace find the lab's machines by name, and no other by DNS."""
    os.makedirs(os.path.join(state, "world"), exist_ok=True)
    kernel.bind(os.path.join(state, "hosts"), "/etc/hosts")


def environment(state):
    """What a command of the operator finds in its environment."""
    return {**os.environ, "LAB_STATE": state, "LAB_INVENTORY": os.path.join(state, "inventory.yml"),
            "LAB_KNOWN_HOSTS": os.path.join(state, "known_hosts"), "LAB_REGISTRY": plan.REGISTRY}


def _bring_up(state, nodes, disk, deadline):
    machines = [plan.registry(), *nodes]
    pipes = [node.start(machine, state, disk) for machine in machines]
    firsts = [node.outcome(pipe) for pipe in pipes]
    pushing = None
    waiting = dict(zip((machine.name for machine in machines), zip(machines, firsts)))
    while waiting or pushing:
        if time.monotonic() > deadline:
            raise Trouble(f"not up in time: {', '.join(waiting) or 'the first images'}; look into {state}/logs")
        for name, (machine, first) in list(waiting.items()):
            if is_up(state, machine, first):
                del waiting[name]
                if name == "registry":
                    pushing = _push_defaults(state)
        if pushing and (ended := os.waitpid(pushing, os.WNOHANG))[0]:
            pushing = None
            if ended[1]:
                raise Trouble(f"the first images could not be pushed; look into {state}/logs/images.log")
        time.sleep(0.05)
    _write_known_hosts(state, nodes)


def _push_defaults(state):
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for name, sizes in images.DEFAULT.items():
                line = images.push(state, f"{plan.REGISTRY}/{name}", sizes)
                with open(os.path.join(state, "images"), "a", encoding="utf-8") as file:
                    file.write(line + "\n")
            status = 0
        except Exception as trouble:  # the parent sees the status, the log has the reason
            _keep(state, "logs/images.log", f"{type(trouble).__name__}: {trouble}\n")
        finally:
            os._exit(status)
    return child


def is_up(state, machine, first):
    """Whether a machine answers from outside, and its runtime inside. A service that ended is a Trouble."""
    inside = f"/proc/{first}/root/run"
    for name in node.services(machine):
        if os.path.exists(f"{inside}/lab/{name}.ended"):
            raise Trouble(f"{name} on {machine.name} ended at once; look into {state}/logs/{machine.name}.{name}.log")
    if not os.path.isdir(f"/proc/{first}"):
        raise Trouble(f"the first process of {machine.name} ended; look into {state}/logs/lab.log")
    try:
        if machine.runtime == "registry":
            socket.create_connection((machine.address, 5000), timeout=1).close()
            return True
        with socket.create_connection((machine.address, 22), timeout=1) as connection:
            connection.settimeout(5)
            if not connection.recv(4) == b"SSH-":
                return False
        if machine.runtime == "docker":
            return _docker_answers(f"{inside}/docker.sock")
        if machine.runtime == "ctr":
            return os.path.exists(f"{inside}/containerd/containerd.sock")
        if machine.runtime == "containerd" or machine.runtime in plan.LAYOUTS:
            layout = plan.LAYOUTS.get(machine.runtime)
            socket_path = layout.socket if layout else "/run/containerd/containerd.sock"
            return os.path.exists(f"/proc/{first}/root{socket_path}") and subprocess.run(
                ["nsenter", "-t", str(first), "-m", node.tools(machine)[0][1], "images", "-q"], capture_output=True,
                timeout=20, check=False, env={"CONTAINER_RUNTIME_ENDPOINT": f"unix://{socket_path}"}).returncode == 0
    except OSError:
        return False
    return True


def _docker_answers(path):
    connection = http.client.HTTPConnection("docker")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(5)
    connection.sock.connect(path)
    connection.request("GET", "/_ping")
    answer = connection.getresponse().status == 200
    connection.close()
    return answer


def _write_known_hosts(state, nodes):
    lines = []
    for machine in nodes:
        for kind in ("ed25519", "ecdsa", "rsa"):
            with open(f"{state}/world/{machine.name}/disk/etc/ssh/ssh_host_{kind}_key.pub", encoding="utf-8") as file:
                algorithm, key = file.read().split()[:2]
            lines.append(f"{machine.name},{machine.address} {algorithm} {key}\n")
    _keep(state, "known_hosts", "".join(lines))


class _Stop:
    """Signals to the world: SIGTERM and SIGUSR1 (for SIGINT) go on to the command; without one they end the world."""

    def __init__(self):
        self.command = None
        self.asked = False
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: self.pass_on(signal.SIGTERM))
        signal.signal(signal.SIGUSR1, lambda *_: self.pass_on(signal.SIGINT))

    def pass_on(self, number):
        """The first signal is the command's to answer, the second ends everything."""
        if self.command is None or self.asked:
            os._exit(0 if self.command is None else 128 + number)
        self.asked = True
        self.command.send_signal(number)

    def wait_for(self, command, surroundings):
        """Bury what ends in this world until the command has ended, or for ever without a command."""
        if command:
            try:
                self.command = subprocess.Popen(
                    command, env=surroundings, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
            except OSError as trouble:
                raise Trouble(f"cannot run {command[0]}: {trouble.strerror}") from trouble
        while True:
            number, status = os.wait()
            if self.command and number == self.command.pid:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
