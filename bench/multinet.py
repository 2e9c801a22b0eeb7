"""ADD of pods with two extra networks against Debian's plugins called in sequence; what a delegate costs
beyond its own execution; 64 pods started together.

The peer is a minimal runtime that executes the default network's plugins (ptp, host-local, portmap,
bandwidth) and then each extra network's, one after the other, as Multus's delegates run; what Multus itself
adds (its own process, its API calls) is not counted against it. Towpath is one call of the real shim, with
all of the agent behind it, which writes the journal and the pod's annotation too. Last on stdout: JSON.
"""

import json
import shutil
import statistics
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.cni import DEBIAN, debian_chain, enter_namespaces, start_agent, start_api, towpath_chain
from bench.cni_exec import Chain, Sandbox, Sandboxes

ROUNDS = 60
WARM_UP = 5
BURST = 64
TARGETS = {"add_ratio": 0.35, "delegate_overhead_ms": 3.0, "burst_lost": 0}
STATIC = {"type": "static", "addresses": [{"address": "10.77.0.1/16"}]}
MACVLAN = {"type": "macvlan", "master": "und0", "mode": "bridge", "ipam": STATIC}
PTP = {"type": "ptp", "ipam": {"type": "host-local", "dataDir": "/run/cni/bench"}}
CASES = {"plain": "", "own": "own,own", "third": "third1,third2"}


def main() -> None:
    """Run, print, exit 0."""
    enter_namespaces()
    folder = Path(tempfile.mkdtemp(prefix="towpath-bench-", dir="/var/tmp"))  # a real disk
    sandboxes = Sandboxes()
    processes = []
    try:
        definitions = {"own": _conf(MACVLAN), "third1": _conf(_ptp(1)), "third2": _conf(_ptp(2))}
        (folder / "definitions.json").write_text(json.dumps(definitions))
        processes.append(start_api(folder, _pods()))
        processes.append(start_agent(folder))
        chain = towpath_chain(folder)
        for name in ("ptp", "host-local"):
            (folder / "bin" / name).symlink_to(DEBIAN / name)
        times = _turns(chain, debian_chain(folder), sandboxes)
        lost, seconds = _burst(chain, sandboxes)
        print(json.dumps(_summary(times, lost, seconds)), flush=True)
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait()
        sandboxes.close()
        shutil.rmtree(folder)


def _conf(plugin: dict[str, Any]) -> dict[str, Any]:
    return {"cniVersion": "1.0.0", **plugin}


def _ptp(number: int) -> dict[str, Any]:
    ipam = {**PTP["ipam"], "ranges": [[{"subnet": f"10.{80 + number}.0.0/16"}]]}  # type: ignore[dict-item]
    return {**PTP, "ipam": ipam}


def _pods() -> list[str]:
    turns = [f"{case}-{n} {asked}" for case, asked in CASES.items() for n in range(WARM_UP + ROUNDS)]
    return [line.rstrip() for line in turns] + [f"burst-{n} own,own" for n in range(BURST)]


def _turns(ours: Chain, debian: Chain, sandboxes: Sandboxes) -> dict[str, list[float]]:
    """Milliseconds of each case, turn by turn, so that what else the machine does meets all alike."""
    extra = [(Chain("own", DEBIAN, [MACVLAN]), f"net{n}") for n in (1, 2)]
    third = [(Chain(f"third{n}", DEBIAN, [_ptp(n)]), f"net{n}") for n in (1, 2)]
    times: dict[str, list[float]] = {name: [] for name in (*CASES, "peer", "delegates")}
    for turn in range(WARM_UP + ROUNDS):
        found = {case: _of_towpath(ours, sandboxes, f"{case}-{turn}") for case in CASES}
        found["peer"] = _of_peer([(debian, "eth0"), *extra], sandboxes, f"peer-{turn}")
        found["delegates"] = _of_peer(third, sandboxes, f"delegates-{turn}")
        if turn >= WARM_UP:
            for name, seconds in found.items():
                times[name].append(seconds * 1000)
    for name, values in times.items():
        print(f"{name:10} ADD p50 {statistics.median(values):.2f} ms", file=sys.stderr)
    return times


def _of_towpath(chain: Chain, sandboxes: Sandboxes, name: str) -> float:
    sandbox = sandboxes.make(name)
    seconds, result = chain.add(sandbox, {})
    chain.delete(sandbox, {}, result)
    sandboxes.remove(sandbox)
    return seconds


def _of_peer(chains: list[tuple[Chain, str]], sandboxes: Sandboxes, name: str) -> float:
    sandbox = sandboxes.make(name)
    done: list[tuple[Chain, str, dict[str, Any]]] = []
    total = 0.0
    for chain, ifname in chains:
        seconds, result = chain.add(sandbox, {}, ifname)
        total += seconds
        done.append((chain, ifname, result))
    for chain, ifname, result in reversed(done):
        chain.delete(sandbox, {}, result, ifname)
    sandboxes.remove(sandbox)
    return total


def _burst(chain: Chain, sandboxes: Sandboxes) -> tuple[int, float]:
    """How many of 64 ADDs at once failed, and the slowest of them in seconds."""
    pods = [sandboxes.make(f"burst-{n}") for n in range(BURST)]

    def add(pod: Sandbox) -> tuple[float, dict[str, Any]] | None:
        try:
            return chain.add(pod, {})
        except (RuntimeError, ValueError) as error:
            print(f"{pod.container_id}: {error}", file=sys.stderr)
            return None

    with ThreadPoolExecutor(BURST) as threads:
        outcomes = list(threads.map(add, pods))
        well = [(pod, done) for pod, done in zip(pods, outcomes, strict=True) if done is not None]
        list(threads.map(lambda one: chain.delete(one[0], {}, one[1][1]), well))
    for pod in pods:
        sandboxes.remove(pod)
    slowest = max((seconds for _, (seconds, _) in well), default=0.0)
    print(f"burst of {BURST}: {BURST - len(well)} lost, the slowest took {slowest:.2f} s", file=sys.stderr)
    return BURST - len(well), slowest


def _summary(times: dict[str, list[float]], lost: int, slowest: float) -> dict[str, Any]:
    p50 = {name: statistics.median(values) for name, values in times.items()}
    overhead = (p50["third"] - p50["plain"] - p50["delegates"]) / 2
    return {
        "bench": "multinet",
        "add_ratio": round(p50["own"] / p50["peer"], 3),
        "delegate_overhead_ms": round(overhead, 2),
        "burst_lost": lost,
        "targets": TARGETS,
        "p50_ms": {name: round(value, 2) for name, value in p50.items()},
        "burst_slowest_s": round(slowest, 2),
        "n": ROUNDS,
    }


if __name__ == "__main__":
    main()
