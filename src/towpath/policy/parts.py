"""Reading an object part by part: one that cannot be understood leaves the others as they are."""

from collections.abc import Callable
from typing import TypeVar

from towpath.policy.reading import Field, Report, Unreadable

T = TypeVar("T")


class Parts:
    """The parts of one object. None of ``spec`` can be read if it is no object."""

    def __init__(self, root: Field, *known: str) -> None:
        """``known``: all fields that a spec may have."""
        self.problems: list[Unreadable] = []
        self.root = root
        self.spec = self.read(lambda: root["spec"], root)
        self.read(lambda: self.spec.object(*known), self.spec)

    def read(self, part: Callable[[], T], otherwise: T) -> T:
        """What ``part`` returns; ``otherwise`` if it raises Unreadable, which is kept."""
        try:
            return part()
        except Unreadable as problem:
            self.problems.append(problem)
            return otherwise

    def entries(self, key: str) -> list[Field]:
        """Those of a list in the spec; none if it cannot be read."""
        none: list[Field] = []
        return self.read(lambda: self.spec[key].entries(), none)

    def tell(self, report: Report, consequence: str, code: str) -> None:
        """All problems are reported; to be called when everything has been read."""
        for problem in self.problems:
            report.note(problem, consequence, code)
