"""Smaller parts of the agent: report, readiness, interest, directory, health, metrics, lock."""

import asyncio
import json
import socket
import ssl
import threading
from collections.abc import AsyncGenerator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
import trustme

from towpath.agent.attach_pods import PodLookupFailed
from towpath.agent.attach_settings import AttachSettings
from towpath.agent.directory import ApiPodDirectory
from towpath.agent.health import HealthServer, Page, server_tls
from towpath.agent.interest import Joining, joins, relevant_link_event, relevant_to
from towpath.agent.lock import AlreadyRunning, StateLock
from towpath.agent.metrics import METRICS, Metrics, Sample
from towpath.agent.readiness import GatedHandler, Readiness
from towpath.agent.report import Publisher, Verification, shortened
from towpath.api.core import Node, Pod
from towpath.api.report import AgentReport
from towpath.cni.errors import CniError
from towpath.cni.parse import parse_net_conf
from towpath.cni.request import Request
from towpath.cni.result import Result
from towpath.kube.client import Client
from towpath.kube.fake import FakeApiServer
from towpath.kube.kinds import NODES, PODS
from towpath.kube.reflector import Reflector, Selection

FLANNEL = "flannel.alpha.coreos.com/"


@pytest.fixture
async def api() -> AsyncGenerator[FakeApiServer, None]:
    server = await FakeApiServer.start()
    yield server
    await server.down()


def a_node(**annotations: str) -> Node:
    return msgspec.convert({"metadata": {"name": "n1", "annotations": annotations}}, Node)


# Report.


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_publishing_only_what_is_new(api: FakeApiServer) -> None:
    api.put(NODES, {"metadata": {"name": "n1", "annotations": {"mine": "kept"}}})
    clock = Clock()
    async with Client(api.config()) as client:
        publisher = Publisher(client, "n1", clock, lambda: datetime(2026, 11, 23, tzinfo=UTC))
        node = await client.get(NODES, "n1")
        report = AgentReport(version="1", ready=True, pods=1)
        asked = len(api.requests)
        assert await publisher.publish(node, {FLANNEL + "x": "y"}, report, network_up=True)
        assert await publisher.publish(node, {FLANNEL + "x": "y"}, report, network_up=True)  # stale node
        node = await client.get(NODES, "n1")
        assert await publisher.publish(node, {FLANNEL + "x": "y"}, report, network_up=True)
        patches = [target for method, target in api.requests[asked:] if method == "PATCH"]
        assert patches == ["/api/v1/nodes/n1/status"]
        stored = api.get(NODES, "n1")
        assert stored["metadata"]["annotations"]["mine"] == "kept"
        assert json.loads(stored["metadata"]["annotations"]["towpath.dev/status"])["pods"] == 1
        assert stored["status"]["conditions"][0]["lastTransitionTime"] == "2026-11-23T00:00:00Z"


async def test_the_number_of_pods_alone_can_wait(api: FakeApiServer) -> None:
    api.put(NODES, {"metadata": {"name": "n1"}})
    clock = Clock()
    async with Client(api.config()) as client:
        publisher = Publisher(client, "n1", clock)

        async def publish(report: AgentReport) -> tuple[bool, AgentReport]:
            done = await publisher.publish(await client.get(NODES, "n1"), {}, report, network_up=False)
            text = api.get(NODES, "n1")["metadata"]["annotations"]["towpath.dev/status"]
            return done, msgspec.json.decode(text, type=AgentReport)

        assert (await publish(AgentReport(pods=1)))[0]
        done, told = await publish(AgentReport(pods=2, leased={"main": 2}))
        assert not done
        assert told.pods == 1
        done, told = await publish(AgentReport(pods=3, ready=True))
        assert done
        assert told.pods == 3
        clock.now += 61
        done, told = await publish(AgentReport(pods=4, ready=True))
        assert done
        assert told.pods == 4


async def test_publishing_with_the_api_down_is_tried_again(api: FakeApiServer) -> None:
    async with Client(api.config()) as client:
        publisher = Publisher(client, "n1", Clock())
        api.fail(503)
        assert not await publisher.publish(a_node(), {}, AgentReport(), network_up=False)


def test_verification_answers_a_nonce_once() -> None:
    verification = Verification()
    assert verification.asked(None) == ""
    assert verification.asked(a_node()) == ""
    asking = a_node(**{"towpath.dev/verify": "x"})
    assert verification.asked(asking) == "x"
    verification.answer("x", ["add route"], now=100)
    assert verification.asked(asking) == ""
    assert verification.drift(129) == ("add route",)
    assert verification.drift(131) == ()


def test_verification_remembers_the_answer_of_the_agent_before() -> None:
    answered = a_node(**{"towpath.dev/verify": "x", "towpath.dev/status": '{"verified":"x"}'})
    assert Verification().asked(answered) == ""
    renewed = a_node(**{"towpath.dev/verify": "y", "towpath.dev/status": '{"verified":"x"}'})
    assert Verification().asked(renewed) == "y"


def test_long_reports_are_cut() -> None:
    assert shortened(map(str, range(50))) == tuple(map(str, range(50)))
    cut = shortened(map(str, range(1000)))
    assert len(cut) == 51
    assert cut[-1] == "and 950 more"


# Readiness.


class Inner:
    """A handler that answers at once."""

    async def add(self, r: Request) -> Result:
        return Result()

    async def delete(self, r: Request) -> None:
        return None

    check = status = gc = delete


REQUEST = Request(command="ADD", config=parse_net_conf(b'{"cniVersion":"1.1.0","name":"n","type":"t"}'))


@pytest.mark.looptime
async def test_add_waits_for_readiness_and_gives_the_reason() -> None:
    settings = AttachSettings()
    gate = GatedHandler(Inner(), settings)
    settings.not_ready = "nodes not listed yet"
    await gate.delete(REQUEST)
    await gate.status(REQUEST)
    with pytest.raises(CniError, match="nodes not listed yet") as raised:
        await gate.add(REQUEST)
    assert raised.value.code == 11
    assert asyncio.get_running_loop().time() == pytest.approx(10, abs=0.1)
    waiting = asyncio.create_task(gate.add(REQUEST))
    await asyncio.sleep(3)
    gate.open()
    assert await waiting == Result()
    assert asyncio.get_running_loop().time() == pytest.approx(13, abs=0.1)
    assert gate.busy == 0


def test_readiness_text() -> None:
    readiness = Readiness()
    assert not readiness.ready
    for name in ("api", "kernel", "cni"):
        readiness.set(name, "")
    assert readiness.text() == "[+]api ok\n[+]kernel ok\n[+]cni ok\nready\n"
    readiness.set("kernel", "add link flannel.1: exists")
    assert not readiness.ready
    assert "[-]kernel: add link flannel.1: exists" in readiness.text()


# Interest.


def test_heartbeats_are_of_no_interest() -> None:
    before = a_node(**{FLANNEL + "public-ip": "10.0.0.1", "towpath.dev/status": "{}"})
    after = msgspec.structs.replace(
        before,
        metadata=msgspec.structs.replace(
            before.metadata,
            resource_version="2",
            annotations={FLANNEL + "public-ip": "10.0.0.1", "towpath.dev/status": '{"pods":7}'},
        ),
    )
    assert relevant_to(before, own=False) == relevant_to(after, own=False)
    moved = a_node(**{FLANNEL + "public-ip": "10.0.0.2"})
    assert relevant_to(before, own=False) != relevant_to(moved, own=False)
    asked = a_node(**{FLANNEL + "public-ip": "10.0.0.1", "towpath.dev/verify": "n"})
    assert relevant_to(before, own=False) == relevant_to(asked, own=False)
    assert relevant_to(before, own=True) != relevant_to(asked, own=True)


def test_a_node_joins_when_it_first_says_how_it_is_reached() -> None:
    bare, peer, moved = (
        relevant_to(one, own=False)
        for one in (
            a_node(),
            a_node(**{FLANNEL + "public-ip": "10.0.0.1"}),
            a_node(**{FLANNEL + "public-ip": "10.0.0.2"}),
        )
    )
    assert joins(None, peer) and joins(bare, peer)
    assert not any(
        joins(*two) for two in ((None, bare), (bare, bare), (peer, moved), (peer, bare), (peer, None))
    )


def test_nodes_that_join_in_a_storm_are_taken_up_together() -> None:
    now = 100.0
    joining = Joining(lambda: now)
    assert [joining.delay(10) for _ in range(3)] == [0.0, 0.0, 0.0]
    joining = Joining(lambda: now)
    assert [joining.delay(50), joining.delay(50), joining.delay(50)] == [0.0, 2.0, 2.0]
    now = 101.5
    assert joining.delay(1000) == 0.5
    now = 102.5
    assert joining.delay(50) == 1.5
    now = 110.0
    assert joining.delay(50) == 0.0


def test_kernel_events() -> None:
    ours = {"flannel.1", "eth0"}
    assert relevant_link_event("overrun", "", ours)
    assert relevant_link_event("nft", "towpath", ours)
    assert not relevant_link_event("nft", "kube-proxy", ours)
    assert relevant_link_event("route", "flannel.1", ours)
    assert relevant_link_event("route", "", ours)
    assert not relevant_link_event("route", "docker0", ours)
    assert relevant_link_event("unlink", "cali0123456789a", ours)
    assert relevant_link_event("address", "eth7", ours)
    assert not relevant_link_event("address", "cali0123456789a", ours)
    assert not relevant_link_event("neighbour", "docker0", ours)


# Directory.


async def test_directory_asks_only_when_it_must(api: FakeApiServer) -> None:
    async with Client(api.config()) as client:
        reflector: Reflector[Pod] = Reflector(client, Selection(kind=PODS))
        task = asyncio.create_task(reflector.run())
        api.put(PODS, {"metadata": {"name": "a", "namespace": "d", "uid": "1"}})
        api.put(
            PODS,
            {
                "metadata": {
                    "name": "b",
                    "namespace": "d",
                    "uid": "2",
                    "deletionTimestamp": "2026-01-01T00:00:00Z",
                }
            },
        )
        await reflector.listed.wait()
        fetched: list[str] = []
        directory = ApiPodDirectory(client, reflector, lambda pod: fetched.append(pod.metadata.name))
        asked = len([t for _, t in api.requests if t.startswith("/api/v1/namespaces/")])
        found = await directory.find("d", "a")
        assert found is not None
        assert found.metadata.uid == "1"
        assert len([t for _, t in api.requests if t.startswith("/api/v1/namespaces/")]) == asked
        assert await directory.find("d", "none") is None
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        api.put(PODS, {"metadata": {"name": "b", "namespace": "d", "uid": "3"}})
        successor = await directory.find("d", "b")
        assert successor is not None
        assert successor.metadata.uid == "3"
        assert fetched == ["b"]
        await api.down()
        assert (await directory.find("d", "b")) is not None
        with pytest.raises(PodLookupFailed, match="get d/pods/stranger"):
            await directory.find("d", "stranger")


# Health.


async def fetch(
    port: int, path: str = "/healthz", tls: ssl.SSLContext | None = None, head: bytes = b"", **headers: str
) -> tuple[int, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    lines = [f"GET {path} HTTP/1.1", "Host: x", *(f"{k}: {v}" for k, v in headers.items())]
    writer.write(head or ("\r\n".join(lines) + "\r\n\r\n").encode())
    answer = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    top, _, body = answer.partition("\r\n\r\n")
    return (int(top.split()[1]) if top else 0), body


async def fine(_: Mapping[str, str]) -> Page:
    return Page(200, "ok\n")


async def test_health_pages() -> None:
    server = HealthServer({"/healthz": fine})
    port = await server.listen("127.0.0.1", 0)
    assert await fetch(port) == (200, "ok\n")
    assert await fetch(port, "/healthz?verbose") == (200, "ok\n")
    assert await fetch(port, "/") == (404, "/healthz\n")
    assert (await fetch(port, head=b"POST /healthz HTTP/1.1\r\n\r\n"))[0] == 405
    assert await fetch(port, head=b"HEAD /healthz HTTP/1.1\r\n\r\n") == (200, "")
    assert (await fetch(port, head=b"\r\n\r\n"))[0] == 405
    assert (await fetch(port, head=b"GET /" + b"x" * 20_000 + b"\r\n\r\n"))[0] == 0
    await server.close()


async def test_health_everywhere_is_of_both_families() -> None:
    server = HealthServer({"/healthz": fine})
    await server.listen("::", 0)
    assert server._server is not None
    assert {one.family for one in server._server.sockets} == {socket.AF_INET, socket.AF_INET6}
    await server.close()


async def test_health_behind_a_token(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    server = HealthServer({"/healthz": fine}, token)
    port = await server.listen("127.0.0.1", 0)
    assert (await fetch(port))[0] == 401
    assert (await fetch(port, Authorization="Bearer wrong"))[0] == 401
    assert await fetch(port, Authorization="Bearer s3cret") == (200, "ok\n")
    token.write_text("next")
    assert (await fetch(port, Authorization="Bearer s3cret"))[0] == 401
    token.write_text("")
    assert (await fetch(port, Authorization="Bearer "))[0] == 401
    token.unlink()
    assert (await fetch(port, Authorization="Bearer next"))[0] == 401
    await server.close()


async def test_health_over_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    pair = authority.issue_cert("127.0.0.1")
    pair.cert_chain_pems[0].write_to_path(tmp_path / "crt")
    pair.private_key_pem.write_to_path(tmp_path / "key")
    server = HealthServer({"/healthz": fine})
    port = await server.listen("127.0.0.1", 0, server_tls(tmp_path / "crt", tmp_path / "key"))
    trust = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    assert await fetch(port, tls=trust) == (200, "ok\n")
    await server.close()


# Metrics.


def test_metrics_text() -> None:
    metrics = Metrics()
    metrics.count("towpath_cni_requests", "ADD", "0", by=3)
    for seconds in (0.0004, 0.003, 99):
        metrics.observe("towpath_cni_seconds", seconds, "ADD")
    text = metrics.render([Sample("towpath_ready", ("api",), 1.0)])
    assert 'towpath_cni_requests_total{code="0",command="ADD"} 3.0' in text
    assert 'towpath_cni_seconds_bucket{command="ADD",le="0.005"} 2.0' in text
    assert 'towpath_cni_seconds_bucket{command="ADD",le="+Inf"} 3.0' in text
    assert 'towpath_cni_seconds_count{command="ADD"} 3.0' in text
    assert 'towpath_ready{condition="api"} 1.0' in text
    assert "process_resident_memory_bytes" in text
    assert all(f"# HELP {name}" in text for name in METRICS)


# Lock.


def test_lock_is_exclusive_and_names_its_holder(tmp_path: Path) -> None:
    first = StateLock(tmp_path)
    with pytest.raises(AlreadyRunning, match="one agent a node"):
        StateLock(tmp_path, patience=0.05)
    threading.Timer(0.1, first.close).start()
    StateLock(tmp_path, patience=5).close()  # it was about to leave
