"""``state_dir/hold.json``: a takeover, or a handback, has the agent keep its hands off.

Canal's pods are unknown to the firewall until their leases have been imported: an agent that began earlier
would cut them off. And what a handback removes, the agent must not mend.
"""

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from towpath.agent.config import Settings
from towpath.agent.health import HealthServer, Page, server_tls
from towpath.log import get_logger

log = get_logger("towpath.hold")

FILE = "hold.json"
_POLL_SECONDS = 0.1


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """``scope`` "all": touch nothing; "add": go on, but attach no new pods. ``reason`` for whoever asks."""

    scope: Literal["all", "add"]
    reason: str


_UNREADABLE = Hold(
    scope="all", reason=f"{FILE} cannot be read; towpath node takeover or handback writes it anew"
)


def held(state_dir: Path) -> Hold | None:
    """What holds the agent at present. A file that makes no sense holds it: fail closed."""
    try:
        return msgspec.json.decode((state_dir / FILE).read_bytes(), type=Hold)
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


async def wait_released(settings: Settings) -> None:
    """Return when nothing holds the whole agent; meanwhile be alive, and say why not ready. Raises
    OSError.
    """
    state_dir = settings.state_dir
    reason = held(state_dir)
    if reason is None or reason.scope != "all":
        return
    log.warning("held", reason=reason.reason, code="TP7116")

    async def alive(_: Mapping[str, str]) -> Page:
        return Page(200, "ok\n")

    async def not_ready(_: Mapping[str, str]) -> Page:
        now = held(state_dir)
        return Page(503, f"[-]hold: {now.reason if now else 'about to begin'}; TP7116\nnot ready\n")

    server = HealthServer({"/healthz": alive, "/readyz": not_ready}, settings.health_token_file)
    tls = server_tls(settings.health_tls_cert, settings.health_tls_key)
    await server.listen(*settings.health_address, tls)
    try:
        while (now := held(state_dir)) is not None and now.scope == "all":  # noqa: ASYNC110 - a file
            await asyncio.sleep(_POLL_SECONDS)
    finally:
        await server.close()
    log.info("released")


async def heed(state_dir: Path, close: Callable[[str], None], stop: asyncio.Event) -> None:
    """For ever: ``close`` the door to new pods with a reason, open it with none, ``stop`` when all is
    held."""
    while True:
        now = held(state_dir)
        if now is not None and now.scope == "all":
            log.warning("held", reason=now.reason, code="TP7116")
            stop.set()
            return
        close(now.reason if now is not None else "")
        await asyncio.sleep(_POLL_SECONDS)
