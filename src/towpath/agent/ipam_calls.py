"""Tells calls of ``towpath-ipam`` from calls of ``towpath-cni``: one executable, one agent, two plugins.

A plugin hands its whole configuration to the IPAM plugin that it names (CNI 1.1.0, section 4), so that the
network's ``type`` is that plugin's, and ``ipam.type`` ours.
"""

from errno import ENOBUFS

from towpath.agent.attach_setup import pod_kernel
from towpath.agent.ipam_plugin import IpamPlugin
from towpath.agent.network_neighbours import somebody_beside
from towpath.cni.errors import CniError, ErrorCode
from towpath.cni.request import Handler, Request, is_for_ipam
from towpath.cni.result import Result
from towpath.kernel.port import KernelRefused
from towpath.log import get_logger
from towpath.model.net import Addr

log = get_logger("towpath.ipam")


class IpamCalls:
    """Implements ``cni.request.Handler``. ``plugin`` is None where it is not wanted; ``ask_ms``: how long the
    segment of an interface is asked who has an address.
    """

    def __init__(self, inner: Handler, plugin: IpamPlugin | None, ask_ms: int) -> None:
        self._inner, self._plugin, self._ask_ms = inner, plugin, ask_ms

    async def add(self, r: Request) -> Result:
        """As whoever it is for. An address that somebody on the segment has is not given out."""
        given = await self._for(r).add(r)
        if self._plugin is None or not is_for_ipam(r.config):
            return given
        for address in (ip.address.ip for ip in given.ips):
            if mac := await self._owner(r, address):
                self._plugin.shun(address)
                await self._plugin.delete(r)
                text = f"{address} is in use on its segment, by {mac}; TP4021"
                raise CniError(ErrorCode.TRY_LATER, "no address can be given out", text)
        return given

    async def _owner(self, r: Request, address: Addr) -> str:
        if r.descriptors is None or self._ask_ms == 0:
            return ""
        try:
            kernel = pod_kernel(r.descriptors)
            return await somebody_beside(r.descriptors, kernel, r.ifname, address, self._ask_ms)
        except KernelRefused as error:
            if error.errno == ENOBUFS:  # no room for the question now
                raise CniError(ErrorCode.TRY_LATER, "no address can be given out", str(error)) from error
            # An interface of a kind that cannot be asked by.
            log.warning("segment_not_asked", ifname=r.ifname, address=str(address), error=str(error))
            return ""

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
