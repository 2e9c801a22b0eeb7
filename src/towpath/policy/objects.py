"""What the API says, object by object, as what the engine wants to hear.

A change of one object may concern others: a namespace's labels are its pods', a service's endpoints are the
rules' that name it. This keeps what is needed for that, and tells a ``Sink`` the differences.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol, TypeVar

import msgspec

from towpath.api.core import Namespace, Node, Pod, ServiceAccount
from towpath.api.slices import EndpointSlice
from towpath.model.finding import Finding
from towpath.model.net import Addr
from towpath.policy.calico_order import CALICO_3_32, CalicoEra
from towpath.policy.converted import Converted
from towpath.policy.endpoints import (
    namespace_labels,
    node_endpoint,
    pod_endpoint,
    same_endpoint,
    service_account_labels,
)
from towpath.policy.ir import (
    METADATA_NAME,
    NAMESPACE_NAME,
    NAMESPACE_PREFIX,
    Endpoint,
    NetworkSet,
    Policy,
    ServiceRef,
    Tier,
)
from towpath.policy.reported import Read
from towpath.policy.services import Backends, backends, references, resolve, service_of
from towpath.policy.sources import Raw, Source

K = TypeVar("K")
V = TypeVar("V")
Key = tuple[str, str]
"""Namespace and name."""
PolicyKey = tuple[str, str, str]


class Sink(Protocol):
    """``Engine``, as far as this is concerned."""

    def upsert_endpoint(self, endpoint: Endpoint) -> None: ...
    def remove_endpoint(self, name: str) -> None: ...
    def upsert_policy(self, policy: Policy) -> None: ...
    def remove_policy(self, key: PolicyKey) -> None: ...
    def upsert_tier(self, tier: Tier) -> None: ...
    def remove_tier(self, name: str) -> None: ...
    def upsert_network_set(self, network_set: NetworkSet) -> None: ...
    def remove_network_set(self, name: str) -> None: ...


class Objects:
    """All methods take None for an object that is gone. Idempotent; order does not matter. ``era``: how
    Calico's policies are ordered.
    """

    def __init__(self, sink: Sink, era: CalicoEra = CALICO_3_32) -> None:
        self._sink, self._era = sink, era
        self._pods: dict[Key, Pod] = {}
        self._namespaces: dict[str, dict[str, str]] = {}
        self._accounts: dict[Key, dict[str, str]] = {}
        self._slices: dict[Key, EndpointSlice] = {}
        self._services: dict[ServiceRef, Backends] = {}
        self._raw: dict[tuple[Source, Key], Raw] = {}
        self._converted: dict[tuple[Source, Key], Converted] = {}
        self._wired: dict[Key, tuple[Addr, ...]] = {}
        self._told: dict[str, Endpoint] = {}
        self.hosts: dict[str, Endpoint] = {}
        """The host endpoints of all nodes, by name."""

    # Who there is.

    def pod(self, key: Key, pod: Pod | None) -> None:
        """A pod of any node. Most of what is new of one, conditions and probes, is nothing to policies."""
        before = self._pods.get(key)
        _set(self._pods, key, pod)
        if before is None or pod is None or not same_endpoint(before, pod):
            self._tell_pod(key)

    def wired(self, pods: Mapping[Key, tuple[Addr, ...]]) -> None:
        """The pods of this node and the addresses they were given, which the API learns later."""
        changed = {key for key in self._wired.keys() | pods.keys() if self._wired.get(key) != pods.get(key)}
        self._wired = dict(pods)
        for key in changed:
            self._tell_pod(key)

    def node(self, name: str, node: Node | None) -> bool:
        """A node, as a peer. Whether it is another one for policies: heartbeats are not."""
        return self._tell(f"Node/{name}", node_endpoint(node) if node is not None else None)

    def namespace(self, name: str, namespace: Namespace | None) -> None:
        """A namespace: its labels are those of all that is in it."""
        before = self._namespaces.get(name)
        _set(self._namespaces, name, namespace_labels(namespace) if namespace is not None else None)
        if self._namespaces.get(name) == before:
            return
        self._tell_pods(key for key in self._pods if key[0] == name)
        # What is in no namespace may have any namespace's profile.
        for source, key in [one for one in self._raw if one[0].inherits and one[1][0] in ("", name)]:
            self._read(source, key)

    def account(self, key: Key, account: ServiceAccount | None) -> None:
        """A service account: its labels are those of its pods."""
        _set(self._accounts, key, service_account_labels(account) if account is not None else None)
        namespace, name = key
        self._tell_pods(
            k for k, pod in self._pods.items() if k[0] == namespace and pod.spec.service_account_name == name
        )

    # What they may do.

    def slice(self, key: Key, one: EndpointSlice | None) -> None:
        """A part of what stands behind a service."""
        concerned = {service_of(found) for found in (self._slices.get(key), one) if found is not None}
        _set(self._slices, key, one)
        for ref in concerned - {None}:
            assert ref is not None  # noqa: S101 (taken out above)
            mine = [found for found in self._slices.values() if service_of(found) == ref]
            before = self._services.get(ref)
            _set(self._services, ref, backends(mine) if mine else None)
            if self._services.get(ref) != before:
                for converted in list(self._converted.values()):
                    self._tell_policies(p for p in converted.policies if ref in references(p))

    def policy(self, source: Source, key: Key, raw: Raw | None) -> None:
        """An object of one of ``SOURCES``."""
        _set(self._raw, (source, key), raw)
        self._read(source, key)

    def policies_of(self, source: Source, key: Key) -> frozenset[PolicyKey]:
        """What an object is to the engine."""
        converted = self._converted.get((source, key))
        return (
            frozenset(policy.key for policy in converted.policies) if converted is not None else frozenset()
        )

    def findings(self) -> list[Finding]:
        """Where policies are stricter than what was written."""
        return [finding for converted in self._converted.values() for finding in converted.findings]

    def read(self, here: Iterable[Finding] = ()) -> Iterator[Read]:
        """All objects, with what there is to say about each; ``here``: what only this node has to say of
        host endpoints.
        """
        of_host: dict[str, tuple[Finding, ...]] = {}
        for finding in here:
            of_host[finding.object] = (*of_host.get(finding.object, ()), finding)
        for (source, key), converted in self._converted.items():
            names = [endpoint.name for endpoint in converted.endpoints] if of_host else []
            own = tuple(finding for name in names for finding in of_host.get(name, ()))
            yield Read(source, self._raw[source, key], converted.findings, own)

    # Telling.

    def _read(self, source: Source, key: Key) -> None:
        raw = self._raw.get((source, key))
        before = self._converted.pop((source, key), Converted())
        after = source.read(raw, self._namespaces, self._era) if raw is not None else Converted()
        if raw is not None:
            self._converted[source, key] = after
        for gone in {p.key for p in before.policies} - {p.key for p in after.policies}:
            self._sink.remove_policy(gone)
        self._tell_policies(p for p in after.policies if p not in before.policies)
        for name in {t.name for t in before.tiers} - {t.name for t in after.tiers}:
            self._sink.remove_tier(name)
        for tier in after.tiers:
            self._sink.upsert_tier(tier)
        for name in {s.name for s in before.network_sets} - {s.name for s in after.network_sets}:
            self._sink.remove_network_set(name)
        for one in after.network_sets:
            if one not in before.network_sets:
                self._sink.upsert_network_set(one)

        for name in {e.name for e in before.endpoints} - {e.name for e in after.endpoints}:
            self.hosts.pop(name, None)
            self._tell(name, None)
        for endpoint in after.endpoints:
            self.hosts[endpoint.name] = endpoint
            self._tell(endpoint.name, endpoint)

    def _tell_policies(self, policies: Iterable[Policy]) -> None:
        for policy in policies:
            self._sink.upsert_policy(resolve(policy, self._services))

    def _tell_pods(self, keys: Iterable[Key]) -> None:
        for key in list(keys):
            self._tell_pod(key)

    def _tell_pod(self, key: Key) -> None:
        pod = self._pods.get(key)
        endpoint = self._endpoint(pod) if pod is not None else None
        if endpoint is not None and key in self._wired:
            both = dict.fromkeys((*self._wired[key], *endpoint.addresses))
            endpoint = msgspec.structs.replace(endpoint, addresses=tuple(both))
        self._tell(f"Pod/{key[0]}/{key[1]}", endpoint)

    def _endpoint(self, pod: Pod) -> Endpoint | None:
        namespace = pod.metadata.namespace
        labels = self._namespaces.get(namespace) or _bare(namespace)
        return pod_endpoint(pod, labels, self._accounts.get((namespace, pod.spec.service_account_name)))

    def _tell(self, name: str, endpoint: Endpoint | None) -> bool:
        if self._told.get(name) == endpoint:
            return False
        _set(self._told, name, endpoint)
        if endpoint is None:
            self._sink.remove_endpoint(name)
        else:
            self._sink.upsert_endpoint(endpoint)
        return True


def _bare(namespace: str) -> dict[str, str]:
    """Of a namespace that has not been heard of yet, the name is known all the same."""
    return {NAMESPACE_NAME: namespace, NAMESPACE_PREFIX + METADATA_NAME: namespace}


def _set(where: dict[K, V], key: K, value: V | None) -> None:
    if value is None:
        where.pop(key, None)
    else:
        where[key] = value
