"""An attachments engine on the real kernel, in the test process's own namespace, and pods to attach."""

import asyncio
import itertools
import json
import os
import shlex
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from towpath.agent.attach_pods import PodLookupFailed
from towpath.agent.attach_settings import AttachSettings
from towpath.agent.attach_setup import attachments
from towpath.agent.attachments import Attachments
from towpath.api.core import Pod
from towpath.cni.args import parse_args, with_args
from towpath.cni.parse import parse_net_conf
from towpath.cni.request import PodDescriptors, Request
from towpath.cni.result import Result
from towpath.desired.names import POD_PREFIX, host_ifname
from towpath.desired.ruleset import ruleset
from towpath.ipam.errors import LeaseStoreError
from towpath.ipam.store import LeaseStore
from towpath.kernel.linux import LinuxKernel
from towpath.kernel.netns import new_netns, run_in
from towpath.model.network import ClusterNetwork
from towpath.model.op import DelLink
from towpath.model.state import NetState, Scope
from towpath.reconcile.diff import diff

CIDRS = (ip_network("10.42.1.0/24"), ip_network("fd00:10:42:1::/64"))
NETWORK = ClusterNetwork(ipv4=ip_network("10.42.0.0/16"), ipv6=ip_network("fd00:10:42::/56"))  # type: ignore[arg-type]
PREFIXES = (POD_PREFIX, "tpb")
_numbers = itertools.count(1)


@dataclass
class Directory:
    """Pods as the test says; every pod is known unless it says otherwise."""

    known: dict[tuple[str, str], Pod | None] = field(default_factory=dict)
    down: str = ""

    async def find(self, namespace: str, name: str) -> Pod | None:
        if self.down:
            raise PodLookupFailed(self.down)
        return self.known.get((namespace, name), Pod())


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def run(command: str) -> str:
    """Execute, and return what it printed."""
    done = subprocess.run(shlex.split(command), capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def reaches(netns: int, address: str) -> bool:
    """Whether a datagram gets to ``address`` in ``netns`` and back. (A namespace younger than 20 ms
    sends no ICMP errors, so a refusal proves nothing.)
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with (
        run_in(netns, lambda: socket.socket(family, socket.SOCK_DGRAM)) as server,
        socket.socket(family, socket.SOCK_DGRAM) as client,
    ):
        server.bind((address, 7))
        client.connect((address, 7))
        server.settimeout(60)
        client.settimeout(60)
        try:
            client.send(b"ping")
            data, peer = server.recvfrom(100)
            server.sendto(data, peer)
            return client.recv(100) == b"ping"
        except TimeoutError:
            return False


def descriptors(netns: int) -> PodDescriptors:
    """What the shim would hand over of a namespace."""

    def open_inside() -> tuple[socket.socket, dict[str, int]]:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        return sock, {f: os.open(f"/proc/sys/{f}", os.O_RDONLY) for f in ("net/ipv4", "net/ipv6")}

    sock, folders = run_in(netns, open_inside)
    return PodDescriptors(os.dup(netns), sock, folders)


@dataclass
class AttachNode:
    """The engine under test; ``boot`` starts another agent on what the one before left."""

    folder: Path
    boot_id: str = "boot-1"
    clock: Clock = field(default_factory=Clock)
    pods: Directory = field(default_factory=Directory)
    settings: AttachSettings = field(
        default_factory=lambda: AttachSettings(pod_cidrs=CIDRS, not_ready="", lease_grace=0)
    )
    namespaces: dict[str, int] = field(default_factory=dict)
    handler: Attachments = field(init=False)
    store: LeaseStore = field(init=False)
    kernel: LinuxKernel = field(init=False)

    def setup_table(self) -> None:
        """As reconciliation does at the start."""
        of_this_boot = (a for a in self.store.attachments() if a.boot_id == self.boot_id)
        table = ruleset(NETWORK, CIDRS, of_this_boot)
        observed = self.kernel.observe((), "towpath")
        self.kernel.apply(diff(observed, NetState(nft=table), Scope()))

    @asynccontextmanager
    async def agent(self) -> AsyncIterator[Attachments]:
        lock = asyncio.Lock()
        with closing(LinuxKernel()) as self.kernel:
            self.store = LeaseStore(self.folder / "leases.db", boot_id=self.boot_id, clock=self.clock)
            with closing(self.store):
                with suppress(LeaseStoreError):  # as the daemon: its problem is told by STATUS
                    self.store.open()
                self.setup_table()
                async with attachments(self.store, self.kernel, self.pods, self.settings, lock) as handler:
                    self.handler = handler
                    yield handler

    def netns(self, container: str) -> int:
        if container not in self.namespaces:
            self.namespaces[container] = new_netns()
        return self.namespaces[container]

    def request(
        self,
        command: str,
        container: str,
        *,
        pod: str | None = "",
        args: str = "",
        request_id: str | None = None,
        config: dict[str, Any] | None = None,
        netns: int | None = None,
        with_netns: bool = True,
        ifname: str = "eth0",
    ) -> Request:
        """A call as the server hands it on; ``pod`` None for a container outside Kubernetes."""
        conf = {"cniVersion": "1.1.0", "name": "net", "type": "towpath-cni", **(config or {})}
        if pod is not None:
            args = f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod or container};{args}"
        parsed = parse_args(args)
        found = None
        if with_netns and command in ("ADD", "CHECK", "DEL"):
            found = descriptors(self.netns(container) if netns is None else netns)
        return Request(
            command=command,
            config=with_args(parse_net_conf(json.dumps(conf).encode(), lenient=command == "DEL"), parsed),
            container_id=container,
            netns=f"/run/netns/{container}",
            ifname=ifname,
            args=parsed,
            request_id=f"request-{next(_numbers)}" if request_id is None else request_id,
            descriptors=found,
        )

    async def _with(self, r: Request, call: Callable[[Request], Any]) -> Any:
        try:
            return await call(r)
        finally:
            if r.descriptors is not None:
                r.descriptors.close()

    async def add(self, container: str, **more: Any) -> Result:
        result: Result = await self._with(self.request("ADD", container, **more), self.handler.add)
        return result

    async def delete(self, container: str, **more: Any) -> None:
        await self._with(self.request("DEL", container, **more), self.handler.delete)

    async def check(self, container: str, **more: Any) -> None:
        await self._with(self.request("CHECK", container, **more), self.handler.check)

    def host(self, pod: str, ifname: str = "eth0") -> str:
        return host_ifname("default", pod, ifname)

    def inside(self, container: str) -> NetState:
        return observed_in(self.netns(container))

    def leftovers(self) -> list[str]:
        """Everything of any pod that is there: links, routes, set elements, leases."""
        return kernel_leftovers(self.namespaces) + [f"lease {a}" for a in self.store.leased()]

    def close(self) -> None:
        """Remove what a test left on purpose."""
        remove_links()
        for fd in self.namespaces.values():
            os.close(fd)


def observed_in(netns: int) -> NetState:
    """What another namespace holds."""

    def look() -> NetState:
        with closing(LinuxKernel(nft=False)) as kernel:
            return kernel.observe()

    return run_in(netns, look)


def kernel_leftovers(namespaces: Mapping[str, int]) -> list[str]:
    """Everything of any pod in this namespace, and every link but lo in those of pods."""
    with closing(LinuxKernel()) as kernel:
        seen = kernel.observe((), "towpath")
    found = [name for name in seen.links if name.startswith(PREFIXES)]
    found += [f"route {r.dst}" for r in seen.routes if str(r.dst).startswith(("10.42.1.", "fd00:10:42:1:"))]
    if seen.nft is not None:
        pods = (s for s in seen.nft.sets.values() if s.name not in ("net4", "net6", "local4", "local6"))
        found += [f"{s.name} {key}" for s in pods for key in s.elements]
    for name, netns in namespaces.items():
        found += [f"{name}: {link}" for link in observed_in(netns).links if link != "lo"]
    return found


def remove_links() -> None:
    """Remove every pod's link from this namespace."""
    with closing(LinuxKernel()) as kernel:
        kernel.apply([DelLink(name) for name in kernel.observe().links if name.startswith(PREFIXES)])
