"""What checks look at, and what they answer."""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import NamedTuple

from towpath.catalogue.compare import Comparison
from towpath.catalogue.model import Catalogue, Release
from towpath.inventory.cluster import Inventory
from towpath.model.finding import Finding, Severity
from towpath.preflight.engines import Verdicts


class Situation(NamedTuple):
    """A cluster, where it is to go, and the time. ``source`` None: its release is not in the catalogue.

    ``verdicts``: its policies under both engines, where somebody could compare them.
    """

    inventory: Inventory
    catalogue: Catalogue
    source: Release | None
    target: Release
    comparison: Comparison | None
    now: datetime
    verdicts: Verdicts | None = None


class Check(NamedTuple):
    """``number`` as in docs/preflight.md; ``run`` yields what is wrong, and nothing if all is well.

    It raises Untold where the inventory cannot tell.
    """

    number: int
    title: str
    run: Callable[[Situation], Iterator[Finding]]


class Untold(Exception):
    """The inventory does not say; the message says what is missing."""


class Answer(NamedTuple):
    """``state`` ok, findings, untold or skipped; ``why`` what is missing, or who skipped it.

    What could not be told to the end may have findings as well.
    """

    check: Check
    state: str
    findings: tuple[Finding, ...]
    why: str = ""


def run(checks: tuple[Check, ...], situation: Situation, skip: frozenset[int]) -> list[Answer]:
    """Every check's answer, in order. One that cannot tell does not pass."""
    found = []
    for check in checks:
        if check.number in skip:
            found.append(Answer(check, "skipped", (), "by --skip"))
            continue
        findings: list[Finding] = []
        try:
            for one in check.run(situation):
                findings.append(one)  # noqa: PERF402 (those before it is Untold count)
        except Untold as why:
            found.append(Answer(check, "untold", tuple(findings), str(why)))
            continue
        found.append(Answer(check, "findings" if findings else "ok", tuple(findings)))
    return found


def finding(code: str, where: str, message: str, fix: str, severity: Severity = "error") -> Finding:
    """Short for checks."""
    return Finding(code=code, object=where, message=message, fix=fix, severity=severity)
