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
``takeover`` and ``handback`` come first, in a world of their own (``bench.restart_takeover``).
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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench import restart_takeover
from bench.restart_faults import CONTROL, FLANNEL, Cluster, Fault, damage, flannel_fault, restarts
from bench.restart_versions import older_python
from bench.restart_windows import BEGUN, Window, figures, say, tell_losses
from towpath.kube import config
from towpath.kube.client import Client
from towpath.lab.client import LabClient
from towpath.lab.outside import OutsideHost
from towpath.probe.account import INVALID_LIMIT, account
from towpath.probe.cluster import new_run
from towpath.probe.live import summary
from towpath.probe.page import page
from towpath.probe.paths import Wanted
from towpath.probe.result import Mark, result
from towpath.probe.run import ProbeRun
from towpath.probe.strips import Parts

MOVES, MOVES_WITHIN = 10, 100.0  # takeovers and handbacks; seconds after which no other begins
TIMES = int(os.environ.get("TOWPATH_BENCH_TIMES", "30"))
SETTLE = 0.5  # seconds after a fault is mended that still count as its own
# Seconds until no other round begins: on a slow machine there are fewer rather than a longer run.
RESTARTS_UNTIL, DAMAGE_UNTIL, FLANNEL_UNTIL = 365.0, 460.0, 530.0
REPORT = Path(__file__).parents[1] / "build" / "bench-restart.html"
MUST_LOSE_NOTHING = ("restart", "kill", "version", CONTROL)


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


async def all_faults(cluster: Cluster, probing: ProbeRun, windows: list[Window]) -> None:
    """Control windows; restarts in turn, so that a slow minute of the machine meets them all; then damage.

    Damage comes after all restarts, for it has an aftermath: connections that their two ends remember
    differently (a reset was lost, or what translated it forgotten) refuse a new one that has the same ports.
    """
    for _ in range(TIMES):
        begin = time.time_ns()
        await asyncio.sleep(1.0)
        windows.append(Window(CONTROL, begin, time.time_ns()))
    for chosen, until in ((restarts(cluster), RESTARTS_UNTIL), (damage(cluster), DAMAGE_UNTIL)):
        for number in range(TIMES):
            for fault in chosen:
                if number % fault.every == 0:
                    await happen(fault, number, windows)
            names = ", ".join(fault.name for fault in chosen)
            progress(probing, f"{names} {number + 1}/{TIMES}")
            if time.monotonic() - BEGUN > until:
                say("a slow machine: there is no time for more of these")
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
            await all_faults(Cluster(client, old), probing, windows)
            ended = time.time_ns()
            await asyncio.sleep(1.5)
            await probing.stop()
            return probing, windows, ended
    raise AssertionError("unreachable")


def unattributed(probing: ProbeRun, windows: list[Window]) -> int:
    """Losses and answers to denied probes outside of every fault's window (control windows are outside)."""
    at = probing.begun
    total = 0
    for window in sorted((w for w in windows if w.fault != CONTROL), key=lambda w: w.begin):
        between = account(list(probing.collection.parts(at, window.begin)))
        total += between.lost + between.opened
        at = window.end
    return total


def main() -> int:
    """Print the figures; 1 when more than one sample of a hundred is invalid: they prove nothing then."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the lab goes as well
    with suppress(OSError):  # root's: what the lab does must not take ten times as long beside other work
        os.setpriority(os.PRIO_PROCESS, 0, -5)
    old = older_python(say)
    moved = restart_takeover.run(MOVES, MOVES_WITHIN)
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
    invalid = whole.invalid + moved["invalid"]
    share = invalid / (whole.sent + moved["sent"] + invalid)
    tell_losses(collection, windows, MUST_LOSE_NOTHING)
    objects |= {name: moved[name] for name in ("takeover", "handback")}
    write_report(probing, windows, ended)
    line = {
        "bench": "restart",
        **objects,
        "samples": whole.sent + moved["sent"],
        "invalid_percent": round(share * 100, 3),
        "unattributed": unattributed(probing, windows),
        "control_p999_ms": round(control.p999_ms, 2),
        "seconds": round(time.monotonic() - BEGUN),
    }
    print(json.dumps(line))
    if share > INVALID_LIMIT:
        say(f"FAILED: {share:.2%} of the samples are invalid: the probers were stalled")
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
