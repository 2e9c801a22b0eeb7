"""Makes an attachment real in the kernel, and unmakes it."""

import asyncio
from collections.abc import Callable
from errno import EEXIST

from msgspec.structs import replace

from towpath.agent.attach_check import broken_promises
from towpath.agent.attach_conntrack import Connections
from towpath.agent.attach_links import LinkRemover, exists
from towpath.agent.attach_netlink import NodeNetlink, answering
from towpath.cni.request import PodDescriptors, Request
from towpath.desired.bandwidth import shaping
from towpath.desired.names import ifb_name
from towpath.desired.pods import pod_wiring
from towpath.desired.policy_chains import Verdicts
from towpath.desired.ruleset import TABLE, bind, unbind
from towpath.kernel.port import Kernel, KernelRefused
from towpath.model.attachment import Attachment
from towpath.model.op import Add, AddLink, Op, SetLink, SetSysctl
from towpath.model.state import NetState


class InterfaceTaken(Exception):
    """An interface has the name already, in the pod's namespace or on the node."""


class Wiring:
    """``host`` is the node's namespace, ``inside`` gives a pod's from what the shim handed over."""

    def __init__(
        self,
        host: Kernel,
        inside: Callable[[PodDescriptors], Kernel],
        netlink: NodeNetlink,
        remover: LinkRemover,
        connections: Connections,
    ) -> None:
        self._host, self._inside, self._netlink = host, inside, netlink
        self._remover, self._connections = remover, connections

    def make(self, att: Attachment, descriptors: PodDescriptors, verdicts: Verdicts) -> None:
        """Create link, addresses, routes, limits; last, in one transaction, what lets packets pass.

        Until then the firewall drops whatever comes from the link or goes to it; and it does so until the
        pod's policy is in force, where ``verdicts`` does not say what that is. Raises KernelRefused, and
        then some of it may exist; InterfaceTaken, and then the rest of it does not.
        """
        wiring = pod_wiring(att)
        try:
            self._host.apply(_links(wiring.host), pod_netns=descriptors.netns)
        except KernelRefused as error:
            if error.errno == EEXIST:
                raise InterfaceTaken(att.ifname) from error
            raise
        self._inside(descriptors).apply(_rest(wiring.inside))
        self._host.apply([*_rest(wiring.host), bind(att, verdicts)])

    async def settled(self, att: Attachment, descriptors: PodDescriptors) -> None:
        """Wait for what the kernel does about a new pod in the background: from then on no packet is lost.

        Flows towards its published ports from before there was a translation are begun anew.
        """
        forgetting = asyncio.ensure_future(self._connections.forget_ports(att.ports))
        await asyncio.sleep(0)  # its thread begins: the kernel's walk takes milliseconds
        try:
            self._netlink.settle(att.host_ifname)
            await answering(descriptors.netlink, att.addresses)
        finally:
            await forgetting

    def differences(self, att: Attachment, r: Request, *, rerouted: bool = False) -> list[str]:
        """How the kernel differs from what ``make`` made of it; ``rerouted`` says that its default routes are
        meant to be gone. Raises KernelRefused.
        """
        assert r.descriptors is not None  # noqa: S101 - the server answers BAD_NETNS itself
        wiring = pod_wiring(att)
        if rerouted:
            kept = frozenset(route for route in wiring.inside.routes if route.dst.prefixlen)
            wiring = replace(wiring, inside=replace(wiring.inside, routes=kept))
        host = self._host.observe(wiring.host.sysctls, TABLE)
        inside = self._inside(r.descriptors).observe(wiring.inside.sysctls)
        return broken_promises(att, wiring, host, inside, r.config.prev_result)

    def observed(self) -> NetState:
        """Links, addresses and routes of the node. Raises KernelRefused."""
        return self._host.observe()

    def shut(self, att: Attachment) -> None:
        """Have the firewall forget it and drop, from now on, what comes from it. Raises KernelRefused."""
        self._host.apply([unbind(att)])

    async def remove(self, att: Attachment) -> None:
        """Remove its links, and what the node remembers of its addresses. Raises KernelRefused."""
        links = [att.host_ifname, *shaping(att).links]
        # The next owner of an address must not inherit connections that were allowed for this one. New ones
        # cannot come up meanwhile: the firewall is shut, and drops a packet before its entry is confirmed.
        await asyncio.gather(self._remover.remove(links), self._connections.forget(att.addresses))

    async def make_way(self, host_ifname: str) -> bool:
        """Remove a pod's link of which nothing but the name is known; False if there is none.

        Raises KernelRefused.
        """
        names = [name for name in (host_ifname, ifb_name(host_ifname)) if exists(name)]
        await self._remover.remove(names)
        return bool(names)


def _links(state: NetState) -> list[Op]:
    return [AddLink(link) for link in state.links.values() if link.kind is not None]


def _rest(state: NetState) -> list[Op]:
    """All of a state but its links, from the bottom up. They are new: there is nothing to compare with."""
    ops: list[Op] = [SetSysctl(path, value) for path, value in state.sysctls.items()]
    ops += [SetLink(link.name, up=True) for link in state.links.values() if link.kind is None and link.up]
    # A gateway must be reachable before a route may lead through it.
    routes = sorted(state.routes, key=lambda route: route.via is not None)
    for items in (state.addresses, state.neighbours, routes, state.shapers, state.redirects):
        ops += map(Add, items)
    return ops
