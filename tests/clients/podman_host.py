"""A podman host of its own: namespaces with the real podman, the real agent and shim, and somebody outside.

Everything podman writes goes to a tmpfs that only these namespaces see, and its containers are below one
process whose end is theirs. Only control groups are the machine's, for runc runs nothing without them when it
is root: they are made below one of our own, which that process removes when it goes.
"""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from patience import PATIENT
from towpath.kernel.linux import LinuxKernel
from towpath.kernel.netns import new_netns, run_in
from towpath.model.state import NetState

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
SHIM = ROOT / "src" / "towpath" / "bin" / "towpath-cni"
DEBIAN = Path("/usr/lib/cni")
HOST4, HOST6 = "172.31.0.2", "fd00:31::2"
OUTSIDE4, OUTSIDE6 = "198.51.100.9", "2001:db8:51::9"

_INIT = Path(__file__).with_name("podman_init.py")
_CONTAINERS = """
[containers]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
events_logger = "none"
lock_type = "file"
tmp_dir = "/run/libpod"
image_copy_tmp_dir = "/run"
[network]
network_backend = "cni"
cni_plugin_dirs = ["/run/cnibin", "/usr/lib/cni"]
network_config_dir = "/run/netconf"
"""
_STORAGE = """
[storage]
driver = "vfs"
runroot = "/run/containers"
graphroot = "/run/graph"
"""


def hindrance() -> str:
    """Why the tests cannot run here, empty if they can."""
    missing = [name for name in ("podman", "runc", "conmon", "cc") if shutil.which(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    if Path("/proc/self/uid_map").read_text().split()[2] == "1":
        return "run as root: an ordinary user's podman needs subordinate uids and keeps CNI to slirp4netns"
    return ""


class PodmanHost:
    """``netns`` is the host's network; ``outside`` a machine beside it, without a route to containers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.group = f"towpath-test-{os.getpid()}"
        self.agent: subprocess.Popen[bytes] | None = None
        self.log = folder / "agent.log"
        self._processes: list[subprocess.Popen[Any]] = []
        (folder / "containers.conf").write_text(_CONTAINERS)
        (folder / "storage.conf").write_text(_STORAGE)
        namespaces = ["--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child"]
        self._init = subprocess.Popen(
            ["unshare", *namespaces, sys.executable, "-I", _INIT, self.group],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._init.stdout is not None
        self.pid = int(self._init.stdout.readline())
        self._enter = ["nsenter", "-t", str(self.pid), "-m", "-n", "-p", "-i", "-u", "--"]
        self.root = Path(f"/proc/{self.pid}/root")
        self.netns = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self.outside = new_netns()
        self._cable()
        self.peer = self._image()

    # The world around.

    def _cable(self) -> None:
        outside = [
            "link set lo up",
            f"addr add {OUTSIDE4}/32 dev lo",
            f"addr add {OUTSIDE6}/128 dev lo nodad",
            f"link add out0 type veth peer name und0 netns {self.pid}",
            "link set out0 up",
            "addr add 172.31.0.1/24 dev out0",
            "addr add fd00:31::1/64 dev out0 nodad",
        ]
        host = [
            "link set und0 up",
            f"addr add {HOST4}/24 dev und0",
            f"addr add {HOST6}/64 dev und0 nodad",
            "route add default via 172.31.0.1",
            "-6 route add default via fd00:31::1",
        ]
        for netns, lines in ((self.outside, outside), (self.netns, host)):
            for line in lines:
                done = run_in(netns, lambda: subprocess.run(["ip", *line.split()], capture_output=True))  # noqa: B023
                assert done.returncode == 0, (line, done.stderr)

    def _image(self) -> Path:
        """The image ``peer``: one static program."""
        peer = self.folder / "peer"
        source = Path(__file__).with_name("peer.c")
        flags = ["-static", "-O2", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Werror"]
        subprocess.run(["cc", *flags, "-o", peer, source], check=True)
        subprocess.run(["tar", "-cf", self.folder / "rootfs.tar", "-C", self.folder, "peer"], check=True)
        shutil.copy2(SHIM, self.root / "run/cnibin" / SHIM.name)
        shutil.copy2(EXAMPLES / "podman-towpath.conflist", self.root / "run/netconf/10-towpath.conflist")
        self.podman("import", "-q", str(self.folder / "rootfs.tar"), "peer")
        return peer

    def serve(self, netns: int, port: int) -> None:
        """A server in a network namespace that tells clients who they are; it ends with the host."""
        command = ["nsenter", "-t", str(self.pid), "-p", "--", str(self.peer), "serve", str(port)]
        self._processes.append(run_in(netns, lambda: subprocess.Popen(command)))

    def ask(self, netns: int, address: str, port: int) -> str:
        """Who a server says one is, asked from a namespace; empty if it does not answer."""
        command = [str(self.peer), "ask", address, str(port)]
        done = run_in(netns, lambda: subprocess.run(command, capture_output=True, text=True))
        return done.stdout.split()[0] if done.returncode == 0 else ""

    def ask_from(self, container: str, address: str, port: int) -> str:
        """The same, asked from a container."""
        done = self.run("podman", "exec", container, "/peer", "ask", address, str(port))
        return done.stdout.split()[0] if done.returncode == 0 else ""

    # podman and the agent.

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """A command on the host."""
        return subprocess.run(
            [*self._enter, *command],
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "HOME": "/run",
                "TMPDIR": "/run",
                "CONTAINERS_CONF": str(self.folder / "containers.conf"),
                "CONTAINERS_STORAGE_CONF": str(self.folder / "storage.conf"),
            },
            capture_output=True,
            text=True,
            timeout=240,
        )

    def podman(self, *arguments: str) -> str:
        """What podman prints; it must succeed."""
        done = self.run("podman", *arguments)
        assert done.returncode == 0, f"podman {' '.join(arguments)}: {done.stderr}\n{self._agent_said()}"
        return done.stdout.strip()

    def start(self, name: str, *options: str, network: str = "towpath") -> dict[str, Any]:
        """A container of the image that serves port 7; returns what podman says of its network."""
        if not any(option.startswith("--network=") for option in options):
            options = (f"--network={network}", *options)
        group = f"--cgroup-parent=/{self.group}"
        self.podman("run", "-d", "--name", name, group, *options, "peer", "/peer", "serve", "7")
        return self.served_by(name, network)

    def served_by(self, name: str, network: str = "towpath") -> dict[str, Any]:
        """``network_of``, once the container's program serves: podman returns when it was executed."""
        found = self.network_of(name, network)
        self.until(lambda: self.ask(self.netns, found["IPAddress"], 7))
        return found

    def network_of(self, name: str, network: str = "towpath") -> dict[str, Any]:
        """That network in ``podman inspect``'s NetworkSettings, and ``SandboxKey``."""
        (found,) = json.loads(self.podman("inspect", name))
        settings = found["NetworkSettings"]
        return {**settings["Networks"][network], "SandboxKey": settings["SandboxKey"]}

    def network(self, name: str, *after: dict[str, Any], version: str = "1.0.0", **settings: Any) -> None:
        """Another network in podman's folder: the documented one with other settings, and with what is to
        come behind Towpath in its chain.
        """
        conflist = json.loads((EXAMPLES / "podman-towpath.conflist").read_text())
        (plugin,) = conflist["plugins"]
        plugins = [plugin | settings, *after]
        path = self.root / f"run/netconf/{name}.conflist"
        path.write_text(json.dumps(conflist | {"cniVersion": version, "name": name, "plugins": plugins}))

    def inside(self, network: dict[str, Any]) -> NetState:
        """What the kernel holds in a container."""
        netns = os.open(f"{self.root}{network['SandboxKey']}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return _observe(netns)
        finally:
            os.close(netns)

    def observe(self) -> NetState:
        """What the kernel holds on the host."""
        return _observe(self.netns, table="towpath")

    def start_agent(self) -> None:
        """With the documented configuration, until it is ready."""
        config = EXAMPLES / "podman-agent.yaml"
        command = [sys.executable, "-m", "towpath.agent", f"--config={config}", "--log-level=debug"]
        with self.log.open("ab") as log:
            self.agent = subprocess.Popen([*self._enter, *command], stdout=log, stderr=log)
        self.until(lambda: self.get("/readyz") == 200)

    def stop_agent(self, number: int = signal.SIGTERM) -> None:
        """Its death, of that signal."""
        assert self.agent is not None
        (child,) = Path(f"/proc/{self.agent.pid}/task/{self.agent.pid}/children").read_text().split()
        os.kill(int(child), number)
        self.agent.wait(PATIENT)
        self.agent = None

    def get(self, path: str) -> int:
        """HTTP status of the agent's page, 0 without an agent."""

        def ask() -> int:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:9109{path}", timeout=20) as answer:
                    return int(answer.status)
            except OSError:
                return 0

        return run_in(self.netns, ask)

    def leases(self) -> list[str]:
        """Addresses in the lease store, read from a copy: the agent lets nobody else in.

        The log is copied first: what a checkpoint moves from it meanwhile is then in both, and not in none.
        """
        for name in ("leases.db-wal", "leases.db"):
            (self.folder / name).unlink(missing_ok=True)
            with suppress(FileNotFoundError):
                shutil.copy2(self.root / "var/lib/towpath" / name, self.folder)
        with closing(sqlite3.connect(self.folder / "leases.db")) as db:
            return sorted(str(row[0]) for row in db.execute("SELECT address FROM leases"))

    def leftovers(self) -> list[str]:
        """All that there is of any container on the network ``towpath``."""
        seen = self.observe()
        found = [name for name in seen.links if name.startswith(("cali", "tpb"))]
        found += [f"route {r.dst}" for r in seen.routes if str(r.dst).startswith(("10.90.", "fd00:90:"))]
        if seen.nft is not None:
            pods = (s for s in seen.nft.sets.values() if not s.name.startswith(("net", "local")))
            found += [f"{s.name} {key}" for s in pods for key in s.elements]
        return found + [f"lease {address}" for address in self.leases()]

    def until(self, truth: Callable[[], object], seconds: float = PATIENT) -> None:
        """Wait for it."""
        end = time.monotonic() + seconds
        while not truth():
            ended = self.agent is not None and self.agent.poll() is not None
            assert time.monotonic() < end and not ended, self._agent_said()
            time.sleep(0.03)

    def _agent_said(self) -> str:
        return self.log.read_text()[-3000:] if self.log.exists() else ""

    def close(self) -> None:
        """End everything and see that nothing stays."""
        if self.agent is not None and self.agent.poll() is None:
            self.stop_agent()
        assert self._init.stdin is not None
        self._init.stdin.close()
        self._init.wait(PATIENT)
        for process in self._processes:
            process.wait(PATIENT)
        assert self._init.stdout is not None
        self._init.stdout.close()
        os.close(self.netns)
        os.close(self.outside)


def _observe(netns: int, table: str | None = None) -> NetState:
    def look() -> NetState:
        with closing(LinuxKernel(nft=table is not None)) as kernel:
            return kernel.observe((), table)

    return run_in(netns, look)


@contextmanager
def podman_host(folder: Path) -> Iterator[PodmanHost]:
    """One, with its agent running."""
    host = PodmanHost(folder)
    try:
        host.start_agent()
        yield host
    finally:
        host.close()
