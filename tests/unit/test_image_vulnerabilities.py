"""Vulnerabilities from feeds that lie in files, and what VEX takes out again."""

import json
import subprocess
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from image_cases import good, layer, oci
from towpath.image.audit.audit import Terms, audit
from towpath.image.audit.reading import read
from towpath.image.audit.vulnerabilities import compare

PURL = "pkg:deb/debian/tool@1.0-2%2Bb1"


def found(where: Path, feed: Any, *vex: Any) -> dict[str, tuple[str, str]]:
    """CVE -> (code, severity), of the image whose package tool is built from tools 1.0-2."""
    where.mkdir(exist_ok=True)
    path = where / "feed.json"
    if isinstance(feed, Path):
        path = feed
    else:
        path.write_text(feed if isinstance(feed, str) else json.dumps(feed))
    files = []
    for number, document in enumerate(vex):
        files.append(where / f"vex{number}.json")
        files[-1].write_text(json.dumps(document))
    image = read(oci(where / "i", layer(good())))
    report = audit(image, Terms(now=datetime(2026, 10, 1, tzinfo=UTC), feed=path, vex=tuple(files)))
    image.spool.close()
    return {f.message.split(",")[0]: (f.code, f.weight) for f in report.findings}


def tracker(**release: str) -> dict[str, Any]:
    return {
        "tools": {"CVE-2026-1": {"releases": {"bookworm": release, "trixie": {"status": "open"}}}},
        "x": {},
    }


@pytest.mark.parametrize(
    ("release", "wanted"),
    [
        ({"status": "resolved", "fixed_version": "1.0-3", "urgency": "high"}, ("TP8181", "high")),
        ({"status": "resolved", "fixed_version": "1.0-2", "urgency": "high"}, None),
        ({"status": "resolved", "fixed_version": "0", "urgency": "high"}, None),
        ({"status": "resolved", "fixed_version": "1.0-2+deb12u1"}, ("TP8181", "medium")),
        ({"status": "open", "urgency": "not yet assigned"}, ("TP8182", "low")),
        ({"status": "open", "urgency": "unimportant"}, ("TP8182", "info")),
        ({"status": "undetermined"}, None),
    ],
)
def test_debian_s_tracker(tmp_path: Path, release: dict[str, str], wanted: tuple[str, str] | None) -> None:
    assert found(tmp_path, tracker(**release)).get("CVE-2026-1") == wanted


def osv(*events: dict[str, str], versions: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    return {
        "id": "DSA-1",
        "aliases": ["CVE-2026-2"],
        "affected": [
            {
                "package": {"ecosystem": "Debian:12", "name": "tools"},
                "ranges": [{"type": "ECOSYSTEM", "events": list(events)}] if events else [],
                "versions": list(versions),
            }
        ],
        **more,
    }


FIXED = osv({"introduced": "0"}, {"fixed": "1.0-3"}, database_specific={"severity": "CRITICAL"})


@pytest.mark.parametrize(
    ("document", "wanted"),
    [
        (FIXED, ("TP8181", "critical")),
        (osv({"introduced": "0"}, {"fixed": "1.0-2"}), None),
        (osv({"introduced": "1.0-3"}), None),
        (osv({"introduced": "0"}), ("TP8182", "low")),
        (osv({"introduced": "0"}, {"last_affected": "1.0-1"}), None),
        (
            osv({"introduced": "0"}, {"fixed": "0.5"}, {"introduced": "1.0"}, {"fixed": "2"}),
            ("TP8181", "medium"),
        ),
        (osv(versions=("1.0-2",)), ("TP8182", "low")),
        ({**FIXED, "withdrawn": "2026-01-01T00:00:00Z"}, None),
    ],
)
def test_osv(tmp_path: Path, document: dict[str, Any], wanted: tuple[str, str] | None) -> None:
    assert found(tmp_path, document).get("CVE-2026-2") == wanted


def test_forms_of_osv_feeds(tmp_path: Path) -> None:
    other = osv({"introduced": "0"}, id="DSA-2", aliases=["CVE-2026-3"])
    wanted = {"CVE-2026-2", "CVE-2026-3"}
    assert set(found(tmp_path / "list", [FIXED, other])) == wanted
    assert set(found(tmp_path / "lines", f"{json.dumps(FIXED)}\n{json.dumps(other)}\n")) == wanted
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for number, document in enumerate((FIXED, other)):
            archive.writestr(f"DSA-{number}.json", json.dumps(document))
    assert set(found(tmp_path / "zip", tmp_path / "all.zip")) == wanted


OPENVEX = {
    "statements": [
        {
            "vulnerability": {"name": "CVE-2026-2"},
            "products": [{"@id": "pkg:oci/x", "subcomponents": [{"@id": PURL}]}],
            "status": "not_affected",
            "justification": "vulnerable_code_not_in_execute_path",
        }
    ]
}
CYCLONEDX = {"vulnerabilities": [{"id": "CVE-2026-2", "analysis": {"state": "not_affected"}, "affects": []}]}


@pytest.mark.parametrize("vex", [OPENVEX, CYCLONEDX])
def test_vex_takes_out_what_is_of_no_effect(tmp_path: Path, vex: dict[str, Any]) -> None:
    assert found(tmp_path, FIXED, vex) == {}


def test_vex_for_another_package_or_state_takes_out_nothing(tmp_path: Path) -> None:
    statement = OPENVEX["statements"][0]
    affected = {"statements": [{**statement, "status": "affected"}]}
    other = {
        "statements": [{**statement, "products": [{"subcomponents": [{"@id": "pkg:deb/debian/else@1"}]}]}]
    }
    assert set(found(tmp_path / "1", FIXED, affected)) == {"CVE-2026-2"}
    assert set(found(tmp_path / "2", FIXED, other)) == {"CVE-2026-2"}


VERSIONS = (
    "1.0",
    "1.0~rc1",
    "1.0-1",
    "1:0.1",
    "1.0+deb12u1",
    "1.0+deb12u10",
    "1.0a",
    "3.0.22-1~deb12u2",
    "0",
    "09",
)


@pytest.mark.parametrize("one", VERSIONS)
def test_versions_are_ordered_as_dpkg_orders_them(one: str) -> None:
    for other in VERSIONS:
        greater = not subprocess.run(["dpkg", "--compare-versions", one, "gt", other], check=False).returncode
        assert (compare(one, other) > 0) == greater
