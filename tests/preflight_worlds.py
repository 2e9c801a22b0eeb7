"""A cluster with Canal in which all is well, for preflight's checks; and what is not well of it, at will."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from msgspec.structs import replace

import node_reports as reports
from towpath.catalogue import load
from towpath.catalogue.compare import compare
from towpath.inventory.cluster import (
    EtcdSnapshot,
    HelmChart,
    HelmJob,
    HelmRelease,
    Inventory,
    NodeState,
    node_state,
)
from towpath.inventory.components import components, node_facts
from towpath.inventory.rights import Rule
from towpath.lab import canal
from towpath.preflight.checks import PREFLIGHT
from towpath.preflight.situation import Answer, Situation, run

KNOWN = load.builtin()
FROM, TO = "v1.32.5+rke2r1", "v1.32.6+rke2r1"
NOW = datetime(2026, 11, 27, 9, tzinfo=UTC)


def node(number: int, release: str = FROM) -> NodeState:
    of = KNOWN.release(TO)
    raw = {
        "metadata": {
            "name": f"n{number}",
            "labels": {"node-role.kubernetes.io/control-plane": "true"} if number == 1 else {},
            "annotations": {
                "flannel.alpha.coreos.com/kube-subnet-manager": "true",
                "flannel.alpha.coreos.com/public-ip": f"192.0.2.{number}",
                "flannel.alpha.coreos.com/backend-data": f'{{"VNI":1,"VtepMAC":"02:00:00:00:00:0{number}"}}',
            },
        },
        "spec": {"podCIDRs": [f"10.42.{number}.0/24"]},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "nodeInfo": {"kubeletVersion": release},
            "images": [
                {"names": [f"docker.io/{canal.image(of, name)}"]} for name in set(canal.CONTAINERS.values())
            ],
        },
    }
    return replace(node_state(raw, node_facts(raw), 12), report=reports.sound(number))


RIGHTS = (
    Rule(("",), ("serviceaccounts/token",), ("create",), ("canal",)),
    Rule(("crd.projectcalico.org",), ("tiers", "globalnetworkpolicies"), ("get", "list", "watch")),
    Rule(
        ("policy.networking.k8s.io",),
        ("adminnetworkpolicies", "baselineadminnetworkpolicies"),
        ("get", "list", "watch"),
    ),
)


def definitions(release: str) -> dict[str, int]:
    """Those of a release's chart, without an object."""
    chart = KNOWN.chart("rke2-canal", KNOWN.release(release).charts["rke2-canal"])
    assert chart is not None and chart.crds
    return dict.fromkeys(chart.crds, 0)


def sound() -> Inventory:
    """Of FROM, ready to go to TO."""
    return running(FROM)


def saved(taken: str = "2026-11-27T00:00:03Z", **of: Any) -> EtcdSnapshot:
    """One of etcd that can be restored, in a bucket."""
    return EtcdSnapshot(**{"taken": taken, "ready": True, "bucket": True, **of})


def running(release: str) -> Inventory:
    """The same with another release's Canal."""
    daemonset = canal.daemonset(KNOWN.release(release))
    daemonset["metadata"] |= {"uid": "ds", "generation": 1}
    daemonset["status"] = {
        "observedGeneration": 1,
        "desiredNumberScheduled": 3,
        "updatedNumberScheduled": 3,
        "numberReady": 3,
    }
    return Inventory(
        taken="2026-11-27T09:00:00Z",
        server=FROM,
        cluster="uid",
        nodes=tuple(map(node, (1, 2, 3))),
        components=components([daemonset], []),
        charts=(HelmChart("rke2-canal", KNOWN.release(FROM).charts["rke2-canal"], "abort", frozen=False),),
        configs={"rke2-canal": "flannel:\n  iface: eth1\n"},
        releases=(HelmRelease("rke2-canal", 1, "superseded"), HelmRelease("rke2-canal", 2, "deployed")),
        jobs=(HelmJob("rke2-canal", "n1", "Succeeded"),),
        objects={**definitions(FROM), "globalnetworkpolicies.crd.projectcalico.org": 3},
        snapshots=(saved(),),
        rights={"DaemonSet/kube-system/rke2-canal": RIGHTS},
    )


def answers(inventory: Inventory, source: str = FROM, target: str = TO, *skip: int) -> dict[int, Answer]:
    begun, to = KNOWN.release(source), KNOWN.release(target)
    at = Situation(inventory, KNOWN, begun, to, compare(KNOWN, begun, to), NOW)
    return {answer.check.number: answer for answer in run(PREFLIGHT, at, frozenset(skip))}


def codes(answer: Answer) -> list[str]:
    return [finding.code for finding in answer.findings]


def changed_node(number: int, change: Callable[[NodeState], NodeState]) -> Inventory:
    base = sound()
    return replace(base, nodes=tuple(change(n) if n.facts.name == f"n{number}" else n for n in base.nodes))


def facts(**changes: Any) -> Callable[[NodeState], NodeState]:
    return lambda state: replace(state, facts=replace(state.facts, **changes))


def flannel(**changes: str) -> Callable[[NodeState], NodeState]:
    return lambda s: replace(s, flannel={**s.flannel, **{k.replace("_", "-"): v for k, v in changes.items()}})


def reported(**changes: Any) -> Inventory:
    """The second node says something else."""

    def change(state: NodeState) -> NodeState:
        assert state.report is not None
        return replace(state, report=replace(state.report, **changes))

    return changed_node(2, change)


def tunnel(**changes: Any) -> Inventory:
    return reported(tunnels=(replace(reports.sound(2).tunnels[0], **changes),))
