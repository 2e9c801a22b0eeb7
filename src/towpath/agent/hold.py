"""The agent waits while it is held (``install.hold``), and lets go when it is to be."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from towpath.agent.config import Settings
from towpath.agent.health import HealthServer, Page, server_tls
from towpath.install.hold import held
from towpath.kernel.inotify import FolderWatch
from towpath.log import get_logger

log = get_logger("towpath.hold")

_POLL_SECONDS = 0.1
_LOOK_SECONDS = 10.0  # where the kernel tells of changes at once


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
    changed = asyncio.Event()
    with _told_of_changes(state_dir, changed.set) as told:
        while True:
            now = held(state_dir)
            if now is not None and now.scope == "all":
                log.warning("held", reason=now.reason, code="TP7116")
                stop.set()
                return
            close(now.reason if now is not None else "")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS if told else _POLL_SECONDS):
                    await changed.wait()
            changed.clear()


@contextlib.contextmanager
def _told_of_changes(state_dir: Path, changed: Callable[[], None]) -> Iterator[bool]:
    """Whether the kernel tells of what changes in the folder."""
    try:
        watch = FolderWatch(state_dir, changed)
    except OSError as refused:
        log.warning("not_told_of_files", folder=str(state_dir), error=str(refused))
        yield False
        return
    try:
        yield True
    finally:
        watch.close()
