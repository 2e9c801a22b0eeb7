"""The stand-ins as programs under the names of the real ones, and Canal's CNI configuration."""

import json
import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from towpath.lab.canal.calico_cni import POD_CIDRS
from towpath.lab.rundir import LabError

CONFLIST = "10-canal.conflist"
NETWORK = "k8s-pod-network"
_MODULES = {"flanneld": "flanneld", "calico-node": "felix", "calico": "calico_cni"}
BIN = "/run/canal"  # on a lab's nodes: flanneld and calico-node
DEBIAN_PLUGINS = Path("/usr/lib/cni")
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
PLUGINS = ("host-local", "portmap", "bandwidth")


def require() -> None:
    """Raises LabError naming what Debian has and this machine has not."""
    wanted = dict.fromkeys(("iptables-nft-restore", "ip6tables-nft-restore"), "iptables")
    wanted |= {"ipset": "ipset", "nft": "nftables", "nsenter": "util-linux"}
    lacking = {name: package for name, package in wanted.items() if shutil.which(name, path=_PATH) is None}
    plugins = [name for name in PLUGINS if not (DEBIAN_PLUGINS / name).exists()]
    lacking |= dict.fromkeys(plugins, "containernetworking-plugins")
    if lacking:
        packages = " ".join(sorted(set(lacking.values())))
        raise LabError(
            f"Canal needs {', '.join(lacking)} on this machine", f"apt install {packages}", "TP9005"
        )


def install(folder: Path, *names: str) -> None:
    """Put the stand-ins (``flanneld``, ``calico-node``, ``calico``) into ``folder``; others are Debian's
    own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        path = folder / name
        if name in _MODULES:
            module = f"towpath.lab.canal.{_MODULES[name]}"
            path.write_text(f"#!{sys.executable}\nfrom {module} import main\n\nmain()\n")
            path.chmod(0o755)
        elif not path.exists():
            path.symlink_to(DEBIAN_PLUGINS / name)


def conflist(pod_cidrs: Iterable[str], data_dir: str = "", mtu: int = 1450) -> str:
    """rke2-canal's conflist. The stand-in has no API server to ask for podCIDRs: they stand in it.

    The capability is not the chart's: a twin's pods ask host-local for the addresses that they have.
    """
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
        "capabilities": {"ips": True},
    }
    portmap = {"type": "portmap", "snat": True, "capabilities": {"portMappings": True}}
    bandwidth = {"type": "bandwidth", "capabilities": {"bandwidth": True}}
    document = {"name": NETWORK, "cniVersion": "0.3.1", "plugins": [calico, portmap, bandwidth]}
    return json.dumps(document, indent=2) + "\n"
