"""The prober against the kernel: injected loss is what is measured, and a stalled prober is no loss."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress

import msgspec
import pytest

from probe_objects import plan, probe
from towpath.probe.account import Figures, figures
from towpath.probe.collect import Collection
from towpath.probe.plan import Kind, Probe
from towpath.probe.samples import INVALID, LOST, answered

pytestmark = pytest.mark.kernel

MODULE = (sys.executable, "-m", "towpath.probe")
NOBODY = 7009  # a port without a listener


@pytest.fixture(autouse=True)
def target() -> Iterator[None]:
    """Echo and DNS in this namespace, which is the tests' own."""
    ports = ("7001/TCP", "7001/UDP", "7053/DNS")
    with subprocess.Popen([*MODULE, "serve", "me", *ports]) as process:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", 7001), 1):
                break
            time.sleep(0.05)
        yield
        process.terminate()


@pytest.fixture
def drop() -> Iterator[list[str]]:
    """nft rules in a chain of our own before everything that comes in."""
    rules: list[str] = []
    yield rules
    subprocess.run(["nft", "delete", "table", "inet", "loss"], check=False, stderr=subprocess.DEVNULL)


def nft(*rules: str) -> None:
    chain = "add table inet loss; add chain inet loss in { type filter hook input priority -300; }"
    text = "; ".join(
        [chain, "flush chain inet loss in", *(f"add rule inet loss in {rule}" for rule in rules)]
    )
    subprocess.run(["nft", text], check=True)


class Run:
    """A prober under way."""

    def __init__(self, probes: Sequence[Probe], seconds: float) -> None:
        self.plan = plan(probes, seconds)
        self.process = subprocess.Popen(
            [*MODULE, "run", msgspec.json.encode(self.plan)], stdout=subprocess.PIPE
        )
        self.collection = Collection([self.plan])
        assert self.process.stdout is not None
        self.collection.take(self.process.stdout.readline())  # half a second before the first slot

    def finish(self) -> dict[int, Figures]:
        """Figures by number."""
        assert self.process.stdout is not None
        with self.process:
            for line in self.process.stdout:
                self.collection.take(line)
        assert self.collection.ended == {"test"}
        assert not self.collection.damaged
        return {p.number: figures(p, s) for p, s in self.collection.parts()}

    def values(self, number: int) -> list[int]:
        return list(self.collection.series[number].values)


def test_exactly_the_loss_that_was_injected_is_measured(drop: list[str]) -> None:
    # The slot's number stands behind eight bytes of UDP header and four of magic. Two windows.
    nft("udp dport 7001 @th,96,32 100-139 drop", "udp dport 7001 @th,96,32 200 drop")
    probes = [probe(Kind.UDP, 0), probe(Kind.UDP, 1, address="::1", family=6), probe(Kind.DNS, 2, port=7053)]
    run = Run(probes, 1.5)
    found = run.finish()
    for number in (0, 1):
        lost = [slot for slot, value in enumerate(run.values(number)) if value == LOST]
        blind = {slot for slot, value in enumerate(run.values(number)) if value == INVALID}
        assert set(lost) == {*range(100, 140), 200} - blind
        assert found[number].gap_ms == pytest.approx(200, abs=5 * (len(blind) + 1))
        assert found[number].lost == len(lost)
    assert found[2].lost == 0
    assert found[2].sent + found[2].invalid in (30, 31)


def test_new_connections_fail_while_old_ones_go_on(drop: list[str]) -> None:
    probes = [probe(kind, n) for n, kind in enumerate((Kind.CONNECT, Kind.ECHO, Kind.UDP_FRESH))]
    run = Run(probes, 2.5)
    time.sleep(1.3)
    nft("tcp dport 7001 ct state new drop", "udp dport 7001 ct state new drop")
    time.sleep(0.4)
    nft()
    found = run.finish()
    assert found[1].lost == 0
    for number in (0, 2):
        assert 300 <= found[number].gap_ms <= 700
        assert found[number].gaps == 1
        assert found[number].lost <= found[number].gap_ms / 20 + 1


def test_a_refusal_is_told_from_silence() -> None:
    probes = [
        probe(Kind.CONNECT, 0, port=NOBODY),
        probe(Kind.UDP_FRESH, 1, port=NOBODY),
        probe(Kind.DENY_TCP, 2, port=NOBODY),
        probe(Kind.DENY_TCP, 3),
        probe(Kind.UDP, 4, port=NOBODY),
        probe(Kind.UDP, 5, address="192.0.2.1"),
    ]
    run = Run(probes, 1.0)
    found = run.finish()
    for number in (0, 1):
        assert found[number].refused == found[number].lost == found[number].sent > 0
    assert found[2].opened == 0
    assert found[3].opened == found[3].sent
    assert found[3].fail_open_ms >= 900
    assert found[4].lost == found[4].sent
    assert "no way to 192.0.2.1" in run.collection.left_out[5]


def test_samples_of_a_stopped_prober_are_invalid_and_not_lost() -> None:
    kinds = (Kind.UDP, Kind.UDP_FRESH, Kind.ECHO, Kind.CONNECT)
    run = Run([probe(kind, n) for n, kind in enumerate(kinds)], 2.5)
    time.sleep(1.4)
    os.kill(run.process.pid, signal.SIGSTOP)
    time.sleep(0.6)
    os.kill(run.process.pid, signal.SIGCONT)
    found = run.finish()
    for number, kind in enumerate(kinds):
        slots = 600e6 / probe(kind).period
        assert found[number].lost == 0
        assert found[number].gap_ms == 0
        assert found[number].invalid >= slots * 0.9
        assert found[number].lag_ms >= 500
        blind = [value for value in run.values(number) if value == INVALID]
        assert len(blind) == found[number].invalid
    # What was on its way when it stopped was stamped by the kernel, not by the prober's awakening.
    assert max(value for value in run.values(0) if answered(value)) < 500_000


def test_a_reset_connection_is_a_loss_and_the_next_one_goes_on(drop: list[str]) -> None:
    run = Run([probe(Kind.ECHO, 0)], 2.5)
    time.sleep(1.3)
    nft("tcp dport 7001 reject with tcp reset")
    time.sleep(0.3)
    nft()
    found = run.finish()[0]
    assert found.lost >= 20
    assert 250 <= found.gap_ms <= 900
    assert answered(run.values(0)[-1]) or run.values(0)[-1] == INVALID


def test_a_signal_ends_it_with_what_there_is() -> None:
    run = Run([probe(Kind.UDP, 0)], 600)
    time.sleep(1.5)
    run.process.terminate()
    found = run.finish()[0]
    assert found.sent > 50
    assert found.lost == 0


def test_udp_that_must_be_denied_waits_until_tcp_is(drop: list[str]) -> None:
    run = Run([probe(Kind.DENY_TCP, 0), probe(Kind.DENY_UDP, 1)], 4.5)
    time.sleep(1.2)
    assert run.process.poll() is None
    nft("tcp dport 7001 drop", "udp dport 7001 drop")
    time.sleep(2.6)
    nft()
    found = run.finish()
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
    done = subprocess.run([*MODULE, *arguments], capture_output=True, text=True, timeout=10)
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
        out, _ = process.communicate(timeout=10)
        assert b'"is":"ended"' in out
    assert process.poll() == 0
