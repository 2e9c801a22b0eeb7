"""Versions as RKE2 and its components write them, and sets of them."""

import re
from typing import NamedTuple, Self

_RELEASE = re.compile(r"v?(\d+)\.(\d+)\.(\d+)(?:-([0-9A-Za-z.-]+))?\+rke2r(\d+)")
_NUMBERS = re.compile(r"v?(\d+(?:\.\d+)*)")
_CLAUSE = re.compile(r"(>=|<=|>|<|=)?\s*(v?\d\S*)")


class ReleaseVersion(NamedTuple):
    """``v1.32.2+rke2r1``, in order. ``pre`` is ``rc1``-like, and sorts before the release itself."""

    major: int
    minor: int
    patch: int
    final: bool
    pre: str
    revision: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError, saying what a release looks like."""
        match = _RELEASE.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{text!r} is not an RKE2 release such as v1.32.2+rke2r1")
        major, minor, patch, pre, revision = match.groups()
        return cls(int(major), int(minor), int(patch), pre is None, pre or "", int(revision))


def numbers(version: str) -> tuple[int, ...]:
    """The dotted numbers a version begins with: ``v3.29.2-build2025021800`` is (3, 29, 2).

    Builds of one version are equal: they hold the same upstream code. Raises ValueError.
    """
    match = _NUMBERS.match(version)
    if match is None:
        raise ValueError(f"{version!r} is not a version")
    found = tuple(map(int, match[1].split(".")))
    return found + (0,) * (3 - len(found))


class VersionSet:
    """``>=v0.20.0 <v0.27.0``: every clause holds. An empty text is every version. Raises ValueError."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._clauses: list[tuple[str, tuple[int, ...]]] = []
        for part in text.replace(",", " ").split():
            match = _CLAUSE.fullmatch(part)
            if match is None:
                raise ValueError(f"{part!r} in {text!r} is not a comparison such as >=v1.2.3")
            self._clauses.append((match[1] or "=", numbers(match[2])))

    def __contains__(self, version: str) -> bool:
        found = numbers(version)
        return all(_holds(found, operator, bound) for operator, bound in self._clauses)


def _holds(found: tuple[int, ...], operator: str, bound: tuple[int, ...]) -> bool:
    match operator:
        case ">=":
            return found >= bound
        case "<=":
            return found <= bound
        case ">":
            return found > bound
        case "<":
            return found < bound
    return found == bound
