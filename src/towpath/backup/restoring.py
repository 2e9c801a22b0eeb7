"""What has to be written so that a cluster holds what an archive holds. Pure: values in, steps out."""

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any, NamedTuple

from towpath.backup.archive import Saved
from towpath.backup.objects import clean, difference, name_of
from towpath.backup.sections import NEVER_BACK

Raw = dict[str, Any]
Key = tuple[str, str, str, str]  # group, plural, namespace, name

# Definitions before what they define, namespaces before what lies in them, tiers before their policies.
_ORDER = ("namespaces", "definitions", "settings", "charts", "ipam", "policies", "networks", "nodes")
_FIRST = ("tiers", "networksets", "globalnetworksets")


class Step(NamedTuple):
    """``verb`` create, replace, same, or missing (there is no such namespace); ``version``: what is live."""

    verb: str
    saved: Saved
    version: str
    difference: str

    def describe(self) -> str:
        """One line."""
        return f"{self.verb:8} {name_of(self.saved.object)}"


def key_of(group: str, plural: str, raw: Raw) -> Key:
    """Where an object is."""
    return group, plural, raw["metadata"].get("namespace", ""), raw["metadata"]["name"]


def steps(saved: Iterable[Saved], live: Mapping[Key, Raw], namespaces: frozenset[str]) -> list[Step]:
    """In the order in which they have to be done. Nothing is ever deleted."""
    wanted = list(saved)
    coming = {one.object["metadata"]["name"] for one in wanted if one.entry.section == "namespaces"}
    found = []
    for one in sorted(wanted, key=_place):
        now = live.get(key_of(one.entry.group, one.entry.plural, one.object))
        space = one.object["metadata"].get("namespace", "")
        if space and space not in namespaces | coming:
            found.append(Step("missing", one, "", ""))
        elif now is None:
            found.append(Step("create", one, "", ""))
        else:
            before = clean({"apiVersion": one.object["apiVersion"], "kind": one.object["kind"], **now})
            change = difference(before, one.object) if before != one.object else ""
            version = now["metadata"].get("resourceVersion", "")
            found.append(Step("replace" if change else "same", one, version, change))
    return found


def turns(planned: Iterable[Step]) -> list[list[Step]]:
    """Those of ``steps`` that change something: the objects of a turn, all of one kind, can be written at
    the same time; one turn follows the other, since what comes later refers to what came before.
    """
    todo = [step for step in planned if step.verb != "same"]
    return [list(same) for _, same in groupby(todo, _turn)]


def _turn(step: Step) -> tuple[int, bool, str, str]:
    return *_place(step.saved)[:2], step.saved.entry.group, step.saved.entry.plural


def _place(one: Saved) -> tuple[int, bool, str]:
    return _ORDER.index(one.entry.section), one.entry.plural not in _FIRST, one.entry.path


def chosen(saved: Iterable[Saved], only: tuple[str, ...], namespace: str) -> list[Saved]:
    """Those of sections, kinds (plural, or plural.group) or objects (``Kind/ns/name``) in ``only``.

    ``namespace`` empty: of all. Raises ValueError naming what matches nothing.
    """
    everything = [one for one in saved if one.entry.section not in NEVER_BACK]
    by_choice = {choice: [one for one in everything if _matches(one, choice)] for choice in only}
    for choice, matching in by_choice.items():
        if not matching:
            raise ValueError(f"nothing in the archive is {choice!r}")
    paths = {one.entry.path for matching in by_choice.values() for one in matching}
    return [
        one
        for one in everything
        if one.entry.path in paths and (not namespace or one.object["metadata"].get("namespace") == namespace)
    ]


def _matches(one: Saved, choice: str) -> bool:
    entry = one.entry
    return choice in (
        entry.section,
        entry.plural,
        f"{entry.plural}.{entry.group}",
        name_of(one.object),
        one.object.get("kind", ""),
    )
