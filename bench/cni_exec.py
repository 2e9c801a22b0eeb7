"""Executes CNI plugins as a runtime does, with as little of its own time as Python allows."""

import ctypes
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from towpath.kernel.netns import new_netns

NODE, NODE_ADDRESS, POD_CIDR = "bench-node", "172.30.0.11", "10.88.0.0/16"
_MS_BIND = 0x1000


class Answer(NamedTuple):
    """What a plugin said; ``seconds`` from before the exec to after its exit."""

    status: int
    stdout: bytes
    seconds: float


def execute(path: Path, environment: dict[str, str], stdin: bytes) -> Answer:
    """Run one plugin. ``stdin`` must fit into a pipe (64 kB)."""
    in_read, in_write = os.pipe()
    out_read, out_write = os.pipe()
    os.write(in_write, stdin)
    os.close(in_write)
    begun = time.perf_counter()
    pid = os.posix_spawn(
        path,
        [str(path)],
        environment,
        file_actions=[(os.POSIX_SPAWN_DUP2, in_read, 0), (os.POSIX_SPAWN_DUP2, out_write, 1)],
    )
    os.close(out_write)
    parts = []
    while part := os.read(out_read, 1 << 16):
        parts.append(part)
    _, status = os.waitpid(pid, 0)
    seconds = time.perf_counter() - begun
    os.close(in_read)
    os.close(out_read)
    return Answer(os.waitstatus_to_exitcode(status), b"".join(parts), seconds)


class Sandbox(NamedTuple):
    """A container to be: its ID and the path of its network namespace."""

    container_id: str
    netns: str


class Sandboxes:
    """Makes network namespaces and binds them to paths, as container runtimes do."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="towpath-bench-netns-"))
        self._libc = ctypes.CDLL(None, use_errno=True)

    def make(self, container_id: str) -> Sandbox:
        """A new one. Raises OSError."""
        path = self._folder / container_id
        path.touch()
        netns = new_netns()
        try:
            source = f"/proc/self/fd/{netns}".encode()
            if self._libc.mount(source, str(path).encode(), None, _MS_BIND, None) != 0:
                raise OSError(ctypes.get_errno(), f"mount {path}")
        finally:
            os.close(netns)
        return Sandbox(container_id, str(path))

    def remove(self, sandbox: Sandbox) -> None:
        """The namespace goes when nothing else holds it."""
        self._libc.umount2(sandbox.netns.encode(), 2)
        Path(sandbox.netns).unlink()

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self._folder)


class Chain:
    """A list of plugins, executed one after the other as libcni does it."""

    def __init__(self, name: str, folder: Path, plugins: list[dict[str, Any]]) -> None:
        self.name, self._folder, self._plugins = name, folder, plugins

    def add(
        self, sandbox: Sandbox, capabilities: dict[str, Any], ifname: str = "eth0"
    ) -> tuple[float, dict[str, Any]]:
        """Seconds spent in plugins, and the result. Raises RuntimeError if one fails."""
        seconds, result = 0.0, None
        for plugin in self._plugins:
            answer = self._call("ADD", plugin, sandbox, capabilities, result, ifname)
            seconds += answer.seconds
            result = json.loads(answer.stdout)
        return seconds, result or {}

    def delete(
        self, sandbox: Sandbox, capabilities: dict[str, Any], result: dict[str, Any], ifname: str = "eth0"
    ) -> float:
        """Seconds spent in plugins. Raises RuntimeError if one fails."""
        return sum(
            self._call("DEL", plugin, sandbox, capabilities, result, ifname).seconds
            for plugin in reversed(self._plugins)
        )

    def _call(
        self,
        command: str,
        plugin: dict[str, Any],
        sandbox: Sandbox,
        capabilities: dict[str, Any],
        result: dict[str, Any] | None,
        ifname: str,
    ) -> Answer:
        declared = plugin.get("capabilities", {})
        config = {"cniVersion": "1.0.0", "name": self.name, **plugin}
        if wanted := {key: value for key, value in capabilities.items() if declared.get(key)}:
            config["runtimeConfig"] = wanted
        if result is not None:
            config["prevResult"] = result
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": sandbox.container_id,
            "CNI_NETNS": sandbox.netns,
            "CNI_IFNAME": ifname,
            "CNI_PATH": str(self._folder),
            "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=bench;K8S_POD_NAME={sandbox.container_id}",
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        }
        answer = execute(self._folder / plugin["type"], environment, json.dumps(config).encode())
        if answer.status != 0:
            raise RuntimeError(f"{plugin['type']} {command}: {answer.stdout.decode(errors='replace')}")
        return answer
