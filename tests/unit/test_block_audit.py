"""What is wrong with block mode's objects as a whole, that needs no API server to be seen."""

from collections.abc import Iterable
from ipaddress import ip_network

from hypothesis import given
from hypothesis import strategies as st

from towpath.ipam.affinity import Affinity, affinity_name
from towpath.ipam.block_audit import Objects, audit_blocks
from towpath.ipam.blocks import new_block


def objects(cidrs: Iterable[str]) -> Objects:
    blocks = [new_block(ip_network(text), "n1", 1) for text in cidrs]
    affinities = [Affinity(node="n1", cidr=block.cidr, state="confirmed") for block in blocks]
    return Objects(
        blocks={block.cidr: block for block in blocks},
        affinities={affinity_name("n1", one.cidr): one for one in affinities},
        nodes=frozenset({"n1"}),
    )


def test_blocks_that_overlap_are_an_operators_to_part() -> None:
    (problem,) = audit_blocks(objects(["10.42.0.0/26", "10.42.0.32/28", "10.42.1.0/26", "fd00::/122"]))
    finding = problem.finding
    assert (finding.code, finding.object, finding.severity) == ("TP4045", "IPAMBlock/10.42.0.0/26", "error")
    assert "10.42.0.32/28" in finding.message
    assert "drain" in finding.fix and problem.write is None


@given(st.sets(st.integers(0, 63), max_size=20))
def test_blocks_beside_each_other_overlap_with_none(places: set[int]) -> None:
    assert audit_blocks(objects(f"10.42.0.{4 * place}/30" for place in places)) == ()
