"""The workload's SCTP answers."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from towpath.lab import workload_sctp as sctp
from towpath.lab.workload_sctp import Packet

PORTS = frozenset({9999})


def test_crc32c_check_value() -> None:
    assert sctp.crc32c(b"123456789") == 0xE3069283  # RFC 3720 B.4's polynomial, the usual check value


def test_init_is_acknowledged_with_the_pods_name() -> None:
    request = sctp.decode(sctp.init(40000, 9999, 77))
    assert request is not None
    raw = sctp.respond(request, PORTS, "default/a")
    assert raw is not None
    answer = sctp.decode(raw)
    assert answer is not None
    assert (answer.source, answer.destination, answer.tag) == (9999, 40000, 77)
    assert sctp.identity_of(answer) == "default/a"


def test_other_ports_abort() -> None:
    request = sctp.decode(sctp.init(40000, 1, 77))
    assert request is not None
    raw = sctp.respond(request, PORTS, "default/a")
    assert raw is not None
    answer = sctp.decode(raw)
    assert answer is not None
    assert (answer.chunk, answer.tag) == (sctp.ABORT, 77)


def test_cookie_echo_is_acknowledged() -> None:
    raw = sctp.respond(Packet(1, 9999, 5, sctp.COOKIE_ECHO, b"x"), PORTS, "default/a")
    assert raw is not None
    answer = sctp.decode(raw)
    assert answer is not None
    assert answer.chunk == sctp.COOKIE_ACK


def test_a_wrong_checksum_is_no_packet() -> None:
    raw = bytearray(sctp.init(1, 2, 3))
    raw[8] ^= 1
    assert sctp.decode(bytes(raw)) is None


@given(st.binary(max_size=64))
def test_noise_is_no_packet_or_no_answer(data: bytes) -> None:
    packet = sctp.decode(data)
    assert packet is None or sctp.respond(packet, PORTS, "x") is None or packet.chunk in (1, 10)


@given(
    st.integers(0, 65535),
    st.integers(0, 65535),
    st.integers(0, 2**32 - 1),
    st.integers(0, 255),
    st.binary(max_size=32),
)
def test_packets_survive_the_wire(source: int, destination: int, tag: int, chunk: int, value: bytes) -> None:
    packet = Packet(source, destination, tag, chunk, value)
    assert sctp.decode(sctp.encode(packet)) == packet
    assert struct.unpack_from("!HH", sctp.encode(packet)) == (source, destination)
