"""What fuzz tests of policy share: flows that are asked, junk, where it can be put, and JSON of any shape."""

import json
import math
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

from kube_policies import EVERYONE, flow

Json = Any
FLOWS = [
    flow(source, destination, port, protocol)
    for source in sorted(EVERYONE)
    for destination in sorted(EVERYONE)
    for port, protocol in ((80, "tcp"), (53, "udp"))
    if source != destination
]
# What no field has a use for. (An empty list or object, and null, do mean something.)
_JUNK: tuple[Json, ...] = (
    *("§", " x", "0.0.0.0/0 ", "a" * 600),
    *(7.5, -1, 2**70, math.nan, True),
    *([7], [[]], [None], {"§": {}}, {"app": None}),
)
junk: st.SearchStrategy[Json] = st.sampled_from(_JUNK).map(lambda value: copied(value))


def copied(value: Json) -> Json:
    """What strategies share is not shared any more."""
    return json.loads(json.dumps(value))


def places(value: Json, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of a value and of all that is in it."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from places(entry, (*path, index))


def holder_of(value: Json, path: tuple[Any, ...]) -> Json:
    """What has the path's last part."""
    for key in path[:-1]:
        value = value[key]
    return value


def any_json(*words: str) -> st.SearchStrategy[Json]:
    """Of any shape; texts and keys are often among ``words``."""
    scalars = st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from(words)
    )
    keys = st.sampled_from(words) | st.text(max_size=4)
    return st.recursive(
        scalars,
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=5)),
        max_leaves=25,
    )


def deep(levels: int, *keys: str) -> Json:
    """Objects in lists in objects."""
    value: Json = {}
    for _ in range(levels):
        value = {key: [value] for key in keys}
    return value
