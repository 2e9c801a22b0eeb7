"""What the catalogue says of releases, and of the way from one to another."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from towpath.catalogue import load
from towpath.catalogue.compare import Comparison, compare, concerns
from towpath.catalogue.model import Catalogue, CatalogueError, Chart, Release, Story
from towpath.catalogue.versions import ReleaseVersion, VersionSet, numbers
from towpath.cli.main import cli

ROOT = Path(__file__).parents[2]
KNOWN = load.builtin()


def between(source: str, target: str) -> Comparison:
    return compare(KNOWN, KNOWN.release(source), KNOWN.release(target))


def codes(found: Comparison, severity: str = "error") -> list[str]:
    return [finding.code for finding in found.findings if finding.severity == severity]


def test_the_upgrade_that_the_article_is_about() -> None:
    found = between("v1.32.1+rke2r1", "v1.32.2+rke2r1")
    assert found.components["calico"] == ("v3.29.1", "v3.29.2")
    assert found.components["flannel"] == ("v0.26.3", "v0.26.4")
    assert found.images["hardened-calico"] == ("v3.29.1-build20250110", "v3.29.2-build20250218")
    assert codes(found) == []
    assert "masquerade-lost-at-shutdown" in [story.id for story in found.stories]


def test_masquerade_survives_once_the_old_flanneld_leaves_it() -> None:
    """The one that stops does the harm: into 0.27.0 still, out of it no more."""
    assert "masquerade-lost-at-shutdown" in [
        s.id for s in between("v1.32.5+rke2r1", "v1.32.6+rke2r1").stories
    ]
    assert "masquerade-lost-at-shutdown" not in [
        s.id for s in between("v1.32.6+rke2r1", "v1.32.7+rke2r1").stories
    ]


def test_dropped_custom_resources_are_errors() -> None:
    found = between("v1.33.11+rke2r1", "v1.33.12+rke2r1")
    assert codes(found) == ["TP7015", "TP7015"]
    canal = found.charts[0]
    assert canal.removed == (
        "adminnetworkpolicies.policy.networking.k8s.io",
        "baselineadminnetworkpolicies.policy.networking.k8s.io",
    )
    assert canal.added == ("clusternetworkpolicies.policy.networking.k8s.io",)


def test_a_newer_minor_made_earlier_takes_components_back() -> None:
    found = between("v1.33.11+rke2r1", "v1.34.5+rke2r1")
    assert codes(found) == ["TP7012", "TP7013", "TP7013", "TP7013", "TP7013"]
    assert "calico back from v3.31.5 to v3.31.3" in " ".join(f.message for f in found.findings)


def test_a_skipped_minor_and_an_older_target() -> None:
    assert "TP7011" in codes(between("v1.31.6+rke2r1", "v1.33.5+rke2r1"))
    assert "TP7010" in codes(between("v1.32.2+rke2r1", "v1.32.1+rke2r1"))


def test_the_same_release_changes_nothing() -> None:
    for release in KNOWN.releases:
        found = compare(KNOWN, release, release)
        assert not (found.components or found.images or found.stories)
        assert not codes(found) and not codes(found, "warning")


def test_defaults_add_up_over_the_charts_between() -> None:
    found = between("v1.32.4+rke2r1", "v1.32.7+rke2r1").charts[0].defaults
    assert found["flannel.args"] == (
        ["--ip-masq", "--kube-subnet-mgr"],
        ["--ip-masq", "--kube-subnet-mgr", "--iptables-forward-rules=false", "--ip-blackhole-route"],
    )


def test_defaults_of_the_way_back_are_turned_round() -> None:
    there = between("v1.32.4+rke2r1", "v1.32.7+rke2r1").charts[0].defaults
    back = between("v1.32.7+rke2r1", "v1.32.4+rke2r1").charts[0].defaults
    assert back == {key: (after, before) for key, (before, after) in there.items()}


def test_a_chart_that_mixes_versions_is_told() -> None:
    mixed = KNOWN.chart("rke2-canal", "v3.27.0-build2024020600")
    assert mixed is not None
    assert mixed.mixed == ("hardened-calico:v3.26.3-build20231109",)
    release = KNOWN.release("v1.29.2+rke2r1")
    with_it = replace(release, charts=release.charts | {"rke2-canal": mixed.version})
    assert "TP7020" in codes(compare(KNOWN, release, with_it))


def test_a_chart_that_the_target_lacks_and_one_whose_custom_resources_nobody_knows() -> None:
    source, target = KNOWN.release("v1.32.1+rke2r1"), KNOWN.release("v1.32.2+rke2r1")
    name = "rke2-canal"
    lacking = replace(target, charts={k: v for k, v in target.charts.items() if k != name})
    (gone,) = [f for f in compare(KNOWN, source, lacking).findings if f.code == "TP7014"]
    assert (gone.object, gone.severity) == (f"Chart/{name}-{source.charts[name]}", "error")
    assert "no part of v1.32.2+rke2r1" in gone.message
    unknown = replace(target, charts={**target.charts, name: "v9.9.9"})
    (dark,) = [f for f in compare(KNOWN, source, unknown).findings if f.code == "TP7018"]
    assert (dark.object, dark.severity) == (f"Chart/{name}-v9.9.9", "warning")
    assert not [f for f in between("v1.32.1+rke2r1", "v1.32.2+rke2r1").findings if f.code == "TP7018"]


def test_where_sources_disagree_on_a_version_it_is_said() -> None:
    target = replace(KNOWN.release("v1.32.2+rke2r1"), disputed={"flannel": "notes v0.26.4, image v0.26.5"})
    (told,) = [
        f
        for f in compare(KNOWN, KNOWN.release("v1.32.1+rke2r1"), target).findings
        if f.code == "TP7019" and f.object == "Release/v1.32.2+rke2r1"
    ]
    assert (told.message, told.severity) == ("flannel: notes v0.26.4, image v0.26.5", "info")


def test_no_release_ships_a_chart_that_the_catalogue_does_not_know() -> None:
    assert [r.release for r in KNOWN.releases if not KNOWN.chart("rke2-canal", r.charts["rke2-canal"])] == []


def test_targets_no_older_than_the_source_never_take_calico_back() -> None:
    """The fact behind TP7012: RKE2's steps to the next minor."""
    taken_back = 0
    for source in KNOWN.releases:
        for target in KNOWN.releases:
            old, new = ReleaseVersion.parse(source.release), ReleaseVersion.parse(target.release)
            if new.minor == old.minor + 1 and "calico" in source.components:
                found = [c for c in compare(KNOWN, source, target).findings if c.code == "TP7013"]
                if any(" calico back" in f.message for f in found):
                    taken_back += 1
                    assert target.date < source.date
    assert taken_back > 500


@pytest.mark.parametrize("story", KNOWN.known.story, ids=lambda story: story.id)
def test_every_story_can_happen_and_need_not(story: Story) -> None:
    """An entry that no pair of releases meets, or that all meet, says nothing."""
    line = [r for r in KNOWN.ordered if "calico" in r.components and "flannel" in r.components]
    pairs = [*pairwise(line), *zip(line, line[40:], strict=False)]
    pairs += [(line[0], KNOWN.release(name)) for name in story.releases]
    told = [concerns(story, source, target) for source, target in pairs]
    possible = story.before != "<v0.11.0"  # older than the oldest release that is known
    assert any(told) == possible and not all(told)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("iptables-restore failed: exit status 4", "iptables-restore-failed"),
        ("ipset v7.17: Syntax error: cannot parse 'tcp'", "ipset-syntax"),
        ("error getting ClusterInformation: connection is unauthorized: Unauthorized", "unauthorized"),
        ('ippools is forbidden: User "system:serviceaccount:kube-system:canal" cannot list', "forbidden"),
        ("the server could not find the requested resource (get tiers)", "no-such-resource"),
        ("no IP addresses available in range set: 10.42.1.1-10.42.1.254", "no-addresses-left"),
        ("open /opt/cni/bin/flannel: text file busy", "text-file-busy"),
        ("Error: UPGRADE FAILED: another operation (install) is in progress", "helm-upgrade-failed"),
        ('FailedCreatePodSandBox: failed to setup network for sandbox "ab"', "sandbox-failed"),
        ("iptables-restore: 12 rules written", None),
        ("Serving healthz on 127.0.0.1:9099", None),
    ],
)
def test_log_patterns(line: str, named: str | None) -> None:
    import re

    assert next((p.id for p in KNOWN.known.log if re.search(p.pattern, line)), None) == named


def test_versions_in_order() -> None:
    names = ["v1.32.9+rke2r1", "v1.32.10-rc1+rke2r1", "v1.32.10+rke2r1", "v1.32.11+rke2r1", "v1.32.11+rke2r2"]
    shuffled = [names[i] for i in (3, 0, 4, 1, 2)]
    assert sorted(shuffled, key=ReleaseVersion.parse) == names


@given(st.text())
def test_any_text_is_a_release_or_a_sentence(text: str) -> None:
    try:
        assert KNOWN.release(text).release
    except CatalogueError as odd:
        assert text.strip() in str(odd) or "v" in str(odd)


@pytest.mark.parametrize(
    ("wanted", "version", "holds"),
    [
        ("", "v1.2.3", True),
        (">=v0.20.0 <v0.27.0", "v0.26.4-build20250218", True),
        (">=v0.20.0 <v0.27.0", "v0.27.0", False),
        (">=v0.20.0,<=v0.27.0", "v0.27.0", True),
        ("v3.8", "v3.8.0", True),
        (">v3.8", "v3.8.0", False),
    ],
)
def test_sets_of_versions(wanted: str, version: str, holds: bool) -> None:
    assert (version in VersionSet(wanted)) is holds


def test_a_set_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="~1"):
        VersionSet("~1.2")
    with pytest.raises(ValueError, match="latest"):
        numbers("latest")


def test_the_script_makes_what_is_committed(tmp_path: Path) -> None:
    """Rows of the kinds it reads, small, as the collected facts have them."""
    release = {
        "release": "v1.30.1+rke2r1",
        "date": "2024-05-01",
        "kubernetes": "v1.30.1",
        "canal": {"calico": "v3.27.3", "flannel": "v0.25.1"},
        "multus": None,
        "containerd": "v1.7.15-k3s1",
        "runc": "v1.1.",
        "etcd": "v3.5.9-k3s1",
        "charts": {"rke2-canal": "v3.27.3-build1", "rke2-cilium": "1.15"},
        "images": {
            "hardened-calico": "v3.27.3-build1",
            "hardened-cni-plugins": "v1.4.1-build2",
            "pause": "3.6",
        },
        "notes_vs_tag": {"runc": {"notes": "v1.1.", "tag": "v1.1.12"}},
    }
    chart = {
        "package": "rke2-canal",
        "chart": "rke2-canal",
        "version": "v3.27.3-build1",
        "created": "2024-04-23",
        "images": {"hardened-calico": "v3.27.3-build1", "_conflict": ["hardened-calico:v3.26.3-build9"]},
        "crds": 0,
    }
    (tmp_path / "rke2-releases.json").write_text(json.dumps([release]))
    (tmp_path / "rke2-canal-charts.json").write_text(json.dumps([chart]))
    for name in ("multus", "flannel"):
        (tmp_path / f"rke2-{name}-charts.json").write_text("[]")
    made = subprocess.run(
        [sys.executable, ROOT / "scripts/make-catalogue", tmp_path], capture_output=True, check=True
    ).stdout
    (tmp_path / "made.json").write_bytes(made)
    found = load.from_file(tmp_path / "made.json")
    assert found.releases == (
        Release(
            release="v1.30.1+rke2r1",
            date="2024-05-01",
            components={
                "kubernetes": "v1.30.1",
                "calico": "v3.27.3",
                "flannel": "v0.25.1",
                "containerd": "v1.7.15-k3s1",
                "runc": "v1.1.12",
                "etcd": "v3.5.9-k3s1",
                "cni-plugins": "v1.4.1",
            },
            charts={"rke2-canal": "v3.27.3-build1"},
            images={"hardened-calico": "v3.27.3-build1", "hardened-cni-plugins": "v1.4.1-build2"},
            disputed={"runc": "the release notes say v1.1., the tag says v1.1.12"},
        ),
    )
    assert found.charts == (
        Chart(
            name="rke2-canal",
            version="v3.27.3-build1",
            created="2024-04-23",
            images={"hardened-calico": "v3.27.3-build1"},
            mixed=("hardened-calico:v3.26.3-build9",),
            crds=(),
            package="rke2-canal",
        ),
    )
    assert found.known == KNOWN.known


def test_a_file_that_is_no_catalogue(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    for text, why in [
        ('{"releases": 1}', "releases"),
        ("{", "truncated"),
        ('{"releases":[{"release":"1.2","date":"","components":{}}]}', "'1.2' is not an RKE2 release"),
        (
            '{"releases":[],"known":{"story":[{"id":"a","issue":"b","title":"c","advice":"d","versions":"~1"}]}}',
            "'~1'",
        ),
    ]:
        path.write_text(text)
        with pytest.raises(CatalogueError, match=why):
            load.from_file(path)
    with pytest.raises(CatalogueError, match="No such file"):
        load.from_file(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("arguments", "exit_code", "told"),
    [
        (["releases", "--minor", "1.32"], 0, "v1.32.2+rke2r1"),
        (["releases", "--minor", "9.9"], 2, "no release of 9.9"),
        (["releases", "show", "1.32.2-rke2r1"], 0, "v3.29.2-build20250218"),
        (["releases", "show", "v1.32.99+rke2r1"], 2, "v1.32.13+rke2r2"),
        (["releases", "show", "latest"], 2, "is not an RKE2 release"),
        (["releases", "diff", "v1.32.1+rke2r1", "v1.32.2+rke2r1"], 0, "flannel-io/flannel#2237"),
        (["releases", "diff", "v1.33.11+rke2r1", "v1.33.12+rke2r1"], 3, "TP7015"),
        (["releases", "diff", "v1.32.4+rke2r1", "v1.32.7+rke2r1"], 0, "--iptables-forward-rules=false"),
    ],
)
def test_on_the_command_line(arguments: list[str], exit_code: int, told: str) -> None:
    run = CliRunner().invoke(cli, arguments)
    assert (getattr(run.exception, "exit_code", run.exit_code), told in f"{run.output}{run.exception}") == (
        exit_code,
        True,
    ), run.output


def test_as_json() -> None:
    run = CliRunner().invoke(cli, ["releases", "diff", "v1.32.1+rke2r1", "v1.32.2+rke2r1", "-o", "json"])
    data = json.loads(run.stdout)
    assert data["components"]["flannel"] == {"before": "v0.26.3", "after": "v0.26.4"}
    assert msgspec.json.decode(msgspec.json.encode(KNOWN), type=Catalogue) == KNOWN
