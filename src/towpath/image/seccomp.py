"""The agent's seccomp profile for container runtimes, from the list that the launcher's filter is made of.

    python -m towpath.image.seccomp > manifests/seccomp/towpath-agent.json

The same calls, as the OCI runtime specification has them, and those with which a runtime begins a container.
For nodes where somebody wants the runtime to enforce it too (``seccomp_profile`` in the values).
"""

import re
import sys
from pathlib import Path
from typing import Any

import msgspec

from towpath.image.build import project

NAME = "towpath-agent.json"
HEADER = Path("shim/syscalls.h")
# With these runc and crun become the container's user in its folder, under the profile already.
_BEGIN = (
    "setuid", "setgid", "setgroups", "setresuid", "setresgid", "setfsuid", "setfsgid", "chdir", "fchdir",
    "seccomp",
)  # fmt: skip
_NEW_NAMESPACES = 0x7E020000  # CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}
_FAMILIES = (1, 2, 10, 16)  # AF_UNIX, AF_INET, AF_INET6, AF_NETLINK
_EPERM, _ENOSYS = 1, 38
_ARCHITECTURES = ("SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64")


def allowed(header: str) -> tuple[str, ...]:
    """The names in ``shim/syscalls.h``, in its order."""
    return tuple(re.findall(r"ALLOW\((\w+)\)", header))


def profile(header: str) -> dict[str, Any]:
    """The profile (OCI runtime-spec, ``linux.seccomp``)."""
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": _EPERM,
        "architectures": list(_ARCHITECTURES),
        "syscalls": [
            {"names": sorted({*allowed(header), *_BEGIN}), "action": "SCMP_ACT_ALLOW"},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [_only(0, _NEW_NAMESPACES)]},
            *(
                {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [_equals(0, family)]}
                for family in _FAMILIES
            ),
            # Its flags are out of a filter's sight; C libraries fall back to clone.
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS},
        ],
    }


def text() -> str:
    """The profile of this source tree, as it is shipped. Raises ImageError, OSError."""
    made = msgspec.json.encode(profile((project() / HEADER).read_text()))
    return msgspec.json.format(made, indent=2).decode() + "\n"


def _equals(index: int, value: int) -> dict[str, Any]:
    return {"index": index, "value": value, "op": "SCMP_CMP_EQ"}


def _only(index: int, forbidden: int) -> dict[str, Any]:
    """None of the bits of ``forbidden``."""
    return {"index": index, "value": forbidden, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}


if __name__ == "__main__":
    sys.stdout.write(text())
