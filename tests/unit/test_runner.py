"""The runner on virtual time: coalescing, resync, backoff, and its share of the processor."""

import asyncio
import random
from itertools import pairwise

import pytest

from towpath.agent.runner import Runner
from towpath.kube.backoff import Backoff

pytestmark = pytest.mark.looptime


class Work:
    """Remembers when it ran; takes ``seconds``; answers from ``answers``, then well."""

    def __init__(self, seconds: float = 0.0, answers: tuple[bool, ...] = ()) -> None:
        self.at: list[float] = []
        self._seconds, self._answers = seconds, list(answers)

    async def __call__(self) -> bool:
        self.at.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self._seconds)
        return self._answers.pop(0) if self._answers else True


async def running(work: Work, seconds: float, *pokes: tuple[float, float], resync: float = 1000) -> Runner:
    """Run for ``seconds`` with pokes (when, delay)."""
    loop = asyncio.get_running_loop()
    runner = Runner(work, resync=resync, backoff=Backoff(1.0, 8.0, random.Random(1)), rest=0.05)
    for when, delay in pokes:
        loop.call_later(when, runner.poke, delay)
    task = asyncio.create_task(runner.run())
    await asyncio.sleep(seconds)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return runner


async def test_a_swarm_of_pokes_is_one_run() -> None:
    work = Work()
    await running(work, 10, *((1.0, 0.1) for _ in range(500)))
    assert work.at == pytest.approx([1.1], abs=0.01)


async def test_an_urgent_poke_overtakes_a_patient_one() -> None:
    work = Work()
    await running(work, 10, (1.0, 0.5), (1.1, 0.0))
    assert work.at == pytest.approx([1.1], abs=0.01)


async def test_a_patient_poke_does_not_put_off_an_urgent_one() -> None:
    work = Work()
    await running(work, 10, (1.0, 0.1), (1.05, 0.5))
    assert work.at == pytest.approx([1.1], abs=0.01)


async def test_a_poke_during_a_run_makes_another_run() -> None:
    work = Work(seconds=1.0)
    await running(work, 10, (1.0, 0.0), (1.5, 0.0))
    # The second waits for the first to end, and then as long again as it took.
    assert work.at == pytest.approx([1.0, 3.0], abs=0.01)


async def test_a_storm_takes_no_more_than_half_of_the_time() -> None:
    work = Work(seconds=0.2)
    await running(work, 20, *((i / 50, 0.0) for i in range(1000)))
    assert 45 <= len(work.at) <= 52


async def test_resync_without_any_event() -> None:
    work = Work()
    runner = await running(work, 35, resync=10)
    assert work.at == pytest.approx([10, 20, 30], abs=0.3)
    assert runner.runs == 3


async def test_failures_are_repeated_with_growing_pauses_until_well() -> None:
    work = Work(answers=(False, False, False, True))
    await running(work, 60, (0.0, 0.0))
    pauses = [b - a for a, b in pairwise(work.at)]
    assert len(work.at) == 4
    assert 1.0 <= pauses[0] <= 1.1
    assert all(1.0 <= p <= 8.1 for p in pauses)


async def test_a_poke_is_heard_during_a_backoff() -> None:
    work = Work(answers=(False, True))
    await running(work, 60, (0.0, 0.0), (0.3, 0.0))
    assert work.at == pytest.approx([0.0, 0.3], abs=0.02)


async def test_an_exception_ends_it() -> None:
    async def broken() -> bool:
        raise ZeroDivisionError

    runner = Runner(broken, resync=5, backoff=Backoff())
    with pytest.raises(ZeroDivisionError):
        await runner.run()
