"""Server-side apply's pure parts: field sets and merging."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath.lab.apiserver.patch.apply import Conflicts, Manager, apply, entries, owned, track
from towpath.lab.apiserver.patch.fieldsets import fields_of, from_fields_v1, readable, to_fields_v1
from towpath.lab.apiserver.schema.nodes import builtin_node, custom_node

NODE = builtin_node("core.Pod")
ONE, TWO = Manager("one", "Apply"), Manager("two", "Apply")
Obj = dict[str, Any]


def pod(*containers: Obj, **labels: str) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "labels": labels},
        "spec": {"containers": list(containers)},
    }


def stored(obj: Obj, owners: dict[Manager, Any]) -> Obj:
    managed = entries(owners, None, "v1", "now")
    return {**obj, "metadata": {**obj["metadata"], "managedFields": managed}}


def test_fields_are_named_by_keys() -> None:
    fields = fields_of(pod({"name": "a", "ports": [{"containerPort": 80}]}, x="y"), NODE)
    shown = sorted(map(readable, fields))
    assert '.spec.containers[name="a"].ports[containerPort=80,protocol="TCP"].containerPort' in shown
    assert ".metadata.labels.x" in shown
    assert not [s for s in shown if s.startswith((".metadata.name", ".kind"))]


@given(
    st.dictionaries(st.sampled_from("abc"), st.sampled_from("xy")),
    st.lists(st.sampled_from("ab"), unique=True),
)
def test_fields_v1_round_trip(labels: dict[str, str], names: list[str]) -> None:
    fields = fields_of(pod(*({"name": n, "image": n} for n in names), **labels), NODE)
    assert from_fields_v1(to_fields_v1(fields)) == fields


def test_what_is_wanted_no_more_goes_unless_others_own_it() -> None:
    first = pod({"name": "a", "image": "1"}, {"name": "b", "image": "1"}, x="1", y="1")
    merged, owners = apply(stored(first, {}), first, NODE, ONE, False)
    merged["spec"]["containers"][1]["imagePullPolicy"] = "Always"  # a default, which nobody owns
    both = {**owners, TWO: fields_of(pod(y="1"), NODE)}
    merged, owners = apply(stored(merged, both), pod({"name": "a", "image": "2"}), NODE, ONE, False)
    assert merged["spec"]["containers"] == [{"name": "a", "image": "2"}]
    assert merged["metadata"]["labels"] == {"y": "1"}
    assert set(owners) == {ONE, TWO}


def test_conflicts_and_force() -> None:
    live = stored(pod({"name": "a", "image": "1"}), {ONE: fields_of(pod({"name": "a", "image": "1"}), NODE)})
    with pytest.raises(Conflicts) as e:
        apply(live, pod({"name": "a", "image": "2"}), NODE, TWO, False)
    assert [(m, readable(p)) for m, p in e.value.found] == [(ONE, '.spec.containers[name="a"].image')]
    merged, owners = apply(live, pod({"name": "a", "image": "2"}), NODE, TWO, True)
    assert merged["spec"]["containers"] == [{"name": "a", "image": "2"}]
    assert '.spec.containers[name="a"].image' not in map(readable, owners[ONE])
    _, owners = apply(live, pod({"name": "a", "image": "1"}), NODE, TWO, False)
    assert '.spec.containers[name="a"].image' in map(readable, owners[ONE] & owners[TWO])


def test_other_writes_take_what_they_change() -> None:
    old = stored(
        pod({"name": "a", "image": "1"}, x="1"),
        {ONE: fields_of(pod({"name": "a", "image": "1"}, x="1"), NODE)},
    )
    new = pod({"name": "a", "image": "2"}, z="1")
    owners = track(new, old, NODE, Manager("edit", "Update"))
    assert sorted(map(readable, owners[Manager("edit", "Update")])) == [
        ".metadata.labels.z",
        '.spec.containers[name="a"].image',
    ]
    assert ".metadata.labels.x" not in map(readable, owners[ONE])


def test_custom_schemas_say_how_lists_merge() -> None:
    item = {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "string"}}}
    properties = {
        "byKey": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["k"],
            "items": item,
        },
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "atomic": {"type": "array", "items": {"type": "string"}},
    }
    node = custom_node({"type": "object", "properties": properties})
    live = {"metadata": {}, "byKey": [{"k": "a", "v": "1"}], "set": ["x"], "atomic": ["x"]}
    wanted = {"metadata": {}, "byKey": [{"k": "b", "v": "2"}], "set": ["y"], "atomic": ["y"]}
    merged, _ = apply(live, wanted, node, ONE, False)
    assert merged["byKey"] == [{"k": "a", "v": "1"}, {"k": "b", "v": "2"}]
    assert merged["set"] == ["x", "y"]
    assert merged["atomic"] == ["y"]


def test_malformed_managed_fields_are_ignored() -> None:
    assert owned("x") == {}
    assert owned([1, {"manager": "m", "fieldsV1": [1]}]) == {Manager("m", "Update"): frozenset()}


LABELS = st.dictionaries(st.sampled_from("abc"), st.sampled_from("xy"))


@given(LABELS, LABELS, LABELS)
def test_the_last_apply_of_one_manager_decides_alone(first: Obj, second: Obj, others: Obj) -> None:
    live = stored(pod(**others), {})
    merged, owners = apply(live, pod(**first), NODE, ONE, True)
    again, _ = apply(stored(merged, owners), pod(**second), NODE, ONE, True)
    untouched = {k: v for k, v in others.items() if k not in first and k not in second}
    assert again["metadata"].get("labels", {}) == {**untouched, **second}
