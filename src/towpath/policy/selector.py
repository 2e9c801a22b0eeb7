"""Label selectors as values. Every API's selectors become these; ``selector_parse`` reads Calico's language.

A label that is absent has no value: ``Equal``, ``In`` and the text matches are false of it, and so their
negations (Calico's ``!=`` and ``not in``, Kubernetes' ``NotIn``) are true.
"""

from collections.abc import Mapping

import msgspec

Labels = Mapping[str, str]


class All(msgspec.Struct, frozen=True, tag=True):
    """Everything."""

    def matches(self, labels: Labels) -> bool:
        """Whether an object with these labels is selected."""
        return True

    def __str__(self) -> str:
        return "all()"


class Has(msgspec.Struct, frozen=True, tag=True):
    """The label is there."""

    key: str

    def matches(self, labels: Labels) -> bool:
        """Whether an object with these labels is selected."""
        return self.key in labels

    def __str__(self) -> str:
        return f"has({self.key})"


class In(msgspec.Struct, frozen=True, tag=True):
    """The label has one of ``values`` (sorted, distinct); of one value this is equality, of none nothing."""

    key: str
    values: tuple[str, ...]

    def matches(self, labels: Labels) -> bool:
        """Whether an object with these labels is selected."""
        return labels.get(self.key) in self.values

    def __str__(self) -> str:
        if len(self.values) == 1:
            return f"{self.key} == {_quoted(self.values[0])}"
        return f"{self.key} in {{ {', '.join(map(_quoted, self.values))} }}"


class Text(msgspec.Struct, frozen=True, tag=True):
    """The label's value contains, starts with or ends with ``text``."""

    key: str
    how: str  # "contains", "starts with", "ends with"
    text: str

    def matches(self, labels: Labels) -> bool:
        """Whether an object with these labels is selected."""
        value = labels.get(self.key)
        if value is None:
            return False
        match self.how:
            case "contains":
                return self.text in value
            case "starts with":
                return value.startswith(self.text)
            case _:
                return value.endswith(self.text)

    def __str__(self) -> str:
        return f"{self.key} {self.how} {_quoted(self.text)}"


class Not(msgspec.Struct, frozen=True, tag=True):
    """The opposite."""

    operand: "Selector"

    def matches(self, labels: Labels) -> bool:
        """Whether an object with these labels is selected."""
        return not self.operand.matches(labels)

    def __str__(self) -> str:
        return f"!({self.operand})" if isinstance(self.operand, And | Or) else f"!{self.operand}"


class And(msgspec.Struct, frozen=True, tag=True):
    """All of them; of none, everything."""

    operands: "tuple[Selector, ...]"

    def matches(self, labels: Labels) -> bool:
        """Whether an object with these labels is selected."""
        return all(operand.matches(labels) for operand in self.operands)

    def __str__(self) -> str:
        return " && ".join(f"({o})" if isinstance(o, Or) else str(o) for o in self.operands) or "all()"


class Or(msgspec.Struct, frozen=True, tag=True):
    """Any of them; of none, nothing."""

    operands: "tuple[Selector, ...]"

    def matches(self, labels: Labels) -> bool:
        """Whether an object with these labels is selected."""
        return any(operand.matches(labels) for operand in self.operands)

    def __str__(self) -> str:
        return " || ".join(map(str, self.operands)) or "!all()"


Selector = All | Has | In | Text | Not | And | Or

NOTHING: Selector = Or(())


def equal(key: str, value: str) -> Selector:
    """The label has this value."""
    return In(key, (value,))


def one_of(key: str, values: "tuple[str, ...] | list[str]") -> Selector:
    """The label has one of these values."""
    return In(key, tuple(sorted(set(values))))


def conjunction(*operands: Selector) -> Selector:
    """All of them, without needless nesting."""
    flat: list[Selector] = []
    for operand in operands:
        if isinstance(operand, And):
            flat += operand.operands
        elif not isinstance(operand, All):
            flat.append(operand)
    distinct = tuple(dict.fromkeys(flat))
    if not distinct:
        return All()
    return distinct[0] if len(distinct) == 1 else And(distinct)


def disjunction(*operands: Selector) -> Selector:
    """Any of them, without needless nesting."""
    flat: list[Selector] = []
    for operand in operands:
        flat += operand.operands if isinstance(operand, Or) else (operand,)
    distinct = tuple(dict.fromkeys(flat))
    return distinct[0] if len(distinct) == 1 else Or(distinct)


def keys_of(selector: Selector) -> frozenset[str]:
    """The labels it asks for: no other label can change its answer."""
    match selector:
        case All():
            return frozenset()
        case Has(key) | In(key, _) | Text(key, _, _):
            return frozenset((key,))
        case Not(operand):
            return keys_of(operand)
        case And(operands) | Or(operands):
            return frozenset[str]().union(*map(keys_of, operands))


def _quoted(text: str) -> str:
    return f"'{text}'" if '"' in text else f'"{text}"'
