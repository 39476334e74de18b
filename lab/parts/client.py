"""The commands that work on a lab from outside it, or from the command that `lab run` runs."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from . import kernel, node, plan, world
from .faulty import KINDS
from .kernel import Trouble, run as run_program

PROGRAM = os.path.join(node.LAB, "lab")
HOME = os.path.join(os.path.dirname(node.LAB), "target", "lab")


def state_folder(given):
    """Which lab: the one named, else the one this command runs in, else the main one."""
    return os.path.realpath(given or os.environ.get("LAB_STATE") or os.path.join(HOME, "main"))


def find(state, name):
    """The process ID, as seen from here, of the first process of the world (`lab-world`) or of a node."""
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/comm", encoding="utf-8") as file:
                if file.read().strip() != name:
                    continue
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                arguments = file.read().split(b"\0")
            with open(f"/proc/{entry}/status", encoding="utf-8") as file:
                numbers = [line for line in file if line.startswith("NSpid:")][0].split()
        except OSError:
            continue  # it has ended since
        if arguments[2:3] in ([b"_world"], [b"_boot"]) and state.encode() in arguments and numbers[-1] == "1":
            return int(entry)
    return None


def first_process(state, name):
    """Like `find`, but a Trouble where there is none."""
    if found := find(state, name):
        return found
    if find(state, "lab-world"):
        raise Trouble(f"there is no {name!r} in this lab; `lab/lab nodes` shows who is")
    raise Trouble(f"no lab runs with its state in {state}; start one with `lab/lab start`")


def _world_command(state, count, extra, disk, command):
    options = ["--disk", disk, *(f"--{name}" for name in extra)]
    return [sys.executable, PROGRAM, "_world", *options, state, str(count), *(["--", *command] if command else [])]


def start(state, count, extra, disk):
    """Start a lab in the background and wait until it is up."""
    world.check_machine()
    if find(state, "lab-world"):
        raise Trouble(f"a lab with its state in {state} runs already; `lab/lab stop` takes it down")
    os.makedirs(HOME, exist_ok=True)
    with tempfile.TemporaryFile() as said:
        # In a session of its own: the Ctrl-C meant for a test must not reach the lab.
        child = subprocess.Popen(_world_command(state, count, extra, disk, []), stdin=subprocess.DEVNULL, stdout=said,
                                 stderr=said, start_new_session=True, cwd="/", preexec_fn=kernel.die_with_parent)
        try:
            while child.poll() is None and not _is_ready(state, child.pid):
                time.sleep(0.05)
        except BaseException:
            child.kill()
            raise
        said.seek(0)
        sys.stderr.write(said.read().decode(errors="replace"))
    if child.poll() is not None:
        raise Trouble("the lab did not come up")


def _is_ready(state, outer):
    try:
        with open(os.path.join(state, "ready"), encoding="utf-8"):
            return find(state, "lab-world") is not None and os.path.isdir(f"/proc/{outer}")
    except OSError:
        return False


def run(given, count, extra, disk, command):
    """Become the lab's outer process, with a command that the lab lives for."""
    if not command:
        raise Trouble("say what to run: lab/lab run N -- COMMAND...")
    world.check_machine()
    os.makedirs(HOME, exist_ok=True)
    if given:
        state = os.path.realpath(given)
        if find(state, "lab-world"):
            raise Trouble(f"a lab with its state in {state} runs already; name another folder")
    else:
        _remove_left_behind()
        state = tempfile.mkdtemp(prefix="run-", dir=HOME)
    arguments = _world_command(state, count, extra, disk, command)
    os.execv(arguments[0], arguments)


def _remove_left_behind():
    """State folders of runs that have ended: they hold nothing but small files, and logs worth a look until now."""
    for name in os.listdir(HOME):
        state = os.path.join(HOME, name)
        if name.startswith("run-") and time.time() - os.path.getmtime(state) > 60 and not find(state, "lab-world"):
            shutil.rmtree(state, ignore_errors=True)


def stop(state):
    """Take the lab down and wait until it is gone."""
    found = first_process(state, "lab-world")
    os.kill(found, signal.SIGTERM)
    for patience in (5, 5):
        end = time.monotonic() + patience
        while time.monotonic() < end:
            if not os.path.isdir(f"/proc/{found}"):
                return
            time.sleep(0.02)
        os.kill(found, signal.SIGKILL)
    raise Trouble(f"process {found} does not end, not even by SIGKILL")


def show_nodes(state):
    """One line a node."""
    first_process(state, "lab-world")
    for machine in plan.read(state):
        up = "up" if find(state, machine.name) else "ended"
        print(f"{machine.name:<12} {machine.address:<12} {machine.user:<6} {machine.runtime:<12} {up}")


def _inside(found):
    return ["nsenter", "-t", str(found), "-m", "-n", "-p", "-u", "-i", "--", "env", "-i", "HOME=/root", "LANG=C.UTF-8",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]


def execute(state, name, command):
    """Run a command on a node, in place of this process."""
    if not command:
        raise Trouble("say what to run: lab/lab exec NODE -- COMMAND...")
    arguments = [*_inside(first_process(state, name)), *command]
    os.execvp(arguments[0], arguments)


def operator(state, command):
    """Run a command on the lab's network, in place of this process: a signal to it is a signal to the command."""
    if not command:
        raise Trouble("say what to run: lab/lab operator -- COMMAND...")
    found = first_process(state, "lab-world")
    # Of the world only the network: the command keeps its own process numbers, so that /proc and signals are right.
    names = 'mount --bind "$1" /etc/hosts && shift && exec "$@"'
    arguments = ["nsenter", "-t", str(found), "-n", "--", "unshare", "--mount", "sh", "-c", names, "lab",
                 os.path.join(state, "hosts"), *command]
    os.execvpe(arguments[0], arguments, world.environment(state))


def set_link(state, name, up):
    """Cut or mend the cable between a node and the bridge."""
    first_process(state, name)
    found = first_process(state, "lab-world")
    run_program("nsenter", "-t", str(found), "-n", "ip", "link", "set", name, "up" if up else "down")


def down(state, name):
    """Take the power from a node: all that runs there ends at once, with its memory, and its link is gone."""
    found, bridge = first_process(state, name), first_process(state, "lab-world")
    if name == "lab-world":
        raise Trouble("the lab itself goes down with `lab/lab stop`")
    run_program("nsenter", "-t", str(bridge), "-n", "ip", "link", "del", name)
    os.kill(found, signal.SIGKILL)
    _wait(lambda: not os.path.isdir(f"/proc/{found}"), f"process {found} does not end, not even by SIGKILL")


def up(state, name):
    """Boot a node that is down, with the disk that it had, and wait until it is up."""
    if find(state, name):
        raise Trouble(f"{name} is up")
    machine = _machine(state, name)
    bridge = first_process(state, "lab-world")
    run_program("nsenter", "-t", str(bridge), "-m", "-n", "-p", "-u", "-i", "--", sys.executable, PROGRAM, "_boot", state, name)
    found = first_process(state, name)
    _wait(lambda: _answers(state, machine, found), f"{name} did not come up; look into {state}/logs")


def boot(state, name):
    """The part of `up` that runs within the lab's namespaces."""
    kernel.private_mounts()
    node.outcome(node.start(_machine(state, name), state))


def _machine(state, name):
    for machine in (plan.registry(), *plan.read(state)):
        if machine.name == name:
            return machine
    raise Trouble(f"there is no {name!r} in this lab; `lab/lab nodes` shows who is")


def _wait(done, otherwise):
    end = time.monotonic() + 20
    while not done():
        if time.monotonic() > end:
            raise Trouble(otherwise)
        time.sleep(0.05)


def limit(state, name, rate):
    """Limit what a node receives; of the registry, what it sends."""
    if name == "registry":
        where, device = first_process(state, "registry"), "eth0"
    else:
        first_process(state, name)
        where, device = first_process(state, "lab-world"), name
    control = ["nsenter", "-t", str(where), "-n", "tc", "qdisc"]
    subprocess.run([*control, "del", "dev", device, "root"], capture_output=True, check=False)
    if rate != "off":
        run_program(*control, "add", "dev", device, "root", "tbf", "rate", rate, "burst", "64kb", "latency", "400ms")


def fault(state, kind):
    """Put a fault in front of the registry, or take it away."""
    if kind != "off" and kind.partition(":")[0] not in KINDS:
        raise Trouble(f"no such fault: {kind}; there are {', '.join(KINDS)}, and off")
    service(state, "registry", "registry", "stop")
    path = f"/proc/{first_process(state, 'registry')}/root/run/lab/fault"
    if kind != "off":
        with open(path, "w", encoding="utf-8") as file:
            file.write(kind)
    elif os.path.exists(path):
        os.unlink(path)
    service(state, "registry", "registry", "start")


def service(state, name, which, action):
    """Stop or start a service of a machine, and wait until that is so."""
    found = first_process(state, name)
    folder = f"/proc/{found}/root/run/lab"
    machine = _machine(state, name)
    if which not in node.services(machine):
        raise Trouble(f"{name} has no service {which!r}; it has {', '.join(node.services(machine)) or 'none'}")
    if action == "stop":
        with open(f"{folder}/{which}.stop", "w", encoding="utf-8"):
            pass
    else:
        for kind in ("stop", "ended"):
            if os.path.exists(f"{folder}/{which}.{kind}"):
                os.unlink(f"{folder}/{which}.{kind}")
    os.kill(found, signal.SIGUSR1)

    def is_so():
        runs = os.path.exists(f"{folder}/{which}.pid")
        return not runs if action == "stop" else runs and _answers(state, machine, found)

    _wait(is_so, f"{which} on {name} did not {action} within 20 s; look into {state}/logs/{name}.{which}.log")


def _answers(state, machine, found):
    asking = os.fork()
    if asking == 0:
        # Asked from the lab's network, which is not this process's own.
        status = 1
        try:
            with open(f"/proc/{first_process(state, 'lab-world')}/ns/net", encoding="utf-8") as network:
                kernel.enter(network.fileno())
            status = 0 if world.is_up(state, machine, found) else 1
        finally:
            os._exit(status)
    return os.waitpid(asking, 0)[1] == 0
