"""Addresses, networks and MACs out of other people's text, as Go's parsers read them."""

from ipaddress import ip_address, ip_network

from towpath.model.net import Addr, Family, Net


def parse_mac(text: str) -> str:
    """A 48-bit unicast MAC in any notation Go takes, as lower case with colons. Raises ValueError."""
    for separator, groups, width in ((":", 6, 2), ("-", 6, 2), (".", 3, 4)):
        parts = text.split(separator)
        if len(parts) == groups and all(len(p) == width and p.isascii() and p.isalnum() for p in parts):
            octets = bytes.fromhex("".join(parts))
            if octets[0] & 1 or not any(octets):
                raise ValueError("has a VtepMAC that is no unicast address")
            return octets.hex(":")
    raise ValueError("has a VtepMAC that is no MAC address")


def parse_address(text: str, family: Family) -> Addr:
    """An address that a tunnel can end at. Raises ValueError."""
    addr = ip_address(text)
    if addr.version != family or "%" in text or getattr(addr, "ipv4_mapped", None) is not None:
        raise ValueError(f"is no IPv{family} address")
    unusable = addr.is_multicast or addr.is_unspecified or addr.is_loopback or addr.is_link_local
    if unusable or text == "255.255.255.255":
        raise ValueError("is no address of a node")
    return addr


def parse_cidr(text: str) -> Net:
    """An address and a prefix length, host bits cut off, as Go reads it (no netmasks). Raises ValueError."""
    addr, slash, length = text.partition("/")
    if not slash or not (length.isascii() and length.isdigit()) or "%" in addr:
        raise ValueError("is no CIDR")
    return ip_network((addr, int(length)), strict=False)
