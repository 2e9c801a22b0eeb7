import pytest

from attachments import attachment
from towpath.desired.bandwidth import burst_bits, shaping
from towpath.desired.names import ifb_name
from towpath.model.attachment import Bandwidth
from towpath.model.state import NetState

CONTAINERD = 2**32 - 1


@pytest.mark.parametrize(
    ("rate", "burst", "want"),
    [
        (10_000_000, 0, 65_536 * 8),  # at least a GSO packet
        (10_000_000, CONTAINERD, 65_536 * 8),
        (1_000_000_000, CONTAINERD, 20_000_000),  # 20 ms
        (10_000_000, 800_000, 800_000),  # a given one is kept
        (1_000_000, 456, 2 * 8 * 1444),  # but two frames must fit
        (1_000_000_000, 1_000, 4_000_000),  # and 4 ms of it, or the rate is never reached
        (10**15, 0, 2**31 - 1),  # what the kernel can count
    ],
)
def test_burst(rate: int, burst: int, want: int) -> None:
    assert burst_bits(rate, burst, 1430) == want


def test_directions_are_independent() -> None:
    up = attachment("a", "10.42.0.5", bandwidth=Bandwidth(egress_rate=5_000_000, egress_burst=CONTAINERD))
    state = shaping(up)
    assert {s.dev for s in state.shapers} == {ifb_name(up.host_ifname)}
    down = attachment("a", "10.42.0.5", bandwidth=Bandwidth(ingress_rate=1))
    state = shaping(down)
    assert [(s.dev, s.rate, s.latency) for s in state.shapers] == [(down.host_ifname, 1_000, 25)]
    assert not state.links and not state.redirects
    assert shaping(attachment("a", "10.42.0.5", bandwidth=Bandwidth())) == NetState()
