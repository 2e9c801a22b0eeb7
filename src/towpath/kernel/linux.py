"""The running kernel, as ``port.Kernel``."""

import os
import socket
from collections.abc import Iterable, Sequence
from errno import EAFNOSUPPORT, EEXIST, EINVAL, ENODEV, EOPNOTSUPP
from fcntl import ioctl
from struct import Struct
from typing import TypeVar

from towpath.kernel import links, rtnl, sysctl, tc
from towpath.kernel.conntrack import Conntrack
from towpath.kernel.exact import check, impossible
from towpath.kernel.hints import hint
from towpath.kernel.netlink import Failure, Message, NetlinkSocket
from towpath.kernel.nft import Nft
from towpath.kernel.port import KernelRefused
from towpath.kernel.sysctl import Sysctls
from towpath.model.net import Address, Fdb, Link, Neighbour, Redirect, Route, Shaper, Veth
from towpath.model.nft import Key, NftChain, NftSet
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

_SIOCGIFINDEX = 0x8933
_IFREQ = Struct("=16si20x")
_T = TypeVar("_T")


class LinuxKernel:
    """One network namespace of the running kernel. Not to be shared between threads.

    Without arguments: the calling thread's namespace, for good, whoever calls later. With ``route`` (a route
    netlink socket) and ``sysctl`` (folders net/ipv4 and net/ipv6 below /proc/sys, either may be None): the
    namespace those were opened in; they stay the caller's. ``nft`` False: no nftables and no conntrack.
    Raises OSError, and KernelRefused if libnftables is missing.

    Operations that lie next to each other and touch no link's existence go to the kernel in one send. After a
    failure the rest of such a batch may have taken effect too.
    """

    def __init__(
        self,
        route: socket.socket | None = None,
        sysctl: tuple[int | None, int | None] | None = None,
        *,
        nft: bool = True,
    ) -> None:
        self._owned = route is None
        self._route = NetlinkSocket.open() if route is None else NetlinkSocket(route)
        if sysctl is not None:
            self._sysctls = Sysctls.handed(*sysctl)
        else:
            self._sysctls = Sysctls.here() if self._owned else Sysctls.handed(None, None)
        self._nft = Nft() if nft else None
        self._conntrack = Conntrack() if nft else None

    def close(self) -> None:
        """Close what was opened here."""
        if self._owned:
            self._route.close()
        self._sysctls.close()
        if self._nft is not None:
            self._nft.close()
        if self._conntrack is not None:
            self._conntrack.close()

    def observe(self, sysctls: Iterable[str] = (), table: str | None = None) -> NetState:
        """See ``port.Kernel``. Routes the kernel made itself, and passing neighbours, are not told.

        A veth whose other end may not be looked at has ``Veth(peer="", peer_mac="", peer_mtu=0)``.
        """
        devices = links.devices(self._route)
        names = {dev.index: dev.name for dev in devices}
        dump = self._route.dump
        routes = dump(rtnl.RTM_GETROUTE, rtnl.DUMP_ROUTES4) + dump(rtnl.RTM_GETROUTE, rtnl.DUMP_ROUTES6)
        neighbours = dump(rtnl.RTM_GETNEIGH, rtnl.DUMP_NEIGHBOURS4)
        neighbours += dump(rtnl.RTM_GETNEIGH, rtnl.DUMP_NEIGHBOURS6)
        shapers, redirects = tc.observe(self._route, names)
        return NetState(
            links=links.to_links(self._route, devices),
            addresses=_known(
                rtnl.decode_address(p, names) for p in dump(rtnl.RTM_GETADDR, rtnl.DUMP_ADDRESSES)
            ),
            routes=_known(rtnl.decode_route(p, names) for p in routes),
            neighbours=_known(rtnl.decode_neighbour(p, names) for p in neighbours),
            fdb=_known(rtnl.decode_fdb(p, names) for p in dump(rtnl.RTM_GETNEIGH, rtnl.DUMP_FDB)),
            shapers=shapers,
            redirects=redirects,
            sysctls=self._sysctls.read(sysctls),
            nft=self._nft.observe(table) if table is not None and self._nft is not None else None,
        )

    def remaining(self, table: str, decl: NftSet) -> dict[Key, int]:
        """The elements of a set with timeouts, and the milliseconds each has left; none if there is no set.

        Raises KernelRefused.
        """
        return self._nft.remaining(table, decl) if self._nft is not None else {}

    def apply(self, ops: Sequence[Op], pod_netns: int | None = None) -> None:
        """See ``port.Kernel``."""
        batch: list[SetLink | Add | Delete] = []
        for op in ops:
            if isinstance(op, SetLink | Add | Delete):
                batch.append(op)
                continue
            self._flush(batch)
            self._single(op, pod_netns)
        self._flush(batch)

    def counters(self, table: str, name: str) -> dict[Key, tuple[int, int]]:
        """Packets and bytes of each element of set ``name`` of ``inet TABLE``. Raises KernelRefused."""
        return self._nft.counters(table, name) if self._nft is not None else {}

    def rule_counters(self, table: str, chain: NftChain) -> list[tuple[int, int] | None]:
        """Those of a chain's rules; None where a rule has none, or is not there. Raises KernelRefused."""
        return self._nft.rule_counters(table, chain) if self._nft is not None else []

    def amend(self, update: NftUpdate) -> bool:
        """See ``port.Kernel``."""
        if self._nft is None:
            raise KernelRefused(update.describe(), EOPNOTSUPP, "this handle of a namespace has no netfilter")
        return self._nft.amend(update)

    def _single(
        self, op: AddLink | DelLink | SetSysctl | NftUpdate | FlushConntrack, pod_netns: int | None
    ) -> None:
        match op:
            case AddLink():
                self._add_link(op, pod_netns)
            case DelLink():
                self._delete_link(op)
            case SetSysctl():
                try:
                    self._sysctls.write(op.path, op.value)
                except OSError as error:
                    raise _refused(op, error, sysctl.hint(error.errno or 0)) from error
            case NftUpdate() if self._nft is not None:
                self._nft.apply(op)
            case FlushConntrack() if self._conntrack is not None:
                try:
                    self._conntrack.flush(op.addr, op.protocol)
                except OSError as error:
                    raise _refused(op, error) from error
            case _:
                raise KernelRefused(op.describe(), EOPNOTSUPP, "this handle of a namespace has no netfilter")

    def _flush(self, batch: list[SetLink | Add | Delete]) -> None:
        """Send what has gathered in ``batch`` and empty it."""
        if not batch:
            return
        messages: list[Message] = []
        origin: list[Op] = []
        indexes: dict[str, int] = {}
        refused: KernelRefused | None = None
        for op in batch:
            try:
                made = self._messages(op, indexes)
            except (OSError, ValueError) as error:
                if isinstance(op, Delete) and isinstance(error, OSError) and error.errno == ENODEV:
                    continue
                refused = _refused(op, error)
                break
            messages += made
            origin += [op] * len(made)
        batch.clear()
        if messages and (failures := self._request(origin[0], messages)):
            first = failures[0]
            raise _failed(origin[first.place], first)
        if refused is not None:
            raise refused

    def _messages(self, op: SetLink | Add | Delete, indexes: dict[str, int]) -> Sequence[Message]:
        if isinstance(op, SetLink):
            return (links.change(self._index(op.name, indexes), op.mtu, op.mac, op.up),)
        item, remove = op.item, isinstance(op, Delete)
        if not remove:
            check(item)
        elif impossible(item):
            return ()
        index = self._index(item.dev, indexes)
        match item:
            case Route():
                return (rtnl.encode_route(item, index, remove=remove),)
            case Neighbour():
                return (rtnl.encode_neighbour(item, index, remove=remove),)
            case Address():
                return (rtnl.encode_address(item, index, remove=remove),)
            case Fdb():
                return (rtnl.encode_fdb(item, index, remove=remove),)
            case Shaper():
                return tc.encode_shaper(item, index, remove=remove)
            case Redirect():
                ifb = 0 if remove else self._index(item.ifb, indexes)
                return tc.encode_redirect(item, index, ifb, remove=remove)

    def _add_link(self, op: AddLink, pod_netns: int | None) -> None:
        link = op.link
        try:
            message = links.create(link, self._index, pod_netns)
        except (OSError, ValueError) as error:
            raise _refused(op, error) from error
        failures = self._request(op, [message])
        if failures:
            if failures[0].errno == EEXIST and self._adopt(link):
                return
            raise _failed(op, failures[0])
        index = self._index(link.name)
        follow = [links.no_link_local(index)._replace(forgive=frozenset({EAFNOSUPPORT, EOPNOTSUPP}))]
        if link.up:
            follow.append(links.change(index, up=True))
        if failures := self._request(op, follow):
            self._request(op, [links.delete(index)])
            raise _failed(op, failures[0])

    def _adopt(self, link: Link) -> bool:
        """Whether the device of that name is just what is wanted; then it is set up.

        Never so for a veth: that its other end is in the right namespace cannot be told.
        """
        found = links.to_links(self._route, links.devices(self._route)).get(link.name)
        if found is None or isinstance(link.kind, Veth) or found.kind != link.kind:
            return False
        if (link.mtu and link.mtu != found.mtu) or (link.mac and link.mac != found.mac):
            return False
        if link.master != found.master:
            return False
        if link.up and not found.up:
            self.apply([SetLink(link.name, up=True)])
        return True

    def _delete_link(self, op: DelLink) -> None:
        try:
            index = self._index(op.name)
        except OSError as error:
            if error.errno == ENODEV:
                return
            raise _refused(op, error) from error
        failures = self._request(op, [links.delete(index)._replace(forgive=frozenset({ENODEV}))])
        if failures:
            raise _failed(op, failures[0])

    def _request(self, op: Op, messages: Sequence[Message]) -> list[Failure]:
        try:
            return self._route.request(messages)
        except OSError as error:
            raise _refused(op, error) from error

    def _index(self, name: str, cache: dict[str, int] | None = None) -> int:
        """The device's index in the socket's namespace. Raises OSError with ENODEV.

        By ioctl on the netlink socket: a microsecond or two, where RTM_GETLINK takes thirty.
        """
        if cache is not None and (known := cache.get(name)) is not None:
            return known
        raw = name.encode()
        if not 0 < len(raw) < 16:
            raise OSError(EINVAL, f"{name!r} is no interface name")
        index: int = _IFREQ.unpack(ioctl(self._route.socket, _SIOCGIFINDEX, _IFREQ.pack(raw, 0)))[1]
        if cache is not None:
            cache[name] = index
        return index


def _known(items: Iterable[_T | None]) -> frozenset[_T]:
    return frozenset(item for item in items if item is not None)


def _failed(op: Op, failure: Failure) -> KernelRefused:
    return KernelRefused(op.describe(), failure.errno, failure.reason(), hint(op, failure.errno))


def _refused(op: Op, error: OSError | ValueError, advice: str = "") -> KernelRefused:
    if isinstance(error, OSError):
        number = error.errno or 0
        return KernelRefused(
            op.describe(), number, error.strerror or os.strerror(number), advice or hint(op, number)
        )
    return KernelRefused(op.describe(), EINVAL, str(error))
