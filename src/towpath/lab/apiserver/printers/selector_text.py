"""Selectors in words."""

from towpath.lab.apiserver.errors import Obj

_FORMS = {"In": "{k} in ({v})", "NotIn": "{k} notin ({v})", "Exists": "{k}", "DoesNotExist": "!{k}"}


def selector_text(selector: Obj | None) -> str:
    """A LabelSelector as ``kubectl -l`` would take it."""
    terms = [f"{k}={v}" for k, v in sorted(((selector or {}).get("matchLabels") or {}).items())]
    for e in (selector or {}).get("matchExpressions") or ():
        values = ",".join(sorted(e.get("values") or ()))
        terms.append(_FORMS.get(e.get("operator"), "").format(k=e.get("key"), v=values))
    return ",".join(terms)
