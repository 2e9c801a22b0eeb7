"""JSON patch against the examples of RFC 6902 appendix A, and properties."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath.lab.apiserver.patch.jsonpatch import PatchRefused, json_patch

EXAMPLES: list[tuple[str, Any, Any, Any]] = [
    ("A.1", {"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux"}], {"baz": "qux", "foo": "bar"}),
    (
        "A.2",
        {"foo": ["bar", "baz"]},
        [{"op": "add", "path": "/foo/1", "value": "qux"}],
        {"foo": ["bar", "qux", "baz"]},
    ),
    ("A.3", {"baz": "qux", "foo": "bar"}, [{"op": "remove", "path": "/baz"}], {"foo": "bar"}),
    ("A.4", {"foo": ["bar", "qux", "baz"]}, [{"op": "remove", "path": "/foo/1"}], {"foo": ["bar", "baz"]}),
    (
        "A.5",
        {"baz": "qux", "foo": "bar"},
        [{"op": "replace", "path": "/baz", "value": "boo"}],
        {"baz": "boo", "foo": "bar"},
    ),
    (
        "A.6",
        {"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}},
        [{"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}],
        {"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}},
    ),
    (
        "A.7",
        {"foo": ["all", "grass", "cows", "eat"]},
        [{"op": "move", "from": "/foo/1", "path": "/foo/3"}],
        {"foo": ["all", "cows", "eat", "grass"]},
    ),
    (
        "A.8",
        {"baz": "qux", "foo": ["a", 2, "c"]},
        [{"op": "test", "path": "/baz", "value": "qux"}, {"op": "test", "path": "/foo/1", "value": 2}],
        {"baz": "qux", "foo": ["a", 2, "c"]},
    ),
    ("A.9", {"baz": "qux"}, [{"op": "test", "path": "/baz", "value": "bar"}], PatchRefused),
    (
        "A.10",
        {"foo": "bar"},
        [{"op": "add", "path": "/child", "value": {"grandchild": {}}}],
        {"foo": "bar", "child": {"grandchild": {}}},
    ),
    (
        "A.11",
        {"foo": "bar"},
        [{"op": "add", "path": "/baz", "value": "qux", "xyz": 123}],
        {"foo": "bar", "baz": "qux"},
    ),
    ("A.12", {"foo": "bar"}, [{"op": "add", "path": "/baz/bat", "value": "qux"}], PatchRefused),
    ("A.14", {"/": 9, "~1": 10}, [{"op": "test", "path": "/~01", "value": 10}], {"/": 9, "~1": 10}),
    ("A.15", {"/": 9, "~1": 10}, [{"op": "test", "path": "/~01", "value": "10"}], PatchRefused),
    (
        "A.16",
        {"foo": ["bar"]},
        [{"op": "add", "path": "/foo/-", "value": ["abc", "def"]}],
        {"foo": ["bar", ["abc", "def"]]},
    ),
    ("copy", {"a": {"b": 1}}, [{"op": "copy", "from": "/a", "path": "/c"}], {"a": {"b": 1}, "c": {"b": 1}}),
    ("root", {"a": 1}, [{"op": "replace", "path": "", "value": {"b": 2}}], {"b": 2}),
    ("leading zero", {"a": [1]}, [{"op": "replace", "path": "/a/00", "value": 2}], PatchRefused),
    ("past the end", {"a": [1]}, [{"op": "add", "path": "/a/2", "value": 2}], PatchRefused),
    ("into itself", {"a": {}}, [{"op": "move", "from": "/a", "path": "/a/b"}], PatchRefused),
    ("not a bool", {"a": 1}, [{"op": "test", "path": "/a", "value": True}], PatchRefused),
    ("no value", {"a": 1}, [{"op": "add", "path": "/b"}], PatchRefused),
    ("unknown", {"a": 1}, [{"op": "spin", "path": "/a"}], PatchRefused),
    ("no list", {"a": 1}, {"op": "add", "path": "/a", "value": 1}, PatchRefused),
    ("relative", {"a": 1}, [{"op": "remove", "path": "a"}], PatchRefused),
]


@pytest.mark.parametrize(("name", "document", "operations", "want"), EXAMPLES, ids=[e[0] for e in EXAMPLES])
def test_examples(name: str, document: Any, operations: Any, want: Any) -> None:
    if want is PatchRefused:
        with pytest.raises(PatchRefused):
            json_patch(copy.deepcopy(document), operations)
    else:
        assert json_patch(copy.deepcopy(document), operations) == want


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab/~", max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("ab/~", max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)
OPERATION = st.fixed_dictionaries(
    {"op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test"]),
     "path": st.text("/ab~01-", max_size=5), "from": st.text("/ab~01-", max_size=5), "value": JSON}
)  # fmt: skip


@given(JSON, st.lists(OPERATION, max_size=4))
def test_anything_is_patched_or_refused(document: Any, operations: list[dict[str, Any]]) -> None:
    try:
        json_patch(copy.deepcopy(document), operations)
    except PatchRefused as e:
        assert str(e)


@given(
    st.dictionaries(st.text("ab/~", min_size=1, max_size=3), JSON),
    st.text("cd/~", min_size=1, max_size=3),
    JSON,
)
def test_add_then_remove_is_nothing(document: dict[str, Any], key: str, value: Any) -> None:
    document.pop(key, None)
    path = "/" + key.replace("~", "~0").replace("/", "~1")
    operations = [{"op": "add", "path": path, "value": value}, {"op": "test", "path": path, "value": value},
                  {"op": "remove", "path": path}]  # fmt: skip
    assert json_patch(copy.deepcopy(document), operations) == document
