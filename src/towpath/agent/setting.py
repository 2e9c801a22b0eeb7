"""Parsers of single settings: from text or a YAML scalar to a typed value, or Rejected with the fix."""

import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from towpath.api.text import parse_cidr
from towpath.model.failsafe import EVERYWHERE, TCP, UDP, Failsafe
from towpath.model.net import Net

_NODE_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_YES, _NO = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}


class Rejected(ValueError):
    """What is wrong with a value, and what would be right."""


def text(value: Any) -> str:
    """Any string."""
    if not isinstance(value, str):
        raise Rejected(f"{value!r} is not text; put it in quotes")
    return value.strip()


def node_name(value: Any) -> str:
    """A DNS subdomain name (RFC 1123); empty for the host name, as the kubelet's default."""
    name = text(value) or socket.gethostname().lower()
    if not _NODE_NAME.fullmatch(name):
        raise Rejected(f"{name!r} cannot be the name of a Node; use the name `kubectl get nodes` shows")
    return name


def flag(value: Any) -> bool:
    """true or false."""
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word not in _YES | _NO:
        raise Rejected(f"{value!r} is neither true nor false")
    return word in _YES


def number(low: float, high: float) -> Callable[[Any], float]:
    """A number in [low, high]."""

    def parse(value: Any) -> float:
        try:
            result = float(value if not isinstance(value, bool) else "no")
        except (TypeError, ValueError):
            raise Rejected(f"{value!r} is not a number") from None
        if not low <= result <= high:
            raise Rejected(f"{value} is not between {low:g} and {high:g}")
        return result

    return parse


def whole_number(low: int, high: int) -> Callable[[Any], int]:
    """A whole number in [low, high]."""
    check = number(low, high)

    def parse(value: Any) -> int:
        result = check(value)
        if result != int(result):
            raise Rejected(f"{value} is not a whole number")
        return int(result)

    return parse


def choice(*allowed: str) -> Callable[[Any], str]:
    """One of a few words, or of a few versions, which YAML takes for numbers."""

    def parse(value: Any) -> str:
        if str(value) not in allowed:
            raise Rejected(f"{value!r} is not one of {', '.join(allowed)}")
        return str(value)

    return parse


def path(value: Any) -> Path:
    """An absolute path; it need not exist."""
    if isinstance(value, Path):
        return value
    result = Path(text(value))
    if not result.is_absolute():
        raise Rejected(f"{value!r} is not an absolute path")
    return result


def optional_file(value: Any) -> Path | None:
    """A file that is there, or nothing."""
    if value is None or value == "":
        return None
    result = path(value)
    if not result.is_file():
        raise Rejected(f"{result} is not a file")
    return result


def host_port(value: Any) -> tuple[str, int]:
    """``127.0.0.1:9109``, ``[::1]:9109`` or ``:9109`` (every address). Port 0 means any."""
    if isinstance(value, tuple):
        return value
    host, colon, port = str(value).rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535 or (":" in host and not host.startswith("[")):
        raise Rejected(f"{value!r} is not ADDRESS:PORT, e.g. 127.0.0.1:9109 or [::1]:9109")
    return host.strip("[]") or "::", int(port)


def networks(value: Any) -> tuple[Net, ...]:
    """CIDRs, at most one a family: a list, or text with commas."""
    if isinstance(value, tuple):
        return value
    texts = value if isinstance(value, list) else filter(None, str(value).replace(" ", "").split(","))
    found: dict[int, Net] = {}
    for one in texts:
        try:
            net = parse_cidr(str(one))
        except ValueError as e:
            raise Rejected(f"{one!r}: {e}; write CIDRs, e.g. 10.90.0.0/16,fd00:90::/64") from None
        if found.setdefault(net.version, net) != net:
            raise Rejected(f"{found[net.version]} and {net} are of one family; name one that holds both")
    return tuple(found[version] for version in sorted(found))


def net_conf(value: Any) -> str:
    """The JSON of net-conf.json: given inline (as text or as YAML), or the path of a file that holds it."""
    if isinstance(value, dict):
        return msgspec.json.encode(value).decode()
    given = text(value)
    if given.startswith("{"):
        return given
    try:
        return path(given).read_text()
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else "not text"
        raise Rejected(f"{given}: {reason}; give flannel's net-conf.json, as a path or inline") from None


def words(value: Any) -> tuple[str, ...]:
    """A list of words, or text with commas."""
    if isinstance(value, tuple):
        return value
    given = value if isinstance(value, list) else str(value).split(",")
    found = tuple(dict.fromkeys(word for one in given if (word := text(one))))
    for one in found:
        if any(c.isspace() for c in one):
            raise Rejected(f"{one!r} has white space in it; write words with commas between them")
    return found


def folders(value: Any) -> tuple[str, ...]:
    """Absolute paths without ``..``, in a list or with commas between them."""
    found = tuple(one.rstrip("/") for one in words(value))
    for one in found:
        if not one.startswith("/") or ".." in one.split("/"):
            raise Rejected(f"{one!r} is not the absolute path of a folder")
    return found


_PROTOCOLS = {"tcp": TCP, "udp": UDP, "sctp": 132}


def failsafes(value: Any) -> tuple[Failsafe, ...]:
    """Ports as FelixConfiguration has them: objects with ``protocol``, ``port`` and perhaps ``net``; or as
    Felix's environment has them: ``tcp:22,udp:10.0.0.0/8:68,179``. ``none``, or an empty list, for none.
    """
    if isinstance(value, tuple):
        return value
    if isinstance(value, str):
        words = [word for word in value.replace(" ", "").split(",") if word]
        value = [] if words == ["none"] else words
    if not isinstance(value, list):
        raise Rejected(f"{value!r} is no list of ports; write e.g. tcp:22,udp:68, or none")
    return tuple(dict.fromkeys(_failsafe(one) for one in value))


def _failsafe(value: Any) -> Failsafe:
    if isinstance(value, dict):
        unknown = value.keys() - {"protocol", "port", "net"}
        if unknown:
            raise Rejected(f"{value!r}: {min(unknown)!r} is none of protocol, port, net")
        protocol, net, port = value.get("protocol") or "tcp", value.get("net") or "", value.get("port")
    else:
        rest, _, port = str(value).rpartition(":")
        protocol, _, net = rest.partition(":")
    number = _PROTOCOLS.get(str(protocol or "tcp").lower())
    if number is None:
        raise Rejected(f"{value!r}: {protocol!r} is none of tcp, udp, sctp")
    try:
        nets = (parse_cidr(str(net).strip("[]")),) if net else EVERYWHERE
    except ValueError as e:
        raise Rejected(f"{value!r}: {e}; write a CIDR, e.g. tcp:10.0.0.0/8:22") from None
    return Failsafe(number, whole_number(1, 65535)(port), nets)
