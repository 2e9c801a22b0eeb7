"""Real Kubernetes for all tests of this folder: `make e2e` has the binaries ready before."""

import pytest

from towpath.lab.real.binaries import KubeBinaries, find_binaries

collect_ignore = ["chart", "image", "nodes"]  # with Helm, with the network, in a world: the Makefile


@pytest.fixture(scope="session")
def binaries() -> KubeBinaries:
    """The Kubernetes under test."""
    return find_binaries(lambda _: None)
