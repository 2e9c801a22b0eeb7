"""The lab's own API server, as a process with TLS, behaves as upstream's does (tests/e2e has the same)."""

import asyncio
import csv
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from api_behaviour_access import Access
from api_behaviour_reads import Reads
from api_behaviour_writes import Writes
from api_cluster import NAMESPACES, Cluster
from towpath.kube.client import Client
from towpath.kube.config import ClientConfig

_SNAPSHOTS = 64  # more paged lists than the server remembers


class Server:
    """The process, restarted on the same port and folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None
        self.port = 0

    def start(self) -> None:
        """Until it says READY."""
        arguments = ["--dir", str(self._folder), "--port", str(self.port)]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "towpath.lab.controlplane", *arguments],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        ready = self._process.stdout.readline()
        assert ready.startswith("READY "), (self._folder / "log").read_text()
        self.port = int(ready.rpartition(":")[2])

    def stop(self) -> None:
        """SIGTERM."""
        if self._process and self._process.stdout:
            self._process.terminate()
            self._process.wait()
            self._process.stdout.close()

    async def restart(self) -> None:
        """Stop and start."""
        await asyncio.to_thread(self.stop)
        await asyncio.to_thread(self.start)

    def config(self) -> ClientConfig:
        """The administrator's."""
        with (self._folder / "tokens.csv").open(newline="") as file:
            token = next(csv.reader(file))[0]
        ca = (self._folder / "pki" / "ca.crt").read_bytes()
        return ClientConfig(server=f"https://127.0.0.1:{self.port}", source="test", ca=ca, token=token)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One server for all tests, each of which has a namespace of its own."""
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    config = server.config()

    async def forget() -> None:
        """Push the continuations of earlier lists out of the server's memory."""
        async with Client(config) as client:
            for _ in range(_SNAPSHOTS):
                await client.request("GET", NAMESPACES.path(), query={"limit": "1"})

    yield Cluster(config, server.restart, forget)
    server.stop()


class TestReads(Reads):
    """Lists and watches."""


class TestWrites(Writes):
    """Writes."""


class TestAccess(Access):
    """Access."""
