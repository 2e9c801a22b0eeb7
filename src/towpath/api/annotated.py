"""JSON in an object's annotations: what agents are asked there, and answer."""

from typing import TypeVar

import msgspec

from towpath.api.meta import ObjectMeta

T = TypeVar("T")


def annotated(metadata: ObjectMeta, key: str, kind: type[T]) -> T | None:
    """The annotation's value as ``kind``; None where there is none that can be read."""
    text = (metadata.annotations or {}).get(key, "")
    try:
        return msgspec.json.decode(text, type=kind) if text else None
    except msgspec.DecodeError:
        return None
