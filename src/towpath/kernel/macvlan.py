"""macvlan devices, made where they are to be: in a pod's namespace, over a device of the node.

Source: Linux ``drivers/net/macvlan.c``, ``IFLA_MACVLAN_MODE``.
"""

from struct import Struct

from towpath.kernel.hints import hint
from towpath.kernel.links import RTM_NEWLINK
from towpath.kernel.netlink import NLM_F_CREATE, NLM_F_EXCL, Message, NetlinkSocket
from towpath.kernel.port import KernelRefused
from towpath.kernel.wire import attr, mac_bytes, nested, text, u32
from towpath.model.op import DelLink

MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}

_IFINFO = Struct("=BBHiII")
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_LINKINFO, _IFLA_NET_NS_FD = 1, 3, 4, 5, 18, 28
_INFO_KIND, _INFO_DATA, _MACVLAN_MODE = 1, 2, 1


def create_macvlan(
    netlink: NetlinkSocket, name: str, master: int, mode: str, netns: int, *, mtu: int = 0, mac: str = ""
) -> None:
    """Make one, still down, in the namespace of descriptor ``netns``, over the device with index ``master``.

    ``mtu`` in bytes, 0 for the master's; ``mac`` empty for any. Raises KernelRefused.
    """
    body = _IFINFO.pack(0, 0, 0, 0, 0, 0) + text(_IFLA_IFNAME, name) + u32(_IFLA_LINK, master)
    body += u32(_IFLA_MTU, mtu) if mtu else b""
    body += attr(_IFLA_ADDRESS, mac_bytes(mac)) if mac else b""
    body += u32(_IFLA_NET_NS_FD, netns)
    info = text(_INFO_KIND, "macvlan") + nested(_INFO_DATA, u32(_MACVLAN_MODE, MODES[mode]))
    what = f"add link {name} macvlan mode {mode} over device {master}"
    message = Message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body + nested(_IFLA_LINKINFO, info))
    try:
        failures = netlink.request([message])
    except OSError as error:
        raise KernelRefused(what, error.errno or 0, error.strerror or str(error)) from error
    if failures:
        first = failures[0]
        raise KernelRefused(what, first.errno, first.reason(), hint(DelLink(name), first.errno))
