"""What went wrong below, as the runtime is told."""

from collections.abc import Awaitable

from towpath.agent.attach_wiring import InterfaceTaken
from towpath.cni.errors import CniError, ErrorCode
from towpath.ipam.errors import (
    AddressError,
    AddressUnavailable,
    BadBlock,
    BadWish,
    BlocksExhausted,
    LeaseStoreError,
    RangeExhausted,
)
from towpath.kernel.port import KernelRefused
from towpath.model.attachment import Attachment


def refusal(error: AddressError | LeaseStoreError) -> CniError:
    """No lease: later where that may help, else what is wrong with the wish or the disk."""
    match error:
        case BlocksExhausted():
            return CniError(ErrorCode.TRY_LATER, str(error), "TP4034")
        case BadWish() | BadBlock():
            return CniError(ErrorCode.BAD_CONFIG, str(error), "TP4035")
        case RangeExhausted():
            return CniError(ErrorCode.TRY_LATER, str(error), "TP4001")
        case AddressUnavailable():
            code = ErrorCode.TRY_LATER if error.temporary else ErrorCode.BAD_CONFIG
            return CniError(code, str(error))
        case LeaseStoreError():
            return CniError(
                ErrorCode.IO_FAILURE, f"{error.operation} {error.path}: {error.reason}", error.hint
            )
    return CniError(ErrorCode.INTERNAL, str(error))


def unwirable(att: Attachment, error: Exception) -> CniError:
    """No interface."""
    if isinstance(error, CniError):
        return error
    if isinstance(error, InterfaceTaken):
        text = f"the container has an interface {att.ifname} that is not ours"
        return CniError(ErrorCode.BAD_ENVIRONMENT, f"CNI_IFNAME {att.ifname} is taken", text)
    if isinstance(error, KernelRefused):
        return CniError(ErrorCode.INTERNAL, f"cannot wire {att.ifname} ({att.host_ifname})", str(error))
    return CniError(ErrorCode.INTERNAL, f"cannot wire {att.ifname}: {type(error).__name__}", str(error))


async def explained(work: Awaitable[object]) -> None:
    """Await, with what the kernel or the disk refuse as a CniError."""
    try:
        await work
    except (KernelRefused, OSError) as error:
        raise CniError(ErrorCode.INTERNAL, "cannot undo the wiring", str(error)) from error
    except LeaseStoreError as error:
        raise refusal(error) from error
