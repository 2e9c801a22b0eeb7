"""What ``towpath verify`` adds to what its parts say: whose logs are read, which agents are asked, probes."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from towpath.catalogue import load as catalogues
from towpath.cli import verify_live
from towpath.cli.verify import compare_kernels
from towpath.cli.verify_rollout import Rollout
from towpath.inventory.components import components
from towpath.kube import fakehttp
from towpath.kube.client import Client
from towpath.kube.fake import FakeApiServer
from towpath.kube.kinds import DAEMONSETS, NODES, PODS
from towpath.lab import canal, manifests
from towpath.probe import cluster


async def lines(*all_of_them: str) -> AsyncIterator[bytes]:
    for line in all_of_them:
        yield f"{line}\n".encode()


class WithLogs(FakeApiServer):
    """One log is somebody else's to read."""

    async def _answer(self, request: fakehttp.Request) -> fakehttp.Answer:
        match request.path.split("/")[-2:]:
            case ["good", "log"]:
                return fakehttp.Answer(
                    200, lines("all is well", "Typha: Unauthorized", "Typha: Unauthorized")
                )
            case ["late", "log"]:
                return fakehttp.Answer(400, {"kind": "Status", "reason": "BadRequest", "message": "waits"})
            case ["secret", "log"]:
                return fakehttp.Answer(403, {"kind": "Status", "reason": "Forbidden", "message": "not yours"})
        return await super()._answer(request)


async def test_verify_reads_what_the_logs_of_the_last_minutes_say() -> None:
    """A line is a warning, as it may be over, and what cannot be read is told. Other pods are left alone."""
    raw = canal.daemonset(catalogues.builtin().release("v1.32.1+rke2r1"))
    raw["metadata"] |= {"uid": "ds", "name": "rke2-canal", "namespace": "kube-system"}
    server = await WithLogs.start()
    server.put(DAEMONSETS, raw)
    for name, owner in (("good", "ds"), ("late", "ds"), ("secret", "ds"), ("other", "no")):
        spec = {"nodeName": "n1", "containers": [{"name": "calico-node", "image": "x"}]}
        meta = {"name": name, "namespace": "kube-system", "ownerReferences": [{"uid": owner}]}
        server.put(PODS, {"metadata": meta, "spec": spec})
    async with Client(server.config()) as client:
        found, unread = await verify_live.logs(client)
    (one,) = found
    assert (one.code, one.severity, one.object) == ("TP7603", "warning", "Pod/kube-system/good on n1")
    assert "Typha: Unauthorized" in one.message
    assert len(unread) == 1 and "not yours" in unread[0]
    assert not any("/other/log" in target for _, target in server.requests)
    await server.down()


def owned(daemonset: dict[str, Any], node: str) -> dict[str, Any]:
    spec = {**daemonset["spec"]["template"]["spec"], "nodeName": node}
    return {"metadata": {"name": f"p-{node}", "ownerReferences": [{"uid": "ds"}]}, "spec": spec}


async def test_agents_are_asked_only_where_there_is_one() -> None:
    """Half-way from Canal to Towpath: n2 is still Canal's."""
    ours = manifests.daemonset()
    ours["metadata"]["uid"] = "ds"
    rollout = Rollout(components([ours], [owned(ours, "n1")]), (), ())
    assert rollout.has_agents and rollout.with_agents == {"n1"}
    server = await FakeApiServer.start()
    for name in ("n1", "n2"):
        server.put(NODES, {"metadata": {"name": name}})
    async with Client(server.config()) as client:
        assert await compare_kernels(client, frozenset()) == []
    assert not [method for method, _ in server.requests if method == "PATCH"]
    await server.down()


async def test_probes_that_cannot_run_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody makes the targets' pods here; nothing of them stays."""
    monkeypatch.setattr(cluster, "_READY_WITHIN", 0.0)
    server = await FakeApiServer.start()
    async with Client(server.config()) as client:
        probed = await verify_live.probes(client, "x", None)
    assert (probed.findings, probed.traffic, probed.words) == ((), None, "Probes: none")
    assert probed.untold[0].startswith("probes: ")
    assert not server.objects.get("core/v1/namespaces")
    await server.down()
