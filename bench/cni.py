"""ADD and DEL against Debian's ptp + host-local + portmap + bandwidth, in the same run, turn by turn.

Measured is what a runtime waits for: the time from executing a plugin to its exit, summed over the chain.
Towpath's chain is one plugin, the real shim, with the whole agent behind it. Both keep their state on the
same disk. Everything happens in a network and a mount namespace of its own. The last line of stdout is JSON;
progress goes to stderr.
"""

import contextlib
import ctypes
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.cni_exec import NODE, NODE_ADDRESS, POD_CIDR, Chain, Sandboxes

ROUNDS = 100
WARM_UP = 5
BURST = 100
BURSTS = 3
DEBIAN = Path("/usr/lib/cni")
ROOT = Path(__file__).parents[1]
SHIM = ROOT / "src/towpath/bin/towpath-cni"
HEALTH = "127.0.0.1:9109"
TARGETS = {"add_ratio": 0.25, "del_ratio": 0.35, "burst_ratio": 0.25}
_CLONE_NEWNS, _CLONE_NEWNET, _MS_REC_PRIVATE = 0x00020000, 0x40000000, 0x44000


def main() -> None:
    """Run, print, exit 0."""
    enter_namespaces()
    # Not in /tmp, which is often a tmpfs: the durability of leases is part of the price.
    folder = Path(tempfile.mkdtemp(prefix="towpath-bench-", dir="/var/tmp"))
    sandboxes = Sandboxes()
    processes = []
    try:
        processes.append(start_api(folder, _pod_names()))
        processes.append(start_agent(folder))
        chains = (towpath_chain(folder), debian_chain(folder))
        cases = [_compare(chains, sandboxes, port) for port in (False, True)]
        bursts = [_burst(chain, sandboxes) for chain in chains]
        print(json.dumps(_summary(cases, bursts)), flush=True)
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait()
        sandboxes.close()
        shutil.rmtree(folder)


def enter_namespaces() -> None:
    """A network and a mount namespace with a node's underlay. Exits without root."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET | _CLONE_NEWNS) != 0:
        sys.exit("bench-cni needs root: it makes namespaces of its own and executes CNI plugins in them")
    libc.mount(b"none", b"/", None, _MS_REC_PRIVATE, None)
    libc.mount(b"run", b"/run", b"tmpfs", 0, None)
    for command in (
        "link set lo up",
        "link add und0 type veth peer name und1",
        "link set und0 up",
        "link set und1 up",
        f"address add {NODE_ADDRESS}/24 dev und0",
    ):
        subprocess.run(["ip", *command.split()], check=True)


def _start(module: str, *arguments: str, stdin: str = "") -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", module, *arguments]
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=sys.stderr, text=True, cwd=ROOT)
    assert process.stdin is not None
    process.stdin.write(stdin)
    process.stdin.close()
    return process


def start_api(folder: Path, pods: list[str]) -> subprocess.Popen[str]:
    """``pods`` as ``bench.cni_api`` reads them."""
    process = _start("bench.cni_api", str(folder), stdin="\n".join(pods))
    assert process.stdout is not None
    if process.stdout.readline() != "READY\n":
        sys.exit("the API server did not start")
    return process


def start_agent(folder: Path) -> subprocess.Popen[str]:
    """The agent as it runs on a node: watching the API and the kernel, mending, serving metrics."""
    settings = {
        "node_name": NODE,
        "kubeconfig": str(folder / "kubeconfig"),
        "net_conf": {"Network": POD_CIDR, "Backend": {"Type": "vxlan"}},
        "cni_socket": str(folder / "cni.sock"),
        "state_dir": str(folder / "state"),
        "health_address": HEALTH,
        "log_level": "warning",
        # Debian's plugins do not ask the segment for an address, and the pods of bench-multinet share one.
        "network_ask_ms": 0,
    }
    (folder / "agent.json").write_text(json.dumps(settings))
    process = _start("towpath.agent", f"--config={folder / 'agent.json'}")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{HEALTH}/readyz"):
            return process
        time.sleep(0.05)
    process.kill()
    sys.exit("the agent did not become ready")


def _names(prefix: str) -> tuple[list[list[str]], list[list[str]]]:
    """Container names, which are pod names too: of the two cases turn by turn, and of the bursts."""
    turns = range(WARM_UP + ROUNDS)
    cases = [[f"{prefix}-{label}-{turn}" for turn in turns] for label in ("plain", "port")]
    bursts = [[f"{prefix}-burst{number}-{n}" for n in range(BURST)] for number in range(BURSTS)]
    return cases, bursts


def _pod_names() -> list[str]:
    cases, bursts = _names("towpath")
    return [name for group in (*cases, *bursts) for name in group]


def towpath_chain(folder: Path) -> Chain:
    """The shim, and its agent's socket."""
    plugins = folder / "bin"
    plugins.mkdir()
    shutil.copy2(SHIM, plugins / "towpath-cni")
    (plugins / "towpath-cni.socket").write_text(f"{folder / 'cni.sock'}\n")
    return Chain(
        "towpath",
        plugins,
        [{"type": "towpath-cni", "capabilities": {"portMappings": True, "bandwidth": True}}],
    )


def debian_chain(folder: Path) -> Chain:
    """What a cluster without Towpath executes for the default network."""
    ranges = [[{"subnet": "10.89.0.0/16"}]]
    ipam = {
        "type": "host-local",
        "ranges": ranges,
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": str(folder / "host-local"),
    }
    return Chain(
        "debian",
        DEBIAN,
        [
            {"type": "ptp", "ipMasq": False, "mtu": 1450, "ipam": ipam},
            {"type": "portmap", "snat": True, "capabilities": {"portMappings": True}},
            {"type": "bandwidth", "capabilities": {"bandwidth": True}},
        ],
    )


def _compare(chains: tuple[Chain, Chain], sandboxes: Sandboxes, port: bool) -> list[dict[str, float]]:
    """Alternate the chains, so that what else the machine does meets both alike."""
    times: list[dict[str, list[float]]] = [{"add": [], "del": []} for _ in chains]
    label = "with a port mapping" if port else "without port mapping"
    for turn in range(WARM_UP + ROUNDS):
        for chain, taken in zip(chains, times, strict=True):
            sandbox = sandboxes.make(_names(chain.name)[0][port][turn])
            capabilities = {"portMappings": [_mapping(turn)]} if port else {}
            add, result = chain.add(sandbox, capabilities)
            delete = chain.delete(sandbox, capabilities, result)
            sandboxes.remove(sandbox)
            if turn >= WARM_UP:
                taken["add"].append(add * 1000)
                taken["del"].append(delete * 1000)
    found = [_percentiles(taken) for taken in times]
    for chain, figures in zip(chains, found, strict=True):
        print(f"{chain.name:8} {label}: {figures}", file=sys.stderr)
    return found


def _mapping(turn: int) -> dict[str, Any]:
    return {"hostPort": 20000 + turn, "containerPort": 80, "protocol": "tcp"}


def _percentiles(taken: dict[str, list[float]]) -> dict[str, float]:
    figures = {}
    for what, values in taken.items():
        figures[f"{what}_p50_ms"] = round(statistics.median(values), 2)
        figures[f"{what}_p99_ms"] = round(statistics.quantiles(values, n=100, method="inclusive")[98], 2)
    return figures


def _burst(chain: Chain, sandboxes: Sandboxes) -> float:
    """Seconds until the last of 100 ADDs started at once is answered; the median of some bursts."""
    seconds = []
    for number in range(BURSTS):
        pods = [sandboxes.make(name) for name in _names(chain.name)[1][number]]
        with ThreadPoolExecutor(BURST) as threads:
            begun = time.perf_counter()
            outcomes = list(threads.map(lambda pod: chain.add(pod, {})[1], pods))
            seconds.append(time.perf_counter() - begun)
            addresses = {outcome["ips"][0]["address"] for outcome in outcomes}
            if len(addresses) != BURST:
                raise RuntimeError(f"{chain.name}: {len(addresses)} addresses for {BURST} pods")
            list(
                threads.map(lambda pair: chain.delete(pair[0], {}, pair[1]), zip(pods, outcomes, strict=True))
            )
        for pod in pods:
            sandboxes.remove(pod)
        print(f"{chain.name:8} burst of {BURST}: {seconds[-1]:.3f} s", file=sys.stderr)
    return statistics.median(seconds)


def _summary(cases: list[list[dict[str, float]]], bursts: list[float]) -> dict[str, Any]:
    """The worse of the two cases decides a ratio, and its figures are shown."""
    ratios = {}
    for what in ("add", "del"):
        ratios[what] = max(ours[f"{what}_p50_ms"] / peer[f"{what}_p50_ms"] for ours, peer in cases)
    plain, mapped = cases
    return {
        "bench": "cni",
        "add_ratio": round(ratios["add"], 3),
        "del_ratio": round(ratios["del"], 3),
        "burst_ratio": round(bursts[0] / bursts[1], 3),
        "targets": TARGETS,
        "towpath": {**plain[0], "burst_s": round(bursts[0], 3), "portmap": mapped[0]},
        "peer": {**plain[1], "burst_s": round(bursts[1], 3), "portmap": mapped[1]},
        "n": ROUNDS,
    }


if __name__ == "__main__":
    main()
