"""The part of ``bench.restart`` that moves a node between Canal and Towpath, over and back, under probes.

    python -m bench.restart_takeover TIMES SECONDS     the last line on stdout is JSON

The world is that of ``tests/kernel/test_takeover.py``: two nodes with the real agent, shim, host-local,
portmap, iptables and ipset, and stand-ins for Felix, flanneld and Calico's plugin, which Debian does not
have. Probes go from a pod to pods of both nodes and to the outside, from the node and from outside to a host
port, and to a pod that a policy closes. It runs in namespaces of its own. ``SECONDS`` bounds it: fewer turns
on a slow machine.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec

from bench.restart_windows import CONTROL, Window, figures, say, tell_invalid, tell_losses
from towpath.kernel.netns import run_in
from towpath.lab import namespaces
from towpath.probe.account import account
from towpath.probe.collect import Collection
from towpath.probe.plan import PERIODS, TIMEOUTS, Kind, Plan, Probe, spread
from towpath.probe.strips import Parts

TESTS = Path(__file__).parents[1] / "tests"
MODULE = (sys.executable, "-m", "towpath.probe")
ECHO, DNS, CLOSED, HOST_PORT, BEHIND_IT = 7001, 7053, 7009, 8080, 80
_PATIENCE = 120  # seconds that a move waits for others
_SETUP_WITHIN = 300.0  # seconds, the last move included
LISTENS = (f"{ECHO}/TCP", f"{ECHO}/UDP", f"{DNS}/DNS")
MOVES = ("takeover", "handback")
_EVERY = (Kind.UDP, Kind.UDP_FRESH, Kind.ECHO, Kind.CONNECT, Kind.DNS)


def isolate() -> None:
    """Namespaces of our own, as the tests' conftest makes them."""
    uid, gid = os.geteuid(), os.getegid()
    flags = namespaces.CLONE_NEWNET | namespaces.CLONE_NEWNS | (namespaces.CLONE_NEWUSER if uid else 0)
    namespaces.unshare(flags)
    if uid:
        namespaces.map_current_user(uid, gid)
    namespaces.make_private()
    namespaces.mount("none", "/run", "tmpfs")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    sys.path[:0] = [str(TESTS / "kernel"), str(TESTS)]


class Plans:
    """Probes by the namespace that asks them, numbered through."""

    def __init__(self) -> None:
        self.by_place: dict[int, list[Probe]] = {}
        self._number = 0

    def ask(self, netns: int, path: str, address: str, kinds: tuple[Kind, ...], port: int = 0) -> None:
        """One path in one family."""
        for kind in kinds:
            self.by_place.setdefault(netns, []).append(
                Probe(
                    number=self._number,
                    kind=kind,
                    path=path,
                    family=6 if ":" in address else 4,
                    address=address,
                    port=port or (DNS if kind is Kind.DNS else ECHO),
                    period=PERIODS[kind],
                    timeout=TIMEOUTS[kind],
                    name="a.example",
                )
            )
            self._number += 1

    def made(self, seconds: float) -> list[tuple[int, Plan]]:
        """With each its namespace."""
        return [
            (netns, Plan(prober=f"place {index}", seconds=seconds, probes=spread(probes)))
            for index, (netns, probes) in enumerate(self.by_place.items())
        ]


def plans(world: Any, outside: tuple[str, ...]) -> Plans:
    """All paths of the world."""
    n1, n2 = world.n1, world.n2
    web, slow, closed, far = n1.pods["web"], n1.pods["slow"], n1.pods["closed"], n2.pods["far"]
    found = Plans()
    for number in (0, 1):
        found.ask(slow.netns_fd, "pod → pod, same node", web.addresses[number], _EVERY)
        found.ask(slow.netns_fd, "pod → pod, cross node", far.addresses[number], _EVERY)
        found.ask(slow.netns_fd, "pod → outside, SNAT", outside[number], _EVERY)
        found.ask(n1.netns, "node → pod", web.addresses[number], _EVERY)
        # Closed from the beginning, so UDP does not wait to see TCP answered first: paths of their own.
        for kind in (Kind.DENY_TCP, Kind.DENY_UDP):
            found.ask(slow.netns_fd, f"pod → closed pod, {kind}", closed.addresses[number], (kind,), CLOSED)
            found.ask(
                far.netns_fd, f"other node → closed pod, {kind}", closed.addresses[number], (kind,), CLOSED
            )
    found.ask(n2.netns, "outside → hostPort", "172.30.0.11", _EVERY[:-1], HOST_PORT)
    return found


@contextlib.contextmanager
def answering(places: list[tuple[int, tuple[str, ...]]]) -> Iterator[None]:
    """Targets in these namespaces."""

    def serve(netns: int, ports: tuple[str, ...]) -> subprocess.Popen[bytes]:
        return run_in(netns, lambda: subprocess.Popen([*MODULE, "serve", "target", *ports]))

    running = [serve(netns, ports) for netns, ports in places]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


@contextlib.asynccontextmanager
async def probing(made: list[tuple[int, Plan]]) -> AsyncIterator[Collection]:
    """Probers in their namespaces, read as they go."""
    collection = Collection([plan for _, plan in made])
    processes, readers = [], []
    for netns, plan in made:
        command = [*MODULE, "run", msgspec.json.encode(plan).decode()]
        process = run_in(netns, lambda command=command: subprocess.Popen(command, stdout=subprocess.PIPE))  # type: ignore[misc]
        processes.append(process)
        readers.append(asyncio.create_task(asyncio.to_thread(_read, process, collection)))
    try:
        while len(collection.started) < len(made):  # noqa: ASYNC110 (readers are threads)
            await asyncio.sleep(0.05)
        yield collection
    finally:
        for process in processes:
            process.terminate()
        await asyncio.gather(*readers)
        for process in processes:
            process.wait()


def _read(process: "subprocess.Popen[bytes]", collection: Collection) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        collection.take(line)
    process.stdout.close()


async def turns(world: Any, times: int, until: float, windows: list[Window]) -> str:
    """A control, then over and back in turn; why it stopped, else nothing."""
    from test_takeover import handed_back, taken_over

    for _ in range(times):
        begin = time.time_ns()
        await asyncio.sleep(1.0)
        windows.append(Window(CONTROL, begin, time.time_ns()))
    for number in range(times):
        for name, move in zip(MOVES, (taken_over, handed_back), strict=True):
            begin = time.time_ns()
            try:
                status, _, said = await move(world, f"--patience={_PATIENCE}")
            except (AssertionError, OSError, subprocess.SubprocessError) as failed:
                return f"{name} {number + 1}: {failed}"
            if status:
                return f"{name} {number + 1}: exit {status}: {said.splitlines()[-1]}"
            await asyncio.sleep(0.5)
            windows.append(Window(name, begin, time.time_ns()))
        say(f"over and back {number + 1}/{times}")
        if time.monotonic() > until:
            break
    return ""


async def measure(times: int, seconds: float) -> dict[str, Any]:
    """The figures by fault."""
    from canal_world import OUTSIDE4, OUTSIDE6, agent_running, canal_world
    from test_takeover import populated

    until = time.monotonic() + seconds
    windows: list[Window] = []
    with tempfile.TemporaryDirectory(prefix="towpath-takeover-") as folder:
        async with canal_world(Path(folder)) as world:
            await populated(world)
            n1, n2 = world.n1, world.n2
            for pod in (*n1.pods.values(), *n2.pods.values()):
                pod.netns_fd = pod.netns  # type: ignore[attr-defined]
            behind = (f"{BEHIND_IT}/TCP", f"{BEHIND_IT}/UDP")
            targets = [
                (n1.pods["web"].netns, (*LISTENS, *behind)),
                (n2.pods["far"].netns, LISTENS),
                (n1.pods["closed"].netns, (f"{CLOSED}/TCP", f"{CLOSED}/UDP")),
                (n2.netns, LISTENS),
            ]
            asked = plans(world, (OUTSIDE4, OUTSIDE6)).made(900)
            async with agent_running(n1):
                with answering(targets):
                    await asyncio.sleep(0.5)
                    async with probing(asked) as collection:
                        await asyncio.sleep(2.0)
                        for number in collection.silent():
                            raise SystemExit(f"never answered: {collection.probes[number]}")
                        begun = time.time_ns()
                        stopped = await turns(world, times, until, windows)
                        ended = time.time_ns()
                        await asyncio.sleep(1.5)

    def parts(window: Window) -> Parts:
        return list(collection.parts(window.begin, window.end))

    control = account([part for w in windows if w.fault == CONTROL for part in parts(w)])
    whole = account(list(collection.parts(begun, ended)))
    tell_losses(collection, windows, (CONTROL, *MOVES))
    tell_invalid(collection, windows)
    names = [name for name in (CONTROL, *MOVES) if any(window.fault == name for window in windows)]
    found: dict[str, Any] = {name: figures(name, windows, parts, control) for name in names}
    return found | {"sent": whole.sent, "invalid": whole.invalid, "stopped": stopped}


def main() -> None:
    """Print the figures."""
    isolate()
    print(json.dumps(asyncio.run(measure(int(sys.argv[1]), float(sys.argv[2])))))


def run(times: int, seconds: float) -> dict[str, Any]:
    """In a process of its own; its figures, or why there are none (``stopped``)."""
    command = [sys.executable, "-m", "bench.restart_takeover", str(times), str(seconds)]
    try:
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=seconds + _SETUP_WITHIN)
        last: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, OSError, ValueError, IndexError) as failed:
        return {"stopped": f"the moves: {failed}"}
    return last


if __name__ == "__main__":
    main()
