"""Process 1 of a real node: boots its file system and services, starts again what dies, buries orphans.

    python -m towpath.lab.real.node NETNS-FD < BOOT      (BOOT as JSON, see ``Boot``)

The starter prints the process id of process 1 as its parent's namespace sees it, and ends with it.
"""

import os
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from towpath.lab import namespaces, rootfs
from towpath.lab.real import cgroups

RESOLV_CONF = "/run/resolv.conf"

# kubelet wants these machine-wide settings so. They are not ours to change: it finds what it wants in files
# that are mounted over them.
_TUNABLES = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
_LEAST_LIFE = 1.0  # seconds a service must have lived for its successor to start at once


class Service(msgspec.Struct, frozen=True):
    """A daemon of the node: it starts once ``after``, a path, is there (empty: at once)."""

    name: str
    argv: tuple[str, ...]
    after: str = ""


class Boot(msgspec.Struct, frozen=True, kw_only=True):
    """What a node boots with. ``group`` is its cgroup relative to each hierarchy, ``path`` its PATH."""

    name: str
    disk: str
    group: str
    boot_id: str
    path: str
    services: tuple[Service, ...]


def main() -> None:
    """Start process 1 and wait for it."""
    boot = msgspec.json.decode(sys.stdin.buffer.read(), type=Boot)
    namespaces.die_with_parent()
    namespaces.setns(int(sys.argv[1]), namespaces.CLONE_NEWNET)
    os.close(int(sys.argv[1]))
    namespaces.unshare(namespaces.CLONE_NEWPID)
    pid = os.fork()
    if pid == 0:
        try:
            namespaces.die_with_parent()
            _boot(boot)
            _Services(boot).run()
        except BaseException as failed:
            print(f"node {boot.name}: {type(failed).__name__}: {failed}", file=sys.stderr)  # noqa: T201
            os._exit(70)
    print(pid, flush=True)  # noqa: T201
    os.waitpid(pid, 0)


def _boot(boot: Boot) -> None:
    namespaces.set_name(f"node-{boot.name}")
    namespaces.unshare(namespaces.CLONE_NEWNS | namespaces.CLONE_NEWUTS | namespaces.CLONE_NEWIPC)
    namespaces.make_private()
    socket.sethostname(boot.name)
    found = cgroups.hierarchies()
    cgroups.join(found, boot.group)
    rootfs.enter_node(Path(boot.disk))
    namespaces.umount("/sys")  # the node's, read-only
    namespaces.umount("/sys")  # the world's
    namespaces.mount("sysfs", "/sys", "sysfs")
    cgroups.enter_namespace(found)
    rootfs.set_boot_id(boot.boot_id)
    for path, value in _TUNABLES.items():
        stand_in = Path("/run/tunables", path)
        stand_in.parent.mkdir(parents=True, exist_ok=True)
        stand_in.write_text(value + "\n")
        with suppress(OSError):
            namespaces.bind(str(stand_in), f"/proc/sys/{path}")
    namespaces.make_shared()
    Path(RESOLV_CONF).write_text("search cluster.local\nnameserver 10.43.0.10\n")
    Path("/run/towpath").mkdir()
    Path("/run/towpath/boot-id").write_text(boot.boot_id + "\n")
    os.environ.clear()
    os.environ.update({"PATH": boot.path, "HOME": "/root"})


class _Services:
    """Keeps the services running."""

    def __init__(self, boot: Boot) -> None:
        self._running: dict[int, tuple[Service, float]] = {}
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)  # process 1 ignores them: a reboot is SIGKILL
        for service in boot.services:
            self._start(service, 0.0)

    def run(self) -> None:
        """For ever."""
        while True:
            pid, _ = os.wait()
            if pid in self._running:
                service, born = self._running.pop(pid)
                self._start(service, _LEAST_LIFE if time.monotonic() - born < _LEAST_LIFE else 0.0)

    def _start(self, service: Service, pause: float) -> None:
        pid = os.fork()
        if pid == 0:
            try:
                time.sleep(pause)
                _become(service)
            finally:
                os._exit(71)
        self._running[pid] = (service, time.monotonic())


def _become(service: Service) -> None:
    log = os.open(f"/var/log/{service.name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for fd in (1, 2):
        os.dup2(log, fd)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.setsid()
    while service.after and not Path(service.after).exists():
        time.sleep(0.02)
    os.execvp(service.argv[0], service.argv)  # noqa: S606


if __name__ == "__main__":
    main()
