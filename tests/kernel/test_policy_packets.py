"""Whatever the policies, real packets across a real node arrive when the oracle says so, and only then.

Worlds are drawn, compiled and brought into nftables as the agent does it, or by the compiler's own
transactions; each world replaces the one before it in the live table. ``TOWPATH_EXAMPLES`` is how many
sequences of worlds are tried.
"""

import os
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from itertools import product
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from policy_node import GRE, HERE, INTERFACES, LOCAL, JudgedNode

from policy_compiled import between, dense_worlds
from policy_object_events import Cluster
from policy_told import Told
from policy_worlds import ADDRESSES, OUTSIDE, PORTS
from towpath.model.net import Addr
from towpath.policy.engine import Engine
from towpath.policy.evaluate import Flow, judge
from towpath.policy.ir import ICMP, ICMPV6, KIND, SCTP, TCP, UDP, Direction, World
from towpath.policy.objects import Key, Objects

pytestmark = pytest.mark.kernel

CELLS = 64
PODS = tuple(f"pod/{number}" for number in range(len(LOCAL)))
SEARCH = settings(
    max_examples=int(os.environ.get("TOWPATH_EXAMPLES", "30")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
# What connection tracking takes for the beginning of something.
ICMP_TYPES = {4: (ICMP, ((8, 0), (8, 1), (13, 0))), 6: (ICMPV6, ((128, 0), (128, 1), (139, 0)))}
EVERYONE: tuple[Addr, ...] = tuple(map(ip_address, (*ADDRESSES, *OUTSIDE)))


@pytest.fixture(scope="module")
def node() -> Iterator[JudgedNode]:
    made = JudgedNode()
    yield made
    made.close()


def placed(world: World) -> World:
    """Its pods are this node's, as many as there are; of the others each has an address of its own."""
    free = [address for address in EVERYONE[: len(ADDRESSES)] if address not in (*HERE, *sum(LOCAL, ()))]
    local = iter(enumerate(LOCAL))
    endpoints = []
    for endpoint in world.endpoints:
        kind = endpoint.labels[KIND]
        number, addresses = next(local, (0, ())) if kind == "pod" else (0, ())
        if addresses:
            endpoints.append(replace(endpoint, name=f"pod/{number}", addresses=addresses))
        elif kind == "node":
            endpoints.append(replace(endpoint, addresses=HERE))
        else:
            endpoints.append(replace(endpoint, addresses=(free.pop(0),)))
    return replace(world, endpoints=tuple(endpoints))


def sampled(node: JudgedNode, random: Random) -> list[Flow]:
    """First packets of different flows, from or to pods of this node."""
    here = {address for addresses in LOCAL for address in addresses}
    pairs = [
        (source, destination)
        for source, destination in product(EVERYONE, EVERYONE)
        if source.version == destination.version
        and {source, destination} & here
        and node.place(source) != node.place(destination)
    ]
    found: dict[object, Flow] = {}
    for number in range(CELLS):
        flow = _flow(*random.choice(pairs), random)
        found.setdefault(_connection(flow, number), flow)
    return list(found.values())


def _flow(source: Addr, destination: Addr, random: Random) -> Flow:
    icmp, kinds = ICMP_TYPES[source.version]
    protocol = random.choice((TCP, TCP, TCP, UDP, UDP, SCTP, icmp, GRE))
    ported = protocol in (TCP, UDP, SCTP)
    kind, code = random.choice(kinds) if protocol == icmp else (0, 0)
    return Flow(
        source=source,
        destination=destination,
        protocol=protocol,
        source_port=random.choice((80, 81, 50000, 50001)) if ported else 0,
        destination_port=random.choice(PORTS) if ported else 0,
        icmp_type=kind,
        icmp_code=code,
    )


def _connection(flow: Flow, number: int) -> object:
    """What is the same of both directions of a connection. Each echo is one of its own."""
    if flow.protocol in (ICMP, ICMPV6):
        return number
    ends = ((flow.source, flow.source_port), (flow.destination, flow.destination_port))
    return flow.protocol, frozenset(ends)


def allowed(world: World, flow: Flow, names: Sequence[str] = PODS) -> bool:
    """By those pods of this node that the flow comes from or goes to; a pod that is not known allows nothing.

    The node itself is judged by the other side only, and not at all where it is the one who calls.
    """
    by_name = {endpoint.name: endpoint for endpoint in world.endpoints}
    if flow.source in HERE:
        return True
    ends: tuple[tuple[Direction, Addr], ...] = (("egress", flow.source), ("ingress", flow.destination))
    for direction, address in ends:
        for number, addresses in enumerate(LOCAL):
            if address in addresses:
                endpoint = by_name.get(names[number])
                if endpoint is None or not judge(world, endpoint, direction, flow):
                    return False
    return True


@SEARCH
@given(
    sequence=st.lists(dense_worlds().map(placed), min_size=2, max_size=3),
    seed=st.integers(0, 2**32),
    direct=st.booleans(),
)
def test_packets_arrive_as_the_oracle_says(
    node: JudgedNode, sequence: list[World], seed: int, direct: bool
) -> None:
    engine, world, random = Engine(), World(), Random(seed)
    engine.set_local(dict(zip(INTERFACES, PODS, strict=True)))
    for step, now in enumerate(sequence):
        engine.apply(between(world, now))
        if direct and step:
            update = engine.changes()
            node.kernel.apply([update] if update is not None else [])
        node.program = engine.program()
        ops = node.reconcile()
        assert not (direct and step and ops), ops
        world = now
        try_packets(node, world, random)


def try_packets(node: JudgedNode, world: World, random: Random, names: Sequence[str] = PODS) -> None:
    """``names``: what the world calls this node's pods."""
    node.forget()
    flows = sampled(node, random)
    expected = [allowed(world, flow, names) for flow in flows]
    arrived = node.arrived(flows, expected)
    assert [(f, e) for f, e, a in zip(flows, expected, arrived, strict=True) if a != e] == []


class Placed(Cluster):
    """Three pods of the cluster are this node's, four are elsewhere, and two have no address."""

    HERE = (("x", "a"), ("x", "b"), ("y", "a"))

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.wired = dict(zip(self.HERE, LOCAL, strict=True))

    def wire(self, objects: Objects) -> None:
        """They stay."""

    def addresses(self, pod: Key) -> list[Addr]:
        if pod in self.HERE:
            return [*LOCAL[self.HERE.index(pod)]]
        others = [("x", "c"), ("y", "b"), ("z", "a"), ("z", "c")]
        return [ip_address(f"10.0.0.{4 + others.index(pod)}")] if pod in others else []


@pytest.mark.parametrize("seed", range(int(os.environ.get("TOWPATH_EXAMPLES", "30")) // 10))
def test_of_objects_of_every_kind(node: JudgedNode, seed: int) -> None:
    """Of a cluster in which pods, namespaces, services and policies of all APIs come, change and go."""
    cluster, engine = Placed(seed), Engine()
    objects = Objects(engine)
    objects.wired(cluster.wired)
    engine.set_local(dict(zip(INTERFACES, NAMES, strict=True)))
    for _ in range(40):
        for _ in range(cluster.random.choice((2, 5, 20))):
            cluster.change(objects)
        told = Told()
        cluster.tell_all(Objects(told))
        node.program = engine.program()
        node.reconcile()
        try_packets(node, told.world(), cluster.random, NAMES)


NAMES = tuple(f"Pod/{space}/{name}" for space, name in Placed.HERE)
