"""A node with extra networks: the real shim, server and kernel, Debian's plugins, an API that behaves."""

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from attach_node import NETWORK, AttachNode, observed_in
from shim_harness import Shim, compile_shim

from towpath.agent.attach_setup import pod_kernel
from towpath.agent.directory import ApiPodDirectory
from towpath.agent.ipam_calls import IpamCalls
from towpath.agent.ipam_plugin import FILE as LEASES
from towpath.agent.ipam_plugin import IpamPlugin
from towpath.agent.network_builtin import Builtin
from towpath.agent.network_chains import Chains
from towpath.agent.network_definitions import DEFINITIONS, NetworkDefinitions
from towpath.agent.network_firewalls import PodFirewalls
from towpath.agent.network_helper import Helper
from towpath.agent.network_plug import Plugging
from towpath.agent.network_plugins import Plugins
from towpath.agent.network_policies import NetworkPolicies
from towpath.agent.network_telling import Telling
from towpath.agent.networks import Networks
from towpath.agent.pod_devices import PodDevices
from towpath.api.core import Node, Pod
from towpath.api.meta import ObjectMeta
from towpath.cni.server import Server, serve
from towpath.ipam.store import LeaseStore
from towpath.kernel.linux import LinuxKernel
from towpath.kernel.nft import Nft
from towpath.kube.client import Client
from towpath.kube.codec import Key, decode
from towpath.kube.fake import FakeApiServer
from towpath.kube.kinds import NAMESPACES, PODS
from towpath.kube.reflector import Reflector, Selection
from towpath.model.attachment import PodRef
from towpath.model.nft import Owner
from towpath.model.state import NetState
from towpath.multinet.annotation import DEFAULT_NETWORK, NETWORKS
from towpath.multinet.choose import NetworkSettings
from towpath.multinet.confine import TYPES, Confinement
from towpath.multinet.journal import Journal, JournalError
from towpath.multinet.status import LEGACY_STATUS, STATUS

DEBIAN = Path("/usr/lib/cni")
RUNTIME = {"cniVersion": "1.1.0", "name": "towpath", "type": "towpath-cni"}
EMPTY: Mapping[str, Any] = {}


@pytest.fixture(scope="session")
def executable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shim that waits as long as plugins may take on a loaded machine."""
    return compile_shim(tmp_path_factory.mktemp("shim") / "towpath-cni", "-DPATIENCE_MS=60000")


class Refused(Exception):
    """What the runtime was told."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code, self.text = code, text


def local(subnet: str, **more: Any) -> dict[str, Any]:
    """host-local, which in tests keeps its files where they end with the test."""
    return {"type": "host-local", "ranges": [[{"subnet": subnet}]], "dataDir": "/run/cni/test", **more}


class OneNode:
    """A cluster of this node alone."""

    def nodes(self) -> Mapping[str, Node]:
        return {"node1": Node(metadata=ObjectMeta(name="node1"))}

    def inhabited(self) -> Collection[str] | None:
        return {"node1"}


@dataclass
class NetworkNode:
    """``boot``: ``agent`` may be entered again, on what the one before has left."""

    shim: Shim
    api: FakeApiServer
    attach: AttachNode
    settings: NetworkSettings = field(
        default_factory=lambda: NetworkSettings(confinement=Confinement(types=(*TYPES, "script", "second")))
    )
    seconds: float = 30.0
    ask_ms: int = 0
    ipam: bool = False
    """Whether ``towpath-ipam`` is asked for, which lies beside the shim then."""
    now: float = 0.0
    owner: Owner = "free"
    networks: Networks = field(init=False)
    journal: Journal = field(init=False)
    telling: Telling = field(init=False)
    policies: NetworkPolicies = field(init=False)
    firewalls: PodFirewalls = field(init=False)
    _well: list[bool] = field(default_factory=list)
    helper: Helper = field(init=False)
    plugging: Plugging = field(init=False)
    leases: LeaseStore = field(init=False)

    @property
    def plugins(self) -> Path:
        return self.shim.path.parent

    @asynccontextmanager
    async def agent(self, *, known: bool = True) -> AsyncIterator[Server]:
        """``known`` False: with nothing of policy known, the API being down."""
        config = self.api.config()
        async with Client(config, timeout=5) as client, self.attach.agent() as attachments:
            host, plugins = LinuxKernel(nft=False), Plugins(self.seconds)
            self.journal = Journal(self.attach.folder / "networks.db")
            with suppress(JournalError):
                self.journal.open()
            pods = ApiPodDirectory(client, Reflector(client, Selection(kind=PODS)), lambda _: None)
            following = self._follow_policies(client)
            attachments._pods = pods
            self.telling = Telling(client, "node1")
            definitions = NetworkDefinitions(
                client, 90, self.attach.folder / "net.d", self.settings.confinement
            )
            with (
                closing(host),
                closing(self.journal),
                closing(Builtin(host, pod_kernel, plugins, self.ask_ms)) as builtin,
            ):
                self.networks = Networks(
                    attachments,
                    self.journal,
                    Chains(plugins, builtin),
                    definitions,
                    self.telling,
                    pods,
                    self.settings,
                    pod_kernel,
                    NETWORK.networks,
                    self.attach.boot_id,
                    lambda: self.now,
                    self.firewalls,
                    PodDevices(self.attach.folder / "pod-resources/kubelet.sock", self.attach.folder),
                )
                tasks = [asyncio.create_task(one) for one in following]
                self.helper = Helper(plugins)
                self.plugging = self.networks.plugging(self.helper, self.pod_of, 600.0)
                handler, store = self._with_ipam(client, pods, tasks) if self.ipam else (self.networks, None)
                server = await serve(self.shim.socket, handler, self.helper.attend)
                try:
                    if known:
                        await self.until(lambda: not self.policies.problem())
                    yield server
                finally:
                    await server.close()
                    await self.telling.close()
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)
                    self.firewalls.close()
                    if store is not None:
                        store.close()

    def _with_ipam(
        self, client: Client, pods: ApiPodDirectory, tasks: list[asyncio.Task[None]]
    ) -> tuple[IpamCalls, LeaseStore]:
        """What the daemon does where ``network_ipam`` says so, for one node."""
        executable = self.plugins / "towpath-ipam"
        if not executable.exists():
            executable.symlink_to(self.shim.path.name)
        self.leases = LeaseStore(
            self.attach.folder / LEASES, boot_id=self.attach.boot_id, clock=lambda: self.now
        )
        self.leases.open()
        plugin = IpamPlugin(client, "node1", OneNode(), pods, set, NETWORK.networks, self.leases, 60.0, 90.0)
        tasks.append(asyncio.create_task(plugin.run()))
        return IpamCalls(self.networks, plugin, self.ask_ms), self.leases

    def _follow_policies(self, client: Client) -> list[Coroutine[Any, Any, None]]:
        """What the daemon's surroundings do."""
        pods = Reflector(client, Selection(kind=PODS), lambda key: self._event(key, pod=True))
        namespaces = Reflector(client, Selection(kind=NAMESPACES), lambda key: self._event(key, pod=False))

        def missing() -> str:
            return "" if pods.listed.is_set() and namespaces.listed.is_set() else "not listed yet"

        def pod_of(ref: PodRef) -> Pod | None:
            return pods.objects.get((ref.namespace, ref.name))

        self.policies = NetworkPolicies(client, 90, lambda: pods.objects, lambda: namespaces.objects, missing)
        self.firewalls = PodFirewalls(self.policies, Nft, lambda: self.journal.rows(), pod_of, self.owner)
        self.firewalls.changed(lambda: self._well.append(self.firewalls.enforce()))
        return [pods.run(), namespaces.run(), self.policies.run()]

    def _event(self, key: Key | None, *, pod: bool) -> None:
        if key is not None:
            (self.policies.pod_changed if pod else self.policies.namespace_changed)(key)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for what no event tells of."""
        for _ in range(6000):
            if holds():
                return
            await asyncio.sleep(0.01)
        raise AssertionError("it did not come about in 60 s")

    @asynccontextmanager
    async def towpath_ns(self) -> AsyncIterator[None]:
        """The real one, whose hands are there."""
        command = [sys.executable, "-m", "towpath.agent.ns", f"--plugins={self.plugins}:{DEBIAN}"]
        process = await asyncio.create_subprocess_exec(*command)
        try:
            async with asyncio.timeout(60):
                while not self.helper.there:  # noqa: ASYNC110 - another process
                    await asyncio.sleep(0.01)
            yield
        finally:
            process.terminate()
            await process.wait()

    # The cluster.

    def pod_of(self, ref: PodRef) -> Pod | None:
        """As a watch would have it."""
        try:
            found = self.api.get(PODS, ref.name, ref.namespace)
        except KeyError:
            return None
        return decode(PODS, "watch", json.dumps(found).encode(), "")

    def define(self, name: str, config: Any, namespace: str = "default", **annotations: str) -> None:
        spec = {} if config is None else {"config": config if isinstance(config, str) else json.dumps(config)}
        meta = {"name": name, "namespace": namespace, "annotations": annotations}
        self.api.put(DEFINITIONS, {"metadata": meta, "spec": spec})

    def pod(self, name: str, networks: Any = "", override: str = "", **labels: str) -> None:
        text = networks if isinstance(networks, str) else json.dumps(networks)
        annotations = {NETWORKS: text, DEFAULT_NETWORK: override}
        meta = {"name": name, "namespace": "default", "uid": f"uid-{name}", "annotations": annotations}
        meta["labels"] = labels
        self.api.put(PODS, {"metadata": meta, "spec": {}, "status": {}})

    def status(self, pod: str) -> list[dict[str, Any]]:
        """What both names of the annotation say."""
        annotations = self.api.get(PODS, pod, "default")["metadata"]["annotations"]
        assert annotations.get(STATUS) == annotations.get(LEGACY_STATUS)
        found: list[dict[str, Any]] = json.loads(annotations.get(STATUS, "[]"))
        return found

    async def events(self, pod: str) -> list[tuple[str, str]]:
        """Reason and message of each Event on a pod, all written by now."""
        await asyncio.gather(*self.telling._events)
        found = [event for (_, _), event in self.api.objects.get("core/v1/events", {}).items()]
        return [(e["reason"], e["message"]) for e in found if e["involvedObject"]["name"] == pod]

    # The runtime.

    def script(self, text: str, name: str = "script") -> None:
        path = self.plugins / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def environment(self, pod: str) -> dict[str, str]:
        args = f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod}"
        return {
            "CNI_CONTAINERID": pod,
            "CNI_NETNS": f"/proc/{os.getpid()}/fd/{self.attach.netns(pod)}",
            "CNI_IFNAME": "eth0",
            "CNI_ARGS": args,
            "CNI_PATH": f"{self.plugins}:{DEBIAN}",
            "PATH": os.environ["PATH"],
        }

    async def call(
        self, command: str, pod: str, config: Mapping[str, Any] = EMPTY, **env: str
    ) -> dict[str, Any]:
        """What the shim printed. Raises Refused."""
        async with asyncio.timeout(60):
            given = self.environment(pod) | env
            status, stdout, stderr = await self.shim.run(command, given, {**RUNTIME, **config})
        answer: dict[str, Any] = json.loads(stdout) if stdout.strip() else {}
        if status != 0:
            raise Refused(
                answer.get("code", -1), f"{answer.get('msg')}: {answer.get('details')} {stderr.decode()}"
            )
        return answer

    async def add(self, pod: str) -> dict[str, Any]:
        return await self.call("ADD", pod)

    async def delete(self, pod: str, **env: str) -> None:
        await self.call("DEL", pod, EMPTY, **env)

    async def refused(self, command: str, pod: str, config: Mapping[str, Any] = EMPTY) -> tuple[int, str]:
        try:
            await self.call(command, pod, config)
        except Refused as refused:
            return refused.code, refused.text
        raise AssertionError(f"{command} {pod} was not refused")

    def inside(self, pod: str) -> NetState:
        return observed_in(self.attach.netns(pod))

    def leftovers(self) -> list[str]:
        """Everything of any pod: interfaces, leases, rows, host-local's files."""
        found = [*self.attach.leftovers(), *(f"row {row.key}" for row in self.journal.rows())]
        files = Path("/run/cni/test").rglob("*")
        found += [str(f) for f in files if f.is_file() and f.name[0].isdigit()]
        with closing(LinuxKernel(nft=False)) as kernel:
            links = kernel.observe().links
        return found + [name for name in links if name.startswith(("tpn", "veth"))]

    def close(self) -> None:
        self.attach.close()
        shutil.rmtree("/run/cni", ignore_errors=True)
