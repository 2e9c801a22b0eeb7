"""An entry of the catalogue of codes."""

import msgspec


class Code(msgspec.Struct, frozen=True):
    """``title`` one sentence; ``cause`` why it comes about; ``fix`` what an operator does."""

    title: str
    cause: str
    fix: str
