"""What the lab asks of the kernel: namespaces, names and mounts, through libc and util-linux."""

import ctypes
import os
import signal
import subprocess

_LIBC = ctypes.CDLL(None, use_errno=True)

# From linux/sched.h and linux/prctl.h.
NEW_MOUNTS, NEW_HOSTNAME, NEW_IPC, NEW_PIDS, NEW_NETWORK = 0x00020000, 0x04000000, 0x08000000, 0x20000000, 0x40000000
_SET_DEATH_SIGNAL, _SET_NAME = 1, 15


class Trouble(Exception):
    """Something the person at the keyboard should read as one sentence."""


def unshare(flags):
    """Move this process into new namespaces (of process IDs: its next child)."""
    if _LIBC.unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), "unshare: " + os.strerror(ctypes.get_errno()))


def enter(namespace):
    """Move this process into the namespace behind an open file of /proc/PID/ns."""
    if _LIBC.setns(namespace, 0) != 0:
        raise OSError(ctypes.get_errno(), "setns: " + os.strerror(ctypes.get_errno()))


def die_with_parent():
    """Have the kernel kill this process when the one that started it ends."""
    _LIBC.prctl(_SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)


def live_on():
    """Take back `die_with_parent`."""
    _LIBC.prctl(_SET_DEATH_SIGNAL, 0, 0, 0, 0)


def detach(target):
    """Unmount, without a process of its own: where process 1 has ended, none can be started."""
    _LIBC.umount2(os.fsencode(target), 2)  # MNT_DETACH


def set_name(name):
    """The name that `ps` shows, at most 15 bytes; the lab finds its processes by it."""
    _LIBC.prctl(_SET_NAME, name.encode(), 0, 0, 0)


def run(*command, text=None):
    """Run a command to its end and return its output; a failure is a Trouble with what it said."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise Trouble(f"`{' '.join(command)}` failed with status {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def mount(kind, target, options="", source=None):
    """Mount a file system of that kind; the folder is made if it is not there."""
    os.makedirs(target, exist_ok=True)
    run("mount", "-t", kind, *(["-o", options] if options else []), source or kind, target)


def bind(source, target, *flags):
    """Show a file or folder at another place too."""
    run("mount", "--bind", *flags, source, target)


def private_mounts():
    """Keep every later mount of this process from showing outside its namespace."""
    run("mount", "--make-rprivate", "/")


def bury():
    """Collect every child that has ended: pairs of process ID and exit status (negative: the signal that ended it)."""
    while True:
        try:
            number, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if number == 0:
            return
        yield number, os.waitstatus_to_exitcode(status)
