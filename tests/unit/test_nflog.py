"""Messages of nfnetlink_log: what is read of good ones, and that no bytes whatever are too much."""

import struct
from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from towpath.kernel.nflog import LogMessage, Seen, messages, packet
from towpath.kernel.wire import attr, text

TCP4 = bytes.fromhex("4500003c00004000400600000a2a01020a2a0103") + struct.pack(">HH", 40000, 80) + bytes(16)
TCP6_HEAD = (
    struct.pack(">IHBB", 6 << 28, 20, 6, 64) + ip_address("fd00::1").packed + ip_address("fd00::2").packed
)
A, B = ip_address("10.42.1.2"), ip_address("10.42.1.3")
A6, B6 = ip_address("fd00::1"), ip_address("fd00::2")


def message(*attributes: bytes, kind: int = 4 << 8) -> bytes:
    body = bytes((2, 0, 0, 4)) + b"".join(attributes)
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def test_a_message() -> None:
    stamp = attr(3, struct.pack(">QQ", 1_700_000_000, 500_000))
    data = message(attr(9, TCP4), text(10, "tp-denied"), stamp, attr(12, (7).to_bytes(4, "big")))
    assert list(messages(data)) == [LogMessage("tp-denied", Seen(A, B, 6, 40000, 80), 1_700_000_000.5, 7)]


def test_where_a_packet_was() -> None:
    hook = attr(1, struct.pack(">HBB", 0x0800, 2, 0))
    data = message(attr(9, TCP4), hook, attr(4, (7).to_bytes(4, "big")), attr(5, (9).to_bytes(4, "big")))
    (one,) = messages(data)
    assert (one.hook, one.came_by, one.leaves_by) == (2, 7, 9)


def test_several_at_once_and_what_is_none_of_ours() -> None:
    data = message(attr(9, TCP4)) + message(kind=2) + message(text(10, "x"))
    assert [m.prefix for m in messages(data)] == ["", "x"]
    assert [m.prefix for m in messages(data[:-1])] == [""]


def test_packets() -> None:
    ports = struct.pack(">HH", 40000, 80)
    assert packet(TCP6_HEAD + ports) == Seen(A6, B6, 6, 40000, 80)
    assert packet(TCP4[:22]) == Seen(A, B, 6)  # cut short
    assert packet(TCP4[:19]) is packet(b"") is packet(b"\x50" + bytes(60)) is None
    icmp = bytearray(TCP4[:20])
    icmp[9] = 1
    assert packet(bytes(icmp) + b"\x08\x00\0\0") == Seen(A, B, 1, 8, 0)
    later = bytearray(TCP4)
    later[6:8] = b"\x00\x10"  # a fragment that is not the first has no ports
    assert packet(bytes(later)) == Seen(A, B, 6)
    options = bytearray(TCP4[:20]) + bytes(4) + ports
    options[0] = 0x46
    assert packet(bytes(options)) == Seen(A, B, 6, 40000, 80)


def test_extension_headers() -> None:
    ports = struct.pack(">HH", 40000, 80)

    def with_headers(first: int, *headers: bytes) -> bytes:
        return TCP6_HEAD[:6] + bytes((first,)) + TCP6_HEAD[7:] + b"".join(headers) + ports

    hop = bytes((6, 0)) + bytes(6)
    assert packet(with_headers(0, hop)) == Seen(A6, B6, 6, 40000, 80)
    assert packet(with_headers(0, bytes((60, 0)) + bytes(6), hop)) == Seen(A6, B6, 6, 40000, 80)
    assert packet(with_headers(44, bytes((6, 0, 0, 1)) + bytes(4))) == Seen(A6, B6, 6, 40000, 80)
    assert packet(with_headers(44, bytes((6, 0, 0, 9)) + bytes(4))) == Seen(A6, B6, 6)
    assert packet(with_headers(51, bytes((6, 1)) + bytes(10))) == Seen(A6, B6, 6, 40000, 80)
    assert packet(with_headers(0, *(bytes((0, 0)) + bytes(6) for _ in range(20)))) is not None


_good = [message(attr(9, TCP4), text(10, "tp:x")), message(attr(9, TCP6_HEAD)), message(attr(3, bytes(16)))]


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    list(messages(data))
    packet(data)
    list(messages(message(attr(9, data), attr(10, data), attr(3, data[:16]), attr(12, data[:4]))))


@given(st.lists(st.sampled_from(_good), min_size=1, max_size=4), st.data())
def test_damaged_messages(parts: list[bytes], data: st.DataObject) -> None:
    whole = bytearray(b"".join(parts))
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    found = list(messages(bytes(whole[: data.draw(st.integers(0, len(whole)))])))
    assert len(found) <= len(whole) // 16
