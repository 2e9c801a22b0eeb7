"""A node's life on the kernel that behaves: whatever happens, one turn of the loop brings what should be."""

from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec.structs import replace

from attachments import attachment
from nodes import DUAL, UNDERLAY, V4_ONLY, V6_ONLY, mac, node, snapshot
from towpath.api.core import Node
from towpath.desired.node import node_state
from towpath.desired.pods import pod_wiring
from towpath.desired.ruleset import TABLE, unbind
from towpath.desired.snapshot import Snapshot
from towpath.kernel.fake import FakeKernel
from towpath.model.attachment import Attachment, Bandwidth, PortMapping
from towpath.model.net import Address, Ifb, Link, Neighbour, Route, Veth
from towpath.model.network import ClusterNetwork
from towpath.model.op import Add, AddLink, Delete, DelLink, NftUpdate, SetLink
from towpath.model.state import NetState, Scope
from towpath.reconcile.check import differences, missing_devices
from towpath.reconcile.diff import diff

NETWORKS = (
    DUAL,
    V4_ONLY,
    V6_ONLY,
    replace(DUAL, direct_routing=True),
    replace(DUAL, backend="host-gw"),
    replace(V6_ONLY, backend="host-gw"),
    replace(DUAL, mtu=1400, random_fully=False),
    replace(V4_ONLY, masquerade=False, port=4789),
)
ON_LINK = [ip_address(f"{net}{n}") for n in range(12, 16) for net in ("172.30.0.", "fd00:172:30::")]
NIC = Link(name="eth0", kind=Veth(peer="w0", peer_mac=mac(99), peer_mtu=1500), mtu=1500, mac=mac(98))
FOREIGN: tuple[Address | Route | Neighbour, ...] = (
    Address(dev="eth0", interface=ip_interface("172.30.0.11/24")),
    Address(dev="eth0", interface=ip_interface("fd00:172:30::11/64")),
    Route(dst=ip_network("0.0.0.0/0"), dev="eth0", via=ip_address("172.30.0.1")),
    Route(dst=ip_network("10.99.0.0/24"), dev="eth0", via=ip_address("172.30.0.1")),
    Neighbour(dev="eth0", addr=ip_address("172.30.0.200"), mac=mac(97)),
)
numbers = st.integers(2, 5)
pods = st.integers(2, 4)


class Life(RuleBasedStateMachine):
    """Nodes and pods come, change and go; settings change; somebody breaks things."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = FakeKernel()
        self.network: ClusterNetwork = DUAL
        self.on_link: frozenset[Any] = frozenset(ON_LINK)
        self.nodes: dict[str, Node] = {"n1": node(1)}
        self.attachments: dict[int, Attachment] = {}
        self.gone: set[str] = set()

    @initialize()
    def boot(self) -> None:
        self.kernel.namespaces[7] = FakeKernel()
        self.kernel.apply([AddLink(NIC)], pod_netns=7)
        self.kernel.apply([Add(item) for item in FOREIGN])

    @rule(number=numbers, moved=st.booleans(), other_mac=st.booleans())
    def node_appears(self, number: int, moved: bool, other_mac: bool) -> None:
        notes: dict[str, str | None] = {}
        if moved:
            notes["public_ip"] = f"172.30.0.{30 + number}"
        if other_mac:
            notes["backend_v6_data"] = f'{{"VNI":1,"VtepMAC":"{mac(40 + number)}"}}'
        self.nodes[f"n{number}"] = node(number, self.network.backend, **notes)

    @rule(number=numbers)
    def node_leaves(self, number: int) -> None:
        self.nodes.pop(f"n{number}", None)

    @rule(number=numbers)
    def node_goes_mad(self, number: int) -> None:
        self.nodes[f"n{number}"] = node(number, "vxlan", backend_data="{", public_ipv6="::")

    @rule(network=st.sampled_from(NETWORKS), on_link=st.sets(st.sampled_from(ON_LINK)))
    def settings_change(self, network: ClusterNetwork, on_link: set[Any]) -> None:
        self.network, self.on_link = network, frozenset(on_link)
        self.nodes = {name: node(int(name[1:]), network.backend) for name in self.nodes}

    @rule(number=pods, ports=st.booleans(), limit=st.sampled_from([0, 8_000_000]))
    def pod_starts(self, number: int, ports: bool, limit: int) -> None:
        if number in self.attachments:
            return
        published = (PortMapping(host_port=8080 + number, container_port=80),) if ports else ()
        att = attachment(
            f"p{number}",
            f"10.42.1.{number}",
            f"fd00:10:42:1::{number}",
            ports=published,
            bandwidth=Bandwidth(ingress_rate=limit, egress_rate=limit) if limit else None,
        )
        self.kernel.namespaces[number + 10] = FakeKernel()
        self.kernel.apply(diff(NetState(), pod_wiring(att).host, Scope()), pod_netns=number + 10)
        self.attachments[number] = att

    @rule(number=pods)
    def pod_ends(self, number: int) -> None:
        att = self.attachments.pop(number, None)
        if att is not None:
            if self.kernel.tables:
                self.kernel.apply([unbind(att)])
            self.kernel.apply([DelLink(name) for name in pod_wiring(att).host.links])
            self.gone.discard(att.host_ifname)

    @rule(data=st.data())
    def somebody_breaks_something(self, data: st.DataObject) -> None:
        seen = self.kernel.observe((), TABLE)
        kinds = (seen.addresses, seen.routes, seen.neighbours, seen.fdb, seen.shapers, seen.redirects)
        items = sorted((i for kind in kinds for i in kind if i not in FOREIGN), key=repr)
        names = sorted(seen.links.keys() - {"lo", "eth0"})
        damage: list[Any] = [Delete(item) for item in items]
        damage += [SetLink(name, up=False) for name in names]
        damage += [SetLink(name, mtu=1300) for name in names]
        damage += [SetLink(name, mac=mac(96)) for name in names if not isinstance(seen.links[name].kind, Ifb)]
        damage += [DelLink(name) for name in names]
        if seen.nft is not None:
            damage += [
                NftUpdate(table=TABLE, set_chains=(replace(c, rules=()),)) for c in seen.nft.chains.values()
            ]
            damage += [
                NftUpdate(table=TABLE, del_elements=((s, s.elements),)) for s in seen.nft.sets.values()
            ]
        if damage:
            op = data.draw(st.sampled_from(damage))
            self.kernel.apply([op])
            if isinstance(op, DelLink):
                self.gone |= {op.name} & {a.host_ifname for a in self.attachments.values()}

    @rule()
    def flush_ruleset(self) -> None:
        self.kernel.tables.clear()

    def snapshot(self) -> Snapshot:
        return snapshot(
            *self.nodes.values(),
            network=self.network,
            underlay=replace(UNDERLAY, on_link=self.on_link),
            attachments=tuple(self.attachments.values()),
        )

    @invariant()
    def one_turn_is_enough(self) -> None:
        if not self.kernel.namespaces:
            return
        desired = node_state(self.snapshot())
        ops = diff(self.kernel.observe(desired.state.sysctls, TABLE), desired.state, desired.scope)
        self.kernel.apply(ops)
        seen = self.kernel.observe(desired.state.sysctls, TABLE)
        assert diff(seen, desired.state, desired.scope) == ()
        lost = missing_devices(seen, desired.state)
        assert set(lost) == self.gone
        unmet = differences(desired.state, seen)
        assert [line for line in unmet if not any(name in line for name in lost)] == []
        assert set(FOREIGN) <= {*seen.addresses, *seen.routes, *seen.neighbours}


Life.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestLife = Life.TestCase
