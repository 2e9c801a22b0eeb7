"""The API objects that are policies or sets: where each kind is served, and what reads it."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from towpath.policy import (
    convert_admin,
    convert_calico,
    convert_calico_endpoints,
    convert_networking,
    secondary,
)
from towpath.policy.calico_order import CalicoEra, ranked
from towpath.policy.converted import Converted

Raw = Mapping[str, Any]
NamespaceLabels = Mapping[str, Mapping[str, str]]
"""By namespace, what ``endpoints.namespace_labels`` says."""

# Stored as custom resources of the first group; the second is what Calico's own API server serves.
STORED, SERVED = "crd.projectcalico.org", "projectcalico.org"
_CALICO_VERSIONS = {STORED: "v1", SERVED: "v3"}


class Resource(msgspec.Struct, frozen=True):
    """A kind, and where it is served. ``versions`` the newest first."""

    group: str
    versions: tuple[str, ...]
    plural: str
    kind: str
    namespaced: bool


class Source(Resource, frozen=True):
    """A kind that is enforced. ``inherits``: it depends on the labels of its namespace, or of any."""

    read: Callable[[Raw, NamespaceLabels, CalicoEra], Converted]
    inherits: bool = False


_Read = Callable[[Raw, NamespaceLabels, CalicoEra], Converted]


def _networking(raw: Raw, _: NamespaceLabels, era: CalicoEra) -> Converted:
    found = convert_networking.convert(raw)
    return msgspec.structs.replace(found, policies=tuple(ranked(one, era) for one in found.policies))


def _alone(convert: Callable[[Raw], Converted]) -> _Read:
    return lambda raw, namespaces, era: convert(raw)


def _placed(convert: Callable[[Raw, NamespaceLabels], Converted]) -> _Read:
    return lambda raw, namespaces, era: convert(raw, namespaces)


def _ordered(convert: Callable[[Raw, CalicoEra], Converted]) -> _Read:
    return lambda raw, namespaces, era: convert(raw, era)


_INHERITING = ("networksets", "hostendpoints")


def _calico(plural: str, kind: str, namespaced: bool, read: _Read) -> tuple[Source, ...]:
    return tuple(
        Source(group, (version,), plural, kind, namespaced, read, plural in _INHERITING)
        for group, version in _CALICO_VERSIONS.items()
    )


SOURCES: tuple[Source, ...] = (
    Source("networking.k8s.io", ("v1",), "networkpolicies", "NetworkPolicy", True, _networking),
    # Since 0.3 both versions are served; they have the same fields.
    Source(
        "policy.networking.k8s.io", ("v1beta1", "v1alpha2"), "clusternetworkpolicies",
        "ClusterNetworkPolicy", False, _alone(convert_admin.convert_cluster_network_policy),
    ),
    Source(
        "policy.networking.k8s.io", ("v1alpha1",), "adminnetworkpolicies", "AdminNetworkPolicy", False,
        _alone(convert_admin.convert_admin_network_policy),
    ),
    Source(
        "policy.networking.k8s.io", ("v1alpha1",), "baselineadminnetworkpolicies",
        "BaselineAdminNetworkPolicy", False, _alone(convert_admin.convert_baseline_admin_network_policy),
    ),
    *_calico("tiers", "Tier", False, _alone(convert_calico.convert_tier)),
    *_calico("networkpolicies", "NetworkPolicy", True, _ordered(convert_calico.convert_network_policy)),
    *_calico(
        "globalnetworkpolicies", "GlobalNetworkPolicy", False,
        _ordered(convert_calico.convert_global_network_policy),
    ),
    *_calico("networksets", "NetworkSet", True, _placed(convert_calico_endpoints.convert_network_set)),
    *_calico(
        "globalnetworksets", "GlobalNetworkSet", False,
        _alone(convert_calico_endpoints.convert_global_network_set),
    ),
    *_calico("hostendpoints", "HostEndpoint", False, _placed(convert_calico_endpoints.convert_host_endpoint)),
)  # fmt: skip

# For interfaces in other networks than the pod network (``secondary``). v1beta2 has ``endPort``.
SECONDARY = Source(
    secondary.GROUP, ("v1beta2", "v1beta1"), "multi-networkpolicies", secondary.KIND, True,
    _alone(secondary.convert),
)  # fmt: skip

SHOWN = tuple(
    Resource(group, (version,), plural, kind, plural != "stagedglobalnetworkpolicies")
    for group, version in _CALICO_VERSIONS.items()
    for plural, kind in (
        ("stagednetworkpolicies", "StagedNetworkPolicy"),
        ("stagedglobalnetworkpolicies", "StagedGlobalNetworkPolicy"),
        ("stagedkubernetesnetworkpolicies", "StagedKubernetesNetworkPolicy"),
    )
)
"""What the command line tells of and no agent enforces."""


def source_of(group: str, plural: str) -> Source:
    """By its place in the API. Raises KeyError."""
    for source in SOURCES:
        if (source.group, source.plural) == (group, plural):
            return source
    raise KeyError(f"{plural}.{group}")
