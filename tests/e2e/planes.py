"""A real control plane in a network namespace of its own, and clients of it."""

import contextlib
from ipaddress import ip_interface

from towpath.kernel.linux import LinuxKernel
from towpath.kernel.netns import new_netns, route_socket_in
from towpath.model.net import Address
from towpath.model.op import Add, SetLink


def add_addresses(*addresses: str) -> None:
    """Put ``addresses`` on the loopback of the tests' own network namespace."""
    with contextlib.closing(LinuxKernel(nft=False)) as kernel:
        kernel.apply([Add(item=Address(dev="lo", interface=ip_interface(a))) for a in addresses])


def room(*addresses: str) -> int:
    """A network namespace with loopback up and ``addresses`` on it."""
    netns = new_netns()
    with route_socket_in(netns) as route, contextlib.closing(LinuxKernel(route, nft=False)) as kernel:
        kernel.apply([SetLink(name="lo", up=True)])
        kernel.apply([Add(item=Address(dev="lo", interface=ip_interface(a))) for a in addresses])
    return netns
