"""What agents write of single packets, a line of JSON each in their logs, for ``towpath policy log``."""

from typing import Literal

import msgspec

LOGGER, EVENT = "towpath.policylog", "packet"
LOST = "packets_lost"

Action = Literal["deny", "log", "cut"]


class End(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One side. ``object``: ``Pod/NAMESPACE/NAME`` or ``Node/NAME``, empty for anybody else."""

    address: str
    port: int | None = None
    object: str = ""

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address and self.port is not None else self.address
        place = f"{host}:{self.port}" if self.port is not None else host
        return f"{self.object} ({place})" if self.object else place


class PolicyRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A packet that was denied, or that a rule logs; or a flow that was cut, by its first packet.

    ``time`` RFC 3339 in UTC. ``direction`` as the pod on this node sees it. ``rule`` is the path within
    ``policy``; without one, the default of ``tier`` decided, in which ``policies`` apply. ``host``: the host
    endpoint whose policies these are. ``verdict``: what became of a packet that was logged. ``reason``: why
    nothing of this is known.
    """

    time: str
    node: str
    action: Action
    direction: Literal["ingress", "egress", ""] = ""
    protocol: str = ""
    source: End
    destination: End
    icmp_type: int | None = None
    icmp_code: int | None = None
    tier: str = ""
    policy: str = ""
    rule: str = ""
    rule_index: int | None = None
    policies: tuple[str, ...] = ()
    host: str = ""
    verdict: str = ""
    reason: str = ""

    def because(self) -> str:
        """What decided, for people."""
        at = f" at {self.host}" if self.host else ""
        if self.policy:
            return f"{self.rule or f'{self.direction}[{self.rule_index}]'} of {self.policy}{at}"
        if self.tier:
            among = f" (in force: {', '.join(self.policies)})" if self.policies else ""
            return f"default of tier {self.tier}{at}{among}"
        return self.reason or (f"no policy or profile allows it{at}" if at else "no tier decides")

    def what(self) -> str:
        """``tcp``, ``icmp 8/0``."""
        icmp = f" {self.icmp_type}/{self.icmp_code}" if self.icmp_type is not None else ""
        return f"{self.protocol}{icmp}"

    def __str__(self) -> str:
        then = f", then {self.verdict}" if self.verdict else ""
        return f"{self.action} {self.what()} {self.source} -> {self.destination}: {self.because()}{then}"


class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line of an agent's log, as far as it is of interest here."""

    logger: str = ""
    event: str = ""
    record: PolicyRecord | None = None
    denials: int = 0
    messages: int = 0
