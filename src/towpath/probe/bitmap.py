"""Sequence bitmaps: one bit a slot, in the order of slots. Pure.

Kept as Python integers (slot 0 is the lowest bit), which makes intersection and counting fast; written as
base64 of little-endian bytes, so that others can read them.
"""

import base64
from collections.abc import Iterable, Iterator
from itertools import groupby

import msgspec


class Bitmap(msgspec.Struct, frozen=True):
    """``length`` slots of which those with a 1 in ``bits`` are set."""

    length: int
    bits: int = 0

    @staticmethod
    def of(flags: Iterable[bool]) -> "Bitmap":
        """From one truth value a slot."""
        text = bytes(48 + bool(flag) for flag in flags)
        return Bitmap(len(text), int(text[::-1], 2) if text else 0)

    def __getitem__(self, slot: int) -> bool:
        if not 0 <= slot < self.length:
            raise IndexError(slot)
        return bool(self.bits >> slot & 1)

    def __or__(self, other: "Bitmap") -> "Bitmap":
        return Bitmap(max(self.length, other.length), self.bits | other.bits)

    def count(self) -> int:
        """How many slots are set."""
        return self.bits.bit_count()

    def runs(self) -> Iterator[tuple[int, int]]:
        """First slot and length of each run of set slots, in order."""
        text = f"{self.bits:b}".zfill(self.length)[::-1] if self.length else ""
        slot = 0
        for digit, group in groupby(text):
            length = sum(1 for _ in group)
            if digit == "1":
                yield slot, length
            slot += length

    def encode(self) -> str:
        """Base64 of ⌈length/8⌉ bytes, slot 0 in the lowest bit of the first byte."""
        return base64.b64encode(self.bits.to_bytes((self.length + 7) // 8, "little")).decode()

    @staticmethod
    def decode(text: str, length: int) -> "Bitmap":
        """The reverse. Raises ValueError when there are more bits than ``length``."""
        bits = int.from_bytes(base64.b64decode(text, validate=True), "little")
        if bits >> length:
            raise ValueError(f"bitmap has bits beyond its length of {length}")
        return Bitmap(length, bits)
