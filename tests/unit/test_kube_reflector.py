"""The reflector: what it believes after everything an API server does to a watch."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable

import msgspec
import pytest

from patience import ATTEMPTS, PATIENT
from towpath.api.core import Pod
from towpath.kube import errors
from towpath.kube.backoff import Backoff
from towpath.kube.client import Client
from towpath.kube.codec import Key
from towpath.kube.fake import FakeApiServer
from towpath.kube.kinds import PODS
from towpath.kube.reflector import Reflector, Selection


class Setting:
    def __init__(self, api: FakeApiServer, client: Client) -> None:
        self.api = api
        self.calls: list[Key | None] = []
        self.reflector: Reflector[Pod] = Reflector(
            client, Selection(kind=PODS), self.calls.append, backoff=Backoff(0.01, 0.05), silence=5
        )
        self.task = asyncio.create_task(self.reflector.run())

    def put(self, name: str, **spec: object) -> None:
        self.api.put(PODS, {"metadata": {"name": name, "namespace": "ns"}, "spec": spec})

    def names(self) -> set[str]:
        return {name for _, name in self.reflector.objects}

    def asked(self, what: str) -> int:
        return sum(what in target for _, target in self.api.requests)

    async def until(self, truth: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENT):
            while not truth():  # noqa: ASYNC110 (any condition at all)
                await asyncio.sleep(0.005)


@pytest.fixture
async def setting() -> AsyncGenerator[Setting, None]:
    api = await FakeApiServer.start()
    async with Client(api.config()) as client:
        made = Setting(api, client)
        yield made
        made.task.cancel()
        await asyncio.gather(made.task, return_exceptions=True)
    await api.down()


async def test_list_then_changes(setting: Setting) -> None:
    setting.put("a")
    await setting.reflector.listed.wait()
    await setting.until(lambda: setting.api.watches)
    setting.put("b", nodeName="n")
    await setting.until(lambda: setting.names() == {"a", "b"})
    setting.api.remove(PODS, "a", "ns")
    await setting.until(lambda: setting.names() == {"b"})
    assert setting.reflector.objects["ns", "b"].spec.node_name == "n"
    assert setting.calls == [("ns", "a"), None, ("ns", "b"), ("ns", "a")]


async def test_empty_list_is_a_list(setting: Setting) -> None:
    await asyncio.wait_for(setting.reflector.listed.wait(), PATIENT)
    assert setting.calls == [None]


async def test_stream_ends_and_goes_on_from_the_last_version(setting: Setting) -> None:
    setting.put("a")
    await setting.until(lambda: setting.api.watches)
    setting.api.bookmark()
    setting.api.cut_streams()
    await setting.until(lambda: setting.asked("watch=1") == 2)
    setting.put("b")
    await setting.until(lambda: "b" in setting.names())
    assert setting.reflector.relists == 1
    assert setting.reflector.objects["ns", "a"]


async def test_bookmarks_advance_the_version(setting: Setting) -> None:
    await setting.until(lambda: setting.api.watches)
    setting.api.bookmark()
    setting.api.cut_streams()
    setting.api.compact()  # history before the bookmark is gone: only its version still works
    await setting.until(lambda: setting.asked("watch=1") >= 2)
    await setting.until(lambda: setting.api.watches)
    assert setting.reflector.relists == 1


async def test_410_in_stream_relists_and_deletes_what_vanished(setting: Setting) -> None:
    setting.put("a")
    setting.put("b")
    await setting.until(lambda: setting.api.watches)
    collection = setting.api.objects["core/v1/pods"]
    del collection["ns", "a"]  # vanishes without an event, as if compacted away
    setting.api.expire_streams()
    await setting.until(lambda: setting.names() == {"b"})
    assert setting.reflector.relists == 2
    assert ("ns", "a") in setting.calls


async def test_410_at_start_relists(setting: Setting) -> None:
    setting.put("a")
    await setting.until(lambda: setting.api.watches)
    await setting.api.down()
    setting.put("c")
    setting.api.remove(PODS, "a", "ns")
    setting.api.compact()
    await setting.api.up()
    await setting.until(lambda: setting.names() == {"c"})


async def test_down_keeps_what_is_known_and_says_why(setting: Setting) -> None:
    setting.put("a")
    await setting.until(lambda: setting.api.watches)
    await setting.api.down()
    await setting.until(lambda: setting.reflector.problem)
    assert isinstance(setting.reflector.problem, errors.Unreachable)
    assert setting.names() == {"a"}
    await setting.api.up()
    setting.put("b")
    await setting.until(lambda: setting.names() == {"a", "b"})
    assert setting.reflector.problem is None


async def test_undecodable_keeps_the_last_good_one(setting: Setting) -> None:
    setting.put("a", nodeName="n1")
    await setting.until(lambda: setting.api.watches)
    setting.put("a", nodeName=17)
    await setting.until(lambda: setting.reflector.undecodable)
    assert setting.reflector.objects["ns", "a"].spec.node_name == "n1"
    setting.api.expire_streams()
    await setting.until(lambda: setting.reflector.relists == 2)
    assert setting.reflector.objects["ns", "a"].spec.node_name == "n1"
    setting.put("a", nodeName="n2")
    await setting.until(lambda: not setting.reflector.undecodable)
    assert setting.reflector.objects["ns", "a"].spec.node_name == "n2"


async def test_garbage_in_the_stream_is_trouble_not_the_end(setting: Setting) -> None:
    await setting.until(lambda: setting.api.watches)
    setting.api.send_line(b"{]")
    await setting.until(lambda: setting.reflector.problem or len(setting.api.requests) > 2)
    setting.put("a")
    await setting.until(lambda: "a" in setting.names())


async def test_a_server_that_always_says_410_is_not_hammered(setting: Setting) -> None:
    await setting.until(lambda: setting.api.watches)
    setting.api.fail(410, times=10_000)
    setting.api.cut_streams()
    await asyncio.sleep(0.3)
    assert len(setting.api.requests) < 60


async def test_the_server_was_restored_from_a_backup(setting: Setting) -> None:
    setting.put("a")
    await setting.until(lambda: setting.api.watches)
    cause = {"reason": "ResourceVersionTooLarge"}
    status = {"kind": "Status", "code": 504, "reason": "Timeout", "details": {"causes": [cause]}}
    setting.api.send_line(msgspec.json.encode({"type": "ERROR", "object": status}))
    setting.api.cut_streams()
    await setting.until(lambda: setting.reflector.relists == 2)


async def test_a_question_the_server_does_not_like_is_asked_simpler(setting: Setting) -> None:
    await setting.until(lambda: setting.api.watches)
    setting.api.fail(400)
    setting.api.cut_streams()
    await setting.until(lambda: setting.reflector.relists == 2)


async def test_being_back_is_known_before_anything_happens(setting: Setting) -> None:
    await setting.until(lambda: setting.api.watches)
    await setting.api.down()
    await setting.until(lambda: setting.reflector.problem)
    await setting.api.up()
    await setting.until(lambda: not setting.reflector.problem)
    assert setting.reflector.relists == 1


async def test_short_watches_are_not_a_hot_loop(setting: Setting) -> None:
    for _ in range(ATTEMPTS):
        await setting.until(lambda: setting.api.watches)
        before, begun = len(setting.api.requests), time.monotonic()
        for _ in range(30):
            setting.api.cut_streams()
            await asyncio.sleep(0.01)
        if time.monotonic() - begun < 1:  # else a busy machine has given it the time to ask
            break
    assert len(setting.api.requests) - before < 25


async def test_silence_reconnects(setting: Setting) -> None:
    setting.task.cancel()
    reflector: Reflector[Pod] = Reflector(
        setting.reflector._client, Selection(kind=PODS), backoff=Backoff(0.01, 0.05), silence=0.1
    )
    task = asyncio.create_task(reflector.run())
    await setting.until(lambda: isinstance(reflector.problem, errors.Unreachable))
    setting.put("late")
    await setting.until(lambda: ("ns", "late") in reflector.objects)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
