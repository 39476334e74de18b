"""What the benches in a lab of real nodes share: the lab, a run of prepull there, and what it cost."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PREPULL = os.environ.get("PREPULL", str(ROOT / "target/release/prepull"))
FORGET = {
    "docker": "for image in $(docker images -q); do docker rmi -f $image; done",
    # An interrupted pull leaves a lease, which keeps its layers for a day.
    "containerd": "for image in $(crictl images -q); do crictl rmi $image; done;"
    " for lease in $(ctr -n k8s.io leases ls -q); do ctr -n k8s.io leases rm --sync $lease; done",
}


class Lab:
    def __init__(self):
        name = pathlib.Path(sys.argv[0]).name
        state = os.environ.get("LAB_STATE") or sys.exit(f"benches/{name}: run me in a lab: lab/lab run 12 -- benches/{name}")
        self.state = pathlib.Path(state)
        self.password = (self.state / "password").read_text()
        self.nodes = json.loads((self.state / "nodes.json").read_text())

    def __call__(self, *words):
        return subprocess.run([ROOT / "lab/lab", *words], check=True, stdout=subprocess.PIPE, text=True).stdout

    def forget(self, nodes, cache=True):
        """Removes all images from nodes, and what prepull has in its cache."""
        for node in nodes:
            self("exec", node["name"], "--", "sh", "-c", f"{{ {FORGET[node['runtime']]}; }} >/dev/null 2>&1; true")
        if cache:
            shutil.rmtree(self.state / "home/.cache", ignore_errors=True)

    def sent_by(self, machine):
        """The bytes that left a machine so far, headers and all."""
        lines = self("exec", machine, "--", "cat", "/proc/net/dev").splitlines()
        # Eight columns of what came in, then what went out.
        return next(int(line.split(":")[1].split()[8]) for line in lines if line.strip().startswith("eth0:"))

    def ssh(self, node, *options):
        return [
            "ssh", "-F", "none", "-i", str(self.state / "id_ed25519"), "-o", f"UserKnownHostsFile={self.state}/known_hosts",
            *options, f"{node['user']}@{node['address']}",
        ]  # fmt: skip

    def pull(self, image, nodes, *options, config="none", login=True, may_fail=False):
        """A pull with prepull: what it cost, with `events` and the final `document`."""
        command = [
            PREPULL, "pull", "-i", os.environ["LAB_INVENTORY"], "-F", config, "--known-hosts", os.environ["LAB_KNOWN_HOSTS"],
            *(["--registry-user", "ci", "--registry-password-stdin"] if login else ["--no-auth"]), "--progress", "none", "-o", "jsonl",
            "--limit", ",".join(node["name"] for node in nodes), *options, image,
        ]  # fmt: skip
        environment = {**os.environ, "HOME": f"{self.state}/home", "SSL_CERT_FILE": f"{self.state}/ca.crt"}
        cost = Cost(command, self.password.encode() if login else b"", environment, may_fail)
        cost.events = [json.loads(line) for line in cost.stdout.splitlines()]
        cost.document = cost.events.pop()["result"]
        return cost


class Cost:
    """Wall seconds, CPU seconds and peak MiB of a command, which gets bytes or a file as standard input."""

    def __init__(self, command, given=b"", environment=None, may_fail=False):
        with tempfile.TemporaryFile() as feed, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as error:
            if isinstance(given, bytes):
                feed.write(given)
                feed.seek(0)
                given = feed
            began = time.monotonic()
            process = subprocess.Popen(command, stdin=given, stdout=out, stderr=error, env=environment)
            _, status, usage = os.wait4(process.pid, 0)
            self.wall = time.monotonic() - began
            process.returncode = os.waitstatus_to_exitcode(status)
            out.seek(0)
            error.seek(0)
            self.stdout, self.stderr = out.read().decode(), error.read().decode()
        if process.returncode != 0 and not may_fail:
            sys.exit(f"{command} ended with {process.returncode}\n{self.stdout[-5000:]}{self.stderr[-5000:]}")
        self.cpu, self.peak = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
