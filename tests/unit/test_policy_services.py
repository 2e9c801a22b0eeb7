import json
from ipaddress import ip_address, ip_network
from typing import Any

import msgspec
import pytest

from kube_policies import ENDPOINTS, EVERYONE, flow
from policy_worlds import nets
from towpath.api.slices import EndpointSlice
from towpath.policy.evaluate import verdict
from towpath.policy.ir import SCTP, TCP, UDP, Action, Peer, Policy, Ports, Rule, ServiceRef, World
from towpath.policy.services import (
    Backends,
    Services,
    backends,
    references,
    resolve,
    service_of,
    services,
    unresolved,
)

WEB = ServiceRef("y", "web")


def a_slice(
    *addresses: list[str], ports: Any = ({"port": 80},), service: str | None = "web", version: str = "v1"
) -> EndpointSlice:
    """As the API server sends it, in either version."""
    where = {"nodeName": "n1"} if version == "v1" else {"topology": {"kubernetes.io/hostname": "n1"}}
    raw = {
        "apiVersion": f"discovery.k8s.io/{version}",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "web-1",
            "namespace": "y",
            "labels": {"kubernetes.io/service-name": service} if service is not None else None,
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": one, "conditions": {"ready": False}, **where} for one in addresses],
        "ports": [*ports] if ports is not None else None,
    }
    return msgspec.json.decode(json.dumps(raw), type=EndpointSlice)


def policy(action: Action, *, to: bool = True, **fields: Any) -> Policy:
    fields["destination" if to else "source"] = Peer(service=WEB)
    rules = (Rule(action=action, path="spec.egress[0]", **fields),)
    return Policy(
        kind="Policy", name="p", namespace="x", egress=rules if to else None, ingress=None if to else rules
    )


KNOWN = services(
    [a_slice(["10.0.0.3"], ports=({"port": 80, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}))]
)


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_both_versions(version: str) -> None:
    one = a_slice(["10.0.0.3"], ["10.0.0.4"], version=version)
    addresses = (ip_address("10.0.0.3"), ip_address("10.0.0.4"))
    assert services([one]) == {WEB: Backends({frozenset({(TCP, 80)}): addresses})}


def test_slices_of_a_service_come_together() -> None:
    first = a_slice(
        ["10.0.0.3"], ["10.0.0.4"], ports=({"port": 80, "protocol": "TCP"}, {"port": 9, "protocol": "SCTP"})
    )
    second = a_slice(["10.0.0.4"], ["10.0.0.5", "fd00::5"], ports=({"port": 81},))
    found = backends([first, second])
    assert found.groups == {
        frozenset({(TCP, 80), (SCTP, 9)}): (ip_address("10.0.0.3"),),
        frozenset({(TCP, 80), (SCTP, 9), (TCP, 81)}): (ip_address("10.0.0.4"),),
        frozenset({(TCP, 81)}): (ip_address("10.0.0.5"), ip_address("fd00::5")),
    }
    assert len(found.addresses) == 4


def test_what_a_slice_does_not_say_adds_nothing() -> None:
    garbage = ({"port": None}, {"name": "x"}, {"port": 0}, {"port": 70000}, {"port": 80, "protocol": "QUIC"})
    assert backends([a_slice(["10.0.0.3"], ports=garbage)]).groups == {frozenset(): (ip_address("10.0.0.3"),)}
    assert backends([a_slice(["10.0.0.3"], ports=None)]).groups == {frozenset(): (ip_address("10.0.0.3"),)}
    assert backends([a_slice(["web.example.org", "10.0.0.0/8", "", "10.0.0.300"])]) == Backends()
    assert backends([EndpointSlice()]) == Backends()
    assert service_of(a_slice(service=None)) is service_of(a_slice(service="")) is None
    assert services([a_slice(["10.0.0.3"], service=None)]) == {}


def test_as_a_destination_it_is_addresses_with_ports() -> None:
    resolved = resolve(policy("allow"), KNOWN)
    assert resolved.egress is not None
    assert [(r.protocol, r.destination_ports, r.path) for r in resolved.egress] == [
        (TCP, Ports(((80, 80),)), "spec.egress[0]"),
        (UDP, Ports(((53, 53),)), "spec.egress[0]"),
    ]
    assert {r.destination for r in resolved.egress} == {Peer(nets=nets("10.0.0.3/32"))}
    here = World(policies=(resolved,), endpoints=ENDPOINTS)
    assert verdict(here, flow("x/web", "y/web", 80))
    assert verdict(here, flow("x/web", "y/web", 53, "udp"))
    assert not verdict(here, flow("x/web", "y/web", 53))
    assert not verdict(here, flow("x/web", "y/cli", 80))


def test_as_a_source_it_is_addresses() -> None:
    resolved = resolve(policy("allow", to=False, protocol=TCP, destination_ports=Ports(((443, 443),))), KNOWN)
    assert resolved.ingress == (
        Rule(
            action="allow",
            path="spec.egress[0]",
            source=Peer(nets=nets("10.0.0.3/32")),
            protocol=TCP,
            destination_ports=Ports(((443, 443),)),
        ),
    )


def test_what_else_the_rule_asks_still_holds() -> None:
    assert [r.protocol for r in resolve(policy("deny", protocol=UDP), KNOWN).egress or ()] == [UDP]
    assert [r.protocol for r in resolve(policy("deny", not_protocol=UDP), KNOWN).egress or ()] == [TCP]
    assert resolve(policy("allow", protocol=SCTP), KNOWN).egress == ()
    peer = Peer(service=WEB, nets=nets("10.0.0.0/31"), not_nets=nets("10.0.0.9/32"))
    both = Policy(kind="Policy", name="p", egress=(Rule(action="allow", destination=peer),))
    assert resolve(both, KNOWN).egress == ()
    wider = msgspec.structs.replace(peer, nets=nets("10.0.0.0/8"))
    both = msgspec.structs.replace(both, egress=(Rule(action="allow", destination=wider),))
    assert {r.destination for r in resolve(both, KNOWN).egress or ()} == {
        Peer(nets=nets("10.0.0.3/32"), not_nets=nets("10.0.0.9/32"))
    }


def test_ports_beside_a_service_fail_closed() -> None:
    asked = Ports(((80, 80),), ("http",))
    assert resolve(policy("allow", protocol=TCP, destination_ports=asked), KNOWN).egress == ()
    denied = resolve(policy("deny", protocol=TCP, destination_ports=asked), KNOWN).egress or ()
    assert [(r.destination.nets, r.destination_ports) for r in denied] == [(nets("10.0.0.3/32"), asked)]


@pytest.mark.parametrize("known", [{}, {WEB: Backends()}, {ServiceRef("x", "web"): KNOWN[WEB]}])
@pytest.mark.parametrize("to", [True, False])
def test_without_endpoints_it_is_nobody(known: Services, to: bool) -> None:
    for action in ("allow", "deny", "pass", "log"):
        one = policy(action, to=to)
        resolved = resolve(one, known)
        assert (resolved.egress if to else resolved.ingress) == ()
        assert (resolved.ingress if to else resolved.egress) is None
    (finding,) = unresolved(policy("allow", to=to), known)
    assert (finding.code, finding.object, finding.severity) == ("TP5003", "Policy/x/p", "warning")
    assert "y/web" in finding.message
    here = World(policies=(resolve(policy("allow", to=True), known),), endpoints=ENDPOINTS)
    assert not any(verdict(here, flow("x/web", name)) for name in EVERYONE - {"x/web"})


def test_other_rules_stay_and_keep_their_order() -> None:
    plain = Rule(action="deny", destination=Peer(nets=(ip_network("10.0.0.0/8"),)))
    (service_rule,) = policy("allow").egress or ()
    one = Policy(kind="Policy", name="p", egress=(plain, service_rule, plain))
    assert references(one) == {WEB}
    assert [r.action for r in resolve(one, KNOWN).egress or ()] == ["deny", "allow", "allow", "deny"]
    assert not unresolved(one, KNOWN)
    without = Policy(kind="Policy", name="p", egress=(plain,))
    assert resolve(without, KNOWN) is without
    assert references(without) == frozenset()
