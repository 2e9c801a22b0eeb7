"""What an operator can do when the kernel refused something."""

from errno import EBUSY, EEXIST, EHOSTUNREACH, EINVAL, ENETDOWN, ENETUNREACH, ENODEV, EOPNOTSUPP, EPERM
from ipaddress import IPv6Address

from towpath.model.net import Link, Redirect, Route, Shaper, Vxlan
from towpath.model.op import Add, AddLink, Delete, Op, SetLink

_ANY = {
    EPERM: "NET_ADMIN is needed in the user namespace that owns the network namespace",
    ENODEV: "the device is not there",
}


def listing_hint(errno: int) -> str:
    """The same for a listing that was refused."""
    return _ANY.get(errno, "")


def hint(op: Op, errno: int) -> str:
    """A phrase for ``errno`` in answer to ``op``; empty where the kernel's words say it all."""
    match op, errno:
        case AddLink(), code if code == EEXIST:
            return "another device has this name, VNI and port, or the same name exists in the pod"
        case AddLink(link=Link(kind=Vxlan(local=IPv6Address()))), code if code == EPERM:
            return f"{_ANY[EPERM]}, and IPv6 enabled on the underlay"
        case AddLink(), code if code == EOPNOTSUPP:
            return "the kernel lacks this kind of device (module vxlan, veth, ifb or bridge)"
        case AddLink(), code if code == ENODEV:
            return "the device below it, or its master, is not there"
        case SetLink(), code if code == EINVAL:
            return "a tunnel's mtu is bounded by its underlay's: 50 bytes less for IPv4, 70 for IPv6"
        case Add(item=Route()) | Delete(item=Route()), code if code in (ENETUNREACH, EHOSTUNREACH, EINVAL):
            return "the gateway is not on the device's link: add the way to it first, or use onlink"
        case Add(item=Route()), code if code == ENETDOWN:
            return "set the device up first"
        case Add(item=Shaper() | Redirect()), code if code in (EOPNOTSUPP, EINVAL):
            return "the kernel needs NET_SCH_TBF, NET_SCH_INGRESS, NET_CLS_U32 and NET_ACT_MIRRED"
        case _, code if code == EBUSY:
            return "something still uses it"
    return _ANY.get(errno, "")
