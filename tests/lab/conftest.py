"""One lab for all tests that only look or repair what they break; labs of their own for the others."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab_objects import towpath

from towpath.lab.client import LabClient

collect_ignore = ["test_lab_upgrade_towpath.py"]  # a minute: `make e2e` runs it


@pytest.fixture(scope="session")
def runtime_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Labs of the tests live beside those of the developer."""
    folder = tmp_path_factory.mktemp("run")
    folder.chmod(0o700)
    before = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = str(folder)
    yield folder
    if before is None:
        del os.environ["XDG_RUNTIME_DIR"]
    else:
        os.environ["XDG_RUNTIME_DIR"] = before


@pytest.fixture(scope="session")
def lab(runtime_dir: Path) -> Iterator[LabClient]:
    """Three dual-stack nodes."""
    towpath("up", "--name", "shared")
    client = LabClient("shared")
    yield client
    client.call("down")


@pytest.fixture(scope="session")
def kubectl(lab: LabClient) -> Callable[..., str]:
    """The machine's kubectl, at the shared lab."""

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
