import msgspec
from controller_objects import NOW, pod, replicaset

from towpath.lab.controllers.actions import Create, Delete, Patch
from towpath.lab.controllers.ownership import claim
from towpath.lab.controllers.replicaset_plan import plan_replicaset, superfluous
from towpath.lab.controllers.resources import PODS, REPLICA_SETS

LABELS = {"app": "web", "pod-template-hash": "rs"}


def test_missing_pods_are_made_from_the_template() -> None:
    plan = plan_replicaset(replicaset("rs", 3), [pod("a", labels=LABELS), pod("x", phase="Failed")], NOW)
    made = [a for a in plan.actions if isinstance(a, Create)]
    assert len(made) == 2
    assert made[0].body["metadata"]["generateName"] == "rs-"
    assert made[0].body["metadata"]["labels"] == LABELS
    assert made[0].body["metadata"]["ownerReferences"][0]["name"] == "rs"


def test_the_least_missed_go_first() -> None:
    pods = [
        pod("old", "n1", ready=True, since=NOW - 1000),
        pod("young", "n1", ready=True, since=NOW - 10),
        pod("sick", "n1"),
        pod("pending", "n2", phase="Pending"),
        pod("unassigned", phase="Pending"),
        pod("alone", "n3", ready=True, since=NOW - 5),
    ]
    assert [p.metadata.name for p in superfluous(pods, 5)] == [
        "unassigned",
        "pending",
        "sick",
        "young",
        "old",
    ]
    assert superfluous(pods, 0) == []


def test_status_is_written_only_when_it_changed() -> None:
    item = replicaset("rs", 1)
    running = pod("a", "n1", ready=True, labels=LABELS)
    first = plan_replicaset(item, [running], NOW)
    assert [a.body["status"]["fullyLabeledReplicas"] for a in first.actions if isinstance(a, Patch)] == [1]
    done = msgspec.convert(
        {
            **msgspec.to_builtins(item),
            "status": {
                "replicas": 1,
                "fullyLabeledReplicas": 1,
                "readyReplicas": 1,
                "availableReplicas": 1,
                "observedGeneration": 1,
            },
        },
        type(item),
    )
    assert plan_replicaset(done, [running], NOW).actions == ()


def test_min_ready_seconds_delays_availability() -> None:
    base = msgspec.to_builtins(replicaset("rs", 1))
    base["spec"]["minReadySeconds"] = 30
    item = msgspec.convert(base, type(replicaset("rs", 1)))
    plan = plan_replicaset(item, [pod("a", "n1", ready=True, since=NOW - 10, labels=LABELS)], NOW)
    assert plan.recheck == 20
    (write,) = plan.actions
    assert isinstance(write, Patch)
    assert write.body["status"]["availableReplicas"] is None


def test_a_set_that_goes_neither_makes_nor_deletes() -> None:
    going = replicaset("rs", 5, deletionTimestamp="2026-11-23T08:00:00Z")
    assert not [a for a in plan_replicaset(going, [], NOW).actions if isinstance(a, Create | Delete)]


def test_orphans_are_adopted_and_strangers_released() -> None:
    item = replicaset("rs", 2)
    orphan, theirs = pod("o", labels=LABELS), pod("t", labels=LABELS, owner=("ReplicaSet", "other"))
    stray, mine = (
        pod("s", labels={"app": "else"}, owner=("ReplicaSet", "rs")),
        pod("m", labels=LABELS, owner=("ReplicaSet", "rs")),
    )
    kept, patches = claim(
        REPLICA_SETS, item.metadata, item.spec.selector, PODS, [orphan, theirs, stray, mine]
    )
    assert kept == [mine]
    written = {p.name: p.body["metadata"]["ownerReferences"] for p in patches}
    assert [r["uid"] for r in written["o"]] == ["rs"]
    assert written["s"] == []
    assert set(written) == {"o", "s"}
