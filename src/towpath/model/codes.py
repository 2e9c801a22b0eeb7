"""The catalogue behind ``towpath explain TPnnnn``: one entry a code, never reused, never renumbered.

TP1nnn agent and configuration, TP2nnn CNI, TP3nnn fabric, TP4nnn addresses, TP5nnn policy, TP6nnn extra
networks, TP7nnn upgrade, TP8nnn images, TP9nnn lab.
"""

import msgspec


class Code(msgspec.Struct, frozen=True):
    """``title`` one sentence; ``cause`` why it comes about; ``fix`` what an operator does."""

    title: str
    cause: str
    fix: str


CODES: dict[str, Code] = {}
