"""Allocating and releasing addresses, durably, against Debian's host-local executable, turn by turn.

A pair is what one pod costs: an address is chosen, the kernel asked whether anybody else has it, the lease
put on the disk (fsync), and later taken off again. host-local is executed, as Canal does for every call;
Towpath's part is what runs inside the agent for it, without the shim's and the runtime's share, which ``make
bench-cni`` measures. Both keep their state in folders of one disk. With 200 addresses in use, then with 4
000, where host-local's walk through its folder shows. The last line of stdout is JSON; progress goes to
stderr. host-local itself never waits for the disk; Towpath does, before an address is used.
"""

import asyncio
import contextlib
import json
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from bench import ipam_blocks
from bench.cni_exec import execute
from towpath.agent.attach_netlink import NodeNetlink
from towpath.ipam.allocate import make_range
from towpath.ipam.host_local import HostLocalLease
from towpath.ipam.store import LeaseStore
from towpath.ipam.writer import Writer
from towpath.model.attachment import Attachment, PodRef

HOST_LOCAL = Path("/usr/lib/cni/host-local")
SUBNET = "10.88.0.0/19"
SETS = ((make_range(ip_network(SUBNET)),),)
IN_USE = (200, 4000)
PAIRS = 300
BLOCK = 10
TOGETHER = 64
ROUNDS = 40
TARGETS = {"ratio_200": 0.2, "ratio_4000": 0.2, "writes_per_allocation": 0.05}


class Commits:
    """Counts transactions, each of which waits for the disk once."""

    def __init__(self) -> None:
        self.number = 0
        execute_jobs = Writer._execute

        def counted(writer: Writer, jobs: list[Any]) -> sqlite3.Error | None:
            self.number += 1
            return execute_jobs(writer, jobs)

        Writer._execute = counted  # type: ignore[assignment,method-assign]


class Towpath:
    """The agent's lease store, and the question to the kernel that goes with every address."""

    def __init__(self, folder: Path) -> None:
        clock = time.monotonic
        self.store = LeaseStore(folder / "leases.db", boot_id="bench", clock=clock)
        self.store.open()
        self.netlink = NodeNetlink()

    def close(self) -> None:
        self.netlink.close()
        self.store.close()

    async def add(self, container_id: str) -> None:
        choices = self.store.choose(SETS, (), self.netlink.routes)
        att = Attachment(
            container_id=container_id,
            ifname="eth0",
            network="bench",
            netns=f"/run/netns/{container_id}",
            host_ifname=f"cali{container_id[:11]}",
            addresses=tuple(choice.address for choice in choices),
            mac="02:00:00:00:00:01",
            mtu=1450,
            boot_id="bench",
            pod=PodRef(namespace="default", name=container_id[:20], uid=container_id[:36]),
        )
        await self.store.add(att, choices)

    async def delete(self, container_id: str) -> None:
        await self.store.release(container_id, "eth0")

    async def pair(self, container_id: str) -> tuple[float, float]:
        """Seconds of both, and of the first alone."""
        begun = time.perf_counter()
        await self.add(container_id)
        middle = time.perf_counter()
        await self.delete(container_id)
        return time.perf_counter() - begun, middle - begun


class Peer:
    """host-local, with its files where they are by default below ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "networks" / "bench"
        self.folder.mkdir(parents=True)
        ipam = {"type": "host-local", "ranges": [[{"subnet": SUBNET}]], "dataDir": str(folder / "networks")}
        self.config = json.dumps({"cniVersion": "0.4.0", "name": "bench", "ipam": ipam}).encode()

    def fill(self, container_ids: Iterable[str]) -> None:
        """Leases as it would have written them."""
        for number, container_id in enumerate(container_ids, 2):
            address = ip_network(SUBNET)[number]
            lease = HostLocalLease(address=address, container_id=container_id, ifname="eth0")
            (self.folder / str(address)).write_bytes(lease.content())
            (self.folder / "last_reserved_ip.0").write_text(str(address))

    def call(self, command: str, container_id: str) -> float:
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container_id,
            "CNI_NETNS": "/proc/self/ns/net",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(HOST_LOCAL.parent),
        }
        answer = execute(HOST_LOCAL, environment, self.config)
        if answer.status:
            raise RuntimeError(f"host-local {command}: {answer.stdout.decode()}")
        if command == "ADD":
            ip_address(json.loads(answer.stdout)["ips"][0]["address"].partition("/")[0])
        return answer.seconds

    def pair(self, container_id: str) -> float:
        return self.call("ADD", container_id) + self.call("DEL", container_id)


def container(kind: str, number: int) -> str:
    """An ID of 64 characters, as runtimes make them."""
    return f"{kind}{number:07d}".ljust(64, "f")


async def compare(in_use: int) -> dict[str, float]:
    """Pairs of both, in turns of ten."""
    # Not in /tmp, which is often a tmpfs: the durability of leases is part of the price.
    folder = Path(tempfile.mkdtemp(prefix="towpath-bench-", dir="/var/tmp"))
    ours = Towpath(folder)
    try:
        peer = Peer(folder)
        ids = [container("a", n) for n in range(in_use)]
        peer.fill(ids)
        for begin in range(0, in_use, 100):
            await asyncio.gather(*map(ours.add, ids[begin : begin + 100]))
        pairs: list[float] = []
        adds: list[float] = []
        peers: list[float] = []
        for turn in range(PAIRS // BLOCK):
            for number in range(turn * BLOCK, (turn + 1) * BLOCK):
                both, add = await ours.pair(container("b", number))
                pairs.append(both)
                adds.append(add)
            peers += [peer.pair(container("b", n)) for n in range(turn * BLOCK, (turn + 1) * BLOCK)]
        found = {
            "pair_ms": statistics.median(pairs) * 1000,
            "peer_pair_ms": statistics.median(peers) * 1000,
            "ratio": statistics.median(pairs) / statistics.median(peers),
            "add_p50_ms": statistics.median(adds) * 1000,
            "add_p99_ms": statistics.quantiles(adds, n=100)[98] * 1000,
            "peer_p99_ms": statistics.quantiles(peers, n=100)[98] * 1000,
        }
        print(f"{in_use} in use: {json.dumps({k: round(v, 3) for k, v in found.items()})}", file=sys.stderr)
        return found
    finally:
        ours.close()
        shutil.rmtree(folder)


async def together(commits: Commits) -> dict[str, float]:
    """Allocations of 64 pods at once, again and again, with 200 in use."""
    folder = Path(tempfile.mkdtemp(prefix="towpath-bench-", dir="/var/tmp"))
    ours = Towpath(folder)
    try:
        for number in range(200):
            await ours.add(container("a", number))
        before = commits.number
        for number in range(100):
            await ours.add(container("l", number))
        lone = commits.number - before
        seconds, burst = 0.0, 0
        for turn in range(ROUNDS):
            ids = [container("b", turn * TOGETHER + n) for n in range(TOGETHER)]
            begun, before = time.perf_counter(), commits.number
            await asyncio.gather(*map(ours.add, ids))
            seconds += time.perf_counter() - begun
            burst += commits.number - before
            await asyncio.gather(*map(ours.delete, ids))
        return {
            "alloc_per_s": ROUNDS * TOGETHER / seconds,
            "commits_lone": lone / 100,
            "commits_burst": burst / (ROUNDS * TOGETHER),
        }
    finally:
        ours.close()
        shutil.rmtree(folder)


async def run() -> dict[str, Any]:
    """All of it."""
    if not HOST_LOCAL.exists():
        raise SystemExit(f"{HOST_LOCAL} is not there: apt-get install containernetworking-plugins")
    commits = Commits()
    found = {in_use: await compare(in_use) for in_use in IN_USE}
    burst = await together(commits)
    blocks = await ipam_blocks.run()
    print(f"blocks: {json.dumps({k: round(v, 3) for k, v in blocks.items()})}", file=sys.stderr)
    few, many = found.values()
    return {
        "bench": "ipam",
        "ratio_200": round(few["ratio"], 3),
        "ratio_4000": round(many["ratio"], 3),
        "alloc_per_s": round(burst["alloc_per_s"]),
        "p99_ms": round(many["add_p99_ms"], 3),
        "commits_per_allocation": round(burst["commits_lone"], 3),
        "commits_per_allocation_burst": round(burst["commits_burst"], 4),
        **{key: round(value, 4) for key, value in blocks.items()},
        "targets": TARGETS,
        "towpath": {
            str(n): {k: round(v, 3) for k, v in f.items() if "peer" not in k} for n, f in found.items()
        },
        "peer": {
            str(n): {"pair_ms": round(f["peer_pair_ms"], 3), "p99_ms": round(f["peer_p99_ms"], 3)}
            for n, f in found.items()
        },
        "n": PAIRS,
    }


def main() -> None:
    """Run, print, exit 0."""
    with contextlib.suppress(KeyboardInterrupt):
        print(json.dumps(asyncio.run(run())), flush=True)


if __name__ == "__main__":
    main()
