"""What can go wrong with addresses: one tree, ``AddressError``, and ``LeaseStoreError`` for the disk."""

from towpath.model.net import Addr


class AddressError(Exception):
    """An address cannot be given out."""


class BadRange(AddressError):
    """The configured ranges make no sense."""


class AddressUnavailable(AddressError):
    """A requested address cannot be had; ``temporary`` if that may change by itself."""

    def __init__(self, address: Addr, reason: str, *, temporary: bool = False) -> None:
        super().__init__(f"requested address {address} is not available: {reason}")
        self.address, self.temporary = address, temporary


class RangeExhausted(AddressError):
    """Every address of a range set is in use.

    ``used`` counts leases, ``reserved`` what is kept for those who ask by name; the rest up to ``size`` are
    addresses the kernel routes for others.
    """

    def __init__(self, ranges: str, size: int, used: int, reserved: int = 0) -> None:
        kept = f", {reserved} reserved" if reserved else ""
        others = size - used - reserved
        foreign = f", {others} routed to interfaces without a lease" if others > 0 else ""
        super().__init__(f"no free address in {ranges}: {used} of {size} are leased{kept}{foreign}")
        self.ranges, self.size, self.used = ranges, size, used


class BadBlock(AddressError):
    """An object of block mode contradicts itself or another: nothing is given out by it."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name}: {problem}")
        self.name, self.problem = name, problem


class BlocksExhausted(AddressError):
    """No block has an address left that this node may give out; the text says what was tried."""


class AlreadyLeased(AddressError):
    """The container's interface has a lease already."""


class LeaseStoreError(Exception):
    """The lease store did not do it, and nothing was promised.

    ``operation`` what was tried; ``path`` the database file; ``reason`` SQLite's or the kernel's words;
    ``hint`` what an operator can do; ``damaged`` that the file's content is lost, whatever the disk does.
    """

    def __init__(
        self, operation: str, path: str, reason: str, hint: str = "", *, damaged: bool = False
    ) -> None:
        super().__init__(f"{operation} {path}: {reason}" + (f" ({hint})" if hint else ""))
        self.operation, self.path, self.reason, self.hint = operation, path, reason, hint
        self.damaged = damaged


class BadWish(AddressError):
    """An annotation asks for what makes no sense."""

    def __init__(self, annotation: str, problem: str) -> None:
        super().__init__(f"annotation cni.projectcalico.org/{annotation}: {problem}")
        self.annotation = annotation
