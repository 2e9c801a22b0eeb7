"""What the table's rules have dropped, by why: a scrape reads the kernel's own counters.

They begin anew where the kernel gets a chain anew, with another release or after a reboot.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress

from towpath.agent.metrics import Sample
from towpath.desired.ruleset import TABLE
from towpath.kernel.nft_counters import RuleCounters
from towpath.kernel.port import KernelRefused
from towpath.model.policy import DENIED

# Of each chain, what its rules that count drop, in order; the last one stands for all further ones.
_DROPPING: dict[str, tuple[str, ...]] = {
    "prerouting": ("loopback",),  # 127.0.0.0/8 by a wire
    "antispoof": ("router", "spoofed"),  # advertisements and redirects; sources that are not the pod's
    "input": ("invalid",),  # of pods, and of no connection
    "forward": ("invalid",),
    "from_pod": ("unknown",),  # pods without a verdict yet
    "to_pod": ("unknown",),
    "origin": ("misrouted",),  # pods' sources by an interface that does not lead to them
    "stray": ("stray",),  # to an address of this node's that no pod has, and about to leave it again
    "tunnel": ("tunnel",),  # VXLAN of no peer's
    "to_tunnel": ("tunnel",),  # VXLAN of a pod's to a node
}


def dropped() -> Iterator[Sample]:
    """Nothing where the kernel cannot be asked now."""
    with suppress(OSError, KernelRefused):
        counters = RuleCounters()
        try:
            yield from samples(lambda chain: counters.packets(TABLE, chain))
        finally:
            counters.close()


def samples(packets: Callable[[str], list[int | None]]) -> Iterator[Sample]:
    """``packets``: of a chain, as ``RuleCounters.packets``. Of what policies deny, the last rule counts all.

    Raises what it raises.
    """
    found: dict[str, int] = {}
    for chain, reasons in _DROPPING.items():
        counting = [number for number in packets(chain) if number is not None]
        for place, number in enumerate(counting):
            reason = reasons[min(place, len(reasons) - 1)]
            found[reason] = found.get(reason, 0) + number
    denied = [number for number in packets(DENIED) if number is not None]
    if denied:
        found["policy"] = denied[-1]
    for reason, number in found.items():
        yield Sample("towpath_dropped_packets", (reason,), number)
