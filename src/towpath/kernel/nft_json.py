"""libnftables' JSON listing of a table, decoded."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

import msgspec

from towpath.kernel.nft_text import PROTOCOLS
from towpath.model.nft import Field, Hook, Key, NftSet

_PROTOCOL_NAMES = {number: text for text, number in PROTOCOLS.items()}


class Rule(msgspec.Struct, frozen=True):
    """A listed rule: ``print`` is its expressions in canonical form, counters' values left out."""

    handle: int
    comment: str
    print: bytes


class Chain(msgspec.Struct):
    """A listed chain and its rules in order."""

    hook: Hook | None
    rules: list[Rule]


class Listing(msgspec.Struct):
    """A listed table."""

    sets: dict[str, NftSet]
    chains: dict[str, Chain]


def decode(listing: bytes) -> Listing:
    """The (only) table of a listing made with JSON, STATELESS and NUMERIC_PROTO."""
    found = Listing({}, {})
    for item in msgspec.json.decode(listing)["nftables"]:
        match item:
            case {"set": body} | {"map": body}:
                found.sets[body["name"]] = _set(body)
            case {"chain": body}:
                found.chains[body["name"]] = Chain(_hook(body), [])
            case {"rule": body}:
                rule = Rule(body["handle"], body.get("comment", ""), msgspec.json.encode(body["expr"]))
                found.chains[body["chain"]].rules.append(rule)
    return found


def _hook(body: dict[str, Any]) -> Hook | None:
    if "hook" not in body:
        return None
    return Hook(
        type=body["type"], hook=body["hook"], priority=body["prio"], policy=body.get("policy", "accept")
    )


def _set(body: dict[str, Any]) -> NftSet:
    key, data = _types(body["type"]), _types(body.get("map", ()))
    interval = "interval" in body.get("flags", ())
    elements: dict[Key, Key] = {}
    for element in body.get("elem", ()):
        left, right = element if data else (element, None)
        elements[_fields(key, left, interval)] = _fields(data, right, False) if data else ()
    return NftSet(name=body["name"], key=key, data=data, interval=interval, elements=elements)


def _types(told: Any) -> tuple[str, ...]:
    """``"a"``, ``["a", "b"]``, and, for data in 1.0.6, ``"a . b"``."""
    return tuple(told.split(" . ")) if isinstance(told, str) else tuple(told)


def _fields(types: tuple[str, ...], value: Any, interval: bool) -> Key:
    if isinstance(value, dict):
        if "elem" in value:  # an element with a timeout, a counter or a comment
            return _fields(types, value["elem"]["val"], interval)
        if "concat" in value:
            return tuple(_field(t, v, interval) for t, v in zip(types, value["concat"], strict=True))
    return (_field(types[0], value, interval),)


def _field(kind: str, value: Any, interval: bool) -> Field:
    """Foreign values the model has no form for come out as text."""
    match kind, value:
        case "ipv4_addr", str():
            return IPv4Network(value) if interval else IPv4Address(value)
        case "ipv6_addr", str():
            return IPv6Network(value) if interval else IPv6Address(value)
        case "ipv4_addr", {"prefix": {"addr": addr, "len": size}}:
            return IPv4Network((addr, size))
        case "ipv6_addr", {"prefix": {"addr": addr, "len": size}}:
            return IPv6Network((addr, size))
        case "inet_proto", int():
            return _PROTOCOL_NAMES.get(value, value)
        case "verdict", dict():
            return _verdict(value)
        case _, {"range": [int() as low, int() as high]}:
            return (low, high)
        case _, {"range": [low, high]}:
            return f"{low}-{high}"
        case _, str() | int():
            return value
    return msgspec.json.encode(value).decode()


def _verdict(value: dict[str, Any]) -> str:
    [(verb, detail)] = value.items()
    return f"{verb} {detail['target']}" if isinstance(detail, dict) else str(verb)
