"""Who is in a lab: names, addresses, users, runtimes, and the files that tell prepull and the tests about them."""

import json
import os
from dataclasses import asdict, dataclass

OPERATOR_ADDRESS = "10.77.0.1"
REGISTRY_ADDRESS = "10.77.0.2"
DEAD_ADDRESS = "10.77.9.9"
REGISTRY = "registry.lab:5000"


@dataclass
class Node:
    """One machine of the lab. `runtime` is docker, containerd, ctr (containerd without crictl), podman, rootless (podman
    for a user without any rights), one of LAYOUTS, none, or registry for the registry's own machine."""

    name: str
    address: str
    user: str
    runtime: str


@dataclass
class Layout:
    """Where a distribution of Kubernetes keeps its containerd, and the program that has containerd's clients inside."""

    socket: str
    data: str
    config: str
    kubelet: str
    program: str
    clients: tuple


LAYOUTS = {
    "k3s": Layout("/run/k3s/containerd/containerd.sock", "/var/lib/rancher/k3s/agent/containerd",
                  "/var/lib/rancher/k3s/agent/etc/containerd", "/var/lib/kubelet", "/usr/local/bin/k3s", ("crictl", "ctr")),
    # RKE2 has no such program: its clients lie in a folder that is in no PATH.
    "rke2": Layout("/run/k3s/containerd/containerd.sock", "/var/lib/rancher/rke2/agent/containerd",
                   "/var/lib/rancher/rke2/agent/etc/containerd", "/var/lib/kubelet", "", ()),
    "k0s": Layout("/run/k0s/containerd.sock", "/var/lib/k0s/containerd", "/etc/containerd", "/var/lib/k0s/kubelet",
                  "/usr/local/bin/k0s", ("ctr",)),
    "microk8s": Layout("/var/snap/microk8s/common/run/containerd.sock", "/var/snap/microk8s/common/var/lib/containerd",
                       "/var/snap/microk8s/current/args", "/var/snap/microk8s/common/var/lib/kubelet", "/snap/bin/microk8s", ("ctr",)),
}
EXTRA = {"bare": ("10.77.2.1", "root"), "ctr": ("10.77.2.2", "root"), "podman": ("10.77.2.3", "root"),
         "rootless": ("10.77.2.4", "ops"), "k3s": ("10.77.2.5", "root"), "rke2": ("10.77.2.6", "ops"),
         "k0s": ("10.77.2.7", "root"), "microk8s": ("10.77.2.8", "ops")}


def fleet(count, extra):
    """Docker and containerd in turn; the second of each kind is reached as an ordinary user with sudo. Then the extra ones."""
    nodes = []
    for number in range(1, count + 1):
        runtime = "docker" if number % 2 else "containerd"
        user = "ops" if number in (3, 4) else "root"
        nodes.append(Node(f"node-{number}", f"10.77.1.{number}", user, runtime))
    for name in extra:
        address, user = EXTRA[name]
        nodes.append(Node(f"node-{name}", address, user, "none" if name == "bare" else name))
    return nodes


def registry():
    """The machine that holds the registry."""
    return Node("registry", REGISTRY_ADDRESS, "root", "registry")


def hosts(nodes):
    """/etc/hosts for the operator and every node."""
    lines = ["127.0.0.1 localhost", "::1 localhost", f"{OPERATOR_ADDRESS} operator", f"{REGISTRY_ADDRESS} registry.lab"]
    lines += [f"{node.address} {node.name}" for node in nodes]
    return "\n".join([*lines, f"{DEAD_ADDRESS} node-dead"]) + "\n"


def _entry(node):
    become = ", become: true" if node.user != "root" and node.runtime != "rootless" else ""
    return f"      - {{name: {node.name}, address: {node.address}, user: {node.user}{become}}}"


def inventory(state, nodes):
    """prepull's own YAML. All groups but docker's leave the runtime to prepull's probe."""
    lines = ["defaults:", f"  identity: {json.dumps(os.path.join(state, 'id_ed25519'))}", "groups:"]
    for runtime in ("docker", "containerd", *EXTRA):
        setting = "    runtime: docker\n" if runtime == "docker" else ""
        members = [_entry(node) for node in nodes if node.runtime == runtime]
        if members:
            lines.append(f"  {runtime}:\n{setting}    nodes:")
            lines += members
    return "\n".join(lines) + "\n"


def faulty_inventory(state, nodes):
    """The good nodes, the node without a runtime where there is one, and a node that never answers."""
    extra = [node for node in nodes if node.runtime == "none"] + [Node("node-dead", DEAD_ADDRESS, "root", "none")]
    return inventory(state, nodes) + "\n".join(["  faulty:", "    nodes:", *(_entry(node) for node in extra)]) + "\n"


def write(state, nodes):
    """Write the files that need nothing but the plan."""
    for name, text in (("hosts", hosts(nodes)), ("inventory.yml", inventory(state, nodes)),
                       ("faulty.yml", faulty_inventory(state, nodes)),
                       ("nodes.json", json.dumps([asdict(node) for node in nodes], indent=2) + "\n")):
        with open(os.path.join(state, name), "w", encoding="utf-8") as file:
            file.write(text)


def read(state):
    """The nodes of a lab, from its state folder."""
    with open(os.path.join(state, "nodes.json"), encoding="utf-8") as file:
        return [Node(**entry) for entry in json.load(file)]
