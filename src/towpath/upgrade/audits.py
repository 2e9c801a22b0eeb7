"""What ``towpath image audit`` and ``diff`` said of images to come, as a plan carries it. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar

import msgspec
from msgspec.structs import replace

from towpath.model.codes import CODES

Severity = Literal["critical", "high", "medium", "low", "info"]
SEVERITIES: tuple[Severity, ...] = ("critical", "high", "medium", "low", "info")
MOST = 100  # findings, and changes, of an image: a plan has to fit into a ConfigMap
_LONGEST = 300  # of a text in them


T = TypeVar("T", bound=msgspec.Struct)


class AuditError(Exception):
    """What was given is no audit; the message says why."""


class AuditFinding(msgspec.Struct, frozen=True):
    """As the audit's JSON has it; ``path`` is the evidence."""

    severity: Severity
    code: str
    path: str
    message: str

    @property
    def told(self) -> str:
        """In words."""
        title = CODES[self.code].title if self.code in CODES else ""
        return f"{title}: {self.message}" if title else self.message


class ImageChange(msgspec.Struct, frozen=True):
    """As the comparison's JSON has it; ``old`` or ``new`` may be empty."""

    kind: str
    what: str
    old: str
    new: str

    @property
    def told(self) -> str:
        """In words."""
        return f"{self.kind} {self.what}: {self.old or 'none'} → {self.new or 'none'}"


class ImageAudit(msgspec.Struct, frozen=True, kw_only=True):
    """An image's audit, or what it has otherwise than another (``compared``).

    ``counts``: findings by severity, or changes by kind, all of them; of ``findings`` and ``changes`` there
    are ``MOST`` at most, the worst, and of changed files only the count. ``digest``: the image's, if known.
    """

    source: str
    digest: str = ""
    compared: bool = False
    counts: dict[str, int] = {}
    findings: tuple[AuditFinding, ...] = ()
    changes: tuple[ImageChange, ...] = ()

    @property
    def verdict(self) -> str:
        """In short."""
        told = ", ".join(f"{count} {kind}" for kind, count in self.counts.items())
        if self.compared:
            return f"changed: {told}" if told else "no difference"
        return told or "nothing found"

    @property
    def grave(self) -> bool:
        """Whether ``towpath image audit`` would have failed."""
        return bool(self.counts.get("critical") or self.counts.get("high"))

    @property
    def left_out(self) -> int:
        """How many findings or changes are counted and not listed."""
        return sum(self.counts.values()) - len(self.findings) - len(self.changes)

    def summary(self, digests: Mapping[str, str]) -> str:
        """The verdict, and of an audit which image of ``digests`` (name to digest, as pulled) it is of."""
        return self.verdict if self.compared else f"{self.verdict}; {self._whose(digests)}"

    def _whose(self, digests: Mapping[str, str]) -> str:
        those = sorted(name for name, digest in digests.items() if digest and digest == self.digest)
        if those:
            return f"it is {', '.join(those)}, by digest"
        if not self.digest:
            return "it has no digest to compare with what the nodes pulled"
        return "no image that the nodes pulled has its digest" if digests else "the nodes pulled nothing"


class _Audited(msgspec.Struct):
    source: str
    digest: str
    findings: list[AuditFinding]


def of(source: str, digest: str, findings: Iterable[AuditFinding]) -> ImageAudit:
    """Of an audit."""
    ordered = sorted(findings, key=lambda one: (SEVERITIES.index(one.severity), one.code, one.path))
    numbers = {s: sum(one.severity == s for one in ordered) for s in SEVERITIES}
    counts: dict[str, int] = {severity: count for severity, count in numbers.items() if count}
    return ImageAudit(
        source=source, digest=digest, counts=counts, findings=tuple(map(_short, ordered[:MOST]))
    )


def read(text: bytes, name: str) -> ImageAudit:
    """From what ``-o json`` wrote to the file ``name``. Raises AuditError."""
    try:
        found: Any = msgspec.json.decode(text)
        if isinstance(found, list):
            return _compared(msgspec.convert(found, list[ImageChange]), name)
        audited = msgspec.convert(found, _Audited)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise AuditError(
            f"{name} is neither an image nor the JSON of towpath image audit or diff: {e}"
        ) from e
    return of(audited.source, audited.digest, audited.findings)


def _compared(changes: list[ImageChange], name: str) -> ImageAudit:
    counts: dict[str, int] = {}
    for change in changes:
        counts[change.kind] = counts.get(change.kind, 0) + 1
    listed = [change for change in changes if change.kind != "file"][:MOST]
    return ImageAudit(source=name, compared=True, counts=counts, changes=tuple(map(_short, listed)))


def _short(one: T) -> T:
    """What it says of an image may be as long as the image likes."""
    texts = {name: text for name in one.__struct_fields__ if len(text := getattr(one, name)) > _LONGEST}
    return replace(one, **{name: f"{text[:_LONGEST]}…" for name, text in texts.items()})
