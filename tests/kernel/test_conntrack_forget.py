"""What the next owner of an address must not inherit."""

import socket
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from patience import until
from towpath.kernel import conntrack
from towpath.kernel.conntrack import Conntrack

MINE, OTHER, SERVICE, MINE6, OTHER6 = "127.0.0.7", "127.0.0.8", "127.0.0.9", "fd00:7::7", "fd00:7::8"


def send(source: str, target: str, family: socket.AddressFamily = socket.AF_INET) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((source, 0))
        sock.sendto(b"x", (target, 9))


def passes(address: str) -> bool:
    """Whether a datagram of an address to itself arrives."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.2)
        sock.bind((address, 0))
        sock.sendto(b"x", sock.getsockname())
        try:
            return sock.recv(16) == b"x"
        except TimeoutError:
            return False


def listed() -> list[str]:
    out = "".join(
        subprocess.run(["conntrack", "-L", "-f", f], capture_output=True, text=True, check=True).stdout
        for f in ("ipv4", "ipv6")
    )
    return [line for line in out.splitlines() if "dport=9 " in line]


@pytest.fixture
def flows() -> Iterator[None]:
    rules = f"""
        table inet towpath_conntrack_test {{
            chain out {{
                type nat hook output priority -100
                ct state new ip daddr {SERVICE} dnat ip to {MINE}
            }}
        }}"""
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
    for address in (MINE6, OTHER6):
        subprocess.run(["ip", "address", "replace", f"{address}/128", "dev", "lo", "nodad"], check=True)
    until(lambda: all(passes(address) for address in (MINE6, OTHER6)))  # a new address may take a moment
    subprocess.run(["conntrack", "-F"], capture_output=True, check=True)
    send(MINE, OTHER)
    send(OTHER, MINE)
    send(OTHER, SERVICE)
    send(OTHER, OTHER)
    send(MINE6, "::1", socket.AF_INET6)
    send(OTHER6, MINE6, socket.AF_INET6)
    send(OTHER6, OTHER6, socket.AF_INET6)
    yield
    subprocess.run(["nft", "delete table inet towpath_conntrack_test"], check=True)
    for address in (MINE6, OTHER6):
        subprocess.run(["ip", "address", "delete", f"{address}/128", "dev", "lo"], check=True)


@pytest.mark.parametrize("few", [4096, 0], ids=["one walk", "a walk for each side"])
def test_flows_of_an_address_are_forgotten_and_no_others(
    flows: None, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conntrack, "FEW", few)
    assert len(listed()) == 7
    table = Conntrack()
    assert table.entries() >= 5
    table.forget([ip_address(MINE), ip_address(MINE6)])
    left, left6 = listed()
    assert left.count(f"src={OTHER} dst={OTHER}") == 2
    assert left6.count(f"src={OTHER6} dst={OTHER6}") == 2
    table.forget([ip_address(MINE)])
    table.close()


@pytest.mark.parametrize("few", [4096, 0], ids=["one walk", "a walk for each port and family"])
def test_flows_towards_a_port_of_the_node_are_forgotten_and_no_others(
    flows: None, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conntrack, "FEW", few)
    table = Conntrack()
    here = {ip_address(OTHER), ip_address("::1"), ip_address(OTHER6)}
    assert table.forget_ports({(socket.IPPROTO_UDP, 9), (socket.IPPROTO_TCP, 9)}, here.__contains__) == 4
    assert all(any(f"dst={to} " in line for to in (MINE, SERVICE, MINE6)) for line in listed())
    assert table.forget_ports({(socket.IPPROTO_UDP, 9)}, here.__contains__) == 0
    table.close()
