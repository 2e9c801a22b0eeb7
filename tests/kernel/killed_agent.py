"""An agent's CNI part that kills itself at a given effect. ``python killed_agent.py FOLDER``.

Reads a number a line and forks for each an agent that dies by SIGKILL at the effect of that number (0:
never), counted from when it serves. Effects are single kernel operations, commits of the lease store (before
and after), the walk of the connection table and the answer. The agent says "READY <pid>", and before it dies
what it was about to do. Forking spares the imports: there are many steps.
"""

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from attach_node import CIDRS, NETWORK, Clock, Directory

from towpath.agent.attach_settings import AttachSettings
from towpath.agent.attach_setup import attachments
from towpath.cni.connection import Connection
from towpath.cni.server import serve
from towpath.desired.pods import standing
from towpath.desired.ruleset import ruleset
from towpath.ipam.store import LeaseStore
from towpath.ipam.writer import Writer
from towpath.kernel.conntrack import Conntrack
from towpath.kernel.linux import LinuxKernel
from towpath.model.net import Addr
from towpath.model.op import Op
from towpath.model.state import NetState, Scope
from towpath.reconcile.diff import diff

_PR_SET_PDEATHSIG = 1


class Doom:
    """Counts effects from when it is armed."""

    def __init__(self, number: int) -> None:
        self._number, self._count, self.armed = number, 0, False

    def step(self, effect: str) -> None:
        if not self.armed:
            return
        self._count += 1
        if self._count == self._number:
            say(f"DEAD {effect}")
            os.kill(os.getpid(), signal.SIGKILL)


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


def plant(doom: Doom) -> None:
    """Make everything that has an effect tell ``doom`` before."""
    apply, commit, forget, answer = LinuxKernel.apply, Writer._execute, Conntrack.forget, Connection.answer

    def apply_one_by_one(self: LinuxKernel, ops: Sequence[Op], pod_netns: int | None = None) -> None:
        for op in ops:
            doom.step(op.describe())
            apply(self, [op], pod_netns)

    def commit_between(self: Writer, batch: Any) -> Any:
        doom.step("commit")
        outcome = commit(self, batch)
        doom.step("after commit")
        return outcome

    def forget_after(self: Conntrack, addrs: Collection[Addr]) -> None:
        doom.step("forget connections")
        forget(self, addrs)

    async def answer_after(self: Connection, exit_code: int, stdout: bytes) -> bool:
        doom.step("answer")
        return await answer(self, exit_code, stdout)

    planted: list[tuple[type, str, Callable[..., Any]]] = [
        (LinuxKernel, "apply", apply_one_by_one),
        (Writer, "_execute", commit_between),
        (Conntrack, "forget", forget_after),
        (Connection, "answer", answer_after),
    ]
    for owner, name, function in planted:
        setattr(owner, name, function)


async def agent(folder: Path, doom: Doom) -> None:
    host = LinuxKernel()
    store = LeaseStore(folder / "leases.db", boot_id="boot", clock=Clock())
    store.open()
    # What reconciliation makes of half a pod: all that can be made without its namespace.
    desired = NetState(nft=ruleset(NETWORK, CIDRS, store.attachments()))
    for att in store.attachments():
        desired = desired.merge(standing(att))
    observed = host.observe(desired.sysctls, "towpath")
    host.apply(diff(observed, desired, Scope()))
    settings = AttachSettings(pod_cidrs=CIDRS, not_ready="")
    async with attachments(store, host, Directory(), settings, asyncio.Lock()) as handler:
        await serve(folder / "cni.sock", handler)
        doom.armed = True
        say(f"READY {os.getpid()}")
        await asyncio.Event().wait()


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while line := sys.stdin.readline():
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            doom = Doom(int(line))
            plant(doom)
            asyncio.run(agent(Path(sys.argv[1]), doom))


if __name__ == "__main__":
    main()
