"""JSON merge patch against RFC 7386 appendix A; strategic merge patch as strategicpatch's documentation."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath.lab.apiserver.patch.merge import merge_patch
from towpath.lab.apiserver.patch.strategic import PatchRefused, strategic_merge

RFC7386: list[tuple[Any, Any, Any]] = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("target", "patch", "want"), RFC7386)
def test_rfc_7386(target: Any, patch: Any, want: Any) -> None:
    before = copy.deepcopy(target)
    assert merge_patch(target, patch) == want
    assert target == before


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab", max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(JSON, JSON)
def test_a_merge_is_idempotent(target: Any, patch: Any) -> None:
    once = merge_patch(target, patch)
    assert merge_patch(once, patch) == once


def containers(*items: dict[str, Any]) -> dict[str, Any]:
    return {"containers": list(items)}


POD: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    (
        "merge by name",
        containers({"name": "a", "image": "1"}, {"name": "b", "image": "2"}),
        containers({"name": "b", "image": "3"}, {"name": "c", "image": "4"}),
        containers({"name": "a", "image": "1"}, {"name": "b", "image": "3"}, {"name": "c", "image": "4"}),
    ),
    (
        "what is new comes before what only the server has, as upstream's own server puts it",
        containers({"name": "d"}, {"name": "a"}),
        {
            "$setElementOrder/containers": [{"name": "b"}, {"name": "a"}],
            **containers({"name": "b", "image": "x"}),
        },
        containers({"name": "b", "image": "x"}, {"name": "d"}, {"name": "a"}),
    ),
    (
        "a replacement takes what has no directive",
        containers({"name": "a"}),
        containers({"name": "b"}, {"$patch": "replace"}, {"name": "c", "$patch": "delete"}),
        containers({"name": "b"}),
    ),
    (
        "delete an element",
        containers({"name": "a"}, {"name": "b"}),
        containers({"name": "a", "$patch": "delete"}),
        containers({"name": "b"}),
    ),
    (
        "replace the list",
        containers({"name": "a"}, {"name": "b"}),
        containers({"$patch": "replace"}, {"name": "z"}),
        containers({"name": "z"}),
    ),
    (
        "order",
        containers({"name": "a"}, {"name": "b"}, {"name": "c"}),
        {"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}, {"name": "b"}]},
        containers({"name": "c"}, {"name": "a"}, {"name": "b"}),
    ),
    (
        "order with what only the server has",
        containers({"name": "a"}, {"name": "server"}, {"name": "b"}),
        {
            "$setElementOrder/containers": [{"name": "b"}, {"name": "a"}],
            **containers({"name": "b", "image": "x"}),
        },
        containers({"name": "server"}, {"name": "b", "image": "x"}, {"name": "a"}),
    ),
    (
        "atomic lists are replaced",
        {"containers": [{"name": "a", "command": ["x", "y"]}]},
        {"containers": [{"name": "a", "command": ["z"]}]},
        {"containers": [{"name": "a", "command": ["z"]}]},
    ),
    (
        "retain keys of a volume",
        {"volumes": [{"name": "v", "emptyDir": {}}]},
        {"volumes": [{"$retainKeys": ["name", "hostPath"], "name": "v", "hostPath": {"path": "/x"}}]},
        {"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]},
    ),
    ("null deletes", {"nodeName": "n", "hostNetwork": True}, {"nodeName": None}, {"hostNetwork": True}),
    (
        "maps merge",
        {"nodeSelector": {"a": "1", "b": "2"}},
        {"nodeSelector": {"b": None, "c": "3"}},
        {"nodeSelector": {"a": "1", "c": "3"}},
    ),
    (
        "a map is replaced where the patch says so",
        {"nodeSelector": {"a": "1"}},
        {"nodeSelector": {"$patch": "replace", "c": "3"}},
        {"nodeSelector": {"c": "3"}},
    ),
    (
        "directives of new elements are not stored",
        {},
        {"volumes": [{"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": None}}]},
        {"volumes": [{"name": "v", "emptyDir": {"medium": "Memory"}}]},
    ),
]


@pytest.mark.parametrize(("name", "original", "patch", "want"), POD, ids=[p[0] for p in POD])
def test_pod_specs(name: str, original: dict[str, Any], patch: dict[str, Any], want: dict[str, Any]) -> None:
    before = copy.deepcopy(original)
    assert strategic_merge(original, patch, "core.PodSpec") == want
    assert original == before


def test_sets_of_scalars() -> None:
    meta = {"finalizers": ["a", "b"]}
    assert strategic_merge(meta, {"finalizers": ["c"]}, "meta.ObjectMeta") == {"finalizers": ["c", "a", "b"]}
    gone = {"$deleteFromPrimitiveList/finalizers": ["a"]}
    assert strategic_merge(meta, gone, "meta.ObjectMeta") == {"finalizers": ["b"]}


def test_conditions_and_addresses_of_nodes_merge_by_type() -> None:
    old = {
        "conditions": [{"type": "Ready", "status": "True"}],
        "addresses": [{"type": "InternalIP", "address": "1"}],
    }
    patch = {"conditions": [{"type": "NetworkUnavailable", "status": "False"}]}
    merged = strategic_merge(old, patch, "core.NodeStatus")
    assert [c["type"] for c in merged["conditions"]] == ["NetworkUnavailable", "Ready"]


@pytest.mark.parametrize(
    "patch",
    [
        containers({"image": "x"}),
        containers("x"),  # type: ignore[arg-type]
        {"$patch": "explode"},
        {"$retainKeys": "x"},
        {"$retainKeys": ["a"], "nodeName": "x"},
        {"$bogus": 1},
        {"$setElementOrder/containers": 5, "containers": [{"name": "a"}]},
        {"$setElementOrder/containers": [{"name": "b"}], **containers({"name": "a"})},
        {
            "$setElementOrder/containers": [{"name": "b"}, {"name": "a"}],
            **containers({"name": "a"}, {"name": "b"}),
        },
    ],
)
def test_refused(patch: dict[str, Any]) -> None:
    with pytest.raises(PatchRefused):
        strategic_merge(containers({"name": "a"}), patch, "core.PodSpec")


NAMES = st.lists(st.sampled_from("abcdef"), unique=True, max_size=6)


@given(NAMES, NAMES)
def test_setting_an_order_keeps_every_element(have: list[str], order: list[str]) -> None:
    original = containers(*({"name": n} for n in have))
    patch = {"$setElementOrder/containers": [{"name": n} for n in order]}
    merged = [c["name"] for c in strategic_merge(original, patch, "core.PodSpec")["containers"]]
    assert sorted(merged) == sorted(have)
    named = [n for n in merged if n in order]
    assert named == [n for n in order if n in have]
    assert [n for n in merged if n not in order] == [n for n in have if n not in order]
