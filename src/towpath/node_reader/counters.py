"""What the kernel counts of a node's traffic, in its own network and in its pods': /proc only."""

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from towpath.inventory.node_report import Flow

_TUNNELS, _OURS = "flannel", ("flannel", "cali", "eth", "en", "bond")
_LOST_BY_CONNTRACK = ("insert_failed", "drop", "early_drop")


class Counters(NamedTuple):
    """Since the namespaces came to be: of TCP ``segments`` and ``resent`` in all, the rest in the node's."""

    segments: int
    resent: int
    dropped: int
    tunnel_bytes: int

    def until(self, later: "Counters", seconds: float) -> Flow:
        """What came in between. A pod that has gone takes its counters along: never less than nothing."""
        more = [max(0, new - old) for old, new in zip(self, later, strict=True)]
        return Flow(
            seconds=round(seconds, 1), segments=more[0], resent=more[1], dropped=more[2], tunnel_bytes=more[3]
        )


def counters(proc: Path, processes: Iterable[Path]) -> Counters:
    """``processes``: those of the node, of which one of each network namespace is read. Raises OSError."""
    here = proc / "thread-self" / "net"
    segments = resent = 0
    for folder in _one_of_each(processes, here):
        try:
            told = tcp((folder / "snmp").read_text())
        except OSError:
            continue  # it has ended meanwhile
        segments, resent = segments + told[0], resent + told[1]
    dropped, through = devices((here / "dev").read_text())
    with contextlib.suppress(OSError):  # where nothing is tracked
        dropped += conntrack((here / "stat" / "nf_conntrack").read_text())
    return Counters(segments, resent, dropped, through)


def _one_of_each(processes: Iterable[Path], here: Path) -> list[Path]:
    seen = {(here.parent / "ns" / "net").readlink(): here}
    for process in processes:
        try:
            seen.setdefault((process / "ns" / "net").readlink(), process / "net")
        except OSError:
            continue
    return list(seen.values())


def tcp(snmp: str) -> tuple[int, int]:
    """Segments sent and sent again, of ``/proc/net/snmp``."""
    lines = [line.split()[1:] for line in snmp.splitlines() if line.startswith("Tcp:")]
    if len(lines) != 2:
        return 0, 0
    told = dict(zip(lines[0], lines[1], strict=False))
    return int(told.get("OutSegs", 0)), int(told.get("RetransSegs", 0))


def devices(dev: str) -> tuple[int, int]:
    """Packets dropped by the network's devices, and bytes through the tunnels, of ``/proc/net/dev``."""
    dropped = through = 0
    for line in dev.splitlines()[2:]:
        name, _, rest = line.partition(":")
        fields = rest.split()
        if name.strip().startswith(_OURS) and len(fields) >= 12:
            dropped += int(fields[3]) + int(fields[11])
            if name.strip().startswith(_TUNNELS):
                through += int(fields[0]) + int(fields[8])
    return dropped, through


def conntrack(stat: str) -> int:
    """Packets lost for want of a place, of ``/proc/net/stat/nf_conntrack``, which has a line a processor."""
    lines = [line.split() for line in stat.splitlines()]
    if not lines:
        return 0
    places = [lines[0].index(name) for name in _LOST_BY_CONNTRACK if name in lines[0]]
    return sum(int(line[place], 16) for line in lines[1:] for place in places if place < len(line))
