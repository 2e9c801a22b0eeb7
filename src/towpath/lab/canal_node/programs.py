"""The stand-ins as programs under the names of the real ones, and Canal's CNI configuration."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from towpath.lab.canal_node.calico_cni import POD_CIDRS

CONFLIST = "10-canal.conflist"
NETWORK = "k8s-pod-network"
_MODULES = {"flanneld": "flanneld", "calico-node": "felix", "calico": "calico_cni"}
DEBIAN_PLUGINS = Path("/usr/lib/cni")
PLUGINS = ("host-local", "portmap", "bandwidth")


def install(folder: Path, *names: str) -> None:
    """Put the stand-ins (``flanneld``, ``calico-node``, ``calico``) into ``folder``; others are Debian's
    own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        path = folder / name
        if name in _MODULES:
            module = f"towpath.lab.canal_node.{_MODULES[name]}"
            path.write_text(f"#!{sys.executable}\nfrom {module} import main\n\nmain()\n")
            path.chmod(0o755)
        elif not path.exists():
            path.symlink_to(DEBIAN_PLUGINS / name)


def conflist(pod_cidrs: Iterable[str], data_dir: str = "", mtu: int = 1450) -> str:
    """rke2-canal's conflist. The stand-in has no API server to ask for podCIDRs: they stand in it."""
    ipam: dict[str, Any] = {
        "type": "host-local",
        "ranges": [[{"subnet": "usePodCidr"}], [{"subnet": "usePodCidrIPv6"}]],
    }
    if data_dir:
        ipam["dataDir"] = data_dir
    calico = {
        "type": "calico",
        "log_level": "info",
        "datastore_type": "kubernetes",
        "nodename": "__KUBERNETES_NODE_NAME__",
        "mtu": mtu,
        "ipam": ipam,
        "policy": {"type": "k8s"},
        "kubernetes": {"kubeconfig": "/etc/cni/net.d/calico-kubeconfig"},
        POD_CIDRS: list(pod_cidrs),
    }
    portmap = {"type": "portmap", "snat": True, "capabilities": {"portMappings": True}}
    bandwidth = {"type": "bandwidth", "capabilities": {"bandwidth": True}}
    document = {"name": NETWORK, "cniVersion": "0.3.1", "plugins": [calico, portmap, bandwidth]}
    return json.dumps(document, indent=2) + "\n"
