"""The builtin types, read from ``types.txt``: fields, their types, what is required, how lists merge."""

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

SCALARS = frozenset(
    ("str", "bool", "int", "long", "float", "bytes", "time", "micro", "quantity", "intstr", "any")
)
# where server-side apply identifies list elements by more, or other, than the strategic merge key
APPLY_KEYS: dict[tuple[str, str], tuple[str, ...] | None] = {
    ("core.Container", "ports"): ("containerPort", "protocol"),
    ("core.EphemeralContainer", "ports"): ("containerPort", "protocol"),
    ("core.ServiceSpec", "ports"): ("port", "protocol"),
    ("core.PodSpec", "topologySpreadConstraints"): ("topologyKey", "whenUnsatisfiable"),
    ("core.NodeStatus", "addresses"): None,
    ("discovery.EndpointSlice", "endpoints"): None,
}
# values that an element may leave out and that still identify it
KEY_DEFAULTS = {"protocol": "TCP"}
ATOMIC = {"LabelSelector", "ObjectReference", "LocalObjectReference", "SecretReference", "NodeSelectorTerm"}


@dataclass(frozen=True, slots=True)
class Field:
    """``shape`` is "" (one value), "[]" or "{}"; ``type`` a scalar's name or ``package.Name``.

    ``merge`` is the strategic patch's merge key, "" for a set of scalars, None for replacement as a whole.
    ``keys`` identify the elements of a list for server-side apply, () for a set, None for an atomic list.
    """

    name: str
    shape: str
    type: str
    required: bool = False
    merge: str | None = None
    retain_keys: bool = False
    replace: bool = False
    keys: tuple[str, ...] | None = None
    inner: str = ""  # "[]" for a map of lists
    number: int = 0  # in protobuf, within the message in field ``wrap`` where that is not 0
    wrap: int = 0

    @property
    def scalar(self) -> bool:
        """Whether ``type`` is no object."""
        return self.type in SCALARS


@dataclass(frozen=True, slots=True)
class Type:
    """``name`` is ``core.PodSpec``; ``definition`` its name in OpenAPI documents."""

    name: str
    definition: str
    fields: dict[str, Field] = field(default_factory=dict)

    @property
    def short(self) -> str:
        """``PodSpec``."""
        return self.name.rpartition(".")[2]


def _field(package: str, owner: str, text: str, following: int) -> Field:
    name, _, rest = text.partition(":")
    numbers, slash, name = name.rpartition("/")
    wrap, _, number = numbers.rpartition("+") if slash else ("", "", str(following))
    merge: str | None = None
    retain, replace = rest.endswith("@"), rest.endswith("=")
    rest = rest.rstrip("@=")
    if "~" in rest:
        rest, _, merge = rest.partition("~")
    required = rest.endswith("!")
    rest = rest.rstrip("!")
    shape = rest[:2] if rest[:2] in ("[]", "{}") else ""
    rest = rest[len(shape) :]
    inner = rest[:2] if rest[:2] == "[]" else ""
    rest = rest[len(inner) :]
    if rest not in SCALARS and "." not in rest:
        rest = f"{package}.{rest}"
    keys: tuple[str, ...] | None = None if merge is None else (merge,) if merge else ()
    keys = APPLY_KEYS.get((f"{package}.{owner}", name), keys)
    return Field(
        name, shape, rest, required, merge, retain, replace, keys, inner, int(number), int(wrap or 0)
    )


def _parse(text: str) -> dict[str, Type]:
    found: dict[str, Type] = {}
    package = prefix = ""
    for line in text.replace("\n  ", " ").splitlines():
        if not line or line.startswith("#"):
            continue
        head, *rest = line.split()
        if head == "package":
            prefix, package = rest
            continue
        fields: dict[str, Field] = {}
        following = 1
        for token in rest:
            made = _field(package, head, token, following)
            following = made.number + 1
            fields[made.name] = made
        found[f"{package}.{head}"] = Type(f"{package}.{head}", f"{prefix}.{head}", fields)
    return found


@cache
def types() -> dict[str, Type]:
    """All builtin types by name; read once."""
    return _parse((Path(__file__).parent / "types.txt").read_text())


def field_of(parent: str, name: str) -> Field | None:
    """A type's field, also ``apiVersion`` and ``kind``; None where the type or the field is unknown."""
    found = types().get(parent)
    return found.fields.get(name) if found else None
