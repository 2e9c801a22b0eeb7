"""Attachments on the running kernel: the ports filled in."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from towpath.agent.admission import UNRESTRICTED, Admission
from towpath.agent.attach_conntrack import Connections
from towpath.agent.attach_links import LinkRemover
from towpath.agent.attach_netlink import NodeNetlink
from towpath.agent.attach_pods import PodDirectory
from towpath.agent.attach_settings import AttachSettings
from towpath.agent.attach_wiring import Wiring
from towpath.agent.attachments import Attachments
from towpath.cni.request import PodDescriptors
from towpath.ipam.store import LeaseStore
from towpath.kernel.linux import LinuxKernel
from towpath.kernel.port import Kernel


@contextlib.asynccontextmanager
async def attachments(
    store: LeaseStore,
    host: Kernel,
    pods: PodDirectory | None,
    settings: AttachSettings,
    kernel_lock: asyncio.Lock,
    admission: Admission = UNRESTRICTED,
) -> AsyncIterator[Attachments]:
    """The handler for ``cni.server.serve``, in the calling thread's network namespace.

    ``store`` may not be open yet, or unusable: STATUS says so and tries it again. On leaving, removals under
    way are waited for, so close the server first. Raises OSError.
    """
    with (
        contextlib.closing(NodeNetlink()) as netlink,
        contextlib.closing(Connections()) as connections,
        contextlib.closing(LinkRemover(_this_node)) as remover,
    ):
        wiring = Wiring(host, pod_kernel, netlink, remover, connections)
        yield Attachments(store, wiring, pods, settings, kernel_lock, netlink.routes, admission)


def _this_node() -> contextlib.AbstractContextManager[Kernel]:
    return contextlib.closing(LinuxKernel(nft=False))


def pod_kernel(descriptors: PodDescriptors) -> Kernel:
    """The pod's namespace, through what the shim handed over. Needs no closing."""
    folders = descriptors.sysctl
    return LinuxKernel(descriptors.netlink, (folders.get("net/ipv4"), folders.get("net/ipv6")), nft=False)
