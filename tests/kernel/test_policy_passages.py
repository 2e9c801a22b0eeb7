"""What passes a real node with host endpoints arrives when the oracle says so.

Worlds are drawn as in ``test_policy_packets``; of what they have, three pods and the host endpoints are this
node's, other pods are another's that is reached directly (host-gw), and all addresses but its own are beyond
its uplink.
"""

import os
from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from policy_node import HERE, INTERFACES, LOCAL, JudgedNode
from test_policy_packets import sampled

from policy_worlds import hosted_worlds
from towpath.desired.snapshot import Snapshot
from towpath.model.failsafe import Failsafe, Failsafes
from towpath.policy.engine import Engine
from towpath.policy.evaluate import Flow, allows, asked, passing
from towpath.policy.ir import KIND, TCP, UDP, Endpoint, World

pytestmark = pytest.mark.kernel

HOSTS = {"eth0": "HostEndpoint/a", "*": "HostEndpoint/b"}
# What tells that all has come is sent by the node itself, to port 7.
SAFE = Failsafes(inbound=(Failsafe(TCP, 22), Failsafe(UDP, 80)), outbound=(Failsafe(UDP, 7),))


class HostedNode(JudgedNode):
    """With failsafe ports that the drawn flows are about."""

    def snapshot(self) -> Snapshot:
        return replace(super().snapshot(), failsafes=SAFE)


@pytest.fixture(scope="module")
def node() -> Iterator[HostedNode]:
    made = HostedNode()
    yield made
    made.close()


def placed(world: World) -> World:
    """Three pods here and any others elsewhere; two host endpoints, of which one has the node's addresses."""
    drawn = [one for one in world.endpoints if one.labels[KIND] == "pod"]
    labels = [one.labels for one in drawn]
    own = {*HERE, *(address for addresses in LOCAL for address in addresses)}
    away = [
        replace(
            one, name=f"away/{one.name}", node="n2", addresses=tuple(a for a in one.addresses if a not in own)
        )
        for one in drawn
    ]
    pods = [
        Endpoint(
            name=f"pod/{number}",
            labels=labels[number] if number < len(labels) else {KIND: "pod"},
            addresses=addresses,
            node="n1",
        )
        for number, addresses in enumerate(LOCAL)
    ]
    places = {name: interface for interface, name in HOSTS.items()}
    hosts = [
        replace(
            one, node="n1", interface=places[one.name], addresses=HERE if one.name == HOSTS["eth0"] else ()
        )
        for one in world.endpoints
        if one.name in places
    ]
    return replace(world, endpoints=(*pods, *away, *hosts), failsafes=SAFE, routing="direct")


def allowed(world: World, flow: Flow) -> bool:
    """By what this node asks: not the policies of pods elsewhere, which their own node does."""
    sources, destinations = asked(world, flow)
    return (
        all(allows(world, one, "egress", flow) for one in sources if one.node == "n1")
        and all(allows(world, one, "ingress", flow) for one in destinations if one.node == "n1")
        and all(allows(world, *passage[:2], flow, passage.aspects) for passage in passing(world, flow))
    )


# What fails is told as it is: to make it smaller would take minutes.
@settings(
    max_examples=int(os.environ.get("TOWPATH_EXAMPLES", "20")),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(hosted_worlds().map(placed), st.integers(0, 2**32))
def test_what_passes_arrives_as_the_oracle_says(node: HostedNode, world: World, seed: int) -> None:
    engine = Engine()
    engine.load(world)
    engine.set_local({dev: f"pod/{number}" for number, dev in enumerate(INTERFACES)})
    engine.set_hosts(HOSTS)
    node.program = engine.program()
    node.reconcile()
    node.forget()
    flows = sampled(node, Random(seed))
    expected = [allowed(world, flow) for flow in flows]
    arrived = node.arrived(flows, expected)
    assert [(f, e) for f, e, a in zip(flows, expected, arrived, strict=True) if a != e] == []
