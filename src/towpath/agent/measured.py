"""A CNI handler that counts and times the calls of another."""

from collections.abc import Awaitable
from time import perf_counter
from typing import TypeVar

from towpath.agent.metrics import Metrics
from towpath.cni.errors import CniError, ErrorCode
from towpath.cni.request import Handler, Request
from towpath.cni.result import Result
from towpath.log import get_logger

T = TypeVar("T")

log = get_logger("towpath.cni")


class MeasuredHandler:
    """Implements ``cni.request.Handler`` over ``inner``."""

    def __init__(self, inner: Handler, metrics: Metrics) -> None:
        self._inner, self._metrics = inner, metrics

    async def add(self, r: Request) -> Result:
        """ADD."""
        return await self._measured(r, self._inner.add(r))

    async def delete(self, r: Request) -> None:
        """DEL."""
        await self._measured(r, self._inner.delete(r))

    async def check(self, r: Request) -> None:
        """CHECK."""
        await self._measured(r, self._inner.check(r))

    async def status(self, r: Request) -> None:
        """STATUS."""
        await self._measured(r, self._inner.status(r))

    async def gc(self, r: Request) -> None:
        """GC."""
        await self._measured(r, self._inner.gc(r))

    async def _measured(self, r: Request, work: Awaitable[T]) -> T:
        begun = perf_counter()
        code = str(int(ErrorCode.INTERNAL))
        try:
            result = await work
            code = "0"
            return result
        except CniError as e:
            code = str(int(e.code))
            raise
        finally:
            seconds = perf_counter() - begun
            self._metrics.count("towpath_cni_requests", r.command, code)
            self._metrics.observe("towpath_cni_seconds", seconds, r.command)
            pod = f"{r.args.get('K8S_POD_NAMESPACE', '')}/{r.args.get('K8S_POD_NAME', '')}".strip("/")
            log.debug(
                "cni_call", command=r.command, code=code, pod=pod, container=r.container_id, ms=seconds * 1e3
            )
