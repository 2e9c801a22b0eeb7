"""Whether services are spread by IPVS, which leads packets past the pods' policies.

Kernel: ``net/netfilter/ipvs/ip_vs_core.c``. What is for a virtual service is taken at the input hook and sent
on as the host's own (output, postrouting): never forwarded, so that a pod's ingress policies do not see it,
and its sender's egress policies see the service's address and not the pod's. kube-proxy in that mode has the
device ``kube-ipvs0``; other directors have only the services in ``/proc/net/ip_vs``.
"""

from collections.abc import Collection
from pathlib import Path

from towpath.model.finding import Finding

IPVS = "TP5047"
SERVICES = Path("/proc/net/ip_vs")
_DEVICE = "kube-ipvs0"
_PROTOCOLS = ("TCP", "UDP", "SCTP", "FWM")


def virtual_services(file: Path = SERVICES) -> int:
    """How many there are in this network namespace; 0 where the kernel has no IPVS."""
    try:
        lines = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return 0
    return sum(line.startswith(_PROTOCOLS) for line in lines)


def ipvs_findings(node: str, links: Collection[str], services: int) -> tuple[Finding, ...]:
    """``links``: the node's devices by name."""
    if _DEVICE in links:
        signs = f"kube-proxy runs in ipvs mode (device {_DEVICE}, {services} virtual services)"
    elif services:
        signs = f"IPVS has {services} virtual services"
    else:
        return ()
    message = f"{signs}: what goes to pods by way of services is not judged by their ingress policies"
    fix = "set kube-proxy's mode to nftables or iptables, run kube-proxy --cleanup, and restart it"
    return (Finding(code=IPVS, object=f"Node/{node}", message=message, fix=fix, severity="error"),)
