"""What the selectors in use ask of labels, and a label set reduced to that.

A value that no selector names is as good as any other such value; a label that no selector names is as good
as absent. So hundreds of thousands of label sets become few.
"""

from collections import Counter
from collections.abc import Iterator, Mapping

from towpath.policy.ir import NamedPort
from towpath.policy.selector import And, Has, In, Not, Or, Selector, Text

Pair = tuple[str, str]
Reduced = frozenset[Pair | NamedPort]
Asked = tuple[str, str | None]
"""A label by key and value; None: whatever its value. A port's name stands for (PORT, name)."""

PORT = "\0port"  # no label is called so


class _Other(str):
    """Some value that no selector names: it differs from every string, itself excepted."""

    __slots__ = ()
    __eq__ = object.__eq__
    __hash__ = object.__hash__


OTHER = _Other("\0other")


class _Key:
    """What is asked of one label: by value; whether it is there; its text."""

    __slots__ = ("has", "other", "pairs", "texts", "values")

    def __init__(self) -> None:
        self.has = 0
        self.texts = 0
        self.values: Counter[str] = Counter()
        self.pairs: dict[str, Pair] = {}
        self.other: Pair | None = None


class Vocabulary:
    """Counts what is mentioned. ``changed`` gathers the labels that are no longer reduced as they were."""

    def __init__(self) -> None:
        self._keys: dict[str, _Key] = {}
        self._names: Counter[str] = Counter()
        self.changed: set[Asked] = set()

    def add(self, selector: Selector) -> None:
        """A selector comes into use."""
        for key, atom in _atoms(selector):
            self._count(key, self._keys.setdefault(key, _Key()), atom, 1)

    def remove(self, selector: Selector) -> None:
        """It was in use and no longer is."""
        for key, atom in _atoms(selector):
            asked = self._keys.setdefault(key, _Key())
            self._count(key, asked, atom, -1)
            if not (asked.has or asked.texts or asked.values):
                del self._keys[key]

    def add_name(self, name: str) -> None:
        """A port's name comes into use."""
        self._names[name] += 1
        if self._names[name] == 1:
            self.changed.add((PORT, name))

    def remove_name(self, name: str) -> None:
        """It was in use and no longer is."""
        self._names[name] -= 1
        if not self._names[name]:
            del self._names[name]
            self.changed.add((PORT, name))

    def reduce(self, labels: Mapping[str, str], ports: tuple[NamedPort, ...] = ()) -> Reduced:
        """Equal for objects that all selectors in use, and all port names, treat alike."""
        keys = self._keys
        pairs: list[Pair | NamedPort] = []
        for key, value in labels.items():
            if key in keys:
                asked = keys[key]
                pair = (key, value) if asked.texts else asked.pairs.get(value, asked.other)
                if pair is not None:
                    pairs.append(pair)
        if ports and self._names:
            pairs += (port for port in ports if port.name in self._names)
        return frozenset(pairs)

    def _count(self, key: str, asked: _Key, atom: Has | In | Text, by: int) -> None:
        match atom:
            case Has():
                asked.has += by
                if asked.has == (by > 0):
                    asked.other = (key, OTHER) if asked.has else None
                    self.changed.add((key, None))
            case Text():
                asked.texts += by
                if asked.texts == (by > 0):
                    self.changed.add((key, None))
            case In(_, values):
                for value in values:
                    asked.values[value] += by
                    if asked.values[value] == (by > 0):
                        self._name_value(key, asked, value)

    def _name_value(self, key: str, asked: _Key, value: str) -> None:
        """A value is mentioned for the first time, or for the last."""
        self.changed.add((key, value))
        if asked.values[value]:
            asked.pairs[value] = (key, value)
        else:
            del asked.values[value], asked.pairs[value]


def _atoms(selector: Selector) -> Iterator[tuple[str, Has | In | Text]]:
    match selector:
        case Has(key) | In(key, _) | Text(key, _, _):
            yield key, selector
        case Not(operand):
            yield from _atoms(operand)
        case And(operands) | Or(operands):
            for operand in operands:
                yield from _atoms(operand)
