"""Checks of the way from one release to the other, and of what the cluster has that stands in it."""

from collections.abc import Iterator

from towpath.catalogue.compare import Comparison
from towpath.catalogue.versions import ReleaseVersion
from towpath.model.finding import Finding
from towpath.preflight.situation import Check, Situation, Untold, finding

# Kubernetes' version skew policy: kubelets may be three minors older than the API server, from 1.28 on.
_SKEW = 3


def _comparison(at: Situation) -> Comparison:
    if at.comparison is None:
        told = ", ".join(sorted(at.inventory.node_releases)) or "nothing"
        raise Untold(f"the cluster's release is not in the catalogue (its nodes say {told})")
    return at.comparison


def _of_codes(at: Situation, *codes: str) -> Iterator[Finding]:
    yield from (one for one in _comparison(at).findings if one.code in codes)


def _steps(at: Situation) -> Iterator[Finding]:
    """1: no minor skipped, nothing older, kubelets not too old for the new API server."""
    yield from _of_codes(at, "TP7010", "TP7011", "TP7012")
    target = ReleaseVersion.parse(at.target.release)
    for release, nodes in sorted(at.inventory.node_releases.items()):
        try:
            kubelet = ReleaseVersion.parse(release)
        except ValueError as odd:
            raise Untold(f"{', '.join(nodes)}: {odd}") from odd
        if target.minor - kubelet.minor > _SKEW:
            yield finding(
                "TP7301",
                f"Node/{nodes[0]}" if len(nodes) == 1 else f"{len(nodes)} nodes",
                f"kubelet {release} is {target.minor - kubelet.minor} minors behind {at.target.release}",
                f"upgrade {', '.join(nodes)} first",
            )
        elif kubelet > target:
            yield finding(
                "TP7301",
                f"Node/{nodes[0]}" if len(nodes) == 1 else f"{len(nodes)} nodes",
                f"kubelet {release} is newer than {at.target.release}",
                "a kubelet must never be newer than the API server",
            )


def _downgrades(at: Situation) -> Iterator[Finding]:
    """2: nothing of the network goes back to an older version."""
    yield from _of_codes(at, "TP7013")


def _dropped(at: Situation) -> Iterator[Finding]:
    """3: no custom resource is dropped that has objects."""
    for chart in _comparison(at).charts:
        for crd in chart.removed or ():
            count = at.inventory.objects.get(crd)
            if count is None:
                continue
            if count:
                yield finding(
                    "TP7015",
                    f"CustomResourceDefinition/{crd}",
                    f"is dropped by {chart.name} {chart.version.after}, with {count} object(s)",
                    "towpath backup, and convert the objects to what takes their place",
                )
    yield from _of_codes(at, "TP7014", "TP7018")


def _mixed(at: Situation) -> Iterator[Finding]:
    """5: all images of one program are of one version."""
    yield from _of_codes(at, "TP7020")


def _stories(at: Situation) -> Iterator[Finding]:
    """Known failures on this way."""
    yield from _of_codes(at, "TP7017")


RELEASE_CHECKS = (
    Check(1, "the target exists, no minor is skipped, kubelets are not too old", _steps),
    Check(2, "no component of the network goes back to an older version", _downgrades),
    Check(3, "no custom resource is dropped that has objects", _dropped),
    Check(5, "images of one program are of one version", _mixed),
    Check(26, "failures that others met on this way", _stories),
)
