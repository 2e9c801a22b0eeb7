"""Blocks, affinities, handles, pools: their forms in the API, and what is made of bad ones."""

import copy
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from towpath.ipam.affinity import (
    Affinity,
    Config,
    affinity_name,
    labels,
    read_affinity,
    read_config,
    read_handle,
    write_affinity,
    write_handle,
)
from towpath.ipam.block_mirror import Mirror
from towpath.ipam.block_plan import Demand, World, handle_of, reserve, tidy
from towpath.ipam.blocks import Block, block_name, give, new_block, read_block, take, write_block
from towpath.ipam.errors import AddressUnavailable, BadBlock, BlocksExhausted
from towpath.ipam.pools import Labels, Pool, check_pools, eligible, read_pool

# As Calico 3.29's CNI plugin leaves a block: two pods and its node's tunnel.
CALICO: dict[str, Any] = {
    "apiVersion": "crd.projectcalico.org/v1",
    "kind": "IPAMBlock",
    "metadata": {
        "name": "10-48-7-64-29",
        "resourceVersion": "4711",
        "uid": "c0ffee",
        "annotations": {"projectcalico.org/metadata": "{}"},
        "creationTimestamp": "2026-01-01T00:00:00Z",
    },
    "spec": {
        "affinity": "host:worker-1",
        "allocations": [0, None, 1, 2, None, None, None, None],
        "attributes": [
            {
                "handle_id": "vxlan-tunnel-addr-worker-1",
                "secondary": {"node": "worker-1", "type": "vxlanTunnelAddress"},
            },
            {
                "handle_id": "k8s-pod-network.aa",
                "secondary": {"namespace": "n", "node": "worker-1", "pod": "p", "timestamp": "2026-01-01"},
            },
            {"handle_id": "k8s-pod-network.bb", "secondary": {"namespace": "n", "node": "w", "pod": "q"}},
        ],
        "cidr": "10.48.7.64/29",
        "deleted": False,
        "sequenceNumber": 1767225600000000003,
        "sequenceNumberForAllocation": {
            "0": 1767225600000000000,
            "2": 1767225600000000001,
            "3": 1767225600000000002,
        },
        "strictAffinity": False,
        "unallocated": [5, 6, 7, 4, 1],
        "aFieldOfTomorrow": {"kept": True},
    },
}
POOL = Pool(name="pool", cidr=ip_network("10.48.0.0/16"), block=29)


def selects(selector: str, found: Labels) -> bool:
    """Enough of Calico's language for here."""
    if selector == "all()":
        return True
    key, _, value = selector.partition(" == ")
    if not value:
        raise ValueError(f"{selector!r} is no selector")
    return found.get(key) == value.strip("'")


def world(*blocks: Block, node: str = "worker-1", confirmed: bool = True, **more: Any) -> World:
    affinities = {
        b.cidr: Affinity(node=node, cidr=b.cidr, state="confirmed", name="x", version="1", uid="u")
        for b in blocks
        if confirmed and b.node == node
    }
    more.setdefault("skip", lambda _: False)
    return World(node=node, blocks={b.cidr: b for b in blocks}, affinities=affinities, **more)


def test_what_calico_wrote_is_read_and_written_without_loss() -> None:
    block = read_block(CALICO)
    assert block.node == "worker-1" and block.version == "4711"
    assert block.of("k8s-pod-network.aa") == (ip_address("10.48.7.66"),)
    assert write_block(block) == CALICO


def test_what_calico_wrote_is_continued_in_its_order() -> None:
    block = read_block(CALICO)
    write = reserve(world(block), Demand(pools=(POOL,), batch=2))
    assert write.plural == "ipamhandles" and write.object["spec"]["block"] == {"10.48.7.64/29": 2}
    handle = read_handle(write.object)
    write = reserve(world(block, handle=handle), Demand(pools=(POOL,), batch=2))
    after = read_block(write.object)
    assert after.of(handle_of("worker-1")) == (ip_address("10.48.7.69"), ip_address("10.48.7.70"))
    assert after.free == (7, 4, 1) and after.sequence == block.sequence + 1
    assert after.sequences["5"] == block.sequence
    assert write.object["metadata"]["resourceVersion"] == "4711"
    assert write.object["spec"]["aFieldOfTomorrow"] == {"kept": True}
    back = give(after, after.of(handle_of("worker-1")), handle_of("worker-1"))
    assert back.free == (7, 4, 1, 5, 6)  # what was freed last comes last
    assert [o.handle for o in back.owners] == [o.handle for o in block.owners]


def test_only_its_own_is_given_back() -> None:
    block = read_block(CALICO)
    assert give(block, [ip_address("10.48.7.66"), ip_address("10.48.7.65")], "towpath-node-worker-1") == block


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cidr": "10.48.7.65/29"}, "host bits"),
        ({"cidr": "10.48.7.72/29"}, "would be 10-48-7-72-29"),
        ({"cidr": None}, "no text"),
        ({"cidr": "10.0.0.0/8"}, "larger than any block"),
        ({"allocations": [0]}, "8 entries"),
        ({"allocations": [9, None, 1, 2, None, None, None, None]}, "not the index"),
        ({"allocations": "x"}, "8 entries"),
        ({"unallocated": [5, 6, 7, 4]}, "leaves free"),
        ({"unallocated": [5, 6, 7, 4, 4]}, "leaves free"),
        ({"unallocated": [5, 6, 7, 4, 99]}, "numbers from 0"),
        ({"attributes": ["x"]}, "no mapping"),
        ({"attributes": {}}, "no list"),
        ({"affinity": 7}, "no text"),
        ({"sequenceNumber": "x"}, "no number"),
    ],
)
def test_a_block_that_contradicts_itself_is_refused(change: dict[str, Any], said: str) -> None:
    obj = copy.deepcopy(CALICO)
    obj["spec"] |= change
    with pytest.raises(BadBlock, match=said):
        read_block(obj)


def test_nothing_is_taken_of_a_block_that_cannot_be_read_nor_made_in_its_place() -> None:
    mirror, broken = Mirror("worker-1"), copy.deepcopy(CALICO)
    broken["spec"]["allocations"] = []
    mirror.take("ipamblocks", broken)
    small = Pool(name="small", cidr=ip_network("10.48.7.64/29"), block=29)
    assert [bad.name for bad in mirror.unreadable.values()] == ["10-48-7-64-29"]
    with pytest.raises(BlocksExhausted, match="1 blocks cannot be read"):
        reserve(mirror.world(Config(), lambda _: False), Demand(pools=(small,)))
    mirror.take("ipamblocks", CALICO | {"metadata": {**CALICO["metadata"], "resourceVersion": "4712"}})
    assert not mirror.unreadable and len(mirror.blocks) == 1


def test_an_event_from_before_an_own_write_is_not_believed() -> None:
    mirror = Mirror("worker-1")
    before = write_block(
        take(new_block(POOL.block_of(ip_address("10.48.0.1")), "worker-1", 1), [], world().owner)
    )
    given_back = {**before, "metadata": {**before["metadata"], "resourceVersion": "12"}}
    ours = take(read_block(given_back), [ip_address("10.48.0.1")], world().owner)
    marked = {**write_block(ours), "metadata": {**before["metadata"], "resourceVersion": "11"}}
    mirror.take("ipamblocks", given_back)
    mirror.take("ipamblocks", marked)
    (block,) = mirror.blocks.values()
    assert not block.of(handle_of("worker-1"))
    mirror.gone("ipamblocks", "10-48-0-0-29", "12")
    mirror.take("ipamblocks", marked)
    assert not mirror.blocks


def test_names_are_calicos() -> None:
    assert block_name(ip_network("10.48.7.64/26")) == "10-48-7-64-26"
    assert block_name(ip_network("fd00:10::40/122")) == "fd00-10--40-122"
    assert affinity_name("worker-1", ip_network("10.48.7.64/26")) == "worker-1-10-48-7-64-26"
    long = affinity_name("n" * 250, ip_network("10.48.7.64/26"))
    assert len(long) == 252 and "-10-48-7-64-26-" in long
    assert len(handle_of("n" * 253)) == 253
    # Calico's own example (libcalico-go/lib/backend/model/block_affinity_test.go has it as not empty).
    digest = "PY3TQE2E3XMTETLM2MJO3UITKPFB27YUJ4T4E5XGPEJON3SM4QAA"
    assert labels("node-a", ip_network("10.48.7.64/26")) == {
        "projectcalico.org/hostname-hash": digest,
        "projectcalico.org/affinity-type": "host",
        "projectcalico.org/ip-version": "4",
    }


def test_affinities_and_handles_keep_their_forms() -> None:
    one = Affinity(node="worker-1", cidr=ip_network("10.48.7.64/29"))
    obj = write_affinity(one)
    assert obj["spec"] == {
        "node": "worker-1",
        "cidr": "10.48.7.64/29",
        "state": "pending",
        "deleted": "false",
        "type": "host",
    }
    assert read_affinity(obj).cidr == one.cidr
    handle = {"metadata": {"name": "k8s-pod-network.aa"}, "spec": {"handleID": "k8s-pod-network.AA"}}
    assert read_handle(handle).handle == "k8s-pod-network.AA"
    assert write_handle(read_handle(handle))["metadata"]["name"] == "k8s-pod-network.aa"
    for read, bad in (
        (read_affinity, {"spec": {"node": "n", "cidr": "x", "state": "pending"}}),
        (read_affinity, {"spec": {"cidr": "10.0.0.0/29", "state": "pending"}}),
        (read_affinity, {"spec": {"node": "n", "cidr": "10.0.0.0/29", "state": "married"}}),
        (read_handle, {"metadata": {"name": "a"}, "spec": {"handleID": "b"}}),
        (read_handle, {"metadata": {"name": "a"}, "spec": {"handleID": "a", "block": {"c": "many"}}}),
        (read_config, {"spec": {"strictAffinity": "yes"}}),
        (read_config, {"spec": {"maxBlocksPerHost": -1}}),
    ):
        with pytest.raises(BadBlock):
            read(bad)
    assert read_config({"spec": {"maxBlocksPerHost": 0}}).most == 20


def pool(name: str, cidr: str, /, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "creationTimestamp": name}, "spec": {"cidr": cidr} | spec}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"cidr": "10.0.0.0/33"}, "spec.cidr"),
        ({"cidr": None}, "spec.cidr"),
        ({"blockSize": 19}, "from 20 to 32"),
        ({"blockSize": "x"}, "from 20 to 32"),
        ({"cidr": "10.0.0.0/28", "blockSize": 26}, "larger than the pool"),
        ({"nodeSelector": "?"}, "spec.nodeSelector"),
        ({"namespaceSelector": "?"}, "spec.namespaceSelector"),
    ],
)
def test_a_pool_that_cannot_be_is_refused(spec: dict[str, Any], said: str) -> None:
    with pytest.raises(BadBlock, match=said):
        read_pool(pool("p", "10.0.0.0/16", **spec), selects)


def test_of_overlapping_pools_the_older_is_used_and_none_outside_of_the_network() -> None:
    found = [
        read_pool(pool(n, c), selects)
        for n, c in (("a", "10.48.0.0/16"), ("b", "10.48.4.0/22"), ("c", "10.9.0.0/16"))
    ]
    good, bad = check_pools([p for p in found if p], [ip_network("10.48.0.0/13")])
    assert [p.name for p in good] == ["a"]
    assert [(b.name, "overlaps pool a" in str(b), "outside" in str(b)) for b in bad] == [
        ("b", True, False),
        ("c", False, True),
    ]


def test_which_pools_a_pod_may_use() -> None:
    objects = [
        pool("all", "10.0.0.0/20"),
        pool("gpu", "10.0.16.0/20", nodeSelector="gpu == 'yes'"),
        pool("team", "10.0.32.0/20", namespaceSelector="team == 'x'"),
        pool("off", "10.0.48.0/20", disabled=True),
        pool("hand", "10.0.64.0/20", assignmentMode="Manual"),
        pool("six", "fd00::/64"),
    ]
    pools = [p for p in (read_pool(o, selects) for o in objects) if p]
    assert read_pool(pool("lb", "10.1.0.0/16", allowedUses=["LoadBalancer"]), selects) is None

    def names(node: Labels, namespace: Labels, named: list[str] | None = None) -> list[str]:
        return [p.name for p in eligible(pools, 4, node, namespace, selects, named)]

    assert names({}, {}) == ["all"]
    assert names({"gpu": "yes"}, {"team": "x"}) == ["all", "gpu", "team"]
    assert names({}, {}, ["team", "10.0.64.0/20"]) == ["team", "hand"]
    for wrong, said in (
        ("gpu", "does not select"),
        ("off", "disabled"),
        ("six", "IPv6"),
        ("none", "no IPv4"),
    ):
        with pytest.raises(BadBlock, match=said):
            names({}, {}, [wrong])


def test_a_wanted_address_names_who_has_it() -> None:
    block = read_block(CALICO)
    with pytest.raises(AddressUnavailable, match="as p's"):
        reserve(world(block), Demand(pools=(POOL,), address=ip_address("10.48.7.66")))
    with pytest.raises(AddressUnavailable, match="none of the pools"):
        reserve(world(block), Demand(pools=(POOL,), address=ip_address("10.49.0.1")))
    strict = world(block, node="other", config=Config(strict=True))
    with pytest.raises(AddressUnavailable, match="strict"):
        reserve(strict, Demand(pools=(POOL,), address=ip_address("10.48.7.65")))
    write = reserve(world(), Demand(pools=(POOL,), address=ip_address("10.48.9.1")))
    assert write.name == "worker-1-10-48-9-0-29"


def test_a_node_takes_no_more_blocks_than_it_may_and_borrows() -> None:
    two = Pool(name="two", cidr=ip_network("10.48.7.64/28"), block=29)
    mine = new_block(ip_network("10.48.7.72/29"), "worker-2", 1)
    full = take(mine, [mine.address(n) for n in range(8)], world(node="worker-2").owner)
    may = Config(most=1)
    write = reserve(world(full, read_block(CALICO), node="worker-2", config=may), Demand(pools=(two,)))
    assert write.object["spec"]["block"] == {"10.48.7.64/29": 1}  # borrowed: one, as needed
    strict = Config(most=1, strict=True)
    with pytest.raises(BlocksExhausted, match="1 of at most 1 blocks; affinity is strict"):
        reserve(world(full, read_block(CALICO), node="worker-2", config=strict), Demand(pools=(two,)))


def test_reserved_addresses_are_left_and_a_block_of_nothing_else_is_not_claimed() -> None:
    one = Pool(name="one", cidr=ip_network("10.48.7.64/28"), block=29)
    kept = ip_network("10.48.7.64/29")
    write = reserve(world(skip=lambda a: a in kept), Demand(pools=(one,)))
    assert write.name == "worker-1-10-48-7-72-29"


def test_a_pool_of_the_node_s_own_networks_is_taken_first() -> None:
    big = Pool(name="big", cidr=ip_network("fd00::/48"), block=122)
    first = next(big.blocks("worker-1", [ip_network("fd00:0:0:7::/64")]))
    assert first == ip_network("fd00:0:0:7::/122")
    small = Pool(name="small", cidr=ip_network("10.48.0.0/24"), block=26)
    every = list(small.blocks("worker-1", [ip_network("10.48.0.64/26")]))
    assert every[0] == ip_network("10.48.0.64/26") and len(every) == len(set(every)) == 4


def test_while_some_nodes_know_no_blocks_a_node_keeps_to_its_pod_cidr() -> None:
    home, theirs = ip_network("10.48.3.0/24"), ip_network("10.48.4.0/24")
    mixed = world(home=(home,), closed=(theirs,))
    write = reserve(mixed, Demand(pools=(POOL,)))
    assert ip_network(write.object["spec"]["cidr"]).subnet_of(home)  # type: ignore[arg-type]
    for last in ("10.48.4.9", "10.48.200.1"):
        with pytest.raises(AddressUnavailable, match="not all nodes"):
            reserve(mixed, Demand(pools=(POOL,), address=ip_address(last)))
    elsewhere = Pool(name="else", cidr=ip_network("10.48.128.0/17"), block=29)
    full = world(read_block(CALICO), node="n", home=(home,), closed=(theirs,))
    with pytest.raises(BlocksExhausted, match="keeps to its podCIDR"):
        reserve(full, Demand(pools=(elsewhere,)))


def test_there_is_nothing_to_tidy_where_all_is_well() -> None:
    assert tidy(world(read_block(CALICO))) is None
