"""Captured frames: decoding and filters."""

import struct
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath.lab.capture_decode import decode
from towpath.lab.capture_filter import parse_filter


def ethernet(kind: int, body: bytes) -> bytes:
    return b"\x02" * 6 + b"\x04" * 6 + struct.pack("!H", kind) + body


def ipv4(source: str, destination: str, protocol: int, body: bytes) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, protocol, 0)
    return ethernet(0x0800, head + IPv4Address(source).packed + IPv4Address(destination).packed + body)


def ipv6(source: str, destination: str, protocol: int, body: bytes) -> bytes:
    head = struct.pack("!IHBB", 6 << 28, len(body), protocol, 64)
    return ethernet(0x86DD, head + IPv6Address(source).packed + IPv6Address(destination).packed + body)


def udp(sport: int, dport: int, body: bytes) -> bytes:
    return struct.pack("!HHHH", sport, dport, 8 + len(body), 0) + body


def tcp(sport: int, dport: int, flags: int) -> bytes:
    return struct.pack("!HHIIBBHHH", sport, dport, 0, 0, 0x50, flags, 0, 0, 0)


def vxlan(vni: int, inner: bytes) -> bytes:
    header = b"\x08\0\0\0" + vni.to_bytes(3, "big") + b"\0"
    return ipv4("172.30.0.11", "172.30.0.12", 17, udp(40000, 8472, header + inner))


TUNNELLED = vxlan(1, ipv6("fd00:10:42::2", "fd00:10:42:1::2", 6, tcp(1234, 8080, 0x12)))


def test_vxlan_shows_the_vni_and_what_is_inside() -> None:
    assert decode(TUNNELLED).summary() == (
        "IP 172.30.0.11.40000 > 172.30.0.12.8472: udp VXLAN vni 1 | "
        "IP6 fd00:10:42::2.1234 > fd00:10:42:1::2.8080: tcp [S.], length 60"
    )


def test_arp_and_icmp_in_words() -> None:
    body = (
        struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
        + b"\x02" * 6
        + b"\x0a\0\0\x01"
        + b"\0" * 6
        + b"\x0a\0\0\x02"
    )
    assert "who has 10.0.0.2 tell 10.0.0.1" in decode(ethernet(0x0806, body)).summary()
    assert "echo request" in decode(ipv4("10.0.0.1", "10.0.0.2", 1, b"\x08\0\0\0\0\0\0\0")).summary()


@pytest.mark.parametrize(
    ("words", "matches"),
    [
        ("", True),
        ("udp port 8472", True),
        ("udp and port 8472 and vni 1", True),
        ("vni 2", False),
        ("tcp", True),
        ("tcp dst port 8080", True),
        ("tcp src port 8080", False),
        ("host fd00:10:42::2", True),
        ("src host fd00:10:42::2 and dst net fd00:10:42:1::/64", True),
        ("host 10.0.0.1", False),
        ("not vxlan", False),
        ("icmp or vxlan", True),
        ("not ( icmp or arp )", True),
        ("(icmp or arp)", False),
        ("ip6", True),
    ],
)
def test_filters_see_outer_and_inner_headers(words: str, matches: bool) -> None:
    assert parse_filter(words.split())(decode(TUNNELLED)) is matches


@pytest.mark.parametrize("words", ["port", "host", "frobnicate", "(udp", "udp)", "port x", "host n1", "not"])
def test_bad_filters_are_refused(words: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_filter(words.split())


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_to_something(frame: bytes) -> None:
    assert decode(frame).summary()


@given(st.integers(0, len(TUNNELLED)))
def test_any_cut_is_survived(length: int) -> None:
    assert decode(TUNNELLED[:length]).summary()
