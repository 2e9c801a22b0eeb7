"""What stands between a cluster and another way of giving out addresses."""

from ipaddress import ip_address, ip_network

from towpath.ipam.audit import RunningPod
from towpath.ipam.block_plan import handle_of
from towpath.ipam.blocks import Block, Owner, new_block, take
from towpath.ipam.migration import Standing, in_the_way, lacking
from towpath.ipam.pools import Pool
from towpath.model.net import Addr

NODE = Standing(name="n1", says="leaving", runs="blocks", pod_cidrs=(ip_network("10.42.1.0/24"),))


def block(cidr: str, node: str, **taken: tuple[int, ...]) -> Block:
    found = new_block(ip_network(cidr), node, 1)
    for name, ordinals in taken.items():
        owner = Owner(handle_of(name), {"node": name})
        found = take(found, [found.address(n) for n in ordinals], owner)
    return found


def running(name: str, node: str, *addresses: str) -> RunningPod:
    found: tuple[Addr, ...] = tuple(ip_address(text) for text in addresses)
    return RunningPod(name=f"default/{name}", uid=name, node=node, addresses=found, created="", leaving=False)


def way(*blocks: Block, pods: tuple[RunningPod, ...] = ()) -> list[str]:
    return in_the_way(NODE, {one.cidr: one for one in blocks}, pods)


def test_what_is_a_node_s_own_or_elsewhere_is_not_in_its_way() -> None:
    own, elsewhere = block("10.42.1.0/26", "n1", n1=(2, 3)), block("10.42.2.0/26", "n2", n2=(2,), n1=(5,))
    assert way(own, elsewhere, pods=(running("a", "n1", "10.42.1.2"),)) == []


def test_pods_that_have_to_be_restarted_are_named() -> None:
    borrowed = block("10.42.1.64/26", "n2", n1=(1,), n2=(2, 3))
    found = way(borrowed, pods=(running("a", "n1", "10.42.9.9"), running("b", "n2", "10.42.1.66")))
    assert found == [
        "Pod/default/a has 10.42.9.9, outside of the node's podCIDRs: restart it",
        "Pod/default/b of Node/n2 has 10.42.1.66: restart it",
        "1 addresses of block 10.42.1.64/26 are others' and no pod's: wait, or check",
    ]


def test_a_block_of_another_node_is_in_the_way_although_nothing_of_it_is_taken() -> None:
    (text,) = way(block("10.42.1.64/26", "n2"))
    assert "is Node/n2's" in text
    assert way(block("10.42.1.64/26", "")) == []


def test_a_block_larger_than_the_podcidr_counts_as_far_as_it_lies_in_it() -> None:
    assert way(block("10.42.0.0/22", "n1", n2=(3,))) == []  # 10.42.0.3
    assert len(way(block("10.42.0.0/22", "n1", n2=(259,)))) == 1  # 10.42.1.3


def test_a_family_without_a_pool_is_told_before_pods_lose_it() -> None:
    pools = [Pool(name="main", cidr=ip_network("10.42.0.0/17"), block=26)]
    (text,) = lacking(pools, [ip_network("10.42.0.0/16"), ip_network("fd00::/56")])
    assert "IPv6" in text
    closed = [Pool(name="main", cidr=ip_network("10.42.0.0/17"), block=26, closed="it is disabled")]
    assert len(lacking(closed, [ip_network("10.42.0.0/16")])) == 1
