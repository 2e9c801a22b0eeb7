"""One lab for all tests that only look or repair what they break; labs of their own for the others."""

import os
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from lab_objects import Kubectl, ended, settle, towpath
from lab_state import MEMORY, keep

from towpath.lab.client import LabClient

collect_ignore = ["test_lab_upgrade_towpath.py"]  # a minute: `make e2e` runs it


RUNTIME_DIR = pytest.StashKey[Path]()
SHARED = pytest.StashKey[LabClient]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Of a test that failed, keep what its labs are like before they end."""
    report = yield
    folder = item.config.stash.get(RUNTIME_DIR, None)
    if report.failed and folder is not None:
        keep(f"{item.nodeid} ({call.when})", sorted(one.name for one in folder.glob("towpath/lab/*")))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The last thing before the summary."""
    if MEMORY.lines:
        terminalreporter.section("labs")
        terminalreporter.write_line("\n".join(MEMORY.lines))


@pytest.fixture(scope="session")
def runtime_dir(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Path]:
    """Labs of the tests live beside those of the developer."""
    folder = tmp_path_factory.mktemp("run")
    folder.chmod(0o700)
    pytestconfig.stash[RUNTIME_DIR] = folder
    before = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = str(folder)
    yield folder
    if before is None:
        del os.environ["XDG_RUNTIME_DIR"]
    else:
        os.environ["XDG_RUNTIME_DIR"] = before


@pytest.fixture(scope="session")
def lab(runtime_dir: Path, pytestconfig: pytest.Config) -> Iterator[LabClient]:
    """Three dual-stack nodes."""
    towpath("up", "--name", "shared")
    client = pytestconfig.stash[SHARED] = LabClient("shared")
    yield client
    del pytestconfig.stash[SHARED]
    ended(client)


@pytest.fixture(autouse=True, scope="module")
def settled(pytestconfig: pytest.Config) -> Iterator[None]:
    """What a file's tests made in the shared lab is gone before the next file looks at the whole of it."""
    yield
    if SHARED in pytestconfig.stash:
        settle(kubectl_of(pytestconfig.stash[SHARED]))


@pytest.fixture(scope="session")
def kubectl(lab: LabClient) -> Kubectl:
    """The machine's kubectl, at the shared lab."""
    return kubectl_of(lab)


def kubectl_of(lab: LabClient) -> Kubectl:
    """The machine's kubectl, at a lab. It raises AssertionError with what it was told."""

    def run(*arguments: str, stdin: str = "") -> str:
        environment = {**os.environ, "KUBECONFIG": lab.kubeconfig}
        done = subprocess.run(
            ["kubectl", *arguments],
            input=stdin,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if done.returncode:
            raise AssertionError(f"kubectl {arguments}: {done.stdout}\n{done.stderr}")
        return done.stdout

    return run
