"""A pod's worker in the lab's kubelet: what comes in another order, and what fails unforeseen."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from towpath.lab.kubelet_pod import PodWorker
from towpath.lab.kubelet_services import Services
from towpath.lab.kubelet_spec import Container, Pod, PodMeta, PodSpec
from towpath.lab.runtime_api import Answer, Exited, RemoveContainer, Request, Start

pytestmark = pytest.mark.looptime
NOW = 1_800_000_000.0


class Runtime:
    """Answers everything; ``before`` is called with each request first."""

    def __init__(self, before: Callable[[Request], None]) -> None:
        self._before = before

    async def call(self, request: Request) -> Answer:
        self._before(request)
        return Answer(pid=7, started=NOW)


def worker(before: Callable[[Request], None]) -> PodWorker:
    nothing = cast(Any, None)
    services = Services(
        node="n1",
        host_ips=[],
        client=nothing,
        runtime=cast(Any, Runtime(before)),
        cni=nothing,
        recorder=nothing,
        environment={},
        network_ready=asyncio.Event(),
        patience=0.15,
    )
    spec = PodSpec(host_network=True, containers=[Container(name="c", image="x", command=["true"])])
    return PodWorker(services, Pod(metadata=PodMeta(name="a", namespace="default", uid="u"), spec=spec), None)


@pytest.mark.parametrize("early", [True, False])
async def test_an_end_that_is_told_before_the_starts_answer_is_an_end(early: bool) -> None:
    def ended(request: Request) -> None:
        if early and isinstance(request, Start):
            assert made.exited(Exited(id=request.id, exit_code=3, finished=NOW + 1))

    made = worker(ended)
    (state,) = made.containers.states.values()
    assert await made.containers.start(made.pod, made.pod.spec.containers[0], "", [])
    assert (state.running, state.exit_code, state.began) == (not early, 3 if early else 0, NOW)


async def test_a_worker_that_failed_goes_on_until_its_pod_is_gone() -> None:
    failures = [ValueError("never seen before"), TypeError("nor this")]

    def fail(request: Request) -> None:
        if isinstance(request, RemoveContainer) and failures:
            raise failures.pop()

    made = worker(fail)
    made.containers.states["c"].id = "what is to be removed"
    made.update(None)
    async with asyncio.timeout(60):
        await made.run()
    assert not failures
