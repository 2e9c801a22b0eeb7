"""A node in a network namespace, with pods wired as ADD does it, and TCP connections between them."""

import os
import signal
import socket
import struct
from collections.abc import Callable
from ipaddress import ip_address
from time import monotonic

from towpath.desired.names import host_ifname
from towpath.desired.pods import born, pod_wiring
from towpath.kernel.linux import LinuxKernel
from towpath.kernel.netns import new_netns, run_in
from towpath.model.attachment import Attachment, PodRef
from towpath.model.op import AddLink, Op
from towpath.model.state import NetState, Scope
from towpath.reconcile.diff import diff

PORT = 8080
# The client's closing resets the connection: nothing stays behind that would use up ports.
_RESET = struct.pack("ii", 1, 0)
_AT_ONCE = 10  # connections between two looks at the clock; of the slowest peer that is a turn
# What is left of a closed connection is forgotten soon: some ten thousand are made each second.
_SYSCTLS = {"net/ipv4/ip_forward": "1", "net/netfilter/nf_conntrack_tcp_timeout_close": "1"}


class Node:
    """``add`` wires pods; the firewall is the caller's."""

    def __init__(self) -> None:
        self.netns = new_netns()
        self.kernel = run_in(self.netns, LinuxKernel)
        self.attachments: list[Attachment] = []
        self._pods: dict[str, int] = {}
        self._servers: list[int] = []

    def add(self, name: str, address: str) -> Attachment:
        """A pod ``default/NAME``."""
        att = Attachment(
            container_id=name,
            ifname="eth0",
            network="bench",
            netns="",
            host_ifname=host_ifname("default", name),
            addresses=(ip_address(address),),
            mac=f"02:00:00:00:00:{len(self._pods) + 1:02x}",
            mtu=1500,
            boot_id="bench",
            pod=PodRef(namespace="default", name=name),
        )
        pod = self._pods[name] = new_netns()
        wiring = pod_wiring(att)
        ops = diff(NetState(), wiring.host, Scope())
        links: list[Op] = [op for op in ops if isinstance(op, AddLink)]
        self.kernel.apply(links, pod_netns=pod)
        inside = run_in(pod, LinuxKernel)
        inside.apply(diff(born(att), wiring.inside, Scope()))
        inside.close()
        self.kernel.apply([op for op in ops if op not in links])
        self.attachments.append(att)
        return att

    def settle(self) -> None:
        """Once the firewall is in force: conntrack's settings are there no sooner."""
        run_in(self.netns, _write_sysctls)

    def serve(self, name: str) -> None:
        """Answer connections to a pod, from a process of its own."""
        listener = run_in(self._pods[name], lambda: socket.create_server(("", PORT), backlog=4096))
        self._servers.append(_forked(lambda: _accept(listener)))
        listener.close()

    def connections(self, source: str, to: str, seconds: float) -> float:
        """New TCP connections per second, one after the other. Raises OSError if one fails."""
        return run_in(self._pods[source], lambda: _connect(to, seconds))

    def close(self) -> None:
        """End the servers and forget the namespaces."""
        for process in self._servers:
            os.kill(process, signal.SIGTERM)
            os.waitpid(process, 0)
        self.kernel.close()
        for netns in (self.netns, *self._pods.values()):
            os.close(netns)


def _write_sysctls() -> None:
    for path, value in _SYSCTLS.items():
        with open(f"/proc/sys/{path}", "w") as file:  # noqa: PTH123 (of this thread's namespace)
            file.write(value)


def _forked(work: Callable[[], None]) -> int:
    process = os.fork()
    if not process:
        try:
            work()
        finally:
            os._exit(1)
    return process


def _accept(listener: socket.socket) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    while True:
        connection, _ = listener.accept()
        connection.close()


def _connect(to: str, seconds: float) -> float:
    begun = monotonic()
    count = 0
    while (now := monotonic()) < begun + seconds:
        for _ in range(_AT_ONCE):
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
                client.settimeout(3)
                client.connect((to, PORT))
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        count += _AT_ONCE
    return count / (now - begun)
