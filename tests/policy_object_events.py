"""Random changes of API objects of every kind that policy depends on.

The policies are those of the hand-chosen cases, of all APIs, and some more.
"""

import json
from collections.abc import Callable, Mapping
from functools import partial
from random import Random
from typing import Any

import msgspec

from policy_cases import PODS, Manifest, resolved
from policy_cases_admin import CASES as ADMIN
from policy_cases_calico import CASES as CALICO
from policy_cases_kubernetes import CASES as KUBERNETES
from policy_compiled import OWNED
from towpath.api.core import Namespace, Node, Pod, ServiceAccount
from towpath.api.slices import EndpointSlice
from towpath.model.net import Addr
from towpath.policy.objects import Key, Objects
from towpath.policy.sources import SOURCES, Source

INSIDE = [*PODS]


def _calico(name: str, **spec: Any) -> Manifest:
    meta = {"name": name, "namespace": "x"}
    return {
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "NetworkPolicy",
        "metadata": meta,
        "spec": {"types": ["Egress"], "order": 3, **spec},
    }


def _more() -> list[Manifest]:
    """What the cases lack: rules of services and service accounts, sets of a namespace, nodes as peers."""
    service = {"destination": {"services": {"name": "web", "namespace": "y"}}}
    account = {"source": {"serviceAccounts": {"selector": "role == 'a'"}}}
    return [
        _calico("service", egress=[{"action": "Allow", **service}]),
        _calico("service", egress=[{"action": "Deny", **service}, {"action": "Allow"}]),
        _calico("account", types=["Ingress"], ingress=[{"action": "Allow", **account}]),
        _calico("named", egress=[{"action": "Allow", "protocol": "TCP", "destination": {"ports": ["http"]}}]),
        *(
            {
                "apiVersion": "crd.projectcalico.org/v1",
                "kind": "NetworkSet",
                "metadata": {"name": "s", "namespace": "x", "labels": {"pod": label}},
                "spec": {"nets": nets},
            }
            for label, nets in (("a", ["10.0.0.4/31"]), ("b", ["10.0.0.0/29", "192.0.2.0/24"]))
        ),
        {
            "apiVersion": "policy.networking.k8s.io/v1alpha1",
            "kind": "AdminNetworkPolicy",
            "metadata": {"name": "nodes"},
            "spec": {
                "priority": 4,
                "subject": {"namespaces": {}},
                "egress": [{"action": "Deny", "to": [{"nodes": {"matchLabels": {"role": "a"}}}]}],
            },
        },
    ]


def _pool() -> list[Manifest]:
    networks = {name: f"10.0.0.{number % 8}/32" for number, name in enumerate(INSIDE)}
    cases = [m for case in (*KUBERNETES, *ADMIN, *CALICO) for step in case.steps for m in step.apply]
    more = [one for one in _more() for _ in range(30)]
    return [resolved(manifest, networks | {"all": "0.0.0.0/0"}) for manifest in (*cases, *more)]


def _source(manifest: Manifest) -> Source:
    group = manifest["apiVersion"].partition("/")[0]
    return next(s for s in SOURCES if (s.group, s.kind) == (group, manifest["kind"]))


class Cluster:
    """The objects there are, changed one at a time, and an ``Objects`` told of it.

    A subclass may say which addresses pods have.
    """

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.pool = _pool()
        self.pods: dict[Key, Pod] = {}
        self.namespaces: dict[str, Namespace] = {}
        self.accounts: dict[Key, ServiceAccount] = {}
        self.nodes: dict[str, Node] = {}
        self.slices: dict[Key, EndpointSlice] = {}
        self.policies: dict[tuple[Source, Key], Mapping[str, Any]] = {}
        self.wired: dict[Key, tuple[Addr, ...]] = {}

    def tell_all(self, objects: Objects) -> None:
        """From the beginning, in any order."""
        telling: list[Callable[[], object]] = [partial(objects.wired, self.wired)]
        telling += [partial(objects.pod, k, v) for k, v in self.pods.items()]
        telling += [partial(objects.namespace, k, v) for k, v in self.namespaces.items()]
        telling += [partial(objects.account, k, v) for k, v in self.accounts.items()]
        telling += [partial(objects.node, k, v) for k, v in self.nodes.items()]
        telling += [partial(objects.slice, k, v) for k, v in self.slices.items()]
        telling += [partial(objects.policy, *k, v) for k, v in self.policies.items()]
        self.random.shuffle(telling)
        for tell in telling:
            tell()

    def plugs(self) -> dict[str, str]:
        return {f"cali-{space}-{name}": f"Pod/{space}/{name}" for space, name in self.wired}

    def change(self, objects: Objects) -> str:
        """Returns the kind of what changed."""
        kinds: dict[str, tuple[int, Callable[[Objects], None]]] = {
            "pod": (5, self._pod),
            "label": (3, self._label),
            "namespace": (2, self._namespace),
            "account": (1, self._account),
            "node": (1, self._node),
            "slice": (2, self._slice),
            "wired": (2, self.wire),
            "policy": (6, self._policy),
        }
        (kind,) = self.random.choices([*kinds], [weight for weight, _ in kinds.values()])
        kinds[kind][1](objects)
        return kind

    def _pod(self, objects: Objects) -> None:
        key = self._pod_key()
        if key in self.pods and self.random.random() < 0.4:
            del self.pods[key]
            objects.pod(key, None)
            return
        ports = [
            {"name": "http", "containerPort": self.random.choice((80, 81))},
            {"name": "serve-80-tcp", "containerPort": 80},
        ]
        raw = {
            "metadata": {"name": key[1], "namespace": key[0], "labels": self._labels()},
            "spec": {
                "serviceAccountName": self.random.choice(("default", "robot")),
                "hostNetwork": self.random.random() < 0.1,
                "containers": [{"name": "c", "ports": ports}],
            },
            "status": {
                "phase": self.random.choice(("Running", "Running", "Running", "Pending", "Succeeded")),
                "podIPs": [{"ip": str(a)} for a in self.addresses(key)],
            },
        }
        self.pods[key] = msgspec.convert(raw, Pod)
        objects.pod(key, self.pods[key])

    def _label(self, objects: Objects) -> None:
        """Of a pod that stays what it is."""
        if self.pods:
            key = self.random.choice(sorted(self.pods))
            old = self.pods[key]
            meta = msgspec.structs.replace(old.metadata, labels=self._labels())
            self.pods[key] = msgspec.structs.replace(old, metadata=meta)
            objects.pod(key, self.pods[key])

    def _namespace(self, objects: Objects) -> None:
        name = self.random.choice("xyz")
        if self.random.random() < 0.15:
            self.namespaces.pop(name, None)
            objects.namespace(name, None)
            return
        labels = {"ns": self.random.choice((name, name, *"xyz"))} if self.random.random() < 0.9 else {}
        self.namespaces[name] = msgspec.convert({"metadata": {"name": name, "labels": labels}}, Namespace)
        objects.namespace(name, self.namespaces[name])

    def _account(self, objects: Objects) -> None:
        key = (self.random.choice("xyz"), self.random.choice(("default", "robot")))
        if self.random.random() < 0.3:
            self.accounts.pop(key, None)
            objects.account(key, None)
            return
        labels = {"role": self.random.choice("ab")}
        raw = {"metadata": {"name": key[1], "namespace": key[0], "labels": labels}}
        self.accounts[key] = msgspec.convert(raw, ServiceAccount)
        objects.account(key, self.accounts[key])

    def _node(self, objects: Objects) -> None:
        name = self.random.choice(("n1", "n2"))
        if self.random.random() < 0.3:
            self.nodes.pop(name, None)
            objects.node(name, None)
            return
        addresses = [{"type": "InternalIP", "address": str(a)} for a in self._addresses()]
        labels = {"role": self.random.choice("ab")}
        raw = {"metadata": {"name": name, "labels": labels}, "status": {"addresses": addresses}}
        self.nodes[name] = msgspec.convert(raw, Node)
        objects.node(name, self.nodes[name])

    def _slice(self, objects: Objects) -> None:
        key = ("y", self.random.choice(("web-1", "web-2")))
        if self.random.random() < 0.3:
            self.slices.pop(key, None)
            objects.slice(key, None)
            return
        raw = {
            "metadata": {"name": key[1], "namespace": "y", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [str(a)]} for a in self._addresses()],
            "ports": [{"port": self.random.choice((80, 81)), "protocol": "TCP"}],
        }
        self.slices[key] = msgspec.convert(raw, EndpointSlice)
        objects.slice(key, self.slices[key])

    def wire(self, objects: Objects) -> None:
        """A pod comes to this node, or goes."""
        key = self._pod_key()
        if key in self.wired:
            del self.wired[key]
        else:
            self.wired[key] = tuple(self.addresses(key))
        objects.wired(self.wired)

    def _policy(self, objects: Objects) -> None:
        if self.policies and self.random.random() < 0.45:
            source, key = self.random.choice([*self.policies])
            del self.policies[source, key]
            objects.policy(source, key, None)
            return
        raw: Manifest = json.loads(json.dumps(self.random.choice(self.pool)))
        meta = raw["metadata"]
        source, key = _source(raw), (meta.get("namespace", ""), meta["name"])
        self.policies[source, key] = raw
        objects.policy(source, key, raw)

    def addresses(self, pod: Key) -> list[Addr]:
        """Of a pod, this time."""
        return self._addresses()

    def _pod_key(self) -> Key:
        space, _, name = self.random.choice(INSIDE).partition("/")
        return space, name

    def _labels(self) -> dict[str, str]:
        return {"pod": self.random.choice("abc"), "ns": self.random.choice("xyz")}

    def _addresses(self) -> list[Addr]:
        return self.random.sample(OWNED, self.random.randint(0, 2))
