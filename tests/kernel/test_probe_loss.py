"""The prober against the kernel: injected loss is what is measured, and a stalled prober is no loss."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import pytest

from probe_objects import plan, probe
from towpath.probe.account import Figures, figures
from towpath.probe.collect import Collection
from towpath.probe.plan import MS, Kind, Probe
from towpath.probe.samples import INVALID, LOST, REFUSED, answered

pytestmark = pytest.mark.kernel

MODULE = (sys.executable, "-m", "towpath.probe")
NOBODY = 7009  # a port without a listener
PATIENCE = 3000 * MS  # an answer that is owed comes within it, however busy the machine


@pytest.fixture(autouse=True)
def target() -> Iterator[subprocess.Popen[bytes]]:
    """Echo and DNS in this namespace, which is the tests' own; TCP, by which it is known, comes last."""
    ports = ("7053/DNS", "7001/UDP", "7001/TCP")
    with subprocess.Popen([*MODULE, "serve", "me", *ports]) as process:
        deadline = time.monotonic() + 60
        while True:
            assert process.poll() is None
            assert time.monotonic() < deadline
            with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", 7001), 1):
                break
            time.sleep(0.05)
        yield process
        process.send_signal(signal.SIGCONT)
        process.terminate()


@pytest.fixture
def drop() -> Iterator[None]:
    """nft rules in a chain of our own before everything that comes in, and a counter."""
    yield
    subprocess.run(["nft", "delete", "table", "inet", "loss"], check=False, stderr=subprocess.DEVNULL)


def nft(*rules: str) -> None:
    """The counter outlives its rules: nothing falls between reading it and lifting them."""
    chain = (
        "add table inet loss; add counter inet loss seen;"
        "add chain inet loss in { type filter hook input priority -300; }"
    )
    text = "; ".join(
        [chain, "flush chain inet loss in", *(f"add rule inet loss in {rule}" for rule in rules)]
    )
    subprocess.run(["nft", text], check=True)


def counted() -> int:
    """Packets the counter has seen."""
    done = subprocess.run(
        ["nft", "-j", "list", "counter", "inet", "loss", "seen"], check=True, capture_output=True
    )
    objects = msgspec.json.decode(done.stdout)["nftables"]
    return int(next(entry["counter"]["packets"] for entry in objects if "counter" in entry))


class Run:
    """A prober under way, until its plan's end or until told."""

    def __init__(self, probes: Sequence[Probe], seconds: float = 600) -> None:
        self.plan = plan(probes, seconds)
        self.process = subprocess.Popen(
            [*MODULE, "run", msgspec.json.encode(self.plan)], stdout=subprocess.PIPE
        )
        self.collection = Collection([self.plan])
        self._take()  # half a second before the first slot

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.process.kill()
        self.process.communicate()

    def _take(self) -> None:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the prober is gone"
        self.collection.take(line)

    def until(self, holds: Callable[[], bool]) -> None:
        """Read on until it does; whatever it is, it comes within the test's time-out."""
        while not holds():
            self._take()

    def finish(self) -> dict[int, Figures]:
        """Figures by number, at the plan's end."""
        while "test" not in self.collection.ended:
            self._take()
        assert self.process.wait(60) == 0
        assert not self.collection.damaged
        return {p.number: figures(p, s) for p, s in self.collection.parts()}

    def end(self) -> dict[int, Figures]:
        """End it now: figures by number."""
        self.process.terminate()
        return self.finish()

    def values(self, number: int) -> list[int]:
        return list(self.collection.series[number].values)

    def count(self, number: int, what: Callable[[int], bool] = answered) -> int:
        """How many slots of a probe are known to have gone so."""
        return sum(map(what, self.values(number)))

    def blind(self, number: int) -> set[int]:
        """Slots in which the prober was late, and so did not ask."""
        return {slot for slot, value in enumerate(self.values(number)) if value == INVALID}


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_exactly_the_loss_that_was_injected_is_measured(drop: None) -> None:
    # The slot's number stands behind eight bytes of UDP header and four of magic. Two windows.
    nft("udp dport 7001 @th,96,32 10-49 drop", "udp dport 7001 @th,96,32 100 drop")
    probes = [
        probe(Kind.UDP, 0, timeout=PATIENCE),
        probe(Kind.UDP, 1, timeout=PATIENCE, address="::1", family=6),
        probe(Kind.DNS, 2, timeout=PATIENCE, port=7053),
    ]
    with Run(probes) as run:
        run.until(lambda: all(len(run.values(number)) > 120 for number in (0, 1)))
        found = run.end()
        for number in (0, 1):
            lost = {slot for slot, value in enumerate(run.values(number)) if value == LOST}
            blind = run.blind(number)
            assert lost == {*range(10, 50), 100} - blind
            assert found[number].gap_ms == pytest.approx(200, abs=5 * (len(blind) + 1))
            assert found[number].lost == len(lost)
        assert found[2].lost == 0
        assert run.count(2) == found[2].sent > 0


def test_new_connections_fail_while_old_ones_go_on(drop: None) -> None:
    """By the first packet of a connection, and by a datagram's slot: ports come round again, slots do not."""
    probes = [
        probe(Kind.CONNECT, 0),
        probe(Kind.ECHO, 1),
        probe(Kind.UDP_FRESH, 2, timeout=PATIENCE),
    ]
    datagrams = "udp dport 7001 @th,96,32 20-49 drop"
    nft(datagrams)
    with Run(probes) as run:
        run.until(lambda: run.count(0) >= 20 and run.count(1) >= 20)
        nft(datagrams, "tcp dport 7001 tcp flags & (syn | ack) == syn counter name seen drop")
        wait_until(lambda: counted() >= 15)
        nft(datagrams)
        dropped = counted()
        run.until(lambda: answered(run.values(0)[-1]) and run.count(0, LOST.__eq__) > 0)
        run.until(lambda: len(run.values(2)) > 60)
        found = run.end()
        assert found[1].lost == 0
        lost = {slot for slot, value in enumerate(run.values(2)) if value == LOST}
        assert lost == {*range(20, 50)} - run.blind(2)
        # A SYN that is repeated (after a second, when the prober was late to give up) counts again.
        assert 0 < found[0].lost <= dropped
        assert found[0].lost + len(run.blind(0)) >= 14
        assert found[0].gap_ms >= found[0].lost / found[0].gaps * 20


@pytest.fixture
def small_mtu() -> Iterator[int]:
    """Of the loopback's."""
    before = int(Path("/sys/class/net/lo/mtu").read_text())
    subprocess.run(["ip", "link", "set", "lo", "mtu", "1450"], check=True)
    yield 1450
    subprocess.run(["ip", "link", "set", "lo", "mtu", str(before)], check=True)


def test_a_question_fills_the_mtu_and_shows_where_such_packets_are_lost(drop: None, small_mtu: int) -> None:
    """Only packets of that very length get through at first; then none of it."""
    nft(f"udp dport 7001 meta length != {small_mtu} drop")
    probes = [
        probe(Kind.UDP_FRESH, 0, timeout=PATIENCE, fills_mtu=True),
        probe(Kind.UDP_FRESH, 1, timeout=PATIENCE, fills_mtu=True, address="::1", family=6),
    ]
    with Run(probes) as run:
        run.until(lambda: all(run.count(number) >= 10 for number in (0, 1)))
        nft(f"udp dport 7001 meta length {small_mtu} drop")
        run.until(lambda: all(run.count(number, LOST.__eq__) >= 5 for number in (0, 1)))
        found = run.end()
        for number in (0, 1):
            values = run.values(number)
            assert not any(map(answered, values[values.index(LOST) :]))
            assert found[number].refused == 0


def test_a_refusal_is_told_from_silence() -> None:
    probes = [
        probe(Kind.CONNECT, 0, port=NOBODY),
        probe(Kind.UDP_FRESH, 1, port=NOBODY),
        probe(Kind.DENY_TCP, 2, port=NOBODY),
        probe(Kind.DENY_TCP, 3),
        probe(Kind.UDP, 4, port=NOBODY),
        probe(Kind.UDP, 5, address="192.0.2.1"),
    ]
    with Run(probes) as run:
        run.until(lambda: run.count(0, REFUSED.__eq__) > 0 and run.count(1, REFUSED.__eq__) > 0)
        run.until(lambda: run.count(2, REFUSED.__eq__) > 0 and run.count(3) >= 10)
        found = run.end()
        for number in (0, 1):
            assert found[number].refused == found[number].lost == found[number].sent > 0
        assert found[2].opened == 0
        assert found[3].opened == found[3].sent
        assert found[3].fail_open_ms >= found[3].opened * 50
        assert found[4].lost == found[4].sent
        assert "no way to 192.0.2.1" in run.collection.left_out[5]


def test_samples_of_a_stopped_prober_are_invalid_and_not_lost(target: subprocess.Popen[bytes]) -> None:
    kinds = (Kind.UDP, Kind.UDP_FRESH, Kind.ECHO, Kind.CONNECT)
    probes = [probe(kind, n, timeout=PATIENCE) for n, kind in enumerate(kinds)]
    with Run(probes) as run:
        run.until(lambda: all(run.count(p.number) >= 10 for p in probes))
        asked = time.monotonic()
        target.send_signal(signal.SIGSTOP)  # so that answers are owed when the prober stops
        wait_until(lambda: is_stopped(target.pid))
        time.sleep(0.05)
        run.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: is_stopped(run.process.pid))
        begun = time.monotonic()
        target.send_signal(signal.SIGCONT)
        time.sleep(max(0.6, 2 * (begun - asked)))
        slept_ms = (time.monotonic() - begun) * 1000
        run.process.send_signal(signal.SIGCONT)
        missed = {p.number: slept_ms / (p.period / MS) for p in probes}
        seen = {p.number: len(run.values(p.number)) for p in probes}
        run.until(lambda: all(len(run.values(n)) > seen[n] + missed[n] for n in missed))
        found = run.end()
        for p in probes:
            assert found[p.number].lost == 0
            assert found[p.number].gap_ms == 0
            assert found[p.number].invalid == len(run.blind(p.number)) >= missed[p.number] - 2
            assert found[p.number].lag_ms >= slept_ms - 2 * p.period / MS
        # What was on its way when it stopped was stamped by the kernel, not by the prober's awakening.
        assert max(value for value in run.values(0) if answered(value)) < slept_ms * 1000


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "T"


def test_a_reset_connection_is_a_loss_and_the_next_one_goes_on(drop: None) -> None:
    with Run([probe(Kind.ECHO, 0)]) as run:
        run.until(lambda: run.count(0) >= 20)
        nft("tcp dport 7001 counter name seen reject with tcp reset")
        wait_until(lambda: counted() >= 3)  # the stream, and two more that were tried
        nft()
        run.until(lambda: run.count(0, LOST.__eq__) > 0 and answered(run.values(0)[-1]))
        found = run.end()[0]
        assert found.lost == run.count(0, LOST.__eq__)
        assert found.gap_ms > 0
        assert found.gap_ms + 10 * found.invalid >= 80  # a tenth of a second lies between two attempts


def test_a_signal_ends_it_with_what_there_is() -> None:
    with Run([probe(Kind.UDP, 0)]) as run:
        run.until(lambda: run.count(0) >= 50)
        found = run.end()[0]
        assert found.sent >= 50
        assert found.lost == 0


def test_it_ends_by_itself_when_the_plan_says() -> None:
    with Run([probe(Kind.DNS, 0, port=7053)], seconds=1.5) as run:
        found = run.finish()[0]
        assert found.lost == 0
        assert found.sent + found.invalid >= 30


def test_udp_that_must_be_denied_waits_until_tcp_is(drop: None) -> None:
    with Run([probe(Kind.DENY_TCP, 0), probe(Kind.DENY_UDP, 1)]) as run:
        run.until(lambda: run.count(0) > 0)
        nft("tcp dport 7001 drop", "udp dport 7001 drop")
        run.until(lambda: run.count(1, LOST.__eq__) > 0)
        nft()
        run.until(lambda: run.count(1) > 0)
        found = run.end()
        values = run.values(1)
        first = next(slot for slot, value in enumerate(values) if value != INVALID)
        assert first >= 20
        assert values[first] == LOST
        assert found[1].opened > 0, "the rule went: that is a fail-open"


@pytest.mark.parametrize(
    "arguments",
    [[], ["run"], ["run", "{}"], ["run", "no plan"], ["serve", "me"], ["serve", "me", "99999/UDP"]],
)
def test_what_cannot_be_meant_is_refused(arguments: list[str]) -> None:
    done = subprocess.run([*MODULE, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "towpath.probe" in done.stderr


def test_the_run_ends_when_whoever_gave_the_plan_is_gone() -> None:
    read, write = os.pipe()
    process = subprocess.Popen([*MODULE, "run", "-"], stdin=read, stdout=subprocess.PIPE)
    os.close(read)
    os.write(write, msgspec.json.encode(plan([probe(Kind.UDP, 0)], 600)) + b"\n")
    assert process.stdout is not None
    assert b'"is":"started"' in process.stdout.readline()
    os.close(write)
    with suppress(subprocess.TimeoutExpired):
        out, _ = process.communicate(timeout=60)
        assert b'"is":"ended"' in out
    assert process.poll() == 0
