"""Follows all that policy depends on, and has the engine keep what it means for this node.

Fails static: until every kind that the API server has was listed, and while it cannot be asked which it has,
there is no program, and the firewall stays as it is.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from towpath.agent.network_policies import NetworkPolicies
from towpath.agent.policy_kinds import Served, offered
from towpath.agent.revocation import View
from towpath.agent.revocation_scope import RevocationScope
from towpath.api.core import Namespace, Node, Pod, ServiceAccount
from towpath.api.slices import EndpointSlice
from towpath.desired.policy_chains import NO_POLICIES, Verdicts
from towpath.kube.client import Client
from towpath.kube.codec import Key
from towpath.kube.errors import KubeError
from towpath.kube.kinds import NAMESPACES, Kind, Raw
from towpath.kube.reflector import Reflector, Selection
from towpath.log import get_logger
from towpath.model.attachment import Attachment
from towpath.model.finding import Finding
from towpath.model.net import Addr
from towpath.model.nft import NftTable
from towpath.model.op import NftUpdate
from towpath.model.policy import HOST_PLACES, Program, Sampling
from towpath.policy.calico_order import CalicoEra
from towpath.policy.engine import TABLE, Engine
from towpath.policy.host_places import Placed, placed
from towpath.policy.objects import Objects
from towpath.policy.reported import Read
from towpath.policy.sources import Source

log = get_logger("towpath.policy")

SERVICE_ACCOUNTS = Kind(plural="serviceaccounts", type=ServiceAccount)
SLICES = Kind(plural="endpointslices", type=EndpointSlice, group="discovery.k8s.io")
_ASK_AGAIN = 30.0
_ASK_AGAIN_SOON = 1.0


class Policies:
    """``changed`` is called when the program may be another, often for nothing: most of what happens in a
    cluster changes nothing here. ``pods`` are those of all nodes.

    The owner of the reflectors of pods and nodes passes their events on.
    """

    def __init__(
        self,
        client: Client,
        pods: Reflector[Pod],
        nodes: Reflector[Node],
        changed: Callable[[], None],
        silence: float,
        sampling: Sampling,
        node_name: str,
        revocation: str,
        era: CalicoEra,
    ) -> None:
        self._client, self._changed, self._silence = client, changed, silence
        self._pods, self._nodes = pods, nodes
        self._engine = Engine(sampling=sampling)
        self.local: dict[Addr, str] = {}
        """This node's pods, by address, as endpoints are named."""
        self._objects = Objects(self._engine, era)
        self._node_name = node_name
        self._addresses: Mapping[Addr, str] = {}
        self._placed = Placed()
        self._namespaces: Reflector[Namespace] = self._follow(NAMESPACES, self._namespace_changed)
        self._accounts: Reflector[ServiceAccount] = self._follow(SERVICE_ACCOUNTS, self._account_changed)
        self.beside = NetworkPolicies(
            client, silence, lambda: pods.objects, lambda: self._namespaces.objects, self._peers_not_listed
        )
        """Policies for pods' interfaces in other networks, which depend on the same pods and namespaces."""
        self._slices: Reflector[EndpointSlice] | None = None
        self._scope = RevocationScope(
            revocation, lambda: self._pods.objects, lambda: self._namespaces.objects
        )
        self._enforced: frozenset[str] = frozenset()
        self._revoking = False  # as it was told
        self._behind: dict[str, str] = {}
        self._sources: dict[Source, tuple[Reflector[Raw], asyncio.Task[None]]] = {}
        self._served: Served | None = None
        self._problem = "which kinds of policy there are is not known yet"
        self._complete = False
        self._begun = False

    @property
    def reflectors(self) -> Mapping[str, Reflector[Any]]:
        """What is watched beyond pods and nodes."""
        found: dict[str, Reflector[Any]] = {
            "namespaces": self._namespaces,
            "serviceaccounts": self._accounts,
        }
        if self._slices is not None:
            found["endpointslices"] = self._slices
        return found | {f"{s.plural}.{s.group}": reflector for s, (reflector, _) in self._sources.items()}

    def problem(self) -> str:
        """Why there is no program yet, empty when there is one: from then on there always is.

        A kind that comes later, with a new custom resource, counts as soon as it is listed.
        """
        if self._complete:
            return ""
        if self._served is None:
            return self._problem
        if problem := _not_listed({"pods": self._pods, "nodes": self._nodes, **self.reflectors}):
            return problem
        self._complete = True
        return ""

    def _peers_not_listed(self) -> str:
        return _not_listed({"pods": self._pods, "namespaces": self._namespaces})

    def findings(self) -> list[Finding]:
        """Where policies are stricter than what was written, and annotations that mean nothing."""
        return [*self._objects.findings(), *self._placed.findings, *self._scope.findings()]

    def read(self) -> Iterable[Read]:
        """All objects, with what there is to say about each."""
        return self._objects.read(self._placed.findings)

    def judge(self) -> Engine | None:
        """The policies, to be asked about single packets; None while not everything is known."""
        return None if self.problem() else self._engine

    def program(
        self, attachments: Iterable[Attachment], addresses: Mapping[Addr, str], table: NftTable | None
    ) -> Program | None:
        """What the kernel should hold for these pods; None while not everything is known.

        ``addresses``: this host's, with the interfaces that have them. ``table`` as it is, so that an agent
        started anew goes on where the last one ended.
        """
        if self.problem():
            return None
        self._addresses = addresses
        self._set_local(attachments)
        if not self._begun and table is not None:
            self._engine.seed(table)
        self._begun = True
        self._revoking = bool(self._enforced)
        return replace(self._engine.program(), revoking=self._revoking)

    def changes(self, attachments: Iterable[Attachment]) -> NftUpdate | None:
        """What has changed of it since it was told last, by this or ``program``; None as for ``program``, and
        where rules come or go that are ``desired``'s: host endpoints' base chains, those that cut flows.
        """
        if self.problem():
            return None
        self._set_local(attachments)
        if bool(self._enforced) != self._revoking:
            return None
        update = self._engine.changes() or NftUpdate(table=TABLE)
        touched = {*update.del_chains, *(chain.name for chain in update.set_chains)}
        return update if touched.isdisjoint(HOST_PLACES) else None

    def verdicts(self, attachments: Iterable[Attachment], one: Attachment) -> Verdicts:
        """What ``one`` of these pods is judged by, once the program is in force."""
        if self.problem():
            return None, None
        if one.pod is None:
            return NO_POLICIES
        self._set_local(attachments)
        return self._engine.verdicts(one.host_ifname)

    def _set_local(self, attachments: Iterable[Attachment]) -> None:
        local: dict[str, str] = {}
        wired = {}
        self.local = {}
        for att in attachments:
            if att.pod is not None:
                wired[att.pod.namespace, att.pod.name] = att.addresses
                name = f"Pod/{att.pod.namespace}/{att.pod.name}"
                local[att.host_ifname] = name
                self.local.update(dict.fromkeys(att.addresses, name))
        self._objects.wired(wired)
        self._engine.set_local(local)
        self._place_hosts()
        self._behind = local
        self._enforced = self._revocable()

    @property
    def hosts(self) -> Mapping[str, str]:
        """This node's host endpoints by the interfaces they stand at."""
        return self._placed.interfaces

    def _place_hosts(self) -> None:
        self._placed = placed(self._node_name, self._objects.hosts.values(), self._addresses)
        self._engine.set_hosts(self._placed.interfaces)

    def view(self) -> View | None:
        """What decides on flows that go on; None while not everything is known."""
        if self.problem():
            return None
        return View(self._engine, self.local, self._enforced, self._behind, self._engine.verdicts)

    def _revocable(self) -> frozenset[str]:
        return self._scope.enforced(set(self.local.values()), self._engine.applied)

    # Events.

    def pod_changed(self, key: Key | None) -> None:
        """An event of the reflector of pods."""
        if key is not None:
            self._objects.pod(key, self._pods.objects.get(key))
            self.beside.pod_changed(key)
        else:
            self.beside.changed()
        self._changed()

    def pod_found(self, pod: Pod) -> None:
        """A pod that was asked for by name, since it was not in the cache yet."""
        key = (pod.metadata.namespace, pod.metadata.name)
        if key not in self._pods.objects:
            self._objects.pod(key, pod)

    def node_changed(self, key: Key | None) -> None:
        """An event of the reflector of nodes."""
        if key is None or self._objects.node(key[1], self._nodes.objects.get(key)):
            self._changed()

    def _namespace_changed(self, key: Key | None) -> None:
        if key is not None:
            self._objects.namespace(key[1], self._namespaces.objects.get(key))
            self.beside.namespace_changed(key)
        else:
            self.beside.changed()
        self._changed()

    def _account_changed(self, key: Key | None) -> None:
        if key is not None:
            self._objects.account(key, self._accounts.objects.get(key))
        self._changed()

    def _slice_changed(self, key: Key | None) -> None:
        if key is not None and self._slices is not None:
            self._objects.slice(key, self._slices.objects.get(key))
        self._changed()

    def _source_changed(self, source: Source, key: Key | None) -> None:
        if key is not None:
            self._take_policy(source, key, self._sources[source][0].objects.get(key))
        self._changed()

    def _take_policy(self, source: Source, key: Key, raw: Raw | None) -> None:
        self._objects.policy(source, key, raw)
        self._scope.policy((source, key), raw, self._objects.policies_of(source, key))

    # Following.

    async def run(self) -> None:
        """Follow for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._namespaces.run())
            tasks.create_task(self._accounts.run())
            while True:
                wait = _ASK_AGAIN
                try:
                    self._take(await offered(self._client), tasks)
                except KubeError as e:
                    self._problem = f"which kinds of policy there are: {e}"
                    wait = _ASK_AGAIN_SOON if self._served is None else _ASK_AGAIN
                await asyncio.sleep(wait)

    def _take(self, served: Served, tasks: asyncio.TaskGroup) -> None:
        """Follow what has come; what is served no more is gone, with all its objects."""
        if self._slices is None:
            of_version = msgspec.structs.replace(SLICES, version=served.slices)
            self._slices = self._follow(of_version, self._slice_changed)
            tasks.create_task(self._slices.run())
        for source in self._sources.keys() - served.kinds.keys():
            reflector, task = self._sources.pop(source)
            task.cancel()
            log.info("policy_kind_gone", kind=source.plural, group=source.group)
            for key in list(reflector.objects):
                self._take_policy(source, key, None)
        for source, kind in served.kinds.items():
            if source not in self._sources:
                self._begin(source, kind, tasks)
        if self._served != served:
            self._served = served
            self._changed()

    def _begin(self, source: Source, kind: Kind[Raw], tasks: asyncio.TaskGroup) -> None:
        reflector = self._follow(kind, lambda key: self._source_changed(source, key))
        self._sources[source] = (reflector, tasks.create_task(reflector.run()))

    def _follow(self, kind: Kind[Any], changed: Callable[[Key | None], None]) -> Reflector[Any]:
        return Reflector(self._client, Selection(kind=kind), changed, silence=self._silence)


def _not_listed(watched: Mapping[str, Reflector[Any]]) -> str:
    """The first of which there is no list yet, and why; empty if there is none."""
    for name, reflector in watched.items():
        if not reflector.listed.is_set():
            return f"{name} not listed yet: {reflector.problem or 'no answer yet'}"
    return ""
