"""Small numbers for things, used again when they are free: the places of bits in bit sets."""

from typing import Generic, TypeVar

Item = TypeVar("Item")


class Numbers(Generic[Item]):
    """Items by number. ``next``: the number that the next item gets."""

    def __init__(self) -> None:
        self._items: dict[int, Item] = {}
        self._free: list[int] = []

    def __getitem__(self, number: int) -> Item:
        return self._items[number]

    def __len__(self) -> int:
        return len(self._items)

    @property
    def next(self) -> int:
        """The least that was never in use, unless one is free."""
        return self._free[-1] if self._free else len(self._items)

    def take(self, item: Item) -> int:
        """Give it the next number."""
        number = self.next
        if self._free:
            self._free.pop()
        self._items[number] = item
        return number

    def release(self, number: int) -> None:
        """Its item is no more."""
        del self._items[number]
        self._free.append(number)
