"""Which node has which part of the network when blocks and borrowed addresses are cut out of podCIDRs."""

from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from towpath.desired.ownership import Holdings, beyond, parts
from towpath.model.net import Addr, Net

HOMES = {"a": ip_network("10.42.0.0/26"), "b": ip_network("10.42.0.64/26"), "c": ip_network("10.42.0.128/26")}
BLOCKS = list(ip_network("10.42.0.0/24").subnets(new_prefix=28))


def net(text: str) -> Net:
    return ip_network(text)


def test_without_blocks_a_node_has_its_pod_cidr() -> None:
    assert parts("a", HOMES["a"], {}) == (HOMES["a"],) and beyond("a", HOMES["a"], {}) == ()


def test_blocks_of_others_are_cut_out_and_own_ones_added() -> None:
    holdings: Holdings = {
        "a": (net("10.42.0.0/28"), net("10.42.0.64/28")),  # one at home, one in b's podCIDR
        "b": (net("10.42.0.96/28"), net("10.42.0.3/32")),  # one at home, and an address of a's block
    }
    assert parts("a", HOMES["a"], holdings) == (
        net("10.42.0.0/31"),
        net("10.42.0.2/32"),
        net("10.42.0.4/30"),
        net("10.42.0.8/29"),
        net("10.42.0.16/28"),
        net("10.42.0.32/27"),
        net("10.42.0.64/28"),
    )
    assert parts("b", HOMES["b"], holdings) == (
        net("10.42.0.3/32"),
        net("10.42.0.80/28"),
        net("10.42.0.96/27"),
    )
    assert beyond("a", HOMES["a"], holdings) == (net("10.42.0.64/28"),)
    assert beyond("b", HOMES["b"], holdings) == (net("10.42.0.3/32"),)


def test_what_a_node_borrows_in_its_own_pod_cidr_is_routed_back_to_it() -> None:
    holdings: Holdings = {"b": (net("10.42.0.16/28"),), "a": (net("10.42.0.17/32"),)}
    assert beyond("a", HOMES["a"], holdings) == (net("10.42.0.17/32"),)
    assert net("10.42.0.17/32") in parts("a", HOMES["a"], holdings)


def longest(address: Addr, routes: list[tuple[Net, str]]) -> str:
    found = [(n.prefixlen, node) for n, node in routes if address in n]
    return max(found)[1] if found else ""


@given(
    st.dictionaries(st.sampled_from(BLOCKS), st.sampled_from(sorted(HOMES)), max_size=8),
    st.dictionaries(st.integers(0, 255), st.sampled_from(sorted(HOMES)), max_size=5),
)
def test_routes_and_parts_agree_on_every_address(blocks: dict[Net, str], lent: dict[int, str]) -> None:
    truth: list[tuple[Net, str]] = [(home, node) for node, home in HOMES.items()]
    holdings: dict[str, list[Net]] = {}
    for block, node in blocks.items():
        holdings.setdefault(node, []).append(block)
        truth.append((block, node))
    for last, node in lent.items():
        address = ip_address("10.42.0.0") + last
        owner = next((n for b, n in blocks.items() if address in b), node)
        if owner != node:
            holdings.setdefault(node, []).append(ip_network(address))
            truth.append((ip_network(address), node))
    fixed = {node: tuple(nets) for node, nets in holdings.items()}
    routes = [(home, node) for node, home in HOMES.items()]
    routes += [(n, node) for node, home in HOMES.items() for n in beyond(node, home, fixed)]
    mine = {node: parts(node, home, fixed) for node, home in HOMES.items()}
    for address in ip_network("10.42.0.0/24"):
        expected = longest(address, truth)
        assert longest(address, routes) == expected
        holders = [node for node, nets in mine.items() for n in nets if address in n]
        assert holders == ([expected] if expected else [])
