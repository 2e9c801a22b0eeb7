"""Deployments: adopt ReplicaSets, then one step of the rollout."""

from towpath.lab.controllers.actions import Plan
from towpath.lab.controllers.controller import Context, Controller
from towpath.lab.controllers.deployment_plan import plan_deployment
from towpath.lab.controllers.informers import namespaces, owner_uids
from towpath.lab.controllers.objects_core import Pod
from towpath.lab.controllers.ownership import claim
from towpath.lab.controllers.podstate import FINISHED
from towpath.lab.controllers.resources import DEPLOYMENTS, PODS, REPLICA_SETS


class DeploymentController(Controller):
    """See ``deployment_plan`` for what it decides."""

    name = "deployment-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._deployments = self.informer(DEPLOYMENTS)
        self._sets = self.informer(REPLICA_SETS)
        self._pods = self.informer(PODS)
        self._sets_in = self._sets.index(namespaces)
        self._pods_of = self._pods.index(owner_uids)
        self._deployments.subscribe(self.enqueue)
        self._sets.subscribe(self.enqueue_owner(DEPLOYMENTS))
        self._pods.subscribe(self._pod_changed)

    async def reconcile(self, key: str) -> Plan:
        """One step for one Deployment."""
        deployment = self._deployments.get(key)
        if deployment is None:
            return Plan()
        everything = self._sets_in.get(deployment.metadata.namespace)
        selector = deployment.spec.selector
        mine, adoptions = claim(DEPLOYMENTS, deployment.metadata, selector, REPLICA_SETS, everything)
        if adoptions:
            return Plan(tuple(adoptions))
        busy = frozenset(
            s.metadata.uid
            for s in mine
            if any(p.status.phase not in FINISHED for p in self._pods_of.get(s.metadata.uid))
        )
        names = frozenset(s.metadata.name for s in everything)
        return plan_deployment(deployment, mine, busy, names, self.context.now())

    def _pod_changed(self, before: Pod | None, after: Pod | None) -> None:
        """Recreate waits for the last old pod to end; nothing else here depends on pods."""
        ended = after is None or after.status.phase in FINISHED
        owner = before.metadata.owner if before and ended else None
        if not before or not owner or owner.kind != REPLICA_SETS.kind:
            return
        owning = self._sets.get(f"{before.metadata.namespace}/{owner.name}")
        above = owning.metadata.owner if owning else None
        deployment = self._deployments.get(f"{before.metadata.namespace}/{above.name}") if above else None
        if deployment and deployment.spec.strategy.type == "Recreate":
            self.queue.add(deployment.metadata.key)
