"""A migration killed with SIGKILL: at every step in turn it goes on, and from any step it can be handed back.

All the while what is allowed goes on, and what is denied stays denied.
"""

import asyncio
import contextlib
import os
import re
import signal
import threading
import time
from pathlib import Path as File

import pytest
from canal_probes import probes
from canal_world import CanalNode, World, agent_running, canal_world
from test_takeover import (
    assert_given_back,
    assert_taken,
    handed_back,
    judge,
    label,
    paths,
    populated,
    taken_over,
)

from towpath.install.hold import held

pytestmark = pytest.mark.kernel
_STEP = re.compile(r"^ *(\d+)/(\d+) ")


async def killed_at(world: World, direction: str, number: int, delay: float = 0.0) -> bool:
    """Run it until step ``number`` begins, and kill it ``delay`` seconds later; False if it ended before."""
    process = world.n1.migrate(direction, "--patience=300")
    reached, lines = threading.Event(), []

    def read() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line)
            step = _STEP.match(line)
            if step is not None and int(step[1]) >= number:
                reached.set()

    reader = threading.Thread(target=read)
    reader.start()
    while not reached.is_set() and process.poll() is None:
        follow(world)
        await asyncio.sleep(0.005)
    await asyncio.sleep(delay)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    status = await asyncio.to_thread(process.wait)
    await asyncio.to_thread(reader.join)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    process.stderr.close()
    assert reached.is_set() or status == 0, "".join(lines)
    return reached.is_set()


async def killed_over_and_over(world: World, direction: str, steps: int) -> int:
    """How many runs were killed: at each step, as soon as it was announced or a little later."""
    for number in range(1, steps + 1):
        if not await killed_at(world, direction, number, delay=0.01 * (number % 3)):
            return number - 1
    return steps


def follow(world: World) -> None:
    """What the DaemonSets do about the label."""
    if label(world) == "towpath" and world.n1.daemons:
        stop(world.n1)
    elif label(world) in (None, "takeover", "handback") and not world.n1.daemons:
        world.n1.start_canal()


def stop(one: CanalNode) -> None:
    """Without waiting: flanneld takes a second to remove its rules."""
    daemons, one.daemons = one.daemons, {}
    for process in daemons.values():
        process.terminate()
    for process in daemons.values():
        threading.Thread(target=process.wait).start()


async def test_killed_at_every_step_in_turn_it_goes_on(tmp_path: File) -> None:
    async with canal_world(tmp_path) as world:
        await populated(world)
        notes, links = world.notes("n1"), world.n1.links()
        async with agent_running(world.n1):
            with probes(*paths(world)) as running:
                assert await killed_over_and_over(world, "takeover", 21) > 14
                status, _, said = await taken_over(world)
                assert status == 0, said
                assert_taken(world, notes, links)
                again, _, said = await taken_over(world)
                assert again == 0, said
                await world.n1.add(world.api, "late", portMappings=PORT)
                assert await killed_over_and_over(world, "handback", 16) > 10
                status, _, said = await handed_back(world)
                assert status == 0, said
                assert (await handed_back(world))[0] == 0
            judge(running, back=True)
        assert_given_back(world, links)


PORT = [{"hostPort": 8081, "containerPort": 81, "protocol": "tcp"}]


async def test_a_takeover_is_handed_back_from_wherever_it_was_killed(tmp_path: File) -> None:
    async with canal_world(tmp_path) as world:
        await populated(world)
        links = world.n1.links()
        async with agent_running(world.n1):
            with probes(*paths(world)) as running:
                told: list[str] = []
                for number in (5, 9, 13, 20):
                    assert await killed_at(world, "takeover", number, delay=0.02)
                    done = asyncio.create_task(handed_back(world))
                    while not done.done():
                        follow(world)
                        await asyncio.sleep(0.05)
                    status, _, said = await done
                    assert status == 0, (number, said)
                    told.append(f"{number} by {time.monotonic():.2f}")
                    assert held(world.n1.state) is not None
                    assert world.n1.links()["flannel.1"] == links["flannel.1"]
                    assert "towpath" not in world.n1.sh("nft list tables")
            judge(running, back=True, told=told)


async def test_a_handback_is_taken_over_again_from_wherever_it_was_killed(tmp_path: File) -> None:
    async with canal_world(tmp_path) as world:
        await populated(world)
        notes, links = world.notes("n1"), world.n1.links()
        async with agent_running(world.n1):
            assert (await taken_over(world))[0] == 0
            with probes(*paths(world)) as running:
                for number in (3, 8, 12):
                    assert await killed_at(world, "handback", number, delay=0.02)
                    status, _, said = await taken_over(world)
                    assert status == 0, (number, said)
                    assert_taken(world, notes, links)
            judge(running, back=True)
