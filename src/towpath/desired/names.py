"""Names and constants of the pod's wiring. They are Calico's, so that Canal's pods and ours are one kind."""

import hashlib
from ipaddress import IPv4Address, IPv6Address

POD_PREFIX = "cali"
HOST_MAC = "ee:ee:ee:ee:ee:ee"
# What the kernel derives from HOST_MAC (modified EUI-64, RFC 4291); Calico's pods route through it.
HOST_LL = IPv6Address("fe80::ecee:eeff:feee:eeee")
GATEWAY4 = IPv4Address("169.254.1.1")

_IFB_PREFIX = "tpb"
_DEFAULT_IFNAME = "eth0"


def host_ifname(namespace: str, pod: str, ifname: str = _DEFAULT_IFNAME) -> str:
    """The host end of a pod's link: "cali" and 11 hex digits, exactly Calico's for ``eth0``.

    Further interfaces of a pod hash ``namespace.pod/ifname``. No namespace, pod or container has a slash in
    its name, so that the three kinds of text that are hashed cannot coincide.
    """
    text = f"{namespace}.{pod}"
    return _digest(text if ifname == _DEFAULT_IFNAME else f"{text}/{ifname}")


def container_ifname(container_id: str, ifname: str) -> str:
    """The host end of the link of a container without Kubernetes identity (podman)."""
    return _digest(f"/{container_id}/{ifname}")


def ifb_name(host: str) -> str:
    """The device that shapes what the pod behind ``host`` sends.

    Not "cali…": that prefix means the end of a pod link, to us and to Felix.
    """
    return _IFB_PREFIX + host.removeprefix(POD_PREFIX)


def _digest(text: str) -> str:
    # 15 characters is the longest interface name (IFNAMSIZ less the NUL).
    return POD_PREFIX + hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()[:11]
