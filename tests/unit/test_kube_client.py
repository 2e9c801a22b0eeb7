"""The client against an API server on real sockets."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import msgspec
import pytest
import trustme

from towpath.api.core import Node, Pod
from towpath.kube import errors
from towpath.kube.client import Client
from towpath.kube.codec import decode_page
from towpath.kube.fake import FakeApiServer
from towpath.kube.kinds import NODES, PODS, Kind


@pytest.fixture
async def api() -> AsyncGenerator[FakeApiServer, None]:
    server = await FakeApiServer.start()
    yield server
    await server.down()


@pytest.fixture
async def client(api: FakeApiServer) -> AsyncGenerator[Client, None]:
    async with Client(api.config(), timeout=5) as made:
        yield made


def pod(name: str, **spec: object) -> dict[str, object]:
    return {"metadata": {"name": name, "namespace": "default"}, "spec": spec}


async def test_get_decodes_to_the_kind(api: FakeApiServer, client: Client) -> None:
    api.put(NODES, {"metadata": {"name": "n1"}, "spec": {"podCIDRs": ["10.42.0.0/24"]}})
    node = await client.get(NODES, "n1")
    assert isinstance(node, Node)
    assert node.spec.pod_cidrs == ["10.42.0.0/24"]


async def test_raw_kind_keeps_every_field_and_update_conflicts_are_typed(
    api: FakeApiServer, client: Client
) -> None:
    api.put(PODS, {**pod("a"), "unknown": {"kept": True}})
    first = await client.get(PODS.raw(), "a", "default")
    assert first["unknown"] == {"kept": True}
    api.put(PODS, {**pod("a"), "unknown": {"kept": False}})
    with pytest.raises(errors.Conflict) as raised:
        await client.update(PODS.raw(), first)
    assert not isinstance(raised.value, errors.AlreadyExists)
    assert raised.value.operation == "update"
    assert raised.value.object == "default/pods/a"


async def test_create_twice_and_missing(api: FakeApiServer, client: Client) -> None:
    made = await client.create(PODS, pod("a", nodeName="n1"), "default")
    assert isinstance(made, Pod)
    assert made.spec.node_name == "n1"
    with pytest.raises(errors.AlreadyExists):
        await client.create(PODS, pod("a"), "default")
    with pytest.raises(errors.NotFound) as raised:
        await client.get(PODS, "b", "default")
    assert raised.value.status == 404


async def test_list_pages_are_joined(api: FakeApiServer, client: Client) -> None:
    for i in range(7):
        api.put(PODS, pod(f"p{i}"))
    listing = await client.list(PODS, page_size=3)
    assert [p.metadata.name for p in listing.items] == [f"p{i}" for i in range(7)]
    assert len(api.requests) == 3


async def test_expired_continue_token_starts_over(api: FakeApiServer, client: Client) -> None:
    for i in range(4):
        api.put(PODS, pod(f"p{i}"))
    real = api._list
    served = 0

    def compacting(*args: object) -> object:
        nonlocal served
        served += 1
        if served == 2:
            api.put(PODS, pod("p9"))
            api.compact()
        return real(*args)  # type: ignore[arg-type]

    api._list = compacting  # type: ignore[method-assign,assignment]
    listing = await client.list(PODS, page_size=2)
    assert len(listing.items) == 5


async def test_one_bad_object_is_named_and_the_rest_arrive(api: FakeApiServer, client: Client) -> None:
    api.put(PODS, pod("good"))
    api.put(PODS, pod("bad", containers=17))
    listing = await client.list(PODS)
    assert [p.metadata.name for p in listing.items] == ["good"]
    assert [bad.key for bad in listing.undecodable] == [("default", "bad")]
    assert "containers" in listing.undecodable[0].problem


async def test_null_items_and_null_fields(api: FakeApiServer, client: Client) -> None:
    assert (await client.list(PODS)).items == []
    api.put(PODS, pod("a", containers=None))
    assert (await client.list(PODS)).items[0].spec.containers is None


async def test_selectors_reach_the_server(api: FakeApiServer, client: Client) -> None:
    api.put(PODS, pod("a", nodeName="n1"))
    api.put(PODS, pod("b", nodeName="n2"))
    listing = await client.list(PODS, field_selector="spec.nodeName=n2")
    assert [p.metadata.name for p in listing.items] == ["b"]


async def test_patch_types(api: FakeApiServer, client: Client) -> None:
    condition = {"type": "Ready", "status": "True"}
    api.put(NODES, {"metadata": {"name": "n1"}, "status": {"conditions": [condition]}})
    body = {"status": {"conditions": [{"type": "NetworkUnavailable", "status": "False"}]}}
    node = await client.patch(NODES, "n1", body, type="strategic", subresource="status")
    assert [c.type for c in node.status.conditions or []] == ["Ready", "NetworkUnavailable"]
    node = await client.patch(NODES, "n1", {"metadata": {"annotations": {"a": "b"}}})
    assert node.metadata.annotations == {"a": "b"}


async def test_watch_tells_kinds_of_events_apart(api: FakeApiServer, client: Client) -> None:
    version = (await client.list(PODS)).resource_version
    seen = []
    async with contextlib.aclosing(client.watch(PODS, resource_version=version)) as watch:

        async def read() -> None:
            async for event in watch:
                seen.append((event.type, event.key[1]))

        reading = asyncio.create_task(read())
        api.put(PODS, pod("a"))
        api.put(PODS, pod("a", nodeName="x"))
        api.put(PODS, pod("b", containers="no"))
        api.remove(PODS, "a", "default")
        await api.watched()
        api.bookmark()
        api.cut_streams()
        await reading
    assert seen == [
        ("OPENED", ""),
        ("ADDED", "a"),
        ("MODIFIED", "a"),
        ("UNDECODABLE", "b"),
        ("DELETED", "a"),
        ("BOOKMARK", ""),
    ]


@pytest.mark.parametrize("where", ["start", "stream"])
async def test_gone_is_typed(api: FakeApiServer, client: Client, where: str) -> None:
    version = (await client.list(PODS)).resource_version
    if where == "start":
        api.put(PODS, pod("a"))
        api.compact()
    with pytest.raises(errors.Gone):
        async with contextlib.aclosing(client.watch(PODS, resource_version=version)) as watch:
            asyncio.get_running_loop().call_later(0.1, api.expire_streams)
            async for _ in watch:
                pass


async def test_silence_ends_a_watch(api: FakeApiServer, client: Client) -> None:
    with pytest.raises(errors.Unreachable, match="nothing heard"):
        async with contextlib.aclosing(client.watch(PODS, resource_version="100", silence=0.1)) as watch:
            async for _ in watch:
                pass


@pytest.mark.parametrize("garbage", [b"not json", b'{"type":"ADDED"}', b'{"type":"NEW","object":{}}', b"[]"])
async def test_garbage_in_a_stream(api: FakeApiServer, client: Client, garbage: bytes) -> None:
    async def shout() -> None:
        await api.watched()
        api.send_line(garbage)

    shouting = asyncio.create_task(shout())
    with pytest.raises(errors.Malformed):
        async with contextlib.aclosing(client.watch(PODS, resource_version="100")) as watch:
            async for _ in watch:
                pass
    await shouting


async def test_delete_with_preconditions_and_not_found(api: FakeApiServer, client: Client) -> None:
    api.put(PODS, pod("a"))
    await client.delete(PODS, "a", "default", propagation="Background", uid="u1", grace_seconds=0)
    with pytest.raises(errors.NotFound):
        await client.delete(PODS, "a", "default")


async def test_refusals_by_status(api: FakeApiServer, client: Client) -> None:
    for status, cls in {
        400: errors.BadRequest,
        401: errors.Unauthorized,
        403: errors.Forbidden,
        418: errors.BadRequest,
        422: errors.Invalid,
        500: errors.ServerError,
        503: errors.ServerError,
    }.items():
        api.fail(status)
        with pytest.raises(cls) as raised:
            await client.get(NODES, "n1")
        assert raised.value.status == status
    api.fail(429, retry_after="7")
    with pytest.raises(errors.TooManyRequests) as limited:
        await client.list(NODES)
    assert limited.value.retry_after == 7


async def test_api_down_and_back(api: FakeApiServer, client: Client) -> None:
    api.put(NODES, {"metadata": {"name": "n1"}})
    await client.get(NODES, "n1")
    await api.down()
    with pytest.raises(errors.Unreachable) as raised:
        await client.get(NODES, "n1")
    assert raised.value.hint
    await api.up()
    assert (await client.get(NODES, "n1")).metadata.name == "n1"


async def test_kept_connection_closed_by_the_server_is_not_an_error(
    api: FakeApiServer, client: Client
) -> None:
    api.put(NODES, {"metadata": {"name": "n1"}})
    await client.get(NODES, "n1")
    await api.down()
    await api.up()
    assert (await client.get(NODES, "n1")).metadata.name == "n1"


async def test_token_file_is_read_again_when_it_changes(api: FakeApiServer, tmp_path: Path) -> None:
    api.put(NODES, {"metadata": {"name": "n1"}})
    token = tmp_path / "token"
    token.write_text("old\n")
    api.token = "old"
    async with Client(api.config(token_file=str(token))) as client:
        await client.get(NODES, "n1")
        api.token = "new"
        with pytest.raises(errors.Unauthorized):
            await client.get(NODES, "n1")
        fresh = tmp_path / "fresh"
        fresh.write_text("new\n")
        fresh.replace(token)
        await client.get(NODES, "n1")


async def test_tls_trust_is_checked() -> None:
    authority = trustme.CA()
    import ssl

    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server_context)
    api = await FakeApiServer.start(server_context, authority.cert_pem.bytes())
    try:
        api.put(NODES, {"metadata": {"name": "n1"}})
        async with Client(api.config()) as client:
            assert (await client.get(NODES, "n1")).metadata.name == "n1"
        stranger = trustme.CA().cert_pem.bytes()
        async with Client(api.config(ca=stranger)) as client:
            with pytest.raises(errors.Unreachable, match="not trusted"):
                await client.get(NODES, "n1")
        async with Client(api.config(ca=b"", insecure=True)) as client:
            await client.get(NODES, "n1")
        async with Client(api.config(server_name="somebody.else")) as client:
            with pytest.raises(errors.Unreachable, match="not trusted"):
                await client.get(NODES, "n1")
    finally:
        await api.down()


def test_paths_are_escaped() -> None:
    widgets = Kind(plural="widgets", type=Pod, group="example.org", version="v1beta1")
    assert widgets.path() == "/apis/example.org/v1beta1/widgets"
    assert widgets.path("a", "b/../c", "status") == (
        "/apis/example.org/v1beta1/namespaces/a/widgets/b%2F..%2Fc/status"
    )
    assert NODES.path("ignored", "n1") == "/api/v1/nodes/n1"


def test_five_thousand_pods_are_a_matter_of_milliseconds() -> None:
    one = {
        "metadata": {
            "name": "p",
            "namespace": "d",
            "uid": "u" * 36,
            "labels": {"app": "a"},
            "managedFields": [{}],
        },
        "spec": {"nodeName": "n", "containers": [{"name": "c", "ports": [{"containerPort": 80}]}]},
        "status": {"phase": "Running", "podIP": "10.42.0.9", "podIPs": [{"ip": "10.42.0.9"}]},
    }
    body = msgspec.json.encode({"metadata": {"resourceVersion": "1"}, "items": [one] * 5000})
    best = 1.0
    for _ in range(10):
        begun = time.perf_counter()
        page, _token = decode_page(PODS, body, "/api/v1/pods")
        best = min(best, time.perf_counter() - begun)
    assert len(page.items) == 5000
    assert best < 0.2  # about 0.02 on an idle machine
