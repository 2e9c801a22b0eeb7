"""CNI_ARGS: what a runtime adds for one container, as ``KEY=VALUE;KEY=VALUE``."""

from ipaddress import ip_address, ip_interface

import msgspec

from towpath.cni.errors import CniError, ErrorCode
from towpath.cni.result import plain
from towpath.cni.types import NetConf
from towpath.model.net import Addr, Iface

_KUBERNETES = ("K8S_POD_NAMESPACE", "K8S_POD_NAME", "K8S_POD_INFRA_CONTAINER_ID", "K8S_POD_UID")
_KNOWN = frozenset(("IgnoreUnknown", "IP", "MAC", *_KUBERNETES))
_TRUE, _FALSE = ("1", "true"), ("0", "false")


def parse_args(text: str) -> dict[str, str]:
    """CNI_ARGS by key; of equal keys the last counts.

    Keys we do not know are an error unless ``IgnoreUnknown`` is true (CNI's ``types.LoadArgs``).
    Raises CniError BAD_ENVIRONMENT.
    """
    found: dict[str, str] = {}
    for pair in filter(None, text.split(";")):
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise CniError(ErrorCode.BAD_ENVIRONMENT, f"CNI_ARGS: {pair!r} is not KEY=VALUE")
        found[key] = value
    ignore = found.get("IgnoreUnknown", "0").lower()
    if ignore not in (*_TRUE, *_FALSE):
        raise CniError(
            ErrorCode.BAD_ENVIRONMENT, f"CNI_ARGS: IgnoreUnknown={ignore!r} is neither true nor false"
        )
    unknown = sorted(found.keys() - _KNOWN)
    if unknown and ignore in _FALSE:
        raise CniError(
            ErrorCode.BAD_ENVIRONMENT,
            f"CNI_ARGS: unknown {', '.join(unknown)}",
            "a runtime that passes them on purpose also sets IgnoreUnknown=1",
        )
    return found


def parse_ip(text: str) -> Addr | Iface:
    """An address, or an interface where a prefix length is given. Raises ValueError."""
    return ip_interface(plain(text)) if "/" in text else ip_address(plain(text))


def parse_mac(text: str) -> str:
    """A unicast Ethernet address in lower case with colons. Raises ValueError."""
    octets = text.lower().replace("-", ":").split(":")
    if len(octets) != 6 or any(len(o) != 2 or not set(o) <= set("0123456789abcdef") for o in octets):
        raise ValueError(f"{text!r} is not an Ethernet address")
    if int(octets[0], 16) & 1 or not any(int(o, 16) for o in octets):
        raise ValueError(f"{text!r} is not a unicast Ethernet address")
    return ":".join(octets)


def with_args(config: NetConf, args: dict[str, str]) -> NetConf:
    """The configuration with IP and MAC of CNI_ARGS among what the runtime asks for.

    As the reference plugins do, addresses add up, and a MAC asked for by capability wins.
    Raises CniError BAD_ENVIRONMENT.
    """
    runtime = config.runtime_config
    try:
        ips = tuple(parse_ip(text) for text in args.get("IP", "").split(",") if text)
        mac = parse_mac(args["MAC"]) if args.get("MAC") else None
    except ValueError as err:
        raise CniError(ErrorCode.BAD_ENVIRONMENT, "CNI_ARGS: invalid IP or MAC", str(err)) from err
    ips = runtime.ips + tuple(ip for ip in ips if ip not in runtime.ips)
    if ips == runtime.ips and (runtime.mac or mac) == runtime.mac:
        return config
    runtime = msgspec.structs.replace(runtime, ips=ips, mac=runtime.mac or mac)
    return msgspec.structs.replace(config, runtime_config=runtime)
