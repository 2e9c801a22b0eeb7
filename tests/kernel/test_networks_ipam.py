"""Extra networks with addresses of ``towpath-ipam``: the agent is asked by what it has had executed."""

# ruff: noqa: F401, F811  (fixtures are imported, and named again by the tests that use them)

from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from network_node import NetworkNode
from shim_harness import Shim, executable, shim
from test_networks import api, fresh

pytestmark = pytest.mark.kernel


def macvlan(subnet: str, **more: Any) -> dict[str, Any]:
    ipam = {"type": "towpath-ipam", "range": subnet}
    return {"cniVersion": "1.0.0", "type": "macvlan", "master": "und0", "ipam": ipam, **more}


async def test_networks_of_towpath_and_of_debian_take_addresses(fresh: NetworkNode) -> None:
    """Macvlan is done here without its plugin, and executed where a key is the plugin's."""
    fresh.ipam = True
    ranges = {"own": "192.168.7.0/24", "theirs": "192.168.8.0/24"}
    fresh.define("own", macvlan(ranges["own"]))
    fresh.define("theirs", macvlan(ranges["theirs"], linkInContainer=False))
    async with fresh.agent():
        given: set[str] = set()
        for name in ("p", "q"):
            fresh.pod(name, "own,theirs")
            await fresh.add(name)
            for entry, network in zip(fresh.status(name)[1:], ranges, strict=True):
                [address] = entry["ips"]
                assert ip_address(address) in ip_network(ranges[network])
                given.add(address)
        assert len(given) == 4
        assert {str(address) for address in fresh.leases.leased()} == given
        await fresh.call("CHECK", "p")
        for name in ("p", "q"):
            await fresh.delete(name)
        assert not fresh.leases.leased()
        assert fresh.leftovers() == []


@pytest.mark.parametrize("kind", [{"type": "macvlan", "master": "und0", "linkInContainer": False},
                                  {"type": "bridge", "bridge": "mynet0", "hairpinMode": True}],
                         ids=["macvlan", "bridge"])  # fmt: skip
@pytest.mark.parametrize("subnet", ["192.168.9.0/29", "fd09::/125"], ids=["IPv4", "IPv6"])
async def test_what_a_neighbour_has_is_not_given_out_by_another_plugin(
    fresh: NetworkNode, kind: dict[str, Any], subnet: str
) -> None:
    """Plugins make their interface before they ask for its addresses."""
    fresh.ipam, fresh.ask_ms = True, 4000
    taken = ip_network(subnet)[1]
    static = {"type": "static", "addresses": [{"address": f"{taken}/{ip_network(subnet).prefixlen}"}]}
    fresh.define("fixed", {**kind, "cniVersion": "1.0.0", "ipam": static})
    fresh.define("shared", {**kind, "cniVersion": "1.0.0", "ipam": {"type": "towpath-ipam", "range": subnet}})
    async with fresh.agent():
        fresh.pod("p", "fixed")
        fresh.pod("q", "shared")
        await fresh.add("p")
        mac = fresh.inside("p").links["net1"].mac
        _, text = await fresh.refused("ADD", "q")
        assert f"{taken} is in use on its segment, by {mac}; TP4021" in text
        assert not fresh.leases.leased()
        await fresh.delete("q")
        await fresh.add("q")
        [address] = fresh.status("q")[1]["ips"]
        assert ip_address(address) == taken + 1
        for name in ("p", "q"):
            await fresh.delete(name)
        assert fresh.leftovers() == []
