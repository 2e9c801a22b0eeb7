"""StatefulSets: revisions, then one step of creation, scaling or update."""

from towpath.lab.controllers.actions import Action, Plan
from towpath.lab.controllers.controller import Context, Controller
from towpath.lab.controllers.history import history, surplus, template_of
from towpath.lab.controllers.informers import namespaces
from towpath.lab.controllers.ownership import claim
from towpath.lab.controllers.podstate import next_availability
from towpath.lab.controllers.resources import CONTROLLER_REVISIONS, PODS, STATEFUL_SETS
from towpath.lab.controllers.statefulset_plan import REVISION_HASH, plan_status, step


class StatefulSetController(Controller):
    """See ``statefulset_plan`` for what it decides."""

    name = "statefulset-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._sets = self.informer(STATEFUL_SETS)
        self._pods = self.informer(PODS)
        self._revisions = self.informer(CONTROLLER_REVISIONS)
        self._pods_in = self._pods.index(namespaces)
        self._revisions_in = self._revisions.index(namespaces)
        self._sets.subscribe(self.enqueue)
        self._pods.subscribe(self.enqueue_owner(STATEFUL_SETS))
        self._revisions.subscribe(self.enqueue_owner(STATEFUL_SETS))

    async def reconcile(self, key: str) -> Plan:
        """Bring one StatefulSet forward by a step."""
        item = self._sets.get(key)
        if item is None:
            return Plan()
        meta, now = item.metadata, self.context.now()
        pods, adoptions = claim(
            STATEFUL_SETS, meta, item.spec.selector, PODS, self._pods_in.get(meta.namespace)
        )
        kept = self._revisions_in.get(meta.namespace)
        owned, adopted = claim(STATEFUL_SETS, meta, item.spec.selector, CONTROLLER_REVISIONS, kept)
        if adoptions or adopted:
            return Plan((*adoptions, *adopted))
        names = (r.metadata.name for r in kept)
        found = history(STATEFUL_SETS, meta, item.spec.template, item.status.collision_count, owned, names)
        update = f"{meta.name}-{found.hash}"
        current = item.status.current_revision or update
        old = next((r for r in owned if r.metadata.name == current), None)
        template = template_of(old) if old else item.spec.template
        actions: list[Action] = []
        if not meta.deleting:
            actions += found.actions
            actions += step(item, (current, template), (update, item.spec.template), pods, now)
            in_use = frozenset({*(p.metadata.label(REVISION_HASH) or "" for p in pods), current})
            actions += surplus(found, item.spec.revision_history_limit, in_use)
        actions += plan_status(item, current, update, pods, now)
        return Plan(tuple(actions), next_availability(pods, item.spec.min_ready_seconds, now))
