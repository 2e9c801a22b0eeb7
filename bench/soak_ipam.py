"""A million allocations and releases by processes that are killed meanwhile, across reboots and missed DELs.

    make soak-ipam                              a million with a new seed
    python -m bench.soak_ipam --ops 5000 --seed 7

A child does what an agent does, on the real lease store with fsync; the parent knows what it was promised,
plays kernel and API server, and kills it (SIGKILL) at any moment. Each new child audits what it finds and
mends it. Then every lease must be one that the parent knows somebody needs, and every one that somebody
needs must be there: no address twice, none lost, none leaked. The last line on stdout is JSON; exit code 1
if anything is wrong.
"""

import argparse
import asyncio
import json
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from ipaddress import ip_address, ip_network
from pathlib import Path

from towpath.ipam.allocate import make_range
from towpath.ipam.audit import Evidence, Stored, audit
from towpath.ipam.errors import RangeExhausted
from towpath.ipam.store import Key, LeaseStore
from towpath.model.attachment import Attachment, PodRef
from towpath.model.net import Addr

SUBNET = ip_network("10.42.0.0/23")
SETS = ((make_range(SUBNET),),)
LIFE = (0.02, 0.6)  # seconds until a child is killed
MOST_AT_ONCE = 64


class Wrong(Exception):
    """A promise was broken."""


class World:
    """What the parent knows: who has which address, whose link and pod are there, and the boot."""

    def __init__(self) -> None:
        self.boot = 1
        self.owned: dict[str, str] = {}
        """Address by container of those that somebody needs, and of those whose end is not told yet."""
        self.linked: set[str] = set()
        self.gone: set[str] = set()
        """Containers whose pod the API server does not have."""
        self.doubtful: dict[str, str] = {}
        """Calls that were under way when the child was killed. Their callers take them back."""
        self.counts: Counter[str] = Counter()

    def heed(self, line: str) -> None:
        """A line of the child's. Raises Wrong."""
        what, name, address = line.split(" ")
        match what:
            case "adding":
                others = self.owned.items() | self.doubtful.items()
                if (owner := next((n for n, a in others if a == address), None)) is not None:
                    raise Wrong(f"{address} is chosen for {name}, and {owner} has it")
                self.doubtful[name] = address
            case "added":
                self.owned[name] = self.doubtful.pop(name)
                self.linked.add(name)
                self.counts["allocations"] += 1
            case "releasing":
                self.linked.discard(name)
                self.doubtful[name] = self.owned.pop(name)
            case "released":
                del self.doubtful[name]
                self.counts["releases"] += 1
            case _:
                self.counts[what] += 1

    def between(self, random_: random.Random) -> None:
        """What happens while no agent is there."""
        self.counts["kills"] += 1
        ended = [name for name in self.owned if random_.random() < 0.05]  # with DELs that never come
        if random_.random() < 0.1:
            self.boot += 1
            self.linked.clear()
            self.counts["reboots"] += 1
            ended += [name for name in self.owned if random_.random() < 0.7]
        self.linked.difference_update(ended, self.doubtful)
        self.gone |= {*ended, *self.doubtful}
        self.counts["leaks"] += len(set(ended)) + len(self.doubtful)
        self.doubtful.clear()
        self.owned = {name: address for name, address in self.owned.items() if name not in self.gone}


class Child:
    """An agent's lease store, from its start to its end by a signal."""

    def __init__(self, folder: Path, world: World, seed: int, out: int) -> None:
        self.world, self.out, self.random = world, out, random.Random(seed)
        self.store = LeaseStore(
            folder / "leases.db", boot_id=str(world.boot), clock=time.monotonic, hold=0.05
        )
        self.prefix, self.count = f"{seed:x}", 0

    def tell(self, *words: str) -> None:
        os.write(self.out, (" ".join(words) + "\n").encode())

    async def run(self) -> None:
        self.store.open()
        await self._mend()
        leased = {str(address): key[0] for address, key in self.store.leased().items()}
        self.tell("state", json.dumps(leased, separators=(",", ":")), "-")
        alive = [name for name in self.world.owned if name in self.world.linked]
        while True:
            if self.random.random() < len(alive) / SUBNET.num_addresses:
                self.random.shuffle(alive)
                number = self.random.randint(1, MOST_AT_ONCE)
                alive, ending = alive[number:], alive[:number]
                await asyncio.gather(*map(self._release, ending))
            else:
                names = [self._name() for _ in range(self.random.randint(1, MOST_AT_ONCE))]
                made = await asyncio.gather(*map(self._add, names))
                alive += [name for name, done in zip(names, made, strict=True) if done]

    def _name(self) -> str:
        self.count += 1
        return f"{self.prefix}x{self.count:x}"

    async def _add(self, name: str) -> bool:
        try:
            choices = self.store.choose(SETS, (), lambda _: False)
        except RangeExhausted:
            self.tell("exhausted", name, "-")
            return False
        att = attachment(name, choices[0].address, self.store.boot_id)
        self.tell("adding", name, str(choices[0].address))
        await self.store.add(att, choices)
        self.tell("added", name, "-")
        return True

    async def _release(self, name: str) -> None:
        self.tell("releasing", name, "-")
        await self.store.release(name, "eth0")
        self.tell("released", name, "-")

    async def _mend(self) -> None:
        """As the agent does, with what kernel and API server say."""
        attachments = self.store.attachments()
        keys: dict[str, Key] = {att.container_id: (att.container_id, att.ifname) for att in attachments}
        evidence = Evidence(
            node="n1",
            boot_id=self.store.boot_id,
            links=frozenset(map(link, self.world.linked)),
            over={key: "the pod is gone" for name, key in keys.items() if name in self.world.gone},
        )
        stored = Stored(attachments=attachments, leased=self.store.leased(), damaged=self.store.damaged)
        for problem in audit(stored, evidence):
            if problem.mend == "release" and problem.key is not None:
                await self.store.release(*problem.key)


def link(name: str) -> str:
    """The host's end of a container's link."""
    return f"cali{name}"


def attachment(name: str, address: Addr, boot_id: str) -> Attachment:
    """A pod's, as ADD makes it."""
    return Attachment(
        container_id=name,
        ifname="eth0",
        network="k8s-pod-network",
        netns=f"/run/netns/{name}",
        host_ifname=link(name),
        addresses=(address,),
        mac="02:00:00:00:00:01",
        mtu=1450,
        boot_id=boot_id,
        pod=PodRef(namespace="default", name=name, uid=f"uid-{name}"),
    )


def life(folder: Path, world: World, seed: int, seconds: float) -> None:
    """One child, until it is killed. Raises Wrong."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            asyncio.run(Child(folder, world, seed, writing).run())
        except BaseException as error:
            os.write(2, f"child: {type(error).__name__}: {error}\n".encode())
        os._exit(1)
    os.close(writing)
    begun, text, killed = 0.0, b"", False
    try:
        while True:
            left = max(0.0, begun + seconds - time.monotonic()) if begun else 30.0
            ready, _, _ = select.select([reading], [], [], 30.0 if killed else left)
            if not ready and not begun:
                raise Wrong("a child did not come up within 30 seconds")
            if not ready or (begun and not killed and left == 0):
                os.kill(pid, signal.SIGKILL)
                killed = True
                continue
            data = os.read(reading, 1 << 16)
            if not data:
                break
            *lines, text = (text + data).split(b"\n")
            for line in lines:
                if line.startswith(b"state "):
                    compare(world, json.loads(line.split(b" ")[1]))
                    begun = time.monotonic()
                else:
                    world.heed(line.decode())
    finally:
        os.close(reading)
        if not killed:
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    if not os.WIFSIGNALED(status):
        raise Wrong("a child ended by itself")


def compare(world: World, leased: dict[str, str]) -> None:
    """After mending: exactly what somebody needs. Raises Wrong."""
    needed = {address: name for name, address in world.owned.items()}
    if len(needed) != len(world.owned):
        raise Wrong("an address has two owners")
    for address in sorted(needed.keys() | leased.keys(), key=ip_address):
        if needed.get(address) != leased.get(address):
            raise Wrong(
                f"{address} is {needed.get(address, 'nobody')}'s, and leased to {leased.get(address)}"
            )
    world.gone.clear()  # nothing speaks of them any more


def soak(operations: int, seed: int) -> int:
    """Run, print, and the exit code."""
    folder = Path(tempfile.mkdtemp(prefix="towpath-soak-", dir="/var/tmp"))
    random_, world, wrong = random.Random(seed), World(), ""
    begun = told = time.monotonic()
    try:
        while sum(world.counts[what] for what in ("allocations", "releases")) < operations:
            life(folder, world, random_.getrandbits(40), random_.uniform(*LIFE))
            world.between(random_)
            if time.monotonic() - told > 5:
                told = time.monotonic()
                print(f"{told - begun:.0f} s: {dict(world.counts)}", file=sys.stderr)
        life(folder, world, random_.getrandbits(40), 0)
    except Wrong as broken:
        wrong = str(broken)
    finally:
        shutil.rmtree(folder)
    seconds = round(time.monotonic() - begun, 1)
    counts = {what: world.counts[what] for what in sorted(world.counts)}
    print(
        json.dumps({"soak": "ipam", "seed": seed, "seconds": seconds, **counts, "wrong": wrong}), flush=True
    )
    return 1 if wrong else 0


def main() -> None:
    """By the command line."""
    parser = argparse.ArgumentParser(prog="bench.soak_ipam")
    parser.add_argument("--ops", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=None)
    given = parser.parse_args()
    sys.exit(soak(given.ops, random.randrange(1 << 30) if given.seed is None else given.seed))


if __name__ == "__main__":
    main()
