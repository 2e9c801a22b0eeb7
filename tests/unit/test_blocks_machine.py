"""Nodes that share pools of blocks: hypothesis drives them through races, crashes at any write, late watches,
pool changes and foreign hands, against an API that knows compare-and-swap and nothing else.
"""

import copy
from ipaddress import ip_network
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from towpath.ipam.affinity import Config
from towpath.ipam.block_mirror import Mirror
from towpath.ipam.block_plan import Demand, World, give_back, give_up, handle_of, reserve, tidy
from towpath.ipam.block_writes import Plural, Write
from towpath.ipam.blocks import Owner, read_block, take, write_block
from towpath.ipam.errors import AddressUnavailable, BlocksExhausted
from towpath.ipam.pools import Pool
from towpath.model.net import Addr

POOL = Pool(name="pool", cidr=ip_network("10.0.0.0/27"), block=29)
NODES = ("a", "b", "c")
FOREIGN = "k8s-pod-network.0123"


class Refused(Exception):
    """The API refused a write: something else is there by now."""


class Api:
    """Objects by plural and name; every change has a number, and watchers read them at their own pace."""

    def __init__(self) -> None:
        self.objects: dict[tuple[Plural, str], dict[str, Any]] = {}
        self.log: list[tuple[Plural, str, dict[str, Any] | None]] = []
        self.number = 100

    def apply(self, write: Write) -> dict[str, Any] | None:
        key = (write.plural, write.name)
        there = self.objects.get(key)
        if write.verb == "create":
            if there is not None:
                raise Refused
            return self._put(key, write.object, f"uid-{self.number}")
        if there is None:
            raise Refused
        meta = there["metadata"]
        if write.verb == "update":
            if write.object["metadata"]["resourceVersion"] != meta["resourceVersion"]:
                raise Refused
            return self._put(key, write.object, meta["uid"])
        if (write.version, write.uid) != (meta["resourceVersion"], meta["uid"]):
            raise Refused
        self.number += 1
        del self.objects[key]
        self.log.append((*key, None))
        return None

    def _put(self, key: tuple[Plural, str], obj: dict[str, Any], uid: str) -> dict[str, Any]:
        self.number += 1
        stored = copy.deepcopy(obj)
        stored["metadata"] |= {"resourceVersion": str(self.number), "uid": uid}
        self.objects[key] = stored
        self.log.append((*key, stored))
        return stored


class Node:
    """An agent: its picture, what it has given to pods (on its disk), and how far its watch has come."""

    def __init__(self, name: str, api: Api) -> None:
        self.name, self.api = name, api
        self.leased: set[Addr] = set()
        self.restart()

    def restart(self) -> None:
        self.mirror, self.read = Mirror(self.name), len(self.api.log)
        for (plural, _), obj in self.api.objects.items():
            self.mirror.take(plural, obj)

    def watch(self, events: int) -> None:
        for plural, name, obj in self.api.log[self.read : self.read + events]:
            if obj is None:
                self.mirror.gone(plural, name)
            else:
                self.mirror.take(plural, obj)
        self.read = min(len(self.api.log), self.read + events)

    def world(self, config: Config) -> World:
        return self.mirror.world(config, lambda a: int(a) % 32 == 0, sequence=self.api.number)

    def stock(self, config: Config) -> list[Addr]:
        world = self.world(config)
        return [a for b in world.blocks.values() for a in world.stock(b) if a not in self.leased]

    def write(self, write: Write) -> None:
        try:
            done = self.api.apply(write)
        except Refused:
            there = self.api.objects.get((write.plural, write.name))
            if there is None:
                self.mirror.gone(write.plural, write.name)
            else:
                self.mirror.take(write.plural, there)
            return
        if done is None:
            self.mirror.gone(write.plural, write.name, write.version)
        else:
            self.mirror.take(write.plural, done)


class Blocks(RuleBasedStateMachine):
    """``steps`` of a rule are how many writes a node gets to make before it dies, or pauses."""

    @initialize(strict=st.booleans(), most=st.sampled_from([1, 2, 20]))
    def begin(self, strict: bool, most: int) -> None:
        self.api = Api()
        self.nodes = {name: Node(name, self.api) for name in NODES}
        self.config = Config(strict=strict, most=most)

    @rule(name=st.sampled_from(NODES), batch=st.sampled_from([1, 3, 64]), steps=st.integers(0, 8))
    def reserve(self, name: str, batch: int, steps: int) -> None:
        node = self.nodes[name]
        for _ in range(steps):
            if node.stock(self.config):
                return
            try:
                node.write(reserve(node.world(self.config), Demand(pools=(POOL,), batch=batch)))
            except BlocksExhausted:
                return

    @rule(name=st.sampled_from(NODES), last=st.integers(1, 31), steps=st.integers(1, 8))
    def ask_for_one(self, name: str, last: int, steps: int) -> None:
        node, wanted = self.nodes[name], POOL.cidr.network_address + last
        for _ in range(steps):
            if wanted in node.stock(self.config):
                node.leased.add(wanted)
                return
            try:
                node.write(reserve(node.world(self.config), Demand(pools=(POOL,), address=wanted)))
            except (AddressUnavailable, BlocksExhausted):
                return

    @rule(name=st.sampled_from(NODES), count=st.integers(1, 8))
    def add_pods(self, name: str, count: int) -> None:
        node = self.nodes[name]
        node.leased.update(node.stock(self.config)[:count])

    @rule(name=st.sampled_from(NODES), count=st.integers(1, 8))
    def delete_pods(self, name: str, count: int) -> None:
        leased = self.nodes[name].leased
        for address in sorted(leased, key=int)[:count]:
            leased.discard(address)

    @rule(name=st.sampled_from(NODES), steps=st.integers(1, 6))
    def give_back(self, name: str, steps: int) -> None:
        node = self.nodes[name]
        for _ in range(steps):
            if (write := give_back(node.world(self.config), node.stock(self.config))) is None:
                return
            node.write(write)

    @rule(name=st.sampled_from(NODES), which=st.integers(0, 3))
    def give_up(self, name: str, which: int) -> None:
        node = self.nodes[name]
        own = sorted(node.mirror.affinities, key=str)
        if len(own) > which and (write := give_up(node.world(self.config), own[which])) is not None:
            node.write(write)

    @rule(name=st.sampled_from(NODES), steps=st.integers(1, 6))
    def tidy(self, name: str, steps: int) -> None:
        node = self.nodes[name]
        for _ in range(steps):
            if (write := tidy(node.world(self.config))) is None:
                return
            node.write(write)

    @rule(name=st.sampled_from(NODES), events=st.integers(1, 40))
    def hear(self, name: str, events: int) -> None:
        self.nodes[name].watch(events)

    @rule(name=st.sampled_from(NODES))
    def crash(self, name: str) -> None:
        self.nodes[name].restart()

    @rule(which=st.integers(0, 3))
    def calico_takes_one(self, which: int) -> None:
        """A Calico on some node assigns an address, as it would."""
        blocks = [read_block(o) for (p, _), o in self.api.objects.items() if p == "ipamblocks"]
        if len(blocks) <= which or blocks[which].deleted or not blocks[which].free:
            return
        block = blocks[which]
        after = take(
            block, [block.address(block.free[0])], Owner(FOREIGN, {"node": "z", "pod": "p", "namespace": "n"})
        )
        self.api.apply(
            Write(
                plural="ipamblocks",
                verb="update",
                name=block.object["metadata"]["name"],
                object=write_block(after),
            )
        )

    @precondition(lambda self: hasattr(self, "api"))
    @invariant()
    def every_lease_is_marked_as_its_nodes(self) -> None:
        marked = {}
        for (plural, _), obj in self.api.objects.items():
            if plural == "ipamblocks":
                block = read_block(obj)
                for ordinal, index in enumerate(block.allocations):
                    if index is not None:
                        marked[block.address(ordinal)] = block.owners[index].handle
        for node in self.nodes.values():
            for address in node.leased:
                assert marked.get(address) == handle_of(node.name), (node.name, address)

    @precondition(lambda self: hasattr(self, "api"))
    @invariant()
    def a_handle_never_counts_too_little(self) -> None:
        for node in self.nodes.values():
            found = self.api.objects.get(("ipamhandles", handle_of(node.name)))
            counts = found["spec"]["block"] if found and not found["spec"]["deleted"] else {}
            for (plural, _), obj in self.api.objects.items():
                if plural == "ipamblocks":
                    block = read_block(obj)
                    assert counts.get(str(block.cidr), 0) >= len(block.of(handle_of(node.name)))

    def teardown(self) -> None:
        """When all calms down, nothing contradicts anything, and nothing is lost."""
        if not hasattr(self, "api"):
            return
        for node in self.nodes.values():
            node.leased.clear()
        for _ in range(200):
            quiet = True
            for node in self.nodes.values():
                node.restart()
                world = node.world(self.config)
                write = tidy(world) or give_back(world, node.stock(self.config))
                if write is not None:
                    quiet = False
                    node.write(write)
            if quiet:
                break
        else:
            raise AssertionError("they never came to rest")
        left = [read_block(o) for (p, _), o in self.api.objects.items() if p == "ipamblocks"]
        assert all(owner.handle == FOREIGN for block in left for owner in block.owners)
        assert not [name for plural, name in self.api.objects if plural == "ipamhandles"]
        affinities = [o for (p, _), o in self.api.objects.items() if p == "blockaffinities"]
        assert {(o["spec"]["cidr"], o["spec"]["node"]) for o in affinities} == {
            (str(b.cidr), b.node) for b in left if b.node
        }
        assert all(o["spec"]["state"] == "confirmed" and o["spec"]["deleted"] == "false" for o in affinities)


TestBlocks = Blocks.TestCase
# The same examples each time; others are for ``make soak-ipam``.
TestBlocks.settings = settings(max_examples=40, stateful_step_count=50, deadline=None, derandomize=True)
