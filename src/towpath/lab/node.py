"""A node, from power-on to its kubelet: namespaces, the files its image would contain, pid 1."""

import json
import os
import shutil
import socket
import time
from contextlib import suppress
from pathlib import Path

import yaml

from towpath.cni.request import IPAM
from towpath.lab import credentials, namespaces, rootfs, topology
from towpath.lab.rootfs import STATE
from towpath.lab.runtime import Runtime
from towpath.lab.runtime_process import guarded
from towpath.lab.topology import LabSpec, NodeSpec

DEBIAN_PLUGINS = Path("/usr/lib/cni")
CONFLIST = Path("/etc/cni/net.d/10-towpath.conflist")
CNI_BIN = Path("/opt/cni/bin")
AGENT_CONFIG = Path("/etc/towpath/agent.yaml")
AGENT_KUBECONFIG = Path("/etc/towpath/kubeconfig")
SHIM = Path(__file__).parents[1] / "bin" / "towpath-cni"
HEALTH_PORT = 9109

_RESPAWN_PAUSE = 0.5  # seconds a kubelet must have lived for its successor to start at once


def folder(name: str) -> Path:
    """Where the lab keeps a node's disk and sockets."""
    return STATE / "nodes" / name


def main(spec: LabSpec, one: NodeSpec, boot_id: str, netns: int) -> None:
    """In a forked child that is pid 1 of the node's PID namespace: boot, then serve as its runtime."""
    namespaces.set_name(f"node-{one.name}")
    namespaces.setns(netns, namespaces.CLONE_NEWNET)
    namespaces.unshare(namespaces.CLONE_NEWNS | namespaces.CLONE_NEWUTS | namespaces.CLONE_NEWIPC)
    socket.sethostname(one.name)
    rootfs.enter_node(folder(one.name) / "disk")
    rootfs.set_boot_id(boot_id)
    _install(spec, one)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(folder(one.name) / "runtime.sock"))
    listener.listen(64)
    Runtime(listener, _KubeletKeeper(spec, one, boot_id).ended).serve()


class _KubeletKeeper:
    """Starts the kubelet and starts it again when it dies."""

    def __init__(self, spec: LabSpec, one: NodeSpec, boot_id: str) -> None:
        self._spec, self._one, self._boot_id = spec, one, boot_id
        self._pid, self._born = 0, 0.0
        self._start()

    def ended(self, pid: int) -> bool:
        """Whether the process that ended was the kubelet; if so, the next one runs."""
        if pid != self._pid:
            return False
        self._start(pause=_RESPAWN_PAUSE if time.monotonic() - self._born < _RESPAWN_PAUSE else 0.0)
        return True

    def _start(self, pause: float = 0.0) -> None:
        self._born = time.monotonic()
        self._pid = os.fork()
        if self._pid == 0:
            time.sleep(pause)
            guarded(self._become_kubelet)

    def _become_kubelet(self) -> None:
        from towpath.lab import kubelet

        namespaces.set_name("kubelet")
        with Path("/var/log/kubelet.log").open("ab", buffering=0) as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        kubelet.main(self._spec, self._one, self._boot_id)


def _install(spec: LabSpec, one: NodeSpec) -> None:
    """What an installer leaves on the disk: shim, conflist, the agent's configuration. Idempotent.

    Where the network is Canal's, Towpath's own installer brings the former two with its agent.
    """
    for path in (CNI_BIN, CONFLIST.parent, AGENT_CONFIG.parent, Path("/run/towpath"), Path("/run/netns")):
        path.mkdir(parents=True, exist_ok=True)
    for image, where in spec.images.items():
        rootfs.keep_image(image, where)
    if spec.cni == "towpath":
        with suppress(FileNotFoundError):
            shutil.copy2(SHIM, CNI_BIN / f".{SHIM.name}")
            (CNI_BIN / f".{SHIM.name}").replace(CNI_BIN / SHIM.name)
        with suppress(FileExistsError):
            (CNI_BIN / IPAM).symlink_to(SHIM.name)
        _write(CONFLIST, json.dumps(conflist(), indent=2))
    for plugin in DEBIAN_PLUGINS.glob("*"):  # as a distribution's installer brings them, for extra networks
        with suppress(FileExistsError):
            (CNI_BIN / plugin.name).symlink_to(plugin)
    _write(AGENT_CONFIG, yaml.safe_dump(agent_config(spec, one)))
    _write(AGENT_KUBECONFIG, credentials.kubeconfig_text(topology.api_url(spec), credentials.AGENT))


def conflist() -> dict[str, object]:
    """The network configuration the runtime finds."""
    names = ("portMappings", "bandwidth", "dns", "ipRanges", "ips", "mac", "aliases")
    plugin = {"type": SHIM.name, "capabilities": dict.fromkeys(names, True)}
    return {"cniVersion": "1.1.0", "name": "towpath", "plugins": [plugin]}


def agent_config(spec: LabSpec, one: NodeSpec) -> dict[str, object]:
    """The agent's configuration file on a node of this lab."""
    return {
        "node_name": one.name,
        "kubeconfig": str(AGENT_KUBECONFIG),
        "net_conf": topology.net_conf(spec),
        "cni_socket": "/run/towpath/cni.sock",
        "state_dir": "/var/lib/towpath",
        "health_address": f"127.0.0.1:{HEALTH_PORT}",
        "boot_id_file": "/run/boot-id",
        "log_format": "json",
        **spec.agent_config,
    }


def _write(path: Path, text: str) -> None:
    """Write beside and rename: containerd's watcher must never see half a file."""
    if path.exists() and path.read_text() == text:
        return
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    partial.replace(path)
