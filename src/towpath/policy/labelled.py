"""Endpoints and network sets by name, and who has which label."""

from collections.abc import Iterable

from towpath.policy.ir import Endpoint, NetworkSet
from towpath.policy.vocabulary import PORT, Asked

Labelled = Endpoint | NetworkSet


class Holders:
    """Who has a label, or a port of a name. What is asked for once is kept: the first question about a label
    goes through everything, later ones do not.
    """

    def __init__(self, objects: dict[str, Labelled]) -> None:
        self._objects = objects
        self._kept: dict[str, dict[str, dict[str, None]]] = {}

    def of(self, asked: Iterable[Asked]) -> dict[str, None]:
        """The names of all that have any of them."""
        found: dict[str, None] = {}
        for key, value in asked:
            if key not in self._kept:
                self._kept[key] = {}
                for name, one in self._objects.items():
                    self._note(name, one, key)
            values = self._kept[key]
            for names in values.values() if value is None else (values.get(value, {}),):
                found.update(names)
        return found

    def come(self, one: Labelled) -> None:
        """It is there now."""
        for key in self._kept:
            self._note(one.name, one, key)

    def gone(self, one: Labelled) -> None:
        """It was there with these labels."""
        for key, values in self._kept.items():
            for value in _values(one, key):
                names = values[value]
                names.pop(one.name, None)
                if not names:
                    del values[value]

    def _note(self, name: str, one: Labelled, key: str) -> None:
        for value in _values(one, key):
            self._kept[key].setdefault(value, {})[name] = None


def _values(one: Labelled, key: str) -> Iterable[str]:
    if key == PORT:
        return {port.name for port in one.ports} if isinstance(one, Endpoint) else ()
    return (one.labels[key],) if key in one.labels else ()
