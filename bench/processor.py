"""Processor time of a tree of processes: what a lab cost, however busy the machine was meanwhile."""

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_TICK = os.sysconf("SC_CLK_TCK")


class _Process(NamedTuple):
    pid: int
    parent: int
    kind: str
    seconds: float


def seconds_by_kind(root: int) -> dict[str, float]:
    """Of ``root`` and all that descend from it, most first; who has ended is counted with its parent.

    Numbers in names are left out: ``node-1`` and ``node-2`` are of one kind.
    """
    of: dict[int, list[_Process]] = {}
    for one in _processes():
        of.setdefault(one.parent, []).append(one)
        if one.pid == root:
            of.setdefault(0, []).append(one)
    spent: defaultdict[str, float] = defaultdict(float)
    waiting = [one for one in of.get(0, ()) if one.pid == root]
    while waiting:
        one = waiting.pop()
        spent[one.kind] += one.seconds
        waiting += of.get(one.pid, ())
    most = sorted(spent.items(), key=lambda one: -one[1])
    return {kind: round(seconds, 1) for kind, seconds in most if seconds >= 0.05}


def _processes() -> Iterator[_Process]:
    """proc_pid_stat(5): the name is in parentheses and may hold anything."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            head, _, rest = (folder / "stat").read_text().rpartition(") ")
            fields = rest.split()
            name = head.partition("(")[2]
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if name.startswith("python") and "-m" in words:
                name = words[words.index("-m") + 1]
            ticks = sum(int(field) for field in fields[11:15])
            yield _Process(int(folder.name), int(fields[1]), re.sub(r"[-0-9]+$", "", name), ticks / _TICK)
