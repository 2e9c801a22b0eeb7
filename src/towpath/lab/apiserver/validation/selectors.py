"""LabelSelectors as fields of objects."""

from towpath.lab.apiserver.errors import Cause, Obj
from towpath.lab.apiserver.validation import names
from towpath.lab.apiserver.validation.field import not_allowed, required, wrong
from towpath.lab.apiserver.validation.metadata import label_causes

_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")


def selector_causes(selector: Obj | None, field: str) -> list[Cause]:
    """What is wrong with a LabelSelector."""
    causes = label_causes((selector or {}).get("matchLabels"), f"{field}.matchLabels")
    for i, e in enumerate((selector or {}).get("matchExpressions") or ()):
        at, operator, values = f"{field}.matchExpressions[{i}]", e.get("operator"), e.get("values")
        causes += [
            wrong(f"{at}.key", e.get("key") or "", why) for why in names.qualified_name(e.get("key") or "")
        ]
        if operator not in _OPERATORS:
            causes.append(wrong(f"{at}.operator", operator or "", "not a valid selector operator"))
        elif operator in ("In", "NotIn") and not values:
            causes.append(required(f"{at}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
        elif operator in ("Exists", "DoesNotExist") and values:
            causes.append(
                not_allowed(
                    f"{at}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                )
            )
    return causes
