"""kill -9 loses no write that was answered, and what was never answered is there whole or not at all."""

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp

BODY = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"k": "x" * 500}}
MAPS = "/api/v1/namespaces/default/configmaps"


def start(folder: Path) -> "tuple[subprocess.Popen[str], str, str]":
    """The process, its URL, the admin's token."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "towpath.lab.controlplane",
            "--dir",
            str(folder),
            "--port",
            "0",
            "--no-controllers",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    url = process.stdout.readline().split()[1]
    return process, url, (folder / "tokens.csv").read_text().split(",")[0]


async def test_kill_nine(tmp_path: Path) -> None:
    process, url, token = start(tmp_path)
    answered: list[str] = []
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    async def write(session: aiohttp.ClientSession, worker: int) -> None:
        for i in range(1000):
            body = {**BODY, "metadata": {"name": f"m{worker}-{i}"}}
            async with session.post(url + MAPS, data=json.dumps(body), headers=headers, ssl=False) as r:
                assert r.status == 201
                answered.append(json.loads(await r.read())["metadata"]["name"])

    async with aiohttp.ClientSession() as session:
        tasks = [asyncio.create_task(write(session, n)) for n in range(4)]
        async with asyncio.timeout(240):
            while len(answered) < 100:  # noqa: ASYNC110 - four writers at once
                await asyncio.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        failures = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(f, aiohttp.ClientError | OSError) for f in failures), failures
    process.communicate()
    process, url, token = start(tmp_path)
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.get(url + MAPS, headers=headers, ssl=False) as r,
        ):
            items = json.loads(await r.read())["items"]
        assert {i["metadata"]["name"] for i in items} >= set(answered)
        assert all(i["data"] == BODY["data"] for i in items)
    finally:
        process.terminate()
        process.communicate()
