import asyncio

import pytest

from towpath.lab.controllers.workqueue import WorkQueue

pytestmark = pytest.mark.looptime


async def test_a_key_waits_once_and_comes_again_if_added_meanwhile() -> None:
    queue = WorkQueue()
    queue.add("a")
    queue.add("a")
    queue.add("b")
    assert await queue.take() == "a"
    queue.add("a")
    assert await queue.take() == "b"
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.take(), 1)
    queue.done("a")
    assert await asyncio.wait_for(queue.take(), 1) == "a"


async def test_the_earliest_time_counts() -> None:
    queue, loop = WorkQueue(), asyncio.get_running_loop()
    queue.add_after("a", 10)
    queue.add_after("a", 2)
    queue.add_after("a", 5)
    assert await queue.take() == "a"
    assert loop.time() == pytest.approx(2, abs=0.01)
    queue.done("a")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.take(), 20)


async def test_failures_come_back_later_and_later() -> None:
    queue = WorkQueue()
    waits = [queue.retry("a") for _ in range(13)]
    assert waits[:3] == [0.005, 0.01, 0.02]
    assert waits[-1] == 10
    assert queue.retry("a", at_least=60) == 60
    queue.forget("a")
    assert queue.retry("a") == 0.005
    queue.close()
