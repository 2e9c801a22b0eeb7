"""One result in the shape of every version of the specification, compared with files a reader can check.

To write them anew: ``TOWPATH_GOLDEN=write pytest tests/golden/test_cni_results.py``, then read the diff.
"""

import json
import os
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import msgspec
import pytest

from towpath.cni.result import Dns, Interface, IPConfig, Result, RouteConf
from towpath.cni.version import SUPPORTED, at_least

FOLDER = Path(__file__).parent / "cni_results"

FULL = Result(
    interfaces=(
        Interface(name="cali0f1e2d3c4b5", mac="ee:ee:ee:ee:ee:ee", mtu=1450),
        Interface(
            name="eth0",
            mac="02:11:22:33:44:55",
            mtu=1450,
            sandbox="/run/netns/pod",
            socket_path="/run/vhost.sock",
            pci_id="0000:00:1f.6",
        ),
    ),
    ips=(
        IPConfig(address=ip_interface("10.42.0.7/32"), gateway=ip_address("169.254.1.1"), interface=1),
        IPConfig(address=ip_interface("fd00:10:42::7/128"), interface=1),
        IPConfig(address=ip_interface("10.42.0.8/32"), interface=1),
    ),
    routes=(
        RouteConf(dst=ip_network("0.0.0.0/0"), gw=ip_address("169.254.1.1"), mtu=1400, table=0),
        RouteConf(dst=ip_network("10.9.0.0/16")),
        RouteConf(
            dst=ip_network("::/0"),
            gw=ip_address("fe80::ecee:eeff:feee:eeee"),
            advmss=1380,
            priority=5,
            scope=253,
        ),
    ),
    dns=Dns(nameservers=("10.43.0.10",), domain="local", search=("svc.local", "local"), options=("ndots:5",)),
)


@pytest.mark.parametrize("version", SUPPORTED)
def test_shape(version: str) -> None:
    got = json.dumps(json.loads(FULL.to_version(version)), indent=2) + "\n"
    golden = FOLDER / f"{version}.json"
    if os.environ.get("TOWPATH_GOLDEN") == "write":
        golden.write_text(got)
    assert got == golden.read_text()


@pytest.mark.parametrize("version", SUPPORTED)
def test_read_back(version: str) -> None:
    """What a version can express survives a runtime's cache: prevResult is what ADD printed."""
    again = Result.parse((FOLDER / f"{version}.json").read_bytes())
    if at_least(version, "1.1.0"):
        assert again == FULL
        return
    routes = tuple(RouteConf(dst=r.dst, gw=r.gw) for r in FULL.routes)
    if at_least(version, "0.3.0"):
        interfaces = tuple(Interface(name=i.name, mac=i.mac, sandbox=i.sandbox) for i in FULL.interfaces)
        assert again == msgspec.structs.replace(FULL, interfaces=interfaces, routes=routes)
        return
    ips = tuple(msgspec.structs.replace(ip, interface=None) for ip in FULL.ips[:2])
    assert again == msgspec.structs.replace(FULL, interfaces=(), ips=ips, routes=routes)
