"""Attachments for tests: one way to make them, with only what a test is about spelt out."""

from ipaddress import ip_address
from typing import Any

from towpath.desired.names import host_ifname
from towpath.model.attachment import Attachment, PodRef


def attachment(name: str, *addresses: str, **fields: Any) -> Attachment:
    """The attachment of pod ``default/NAME``."""
    values: dict[str, Any] = {
        "container_id": name.ljust(64, "0"),
        "ifname": "eth0",
        "network": "k8s-pod-network",
        "netns": f"/run/netns/{name}",
        "host_ifname": host_ifname("default", name),
        "addresses": tuple(ip_address(a) for a in addresses),
        "mac": "0a:58:0a:2a:00:05",
        "mtu": 1430,
        "boot_id": "boot",
        "pod": PodRef(namespace="default", name=name),
    }
    return Attachment(**(values | fields))
