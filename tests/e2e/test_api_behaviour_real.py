"""Upstream's API server behaves as ``towpath.kube`` expects, and as the lab's own does (tests/lab)."""

import asyncio
from collections.abc import Iterator

import pytest
from planes import add_addresses

from api_behaviour_access import Access
from api_behaviour_reads import Reads
from api_behaviour_writes import Writes
from api_cluster import Cluster
from towpath.kube.config import ClientConfig, from_files
from towpath.lab.real.binaries import KubeBinaries
from towpath.lab.real.controlplane import MASTERS, ControlPlane, Settings

pytestmark = pytest.mark.e2e

ADDRESS, ADDRESS6 = "192.0.2.1", "2001:db8::1"
TOKEN = "3b6d-admin"
_COMPACTION_SECONDS = 1.0


@pytest.fixture(scope="module")
def cluster(binaries: KubeBinaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One control plane for all tests, in the tests' own network namespace."""
    folder = tmp_path_factory.mktemp("plane")
    tokens = folder / "tokens.csv"
    tokens.write_text(f'{TOKEN},admin,admin,"{MASTERS}"\n')
    add_addresses(f"{ADDRESS}/32", f"{ADDRESS6}/128")
    settings = Settings(
        addresses=(ADDRESS, ADDRESS6),
        port=16443,
        tokens=tokens,
        more={"kube-apiserver": (f"--etcd-compaction-interval={_COMPACTION_SECONDS:.0f}s",)},
    )
    plane = ControlPlane(binaries, folder, settings)
    kubeconfig = folder / "admin"
    kubeconfig.write_text(plane.kubeconfig("admin", "kubernetes-admin", MASTERS, settings.local_url))
    certified = from_files([kubeconfig])
    ca = plane.pki.ca.read_bytes()
    admin = ClientConfig(server=settings.local_url, source="test", ca=ca, token=TOKEN)

    async def restart() -> None:
        plane.stop_api()  # in this thread: processes die with the one that started them
        plane.start_api()
        await asyncio.sleep(0.1)  # this loop stood still meanwhile: let it hear which connections are gone

    async def forget() -> None:
        """The server compacts away, at each interval, what was there at the one before."""
        await asyncio.sleep(3.5 * _COMPACTION_SECONDS)

    plane.start()
    yield Cluster(admin, restart, forget, certified)
    plane.stop()


class TestReads(Reads):
    """Lists and watches."""


class TestWrites(Writes):
    """Writes."""


class TestAccess(Access):
    """Access."""
