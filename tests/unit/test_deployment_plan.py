"""A Deployment's plan, and whole rollouts against a simulated ReplicaSet controller."""

from typing import Any

import msgspec
import pytest
from controller_objects import NOW, deployment, replicaset
from hypothesis import given, settings
from hypothesis import strategies as st

from towpath.lab.controllers.actions import Create, Delete, Patch, Plan
from towpath.lab.controllers.deployment_math import bounds
from towpath.lab.controllers.deployment_plan import plan_deployment, split
from towpath.lab.controllers.hashing import template_hash
from towpath.lab.controllers.objects_apps import Deployment, ReplicaSet

REVISION = "deployment.kubernetes.io/revision"


def rolling(surge: int | str, unavailable: int | str) -> dict[str, Any]:
    return {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}


class World:
    """The API and the ReplicaSet controller, as far as a Deployment sees them."""

    def __init__(self, item: Deployment) -> None:
        self.deployment = msgspec.to_builtins(item)
        self.sets: dict[str, dict[str, Any]] = {}
        self.clock = NOW

    @property
    def typed(self) -> Deployment:
        return msgspec.convert(self.deployment, Deployment)

    @property
    def typed_sets(self) -> list[ReplicaSet]:
        return [msgspec.convert(s, ReplicaSet) for s in self.sets.values()]

    def step(self, busy: frozenset[str] = frozenset()) -> Plan:
        self.clock += 1
        plan = plan_deployment(self.typed, self.typed_sets, busy, frozenset(self.sets), self.clock)
        for action in plan.actions:
            if isinstance(action, Create):
                body = msgspec.to_builtins(action.body)
                name = body["metadata"]["name"]
                stamp = f"2026-11-23T08:00:{len(self.sets):02d}Z"
                body["metadata"] |= {"uid": name, "generation": 1, "creationTimestamp": stamp}
                self.sets[name] = {**body, "status": {"observedGeneration": 1}}
            elif isinstance(action, Patch):
                target = self.deployment if action.resource.kind == "Deployment" else self.sets[action.name]
                merge(target, action.body)
            elif isinstance(action, Delete):
                del self.sets[action.name]
        return plan

    def pods_follow(self, ready: bool = True) -> None:
        """Every ReplicaSet gets its pods; with ``ready`` they are available."""
        for item in self.sets.values():
            wanted, status = item["spec"]["replicas"], item["status"]
            status["replicas"] = wanted
            status["readyReplicas"] = wanted if ready else min(wanted, status.get("readyReplicas", 0))
            status["availableReplicas"] = status["readyReplicas"]

    def settle(self, limit: int = 60) -> int:
        """Steps until nothing changes; checks the bounds of a rolling update at each."""
        for count in range(limit):
            plan = self.step()
            self.check()
            self.pods_follow()
            if not plan.actions:
                return count
        raise AssertionError("does not settle")

    def check(self) -> None:
        if self.deployment["spec"]["strategy"]["type"] != "RollingUpdate":
            return
        surge, _ = bounds(self.typed)
        wanted = self.deployment["spec"]["replicas"]
        assert sum(s["spec"]["replicas"] for s in self.sets.values()) <= wanted + surge

    def sizes(self) -> dict[str, int]:
        return {n: s["spec"]["replicas"] for n, s in self.sets.items()}

    def set_image(self, image: str) -> None:
        self.deployment["metadata"]["generation"] += 1
        self.deployment["spec"]["template"]["spec"]["containers"][0]["image"] = image

    def condition(self, type_: str) -> dict[str, Any]:
        return next(c for c in self.deployment["status"]["conditions"] if c["type"] == type_)


def merge(target: dict[str, Any], patch: dict[str, Any]) -> None:
    """JSON merge patch (RFC 7396); numbers removed by null read as 0 afterwards."""
    for key, value in patch.items():
        if isinstance(value, dict):
            if not isinstance(target.get(key), dict):
                target[key] = {}
            merge(target[key], value)
        elif value is None:
            target.pop(key, None)
        else:
            target[key] = value


def test_first_rollout_names_counts_and_conditions() -> None:
    world = World(deployment(3))
    world.step()
    digest = template_hash(world.typed.spec.template, 0)
    (made,) = world.sets.values()
    assert made["metadata"]["name"] == f"web-{digest}"
    assert made["spec"]["replicas"] == 3
    assert made["spec"]["selector"]["matchLabels"] == {"app": "web", "pod-template-hash": digest}
    assert made["spec"]["template"]["metadata"]["labels"]["pod-template-hash"] == digest
    assert made["metadata"]["annotations"] == {
        REVISION: "1",
        "deployment.kubernetes.io/desired-replicas": "3",
        "deployment.kubernetes.io/max-replicas": "4",
    }
    assert world.condition("Progressing")["reason"] == "NewReplicaSetCreated"
    world.pods_follow()
    world.settle()
    status = world.typed.status
    assert (status.replicas, status.updated_replicas, status.available_replicas) == (3, 3, 3)
    assert world.condition("Progressing")["reason"] == "NewReplicaSetAvailable"
    assert world.condition("Available")["status"] == "True"
    assert world.deployment["metadata"]["annotations"][REVISION] == "1"
    assert world.step().actions == ()


def test_rolling_update_then_undo_renumbers_the_old_set() -> None:
    world = World(deployment(4))
    world.settle()
    (first,) = world.sets
    world.set_image("web:2")
    world.settle()
    second = next(n for n in world.sets if n != first)
    assert world.sizes() == {first: 0, second: 4}
    world.set_image("web:1")
    world.settle()
    assert world.sizes() == {first: 4, second: 0}
    notes = world.sets[first]["metadata"]["annotations"]
    assert (notes[REVISION], notes["deployment.kubernetes.io/revision-history"]) == ("3", "1")
    assert world.deployment["metadata"]["annotations"][REVISION] == "3"


@given(
    replicas=st.integers(1, 20),
    surge=st.one_of(st.integers(0, 5), st.sampled_from(["0%", "25%", "100%"])),
    unavailable=st.one_of(st.integers(0, 5), st.sampled_from(["0%", "25%", "100%"])),
    resize=st.integers(0, 20),
)
@settings(max_examples=60, deadline=None)
def test_rollouts_settle_within_their_bounds(
    replicas: int, surge: int | str, unavailable: int | str, resize: int
) -> None:
    """Interrupted after two steps by a scaling, each rollout still ends at the wanted number."""
    world = World(deployment(replicas, strategy=rolling(surge, unavailable)))
    world.settle()
    world.set_image("web:2")
    for _ in range(2):
        world.step()
        world.pods_follow()
    world.deployment["spec"]["replicas"] = resize
    world.deployment["metadata"]["generation"] += 1
    world.settle(120)
    new, old = split(world.typed, world.typed_sets)
    assert new is not None
    assert (new.replicas, sum(s.replicas for s in old)) == (resize, 0)


def test_availability_is_kept_while_new_pods_are_not_ready() -> None:
    world = World(deployment(4, strategy=rolling(1, 1)))
    world.settle()
    (first,) = world.sets
    world.set_image("web:2")
    for _ in range(6):
        world.step()
        world.pods_follow(ready=False)
    second = next(n for n in world.sets if n != first)
    assert world.sizes() == {first: 3, second: 2}


def test_recreate_waits_for_the_last_old_pod() -> None:
    world = World(deployment(2, strategy={"type": "Recreate"}))
    world.settle()
    (first,) = world.sets
    world.set_image("web:2")
    world.step(busy=frozenset({first}))
    world.pods_follow()
    world.step(busy=frozenset({first}))
    assert world.sizes() == {first: 0}
    world.step()
    assert sorted(world.sizes().values()) == [0, 2]


def test_paused_scales_but_does_not_roll() -> None:
    world = World(deployment(2))
    world.settle()
    world.deployment["spec"]["paused"] = True
    world.set_image("web:2")
    world.deployment["spec"]["replicas"] = 5
    world.step()
    assert list(world.sizes().values()) == [5]
    world.pods_follow()
    world.step()
    assert world.condition("Progressing")["reason"] == "DeploymentPaused"
    world.deployment["spec"]["paused"] = False
    world.settle()
    assert sorted(world.sizes().values()) == [0, 5]


def test_history_is_cut_to_its_limit() -> None:
    world = World(deployment(1, revisionHistoryLimit=2))
    world.settle()
    for number in range(2, 7):
        world.set_image(f"web:{number}")
        world.settle()
    numbers = sorted(int(s["metadata"]["annotations"][REVISION]) for s in world.sets.values())
    assert numbers == [4, 5, 6]


def test_deadline_turns_progressing_false() -> None:
    world = World(deployment(2, progressDeadlineSeconds=10))
    world.step()
    for _ in range(3):
        world.pods_follow(ready=False)
        plan = world.step()
    assert plan.recheck is not None
    assert plan.recheck <= 12
    world.clock += 30
    world.step()
    late = world.condition("Progressing")
    assert (late["status"], late["reason"]) == ("False", "ProgressDeadlineExceeded")


def test_name_taken_by_a_stranger_is_avoided() -> None:
    item = deployment(1)
    taken = f"web-{template_hash(item.spec.template, 0)}"
    plan = plan_deployment(item, [], frozenset(), frozenset({taken}), NOW)
    assert next(a.body for a in plan.actions if isinstance(a, Patch)) == {"status": {"collisionCount": 1}}
    assert not [a for a in plan.actions if isinstance(a, Create)]


@pytest.mark.parametrize("count", [1, 3])
def test_a_deployment_that_goes_only_reports(count: int) -> None:
    going = deployment(count, metadata={"deletionTimestamp": "2026-11-23T08:00:00Z"})
    plan = plan_deployment(going, [replicaset("web-a", 0)], frozenset(), frozenset({"web-a"}), NOW)
    assert all(isinstance(a, Patch) and a.subresource == "status" for a in plan.actions)
