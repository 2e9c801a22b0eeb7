"""``towpath-launch``, the one program of ours in the image: compiled static, with its file capability."""

import struct
from pathlib import Path

from towpath.image.apt import run
from towpath.image.tree import Entry, Tree

PATH = "usr/bin/towpath-launch"
_FLAGS = (
    "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-static-pie", "-fPIE", "-fstack-protector-strong",
    "-D_FORTIFY_SOURCE=2", "-Wl,-z,relro,-z,now", "-Wl,-z,noexecstack", "-s",
)  # fmt: skip
_CAP_NET_ADMIN = 12
_REVISION_2, _EFFECTIVE = 0x02000000, 0x1  # linux/capability.h


def capability() -> bytes:
    """``cap_net_admin+ep`` as the attribute ``security.capability`` has it (struct vfs_cap_data)."""
    return struct.pack("<5I", _REVISION_2 | _EFFECTIVE, 1 << _CAP_NET_ADMIN, 0, 0, 0)


def compiled(source: Path, compiler: str, scratch: Path) -> Tree:
    """The launcher for an image. Raises ImageError: no compiler, no static C library."""
    return {
        PATH: Entry(
            "file",
            0o755,
            content=compile_to(scratch / "launch", source, compiler),
            capability=capability(),
        )
    }


def compile_to(output: Path, source: Path, compiler: str = "cc") -> bytes:
    """Compile ``source/shim/towpath-launch.c`` to ``output``; returns its bytes. Raises ImageError."""
    run([compiler, *_FLAGS, "-o", str(output), str(source / "shim/towpath-launch.c")])
    return output.read_bytes()
