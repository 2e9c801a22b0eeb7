"""After any sequence of attachments, detachments and crashes, no plugin's ADD lacks its DEL."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from towpath.agent.network_builtin import Builtin
from towpath.agent.network_chains import Chains
from towpath.agent.network_firewalls import PodFirewalls
from towpath.agent.network_helper import Helper, Work
from towpath.agent.network_plugins import Plugins
from towpath.agent.network_policies import NetworkPolicies
from towpath.agent.networks import Networks
from towpath.agent.pod_devices import PodDevices
from towpath.api.core import Pod
from towpath.api.meta import ObjectMeta
from towpath.api.networks import NetworkAttachmentDefinition, NetworkSpec
from towpath.cni.errors import CniError, ErrorCode
from towpath.cni.parse import parse_net_conf
from towpath.cni.request import Request
from towpath.cni.result import Result
from towpath.cni.wire import Executed
from towpath.model.attachment import Attachment, PodRef
from towpath.multinet.annotation import NETWORKS
from towpath.multinet.choose import Lookup, NetworkSettings
from towpath.multinet.confine import Confinement
from towpath.multinet.definition import Definition, definition
from towpath.multinet.derive import Call
from towpath.multinet.journal import Journal, JournalError, Row

TYPES = ("one", "two", "three")
CHAINS = {"chain": ("one", "two"), "single": ("three",)}
RESULT = b'{"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.5/24"}]}'
Fate = str
"""What becomes of a step: well, fail, hang up (the runtime gives up), crash before it or after it."""
FATES = ("well", "fail", "hangup", "crash before", "crash after")


class Crashed(BaseException):
    """The agent is killed here: nothing of it runs on."""


class World:
    """The node: what plugins have done, and the file; agents come and go."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.attached: dict[tuple[str, str, str], bool] = {}
        self.main: set[str] = set()
        self.fates: list[Fate] = []
        self.networks = dict.fromkeys("pq", "chain,single")
        """What the pods' annotations ask for."""

    def fate(self) -> Fate:
        return self.fates.pop(0) if self.fates else "well"

    async def execute(self, path: str, env: Mapping[str, str], _: bytes, __: float | None) -> Executed:
        kind = path.rpartition("/")[2]
        key = env["CNI_CONTAINERID"], env["CNI_IFNAME"], kind
        fate = self.fate()
        if fate == "crash before":
            raise Crashed
        if env["CNI_COMMAND"] == "ADD":
            self.attached[key] = True  # whatever it says: it may have left something
        elif fate in ("well", "crash after"):
            self.attached.pop(key, None)
        if fate == "crash after":
            raise Crashed
        if fate == "hangup":
            raise ConnectionError("the shim is gone")
        return Executed(1, b"", b"no") if fate == "fail" else Executed(0, RESULT, b"")


class Main:
    """The default network, which works."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def add(self, r: Request) -> Result:
        if r.container_id in self._world.main:
            raise CniError(ErrorCode.BAD_ENVIRONMENT, "taken")
        self._world.main.add(r.container_id)
        return Result()

    async def delete(self, r: Request) -> None:
        self._world.main.discard(r.container_id)

    def knows(self, container_id: str, _: str) -> bool:
        return container_id in self._world.main

    def current(self) -> tuple[Attachment, ...]:
        return tuple(
            Attachment(
                container_id=pod,
                ifname="eth0",
                network="towpath",
                netns="/n",
                host_ifname=f"cali{pod}",
                addresses=(),
                mac="",
                mtu=1450,
                boot_id="boot",
                pod=PodRef(namespace="default", name=pod),
            )
            for pod in sorted(self._world.main)
        )


class Pods:
    def __init__(self, world: World) -> None:
        self._world = world

    async def find(self, namespace: str, name: str) -> Pod:
        return self.of(PodRef(namespace=namespace, name=name))

    def of(self, ref: PodRef) -> Pod:
        annotations = {NETWORKS: self._world.networks[ref.name]}
        return Pod(metadata=ObjectMeta(name=ref.name, namespace=ref.namespace, annotations=annotations))


class Hands:
    """towpath-ns, which is there."""

    there = True

    def __init__(self, world: World) -> None:
        self._world = world
        self.arrived = None

    async def visit(self, environment: Mapping[str, str], _: str, work: Work) -> None:
        await work(request(self._world, "ATTEND", environment["CNI_CONTAINERID"], 0))

    @asynccontextmanager
    async def hand(self) -> AsyncIterator[Request]:
        yield request(self._world, "ATTEND", "", 0)


class Definitions:
    """Two networks: a chain of two plugins, and one."""

    def lookup(self, namespace: str, name: str) -> Definition:
        plugins = [{"type": kind} for kind in CHAINS[name]]
        text = json.dumps({"cniVersion": "1.0.0", "plugins": plugins})
        nad = NetworkAttachmentDefinition(
            metadata=ObjectMeta(name=name, namespace=namespace), spec=NetworkSpec(config=text)
        )
        return definition(nad, Confinement(types=TYPES))

    async def complete(self, chosen: Callable[[Lookup], Any]) -> Any:
        return chosen(self.lookup)


class Silent:
    async def status(self, *_: Any) -> None:
        return

    async def retry(self) -> None:
        return

    def event(self, *_: Any, **__: Any) -> None:
        return

    def forget(self, *_: Any) -> None:
        return


class NoBuiltin:
    def does(self, _: Any) -> bool:
        return False


def agent(world: World, journal: Journal) -> Networks:
    """Another agent on what the one before left."""
    chains = Chains(Plugins(60), cast(Builtin, NoBuiltin()))
    return Networks(
        cast(Any, Main(world)),
        journal,
        chains,
        cast(Any, Definitions()),
        cast(Any, Silent()),
        Pods(world),
        NetworkSettings(confinement=Confinement(types=TYPES)),
        cast(Any, None),
        (),
        "boot",
        lambda: 0.0,
        no_policies(journal),
        PodDevices(Path("/nowhere"), Path("/nowhere")),
    )


def no_policies(journal: Journal) -> PodFirewalls:
    """As with an API server that has no MultiNetworkPolicies."""
    policies = NetworkPolicies(cast(Any, None), 90, dict, dict, lambda: "")
    policies._asked = True
    return PodFirewalls(policies, cast(Any, None), journal.rows, lambda _: None, "free")


def request(world: World, command: str, pod: str, number: int) -> Request:
    args = {"K8S_POD_NAMESPACE": "default", "K8S_POD_NAME": pod}
    return Request(
        command=command,
        config=parse_net_conf(b'{"cniVersion": "1.1.0", "name": "towpath"}'),
        container_id=pod,
        ifname="eth0",
        args=args,
        path=("/bin",),
        request_id=f"r{number}",
        environment={"CNI_CONTAINERID": pod, "CNI_PATH": "/bin"},
        executor=world.execute,
    )


Step = tuple[str, str, list[Fate], str]
"""Call, pod, what becomes of the plugins, and what the pod's annotation asks for from then on."""


async def carry_out(networks: Networks, world: World, step: Step, number: int) -> bool:
    """Whether it succeeded; a running pod's networks are changed for all pods at once."""
    command, pod, fates, wanted = step
    world.fates, world.networks[pod] = list(fates), wanted
    if command == "PLUG":
        hands = cast(Helper, Hands(world))
        plugging = networks.plugging(hands, Pods(world).of, 60.0)
        return await plugging.once() and pod in world.main
    call = networks.add if command == "ADD" else networks.delete
    await call(request(world, command, pod, number))
    return True


def asked_of_plugins(text: str) -> list[str]:
    """The types that an annotation comes to."""
    return sorted(kind for name in text.split(",") if name for kind in CHAINS[name])


async def run(world: World, steps: list[Step]) -> None:
    journal = Journal(world.path)
    networks = agent(world, journal)
    last: list[Step] = [("DEL", pod, [], "") for pod in "pq"]
    for number, step in enumerate([*steps, *last]):
        command, pod, *_ = step
        try:
            well = await carry_out(networks, world, step, number)
        except CniError:
            pass
        except Crashed:
            journal.close()
            if command != "PLUG":
                world.main.discard(pod)  # its own store sees to that
            journal = Journal(world.path)
            journal.open()
            networks = agent(world, journal)
        else:
            made = sorted(key[2] for key in world.attached if key[0] == pod)
            if well:
                assert made == ([] if command == "DEL" else asked_of_plugins(world.networks[pod]))
        known = {row.key for row in journal.rows()}
        assert {key[:2] for key in world.attached} <= known, "something is attached and not journalled"
    assert world.attached == {}
    assert journal.rows() == ()
    journal.close()


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ADD", "PLUG", "DEL"]),
        st.sampled_from("pq"),
        st.lists(st.sampled_from(FATES), max_size=7),
        st.sampled_from(["chain,single", "single", "single,chain", "chain,single,chain,single,chain", ""]),
    ),
    max_size=8,
)


@settings(max_examples=60)
@given(_STEPS)
def test_no_add_lacks_its_del(tmp_path_factory: pytest.TempPathFactory, steps: Any) -> None:
    asyncio.run(run(World(tmp_path_factory.mktemp("journal") / "networks.db"), steps))


def row(container: str, ifname: str, place: int = 0) -> Row:
    made = Call(
        container_id=container,
        netns="/n",
        ifname=ifname,
        network="n",
        version="1.0.0",
        plugins=({"type": "x"},),
    )
    return Row(call=made, place=place, main="eth0", runtime_network="t", reference="d/n", boot_id="b")


async def test_rows_outlive_the_agent_and_are_in_order(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "networks.db")
    await journal.begin([row("c", "net2", 1), row("c", "net1", 0), row("d", "net1")])
    done = await journal.done(row("c", "net1", 0), {"ips": []})
    await journal.failed(row("d", "net1"), "why")
    journal.close()
    assert "closed" in journal.problem
    other = Journal(tmp_path / "networks.db")
    other.open()
    assert other.of("c") == (done, row("c", "net2", 1))
    [kept] = other.of("d")
    assert (kept.failures, kept.problem) == (1, "why")
    for one in other.rows():
        await other.forget(one)
    assert not other
    other.close()


async def test_a_journal_that_cannot_be_used_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    journal = Journal(tmp_path / "file" / "networks.db")
    with pytest.raises(JournalError, match=r"networks\.db"):
        journal.open()
    assert journal.problem
    newer = sqlite3.connect(tmp_path / "newer.db")
    newer.executescript(
        "CREATE TABLE schema (id INTEGER PRIMARY KEY, version INTEGER); INSERT INTO schema VALUES (1, 2)"
    )
    newer.close()
    with pytest.raises(JournalError, match="version 2"):
        Journal(tmp_path / "newer.db").open()


async def test_a_damaged_row_is_kept_and_told(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "networks.db")
    await journal.begin([row("c", "net1"), row("d", "net1")])
    journal.close()
    with sqlite3.connect(tmp_path / "networks.db") as db:
        db.execute("UPDATE attachments SET body = 'x' WHERE container_id = 'c'")
    db.close()
    again = Journal(tmp_path / "networks.db")
    again.open()
    assert again.damaged == (("c", "net1"),)
    assert [one.key for one in again.rows()] == [("d", "net1")]
    again.close()
