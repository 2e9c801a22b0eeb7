"""The hands of towpath-ns: they come, are used, leave in the middle of nothing, and come back."""

import asyncio
from collections.abc import Mapping

import pytest

from towpath.agent.network_helper import Helper, NoHand
from towpath.agent.network_plugins import PluginFailed, Plugins
from towpath.cni.errors import CniError, ErrorCode
from towpath.cni.parse import parse_net_conf
from towpath.cni.request import Request
from towpath.cni.wire import Executed

pytestmark = pytest.mark.looptime

SPELL = 45.0


class Node:
    """Runs shims that the agent asks for, as towpath-ns's own would."""

    def __init__(self) -> None:
        self.helper = Helper(Plugins(60))
        self.reaches_pods = True
        self.visited: list[str] = []

    def request(self, container_id: str = "") -> Request:
        config = parse_net_conf(b'{"cniVersion": "1.1.0", "name": "towpath-ns"}')
        return Request(
            command="ATTEND", config=config, container_id=container_id, path=("/opt/cni/bin",),
            executor=self.execute,
        )  # fmt: skip

    async def execute(self, path: str, env: Mapping[str, str], _: bytes, __: float | None) -> Executed:
        assert (path, env["CNI_COMMAND"]) == ("/opt/cni/bin/towpath-cni", "ATTEND")
        inner = self.request(env["CNI_CONTAINERID"])
        if self.reaches_pods:
            inner.descriptors = object()  # type: ignore[assignment]  # nobody looks into it here
        try:
            await self.helper.attend(inner)
        except CniError as error:
            return Executed(1, error.encode(), b"")
        return Executed(0, b"", b"")

    async def visit(self) -> None:
        async def work(r: Request) -> None:
            self.visited.append(r.container_id)
            await asyncio.sleep(100)  # longer than any hand waits

        await self.helper.visit({"CNI_CONTAINERID": "c", "CNI_NETNS": "/n"}, "towpath", work)


async def test_without_a_hand_nothing_is_waited_for() -> None:
    node, loop = Node(), asyncio.get_running_loop()
    begun = loop.time()
    with pytest.raises(NoHand):
        await node.visit()
    assert loop.time() == begun


async def test_a_hand_is_answered_after_a_while_but_finishes_what_it_does() -> None:
    node, loop = Node(), asyncio.get_running_loop()
    begun = loop.time()
    await node.helper.attend(node.request())
    assert loop.time() - begun <= SPELL
    attending = asyncio.create_task(node.helper.attend(node.request()))
    await asyncio.sleep(1)
    await node.visit()
    assert node.visited == ["c"]
    begun = loop.time()
    await attending
    assert loop.time() - begun < 1
    assert not node.helper.there


async def test_one_that_is_just_coming_back_is_waited_for() -> None:
    node = Node()
    await node.helper.attend(node.request())
    visiting = asyncio.create_task(node.visit())
    await asyncio.sleep(5)
    attending = asyncio.create_task(node.helper.attend(node.request()))
    await visiting
    await attending
    with pytest.raises(NoHand):  # and one that does not come is not waited for for ever
        await node.visit()


async def test_a_hand_whose_shim_died_is_no_hand() -> None:
    node = Node()
    dying = node.request()
    attending = asyncio.create_task(node.helper.attend(dying))
    await asyncio.sleep(1)
    assert node.helper.there
    dying.cancelled.set()
    await attending
    assert not node.helper.there


async def test_a_namespace_that_is_gone_is_said_and_the_hand_is_free_again() -> None:
    node = Node()
    node.reaches_pods = False
    attending = asyncio.create_task(node.helper.attend(node.request()))
    await asyncio.sleep(1)
    with pytest.raises(PluginFailed, match="is gone"):
        await node.visit()
    assert node.helper.there
    await attending


async def test_nobody_is_let_in_unasked() -> None:
    with pytest.raises(CniError) as refused:
        await Node().helper.attend(Node().request("c"))
    assert refused.value.code == ErrorCode.UNKNOWN_CONTAINER
