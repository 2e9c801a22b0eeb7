"""``towpath-launch``, the one program of ours in the image: compiled static, with its file capability."""

import hashlib
import os
import struct
from pathlib import Path

from towpath.image.apt import run
from towpath.image.errors import ImageError
from towpath.image.lock import machine
from towpath.image.tree import Entry, Tree

PATH = "usr/bin/towpath-launch"
COMPILERS = {"amd64": "x86_64-linux-gnu-gcc", "arm64": "aarch64-linux-gnu-gcc"}
_FLAGS = (
    "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-static-pie", "-fPIE", "-fstack-protector-strong",
    "-D_FORTIFY_SOURCE=2", "-Wl,-z,relro,-z,now", "-Wl,-z,noexecstack", "-s",
)  # fmt: skip
_CAP_NET_ADMIN = 12
_REVISION_2, _EFFECTIVE = 0x02000000, 0x1  # linux/capability.h


def capability() -> bytes:
    """``cap_net_admin+ep`` as the attribute ``security.capability`` has it (struct vfs_cap_data)."""
    return struct.pack("<5I", _REVISION_2 | _EFFECTIVE, 1 << _CAP_NET_ADMIN, 0, 0, 0)


def compiled(source: Path, architecture: str, scratch: Path) -> Tree:
    """The launcher for an image. Raises ImageError: no compiler, no static C library."""
    return {
        PATH: Entry(
            "file",
            0o755,
            content=compile_to(scratch / "launch", source, architecture),
            capability=capability(),
        )
    }


def compile_to(output: Path, source: Path, architecture: str) -> bytes:
    """Compile ``source/shim/towpath-launch.c`` to ``output``; returns its bytes. Raises ImageError."""
    run([_compiler(architecture), *_FLAGS, "-o", str(output), str(source / "shim/towpath-launch.c")])
    return output.read_bytes()


def toolchain(architecture: str) -> str:
    """Compiler, linker and C library here, in words: with others the same source gives other bytes.

    Raises ImageError: there is no compiler for it.
    """
    compiler = _compiler(architecture)
    linker = run([compiler, "-print-prog-name=ld"]).strip()
    library = Path(run([compiler, "-print-file-name=libc.a"]).strip())
    if not library.is_file():
        raise ImageError(f"{compiler} has no static C library", "apt install libc6-dev")
    first = [run([program, "--version"]).splitlines()[0] for program in (compiler, linker)]
    gcc, ld = (line[line.find("(") :] for line in first)  # after the name, by which it was called
    digest = hashlib.sha256(library.read_bytes()).hexdigest()
    return f"gcc {gcc}; ld {ld}; libc.a sha256:{digest}"


def _compiler(architecture: str) -> str:
    native = os.environ.get("CC", "cc").split()[0]
    return native if architecture == machine() else COMPILERS[architecture]
