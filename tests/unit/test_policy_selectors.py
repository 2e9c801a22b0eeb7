"""Calico's selector language: what it means, what it refuses, that what is written reads back the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath.policy.selector import (
    NOTHING,
    All,
    And,
    Has,
    In,
    Not,
    Or,
    Selector,
    Text,
    conjunction,
    disjunction,
    equal,
    keys_of,
    one_of,
)
from towpath.policy.selector_parse import (
    MAX_DEPTH,
    MAX_KEY,
    SelectorError,
    parse_namespace_selector,
    parse_selector,
    parse_service_account_selector,
)

A, B, C = equal("a", "1"), equal("b", "1"), equal("c", "1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", All()),
        (" \t ", All()),
        ("all()", All()),
        (" all( ) ", All()),
        ("((all()))", All()),
        ("has(a)", Has("a")),
        ("has(\ta )", Has("a")),
        ("a == '1'", A),
        ('a=="1"', A),
        ("a != '1'", Not(A)),
        ("a in {'2', \"1\", '2'}", In("a", ("1", "2"))),
        ("a in {'1',}", A),
        ("a in{}", In("a", ())),
        ("a not in { '1' , '2' }", Not(In("a", ("1", "2")))),
        ("a notin {'1'}", Not(A)),
        ("a not\tin {}", Not(In("a", ()))),
        ("a contains 'x'", Text("a", "contains", "x")),
        ("a starts with 'x'", Text("a", "starts with", "x")),
        ("a startswith'x'", Text("a", "starts with", "x")),
        ("a ends \t with ''", Text("a", "ends with", "")),
        ("a endswith 'x'", Text("a", "ends with", "x")),
        ('a == "it\'s"', equal("a", "it's")),
        ("a == 'say \"x\" && (y'", equal("a", 'say "x" && (y')),
        ("a == 'b\\n'", equal("a", "b\\n")),
        ("projectcalico.org/a_b-C.9 == '1'", equal("projectcalico.org/a_b-C.9", "1")),
        ("has == '1' && all != '1'", And((equal("has", "1"), Not(equal("all", "1"))))),
        ("not not in {'in'}", Not(equal("not", "in"))),
        ("contains contains 'contains'", Text("contains", "contains", "contains")),
        # Precedence: || below && below !, which takes one operation only.
        ("a=='1' || b=='1' && c=='1'", Or((A, And((B, C))))),
        ("a=='1' && b=='1' || c=='1'", Or((And((A, B)), C))),
        ("(a=='1' || b=='1') && c=='1'", And((Or((A, B)), C))),
        ("!a=='1' && b=='1'", And((Not(A), B))),
        ("!(a=='1' && b=='1')", Not(And((A, B)))),
        ("! ! !has(a)", Not(Has("a"))),
        ("!!has(a)", Has("a")),
        ("!a != '1'", A),
        ("!all()", Not(All())),
    ],
)
def test_what_selectors_mean(text: str, expected: Selector) -> None:
    assert parse_selector(text) == expected


@pytest.mark.parametrize(
    ("text", "labels", "selected"),
    [
        ("a != '1'", {}, True),
        ("a not in {'1'}", {}, True),
        ("!a in {'1'}", {"a": "1"}, False),
        ("a in {}", {"a": ""}, False),
        ("a not in {}", {}, True),
        ("a == ''", {}, False),
        ("a contains ''", {}, False),
        ("a contains ''", {"a": ""}, True),
        ("a starts with 'ab'", {"a": "abc"}, True),
        ("a starts with 'ab'", {"a": "cab"}, False),
        ("a ends with 'ab'", {"a": "cab"}, True),
        ("a contains 'AB'", {"a": "cabd"}, False),
        ("!(!has(a) || has(b))", {"a": "1"}, True),
    ],
)
def test_whom_selectors_select(text: str, labels: dict[str, str], selected: bool) -> None:
    assert parse_selector(text).matches(labels) is selected


@pytest.mark.parametrize(
    ("text", "position", "says"),
    [
        ("b == b", 5, "in quotes"),
        ("'b1' == b", 0, "a condition is expected"),
        ("b", 1, "the selector ends where an operator is expected after b"),
        ("a b", 2, "there is b"),
        ("a not", 5, "the selector ends"),
        ("a not out {}", 6, "an operator is expected after a"),
        ("a notinx {}", 2, "an operator is expected after a"),
        ("a 'b'", 2, "an operator is expected after a"),
        ("a ! = 'b'", 2, "an operator is expected after a"),
        ("!", 1, "the selector ends"),
        ("a = 'b'", 2, "must be doubled: =="),
        ("a == 'b' & has(c)", 9, "must be doubled: &&"),
        ("a == 'b' |", 9, "must be doubled: ||"),
        ("a == 'b' &&", 11, "the selector ends"),
        ("a == 'b' has(c)", 9, "&& or || or the end"),
        ("a in 'b'", 5, "a set of values"),
        ("a in {'b' 'c'}", 10, "} to end the set"),
        ("a in {,}", 6, "} to end the set"),
        ("a in {'b'", 9, "the selector ends"),
        ("a == 'b", 5, "the quote ' is not closed"),
        ("a == \"b'", 5, 'the quote " is not closed'),
        ("(a == 'b'", 9, "for the ( at character 1"),
        ("a == 'b')", 8, "the end is expected"),
        ("()", 1, "a condition is expected"),
        ("has (a)", 4, "an operator is expected after has"),
        ("has()", 4, "the name of a label"),
        ("has('a')", 4, "the name of a label"),
        ("has(a", 5, "the selector ends"),
        ("all(a)", 4, "to end all("),
        ("global()", 0, "namespaceSelector of a rule only"),
        ("a == 'b'\n", 8, "one line"),
        ("a == \u201cb\u201d", 5, "no meaning"),
        ("a == 'b' # c", 9, "no meaning"),
        ("é == 'b'", 0, "no meaning"),
        (f"has({'x' * (MAX_KEY + 1)})", 4, "512 characters"),
        (f"x || {'x' * 10_000} y", 2, "an operator is expected after x"),
    ],
)
def test_what_is_refused_and_where(text: str, position: int, says: str) -> None:
    with pytest.raises(SelectorError) as refused:
        parse_selector(text)
    assert refused.value.position == position
    assert says in str(refused.value)
    assert f"(at character {position + 1})" in str(refused.value)
    assert len(str(refused.value)) < 200


def test_the_longest_key_and_the_deepest_nesting() -> None:
    key = "x" * MAX_KEY
    assert parse_selector(f"has({key})") == Has(key)
    deepest = "!(b == '1' && a == '1' || " * MAX_DEPTH + "has(c)" + ")" * MAX_DEPTH
    selector = parse_selector(deepest)
    assert parse_selector(str(selector)) == selector
    assert keys_of(selector) == {"a", "b", "c"}
    assert selector.matches({}) is not selector.matches({"c": ""})
    with pytest.raises(SelectorError, match="nest 50 deep"):
        parse_selector(f"({deepest})")


@pytest.mark.parametrize(
    "text", ["(" * 200_000, "!" * 200_001, "has(a)&&" * 100_000, "a in {" + "'b'," * 200_000]
)
def test_size_does_not_overflow_anything(text: str) -> None:
    with pytest.raises(SelectorError):
        parse_selector(text)


def test_siblings_do_not_count_as_nesting() -> None:
    selector = parse_selector(" && ".join(f"(a != '{n}' || has(b))" for n in range(500)))
    assert isinstance(selector, And)
    assert len(selector.operands) == 500


def test_namespace_selectors_ask_for_inherited_labels() -> None:
    text = "env == 'x' && kubernetes.io/metadata.name != 'y'"
    assert parse_namespace_selector(text) == And(
        (equal("pcns.env", "x"), Not(equal("pcns.kubernetes.io/metadata.name", "y")))
    )
    outside = {"role": "host"}
    inside = {"projectcalico.org/namespace": "n", "pcns.projectcalico.org/name": "n"}
    everyone = parse_namespace_selector("all()")
    assert everyone.matches(inside)
    assert not everyone.matches(outside)
    only_global = parse_namespace_selector("global()", allow_global=True)
    assert only_global.matches(outside)
    assert not only_global.matches(inside)
    assert parse_namespace_selector("!global()", allow_global=True) == everyone
    assert parse_namespace_selector("env != 'x'").matches(outside)
    with pytest.raises(SelectorError, match="of a rule only"):
        parse_namespace_selector("global()")


def test_service_account_selectors_ask_for_inherited_labels() -> None:
    assert parse_service_account_selector("has(role)") == Has("pcsa.role")
    everything = Has("projectcalico.org/serviceaccount")
    assert parse_service_account_selector("all()", everything=everything) == everything
    assert parse_service_account_selector("") == All()


KEYS = st.sampled_from(["a", "b", "has", "in", "not", "pcns.x/y-z_1", "0"])
VALUES = st.text(max_size=6).map(lambda text: text.replace('"', "'")) | st.sampled_from(
    ["x", "xy", '"', "y z"]
)
LEAVES: st.SearchStrategy[Selector] = st.one_of(
    st.just(All()),
    st.builds(Has, KEYS),
    st.builds(one_of, KEYS, st.lists(VALUES, max_size=3)),
    st.builds(Text, KEYS, st.sampled_from(["contains", "starts with", "ends with"]), VALUES),
)


def _compound(inner: st.SearchStrategy[Selector]) -> st.SearchStrategy[Selector]:
    several = st.lists(inner, max_size=3).map(tuple)
    return st.one_of(st.builds(Not, inner), st.builds(And, several), st.builds(Or, several))


SELECTORS = st.recursive(LEAVES, _compound, max_leaves=12)
LABELS = st.dictionaries(KEYS, VALUES, max_size=5)


@given(SELECTORS, st.lists(LABELS, min_size=1, max_size=8))
def test_a_written_selector_reads_back_as_what_it_was(selector: Selector, some: list[dict[str, str]]) -> None:
    read = parse_selector(str(selector))
    assert [read.matches(labels) for labels in some] == [selector.matches(labels) for labels in some]
    assert parse_selector(str(read)) == read


@given(st.lists(SELECTORS, max_size=4), LABELS)
def test_conjunction_and_disjunction(selectors: list[Selector], labels: dict[str, str]) -> None:
    answers = [selector.matches(labels) for selector in selectors]
    assert conjunction(*selectors).matches(labels) is all(answers)
    assert disjunction(*selectors).matches(labels) is any(answers)


def test_nothing_selects_nothing_also_when_written() -> None:
    assert not NOTHING.matches({})
    assert not parse_selector(str(NOTHING)).matches({"a": "1"})


WORDS = (
    *("a", "'b'", '"', "'", "(", ")", "{", "}", ",", "!", "=", "==", "!=", "&&", "||", "&"),
    *("in", "not", "notin", "contains", "starts", "with", "has(", "has", "all()", "all(", "global()"),
    *(" ", "\t", "\n", "é"),
)


@given(st.lists(st.sampled_from(WORDS), max_size=14).map("".join) | st.text(max_size=40))
def test_any_text_is_a_selector_or_refused_with_a_place_in_it(text: str) -> None:
    for parse in (parse_selector, parse_namespace_selector, parse_service_account_selector):
        try:
            selector = parse(text)
        except SelectorError as error:
            assert 0 <= error.position <= len(text)
        else:
            assert parse_selector(str(selector)) == selector
