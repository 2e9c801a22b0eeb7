"""The result of ADD in the shape of CNI 1.1.0, read from and written for every version there is."""

from ipaddress import ip_address, ip_interface, ip_network
from typing import Any, TypeVar

import msgspec

from towpath.cni.errors import CniError, ErrorCode
from towpath.cni.fold import fold
from towpath.cni.version import NEWEST, SUPPORTED, at_least
from towpath.model.net import Addr, Iface, Net


class Interface(msgspec.Struct, frozen=True, kw_only=True):
    """An interface; ``sandbox`` the namespace's path, empty for the host's; ``mtu`` in bytes, 0 unknown."""

    name: str
    mac: str = ""
    mtu: int = 0
    sandbox: str = ""
    socket_path: str = ""
    pci_id: str = ""


class IPConfig(msgspec.Struct, frozen=True, kw_only=True):
    """An address; ``interface`` is an index into the result's interfaces, None in results of IPAM plugins."""

    address: Iface
    gateway: Addr | None = None
    interface: int | None = None


class RouteConf(msgspec.Struct, frozen=True, kw_only=True):
    """A route in the pod. ``gw`` None: the gateway of the address; 0 and None mean not set."""

    dst: Net
    gw: Addr | None = None
    mtu: int = 0
    advmss: int = 0
    priority: int = 0
    table: int | None = None
    scope: int | None = None


class Dns(msgspec.Struct, frozen=True, kw_only=True):
    """Resolver settings for the pod."""

    nameservers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What ADD made."""

    interfaces: tuple[Interface, ...] = ()
    ips: tuple[IPConfig, ...] = ()
    routes: tuple[RouteConf, ...] = ()
    dns: Dns = Dns()

    def to_version(self, version: str) -> bytes:
        """This result as JSON for a runtime that speaks ``version``.

        Before 1.1.0 the attributes it introduced are left out, before 1.0.0 addresses say their family,
        before 0.3.0 there is one address a family and there are no interfaces. Raises CniError if a version
        before 0.3.0 has no address to tell.
        """
        if not at_least(version, "0.3.0"):
            return msgspec.json.encode(_legacy(self, version))
        extended = at_least(version, "1.1.0")
        body: dict[str, Any] = {"cniVersion": version}
        if self.interfaces:
            body["interfaces"] = [_interface(i, extended) for i in self.interfaces]
        if self.ips:
            body["ips"] = [_ip(ip, with_family=not at_least(version, "1.0.0")) for ip in self.ips]
        if self.routes:
            body["routes"] = [_route(r, extended) for r in self.routes]
        body["dns"] = _dns(self.dns)
        return msgspec.json.encode(body)

    @staticmethod
    def parse(data: bytes, version: str = NEWEST) -> "Result":
        """A result printed by a plugin. ``version`` counts where it does not say one itself.

        Raises CniError UNDECODABLE for what is no result, INCOMPATIBLE_VERSION for one of a version unknown.
        """
        try:
            return Result.from_object(fold(msgspec.json.decode(data)), version)
        except (msgspec.DecodeError, RecursionError, ValueError) as err:
            raise CniError(ErrorCode.UNDECODABLE, "the result is not JSON", str(err)) from err

    @staticmethod
    def from_object(value: Any, version: str = NEWEST) -> "Result":
        """A result already decoded and folded, such as ``prevResult``. Raises CniError as ``parse`` does."""
        try:
            wire = msgspec.convert(value, _WireResult)
            own = wire.cni_version or version
            if own not in SUPPORTED:
                raise CniError(ErrorCode.INCOMPATIBLE_VERSION, f"result of unknown CNI version {own!r}")
            return _read_legacy(wire) if not at_least(own, "0.3.0") else _read(wire)
        except (msgspec.ValidationError, ValueError) as err:
            raise CniError(ErrorCode.UNDECODABLE, "not a CNI result", str(err)) from err


# What is on the wire. Addresses stay text until they are parsed, as the standard library would take numbers.


class _Wire(msgspec.Struct, frozen=True, rename="camel"):
    pass


class _WireInterface(_Wire, frozen=True):
    name: str = ""
    mac: str = ""
    mtu: int = 0
    sandbox: str = ""
    socket_path: str = ""
    pci_id: str = msgspec.field(name="pciID", default="")


class _WireIP(_Wire, frozen=True):
    address: str
    gateway: str = ""
    interface: int | None = None


class WireRoute(_Wire, frozen=True):
    """A route as results and ``ipam`` sections write it."""

    dst: str
    gw: str = ""
    mtu: int = 0
    advmss: int = 0
    priority: int = 0
    table: int | None = None
    scope: int | None = None

    def typed(self) -> RouteConf:
        """With addresses parsed; host bits of ``dst`` are dropped, as Go drops them. Raises ValueError."""
        return RouteConf(
            dst=ip_network(plain(self.dst), strict=False),
            gw=ip_address(plain(self.gw)) if self.gw else None,
            mtu=self.mtu,
            advmss=self.advmss,
            priority=self.priority,
            table=self.table,
            scope=self.scope,
        )


class WireDns(_Wire, frozen=True):
    """Resolver settings; the capability says ``servers`` and ``searches`` where results say otherwise."""

    nameservers: list[str] = []
    domain: str = ""
    search: list[str] = []
    options: list[str] = []
    servers: list[str] = []
    searches: list[str] = []

    def typed(self) -> Dns:
        """Under the names results use."""
        return Dns(
            nameservers=tuple(self.nameservers or self.servers),
            domain=self.domain,
            search=tuple(self.search or self.searches),
            options=tuple(self.options),
        )


class _WireLegacyIP(_Wire, frozen=True):
    ip: str
    gateway: str = ""
    routes: list[WireRoute] = []


class _WireResult(_Wire, frozen=True):
    cni_version: str = ""
    interfaces: list[_WireInterface] = []
    ips: list[_WireIP] = []
    routes: list[WireRoute] = []
    dns: WireDns = WireDns()
    ip4: _WireLegacyIP | None = None
    ip6: _WireLegacyIP | None = None


def plain(text: str) -> str:
    """An address as text, without what only Python's ipaddress would accept. Raises ValueError."""
    if "%" in text:
        raise ValueError(f"{text!r}: a zone is not allowed")
    return text


def _prefixed(text: str) -> Iface:
    if "/" not in text:
        raise ValueError(f"{text!r}: the prefix length is missing")
    return ip_interface(plain(text))


def _read(wire: _WireResult) -> Result:
    return Result(
        interfaces=tuple(
            Interface(
                name=i.name,
                mac=i.mac,
                mtu=i.mtu,
                sandbox=i.sandbox,
                socket_path=i.socket_path,
                pci_id=i.pci_id,
            )
            for i in wire.interfaces
        ),
        ips=tuple(
            IPConfig(
                address=_prefixed(ip.address),
                gateway=ip_address(plain(ip.gateway)) if ip.gateway else None,
                interface=ip.interface,
            )
            for ip in wire.ips
        ),
        routes=tuple(r.typed() for r in wire.routes),
        dns=wire.dns.typed(),
    )


def _read_legacy(wire: _WireResult) -> Result:
    found = [ip for ip in (wire.ip4, wire.ip6) if ip is not None]
    return Result(
        ips=tuple(
            IPConfig(address=_prefixed(ip.ip), gateway=ip_address(plain(ip.gateway)) if ip.gateway else None)
            for ip in found
        ),
        routes=tuple(r.typed() for ip in found for r in ip.routes),
        dns=wire.dns.typed(),
    )


def _legacy(result: Result, version: str) -> dict[str, Any]:
    body: dict[str, Any] = {"cniVersion": version}
    for family, key in ((4, "ip4"), (6, "ip6")):
        ip = next((ip for ip in result.ips if ip.address.version == family), None)
        if ip is not None:
            body[key] = _drop_empty(
                {
                    "ip": str(ip.address),
                    "gateway": str(ip.gateway) if ip.gateway else "",
                    "routes": [_route(r, extended=False) for r in result.routes if r.dst.version == family],
                }
            )
    if len(body) == 1:
        raise CniError(ErrorCode.INTERNAL, f"CNI {version} has no result without an address")
    body["dns"] = _dns(result.dns)
    return body


def _interface(i: Interface, extended: bool) -> dict[str, Any]:
    extras = {"mtu": i.mtu, "socketPath": i.socket_path, "pciID": i.pci_id} if extended else {}
    return {"name": i.name, **_drop_empty({"mac": i.mac, "sandbox": i.sandbox, **extras})}


def _ip(ip: IPConfig, with_family: bool) -> dict[str, Any]:
    body: dict[str, Any] = {"version": str(ip.address.version)} if with_family else {}
    if ip.interface is not None:
        body["interface"] = ip.interface
    body["address"] = str(ip.address)
    if ip.gateway is not None:
        body["gateway"] = str(ip.gateway)
    return body


def _route(r: RouteConf, extended: bool) -> dict[str, Any]:
    body = {"dst": str(r.dst), **({"gw": str(r.gw)} if r.gw else {})}
    if not extended:
        return body
    numbers = {"mtu": r.mtu, "advmss": r.advmss, "priority": r.priority}
    pointers = {"table": r.table, "scope": r.scope}
    return {**body, **_drop_empty(numbers), **{k: v for k, v in pointers.items() if v is not None}}


def _dns(dns: Dns) -> dict[str, Any]:
    return _drop_empty(
        {"nameservers": dns.nameservers, "domain": dns.domain, "search": dns.search, "options": dns.options}
    )


_V = TypeVar("_V")


def _drop_empty(body: dict[str, _V]) -> dict[str, _V]:
    return {k: v for k, v in body.items() if v}
