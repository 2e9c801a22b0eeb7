"""The objects of block mode on the API server: one write at a time, each on condition of what was read."""

import contextlib
from collections.abc import Mapping
from typing import Any

from towpath.ipam.block_mirror import Mirror
from towpath.ipam.block_plan import handle_of
from towpath.ipam.block_writes import Plural, Write
from towpath.kube.client import Client
from towpath.kube.errors import Conflict, KubeError, NotFound
from towpath.kube.kinds import (
    BLOCK_AFFINITIES,
    IPAM_BLOCKS,
    IPAM_HANDLES,
    NETWORK_AFFINITIES,
    NETWORK_BLOCKS,
    NETWORK_HANDLES,
    Kind,
    Raw,
)
from towpath.log import get_logger

log = get_logger("towpath.ipam")

Kinds = Mapping[Plural, tuple[Kind[Raw], str]]
"""Which kinds stand for Calico's, and what an object's ``kind`` is."""

CALICO: Kinds = {
    "blockaffinities": (BLOCK_AFFINITIES, "BlockAffinity"),
    "ipamblocks": (IPAM_BLOCKS, "IPAMBlock"),
    "ipamhandles": (IPAM_HANDLES, "IPAMHandle"),
}
NETWORKS: Kinds = {
    "blockaffinities": (NETWORK_AFFINITIES, "NetworkBlockAffinity"),
    "ipamblocks": (NETWORK_BLOCKS, "NetworkBlock"),
    "ipamhandles": (NETWORK_HANDLES, "NetworkBlockHandle"),
}


class BlockApi:
    """``mirror`` is what is known of them; ``writes`` and ``conflicts`` count what was sent and refused."""

    def __init__(self, client: Client, node: str, kinds: Kinds = CALICO) -> None:
        self._client, self._kinds = client, kinds
        self.mirror = Mirror(node)
        self.writes = self.conflicts = 0

    async def load(self) -> None:
        """Read everything, for those who follow no watch. Raises KubeError."""
        plurals: tuple[Plural, ...] = ("ipamblocks", "blockaffinities")
        for plural in plurals:
            for obj in (await self._client.list(self._kinds[plural][0])).items:
                self.mirror.take(plural, obj)
        await self.look("ipamhandles", handle_of(self.mirror.node))

    async def look(self, plural: Plural, name: str) -> None:
        """Read one object. Raises KubeError."""
        try:
            found = await self._client.get(self._kinds[plural][0], name)
        except NotFound:
            self.mirror.gone(plural, name)
        else:
            self.mirror.take(plural, found)

    async def carry_out(self, write: Write) -> bool:
        """Whether it was done. False: something else is there by now, and was read.

        Raises KubeError. Then it may have been done all the same; what is there was read, if it could be.
        """
        self.writes += 1
        try:
            done = await self._send(write)
        except (Conflict, NotFound) as error:
            self.conflicts += 1
            log.debug("block_conflict", write=write.describe(), error=str(error))
            await self.look(write.plural, write.name)
            return False
        except KubeError:
            with contextlib.suppress(KubeError):
                await self.look(write.plural, write.name)
            raise
        log.debug("block_written", write=write.describe())
        if done is None:
            self.mirror.gone(write.plural, write.name, write.version)
        else:
            self.mirror.take(write.plural, done)
        return True

    async def _send(self, write: Write) -> dict[str, Any] | None:
        kind, name = self._kinds[write.plural]
        obj = {**write.object, "apiVersion": f"{kind.group}/{kind.version}", "kind": name}
        match write.verb:
            case "create":
                return await self._client.create(kind, obj)
            case "update":
                return await self._client.update(kind, obj)
        await self._client.delete(kind, write.name, uid=write.uid, resource_version=write.version)
        return None
