"""Figures of pools and blocks: what nodes hold in spare is not used."""

from ipaddress import ip_address, ip_network

from towpath.ipam.block_plan import handle_of
from towpath.ipam.block_usage import block_usage, by_handle, kept_of, overlays, pool_usage
from towpath.ipam.blocks import Owner, new_block, take
from towpath.ipam.pools import Pool
from towpath.ipam.usage import Usage
from towpath.model.net import Addr

POOL = Pool(name="main", cidr=ip_network("10.42.0.0/24"), block=28, uid="u")
BLOCK = new_block(ip_network("10.42.0.16/28"), "n1", 1)
N1, N2, CALICO = (Owner(name, {}) for name in (handle_of("n1"), handle_of("n2"), "k8s-pod-network.abc"))


def addresses(first: int, last: int) -> list[Addr]:
    return [ip_address(f"10.42.0.{n}") for n in range(first, last)]


def test_a_pool_s_use_is_what_pods_have_and_not_what_nodes_have_marked() -> None:
    block = take(take(BLOCK, addresses(16, 26), N1), addresses(26, 28), CALICO)
    other = take(new_block(ip_network("10.42.0.32/28"), "n2", 1), addresses(32, 48), N2)
    elsewhere = take(new_block(ip_network("10.9.0.0/28"), "n1", 1), [ip_address("10.9.0.1")], N1)
    counts = {b.cidr: by_handle(b) for b in (block, other, elsewhere)}
    one = pool_usage(POOL, counts, {N1.handle: 3}, overlay=1, kept=5)
    assert (one.range, one.pool, one.uid, one.size) == ("10.42.0.0/24", "main", "u", 255)
    assert (one.used, one.foreign, one.reserved) == (3, 2 + 16, 5)  # n2 does not say what its pods have
    assert one.free == 255 - 3 - 18 - 5
    assert pool_usage(POOL, counts, {N1.handle: 3, N2.handle: 99}, 1, 5).used == 3 + 16


def test_of_its_own_block_a_node_has_all_that_is_free_and_of_another_s_what_it_borrowed() -> None:
    block = take(take(BLOCK, addresses(16, 20), N1), addresses(20, 23), N2)

    def figures(stock: list[Addr], leased: list[Addr], *, mine: bool) -> Usage:
        return block_usage(
            block,
            stock,
            mine=mine,
            skip=lambda a: a == ip_address("10.42.0.31"),
            reserved=lambda a: a in addresses(28, 30),
            leased=leased,
            rested=addresses(18, 19),
            foreign=addresses(24, 25),
        )

    own = figures(addresses(16, 20), addresses(16, 18), mine=True)
    assert (own.size, own.used, own.held, own.foreign, own.reserved) == (16 - 3 - 1, 2, 1, 1, 2)
    assert own.free == 12 - 2 - 1 - 2
    borrowed = figures(addresses(20, 23), addresses(20, 21), mine=False)
    assert (borrowed.size, borrowed.used, borrowed.free) == (3, 1, 2)


def test_network_addresses_of_podcidrs_are_counted_without_looking_at_each() -> None:
    assert overlays(ip_network("10.42.0.0/16"), 24) == 256
    assert overlays(ip_network("10.42.1.0/28"), 24) == 1
    assert overlays(ip_network("10.42.1.16/28"), 24) == 0
    assert overlays(ip_network("fd00::/48"), 64) == 65536
    assert overlays(ip_network("10.42.0.0/16"), None) == 0


def test_reserved_addresses_are_counted_once_and_not_those_that_somebody_has() -> None:
    block = take(BLOCK, addresses(16, 20), N1)
    nets = [ip_network(t) for t in ("10.42.0.18/31", "10.42.0.16/29", "10.42.7.0/24", "fd00::/64")]
    assert kept_of(POOL.cidr, nets, [block]) == 8 - 4
    assert kept_of(POOL.cidr, [ip_network("10.0.0.0/8")], [block]) == 256 - 4
