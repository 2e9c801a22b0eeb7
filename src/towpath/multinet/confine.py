"""Which plugins and host paths the configuration of a network may name. Pure.

A plugin runs as root on the host, and host-local's ``dataDir`` writes wherever it is told: whoever may write
a NetworkAttachmentDefinition would be root on every node. So types are of a list, and every absolute path
anywhere in a configuration lies below a list of folders.
"""

from collections.abc import Iterator
from posixpath import normpath
from typing import Any

import msgspec

from towpath.multinet.refusal import NetworkRefused

# The reference plugins, and what clusters with Multus commonly add. Some of them take a device of the node
# away from it (host-device, sriov): who may write definitions may do that, as with Multus.
TYPES = (
    "bandwidth",
    "bond",
    "bridge",
    "cnv-bridge",
    "cnv-tuning",
    "dhcp",
    "dummy",
    "firewall",
    "host-device",
    "host-local",
    "ib-sriov",
    "ipoib",
    "ipvlan",
    "loopback",
    "macvlan",
    "ovs",
    "portmap",
    "ptp",
    "rdma",
    "route-override",
    "sbr",
    "sriov",
    "static",
    "tap",
    "tc-redirect-tap",
    "towpath-ipam",
    "tuning",
    "vlan",
    "vrf",
    "whereabouts",
)
PATHS = ("/var/lib/cni", "/run/cni", "/var/run/cni", "/etc/cni/net.d/whereabouts.d", "/var/log/cni")
# Keys whose value is a path even where it does not begin with a slash.
_PATH_KEYS = ("dir", "path", "file", "folder", "socket", "kubeconfig")


class Confinement(msgspec.Struct, frozen=True, kw_only=True):
    """``types`` of plugins, IPAM plugins too; ``paths`` are folders, with all that is below them."""

    types: tuple[str, ...] = TYPES
    paths: tuple[str, ...] = PATHS

    def check(self, plugin: dict[str, Any], about: str) -> None:
        """Raises NetworkRefused TP6008 for what is beyond."""
        for where, kind in _types(plugin):
            if kind not in self.types:
                raise NetworkRefused(
                    "TP6008",
                    about,
                    f"{where} {kind!r} is not among the plugins that may be run",
                    "use another, or name it in the agents' setting network_types",
                )
        self.check_paths(plugin, about)

    def check_paths(self, value: Any, about: str) -> None:
        """The same for paths alone, of any document: what a pod's annotation hands to a plugin."""
        for where, path in _paths(value, ""):
            if not any(
                normpath(path) == folder or normpath(path).startswith(f"{folder}/") for folder in self.paths
            ):
                raise NetworkRefused(
                    "TP6008",
                    about,
                    f"{where}: {path!r} is not below a folder that plugins may use",
                    f"use one below {', '.join(self.paths)}, or name it in the agents' setting network_paths",
                )


def _types(plugin: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "type", str(plugin.get("type", ""))
    ipam = plugin.get("ipam")
    if isinstance(ipam, dict) and ipam.get("type"):
        yield "ipam.type", str(ipam["type"])
    delegate = plugin.get("delegate")  # plugins that call another
    if isinstance(delegate, dict) and delegate.get("type"):
        yield "delegate.type", str(delegate["type"])


def _paths(value: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, member in value.items():
            yield from _paths(member, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for number, member in enumerate(value):
            yield from _paths(member, f"{where}[{number}]")
    elif isinstance(value, str) and value and (value.startswith("/") or _names_path(where, value)):
        yield where, value


def _names_path(where: str, value: str) -> bool:
    """A relative path, which would count from wherever the runtime happens to be."""
    key = where.rpartition(".")[2].partition("[")[0].lower().replace("_", "").replace("-", "")
    return key.endswith(_PATH_KEYS) or value.startswith(("../", "./")) or "/../" in value
