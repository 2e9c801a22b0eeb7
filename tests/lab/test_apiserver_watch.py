"""Watches and lists: history, bookmarks, 410, selectors, pages, tables."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from apiserver_samples import CRD
from apiserver_world import MAPS, MERGE, PODS, World, config_map, pod, world

from towpath.lab.apiserver.verbs import watch as watching


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as found:
        yield found


async def test_a_watch_replays_history_then_follows(lab: World) -> None:
    rv = (await lab.do("GET", MAPS))["metadata"]["resourceVersion"]
    await lab.do("POST", MAPS, config_map("a"), 201)
    await lab.do("PATCH", f"{MAPS}/a", {"data": {"x": "1"}}, Content_Type=MERGE)
    async with lab.watch(f"{MAPS}?watch=1&resourceVersion={rv}") as events:
        first, second = await anext(events), await anext(events)
        assert (first["type"], second["type"]) == ("ADDED", "MODIFIED")
        assert "data" not in first["object"] or not first["object"]["data"]
        await lab.do("DELETE", f"{MAPS}/a")
        third = await anext(events)
        assert third["type"] == "DELETED"
        assert third["object"]["data"] == {"x": "1"}
        versions = [int(e["object"]["metadata"]["resourceVersion"]) for e in (first, second, third)]
        assert versions == sorted(set(versions))


async def test_a_watch_without_version_begins_with_what_there_is(lab: World) -> None:
    await lab.do("POST", MAPS, config_map("a"), 201)
    async with lab.watch(f"{MAPS}?watch=true") as events:
        assert (await anext(events))["object"]["metadata"]["name"] == "a"


async def test_initial_events_end_with_a_bookmark(lab: World) -> None:
    await lab.do("POST", MAPS, config_map("a"), 201)
    query = "watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan"
    async with lab.watch(f"{MAPS}?{query}") as events:
        assert (await anext(events))["type"] == "ADDED"
        mark = await anext(events)
        assert mark["type"] == "BOOKMARK"
        assert mark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_bookmarks_tell_the_version(lab: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "BOOKMARK_SECONDS", 0.05)
    async with lab.watch(f"{MAPS}?watch=1&resourceVersion=1&allowWatchBookmarks=true") as events:
        mark = await anext(events)
        assert mark["type"] == "BOOKMARK"
        assert mark["object"]["metadata"]["resourceVersion"] == str(lab.server.store.rv)


async def test_410_after_compaction_but_running_watches_go_on(lab: World) -> None:
    rv = (await lab.do("GET", MAPS))["metadata"]["resourceVersion"]
    async with lab.watch(f"{MAPS}?watch=1&resourceVersion={rv}") as running:
        await lab.do("POST", MAPS, config_map("a"), 201)
        assert (await anext(running))["type"] == "ADDED"
        lab.server.store.compact()
        async with lab.watch(f"{MAPS}?watch=1&resourceVersion={rv}") as events:
            event = await anext(events)
            assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
            assert event["object"]["reason"] == "Expired"
        await lab.do("POST", MAPS, config_map("b"), 201)
        assert (await anext(running))["object"]["metadata"]["name"] == "b"


async def test_history_is_bounded(lab: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("towpath.lab.apiserver.store.HISTORY", 3)
    rv = int((await lab.do("GET", MAPS))["metadata"]["resourceVersion"])
    for i in range(5):
        await lab.do("POST", MAPS, config_map(f"m{i}"), 201)
    assert lab.server.store.since("/configmaps", rv) is None
    newer = lab.server.store.since("/configmaps", rv + 2)
    assert newer is not None
    assert [e.new.name for e in newer] == ["m2", "m3", "m4"]


async def test_selectors_turn_changes_into_additions_and_deletions(lab: World) -> None:
    await lab.do("POST", PODS, pod("a", app="x"), 201)
    rv = lab.server.store.rv
    async with lab.watch(f"{PODS}?watch=1&resourceVersion={rv}&labelSelector=app%3Dx") as events:
        await lab.do("PATCH", f"{PODS}/a", {"metadata": {"labels": {"app": "y"}}}, Content_Type=MERGE)
        assert (await anext(events))["type"] == "DELETED"
        await lab.do("PATCH", f"{PODS}/a", {"metadata": {"labels": {"n": "1"}}}, Content_Type=MERGE)
        await lab.do("PATCH", f"{PODS}/a", {"metadata": {"labels": {"app": "x"}}}, Content_Type=MERGE)
        assert (await anext(events))["type"] == "ADDED"


async def test_field_selectors_of_pods(lab: World) -> None:
    await lab.do("POST", PODS, pod("a", node="n1"), 201)
    await lab.do("POST", PODS, pod("b", node="n2"), 201)
    found = await lab.do("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1,status.phase!%3DFailed")
    assert [i["metadata"]["name"] for i in found["items"]] == ["a"]
    refused = await lab.do("GET", "/api/v1/pods?fieldSelector=spec.x%3D1", want=400)
    assert "field label not supported" in refused["message"]


async def test_timeouts_end_a_watch_cleanly(lab: World) -> None:
    async with lab.watch(f"{MAPS}?watch=1&timeoutSeconds=1&resourceVersion={lab.server.store.rv}") as events:
        assert [e async for e in events] == []


async def test_listeners_go_with_their_clients(lab: World) -> None:
    bucket = lab.server.store.bucket("/configmaps")
    async with lab.watch(f"{MAPS}?watch=1"):
        assert len(bucket.listeners) == 1
    async with asyncio.timeout(240):
        while bucket.listeners:  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.01)


async def test_pages_are_of_one_moment(lab: World) -> None:
    for i in range(5):
        await lab.do("POST", MAPS, config_map(f"m{i}"), 201)
    first = await lab.do("GET", f"{MAPS}?limit=2")
    assert first["metadata"]["remainingItemCount"] == 3
    await lab.do("DELETE", f"{MAPS}/m3")
    token = first["metadata"]["continue"]
    second = await lab.do("GET", f"{MAPS}?limit=2&continue={token}")
    third = await lab.do("GET", f"{MAPS}?limit=2&continue={second['metadata']['continue']}")
    names = [i["metadata"]["name"] for page in (first, second, third) for i in page["items"]]
    assert names == ["m0", "m1", "m2", "m3", "m4"]
    assert {p["metadata"]["resourceVersion"] for p in (first, second, third)} == {
        first["metadata"]["resourceVersion"]
    }
    lab.server.snapshots.clear()
    assert (await lab.do("GET", f"{MAPS}?limit=2&continue={token}", want=410))["reason"] == "Expired"
    await lab.do("GET", f"{MAPS}?continue=nonsense", want=400)


async def test_versions_from_the_future_are_told_to_wait(lab: World) -> None:
    refused = await lab.do("GET", f"{MAPS}?resourceVersion=99999999", want=504)
    assert refused["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"


async def test_tables_and_partial_metadata(lab: World) -> None:
    await lab.do("POST", MAPS, config_map("a", k="v"), 201)
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
    table = await lab.do("GET", MAPS, Accept=accept)
    assert [c["name"] for c in table["columnDefinitions"]] == ["Name", "Data", "Age"]
    assert table["rows"][0]["cells"][:2] == ["a", 1]
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    full = await lab.do("GET", f"{MAPS}/a?includeObject=Object", Accept=accept)
    assert full["rows"][0]["object"]["data"] == {"k": "v"}
    partial = await lab.do(
        "GET", MAPS, Accept="application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
    )
    assert partial["kind"] == "PartialObjectMetadataList"
    assert "data" not in partial["items"][0]
    await lab.do("GET", MAPS, Accept="text/html", want=406)
    assert (await lab.raw("GET", MAPS, Accept="application/vnd.kubernetes.protobuf,application/json"))[
        0
    ] == 200


async def test_events_of_one_write_reach_many_watchers(lab: World) -> None:
    async def one() -> str:
        async with lab.watch(f"{MAPS}?watch=1&resourceVersion={rv}") as events:
            return json.dumps(await anext(events))

    rv = lab.server.store.rv
    tasks = [asyncio.create_task(one()) for _ in range(20)]
    await asyncio.sleep(0.05)
    await lab.do("POST", MAPS, config_map("a"), 201)
    assert len(set(await asyncio.gather(*tasks))) == 1


async def test_in_a_crowd_events_come_together_complete_and_in_order(
    lab: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "CROWD", 1)
    rv = (await lab.do("GET", MAPS))["metadata"]["resourceVersion"]
    query = f"{MAPS}?watch=1&resourceVersion={rv}"
    async with lab.watch(query) as one, lab.watch(query) as other:
        for number in range(20):
            await lab.do("POST", MAPS, config_map(f"m{number}"), 201)
        for events in (one, other):
            names = [(await anext(events))["object"]["metadata"]["name"] for _ in range(20)]
            assert names == [f"m{number}" for number in range(20)]


async def test_a_watch_ends_with_its_definition(lab: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "BOOKMARK_SECONDS", 0.05)
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "foos.x.y"},
        "spec": CRD,
    }
    await lab.do("POST", crds, crd, 201)
    foo = {"apiVersion": "x.y/v1", "kind": "Foo", "metadata": {"name": "f"}, "spec": {}}
    await lab.do("POST", "/apis/x.y/v1/namespaces/default/foos", foo, 201)
    async with lab.watch("/apis/x.y/v1/foos?watch=1") as events:
        assert (await anext(events))["type"] == "ADDED"
        await lab.do("DELETE", f"{crds}/foos.x.y")
        assert [e["type"] async for e in events] == ["DELETED"]
    await lab.do("GET", "/apis/x.y/v1/foos", want=404)
