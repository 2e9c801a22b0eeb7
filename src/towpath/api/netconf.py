"""flannel's net-conf.json."""

from ipaddress import IPv4Network, IPv6Network
from typing import Any

import msgspec

from towpath.api.text import parse_cidr
from towpath.model.net import Net
from towpath.model.network import ClusterNetwork

_DEFAULT_PORT = 8472
_BACKENDS = ("vxlan", "host-gw")


class NetConfError(Exception):
    """net-conf.json cannot be used: ``field`` of it, the ``reason``, and a ``hint`` what to write instead."""

    def __init__(self, field: str, reason: str, hint: str) -> None:
        super().__init__(f"net-conf.json: {field} {reason}; {hint}")
        self.field, self.reason, self.hint = field, reason, hint


def parse_net_conf(text: str | bytes) -> ClusterNetwork:
    """The cluster's settings. Keys match in any case, as Go's decoder matches them. Raises NetConfError.

    ``EnableIPv4`` is on and ``EnableIPv6`` off unless said otherwise. SubnetLen, SubnetMin and the like
    belong to flannel's etcd mode and are ignored: node subnets are the Nodes' podCIDRs.
    """
    conf = _object(text)
    ipv4 = _network(conf, "Network", 4) if _flag(conf, "EnableIPv4", default=True) else None
    ipv6 = _network(conf, "IPv6Network", 6) if _flag(conf, "EnableIPv6", default=False) else None
    if ipv4 is None and ipv6 is None:
        raise NetConfError("EnableIPv4 and EnableIPv6", "are both off", "switch one on")
    backend = conf.get("backend")
    if not isinstance(backend, dict):
        hint = 'write "Backend": {"Type": "vxlan"}'
        raise NetConfError("Backend", "is missing (flannel's default, udp, is not supported)", hint)
    options = _fold(backend)
    kind = str(options.get("type", "")).lower()
    if kind not in _BACKENDS:
        raise NetConfError("Backend.Type", f"is {kind!r}", f"Towpath supports {' and '.join(_BACKENDS)}")
    vni = _number(options, "VNI", 1, 1, 2**24 - 1)
    return ClusterNetwork(
        ipv4=ipv4 if isinstance(ipv4, IPv4Network) else None,
        ipv6=ipv6 if isinstance(ipv6, IPv6Network) else None,
        backend="vxlan" if kind == "vxlan" else "host-gw",
        vni=vni,
        port=_number(options, "Port", 0, 0, 65_535) or _DEFAULT_PORT,
        mtu=_number(options, "MTU", 0, 0, 65_535),
        direct_routing=_flag(options, "DirectRouting", default=False),
        gbp=_flag(options, "GBP", default=False),
        learning=_flag(options, "Learning", default=False),
    )


def _object(text: str | bytes) -> dict[str, Any]:
    try:
        conf = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise NetConfError("the text", f"is not JSON ({error})", "see flannel's documentation") from error
    if not isinstance(conf, dict):
        raise NetConfError("the text", "is no JSON object", "see flannel's documentation")
    return _fold(conf)


def _fold(conf: dict[str, Any]) -> dict[str, Any]:
    return {key.lower(): value for key, value in conf.items()}


def _network(conf: dict[str, Any], field: str, family: int) -> Net:
    text = conf.get(field.lower())
    if not isinstance(text, str):
        raise NetConfError(field, "is missing", f"name the cluster's IPv{family} pod network, a CIDR")
    try:
        net = parse_cidr(text)
    except ValueError as error:
        raise NetConfError(field, f"{text!r} {error}", "write a CIDR") from error
    if net.version != family:
        raise NetConfError(field, f"{text!r} is not IPv{family}", f"write an IPv{family} CIDR")
    return net


def _flag(conf: dict[str, Any], field: str, *, default: bool) -> bool:
    value = conf.get(field.lower(), default)
    if not isinstance(value, bool):
        raise NetConfError(field, f"is {value!r}", "write true or false")
    return value


def _number(conf: dict[str, Any], field: str, default: int, low: int, high: int) -> int:
    value = conf.get(field.lower(), default)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise NetConfError(f"Backend.{field}", f"is {value!r}", f"write a number from {low} to {high}")
    return value
