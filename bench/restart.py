"""What pods notice when an agent restarts, crashes, changes version, or its state is damaged.

    make bench-restart        the last line on stdout is JSON

One lab of two nodes, one probe run without a break, all kinds of probes on all paths in both families. A
fault happens every few seconds, to one node after the other, and every loss is counted for the fault in whose
time it was sent. ``control`` are as many windows without a fault, whose 99.9th percentile is compared with.
``flannel_v026``: the masquerade rules as flanneld keeps them, deleted at its SIGTERM and made anew a second
later by its successor (anchors/flannel-canal.md §2), under the same probes, Towpath's own masquerade off.

A fault's window ends when its agent is Ready again, plus half a second. ``lost`` are summed over the ``n``
windows, ``gap_ms`` and ``fail_open_ms`` the longest of any; ``level`` is that of the worst window, but for
latency, which has too few samples in one window and is judged over all of a fault's windows together.
"""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from bench.restart_faults import CONTROL, FLANNEL, Cluster, Fault, faults, flannel_fault
from bench.restart_versions import older_python
from towpath.kube import config
from towpath.kube.client import Client
from towpath.lab.client import LabClient
from towpath.lab.outside import OutsideHost
from towpath.probe.account import Total, account, gaps_of
from towpath.probe.cluster import new_run
from towpath.probe.levels import ADDED_P999_MS, Level, judge
from towpath.probe.live import summary
from towpath.probe.page import page
from towpath.probe.paths import Wanted
from towpath.probe.result import Mark, result
from towpath.probe.run import ProbeRun
from towpath.probe.strips import Parts

BEGUN = time.monotonic()
TIMES = int(os.environ.get("TOWPATH_BENCH_TIMES", "30"))
SETTLE = 0.5  # seconds after a fault is mended that still count as its own
ROUNDS_UNTIL, FLANNEL_UNTIL = 460.0, 560.0  # seconds: on a slow machine fewer rounds rather than longer ones
REPORT = Path(__file__).parents[1] / "build" / "bench-restart.html"
MUST_LOSE_NOTHING = ("restart", "kill", "version", CONTROL)
_ORDER = [Level.H0, Level.H1, Level.H2, Level.DISRUPTIVE, Level.UNKNOWN]


class Window(msgspec.Struct, frozen=True):
    """When a fault happened: wall nanoseconds. ``times`` how many agents it met."""

    fault: str
    begin: int
    end: int
    times: int = 1


def say(text: str) -> None:
    """Progress."""
    print(f"{time.monotonic() - BEGUN:6.1f} s  {text}", file=sys.stderr, flush=True)


@contextmanager
def lab() -> Iterator[LabClient]:
    """Two nodes, in a folder of their own."""
    with tempfile.TemporaryDirectory(prefix="towpath-bench-") as runtime:
        Path(runtime).chmod(0o700)
        os.environ["XDG_RUNTIME_DIR"] = runtime
        up = [sys.executable, "-m", "towpath", "lab", "up", "--name", "restart", "--nodes", "2"]
        subprocess.run(up, check=True, stdout=sys.stderr)
        client = LabClient("restart")
        try:
            yield client
        finally:
            client.call("down")
            while client.folder.exists():
                time.sleep(0.05)


async def happen(fault: Fault, number: int, windows: list[Window]) -> None:
    """One fault, in its window."""
    begin = time.time_ns()
    times = await asyncio.to_thread(fault.happen, number)
    await asyncio.sleep(SETTLE)
    windows.append(Window(fault.name, begin, time.time_ns(), times))


async def round_robin(cluster: Cluster, probing: ProbeRun, windows: list[Window]) -> None:
    """Control windows, then every fault in turn, so that a slow minute of the machine meets them all."""
    for _ in range(TIMES):
        windows.append(Window(CONTROL, time.time_ns(), time.time_ns() + 1_000_000_000))
        await asyncio.sleep(1.0)
    chosen = faults(cluster)
    for number in range(TIMES):
        for fault in chosen:
            if number % fault.every == 0 and number < fault.most * fault.every:
                await happen(fault, number, windows)
        progress(probing, f"round {number + 1}/{TIMES}")
        if time.monotonic() - BEGUN > ROUNDS_UNTIL:
            say(f"a slow machine: {number + 1} of {TIMES} rounds is all there is time for")
            break
    flannel = flannel_fault(cluster)
    await asyncio.to_thread(flannel.prepare)
    await asyncio.sleep(1.0)
    for number in range(TIMES):
        if time.monotonic() - BEGUN < FLANNEL_UNTIL or number == 0:
            await happen(flannel, number, windows)
    progress(probing, "flannel v0.26")


def progress(probing: ProbeRun, text: str) -> None:
    """What was lost until now, this comparison's own losses excepted."""
    say(f"{text}: {summary(list(probing.collection.parts(probing.begun)))}")


async def measure(client: LabClient, old: Path) -> tuple[ProbeRun, list[Window], int]:
    """The whole run."""
    windows: list[Window] = []
    async with Client(config.load(client.kubeconfig), user_agent="bench-restart") as kube:
        run = new_run("towpath/probe", (sys.executable,), 900)
        async with ProbeRun(kube, run, outside=OutsideHost(client), say=lambda _: None) as probing:
            found = await probing.deploy()
            await probing.start(Wanted(origins=tuple(found.targets)[:1], seconds=900))
            if probing.collection.left_out:
                raise SystemExit(f"probes that prove nothing: {probing.collection.left_out}")
            say(f"{len(probing.collection.probes)} probes on {len(found.targets)} nodes")
            await round_robin(Cluster(client, old), probing, windows)
            ended = time.time_ns()
            await asyncio.sleep(1.5)
            await probing.stop()
            return probing, windows, ended
    raise AssertionError("unreachable")


def figures(
    name: str, windows: list[Window], parts: Callable[[Window], Parts], control: Total
) -> dict[str, object]:
    """One fault's object of the last line."""
    mine = [window for window in windows if window.fault == name]
    each = [account(parts(window)) for window in mine]
    together = account([part for window in mine for part in parts(window)])
    added = together.p999_ms - control.p999_ms
    # A window alone: latency is not judged, and stalled probers are judged over all windows.
    levels = [judge(msgspec.structs.replace(one, invalid=0), None).level for one in each]
    worst = max(levels, key=_ORDER.index)
    if added > ADDED_P999_MS:
        worst = max(worst, Level.H1, key=_ORDER.index)
    return {
        "lost": together.lost,
        "gap_ms": round(max(one.gap_ms for one in each), 1),
        "failed_connects": together.failed_connects,
        "fail_open_ms": round(max(one.fail_open_ms for one in each), 1),
        "p999_added_ms": round(added, 2),
        "level": str(worst),
        "n": sum(window.times for window in mine),
    }


def unattributed(probing: ProbeRun, windows: list[Window]) -> int:
    """Losses and answers to denied probes outside of every fault's window (control windows are outside)."""
    at = probing.begun
    total = 0
    for window in sorted((w for w in windows if w.fault != CONTROL), key=lambda w: w.begin):
        between = account(list(probing.collection.parts(at, window.begin)))
        total += between.lost + between.opened
        at = window.end
    return total


def tell_losses(probing: ProbeRun, windows: list[Window]) -> None:
    """Where every loss was, a line a fault; those of faults that must lose nothing one by one."""
    for name in dict.fromkeys(window.fault for window in windows):
        by_place: Counter[str] = Counter()
        for number, window in enumerate(w for w in windows if w.fault == name):
            for probe, series in probing.collection.parts(window.begin, window.end):
                for gap in gaps_of(probe, series):
                    place = f"{probe.path} IPv{probe.family} {probe.kind}"
                    by_place[place] += gap.bad
                    if name in MUST_LOSE_NOTHING:
                        after = (series.start + gap.first * series.period - window.begin) / 1e9
                        say(f"  {name} {number}: {place}: {gap.bad} bad, {after:.3f} s after it began")
        if by_place:
            say(f"{name}: " + ", ".join(f"{place} {bad}" for place, bad in by_place.most_common()))


def main() -> int:
    """Print the figures; 1 when more than one sample of a hundred is invalid: they prove nothing then."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the lab goes as well
    old = older_python(say)
    with lab() as client:
        probing, windows, ended = asyncio.run(measure(client, old))
    collection = probing.collection

    def parts(window: Window) -> Parts:
        return list(collection.parts(window.begin, window.end))

    whole = account(list(collection.parts(probing.begun, ended)))
    control = account([part for window in windows if window.fault == CONTROL for part in parts(window)])
    names = list(dict.fromkeys(window.fault for window in windows))
    objects = {
        name: figures(name, windows, parts, control)
        for name in (*(n for n in names if n != CONTROL), CONTROL)
    }
    tell_losses(probing, windows)
    write_report(probing, windows, ended)
    line = {
        "bench": "restart",
        **objects,
        "samples": whole.sent,
        "invalid_percent": round(whole.invalid_share * 100, 3),
        "unattributed": unattributed(probing, windows),
        "control_p999_ms": round(control.p999_ms, 2),
        "seconds": round(time.monotonic() - BEGUN),
    }
    print(json.dumps(line))
    if whole.invalid_share > 0.01:
        say(f"FAILED: {whole.invalid_share:.2%} of the samples are invalid: the probers were stalled")
        return 1
    return 0


def write_report(probing: ProbeRun, windows: list[Window], ended: int) -> None:
    """The page, with a mark for each fault. The comparison with flannel is left out: it is not Towpath's."""
    own = [window for window in windows if window.fault != FLANNEL]
    last = max((window.end for window in own), default=ended)
    marks = [
        Mark(at_ms=(window.begin - probing.begun) / 1e6, what=window.fault)
        for window in own
        if window.fault != CONTROL
    ]
    title = "Towpath's agents restarted, killed, replaced, their state damaged"
    outcome = result(
        probing.collection, probing.begun, last, title=title, control_s=float(TIMES), marks=marks
    )
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(page(outcome))
    say(f"report: {REPORT}")


if __name__ == "__main__":
    shutil.which("nft") or sys.exit("nft is not on the PATH (Debian: apt install nftables)")
    sys.exit(main())
