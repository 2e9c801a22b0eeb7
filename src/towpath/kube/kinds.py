"""Resource types by their place in the API and the type their objects decode to."""

from typing import Any, Generic, TypeVar
from urllib.parse import quote

import msgspec

from towpath.api import core

T = TypeVar("T")
Raw = dict[str, Any]


class Kind(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """``group`` "" for the core API; ``type`` a narrow msgspec struct, or ``dict`` to keep every field."""

    plural: str
    type: type[T]
    version: str = "v1"
    group: str = ""
    namespaced: bool = True

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Escaped URL path of the collection, an object or a subresource; "" is all namespaces."""
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts += [part for part in (self.plural, name, subresource) if part]
        return "/" + "/".join(quote(part, safe="") for part in parts)

    def raw(self) -> "Kind[Raw]":
        """The same resource with whole objects, for those who write them back."""
        return Kind(
            plural=self.plural, type=Raw, version=self.version, group=self.group, namespaced=self.namespaced
        )


NODES = Kind(plural="nodes", type=core.Node, namespaced=False)
PODS = Kind(plural="pods", type=core.Pod)
NAMESPACES = Kind(plural="namespaces", type=core.Namespace, namespaced=False)
EVENTS: Kind[Raw] = Kind(plural="events", type=dict)
DAEMONSETS: Kind[Raw] = Kind(plural="daemonsets", type=dict, group="apps")
CONFIG_MAPS: Kind[Raw] = Kind(plural="configmaps", type=dict)
LEASES: Kind[Raw] = Kind(plural="leases", type=dict, group="coordination.k8s.io")
IP_RESERVATIONS: Kind[Raw] = Kind(
    plural="ipreservations", type=dict, group="crd.projectcalico.org", namespaced=False
)
_CALICO = "crd.projectcalico.org"
IP_POOLS: Kind[Raw] = Kind(plural="ippools", type=dict, group=_CALICO, namespaced=False)
IPAM_BLOCKS: Kind[Raw] = Kind(plural="ipamblocks", type=dict, group=_CALICO, namespaced=False)
BLOCK_AFFINITIES: Kind[Raw] = Kind(plural="blockaffinities", type=dict, group=_CALICO, namespaced=False)
IPAM_HANDLES: Kind[Raw] = Kind(plural="ipamhandles", type=dict, group=_CALICO, namespaced=False)
IPAM_CONFIGS: Kind[Raw] = Kind(plural="ipamconfigs", type=dict, group=_CALICO, namespaced=False)
_IPAM = "ipam.towpath.dev"
NETWORK_RANGES: Kind[Raw] = Kind(plural="networkranges", type=dict, group=_IPAM, namespaced=False)
NETWORK_BLOCKS: Kind[Raw] = Kind(plural="networkblocks", type=dict, group=_IPAM, namespaced=False)
NETWORK_AFFINITIES: Kind[Raw] = Kind(
    plural="networkblockaffinities", type=dict, group=_IPAM, namespaced=False
)
NETWORK_HANDLES: Kind[Raw] = Kind(plural="networkblockhandles", type=dict, group=_IPAM, namespaced=False)
DEFINITIONS: Kind[Raw] = Kind(
    plural="customresourcedefinitions", type=dict, group="apiextensions.k8s.io", namespaced=False
)
