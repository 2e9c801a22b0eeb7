"""Label and field selectors in their text form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath.lab.apiserver.errors import ApiError
from towpath.lab.apiserver.printers.selector_text import selector_text
from towpath.lab.apiserver.selectors import (
    field_selector,
    label_selector,
    matches_selector,
    supported_fields,
)


@pytest.mark.parametrize(
    ("text", "labels", "want"),
    [
        ("a=b", {"a": "b"}, True),
        ("a==b", {"a": "c"}, False),
        ("a!=b", {}, True),
        ("a!=b", {"a": "b"}, False),
        ("a in (b, c)", {"a": "c"}, True),
        ("a notin (b,c)", {"a": "c"}, False),
        ("a notin (b,c)", {}, True),
        ("a", {"a": ""}, True),
        ("!a", {"a": ""}, False),
        ("! a", {}, True),
        ("a=", {"a": ""}, True),
        ("n>3", {"n": "4"}, True),
        ("n<3", {"n": "x"}, False),
        ("a=b,c in (d,e),!f", {"a": "b", "c": "e"}, True),
        ("x.io/a-b=1", {"x.io/a-b": "1"}, True),
    ],
)
def test_label_selectors(text: str, labels: dict[str, str], want: bool) -> None:
    match = label_selector(text)
    assert match is not None
    assert match(labels) is want


@pytest.mark.parametrize("text", ["a in", "a in (", "=b", "a=b,", "a b", "n>x", "(a)"])
def test_bad_label_selectors(text: str) -> None:
    with pytest.raises(ApiError) as e:
        label_selector(text)
    assert e.value.code == 400


def test_field_selectors() -> None:
    fields = supported_fields("Pod", True)
    pod = {"metadata": {"name": "a"}, "spec": {"nodeName": "n"}, "status": {}}
    for text, want in (
        ("spec.nodeName=n", True),
        ("spec.nodeName!=n", False),
        ("metadata.name==a,status.phase!=Failed", True),
        ("status.phase=", True),
        ("spec.hostNetwork=false", True),
    ):
        match = field_selector(text, fields)
        assert match is not None
        assert match(pod) is want, text
    for text in ("spec.bogus=1", "metadata.name"):
        with pytest.raises(ApiError):
            field_selector(text, fields)


KEYS, VALUES = st.sampled_from("abc"), st.sampled_from(["", "x", "y"])
SELECTORS = st.fixed_dictionaries(
    {
        "matchLabels": st.dictionaries(KEYS, VALUES.filter(bool), max_size=2),
        "matchExpressions": st.lists(
            st.fixed_dictionaries(
                {
                    "key": KEYS,
                    "operator": st.sampled_from(["In", "NotIn"]),
                    "values": st.lists(VALUES.filter(bool), min_size=1, max_size=2),
                }
            )
            | st.fixed_dictionaries({"key": KEYS, "operator": st.sampled_from(["Exists", "DoesNotExist"])}),
            max_size=2,
        ),
    }
)


@given(SELECTORS, st.dictionaries(KEYS, VALUES))
def test_text_and_value_form_agree(selector: dict[str, object], labels: dict[str, str]) -> None:
    match = label_selector(selector_text(selector))
    assert (match is None or match(labels)) == matches_selector(selector, labels)
