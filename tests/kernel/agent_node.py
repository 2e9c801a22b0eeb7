"""A node of its own network namespace with the real agent as a process, under an API server that behaves."""

import asyncio
import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import trustme
from msgspec.structs import replace

from patience import PATIENT
from towpath.kernel.linux import LinuxKernel
from towpath.kernel.netns import new_netns, run_in
from towpath.kube.fake import FakeApiServer
from towpath.kube.kinds import NODES, PODS
from towpath.model.state import NetState

NET_CONF = {
    "Network": "10.42.0.0/16",
    "EnableIPv6": True,
    "IPv6Network": "fd00:10:42::/56",
    "Backend": {"Type": "vxlan", "VNI": 1},
}
SHIM = Path(__file__).parents[2] / "src/towpath/bin/towpath-cni"
FLANNEL = "flannel.alpha.coreos.com/"


def node(number: int, *, peer: bool = False, **annotations: str) -> dict[str, Any]:
    """Node ``nN`` of 172.30.0.1N; ``peer`` adds what its flanneld would have written."""
    notes = dict(annotations)
    if peer:
        notes |= {
            FLANNEL + "kube-subnet-manager": "true",
            FLANNEL + "backend-type": "vxlan",
            FLANNEL + "backend-data": f'{{"VNI":1,"VtepMAC":"02:00:00:00:04:{number:02x}"}}',
            FLANNEL + "backend-v6-data": f'{{"VNI":1,"VtepMAC":"02:00:00:00:06:{number:02x}"}}',
            FLANNEL + "public-ip": f"172.30.0.1{number}",
            FLANNEL + "public-ipv6": f"fd00:172:30::1{number}",
        }
    cidrs = [f"10.42.{number}.0/24", f"fd00:10:42:{number}::/64"]
    addresses = [f"172.30.0.1{number}", f"fd00:172:30::1{number}"]
    return {
        "metadata": {"name": f"n{number}", "annotations": notes},
        "spec": {"podCIDR": cidrs[0], "podCIDRs": cidrs},
        "status": {"addresses": [{"type": "InternalIP", "address": a} for a in addresses]},
    }


def pod(name: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}"},
        "spec": {"nodeName": "n1"},
    }


class AgentNode:
    """Node ``n1``: ``netns`` with an underlay interface ``und0``; ``api`` listens inside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.netns = new_netns()
        self.process: subprocess.Popen[bytes] | None = None
        self.log = folder / "agent.log"
        self.settings: dict[str, Any] = {
            "node_name": "n1",
            "kubeconfig": str(folder / "kubeconfig"),
            "net_conf": NET_CONF,
            "cni_socket": str(folder / "cni.sock"),
            "state_dir": str(folder / "state"),
            "health_address": "127.0.0.1:9109",
            "log_level": "debug",
            "resync_seconds": 30,
        }
        self.ip("link set lo up")
        self.ip("link add und0 type veth peer name und1")
        self.ip("link set und0 up")
        self.ip("link set und1 up")
        self.ip("addr add 172.30.0.11/24 dev und0")
        self.ip("addr add fd00:172:30::11/64 dev und0 nodad")
        self.kernel = run_in(self.netns, LinuxKernel)

    def ip(self, arguments: str) -> str:
        done = self.run("ip", *arguments.split())
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return run_in(self.netns, lambda: subprocess.run(command, capture_output=True, text=True))

    async def start_api(self, *, mutual_tls: bool = False) -> FakeApiServer:
        """With ``mutual_tls``, client and server show certificates, as on RKE2 nodes."""

        def bind(port: int) -> socket.socket:
            return run_in(self.netns, lambda: socket.create_server(("127.0.0.1", port)))

        cluster: dict[str, str] = {}
        user: dict[str, str] = {}
        tls = _mutual_tls(cluster, user) if mutual_tls else None
        api = await FakeApiServer.start(tls, bind=bind)
        cluster["server"] = api.config().server
        kubeconfig = {
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "c",
        }
        (self.folder / "kubeconfig").write_text(json.dumps(kubeconfig))
        (self.folder / "kubeconfig").chmod(0o600)
        return api

    def start(self, *flags: str, user: int | None = None, **settings: Any) -> subprocess.Popen[bytes]:
        """The agent, as the lab starts it. Settings are written to a file in JSON."""
        config = self.folder / "agent.json"
        config.write_text(json.dumps(self.settings | settings))
        command = [sys.executable, "-m", "towpath.agent", f"--config={config}", *flags]
        with self.log.open("ab") as log:
            self.process = run_in(
                self.netns, lambda: subprocess.Popen(command, stderr=log, stdout=log, user=user)
            )
        return self.process

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(PATIENT)
        self.process = None
        return code

    def get(self, path: str, port: int = 9109, **headers: str) -> tuple[int, str]:
        """An HTTP GET from inside."""

        def ask() -> tuple[int, str]:
            request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
            try:
                with urllib.request.urlopen(request, timeout=20) as answer:
                    return answer.status, answer.read().decode()
            except HTTPError as e:
                with e:
                    return e.code, e.read().decode()
            except OSError as e:
                return 0, str(e)

        return run_in(self.netns, ask)

    async def ready(self) -> None:
        await self.until(lambda: self.get("/readyz")[0] == 200)

    async def until(self, truth: Callable[[], object], seconds: float = PATIENT) -> float:
        """Wait for ``truth``; returns how long it took."""
        begun = time.monotonic()
        while not await asyncio.to_thread(truth):
            if self.process is not None and self.process.poll() is not None:
                raise AssertionError(f"agent ended with {self.process.returncode}: {self.log.read_text()}")
            if time.monotonic() - begun > seconds:
                raise AssertionError(f"not within {seconds} s; agent says:\n{self.log.read_text()[-4000:]}")
            await asyncio.sleep(0.02)
        return time.monotonic() - begun

    def observe(self) -> NetState:
        """Without the table's owner, which the agent's end changes."""
        state = self.kernel.observe((), "towpath")
        return replace(state, nft=replace(state.nft, owner="free") if state.nft is not None else None)

    def status(self) -> dict[str, str]:
        """A few lines of /proc/PID/status."""
        assert self.process is not None
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return dict(line.split(":\t", 1) for line in lines if ":\t" in line)

    def cpu_seconds(self) -> float:
        assert self.process is not None
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(PATIENT)
        self.kernel.close()
        os.close(self.netns)


def _mutual_tls(cluster: dict[str, str], user: dict[str, str]) -> ssl.SSLContext:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    mine = authority.issue_cert("agent@n1")
    for section, key, pem in (
        (cluster, "certificate-authority-data", authority.cert_pem.bytes()),
        (user, "client-certificate-data", mine.cert_chain_pems[0].bytes()),
        (user, "client-key-data", mine.private_key_pem.bytes()),
    ):
        section[key] = base64.b64encode(pem).decode()
    return context


@contextlib.contextmanager
def agent_node(folder: Path) -> Iterator[AgentNode]:
    made = AgentNode(folder)
    try:
        yield made
    finally:
        made.close()


async def call_shim(
    n1: AgentNode, command: str, name: str, netns: Path | None, **more: Any
) -> tuple[int, Any]:
    """The real shim, executed as a runtime would, in the node's namespace."""
    folder = n1.folder / "bin"
    if not folder.exists():
        folder.mkdir()
        shutil.copy2(SHIM, folder / "towpath-cni")
        (folder / "towpath-cni.socket").write_text(f"{n1.folder}/cni.sock\n")
    env = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": f"c-{name}",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(folder),
        "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={name}",
    }
    if netns is not None:
        env["CNI_NETNS"] = str(netns)
    config = json.dumps({"cniVersion": "1.1.0", "name": "towpath", "type": "towpath-cni", **more})

    def execute() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [folder / "towpath-cni"], env=env, input=config, capture_output=True, text=True, timeout=120
        )

    done = await asyncio.to_thread(run_in, n1.netns, execute)
    return done.returncode, json.loads(done.stdout) if done.stdout.strip() else None


@contextlib.contextmanager
def pod_namespace() -> Iterator[Path]:
    process = subprocess.Popen(["unshare", "-n", "sleep", "1000"])
    mine = Path("/proc/self/ns/net").stat().st_ino
    path = Path(f"/proc/{process.pid}/ns/net")
    while path.stat().st_ino == mine:
        time.sleep(0.005)
    try:
        yield path
    finally:
        process.kill()
        process.wait()


__all__ = [
    "FLANNEL",
    "NET_CONF",
    "NODES",
    "PODS",
    "AgentNode",
    "agent_node",
    "call_shim",
    "node",
    "pod",
    "pod_namespace",
]
