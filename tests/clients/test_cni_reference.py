"""Debian's reference plugins as judges: do they read our results, and do we read and write as they do?"""

import json
import os
import subprocess
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any

import pytest

from towpath.cni.result import Dns, Interface, IPConfig, Result, RouteConf

PLUGINS = Path("/usr/lib/cni")
pytestmark = [
    pytest.mark.clients,
    pytest.mark.skipif(
        not (PLUGINS / "static").exists(), reason="containernetworking-plugins is not installed"
    ),
]

IPAM = {
    "type": "static",
    "addresses": [{"address": "10.42.0.7/24", "gateway": "10.42.0.1"}, {"address": "fd00:10:42::7/64"}],
    "routes": [
        {"dst": "0.0.0.0/0"},
        {"dst": "10.9.0.0/16", "gw": "10.42.0.3"},
        {"dst": "::/0", "gw": "fd00:10:42::1"},
    ],
    "dns": {"nameservers": ["10.43.0.10"], "search": ["svc.local"], "options": ["ndots:5"]},
}
SAME = Result(
    ips=(
        IPConfig(address=ip_interface("10.42.0.7/24"), gateway=ip_address("10.42.0.1")),
        IPConfig(address=ip_interface("fd00:10:42::7/64")),
    ),
    routes=(
        RouteConf(dst=ip_network("0.0.0.0/0")),
        RouteConf(dst=ip_network("10.9.0.0/16"), gw=ip_address("10.42.0.3")),
        RouteConf(dst=ip_network("::/0"), gw=ip_address("fd00:10:42::1")),
    ),
    dns=Dns(nameservers=("10.43.0.10",), search=("svc.local",), options=("ndots:5",)),
)


def add(plugin: str, config: dict[str, Any]) -> bytes:
    env = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c",
        "CNI_NETNS": "/proc/self/ns/net",
        "CNI_IFNAME": "eth0",
    }
    done = subprocess.run(
        [PLUGINS / plugin],
        input=json.dumps(config).encode(),
        env={**env, "CNI_PATH": str(PLUGINS), "PATH": os.environ["PATH"]},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"])
def test_static_prints_what_we_print(version: str) -> None:
    printed = add("static", {"cniVersion": version, "name": "n", "type": "static", "ipam": IPAM})
    assert json.loads(SAME.to_version(version)) == json.loads(printed)
    assert Result.parse(printed) == SAME


@pytest.mark.parametrize("version", ["0.3.0", "0.3.1", "0.4.0", "1.0.0"])
def test_portmap_passes_our_result_on_unchanged(version: str) -> None:
    result = Result(
        interfaces=(
            Interface(name="cali0f1e2d3c4b5", mac="ee:ee:ee:ee:ee:ee"),
            Interface(name="eth0", mac="02:11:22:33:44:55", sandbox="/run/netns/pod"),
        ),
        ips=(IPConfig(address=ip_interface("10.42.0.7/32"), gateway=ip_address("169.254.1.1"), interface=1),),
        routes=(RouteConf(dst=ip_network("0.0.0.0/0"), gw=ip_address("169.254.1.1")),),
    )
    ours = json.loads(result.to_version(version))
    config = {"cniVersion": version, "name": "n", "type": "portmap", "prevResult": ours}
    passed = add("portmap", config)
    assert json.loads(passed) == ours
    assert Result.parse(passed) == result
