"""From a logged packet to a record that names the rule. Nothing here waits or reads."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal, NamedTuple, Protocol

from towpath.api.policy_record import End, PolicyRecord
from towpath.desired.names import POD_PREFIX
from towpath.desired.policy_chains import DENIAL_MARK
from towpath.kernel.nflog import LogMessage, Seen
from towpath.model.net import Addr
from towpath.policy.causes import Cause, LogRule, Packet
from towpath.policy.clauses import LOG_MARK
from towpath.policy.connections import protocol_text
from towpath.policy.ir import ICMP, ICMPV6, Aspect, Direction

_UNKNOWN = (
    "no policy denies it by now: policies have changed since, the pod is not known yet, or the packet "
    "belongs to no connection"
)
_GONE = "the rule is not in force any more"
# By netfilter's hook: prerouting, input, forward, output, postrouting; -1 where it was not told.
_PODS = frozenset({-1, 1, 2})
_HOSTS: dict[int, tuple[tuple[Aspect, Direction], ...]] = {
    0: (("untracked", "ingress"), ("pre-dnat", "ingress")),
    1: (("local", "ingress"),),
    2: (("forwarded", "ingress"), ("forwarded", "egress")),
    3: (("untracked", "egress"), ("local", "egress")),
    4: (("local", "egress"),),
}
_NOT_OF_PODS = frozenset({"untracked", "local"})


class Judge(Protocol):
    """The compiled policies, asked about single packets (``policy.engine.Engine``)."""

    def cause(self, endpoint: str, direction: Direction, packet: Packet) -> Cause | None:
        """What decides of a packet that a local endpoint sends or gets; None: it is not known."""
        ...

    def host_cause(
        self, interface: str, aspect: Aspect, direction: Direction, packet: Packet
    ) -> Cause | None:
        """The same of the host endpoint at an interface; None: there is none."""
        ...

    def logged(self, identity: str) -> LogRule | None:
        """The rule in force whose log lines end so."""
        ...


class Where(NamedTuple):
    """``local``: this node's endpoints by address. ``names`` of any addresses. ``interfaces`` by index."""

    node: str
    local: Mapping[Addr, str]
    names: Mapping[Addr, str]
    interfaces: Mapping[int, str] = {}

    def name(self, address: Addr) -> str:
        """Empty for somebody of whom nothing is known."""
        return self.local.get(address) or self.names.get(address, "")


def record(message: LogMessage, judge: Judge, where: Where, now: float) -> PolicyRecord | None:
    """None for what is not ours, or no IP packet. ``now`` counts where the kernel had no time."""
    seen = message.packet
    if seen is None:
        return None
    time = message.time or now
    if message.prefix == DENIAL_MARK:
        direction, why = denial(message, seen, judge, where)
        if why is None:
            return told(seen, where, time, "deny", reason=_UNKNOWN)
        return told(seen, where, time, "deny", direction=direction, why=why)
    if message.prefix.startswith(LOG_MARK):
        return _logged(message.prefix, seen, judge, where, time)
    return None


def denial(message: LogMessage, seen: Seen, judge: Judge, where: Where) -> tuple[Direction, Cause | None]:
    """Which side denies a packet, and why, in the order in which the kernel asks: the sending pod, the one
    that gets it, the host endpoint it came by, the one it leaves by; None: none of them.
    """
    asked = [
        (direction, judge.cause(where.local[own], direction, _packet(seen, own, peer)))
        for direction, own, peer in _sides(seen)
        if own in where.local and message.hook in _PODS
    ]
    for aspect, direction in _HOSTS.get(message.hook, ()):
        interface = where.interfaces.get(message.came_by if direction == "ingress" else message.leaves_by)
        if interface is None or (aspect in _NOT_OF_PODS and interface.startswith(POD_PREFIX)):
            continue
        own, peer = seen.source, seen.destination
        if direction == "ingress":
            own, peer = peer, own
        asked.append((direction, judge.host_cause(interface, aspect, direction, _packet(seen, own, peer))))
    for direction, why in asked:
        if why is not None and not why.allowed:
            return direction, why
    return "egress", None


def _logged(prefix: str, seen: Seen, judge: Judge, where: Where, time: float) -> PolicyRecord:
    rule = judge.logged(prefix.rpartition("#")[2])
    if rule is None:
        return told(seen, where, time, "log", reason=f"{_GONE}: {prefix.removeprefix(LOG_MARK)}")
    then = None
    for direction, own, peer in _sides(seen):
        if direction == rule.direction and own in where.local:
            then = judge.cause(where.local[own], direction, _packet(seen, own, peer))
    verdict = "" if then is None else "allow" if then.allowed else "deny"
    why = Cause(allowed=True, tier=rule.tier, policy=rule.policy, path=rule.path, index=rule.index)
    return told(seen, where, time, "log", direction=rule.direction, why=why, verdict=verdict)


def told(
    seen: Seen,
    where: Where,
    time: float,
    action: Literal["deny", "log", "cut"],
    *,
    direction: Direction | Literal[""] = "",
    why: Cause | None = None,
    verdict: str = "",
    reason: str = "",
) -> PolicyRecord:
    """The record."""
    icmp = seen.protocol in (ICMP, ICMPV6) and seen.first >= 0
    ports = seen.first >= 0 and not icmp
    why = why or Cause(allowed=False)
    return PolicyRecord(
        time=datetime.fromtimestamp(time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        node=where.node,
        action=action,
        direction=direction,
        protocol=protocol_text(seen.protocol),
        source=_end(seen.source, seen.first if ports else None, where),
        destination=_end(seen.destination, seen.second if ports else None, where),
        icmp_type=seen.first if icmp else None,
        icmp_code=seen.second if icmp else None,
        tier=why.tier,
        policy=why.policy,
        rule=why.path,
        rule_index=why.index if why.index >= 0 else None,
        policies=why.policies,
        host=why.host,
        verdict=verdict,
        reason=reason,
    )


def _sides(seen: Seen) -> tuple[tuple[Direction, Addr, Addr], ...]:
    return ("egress", seen.source, seen.destination), ("ingress", seen.destination, seen.source)


def _packet(seen: Seen, own: Addr, peer: Addr) -> Packet:
    return Packet(own, peer, seen.protocol, max(seen.first, 0), max(seen.second, 0))


def _end(address: Addr, port: int | None, where: Where) -> End:
    return End(address=str(address), port=port, object=where.name(address))
