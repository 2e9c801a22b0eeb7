"""A ``World`` from API objects of any mixture of kinds, as decoded: what the command line asks about.

What is not read here is ignored: other kinds, templates of pods, and staged policies unless they are asked
for. Later objects replace earlier ones of the same key, so that files can lie on top of a cluster.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import msgspec

from towpath.api.core import Namespace, Node, Pod, ServiceAccount
from towpath.api.meta import ObjectMeta
from towpath.api.slices import EndpointSlice
from towpath.model.failsafe import DEFAULT_FAILSAFES, Failsafes
from towpath.model.finding import Finding
from towpath.policy import convert_networking, secondary
from towpath.policy.calico_order import CALICO_3_32, NETWORK_POLICY, CalicoEra, ranked
from towpath.policy.calico_staged import unstage
from towpath.policy.convert_admin import (
    convert_admin_network_policy,
    convert_baseline_admin_network_policy,
    convert_cluster_network_policy,
)
from towpath.policy.convert_calico import convert_global_network_policy, convert_network_policy, convert_tier
from towpath.policy.convert_calico_endpoints import (
    Namespaces,
    convert_global_network_set,
    convert_host_endpoint,
    convert_network_set,
)
from towpath.policy.converted import Converted
from towpath.policy.endpoints import namespace_labels, node_endpoint, pod_endpoint, service_account_labels
from towpath.policy.ir import Endpoint, Policy, Routing, World
from towpath.policy.services import resolve, services, unresolved
from towpath.policy.sources import SERVED, STORED

T = TypeVar("T")
Raw = Mapping[str, Any]

OBJECT_UNREADABLE = "TP5130"

_POLICY_GROUP = "policy.networking.k8s.io"
_DISCOVERY = "discovery.k8s.io"


class ObjectKey(NamedTuple):
    """Identity of an object. Calico's stored and served objects are of one ``group``, and of one name."""

    group: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        """As findings and policies name it: ``Kind/namespace/name``."""
        kind = NETWORK_POLICY if self[:2] == (SERVED, "NetworkPolicy") else self.kind
        return "/".join(part for part in (kind, self.namespace, self.name) if part)


class Assembled(msgspec.Struct, frozen=True, kw_only=True):
    """``world`` with its services resolved. ``objects``: all that were read, by what findings and policies
    call them (``str(policy)``); of a staged policy in force, the staged object. ``aside``: pods that are no
    endpoints, and why, as a sentence's end.
    """

    world: World
    findings: tuple[Finding, ...] = ()
    objects: Mapping[str, Raw] = {}
    keys: Mapping[str, ObjectKey] = {}
    aside: Mapping[str, str] = {}


_Convert = Callable[[Raw, Namespaces, CalicoEra], Converted]


def _alone(convert: Callable[[Raw], Converted]) -> _Convert:
    return lambda raw, namespaces, era: convert(raw)


def _placed(convert: Callable[[Raw, Namespaces], Converted]) -> _Convert:
    return lambda raw, namespaces, era: convert(raw, namespaces)


def _ordered(convert: Callable[[Raw, CalicoEra], Converted]) -> _Convert:
    return lambda raw, namespaces, era: convert(raw, era)


_CONVERTERS: dict[tuple[str, str], _Convert] = {
    ("networking.k8s.io", "NetworkPolicy"): _alone(convert_networking.convert),
    (_POLICY_GROUP, "ClusterNetworkPolicy"): _alone(convert_cluster_network_policy),
    (_POLICY_GROUP, "AdminNetworkPolicy"): _alone(convert_admin_network_policy),
    (_POLICY_GROUP, "BaselineAdminNetworkPolicy"): _alone(convert_baseline_admin_network_policy),
    (secondary.GROUP, secondary.KIND): _alone(secondary.convert),
    (SERVED, "NetworkPolicy"): _ordered(convert_network_policy),
    (SERVED, "GlobalNetworkPolicy"): _ordered(convert_global_network_policy),
    (SERVED, "Tier"): _alone(convert_tier),
    (SERVED, "NetworkSet"): _placed(convert_network_set),
    (SERVED, "GlobalNetworkSet"): _alone(convert_global_network_set),
    (SERVED, "HostEndpoint"): _placed(convert_host_endpoint),
}
STAGED_KINDS = ("StagedNetworkPolicy", "StagedGlobalNetworkPolicy", "StagedKubernetesNetworkPolicy")
_CORE = {"Pod", "Namespace", "Node", "ServiceAccount"}
_CLUSTER_WIDE = {
    *("Namespace", "Node", "ClusterNetworkPolicy", "AdminNetworkPolicy", "BaselineAdminNetworkPolicy"),
    *("GlobalNetworkPolicy", "Tier", "GlobalNetworkSet", "HostEndpoint", "StagedGlobalNetworkPolicy"),
}


def is_namespaced(key: ObjectKey) -> bool:
    """Whether objects of its kind live in a namespace. Of the kinds that are read here."""
    return key.kind not in _CLUSTER_WIDE


def key_of(raw: Raw) -> ObjectKey | None:
    """None for what is not read here. Names that are no texts are ``?``, as in findings."""
    version, kind, metadata = raw.get("apiVersion"), raw.get("kind"), raw.get("metadata")
    if not isinstance(version, str) or not isinstance(kind, str):
        return None
    group = version.rpartition("/")[0]
    place = metadata if isinstance(metadata, Mapping) else {}
    namespace, name = (
        text if isinstance(text, str) else "" for text in map(place.get, ("namespace", "name"))
    )
    if group == STORED:
        group = SERVED
        if kind.endswith("Policy"):
            name = name.removeprefix("default.")
    known = (
        (group, kind) in _CONVERTERS
        or (group == "" and kind in _CORE)
        or (group, kind) == (_DISCOVERY, "EndpointSlice")
        or (group == SERVED and kind in STAGED_KINDS)
    )
    return ObjectKey(group, kind, "" if kind in _CLUSTER_WIDE else namespace, name or "?") if known else None


def unpacked(raw: Raw) -> Iterator[tuple[str, Raw]]:
    """The objects of a List, of whatever kind, with their paths in it; else the object itself, at ``""``.

    Items of a typed list leave out what the list says of them.
    """
    kind, items = raw.get("kind"), raw.get("items")
    if not (isinstance(kind, str) and kind.endswith("List") and isinstance(items, list)):
        yield "", raw
        return
    said = {} if kind == "List" else {"apiVersion": raw.get("apiVersion"), "kind": kind.removesuffix("List")}
    for number, item in enumerate(items):
        if isinstance(item, Mapping):
            for path, inner in unpacked({**said, **item}):
                yield f"items[{number}].{path}".rstrip("."), inner


def assemble(
    objects: Iterable[Raw],
    *,
    staged: bool = False,
    era: CalicoEra = CALICO_3_32,
    failsafes: Failsafes = DEFAULT_FAILSAFES,
    routing: Routing = "tunnel",
    network: str = "",
) -> Assembled:
    """Never raises. ``staged``: Calico's staged policies are in force. ``failsafes`` and ``routing`` as
    agents have them. ``network``, NAMESPACE/NAME: the world as that network has it, instead of the pod
    network (``secondary``); of MultiNetworkPolicies there are only findings else.
    """
    kept: dict[ObjectKey, Raw] = {}
    for each in objects:
        for _, raw in unpacked(each):
            key = key_of(raw)
            if key is not None:
                kept[key] = raw
    building = _Building(era, failsafes, routing)
    if network:
        kept = building.of_network(kept, network)
    enforced = building.with_staged(kept) if staged else {k: (k, raw) for k, raw in kept.items()}
    return building.assembled({key: pair for key, pair in enforced.items() if key.kind not in STAGED_KINDS})


_Enforced = dict[ObjectKey, tuple[ObjectKey, Raw]]  # what is in force, the key of the object that says so


class _Building:
    """What has been found so far."""

    def __init__(self, era: CalicoEra, failsafes: Failsafes, routing: Routing) -> None:
        self._era = era
        self._failsafes, self._routing = failsafes, routing
        self._findings: list[Finding] = []
        self._secondary = False
        self._aside: dict[str, str] = {}

    def of_network(self, kept: Mapping[ObjectKey, Raw], network: str) -> dict[ObjectKey, Raw]:
        """The pods that are in it, what pods inherit labels from, and the policies that are for it."""
        found: dict[ObjectKey, Raw] = {}
        for key, raw in kept.items():
            if key.kind == "Pod":
                if (pod := secondary.raw_in_network(raw, network)) is not None:
                    found[key] = pod
                else:
                    self._aside[str(key)] = f"has no address in network {network} that its annotation tells"
            elif key.kind in ("Namespace", "ServiceAccount") or (
                _is_secondary(key) and network in secondary.networks_of(raw)[0]
            ):
                found[key] = raw
        self._secondary = True
        return found

    def with_staged(self, kept: Mapping[ObjectKey, Raw]) -> _Enforced:
        enforced: _Enforced = {key: (key, raw) for key, raw in kept.items()}
        for key, raw in kept.items():
            if key.kind not in STAGED_KINDS:
                continue
            found = unstage(raw)
            self._findings += found.findings
            target = key_of(found.object) if found.action != "ignore" else None
            if target is None:
                continue
            if found.action == "delete":
                enforced.pop(target, None)
            else:
                enforced[target] = (key, found.object)
        return enforced

    def assembled(self, enforced: _Enforced) -> Assembled:
        of_kind: dict[str, list[tuple[ObjectKey, Raw]]] = {}
        for key, (_, raw) in enforced.items():
            of_kind.setdefault(key.kind, []).append((key, raw))
        namespaces = {
            one.metadata.name: namespace_labels(one)
            for _, one in self._typed(of_kind.get("Namespace", ()), Namespace)
        }
        endpoints, aside = self._pods(of_kind, namespaces)
        endpoints += [node_endpoint(one) for _, one in self._typed(of_kind.get("Node", ()), Node)]
        parts = [
            _CONVERTERS[key[:2]](raw, namespaces, self._era)
            for key, (_, raw) in enforced.items()
            if key[:2] in _CONVERTERS
        ]
        for part in parts:
            self._findings += part.findings
        if not self._secondary:
            parts = [part for part in parts if not any(p.kind == secondary.KIND for p in part.policies)]
        known = services(one for _, one in self._typed(of_kind.get("EndpointSlice", ()), EndpointSlice))
        policies = [self._ranked(policy) for part in parts for policy in part.policies]
        for policy in policies:
            self._findings += unresolved(policy, known)
        endpoints += [endpoint for part in parts for endpoint in part.endpoints]
        return Assembled(
            world=World(
                tiers=tuple(tier for part in parts for tier in part.tiers),
                policies=tuple(resolve(policy, known) for policy in policies),
                endpoints=tuple(endpoints),
                network_sets=tuple(networks for part in parts for networks in part.network_sets),
                failsafes=self._failsafes,
                routing=self._routing,
            ),
            findings=tuple(dict.fromkeys(self._findings)),
            objects={_name(key, raw): raw for key, (_, raw) in enforced.items()},
            keys={_name(key, raw): said for key, (said, raw) in enforced.items()},
            aside={**aside, **self._aside},
        )

    def _ranked(self, policy: Policy) -> Policy:
        """Calico's converters do it themselves: they know whether the object was stored or served."""
        calico = policy.kind in (NETWORK_POLICY, "GlobalNetworkPolicy")
        return policy if calico else ranked(policy, self._era)

    def _pods(
        self, of_kind: Mapping[str, list[tuple[ObjectKey, Raw]]], namespaces: Namespaces
    ) -> tuple[list[Endpoint], dict[str, str]]:
        """Of a namespace or a service account that is not given only the name is known."""
        accounts = {
            (one.metadata.namespace, one.metadata.name): service_account_labels(one)
            for _, one in self._typed(of_kind.get("ServiceAccount", ()), ServiceAccount)
        }
        endpoints: list[Endpoint] = []
        aside: dict[str, str] = {}
        for key, pod in self._typed(of_kind.get("Pod", ()), Pod):
            labels = namespaces.get(key.namespace) or namespace_labels(_named(key.namespace))
            account = accounts.get((key.namespace, pod.spec.service_account_name))
            endpoint = pod_endpoint(pod, labels, account)
            if endpoint is not None:
                endpoints.append(endpoint)
            elif pod.spec.host_network:
                node = pod.spec.node_name
                aside[str(key)] = "is on its node's network" + (f": ask for node/{node}" if node else "")
            else:
                aside[str(key)] = "has no network any more: it has ended"
        return endpoints, aside

    def _typed(
        self, objects: Iterable[tuple[ObjectKey, Raw]], kind: type[T]
    ) -> Iterator[tuple[ObjectKey, T]]:
        """Those that have their kind's shape and a name; the others are reported and left out."""
        for key, raw in objects:
            try:
                if key.name == "?":
                    raise msgspec.ValidationError("it has no name - at `$.metadata.name`")
                found = msgspec.convert({k: v for k, v in raw.items() if v is not None}, kind)
            except msgspec.ValidationError as wrong:
                problem, _, where = str(wrong).partition(" - at `$.")
                self._findings.append(_unreadable(key, problem, where.rstrip("`")))
            else:
                yield key, found


def _is_secondary(key: ObjectKey) -> bool:
    return key[:2] == (secondary.GROUP, secondary.KIND)


def _named(name: str) -> Namespace:
    return Namespace(ObjectMeta(name=name))


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _unreadable(key: ObjectKey, problem: str, path: str) -> Finding:
    return Finding(
        code=OBJECT_UNREADABLE,
        object=str(key),
        message=f"{path or 'the object'}: {problem}; it is left out",
        fix="correct the field",
    )


def _name(key: ObjectKey, raw: Raw) -> str:
    """``str(policy)`` has the name as it is stored."""
    metadata = raw.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    return str(key._replace(name=name)) if isinstance(name, str) and name else str(key)
