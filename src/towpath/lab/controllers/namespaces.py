"""Namespaces: what every one has, and the end of one."""

from typing import Any

import msgspec

from towpath.kube.client import Client
from towpath.kube.errors import NotFound
from towpath.lab.controllers.actions import Action, Create, Delete, Patch, Plan
from towpath.lab.controllers.conditions import as_body, make, replaced
from towpath.lab.controllers.controller import Context, Controller
from towpath.lab.controllers.garbage import Entry
from towpath.lab.controllers.inventory import Inventory
from towpath.lab.controllers.objects_core import ConfigMap, Namespace
from towpath.lab.controllers.objects_meta import Meta, Partial
from towpath.lab.controllers.podstate import condition
from towpath.lab.controllers.resources import CONFIG_MAPS, EVENTS, NAMESPACES, SERVICE_ACCOUNTS

ROOT_CA = "kube-root-ca.crt"
_ROOT_CA_NOTE = "Contains a CA bundle that can be used to verify the kube-apiserver."
_FINALIZER = "kubernetes"
_LOOK_AGAIN = 2.0  # seconds; what leaves the namespace says so itself, this is for what we do not follow


class NamespaceDefaultsController(Controller):
    """The ServiceAccount ``default`` and the ConfigMap with the cluster's certificate authority."""

    name = "serviceaccount-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._namespaces = self.informer(NAMESPACES)
        self._accounts = self.informer(SERVICE_ACCOUNTS)
        self._maps = self.informer(CONFIG_MAPS)
        self._namespaces.subscribe(self.enqueue)
        self._accounts.subscribe(self._account_changed)
        self._maps.subscribe(self._map_changed)

    async def reconcile(self, key: str) -> Plan:
        """Complete one namespace."""
        namespace = self._namespaces.get(key)
        if namespace is None or namespace.metadata.deleting:
            return Plan()
        actions: list[Action] = []
        if self._accounts.get(f"{key}/default") is None:
            actions.append(Create(SERVICE_ACCOUNTS, key, {"metadata": {"name": "default"}}))
        wanted = {"ca.crt": self.context.settings.root_ca}
        held = self._maps.get(f"{key}/{ROOT_CA}")
        if wanted["ca.crt"] and held is None:
            meta = {"name": ROOT_CA, "annotations": {"kubernetes.io/description": _ROOT_CA_NOTE}}
            actions.append(Create(CONFIG_MAPS, key, {"metadata": meta, "data": wanted}))
        elif wanted["ca.crt"] and held is not None and held.data != wanted:
            actions.append(Patch(CONFIG_MAPS, key, ROOT_CA, {"data": wanted}))
        return Plan(tuple(actions))

    def _account_changed(self, before: Partial | None, after: Partial | None) -> None:
        if before is not None and after is None and before.metadata.name == "default":
            self.queue.add(before.metadata.namespace)

    def _map_changed(self, before: ConfigMap | None, after: ConfigMap | None) -> None:
        if before is not None and before.metadata.name == ROOT_CA:
            self.queue.add(before.metadata.namespace)


class NamespaceController(Controller):
    """Empties a deleted namespace, then lets it go."""

    name = "namespace-controller"

    def __init__(self, context: Context, inventory: Inventory) -> None:
        super().__init__(context)
        self._inventory = inventory
        self._namespaces = self.informer(NAMESPACES)
        self._namespaces.subscribe(self._namespace_changed)
        inventory.on_gone.append(self._object_gone)

    async def reconcile(self, key: str) -> Plan:
        """One round for one namespace: delete what is left, say what stays, finalize when it is empty."""
        namespace = self._namespaces.get(key)
        if namespace is None or not namespace.metadata.deleting:
            return Plan()
        if _FINALIZER not in (namespace.spec.finalizers or ()):
            return Plan()
        if not self._inventory.catalogue.resources:
            return Plan(recheck=0.2)
        left = self._inventory.graph.of_namespace(key)
        if not left:
            left = await self._unfollowed(key)
        if not left:
            await self._delete_events(key)
            await self._finalize(key)
            return Plan()
        doomed: list[Action] = [
            Delete(e.resource, key, e.meta.name, e.meta.uid, propagation="Background")
            for e in sorted(left, key=_order)
            if not e.meta.deleting
        ]
        return Plan((*doomed, *remaining(namespace, left, self.context.now())), _LOOK_AGAIN)

    async def _unfollowed(self, key: str) -> list[Entry]:
        """Ask the server itself before letting go: our copies may be a moment behind."""
        found: list[Entry] = []
        for id, resource in self._inventory.catalogue.resources.items():
            if resource.api.namespaced and id not in ("events", "events.events.k8s.io"):
                listing = await self.context.client.list(resource.api, key)
                found += [Entry(resource, item.metadata) for item in listing.items]
        return found

    async def _delete_events(self, key: str) -> None:
        await self.context.client.request("DELETE", EVENTS.api.path(key), operation="delete collection")

    async def _finalize(self, key: str) -> None:
        """Take our finalizer off, whatever else the object says."""
        raw = NAMESPACES.api.raw()
        client: Client = self.context.client
        try:
            body: dict[str, Any] = await client.get(raw, key)
            spec = body.get("spec") or {}
            kept = [f for f in spec.get("finalizers") or () if f != _FINALIZER]
            body["spec"] = {**spec, "finalizers": kept}
            path = NAMESPACES.api.path("", key, "finalize")
            await client.request("PUT", path, body=msgspec.json.encode(body), operation="finalize")
        except NotFound:
            return

    def _namespace_changed(self, _: Namespace | None, after: Namespace | None) -> None:
        if after is not None and after.metadata.deleting:
            self.queue.add(after.metadata.name)

    def _object_gone(self, meta: Meta) -> None:
        namespace = self._namespaces.get(meta.namespace) if meta.namespace else None
        if namespace is not None and namespace.metadata.deleting:
            self.queue.add(meta.namespace)


def _order(entry: Entry) -> tuple[int, str]:
    """Owners first, so that nothing is made anew while it is being deleted."""
    order = {"Deployment": 0, "DaemonSet": 0, "StatefulSet": 0, "ReplicaSet": 1, "Service": 1}
    return order.get(entry.resource.kind, 2), entry.meta.name


def remaining(namespace: Namespace, left: list[Entry], now: float) -> list[Action]:
    """The condition that tells ``kubectl describe namespace`` why it is still there."""
    counts: dict[str, int] = {}
    for entry in left:
        if entry.meta.deleting:
            counts[entry.resource.id] = counts.get(entry.resource.id, 0) + 1
    if not counts:
        return []
    listed = ", ".join(f"{kind}. has {n} resource instances" for kind, n in sorted(counts.items()))
    message = f"Some resources are remaining: {listed}"
    before = condition(namespace.status.conditions, "NamespaceContentRemaining")
    if before is not None and before.message == message:
        return []
    new = make("NamespaceContentRemaining", "True", "SomeResourcesRemain", message, now, before)
    conditions = [as_body(c) for c in replaced(namespace.status.conditions, new, new.type)]
    for entry_ in conditions:
        entry_.pop("lastUpdateTime", None)
    body = {"metadata": {"uid": namespace.metadata.uid}, "status": {"conditions": conditions}}
    return [Patch(NAMESPACES, "", namespace.metadata.name, body, "status")]
