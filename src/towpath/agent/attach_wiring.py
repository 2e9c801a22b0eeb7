"""Makes an attachment real in the kernel, and unmakes it."""

from collections.abc import Callable

from towpath.agent.attach_check import broken_promises
from towpath.agent.attach_links import LinkRemover
from towpath.cni.request import PodDescriptors
from towpath.desired.names import ifb_name
from towpath.desired.pods import born, pod_wiring
from towpath.desired.ruleset import TABLE, bind, unbind
from towpath.kernel.port import Kernel
from towpath.model.attachment import Attachment
from towpath.model.op import AddLink, FlushConntrack, Op
from towpath.model.state import NetState, Scope
from towpath.reconcile.diff import diff

_NOTHING, _ANYTHING = NetState(), Scope()


class Wiring:
    """``host`` is the node's namespace, ``inside`` gives a pod's from what the shim handed over."""

    def __init__(
        self, host: Kernel, inside: Callable[[PodDescriptors], Kernel], remover: LinkRemover
    ) -> None:
        self._host, self._inside, self._remover = host, inside, remover

    def make(self, att: Attachment, descriptors: PodDescriptors) -> None:
        """Create link, addresses, routes, limits; last, in one transaction, what lets packets pass.

        Until then the firewall drops whatever comes from the link or goes to it. Raises KernelRefused, and
        then some of it may exist.
        """
        wiring = pod_wiring(att)
        links, rest = _split(diff(_NOTHING, wiring.host, _ANYTHING))
        self._host.apply(links, pod_netns=descriptors.netns)
        self._inside(descriptors).apply(diff(born(att), wiring.inside, _ANYTHING))
        self._host.apply([*rest, bind(att)])

    def differences(self, att: Attachment, descriptors: PodDescriptors) -> list[str]:
        """How the kernel differs from what ``make`` made of it. Raises KernelRefused."""
        wiring = pod_wiring(att)
        host = self._host.observe(wiring.host.sysctls, TABLE)
        inside = self._inside(descriptors).observe(wiring.inside.sysctls)
        return broken_promises(att, wiring, host, inside)

    def links(self) -> frozenset[str]:
        """Names of the links of the node. Raises KernelRefused."""
        return frozenset(self._host.observe().links)

    def shut(self, att: Attachment) -> None:
        """Have the firewall forget it and drop, from now on, what comes from it. Raises KernelRefused."""
        self._host.apply([unbind(att)])

    async def remove(self, att: Attachment) -> None:
        """Remove its links, and what the node remembers of its addresses. Raises KernelRefused."""
        await self._remover.remove(pod_wiring(att).host.links)
        # Last, so that no packet of the pod's makes a new entry: the next owner of the address must not
        # inherit connections that were allowed for this one.
        self._host.apply([FlushConntrack(address) for address in att.addresses])

    async def remove_link(self, host_ifname: str) -> None:
        """Remove a link of which nothing but the name is known. Raises KernelRefused."""
        await self._remover.remove([host_ifname, ifb_name(host_ifname)])


def _split(ops: tuple[Op, ...]) -> tuple[list[Op], list[Op]]:
    links: list[Op] = [op for op in ops if isinstance(op, AddLink)]
    return links, [op for op in ops if not isinstance(op, AddLink)]
