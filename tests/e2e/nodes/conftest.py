"""One cluster of real programs for all tests of this folder, inside a world of its own (`make e2e`)."""

import asyncio
import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from installed import Installed

from cluster_state import Memory
from towpath.lab.real.binaries import find_binaries
from towpath.lab.real.cluster import RealCluster
from towpath.lab.real.images import build_images
from towpath.lab.real.world import GROUP
from towpath.lab.topology import lab_spec

INSTALLED = pytest.StashKey[Installed]()
MEMORY = Memory()


def pytest_configure() -> None:
    """Refuse to run on the machine itself."""
    if GROUP not in os.environ:
        pytest.exit("these tests need a world of their own, and root: run `make e2e`", returncode=7)
    asyncio.set_event_loop(None)  # as tests/conftest.py, which is not read here, and for the same reason


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Of a test that failed, keep what the cluster is like before anything is cleared away."""
    report = yield
    installed = item.config.stash.get(INSTALLED, None)
    if report.failed and installed is not None:
        MEMORY.keep(f"{item.nodeid} ({call.when})", [("cluster", installed.told())])
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The last thing before the summary."""
    if MEMORY.lines:
        terminalreporter.section("cluster")
        terminalreporter.write_line("\n".join(MEMORY.lines))


@pytest.fixture(scope="session")
def cluster(pytestconfig: pytest.Config) -> Iterator[Installed]:
    """Three nodes, two families, Towpath installed and every node Ready."""
    real = RealCluster(find_binaries(print), build_images(print), lab_spec({}, nodes=3), Path("/lab"))
    installed = pytestconfig.stash[INSTALLED] = Installed(real)
    try:
        real.start()
        installed.install()
        yield installed
    finally:
        real.stop()


@pytest.fixture(autouse=True)
def in_order(cluster: Installed) -> Iterator[None]:
    """After every test nothing is leaked: leases and interfaces are those of the pods there are."""
    yield
    cluster.delete_workloads()
    cluster.wait_nothing_leaked()
