"""Who is let in and how one is told otherwise. Subclasses provide the fixture ``cluster``."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from api_cluster import MAPS, SERVICE_ACCOUNTS, Cluster, Space, eventually, space
from towpath.kube.errors import Forbidden, Unauthorized, Unreachable


class Access:
    """TLS, tokens, token files that change."""

    @pytest.fixture
    async def here(self, cluster: Cluster) -> AsyncIterator[Space]:
        """A namespace and a client of it."""
        async with space(cluster) as one:
            yield one

    async def test_the_servers_certificate_is_checked(self, cluster: Cluster) -> None:
        for wrong in ({"ca": b""}, {"server_name": "elsewhere.example.org"}):
            async with cluster.client(**wrong) as client:
                with pytest.raises(Unreachable, match=r"(?i)certificate"):
                    await client.list(MAPS, "default")
        async with cluster.client(server_name="kubernetes.default.svc") as client:
            await client.list(MAPS, "default")

    async def test_an_unknown_token(self, cluster: Cluster) -> None:
        async with cluster.client(token="unknown") as client:
            with pytest.raises(Unauthorized):
                await client.list(MAPS, "default")

    async def test_a_token_file_is_read_again_when_it_is_replaced(
        self, cluster: Cluster, tmp_path: Path
    ) -> None:
        file = tmp_path / "token"
        file.write_text("expired\n")
        async with cluster.client(token="", token_file=str(file)) as client:
            with pytest.raises(Unauthorized):
                await client.list(MAPS, "default")
            fresh = tmp_path / "..data"
            fresh.write_text(cluster.admin.token + "\n")
            fresh.replace(file)
            await client.list(MAPS, "default")

    async def test_a_service_accounts_token(self, here: Space, tmp_path: Path) -> None:
        """As projected into pods: asked for at the token subresource, bound to an audience and a time."""
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "metadata": {"name": "default", "namespace": here.namespace},
            "spec": {"expirationSeconds": 600, "audiences": []},
        }
        made = await here.client.create(SERVICE_ACCOUNTS, request, here.namespace, subresource="token")
        assert made["status"]["expirationTimestamp"].endswith("Z")
        file = tmp_path / "token"
        file.write_text(made["status"]["token"])
        async with here.cluster.client(token="", token_file=str(file)) as client:
            try:  # let in; what it may do is another matter, and RBAC's
                await client.list(MAPS, here.namespace)
            except Forbidden as refused:
                assert f"system:serviceaccount:{here.namespace}:default" in str(refused)

    async def test_a_client_certificate(self, cluster: Cluster) -> None:
        if cluster.certified is None:
            pytest.skip("this server takes tokens only")
        async with space(Cluster(cluster.certified, cluster.restart, cluster.forget)) as here:
            await here.client.create(MAPS, here.map("m"))

    async def test_connections_survive_a_restart(self, here: Space) -> None:
        await here.client.list(MAPS, here.namespace)
        await here.cluster.restart()
        await eventually(lambda: here.client.list(MAPS, here.namespace), Unreachable)
