"""The catalogue as values. Made by ``scripts/make-catalogue``; ``known.toml`` is written by hand."""

from functools import cached_property
from typing import Any

import msgspec

from towpath.catalogue.versions import ReleaseVersion, VersionSet

COMPONENTS = ("kubernetes", "calico", "flannel", "multus", "containerd", "runc", "etcd", "cni-plugins")
CHARTS = ("rke2-canal", "rke2-multus")


class CatalogueError(Exception):
    """The catalogue has no answer; the message says to what, and what there is instead."""


class Release(msgspec.Struct, frozen=True):
    """One RKE2 release.

    ``components`` by the names in COMPONENTS (calico and flannel as Canal has them), a version each, absent
    where nothing is known. ``charts``: chart name to version. ``images``: image name to tag.
    ``disputed``: component to "notes say x, the tag says y".
    """

    release: str
    date: str
    components: dict[str, str]
    charts: dict[str, str] = {}
    images: dict[str, str] = {}
    disputed: dict[str, str] = {}


class Chart(msgspec.Struct, frozen=True):
    """One version of a chart.

    ``crds`` None: not known. ``defaults``: what changed from the one before it in the list of its package,
    key to [before, after], where null means absent. ``mixed``: images of which it names a second tag.
    """

    name: str
    version: str
    created: str | None = None
    images: dict[str, str] = {}
    mixed: tuple[str, ...] = ()
    crds: tuple[str, ...] | None = None
    defaults: dict[str, tuple[Any, Any]] = {}
    package: str = ""


class Story(msgspec.Struct, frozen=True):
    """Something that went wrong for somebody, and when it can again.

    It concerns clusters that run a release in ``releases``, or one whose ``component`` is in ``versions``;
    with ``crossing``, an upgrade from a Kubernetes before that version to it or later, and with
    ``component`` and ``before`` as well, one that takes the component from ``before`` to ``versions``; with
    ``until``, only releases made before that day. ``fixed`` names what mends it.
    """

    id: str
    issue: str
    title: str
    advice: str
    releases: tuple[str, ...] = ()
    component: str = ""
    versions: str = ""
    before: str = ""
    crossing: str = ""
    until: str = ""
    condition: str = ""
    fixed: str = ""
    checks: tuple[int, ...] = ()


class LogPattern(msgspec.Struct, frozen=True):
    """A line in a component's log that means trouble. ``pattern``: a regular expression (re, searched)."""

    id: str
    pattern: str
    means: str
    advice: str
    issue: str = ""


class Need(msgspec.Struct, frozen=True):
    """What versions of a component ask of the API. ``rights`` of its service account: verb and resource each

    (``list tiers.crd.projectcalico.org``, ``update pods/status``). ``issue`` shows what is without it.
    """

    id: str
    issue: str
    component: str
    versions: str
    rights: tuple[str, ...]


class Known(msgspec.Struct, frozen=True):
    """What was written down by hand."""

    story: tuple[Story, ...] = ()
    log: tuple[LogPattern, ...] = ()
    need: tuple[Need, ...] = ()


class Catalogue(msgspec.Struct, frozen=True, dict=True):
    """All of it. Order of ``charts`` is the order of versions within a package."""

    releases: tuple[Release, ...]
    charts: tuple[Chart, ...] = ()
    known: Known = Known()

    @cached_property
    def _by_release(self) -> dict[str, Release]:
        return {one.release: one for one in self.releases}

    @cached_property
    def ordered(self) -> tuple[Release, ...]:
        """By version, the oldest first."""
        return tuple(sorted(self.releases, key=lambda one: ReleaseVersion.parse(one.release)))

    def release(self, name: str) -> Release:
        """By its name, with or without the ``v``; ``-`` may stand for ``+``, as in image tags.

        Raises CatalogueError naming the nearest that are known.
        """
        wanted = name.strip().replace("-rke2r", "+rke2r")
        wanted = wanted if wanted.startswith("v") else f"v{wanted}"
        if wanted in self._by_release:
            return self._by_release[wanted]
        try:
            version = ReleaseVersion.parse(wanted)
        except ValueError as odd:
            raise CatalogueError(str(odd)) from odd
        near = [r.release for r in self.ordered if ReleaseVersion.parse(r.release)[:2] == version[:2]]
        first, last = self.ordered[0].release, self.ordered[-1].release
        known = f"of that minor there are {', '.join(near[-4:])}" if near else f"it knows {first} to {last}"
        raise CatalogueError(f"the catalogue has no release {wanted}; {known}")

    def chart(self, name: str, version: str) -> Chart | None:
        """None when it is not known."""
        return next((one for one in self.charts if (one.name, one.version) == (name, version)), None)

    def check(self) -> None:
        """Raises CatalogueError when a version, a set of them or a release cannot be read."""
        try:
            for release in self.releases:
                ReleaseVersion.parse(release.release)
            for story in self.known.story:
                VersionSet(story.versions)
                VersionSet(story.before)
                VersionSet(story.crossing)
            for need in self.known.need:
                VersionSet(need.versions)
        except ValueError as odd:
            raise CatalogueError(f"the catalogue cannot be read: {odd}") from odd
