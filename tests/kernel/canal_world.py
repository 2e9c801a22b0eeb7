"""Two nodes on one wire, each with Canal (stand-ins: ``towpath.lab.canal``) or Towpath's real agent.

Leases, host ports and limits are made by Debian's host-local, portmap and bandwidth; rules go in by Debian's
iptables, ip6tables and ipset. ``n2`` is also the outside: it answers on 198.51.100.2 and 2001:db8:51::2.
"""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent_node import FLANNEL, NET_CONF, NODES, PODS, AgentNode, node

from patience import PATIENT
from towpath.desired.names import host_ifname
from towpath.install.hold import hold
from towpath.kernel.netns import run_in
from towpath.kube.fake import FakeApiServer
from towpath.kube.kinds import Kind, Raw
from towpath.lab.canal import programs
from towpath.lab.kubelet_cni import Call, Cni, addresses

POLICIES: Kind[Raw] = Kind(plural="networkpolicies", type=dict, group="networking.k8s.io")
OUTSIDE4, OUTSIDE6 = "198.51.100.2", "2001:db8:51::2"
SHIM = Path(__file__).parents[2] / "src/towpath/bin/towpath-cni"
KUBE_PROXY = """*nat
:KUBE-SERVICES - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-POSTROUTING - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE
COMMIT
*filter
:KUBE-FORWARD - [0:0]
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
COMMIT
"""
# Somebody's own rules, of kinds that are easily taken for Canal's.
OTHERS = """*nat
:CNI-DN-0123456789abcdef01234 - [0:0]
:CNI-HOSTPORT-DNAT - [0:0]
:OWN-calico - [0:0]
-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \\"podman\\" id: \\"beef\\"" \
-m multiport --dports 9000 -j CNI-DN-0123456789abcdef01234
-A CNI-DN-0123456789abcdef01234 -p tcp -m tcp --dport 9000 -j DNAT --to-destination 10.88.0.2:80
-A OWN-calico -m comment --comment "flannel is not meant" -j RETURN
COMMIT
*filter
-A INPUT -p tcp -m tcp --dport 22 -m comment --comment "caliper" -j ACCEPT
COMMIT
"""


@dataclass
class PodOnNode:
    """A container: its namespace lives as long as ``process``."""

    name: str
    process: subprocess.Popen[bytes]
    call: Call
    addresses: list[str] = field(default_factory=list)

    @property
    def netns_path(self) -> str:
        return f"/proc/{self.process.pid}/ns/net"

    @property
    def netns(self) -> int:
        return os.open(self.netns_path, os.O_RDONLY)


def sandbox() -> tuple[subprocess.Popen[bytes], Path]:
    """A process in a network namespace of its own, and that namespace's path."""
    process = subprocess.Popen(["unshare", "-n", "sleep", "1000"])
    mine = Path("/proc/self/ns/net").stat().st_ino
    path = Path(f"/proc/{process.pid}/ns/net")
    while path.stat().st_ino == mine:
        time.sleep(0.002)
    return process, path


class CanalNode(AgentNode):
    """Node ``nNUMBER``, with the files of a runtime's and of Canal's, and the pods on it."""

    def __init__(self, folder: Path, number: int, *, backend: str = "nft") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(folder)
        self.number, self.name, self.backend = number, f"n{number}", backend
        self.ip("link del und0")
        self.conf, self.bin = folder / "net.d", folder / "cni-bin"
        self.cni_state, self.data = folder / "cni", folder / "networks"
        self.state = folder / "state"
        for path in (self.conf, self.cni_state, self.state):
            path.mkdir()
        self.conflist = programs.conflist(
            [f"10.42.{number}.0/24", f"fd00:10:42:{number}::/64"], data_dir=str(self.data), mtu=1430
        )
        programs.install(self.bin, "calico", "flanneld", "calico-node", *programs.PLUGINS)
        shutil.copy2(SHIM, self.bin / "towpath-cni")
        (self.bin / "towpath-cni.socket").write_text(f"{folder}/cni.sock\n")
        self.settings |= {"node_name": self.name, "resync_seconds": 5, "offload_probe": False}
        self.cni = Cni(self.conf, self.bin, self.cni_state / "results")
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.pods: dict[str, PodOnNode] = {}

    def write_kubeconfig(self, server: str) -> None:
        kubeconfig = {
            "clusters": [{"name": "c", "cluster": {"server": server}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "c",
        }
        (self.folder / "kubeconfig").write_text(json.dumps(kubeconfig))

    def address(self) -> None:
        """The cable is there: give it what an operating system would."""
        last = 10 + self.number
        for command in (
            "link set und0 up",
            f"addr add 172.30.0.{last}/24 dev und0",
            f"addr add fd00:172:30::{last}/64 dev und0 nodad",
        ):
            self.ip(command)
        self.sh("echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")

    def sh(self, command: str) -> str:
        done = self.run("sh", "-ec", command)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def daemon(self, name: str, *arguments: str) -> None:
        """Start one of Canal's, as its pod would."""
        command = [str(self.bin / name), *arguments, "--node", self.name, "--backend", self.backend]
        command += ["--kubeconfig", str(self.folder / "kubeconfig")]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.daemons[name] = run_in(self.netns, lambda: subprocess.Popen(command, stdout=log, stderr=log))

    def start_canal(self) -> None:
        """calico-node, flanneld and the conflist their installer writes."""
        self.daemon("flanneld", "--net-conf", json.dumps(NET_CONF))
        self.daemon("calico-node", "-felix")
        (self.conf / programs.CONFLIST).write_text(self.conflist)

    def stop_canal(self) -> None:
        for process in self.daemons.values():
            process.terminate()
        for process in self.daemons.values():
            process.wait(PATIENT)  # what is under way, and the rules: more than a hundred programs in all
        self.daemons = {}

    def said(self) -> str:
        """What Canal's stand-ins complained of."""
        return "".join(path.read_text() for path in self.folder.glob("*.log") if path.name != "agent.log")

    def others(self) -> None:
        """kube-proxy's rules, and those of strangers."""
        for text in (KUBE_PROXY, OTHERS):
            for family in ("iptables", "ip6tables"):
                backend = "nft" if self.backend == "nftables" else self.backend
                if family == "ip6tables":
                    text = text.replace("10.88.0.2:80", "[fd00:88::2]:80")
                given = text

                def put(program: str = f"{family}-{backend}-restore", given: str = given) -> None:
                    subprocess.run([program, "--noflush"], input=given, text=True, check=True)

                run_in(self.netns, put)

    async def add(self, api: FakeApiServer, name: str, **more: Any) -> PodOnNode:
        """A pod, as a kubelet and its runtime would make it with whatever CNI configuration is in force."""
        process, path = sandbox()
        container = f"{name:0<12}{self.number:052x}"
        pod = {
            "metadata": {
                "name": name,
                "namespace": "default",
                "uid": f"uid-{name}",
                "labels": {"app": name} | more.pop("labels", {}),
            },
            "spec": {"nodeName": self.name},
            "status": {"phase": "Pending"},
        }
        api.put(PODS, pod)
        args = (
            ("IgnoreUnknown", "1"),
            ("K8S_POD_NAMESPACE", "default"),
            ("K8S_POD_NAME", name),
            ("K8S_POD_INFRA_CONTAINER_ID", container),
            ("K8S_POD_UID", f"uid-{name}"),
        )
        call = Call(container_id=container, netns=str(path), args=args, capabilities=more)
        made = self.pods[name] = PodOnNode(name, process, call)
        result = await asyncio.to_thread(run_in, self.netns, lambda: asyncio.run(self.cni.add(call)))
        made.addresses = addresses(result)
        pod["status"] = {"phase": "Running", "podIPs": [{"ip": a} for a in made.addresses]}
        api.put(PODS, pod)
        return made

    async def remove(self, api: FakeApiServer, name: str, *, forget: bool = True) -> None:
        """Its end: containerd (unlike CRI-O) goes by the configuration that is in force by now."""
        gone = self.pods.pop(name)
        for file in (self.cni_state / "results").glob(f"*-{gone.call.container_id}-*"):
            file.unlink()
        await asyncio.to_thread(run_in, self.netns, lambda: asyncio.run(self.cni.delete(gone.call)))
        gone.process.kill()
        gone.process.wait()
        if forget:
            api.remove(PODS, name, "default")

    def migrate(self, direction: str, *options: str, **env: str) -> subprocess.Popen[str]:
        """``towpath node DIRECTION`` on this node."""
        command = [sys.executable, "-m", "towpath", "node", direction]
        command += ["--config", str(self.folder / "agent.json"), "--cni-conf", str(self.conf)]
        command += ["--cni-bin", str(self.bin), "--cni-state", str(self.cni_state), *options]
        pipe = subprocess.PIPE
        return run_in(
            self.netns,
            lambda: subprocess.Popen(
                command,
                stdout=pipe,
                stderr=pipe,
                text=True,
                env={**os.environ, **env},
                start_new_session=True,
            ),
        )

    def configure(self) -> None:
        """The agent's file, as an installation leaves it."""
        (self.folder / "agent.json").write_text(json.dumps(self.settings))

    def links(self) -> dict[str, dict[str, Any]]:
        return {link["ifname"]: link for link in json.loads(self.ip("-j link show"))}

    def saved(self) -> str:
        """All iptables rules of both backends and families, without counters and comments on time."""
        text = ""
        for program in ("iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy"):
            lines = self.run(f"{program}-save").stdout.splitlines()
            text += "".join(f"{line.split(' [')[0]}\n" for line in lines if not line.startswith("#"))
        return text

    def close(self) -> None:
        for process in self.daemons.values():
            process.kill()
            process.wait()
        for pod in self.pods.values():
            pod.process.kill()
            pod.process.wait()
        super().close()


@dataclass
class World:
    """Both nodes, and the API server in ``n1``'s namespace that both use."""

    n1: CanalNode
    n2: CanalNode
    api: FakeApiServer

    def notes(self, name: str) -> dict[str, str]:
        found: dict[str, str] = self.api.get(NODES, name)["metadata"]["annotations"]
        return {key: value for key, value in found.items() if key.startswith(FLANNEL)}


@contextlib.asynccontextmanager
async def canal_world(folder: Path, *, backend: str = "nft") -> AsyncIterator[World]:
    """Two nodes of Canal's, up and quiet, without pods."""
    n1 = CanalNode(folder / "n1", 1, backend=backend)
    n2 = CanalNode(folder / "n2", 2, backend=backend)
    api = None
    try:
        n1.ip(f"link add und0 type veth peer name und0 netns /proc/{os.getpid()}/fd/{n2.netns}")
        for one in (n1, n2):
            one.address()

        def bind(port: int) -> socket.socket:
            return run_in(n1.netns, lambda: socket.create_server(("172.30.0.11", port)))

        api = await FakeApiServer.start(bind=bind)
        server = api.config().server.replace("127.0.0.1", "172.30.0.11")
        n2.ip(f"addr add {OUTSIDE4}/32 dev lo")
        n2.ip(f"addr add {OUTSIDE6}/128 dev lo nodad")
        for one, other in ((n1, 12), (n2, 11)):  # a node without any answers no pod's ARP for 169.254.1.1
            one.ip(f"route add default via 172.30.0.{other}")
            one.ip(f"-6 route add default via fd00:172:30::{other}")
        for one in (n1, n2):
            api.put(NODES, node(one.number))
            one.write_kubeconfig(server)
            one.configure()
            one.others()
            one.start_canal()
        world = World(n1, n2, api)
        await settled(lambda: len(world.notes("n1")) > 4 and len(world.notes("n2")) > 4, n1, n2)
        await settled(lambda: "10.42.2.0/24" in n1.ip("route") and "10.42.1.0/24" in n2.ip("route"), n1, n2)
        yield world
    finally:
        n1.close()
        n2.close()
        if api is not None:
            await api.down()


async def settled(truth: Callable[[], object], *nodes: CanalNode, seconds: float = PATIENT) -> None:
    """Wait for ``truth``; say what the nodes' programs said when it does not come."""
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(truth):
        if time.monotonic() > deadline:
            raise AssertionError("".join(one.said() for one in nodes) or "nothing was said")
        await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def agent_running(one: CanalNode) -> AsyncIterator[None]:
    """The agent, held until a takeover lets it work, and started again whenever it ends, as a kubelet
    does.
    """
    if not (one.state / "leases.db").exists():
        hold(one.state, "all", "this node is Canal's")

    async def keep() -> None:
        while True:
            if one.process is None or one.process.poll() is not None:
                one.start()
            await asyncio.sleep(0.05)

    keeper = asyncio.create_task(keep())
    try:
        yield
    finally:
        keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeper
        if one.process is not None and one.process.poll() is None:
            await asyncio.to_thread(one.stop)
        one.process = None


async def finished(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit status, stdout and stderr."""
    stdout, stderr = await asyncio.to_thread(process.communicate)
    return process.returncode, stdout, stderr


def dev(name: str) -> str:
    return host_ifname("default", name)


__all__ = [
    "NODES",
    "PODS",
    "POLICIES",
    "CanalNode",
    "World",
    "agent_running",
    "canal_world",
    "dev",
    "finished",
    "settled",
]
