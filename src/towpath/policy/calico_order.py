"""Which of two policies comes first in Calico when their ``order`` is the same, and which tier they are in.

Both changed: up to 3.31 Felix compares its own key, ``NAMESPACE/TIER.NAME``, and takes the tier from the name
(what stands before the first dot); from 3.32 it compares ``NAME/NAMESPACE/KIND`` and takes ``spec.tier``.
(``felix/calc/policy_sorter.go``, ``libcalico-go/lib/names/policy.go``)
"""

from typing import Literal

import msgspec

from towpath.policy.ir import Policy

NETWORK_POLICY = "NetworkPolicy.projectcalico.org"  # the kind alone is also Kubernetes'
GLOBAL_NETWORK_POLICY = "GlobalNetworkPolicy"

_FELIX_KINDS = {
    NETWORK_POLICY: "NetworkPolicy",
    "NetworkPolicy": "KubernetesNetworkPolicy",
    "ClusterNetworkPolicy": "KubernetesClusterNetworkPolicy",
    "AdminNetworkPolicy": "KubernetesAdminNetworkPolicy",
    "BaselineAdminNetworkPolicy": "KubernetesBaselineAdminNetworkPolicy",
}
_FELIX_PREFIXES = {
    "NetworkPolicy": "knp.default.",
    "AdminNetworkPolicy": "kanp.adminnetworkpolicy.",
    "BaselineAdminNetworkPolicy": "kbanp.baselineadminnetworkpolicy.",
}
_FORMATTED = ("knp.default.", "kcnp.", "ossg.")


class CalicoEra(msgspec.Struct, frozen=True):
    """How equal orders are decided, and where the tier is written."""

    ties: Literal["name", "key"] = "name"
    tier: Literal["spec", "name"] = "spec"


CALICO_3_32 = CalicoEra()
CALICO_3_31 = CalicoEra(ties="key", tier="name")
ERAS = {"3.31": CALICO_3_31, "3.32": CALICO_3_32}
"""By the release that was the last, or the first, to do so."""


def ranked(policy: Policy, era: CalicoEra = CALICO_3_32, *, stored: bool = True) -> Policy:
    """The policy, of any API, with the ``rank`` that Felix would give it.

    ``stored``: its name is that of the stored object (crd.projectcalico.org). The API that Calico up to 3.31
    serves (projectcalico.org/v3) leaves ``default.`` out.
    """
    if era.ties == "name":
        kind = _FELIX_KINDS.get(policy.kind, policy.kind)
        rank = f"{policy.name}/{policy.namespace}/{kind}"
    else:
        name = _FELIX_PREFIXES.get(policy.kind, "") + (policy.name if stored else _stored(policy.name))
        rank = f"{policy.namespace}/{name}" if policy.namespace else name
    return msgspec.structs.replace(policy, rank=rank)


def tier_of_name(name: str) -> str:
    """The tier, where it is taken from the stored name."""
    prefix, dot, _ = name.partition(".")
    return "default" if not dot or name.startswith(_FORMATTED) else prefix


def _stored(name: str) -> str:
    return name if "." in name else f"default.{name}"
