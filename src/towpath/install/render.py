"""The Kubernetes objects of an installation, from values. Pure: the same values give the same bytes."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import yaml

from towpath.install import configuration
from towpath.install.daemonset import NAME, daemonset
from towpath.install.helper import helper
from towpath.install.monitoring import monitoring
from towpath.install.values import Values
from towpath.kube.kinds import (
    IP_POOLS,
    IP_RESERVATIONS,
    IPAM_CONFIGS,
    NETWORK_AFFINITIES,
    NETWORK_BLOCKS,
    NETWORK_HANDLES,
    NETWORK_RANGES,
)
from towpath.policy.sources import SECONDARY, SOURCES

Object = dict[str, Any]

_POLICIES = {
    group: sorted({source.plural for source in SOURCES if source.group == group})
    for group in dict.fromkeys(source.group for source in SOURCES)
}
_CONDITIONED = "policy.networking.k8s.io"
_STATUSES = [f"{plural}/status" for plural in _POLICIES[_CONDITIONED]]

# Every verb is used: nodes, pods and all that policy depends on are watched (list, watch), a pod that is not
# in the watch yet is asked for (get), and flannel's annotations, the report and NetworkUnavailable are
# written by one patch. Events, and conditions where the API has them, tell of policies that are stricter than
# what was written. Networks that pods ask for are watched, and read at once where one is new; what became of
# them is written to the pod's annotation network-status, by a patch of its status.
RULES = (
    {"apiGroups": [""], "resources": ["nodes"], "verbs": ["list", "watch"]},
    {"apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]},
    {"apiGroups": [""], "resources": ["pods/status"], "verbs": ["patch"]},
    {
        "apiGroups": ["k8s.cni.cncf.io"],
        "resources": ["network-attachment-definitions"],
        "verbs": ["get", "list", "watch"],
    },
    {
        "apiGroups": [SECONDARY.group],
        "resources": [SECONDARY.plural],
        "verbs": ["list", "watch"],
    },
    {"apiGroups": [""], "resources": ["namespaces", "serviceaccounts"], "verbs": ["list", "watch"]},
    {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]},
    {"apiGroups": [_CONDITIONED], "resources": _STATUSES, "verbs": ["patch"]},
    {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    {
        "apiGroups": [IP_RESERVATIONS.group],
        "resources": [IP_RESERVATIONS.plural],
        "verbs": ["list", "watch"],
    },
    *(
        {"apiGroups": [group], "resources": plurals, "verbs": ["list", "watch"]}
        for group, plurals in _POLICIES.items()
    ),
)

# By what towpath-ipam (network_ipam: true) shares ranges: Towpath's own objects, written like blocks' ones.
NETWORK_IPAM_RULES = (
    {
        "apiGroups": [NETWORK_RANGES.group],
        "resources": [kind.plural for kind in (NETWORK_RANGES, NETWORK_BLOCKS, NETWORK_AFFINITIES)],
        "verbs": ["get", "list", "watch", "create", "update", "delete"],
    },
    {
        "apiGroups": [NETWORK_HANDLES.group],
        "resources": [NETWORK_HANDLES.plural],
        "verbs": ["get", "create", "update", "delete"],
    },
)

# In block mode (ipam_mode: blocks) Calico's objects are followed, and written on condition of what was read.
BLOCK_RULES = (
    {
        "apiGroups": [IP_POOLS.group],
        "resources": ["blockaffinities", "ipamblocks"],
        "verbs": ["get", "list", "watch", "create", "update", "delete"],
    },
    {
        "apiGroups": [IP_POOLS.group],
        "resources": ["ipamhandles"],  # by name: a node's own, and those of a block that is given up
        "verbs": ["get", "create", "update", "delete"],
    },
    {
        "apiGroups": [IP_POOLS.group],
        "resources": [IPAM_CONFIGS.plural, IP_POOLS.plural],
        "verbs": ["list", "watch"],
    },
)


def rules_of(agent: Mapping[str, object]) -> list[Mapping[str, object]]:
    """What an agent with these settings needs."""
    blocks = BLOCK_RULES if agent.get("ipam_mode") == "blocks" else ()
    return [*RULES, *(NETWORK_IPAM_RULES if agent.get("network_ipam") else ()), *blocks]


def render(values: Values) -> tuple[Object, ...]:
    """All objects, in the order in which they should be created."""
    data = {
        configuration.NET_CONF: configuration.net_conf(values),
        configuration.AGENT_CONFIG: yaml.safe_dump(configuration.agent_config(values), sort_keys=False),
    }
    checksum = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
    rbac = "rbac.authorization.k8s.io"
    return (
        _object("v1", "ServiceAccount", values.namespace),
        _object(
            f"{rbac}/v1",
            "ClusterRole",
            "",
            rules=rules_of(values.agent),
        ),
        _object(
            f"{rbac}/v1",
            "ClusterRoleBinding",
            "",
            roleRef={"apiGroup": rbac, "kind": "ClusterRole", "name": NAME},
            subjects=[{"kind": "ServiceAccount", "name": NAME, "namespace": values.namespace}],
        ),
        _object("v1", "ConfigMap", values.namespace, name=f"{NAME}-config", data=data),
        daemonset(values, checksum),
        *((helper(values),) if values.helper else ()),
        *monitoring(values),
    )


def to_yaml(objects: tuple[Object, ...]) -> str:
    """One YAML stream; block text for files."""
    return yaml.dump_all(objects, Dumper=_Dumper, sort_keys=False, width=110)


def _object(version: str, kind: str, namespace: str, *, name: str = NAME, **body: Any) -> Object:
    metadata: Object = {"name": name}
    if namespace:
        metadata["namespace"] = namespace
    metadata["labels"] = {"app.kubernetes.io/name": NAME, "k8s-app": NAME}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **body}


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as such, and never an alias for what is said twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
