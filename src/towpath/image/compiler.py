"""The C compiler of the image's own programs (launcher, shim): Debian's packages by hash, only unpacked.

What a machine has installed has no part in it but its C library, with which the compiler itself runs.
"""

import subprocess
from collections.abc import Iterable
from pathlib import Path

from towpath.image.errors import ImageError
from towpath.image.lock import MULTIARCH

_SCRIPT = """#!/bin/sh
LD_LIBRARY_PATH={root}/usr/lib/{machine} exec {root}/usr/bin/{target}-gcc-12 --sysroot={root} \\
    -B{root}/usr/bin/{target}- "$@"
"""
# Of gcc and binutils, what compiling two files of C does not need; it is half of them.
_WITHOUT = ("*/lto1", "*lto-dump*", "*gprofng*", "*-gp-*", "*-ld.gold", "./usr/share/*")


def pair(target: str, machine: str) -> str:
    """How the lock calls a compiler for ``target`` that runs on ``machine``."""
    return f"{target}-on-{machine}"


def unpacked(packages: Iterable[Path], target: str, machine: str, root: Path) -> str:
    """Unpack into ``root``; the program there that is called as ``cc`` is. Raises ImageError."""
    root.mkdir()
    for path in packages:
        _unpack(path, root)
    script = root / "cc"
    script.write_text(_SCRIPT.format(root=root, target=MULTIARCH[target], machine=MULTIARCH[machine]))
    script.chmod(0o755)
    return str(script)


def _unpack(path: Path, root: Path) -> None:
    without = [f"--exclude={pattern}" for pattern in _WITHOUT]
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", path], stdout=subprocess.PIPE) as package:
        tar = ["tar", "-x", "-C", str(root), "--no-same-owner", *without]
        done = subprocess.run(tar, stdin=package.stdout, capture_output=True, check=False, timeout=120)
    if package.returncode or done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise ImageError(f"{path.name} cannot be unpacked: {said or 'dpkg-deb failed'}")
