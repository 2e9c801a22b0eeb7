"""The pod's annotation ``k8s.v1.cni.cncf.io/networks``, in both of its forms. Pure.

Source: Kubernetes Network Custom Resource Definition De-facto Standard, section 4, up to version 1.3; and
Multus, which takes a value with ``[``, ``{`` or ``"`` in it for JSON, allows ``@interface`` in the short form
and knows ``deviceID``. What the standard calls invalid is refused, never passed over in silence.
"""

import re
from collections.abc import Callable, Mapping
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface
from typing import Any, TypeVar

import msgspec

from towpath.model.net import Addr, Iface
from towpath.multinet.refusal import NetworkRefused

NETWORKS = "k8s.v1.cni.cncf.io/networks"
DEFAULT_NETWORK = "v1.multus-cni.io/default-network"

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_GUID = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){7}")
_HEX = frozenset("0123456789abcdef")
_PROTOCOLS = ("tcp", "udp", "sctp")
_PORT_KEYS = ("hostPort", "containerPort", "protocol", "hostIP")
_RATE_KEYS = ("ingressRate", "ingressBurst", "egressRate", "egressBurst")
_MAX_RATE = 1 << 62
_KEYS = (
    "name",
    "namespace",
    "interface",
    "ips",
    "mac",
    "default-route",
    "portMappings",
    "bandwidth",
    "infiniband-guid",
    "cni-args",
    "deviceID",
    "ipam-claim-reference",
)
_FOLDED = {key.casefold(): key for key in _KEYS}

T = TypeVar("T")


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """One entry: a NetworkAttachmentDefinition, and what is asked of the attachment.

    ``namespace`` empty where none was written; ``ips`` with a prefix length where one was written; ``mac``
    and ``infiniband_guid`` lower case with colons; ``gateways`` the key ``default-route``; ``port_mappings``,
    ``bandwidth`` and ``cni_args`` as plugins are given them; ``unknown`` keys that mean nothing to us.
    """

    name: str
    namespace: str = ""
    interface: str = ""
    ips: tuple[Addr | Iface, ...] = ()
    mac: str = ""
    gateways: tuple[Addr, ...] = ()
    port_mappings: tuple[dict[str, Any], ...] = ()
    bandwidth: dict[str, int] = {}
    infiniband_guid: str = ""
    cni_args: dict[str, Any] = {}
    device_id: str = ""
    ipam_claim: str = ""
    unknown: tuple[str, ...] = ()


def selections(text: str, key: str = NETWORKS) -> tuple[Selection, ...]:
    """The entries, in order; none for an empty value. Raises NetworkRefused (TP6001, TP6005, TP6006)."""
    if not text.strip():
        return ()
    if any(mark in text for mark in '[{"'):
        return _from_json(text, key)
    return tuple(_from_words(text, key))


def default_network(text: str) -> Selection | None:
    """The one entry of ``v1.multus-cni.io/default-network``. Raises NetworkRefused."""
    found = selections(text, DEFAULT_NETWORK)
    if len(found) > 1:
        raise _malformed(DEFAULT_NETWORK, f"{len(found)} networks, and only one can be the default")
    return found[0] if found else None


# Short form: [NAMESPACE/]NAME[@INTERFACE], separated by commas.


def _from_words(text: str, key: str) -> list[Selection]:
    found, at = [], 0
    for number, part in enumerate(text.split(","), 1):
        word = part.strip()
        where = f"{key}, entry {number}, character {at + 1 + len(part) - len(part.lstrip())}"
        at += len(part) + 1
        if not word:
            raise _malformed(where, "there is nothing between two commas, or behind the last")
        rest, has_interface, interface = word.partition("@")
        namespace, slash, name = rest.rpartition("/")
        if slash and not namespace:
            raise _malformed(where, f"{word!r} has a slash but no namespace before it")
        if has_interface and not interface:
            raise _malformed(where, f"{word!r} has an @ but no interface behind it")
        found.append(
            Selection(
                name=_name(name, where),
                namespace=_namespace(namespace, where) if namespace else "",
                interface=check_interface(interface, where) if interface else "",
            )
        )
    return found


# JSON form: a list of objects.


def _from_json(text: str, key: str) -> tuple[Selection, ...]:
    try:
        document = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _malformed(key, _decoded(str(error), text)) from error
    if not isinstance(document, list):
        raise _malformed(key, f"a list of objects is wanted, not {_kind(document)}")
    found = []
    for number, entry in enumerate(document, 1):
        where = f"{key}, entry {number}"
        if not isinstance(entry, dict):
            raise _malformed(where, f"an object is wanted, not {_kind(entry)}")
        found.append(_entry(entry, where))
    return tuple(found)


def _decoded(problem: str, text: str) -> str:
    """The decoder's complaint, with a character where it counts bytes."""
    found = re.search(r" \(byte (\d+)\)", problem)
    if found is None:
        return f"not JSON: {problem}"
    character = len(text.encode()[: int(found[1])].decode(errors="ignore")) + 1
    near = text[max(0, character - 11) : character + 10].strip()
    return f"not JSON: {problem[: found.start()]} at character {character}, near {near!r}"


class _Entry:
    """Reads members of one entry and says which one was wrong. Go matches keys whatever their case."""

    def __init__(self, entry: Mapping[str, Any], where: str) -> None:
        self._where = where
        self._members = {_FOLDED.get(k.casefold(), k): v for k, v in entry.items() if v is not None}
        self.unknown = tuple(sorted(k for k in self._members if k not in _KEYS and "." not in k))

    def read(self, key: str, wanted: type[T], default: T, parse: Callable[[T, str], Any]) -> Any:
        if key not in self._members:
            return tuple(default) if isinstance(default, list) else default
        value, where = self._members[key], f"{self._where}, {key}"
        if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
            raise _malformed(where, f"{_WORDS[wanted]} is wanted, not {_kind(value)}")
        return parse(value, where)

    def has(self, key: str) -> bool:
        return key in self._members


def _entry(entry: Mapping[str, Any], where: str) -> Selection:
    member = _Entry(entry, where)
    if not member.has("name"):
        raise _malformed(f"{where}, name", "it is missing")
    return Selection(
        name=member.read("name", str, "", _name),
        namespace=member.read("namespace", str, "", lambda v, w: _namespace(v, w) if v else ""),
        interface=member.read("interface", str, "", lambda v, w: check_interface(v, w) if v else ""),
        ips=member.read("ips", list, [], _ips),
        mac=member.read("mac", str, "", lambda v, w: _mac(v, w) if v else ""),
        gateways=member.read("default-route", list, [], _gateways),
        port_mappings=member.read("portMappings", list, [], _ports),
        bandwidth=member.read("bandwidth", dict, {}, _bandwidth),
        infiniband_guid=member.read("infiniband-guid", str, "", lambda v, w: _guid(v, w) if v else ""),
        cni_args=member.read("cni-args", dict, {}, lambda v, _: v),
        device_id=member.read("deviceID", str, "", lambda v, w: _device(v, w) if v else ""),
        ipam_claim=member.read("ipam-claim-reference", str, "", lambda v, w: _name(v, w) if v else ""),
        unknown=member.unknown,
    )


# Values.


def _name(text: str, where: str) -> str:
    if not _NAME.fullmatch(text) or len(text) > 253:
        raise _malformed(where, f"{text!r} cannot be the name of an object{_first_wrong(text)}")
    return text


def _namespace(text: str, where: str) -> str:
    if not _LABEL.fullmatch(text) or len(text) > 63:
        raise _malformed(where, f"{text!r} cannot be a namespace{_first_wrong(text)}")
    return text


def check_interface(text: str, where: str) -> str:
    """An interface name Linux takes. Raises NetworkRefused TP6005."""
    problem = ""
    if len(text.encode("utf-8", "surrogateescape")) > 15:
        problem = "longer than 15 bytes"
    elif text in ("", ".", "..") or re.search(r"[/:\s\0]", text):
        problem = "no name that Linux takes"
    elif text in ("lo", "all", "default"):
        problem = "what every namespace has already"
    if problem:
        raise NetworkRefused(
            "TP6005",
            where,
            f"interface name {text!r} is {problem}",
            "choose another, of at most 15 characters",
        )
    return text


def _ips(values: list[Any], where: str) -> tuple[Addr | Iface, ...]:
    if not values:
        raise NetworkRefused("TP6006", where, "the list is empty", "name an address, or leave the key out")
    return tuple(_ip(value, where) for value in values)


def _ip(value: Any, where: str) -> Addr | Iface:
    try:
        if not isinstance(value, str) or "%" in value:
            raise ValueError("no address")
        found: Addr | Iface = ip_interface(value) if "/" in value else ip_address(value)
    except ValueError as error:
        raise _unusable(where, f"{value!r} is no IP address") from error
    address = found.ip if isinstance(found, IPv4Interface | IPv6Interface) else found
    if address.is_multicast or address.is_unspecified or address.is_loopback:
        raise _unusable(where, f"{value!r} is no address that an interface can have")
    return found


def _gateways(values: list[Any], where: str) -> tuple[Addr, ...]:
    found: dict[int, Addr] = {}
    for value in values:
        one = _ip(value, where)
        if isinstance(one, IPv4Interface | IPv6Interface):
            raise _unusable(where, f"{value!r} is a network, a gateway's address is wanted")
        if found.setdefault(one.version, one) != one:
            raise _unusable(where, f"{found[one.version]} and {one} are of one family")
    return tuple(found.values())


def _mac(text: str, where: str) -> str:
    """Six octets of Ethernet, or twenty of IP over InfiniBand (RFC 4391, 9.1.1)."""
    octets = text.lower().replace("-", ":").split(":")
    if len(octets) not in (6, 20) or any(len(o) != 2 or not set(o) <= _HEX for o in octets):
        raise _unusable(where, f"{text!r} is no hardware address")
    if len(octets) == 6 and int(octets[0], 16) & 1:
        raise _unusable(where, f"{text!r} is a multicast address")
    if not any(int(o, 16) for o in octets):
        raise _unusable(where, f"{text!r} is all zero")
    return ":".join(octets)


def _guid(text: str, where: str) -> str:
    guid = text.lower().replace("-", ":")
    if not _GUID.fullmatch(guid) or guid in ("00:00:00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff:ff:ff"):
        raise _unusable(where, f"{text!r} is no InfiniBand GUID (eight octets with colons)")
    return guid


def _device(text: str, where: str) -> str:
    if len(text) > 256 or not text.isprintable():
        raise _unusable(where, f"{text[:40]!r} is no device ID")
    return text


def _ports(values: list[Any], where: str) -> tuple[dict[str, Any], ...]:
    return tuple(_port(value, f"{where}[{number}]") for number, value in enumerate(values))


def _port(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _malformed(where, f"an object is wanted, not {_kind(value)}")
    folded = {known.casefold(): known for known in _PORT_KEYS}
    found = {folded.get(k.casefold(), k): v for k, v in value.items() if v is not None}
    for key in ("hostPort", "containerPort"):
        port = found.get(key, 0)
        if not isinstance(port, int) or isinstance(port, bool) or not 0 < port < 65536:
            raise _unusable(f"{where}, {key}", f"{port!r} is no port")
    protocol = found.get("protocol", "tcp")
    if not isinstance(protocol, str) or protocol.lower() not in _PROTOCOLS:
        raise _unusable(f"{where}, protocol", f"{protocol!r} is none of {', '.join(_PROTOCOLS)}")
    found["protocol"] = protocol.lower()
    if found.get("hostIP"):
        try:
            ip_address(found["hostIP"] if isinstance(found["hostIP"], str) else "")
        except ValueError as error:
            raise _unusable(f"{where}, hostIP", f"{found['hostIP']!r} is no IP address") from error
    return {key: found[key] for key in _PORT_KEYS if key in found}


def _bandwidth(value: dict[str, Any], where: str) -> dict[str, int]:
    folded = {known.casefold(): known for known in _RATE_KEYS}
    found: dict[str, int] = {}
    for key, rate in value.items():
        name = folded.get(key.casefold(), key)
        if rate is None:
            continue
        if not isinstance(rate, int) or isinstance(rate, bool) or not 0 <= rate < _MAX_RATE:
            raise _unusable(f"{where}, {name}", f"{rate!r} is no number of bits")
        found[name] = rate
    return found


_WORDS: dict[type, str] = {str: "a string", list: "a list", dict: "an object", int: "a number"}


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    return _WORDS.get(type(value), "a number")


def _first_wrong(text: str) -> str:
    """The first character that an object's name may not have."""
    for place, character in enumerate(text, 1):
        if not re.fullmatch(r"[a-z0-9.-]", character):
            return f": character {place} is {character!r}"
    return ""


def _malformed(where: str, problem: str) -> NetworkRefused:
    fix = 'correct the annotation: NAME, NAMESPACE/NAME@INTERFACE, or JSON as [{"name": "NAME"}]'
    return NetworkRefused("TP6001", where, problem, fix)


def _unusable(where: str, problem: str) -> NetworkRefused:
    return NetworkRefused("TP6006", where, problem, "correct the annotation of the pod")
