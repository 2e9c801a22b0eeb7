"""A call of the runtime as the agent's handler sees it."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from towpath.api.core import Pod
from towpath.cni.result import Result
from towpath.cni.types import NetConf
from towpath.cni.wire import Executed

PLUGIN, IPAM = "towpath-cni", "towpath-ipam"


class PodDescriptors:
    """What the shim opened inside the pod's namespace.

    ``netns`` the namespace itself; ``netlink`` a route netlink socket that lives in it; ``sysctl`` folders by
    their path below /proc/sys, ``net/ipv4`` and (where the kernel has IPv6) ``net/ipv6``: opened from there,
    a sysctl is the pod's, whichever namespace the opener is in. Closed by the server when the call ends.
    """

    def __init__(self, netns: int, netlink: socket.socket, sysctl: Mapping[str, int]) -> None:
        self.netns, self.netlink, self.sysctl = netns, netlink, sysctl

    def close(self) -> None:
        """Close all of them."""
        self.netlink.close()
        for fd in (self.netns, *self.sysctl.values()):
            os.close(fd)


@dataclass(kw_only=True)
class Request:
    """One call.

    ``netns`` is the path, to be stored and shown only; ``descriptors`` is None for STATUS and GC, for DEL
    when the namespace is gone, never for ADD and CHECK. ``args`` is CNI_ARGS, ``path`` CNI_PATH's folders.
    ``environment`` is the CNI_ variables as they came, for delegates. ``request_id`` is the same in every
    attempt the shim makes for one call of the runtime. ``pod`` is what was found of it, None before.
    ``cancelled`` is set when the caller hung up: what ADD does from then on will be undone.
    """

    command: str
    config: NetConf
    container_id: str = ""
    netns: str = ""
    ifname: str = ""
    args: Mapping[str, str] = field(default_factory=dict)
    path: tuple[str, ...] = ()
    request_id: str = ""
    descriptors: PodDescriptors | None = None
    netns_error: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    pod: Pod | None = None
    executor: Callable[[str, Mapping[str, str], bytes, float | None], Awaitable[Executed]] | None = None
    opener: Callable[[str, str], Awaitable[list[int]]] | None = None

    async def execute(
        self, path: str, env: Mapping[str, str], stdin: bytes, seconds: float | None = None
    ) -> Executed:
        """Have the shim execute a plugin, as root in the host's namespaces, and kill it after ``seconds``.

        ``path`` must lie directly in a folder of CNI_PATH; ``env`` holds CNI_ variables only, which replace
        the caller's. Raises ConnectionError when the caller hangs up.
        """
        if self.executor is None:
            raise ConnectionError("this call has no shim behind it")
        return await self.executor(path, env, stdin, seconds)

    async def netfilter(self, path: str) -> tuple[socket.socket, socket.socket]:
        """Sockets of nftables in the pod's namespace at ``path``: to change its tables by, and to ask by.

        Raises OSError; ConnectionError when the caller hangs up.
        """
        one, two = map(_socket, await self._hand_over("netfilter", path))
        return one, two

    async def kubelet(self, path: str) -> socket.socket:
        """A connection to the kubelet's ``pod-resources/kubelet.sock``, which only root may connect to.

        Raises OSError; ConnectionError when the caller hangs up.
        """
        [one] = await self._hand_over("kubelet", path)
        return _socket(one)

    async def _hand_over(self, what: str, path: str) -> list[int]:
        if self.opener is None:
            raise ConnectionError("this call has no shim behind it")
        return await self.opener(what, path)


def is_for_ipam(config: NetConf) -> bool:
    """Whether a call is another plugin's to its IPAM plugin, which is ours as well."""
    return config.ipam.type == IPAM and config.type != PLUGIN


def _socket(fd: int) -> socket.socket:
    found = socket.socket(fileno=fd)
    found.setblocking(False)
    return found


class Handler(Protocol):
    """Does what calls ask for. Every method may raise CniError; anything else is reported as INTERNAL.

    Calls for one attachment never overlap; calls for different ones do. ``delete`` must succeed for anything,
    any number of times. ``add`` undoes what it did before it raises.
    """

    async def add(self, r: Request) -> Result:
        """Attach the container."""
        ...

    async def delete(self, r: Request) -> None:
        """Detach it."""
        ...

    async def check(self, r: Request) -> None:
        """Raise if the kernel is not what ADD promised."""
        ...

    async def status(self, r: Request) -> None:
        """Raise UNAVAILABLE or UNAVAILABLE_LIMITED if ADD could not work now. Must answer from memory."""
        ...

    async def gc(self, r: Request) -> None:
        """Clean up what belongs to no attachment of ``r.config.valid_attachments``."""
        ...
