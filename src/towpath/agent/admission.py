"""When a new pod may send and receive: once its policy is in the kernel."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from towpath.agent.surroundings import Surroundings
from towpath.cni.errors import CniError, ErrorCode
from towpath.desired.policy_chains import NO_POLICIES, Verdicts
from towpath.model.attachment import Attachment
from towpath.model.nft import NftTable


class Admission(Protocol):
    """Asked by ADD."""

    def verdicts(self, attachments: tuple[Attachment, ...], one: Attachment) -> Verdicts:
        """What ``one`` of them is bound to; None: to nothing yet, and ``enforce`` has to follow."""
        ...

    async def enforce(self, one: Attachment) -> None:
        """Returns when its policy is in force. Raises CniError."""
        ...


class Unrestricted:
    """Without a cluster there is no policy."""

    def verdicts(self, attachments: tuple[Attachment, ...], one: Attachment) -> Verdicts:
        """All is allowed."""
        return NO_POLICIES

    async def enforce(self, one: Attachment) -> None:
        """It is."""


UNRESTRICTED = Unrestricted()


class ByPolicy:
    """``bring`` brings the kernel to what is desired; ``table`` is what that was, None at first."""

    def __init__(
        self,
        around: Surroundings,
        bring: Callable[[], Awaitable[bool]],
        table: Callable[[], NftTable | None],
    ) -> None:
        self._around, self._bring, self._table = around, bring, table

    def verdicts(self, attachments: tuple[Attachment, ...], one: Attachment) -> Verdicts:
        """Without any policy for it, what it is bound to is known at once."""
        return self._around.verdicts(attachments, one)

    async def enforce(self, one: Attachment) -> None:
        """Bring it, and see that the pod is part of it."""
        well = await self._bring()
        table = self._table()
        bound = table is not None and all(
            (one.host_ifname,) in table.sets[name].elements for name in ("pod_from", "pod_to")
        )
        if not (well and bound):
            name = f"{one.pod.namespace}/{one.pod.name}" if one.pod else one.container_id
            raise CniError(
                ErrorCode.TRY_LATER,
                f"the policy of pod {name} is not in force",
                "the kernel refused it, or the pod is gone; see the agent's log and towpath status; TP5150",
            )
