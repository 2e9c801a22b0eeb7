"""Nodes that are no more: found by their blocks, watched for a grace period, cleared away by one of us."""

from collections.abc import Callable, Collection, Iterable, Mapping

from towpath.agent.block_api import CALICO, BlockApi, Kinds
from towpath.ipam.affinity import Config, Handle, read_handle
from towpath.ipam.block_mirror import Mirror
from towpath.ipam.block_retire import handles_on, retire
from towpath.ipam.block_writes import Plural
from towpath.ipam.errors import BadBlock
from towpath.kube.client import Client
from towpath.kube.errors import NotFound
from towpath.kube.kinds import Raw
from towpath.log import get_logger

log = get_logger("towpath.ipam")

GRACE = 300.0
_APART = 20.0
_MOST = 10_000


class Lost:
    """``clock`` in seconds. Each node waits longer than those before it by name, so that one does it."""

    def __init__(self, clock: Callable[[], float], grace: float = GRACE) -> None:
        self._clock, self._grace = clock, grace
        self._since: dict[str, float] = {}

    def due(self, me: str, mirror: Mirror, nodes: Collection[str], inhabited: Collection[str]) -> list[str]:
        """The nodes that have had blocks or addresses and no Node object for long, and by the API no pod."""
        named = {owner.about.get("node", "") for b in mirror.blocks.values() for owner in b.owners}
        named |= {block.node for block in mirror.blocks.values()}
        missing = named - {""} - set(nodes) - set(inhabited)
        now = self._clock()
        self._since = {name: self._since.get(name, now) for name in missing}
        wait = self._grace + _APART * sum(1 for name in nodes if name < me)
        return sorted(name for name, since in self._since.items() if now - since >= wait)


async def clear_away(
    client: Client,
    node: str,
    objects: Mapping[Plural, Iterable[Raw]],
    config: Config,
    kinds: Kinds = CALICO,
) -> int:
    """Free all that a lost node has; how many writes it took. Raises KubeError."""
    api = BlockApi(client, node, kinds)
    for plural, found in objects.items():
        for obj in found:
            api.mirror.take(plural, obj)
    names = handles_on(node, api.mirror.blocks)
    for turn in range(_MOST):
        world = api.mirror.world(config, lambda _: False)
        handles = await _handles(client, names, kinds) if not handles_on(node, api.mirror.blocks) else {}
        if (own := handles.pop(world.owner.handle, None)) is not None:
            api.mirror.handle = own
            world = api.mirror.world(config, lambda _: False)
        write = retire(world, handles)
        if write is None:
            return turn
        log.info("lost_node_cleared", node=node, write=write.describe())
        await api.carry_out(write)
    return _MOST


async def _handles(client: Client, names: Iterable[str], kinds: Kinds) -> dict[str, Handle]:
    found = {}
    for name in names:
        try:
            obj = await client.get(kinds["ipamhandles"][0], name.lower())
            found[name] = read_handle(obj)
        except (NotFound, BadBlock):
            continue
    return found
