"""The wire format of protobuf: fields by number. Source: protobuf.dev, "Encoding"."""

from collections.abc import Iterator
from typing import Any


class Malformed(ValueError):
    """Bytes that are no protobuf of the type."""


def wire_fields(data: Any) -> Iterator[tuple[int, Any]]:
    """Number and value (int or memoryview) of each field. Raises Malformed."""
    if not isinstance(data, memoryview):
        raise Malformed("a message is a number")
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise Malformed(f"wire type {wire}")
        if at + size > len(data):
            raise Malformed("truncated field")
        yield number, data[at : at + size]
        at += size


def text(value: Any) -> str:
    """A string field. Raises Malformed."""
    try:
        return bytes(octets(value)).decode()
    except UnicodeDecodeError as e:
        raise Malformed("a string is not UTF-8") from e


def octets(value: Any) -> memoryview | bytes:
    """A field of bytes. Raises Malformed."""
    if not isinstance(value, memoryview | bytes):
        raise Malformed("bytes are a number")
    return value


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise Malformed("truncated varint")
        byte = data[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, at
        shift += 7
