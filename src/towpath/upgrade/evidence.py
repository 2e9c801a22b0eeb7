"""What gates saw: kept in the journal, shown in the report."""

from typing import Literal

import msgspec

State = Literal["pass", "fail", "untold"]


class PathSeen(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What probes of one path saw while a node had its turn.

    ``strip``: a character a moment from ``begin`` to ``end`` (seconds since 1970), as
    ``probe.strips.CHARACTERS`` has them. ``opened``: denied questions that were answered.
    """

    path: str
    family: int
    begin: float
    end: float
    sent: int
    lost: int = 0
    gap_ms: float = 0.0
    opened: int = 0
    level: str = ""
    strip: str = ""


class GateSeen(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One gate of a node: what it saw, in words, and for how long it looked."""

    gate: str
    state: State
    saw: str = ""
    seconds: float = 0.0
    paths: tuple[PathSeen, ...] = ()
