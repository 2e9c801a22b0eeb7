"""An object without what the API server writes itself, so that two times of it can be compared."""

import difflib
from typing import Any

import yaml

from towpath.inventory.pods import NETWORKS

Raw = dict[str, Any]

_SERVERS_OWN = (
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "generation",
    "managedFields",
    "selfLink",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
# Of a node only what the pod network keeps there belongs into a backup.
_NODE_ANNOTATIONS = ("flannel.alpha.coreos.com/", "projectcalico.org/", "towpath.dev/", "rke2.io/")


def clean(raw: Raw) -> Raw:
    """What its owner wrote. Owners are left out: their UIDs mean nothing in another cluster or after a
    deletion, and an object that names one who is gone is collected as garbage."""
    meta = {key: value for key, value in raw["metadata"].items() if key not in _SERVERS_OWN}
    meta.pop("ownerReferences", None)
    found = {key: value for key, value in raw.items() if key not in ("metadata", "status")}
    annotations = {key: v for key, v in (meta.get("annotations") or {}).items() if key != _LAST_APPLIED}
    if raw.get("kind") == "Node":
        annotations = {key: v for key, v in annotations.items() if key.startswith(_NODE_ANNOTATIONS)}
        spec = found.get("spec") or {}
        found["spec"] = {key: spec[key] for key in ("podCIDR", "podCIDRs") if key in spec}
    if raw.get("kind") == "Pod":
        return _pod(raw)
    if raw.get("kind") == "Namespace":
        found.pop("spec", None)
    meta.pop("annotations", None)
    if annotations:
        meta["annotations"] = annotations
    return {
        "apiVersion": found.pop("apiVersion", ""),
        "kind": found.pop("kind", ""),
        "metadata": meta,
        **found,
    }


def _pod(raw: Raw) -> Raw:
    """What a twin needs of it; everything else of a pod is its owner's and may hold secrets."""
    meta, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    kept = {key: meta[key] for key in ("name", "namespace", "labels") if key in meta}
    if networks := (meta.get("annotations") or {}).get(NETWORKS):
        kept["annotations"] = {NETWORKS: networks}
    containers = [
        {key: one[key] for key in ("name", "ports") if key in one} for one in spec.get("containers") or ()
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": kept,
        "spec": {"nodeName": spec.get("nodeName", ""), "containers": containers},
        "status": {"podIPs": status.get("podIPs") or []},
    }


def name_of(raw: Raw) -> str:
    """``NetworkPolicy/shop/front``, ``Tier/platform``."""
    meta = raw["metadata"]
    return "/".join(filter(None, (raw.get("kind", ""), meta.get("namespace", ""), meta["name"])))


def difference(before: Raw, after: Raw) -> str:
    """What of ``before`` (live) would be changed into ``after``, as a unified diff of YAML."""
    old, new = (yaml.safe_dump(one, sort_keys=True).splitlines() for one in (before, after))
    return "\n".join(difflib.unified_diff(old, new, "in the cluster", "in the archive", lineterm=""))
