"""Selectors answered for many label sets at once, by integers used as bit sets: bit N is label set number N.

A selector costs its length, however many label sets there are.
"""

from collections.abc import Iterable
from functools import reduce
from operator import and_, or_

from towpath.policy.selector import All, And, Has, In, Labels, Not, Or, Selector, Text


class LabelBits:
    """Label sets by number. ``every``: the numbers in use."""

    def __init__(self) -> None:
        self.every = 0
        self._values: dict[str, dict[str, int]] = {}

    def add(self, number: int, pairs: Iterable[tuple[str, str]]) -> None:
        """A label set, by its labels. The number must not be in use."""
        bit = 1 << number
        self.every |= bit
        for key, value in pairs:
            values = self._values.setdefault(key, {})
            values[value] = values.get(value, 0) | bit

    def remove(self, number: int, labels: Labels) -> None:
        """No such label set any more; ``labels`` as they were added."""
        bit = 1 << number
        self.every ^= bit
        for key, value in labels.items():
            values = self._values[key]
            values[value] ^= bit
            if not values[value]:
                del values[value]
                if not values:
                    del self._values[key]

    def answer(self, selector: Selector) -> int:
        """Those that it selects."""
        match selector:
            case All():
                return self.every
            case Has(key):
                return reduce(or_, self._values.get(key, {}).values(), 0)
            case In(key, wanted):
                have = self._values.get(key, {})
                return reduce(or_, (have[value] for value in wanted if value in have), 0)
            case Text(key, _, _):
                have = self._values.get(key, {})
                found = (bits for value, bits in have.items() if selector.matches({key: value}))
                return reduce(or_, found, 0)
            case Not(operand):
                return self.every & ~self.answer(operand)
            case And(operands):
                return reduce(and_, map(self.answer, operands), self.every)
            case Or(operands):
                return reduce(or_, map(self.answer, operands), 0)
