"""What the new images ask of the API: rights of their service account, and definitions of custom resources.

A chart brings both with its images. Whoever sets images alone (a pin in a HelmChartConfig; this conductor,
which has the chart frozen meanwhile) brings neither: everything is Ready, and nothing is kept up to date
(rke2-charts#1022, rancher-archives/rke#3221).
"""

from collections.abc import Iterator

from towpath.catalogue.model import Need
from towpath.catalogue.versions import VersionSet
from towpath.inventory.components import Component
from towpath.model.finding import Finding
from towpath.preflight.situation import Check, Situation, Untold, finding

_IMAGES = {"calico": "hardened-calico", "flannel": "hardened-flannel", "multus": "hardened-multus-cni"}


def _needs(at: Situation) -> Iterator[Finding]:
    """4: what the target's programs ask of the API is there."""
    yield from _definitions(at)
    for need in at.catalogue.known.need:
        version = at.target.components.get(need.component)
        if version is not None and version in VersionSet(need.versions):
            for part in at.inventory.components:
                if any(image.name == _IMAGES.get(need.component) for image in part.wanted.values()):
                    yield from _missing(at, part, need)


def _missing(at: Situation, part: Component, need: Need) -> Iterator[Finding]:
    rules = at.inventory.rights.get(part.object)
    if rules is None:
        raise Untold(f"the rights of {part.object}'s service account are not known (ClusterRoles unread)")
    for right in need.rights:
        verb, _, what = right.partition(" ")
        resource, group = _resource(what)
        if not any(rule.allows(verb, group, resource) for rule in rules):
            yield finding(
                "TP7340",
                part.object,
                f"its service account may not {verb} {what}, which {need.component} "
                f"{at.target.components[need.component]} needs ({need.issue})",
                "apply the ClusterRoles of the target's chart before its images: they only add",
            )


def _resource(what: str) -> tuple[str, str]:
    """``caliconodestatuses.crd.projectcalico.org/status`` as resource and group."""
    name, _, sub = what.partition("/")
    plural, _, group = name.partition(".")
    return (f"{plural}/{sub}" if sub else plural), group


def _definitions(at: Situation) -> Iterator[Finding]:
    for name, version in sorted(at.target.charts.items()):
        chart = at.catalogue.chart(name, version)
        runs = any(part.name == name for part in at.inventory.components)
        if chart is None or not chart.crds or not runs:
            continue
        there = at.inventory.objects.keys() & set(chart.crds)
        if not there:
            raise Untold(f"the cluster shows none of the custom resources of {name}")
        for crd in chart.crds:
            if crd not in there:
                yield finding(
                    "TP7341",
                    f"CustomResourceDefinition/{crd}",
                    f"is not there; the images of {name} {version} ask for it",
                    "apply the definitions of the target's chart before its images",
                )


RIGHTS_CHECKS = (Check(4, "rights and custom resources that the new images need are there", _needs),)
