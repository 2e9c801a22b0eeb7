"""All the hand-chosen policy cases in the lab: from the API server by the agents to the packet."""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from policy_cases import PORTS, Case
from policy_cases_admin import CASES as ADMIN
from policy_cases_calico import CASES as CALICO
from policy_cases_kubernetes import CASES as KUBERNETES
from policy_grounds import DECLARED, Destination, grounds, run_cases
from towpath.kube.client import Client
from towpath.kube.config import from_files
from towpath.kube.kinds import Kind, Raw
from towpath.lab.client import LabClient
from towpath.policy.sources import SOURCES, Source

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

CRDS: Kind[Raw] = Kind(
    plural="customresourcedefinitions", type=dict, group="apiextensions.k8s.io", namespaced=False
)
_GROUNDS = 6
_NOTICED = 32.0  # an agent asks every half minute which kinds there are


class Lab:
    """The shared lab as the cases' arena."""

    nodes, ports = ("n1", "n2", "n3"), PORTS

    def __init__(self, lab: LabClient, client: Client) -> None:
        self.client, self._lab = client, lab

    def template(self, name: str) -> Raw:
        container = {"name": "main", "image": "towpath/echo:1", "ports": DECLARED}
        return {"terminationGracePeriodSeconds": 0, "containers": [container]}

    async def ask(self, questions: Mapping[str, list[Destination]]) -> Mapping[str, list[bool]]:
        probes = [{"from": {"pod": pod}, "to": to} for pod, to in questions.items()]
        results = await asyncio.to_thread(lambda: self._lab.call("run-in", probes=probes, timeout=0.3))
        return {one["from"]["pod"]: [bool(to["ok"]) for to in one["to"]] for one in results}


def definition(source: Source) -> dict[str, Any]:
    """A custom resource that takes anything."""
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    versions = [
        {"name": version, "served": True, "storage": version == source.versions[0], "schema": schema}
        for version in source.versions
    ]
    names = {"kind": source.kind, "plural": source.plural, "singular": source.kind.lower()}
    approved = {"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/network-policy-api"}
    return {
        "metadata": {"name": f"{source.plural}.{source.group}", "annotations": approved},
        "spec": {
            "group": source.group,
            "scope": "Namespaced" if source.namespaced else "Cluster",
            "names": names,
            "versions": versions,
        },
    }


async def _run(lab: LabClient) -> dict[str, list[str]]:
    custom = [s for s in SOURCES if s.group in ("policy.networking.k8s.io", "crd.projectcalico.org")]
    clock = time.monotonic
    async with Client(from_files([Path(lab.kubeconfig)]), timeout=300) as client:
        for source in custom:
            await client.create(CRDS, definition(source))
        begun = clock()
        try:
            async with grounds(Lab(lab, client), _GROUNDS) as here:
                found = await run_cases(here, KUBERNETES)
                await asyncio.sleep(max(0.0, begun + _NOTICED - clock()))
                return found | await run_cases(here, (*ADMIN, *CALICO))
        finally:
            for source in custom:
                await client.delete(CRDS, f"{source.plural}.{source.group}")


@pytest.fixture(scope="module")
def results(lab: LabClient) -> dict[str, list[str]]:
    """Of all cases at once: they run side by side."""
    return asyncio.run(_run(lab))


@pytest.mark.parametrize("case", (*KUBERNETES, *ADMIN, *CALICO), ids=lambda case: case.name)
def test_case(results: dict[str, list[str]], case: Case) -> None:
    assert results[case.name] == []
