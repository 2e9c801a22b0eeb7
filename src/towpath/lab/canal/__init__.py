"""Canal's stand-ins: RKE2's ``rke2-canal`` as the API has it, and what its programs leave on a node.

``chart`` has the objects; the other modules are calico-node, flanneld, Calico's CNI plugin and the installer.
Names, comments, order and behaviour are those of ``rke2-canal`` v3.29.2 with flanneld v0.26.4, as read in
their sources; neither program is packaged by Debian. The rules are put into the kernel by Debian's iptables,
ipset and nft, and leases, host ports and limits are made by Debian's host-local, portmap and bandwidth. What
the real Felix does beyond that (host endpoints, named ports, its own comments' hashes) is not here: a policy
is given as which addresses may speak to a pod.
"""

from towpath.lab.canal.chart import CONTAINERS, NAME, NAMESPACE, config_map, daemonset, image, objects

__all__ = ["CONTAINERS", "NAME", "NAMESPACE", "config_map", "daemonset", "image", "objects"]
