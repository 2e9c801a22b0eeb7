"""Tells calls of ``towpath-ipam`` from calls of ``towpath-cni``: one executable, one agent, two plugins.

A plugin hands its whole configuration to the IPAM plugin that it names (CNI 1.1.0, section 4), so that the
network's ``type`` is that plugin's, and ``ipam.type`` ours.
"""

from towpath.agent.ipam_plugin import IpamPlugin
from towpath.cni.errors import CniError, ErrorCode
from towpath.cni.request import Handler, Request, is_for_ipam
from towpath.cni.result import Result


class IpamCalls:
    """Implements ``cni.request.Handler``. ``plugin`` is None where it is not wanted."""

    def __init__(self, inner: Handler, plugin: IpamPlugin | None) -> None:
        self._inner, self._plugin = inner, plugin

    async def add(self, r: Request) -> Result:
        """As whoever it is for."""
        return await self._for(r).add(r)

    async def delete(self, r: Request) -> None:
        """As whoever it is for. No pod stays because of a setting that was taken back."""
        if self._plugin is not None or not is_for_ipam(r.config):
            await self._for(r).delete(r)

    async def check(self, r: Request) -> None:
        """As whoever it is for."""
        await self._for(r).check(r)

    async def status(self, r: Request) -> None:
        """As whoever it is for."""
        await self._for(r).status(r)

    async def gc(self, r: Request) -> None:
        """As whoever it is for."""
        await self._for(r).gc(r)

    def _for(self, r: Request) -> Handler:
        if not is_for_ipam(r.config):
            return self._inner
        if self._plugin is None:
            text = "set network_ipam: true (chart: agent.network_ipam), which has its rights; TP4050"
            raise CniError(ErrorCode.UNAVAILABLE, "towpath-ipam is not asked for on this cluster", text)
        return self._plugin
