"""Follows MultiNetworkPolicies, and knows what they mean for this node's interfaces in other networks.

Each network that a policy names has an engine of its own, over a world in which pods have the addresses of
that network (``policy.secondary``). Fails closed for what is new and static for what is there: until the API
server has said whether it has the kind, and listed all that policy depends on, nothing is known.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from towpath.agent.policy_kinds import served
from towpath.api.core import Namespace, Pod
from towpath.desired.policy_chains import NO_POLICIES, Verdicts
from towpath.kube.client import Client
from towpath.kube.codec import Key
from towpath.kube.errors import KubeError
from towpath.kube.kinds import Raw
from towpath.kube.reflector import Reflector, Selection
from towpath.log import get_logger
from towpath.model.finding import Finding
from towpath.model.policy import Program
from towpath.policy.calico_order import CALICO_3_32
from towpath.policy.engine import Engine
from towpath.policy.objects import Objects
from towpath.policy.secondary import addresses_in, networks_of, with_addresses
from towpath.policy.sources import SECONDARY

log = get_logger("towpath.networks")

_ASK_AGAIN, _ASK_AGAIN_SOON = 30.0, 1.0
Tag = tuple[str, str]
"""Container ID and interface name."""


class Judged:
    """What the kernel should hold for an interface. ``program`` None: no policy is for it."""

    def __init__(self, program: Program | None = None, verdicts: Verdicts = NO_POLICIES) -> None:
        self.program, self.verdicts = program, verdicts


class _World:
    """One network's. ``known``: the pods that are in it, as they were told."""

    def __init__(self) -> None:
        self.engine = Engine()
        self.objects = Objects(self.engine)
        self.known: dict[Key, Pod] = {}


class NetworkPolicies:
    """``pods`` and ``namespaces`` are those that are followed for policy anyhow, whose owner passes their
    events on; ``others`` says what of these is not known yet. ``changed`` is called when something may have
    changed.
    """

    def __init__(
        self,
        client: Client,
        silence: float,
        pods: Callable[[], Mapping[Key, Pod]],
        namespaces: Callable[[], Mapping[Key, Namespace]],
        others: Callable[[], str],
    ) -> None:
        self._client, self._silence = client, silence
        self._pods, self._namespaces, self._others = pods, namespaces, others
        self.changed: Callable[[], None] = lambda: None
        self._following: tuple[Reflector[Raw], asyncio.Task[None]] | None = None
        self._asked = False
        self._complete = False
        self._why = "whether there are MultiNetworkPolicies is not known yet"
        self._worlds: dict[str, _World] = {}
        self._named: dict[Key, tuple[str, ...]] = {}
        self._local: dict[Tag, tuple[str, Key, Pod]] = {}

    @property
    def served(self) -> bool:
        """Whether there may be policies, now or soon: pods have to be prepared for it."""
        return not self._asked or self._following is not None

    def problem(self) -> str:
        """Why nothing is known, empty when it is: from then on it stays so."""
        if not self._complete:
            if not self._asked:
                return self._why
            if self._following is not None:
                reflector = self._following[0]
                if not reflector.listed.is_set():
                    return f"MultiNetworkPolicies not listed yet: {reflector.problem or 'no answer yet'}"
                if others := self._others():
                    return others
            self._complete = True
        return ""

    def findings(self) -> list[Finding]:
        """Where policies are stricter than what was written, or for nothing."""
        found = [finding for world in self._worlds.values() for finding in world.objects.findings()]
        if self._following is not None:
            for raw in self._following[0].objects.values():
                if not networks_of(raw)[0]:
                    found += SECONDARY.read(raw, {}, CALICO_3_32).findings
        return list(dict.fromkeys(found))

    # This node's interfaces.

    def attach(self, tag: Tag, network: str, key: Key, pod: Pod) -> None:
        """A pod of this node gets an interface in a network; its labels count at once."""
        self._local[tag] = network, key, pod
        if (world := self._worlds.get(network)) is not None:
            self._tell_pod(network, world, key)
            self._set_local(network, world)

    def detach(self, tag: Tag) -> None:
        """It has none any more."""
        network, key, _ = self._local.pop(tag, ("", ("", ""), None))
        if (world := self._worlds.get(network)) is not None:
            self._set_local(network, world)
            self._tell_pod(network, world, key)

    def judged(self, tags: Iterable[Tag]) -> dict[Tag, Judged | None]:
        """Of interfaces that were attached; None: it is not known."""
        if self.problem():
            return dict.fromkeys(tags)
        programs: dict[str, Program] = {}
        found: dict[Tag, Judged | None] = {}
        for tag in tags:
            network = self._local[tag][0]
            world = self._worlds.get(network)
            verdicts = world.engine.verdicts(_text(tag)) if world is not None else NO_POLICIES
            if world is None or verdicts == NO_POLICIES:
                found[tag] = Judged()
                continue
            if network not in programs:
                programs[network] = world.engine.program()
            found[tag] = Judged(programs[network], verdicts)
        return found

    # Events.

    def pod_changed(self, key: Key) -> None:
        """A pod of any node."""
        for network, world in self._worlds.items():
            self._tell_pod(network, world, key)

    def namespace_changed(self, key: Key) -> None:
        """Its labels are its pods'."""
        for world in self._worlds.values():
            world.objects.namespace(key[1], self._namespaces().get(key))
        self.changed()

    def _policy_changed(self, key: Key | None) -> None:
        if key is not None and self._following is not None:
            self._take(key, self._following[0].objects.get(key))
        self.changed()

    def _take(self, key: Key, raw: Raw | None) -> None:
        before = self._named.pop(key, ())
        after = networks_of(raw)[0] if raw is not None else ()
        if after:
            self._named[key] = after
        for network in before:
            if network not in after:
                self._worlds[network].objects.policy(SECONDARY, key, None)
        for network in after:
            self._world(network).objects.policy(SECONDARY, key, raw)
        for network in set(self._worlds) - {one for named in self._named.values() for one in named}:
            del self._worlds[network]

    def _world(self, network: str) -> "_World":
        world = self._worlds.get(network)
        if world is None:
            world = self._worlds[network] = _World()
            for (_, name), namespace in self._namespaces().items():
                world.objects.namespace(name, namespace)
            for key in {*self._pods(), *(key for _, key, _ in self._local.values())}:
                self._tell_pod(network, world, key)
            self._set_local(network, world)
        return world

    def _tell_pod(self, network: str, world: "_World", key: Key) -> None:
        here = [pod for at, name, pod in self._local.values() if (at, name) == (network, key)]
        pod = self._pods().get(key)
        if here and (pod is None or pod.metadata.uid != here[-1].metadata.uid):
            pod = here[-1]  # the API has the one before it yet
        addresses = None
        if pod is not None and pod.metadata.annotations:
            addresses = addresses_in(pod.metadata.annotations, key[0]).get(network)
        if pod is None or (addresses is None and not here):
            if world.known.pop(key, None) is not None:
                world.objects.pod(key, None)
                self.changed()
            return
        if world.known.get(key) is not pod:
            world.known[key] = pod
            world.objects.pod(key, with_addresses(pod, addresses or ()))
            self.changed()

    def _set_local(self, network: str, world: "_World") -> None:
        local = {tag: key for tag, (at, key, _) in self._local.items() if at == network}
        world.engine.set_local({_text(tag): f"Pod/{key[0]}/{key[1]}" for tag, key in local.items()})

    # Following.

    async def run(self) -> None:
        """For ever, from when the kind is there and as long as it is."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                wait = _ASK_AGAIN
                try:
                    found = await served(self._client, (SECONDARY,))
                    self._follow(tasks, found.get(SECONDARY))
                    self._asked = True
                    self.changed()
                except KubeError as error:
                    self._why = f"whether there are MultiNetworkPolicies: {error}"
                    wait = _ASK_AGAIN if self._asked else _ASK_AGAIN_SOON
                await asyncio.sleep(wait)

    def _follow(self, tasks: asyncio.TaskGroup, kind: Any) -> None:
        if kind is not None and self._following is None:
            reflector = Reflector(
                self._client, Selection(kind=kind), self._policy_changed, silence=self._silence
            )
            self._following = reflector, tasks.create_task(reflector.run())
        elif kind is None and self._following is not None:
            reflector, task = self._following
            task.cancel()
            for key in list(reflector.objects):
                self._take(key, None)
            self._following = None


def _text(tag: Tag) -> str:
    return "/".join(tag)
