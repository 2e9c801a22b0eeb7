"""Reading policies as decoded from JSON (or YAML), whatever their shape. What cannot be understood is raised
where it stands, caught by whoever reads the *rule*, and reported; the rule then fails closed.

Absent and null are the same, as to Go. A field that is not known to the reader may narrow what stands beside
it (a newer version's peer), and so counts as not understood: ``Field.object``.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal, TypeVar

import msgspec

from towpath.api.text import parse_cidr
from towpath.model.finding import Finding
from towpath.model.net import Net
from towpath.policy.ir import NAMESPACE_PREFIX, SERVICE_ACCOUNT_PREFIX, Action, Rule
from towpath.policy.selector import All, Has, Not, Selector, conjunction, equal, one_of

T = TypeVar("T")

RULE_UNREADABLE = "TP5001"
POLICY_UNREADABLE = "TP5002"

# Labels that endpoints have from elsewhere: a user's own of these names are not there to be selected.
RESERVED_PREFIXES = (NAMESPACE_PREFIX, SERVICE_ACCOUNT_PREFIX, "towpath.io/")

_LABEL_KEY = re.compile(
    r"(?:(?=[^/]{1,253}/)[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*/)?"
    r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)
_LABEL_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_PORT_NAME = re.compile(r"(?=.{1,15}\Z)(?=.*[a-z])[a-z0-9]+(?:-[a-z0-9]+)*")


class Unreadable(Exception):
    """A field cannot be understood. ``path`` is from the object's root; ``problem`` has the value."""

    def __init__(self, path: str, problem: str, fix: str) -> None:
        super().__init__(f"{path} {problem}")
        self.path, self.problem, self.fix = path, problem, fix


class Field(msgspec.Struct, gc=False):
    """A value at its place in an object. Every method that asks for a shape raises Unreadable without it."""

    value: Any
    _parent: "Field | None" = None
    _key: str = ""

    @property
    def path(self) -> str:
        """``spec.ingress[0].from[1]``; made when asked for, since most fields are in order."""
        keys: list[str] = []
        field: Field | None = self
        while field is not None:
            keys.append(field._key[:80])
            field = field._parent
        return "".join(reversed(keys)).lstrip(".")

    @property
    def given(self) -> bool:
        """Whether it is there, and not null."""
        return self.value is not None

    def unreadable(self, problem: str, fix: str) -> Unreadable:
        """To be raised: the value, shortened, and what is wrong with it."""
        return Unreadable(self.path or "the object", f"{_shown(self.value)} {problem}", fix)

    def __getitem__(self, key: str) -> "Field":
        """A field of an object, given or not."""
        value = self.value
        found = value.get(key) if type(value) is dict else self._mapping().get(key)
        return Field(found, self, f".{key}")

    def object(self, *known: str) -> "Field":
        """Itself, as an object that has no other fields than the ``known``."""
        for key, value in self._mapping().items():
            if key not in known:
                raise Field(value, self, f".{key}").unreadable(
                    "is in a field that Towpath does not know here", f"use only {', '.join(known)}"
                )
        return self

    def fields(self) -> "list[tuple[str, Field]]":
        """An object's fields, in order."""
        found: list[tuple[str, Field]] = []
        for key, value in self._mapping().items():
            if not isinstance(key, str):
                raise self.unreadable("has a key that is no text", "quote it")
            found.append((key, Field(value, self, f".{key}")))
        return found

    def entries(self) -> "list[Field]":
        """A list's, each of them given; none if the list is not."""
        if self.value is None:
            return []
        if not isinstance(self.value, list | tuple):
            raise self.unreadable("is no list", "write a list")
        entries = [Field(value, self, f"[{i}]") for i, value in enumerate(self.value)]
        for entry in entries:
            if entry.value is None:
                raise entry.unreadable("stands in a list", "remove it")
        return entries

    def text(self) -> str:
        """A string that is not empty."""
        if not isinstance(self.value, str) or not self.value:
            raise self.unreadable("is no text", "write a text (in quotes, if it looks like a number)")
        return self.value

    def integer(self, low: int, high: int) -> int:
        """A whole number within bounds, both included."""
        if type(self.value) is not int or not low <= self.value <= high:
            raise self.unreadable(f"is no number from {low} to {high}", "write one, without quotes")
        return self.value

    def flag(self) -> bool:
        """true or false; false if it is not given."""
        if self.value is None:
            return False
        if not isinstance(self.value, bool):
            raise self.unreadable("is neither true nor false", "write true or false, without quotes")
        return self.value

    def choice(self, options: Mapping[str, T]) -> T:
        """What ``options`` has for the text; case matters."""
        if not isinstance(self.value, str) or self.value not in options:
            raise self.unreadable("is not known", f"write one of {', '.join(options)}")
        return options[self.value]

    def net(self) -> Net:
        """A CIDR, host bits cut off.

        Octets with leading zeros and IPv4 in IPv6's clothes mean different networks to different readers,
        and so none.
        """
        text, fix = self.text(), "write a CIDR, as 10.0.0.0/8 or fd00::/8"
        try:
            net = parse_cidr(text)
        except ValueError as error:
            raise self.unreadable("is no CIDR", fix) from error
        if getattr(net.network_address, "ipv4_mapped", None) is not None:
            raise self.unreadable("is an IPv4 network written as IPv6", fix)
        return net

    def port_name(self) -> str:
        """A container port's name: up to 15 of a-z, 0-9 and single dashes, at least one letter (RFC 6335)."""
        if not isinstance(self.value, str) or not _PORT_NAME.fullmatch(self.value):
            raise self.unreadable(
                "is no name of a port", "write a number without quotes, or a container port's name"
            )
        return self.value

    def _mapping(self) -> Mapping[str, Any]:
        if type(self.value) is dict:  # to ask for Mapping takes ten times as long
            return self.value
        if self.value is None:
            return {}
        if not isinstance(self.value, Mapping):
            raise self.unreadable("is no object", "write an object with fields")
        return self.value


class Report:
    """The findings about one object."""

    def __init__(self, kind: str, root: Field) -> None:
        """Takes name and namespace from the metadata, ``?`` and empty where they are no texts."""
        self.kind = kind
        self.name = _metadata(root, "name") or "?"
        self.namespace = _metadata(root, "namespace")
        self._findings: dict[Finding, None] = {}

    @property
    def object(self) -> str:
        """``Kind/namespace/name``."""
        return "/".join(part for part in (self.kind, self.namespace, self.name) if part)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """In the order they were found, each once."""
        return tuple(self._findings)

    def note(
        self,
        problem: Unreadable,
        consequence: str,
        code: str = RULE_UNREADABLE,
        severity: Literal["warning", "error"] = "error",
    ) -> None:
        """``consequence``: what is done instead, to follow a semicolon."""
        message = f"{problem.path}: {problem.problem}; {consequence}"
        finding = Finding(code=code, object=self.object, message=message, fix=problem.fix, severity=severity)
        self._findings[finding] = None

    def closed(self, problem: Unreadable, action: Action | None, path: str) -> tuple[Rule, ...]:
        """What stays of a rule that cannot be understood; reports it. ``action`` None: not even that could.

        Of allow and log, nothing. Of deny, a denial of everything. Of pass as well: a pass of everything
        would skip the tier's further denials, no pass at all would meet the tier's further permissions.
        (The network policy API asks for the same.)
        """
        if action in ("allow", "log"):
            self.note(problem, "the rule is left out")
            return ()
        self.note(problem, "the rule denies everything")
        return (Rule(action="deny", path=path),)


def label_selector(field: Field, prefix: str = "") -> Selector:
    """A ``metav1.LabelSelector``; everything if it is empty. Raises Unreadable.

    ``prefix`` is put before each key: ``pcns.`` makes it one of namespaces.
    """
    if not field.object("matchLabels", "matchExpressions").value:
        return All()
    terms: list[Selector] = []
    if "matchLabels" in field.value:
        for key, value in sorted(field["matchLabels"].fields()):
            terms.append(equal(prefix + _label_key(value, key, prefix), _label_value(value)))
    if "matchExpressions" in field.value:
        terms += (_requirement(entry, prefix) for entry in field["matchExpressions"].entries())
    return terms[0] if len(terms) == 1 else conjunction(*terms)


def _requirement(field: Field, prefix: str) -> Selector:
    field.object("key", "operator", "values")
    key = prefix + _label_key(field["key"], field["key"].text(), prefix)
    values = [_label_value(value) for value in field["values"].entries()]
    operator = field["operator"].text()
    if operator in ("In", "NotIn") and values:
        member = one_of(key, values)
        return member if operator == "In" else Not(member)
    if operator in ("Exists", "DoesNotExist") and not values:
        return Has(key) if operator == "Exists" else Not(Has(key))
    fix = "write In or NotIn with values, or Exists or DoesNotExist without"
    raise field["operator"].unreadable(f"does not go with {len(values)} values", fix)


def _label_key(field: Field, key: str, prefix: str) -> str:
    if len(key) > 317 or not _is_label_key(key):
        raise field.unreadable(f"stands under {key[:60]!r}, which is no label's name", "correct the name")
    if not prefix and key.startswith(RESERVED_PREFIXES):
        raise field.unreadable(
            f"is asked of the label {key[:60]}, whose name is Towpath's own", "use a label of another name"
        )
    return key


def _label_value(field: Field) -> str:
    if not isinstance(field.value, str) or len(field.value) > 63 or not _is_label_value(field.value):
        fix = "write up to 63 letters, digits, '-', '_' and '.' (in quotes, if they look like a number)"
        raise field.unreadable("is no value of a label", fix)
    return field.value


@lru_cache(maxsize=4096)
def _is_label_key(text: str) -> bool:
    return _LABEL_KEY.fullmatch(text) is not None


@lru_cache(maxsize=4096)
def _is_label_value(text: str) -> bool:
    return _LABEL_VALUE.fullmatch(text) is not None


def _metadata(root: Field, key: str) -> str:
    try:
        value = root["metadata"][key].value
    except Unreadable:
        return ""
    return value[:253] if isinstance(value, str) else ""


def _shown(value: Any) -> str:
    """Short whatever it is, and of no depth: a value may be of any size."""
    match value:
        case str():
            return repr(value if len(value) <= 60 else value[:59] + "…")
        case bool() | None:
            return {True: "true", False: "false", None: "null"}[value]
        case int() | float():
            return repr(value) if abs(value) < 1e15 else "a very large number"
        case Mapping():
            return "an object"
        case list() | tuple():
            return f"a list of {len(value)}"
        case _:
            return f"a {type(value).__name__}"
