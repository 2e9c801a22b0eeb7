"""A running agent heeds a hold at once, whether or not the kernel tells of files."""

import asyncio
from pathlib import Path

import pytest

from towpath.agent import hold as agent_hold
from towpath.install.hold import FILE, hold, release
from towpath.kernel.inotify import FolderWatch

SECONDS = 60


class Door:
    """What ``heed`` does to it, to be waited for."""

    def __init__(self) -> None:
        self.said: asyncio.Queue[str] = asyncio.Queue()

    async def is_told(self, wanted: str) -> None:
        async with asyncio.timeout(SECONDS):
            while await self.said.get() != wanted:
                pass


@pytest.mark.parametrize("told", [True, False], ids=["told", "polling"])
async def test_new_pods_wait_while_adding_is_held_and_the_agent_ends_when_all_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    if told:  # then nothing but the kernel wakes it
        monkeypatch.setattr(agent_hold, "_LOOK_SECONDS", 3600)
        monkeypatch.setattr(agent_hold, "_POLL_SECONDS", 3600)
    else:
        monkeypatch.setattr(agent_hold, "FolderWatch", _refused)
    door, stop = Door(), asyncio.Event()
    heeding = asyncio.create_task(agent_hold.heed(tmp_path, door.said.put_nowait, stop))
    await door.is_told("")
    hold(tmp_path, "add", "handing back")
    await door.is_told("handing back")
    release(tmp_path)
    await door.is_told("")
    (tmp_path / FILE).write_text("{")
    async with asyncio.timeout(SECONDS):
        await heeding
    assert stop.is_set(), "a hold that makes no sense holds all"


def _refused(*_: object) -> FolderWatch:
    raise OSError(24, "Too many open files")


async def test_a_folder_that_is_not_there_cannot_be_watched(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        FolderWatch(tmp_path / "absent", lambda: None)
