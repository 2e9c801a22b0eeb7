"""Build hook: compiles the CNI shim with plain ``cc`` into the wheel."""

# hatchling is there while a wheel is built, and not where the types are checked
# mypy: disable-error-code="import-not-found,misc,type-arg"

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

OUTPUT = "src/towpath/bin/towpath-cni"


class ShimBuildHook(BuildHookInterface):
    """Compile the shim (static, no other tool than a C compiler and a shell)."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile when the source is newer than the executable; mark the wheel as platform-specific.

        Any Python 3 of the platform can use the wheel: what is compiled is a program, not an extension.
        """
        if self.target_name != "wheel":
            return
        output = Path(self.root, OUTPUT)
        newest = max(path.stat().st_mtime for path in Path(self.root, "shim").iterdir())
        if not output.exists() or output.stat().st_mtime < newest:
            compile_shim(Path(self.root, "shim/build.sh"), output)
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform().replace('-', '_').replace('.', '_')}"


def platform() -> str:
    """What the compiler compiles for: this machine, unless ``CC`` is a cross compiler."""
    here = sysconfig.get_platform()
    if "CC" not in os.environ:
        return here
    asked = [os.environ["CC"].split()[0], "-dumpmachine"]
    machine = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.partition("-")[0]
    return here if here.endswith(machine) else f"linux-{machine}"


def compile_shim(build: Path, output: Path) -> None:
    """Compile to ``output``, which is replaced in one step: a node may be running it."""
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{output.name}.{os.getpid()}")
    compiler = os.environ.get("CC", "cc").split()[0]
    if shutil.which(compiler) is None:
        sys.exit(f"towpath: no C compiler ({compiler}): install gcc and libc6-dev")
    try:
        subprocess.run(["sh", build, partial], check=True)
    except subprocess.CalledProcessError:
        partial.unlink(missing_ok=True)
        sys.exit(
            "towpath: the CNI shim does not compile; if the linker misses -lc, install its static form"
            " (libc6-dev on Debian, glibc-static on Fedora)"
        )
    partial.replace(output)
