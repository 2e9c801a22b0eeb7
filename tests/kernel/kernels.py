"""Two kernels for one behaviour suite: the fake, and the running one in namespaces of its own."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from towpath.kernel.fake import FakeKernel
from towpath.kernel.linux import LinuxKernel
from towpath.kernel.netns import new_netns, run_in
from towpath.kernel.port import Kernel


@dataclass
class Pair:
    """A node's namespace and a pod's; ``netns`` is the pod's descriptor."""

    node: Kernel
    pod: Kernel
    netns: int


@contextmanager
def fake_pair() -> Iterator[Pair]:
    """Two fakes."""
    node, pod = FakeKernel(), FakeKernel()
    node.namespaces[1000] = pod
    yield Pair(node, pod, 1000)


@contextmanager
def linux_pair() -> Iterator[Pair]:
    """Two new namespaces of the running kernel."""
    with linux_kernel() as (node, _), linux_kernel() as (pod, netns):
        yield Pair(node, pod, netns)


@contextmanager
def linux_kernel() -> Iterator[tuple[LinuxKernel, int]]:
    """A new namespace: its kernel and its descriptor."""
    netns = new_netns()
    kernel = run_in(netns, LinuxKernel)
    try:
        yield kernel, netns
    finally:
        kernel.close()
        os.close(netns)


BOTH = [fake_pair, linux_pair]
