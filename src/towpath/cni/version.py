"""Versions of the CNI specification, and which commands came with which."""

from typing import Final

SUPPORTED: Final = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
OLDEST: Final = SUPPORTED[0]
NEWEST: Final = SUPPORTED[-1]

_INTRODUCED = {"CHECK": "0.4.0", "STATUS": "1.1.0", "GC": "1.1.0"}


def at_least(version: str, other: str) -> bool:
    """Whether ``version`` is ``other`` or newer; both must be in SUPPORTED."""
    return SUPPORTED.index(version) >= SUPPORTED.index(other)


def allows(version: str, command: str) -> bool:
    """Whether a configuration of ``version`` may be used with ``command``."""
    return at_least(version, _INTRODUCED.get(command, OLDEST))
