"""Ownership graph: cascades decided one object at a time, run to their end against a simulated API."""

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from towpath.lab.controllers.actions import Delete, Patch
from towpath.lab.controllers.garbage import FOREGROUND, ORPHAN, Graph, garbage
from towpath.lab.controllers.objects_meta import Meta
from towpath.lab.controllers.resources import PODS


class Api:
    """Objects with owners; deletion as the API server does it."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.graph = Graph()
        self.dirty: set[str] = set()
        self.order: list[str] = []

    def create(self, name: str, *owners: str, namespace: str = "default", block: bool = True) -> None:
        references = [{"kind": "Pod", "name": o, "uid": o, "blockOwnerDeletion": block} for o in owners]
        self.objects[name] = {
            "name": name,
            "uid": name,
            "namespace": namespace,
            "ownerReferences": references,
        }
        self._put(name)

    def delete(self, name: str, propagation: str = "Background") -> None:
        item = self.objects.get(name)
        if item is None:
            return
        finalizer = {"Foreground": FOREGROUND, "Orphan": ORPHAN}.get(propagation)
        if finalizer:
            item["finalizers"] = sorted({*item.get("finalizers", []), finalizer})
        if item.get("finalizers"):
            item["deletionTimestamp"] = "2026-11-23T08:00:00Z"
            self._put(name)
        else:
            self._drop(name)

    def run(self) -> None:
        for _ in range(500):
            if not self.dirty:
                return
            uid = self.dirty.pop()
            for action in garbage(self.graph, uid):
                if isinstance(action, Delete):
                    self.delete(action.name, action.propagation)
                elif isinstance(action, Patch) and action.name in self.objects:
                    self._patch(action)
        raise AssertionError("does not settle")

    def _patch(self, action: Patch) -> None:
        item = self.objects[action.name]
        for key in ("ownerReferences", "finalizers"):
            if key in action.body["metadata"]:
                item[key] = action.body["metadata"][key] or []
        if item.get("deletionTimestamp") and not item.get("finalizers"):
            self._drop(action.name)
        else:
            self._put(action.name)

    def _put(self, name: str) -> None:
        self.dirty |= self.graph.put(PODS, msgspec.convert(self.objects[name], Meta))

    def _drop(self, name: str) -> None:
        item = self.objects.pop(name)
        self.order.append(name)
        self.dirty |= self.graph.drop(msgspec.convert(item, Meta))


def tree() -> Api:
    api = Api()
    api.create("deployment")
    api.create("set", "deployment")
    api.create("pod-a", "set")
    api.create("pod-b", "set")
    api.create("other")
    api.run()
    assert len(api.objects) == 5
    return api


def test_background_takes_everything_below() -> None:
    api = tree()
    api.delete("deployment")
    api.run()
    assert set(api.objects) == {"other"}
    assert api.order[0] == "deployment"


def test_foreground_ends_with_the_owner() -> None:
    api = tree()
    api.delete("deployment", "Foreground")
    assert "deployment" in api.objects
    api.run()
    assert set(api.objects) == {"other"}
    assert api.order[-2:] == ["set", "deployment"]


def test_orphans_stay_without_a_reference() -> None:
    api = tree()
    api.delete("deployment", "Orphan")
    api.run()
    assert set(api.objects) == {"set", "pod-a", "pod-b", "other"}
    assert api.objects["set"]["ownerReferences"] == []


def test_one_of_two_owners_is_enough() -> None:
    api = tree()
    api.create("shared", "set", "other")
    api.delete("deployment")
    api.run()
    assert [r["uid"] for r in api.objects["shared"]["ownerReferences"]] == ["other"]


def test_non_blocking_dependents_do_not_hold_up_a_foreground_deletion() -> None:
    api = Api()
    api.create("owner")
    api.create("free", "owner", block=False)
    api.delete("owner", "Foreground")
    api.run()
    assert api.objects == {}


def test_an_owner_of_another_namespace_is_none() -> None:
    api = Api()
    api.create("owner", namespace="one")
    api.create("child", "owner", namespace="two")
    api.run()
    assert set(api.objects) == {"owner"}


def test_unknown_owners_are_asked_for_first() -> None:
    api = Api()
    api.create("child", "stranger")
    assert [r.uid for r in api.graph.unresolved("child")] == ["stranger"]
    api.graph.forget("stranger")
    assert api.graph.unresolved("child") == []
    api.run()
    assert api.objects == {}


@given(
    st.lists(st.lists(st.integers(0, 11), max_size=2, unique=True), min_size=12, max_size=12),
    st.sampled_from(["Background", "Foreground"]),
)
def test_what_is_left_has_an_owner_left_or_never_had_one(owners: list[list[int]], how: str) -> None:
    api = Api()
    wanted = {f"o{i}": [f"o{j}" for j in row if j < i] for i, row in enumerate(owners)}
    for name, above in wanted.items():
        api.create(name, *above)
    api.delete("o0", how)
    api.run()
    gone: set[str] = {"o0"}
    for name, above in wanted.items():
        if above and set(above) <= gone:
            gone.add(name)
    assert set(api.objects) == set(wanted) - gone
