import pytest
from msgspec.structs import replace

from nodes import DUAL, UNDERLAY, V4_ONLY, V6_ONLY
from towpath.desired.mtu import mtu_findings, overlay_mtu, pod_mtu
from towpath.model.network import ClusterNetwork

HOST_GW = replace(DUAL, backend="host-gw")


@pytest.mark.parametrize(
    ("network", "nic", "four", "six", "pod"),
    [
        (DUAL, 1500, 1450, 1430, 1430),
        (V4_ONLY, 1500, 1450, 1430, 1450),
        (V6_ONLY, 1500, 1450, 1430, 1430),
        (DUAL, 9000, 8950, 8930, 8930),
        (replace(DUAL, mtu=1400), 1500, 1350, 1330, 1330),
        (replace(DUAL, mtu=9000), 1500, 1450, 1430, 1430),
        (replace(DUAL, direct_routing=True), 1500, 1450, 1430, 1430),
        (HOST_GW, 1500, 1500, 1500, 1500),
        (replace(DUAL, pod_mtu=1400), 1500, 1450, 1430, 1400),
    ],
)
def test_figures(network: ClusterNetwork, nic: int, four: int, six: int, pod: int) -> None:
    underlay = replace(UNDERLAY, mtu=nic)
    assert (overlay_mtu(network, underlay, 4), overlay_mtu(network, underlay, 6)) == (four, six)
    assert pod_mtu(network, underlay) == pod


@pytest.mark.parametrize(
    ("network", "nic", "codes"),
    [
        (DUAL, 1500, []),
        (DUAL, 1350, []),
        (DUAL, 1349, ["TP3013"]),
        (V4_ONLY, 600, []),
        (replace(DUAL, mtu=9000), 1500, ["TP3014"]),
        (replace(DUAL, pod_mtu=1450), 1500, ["TP3014"]),
        (replace(DUAL, pod_mtu=1200), 1500, ["TP3013"]),
    ],
)
def test_findings(network: ClusterNetwork, nic: int, codes: list[str]) -> None:
    assert [f.code for f in mtu_findings(network, replace(UNDERLAY, mtu=nic), "n1")] == codes
