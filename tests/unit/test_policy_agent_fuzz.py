"""Any JSON in any policy object never stops the agent, and never opens anything: from the API's object to the
rules that it comes to.
"""

from ipaddress import ip_address
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import policy_junk_calico as calico
import policy_junk_kubernetes as kubernetes
from kube_policies import NAMESPACES, NODES, PODS
from policy_compiled import after
from policy_interpreter import EMPTY, check, judged
from policy_junk import FLOWS, Json, any_json
from towpath.model.nft import NftTable
from towpath.policy.engine import Engine
from towpath.policy.evaluate import Flow
from towpath.policy.host_places import placed
from towpath.policy.objects import Key, Objects
from towpath.policy.sources import SOURCES, Source

PLUGS = {f"cali{n}": f"Pod/{one.metadata.namespace}/{one.metadata.name}" for n, one in enumerate(PODS)}
AT = {pod.status.pod_ips[0].ip: plug for pod, plug in zip(PODS, PLUGS, strict=True) if pod.status.pod_ips}
OWN = {ip_address("192.0.2.11"): "eth0"}


class Node:
    """What of the agent follows objects, on the node that has all the pods."""

    def __init__(self) -> None:
        self.engine = Engine()
        self.objects = Objects(self.engine)
        self.table = EMPTY
        for name, namespace in NAMESPACES.items():
            self.objects.namespace(name, namespace)
        for pod in PODS:
            self.objects.pod((pod.metadata.namespace, pod.metadata.name), pod)
        for node in NODES:
            self.objects.node(node.metadata.name, node)
        self.engine.set_local(PLUGS)

    def put(self, source: Source, key: Key, raw: dict[str, Any] | None) -> None:
        """An event, and all that follows from it."""
        self.objects.policy(source, key, raw)
        self.engine.set_hosts(placed("n1", self.objects.hosts.values(), OWN).interfaces)
        self.table = after(self.table, self.engine)
        check(self.table)
        for one in self.objects.read():
            assert one.reference()["apiVersion"]
            assert all(finding.code for finding in one.findings)

    def allowed(self) -> set[Flow]:
        return {flow for flow in FLOWS if _passes(self.table, flow)}


def _passes(table: NftTable, flow: Flow) -> bool:
    source, destination = (AT.get(str(address)) for address in (flow.source, flow.destination))
    return (source is None or judged(table, source, "egress", flow).allowed) and (
        destination is None or judged(table, destination, "ingress", flow).allowed
    )


WORDS = (
    *("metadata", "name", "namespace", "labels", "spec", "subject", "ingress", "egress", "from", "to"),
    *("action", "Allow", "Deny", "Pass", "Log", "ports", "protocol", "TCP", "podSelector", "matchLabels"),
    *("source", "destination", "nets", "selector", "all()", "10.0.0.0/8", "services", "tier", "order"),
    *("types", "Ingress", "priority", "node", "n1", "interfaceName", "*", "eth0", "expectedIPs", "profiles"),
    *("preDNAT", "doNotTrack", "applyOnForward", "defaultAction", "x", "y"),
)
json = any_json(*WORDS)
objects = st.one_of(
    st.dictionaries(st.sampled_from(("metadata", "spec", "kind")), json),
    st.fixed_dictionaries({"metadata": st.just({"name": "p", "namespace": "x"}), "spec": json}),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(SOURCES), st.sampled_from("pq"), st.none() | objects), max_size=6))
def test_any_json_is_taken_and_leaves_no_trace(events: list[tuple[Source, str, Json]]) -> None:
    node = Node()
    node.put(SOURCES[0], ("x", "none"), None)
    before = node.table
    for source, name, raw in events:
        node.put(source, ("x" if source.namespaced else "", name), raw)
    for source, name, _ in events:
        node.put(source, ("x" if source.namespaced else "", name), None)
    assert node.table.chains == before.chains
    assert node.objects.findings() == []


def _source(raw: dict[str, Any], group: str) -> Source:
    return next(s for s in SOURCES if s.kind == raw["kind"] and group in s.group.split(".", 1))


@st.composite
def damaged(draw: st.DrawFn) -> tuple[Source, dict[str, Any], dict[str, Any]]:
    """An object, and what has become of it."""
    if draw(st.booleans()):
        raw = draw(kubernetes.objects())
        group = "networking" if raw["kind"] == "NetworkPolicy" else "policy"
        return _source(raw, group), raw, draw(kubernetes.damage(raw))
    raw = draw(calico.policies())
    return _source(raw, "crd"), raw, draw(calico.damage(raw))


@settings(max_examples=200, deadline=None)
@given(damaged(), st.lists(damaged(), max_size=2))
def test_damage_to_an_object_opens_nothing(
    one: tuple[Source, dict[str, Any], dict[str, Any]],
    others: list[tuple[Source, dict[str, Any], dict[str, Any]]],
) -> None:
    node = Node()
    for number, (source, raw, _) in enumerate(others):
        named = {**raw, "metadata": {**raw["metadata"], "name": f"other{number}"}}
        node.put(source, (raw["metadata"]["namespace"] if source.namespaced else "", f"other{number}"), named)
    source, whole, broken = one
    key = (whole["metadata"]["namespace"] if source.namespaced else "", "p")
    node.put(source, key, whole)
    before = node.allowed()
    node.put(source, key, broken)
    assert node.objects.findings()
    assert node.allowed() <= before
