"""``towpath upgrade plan``."""

from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import click
import msgspec

from towpath.catalogue.compare import compare
from towpath.catalogue.model import Catalogue, CatalogueError, Release
from towpath.cli.cluster import ClusterOptions, cluster_options
from towpath.cli.exit import USAGE, CliError
from towpath.cli.nodes import NodeOptions, node_options, read
from towpath.cli.output import mark, progress, progress_done, table
from towpath.cli.policy_engines import between
from towpath.cli.preflight import running
from towpath.cli.releases import catalogue_of, catalogue_option
from towpath.cli.upgrade_audits import audit_option, audits_told
from towpath.cli.upgrade_measure import Wanted, measure_options, measures_told, planned
from towpath.cli.upgrade_migrate import MIGRATIONS, migration, migration_screen
from towpath.cli.verify_rollout import expected_images
from towpath.inventory.cluster import Inventory
from towpath.inventory.components import Component
from towpath.inventory.images import Image
from towpath.kube.client import Client
from towpath.kube.kinds import DAEMONSETS, Raw
from towpath.model.finding import Finding
from towpath.preflight.checks import PREFLIGHT
from towpath.preflight.engines import Verdicts
from towpath.preflight.situation import Answer, Situation, run
from towpath.upgrade import managers, pulling
from towpath.upgrade import plan as plans
from towpath.upgrade.audits import ImageAudit
from towpath.upgrade.charts import HELM_CHARTS
from towpath.upgrade.plan import ChartPlan, CheckSeen, Gates, Measure, Plan, PlanError
from towpath.upgrade.survey import SYSTEM, survey
from towpath.upgrade.window import Window, WindowError


def read_plan(file: Path) -> Plan:
    """From a file; errors become one sentence."""
    try:
        return plans.load(file.read_bytes())
    except OSError as e:
        raise CliError(f"{file} cannot be read: {e.strerror}", USAGE) from e
    except PlanError as e:
        raise CliError(f"TP7404 {file}: {e}", USAGE) from e


async def misfit_text(client: Client, made: Plan) -> str:
    """In what the cluster is no longer the plan's; empty if it is. Raises ApiError."""
    return "; ".join(plans.misfits(made, await survey(client, datetime.now(UTC), progress, _name(made))))


def _name(made: Plan) -> str:
    return f"{made.namespace}/{made.daemonset}"


class _Asked(NamedTuple):
    """What was typed. ``tags``: image name to tag; ``pull_within`` None: images are not pulled."""

    target: str
    tags: dict[str, str]
    daemonset: str
    skip: tuple[int, ...]
    pull_within: float | None
    managed_elsewhere: bool
    catalogue: Path | None
    nodes: NodeOptions
    measures: Wanted


class _Gathered(NamedTuple):
    """What a plan is made from."""

    found: Inventory
    part: Component
    raw: Raw
    tags: dict[str, str]
    owners: tuple[Finding, ...]
    measure: tuple[Measure | None, str]
    digests: dict[str, str]
    verdicts: Verdicts | None


@click.command()
@click.option(
    "--to",
    "target",
    required=True,
    metavar="RELEASE",
    help="An RKE2 release, a version of Towpath, or `towpath` or `canal`: nodes go to the other network.",
)
@click.option(
    "--daemonset",
    default="",
    metavar="NAME",
    help="Which one, where several would change; NAMESPACE/NAME of any other network's.",
)
@click.option(
    "--tag",
    "tags",
    multiple=True,
    metavar="IMAGE=TAG",
    help="The new tag of an image, where --to is no release that is known: any DaemonSet's.",
)
@click.option(
    "-f", "--file", "file", required=True, type=click.Path(path_type=Path), help="Where the plan goes."
)
@click.option(
    "--skip", type=int, multiple=True, metavar="N", help="Leave out preflight check N; it is recorded."
)
@click.option("--soak", default=5.0, show_default=True, help="Seconds a node is watched after its turn.")
@click.option("--canary-soak", default=60.0, show_default=True, help="The same for the first node.")
@click.option(
    "--ready-within", default=180.0, show_default=True, help="Seconds until a new pod must be ready."
)
@click.option(
    "--sandbox-within", default=60.0, show_default=True, help="Seconds until a new pod has an address."
)
@click.option(
    "--pull/--no-pull",
    default=True,
    help="Have every node pull the images now; what runs later is compared with them by digest.",
)
@click.option("--pull-within", default=300.0, show_default=True, help="Seconds until every node has them.")
@click.option("--window", default="", metavar="TEXT", help="Begin nodes only then: 'Sat 22:00-04:00 UTC'.")
@click.option(
    "--cordon", "evict", flag_value="cordon", help="Keep new pods away from a node during its turn."
)
@click.option("--drain", "evict", flag_value="drain", help="Move a node's pods away before its turn.")
@click.option("--drain-within", default=300.0, show_default=True, help="Seconds until a node must be empty.")
@click.option("--managed-elsewhere", is_flag=True, help="Argo CD or Flux owns it, and its syncing is paused.")
@audit_option
@catalogue_option
@node_options(default=None)
@measure_options
@cluster_options
def plan(
    target: str,
    daemonset: str,
    tags: tuple[str, ...],
    file: Path,
    skip: tuple[int, ...],
    soak: float,
    canary_soak: float,
    ready_within: float,
    sandbox_within: float,
    pull: bool,
    pull_within: float,
    window: str,
    evict: str | None,
    drain_within: float,
    managed_elsewhere: bool,
    audit: tuple[ImageAudit, ...],
    catalogue: Path | None,
    nodes: NodeOptions,
    measures: Wanted,
    kubeconfig: str,
    context: str,
) -> None:
    """Write down what an upgrade will do: images, nodes in order with the reason, gates.

    The preflight checks are made first; one that finds an error refuses the plan unless it is skipped.
    """
    now, options = datetime.now(UTC), ClusterOptions(kubeconfig, context)
    _window(window)
    gates = Gates(ready_within, soak, canary_soak, drain_within=drain_within, sandbox_within=sandbox_within)
    if target in MIGRATIONS:
        made = migration(options, target, nodes, measures, gates, skip, now)
        shown, after = migration_screen, f"towpath upgrade apply {file}"
    else:
        asked = _Asked(
            target,
            _tags(target, tags),
            daemonset,
            skip,
            pull_within if pull else None,
            managed_elsewhere,
            catalogue,
            nodes,
            measures,
        )
        made = _upgrade(options, asked, gates, now)
        shown, after = screen, f"towpath upgrade rehearse {file}; towpath upgrade apply {file}"
    around = {"window": window, "evict": evict or "", "audits": audit}
    made = msgspec.structs.replace(made, skipped=tuple(sorted(skip)), **around)
    made = plans.sign(made)
    _write(file, made)
    click.echo("\n".join([shown(made), *audits_told(made), "", after]))


def _upgrade(options: ClusterOptions, asked: _Asked, gates: Gates, now: datetime) -> Plan:
    """Unsigned, without what is done around the nodes' turns. Raises CliError."""
    seen = options.run(lambda client: _gather(client, options, asked, now))
    progress_done()
    if seen.owners and not asked.managed_elsewhere:
        raise CliError("\n".join(map(str, seen.owners)))
    checks = _refuse(seen.found, asked.target, asked.skip, asked.catalogue, now, seen.verdicts)
    strategy = seen.raw["spec"].get("updateStrategy") or {"type": "RollingUpdate"}
    try:
        made = plans.make(seen.found, seen.part, strategy, asked.target, seen.tags, gates)
    except PlanError as e:
        raise CliError(f"TP7404 {e}") from e
    measure, unmeasured = seen.measure
    return msgspec.structs.replace(
        made,
        checks=checks,
        chart=_chart(seen.found, seen.raw, catalogue_of(asked.catalogue), asked.target),
        managers=tuple(f"{one.object} {one.message}" for one in seen.owners),
        measure=measure,
        unmeasured=unmeasured,
        digests=seen.digests,
    )


async def _gather(client: Client, options: ClusterOptions, asked: _Asked, now: datetime) -> _Gathered:
    tags = asked.tags
    found = await survey(client, now, progress, asked.daemonset)
    part = _chosen(found, tags, asked.daemonset)
    verdicts = None
    if (to := target_release(asked.target, asked.catalogue)) is not None:
        verdicts = await between(client, found, to)
        found = await read(client, found, options, asked.nodes)
    raw = await client.get(DAEMONSETS, part.name, part.namespace)
    digests: dict[str, str] = {}
    if asked.pull_within is not None:
        digests = await _pulled(client, raw, part, tags, asked.pull_within)
        found = _with_images(found, digests)
    measure = await planned(client, options, asked.nodes, part, asked.measures)
    owners = await _owners(client, raw, found)
    return _Gathered(found, part, raw, tags, owners, measure, digests, verdicts)


async def _pulled(
    client: Client, raw: Raw, part: Component, tags: dict[str, str], within: float
) -> dict[str, str]:
    """Image to digest, the same on every node. Raises CliError."""
    after = [plans.new_image(image, tags) for image in part.wanted.values()]
    images = sorted(set(after) - {plans.full_name(image) for image in part.wanted.values()})
    nodes = [pod.node for pod in part.pods]
    if not images or not nodes:
        return {}
    secrets = raw["spec"]["template"]["spec"].get("imagePullSecrets") or ()
    answers = await pulling.pull(client, part.namespace, nodes, images, secrets, within, progress)
    try:
        return pulling.agreed(answers)
    except pulling.NotPulled as e:
        raise CliError(f"TP7410 {e} (--no-pull does without)") from e


def _with_images(found: Inventory, digests: dict[str, str]) -> Inventory:
    """Nodes tell of new images a while later only, and of fifty at most."""
    there = frozenset(Image.parse(image) for image in digests)
    nodes = tuple(
        msgspec.structs.replace(
            node, facts=msgspec.structs.replace(node.facts, cached=node.facts.cached | there)
        )
        for node in found.nodes
    )
    return msgspec.structs.replace(found, nodes=nodes)


def _write(file: Path, made: Plan) -> None:
    try:
        file.write_bytes(plans.dump(made))
    except OSError as e:
        raise CliError(f"{file} cannot be written: {e.strerror}") from e


def _chosen(found: Inventory, tags: dict[str, str], name: str) -> Component:
    """The DaemonSet that would change."""
    can = [part for part in found.components if any(image.name in tags for image in part.wanted.values())]
    named = [part for part in can if name in ("", part.name, f"{part.namespace}/{part.name}")]
    if len(named) == 1:
        return named[0]
    some = ", ".join(part.name for part in can) or "none"
    if not named:
        raise CliError(
            f"no DaemonSet{f' {name}' if name else ''} here has images of that release (there are: {some})"
        )
    raise CliError(f"several DaemonSets would change: {some}; choose one with --daemonset", USAGE)


def _tags(target: str, given: tuple[str, ...]) -> dict[str, str]:
    """Image name to tag: of the release, and what was given. Raises CliError."""
    pairs = [text.partition("=") for text in given]
    if odd := [text for text, (name, _, tag) in zip(given, pairs, strict=True) if not name or not tag]:
        raise CliError(f"--tag {odd[0]}: IMAGE=TAG is wanted, such as flannel=v0.26.7", USAGE)
    if not given:
        return expected_images(target)
    known = target_release(target, None)
    return {**(known.images if known else {}), **{name: tag for name, _, tag in pairs}}


def _window(text: str) -> None:
    try:
        if text:
            Window.parse(text)
    except WindowError as e:
        raise CliError(f"TP7407 --window: {e}", USAGE) from e


async def _owners(client: Client, raw: Raw, found: Inventory) -> tuple[Finding, ...]:
    """Findings about whoever else keeps the DaemonSet or its chart as they are."""
    objects = [("DaemonSet", raw)]
    name = _release(raw)
    if any(chart.name == name for chart in found.charts):
        objects.append(("HelmChart", await client.get(HELM_CHARTS, name, SYSTEM)))
    return tuple(
        managers.finding(f"{kind}/{one['metadata']['namespace']}/{one['metadata']['name']}", who)
        for kind, one in objects
        if (who := managers.manager_of(one))
    )


def _release(raw: Raw) -> str:
    """Helm's name for what the DaemonSet is part of; a HelmChart has the same."""
    annotations = raw["metadata"].get("annotations") or {}
    return str(annotations.get("meta.helm.sh/release-name") or raw["metadata"]["name"])


def _chart(found: Inventory, raw: Raw, known: Catalogue, target: str) -> ChartPlan | None:
    name = _release(raw)
    chart = next((one for one in found.charts if one.name == name), None)
    if chart is None:
        return None
    try:
        after = known.release(target).charts.get(name, "")
    except CatalogueError:
        after = ""
    return ChartPlan(name, chart.version, after, chart.frozen)


def _refuse(
    found: Inventory,
    target: str,
    skip: tuple[int, ...],
    catalogue: Path | None,
    now: datetime,
    verdicts: Verdicts | None,
) -> tuple[CheckSeen, ...]:
    """The checks' answers. Raises CliError when one finds an error or cannot tell."""
    known, to = catalogue_of(catalogue), target_release(target, catalogue)
    if to is None:
        return ()
    begun = running(known, found)
    situation = Situation(
        found, known, begun, to, compare(known, begun, to) if begun else None, now, verdicts
    )
    answers = run(PREFLIGHT, situation, frozenset(skip))
    wrong = [answer for answer in answers if _bad(answer)]
    if wrong:
        lines = [f"  {a.check.number:2} {f}" for a in wrong for f in a.findings if f.severity == "error"]
        lines += [f"  {a.check.number:2} cannot tell: {a.why}" for a in wrong if a.state == "untold"]
        raise CliError("\n".join(["preflight refuses (mend it, or --skip the check's number):", *lines]))
    return tuple(
        CheckSeen(a.check.number, a.check.title, a.state, a.why, tuple(map(str, a.findings))) for a in answers
    )


def target_release(target: str, catalogue: Path | None) -> Release | None:
    """None for a version of Towpath: RKE2's releases, and their checks, say nothing of it."""
    try:
        return catalogue_of(catalogue).release(target)
    except CatalogueError:
        return None


def _bad(answer: Answer) -> bool:
    return answer.state == "untold" or any(one.severity == "error" for one in answer.findings)


def screen(made: Plan) -> str:
    """The plan for a person."""
    images = sorted({pair for pair in made.images.values() if pair[0] != pair[1]})
    rows = [[old.rpartition("/")[2], new.rpartition("/")[2]] for old, new in images]
    nodes = [[str(number), step.node, step.reason] for number, step in enumerate(made.nodes, 1)]
    gates = made.gates
    lines = [
        f"{made.namespace}/{made.daemonset} → {made.target}",
        "",
        table(["IMAGE BEFORE", "AFTER"], rows),
        "",
        table(["TURN", "NODE", "WHY THEN"], nodes),
        "",
        f"gates: ready within {gates.ready_within:.0f} s, a new pod gets an address, no trouble in the log, "
        f"well for {gates.soak:.0f} s ({gates.canary_soak:.0f} s on the first)",
        *measures_told(made),
        "a node that does not pass gets its old version back, and the upgrade stands still",
    ]
    if made.window:
        lines.append(f"a node is begun only in the window {made.window}")
    if made.evict:
        lines.append(f"a node is {'drained' if made.evict == 'drain' else 'cordoned'} during its turn")
    if made.chart and not made.chart.frozen:
        lines.append(
            f"HelmChart {made.chart.name} is frozen until the end, so that helm rolls nothing meanwhile"
        )
    if made.digests:
        lines.append(f"images on every node, by digest: {len(made.digests)}; what runs must be these")
    lines += [mark(f"managed elsewhere: {manager}", "warning") for manager in made.managers]
    if made.skipped:
        lines.append(mark(f"skipped checks: {', '.join(map(str, made.skipped))}", "warning"))
    return "\n".join(lines)
