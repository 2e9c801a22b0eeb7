"""Restarts of what is around the pods, and of the agent, are not noticed by the pods."""

import threading
import time
from datetime import datetime
from functools import partial
from typing import Any

import pytest
from installed import PORT, Installed, addresses, condition, patiently, pod

from towpath.lab.real.echo import ask

pytestmark = pytest.mark.e2e

_STUCK = 30.0  # seconds in ContainerCreating, of a minute that the shim would wait


@pytest.mark.parametrize("service", ["kubelet", "containerd", "kube-proxy"])
def test_killed_and_back(cluster: Installed, service: str) -> None:
    before = cluster.run("before", "n1")
    machine = cluster.real.machines["n1"]
    old = machine.service_pid(service)
    machine.kill_service(service)
    cluster.real.wait_until(lambda: machine.service_pid(service) not in (0, old), f"{service} is back", 300)
    assert cluster.real.machines["n2"].inside(lambda: ask(addresses(before)[0], PORT))[0] == "before"
    after = cluster.run("after", "n1")
    assert cluster.ask_from("after", addresses(before)[1])[0] == "before"
    again = cluster.wait_pods("before", 1)[0]
    assert addresses(again) == addresses(before)
    assert not set(addresses(after)) & set(addresses(before))


def test_agent_rolled_while_pods_come_and_go(cluster: Installed) -> None:
    steady = cluster.run("steady", "n1")
    churn = _Churn(cluster)
    churn.start()
    try:
        cluster.real.kubectl("rollout", "restart", "daemonset/towpath", "-n", "kube-system")
        cluster.real.kubectl(
            "rollout", "status", "daemonset/towpath", "-n", "kube-system", "--timeout=300s", timeout=400
        )
        cluster.real.wait_until(lambda: churn.failures or len(churn.seconds) >= 3, "three pods came", 300)
    finally:
        churn.stop()
    assert not churn.failures
    print(
        f"churn: {len(churn.seconds)} pods, slowest Ready after {max(churn.seconds):.1f} s, "
        f"creating {max(churn.creating):.0f} s, lost {churn.lost} questions"
    )
    assert max(churn.creating) <= _STUCK
    assert cluster.real.machines["n2"].inside(lambda: ask(addresses(steady)[1], PORT))[0] == "steady"


def test_api_server_away_for_thirty_seconds(cluster: Installed) -> None:
    pods = [cluster.run("one", "n1"), cluster.run("two", "n2")]
    before = restarts(cluster)
    cluster.real.plane.stop_api()
    try:
        deadline = time.monotonic() + 30
        netns_of_one = cluster.real.machines["n1"].pod_process("one")
        assert netns_of_one
        while time.monotonic() < deadline:
            for machine in cluster.real.machines.values():
                for target in pods:
                    for address in addresses(target):
                        assert machine.inside(partial(ask, address, PORT))[0] == target["metadata"]["name"]
            time.sleep(1)
    finally:
        cluster.real.plane.start_api()
    # What they are refused while the API server learns its own rights they do not ask for again for a minute,
    # and until then know nothing of what the next tests do.
    cluster.real.plane.restart_controllers()
    cluster.wait_nodes()
    third = cluster.run("three", "n3")
    assert cluster.ask_from("one", addresses(third)[0])[0] == "three"
    assert restarts(cluster) == before


def restarts(cluster: Installed) -> dict[str, list[int]]:
    """How often agents' containers were started again, by pod."""
    return {
        agent["metadata"]["name"]: [status["restartCount"] for status in agent["status"]["containerStatuses"]]
        for agent in cluster.real.get("pods", "-n", "kube-system", "-l", "k8s-app=towpath")["items"]
    }


def in_creation(item: dict[str, Any]) -> float:
    """How long a pod was ContainerCreating, in whole seconds: the API's stamps have no more."""
    started = item["status"]["containerStatuses"][0]["state"]["running"]["startedAt"]
    stamps = [datetime.fromisoformat(text) for text in (item["status"]["startTime"], started)]
    return (stamps[1] - stamps[0]).total_seconds()


class _Churn(threading.Thread):
    """Creates and deletes pods on every node in turn; how long each took to be Ready."""

    def __init__(self, cluster: Installed) -> None:
        super().__init__()
        self._cluster, self._ended = cluster, threading.Event()
        self.seconds: list[float] = []  # until Ready as kubectl sees it
        self.creating: list[float] = []
        self.failures: list[str] = []
        self.lost = 0

    def run(self) -> None:
        number = 0
        while not self._ended.is_set():
            number += 1
            try:
                self._one(f"churn-{number}", f"n{number % 3 + 1}")
            except Exception as failed:
                self.failures.append(str(failed))

    def _one(self, name: str, node: str) -> None:
        real = self._cluster.real
        real.apply([pod(name, node)])
        begun = time.monotonic()
        found: dict[str, Any] = {}

        def ready() -> bool:
            found.update(real.get("pod", name))
            return condition(found, "Ready") == "True"

        real.wait_until(ready, f"{name} Ready", 300)
        self.seconds.append(time.monotonic() - begun)
        self.creating.append(in_creation(found))
        try:
            patiently(lambda: real.machines[node].inside(lambda: ask(addresses(found)[0], PORT)), 1)
        except OSError:
            self.lost += 1
        real.kubectl("delete", "pod", name, "--wait=false")

    def stop(self) -> None:
        self._ended.set()
        self.join()
