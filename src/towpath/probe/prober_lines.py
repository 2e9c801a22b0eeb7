"""What a prober writes: one JSON object a line. Shared with whoever collects."""

import msgspec

from towpath.probe.samples import Chunk


class Started(msgspec.Struct, frozen=True, kw_only=True, tag="started", tag_field="is"):
    """The first line. ``starts``: slot 0 of each probe by number, nanoseconds of the wall clock."""

    prober: str
    starts: dict[int, int]
    unreachable: dict[int, str] = {}


class Slots(Chunk, frozen=True, kw_only=True, tag="slots", tag_field="is"):
    """Settled slots."""


class Ended(msgspec.Struct, frozen=True, kw_only=True, tag="ended", tag_field="is"):
    """The last line. ``cpu_s`` of this process."""

    prober: str
    cpu_s: float = 0.0


Line = Started | Slots | Ended
