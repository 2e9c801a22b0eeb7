"""The hand-chosen cases against the oracle: every pair of pods, port and protocol after every step."""

from collections.abc import Mapping
from ipaddress import ip_address
from itertools import count

import pytest

from policy_cases import NAMESPACES, PODS, PORTS, Case, Manifest, named, resolved, truth
from policy_cases_admin import CASES as ADMIN
from policy_cases_calico import CASES as CALICO
from policy_cases_kubernetes import CASES as KUBERNETES
from policy_manifests import namespace, pod, world
from policy_worlds import PROTOCOLS
from towpath.policy.evaluate import Flow, verdict
from towpath.policy.ir import World

CASES = (*KUBERNETES, *ADMIN, *CALICO)
DECLARED = tuple(
    (f"serve-{port}-{protocol}", port, protocol.upper())
    for port in (80, 81)
    for protocol in ("tcp", "udp", "sctp")
)


class Cluster:
    """The objects there are, by name, and pods' addresses."""

    def __init__(self) -> None:
        self.objects: dict[str, Manifest] = {}
        self.addresses: dict[str, str] = {}
        self.networks = {"all": "0.0.0.0/0"}
        self._numbers = count(1)
        for name, labels in NAMESPACES.items():
            self.add(namespace(name, **labels))
        for name, labels in PODS.items():
            self.create(name, labels)

    def add(self, manifest: Manifest) -> None:
        self.objects[named(manifest)] = resolved(manifest, self.networks)

    def create(self, name: str, labels: Mapping[str, str]) -> None:
        """Its address is nobody's before and after."""
        address = f"10.0.0.{next(self._numbers)}"
        self.networks[name], self.addresses[name] = f"{address}/32", address
        self.add(pod(name, address, DECLARED, **labels))

    def delete(self, name: str) -> None:
        del self.objects[name]
        self.addresses.pop(name.removeprefix("Pod "), None)

    def label(self, name: str, labels: Mapping[str, str]) -> None:
        self.objects[name]["metadata"]["labels"] = dict(labels)

    def world(self) -> World:
        return world(self.objects.values())


def reached(here: World, addresses: Mapping[str, str]) -> dict[tuple[str, str], set[str]]:
    """What the oracle says of every pair."""
    table = {}
    for source, start in addresses.items():
        for destination, end in addresses.items():
            if source != destination:
                table[source, destination] = {
                    port
                    for port in PORTS
                    if verdict(
                        here,
                        Flow(
                            source=ip_address(start),
                            destination=ip_address(end),
                            protocol=PROTOCOLS[port.partition("/")[2]],
                            destination_port=int(port.partition("/")[0]),
                        ),
                    )
                }
    return table


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(case: Case) -> None:
    cluster = Cluster()
    for number, step in enumerate(case.steps):
        for name in step.delete:
            cluster.delete(name)
        for name, labels in step.create.items():
            cluster.create(name, labels)
        for name, labels in step.labels.items():
            cluster.label(name, labels)
        for manifest in step.apply:
            cluster.add(manifest)
        expected = truth(step.expected, cluster.addresses)
        found = reached(cluster.world(), cluster.addresses)
        assert found == expected, f"step {number}"


def test_there_are_enough_cases_of_every_kind_and_no_two_of_one_name() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 200
    assert sum(len(case.steps) > 1 for case in CASES) >= 15
