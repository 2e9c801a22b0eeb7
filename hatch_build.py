"""Build hook: compiles the CNI shim with plain ``cc`` into the wheel."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = "shim/towpath-cni.c"
OUTPUT = "src/towpath/bin/towpath-cni"
FLAGS = ["-std=gnu11", "-O2", "-static", "-Wall", "-Wextra", "-Werror", "-D_FORTIFY_SOURCE=2", "-s"]


class ShimBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Compile ``shim/towpath-cni.c`` (static, no other tool than a C compiler)."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile when the source is newer than the executable; mark the wheel as platform-specific."""
        if self.target_name != "wheel":
            return
        source, output = Path(self.root, SOURCE), Path(self.root, OUTPUT)
        output.parent.mkdir(parents=True, exist_ok=True)
        if not output.exists() or output.stat().st_mtime < source.stat().st_mtime:
            partial = output.with_suffix(f".{os.getpid()}")
            compiler = os.environ.get("CC", "cc")
            try:
                subprocess.run([compiler, *FLAGS, "-o", str(partial), str(source)], check=True)
            except FileNotFoundError:
                sys.exit(f"towpath: no C compiler ({compiler}): install gcc and libc6-dev")
            partial.replace(output)
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
