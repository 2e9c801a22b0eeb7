"""The plan of an upgrade: a file that can be read and reviewed, and that nobody can change unnoticed."""

import hashlib
from typing import Any, Literal

import msgspec

from towpath.inventory.cluster import Inventory, NodeState
from towpath.inventory.components import Component
from towpath.inventory.images import Image
from towpath.upgrade.audits import ImageAudit
from towpath.upgrade.seen import Direction

SCHEMA = 1


class PlanError(Exception):
    """No plan can be made, or this is none; the message says why and what to do."""


class Gates(msgspec.Struct, frozen=True):
    """What a node must show before the next is touched. Seconds.

    ``ready_within``: from the old pod's end to the new one's readiness. ``soak``: how long it is watched
    after that; ``canary_soak`` for the first. ``sandbox``: a new pod on the node must get an address, in
    ``sandbox_within``. ``move_within``: until a node must have gone to another network.
    ``drain_within``: until a node that is drained must be empty.
    """

    ready_within: float = 180.0
    soak: float = 5.0
    canary_soak: float = 60.0
    sandbox: bool = True
    drain_within: float = 300.0
    sandbox_within: float = 60.0
    move_within: float = 900.0


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """How nodes are looked at and probed during the roll; ``image`` has towpath in it.

    ``read``: each node after its turn, its rules for ``churn`` seconds. ``probes``: all the time, each
    node's turn against ``level`` (H0, H1, H2) with H2's ``budget_ms``; ``slower`` stretches their periods.
    """

    image: str
    python: tuple[str, ...]
    read: bool = True
    churn: float = 10.0
    probes: bool = True
    level: str = "H1"
    budget_ms: float = 1000.0
    slower: float = 5.0


class CheckSeen(msgspec.Struct, frozen=True):
    """A preflight check as it was answered when the plan was made; ``told``: its findings, in words."""

    number: int
    title: str
    state: str
    why: str = ""
    told: tuple[str, ...] = ()


class Rehearsal(msgspec.Struct, frozen=True, kw_only=True):
    """How the plan went in a twin. ``plan``: the hash of the plan it was made for.

    ``differs``: what of the archive was not the same in the twin after it was restored there. ``level``, of
    ``asked`` questions ``lost``: what probes saw there; empty and 0 when there were none.
    """

    plan: str
    taken: str
    source: str
    nodes: int
    pods: int
    mode: str
    seconds: float
    why: str = ""
    level: str = ""
    asked: int = 0
    lost: int = 0
    notes: tuple[str, ...] = ()
    differs: tuple[str, ...] = ()

    @property
    def probed(self) -> str:
        """In words; empty when there were no probes."""
        return f"{self.level}, {self.lost} of {self.asked} lost" if self.level else ""


class ChartPlan(msgspec.Struct, frozen=True):
    """The HelmChart that the DaemonSet is of: its versions before and after, empty where not known.

    ``frozen``: it was already when the plan was made, and stays so.
    """

    name: str
    before: str
    after: str
    frozen: bool = False


class Migration(msgspec.Struct, frozen=True, kw_only=True):
    """Nodes go to another network. ``objects``: who the pod is that moves a node, and its rights; ``pod`` its

    spec, which is completed by node and direction. ``canal``, ``towpath``: names of the two DaemonSets.
    """

    direction: Direction
    canal: str
    towpath: str
    objects: tuple[dict[str, Any], ...]
    pod: dict[str, Any]


class NodeStep(msgspec.Struct, frozen=True):
    """A node, and why it stands where it stands."""

    node: str
    reason: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """``images``: container to image before and after. ``strategy``: the DaemonSet's, put back at the end.

    ``cluster`` is the UID of kube-system. ``checks``: preflight's answers when it was made; ``skipped`` those
    left out. ``window``: as ``window.Window`` reads it, empty for always. ``evict``: what is done with the
    pods of a node before its turn. ``managers``: who else would undo what is done, and was told not to.
    ``measure``: what is looked at beside readiness; ``unmeasured``: why that is not all there is.
    ``migration``: nodes go to another network, and ``images`` are what they are to have.
    ``digests``: of images to come, as every node has pulled them. ``audits``: what is known of those images.
    ``hash`` is over everything else but ``rehearsal``, which names the hash it belongs to.
    """

    schema: int = SCHEMA
    created: str
    cluster: str
    namespace: str
    daemonset: str
    source: str
    target: str
    images: dict[str, tuple[str, str]]
    strategy: dict[str, Any]
    nodes: tuple[NodeStep, ...]
    gates: Gates = Gates()
    skipped: tuple[int, ...] = ()
    checks: tuple[CheckSeen, ...] = ()
    window: str = ""
    evict: Literal["", "cordon", "drain"] = ""
    chart: ChartPlan | None = None
    managers: tuple[str, ...] = ()
    rehearsal: Rehearsal | None = None
    measure: Measure | None = None
    unmeasured: str = ""
    migration: Migration | None = None
    digests: dict[str, str] = {}
    audits: tuple[ImageAudit, ...] = ()
    hash: str = ""

    @property
    def before(self) -> dict[str, str]:
        """Container to image, as it was."""
        return {name: old for name, (old, _) in self.images.items()}

    @property
    def after(self) -> dict[str, str]:
        """Container to image, as it is to be."""
        return {name: new for name, (_, new) in self.images.items()}


def make(
    inventory: Inventory,
    part: Component,
    strategy: dict[str, Any],
    target: str,
    tags: dict[str, str],
    gates: Gates,
    skipped: tuple[int, ...] = (),
) -> Plan:
    """Take one DaemonSet to ``tags`` (image name to tag). Raises PlanError when there is nothing to do."""
    images = {}
    for container, image in sorted(part.wanted.items()):
        images[container] = (full_name(image), new_image(image, tags))
    if all(old == new for old, new in images.values()):
        raise PlanError(f"{part.object} has the images of {target} already")
    on = {pod.node for pod in part.pods}
    unsigned = Plan(
        created=inventory.taken,
        cluster=inventory.cluster,
        namespace=part.namespace,
        daemonset=part.name,
        source=", ".join(sorted(inventory.node_releases)),
        target=target,
        images=images,
        strategy=strategy,
        nodes=order([node for node in inventory.nodes if node.facts.name in on]),
        gates=gates,
        skipped=skipped,
    )
    return sign(unsigned)


def order(nodes: list[NodeState]) -> tuple[NodeStep, ...]:
    """The one that can hurt least first: not a server, fewest pods. Servers last."""
    ranked = sorted(nodes, key=lambda node: (node.server, node.pods, node.facts.name))
    steps = []
    for place, node in enumerate(ranked):
        what = f"{'server' if node.server else 'agent'} with {node.pods} pods"
        why = f"canary: {what}, fewest" if place == 0 else what
        steps.append(NodeStep(node.facts.name, why))
    return tuple(steps)


def sign(plan: Plan) -> Plan:
    """With the hash of all else."""
    return msgspec.structs.replace(plan, hash=_hash(plan))


def dump(plan: Plan) -> bytes:
    """As a file, for people to read too."""
    return msgspec.json.format(msgspec.json.encode(plan), indent=2) + b"\n"


def load(text: bytes) -> Plan:
    """Raises PlanError for what is no plan, of another schema, or was changed after it was made."""
    try:
        plan = msgspec.json.decode(text, type=Plan)
    except msgspec.DecodeError as e:
        raise PlanError(f"it is no plan (towpath upgrade plan): {e}") from e
    if plan.schema != SCHEMA:
        raise PlanError(f"it is of schema {plan.schema}; this towpath conducts schema {SCHEMA}")
    if plan.hash != _hash(plan):
        raise PlanError("it was changed after it was made; make a new one")
    if plan.rehearsal is not None and plan.rehearsal.plan != plan.hash:
        raise PlanError("the rehearsal in it is of another plan; rehearse this one, or make a new one")
    return plan


def misfits(plan: Plan, inventory: Inventory) -> list[str]:
    """In what the cluster is no longer the one that the plan was made for."""
    found = []
    if inventory.cluster != plan.cluster:
        return ["it is another cluster"]
    parts = [c for c in inventory.components if (c.namespace, c.name) == (plan.namespace, plan.daemonset)]
    if not parts:
        return [f"there is no DaemonSet/{plan.namespace}/{plan.daemonset}"]
    has = {name: full_name(image) for name, image in parts[0].wanted.items()}
    for container, image in sorted(plan.before.items()):
        if has.get(container) != image:
            found.append(f"container {container} has {has.get(container) or 'no image'}, not {image}")
    found += [f"container {name} is new" for name in sorted(has.keys() - plan.before.keys())]
    planned, on = {step.node for step in plan.nodes}, {pod.node for pod in parts[0].pods}
    if plan.migration is not None:
        on = {node.facts.name for node in inventory.nodes}
    found += [f"node {name} has come" for name in sorted(on - planned)]
    found += [f"node {name} has gone" for name in sorted(planned - on)]
    return found


def new_image(image: Image, tags: dict[str, str]) -> str:
    """What takes an image's place: its tag of ``tags`` (by the image's name), else itself."""
    tag = tags.get(image.name, image.tag)
    return full_name(image if tag == image.tag else msgspec.structs.replace(image, tag=tag, digest=""))


def full_name(image: Image) -> str:
    """As a manifest has it."""
    digest = f"@{image.digest}" if image.digest else ""
    return f"{image.repository}{f':{image.tag}' if image.tag else ''}{digest}"


def _hash(plan: Plan) -> str:
    plain = msgspec.json.encode(msgspec.structs.replace(plan, hash="", rehearsal=None), order="deterministic")
    return f"sha256:{hashlib.sha256(plain).hexdigest()}"
