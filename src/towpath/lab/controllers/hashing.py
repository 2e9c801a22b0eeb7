"""Names derived from content: pod-template-hash and controller revision names."""

import hashlib
from collections.abc import Mapping

import msgspec

from towpath.lab.controllers.objects_meta import Body

# Upstream's alphabet (k8s.io/apimachinery/pkg/util/rand): no vowels, so that no word is spelled.
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
TEMPLATE_HASH = "pod-template-hash"


def encode(number: int, length: int = 10) -> str:
    """``number`` in the safe alphabet, exactly ``length`` characters, least significant first."""
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(digits)


def content_hash(value: object, length: int = 10) -> str:
    """Equal content, equal hash; the order of mapping keys does not count."""
    digest = hashlib.sha256(msgspec.json.encode(value, order="deterministic")).digest()
    return encode(int.from_bytes(digest[:16], "big"), length)


def template_hash(template: Body, collisions: int | None) -> str:
    """``pod-template-hash`` of a Deployment's template; ``collisions`` as in its status."""
    return content_hash([prune(template), collisions or 0])


def prune(value: object) -> object:
    """The same content without nulls: clients send ``creationTimestamp: null`` in templates, or do not."""
    if isinstance(value, Mapping):
        return {k: prune(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [prune(v) for v in value]
    return value


def same_template(one: Body, other: Body) -> bool:
    """Equal but for the pod-template-hash label (``apps/v1``'s EqualIgnoreHash)."""
    return prune(without_label(one, TEMPLATE_HASH)) == prune(without_label(other, TEMPLATE_HASH))


def without_label(template: Body, label: str) -> Body:
    """A copy of a pod template that lacks the label."""
    meta = template.get("metadata") or {}
    labels = {k: v for k, v in (meta.get("labels") or {}).items() if k != label}
    return {**template, "metadata": {**meta, "labels": labels}}


def with_labels(template: Body, labels: Mapping[str, str]) -> Body:
    """A copy of a pod template with more labels."""
    meta = template.get("metadata") or {}
    return {**template, "metadata": {**meta, "labels": {**(meta.get("labels") or {}), **labels}}}
