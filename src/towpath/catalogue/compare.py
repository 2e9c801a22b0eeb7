"""What an upgrade from one release to another changes for the network, and what is known to go wrong."""

from typing import Any, NamedTuple

from towpath.catalogue.model import CHARTS, COMPONENTS, Catalogue, Chart, Release, Story
from towpath.catalogue.versions import ReleaseVersion, VersionSet, numbers
from towpath.model.finding import Finding, Severity

# Whose going back breaks pods' network or policy; the rest is shown only.
NETWORK = ("calico", "flannel", "multus", "cni-plugins")


class Change(NamedTuple):
    """Empty where there is none."""

    before: str
    after: str


class ChartChange(NamedTuple):
    """``removed`` and ``added`` are CRDs; None where one of the charts is not known well enough.

    ``mixed``: images of which the new chart names a second tag.
    """

    name: str
    version: Change
    removed: tuple[str, ...] | None
    added: tuple[str, ...] | None
    defaults: dict[str, tuple[Any, Any]]
    mixed: tuple[str, ...]


class Comparison(NamedTuple):
    """All that changes. ``findings`` are what an operator must look at, the gravest first."""

    source: Release
    target: Release
    components: dict[str, Change]
    images: dict[str, Change]
    charts: tuple[ChartChange, ...]
    stories: tuple[Story, ...]
    findings: tuple[Finding, ...]


def compare(catalogue: Catalogue, source: Release, target: Release) -> Comparison:
    """From ``source`` to ``target``, either of which may be the newer."""
    components = _changes(source.components, target.components)
    charts = tuple(
        _chart(catalogue, name, source.charts.get(name, ""), target.charts.get(name, ""))
        for name in CHARTS
        if name in source.charts or name in target.charts
    )
    stories = tuple(s for s in catalogue.known.story if concerns(s, source, target))
    findings = [
        *_order(source, target),
        *_downgrades(target, components),
        *(finding for chart in charts for finding in _of_chart(target, chart)),
        *(_told(story, target) for story in stories),
        *_disputed(source),
        *_disputed(target),
    ]
    grave: dict[Severity, int] = {"error": 0, "warning": 1, "info": 2}
    findings.sort(key=lambda finding: grave[finding.severity])
    ordered = {name: components[name] for name in COMPONENTS if name in components}
    images = _changes(source.images, target.images)
    return Comparison(source, target, ordered, images, charts, stories, tuple(findings))


def concerns(story: Story, source: Release, target: Release) -> bool:
    """Whether an upgrade from the one to the other meets the story's condition."""
    if source.release == target.release:
        return False
    if story.releases:
        return target.release in story.releases
    meets = not story.until or target.date < story.until
    if story.crossing:
        bound = VersionSet(f">={story.crossing}")
        before, after = source.components["kubernetes"], target.components["kubernetes"]
        meets = before not in bound and after in bound
    if story.component:
        old, new = source.components.get(story.component), target.components.get(story.component)
        if story.before:
            meets = meets and old is not None and old in VersionSet(story.before)
        meets = meets and new is not None and new in VersionSet(story.versions)
    return meets and bool(story.crossing or story.component or story.until)


def _changes(before: dict[str, str], after: dict[str, str]) -> dict[str, Change]:
    found = {name: Change(before.get(name, ""), after.get(name, "")) for name in sorted({*before, *after})}
    return {name: change for name, change in found.items() if change.before != change.after}


def _chart(catalogue: Catalogue, name: str, before: str, after: str) -> ChartChange:
    old, new = catalogue.chart(name, before), catalogue.chart(name, after)
    removed = added = None
    if old is not None and new is not None and old.crds is not None and new.crds is not None:
        removed = tuple(crd for crd in old.crds if crd not in new.crds)
        added = tuple(crd for crd in new.crds if crd not in old.crds)
    defaults = _defaults(catalogue, old, new) if old is not None and new is not None else {}
    mixed = new.mixed if new is not None else ()
    return ChartChange(name, Change(before, after), removed, added, defaults, mixed)


def _defaults(catalogue: Catalogue, old: Chart, new: Chart) -> dict[str, tuple[Any, Any]]:
    """What the steps from the one to the other come to; the other way round they are turned round."""
    line = [one for one in catalogue.charts if one.package == old.package]
    if new not in line:
        return {}
    first, last = line.index(old), line.index(new)
    forward = first <= last
    found: dict[str, tuple[Any, Any]] = {}
    for step in line[min(first, last) + 1 : max(first, last) + 1]:
        for key, (before, after) in step.defaults.items():
            found[key] = (found[key][0] if key in found else before, after)
    turned = found if forward else {key: (after, before) for key, (before, after) in found.items()}
    return {key: pair for key, pair in sorted(turned.items()) if pair[0] != pair[1]}


def _order(source: Release, target: Release) -> list[Finding]:
    old, new = ReleaseVersion.parse(source.release), ReleaseVersion.parse(target.release)
    where = f"Release/{target.release}"
    if new < old:
        return [
            Finding(
                code="TP7010",
                object=where,
                message=f"is older than {source.release}",
                fix="Kubernetes cannot be taken back a minor without restoring etcd; choose a newer release",
            )
        ]
    found = []
    if (new.major, new.minor) > (old.major, old.minor + 1):
        step = f"v{old.major}.{old.minor + 1}"
        found.append(
            Finding(
                code="TP7011",
                object=where,
                message=f"is {new.minor - old.minor} minors after {source.release}",
                fix=f"upgrade to a {step} release first",
            )
        )
    if target.date < source.date:
        found.append(
            Finding(
                code="TP7012",
                object=where,
                message=f"was made on {target.date}, before {source.release} ({source.date})",
                fix=f"choose a release of v{new.major}.{new.minor} made on {source.date} or later",
            )
        )
    return found


def _downgrades(target: Release, components: dict[str, Change]) -> list[Finding]:
    return [
        Finding(
            code="TP7013",
            object=f"Release/{target.release}",
            message=f"takes {name} back from {change.before} to {change.after}",
            fix="choose a release made no earlier than the one that runs",
            severity="error" if name in NETWORK else "warning",
        )
        for name, change in components.items()
        if change.before and change.after and numbers(change.after) < numbers(change.before)
    ]


def _of_chart(target: Release, chart: ChartChange) -> list[Finding]:
    where = f"Chart/{chart.name}-{chart.version.after or chart.version.before}"
    if not chart.version.after:
        return [
            Finding(
                code="TP7014",
                object=where,
                message=f"is no part of {target.release}",
                fix="find out what takes its place before you upgrade",
            )
        ]
    found = [
        Finding(
            code="TP7015",
            object=where,
            message=f"drops the custom resource {crd}: it is deleted, and every object of it",
            fix=f"save and convert them first: kubectl get {crd} -A -o yaml",
        )
        for crd in chart.removed or ()
    ]
    if chart.version.before and chart.removed is None and chart.version.before != chart.version.after:
        found.append(
            Finding(
                code="TP7018",
                object=where,
                message="which custom resources it drops is not known",
                fix="compare the charts' own manifests (helm template)",
                severity="warning",
            )
        )
    found += [
        Finding(
            code="TP7020",
            object=where,
            message=f"mixes versions of one program: it also has {image}",
            fix="choose another release; no released RKE2 shipped this chart",
        )
        for image in chart.mixed
    ]
    return found


def _told(story: Story, target: Release) -> Finding:
    condition = f" ({story.condition})" if story.condition else ""
    return Finding(
        code="TP7017",
        object=f"Release/{target.release}",
        message=f"{story.title}{condition}: {story.issue}",
        fix=story.advice,
        severity="warning",
    )


def _disputed(release: Release) -> list[Finding]:
    return [
        Finding(
            code="TP7019",
            object=f"Release/{release.release}",
            message=f"{name}: {dispute}",
            fix="look at the image that runs, not at the notes",
            severity="info",
        )
        for name, dispute in release.disputed.items()
    ]
