"""A network configuration as a plugin is given it on stdin, in typed form."""

from typing import Any

import msgspec

from towpath.cni.result import Dns, Result, RouteConf
from towpath.model.attachment import Bandwidth, PortMapping
from towpath.model.net import Addr, Iface, Net


class Range(msgspec.Struct, frozen=True, kw_only=True):
    """Addresses to allocate from, as host-local writes them; ``start`` and ``end`` inclusive."""

    subnet: Net
    start: Addr | None = None
    end: Addr | None = None
    gateway: Addr | None = None


RangeSet = tuple[Range, ...]


class RuntimeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the runtime asks for by capability (CNI's CONVENTIONS.md).

    ``ips`` and ``mac`` also hold what was asked for by ``args.cni`` and by ``IP=`` and ``MAC=`` in CNI_ARGS.
    ``ips`` are addresses, or interfaces where a prefix length was given. ``ip_ranges`` one set an address
    wanted. ``mac`` lower case with colons.
    """

    port_mappings: tuple[PortMapping, ...] = ()
    bandwidth: Bandwidth | None = None
    ips: tuple[Addr | Iface, ...] = ()
    mac: str | None = None
    ip_ranges: tuple[RangeSet, ...] = ()
    dns: Dns | None = None
    aliases: tuple[str, ...] = ()


class Ipam(msgspec.Struct, frozen=True, kw_only=True):
    """The ``ipam`` section. ``type`` empty means Towpath's own; ``ranges`` one set an address wanted."""

    type: str = ""
    ranges: tuple[RangeSet, ...] = ()
    routes: tuple[RouteConf, ...] = ()


class Args(msgspec.Struct, frozen=True, kw_only=True):
    """The ``args`` section; ``cni`` is free-form."""

    cni: dict[str, Any] = {}


class NetConf(msgspec.Struct, frozen=True, kw_only=True):
    """One plugin's configuration.

    ``cni_version`` always a supported one; ``mtu`` in bytes, 0 where the plugin decides;
    ``valid_attachments`` (container id, ifname) pairs of GC, None where the runtime sent no list;
    ``raw`` the bytes as they came, for delegates and for DEL.
    """

    name: str
    cni_version: str
    type: str = ""
    mtu: int = 0
    runtime_config: RuntimeConfig = RuntimeConfig()
    args: Args = Args()
    ipam: Ipam = Ipam()
    dns: Dns | None = None
    prev_result: Result | None = None
    valid_attachments: tuple[tuple[str, str], ...] | None = None
    disable_check: bool = False
    disable_gc: bool = False
    raw: bytes = b""
