"""What an object of the cluster has otherwise than a manifest wants it. Pure."""

from collections.abc import Iterator
from typing import Any


def differences(wanted: Any, there: Any, path: str = "") -> list[str]:
    """One line for each field of ``wanted`` that ``there`` has otherwise or lacks.

    What only ``there`` has is the API server's, or somebody else's addition: defaults, status, annotations.
    Lists whose items have names are compared by name, others as a whole.
    """
    return list(_differences(wanted, there, path))


def _differences(wanted: Any, there: Any, path: str) -> Iterator[str]:
    if isinstance(wanted, dict) and isinstance(there, dict):
        for key, value in wanted.items():
            below = f"{path}.{key}" if path else key
            if key in there:
                yield from _differences(value, there[key], below)
            elif value not in ("", [], {}, None):
                yield f"{below} is missing"
    elif isinstance(wanted, list) and isinstance(there, list):
        yield from _in_lists(wanted, there, path)
    elif wanted != there:
        yield f"{path} is {_short(there)} instead of {_short(wanted)}"


def _in_lists(wanted: list[Any], there: list[Any], path: str) -> Iterator[str]:
    if wanted and all(isinstance(item, dict) and "name" in item for item in (*wanted, *there)):
        named = {item["name"]: item for item in there}
        for item in wanted:
            below = f"{path}[{item['name']}]"
            if item["name"] in named:
                yield from _differences(item, named.pop(item["name"]), below)
            else:
                yield f"{below} is missing"
        yield from (f"{path}[{name}] is not rendered" for name in named)
    elif len(wanted) != len(there):
        yield f"{path} is {_short(there)} instead of {_short(wanted)}"
    else:
        for number, (one, other) in enumerate(zip(wanted, there, strict=True)):
            yield from _differences(one, other, f"{path}[{number}]")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
