"""The agent's filter of system calls and its seccomp profile for container runtimes, from one list.

The list is what agents were seen to call (``image/syscalls-recorded.json``, by ``make record-seccomp``) and
what is let through beyond that, each with its reason (``image/syscalls.toml``). Made of it, by
``python -m towpath.image.seccomp``, are

- ``shim/syscalls.h``, the launcher's filter,
- ``manifests/seccomp/towpath-agent.json``, the same as the OCI runtime specification has it, with the calls
  of whatever else a runtime runs in the container: for nodes where the runtime is to enforce it
  (``seccomp_profile``).
"""

import re
import textwrap
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from towpath.image.build import project
from towpath.image.errors import ImageError

NAME = "towpath-agent.json"
RECORDED, BEYOND = Path("image/syscalls-recorded.json"), Path("image/syscalls.toml")
HEADER, PROFILE = Path("shim/syscalls.h"), Path("manifests/seccomp", NAME)
# Judged by their arguments, by the launcher and below: no part of the list.
BY_ARGUMENT = frozenset({"clone", "clone3", "socket"})
_NEW_NAMESPACES = 0x7E020000  # CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}
_FAMILIES = (1, 2, 10, 16)  # AF_UNIX, AF_INET, AF_INET6, AF_NETLINK
_EPERM, _ENOSYS = 1, 38
_ARCHITECTURES = ("SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64")
_TOP = """\
/*
 * What the agent may ask of the kernel; the rest is refused with EPERM (towpath-launch.c). Made by
 * python -m towpath.image.seccomp from image/syscalls-recorded.json, what agents were seen to call, and
 * image/syscalls.toml, what else is let through and why.
 */
"""


class Reason(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Calls that no recording has, and why they are let through."""

    why: str
    calls: tuple[str, ...]


class Calls(msgspec.Struct, frozen=True):
    """``recorded`` while ``commands`` ran; let through ``beyond`` it, and ``refused`` all the same.

    ``container``: not of the agent, but of what is run beside it. ``only_amd64``: what newer
    architectures do not have.
    """

    recorded: frozenset[str]
    commands: tuple[str, ...]
    beyond: tuple[Reason, ...]
    refused: tuple[Reason, ...]
    container: tuple[Reason, ...]
    only_amd64: frozenset[str]

    @property
    def calls(self) -> frozenset[str]:
        """All that the agent may ask for whatever the arguments."""
        return (self.recorded - _named(self.refused) | _named(self.beyond)) - BY_ARGUMENT

    def with_recorded(self, found: set[str], command: str) -> "Calls":
        """With what was seen while ``command`` ran."""
        commands = tuple(sorted({*self.commands, command}))
        return msgspec.structs.replace(self, recorded=self.recorded | found, commands=commands)

    def save(self, root: Path) -> None:
        """Write the recording. Raises OSError."""
        recording = {"commands": self.commands, "calls": sorted(self.recorded)}
        made = msgspec.json.format(msgspec.json.encode(recording), indent=1).decode()
        (root / RECORDED).write_text(made + "\n")


def load(root: Path) -> Calls:
    """The list of a source tree. Raises ImageError, OSError."""
    recording = msgspec.json.decode((root / RECORDED).read_bytes(), type=dict[str, tuple[str, ...]])
    with (root / BEYOND).open("rb") as file:
        known = tomllib.load(file)
    try:
        return Calls(
            recorded=frozenset(recording["calls"]),
            commands=recording["commands"],
            beyond=msgspec.convert(known["beyond"], tuple[Reason, ...]),
            refused=msgspec.convert(known["refused"], tuple[Reason, ...]),
            container=msgspec.convert(known["container"], tuple[Reason, ...]),
            only_amd64=frozenset(known["only_amd64"]),
        )
    except (KeyError, msgspec.ValidationError) as e:
        raise ImageError(f"{RECORDED} or {BEYOND} has not the shape of a list of calls: {e}") from e


def header(known: Calls) -> str:
    """``shim/syscalls.h``."""
    both, amd64 = known.calls - known.only_amd64, known.calls & known.only_amd64
    return f"{_TOP}{_lines(both)}#ifdef __x86_64__\n{_lines(amd64)}#endif\n"


def profile(known: Calls) -> dict[str, Any]:
    """The profile (OCI runtime-spec, ``linux.seccomp``)."""
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": _EPERM,
        "architectures": list(_ARCHITECTURES),
        "syscalls": [
            {"names": sorted(known.calls | _named(known.container)), "action": "SCMP_ACT_ALLOW"},
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
    return made(project())[PROFILE]


def made(root: Path) -> dict[Path, str]:
    """What follows from the list of a source tree, by its path there. Raises ImageError, OSError."""
    known = load(root)
    encoded = msgspec.json.format(msgspec.json.encode(profile(known)), indent=2).decode() + "\n"
    return {HEADER: header(known), PROFILE: encoded}


def write(root: Path) -> None:
    """Make header and profile anew. Raises ImageError, OSError."""
    for path, content in made(root).items():
        (root / path).write_text(content)


def allowed(text: str) -> tuple[str, ...]:
    """The names in a header."""
    return tuple(re.findall(r"ALLOW\((\w+)\)", text))


def _named(reasons: tuple[Reason, ...]) -> frozenset[str]:
    return frozenset(call for reason in reasons for call in reason.calls)


def _lines(names: frozenset[str]) -> str:
    return textwrap.fill(" ".join(f"ALLOW({name})" for name in sorted(names)), 110) + "\n"


def _equals(index: int, value: int) -> dict[str, Any]:
    return {"index": index, "value": value, "op": "SCMP_CMP_EQ"}


def _only(index: int, forbidden: int) -> dict[str, Any]:
    """None of the bits of ``forbidden``."""
    return {"index": index, "value": forbidden, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}


if __name__ == "__main__":
    write(project())
