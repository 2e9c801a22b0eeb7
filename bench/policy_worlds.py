"""Clusters of the shape that Calico's own benchmark has (felix/calc/calc_graph_bench_test.go).

Endpoints have five labels ``one-in-N`` of N values and one of 29 markers; each policy selects a marker and
has five rules that each allow another.
"""

from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Any

import msgspec

from towpath.api.core import Pod
from towpath.policy.endpoints import pod_endpoint
from towpath.policy.ir import NAMESPACE_NAME, Endpoint, Peer, Policy, Rule, calico_kinds
from towpath.policy.selector import Has

MARKERS = tuple(f"marker-{n}" for n in range(29))
NAMESPACES = 100
_FIRST = int(IPv4Address("10.64.0.1"))


def labels(number: int) -> dict[str, str]:
    """A pod's own."""
    return {f"one-in-{n}": f"value-{number % n}" for n in (10, 11, 20, 30, 40)} | {
        MARKERS[number % len(MARKERS)]: "true"
    }


def endpoints(first: int, count: int) -> Iterator[Endpoint]:
    """Decoded ones, made of Pods that have come over a wire one by one."""
    decoder = msgspec.json.Decoder(Pod)
    inherited = [{NAMESPACE_NAME: f"namespace-{n}"} for n in range(NAMESPACES)]
    for number in range(first, first + count):
        wire = msgspec.json.encode(pod(number, labels(number)))
        found = pod_endpoint(decoder.decode(wire), inherited[number % NAMESPACES])
        assert found is not None
        yield found


def policies(count: int) -> Iterator[Policy]:
    """Global ones, each distinct by its name only, as there."""
    for number in range(count):
        selected, *allowed = (calico_kinds(Has(MARKERS[(number + n) % len(MARKERS)])) for n in range(6))
        yield Policy(
            kind="GlobalNetworkPolicy",
            name=f"policy-{number}",
            order=float(number),
            selector=selected,
            ingress=tuple(Rule(action="allow", source=Peer(selector=selector)) for selector in allowed),
        )


def pod(number: int, labels: dict[str, str]) -> Pod:
    """As the API has it."""
    address = str(IPv4Address(_FIRST + number))
    made = {
        "metadata": {
            "name": f"pod-{number}",
            "namespace": f"namespace-{number % NAMESPACES}",
            "labels": labels,
        },
        "spec": {"containers": [{"name": "main"}], "serviceAccountName": "default"},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    }
    return msgspec.convert(made, Pod)


def calico_policy(number: int, selected: str, rules: list[dict[str, Any]]) -> dict[str, Any]:
    """As the API has it: ``selected`` is a marker."""
    return {
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "GlobalNetworkPolicy",
        "metadata": {"name": f"policy-{number}"},
        "spec": {"order": number, "selector": f"has({selected})", "types": ["Ingress"], "ingress": rules},
    }
