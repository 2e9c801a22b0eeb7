"""docs/policy-apis.md is the code's: every field that is read is told there with tests, and no others."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from policy_api_specimens import (
    ADMIN_POLICIES,
    CALICO_POLICIES,
    NETWORK_POLICIES,
    OTHERS,
    REFUSED,
    Manifest,
)
from towpath.policy import convert_admin, convert_calico, convert_calico_endpoints, convert_networking
from towpath.policy.converted import Converted
from towpath.policy.reading import Field
from towpath.policy.sources import SOURCES

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "policy-apis.md").read_text()
READERS: dict[str, Callable[[Mapping[str, Any]], Converted]] = {
    "NetworkPolicy": convert_networking.convert,
    "ClusterNetworkPolicy": convert_admin.convert_cluster_network_policy,
    "AdminNetworkPolicy": convert_admin.convert_admin_network_policy,
    "BaselineAdminNetworkPolicy": convert_admin.convert_baseline_admin_network_policy,
    "projectcalico.org NetworkPolicy": convert_calico.convert_network_policy,
    "GlobalNetworkPolicy": convert_calico.convert_global_network_policy,
    "Tier": convert_calico.convert_tier,
    "NetworkSet": convert_calico_endpoints.convert_network_set,
    "GlobalNetworkSet": convert_calico_endpoints.convert_global_network_set,
    "HostEndpoint": convert_calico_endpoints.convert_host_endpoint,
}
JUNK = {"§": 1}
IDLE, REFUSAL = "of no meaning", "refused"

_ALIKE = (
    (r"\[\d+\]", "[]"),
    (r"^spec\.egress(?=\[|$)", "spec.ingress"),
    (r"\.to(?=\[|$)", ".from"),
    (r"\.destination(?=\.|$)", ".source"),
    (r"\.(udp|sctp)(?=\.|$)", ".tcp"),
    (r"^.*\.(podSelector|namespaceSelector|nodes|namespaces)\.(?=match)", ""),
)


class Row(NamedTuple):
    """``kind`` empty: any of its section's."""

    section: str
    kind: str
    path: str
    meaning: str
    tests: tuple[str, ...]


def rows() -> Iterator[Row]:
    section = ""
    for line in PAGE.splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ")
        elif line.startswith("| ") and not line.startswith(("| field", "| kind", "| object")):
            *place, meaning, tests = (cell.strip() for cell in line.strip("|").split(" | "))
            kind = place[0] if len(place) > 1 else ""
            yield Row(section, kind, alike(place[-1].strip("`")), meaning, tuple(tests.split(", ")))


def alike(path: str) -> str:
    """As the page writes it."""
    for pattern, written in _ALIKE:
        path = re.sub(pattern, written, path)
    return path


ROWS = list(rows())
GROUPS = {
    "networking.k8s.io/v1 NetworkPolicy": NETWORK_POLICIES,
    "policy.networking.k8s.io": ADMIN_POLICIES,
    "Calico NetworkPolicy": CALICO_POLICIES,
    "Calico Tier": OTHERS,
}


def of_group(group: str) -> list[Row]:
    """Its own, and those that are everywhere alike."""
    shared = [row for row in ROWS if row.path.startswith("match")] if "k8s.io" in group else []
    return list(dict.fromkeys([*(row for row in ROWS if row.section.startswith(group)), *shared]))


def convert(raw: Manifest) -> Converted:
    kind = raw["kind"]
    served = "projectcalico" in raw.get("apiVersion", "") and kind == "NetworkPolicy"
    return READERS[f"projectcalico.org {kind}" if served else kind](raw)


def places(value: Any, path: str = "") -> Iterator[str]:
    """The paths of all that is in an object."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from places(inner, f"{path}[{index}]")


def damaged(raw: Manifest, path: str) -> Manifest:
    """The object with junk there."""
    copy: Any = json.loads(json.dumps(raw))  # (parts that are shared are so no longer)
    *parents, last = [int(k) if k.isdigit() else k for k in re.findall(r"[^.\[\]]+", path)]
    holder = copy
    for key in parents:
        holder = holder[key]
    holder[last] = JUNK
    found: Manifest = copy
    return found


def where(specimens: Iterable[Manifest], row: Row) -> Iterator[tuple[Manifest, str]]:
    for raw in specimens:
        if row.kind in ("", raw["kind"]):
            yield from ((raw, path) for path in places(raw) if alike(path) == row.path)


FIELDS = [
    pytest.param(specimens, row, id=f"{row.kind or group} {row.path}")
    for group, specimens in GROUPS.items()
    for row in of_group(group)
]


@pytest.mark.parametrize(("specimens", "row"), FIELDS)
def test_a_field_of_the_page_is_read(specimens: tuple[Manifest, ...], row: Row) -> None:
    refused = row.meaning.startswith(REFUSAL)
    found = list(where(REFUSED if refused else specimens, row))
    assert found, "no specimen has it"
    for raw, path in found:
        after = convert(raw if refused else damaged(raw, path))
        if row.meaning.startswith(IDLE):
            assert after == convert(raw)
        else:
            assert any(finding.message.startswith(path) for finding in after.findings), (path, after.findings)


@pytest.mark.parametrize("specimens", GROUPS.values(), ids=GROUPS)
def test_specimens_are_in_order(specimens: tuple[Manifest, ...]) -> None:
    for raw in specimens:
        assert not convert(raw).findings


@pytest.mark.parametrize("group", GROUPS)
def test_a_field_that_is_read_is_on_the_page(group: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known: set[str] = set()
    original = Field.object

    def noting(self: Field, *fields: str) -> Field:
        known.update(alike(f"{self.path}.{field}".lstrip(".")) for field in fields)
        return original(self, *fields)

    monkeypatch.setattr(Field, "object", noting)
    for raw in (*GROUPS[group], *REFUSED):
        if any(raw["kind"] == one["kind"] for one in GROUPS[group]):
            convert(raw)
    told = {row.path.removesuffix("[]") for row in of_group(group) if not row.path.startswith("metadata")}
    within = {path[: match.start()] for path in told for match in re.finditer(r"\[\]|\.|$", path)}
    assert known - within == set()
    assert {path for path in told if path not in known and not path.endswith("]")} == set()


def test_every_kind_that_is_enforced_has_a_specimen() -> None:
    kinds = {raw["kind"] for specimens in GROUPS.values() for raw in specimens}
    assert {source.kind for source in SOURCES} == kinds


def test_the_pages_tests_exist() -> None:
    named = re.findall(r"([a-z_/]+)::([a-z_0-9]+)", PAGE)
    assert len(named) > 100
    for place, name in named:
        folder, _, file = place.rpartition("/")
        path = TESTS / (folder or "unit") / f"test_{'' if folder else 'policy_'}{file}.py"
        assert re.search(rf"^(async )?def test_{name}\(", path.read_text(), re.MULTILINE), f"{place}::{name}"
    for row in ROWS:
        assert all("::" in test for test in row.tests), row
