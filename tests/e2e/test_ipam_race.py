"""Fifty nodes and one small pool on upstream's API server: to exhaustion and back, allocators killed."""

import collections
import contextlib
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ipam_allocator import POOL
from planes import add_addresses

from towpath.ipam.affinity import read_affinity, read_handle
from towpath.ipam.block_plan import handle_of
from towpath.ipam.blocks import Raw, read_block
from towpath.ipam.store import LeaseStore
from towpath.lab.real.binaries import KubeBinaries
from towpath.lab.real.controlplane import MASTERS, ControlPlane, Settings

pytestmark = pytest.mark.e2e

ADDRESS, ADDRESS6, TOKEN = "192.0.2.7", "2001:db8::7", "9c1e-admin"
KINDS = Path(__file__).parents[2] / "manifests" / "calico-ipam.yaml"
NODES, PROCESSES, KILLS = 50, 10, 25
Kubectl = Callable[..., str]


class Process:
    """An allocator of five nodes; ``has`` is what each has said that it leased, of the process that runs."""

    def __init__(self, arguments: list[str], nodes: list[str]) -> None:
        self._command = [
            sys.executable,
            str(Path(__file__).with_name("ipam_allocator.py")),
            *arguments,
            *nodes,
        ]
        self.has: dict[str, set[str]] = {}
        self.start()

    def start(self) -> None:
        self.has = collections.defaultdict(set)
        self._running = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read, args=(self._running, self.has))
        self._reader.start()

    def _read(self, running: subprocess.Popen[str], has: dict[str, set[str]]) -> None:
        assert running.stdout is not None
        for line in running.stdout:
            node, address = line.split()
            has[node].add(address)

    def kill(self) -> None:
        self._running.kill()
        self._running.wait()
        self._reader.join()
        for stream in (self._running.stdin, self._running.stdout):
            assert stream is not None
            stream.close()

    def free(self) -> None:
        assert self._running.stdin is not None
        self._running.stdin.write("free\n")
        self._running.stdin.flush()

    @property
    def alive(self) -> bool:
        return self._running.poll() is None


@pytest.fixture
def plane(binaries: KubeBinaries, tmp_path: Path) -> Iterator[ControlPlane]:
    tokens = tmp_path / "tokens.csv"
    tokens.write_text(f'{TOKEN},admin,admin,"{MASTERS}"\n')
    add_addresses(f"{ADDRESS}/32", f"{ADDRESS6}/128")
    found = ControlPlane(
        binaries, tmp_path, Settings(addresses=(ADDRESS, ADDRESS6), port=16447, tokens=tokens)
    )
    found.start()
    yield found
    found.stop()


def until(question: Callable[[], Any], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not question():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_fifty_nodes_share_a_small_pool_while_their_allocators_are_killed(
    binaries: KubeBinaries, plane: ControlPlane, tmp_path: Path
) -> None:
    admin = tmp_path / "admin"
    admin.write_text(plane.kubeconfig("admin", "kubernetes-admin", MASTERS, plane.settings.local_url))

    def kubectl(*arguments: str) -> str:
        command = [str(binaries.kubectl), "--kubeconfig", str(admin), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def items(kind: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(kubectl("get", kind, "-o", "json"))["items"]
        return found

    kubectl("apply", "-f", str(KINDS))
    kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=240s")
    disks, chance = tmp_path / "disks", random.Random(7)
    disks.mkdir()
    arguments = [plane.settings.local_url, str(plane.pki.ca), TOKEN, str(disks)]
    names = [f"node-{n}" for n in range(NODES)]
    with contextlib.ExitStack() as stack:
        processes = [Process(arguments, names[n::PROCESSES]) for n in range(PROCESSES)]
        for one in processes:
            stack.callback(one.kill)
        for _ in range(KILLS):
            time.sleep(chance.uniform(0.1, 0.6))
            victim = chance.choice(processes)
            assert victim.alive
            victim.kill()
            victim.start()

        def leased() -> list[tuple[str, str]]:
            return [
                (a, node) for one in processes for node, found in list(one.has.items()) for a in list(found)
            ]

        until(lambda: len(leased()) >= POOL.cidr.num_addresses)
        everything = leased()
        assert len({address for address, _ in everything}) == len(everything) == POOL.cidr.num_addresses
        owned = {}
        for obj in items("ipamblocks"):
            block = read_block(obj)
            for ordinal, index in enumerate(block.allocations):
                if index is not None:
                    owned[str(block.address(ordinal))] = block.owners[index].handle
        assert owned == {address: handle_of(node) for address, node in everything}

        for one in processes:  # and back; the killing goes on
            one.free()
        for _ in range(KILLS // 5):
            time.sleep(chance.uniform(0.1, 0.6))
            victim = chance.choice(processes)
            victim.kill()
            victim.start()
            victim.free()
        until(lambda: at_rest(*(items(kind) for kind in ("ipamblocks", "blockaffinities", "ipamhandles"))))
        assert all(one.alive for one in processes)
    for name in names:
        store = LeaseStore(disks / f"{name}.db", boot_id="b", clock=lambda: 0.0)
        store.open()
        assert not store.leased()
        store.close()


def at_rest(blocks: list[Raw], affinities: list[Raw], handles: list[Raw]) -> bool:
    """Whether nodes have nothing but blocks of their own, with what they hold in spare there, all of it
    counted.

    While there is a block that nobody has, a node may keep its own: it is not known who comes last.
    """
    counts: dict[str, dict[str, int]] = {}
    owned = set()
    for block in map(read_block, blocks):
        handle = handle_of(block.node)
        owned.add((block.node, block.cidr, "confirmed", False))
        if not block.node or block.deleted or {one.handle for one in block.owners} - {handle}:
            return False
        if held := block.of(handle):
            counts.setdefault(handle, {})[str(block.cidr)] = len(held)
    counted = {one.handle: one.counts for one in map(read_handle, handles)}
    return counted == counts and owned == {
        (one.node, one.cidr, one.state, one.deleted) for one in map(read_affinity, affinities)
    }
