"""Findings: what is wrong, with which object, and what to do. Every finding has a stable code."""

from typing import Literal

import msgspec

Severity = Literal["info", "warning", "error"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing an operator should know.

    ``code`` is a key of ``model.codes.CODES``; ``object`` names what it is about (``Node/n1``,
    ``Pod/default/a``, ``flannel.1 on n1``); ``message`` a sentence with the values seen; ``fix`` what to do.
    """

    code: str
    object: str
    message: str
    fix: str
    severity: Severity = "error"

    def __str__(self) -> str:
        return f"{self.code} {self.object}: {self.message} ({self.fix})"
