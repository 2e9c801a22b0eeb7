"""ReplicaSets: adopt pods, then create or delete what differs from the wanted number."""

from towpath.lab.controllers.actions import Plan
from towpath.lab.controllers.controller import Context, Controller
from towpath.lab.controllers.informers import namespaces
from towpath.lab.controllers.objects_core import Pod
from towpath.lab.controllers.ownership import claim
from towpath.lab.controllers.replicaset_plan import plan_replicaset
from towpath.lab.controllers.resources import PODS, REPLICA_SETS
from towpath.lab.controllers.selectors import matches


class ReplicaSetController(Controller):
    """See ``replicaset_plan`` for what it decides."""

    name = "replicaset-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._sets = self.informer(REPLICA_SETS)
        self._pods = self.informer(PODS)
        self._sets_in = self._sets.index(namespaces)
        self._pods_in = self._pods.index(namespaces)
        self._sets.subscribe(self.enqueue)
        self._pods.subscribe(self.enqueue_owner(REPLICA_SETS))
        self._pods.subscribe(self._orphan)

    async def reconcile(self, key: str) -> Plan:
        """Bring one ReplicaSet to its number."""
        item = self._sets.get(key)
        if item is None:
            return Plan()
        pods = self._pods_in.get(item.metadata.namespace)
        mine, adoptions = claim(REPLICA_SETS, item.metadata, item.spec.selector, PODS, pods)
        if adoptions:
            return Plan(tuple(adoptions))
        return plan_replicaset(item, mine, self.context.now())

    def _orphan(self, _: Pod | None, after: Pod | None) -> None:
        """A pod that nobody controls may be one of ours by its labels."""
        if after is None or after.metadata.owner is not None or after.metadata.deleting:
            return
        for item in self._sets_in.get(after.metadata.namespace):
            if matches(item.spec.selector, after.metadata.labels):
                self.queue.add(item.metadata.key)
