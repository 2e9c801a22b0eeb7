"""What the rest of Towpath may ask of a kernel; ``LinuxKernel`` and ``FakeKernel`` both answer."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from towpath.model.op import NftUpdate, Op
from towpath.model.state import NetState


class KernelRefused(Exception):
    """An operation the kernel did not carry out.

    ``op`` is what was tried, as one line; ``errno`` the kernel's number (0 where nft gave only text);
    ``reason`` the kernel's or nft's words; ``hint`` what an operator can do, may be empty.
    """

    def __init__(self, op: str, errno: int, reason: str, hint: str = "") -> None:
        super().__init__(f"{op}: {reason}" + (f" ({hint})" if hint else ""))
        self.op, self.errno, self.reason, self.hint = op, errno, reason, hint


class Kernel(Protocol):
    """One network namespace. Calls are synchronous and brief; only link deletion may take tens of ms."""

    def observe(self, sysctls: Iterable[str] = (), table: str | None = None) -> NetState:
        """State of the namespace: everything of every kind, the named sysctls, and table ``inet TABLE``.

        A sysctl that does not exist is left out. Raises KernelRefused.
        """
        ...

    def apply(self, ops: Sequence[Op], pod_netns: int | None = None) -> None:
        """Execute in order. ``pod_netns`` is a descriptor of the namespace in which veth peers are born.

        Raises KernelRefused at the first operation that fails; those before it stay in force.
        """
        ...

    def amend(self, update: NftUpdate) -> bool:
        """Execute a change to a table of which it is certain that nobody else has changed it since it was
        last observed or updated here. False: it is not, and nothing was done. Raises KernelRefused.
        """
        ...
