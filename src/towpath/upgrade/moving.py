"""The pod that moves a node from one network to another, and the label that says whose the node is."""

import contextlib

from towpath.install.migration import LABEL
from towpath.inventory.components import component_pod
from towpath.kube.client import Client
from towpath.kube.errors import AlreadyExists, ApiRefused, NotFound
from towpath.kube.kinds import NODES, PODS, Kind, Raw
from towpath.upgrade.plan import Migration, Plan
from towpath.upgrade.seen import Direction, SeenMove

MOVES = "towpath.dev/moves"  # on the pod: takeover or handback
DIRECTION = "DIRECTION"  # stands in the command of a plan, for takeover or handback
_LAST_LINES = 5
_PLURALS = {
    "ServiceAccount": "serviceaccounts",
    "ClusterRole": "clusterroles",
    "ClusterRoleBinding": "clusterrolebindings",
}


async def label_node(client: Client, node: str, value: str) -> None:
    """Empty: none; a node that is gone has none either. Raises ApiError."""
    with contextlib.suppress(NotFound):
        await client.patch(NODES.raw(), node, {"metadata": {"labels": {LABEL: value or None}}})


async def start_move(
    client: Client, migration: Migration, namespace: str, node: str, direction: Direction
) -> None:
    """Whoever is there already does it. Raises ApiError."""
    for made in migration.objects:
        namespaced = "namespace" in made["metadata"]
        group, _, version = str(made["apiVersion"]).rpartition("/")
        kind: Kind[Raw] = Kind(
            plural=_PLURALS[made["kind"]], type=dict, group=group, version=version, namespaced=namespaced
        )
        with contextlib.suppress(AlreadyExists):
            await client.create(kind, made, made["metadata"].get("namespace", ""))
    with contextlib.suppress(AlreadyExists):
        await client.create(PODS.raw(), move_pod(migration, namespace, node, direction), namespace)


def move_pod(migration: Migration, namespace: str, node: str, direction: Direction) -> Raw:
    """It is tried once: what stops it is judged by the conductor, which goes on or goes back."""
    (container,) = migration.pod["containers"]
    command = [direction if word == DIRECTION else word for word in container["command"]]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"towpath-{direction}-{node}"[:253],
            "namespace": namespace,
            "labels": {"app.kubernetes.io/name": "towpath-move"},
            "annotations": {MOVES: direction},
        },
        "spec": {
            **migration.pod,
            "nodeName": node,
            "restartPolicy": "Never",
            "containers": [{**container, "name": "move", "command": command}],
        },
    }


async def end_move(client: Client, plan: Plan, name: str) -> None:
    """Raises ApiError."""
    with contextlib.suppress(NotFound):
        await client.delete(PODS, name, plan.namespace, grace_seconds=0)


async def moves_of(client: Client, plan: Plan, pods: list[Raw]) -> dict[str, SeenMove]:
    """By node, of the pods of the plan's namespace. Raises ApiError."""
    found = {}
    for raw in pods:
        direction = (raw["metadata"].get("annotations") or {}).get(MOVES)
        if direction in ("takeover", "handback"):
            phase, why = str((raw.get("status") or {}).get("phase", "Pending")), ""
            if phase == "Pending":
                waits = component_pod(raw).containers
                why = "; ".join(one.why for one in waits if one.why)
            if phase == "Failed":
                why = await _last_words(client, plan, raw["metadata"]["name"])
            found[raw["spec"]["nodeName"]] = SeenMove(raw["metadata"]["name"], direction, phase, why)
    return found


async def _last_words(client: Client, plan: Plan, name: str) -> str:
    path = PODS.path(plan.namespace, name, "log")
    query = {"container": "move", "tailLines": str(_LAST_LINES)}
    try:
        text = await client.request("GET", path, query=query, operation="read the log of")
    except ApiRefused as refused:
        return str(refused)
    return " ".join(text.decode(errors="replace").split()) or "it said nothing"
