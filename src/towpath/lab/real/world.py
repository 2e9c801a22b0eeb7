"""Runs a command in a world of its own: process, mount, network, UTS and IPC namespaces, one cgroup tree.

    python -m towpath.lab.real.world COMMAND...

The command sees the machine's files read-only and writes to a tmpfs; the clusters it makes live as long as it
does. Killing it, or the process that was started, in whatever way ends everything: namespaces go with process
1 inside, and a sweeper outside, which waits for the end of a pipe, removes the control groups.
"""

import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from towpath.lab import namespaces, rootfs
from towpath.lab.real import cgroups
from towpath.lab.rundir import LabError

GROUP = "TOWPATH_REAL_GROUP"  # environment: the cgroup of this world, relative to each hierarchy

_DEVICES = ("kmsg", "fuse")  # kubelet watches the former for out-of-memory kills


def run(command: Sequence[str]) -> int:
    """Run ``command`` inside and return its exit code. Raises LabError: not root, or the kernel refuses."""
    if os.geteuid() != 0:
        raise LabError("real kubelets and containerd need root", "run it as root (sudo)", "TP9025")
    found = cgroups.hierarchies()
    if not found:
        raise LabError("no cgroup hierarchy is mounted on /sys/fs/cgroup", code="TP9025")
    cgroups.sweep(found)
    group = f"{cgroups.PREFIX}{os.getpid()}"
    root = tempfile.mkdtemp(prefix="towpath-real-")
    _start_sweeper(found, group, root)
    try:
        cgroups.make(found, f"{group}/world")
        namespaces.unshare(namespaces.CLONE_NEWPID)
    except OSError as refused:
        raise LabError(f"the kernel refuses a world of its own: {refused}", code="TP9025") from refused
    pid = os.fork()
    if pid == 0:
        _guarded(found, group, root, command)
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)  # the terminal sends them to the command as well
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: os.kill(pid, signal.SIGKILL))
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status) & 0xFF


def _guarded(found: tuple[cgroups.Hierarchy, ...], group: str, root: str, command: Sequence[str]) -> None:
    try:
        namespaces.die_with_parent()
        _enter(found, group, root)
        os._exit(_init(command, group))
    except BaseException as failed:
        print(f"towpath: {type(failed).__name__}: {failed}", file=sys.stderr)  # noqa: T201
        os._exit(70)


def _enter(found: tuple[cgroups.Hierarchy, ...], group: str, root: str) -> None:
    """In the child that is process 1: everything of its own."""
    flags = (
        namespaces.CLONE_NEWNS | namespaces.CLONE_NEWNET | namespaces.CLONE_NEWUTS | namespaces.CLONE_NEWIPC
    )
    namespaces.unshare(flags)
    namespaces.make_private()
    cgroups.join(found, f"{group}/world")
    here = Path.cwd()
    rootfs.build(root)
    with suppress(OSError):
        os.chdir(here)
    # runc takes the first cgroup mount it finds, and that would be the machine's, read-only.
    namespaces.umount(f"{rootfs.HOST}/sys")
    namespaces.umount("/sys")
    namespaces.mount("sysfs", "/sys", "sysfs")
    cgroups.mount(found)
    for name in _DEVICES:
        if Path(rootfs.HOST, "dev", name).exists():
            Path("/dev", name).touch()
            namespaces.bind(f"{rootfs.HOST}/dev/{name}", f"/dev/{name}")


def _init(command: Sequence[str], group: str) -> int:
    """Process 1: start the command, bury everybody, end with the command."""
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        with suppress(OSError):
            signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            os.tcsetpgrp(0, os.getpgrp())
            signal.signal(signal.SIGTTOU, signal.SIG_DFL)
        os.environ[GROUP] = group
        os.execvp(command[0], list(command))  # noqa: S606
    while True:
        pid, status = os.wait()
        if pid == child:
            return os.waitstatus_to_exitcode(status) & 0xFF


def _start_sweeper(found: tuple[cgroups.Hierarchy, ...], group: str, root: str) -> None:
    """A process that outlives this one, however it ends, just long enough to clear up."""
    ours, theirs = os.pipe()  # both close on exec; only this process keeps the writing end
    if os.fork() == 0:
        os.close(theirs)
        os.setsid()
        namespaces.set_name("towpath-sweeper")
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.read(ours, 1)
        cgroups.remove(found, group, patience=60.0)
        with suppress(OSError):
            Path(root).rmdir()
        os._exit(0)
    os.close(ours)


def main() -> int:
    """The command line's entry."""
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)  # noqa: T201
        return 2
    try:
        return run(sys.argv[1:])
    except LabError as failed:
        print(f"towpath: {failed}", file=sys.stderr)  # noqa: T201
        return 7


if __name__ == "__main__":
    sys.exit(main())
