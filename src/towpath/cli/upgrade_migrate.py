"""``towpath upgrade plan --to towpath`` (or ``canal``): nodes go from one network to the other, conducted."""

from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from towpath.cli.beside import lab_of
from towpath.cli.cluster import ClusterOptions
from towpath.cli.exit import CliError
from towpath.cli.felix_settings import differences
from towpath.cli.nodes import NodeOptions
from towpath.cli.output import mark, progress, progress_done, table
from towpath.cli.policy_engines import compared
from towpath.cli.policy_settings import SETTINGS
from towpath.cli.upgrade_measure import Wanted, measures_told, planned
from towpath.install.migration import LABEL, TAKEN, identity, only_labelled, pod_spec, without_taken
from towpath.install.values import Values
from towpath.inventory.cluster import Inventory
from towpath.inventory.components import Component
from towpath.kube.client import Client
from towpath.kube.errors import NotFound
from towpath.kube.kinds import CONFIG_MAPS, DAEMONSETS, Kind, Raw
from towpath.preflight import engines
from towpath.preflight.engine_checks import told
from towpath.probe.cluster import image_for
from towpath.upgrade import plan as plans
from towpath.upgrade.moving import DIRECTION
from towpath.upgrade.plan import Gates, Measure, Migration, Plan
from towpath.upgrade.seen import Direction
from towpath.upgrade.survey import survey

MIGRATIONS: dict[str, Direction] = {"towpath": "takeover", "canal": "handback"}
_OURS, _CANALS = "towpath-agent", "hardened-calico"
_HOST_ENDPOINTS = "hostendpoints.crd.projectcalico.org"
_FELIX: Kind[Raw] = Kind(
    plural="felixconfigurations", type=dict, group="crd.projectcalico.org", namespaced=False
)


class _Gathered(NamedTuple):
    found: Inventory
    canal: Component
    towpath: Component
    pod: dict[str, Any]
    measure: tuple[Measure | None, str]


def migration(
    options: ClusterOptions,
    target: str,
    nodes: NodeOptions,
    wanted: Wanted,
    gates: Gates,
    skip: tuple[int, ...],
    now: datetime,
) -> Plan:
    """Unsigned. Raises CliError when the cluster is not prepared for it, or there is nothing to do."""

    async def work(client: Client) -> _Gathered:
        found = await survey(client, now, progress)
        canal, towpath = networks(found)
        raw = await client.get(DAEMONSETS, towpath.name, towpath.namespace)
        canals = await client.get(DAEMONSETS, canal.name, canal.namespace)
        _prepared(canals, raw)
        await _same_verdicts(client, canal, target, skip)
        if target == "towpath" and 29 not in skip:
            await _same_settings(client, found, canals, towpath.namespace)
        in_lab = lab_of(options.kubeconfig, options.context) is not None
        pod = await moving_pod(client, raw, nodes.image, gates, in_lab=in_lab)
        part = towpath if target == "towpath" else canal
        measure = await planned(client, options, nodes._replace(wanted=False), part, wanted)
        return _Gathered(found, canal, towpath, pod, measure)

    found, canal, towpath, pod, (measure, unmeasured) = options.run(work)
    progress_done()
    going = [one for one in found.nodes if (one.labels.get(LABEL) == TAKEN) == (target == "canal")]
    if not going:
        raise CliError(f"TP7404 every node is {'Towpath' if target == 'towpath' else 'Canal'}'s already")
    part = towpath if target == "towpath" else canal
    images = {name: plans.full_name(image) for name, image in sorted(part.wanted.items())}
    return Plan(
        created=found.taken,
        cluster=found.cluster,
        namespace=part.namespace,
        daemonset=part.name,
        source=canal.name if target == "towpath" else towpath.name,
        target=target,
        images={name: (image, image) for name, image in images.items()},
        strategy={"type": part.strategy},
        nodes=plans.order(going),
        gates=gates,
        measure=measure,
        unmeasured=unmeasured,
        migration=Migration(
            direction=MIGRATIONS[target],
            canal=canal.name,
            towpath=towpath.name,
            objects=identity(Values(namespace=part.namespace)),
            pod=pod,
        ),
    )


def networks(found: Inventory) -> tuple[Component, Component]:
    """Canal's DaemonSet and Towpath's. Raises CliError."""
    return _part(found, _CANALS, "Canal"), _part(found, _OURS, "Towpath")


def _part(found: Inventory, image: str, whose: str) -> Component:
    parts = [one for one in found.components if any(i.name == image for i in one.wanted.values())]
    if len(parts) != 1:
        names = ", ".join(part.object for part in parts) or "there is none"
        raise CliError(
            f"TP7409 {whose}'s DaemonSet must be there, once: {names} (docs/guides/migrate-from-canal.md)"
        )
    return parts[0]


async def _same_verdicts(client: Client, canal: Component, target: str, skip: tuple[int, ...]) -> None:
    """Check 29, of the two networks. Raises CliError."""
    if 29 in skip:
        return
    tag = next(image.tag for image in canal.wanted.values() if image.name == _CANALS)
    try:
        sides = [engines.calico(tag), engines.TOWPATH]
    except ValueError as odd:
        raise CliError(f"TP7342 which Calico runs cannot be told: {odd} (--skip 29 goes on)") from odd
    found = await compared(client, *(sides if target == "towpath" else reversed(sides)))
    for one in told(found) if found is not None else ():
        raise CliError(f"{one} (--skip 29 goes on)")


async def _same_settings(client: Client, found: Inventory, canal: Raw, namespace: str) -> None:
    """What Felix was told beside policies, Towpath is told too. Raises CliError."""
    try:
        configurations = (await client.list(_FELIX)).items
    except NotFound:
        return
    try:
        settings = await client.get(CONFIG_MAPS, SETTINGS.name, namespace)
    except NotFound:
        settings = None
    environment = {
        one["name"]: str(one.get("value") or "")
        for container in canal["spec"]["template"]["spec"]["containers"]
        for one in container.get("env") or ()
    }
    told = differences(configurations, environment, settings, found.objects.get(_HOST_ENDPOINTS, 0))
    if told:
        raise CliError(
            f"TP7342 {'; '.join(told)} (docs/guides/migrate-from-canal.md; --skip 29 goes on without)"
        )


def _prepared(canal: Raw, towpath: Raw) -> None:
    """Each keeps off the nodes that are the other's. Raises CliError."""
    for raw, wanted, how in (
        (canal, without_taken(), "patch it as the guide says"),
        (towpath, only_labelled(), "install Towpath with `migrating: true`"),
    ):
        terms = _terms(raw["spec"]["template"]["spec"].get("affinity") or {})
        (needed,) = _terms(wanted)
        if not terms or not all(
            all(one in term.get("matchExpressions", ()) for one in needed["matchExpressions"])
            for term in terms
        ):
            name = f"DaemonSet/{raw['metadata']['namespace']}/{raw['metadata']['name']}"
            raise CliError(
                f"TP7409 {name} does not go by the label {LABEL}: {how} (docs/guides/migrate-from-canal.md)"
            )


def _terms(affinity: dict[str, Any]) -> list[dict[str, Any]]:
    node = affinity.get("nodeAffinity") or {}
    required = node.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    return list(required.get("nodeSelectorTerms") or ())


async def moving_pod(
    client: Client, towpath: Raw, image: str, gates: Gates, *, in_lab: bool
) -> dict[str, Any]:
    """The pod of ``towpath node job``, with the agent's own configuration, as its DaemonSet has it."""
    spec = towpath["spec"]["template"]["spec"]
    agent = next(one["image"] for one in spec["containers"] if _OURS in one["image"])
    takeover = image or agent.replace(_OURS, "towpath-takeover")
    made = pod_spec(msgspec.structs.replace(Values(), takeover_image=takeover), DIRECTION)
    config = next((one for one in spec.get("volumes") or () if one["name"] == "config"), None)
    made["volumes"] = [config if one["name"] == "config" and config else one for one in made["volumes"]]
    (container,) = made["containers"]
    container["args"] = [*container["args"], f"--patience={max(30.0, gates.move_within - 60):.0f}"]
    if in_lab:  # its pods run this machine's programs
        container["image"], python = await image_for(client, "", in_lab=True)
        container["command"] = [*python, *container["command"][1:]]
    return made


def migration_screen(made: Plan) -> str:
    """The plan for a person."""
    rows = [[str(number), step.node, step.reason] for number, step in enumerate(made.nodes, 1)]
    gates, back = made.gates, "Canal's" if made.target == "towpath" else "Towpath's"
    whose = "Towpath's" if made.target == "towpath" else "Canal's"
    lines = [
        f"{made.source} → {made.target}: nodes become {whose}, with their pods running",
        "",
        table(["TURN", "NODE", "WHY THEN"], rows),
        "",
        f"gates: moved within {gates.move_within:.0f} s, ready, a new pod gets an address, "
        f"no trouble in the log, well for {gates.soak:.0f} s ({gates.canary_soak:.0f} s on the first)",
        *measures_told(made),
        f"a node that does not pass becomes {back} again, and the migration stands still",
    ]
    if made.window:
        lines.append(f"a node is begun only in the window {made.window}")
    if made.evict:
        lines.append(f"a node is {'drained' if made.evict == 'drain' else 'cordoned'} during its turn")
    if made.skipped:
        lines.append(mark(f"skipped checks: {', '.join(map(str, made.skipped))}", "warning"))
    return "\n".join(lines)
