"""What pods notice when an agent restarts, crashes, changes version, or its state is damaged.

    make bench-restart                                     the last line on stdout is JSON
    make bench-restart ONLY=restart,link ROUNDS=3          a part of it, or fewer rounds

One lab of two nodes, one probe run without a break, all kinds of probes on all paths in both families, a
secondary network (``bench.restart_network``) among them. A fault happens every few seconds, to one node after
the other, and every loss is counted for the fault in whose time it was sent. ``control`` are as many windows
without a fault, whose 99.9th percentile is compared with. ``flannel_v026``: the masquerade rules as flanneld
keeps them, deleted at its SIGTERM and made anew a second later by its successor (anchors/flannel-canal.md
§2), under the same probes, Towpath's own masquerade off. ``flush_unowned``: the flush on a kernel without
table owners, and what is open until the table is back.

A fault's window ends when its agent is Ready again, plus half a second. ``lost`` are summed over the ``n``
windows, ``gap_ms`` and ``fail_open_ms`` the longest of any; ``level`` is that of the worst window, but for
latency, which has too few samples in one window and is judged over all of a fault's windows together.
``takeover`` and ``handback`` come first, in a world of their own (``bench.restart_takeover``).

Some eleven minutes when nothing else runs; ``LIMITS`` keeps it under half an hour on any machine. What stops
it in the middle (an agent that does not come back) is named in ``stopped`` and fails the run; the figures
until then are printed all the same.
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from bench import restart_network, restart_takeover
from bench.restart_faults import (
    FLANNEL,
    UNOWNED,
    Cluster,
    Fault,
    FaultFailed,
    damage,
    flannel_fault,
    restarts,
    unowned_flush,
)
from bench.restart_versions import older_python
from bench.restart_windows import (
    BEGUN,
    BETWEEN,
    CONTROL,
    Window,
    between,
    figures,
    say,
    tell_invalid,
    tell_losses,
)
from towpath.kube import config
from towpath.kube.client import Client
from towpath.lab.client import LabClient
from towpath.lab.outside import OutsideHost
from towpath.lab.rundir import LabError
from towpath.probe.account import INVALID_LIMIT, account
from towpath.probe.cluster import new_run
from towpath.probe.page import page
from towpath.probe.paths import Wanted
from towpath.probe.result import Mark, result
from towpath.probe.run import ProbeRun
from towpath.probe.strips import Parts
from towpath.probe.tally import Tally

MOVED = ("takeover", "handback")
FAULTS = ("restart", "kill", "version", "flush", "link", UNOWNED, *MOVED, FLANNEL)
MUST_LOSE_NOTHING = ("restart", "kill", "version", CONTROL)
SETTLE = 0.5  # seconds after a fault is mended that still count as its own
# Seconds after which no other round of a part begins: a slow machine has fewer rather than a longer run.
LIMITS = {"moves": 240.0, "restarts": 840.0, "damage": 240.0, UNOWNED: 120.0, FLANNEL: 120.0}
PROBED = 60 + sum(LIMITS.values())  # seconds that probers are made for
REPORT = Path(__file__).parents[1] / "build" / "bench-restart.html"


class Chosen(msgspec.Struct, frozen=True):
    """What is measured: which faults, how many rounds in the lab, how many moves over and back."""

    faults: tuple[str, ...] = FAULTS
    rounds: int = 30
    moves: int = 10


class Measured(msgspec.Struct):
    """A run in the lab. ``stopped``: why it did not reach its end, else empty."""

    probing: ProbeRun
    tally: Tally
    windows: list[Window] = msgspec.field(default_factory=list)
    ended: int = 0
    stopped: str = ""


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


async def all_faults(cluster: Cluster, chosen: Chosen, measured: Measured) -> None:
    """Control windows; restarts in turn, so that a slow minute of the machine meets them all; then damage.

    Damage comes after all restarts, for it has an aftermath: connections that their two ends remember
    differently (a reset was lost, or what translated it forgotten) refuse a new one that has the same ports.
    Raises FaultFailed.
    """
    for _ in range(chosen.rounds):
        begin = time.time_ns()
        await asyncio.to_thread(cluster.look_on, 1.0)
        measured.windows.append(Window(CONTROL, begin, time.time_ns()))
    await rounds(restarts(cluster), "restarts", chosen, measured)
    await rounds(damage(cluster), "damage", chosen, measured)
    for fault in (unowned_flush(cluster), flannel_fault(cluster)):
        if fault.name in chosen.faults:
            await asyncio.to_thread(fault.prepare)
            await asyncio.sleep(1.0)
            await rounds((fault,), fault.name, chosen, measured)


async def rounds(faults: Sequence[Fault], part: str, chosen: Chosen, measured: Measured) -> None:
    """Each of the chosen ones once a round, until the rounds or the part's time are over."""
    wanted = [fault for fault in faults if fault.name in chosen.faults]
    until = time.monotonic() + LIMITS[part]
    for number in range(chosen.rounds if wanted else 0):
        for fault in wanted:
            if number % fault.every == 0:
                await happen(fault, number, measured.windows)
        names = ", ".join(fault.name for fault in wanted)
        progress(measured, f"{names} {number + 1}/{chosen.rounds}")
        if time.monotonic() > until:
            say("a slow machine: there is no time for more of these")
            break


def progress(measured: Measured, text: str) -> None:
    """What was lost until now, this comparison's own losses excepted."""
    collection = measured.probing.collection
    measured.tally.update(collection, time.time_ns())
    say(f"{text}: {measured.tally.words(collection.counting())}")


async def measure(client: LabClient, chosen: Chosen) -> Measured:
    """The run in the lab. Raises SystemExit when it cannot begin."""
    old = older_python(say) if "version" in chosen.faults else Path(sys.executable)
    async with Client(config.load(client.kubeconfig), user_agent="bench-restart") as kube:
        cluster = Cluster(client, kube, old)
        await asyncio.to_thread(restart_network.prepare, cluster)
        run = new_run("towpath/probe", (sys.executable,), int(PROBED), restart_network.NETWORK)
        async with ProbeRun(kube, run, outside=OutsideHost(client), say=lambda _: None) as probing:
            found = await probing.deploy()
            await probing.start(Wanted(origins=tuple(found.targets)[:1], seconds=PROBED))
            if probing.collection.left_out:
                raise SystemExit(f"probes that prove nothing: {probing.collection.left_out}")
            say(f"{len(probing.collection.probes)} probes on {len(found.targets)} nodes")
            measured = Measured(probing, Tally(probing.begun))
            try:
                await all_faults(cluster, chosen, measured)
            except (FaultFailed, LabError) as failed:
                measured.stopped = str(failed)
                say(f"STOPPED: {failed}")
            measured.ended = time.time_ns()
            await asyncio.sleep(1.5)
            await probing.stop()
    return measured


def in_the_lab(chosen: Chosen) -> dict[str, Any]:
    """The figures by fault, and those of the whole run."""
    with lab() as client:
        measured = asyncio.run(measure(client, chosen))
    collection, windows = measured.probing.collection, measured.windows

    def parts(window: Window) -> Parts:
        return list(collection.parts(window.begin, window.end))

    whole = account(list(collection.parts(measured.probing.begun, measured.ended)))
    control = account([part for window in windows if window.fault == CONTROL for part in parts(window)])
    names = dict.fromkeys(window.fault for window in windows)
    faults = [name for name in names if name != CONTROL]
    objects = {name: figures(name, windows, parts, control) for name in (*faults, CONTROL)}
    rest = between(windows, measured.probing.begun, measured.ended)
    tell_losses(collection, [*windows, *rest], (*MUST_LOSE_NOTHING, BETWEEN))
    tell_invalid(collection, [*windows, *rest])
    outside = [account(parts(window)) for window in rest]
    write_report(measured)
    return {
        **objects,
        "sent": whole.sent,
        "invalid": whole.invalid,
        "stopped": measured.stopped,
        "unattributed": sum(one.lost + one.opened for one in outside),
        "control_p999_ms": round(control.p999_ms, 2),
    }


def line(moved: dict[str, Any], probed: dict[str, Any]) -> dict[str, Any]:
    """The last line: faults first."""
    both = (moved, probed)
    sent, invalid = (sum(part.get(name, 0) for part in both) for name in ("sent", "invalid"))
    objects = {name: part[name] for part in (probed, moved) for name in FAULTS if name in part}
    control = probed.get(CONTROL) or moved.get(CONTROL)
    return {
        "bench": "restart",
        **objects,
        CONTROL: control,
        "samples": sent,
        "invalid_percent": round(100 * invalid / max(sent + invalid, 1), 3),
        **{name: probed[name] for name in ("unattributed", "control_p999_ms") if name in probed},
        "stopped": "; ".join(part["stopped"] for part in both if part.get("stopped")),
        "seconds": round(time.monotonic() - BEGUN),
    }


def choose() -> Chosen:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(prog="bench.restart")
    parser.add_argument("--only", default=",".join(FAULTS), help=f"some of {', '.join(FAULTS)}")
    parser.add_argument("--rounds", type=int, default=Chosen().rounds, help="of each fault in the lab")
    parser.add_argument("--moves", type=int, help="takeovers and handbacks (default: a third of the rounds)")
    given = parser.parse_args()
    only = tuple(name for name in given.only.split(",") if name)
    if unknown := [name for name in only if name not in FAULTS]:
        parser.error(f"no such fault: {', '.join(unknown)} (there are {', '.join(FAULTS)})")
    if given.rounds < 1 or (given.moves is not None and given.moves < 1):
        parser.error("at least one round")
    return Chosen(only, given.rounds, given.moves or max(1, given.rounds // 3))


def main() -> int:
    """Print the figures; 1 when the run stopped, or when more than one sample of a hundred is invalid: they
    prove nothing then.
    """
    chosen = choose()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the lab goes as well
    with suppress(OSError):  # root's: what the lab does must not take ten times as long beside other work
        os.setpriority(os.PRIO_PROCESS, 0, -5)
    moved: dict[str, Any] = {}
    probed: dict[str, Any] = {}
    if set(chosen.faults) & set(MOVED):
        moved = restart_takeover.run(chosen.moves, LIMITS["moves"])
    if set(chosen.faults) - set(MOVED):
        try:
            probed = in_the_lab(chosen)
        except (Exception, SystemExit) as failed:  # the moves' figures are not lost for it
            probed = {"stopped": f"the lab: {type(failed).__name__}: {failed}"}
    last = line(moved, probed)
    print(json.dumps(last))
    if last["stopped"]:
        say(f"FAILED: {last['stopped']}")
    if last["invalid_percent"] > INVALID_LIMIT * 100:
        say(f"FAILED: {last['invalid_percent']} % of the samples are invalid: the probers were stalled")
    return int(bool(last["stopped"]) or last["invalid_percent"] > INVALID_LIMIT * 100)


def write_report(measured: Measured) -> None:
    """The page, with a mark for each fault, but for the last two: an older kernel's flush, and flannel."""
    probing = measured.probing
    own = [window for window in measured.windows if window.fault not in (UNOWNED, FLANNEL)]
    last = max((window.end for window in own), default=measured.ended)
    marks = [
        Mark(at_ms=(window.begin - probing.begun) / 1e6, what=window.fault)
        for window in own
        if window.fault != CONTROL
    ]
    control_s = sum((window.end - window.begin) / 1e9 for window in own if window.fault == CONTROL)
    title = "Towpath's agents restarted, killed, replaced, their state damaged"
    outcome = result(probing.collection, probing.begun, last, title=title, control_s=control_s, marks=marks)
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(page(outcome))
    say(f"report: {REPORT}")


if __name__ == "__main__":
    shutil.which("nft") or sys.exit("nft is not on the PATH (Debian: apt install nftables)")
    sys.exit(main())
