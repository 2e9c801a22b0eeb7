"""What the agent knows besides its own kernel: a cluster's API, or nothing (a podman host)."""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from functools import partial
from time import monotonic
from typing import Any, Protocol

from towpath.agent.address_book import AddressBook
from towpath.agent.attach_pods import PodDirectory
from towpath.agent.block_source import Blocks
from towpath.agent.config import Settings
from towpath.agent.directory import ApiPodDirectory
from towpath.agent.interest import Joining, joins, relevant_to
from towpath.agent.ipam_events import IpamEvents
from towpath.agent.metrics import Metrics
from towpath.agent.network_policies import NetworkPolicies
from towpath.agent.planning import ClusterPlanner, Planner, StandalonePlanner
from towpath.agent.policies import Policies
from towpath.agent.policy_conditions import PolicyConditions
from towpath.agent.policy_events import PolicyEvents
from towpath.agent.policy_log import PolicyLog
from towpath.agent.report import Publisher
from towpath.agent.reservations import Reservations
from towpath.agent.revocation import Cutter, Revocation
from towpath.agent.twins import Contest, Twins
from towpath.api.core import Namespace, Node, Pod
from towpath.api.report import AgentReport
from towpath.desired.ownership import Holdings
from towpath.desired.policy_chains import NO_POLICIES, Verdicts
from towpath.desired.ruleset import TABLE
from towpath.ipam.usage import Usage
from towpath.kube.client import Client
from towpath.kube.codec import Key
from towpath.kube.kinds import NODES, PODS
from towpath.kube.reflector import Reflector, Selection
from towpath.model.attachment import Attachment, PodRef
from towpath.model.failsafe import UDP, Failsafe, Failsafes
from towpath.model.finding import Finding
from towpath.model.net import Addr, Net
from towpath.model.network import ClusterNetwork
from towpath.model.op import NftUpdate
from towpath.model.policy import Sampling
from towpath.policy.calico_order import ERAS

_OVER = ("Succeeded", "Failed")


class Surroundings(Protocol):
    """``planner`` says what the node should hold; ``pods`` who a pod is, None where nobody knows; ``blocks``
    gives out addresses in block mode."""

    planner: Planner
    pods: PodDirectory | None
    network_policies: NetworkPolicies | None
    blocks: Blocks | None

    @property
    def known(self) -> bool:
        """Whether enough is known to plan."""
        ...

    @property
    def own(self) -> Node | None:
        """This node's Node."""
        ...

    @property
    def reflectors(self) -> Mapping[str, Reflector[Any]]:
        """What is watched, by kind."""
        ...

    @property
    def hosts(self) -> Mapping[str, str]:
        """This node's host endpoints by the interfaces they stand at, ``*`` for all others."""
        ...

    def problem(self) -> str:
        """Why it is not all known yet, empty when it is."""
        ...

    def verdicts(self, attachments: tuple[Attachment, ...], one: Attachment) -> Verdicts:
        """What ``one`` of them is judged by; None: to be put in force by reconciliation first."""
        ...

    def policy_changes(self, attachments: tuple[Attachment, ...]) -> NftUpdate | None:
        """What is new of policy since it was told last, here or by the planner; None: not known."""
        ...

    def pod_of(self, ref: PodRef) -> Pod | None:
        """A pod that is known, and is still the same."""
        ...

    def here(self) -> list[PodRef]:
        """The pods that have a network of their own and are said to be on this node."""
        ...

    def reserved(self) -> tuple[Net, ...]:
        """Addresses that are only given to who asks for them."""
        ...

    def contests(self) -> frozenset[Contest]:
        """Addresses of pods of this node that an older pod elsewhere has."""
        ...

    def elsewhere(self, address: Addr) -> str:
        """The running pod of another node that has an address, empty if there is none."""
        ...

    def everybody(self) -> Iterable[Pod] | None:
        """All pods of the cluster; None without one, or while they are not known."""
        ...

    def follow(self, told: Callable[[], None]) -> None:
        """Have ``told`` called when something about a pod of this node is new."""
        ...

    def findings(self) -> list[Finding]:
        """What is wrong with what was read."""
        ...

    def parts(self, usage: Callable[[], Iterable[Usage]]) -> list[Coroutine[Any, Any, None]]:
        """What has to run; ``usage`` of the node's addresses is told of."""
        ...

    def revocation(self, kernel: Cutter, lock: asyncio.Lock) -> Revocation | None:
        """What cuts flows that policy denies by now. Raises OSError."""
        ...

    async def publish(self, annotations: dict[str, str], report: AgentReport, *, network_up: bool) -> bool:
        """Tell others. False: to be tried again."""
        ...


class Standalone:
    """No cluster: nothing to wait for, nobody to tell; containers are their runtime's alone."""

    own = None
    known = True
    network_policies: NetworkPolicies | None = None

    def __init__(self, network: ClusterNetwork) -> None:
        self.pods: PodDirectory | None = None
        self.blocks: Blocks | None = None
        self.planner: Planner = StandalonePlanner(network)
        self.reflectors: Mapping[str, Reflector[Any]] = {}

    @property
    def hosts(self) -> Mapping[str, str]:
        """None."""
        return {}

    def problem(self) -> str:
        """None."""
        return ""

    def verdicts(self, attachments: tuple[Attachment, ...], one: Attachment) -> Verdicts:
        """All is allowed."""
        return NO_POLICIES

    def policy_changes(self, attachments: tuple[Attachment, ...]) -> NftUpdate | None:
        """Nothing ever."""
        return NftUpdate(table=TABLE)

    def pod_of(self, ref: PodRef) -> Pod | None:
        """None."""
        return None

    def here(self) -> list[PodRef]:
        """None."""
        return []

    def reserved(self) -> tuple[Net, ...]:
        """None."""
        return ()

    def contests(self) -> frozenset[Contest]:
        """None."""
        return frozenset()

    def elsewhere(self, address: Addr) -> str:
        """Nobody."""
        return ""

    def everybody(self) -> Iterable[Pod] | None:
        """Unknown."""
        return None

    def follow(self, told: Callable[[], None]) -> None:
        """Nothing ever is."""

    def findings(self) -> list[Finding]:
        """None."""
        return []

    def parts(self, usage: Callable[[], Iterable[Usage]]) -> list[Coroutine[Any, Any, None]]:
        """None."""
        return []

    def revocation(self, kernel: Cutter, lock: asyncio.Lock) -> Revocation | None:
        """Nothing: there are no policies."""
        return None

    async def publish(self, annotations: dict[str, str], report: AgentReport, *, network_up: bool) -> bool:
        """Done."""
        return True


class Cluster:
    """The API's Nodes and this node's pods, and the own Node to write to.

    ``changed`` is called when the plan may be another (which may wait some seconds), ``policy_changed`` when
    policies may be, ``own_changed`` when something about the own Node or the knowledge of pods is new.
    """

    def __init__(
        self,
        settings: Settings,
        network: ClusterNetwork,
        client: Client,
        metrics: Metrics,
        changed: Callable[[float], None],
        policy_changed: Callable[[], None],
        own_changed: Callable[[], None],
    ) -> None:
        self._name, self._changed, self._own_changed = settings.node_name, changed, own_changed
        self._seen: dict[str, tuple[Any, ...]] = {}
        self._joining = Joining(monotonic)
        self._told: Callable[[], None] = lambda: None
        self._metrics, self._client = metrics, client
        self._reservations = Reservations(client, settings.api_silence_seconds)
        self._publisher = Publisher(client, settings.node_name, monotonic)
        silence = settings.api_silence_seconds
        self._nodes: Reflector[Node] = Reflector(
            client, Selection(kind=NODES), self._node_changed, silence=silence
        )
        # Pods of all nodes: any of them may be a peer of a policy's.
        self._pods: Reflector[Pod] = Reflector(
            client, Selection(kind=PODS), self._pod_changed, silence=silence
        )
        group = settings.policy_log_group
        sampling = Sampling(group=group, denials=settings.policy_log_denials)
        self._policies = Policies(
            client,
            self._pods,
            self._nodes,
            policy_changed,
            silence,
            sampling,
            settings.node_name,
            settings.revocation,
            ERAS[settings.calico_order],
        )
        self.network_policies: NetworkPolicies | None = self._policies.beside
        book = AddressBook(lambda: self._pods.objects, lambda: self._nodes.objects, monotonic)
        known = self._policies
        self._log = PolicyLog(self._name, group, known.judge, lambda: known.local, book, metrics)
        telling = client, self._name, known.read, self._by_name, monotonic
        self._events, self._conditions = PolicyEvents(*telling), PolicyConditions(*telling)
        self._twins = Twins(self._name, lambda: self._pods.objects, self._twins_changed)
        self.pods: PodDirectory | None = ApiPodDirectory(client, self._pods, self._policies.pod_found)
        self.planner: Planner = ClusterPlanner(
            network,
            settings.node_name,
            settings.iface,
            self._by_name,
            self._policies.program,
            _failsafes(settings, network),
            self._holdings,
        )
        self.blocks: Blocks | None = None
        if settings.ipam_mode == "blocks":
            poke = partial(changed, 0.0)
            self.blocks = Blocks(client, self._name, network.networks, self, poke, silence)

    @property
    def reflectors(self) -> Mapping[str, Reflector[Any]]:
        """What is watched, by kind."""
        return {"nodes": self._nodes, "pods": self._pods, **self._policies.reflectors}

    @property
    def known(self) -> bool:
        """Whether the Nodes and all that policy depends on were listed."""
        known = self._nodes.listed.is_set() and not (self._policies.problem() or self._reservations.problem())
        return known and (self.blocks is None or self.blocks.is_listed)

    @property
    def own(self) -> Node | None:
        """As it was last seen."""
        return self._nodes.objects.get(("", self._name))

    @property
    def hosts(self) -> Mapping[str, str]:
        """As policies are enforced now."""
        return self._policies.hosts

    def problem(self) -> str:
        """What has not been listed, and what the API server said."""
        for kind, reflector in self.reflectors.items():
            if not reflector.listed.is_set():
                return f"{kind} not listed yet: {reflector.problem or 'no answer yet'}"
        return self._policies.problem() or self._reservations.problem()

    def verdicts(self, attachments: tuple[Attachment, ...], one: Attachment) -> Verdicts:
        """What ``one`` of them is judged by, as far as nothing else has to be in the kernel for it."""
        found = self._policies.verdicts(attachments, one)
        return found if found == NO_POLICIES else (None, None)

    def policy_changes(self, attachments: tuple[Attachment, ...]) -> NftUpdate | None:
        """From all events so far."""
        return self._policies.changes(attachments)

    def pod_of(self, ref: PodRef) -> Pod | None:
        """As the API has it."""
        pod = self._pods.objects.get((ref.namespace, ref.name))
        return pod if pod is not None and pod.metadata.uid == ref.uid else None

    def here(self) -> list[PodRef]:
        """As the API has them."""
        return [
            PodRef(namespace=pod.metadata.namespace, name=pod.metadata.name, uid=pod.metadata.uid)
            for pod in self._pods.objects.values()
            if pod.spec.node_name == self._name and not pod.spec.host_network
        ]

    def reserved(self) -> tuple[Net, ...]:
        """By the IPReservations."""
        return self._reservations.nets()

    def contests(self) -> frozenset[Contest]:
        """By the API's pods."""
        return self._twins.standing

    def elsewhere(self, address: Addr) -> str:
        """By the API's pods."""
        return self._twins.elsewhere(address)

    def everybody(self) -> Iterable[Pod] | None:
        """As the API has them."""
        return list(self._pods.objects.values()) if self._pods.listed.is_set() else None

    def follow(self, told: Callable[[], None]) -> None:
        """Of one only."""
        self._told = told

    def findings(self) -> list[Finding]:
        """Nodes that cannot be read, policies that are stricter than what was written."""
        nodes = [_strange(f"Node/{name}", why) for (_, name), why in self._nodes.undecodable.items()]
        return [
            *nodes,
            *self._policies.findings(),
            *self._log.findings(),
            *self._reservations.findings(),
            *self._twins.findings(),
            *(self.blocks.findings() if self.blocks is not None else ()),
        ]

    def parts(self, usage: Callable[[], Iterable[Usage]]) -> list[Coroutine[Any, Any, None]]:
        """The reflectors, what listens to the kernel, and what tells of policies and addresses."""
        addresses = IpamEvents(self._client, self._name, usage, self.contests)
        following = [self._nodes.run(), self._pods.run(), self._policies.run(), self._reservations.run()]
        following.append(self._twins.run())
        if self.blocks is not None:
            following.append(self.blocks.run())
        return [*following, self._log.run(), self._events.run(), self._conditions.run(), addresses.run()]

    def revocation(self, kernel: Cutter, lock: asyncio.Lock) -> Revocation | None:
        """What cuts flows that policy denies by now. Raises OSError."""
        return Revocation(self._policies.view, kernel, lock, self._log.cut, self._metrics, monotonic)

    async def publish(self, annotations: dict[str, str], report: AgentReport, *, network_up: bool) -> bool:
        """Write it to the own Node, if there is one and it says something else."""
        node = self.own
        if node is None:
            return True
        return await self._publisher.publish(node, annotations, report, network_up=network_up)

    def nodes(self) -> Mapping[str, Node]:
        """All, by name."""
        return self._by_name()

    def namespace(self, name: str) -> Namespace | None:
        """As it was last seen."""
        found: Namespace | None = self._policies.reflectors["namespaces"].objects.get(("", name))
        return found

    def inhabited(self) -> Collection[str] | None:
        """By the pods that were listed."""
        if not (self._pods.listed.is_set() and self._nodes.listed.is_set()):
            return None
        return {p.spec.node_name for p in self._pods.objects.values() if p.status.phase not in _OVER}

    def _holdings(self) -> Holdings:
        return self.blocks.holdings() if self.blocks is not None else {}

    def _by_name(self) -> dict[str, Node]:
        return {name: node for (_, name), node in self._nodes.objects.items()}

    def _node_changed(self, key: Key | None) -> None:
        self._policies.node_changed(key)
        if key is None:
            self._changed(0.0)
            return
        name = key[1]
        own = name == self._name
        node = self._nodes.objects.get(key)
        before = self._seen.pop(name, None)
        if node is not None:
            self._seen[name] = relevant_to(node, own=own)
        if (now := self._seen.get(name)) != before:
            self._changed(self._joining.delay(len(self._seen)) if joins(before, now) and not own else 0.0)
        if own:
            self._own_changed()

    def _twins_changed(self) -> None:
        self._changed(0.0)
        self._own_changed()

    def _pod_changed(self, key: Key | None) -> None:
        self._policies.pod_changed(key)
        self._twins.pod_changed(key)
        if key is None:
            self._own_changed()
        pod = self._pods.objects.get(key) if key is not None else None
        if key is None or (pod is not None and pod.spec.node_name == self._name):
            self._told()


def _failsafes(settings: Settings, network: ClusterNetwork) -> Failsafes:
    """The settings', and nodes probe each other's checksums through the overlay, by its own addresses."""
    probe = (Failsafe(UDP, settings.offload_port, network.networks),) if settings.offload_probe else ()
    return Failsafes(
        inbound=(*settings.failsafe_inbound, *probe), outbound=(*settings.failsafe_outbound, *probe)
    )


def _strange(obj: str, problem: str) -> Finding:
    fix = "correct the object; until then its last good version is used"
    return Finding(code="TP1040", object=obj, message=problem, fix=fix)
