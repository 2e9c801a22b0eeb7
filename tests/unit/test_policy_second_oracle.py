"""Our verdicts against network-config-analyzer's, on drawn clusters and policies.

Both read the same manifests; compared is everything that is allowed between any two, not a sample of it.
Where we differ is not drawn but told here, one test each, with the reason why it is the analyzer that is
wrong, or what it leaves out.
"""

from ipaddress import ip_address
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings

from policy_manifests import (
    OUTSIDE,
    Manifest,
    calico_ends,
    calico_policies,
    calico_policy,
    clusters,
    host_endpoint,
    kubernetes_policies,
    kubernetes_policy,
    namespace,
    network_set,
    pod,
    world,
)
from policy_nca import COMMON, Analyzer
from towpath.model.failsafe import INBOUND, OUTBOUND
from towpath.policy.connections import NOTHING, Connections, everything, part
from towpath.policy.matrix import matrix
from towpath.policy.verdicts import united

# What fails is told as it is: to make it smaller would take minutes.
SEARCH = settings(
    max_examples=120,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


# Which the analyzer does not know of.
FAILSAFE = united(
    [part(one.protocol, everything(one.protocol), ((one.port, one.port),)) for one in (*INBOUND, *OUTBOUND)]
)


def compare(folder: Path, manifests: list[Manifest]) -> list[str]:
    """Every pair of which the two say different things."""
    ours, theirs = matrix(world(manifests)), Analyzer(folder, manifests)
    addresses = {address: address for address in OUTSIDE}
    hosts = {one["metadata"]["name"] for one in manifests if one["kind"] == "HostEndpoint"}
    for one in manifests:
        if one["kind"] == "Pod":
            addresses[f"{one['metadata']['namespace']}/{one['metadata']['name']}"] = one["status"]["podIP"]
        elif one["kind"] == "HostEndpoint":
            addresses[one["metadata"]["name"]] = one["spec"]["expectedIPs"][0]
    found = []
    for source, start in addresses.items():
        for destination, end in addresses.items():
            if source != destination and not (source in OUTSIDE and destination in OUTSIDE):
                here = ours.between(ip_address(start), ip_address(end)) & COMMON
                there = theirs.between(source, destination)
                if hosts & {source, destination}:
                    here, there = here - FAILSAFE, there - FAILSAFE
                if here != there:
                    found.append(f"{source} to {destination}: {here} here, {there} there")
    return found


@SEARCH
@given(clusters(), kubernetes_policies())
def test_kubernetes_policies(tmp_path: Path, cluster: list[Manifest], policies: list[Manifest]) -> None:
    assert compare(tmp_path, cluster + policies) == []


@SEARCH
@given(clusters(), calico_policies())
def test_calico_policies(tmp_path: Path, cluster: list[Manifest], policies: list[Manifest]) -> None:
    assert compare(tmp_path, cluster + policies) == []


@SEARCH
@given(clusters(), calico_policies(), kubernetes_policies())
def test_policies_of_both(
    tmp_path: Path, cluster: list[Manifest], calico: list[Manifest], kubernetes: list[Manifest]
) -> None:
    assert compare(tmp_path, cluster + calico + kubernetes) == []


@SEARCH
@given(clusters(), calico_ends(), calico_policies(spaces=False))
def test_host_endpoints_and_network_sets(
    tmp_path: Path, cluster: list[Manifest], ends: list[Manifest], policies: list[Manifest]
) -> None:
    assert compare(tmp_path, cluster + ends + policies) == []


# Of what is drawn nothing differs. What differs, and so is not drawn:

CLUSTER = [
    namespace("x", team="red"),
    namespace("y"),
    pod("x/a", "10.0.0.1", app="a"),
    pod("x/b", "10.0.0.2", [("http", 80, "TCP"), ("web", 80, "TCP")], app="b"),
    pod("y/a", "10.0.0.3", app="a"),
]
A, B, C, FAR = "x/a", "x/b", "x/c", "y/a"
OUT = "203.0.113.9"
TO_B = {"podSelector": {"matchLabels": {"app": "b"}}}
ADDRESSES = {
    A: "10.0.0.1",
    B: "10.0.0.2",
    FAR: "10.0.0.3",
    C: "10.0.0.4",
    OUT: OUT,
    "h": "203.0.113.1",
}


class Told:
    """What either says of the cluster under some manifests."""

    def __init__(self, folder: Path, *manifests: Manifest) -> None:
        everything = [*CLUSTER, *manifests]
        self._ours, self._theirs = matrix(world(everything)), Analyzer(folder, everything)

    def here(self, source: str, destination: str = B) -> Connections:
        return self._ours.between(ip_address(ADDRESSES[source]), ip_address(ADDRESSES[destination])) & COMMON

    def there(self, source: str, destination: str = B) -> Connections:
        return self._theirs.between(source, destination)


def ingress_b(**criteria: Any) -> Manifest:
    """A Calico policy of b that allows this and no more."""
    rules = [{"action": "Allow", **criteria}]
    return calico_policy("x/p", selector="app == 'b'", types=["Ingress"], order=1, ingress=rules)


def test_a_label_that_exists_is_looked_for_in_the_peers_namespace(tmp_path: Path) -> None:
    """``K8sPolicyYamlParser.parse_label_selector_requirement`` looks for pods with a key, or without, in the
    policy's namespace, though the peer has a namespaceSelector.
    """
    peer = {
        "podSelector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]},
        "namespaceSelector": {},
    }
    told = Told(
        tmp_path, kubernetes_policy("x/p", **TO_B, policyTypes=["Ingress"], ingress=[{"from": [peer]}])
    )
    assert (told.here(A), told.there(A)) == (COMMON, COMMON)
    assert (told.here(FAR), told.there(FAR)) == (COMMON, NOTHING)


def test_no_rules_for_egress_do_not_make_a_policy_one_for_egress(tmp_path: Path) -> None:
    """Without policyTypes, egress is meant if there are rules for it; the analyzer asks for the field only.
    (The API server's ``SetDefaults_NetworkPolicy`` counts the rules.)
    """
    told = Told(tmp_path, kubernetes_policy("x/p", **TO_B, ingress=[], egress=[]))
    assert (told.here(B, A), told.there(B, A)) == (COMMON, NOTHING)


def test_type_and_code_zero_are_a_type_and_a_code(tmp_path: Path) -> None:
    """``CalicoPolicyYamlParser._parse_icmp`` takes a zero for "not given"."""
    echo_reply = Told(tmp_path, ingress_b(protocol="ICMP", icmp={"type": 0}))
    assert str(echo_reply.here(A)) == "icmp 0"
    assert str(echo_reply.there(A)) == "icmp 0-254"
    net_unreachable = Told(tmp_path, ingress_b(protocol="ICMP", icmp={"type": 3, "code": 0}))
    assert str(net_unreachable.here(A)) == "icmp 3/0"
    assert str(net_unreachable.there(A)) == "icmp 3"


def test_a_network_holds_the_pods_whose_addresses_are_in_it(tmp_path: Path) -> None:
    """The analyzer's pods have no addresses. Kubernetes leaves the case to the implementation; Calico, and so
    we, match addresses.
    """
    block = {"ipBlock": {"cidr": "0.0.0.0/0"}}
    told = Told(
        tmp_path, kubernetes_policy("x/p", **TO_B, policyTypes=["Ingress"], ingress=[{"from": [block]}])
    )
    assert (told.here(OUT), told.there(OUT)) == (COMMON, COMMON)
    assert (told.here(A), told.there(A)) == (COMMON, NOTHING)


def test_what_is_not_in_a_network_may_be_a_pod(tmp_path: Path) -> None:
    """The same of notNets alone."""
    told = Told(tmp_path, ingress_b(source={"notNets": ["192.0.2.0/24"]}))
    assert (told.here(OUT), told.there(OUT)) == (COMMON, COMMON)
    assert (told.here(A), told.there(A)) == (COMMON, NOTHING)


def test_networks_and_selectors_are_both_asked(tmp_path: Path) -> None:
    """The analyzer warns and lets the rule match nothing."""
    told = Told(tmp_path, ingress_b(source={"nets": ["10.0.0.0/30"], "selector": "app == 'a'"}))
    assert (told.here(A), told.there(A)) == (COMMON, NOTHING)


def test_a_not_selector_stays_in_its_namespace(tmp_path: Path) -> None:
    """In a namespaced policy a notSelector without a namespaceSelector is about the policy's namespace
    (``libcalico-go/lib/backend/syncersv1/updateprocessors/rules.go``); the analyzer takes in everybody else.
    """
    told = Told(tmp_path, ingress_b(source={"notSelector": "app == 'b'"}))
    assert (told.here(A), told.there(A)) == (COMMON, COMMON)
    assert (told.here(FAR), told.there(FAR)) == (NOTHING, COMMON)
    assert (told.here(OUT), told.there(OUT)) == (NOTHING, COMMON)


def test_a_negated_namespace_selector_holds_of_what_has_no_namespace(tmp_path: Path) -> None:
    """Calico asks the namespace's labels under a prefix, which a host endpoint does not have; the analyzer's
    namespaceSelectors never select host endpoints.
    """
    allow = [{"action": "Allow"}]
    policy = calico_policy(
        "p", namespaceSelector="team != 'red'", types=["Egress", "Ingress"], egress=allow, ingress=allow
    )
    told = Told(tmp_path, host_endpoint("h", "203.0.113.1"), policy)
    assert (told.here("h"), told.there("h")) == (COMMON, NOTHING)


def test_an_address_in_two_network_sets_is_in_both(tmp_path: Path) -> None:
    """A selector that leaves one of them out selects the other still; the analyzer takes the addresses of
    what is left out from what is selected.
    """
    wide = network_set("wide", "203.0.113.0/24", app="a")
    narrow = network_set("narrow", "203.0.113.0/28", app="b")
    allow = [{"action": "Allow", "source": {"selector": "!(app == 'a')"}}]
    policy = calico_policy("p", selector="app == 'b'", types=["Ingress"], ingress=allow)
    told = Told(tmp_path, wide, narrow, policy)
    assert (told.here(OUT), told.there(OUT)) == (COMMON, NOTHING)


def test_a_name_may_be_a_port_of_two_protocols(tmp_path: Path) -> None:
    """The analyzer keeps the last port of a name."""
    dns = pod("x/c", "10.0.0.4", [("dns", 53, "UDP"), ("dns", 53, "TCP")], app="b")
    told = Told(tmp_path, dns, ingress_b(protocol="UDP", destination={"ports": ["dns"]}))
    assert str(told.here(A, C)) == "udp 53 from 1-65535"
    assert told.there(A, C) == NOTHING
