"""Calico's staged policies, which are never in force: what they would be, for ``policy diff`` to show."""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from towpath.model.finding import Finding
from towpath.policy.reading import Field, Report, Unreadable

STAGED_UNREADABLE = "TP5043"

_ACTIONS: dict[str, Literal["set", "delete", "ignore"]] = {
    "Set": "set",
    "Delete": "delete",
    "Learn": "set",  # a recommendation, evaluated as if it were set
    "Ignore": "ignore",
}
_ENFORCED = {
    "StagedNetworkPolicy": "NetworkPolicy",
    "StagedGlobalNetworkPolicy": "GlobalNetworkPolicy",
    "StagedKubernetesNetworkPolicy": "NetworkPolicy",
}


class Staged(msgspec.Struct, frozen=True, kw_only=True):
    """``object`` is what would be set, or deleted: a raw object of the kind that is in force, with the
    apiVersion of that. Of what is ignored or not understood, nothing.
    """

    action: Literal["set", "delete", "ignore"]
    object: Mapping[str, Any]
    findings: tuple[Finding, ...] = ()


def unstage(raw: Mapping[str, Any]) -> Staged:
    """A StagedNetworkPolicy, StagedGlobalNetworkPolicy or StagedKubernetesNetworkPolicy. Never raises.

    What of its rules is not understood is not told here, but by the converter of the object.
    """
    root = Field(raw)
    try:
        kind = root["kind"].choice({kind: kind for kind in _ENFORCED})
        spec = {key: field.value for key, field in root["spec"].fields()}
        staged = root["spec"]["stagedAction"]
        action = _ACTIONS["Set"] if staged.value in (None, "") else staged.choice(_ACTIONS)
    except Unreadable as problem:
        report = Report(_kind(root), root)
        report.note(problem, "it is not shown", STAGED_UNREADABLE)
        return Staged(action="ignore", object={}, findings=report.findings)
    spec.pop("stagedAction", None)
    version = "networking.k8s.io/v1" if kind.startswith("StagedKubernetes") else root["apiVersion"].value
    enforced = {
        "apiVersion": version,
        "kind": _ENFORCED[kind],
        "metadata": root["metadata"].value,
        "spec": spec,
    }
    return Staged(action=action, object={} if action == "ignore" else enforced)


def _kind(root: Field) -> str:
    kind = root.value.get("kind") if isinstance(root.value, Mapping) else None
    return kind if isinstance(kind, str) and kind in _ENFORCED else "StagedNetworkPolicy"
