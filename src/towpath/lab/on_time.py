"""Real-time scheduling for what measures inside a lab, given from outside.

Inside its user namespace a lab's root has no CAP_SYS_NICE that counts; the machine's root has. Without it,
everything runs, and a busy machine shows as send-side lag.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_POLICY = os.SCHED_RR | os.SCHED_RESET_ON_FORK


def give(keeper: int, module: bytes) -> int:
    """To every process below ``keeper`` that runs ``python -m module``; returns how many took it."""
    given = 0
    for pid in _below(keeper):
        with suppress(OSError):
            if module in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                os.sched_setscheduler(pid, _POLICY, os.sched_param(1))
                given += 1
    return given


def _below(root: int) -> Iterator[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                stat = (entry / "stat").read_text()
                parent = int(stat.rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    left = [root]
    while left:
        pid = left.pop()
        yield pid
        left += children.get(pid, [])
