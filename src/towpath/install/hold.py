"""``hold.json`` in the state folder: a takeover, a handback or an installer has the agent keep its hands off.

Canal's pods are unknown to the firewall until their leases have been imported: an agent that began earlier
would cut them off. And what a handback removes, the agent must not mend.
"""

import os
from pathlib import Path
from typing import Literal

import msgspec

FILE = "hold.json"


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """``scope`` "all": touch nothing; "add": go on, but attach no new pods. ``reason`` for whoever asks."""

    scope: Literal["all", "add"]
    reason: str


_UNREADABLE = Hold(
    scope="all", reason=f"{FILE} cannot be read; towpath node takeover or handback writes it anew"
)


def held(state_dir: Path) -> Hold | None:
    """What holds the agent at present. A file that makes no sense holds it: fail closed."""
    try:  # the agent asks ten times a second: no Path is made for that
        with os.fdopen(os.open(f"{state_dir}/{FILE}", os.O_RDONLY | os.O_CLOEXEC), "rb") as file:
            return msgspec.json.decode(file.read(), type=Hold)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError):
        return _UNREADABLE


def hold(state_dir: Path, scope: Literal["all", "add"], reason: str) -> None:
    """Hold the agent, in one step and durably. Raises OSError."""
    partial = state_dir / f".{FILE}.partial"
    with partial.open("wb") as file:
        file.write(msgspec.json.encode(Hold(scope=scope, reason=reason)))
        file.flush()
        os.fsync(file.fileno())
    partial.chmod(0o644)
    partial.replace(state_dir / FILE)


def release(state_dir: Path) -> None:
    """Let the agent work. Raises OSError."""
    (state_dir / FILE).unlink(missing_ok=True)
