"""Policies under the engine that runs and the one to come: what changes is found, and nothing else."""

from typing import Any

import pytest
from msgspec.structs import replace

from preflight_worlds import KNOWN, NOW, answers, codes, definitions, running
from towpath.catalogue.compare import compare
from towpath.preflight import engines
from towpath.preflight.checks import PREFLIGHT
from towpath.preflight.engines import TOWPATH, Engine, Verdicts, calico
from towpath.preflight.situation import Situation, run

BEFORE, AFTER = "v1.33.11+rke2r1", "v1.33.12+rke2r1"  # Calico 3.31 and 3.32
ADMIN = "AdminNetworkPolicy"


def pod(name: str, address: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": "shop", "name": name, "labels": {"app": name}, "uid": name},
        "spec": {"nodeName": "n1", "containers": []},
        "status": {"phase": "Running", "podIPs": [{"ip": address}], "podIP": address},
    }


def peer(app: str) -> dict[str, Any]:
    return {"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": app}}}}


def world(*policies: dict[str, Any]) -> list[dict[str, Any]]:
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": {}}}
    return [space, pod("front", "10.42.0.2"), pod("back", "10.42.0.3"), *policies]


DENY = {
    "apiVersion": "policy.networking.k8s.io/v1alpha1",
    "kind": ADMIN,
    "metadata": {"name": "no-front"},
    "spec": {
        "priority": 5,
        "subject": {"pods": peer("back")["pods"]},
        "ingress": [{"action": "Deny", "from": [peer("front")]}],
    },
}


def calicos(name: str, action: str) -> dict[str, Any]:
    return {
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "GlobalNetworkPolicy",
        "metadata": {"name": name},
        "spec": {
            "order": 10,
            "selector": "app == 'back'",
            "types": ["Ingress"],
            "ingress": [{"action": action, "source": {"selector": "app == 'front'"}}],
        },
    }


def test_engines_by_version() -> None:
    assert calico("v3.29.1-build20250110").without == {"BaselineAdminNetworkPolicy", "ClusterNetworkPolicy"}
    assert calico("v3.32.1").without == {ADMIN, "BaselineAdminNetworkPolicy"}
    assert engines.alike(calico("v3.30.0"), calico("v3.31.5"))
    assert not engines.alike(calico("v3.31.5"), calico("v3.32.0"))
    with pytest.raises(ValueError, match="not a version"):
        calico("master")


@pytest.mark.parametrize(
    ("before", "after", "total"),
    [
        (calico("v3.28.2"), calico("v3.29.1"), 1),
        (calico("v3.29.1"), calico("v3.30.0"), 0),
        (calico("v3.31.5"), calico("v3.32.0"), 1),
        (calico("v3.28.2"), TOWPATH, 1),
        (calico("v3.29.1"), TOWPATH, 0),
        (TOWPATH, calico("v3.32.0"), 1),
    ],
)
def test_an_admin_policy_that_only_one_enforces(before: Engine, after: Engine, total: int) -> None:
    found = engines.verdicts(world(DENY), before, after)
    assert found.total == total, found
    gone = DENY["kind"] in after.without
    assert all(("now allowed" if gone else "now denied") in line for line in found.changes)
    assert all("front" in line and "back" in line for line in found.changes)


def test_a_tier_is_taken_from_the_name_before_and_from_the_spec_since() -> None:
    first = calicos("a", "Allow")
    first["spec"]["order"] = 1
    both = world(first, calicos("b", "Deny"))
    assert engines.verdicts(both, calico("v3.31.5"), calico("v3.32.0")).total == 0
    tiered = calicos("default.b", "Deny")
    tiered["spec"]["tier"] = "security"
    tier = {
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "Tier",
        "metadata": {"name": "security"},
        "spec": {"order": 1},
    }
    moved = world(tier, tiered, first)
    assert engines.verdicts(moved, calico("v3.31.5"), calico("v3.32.0")).total == 1


def test_the_check() -> None:
    plain = replace(running(BEFORE), objects=definitions(AFTER))
    assert answers(plain, BEFORE, AFTER)[29].state == "ok"
    with_admin = replace(plain, objects={**plain.objects, engines.DEFINITIONS[ADMIN]: 2})
    found = answers(with_admin, BEFORE, AFTER)[29]
    assert (
        codes(found) == ["TP7342"] and "2 objects are enforced by Calico v3.31" in found.findings[0].message
    )
    ordered = replace(plain, objects={**plain.objects, "globalnetworkpolicies.crd.projectcalico.org": 3})
    assert answers(ordered, BEFORE, AFTER)[29].state == "untold"
    old, new = KNOWN.release(BEFORE), KNOWN.release(AFTER)
    for changes, expected in (((), []), (("a → b: now denied TCP",), ["TP7342"])):
        seen = Verdicts("Calico a", "Calico b", changes, len(changes))
        at = Situation(ordered, KNOWN, old, new, compare(KNOWN, old, new), NOW, seen)
        (answer,) = (one for one in run(PREFLIGHT, at, frozenset()) if one.check.number == 29)
        assert codes(answer) == expected
