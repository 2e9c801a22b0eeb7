"""From a network configuration's bytes to ``NetConf``: everything unparsed ends here."""

import re
from collections.abc import Callable
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Any, TypeVar

import msgspec

from towpath.cni.args import parse_ip, parse_mac
from towpath.cni.errors import CniError, ErrorCode
from towpath.cni.fold import fold
from towpath.cni.result import Result, WireDns, WireRoute, plain
from towpath.cni.types import Args, Ipam, NetConf, Range, RangeSet, RuntimeConfig
from towpath.cni.version import NEWEST, OLDEST, SUPPORTED
from towpath.model.attachment import Bandwidth, PortMapping

_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")
_PROTOCOLS = ("tcp", "udp", "sctp")
_MAX_RATE = 1 << 62
_MEMORABLE = 4096

T = TypeVar("T")


class _Wire(msgspec.Struct, frozen=True, rename="camel"):
    pass


class _PortMapping(_Wire, frozen=True):
    host_port: int = 0
    container_port: int = 0
    protocol: str = "tcp"
    host_ip: str = msgspec.field(name="hostIP", default="")


class _Bandwidth(_Wire, frozen=True):
    ingress_rate: int = 0
    ingress_burst: int = 0
    egress_rate: int = 0
    egress_burst: int = 0


class _Range(_Wire, frozen=True):
    subnet: str
    range_start: str = ""
    range_end: str = ""
    gateway: str = ""


class _RuntimeConfig(_Wire, frozen=True):
    port_mappings: list[_PortMapping] = []
    bandwidth: _Bandwidth | None = None
    ips: list[str] = []
    mac: str = ""
    ip_ranges: list[list[_Range]] = []
    dns: WireDns | None = None
    aliases: list[str] | dict[str, list[str]] = []


class _Ipam(_Wire, frozen=True):
    """host-local's keys: ``ranges``, or one range written straight into the section."""

    type: str = ""
    ranges: list[list[_Range]] = []
    routes: list[WireRoute] = []
    subnet: str = ""
    range_start: str = ""
    range_end: str = ""
    gateway: str = ""


class _CniArgs(_Wire, frozen=True):
    ips: list[str] = []
    mac: str = ""


class _Attachment(_Wire, frozen=True):
    container_id: str = msgspec.field(name="containerID")
    ifname: str = msgspec.field(name="ifname")


def parse_net_conf(data: bytes, *, lenient: bool = False) -> NetConf:
    """A configuration as ``_parse`` reads it. A node sends the same bytes for every pod without wishes."""
    return _remembered(data, lenient) if len(data) <= _MEMORABLE else _parse(data, lenient)


def _parse(data: bytes, lenient: bool) -> NetConf:
    """Parse and validate stdin.

    ``lenient``, for DEL: a section that cannot be understood counts as absent, so that nothing that once was
    configured can ever keep a pod from being deleted. Name, version and JSON itself must hold even then.

    Raises CniError UNDECODABLE for what is not JSON or of the wrong type, INCOMPATIBLE_VERSION, and
    BAD_CONFIG with the key at fault for values that make no sense.
    """
    document = _document(data)
    read = _Reader(document, lenient)
    name = read.typed("name", str, "")
    if not _IDENTIFIER.fullmatch(name):
        raise CniError(
            ErrorCode.BAD_CONFIG, f"invalid network name {name!r}" if name else "missing network name"
        )
    version = read.typed("cniVersion", str, "") or OLDEST
    if version not in SUPPORTED:
        raise CniError(
            ErrorCode.INCOMPATIBLE_VERSION,
            "incompatible CNI versions",
            f"the configuration says {version!r}, towpath-cni speaks {', '.join(SUPPORTED)}",
        )
    wire_dns = read.typed("dns", WireDns, None)
    args = read.typed("args", dict[str, Any], {})
    cni_args = args.get("cni")
    return NetConf(
        name=name,
        cni_version=version,
        type=read.typed("type", str, ""),
        mtu=read.value("mtu", int, 0, _mtu),
        runtime_config=_runtime_config(read, cni_args),
        args=Args(cni=cni_args if isinstance(cni_args, dict) else {}),
        ipam=read.value("ipam", _Ipam, _Ipam(), _ipam),
        dns=wire_dns.typed() if wire_dns else None,
        prev_result=read.checked("prevResult", lambda v: Result.from_object(v, version)),
        valid_attachments=_valid_attachments(read),
        disable_check=read.value("disableCheck", bool | str, False, _boolean),
        disable_gc=read.value("disableGC", bool | str, False, _boolean),
        raw=data,
    )


_remembered = lru_cache(maxsize=16)(_parse)


def peek_version(data: bytes) -> str:
    """The version an error about this configuration should be printed in; NEWEST if it says none we know."""
    try:
        version = _document(data).get("cniVersion") or OLDEST
    except CniError:
        return NEWEST
    return version if isinstance(version, str) and version in SUPPORTED else NEWEST


def check_container_id(text: str) -> None:
    """Raises CniError BAD_ENVIRONMENT for what the specification does not allow as a container id."""
    if not _IDENTIFIER.fullmatch(text):
        raise CniError(ErrorCode.BAD_ENVIRONMENT, f"invalid CNI_CONTAINERID {text!r}")


def check_ifname(text: str) -> None:
    """Raises CniError BAD_ENVIRONMENT for what Linux does not allow as an interface name."""
    size = len(text.encode("utf-8", "surrogateescape"))
    if not 0 < size < 16 or text in (".", "..") or re.search(r"[/:\s\0]", text):
        raise CniError(
            ErrorCode.BAD_ENVIRONMENT, f"invalid CNI_IFNAME {text!r}", "at most 15 bytes, no / : or space"
        )


def _document(data: bytes) -> dict[str, Any]:
    try:
        document = fold(msgspec.json.decode(data))
    except (msgspec.DecodeError, RecursionError, ValueError) as err:
        raise CniError(ErrorCode.UNDECODABLE, "the network configuration is not JSON", str(err)) from err
    if not isinstance(document, dict):
        raise CniError(ErrorCode.UNDECODABLE, "the network configuration is not a JSON object")
    return document


class _Reader:
    """Reads members of one document and says which one was wrong."""

    def __init__(self, document: dict[str, Any], lenient: bool) -> None:
        self._document, self._lenient = document, lenient

    def __contains__(self, key: str) -> bool:
        return key in self._document

    def typed(self, key: str, type_: Any, default: Any) -> Any:
        """The member as ``type_`` (UNDECODABLE if it is not one), or the default where it is absent."""
        return self.value(key, type_, default, lambda v: v)

    def value(self, key: str, type_: Any, default: Any, interpret: Callable[[Any], T]) -> T:
        """The member as ``type_``, interpreted; ValueError of ``interpret`` becomes BAD_CONFIG."""
        try:
            try:
                wire = msgspec.convert(self._document[key], type_) if key in self._document else default
            except msgspec.ValidationError as err:
                raise CniError(ErrorCode.UNDECODABLE, f"{key}: {err}") from err
            try:
                return interpret(wire)
            except ValueError as err:
                raise CniError(ErrorCode.BAD_CONFIG, f"{key}: {err}") from err
        except CniError:
            if not self._lenient:
                raise
            return interpret(default)

    def checked(self, key: str, parse: Callable[[Any], T]) -> T | None:
        """The member as ``parse`` makes it, None where it is absent."""
        return self.value(key, Any, None, lambda v: None if v is None else parse(v))


def _runtime_config(read: _Reader, cni_args: Any) -> RuntimeConfig:
    runtime = read.value("runtimeConfig", _RuntimeConfig, _RuntimeConfig(), _typed_runtime_config)
    asked = _Reader({"args.cni": cni_args} if isinstance(cni_args, dict) else {}, read._lenient)
    ips, mac = asked.value(
        "args.cni",
        _CniArgs,
        _CniArgs(),
        lambda a: (tuple(parse_ip(t) for t in a.ips), parse_mac(a.mac) if a.mac else None),
    )
    ips = runtime.ips + tuple(ip for ip in ips if ip not in runtime.ips)
    return msgspec.structs.replace(runtime, ips=ips, mac=runtime.mac or mac)


def _typed_runtime_config(wire: _RuntimeConfig) -> RuntimeConfig:
    aliases = wire.aliases
    if isinstance(aliases, dict):  # podman: by network name
        aliases = [alias for names in aliases.values() for alias in names]
    return RuntimeConfig(
        port_mappings=tuple(_port_mapping(p) for p in wire.port_mappings if p.host_port),
        bandwidth=_bandwidth(wire.bandwidth) if wire.bandwidth else None,
        ips=tuple(parse_ip(text) for text in wire.ips),
        mac=parse_mac(wire.mac) if wire.mac else None,
        ip_ranges=_range_sets(wire.ip_ranges),
        dns=wire.dns.typed() if wire.dns else None,
        aliases=tuple(dict.fromkeys(aliases)),
    )


def _port_mapping(wire: _PortMapping) -> PortMapping:
    protocol = wire.protocol.lower()
    if protocol not in _PROTOCOLS:
        raise ValueError(f"portMappings: protocol {wire.protocol!r} is none of {', '.join(_PROTOCOLS)}")
    for port in (wire.host_port, wire.container_port):
        if not 0 < port < 65536:
            raise ValueError(f"portMappings: {port} is no port")
    host_ip = ip_address(plain(wire.host_ip)) if wire.host_ip else None
    return PortMapping(
        host_port=wire.host_port,
        container_port=wire.container_port,
        protocol=protocol,  # type: ignore[arg-type]  # checked above
        host_ip=host_ip,
    )


def _bandwidth(wire: _Bandwidth) -> Bandwidth | None:
    numbers = {field: getattr(wire, field) for field in wire.__struct_fields__}
    for field, number in numbers.items():
        if not 0 <= number < _MAX_RATE:
            raise ValueError(f"bandwidth: {field} {number} is out of range")
    return Bandwidth(**numbers) if any(numbers.values()) else None


def _range_sets(wire: list[list[_Range]]) -> tuple[RangeSet, ...]:
    return tuple(_range_set(ranges) for ranges in wire if ranges)


def _range_set(ranges: list[_Range]) -> RangeSet:
    typed = tuple(_range(r) for r in ranges)
    if len({r.subnet.version for r in typed}) != 1:
        raise ValueError(f"one set of ranges with both families: {', '.join(str(r.subnet) for r in typed)}")
    return typed


def _range(wire: _Range) -> Range:
    subnet = ip_network(plain(wire.subnet))
    start, end, gateway = (
        ip_address(plain(text)) if text else None for text in (wire.range_start, wire.range_end, wire.gateway)
    )
    for address in (start, end, gateway):
        if address is not None and address not in subnet:
            raise ValueError(f"{address} is not in {subnet}")
    if start is not None and end is not None and int(start) > int(end):
        raise ValueError(f"rangeStart {start} is after rangeEnd {end}")
    return Range(subnet=subnet, start=start, end=end, gateway=gateway)


def _ipam(wire: _Ipam) -> Ipam:
    sets = _range_sets(wire.ranges)
    if wire.subnet:
        first = _Range(
            subnet=wire.subnet, range_start=wire.range_start, range_end=wire.range_end, gateway=wire.gateway
        )
        sets = (_range_set([first]), *sets)
    return Ipam(type=wire.type, ranges=sets, routes=tuple(r.typed() for r in wire.routes))


def _mtu(mtu: int) -> int:
    if mtu != 0 and not 68 <= mtu <= 65535:
        raise ValueError(f"{mtu} is neither 0 nor between 68 and 65535")
    return mtu


def _boolean(value: bool | str) -> bool:
    """libcni takes the strings "true" and "false" as well."""
    if isinstance(value, str):
        if value.lower() not in ("true", "false"):
            raise ValueError(f"{value!r} is neither true nor false")
        return value.lower() == "true"
    return value


def _valid_attachments(read: _Reader) -> tuple[tuple[str, str], ...] | None:
    """GC's list. The first tag of specification 1.1.0 named it ``cni.dev/attachments``; libcni sends both."""
    key = "cni.dev/valid-attachments" if "cni.dev/valid-attachments" in read else "cni.dev/attachments"
    listed: list[_Attachment] | None = read.typed(key, list[_Attachment], None)
    return None if listed is None else tuple((a.container_id, a.ifname) for a in listed)
