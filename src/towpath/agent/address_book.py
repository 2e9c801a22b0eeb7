"""Who has an address, for people to read: made anew in a thread, and only when somebody asks in vain."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address

from towpath.api.core import Node, Pod
from towpath.kube.codec import Key
from towpath.model.net import Addr

_SHARE, _SECONDS = 0.05, 5.0  # of its time it may be making itself; seconds that it rests at most


class AddressBook:
    """``pods`` and ``nodes`` are the cluster's, as they are now. Pods that are over, and those in their
    node's network, have no address of their own.
    """

    def __init__(
        self,
        pods: Callable[[], Mapping[Key, Pod]],
        nodes: Callable[[], Mapping[Key, Node]],
        clock: Callable[[], float],
    ) -> None:
        self._pods, self._nodes, self._clock = pods, nodes, clock
        self._names: dict[Addr, str] = {}
        self._due = float("-inf")

    async def names(self, addresses: Iterable[Addr]) -> dict[Addr, str]:
        """``Pod/NAMESPACE/NAME`` or ``Node/NAME``, of those that are known; at worst five seconds old."""
        wanted = set(addresses)
        begun = self._clock()
        if begun >= self._due and not all(map(self._holds, wanted)):
            pods, nodes = list(self._pods().values()), list(self._nodes().values())
            self._names = await asyncio.to_thread(_by_address, pods, nodes)
            now = self._clock()
            self._due = now + min(_SECONDS, (now - begun) / _SHARE)
        return {address: self._names[address] for address in wanted if address in self._names}

    def _holds(self, address: Addr) -> bool:
        """Whether it is known, and still true."""
        kind, _, rest = self._names.get(address, "").partition("/")
        if kind != "Pod":
            return kind == "Node"
        namespace, _, name = rest.partition("/")
        pod = self._pods().get((namespace, name))
        return pod is not None and str(address) in _addresses(pod)


def _by_address(pods: Iterable[Pod], nodes: Iterable[Node]) -> dict[Addr, str]:
    names: dict[Addr, str] = {}
    for node in nodes:
        for told in node.status.addresses or ():
            _put(names, told.address, f"Node/{node.metadata.name}")
    for pod in pods:
        if pod.status.phase not in ("Succeeded", "Failed"):
            for text in _addresses(pod):
                _put(names, text, f"Pod/{pod.metadata.namespace}/{pod.metadata.name}")
    return names


def _addresses(pod: Pod) -> set[str]:
    if pod.spec.host_network:
        return set()
    return {one.ip for one in pod.status.pod_ips or ()} or {pod.status.pod_ip}


def _put(names: dict[Addr, str], text: str, name: str) -> None:
    try:
        names[ip_address(text)] = name
    except ValueError:
        return  # a host name, or nothing yet
