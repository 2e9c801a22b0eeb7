"""Finds broken checksum offload on the overlay by asking the peers, and switches it off where it is proven.

NICs and hypervisors that mishandle the checksum of encapsulated packets make TCP and UDP between nodes fail
while ping works (flannel #1279, calico #4865, rke2 #1541); off everywhere costs throughput where it works.
So each node asks each peer's agent, over the overlay itself, with ordinary UDP sockets: the kernel leaves a
datagram's checksum to the device when it is sent in one piece, and computes it itself when the first piece
carries MSG_MORE (``__ip_append_data``). One socket, one path, two kinds of checksum; nothing is switched in
order to measure. Answers always carry a computed checksum, so that each side judges its own direction only.
"""

import asyncio
import os
import random
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple, Protocol

from towpath.agent.offload_evidence import ROUNDS, Evidence, Verdict
from towpath.log import get_logger
from towpath.model.net import Addr

log = get_logger("towpath.offload")

_MAGIC, _PLAIN, _CONTROL, _ANSWER = b"TWOP", 1, 2, 3
_HEADER = struct.Struct("!4sBxHQ")
_IP_AND_UDP = {4: 28, 6: 48}
_SMALL = 33  # odd on purpose
_AGAIN_AFTER: dict[Verdict, float] = {"works": 3600.0, "broken": 3600.0, "inconclusive": 120.0}


class Device(NamedTuple):
    """An overlay device: our address on it, its MTU, and the peers behind it by node name."""

    name: str
    address: Addr
    mtu: int
    peers: dict[str, Addr]


class OffloadPort(Protocol):
    """What the probe needs of the system; ``agent.ethtool.SystemOffload`` is the real one."""

    def open(self, address: Addr, port: int) -> socket.socket:
        """A non-blocking UDP socket bound to ``address``. Raises OSError."""
        ...

    def index(self, dev: str) -> int:
        """The interface index: another one means another device. Raises OSError."""
        ...

    def tx_checksum(self, dev: str) -> bool:
        """Whether checksums are left to the device. Raises OSError."""
        ...

    def set_tx_checksum(self, dev: str, on: bool) -> None:
        """Switch that. Raises OSError."""
        ...


class OffloadProbe:
    """Probes peers one after another, in the background, and remembers the verdicts.

    ``verdicts`` by (device, peer); ``switched_off`` the devices it switched, with the peer that proved it.
    A new peer is asked about ``first_after`` seconds after it appeared; ``answer_within`` is the longest
    round trip, in seconds, that still counts as an answer.
    """

    def __init__(
        self, system: OffloadPort, port: int, *, first_after: float = 10.0, answer_within: float = 1.0
    ) -> None:
        self._system, self._port = system, port
        self._first_after, self._answer_within = first_after, answer_within
        self._devices: dict[str, _Endpoint] = {}
        self._due: dict[tuple[str, str], float] = {}
        self._wake = asyncio.Event()
        self.verdicts: dict[tuple[str, str], Verdict] = {}
        self.switched_off: dict[str, str] = {}

    def update(self, devices: Iterable[Device]) -> None:
        """The overlay as it is now: new peers are probed soon, those that left are forgotten."""
        given = {device.name: device for device in devices}
        for name in self._devices.keys() - given.keys():
            self._devices.pop(name).close()
        for name, device in given.items():
            with suppress(OSError):  # gone again meanwhile: the next update tells
                self._take(name, device)
        peers = {(name, peer) for name, device in given.items() for peer in device.peers}
        for known in (self._due, self.verdicts):
            for key in known.keys() - peers:
                del known[key]
        now = asyncio.get_running_loop().time()
        for key in peers - self._due.keys():
            spread = self._first_after * (0.5 + random.random())  # noqa: S311
            self._due[key] = now + spread
        self._wake.set()

    def _take(self, name: str, device: Device) -> None:
        index = self._system.index(name)
        known = self._devices.get(name)
        if known and (known.device.address, known.index) == (device.address, index):
            known.device = device
            return
        if known:
            known.close()
            self.switched_off.pop(name, None)
            self._due = {key: due for key, due in self._due.items() if key[0] != name}
        sock = self._system.open(device.address, self._port)
        self._devices[name] = _Endpoint(device, index, sock, self._port, self._answer_within)

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            key = min(self._due, key=self._due.__getitem__, default=None)
            wait = self._due[key] - loop.time() if key else None
            if key is None or (wait is not None and wait > 0):
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._wake.wait()
                continue
            verdict = await self._probe(*key)
            if key in self._due:
                self.verdicts[key] = verdict
                self._due[key] = loop.time() + _AGAIN_AFTER[verdict] * (0.5 + random.random())  # noqa: S311

    async def _probe(self, dev: str, peer: str) -> Verdict:
        endpoint = self._devices.get(dev)
        try:
            if endpoint is None or not self._system.tx_checksum(dev):
                return "inconclusive"  # nothing is left to the device: nothing to find out
            verdict = await endpoint.ask(peer)
            if verdict != "broken" or await endpoint.ask(peer) != "broken":  # once more: it is no small thing
                return "works" if verdict == "works" else "inconclusive"
            self._system.set_tx_checksum(dev, on=False)
            if await endpoint.ask(peer) != "works":
                self._system.set_tx_checksum(dev, on=True)
                log.warning("offload_not_to_blame", device=dev, peer=peer)
                return "inconclusive"
        except OSError as e:
            log.warning("offload_probe_failed", device=dev, peer=peer, error=str(e))
            return "inconclusive"
        self.switched_off[dev] = peer
        log.warning("offload_switched_off", device=dev, peer=peer)
        return "broken"

    def close(self) -> None:
        """Close the sockets."""
        for endpoint in self._devices.values():
            endpoint.close()
        self._devices.clear()


class _Endpoint:
    """The socket on one device: asks peers, and answers them."""

    def __init__(
        self, device: Device, index: int, sock: socket.socket, port: int, answer_within: float
    ) -> None:
        self.device, self.index = device, index
        self._sock, self._port, self._answer_within = sock, port, answer_within
        self._waiting: dict[int, asyncio.Future[None]] = {}
        asyncio.get_running_loop().add_reader(sock, self._readable)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._sock)
        self._sock.close()

    async def ask(self, peer: str) -> Verdict:
        """Rounds of both kinds in two sizes, the larger as large as the device takes, both odd."""
        address = self.device.peers.get(peer)
        if address is None:
            return "inconclusive"
        largest = self.device.mtu - _IP_AND_UDP[address.version]
        sizes = (_SMALL, largest - 1 | 1) if largest > _SMALL else (_SMALL,)
        evidence = Evidence(sizes)
        for _ in range(ROUNDS):
            questions = [
                self._question(evidence, address, size, control)
                for size in sizes
                for control in (True, False)
            ]
            await asyncio.gather(*questions)
            if evidence.works():
                break
        return evidence.verdict()

    async def _question(self, evidence: Evidence, address: Addr, size: int, control: bool) -> None:
        nonce = int.from_bytes(os.urandom(8), "big")
        head = _HEADER.pack(_MAGIC, _CONTROL if control else _PLAIN, size, nonce)
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[nonce] = answer
        try:
            self._send(head + os.urandom(size - len(head)), (str(address), self._port), computed=control)
            evidence.sent(size, control=control)
            async with asyncio.timeout(self._answer_within):
                await answer
            evidence.answered(size, control=control)
        except (TimeoutError, OSError):
            pass  # not sent, or not answered: the tally says which
        finally:
            del self._waiting[nonce]

    def _send(self, data: bytes, to: tuple[str, int], *, computed: bool) -> None:
        if not computed:
            self._sock.sendto(data, to)
            return
        self._sock.sendto(data[:8], socket.MSG_MORE, to)
        self._sock.sendto(data[8:], to)

    def _readable(self) -> None:
        while True:
            try:
                data, sender = self._sock.recvfrom(65536)
            except OSError:  # nothing more; or an ICMP error of an earlier question
                return
            if len(data) < _HEADER.size or sender[1] != self._port:
                continue
            magic, kind, _, nonce = _HEADER.unpack_from(data)
            if magic != _MAGIC:
                continue
            if kind == _ANSWER:
                waiting = self._waiting.get(nonce)
                if waiting is not None and not waiting.done():
                    waiting.set_result(None)
            elif sender[0] in map(str, self.device.peers.values()):
                with suppress(OSError):
                    reply = _HEADER.pack(_MAGIC, _ANSWER, 0, nonce)
                    self._send(reply, (sender[0], self._port), computed=True)
