"""The metadata of everything in the cluster, for those who must know it all: garbage and namespaces."""

from collections.abc import Callable
from functools import partial
from typing import Any

from towpath.lab.controllers.controller import Context
from towpath.lab.controllers.discovery import Catalogue, discover
from towpath.lab.controllers.garbage import Graph
from towpath.lab.controllers.objects_meta import Meta
from towpath.lab.controllers.ownership import HasMeta
from towpath.lab.controllers.resources import Resource

# Owned by nothing, and by far the most numerous: Events are left out, as upstream leaves them out.
IGNORED = frozenset({"events", "events.events.k8s.io"})


class Inventory:
    """Follows every kind the server serves; ``refresh`` after a CustomResourceDefinition changed.

    Nothing waits for the list of a kind: one that is taken away in the meantime never has one.
    ``on_change`` gets the uids whose fate may be another now, ``on_gone`` the metadata of what is gone.
    """

    def __init__(self, context: Context) -> None:
        self.graph = Graph()
        self.catalogue = Catalogue({})
        self.on_change: list[Callable[[set[str]], None]] = []
        self.on_gone: list[Callable[[Meta], None]] = []
        self._context = context
        self._followed: set[str] = set()

    @property
    def complete(self) -> bool:
        """Whether every kind followed was listed: what the graph lacks does not exist."""
        informers = map(self._context.informers.known, self._followed)
        return bool(self._followed) and all(one is not None and one.listed.is_set() for one in informers)

    async def refresh(self) -> None:
        """Follow kinds that are new, leave those that are no more. Raises ApiError."""
        informers = self._context.informers
        self.catalogue = await discover(self._context.client)
        wanted = {i: r for i, r in self.catalogue.resources.items() if i not in IGNORED}
        for id in self._followed - set(wanted):
            self._abandon(id)
        for id in set(wanted) - self._followed:
            informer = informers.of(wanted[id])
            informer.subscribe(partial(self._changed, informer.resource))
        self._followed = set(wanted)

    def _changed(self, resource: Resource[Any], before: HasMeta | None, after: HasMeta | None) -> None:
        touched: set[str] = set()
        if before is not None and (after is None or after.metadata.uid != before.metadata.uid):
            touched |= self.graph.drop(before.metadata)
            for listener in self.on_gone:
                listener(before.metadata)
        if after is not None:
            touched |= self.graph.put(resource, after.metadata)
        for notify in self.on_change:
            if touched:
                notify(touched)

    def _abandon(self, id: str) -> None:
        informer = self._context.informers.known(id)
        self._context.informers.drop(id)
        for item in informer.all() if informer else ():
            self._changed(informer.resource, item, None)  # type: ignore[union-attr]
