"""Two pods with one address, by the API server: noticed as it happens, and the newer one is kept apart.

The agent of the newer pod's node takes the address away from it: no route leads to the pod by it, and nothing
is sent from it, so that whoever talks to the older pod talks to that one alone. The pod keeps its lease and
its link, and has the address again when the older pod is gone. A contest counts when it is seen twice:
kubelets write a pod's new address a moment after its old one was given back.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address

import msgspec

from towpath.api.core import Pod
from towpath.kube.codec import Key
from towpath.log import get_logger
from towpath.model.finding import Finding
from towpath.model.net import Addr

log = get_logger("towpath.ipam")

_LOOK_EVERY = 1.0
_OVER = ("Succeeded", "Failed")


class Contest(msgspec.Struct, frozen=True, kw_only=True):
    """``newer``, a pod of this node with ``uid``, has the address of ``older``, on ``node``: each is
    NAMESPACE/NAME.
    """

    address: Addr
    newer: str
    uid: str
    older: str
    older_uid: str
    node: str

    @property
    def message(self) -> str:
        """What is said of the newer pod."""
        return (
            f"has {self.address}, and so has the older Pod/{self.older} on {self.node}: "
            "it is kept apart, nothing is sent to it or from it by that address"
        )

    @property
    def fix(self) -> str:
        """And what is to be done."""
        return f"delete Pod/{self.newer}: it gets another address"


class Twins:
    """``pods`` as the API has them, by namespace and name; ``changed`` is called when ``standing`` did."""

    def __init__(
        self, node_name: str, pods: Callable[[], Mapping[Key, Pod]], changed: Callable[[], None]
    ) -> None:
        self._node, self._pods, self._changed = node_name, pods, changed
        self._texts: dict[Key, tuple[str, ...]] = {}
        self._owners: dict[str, tuple[Key, ...]] = {}
        self._shared: set[str] = set()
        self._sharing = asyncio.Event()
        self._suspected: frozenset[Contest] = frozenset()
        self.standing: frozenset[Contest] = frozenset()
        """What the newer pods of this node lose."""

    def pod_changed(self, key: Key | None) -> None:
        """An event of the reflector of pods. Costs the same however many there are."""
        if key is None:
            return
        before, now = self._texts.pop(key, ()), _addresses(self._pods().get(key))
        if now:
            self._texts[key] = now
        if now == before:
            return
        for text in {*before, *now}:
            owners = tuple(one for one in self._owners.get(text, ()) if one != key)
            owners = (*owners, key) if text in now else owners
            self._set(text, owners)

    def _set(self, text: str, owners: tuple[Key, ...]) -> None:
        if owners:
            self._owners[text] = owners
        else:
            self._owners.pop(text, None)
        if len(owners) > 1:
            self._shared.add(text)
            self._sharing.set()
        else:
            self._shared.discard(text)

    def elsewhere(self, address: Addr) -> str:
        """The running pod of another node that has the address, empty if there is none."""
        for key in self._owners.get(str(address), ()):
            pod = self._pods().get(key)
            if pod is not None and pod.spec.node_name not in ("", self._node):
                return f"Pod/{_name(pod)} on {pod.spec.node_name}"
        return ""

    async def run(self) -> None:
        """Look for ever, as long as there is something to see."""
        while True:
            self.look()
            if self._shared or self._suspected or self.standing:
                await asyncio.sleep(_LOOK_EVERY)
            else:
                self._sharing.clear()
                await self._sharing.wait()

    def look(self) -> None:
        """What was there at the last look already, stands."""
        seen = frozenset(self._contests())
        standing, self._suspected = seen & self._suspected, seen
        if standing == self.standing:
            return
        for one in standing - self.standing:
            log.error("address_of_two_pods", address=str(one.address), newer=one.newer, older=one.older)
        for one in self.standing - standing:
            log.info("address_of_one_pod_again", address=str(one.address), pod=one.newer)
        self.standing = standing
        self._changed()

    def findings(self) -> list[Finding]:
        """One for each pod that is kept apart."""
        ordered = sorted(self.standing, key=lambda one: (one.newer, str(one.address)))
        return [
            Finding(
                code="TP4015",
                object=f"Pod/{one.newer}",
                message=one.message,
                fix=one.fix,
                severity="error",
            )
            for one in ordered
        ]

    def _contests(self) -> Iterable[Contest]:
        for text in self._shared:
            found = (self._pods().get(key) for key in self._owners[text])
            pods = sorted((pod for pod in found if pod is not None), key=_age)
            try:
                address = ip_address(text)
            except ValueError:
                continue
            for pod in pods[1:]:
                # Of two on one node one is a status that is late: the lease store knows no address twice.
                if pod.spec.node_name == self._node != pods[0].spec.node_name:
                    yield Contest(
                        address=address,
                        newer=_name(pod),
                        uid=pod.metadata.uid,
                        older=_name(pods[0]),
                        older_uid=pods[0].metadata.uid,
                        node=pods[0].spec.node_name,
                    )


def _age(pod: Pod) -> tuple[str, str]:
    return pod.metadata.creation_timestamp or "", _name(pod)


def _name(pod: Pod) -> str:
    return f"{pod.metadata.namespace}/{pod.metadata.name}"


def _addresses(pod: Pod | None) -> tuple[str, ...]:
    """Of a pod that runs and is to go on, with a network of its own."""
    if pod is None or pod.spec.host_network or pod.metadata.deletion_timestamp is not None:
        return ()
    if pod.status.phase in _OVER or not pod.spec.node_name:
        return ()
    texts = (pod.status.pod_ip, *(one.ip for one in pod.status.pod_ips or ()))
    return tuple(dict.fromkeys(text for text in texts if text))
