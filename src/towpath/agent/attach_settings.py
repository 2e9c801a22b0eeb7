"""What the daemon knows and attachments need."""

from collections.abc import Callable
from dataclasses import dataclass

from towpath.agent.attach_plan import range_sets
from towpath.agent.block_source import Blocks
from towpath.cni.errors import CniError, ErrorCode
from towpath.cni.request import Request
from towpath.ipam.allocate import RangeSet
from towpath.model.net import Addr, Net


@dataclass
class AttachSettings:
    """What the daemon knows and attachments need. The daemon changes it in place as it learns.

    ``pod_cidrs`` of this node, at most one a family; ``mtu`` of pods whose network does not say one;
    ``not_ready`` why the node cannot take pods, empty when it can. ``bounds``, where given, are the networks
    that ranges of a network's own must lie in: outside of them nothing would be masqueraded. A lease that
    nobody seems to need is freed after ``lease_grace`` seconds; ``reserved`` are addresses that are given to
    those alone who ask for them. ``contested`` are pods' UIDs and addresses that they may not use, since an
    older pod has them; ``elsewhere`` names the pod of another node that has an address. ``blocks`` gives out
    addresses in place of the podCIDRs, where there is one; ``barred`` why those may not be used.
    """

    pod_cidrs: tuple[Net, ...] = ()
    bounds: tuple[Net, ...] = ()
    mtu: int = 1450
    not_ready: str = "the agent is starting"
    lease_grace: float = 60.0
    reserved: Callable[[], tuple[Net, ...]] = tuple
    contested: Callable[[], frozenset[tuple[str, Addr]]] = frozenset
    elsewhere: Callable[[Addr], str] = lambda _: ""
    blocks: Blocks | None = None
    barred: Callable[[], str] = str

    def sets(self, r: Request) -> tuple[RangeSet, ...]:
        """The ranges that a call's addresses come from, none where blocks give them. Raises CniError."""
        if self.blocks is None:
            if why := self.barred():
                raise CniError(ErrorCode.TRY_LATER, "the node's podCIDRs are not its own any more", why)
            return range_sets(r, self.pod_cidrs, self.bounds)
        self.blocks.check(r)
        return ()
