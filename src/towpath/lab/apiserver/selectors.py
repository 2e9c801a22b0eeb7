"""Label and field selectors in their text form (``a=b,c in (d,e),!f`` and ``spec.nodeName=x``). Pure."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from towpath.lab.apiserver.errors import Obj, bad_request

Labels = Mapping[str, str]
Match = Callable[[Labels], bool]

_SET = re.compile(r"^\s*(?P<key>[^\s!=,()<>]+)\s+(?P<op>in|notin)\s*\((?P<values>[^()]*)\)\s*$")
_EQUAL = re.compile(r"^\s*(?P<key>[^\s!=,()<>]+)\s*(?P<op>==|=|!=|>|<)\s*(?P<value>[^\s!=,()<>]*)\s*$")
_EXISTS = re.compile(r"^\s*(?P<no>!?)\s*(?P<key>[^\s!=,()<>]+)\s*$")


def _split(text: str) -> list[str]:
    """At commas outside parentheses."""
    parts, depth, start = [], 0, 0
    for i, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if c == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    return [*parts, text[start:]]


def _number(text: str | None) -> int | None:
    try:
        return int(text) if text is not None else None
    except ValueError:
        return None


def _compare(key: str, op: str, value: str) -> Match:
    if op in ("=", "=="):
        return lambda labels: labels.get(key) == value
    if op == "!=":
        return lambda labels: labels.get(key) != value
    bound = _number(value)
    if bound is None:
        raise bad_request(
            f"unable to parse requirement: values[0][{key}]: for 'Gt', 'Lt' operators, the value "
            f"must be an integer"
        )

    def compare(labels: Labels) -> bool:
        found = _number(labels.get(key))
        return found is not None and (found > bound if op == ">" else found < bound)

    return compare


def _requirement(text: str) -> Match:
    if m := _SET.match(text):
        key, values = m["key"], frozenset(v.strip() for v in m["values"].split(","))
        if m["op"] == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: key not in labels or labels[key] not in values
    if m := _EQUAL.match(text):
        return _compare(m["key"], m["op"], m["value"])
    if m := _EXISTS.match(text):
        key = m["key"]
        return (lambda labels: key not in labels) if m["no"] else (lambda labels: key in labels)
    raise bad_request(
        f"unable to parse requirement: found '{text.strip()}', expected: "
        "identifier, '!', 'in', 'notin', '=', '==', '!=', '<', '>'"
    )


def label_selector(text: str) -> Match | None:
    """A predicate over labels; None selects everything. Raises ApiError 400."""
    if not text.strip():
        return None
    matches = [_requirement(part) for part in _split(text)]
    if len(matches) == 1:
        return matches[0]
    return lambda labels: all(m(labels) for m in matches)


def matches_selector(selector: Obj | None, labels: Labels) -> bool:
    """Whether a ``metav1.LabelSelector`` value selects; None selects nothing, ``{}`` everything."""
    if selector is None:
        return False
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    for e in selector.get("matchExpressions") or ():
        key, values = e.get("key"), e.get("values") or ()
        found = {
            "In": labels.get(key) in values,
            "NotIn": labels.get(key) not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }.get(e.get("operator"), False)
        if not found:
            return False
    return True


def lookup(obj: Obj, path: str) -> str:
    """The value at ``spec.nodeName`` as a field selector compares it: text, "" where absent."""
    value: Any = obj
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


Field = Callable[[Obj], bool]


def _field(term: str, fields: Mapping[str, Callable[[Obj], str]]) -> Field:
    negate = "!=" in term
    key, found, value = term.partition("!=" if negate else "==" if "==" in term else "=")
    key = key.strip()
    if not found:
        raise bad_request(f"invalid selector: '{term}'; can't understand '{term}'")
    read = fields.get(key)
    if read is None:
        raise bad_request(f"field label not supported: {key}")
    value = value.strip().replace("\\,", ",").replace("\\=", "=").replace("\\\\", "\\")
    return lambda obj: (read(obj) == value) != negate


def field_selector(text: str, fields: Mapping[str, Callable[[Obj], str]]) -> Field | None:
    """A predicate over objects; ``fields`` are those that the kind supports. Raises ApiError 400."""
    terms = [t for t in re.split(r"(?<!\\),", text) if t.strip()]
    if not terms:
        return None
    matches = [_field(t, fields) for t in terms]
    if len(matches) == 1:
        return matches[0]
    return lambda obj: all(m(obj) for m in matches)


def supported_fields(
    kind: str, namespaced: bool, more: tuple[str, ...] = ()
) -> dict[str, Callable[[Obj], str]]:
    """Fields a selector may name: metadata's for all kinds, upstream's few for Pods, Events, Nodes…"""
    paths = ["metadata.name", *(["metadata.namespace"] if namespaced else []), *_FIELDS.get(kind, ()), *more]
    fields = {p: _reader(p.lstrip(".")) for p in paths}
    if kind == "Event":
        fields["source"] = lambda o: lookup(o, "source.component") or lookup(o, "reportingComponent")
    if kind == "Pod":
        host = fields["spec.hostNetwork"]
        fields["spec.hostNetwork"] = lambda o: host(o) or "false"
    if kind == "Node":
        cordoned = fields["spec.unschedulable"]
        fields["spec.unschedulable"] = lambda o: cordoned(o) or "false"
    return fields


def _reader(path: str) -> Callable[[Obj], str]:
    parts = path.split(".")
    if len(parts) == 2:
        a, b = parts

        def read(obj: Obj) -> str:
            value = (obj.get(a) or {}).get(b)
            return value if isinstance(value, str) else lookup(obj, path)

        return read
    return lambda obj: lookup(obj, path)


_FIELDS = {
    "Pod": (
        "spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName",
        "spec.hostNetwork", "status.phase", "status.podIP", "status.nominatedNodeName",
    ),
    "Node": ("spec.unschedulable",),
    "Namespace": ("status.phase", "name"),
    "Secret": ("type",),
    "Service": ("spec.clusterIP", "spec.type"),
    "ReplicaSet": ("status.replicas",),
    "Job": ("status.successful",),
    "Event": (
        "involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid",
        "involvedObject.apiVersion", "involvedObject.resourceVersion", "involvedObject.fieldPath",
        "reason", "reportingComponent", "type",
    ),
}  # fmt: skip
