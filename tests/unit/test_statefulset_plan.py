"""A StatefulSet's steps, and whole rollouts against pods that follow at once."""

from typing import Any

import msgspec
import pytest
from controller_objects import NOW, meta, pod, template

from towpath.lab.controllers.actions import Create, Delete
from towpath.lab.controllers.objects_apps import StatefulSet
from towpath.lab.controllers.objects_core import Pod
from towpath.lab.controllers.statefulset_plan import plan_status, step


def statefulset(replicas: int, **more: Any) -> StatefulSet:
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "serviceName": "web"}
    body = {"metadata": meta("db"), "spec": {**spec, "template": template(), **more}}
    return msgspec.convert(body, StatefulSet)


class Pods:
    """Pods by name that start or end when ``follow`` is called."""

    def __init__(self) -> None:
        self.alive: dict[str, Pod] = {}
        self.log: list[str] = []

    def run(self, item: StatefulSet, current: str, update: str, rounds: int = 30) -> None:
        for _ in range(rounds):
            actions = step(
                item, (current, template(current)), (update, template(update)), list(self.alive.values()), NOW
            )
            if not actions:
                return
            for action in actions:
                if isinstance(action, Create):
                    name, labels = action.body["metadata"]["name"], action.body["metadata"]["labels"]
                    self.alive[name] = pod(name, "n", ready=True, labels=labels, owner=("StatefulSet", "db"))
                    self.log.append(f"+{name} {labels['controller-revision-hash']}")
                elif isinstance(action, Delete):
                    del self.alive[action.name]
                    self.log.append(f"-{action.name}")
        raise AssertionError(self.log)


def test_starts_in_order_and_ends_in_reverse() -> None:
    pods = Pods()
    pods.run(statefulset(3), "r1", "r1")
    assert pods.log == ["+db-0 r1", "+db-1 r1", "+db-2 r1"]
    pods.log.clear()
    pods.run(statefulset(1), "r1", "r1")
    assert pods.log == ["-db-2", "-db-1"]


def test_waits_for_the_one_before() -> None:
    first = pod("db-0", "n", labels={"controller-revision-hash": "r1"})
    assert step(statefulset(2), ("r1", {}), ("r1", {}), [first], NOW) == []
    parallel = statefulset(3, podManagementPolicy="Parallel")
    made = step(parallel, ("r1", template()), ("r1", template()), [first], NOW)
    assert [a.body["metadata"]["name"] for a in made if isinstance(a, Create)] == ["db-1", "db-2"]


def test_updates_from_the_top_down_to_the_partition() -> None:
    pods = Pods()
    pods.run(statefulset(3), "r1", "r1")
    pods.log.clear()
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}
    pods.run(statefulset(3, updateStrategy=rolling), "r1", "r2")
    assert pods.log == ["-db-2", "+db-2 r2", "-db-1", "+db-1 r2"]
    del pods.alive["db-0"]
    pods.log.clear()
    pods.run(statefulset(3, updateStrategy=rolling), "r1", "r2")
    assert pods.log == ["+db-0 r1"]
    pods.log.clear()
    pods.run(statefulset(3, updateStrategy={"type": "OnDelete"}), "r1", "r3")
    assert pods.log == []


def test_pods_have_names_hosts_and_stand_ins_for_claims() -> None:
    item = statefulset(1, volumeClaimTemplates=[{"metadata": {"name": "data"}}])
    (made,) = step(item, ("db-1", template()), ("db-1", template()), [], NOW)
    assert isinstance(made, Create)
    spec, labels = made.body["spec"], made.body["metadata"]["labels"]
    assert (spec["hostname"], spec["subdomain"]) == ("db-0", "web")
    assert spec["volumes"] == [{"name": "data", "emptyDir": {}}]
    assert labels["statefulset.kubernetes.io/pod-name"] == "db-0"


@pytest.mark.parametrize("done", [True, False])
def test_status_moves_the_current_revision_when_all_are_updated(done: bool) -> None:
    pods = [
        pod(f"db-{i}", "n", ready=True, labels={"controller-revision-hash": "r2" if i or done else "r1"})
        for i in range(2)
    ]
    (write,) = plan_status(statefulset(2), "r1", "r2", pods, NOW)
    assert write.body["status"]["currentRevision"] == ("r2" if done else "r1")
    assert write.body["status"]["updatedReplicas"] == (2 if done else 1)
