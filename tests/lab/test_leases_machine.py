"""Nodes whose pods come and go, that die at any write, reboot, vanish, change podCIDRs; and an API server.

The lease stores are real SQLite files, the API server is the lab's, what collects garbage is the agent's own.
Only the kernel is a model: links by name, which die with their node's boot. Whatever happens, no address has
two wired pods; and once the dust has settled, what is leased is what is wired or awaited, no more and no
less.
"""

import asyncio
import contextlib
import itertools
import shutil
from collections.abc import Coroutine, Iterable, Iterator
from ipaddress import ip_network
from pathlib import Path
from tempfile import mkdtemp
from types import SimpleNamespace
from typing import Any, cast

import pytest
from apiserver_world import PODS as PODS_PATH
from apiserver_world import TOKEN, World, world
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from attachments import attachment
from towpath.agent.attach_wiring import Wiring
from towpath.agent.garbage import Garbage
from towpath.agent.twins import Twins
from towpath.api.core import Pod
from towpath.ipam.allocate import make_range
from towpath.ipam.errors import AddressError, RangeExhausted
from towpath.ipam.store import Choice, LeaseStore
from towpath.kube.client import Client
from towpath.kube.config import ClientConfig
from towpath.kube.errors import NotFound
from towpath.kube.kinds import PODS
from towpath.model.attachment import Attachment, PodRef
from towpath.model.net import Addr

pytestmark = pytest.mark.lab

CIDRS = tuple(ip_network("10.42.0.0/26").subnets(new_prefix=29))
NAMES = ("n1", "n2", "n3")
GRACE = 60.0
NEVER = 99
Key = tuple[str, str]
Dead = tuple[bytes, bytes]


class Killed(Exception):
    """The agent's process ended in the midst of what it was doing."""


class Directory:
    """Pods by name, each asked for."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def find(self, namespace: str, name: str) -> Pod | None:
        with contextlib.suppress(NotFound):
            return cast(Pod, await self._client.get(PODS, name, namespace))
        return None


class Node:
    """A disk, a kernel of which only links are known, and the agent that is alive now."""

    def __init__(self, name: str, folder: Path, cidr: Any, cluster: "Cluster") -> None:
        self.name, self.folder, self.cidr, self.cluster = name, folder, cidr, cluster
        self.boot, self.lives = 1, itertools.count(1)
        self.links: dict[str, Attachment] = {}
        self.routed: set[Addr] = set()
        self.folder.mkdir()
        self.twins = Twins(name, lambda: cluster.pods, lambda: None)
        self.life(folder / "0.db")

    def life(self, path: Path) -> None:
        """An agent begins with what is on the disk."""
        self.path = path
        self.store = LeaseStore(path, boot_id=str(self.boot), clock=lambda: self.cluster.now, hold=20.0)
        self.store.open()
        observed = SimpleNamespace(observed=lambda: SimpleNamespace(links=self.links))
        directory = Directory(self.cluster.client)
        self.garbage = Garbage(
            self.store, cast(Wiring, observed), directory, frozenset, self.undo, grace=GRACE
        )

    async def undo(self, doomed: Iterable[Attachment]) -> None:
        for att in doomed:
            self.links.pop(att.host_ifname, None)
            await self.store.release(att.container_id, att.ifname)

    def foreign(self, address: Addr) -> bool:
        wired = any(address in att.addresses for att in self.links.values()) or address in self.routed
        return wired or bool(self.twins.elsewhere(address))

    async def add(self, container: str, ref: PodRef) -> Attachment:
        """As the agent's ADD: the pod's earlier sandbox makes way. Raises AddressError."""
        link = f"cali{ref.name}"
        await self.undo([att for att in self.store.attachments() if att.host_ifname == link])
        ranges = ((make_range(self.cidr),),)
        choices: tuple[Choice, ...] = self.store.choose(ranges, (), self.foreign)
        fields: dict[str, Any] = {"container_id": container, "pod": ref, "host_ifname": link}
        att = attachment("", str(choices[0].address), boot_id=str(self.boot), **fields)
        await self.store.add(att, choices)
        self.links[link] = att
        return att

    def watch_writes(self, number: int, dead: list[Dead]) -> None:
        """Keep what is on the disk before statement ``number`` from now."""
        count = itertools.count(1)

        def told(_: str) -> None:
            if next(count) == number:
                dead.append((self.path.read_bytes(), Path(f"{self.path}-wal").read_bytes()))

        assert self.store._writer is not None
        self.store._writer._db.set_trace_callback(told)

    async def may_die(self, number: int, work: Coroutine[Any, Any, Any]) -> Any:
        """Carry out ``work``, and die at its write ``number`` if it comes to that. Raises Killed."""
        dead: list[Dead] = []
        links = dict(self.links)
        self.watch_writes(number, dead)
        try:
            result = await work
        finally:
            assert self.store._writer is not None
            self.store._writer._db.set_trace_callback(None)
        if not dead:
            return result
        self.links = {name: att for name, att in self.links.items() if name in links}  # none was made yet
        self.reborn(*dead[0])
        raise Killed

    def reborn(self, database: bytes | None = None, log: bytes = b"") -> None:
        """Another agent, with the files as they are, or as they were."""
        before = database if database is not None else None
        if before is None:
            before, log = self.path.read_bytes(), Path(f"{self.path}-wal").read_bytes()
        after = self.folder / f"{next(self.lives)}.db"
        after.write_bytes(before)
        Path(f"{after}-wal").write_bytes(log)
        self.store.close()
        self.life(after)


class Cluster:
    """The API server, one client, and the pods as every node's agent knows them."""

    def __init__(self, api: World, client: Client) -> None:
        self.api, self.client = api, client
        self.now = 1000.0
        self.pods: dict[tuple[str, str], Pod] = {}
        self.folder = Path(mkdtemp(dir="/dev/shm"))
        self.nodes = {
            name: Node(name, self.folder / name, cidr, self) for name, cidr in zip(NAMES, CIDRS, strict=False)
        }

    async def heard(self, name: str) -> None:
        """Every agent hears what has become of a pod."""
        key = ("default", name)
        self.pods.pop(key, None)
        with contextlib.suppress(NotFound):
            self.pods[key] = await self.client.get(PODS, name, "default")
        for node in self.nodes.values():
            node.twins.pod_changed(key)

    async def put(self, name: str, node: str) -> PodRef:
        spec = {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        made = await self.api.do("POST", PODS_PATH, body, 201)
        await self.heard(name)
        return PodRef(namespace="default", name=name, uid=made["metadata"]["uid"])

    async def status(self, name: str, phase: str, *texts: str) -> None:
        ips = [{"ip": text} for text in texts]
        change = {"status": {"phase": phase, "podIP": texts[0] if texts else "", "podIPs": ips}}
        merge = "application/merge-patch+json"
        await self.api.do("PATCH", f"{PODS_PATH}/{name}/status", change, Content_Type=merge)
        await self.heard(name)

    async def remove(self, name: str) -> None:
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0}
        await self.api.do("DELETE", f"{PODS_PATH}/{name}", options)
        await self.heard(name)

    def close(self) -> None:
        for node in self.nodes.values():
            node.store.close()
        shutil.rmtree(self.folder)


LOOP = SimpleNamespace(loop=None, api=None, client=None)


@pytest.fixture(scope="module", autouse=True)
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One API server for all examples, on a loop of its own."""
    loop = asyncio.new_event_loop()
    context = world(tmp_path_factory.mktemp("api"))
    found = loop.run_until_complete(context.__aenter__())
    LOOP.loop, LOOP.api = loop, found

    async def connect() -> Client:
        return Client(ClientConfig(server=found.url, source="test", token=TOKEN))

    LOOP.client = loop.run_until_complete(connect())
    yield
    loop.run_until_complete(LOOP.client.close())
    loop.run_until_complete(context.__aexit__(None, None, None))
    loop.close()


nodes = st.sampled_from(NAMES)
writes = st.integers(1, 12)


class Leases(RuleBasedStateMachine):
    """Each rule is an event of a cluster's life; ``write``: the agent is killed there, if it comes so far."""

    def __init__(self) -> None:
        super().__init__()
        self.cluster = Cluster(LOOP.api, LOOP.client)
        self.count = itertools.count(1)
        self.owed: list[tuple[str, str]] = []
        """Containers whose DEL may still come."""
        self.strangers: dict[Addr, str] = {}

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return LOOP.loop.run_until_complete(work)

    @initialize()
    def begin(self) -> None:
        assert not self.cluster.pods
        for node in self.cluster.nodes.values():
            for _ in range(2):
                self.do(self.start(node, f"p{next(self.count)}", NEVER))

    def living(self, node: Node) -> list[Pod]:
        pods = self.cluster.pods.values()
        mine = [p for p in pods if p.spec.node_name == node.name and p.metadata.name.startswith("p")]
        return [p for p in mine if p.status.phase != "Succeeded"]

    @rule(where=st.lists(st.tuples(nodes, writes), min_size=1, max_size=5))
    def pods_start(self, where: list[tuple[str, int]]) -> None:
        for name, write in where:
            self.do(self.start(self.cluster.nodes[name], f"p{next(self.count)}", write))

    async def start(self, node: Node, name: str, write: int) -> None:
        await self.sandbox(node, await self.cluster.put(name, node.name), write)

    async def sandbox(self, node: Node, ref: PodRef, write: int) -> None:
        container = f"c{next(self.count)}"
        self.owed.append((node.name, container))
        try:
            att = await node.may_die(write, node.add(container, ref))
        except Killed:
            return
        except RangeExhausted:
            free = set(node.cidr.hosts()) - {node.cidr[1]} - node.store.leased().keys()
            assert all(node.foreign(address) for address in free)
            return
        except AddressError:
            return
        await self.cluster.status(ref.name, "Running", *map(str, att.addresses))

    @rule(name=nodes, which=st.integers(0, 99), write=writes, told=st.booleans(), late=st.booleans())
    def pod_ends(self, name: str, which: int, write: int, told: bool, late: bool) -> None:
        """With DEL or without, and the API server hears of it before or after."""
        node = self.cluster.nodes[name]
        if not (pods := self.living(node)):
            return
        pod = pods[which % len(pods)]
        self.do(self.end(node, pod.metadata.name, write, told, late))

    async def end(self, node: Node, name: str, write: int, told: bool, late: bool) -> None:
        if not late:
            await self.cluster.remove(name)
        mine = [att for att in node.store.attachments() if att.pod is not None and att.pod.name == name]
        if told:
            with contextlib.suppress(Killed):
                await node.may_die(write, node.undo(mine))
        node.links.pop(f"cali{name}", None)  # dies with the pod's namespace
        if late:
            await self.cluster.remove(name)

    @rule(name=nodes, which=st.integers(0, 99), again=st.booleans(), write=writes)
    def sandbox_dies(self, name: str, which: int, again: bool, write: int) -> None:
        """The pod gets another, or has finished."""
        node = self.cluster.nodes[name]
        if not (pods := self.living(node)):
            return
        pod = pods[which % len(pods)]
        node.links.pop(f"cali{pod.metadata.name}", None)
        if again:
            ref = PodRef(namespace="default", name=pod.metadata.name, uid=pod.metadata.uid)
            self.do(self.sandbox(node, ref, write))
        else:
            self.do(self.cluster.status(pod.metadata.name, "Succeeded"))

    @rule(name=nodes, which=st.integers(0, 99))
    def a_link_is_deleted(self, name: str, which: int) -> None:
        """By somebody: the node has its proof, the API server has the pod."""
        node = self.cluster.nodes[name]
        if links := sorted(node.links):
            del node.links[links[which % len(links)]]

    @rule(which=st.integers(0, 99))
    def a_late_del_comes(self, which: int) -> None:
        if not self.owed:
            return
        name, container = self.owed.pop(which % len(self.owed))
        node = self.cluster.nodes[name]
        att = node.store.get(container, "eth0")
        if att is not None and att.host_ifname not in node.links:
            self.do(node.undo([att]))

    @rule(name=nodes)
    def agent_restarts(self, name: str) -> None:
        self.cluster.nodes[name].reborn()

    @rule(name=nodes, kept=st.integers(0, 3))
    def node_reboots(self, name: str, kept: int) -> None:
        """Some pods are gone when it is back, the others get new sandboxes."""
        node = self.cluster.nodes[name]
        node.links.clear()
        node.boot += 1
        node.reborn()
        for index, pod in enumerate(self.living(node)):
            ref = PodRef(namespace="default", name=pod.metadata.name, uid=pod.metadata.uid)
            if index % 4 <= kept:
                self.do(self.sandbox(node, ref, NEVER))
            else:
                self.do(self.cluster.remove(pod.metadata.name))

    @rule(name=nodes)
    def node_is_lost(self, name: str) -> None:
        """With its disk and its pods; another one takes its name and range."""
        node = self.cluster.nodes[name]
        for pod in [p for p in self.cluster.pods.values() if p.spec.node_name == name]:
            self.do(self.cluster.remove(pod.metadata.name))
        node.store.close()
        shutil.rmtree(node.folder)
        self.cluster.nodes[name] = Node(name, node.folder, node.cidr, self.cluster)
        for key in self.cluster.pods:
            self.cluster.nodes[name].twins.pod_changed(key)

    @rule(name=nodes, other=nodes, number=st.integers(0, len(CIDRS) - 1))
    def ranges_change(self, name: str, other: str, number: int) -> None:
        """A Node was deleted and made again: its range is another's now, and its pods run on in it."""
        if all(node.cidr != CIDRS[number] for node in self.cluster.nodes.values()):
            node, heir = self.cluster.nodes[name], self.cluster.nodes[other]
            node.cidr, heir.cidr = CIDRS[number], node.cidr

    @rule(name=nodes, other=nodes, index=st.integers(2, 6))
    def another_ipam_gives_it_out(self, name: str, other: str, index: int) -> None:
        """A pod of another node has, by the API server, an address of this node's range."""
        address = self.cluster.nodes[name].cidr[index]
        taken = {a for node in self.cluster.nodes.values() for a in node.store.leased()}
        if name != other and address not in taken | self.strangers.keys():
            stranger = f"s{next(self.count)}"
            self.do(self.cluster.put(stranger, other))
            self.do(self.cluster.status(stranger, "Running", str(address)))
            self.strangers[address] = stranger
            self.cluster.nodes[other].routed.add(address)

    @rule(seconds=st.floats(1, 100))
    def time_passes(self, seconds: float) -> None:
        self.cluster.now += seconds
        for node in self.cluster.nodes.values():
            self.do(node.garbage.collect())

    @rule()
    def the_dust_settles(self) -> None:
        for node in self.cluster.nodes.values():
            self.do(node.garbage.look())
        self.cluster.now += GRACE + 1
        for node in self.cluster.nodes.values():
            needed = {a for att in node.store.attachments() if self.needs(node, att) for a in att.addresses}
            self.do(node.garbage.collect())
            assert node.store.leased().keys() == needed

    def needs(self, node: Node, att: Attachment) -> bool:
        """Wired, or awaited: one witness is enough for a lease to stay."""
        wired = node.links.get(att.host_ifname)
        if wired is not None and wired.container_id == att.container_id:
            return True
        pod = self.cluster.pods.get(("default", att.pod.name if att.pod else ""))
        mine = pod is not None and att.pod is not None and pod.metadata.uid == att.pod.uid
        return mine and pod is not None and pod.status.phase != "Succeeded"

    @invariant()
    def no_address_has_two_pods(self) -> None:
        wired = [
            (address, f"{att.pod} on {node.name}")
            for node in self.cluster.nodes.values()
            for att in node.links.values()
            for address in att.addresses
        ]
        wired += [(address, name) for address, name in self.strangers.items() if self.stands(name)]
        assert len({address for address, _ in wired}) == len(wired), wired
        for node in self.cluster.nodes.values():
            leased = node.store.leased()
            for att in node.links.values():
                assert leased.get(att.addresses[0]) == (att.container_id, att.ifname)

    def stands(self, name: str) -> bool:
        pod = self.cluster.pods.get(("default", name))
        return pod is not None and pod.status.phase == "Running"

    def teardown(self) -> None:
        try:
            self.the_dust_settles()
        finally:
            for _, name in list(self.cluster.pods):
                self.do(self.cluster.remove(name))
            self.cluster.close()


TestLeases = Leases.TestCase
TestLeases.settings = settings(
    max_examples=12,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
