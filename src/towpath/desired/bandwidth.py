"""Bandwidth limits as queueing disciplines: tbf towards the pod, redirect to an ifb and tbf from it."""

from towpath.desired.names import ifb_name
from towpath.model.attachment import Attachment
from towpath.model.net import Ifb, Link, Redirect, Shaper
from towpath.model.state import NetState

# Kubernetes refuses pod annotations below 1 kbit/s; a rate under 8 bit/s would be zero to the kernel.
_MIN_RATE = 1_000
# Kubernetes allows up to 1P; the queue of tbf is told as 32 bits of bytes.
_MAX_RATE = 10**12
# containerd and CRI-O know no burst and send 2^32-1 bits: half a gigabyte that is not limited at all.
_ABSURD_BURST = 2**31
_LATENCY_MS = 25
_LARGEST_SKB = 65_536
_ETHERNET_HEADER = 14


def burst_bits(rate: int, burst: int, mtu: int) -> int:
    """The burst to program, in bits, for a limit of ``rate`` bit/s.

    None given or an absurd one: 20 ms of the rate, at least one full-size GSO packet, so that short flows are
    limited too. A given one is kept, but for a floor of two frames and 4 ms: tbf drops packets larger than
    its bucket and cannot reach a rate whose bucket empties between two timer ticks (250 Hz).
    """
    if burst <= 0 or burst >= _ABSURD_BURST:
        burst = max(rate // 50, _LARGEST_SKB * 8)
    floor = max(2 * 8 * (mtu + _ETHERNET_HEADER), rate // 250)
    return min(max(burst, floor), _ABSURD_BURST - 1)


def shaping(att: Attachment) -> NetState:
    """Shapers, redirect and ifb of one attachment, all in the host's namespace; empty without limits."""
    limits = att.bandwidth
    if limits is None:
        return NetState()
    shapers: set[Shaper] = set()
    links: dict[str, Link] = {}
    redirects: set[Redirect] = set()
    if limits.ingress_rate > 0:
        shapers.add(_shaper(att.host_ifname, limits.ingress_rate, limits.ingress_burst, att.mtu))
    if limits.egress_rate > 0:
        ifb = ifb_name(att.host_ifname)
        links[ifb] = Link(name=ifb, kind=Ifb(), mtu=att.mtu)
        redirects.add(Redirect(dev=att.host_ifname, ifb=ifb))
        shapers.add(_shaper(ifb, limits.egress_rate, limits.egress_burst, att.mtu))
    return NetState(links=links, shapers=frozenset(shapers), redirects=frozenset(redirects))


def _shaper(dev: str, rate: int, burst: int, mtu: int) -> Shaper:
    # The kernel counts in bytes: what is no whole number of them would never be observed as desired.
    rate = min(max(rate, _MIN_RATE), _MAX_RATE) // 8 * 8
    return Shaper(dev=dev, rate=rate, burst=burst_bits(rate, burst, mtu) // 8 * 8, latency=_LATENCY_MS)
