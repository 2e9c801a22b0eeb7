"""Repairs: counted, logged once with who could have made them necessary, and a finding if it does not end."""

from collections import deque
from collections.abc import Callable, Iterable

from towpath.agent.metrics import Metrics
from towpath.log import get_logger
from towpath.model.finding import Finding
from towpath.model.net import Fdb
from towpath.model.op import Add, AddLink, Delete, NftUpdate, Op, SetLink, SetSysctl

log = get_logger("towpath.repair")

_QUIET = 600.0
_FIGHT = 5
_MANAGERS = "systemd-networkd or NetworkManager (leave cali* and flannel* unmanaged)"


def operation_name(op: Op) -> str:
    """A few words that make good metric labels: "AddLink", "Add Route", "NftUpdate"."""
    name = type(op).__name__
    return f"{name} {type(op.item).__name__}" if isinstance(op, Add | Delete) else name


def suspects(op: Op) -> str:
    """Who, on the nodes people run, makes ``op`` necessary."""
    match op:
        case NftUpdate():
            return "`nft flush ruleset` (nftables.service's file begins with it, as firewall scripts do)"
        case SetSysctl():
            return "sysctl --system (systemd-sysctl, package upgrades), NetworkManager, tuned, hardening"
        case SetLink(mac=str()):
            return "systemd-udevd (MACAddressPolicy=persistent in 99-default.link) or NetworkManager"
        case SetLink():
            return f"{_MANAGERS}, ip link by hand"
        case AddLink():
            return f"the device below it was deleted and took it along; {_MANAGERS}"
        case Add(item=Fdb()):
            return "another overlay agent (flanneld), bridge fdb by hand"
        case Delete():
            return "another network agent (flanneld, Canal), ip by hand"
    return f"a link that went down and up (the kernel flushes what it carried); {_MANAGERS}"


class Repairs:
    """``clock`` counts seconds. A kind of repair is logged again only after ten minutes without it."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._metrics, self._clock = metrics, clock
        self._times: dict[str, deque[float]] = {}
        self._last: dict[str, Op] = {}

    def note(self, ops: Iterable[Op]) -> None:
        """Somebody else's changes have been undone by ``ops``."""
        now = self._clock()
        by_kind: dict[str, list[Op]] = {}
        for op in ops:
            by_kind.setdefault(operation_name(op), []).append(op)
        for kind, found in by_kind.items():
            self._metrics.count("towpath_repairs", kind, by=len(found))
            times = self._recent(kind, now)
            if not times:
                shown = [op.describe() for op in found[:3]]
                log.warning(
                    "mended", kind=kind, number=len(found), operations=shown, suspects=suspects(found[0])
                )
            times.append(now)
            self._last[kind] = found[0]

    def findings(self, node: str) -> list[Finding]:
        """What was undone again and again within ten minutes."""
        now = self._clock()
        return [
            Finding(
                code="TP1023",
                object=f"Node/{node}",
                message=f"undone {len(times)} times in 10 minutes, lately by: {self._last[kind].describe()}",
                fix=f"find out who it is: {suspects(self._last[kind])}",
                severity="warning",
            )
            for kind in sorted(self._times)
            if len(times := self._recent(kind, now)) >= _FIGHT
        ]

    def _recent(self, kind: str, now: float) -> deque[float]:
        times = self._times.setdefault(kind, deque(maxlen=1000))
        while times and times[0] < now - _QUIET:
            times.popleft()
        return times
