"""CNI errors: what a plugin prints on stdout when it exits with a status other than 0."""

from enum import IntEnum

import msgspec

from towpath.cni.version import NEWEST


class ErrorCode(IntEnum):
    """Well-known codes of CNI 1.1.0; 8 and 999 are from its Go library, 100 is ours."""

    INCOMPATIBLE_VERSION = 1
    UNSUPPORTED_FIELD = 2
    UNKNOWN_CONTAINER = 3
    BAD_ENVIRONMENT = 4
    IO_FAILURE = 5
    UNDECODABLE = 6
    BAD_CONFIG = 7
    BAD_NETNS = 8
    TRY_LATER = 11
    UNAVAILABLE = 50
    UNAVAILABLE_LIMITED = 51
    CHECK_FAILED = 100
    INTERNAL = 999


class CniError(Exception):
    """A call that failed, as its caller is told.

    ``msg`` one sentence; ``details`` what helps whoever reads the runtime's log, may be empty. The runtime
    tries again by itself after TRY_LATER; UNAVAILABLE and UNAVAILABLE_LIMITED are answers to STATUS only.
    """

    def __init__(self, code: ErrorCode, msg: str, details: str = "") -> None:
        super().__init__(f"{msg}: {details}" if details else msg)
        self.code, self.msg, self.details = code, msg, details

    def encode(self, cni_version: str = NEWEST) -> bytes:
        """The error as JSON; ``cni_version`` is the configuration's."""
        return msgspec.json.encode(
            {
                "cniVersion": cni_version,
                "code": int(self.code),
                "msg": _printable(self.msg),
                "details": _printable(self.details),
            }
        )


def _printable(text: str) -> str:
    """Undecodable environment bytes come as surrogates, which no JSON encoder takes."""
    return text.encode("utf-8", "replace").decode()
