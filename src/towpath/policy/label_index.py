"""Which of many selectors match a set of labels, without trying all of them.

Each selector stands under labels of which a match must have at least one; only those that can match without
any label (``!has(x)``, ``all()``) are tried always.
"""

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

from towpath.policy.selector import All, And, Has, In, Labels, Not, Or, Selector, Text

Item = TypeVar("Item", bound=Hashable)
Posting = str | tuple[str, str]
"""A label's key, or key and value."""


class LabelIndex(Generic[Item]):
    """Items by their selectors."""

    def __init__(self) -> None:
        self._covers: dict[Item, tuple[Posting, ...] | None] = {}
        self._postings: dict[Posting, dict[Item, Selector]] = {}
        self._always: dict[Item, Selector] = {}

    def add(self, item: Item, selector: Selector) -> None:
        """``item`` must not be there."""
        cover = self._covers[item] = self._cover(selector)
        if cover is None:
            self._always[item] = selector
            return
        for posting in cover:
            self._postings.setdefault(posting, {})[item] = selector

    def remove(self, item: Item) -> None:
        """``item`` must be there."""
        cover = self._covers.pop(item)
        if cover is None:
            del self._always[item]
            return
        for posting in dict.fromkeys(cover):
            found = self._postings[posting]
            del found[item]
            if not found:
                del self._postings[posting]

    def matching(self, labels: Labels) -> Iterator[Item]:
        """Those whose selectors match, each once."""
        candidates = dict(self._always)
        postings = self._postings
        for item in labels.items():
            if item in postings:
                candidates.update(postings[item])
            if item[0] in postings:
                candidates.update(postings[item[0]])
        return (item for item, selector in candidates.items() if selector.matches(labels))

    def _cover(self, selector: Selector) -> tuple[Posting, ...] | None:
        """Labels of which every match has one; None if there are none to name."""
        match selector:
            case All() | Not():
                return None
            case Has(key) | Text(key, _, _):
                return (key,)
            case In(key, values):
                return tuple((key, value) for value in values)
            case And(operands):
                covers = [cover for cover in map(self._cover, operands) if cover is not None]
                return min(covers, key=self._weight, default=None)
            case Or(operands):
                parts: dict[Posting, None] = {}
                for cover in map(self._cover, operands):
                    if cover is None:
                        return None
                    parts.update(dict.fromkeys(cover))
                return tuple(parts)

    def _weight(self, cover: tuple[Posting, ...]) -> int:
        """The fewer stand there already, the more it tells apart: "is a pod" soon has most of them."""
        return len(cover) + sum(len(self._postings.get(posting, ())) for posting in cover)
