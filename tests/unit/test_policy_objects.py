"""From API objects to what the engine is told: the differences, whatever the order, and nothing twice."""

import random
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address, ip_network
from typing import Any

import msgspec
import pytest

from policy_told import Told
from towpath.api.core import Namespace, Node, Pod, ServiceAccount
from towpath.api.slices import EndpointSlice
from towpath.model.finding import Finding
from towpath.model.net import Addr
from towpath.policy.calico_order import CALICO_3_31, CALICO_3_32
from towpath.policy.objects import Objects
from towpath.policy.sources import SOURCES, Source, source_of

NETWORKING = source_of("networking.k8s.io", "networkpolicies")
CALICO = source_of("crd.projectcalico.org", "networkpolicies")


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def objects(told: Told) -> Objects:
    return Objects(told)


def pod(name: str, ip: str = "", account: str = "", **labels: str) -> Pod:
    return msgspec.convert(
        {
            "metadata": {"namespace": "shop", "name": name, "labels": labels},
            "spec": {"serviceAccountName": account},
            "status": {"podIP": ip, "podIPs": [{"ip": ip}] if ip else []},
        },
        Pod,
    )


def addresses(told: Told) -> tuple[Addr, ...]:
    return told.endpoints["Pod/shop/web"].addresses


def namespace(name: str, **labels: str) -> Namespace:
    return msgspec.convert({"metadata": {"name": name, "labels": labels}}, Namespace)


def policy(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": "shop", "name": name},
        "spec": {"podSelector": {}, **spec},
    }


def test_a_namespaces_labels_are_its_pods(objects: Objects, told: Told) -> None:
    objects.pod(("shop", "web"), pod("web", "10.42.0.2", app="web"))
    assert told.endpoints["Pod/shop/web"].labels["pcns.projectcalico.org/name"] == "shop"
    objects.namespace("shop", namespace("shop", team="red"))
    assert told.endpoints["Pod/shop/web"].labels["pcns.team"] == "red"
    calls = told.calls
    objects.namespace("shop", namespace("shop", team="red"))
    objects.pod(("shop", "web"), pod("web", "10.42.0.2", app="web"))
    assert told.calls == calls
    objects.pod(("shop", "web"), None)
    assert not told.endpoints


def test_a_service_accounts_labels_are_its_pods(objects: Objects, told: Told) -> None:
    objects.pod(("shop", "web"), pod("web", "10.42.0.2", account="clerk"))
    account = msgspec.convert(
        {"metadata": {"namespace": "shop", "name": "clerk", "labels": {"rank": "1"}}}, ServiceAccount
    )
    objects.account(("shop", "clerk"), account)
    assert told.endpoints["Pod/shop/web"].labels["pcsa.rank"] == "1"
    objects.account(("shop", "clerk"), None)
    assert "pcsa.rank" not in told.endpoints["Pod/shop/web"].labels


def test_a_pod_of_this_node_has_its_address_before_the_api_knows(objects: Objects, told: Told) -> None:
    objects.pod(("shop", "web"), pod("web"))
    assert not addresses(told)
    given = (ip_address("10.42.0.2"), ip_address("fd00::2"))
    objects.wired({("shop", "web"): given})
    assert addresses(told) == given
    objects.pod(("shop", "web"), pod("web", "10.42.0.2"))
    assert addresses(told) == given
    objects.wired({})
    assert addresses(told) == (ip_address("10.42.0.2"),)


def test_a_policy_changes_comes_and_goes(objects: Objects, told: Told) -> None:
    objects.policy(NETWORKING, ("shop", "p"), policy("p"))
    (only,) = told.policies.values()
    assert (only.ingress, only.egress) == ((), None)
    objects.policy(NETWORKING, ("shop", "p"), policy("p", policyTypes=["Egress"]))
    (only,) = told.policies.values()
    assert (only.ingress, only.egress) == (None, ())
    objects.policy(NETWORKING, ("shop", "p"), None)
    assert not told.policies
    objects.policy(NETWORKING, ("shop", "p"), None)


def test_what_cannot_be_read_is_found_while_it_is_there(objects: Objects) -> None:
    broken = policy("p", ingress=[{"from": [{"ipBlock": {"cidr": "10.0.0.0/99"}}]}])
    objects.policy(NETWORKING, ("shop", "p"), broken)
    (finding,) = objects.findings()
    assert "NetworkPolicy/shop/p" in finding.object
    assert "10.0.0.0/99" in finding.message
    objects.policy(NETWORKING, ("shop", "p"), policy("p"))
    assert objects.findings() == []


def test_a_services_endpoints_are_the_rules_that_name_it(objects: Objects, told: Told) -> None:
    raw = {
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": "shop", "name": "p"},
        "spec": {
            "selector": "all()",
            "types": ["Egress"],
            "egress": [{"action": "Allow", "destination": {"services": {"name": "db"}}}],
        },
    }
    objects.policy(CALICO, ("shop", "p"), raw)
    assert [p.egress for p in told.policies.values()] == [()]
    one = msgspec.convert(
        {
            "metadata": {
                "namespace": "shop",
                "name": "db-x",
                "labels": {"kubernetes.io/service-name": "db"},
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.42.1.9"]}],
            "ports": [{"port": 5432, "protocol": "TCP"}],
        },
        EndpointSlice,
    )
    objects.slice(("shop", "db-x"), one)
    (found,) = told.policies.values()
    assert found.egress is not None
    (rule,) = found.egress
    assert rule.destination.nets == (ip_network("10.42.1.9/32"),)
    assert rule.destination_ports is not None
    assert rule.destination_ports.ranges == ((5432, 5432),)
    objects.slice(("shop", "db-x"), None)
    assert [p.egress for p in told.policies.values()] == [()]


def test_calicos_policy_and_kubernetes_of_one_name_are_two(objects: Objects, told: Told) -> None:
    objects.policy(NETWORKING, ("shop", "p"), policy("p"))
    calico = {
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": "shop", "name": "p"},
        "spec": {"selector": "all()"},
    }
    objects.policy(CALICO, ("shop", "p"), calico)
    assert len(told.policies) == 2
    objects.policy(CALICO, ("shop", "p"), None)
    assert [key[0] for key in told.policies] == ["NetworkPolicy"]


def test_a_namespaced_set_inherits(objects: Objects, told: Told) -> None:
    source = source_of("crd.projectcalico.org", "networksets")
    raw = {
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "NetworkSet",
        "metadata": {"namespace": "shop", "name": "s", "labels": {"a": "b"}},
        "spec": {"nets": ["192.0.2.0/24"]},
    }
    objects.policy(source, ("shop", "s"), raw)
    objects.namespace("shop", namespace("shop", team="red"))
    (found,) = told.network_sets.values()
    assert found.labels["pcns.team"] == "red"
    objects.policy(source, ("shop", "s"), None)
    assert not told.network_sets


def test_the_order_of_events_does_not_matter(told: Told) -> None:
    node = msgspec.convert(
        {
            "metadata": {"name": "n1"},
            "status": {"addresses": [{"type": "InternalIP", "address": "172.30.0.11"}]},
        },
        Node,
    )
    ends = []
    for seed in range(20):
        sink = Told()
        objects = Objects(sink)
        web = pod("web", "10.42.0.2", account="clerk", app="web")
        events: list[Callable[[], object]] = [
            partial(objects.pod, ("shop", "web"), web),
            partial(objects.namespace, "shop", namespace("shop", team="red")),
            partial(objects.wired, {("shop", "web"): (ip_address("10.42.0.2"),)}),
            partial(objects.policy, NETWORKING, ("shop", "p"), policy("p")),
            partial(objects.node, "n1", node),
        ]
        random.Random(seed).shuffle(events)
        for event in events:
            event()
        ends.append((sink.endpoints, sink.policies))
    assert all(end == ends[0] for end in ends)
    assert ends[0][0].keys() == {"Pod/shop/web", "Node/n1"}


@pytest.mark.parametrize("source", SOURCES, ids=lambda s: f"{s.plural}.{s.group}")
def test_every_kind_is_read_by_its_own_reader(source: Source) -> None:
    sink = Told()
    raw = {
        "apiVersion": f"{source.group}/{source.versions[0]}",
        "kind": source.kind,
        "metadata": {"name": "default", **({"namespace": "shop"} if source.namespaced else {})},
        "spec": {},
    }
    objects = Objects(sink)
    objects.policy(source, ("shop", "default"), raw)
    objects.policy(source, ("shop", "default"), None)
    assert (sink.policies, sink.tiers, sink.network_sets) == ({}, {}, {})


def test_tiers_and_ties_are_those_of_the_era_that_was_chosen() -> None:
    """As ``world.assemble`` has it for the command line."""
    places = {}
    for era in (CALICO_3_31, CALICO_3_32):
        sink = Told()
        objects = Objects(sink, era)
        for name in ("edge.one", "default.two"):
            metadata = {"namespace": "shop", "name": name}
            raw = {"kind": "NetworkPolicy", "metadata": metadata, "spec": {"order": 1000}}
            objects.policy(CALICO, ("shop", name), raw)
        objects.policy(NETWORKING, ("shop", "kube"), policy("kube"))
        places[era.ties] = {one.name: (one.tier, one.rank) for one in sink.policies.values()}
    assert places["key"]["edge.one"][0] == "edge" and places["name"]["edge.one"][0] == "default"
    assert places["key"]["default.two"][1] < places["key"]["kube"][1] == "shop/knp.default.kube"
    assert places["name"]["kube"][1] == "kube/shop/KubernetesNetworkPolicy"


def test_cluster_network_policies_are_read_in_the_newest_version_that_is_served() -> None:
    # network-policy-api 0.3 stores v1beta1 and serves v1alpha2 beside it.
    assert source_of("policy.networking.k8s.io", "clusternetworkpolicies").versions == ("v1beta1", "v1alpha2")


def test_what_only_this_node_finds_is_told_with_the_host_endpoint(objects: Objects) -> None:
    hosts = source_of("crd.projectcalico.org", "hostendpoints")
    for name in ("h", "other"):
        spec = {"node": "n1", "expectedIPs": ["192.0.2.1"]}
        raw = {"apiVersion": "crd.projectcalico.org/v1", "metadata": {"name": name}, "spec": spec}
        objects.policy(hosts, ("", name), raw)
    here = Finding(code="TP5045", object="HostEndpoint/h", message="stands nowhere", fix="correct it")
    found = {read.reference()["name"]: read for read in objects.read([here])}
    assert (found["h"].here, found["other"].here) == ((here,), ())
    assert found["h"].findings == ()
