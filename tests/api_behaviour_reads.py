"""What lists and watches promise, whoever serves them. Subclasses provide the fixture ``cluster``."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import msgspec
import pytest

from api_cluster import LEASES, MAPS, NODES, PODS, Cluster, Space, eventually, space
from towpath.kube.errors import BadRequest, Gone, Invalid, NotFound, Unreachable
from towpath.kube.kinds import Kind, Raw
from towpath.kube.reflector import Reflector, Selection


class Reads:
    """Lists, selectors, watches."""

    @pytest.fixture
    async def here(self, cluster: Cluster) -> AsyncIterator[Space]:
        """A namespace and a client of it."""
        async with space(cluster) as one:
            yield one

    async def test_pages_make_one_list(self, here: Space) -> None:
        for number in range(5):
            await here.client.create(MAPS, here.map(f"m{number}"))
        paged = await here.client.list(MAPS, here.namespace, page_size=2, label_selector="!kube-root")
        whole = await here.client.list(MAPS, here.namespace)
        names = [item["metadata"]["name"] for item in whole.items]
        assert [item["metadata"]["name"] for item in paged.items] == names == sorted(names)
        assert set(names) >= {f"m{number}" for number in range(5)}

    async def test_a_page_says_how_to_go_on(self, here: Space) -> None:
        for number in range(3):
            await here.client.create(MAPS, here.map(f"m{number}"))
        first = await _page(here, limit="2")
        assert len(first["items"]) == 2
        assert first["metadata"]["continue"]
        assert first["metadata"]["remainingItemCount"] >= 1
        await here.client.create(MAPS, here.map("a-late-one"))
        rest = await _page(here, **{"limit": "0", "continue": first["metadata"]["continue"]})
        assert rest["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
        assert "a-late-one" not in [item["metadata"]["name"] for item in rest["items"]]
        assert not rest["metadata"].get("continue")

    async def test_a_list_names_its_kind(self, here: Space) -> None:
        page = await _page(here)
        assert (page["kind"], page["apiVersion"]) == ("ConfigMapList", "v1")

    async def test_an_expired_page_is_gone(self, here: Space) -> None:
        for number in range(4):
            await here.client.create(MAPS, here.map(f"m{number}"))
        first = await _page(here, limit="2")
        await here.client.create(MAPS, here.map("other"))
        await here.cluster.forget()
        with pytest.raises(Gone):
            await _page(here, **{"limit": "2", "continue": first["metadata"]["continue"]})

    async def test_nonsense_in_a_list_is_refused(self, here: Space) -> None:
        for query in ({"continue": "nonsense"}, {"labelSelector": "a=b=c"}):
            with pytest.raises((BadRequest, Invalid)):
                await _page(here, **query)
        with pytest.raises(BadRequest, match=r"field label not supported|not a known field"):
            await here.client.list(PODS, here.namespace, field_selector="spec.nonsense=1")

    async def test_unknown_resources_are_not_found(self, here: Space) -> None:
        for kind in (
            Kind(plural="nonsenses", type=Raw),
            Kind(plural="pods", type=Raw, group="nonsense.example.org"),
            Kind(plural="pods", type=Raw, version="v9"),
        ):
            with pytest.raises(NotFound):
                await here.client.list(kind)

    async def test_label_selectors(self, here: Space) -> None:
        for name, labels in (("a", {"x": "1"}), ("b", {"x": "2", "y": ""}), ("c", {"z": "1"})):
            await here.client.create(MAPS, here.map(name, labels))
        for selector, wanted in (
            ("x", {"a", "b"}),
            ("x=1", {"a"}),
            ("x==2,y", {"b"}),
            ("x!=1,!z", {"b", "kube-root-ca.crt"}),
            ("x in (1,2)", {"a", "b"}),
            ("z notin (2),z", {"c"}),
        ):
            found = await here.client.list(MAPS, here.namespace, label_selector=selector)
            names = {item["metadata"]["name"] for item in found.items}
            assert names - {"kube-root-ca.crt"} == wanted - {"kube-root-ca.crt"}, selector

    async def test_field_selectors(self, here: Space) -> None:
        await here.client.create(PODS, here.pod("free"))
        await here.client.create(PODS, here.pod("bound", nodeName="nowhere"))
        for selector, wanted in (
            ("spec.nodeName=nowhere", {"bound"}),
            ("spec.nodeName=", {"free"}),
            ("metadata.name=free", {"free"}),
            ("metadata.name!=free,status.phase=Pending", {"bound"}),
        ):
            found = await here.client.list(PODS, here.namespace, field_selector=selector)
            assert {item["metadata"]["name"] for item in found.items} == wanted, selector

    async def test_a_watch_tells_all_changes_in_order(self, here: Space) -> None:
        async with here.watching(MAPS, field_selector="metadata.name=m") as watch:
            made = await here.client.create(MAPS, here.map("m"))
            await here.client.patch(MAPS, "m", {"data": {"k": "1"}}, here.namespace)
            await here.client.delete(MAPS, "m", here.namespace)
            events = [await watch.next() for _ in range(3)]
        assert [event.type for event in events] == ["ADDED", "MODIFIED", "DELETED"]
        versions = [int(event.resource_version) for event in events]
        assert versions == sorted(set(versions))
        assert events[0].resource_version == made["metadata"]["resourceVersion"]
        assert events[2].object is not None
        assert events[2].object["data"] == {"k": "1"}

    async def test_a_watch_goes_on_where_a_list_ended(self, here: Space) -> None:
        before = (await here.client.list(MAPS, here.namespace)).resource_version
        await here.client.create(MAPS, here.map("one"))
        middle = (await here.client.create(MAPS, here.map("two")))["metadata"]["resourceVersion"]
        await here.client.create(MAPS, here.map("three"))
        ours = {"field_selector": "metadata.name!=kube-root-ca.crt"}
        async with here.watching(MAPS, resource_version=before, **ours) as watch:
            assert await watch.types(3) == [("ADDED", "one"), ("ADDED", "two"), ("ADDED", "three")]
        async with here.watching(MAPS, resource_version=middle, **ours) as watch:
            assert await watch.types(1) == [("ADDED", "three")]

    async def test_a_watch_by_label_sees_objects_come_and_go(self, here: Space) -> None:
        await here.client.create(MAPS, here.map("m"))
        async with here.watching(MAPS, label_selector="on") as watch:
            for labels in ({"on": ""}, {"on": "1"}, {"on": None}):
                await here.client.patch(MAPS, "m", {"metadata": {"labels": labels}}, here.namespace)
            assert await watch.types(3) == [("ADDED", "m"), ("MODIFIED", "m"), ("DELETED", "m")]

    async def test_a_watch_by_field_sees_pods_come_to_a_node(self, here: Space) -> None:
        await here.client.create(PODS, here.pod("p"))
        async with here.watching(PODS, field_selector="spec.nodeName=somewhere") as watch:
            await here.client.create(PODS, here.pod("other", nodeName="elsewhere"))
            binding = {"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "somewhere"}}
            await here.client.create(PODS, binding, here.namespace, subresource="binding")
            assert await watch.types(1) == [("ADDED", "p")]

    async def test_a_write_that_changes_nothing_is_no_event(self, here: Space) -> None:
        made = await here.client.create(MAPS, here.map("m", k="1"))
        async with here.watching(MAPS, field_selector="metadata.name=m") as watch:
            same = await here.client.patch(MAPS, "m", {"data": {"k": "1"}}, here.namespace)
            assert same["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
            await here.client.patch(MAPS, "m", {"data": {"k": "2"}}, here.namespace)
            event = await watch.next()
            assert event.object is not None
            assert event.object["data"] == {"k": "2"}

    async def test_a_quiet_watch_ends_when_it_was_to_end(self, here: Space) -> None:
        since = (await here.client.create(MAPS, here.map("m")))["metadata"]["resourceVersion"]
        stream = here.client.watch(
            MAPS, here.namespace, resource_version=since, timeout_seconds=3, label_selector="nothing"
        )
        async with asyncio.timeout(10):
            events = [event async for event in stream]
        assert events[0].type == "OPENED"
        assert {event.type for event in events[1:]} <= {"BOOKMARK"}
        assert int(events[-1].resource_version) >= int(since)

    async def test_a_watch_from_before_the_history_is_gone(self, here: Space) -> None:
        before = (await here.client.list(LEASES)).resource_version
        lease = {"metadata": {"name": "l"}, "spec": {"holderIdentity": "me"}}
        await here.client.create(LEASES, lease, here.namespace)
        await here.client.patch(LEASES, "l", {"spec": {"holderIdentity": "you"}}, here.namespace)
        await here.cluster.forget()
        await here.cluster.restart()
        with pytest.raises(Gone):
            async with asyncio.timeout(10):
                async for _ in here.client.watch(LEASES, here.namespace, resource_version=before):
                    pass

    async def test_a_version_of_the_future_is_gone(self, here: Space) -> None:
        now = (await here.client.list(NODES)).resource_version
        with pytest.raises(Gone):
            await here.client.request(
                "GET", "/api/v1/nodes", query={"resourceVersion": str(int(now) + 10_000_000)}
            )

    async def test_a_reflector_follows_through_a_restart(self, here: Space) -> None:
        selection = Selection(kind=MAPS, namespace=here.namespace)
        reflector: Reflector[Raw] = Reflector(here.client, selection)
        running = asyncio.create_task(reflector.run())
        try:
            await asyncio.wait_for(reflector.listed.wait(), 120)
            await here.client.create(MAPS, here.map("stays", k="1"))
            await here.client.create(MAPS, here.map("goes"))
            await eventually(lambda: _has(reflector, here, stays="1", goes=None))
            await here.cluster.restart()
            # A write on a connection that the restart has cut is the caller's to repeat.
            change = {"data": {"k": "2"}}
            await eventually(
                lambda: here.client.patch(MAPS, "stays", change, here.namespace), Unreachable, NotFound
            )
            await here.client.delete(MAPS, "goes", here.namespace)
            await eventually(lambda: _has(reflector, here, stays="2"))
            assert (here.namespace, "goes") not in reflector.objects
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running


async def _has(reflector: Reflector[Raw], here: Space, **wanted: str | None) -> bool:
    known = {key[1]: (obj.get("data") or {}).get("k") for key, obj in reflector.objects.items()}
    known.pop("kube-root-ca.crt", None)
    return known == wanted


async def _page(here: Space, **query: str) -> Raw:
    path = MAPS.path(here.namespace)
    answer: Raw = msgspec.json.decode(await here.client.request("GET", path, query=query))
    return answer
