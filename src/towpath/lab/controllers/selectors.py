"""Label selectors, node selectors and tolerations: pure matching, as the API documents it."""

from collections.abc import Iterable, Mapping

from towpath.lab.controllers.objects_core import NodeSelectorTerm, Taint, Toleration
from towpath.lab.controllers.objects_meta import LabelSelector, Requirement


def matches(selector: LabelSelector | None, labels: Mapping[str, str] | None) -> bool:
    """None selects nothing, an empty selector everything. An unknown operator selects nothing."""
    if selector is None:
        return False
    labels = labels or {}
    return equal(selector.match_labels, labels) and all(
        satisfied(r, labels) for r in selector.match_expressions or ()
    )


def equal(wanted: Mapping[str, str] | None, labels: Mapping[str, str]) -> bool:
    """Every wanted label is there with that value."""
    return all(labels.get(k) == v for k, v in (wanted or {}).items())


def satisfied(requirement: Requirement, labels: Mapping[str, str]) -> bool:
    """One requirement of a label selector or a node selector (which adds Gt and Lt)."""
    value = labels.get(requirement.key)
    values = requirement.values or []
    match requirement.operator:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt" as operator:
            return value is not None and _compare(operator, value, values)
        case _:
            return False


def _compare(operator: str, value: str, values: list[str]) -> bool:
    try:
        have, bound = int(value), int(values[0])
    except (ValueError, IndexError):
        return False
    return have > bound if operator == "Gt" else have < bound


def term_matches(term: NodeSelectorTerm, labels: Mapping[str, str], name: str) -> bool:
    """A node selector term; one without requirements matches no node."""
    expressions, fields = term.match_expressions or (), term.match_fields or ()
    if not expressions and not fields:
        return False
    return all(satisfied(r, labels) for r in expressions) and all(
        satisfied(r, {"metadata.name": name}) for r in fields
    )


def tolerates(toleration: Toleration, taint: Taint) -> bool:
    """One toleration against one taint; an empty key with Exists tolerates everything."""
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.key and toleration.key != taint.key:
        return False
    if toleration.operator == "Exists":
        return True
    return bool(toleration.key) and toleration.value == taint.value


def untolerated(
    taints: Iterable[Taint], tolerations: Iterable[Toleration] | None, effects: frozenset[str]
) -> Taint | None:
    """The first taint of one of ``effects`` that nothing tolerates."""
    held = list(tolerations or ())
    return next((t for t in taints if t.effect in effects and not any(tolerates(x, t) for x in held)), None)
