"""What a pod's and its namespace's annotations (Calico's) ask of its addresses. Pure."""

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

import msgspec

from towpath.ipam.errors import BadWish
from towpath.model.net import Addr, Family

_PREFIX = "cni.projectcalico.org/"
_POOLS: Mapping[Family, str] = {4: "ipv4pools", 6: "ipv6pools"}


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """``pools`` by family, by name or CIDR; ``addresses`` of them by name; ``unmanaged`` are addresses of no
    pool, which users keep apart themselves.
    """

    pools: Mapping[Family, tuple[str, ...]] = {}
    addresses: tuple[Addr, ...] = ()
    unmanaged: tuple[Addr, ...] = ()


def read_wishes(pod: Mapping[str, str], namespace: Mapping[str, str]) -> Wishes:
    """From the annotations of both; the pod's come first, and addresses are asked for by pods alone.

    Raises BadWish, naming the annotation.
    """
    pools: dict[Family, tuple[str, ...]] = {}
    for family, key in _POOLS.items():
        text = pod.get(_PREFIX + key) or namespace.get(_PREFIX + key)
        if text:
            pools[family] = _texts(key, text)
    addresses, unmanaged = _addresses("ipAddrs", pod), _addresses("ipAddrsNoIpam", pod)
    if addresses and unmanaged:
        raise BadWish("ipAddrsNoIpam", "and ipAddrs exclude each other")
    return Wishes(pools=pools, addresses=addresses, unmanaged=unmanaged)


def _addresses(key: str, annotations: Mapping[str, str]) -> tuple[Addr, ...]:
    text = annotations.get(_PREFIX + key)
    if not text:
        return ()
    found: dict[int, Addr] = {}
    for one in _texts(key, text):
        try:
            address = ip_address(one)
        except ValueError as error:
            raise BadWish(key, str(error)) from error
        if address.version in found:
            raise BadWish(key, f"{found[address.version]} and {one} are of one family")
        found[address.version] = address
    return tuple(found.values())


def _texts(key: str, text: str) -> tuple[str, ...]:
    try:
        found: Any = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise BadWish(key, f'is no JSON: {error}; write ["…"]') from error
    if not isinstance(found, list) or not found or not all(isinstance(one, str) for one in found):
        raise BadWish(key, 'must be a JSON list of texts: ["…"]')
    return tuple(found)


def hardware_address(pod: Mapping[str, str]) -> str:
    """The MAC address that a pod asks for, empty where it asks for none. Raises BadWish."""
    text = pod.get(_PREFIX + "hwAddr", "")
    if not text:
        return ""
    octets = text.lower().split(":")
    try:
        values = [int(octet, 16) for octet in octets if len(octet) == 2]
    except ValueError:
        values = []
    if len(octets) != 6 or len(values) != 6 or values[0] & 1 or not any(values):
        raise BadWish("hwAddr", f"{text!r} is no MAC address that an interface can have")
    return ":".join(octets)
