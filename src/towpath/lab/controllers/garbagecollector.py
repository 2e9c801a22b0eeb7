"""The garbage collector: objects whose owners are gone follow them."""

import asyncio

from towpath.kube.errors import ApiError, NotFound
from towpath.lab.controllers.actions import Plan
from towpath.lab.controllers.controller import Context, Controller
from towpath.lab.controllers.garbage import garbage
from towpath.lab.controllers.inventory import Inventory
from towpath.lab.controllers.objects_meta import OwnerReference, Partial
from towpath.lab.controllers.resources import CRDS

_CRD_SETTLES = 0.2  # seconds: a file of definitions arrives as one


class GarbageCollector(Controller):
    """See ``garbage`` for what it decides. Keys are uids."""

    name = "garbage-collector-controller"
    workers = 4

    def __init__(self, context: Context, inventory: Inventory) -> None:
        super().__init__(context)
        self._inventory = inventory
        self._stale = asyncio.Event()
        self._definitions = self.informer(CRDS)
        inventory.on_change.append(self._touched)

    async def run(self) -> None:
        """Learn what exists, then collect until cancelled."""
        await asyncio.sleep(self.context.settings.collect_after)
        self._definitions.subscribe(self._definition_changed)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_inventory(group))

    async def _keep_inventory(self, group: asyncio.TaskGroup) -> None:
        """Discover, and again whenever a CustomResourceDefinition changed; collect once all is known."""
        started = False
        while True:
            self._stale.clear()
            try:
                await self._inventory.refresh()
            except ApiError as error:
                self.log.warning("discovery failed", error=str(error))
                await asyncio.sleep(1.0)
                continue
            await asyncio.sleep(_CRD_SETTLES)
            if not started and self._inventory.complete:
                started = True
                group.create_task(super().run())
            if started:
                await self._stale.wait()

    async def reconcile(self, key: str) -> Plan:
        """Resolve the owners of one object, then judge it."""
        graph = self._inventory.graph
        entry = graph.get(key)
        if entry is None:
            return Plan()
        doubtful = 0
        for reference in graph.unresolved(key):
            if await self._is_gone(reference, entry.meta.namespace):
                graph.forget(reference.uid)
            else:
                doubtful += 1
        if doubtful and not entry.meta.deleting:
            return Plan(recheck=5.0)  # the owner's own event comes, or it is of a kind not served
        return Plan(tuple(garbage(graph, key)))

    async def _is_gone(self, reference: OwnerReference, namespace: str) -> bool:
        """Ask the server itself: the copies of two kinds need not be of the same moment."""
        resource = self._inventory.catalogue.find(reference.api_version, reference.kind)
        if resource is None:
            return False
        scope = namespace if resource.api.namespaced else ""
        try:
            found = await self.context.client.get(resource.api, reference.name, scope)
        except NotFound:
            return True
        return found.metadata.uid != reference.uid

    def _touched(self, uids: set[str]) -> None:
        for uid in uids:
            self.queue.add(uid)

    def _definition_changed(self, _: Partial | None, __: Partial | None) -> None:
        self._stale.set()
