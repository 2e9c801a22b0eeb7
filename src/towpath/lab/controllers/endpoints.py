"""EndpointSlices and Endpoints, kept for every Service that selects pods."""

from towpath.lab.controllers.actions import Action, Delete, Plan
from towpath.lab.controllers.controller import Context, Controller
from towpath.lab.controllers.endpoints_plan import (
    LEGACY_MANAGED_BY,
    MANAGED_BY,
    MANAGER,
    candidates,
    plan_endpoints,
    plan_slices,
    service_key,
)
from towpath.lab.controllers.informers import namespaces
from towpath.lab.controllers.objects_core import EndpointSlice, Pod, Service
from towpath.lab.controllers.podstate import is_ready
from towpath.lab.controllers.resources import ENDPOINT_SLICES, ENDPOINTS, PODS, SERVICES
from towpath.lab.controllers.selectors import equal

_SPACING = 0.2  # seconds between two writes for one Service: a hundred pods getting ready are a few writes


class EndpointsController(Controller):
    """See ``endpoints_plan`` for what it decides."""

    name = "endpoint-slice-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._services = self.informer(SERVICES)
        self._pods = self.informer(PODS)
        self._slices = self.informer(ENDPOINT_SLICES)
        self._endpoints = self.informer(ENDPOINTS)
        self._services_in = self._services.index(namespaces)
        self._pods_in = self._pods.index(namespaces)
        self._slices_of = self._slices.index(service_key)
        self._written: dict[str, float] = {}
        self._services.subscribe(self.enqueue)
        self._pods.subscribe(self._pod_changed)
        self._slices.subscribe(self._slice_changed)
        self._endpoints.subscribe(lambda before, after: self.enqueue(before, after) if before else None)

    async def reconcile(self, key: str) -> Plan:
        """Make the slices of one Service current."""
        service = self._services.get(key)
        slices = [s for s in self._slices_of.get(key) if s.metadata.label(MANAGED_BY) == MANAGER]
        if service is None:
            self._written.pop(key, None)
            return Plan(tuple(self._leftovers(key, slices)))
        if not service.spec.selector or service.spec.type == "ExternalName":
            return Plan()
        wait = self._written.get(key, 0.0) + _SPACING - self.context.now()
        if 0 < wait <= _SPACING:
            return Plan(recheck=wait)
        selector = service.spec.selector
        pods = [
            p
            for p in self._pods_in.get(service.metadata.namespace)
            if equal(selector, p.metadata.labels or {})
        ]
        backing = candidates(service, pods)
        actions: list[Action] = plan_slices(service, backing, slices)
        actions += plan_endpoints(service, backing, self._endpoints.get(key))
        if actions:
            self._written[key] = self.context.now()
        return Plan(tuple(actions))

    def _leftovers(self, key: str, slices: list[EndpointSlice]) -> list[Action]:
        """What a Service leaves behind: only what was made here, as anyone may write Endpoints of his own."""
        doomed: list[Action] = [
            Delete(ENDPOINT_SLICES, s.metadata.namespace, s.metadata.name, s.metadata.uid) for s in slices
        ]
        legacy = self._endpoints.get(key)
        label, manager = LEGACY_MANAGED_BY
        if legacy is not None and legacy.metadata.label(label) == manager:
            meta = legacy.metadata
            doomed.append(Delete(ENDPOINTS, meta.namespace, meta.name, meta.uid))
        return doomed

    def _pod_changed(self, before: Pod | None, after: Pod | None) -> None:
        pod = after or before
        if pod is None or (before and after and _relevant(before) == _relevant(after)):
            return
        for service in self._services_in.get(pod.metadata.namespace):
            if any(p and _selects(service, p) for p in (before, after)):
                self.queue.add(service.metadata.key)

    def _slice_changed(self, before: EndpointSlice | None, after: EndpointSlice | None) -> None:
        for item in (before, after):
            for key in service_key(item) if item else ():
                self.queue.add(key)


def _selects(service: Service, pod: Pod) -> bool:
    selector = service.spec.selector
    return bool(selector) and equal(selector, pod.metadata.labels or {})


def _relevant(pod: Pod) -> object:
    meta, status = pod.metadata, pod.status
    return (
        meta.labels,
        meta.deleting,
        pod.spec.node_name,
        status.pod_ips,
        status.pod_ip,
        status.phase,
        is_ready(pod),
    )
