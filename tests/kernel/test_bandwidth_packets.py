"""Limits, measured: what a pod gets and what it can send."""

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from wired_node import WiredNode

from patience import ATTEMPTS
from towpath.kernel.netns import run_in
from towpath.model.attachment import Bandwidth

pytestmark = pytest.mark.kernel

CONTAINERD = 2**32 - 1  # the burst it sends with every rate, in bits
TO_POD, FROM_POD = 40_000_000, 24_000_000
POD4, POD6 = "10.42.1.2", "fd00:10:42:1::2"


@pytest.fixture(scope="module")
def net() -> Iterator[WiredNode]:
    made = WiredNode()
    limits = Bandwidth(
        ingress_rate=TO_POD, ingress_burst=CONTAINERD, egress_rate=FROM_POD, egress_burst=CONTAINERD
    )
    made.add("limited", POD4, POD6, bandwidth=limits)
    made.add("free", "10.42.1.3", "fd00:10:42:1::3")
    yield made
    made.close()


def rate(source: int, sink: int, dst: str, amount: int) -> float:
    """Bits per second of one TCP stream of ``amount`` bytes, the first 128 KiB (bursts, buffers) left out."""
    family = socket.AF_INET6 if ":" in dst else socket.AF_INET
    listener, client = (
        run_in(ns, lambda: socket.socket(family, socket.SOCK_STREAM)) for ns in (sink, source)
    )
    with listener, client:
        listener.bind(("", 0))
        listener.listen()
        client.settimeout(60)
        client.connect((dst, listener.getsockname()[1]))
        server, _ = listener.accept()
        with server:
            sender = threading.Thread(target=client.sendall, args=(bytes(amount),))
            sender.start()
            got, begun, skipped = 0, 0.0, 0
            while got < amount:
                got += len(server.recv(65_536))
                if not begun and got >= 131_072:
                    begun, skipped = time.perf_counter(), got
            took = time.perf_counter() - begun
            sender.join()
    return (got - skipped) * 8 / took


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
def test_both_directions_are_limited_each_to_its_own_rate(net: WiredNode, family: int) -> None:
    """Payload is less than what is counted; a busy machine makes less of it, or reads in one go what has
    gathered: such a measurement says nothing, and another is made.
    """
    pod, peer, own = net.pods["limited"], ("10.42.1.3", "fd00:10:42:1::3")[family], (POD4, POD6)[family]
    assert_once(0.5 * TO_POD, 1.05 * TO_POD, lambda: rate(net.pods["free"], pod, own, 2_000_000))
    assert_once(0.5 * FROM_POD, 1.05 * FROM_POD, lambda: rate(pod, net.pods["free"], peer, 1_500_000))


def assert_once(least: float, most: float, measure: Callable[[], float]) -> None:
    """Between them at the first good measurement."""
    found = []
    for _ in range(ATTEMPTS):
        found.append(measure())
        if least < found[-1] < most:
            return
    pytest.fail(f"never between {least} and {most}: {found}")


def test_a_pod_without_limits_has_none(net: WiredNode) -> None:
    unlimited = 100_000 * TO_POD
    assert_once(2 * TO_POD, unlimited, lambda: rate(net.world, net.pods["free"], "10.42.1.3", 4_000_000))


def test_the_kernel_gives_back_what_was_set(net: WiredNode) -> None:
    assert net.reconcile() == ()
    # Shaped packets still pass the firewall as the pod's, not the ifb's.
    assert "tpb" not in net.sh(net.node, "nft list table inet towpath")
