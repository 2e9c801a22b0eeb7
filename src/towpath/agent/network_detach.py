"""Detaches pods from extra networks, and says what could not be."""

from collections.abc import Sequence

from towpath.agent.network_chains import Chains
from towpath.agent.network_plugins import PluginFailed
from towpath.cni.errors import CniError, ErrorCode
from towpath.cni.request import Request
from towpath.log import get_logger
from towpath.multinet.journal import Journal, JournalError, Row

log = get_logger("towpath.networks")

_FAILURES = (PluginFailed, ConnectionError, JournalError)


class Detacher:
    """Replays DELs from the journal; a row goes when that is done."""

    def __init__(self, journal: Journal, chains: Chains) -> None:
        self._journal, self._chains = journal, chains

    async def all(self, r: Request, rows: Sequence[Row], never: str = "") -> list[CniError]:
        """Backwards; what went wrong. ``never``: a plugin that was not there when the last one was begun."""
        errors = []
        for row in sorted(rows, key=lambda row: row.place, reverse=True):
            error = await self.one(r, row, never)
            never = ""
            if error is not None:
                errors.append(error)
        return errors

    async def one(self, r: Request, row: Row, never: str = "") -> CniError | None:
        """The row goes when it is done; else what went wrong is kept in it, and returned."""
        own = r.container_id == row.call.container_id and r.command in ("ADD", "DEL", "ATTEND")
        netns = r.netns if own and r.descriptors is not None else ""
        try:
            await self._chains.delete(r if own else elsewhere(r), row, netns, never)
            await self._journal.forget(row)
        except _FAILURES as error:
            log.warning(
                "network_not_detached",
                container=row.call.container_id,
                ifname=row.call.ifname,
                network=row.reference,
                failures=row.failures + 1,
                error=str(error),
            )
            if not isinstance(error, JournalError):
                try:
                    await self._journal.failed(row, str(error))
                except JournalError as worse:
                    log.error("network_failure_not_journalled", error=str(worse))
            told = failure(ErrorCode.TRY_LATER, row.reference, row.call.ifname, error)
            return CniError(ErrorCode.TRY_LATER, f"not detached: {told.msg}", f"{told.details}; TP6010")
        return None


def elsewhere(r: Request) -> Request:
    """The same shim, for an attachment that the call is not about: its descriptors are another pod's."""
    return Request(
        command=r.command,
        config=r.config,
        path=r.path,
        executor=r.executor,
        opener=r.opener,
        cancelled=r.cancelled,
    )


def failure(code: ErrorCode, reference: str, ifname: str, error: Exception) -> CniError:
    """What the runtime is told of it; a plugin's own code where that means something to runtimes."""
    known = getattr(error, "code", 0)
    if (
        known in (ErrorCode.TRY_LATER, ErrorCode.BAD_CONFIG, ErrorCode.BAD_NETNS)
        and code is ErrorCode.INTERNAL
    ):
        code = ErrorCode(known)
    text = str(error) if isinstance(error, PluginFailed | ConnectionError | JournalError) else repr(error)
    return CniError(code, f"network {reference} ({ifname}): {text}", "TP6009")
