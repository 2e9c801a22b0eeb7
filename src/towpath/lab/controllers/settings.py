"""What a cluster's controllers must be told."""

from ipaddress import IPv4Network, IPv6Network

import msgspec


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """``cluster_cidrs`` pod networks, primary family first, empty to allocate none; ``node_masks`` the prefix
    lengths cut from them for each node (IPv4, IPv6).

    ``root_ca`` PEM for the ConfigMap ``kube-root-ca.crt``, empty for no such ConfigMap.
    ``node_grace`` seconds without a heartbeat after which a node is unknown (upstream 40; a lab is faster).
    ``collect_after`` seconds after which garbage is collected for the first time: a cluster that starts has
    none, and following every kind there is costs a connection each.
    ``orphan_grace`` seconds after which the pods of a Node that is gone are removed (upstream 40).
    """

    cluster_cidrs: tuple[IPv4Network | IPv6Network, ...] = ()
    node_masks: tuple[int, int] = (24, 64)
    root_ca: str = ""
    node_grace: float = 8.0
    orphan_grace: float = 2.0
    collect_after: float = 2.0
