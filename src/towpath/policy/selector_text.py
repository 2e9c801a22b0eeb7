"""Whom a selector means, in the words of whoever wrote it: ``pods with app == "web" in namespace shop``.

The labels that converters add, and the prefixes under which endpoints have those of their namespace and
service account, are ours and nobody's who reads a finding.
"""

from msgspec.structs import replace

from towpath.policy.ir import (
    KIND,
    NAMESPACE,
    NAMESPACE_NAME,
    NAMESPACE_PREFIX,
    ORCHESTRATOR,
    SERVICE_ACCOUNT,
    SERVICE_ACCOUNT_NAME,
    SERVICE_ACCOUNT_PREFIX,
)
from towpath.policy.selector import All, And, Has, In, Not, Or, Selector, Text, conjunction, keys_of

_NOUNS: dict[tuple[str, ...], str] = {
    ("pod",): "pods",
    ("node",): "nodes",
    ("hostendpoint",): "host endpoints",
}
_NAMES = {
    NAMESPACE: "in namespace",
    NAMESPACE_NAME: "in namespace",
    SERVICE_ACCOUNT: "of service account",
    SERVICE_ACCOUNT_NAME: "of service account",
}
_PLACES = {NAMESPACE_PREFIX: "in namespaces", SERVICE_ACCOUNT_PREFIX: "of service accounts"}


def selector_text(selector: Selector) -> str:
    """A noun with what is asked of it."""
    noun = "endpoints"
    own: list[Selector] = []
    by_name: list[str] = []
    inherited: dict[str, list[Selector]] = {prefix: [] for prefix in _PLACES}
    for part in selector.operands if isinstance(selector, And) else (selector,):
        keys = keys_of(part)
        prefix = next((p for p in _PLACES if keys and all(key.startswith(p) for key in keys)), "")
        if isinstance(part, In) and part.key == KIND:
            noun = _NOUNS.get(part.values, noun)
        elif isinstance(part, In) and part.key in _NAMES and part.values:
            by_name.append(f"{_NAMES[part.key]} {' or '.join(part.values)}")
        elif prefix:
            inherited[prefix].append(_without(prefix, part))
        elif keys != {ORCHESTRATOR}:
            own.append(part)
    text = noun if not own or conjunction(*own) == All() else f"{noun} with {conjunction(*own)}"
    places = [f"{_PLACES[prefix]} with {conjunction(*parts)}" for prefix, parts in inherited.items() if parts]
    if text == noun:
        text = f"all {noun}"
    return " ".join((text, *dict.fromkeys(by_name), *places))


def _without(prefix: str, selector: Selector) -> Selector:
    """The same with labels' names as the user has them."""
    match selector:
        case All():
            return selector
        case Not(operand):
            return Not(_without(prefix, operand))
        case And(operands):
            return And(tuple(_without(prefix, one) for one in operands))
        case Or(operands):
            return Or(tuple(_without(prefix, one) for one in operands))
        case Has(key) | In(key, _) | Text(key, _, _):
            return replace(selector, key=key.removeprefix(prefix))
