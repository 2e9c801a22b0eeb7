"""What ``ipam`` of a network says where ``type`` is ``towpath-ipam``: ranges, routes, DNS. Pure.

The keys are whereabouts' where it has them, so that a definition is moved by its ``type``: ``range``,
``range_start``, ``range_end``, ``exclude``, ``gateway``, ``ipRanges`` for several, ``routes``, ``dns``.
``block_size`` is the prefix length of the parts that nodes take.
"""

from ipaddress import IPv4Network, ip_address, ip_network

import msgspec

from towpath.ipam.blocks import block_name
from towpath.ipam.pools import Pool
from towpath.model.net import Addr, Net

_LARGEST = {4: 26, 6: 122}
_PARTS = 4  # bits: a small range is cut into sixteen
_MOST_BITS = 16


class BadSection(ValueError):
    """The section makes no sense; the text names the key."""


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """Addresses ``first`` to ``last`` of ``cidr`` but for those in ``exclude`` and the ``gateway``; ``block``
    is the prefix length of its parts, ``chosen`` by who wrote the network.
    """

    cidr: Net
    first: Addr
    last: Addr
    exclude: tuple[Net, ...] = ()
    gateway: Addr | None = None
    block: int
    chosen: bool = False

    def allows(self, address: Addr) -> bool:
        """Whether a pod may get it without asking for it."""
        return self.may_name(address) and not any(address in net for net in self._excluded(address))

    def may_name(self, address: Addr) -> bool:
        """Whether a pod may get it if it asks for it by name."""
        return (
            address.version == self.cidr.version
            and int(self.first) <= int(address) <= int(self.last)
            and address != self.gateway
        )

    @property
    def pool(self) -> Pool:
        """As blocks know it."""
        return Pool(name=block_name(self.cidr), cidr=self.cidr, block=self.block)

    def _excluded(self, address: Addr) -> tuple[Net, ...]:
        return tuple(net for net in self.exclude if net.version == address.version)


class _Route(msgspec.Struct, frozen=True):
    dst: str
    gw: str = ""


class _Dns(msgspec.Struct, frozen=True):
    nameservers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class _Range(msgspec.Struct, frozen=True, kw_only=True):
    range: str = ""
    range_start: str = ""
    range_end: str = ""
    exclude: tuple[str, ...] = ()
    gateway: str = ""
    block_size: int | None = None


class _Section(_Range, frozen=True, kw_only=True):
    ipRanges: tuple[_Range, ...] = ()
    routes: tuple[_Route, ...] = ()
    dns: _Dns = _Dns()


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """A pod gets one address of each of ``spans``. Routes as (destination, gateway)."""

    spans: tuple[Span, ...]
    routes: tuple[tuple[Net, Addr | None], ...] = ()
    nameservers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def read_section(section: object) -> Section:
    """From decoded JSON. Raises BadSection."""
    try:
        wire = msgspec.convert(section, _Section)
    except msgspec.ValidationError as error:
        raise BadSection(f"ipam: {error}") from error
    ranges = [*([wire] if wire.range else []), *wire.ipRanges]
    if not ranges:
        raise BadSection("ipam.range is missing: the CIDR that pods' addresses are of")
    spans = tuple(map(_span, ranges))
    for index, one in enumerate(spans):
        for other in spans[:index]:
            if one.cidr.version == other.cidr.version and one.cidr.overlaps(other.cidr):
                raise BadSection(f"ipam.ipRanges: {one.cidr} and {other.cidr} overlap")
    return Section(
        spans=spans,
        routes=tuple(_route(one) for one in wire.routes),
        nameservers=wire.dns.nameservers,
        domain=wire.dns.domain,
        search=wire.dns.search,
        options=wire.dns.options,
    )


def _span(wire: _Range) -> Span:
    try:
        cidr = ip_network(wire.range, strict=False)
    except ValueError as error:
        raise BadSection(
            f"ipam.range: {error}; write it as a CIDR, with range_start and range_end"
        ) from error
    bits = cidr.max_prefixlen - cidr.prefixlen
    if bits < 2:
        raise BadSection(f"ipam.range {cidr} is too small to give addresses of")
    first = _address(wire.range_start, "range_start", cidr) or cidr[1]
    last = _address(wire.range_end, "range_end", cidr) or cidr[-2 if isinstance(cidr, IPv4Network) else -1]
    if int(first) > int(last):
        raise BadSection(f"ipam.range_start {first} is after range_end {last}")
    block = wire.block_size or min(max(cidr.prefixlen + _PARTS, _LARGEST[cidr.version]), cidr.max_prefixlen)
    if not cidr.prefixlen <= block <= cidr.max_prefixlen or cidr.max_prefixlen - block > _MOST_BITS:
        raise BadSection(
            f"ipam.block_size {block} must be from {max(cidr.prefixlen, cidr.max_prefixlen - _MOST_BITS)} "
            f"to {cidr.max_prefixlen} for {cidr}"
        )
    return Span(
        cidr=cidr,
        first=first,
        last=last,
        exclude=tuple(_net(text, cidr) for text in wire.exclude),
        gateway=_address(wire.gateway, "gateway", cidr),
        block=block,
        chosen=wire.block_size is not None,
    )


def _address(text: str, key: str, cidr: Net) -> Addr | None:
    if not text:
        return None
    try:
        found = ip_address(text)
    except ValueError as error:
        raise BadSection(f"ipam.{key}: {error}") from error
    if found not in cidr:
        raise BadSection(f"ipam.{key} {found} is not in {cidr}")
    return found


def _net(text: str, cidr: Net) -> Net:
    try:
        found = ip_network(text, strict=False)
    except ValueError as error:
        raise BadSection(f"ipam.exclude: {error}") from error
    if found.version != cidr.version or not found.overlaps(cidr):
        raise BadSection(f"ipam.exclude {found} has no address of {cidr}")
    return found


def _route(wire: _Route) -> tuple[Net, Addr | None]:
    try:
        return ip_network(wire.dst, strict=False), ip_address(wire.gw) if wire.gw else None
    except ValueError as error:
        raise BadSection(f"ipam.routes: {error}") from error
