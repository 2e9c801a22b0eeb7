"""The hand-chosen cases of NetworkPolicy under real Kubernetes: kubelets, containerd, Towpath installed."""

import asyncio
import os
from collections.abc import Mapping

import pytest
from installed import Installed

from policy_cases import Case
from policy_cases_kubernetes import CASES
from policy_grounds import DECLARED, Destination, grounds, run_cases
from towpath.kernel.netns import run_in
from towpath.kube.client import Client
from towpath.kube.config import from_files
from towpath.kube.kinds import Raw
from towpath.lab import probe
from towpath.lab.real.images import PROBE

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

_GROUNDS = 4
_PATIENCE = 0.3


class Cluster:
    """The cluster as the cases' arena. Its pods have no SCTP to answer by."""

    ports = ("80/tcp", "81/tcp", "80/udp", "81/udp")

    def __init__(self, cluster: Installed, client: Client) -> None:
        self.client, self._cluster = client, cluster
        self.nodes = tuple(cluster.real.machines)

    def template(self, name: str) -> Raw:
        container = {
            "name": "server",
            "image": PROBE,
            "imagePullPolicy": "Never",
            "command": ["/probe", "serve", "80", "81", "80/udp", "81/udp"],
            "ports": DECLARED,
        }
        return {
            "hostname": name,
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "containers": [container],
        }

    async def ask(self, questions: Mapping[str, list[Destination]]) -> Mapping[str, list[bool]]:
        answers = (asyncio.to_thread(self._ask, pod, to) for pod, to in questions.items())
        return dict(zip(questions, await asyncio.gather(*answers), strict=True))

    def _ask(self, pod: str, to: list[Destination]) -> list[bool]:
        """From inside the pod's network namespace."""
        node = self.nodes["abcd".index(pod[-1]) % len(self.nodes)]
        pid = self._cluster.real.machines[node].pod_process(pod.replace("/", "-"))
        netns = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        try:
            wanted = [probe.Destination(**one) for one in to]
            return [outcome.ok for outcome in run_in(netns, lambda: probe.probe(wanted, _PATIENCE))]
        finally:
            os.close(netns)


def known(case: Case) -> bool:
    """Kubernetes 1.20 drops ``endPort`` without a word."""
    return "endPort" not in repr(case)


async def _run(cluster: Installed) -> dict[str, list[str]]:
    async with (
        Client(from_files([cluster.real.kubeconfig]), timeout=400) as client,
        grounds(Cluster(cluster, client), _GROUNDS) as here,
    ):
        return await run_cases(here, filter(known, CASES))


def test_every_case_of_network_policy(cluster: Installed) -> None:
    found = asyncio.run(_run(cluster))
    assert len(found) >= 200
    assert {name: problems for name, problems in found.items() if problems} == {}
