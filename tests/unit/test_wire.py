"""Netlink's wire form, against bytes counted by hand."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath.kernel.wire import attr, attributes, listed, mac_bytes, mac_text, nested, string, text, u8, u32

little = pytest.mark.skipif(sys.byteorder != "little", reason="the bytes are a little-endian host's")


@little
def test_attributes_are_padded_and_their_length_is_not() -> None:
    assert attr(3, b"ab") == b"\6\0\3\0ab\0\0"
    assert text(3, "abc") == b"\x08\0\3\0abc\0"
    assert u8(1, 1) == b"\5\0\1\0\1\0\0\0"
    assert u32(4, 1450) == b"\x08\0\4\0\xaa\5\0\0"
    assert nested(1, u32(4, 1)) == b"\x0c\0\1\x80\x08\0\4\0\1\0\0\0"


@given(st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=40)), max_size=10))
def test_what_is_written_is_read(items: list[tuple[int, bytes]]) -> None:
    data = b"".join(attr(kind, payload) for kind, payload in items)
    assert list(listed(data)) == items
    assert attributes(b"head" + data, 4) == dict(items)


@given(st.binary(max_size=200), st.integers(0, 8))
def test_garbage_is_read_to_its_end(data: bytes, offset: int) -> None:
    assert sum(len(payload) for payload in attributes(data, offset).values()) <= len(data)
    assert sum(len(payload) for _, payload in listed(data)) <= len(data)


def test_flags_of_a_type_are_not_the_type() -> None:
    assert attributes(nested(5, u32(1, 2))) == {5: u32(1, 2)}


@given(st.binary(min_size=6, max_size=6))
def test_mac_addresses(raw: bytes) -> None:
    assert mac_bytes(mac_text(raw)) == raw


@pytest.mark.parametrize("bad", ["", "02:00:00:00:00", "02:00:00:00:00:00:00", "02:00:00:00:00:0g"])
def test_what_is_no_mac_address(bad: str) -> None:
    with pytest.raises(ValueError):
        mac_bytes(bad)


def test_strings_end_at_their_zeros() -> None:
    assert string(b"eth0\0\0") == "eth0"
    assert string(b"\xff\0") == "\N{REPLACEMENT CHARACTER}"
