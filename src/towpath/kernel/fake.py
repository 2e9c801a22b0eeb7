"""A kernel without a kernel: ``port.Kernel`` over plain values, with the side effects that matter.

It is shipped, and runs the same behaviour suite as ``LinuxKernel`` (tests/kernel/test_behaviour*.py).
"""

import os
from collections.abc import Iterable, Sequence
from errno import EINVAL, EOPNOTSUPP, EPERM
from typing import NamedTuple

from towpath.kernel.exact import check
from towpath.kernel.fake_inet import FakeInet
from towpath.kernel.fake_links import Event, FakeDevice, FakeLinks, home_of
from towpath.kernel.fake_nft import FakeNft
from towpath.kernel.fake_sysctl import FakeSysctls
from towpath.kernel.hints import hint
from towpath.kernel.port import KernelRefused
from towpath.model.net import Addr, Link, Redirect, Shaper, Veth, Vxlan
from towpath.model.nft import NftTable
from towpath.model.op import (
    Add,
    AddLink,
    Delete,
    DelLink,
    FlushConntrack,
    NftUpdate,
    Op,
    SetLink,
    SetSysctl,
)
from towpath.model.state import NetState


class Flow(NamedTuple):
    """A conntrack entry."""

    protocol: int
    source: Addr
    destination: Addr
    reply_source: Addr

    def concerns(self, op: FlushConntrack) -> bool:
        """Whether ``op`` deletes it."""
        return op.addr in self[1:] and op.protocol in (0, self.protocol)


class FakeKernel:
    """One fake network namespace, as a new one is: with a loopback device that is down.

    ``namespaces`` says which fake a descriptor given as ``pod_netns`` stands for; ``flows`` is its conntrack
    table.
    """

    def __init__(self, *, nft: bool = True) -> None:
        self.namespaces: dict[int, FakeKernel] = {}
        self.flows: set[Flow] = set()
        self._nft = FakeNft() if nft else None
        self._links = FakeLinks(self._changed)
        self._sysctls = FakeSysctls(lambda: self._links.devices, self._sysctl_changed)
        self._inet = FakeInet(self._links, self._ipv6_off)
        self._shapers: dict[str, Shaper] = {}
        self._redirects: dict[str, Redirect] = {}

    @property
    def tables(self) -> dict[str, NftTable]:
        """nftables' tables, for tests to tamper with."""
        return self._nft.tables if self._nft is not None else {}

    def close(self) -> None:
        """Nothing to close."""

    def observe(self, sysctls: Iterable[str] = (), table: str | None = None) -> NetState:
        """See ``port.Kernel``."""
        return NetState(
            links={name: device.view() for name, device in self._links.devices.items()},
            addresses=frozenset(self._inet.addresses.values()),
            routes=frozenset(self._inet.routes.values()),
            neighbours=frozenset(self._inet.neighbours.values()),
            fdb=frozenset(self._inet.fdb.values()),
            shapers=frozenset(self._shapers.values()),
            redirects=frozenset(self._redirects.values()),
            sysctls=self._sysctls.read(sysctls),
            nft=self.tables.get(table) if table is not None else None,
        )

    def apply(self, ops: Sequence[Op], pod_netns: int | None = None) -> None:
        """See ``port.Kernel``."""
        for op in ops:
            try:
                self._single(op, pod_netns)
            except OSError as error:
                number = error.errno or 0
                reason = error.strerror or os.strerror(number)
                raise KernelRefused(op.describe(), number, reason, hint(op, number)) from error
            except ValueError as error:
                raise KernelRefused(op.describe(), EINVAL, str(error)) from error

    def amend(self, update: NftUpdate) -> bool:
        """See ``port.Kernel``. It is certain of nothing that is not there."""
        if update.table not in self.tables:
            return False
        self.apply([update])
        return True

    def _single(self, op: Op, pod_netns: int | None) -> None:
        match op:
            case AddLink():
                self._check_underlay(op.link)
                homes = {fd: kernel._links for fd, kernel in self.namespaces.items()}
                pod = home_of(homes, pod_netns) if isinstance(op.link.kind, Veth) else None
                self._links.create(op.link, pod)
            case SetLink():
                self._links.change(op.name, op.mtu, op.mac, op.up)
            case DelLink():
                self._links.delete(op.name)
            case Add() | Delete():
                self._item(op)
            case SetSysctl():
                self._sysctls.write(op.path, op.value)
            case NftUpdate() if self._nft is not None:
                self._nft.apply(op)
            case FlushConntrack() if self._nft is not None:
                self.flows = {flow for flow in self.flows if not flow.concerns(op)}
            case _:
                raise OSError(EOPNOTSUPP, "this handle of a namespace has no netfilter")

    def _item(self, op: Add | Delete) -> None:
        item, remove = op.item, isinstance(op, Delete)
        if not remove:
            check(item)
        match item:
            case Shaper() if remove:
                self._shapers.pop(item.dev, None)
            case Redirect() if remove:
                self._redirects.pop(item.dev, None)
            case Shaper():
                self._links.get(item.dev)
                self._shapers[item.dev] = item
            case Redirect():
                self._links.get(item.dev)
                self._links.get(item.ifb)
                self._redirects[item.dev] = item
            case _:
                self._inet.drop(item) if remove else self._inet.put(item)

    def _check_underlay(self, link: Link) -> None:
        kind, new = link.kind, link.name not in self._links.devices
        if new and isinstance(kind, Vxlan) and kind.local.version == 6 and self._ipv6_off(kind.underlay):
            raise OSError(EPERM, "IPv6 support disabled by administrator")

    def _changed(self, event: Event, device: FakeDevice) -> None:
        self._inet.changed(event, device)
        if event == "up" and device.peer is not None:
            device.peer.home.tell("carrier", device.peer)
        if event == "made":
            self._sysctls.made(device.name)
        if event == "gone":
            name = device.name
            self._sysctls.gone(name)
            self._shapers.pop(name, None)
            self._redirects = {k: r for k, r in self._redirects.items() if name not in (r.dev, r.ifb)}

    def _ipv6_off(self, dev: str) -> bool:
        return (
            self._sysctls.read([f"net/ipv6/conf/{dev}/disable_ipv6"]).get(f"net/ipv6/conf/{dev}/disable_ipv6")
            == "1"
        )

    def _sysctl_changed(self, path: str) -> None:
        """disable_ipv6 takes a device's IPv6 state away, and gives its link-local address back."""
        *_, dev, leaf = path.split("/")
        if leaf == "disable_ipv6" and (device := self._links.devices.get(dev)) is not None:
            if self._ipv6_off(dev):
                self._inet.forget(dev, addresses=(6,), others=(6,))
            else:
                self._inet.make_link_local(device)
