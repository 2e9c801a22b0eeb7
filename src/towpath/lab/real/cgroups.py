"""Control groups of a lab with real nodes: one tree below every hierarchy, a namespace for each node.

A node sees its own group as the root, so containerd and kubelet need no settings of their own, and what a run
leaves behind is one folder in each hierarchy. Both generations are served: the machine's hierarchies are read
from its mounts.
"""

import os
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from towpath.lab import namespaces

CLONE_NEWCGROUP = 0x02000000
PREFIX = "towpath-real-"
_ROOT = "/sys/fs/cgroup"
_NOT_OURS = frozenset(
    {"rw", "ro", "relatime", "nosuid", "nodev", "noexec", "nsdelegate", "memory_recursiveprot"}
)


class Hierarchy(msgspec.Struct, frozen=True):
    """Where the machine mounts a hierarchy, of which type (cgroup, cgroup2), with which controllers."""

    at: str
    fstype: str
    options: str


def hierarchies() -> tuple[Hierarchy, ...]:
    """The hierarchies this process sees mounted, from /proc/self/mounts."""
    lines = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    return tuple(
        Hierarchy(at, fstype, ",".join(o for o in options.split(",") if o not in _NOT_OURS))
        for _, at, fstype, options, *_ in lines
        if fstype in ("cgroup", "cgroup2") and (at + "/").startswith(_ROOT + "/")
    )


def mount(found: tuple[Hierarchy, ...]) -> None:
    """Mount ``found`` on /sys/fs/cgroup of a fresh sysfs, writable, as the caller's namespace sees them."""
    if all(h.at != _ROOT for h in found):
        namespaces.mount("tmpfs", _ROOT, "tmpfs", 0, "mode=755")
    for one in found:
        Path(one.at).mkdir(exist_ok=True)
        options = "none," + one.options if "name=" in one.options else one.options
        namespaces.mount("cgroup", one.at, one.fstype, 0, options if one.fstype == "cgroup" else "")


def make(found: tuple[Hierarchy, ...], group: str) -> None:
    """Make ``group`` (relative) in every hierarchy, able to hold processes and groups. Raises OSError."""
    for one in found:
        folder = Path(one.at)
        for part in Path(group).parts:
            if one.fstype == "cgroup2":
                _delegate(folder)
            parent, folder = folder, folder / part
            folder.mkdir(exist_ok=True)
            for name in ("cpuset.cpus", "cpuset.mems"):  # empty at birth in v1, and then nobody may enter
                if one.fstype == "cgroup" and (folder / name).exists():
                    (folder / name).write_text((parent / name).read_text())


def join(found: tuple[Hierarchy, ...], group: str) -> None:
    """Move this process into ``group``, which exists."""
    for one in found:
        Path(one.at, group, "cgroup.procs").write_text("0")


def enter_namespace(found: tuple[Hierarchy, ...]) -> None:
    """The groups joined become the roots it sees. In v2 it moves on to a leaf: inner nodes hold none."""
    namespaces.unshare(CLONE_NEWCGROUP)
    mount(found)
    for one in found:
        if one.fstype == "cgroup2" and one.at == _ROOT:
            Path(_ROOT, "init").mkdir(exist_ok=True)
            Path(_ROOT, "init", "cgroup.procs").write_text("0")
            _delegate(Path(_ROOT))


def remove(found: tuple[Hierarchy, ...], group: str, patience: float = 10.0) -> bool:
    """Remove ``group`` with what is below it; waits for dying processes. Whether nothing is left."""
    deadline = time.monotonic() + patience
    while True:
        for one in found:
            for folder, _, _ in os.walk(Path(one.at, group), topdown=False):
                with suppress(OSError):
                    Path(folder).rmdir()
        if not any(Path(one.at, group).exists() for one in found):
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)


def sweep(found: tuple[Hierarchy, ...]) -> None:
    """Remove what runs left whose keeper is gone (the number in the group's name is its process id)."""
    names = {entry.name for one in found for entry in Path(one.at).glob(PREFIX + "*")}
    for name in names:
        keeper = name.removeprefix(PREFIX)
        if not (keeper.isdigit() and Path("/proc", keeper).exists()):
            remove(found, name, patience=2.0)


def _delegate(folder: Path) -> None:
    """Let children of a v2 group have its controllers; one that refuses stays with the parent."""
    with suppress(OSError):
        for controller in (folder / "cgroup.controllers").read_text().split():
            with suppress(OSError):
                (folder / "cgroup.subtree_control").write_text(f"+{controller}")
