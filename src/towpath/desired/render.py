"""A table as the text ``nft -f`` loads: for people, golden files and second opinions in tests."""

from towpath.model.nft import Field, Key, NftChain, NftSet, NftTable


def render(table: NftTable) -> str:
    """Sets by name, then chains by name, elements sorted: the same table is always the same text."""
    parts = [_set(table.sets[name]) for name in sorted(table.sets)]
    parts += [_chain(table.chains[name]) for name in sorted(table.chains)]
    return f"table inet {table.name} {{\n" + "\n".join(parts) + "}\n"


def _set(decl: NftSet) -> str:
    kind = "map" if decl.data else "set"
    data = f" : {' . '.join(decl.data)}" if decl.data else ""
    lines = [f"\t{kind} {decl.name} {{", f"\t\ttype {' . '.join(decl.key)}{data}"]
    if decl.interval:
        lines.append("\t\tflags interval")
    if decl.timeout:
        lines.append("\t\tflags timeout")
    if decl.counter:
        lines.append("\t\tcounter")
    if decl.elements:
        members = sorted(element(decl, key, value) for key, value in decl.elements.items())
        lines.append("\t\telements = { " + ",\n\t\t\t     ".join(members) + " }")
    return "\n".join([*lines, "\t}", ""])


def element(decl: NftSet, key: Key, data: Key) -> str:
    """As it stands between the braces of ``elements = { … }``."""
    return f"{_fields(decl.key, key)} : {_fields(decl.data, data)}" if data else _fields(decl.key, key)


def _fields(types: tuple[str, ...], fields: Key) -> str:
    return " . ".join(_field(kind, field) for kind, field in zip(types, fields, strict=True))


def _field(kind: str, field: Field) -> str:
    match field:
        case int() if kind == "classid":
            return f"{field >> 16:x}:{field & 0xFFFF:x}"
        case str() if kind == "verdict":
            return field
        case (low, high):
            return f"{low}-{high}"
        case str():
            return f'"{field}"' if not field.isalpha() else field
        case _:
            return str(field)


def _chain(chain: NftChain) -> str:
    lines = [f"\tchain {chain.name} {{"]
    if chain.hook is not None:
        hook = chain.hook
        lines.append(f"\t\ttype {hook.type} hook {hook.hook} priority {hook.priority}; policy {hook.policy};")
    return "\n".join([*lines, *(f"\t\t{rule}" for rule in chain.rules), "\t}", ""])
