"""Whatever a server sends: typed objects, or an error of ours, and nothing else."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath.api.core import Node
from towpath.kube.codec import Event, Listing, decode, decode_event, decode_page
from towpath.kube.errors import ApiError, ApiRefused, Gone, refused
from towpath.kube.kinds import NODES

NAMES = st.sampled_from(
    ["metadata", "name", "items", "type", "object", "kind", "code", "annotations", "spec", "podCIDRs", "x"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["ADDED", "ERROR"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@given(body=st.binary(max_size=60) | JSON.map(msgspec.json.encode))
def test_anything_at_all(body: bytes) -> None:
    for attempt in (
        lambda: decode(NODES, "get", body, "/api/v1/nodes/n"),
        lambda: decode_page(NODES, body, "/api/v1/nodes"),
        lambda: decode_event(NODES, body, "/api/v1/nodes"),
    ):
        try:
            made = attempt()
        except ApiError:
            continue
        assert isinstance(made, Node | Event | tuple)


@given(
    kind=st.sampled_from(["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]),
    metadata=st.fixed_dictionaries(
        {}, optional={"name": st.text(max_size=3), "namespace": st.text(max_size=3), "resourceVersion": JSON}
    ),
    rest=st.dictionaries(NAMES.filter(lambda name: name != "metadata"), JSON, max_size=3),
)
def test_an_event_read_in_one_go_is_what_it_is_piece_by_piece(
    kind: str, metadata: dict[str, object], rest: dict[str, object]
) -> None:
    """Kinds that keep every field are always read piece by piece."""
    line = msgspec.json.encode({"type": kind, "object": {"metadata": metadata, **rest}})
    try:
        piecewise = decode_event(NODES.raw(), line, "/x")
    except ApiError:
        with pytest.raises(ApiError):
            decode_event(NODES, line, "/x")
        return
    made = decode_event(NODES, line, "/x")
    assert (made.key, made.resource_version) == (piecewise.key, piecewise.resource_version)
    assert made.type in (kind, "UNDECODABLE")
    assert (made.object is None) == (kind == "BOOKMARK" or made.problem != "")


@given(items=st.lists(JSON, max_size=4))
def test_a_list_loses_nothing(items: list[object]) -> None:
    page, token = decode_page(
        NODES, msgspec.json.encode({"metadata": {"continue": "t"}, "items": items}), "/x"
    )
    assert isinstance(page, Listing)
    assert len(page.items) + len(page.undecodable) == len(items)
    assert token == "t"


@given(body=st.binary(max_size=40) | JSON.map(msgspec.json.encode), status=st.integers(400, 599))
def test_refusals_are_always_made(body: bytes, status: int) -> None:
    assert isinstance(refused("get", "x", status, body), ApiRefused)


@pytest.mark.parametrize(
    "body",
    [
        b'{"code":504,"message":"Too large resource version: 99, current: 5"}',
        b'{"code":504,"details":{"causes":[{"reason":"ResourceVersionTooLarge"}]}}',
    ],
)
def test_versions_from_the_future_are_gone(body: bytes) -> None:
    assert isinstance(refused("watch", "nodes", 504, body), Gone)


def test_deep_nesting() -> None:
    with pytest.raises(ApiError):
        decode_page(NODES, b'{"items":' + b"[" * 100_000, "/x")
