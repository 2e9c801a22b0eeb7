"""Calico's policies, as Felix reads them: whom they let through, and what they refuse."""

from ipaddress import ip_address
from typing import Any

import pytest

from kube_policies import ADDRESSES, ENDPOINTS, EVERYONE, SIX, flow, only, problem
from towpath.policy.calico_order import CALICO_3_31, CALICO_3_32, CalicoEra, ranked
from towpath.policy.convert_calico import convert_global_network_policy, convert_network_policy, convert_tier
from towpath.policy.convert_networking import convert as convert_kubernetes
from towpath.policy.converted import Converted
from towpath.policy.evaluate import Flow, verdict
from towpath.policy.ir import ICMP, ICMPV6, SCTP, TCP, UDP, Icmp, Ports, Rule, ServiceRef, Tier, World

INF = float("inf")
CRD, SERVED = "crd.projectcalico.org/v1", "projectcalico.org/v3"


def local(name: str = "p", namespace: str = "x", api: str = CRD, **spec: Any) -> dict[str, Any]:
    """A NetworkPolicy, of ingress unless it says otherwise."""
    spec = {"types": ["Ingress"], **spec}
    return {
        "apiVersion": api,
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {key: value for key, value in spec.items() if value is not None},
    }


def everywhere(name: str = "p", api: str = CRD, **spec: Any) -> dict[str, Any]:
    """A GlobalNetworkPolicy, of ingress unless it says otherwise."""
    return {**local(name, api=api, **spec), "kind": "GlobalNetworkPolicy", "metadata": {"name": name}}


def allow(**criteria: Any) -> list[dict[str, Any]]:
    return [{"action": "Allow", **criteria}]


def deny(**criteria: Any) -> list[dict[str, Any]]:
    return [{"action": "Deny", **criteria}]


def world(*converted: Converted) -> World:
    return World(
        tiers=tuple(tier for one in converted for tier in one.tiers),
        policies=tuple(policy for one in converted for policy in one.policies),
        endpoints=(*ENDPOINTS, *(endpoint for one in converted for endpoint in one.endpoints)),
        network_sets=tuple(networks for one in converted for networks in one.network_sets),
    )


def sources(destination: str, *converted: Converted, port: int = 80, protocol: str = "tcp") -> set[str]:
    here = world(*converted)
    return {name for name in EVERYONE if verdict(here, flow(name, destination, port, protocol))}


def rule(**criteria: Any) -> Rule:
    """The one rule of a policy that allows by these."""
    policy = only(convert_network_policy(local(ingress=allow(**criteria))))
    assert policy.ingress is not None
    (found,) = policy.ingress
    assert found.path == "spec.ingress[0]"
    return found


def refused(**criteria: Any) -> str:
    """Why a rule is refused; whether it denies or allows it fails closed."""
    allowing = convert_network_policy(local(ingress=allow(**criteria)))
    denying = convert_network_policy(local(ingress=deny(**criteria)))
    assert allowing.policies[0].ingress == ()
    assert denying.policies[0].ingress == (Rule(action="deny", path="spec.ingress[0]"),)
    assert problem(denying).startswith("TP5001 NetworkPolicy.projectcalico.org/x/p: spec.ingress[0]")
    return problem(allowing)


# Peers. Everyone that reaches x/web: itself, always, and those that the rule allows.


@pytest.mark.parametrize(
    ("peer", "allowed"),
    [
        ({}, EVERYONE),
        ({"selector": "app == 'db'"}, {"x/db"}),
        ({"selector": "all()"}, {"x/db"}),
        ({"selector": " "}, {"x/db"}),
        ({"selector": ""}, EVERYONE),
        ({"notSelector": "app == 'db'"}, set()),
        ({"notSelector": "app == 'cli'"}, {"x/db"}),
        ({"selector": "has(app)", "notSelector": "app == 'db'"}, set()),
        ({"namespaceSelector": "all()"}, {"x/db", "y/web", "y/cli"}),
        ({"namespaceSelector": "team == 'blue'"}, {"y/web", "y/cli"}),
        ({"namespaceSelector": "projectcalico.org/name == 'y'"}, {"y/web", "y/cli"}),
        ({"namespaceSelector": "kubernetes.io/metadata.name != 'y'"}, {"x/db"}),
        ({"namespaceSelector": "has(env)", "selector": "app == 'web'"}, {"y/web"}),
        ({"namespaceSelector": "all()", "notSelector": "app == 'web'"}, {"x/db", "y/cli"}),
        ({"namespaceSelector": "global()"}, set()),
        ({"serviceAccounts": {"names": ["default"]}}, {"x/db"}),
        ({"serviceAccounts": {"names": ["other"]}}, set()),
        ({"serviceAccounts": {"selector": "projectcalico.org/name == 'default'"}}, {"x/db"}),
        (
            {"serviceAccounts": {"names": ["default"]}, "namespaceSelector": "env == 'prod'"},
            {"y/web", "y/cli"},
        ),
        ({"nets": ["203.0.113.0/24", "10.0.0.4"]}, {"out", "y/cli"}),
        ({"nets": ["203.0.113.77/24"]}, {"out"}),
        ({"nets": []}, EVERYONE),
        ({"nets": ["fd00::/8"]}, set()),
        ({"notNets": ["10.0.0.0/8"]}, {"out", "n1", "n2"}),
        ({"notNets": ["0.0.0.0/0"]}, set()),
        ({"notNets": ["fd00::/8"]}, set()),
        ({"nets": ["0.0.0.0/0", "::/0"], "notNets": ["10.0.0.0/8", "fd00::/8"]}, {"out", "n1", "n2"}),
        ({"nets": ["10.0.0.0/8"], "selector": "all()"}, {"x/db"}),
    ],
)
def test_peers_of_a_namespaced_policy(peer: dict[str, Any], allowed: set[str]) -> None:
    policy = convert_network_policy(local(selector="app == 'web'", ingress=allow(source=peer)))
    assert policy.findings == ()
    assert sources("x/web", policy) == allowed | {"x/web"}
    assert sources("x/db", policy) == EVERYONE  # not selected


@pytest.mark.parametrize(
    ("peer", "allowed"),
    [
        ({"selector": "app == 'web'"}, {"y/web"}),
        ({"selector": "all()"}, {"x/db", "y/web", "y/cli"}),  # what Calico knows; nodes it does not
        ({"notSelector": "app == 'web'"}, EVERYONE - {"y/web"}),
        ({"selector": "!has(env)"}, {"x/db", "y/web"}),
        ({"namespaceSelector": "team != 'blue'"}, {"x/db"}),
        ({"serviceAccounts": {"selector": "all()"}}, {"x/db", "y/web", "y/cli"}),
    ],
)
def test_peers_of_a_global_policy(peer: dict[str, Any], allowed: set[str]) -> None:
    policy = convert_global_network_policy(everywhere(selector="app == 'web'", ingress=allow(source=peer)))
    assert policy.findings == ()
    assert sources("x/web", policy) == allowed | {"x/web"}


def test_not_selector_beside_a_selector_takes_away_from_just_that() -> None:
    """Felix makes one set of both: an address counts if anything that has it is in that set."""
    found = rule(source={"selector": "has(a)", "notSelector": "has(b)"})
    assert found.source.not_selector is None
    assert found.source.selector is not None
    inside = {"towpath.io/kind": "pod", "projectcalico.org/namespace": "x", "a": ""}
    assert found.source.selector.matches(inside)
    assert not found.source.selector.matches({**inside, "b": ""})
    assert not found.source.selector.matches({**inside, "towpath.io/kind": "node"})
    assert not found.source.selector.matches({**inside, "projectcalico.org/namespace": "y"})


def test_services_are_peers_on_the_side_that_has_them() -> None:
    service = {"services": {"name": "web"}}
    assert rule(source=service).source.service == ServiceRef("x", "web")
    elsewhere = {"services": {"name": "web", "namespace": "y"}}
    assert rule(source=elsewhere, protocol="TCP").source.service == ServiceRef("y", "web")
    egress = only(convert_network_policy(local(types=["Egress"], egress=allow(destination=service))))
    assert egress.egress is not None
    assert egress.egress[0].destination.service == ServiceRef("x", "web")
    assert "where none can be" in refused(destination=service)
    for other in ({"selector": "all()"}, {"nets": ["10.0.0.0/8"]}, {"serviceAccounts": {"names": ["a"]}}):
        assert "beside services" in refused(source={**service, **other})
    assert "is no text" in refused(source={"services": {}})
    ports = allow(protocol="TCP", destination={**service, "ports": [80]})
    assert "stands beside services" in problem(convert_network_policy(local(types=["Egress"], egress=ports)))
    homeless = convert_global_network_policy(everywhere(ingress=allow(source=service)))
    assert "in which namespace" in problem(homeless)
    assert homeless.policies[0].ingress == ()


# Other criteria.


@pytest.mark.parametrize(
    ("written", "protocol", "family"),
    [
        ("TCP", TCP, None),
        ("udp", UDP, None),
        ("sCTP", SCTP, None),
        ("ICMP", ICMP, 4),
        ("icmpV6", ICMPV6, 6),
        ("UDPLite", 136, None),
        (6, TCP, None),
        ("6", TCP, None),
        (1, ICMP, None),
        (255, 255, None),
    ],
)
def test_protocols(written: Any, protocol: int, family: int | None) -> None:
    found = rule(protocol=written)
    assert (found.protocol, found.family) == (protocol, family)
    negated = rule(notProtocol=written)
    assert (negated.not_protocol, negated.protocol, negated.family) == (protocol, None, None)


@pytest.mark.parametrize("written", ["", "any", "tcpp", 0, 256, "256", -1, True, 6.0, "²", [], {}])
def test_no_protocols(written: Any) -> None:
    assert "is no protocol" in refused(protocol=written)
    assert "is no protocol" in refused(notProtocol=written)


def test_ports() -> None:
    ports = [443, "80", "8080:8090", 81, 8091, "http", "0:10", "a.B_c-9"]
    merged = Ports(((0, 10), (80, 81), (443, 443), (8080, 8091)), ("a.B_c-9", "http"))
    assert rule(protocol="TCP", destination={"ports": ports}).destination_ports == merged
    assert rule(protocol="TCP", source={"ports": ports}).source_ports == merged
    assert rule(protocol="UDP", destination={"notPorts": ports}).not_destination_ports == merged
    assert rule(protocol=132, source={"notPorts": ports}).not_source_ports == merged
    assert rule(destination={"ports": []}).destination_ports is None


@pytest.mark.parametrize(
    "port", [65536, -1, "65536", "80:79", "1:65536", "1:2:3", "a b", "", "123456", 80.0, True]
)
def test_no_ports(port: Any) -> None:
    assert "spec.ingress[0].destination.ports[1]" in refused(
        protocol="TCP", destination={"ports": [80, port]}
    )


def test_ports_need_a_protocol_that_has_them() -> None:
    assert "without a protocol" in refused(destination={"ports": [80]})
    assert "without a protocol" in refused(source={"notPorts": ["http"]})
    assert "without a protocol" in refused(notProtocol="UDP", destination={"ports": [80, "http"]})
    for protocol in ("ICMP", "UDPLite", 47):
        assert "has no ports" in refused(protocol=protocol, destination={"ports": [80]})
    assert rule(destination={"ports": ["http"]}).protocol == TCP  # so Felix reads a name alone


def test_named_ports_are_the_destinations_own() -> None:
    policy = convert_global_network_policy(
        everywhere(ingress=allow(protocol="TCP", destination={"ports": ["http"]}))
    )
    assert "out" in sources("x/web", policy, port=8080)
    assert "out" not in sources("x/web", policy, port=80)
    assert "out" in sources("y/web", policy, port=80)
    assert "out" not in sources("x/db", policy, port=80)


def test_icmp() -> None:
    assert rule(protocol="ICMP", icmp={"type": 8}).icmp == Icmp(8)
    assert rule(protocol="ICMPv6", icmp={"type": 128, "code": 0}).icmp == Icmp(128, 0)
    assert rule(protocol=1, notICMP={"type": 3, "code": 4}).not_icmp == Icmp(3, 4)
    assert rule(protocol="TCP", icmp={}, notICMP={}).icmp is None
    assert "without a type" in refused(protocol="ICMP", icmp={"code": 0})
    assert "another protocol" in refused(protocol="TCP", icmp={"type": 8})
    assert "another protocol" in refused(notICMP={"type": 8})
    assert "is no number" in refused(protocol="ICMP", icmp={"type": 255})
    assert "is no number" in refused(protocol="ICMP", icmp={"type": 8, "code": 256})


@pytest.mark.parametrize(
    ("criteria", "family"),
    [
        ({}, None),
        ({"ipVersion": 4}, 4),
        ({"ipVersion": 6, "protocol": "ICMPv6"}, 6),
        ({"source": {"nets": ["10.0.0.0/8", "fd00::/8"]}}, None),
        ({"source": {"nets": ["10.0.0.0/8"]}}, 4),
        ({"source": {"notNets": ["fd00::/8"]}}, 6),
        ({"source": {"nets": ["10.0.0.0/8", "fd00::/8"]}, "destination": {"notNets": ["10.0.0.1"]}}, 4),
    ],
)
def test_families(criteria: dict[str, Any], family: int | None) -> None:
    assert rule(**criteria).family == family


@pytest.mark.parametrize(
    "criteria",
    [
        {"ipVersion": 6, "protocol": "ICMP"},
        {"ipVersion": 4, "source": {"nets": ["fd00::/8"]}},
        {"source": {"notNets": ["fd00::/8"]}, "destination": {"nets": ["10.0.0.0/8"]}},
    ],
)
def test_a_rule_without_a_family_matches_nothing(criteria: dict[str, Any]) -> None:
    converted = convert_network_policy(local(ingress=[*deny(**criteria), *allow()]))
    (finding,) = converted.findings
    assert (finding.code, finding.severity) == ("TP5044", "warning")
    assert [one.action for one in converted.policies[0].ingress or ()] == ["allow"]


def test_exceptions_of_one_family_leave_the_other_out() -> None:
    """As in Calico; read as written, "not 10/8" would let all of IPv6 in."""
    policy = convert_network_policy(local(ingress=allow(source={"notNets": ["10.0.0.0/8"]})))
    six = Flow(source=ip_address(SIX["out"]), destination=ip_address(SIX["x/web"]), protocol=TCP)
    assert not verdict(world(policy), six)
    assert verdict(world(policy), flow("out", "x/web"))


@pytest.mark.parametrize(
    ("criteria", "says"),
    [
        ({"ipVersion": 5}, "is no version of IP"),
        ({"ipVersion": "4"}, "is no version of IP"),
        ({"http": {"methods": ["GET"]}}, "asks for HTTP"),
        ({"source": {"nets": ["10.0.0.0/33"]}}, "spec.ingress[0].source.nets[0]: '10.0.0.0/33' is no CIDR"),
        ({"source": {"nets": ["10.0.0.0/8", "010.0.0.1"]}}, "'010.0.0.1' is no CIDR"),
        ({"source": {"notNets": ["web"]}}, "'web' is no CIDR"),
        ({"source": {"nets": "10.0.0.0/8"}}, "is no list"),
        ({"source": {"selector": "app = 'web'"}}, "must be doubled: == (at character 5)"),
        ({"source": {"selector": 7}}, "is no text"),
        ({"source": {"selector": "global()"}}, "namespaceSelector of a rule only"),
        ({"source": {"notSelector": "app =="}}, "spec.ingress[0].source.notSelector"),
        ({"source": {"namespaceSelector": "has(a"}}, "spec.ingress[0].source.namespaceSelector"),
        ({"source": {"serviceAccounts": {"selector": "x"}}}, "serviceAccounts.selector"),
        ({"source": {"serviceAccounts": {}}}, "says nothing of service accounts"),
        ({"source": {"serviceAccounts": {"names": [""]}}}, "is no text"),
        ({"source": {"domains": ["example.org"]}}, "does not know here"),
        ({"source": []}, "is no object"),
        ({"destinations": {}}, "does not know here"),
    ],
)
def test_rules_that_fail_closed(criteria: dict[str, Any], says: str) -> None:
    assert says in refused(**criteria)


def test_rules_of_unknown_or_no_action_deny_everything_and_logs_are_left_out() -> None:
    for action in ("Allowed", None, 7):
        converted = convert_network_policy(local(ingress=[{"action": action}, *allow()]))
        assert converted.policies[0].ingress == (
            Rule(action="deny", path="spec.ingress[0]"),
            Rule(action="allow", path="spec.ingress[1]"),
        )
        assert "spec.ingress[0].action" in problem(converted)
    broken = {"protocol": "nope"}
    logging = convert_network_policy(local(ingress=[{"action": "Log", **broken}, *allow()]))
    assert [one.action for one in logging.policies[0].ingress or ()] == ["allow"]
    passing = convert_network_policy(local(ingress=[{"action": "Pass", **broken}, *allow()]))
    assert [one.action for one in passing.policies[0].ingress or ()] == ["deny", "allow"]


def test_actions_and_metadata() -> None:
    rules = [
        {"action": action, "metadata": {"annotations": {"a": "b"}}} for action in ("Log", "deny", "PASS")
    ]
    policy = only(convert_network_policy(local(ingress=rules)))
    assert [one.action for one in policy.ingress or ()] == ["log", "deny", "pass"]


# Whole policies.


@pytest.mark.parametrize(
    ("spec", "stored", "served"),
    [
        ({}, "both", "ingress"),
        ({"ingress": allow()}, "both", "ingress"),
        ({"egress": allow()}, "both", "egress"),
        ({"ingress": allow(), "egress": allow()}, "both", "both"),
        ({"types": []}, "both", "ingress"),
        ({"types": ["Ingress"], "egress": allow()}, "ingress", "ingress"),
        ({"types": ["egress"]}, "egress", "egress"),
        ({"types": ["Egress", "Ingress"]}, "both", "both"),
    ],
)
def test_directions(spec: dict[str, Any], stored: str, served: str) -> None:
    for api, expected in ((CRD, stored), (SERVED, served)):
        for policy in (
            only(convert_network_policy(local(api=api, **{"types": None, **spec}))),
            only(convert_global_network_policy(everywhere(api=api, **{"types": None, **spec}))),
        ):
            spoken = "ingress" * (policy.ingress is not None) + "egress" * (policy.egress is not None)
            assert spoken == {"both": "ingressegress"}.get(expected, expected)


def test_subjects_of_namespaced_policies() -> None:
    def selected(**spec: Any) -> set[str]:
        policy = only(convert_network_policy(local(**spec)))
        return {one.name for one in ENDPOINTS if policy.selector.matches(one.labels)}

    assert selected() == {"Pod/x/web", "Pod/x/db"}
    assert selected(selector="all()") == {"Pod/x/web", "Pod/x/db"}
    assert selected(selector="app != 'web'") == {"Pod/x/db"}
    assert selected(serviceAccountSelector="projectcalico.org/name == 'default'") == {"Pod/x/web", "Pod/x/db"}
    assert selected(serviceAccountSelector="has(role)") == set()


def test_subjects_of_global_policies() -> None:
    def selected(**spec: Any) -> set[str]:
        policy = only(convert_global_network_policy(everywhere(**spec)))
        return {one.name for one in ENDPOINTS if policy.selector.matches(one.labels)}

    pods = {one.name for one in ENDPOINTS if one.name.startswith("Pod/")}
    assert selected() == selected(selector="all()") == selected(namespaceSelector="all()") == pods
    assert selected(serviceAccountSelector="all()") == pods
    assert selected(namespaceSelector="team == 'blue'") == {"Pod/y/web", "Pod/y/cli"}
    assert selected(namespaceSelector="team == 'blue'", selector="app == 'web'") == {"Pod/y/web"}
    host = {"towpath.io/kind": "hostendpoint"}
    for spec, hosts_too in (
        ({}, True),
        ({"selector": "all()"}, True),
        ({"namespaceSelector": "all()"}, False),
        ({"namespaceSelector": "team != 'blue'"}, True),  # as in Calico: it has no such label
        ({"namespaceSelector": "team != 'blue'", "selector": "all()"}, False),  # as in Calico, also
        ({"serviceAccountSelector": "!has(role)", "selector": "all()"}, False),
    ):
        assert only(convert_global_network_policy(everywhere(**spec))).selector.matches(host) is hosts_too


def test_places() -> None:
    policy = only(convert_network_policy(local()))
    assert (policy.tier, policy.order, policy.kind) == ("default", INF, "NetworkPolicy.projectcalico.org")
    policy = only(convert_network_policy(local(tier="security", order=-1.5)))
    assert (policy.tier, policy.order) == ("security", -1.5)
    assert only(convert_global_network_policy(everywhere(tier="", order=3))).order == 3.0


def test_flags_of_host_endpoints() -> None:
    def flags(**spec: Any) -> tuple[bool, bool, bool]:
        policy = only(convert_global_network_policy(everywhere(**spec)))
        return policy.apply_on_forward, policy.do_not_track, policy.pre_dnat

    assert flags() == (False, False, False)
    assert flags(applyOnForward=True) == (True, False, False)
    assert flags(doNotTrack=True, applyOnForward=True) == flags(doNotTrack=True) == (True, True, False)
    assert flags(preDNAT=True) == (True, False, True)
    early = only(convert_global_network_policy(everywhere(preDNAT=True, types=None, ingress=deny())))
    assert (early.ingress is not None, early.egress) == (True, None)
    for wrong in ({"doNotTrack": True}, {"egress": deny()}, {"types": ["Egress"]}):
        spec: dict[str, Any] = {"preDNAT": True, "ingress": allow(), **wrong}
        converted = convert_global_network_policy(everywhere(**spec))
        (policy,) = converted.policies
        assert "spec.preDNAT" in problem(converted)
        assert not (policy.pre_dnat or policy.do_not_track)
        assert policy.ingress in ((), None)


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"selector": "app = 'web'"}, "spec.selector"),
        ({"selector": 7}, "spec.selector"),
        ({"selector": "global()"}, "spec.selector"),
        ({"serviceAccountSelector": "("}, "spec.serviceAccountSelector"),
        ({"types": ["Ingres"]}, "spec.types[0]"),
        ({"types": "Ingress"}, "spec.types"),
        ({"order": "1"}, "spec.order"),
        ({"order": True}, "spec.order"),
        ({"order": 10**400}, "spec.order"),
        ({"order": float("nan")}, "spec.order"),
        ({"tier": 7}, "spec.tier"),
        ({"newFeature": {}}, "spec.newFeature"),
        ({"namespaceSelector": "all()"}, "spec.namespaceSelector"),
        ({"doNotTrack": True}, "spec.doNotTrack"),
    ],
)
def test_a_policy_not_understood_selects_what_it_may_and_allows_nothing(
    spec: dict[str, Any], path: str
) -> None:
    rules = [*allow(), *deny(protocol="TCP"), {"action": "Pass"}, {"action": "Log"}]
    converted = convert_network_policy(local(**{"selector": "app == 'web'", "ingress": rules, **spec}))
    (policy,) = converted.policies
    assert problem(converted).startswith(f"TP5002 NetworkPolicy.projectcalico.org/x/p: {path}: ")
    assert [(one.action, one.protocol) for one in policy.ingress or ()] == [("deny", TCP), ("deny", None)]
    assert policy.order == (-INF if path in ("spec.order", "spec.tier") else INF)
    assert policy.selector.matches(ENDPOINTS[0].labels)
    assert policy.selector.matches(ENDPOINTS[1].labels) is (path == "spec.selector")
    assert not policy.selector.matches(ENDPOINTS[2].labels)
    assert sources("x/web", converted) == {"x/web"}


def test_a_global_policy_not_understood_keeps_what_narrows_it() -> None:
    converted = convert_global_network_policy(
        everywhere(selector="app ==", namespaceSelector="team == 'blue'", ingress=allow())
    )
    (policy,) = converted.policies
    assert "TP5002 GlobalNetworkPolicy/p: spec.selector" in problem(converted)
    selected = {one.name for one in ENDPOINTS if policy.selector.matches(one.labels)}
    assert selected == {"Pod/y/web", "Pod/y/cli"}
    assert policy.ingress == ()


def test_a_policy_without_namespace_selects_all_pods() -> None:
    raw = local(ingress=allow())
    del raw["metadata"]["namespace"]
    converted = convert_network_policy(raw)
    assert "metadata.namespace" in problem(converted)
    assert all(
        converted.policies[0].selector.matches(one.labels) is one.name.startswith("Pod/") for one in ENDPOINTS
    )
    assert sources("y/web", converted) == {"y/web"}


def test_rules_that_are_no_list_deny_everything() -> None:
    shapes: tuple[Any, ...] = ({}, "x", [None], 7)
    for rules in shapes:
        converted = convert_network_policy(local(ingress=rules))
        assert converted.policies[0].ingress == (Rule(action="deny", path="spec.ingress"),)
        assert "spec.ingress" in problem(converted)


# Tiers and order.


def tier(name: str, order: Any = None, action: Any = None) -> Converted:
    spec = {"order": order, "defaultAction": action}
    given = {key: value for key, value in spec.items() if value is not None}
    return convert_tier({"apiVersion": CRD, "kind": "Tier", "metadata": {"name": name}, "spec": given})


def test_tiers() -> None:
    assert tier("security", 100, "Pass").tiers == (Tier(name="security", order=100, default="pass"),)
    assert tier("security").tiers == (Tier(name="security", order=INF, default="deny"),)
    for broken in (tier("security", "1"), tier("security", 1, "Allow"), tier("security", 1, 7)):
        assert broken.tiers == (Tier(name="security", order=INF, default="deny"),)
        assert "TP5042 Tier/security: spec." in problem(broken)


def test_tiers_that_calico_makes_stay_as_it_makes_them() -> None:
    assert tier("default", 1_000_000, "Deny").findings == ()
    assert tier("default").tiers == (Tier(name="default", order=1_000_000, default="deny"),)
    assert tier("kube-admin", 1000, "Pass").findings == ()
    for changed in (tier("default", 5), tier("default", None, "Pass"), tier("default", "x")):
        assert changed.tiers == (Tier(name="default", order=1_000_000, default="deny"),)
        assert "as Calico" in problem(changed) or "at 1e+06" in problem(changed)


def test_pass_log_and_the_default_of_tiers() -> None:
    early = convert_global_network_policy(
        everywhere(
            "early",
            tier="early",
            selector="app == 'web'",
            ingress=[
                {"action": "Log"},
                {"action": "Pass", "source": {"selector": "app == 'db'"}},
                {"action": "Allow", "source": {"nets": [ADDRESSES["out"]]}},
            ],
        )
    )
    late = convert_network_policy(local(ingress=deny()))
    assert sources("x/web", early, tier("early", 1, "Deny")) == {"x/web", "x/db", "out"}
    assert sources("x/web", early, tier("early", 1, "Deny"), late) == {"x/web", "out"}
    assert sources("x/web", early, tier("early", 1, "Pass"), late) == {"x/web", "out"}
    assert sources("x/web", early, tier("early", 1, "Pass")) == EVERYONE
    # A tier that does not exist comes last, and denies.
    assert sources("x/web", early) == {"x/web", "x/db", "out"}


def order_of(*converted: Converted) -> list[str]:
    policies = [policy for one in converted for policy in one.policies]
    return [policy.name for policy in sorted(policies, key=lambda policy: policy.sort_key)]


def test_equal_orders_of_both_eras() -> None:
    def converted(era: CalicoEra) -> list[str]:
        return order_of(
            convert_global_network_policy(everywhere("default.m", order=1), era),
            convert_network_policy(local("default.a", "x", order=1), era),
            convert_network_policy(local("default.z", "c", order=1), era),
            convert_global_network_policy(everywhere("default.first", order=0), era),
        )

    assert converted(CALICO_3_32) == ["default.first", "default.a", "default.m", "default.z"]
    # Felix's key: default.m, x/default.a, c/default.z
    assert converted(CALICO_3_31) == ["default.first", "default.z", "default.m", "default.a"]


def test_ties_are_broken_as_felix_compares_texts() -> None:
    """ "a-b/..." is before "a/...", for "-" is before "/"."""
    assert order_of(convert_network_policy(local("a")), convert_network_policy(local("a-b"))) == ["a-b", "a"]


def test_kubernetes_policies_take_their_place_among_calicos() -> None:
    (kubernetes,) = convert_kubernetes(
        {"metadata": {"name": "m", "namespace": "x"}, "spec": {"podSelector": {}}}
    ).policies
    assert ranked(kubernetes, CALICO_3_32).rank == "m/x/KubernetesNetworkPolicy"
    assert ranked(kubernetes, CALICO_3_31).rank == "x/knp.default.m"
    (calico,) = convert_network_policy(local("m", order=1000)).policies
    assert calico.rank == "m/x/NetworkPolicy"
    assert calico.key != kubernetes.key


def test_the_tier_of_old_is_in_the_stored_name() -> None:
    def tier_of(name: str, era: CalicoEra) -> str:
        (policy,) = convert_global_network_policy(everywhere(name, tier="net"), era).policies
        return policy.tier

    assert tier_of("my.policy", CALICO_3_32) == "net"
    assert tier_of("my.policy", CALICO_3_31) == "my"
    assert tier_of("policy", CALICO_3_31) == "default"
    assert tier_of("knp.default.policy", CALICO_3_31) == "default"


def test_names_of_old_are_served_without_the_default_tier() -> None:
    def rank_of(api: str) -> str:
        (policy,) = convert_network_policy(local("web", api=api), CALICO_3_31).policies
        return policy.rank

    assert rank_of(SERVED) == "x/default.web"
    assert rank_of(CRD) == "x/web"
