"""An archive gives back what went in, or says what is wrong with it."""

import gzip
import io
import tarfile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath.backup.archive import MANIFEST, Archive, ArchiveError, Manifest, entry, pack, unpack
from towpath.backup.objects import clean, difference
from towpath.backup.restoring import chosen, key_of, steps, turns
from towpath.backup.sections import SECTIONS, belongs, section

Raw = dict[str, Any]
names = st.text(min_size=1, max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)


def policy(name: str, namespace: str = "shop", /, **spec: Any) -> Raw:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def saved(
    raw: Raw, where: str = "policies", plural: str = "networkpolicies", group: str = "networking.k8s.io"
) -> Any:
    return entry(where, group, "v1", plural, raw, namespaced="namespace" in raw["metadata"])


def archive(*raws: Raw) -> Archive:
    manifest = Manifest(
        schema=1, towpath="0", taken="2026-11-27T09:00:00Z", server="v1.32.2", cluster="uid", entries=()
    )
    return Archive(manifest, tuple(map(saved, raws)))


@given(st.dictionaries(names, values, max_size=5))
def test_what_goes_in_comes_out(spec: dict[str, Any]) -> None:
    made = archive(policy("a/../b", x=spec), policy("../etc/passwd"))
    assert sorted(one.object["metadata"]["name"] for one in unpack(pack(made)).objects) == [
        "../etc/passwd",
        "a/../b",
    ]
    assert all(one in made.objects for one in unpack(pack(made)).objects)


def test_one_state_makes_one_archive() -> None:
    first, second = policy("a"), policy("b")
    assert pack(archive(first, second)) == pack(archive(second, first))


@given(st.binary(max_size=400))
def test_any_bytes_are_refused_by_a_sentence(data: bytes) -> None:
    with pytest.raises(ArchiveError):
        unpack(data)


def packed(**documents: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in documents.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return gzip.compress(out.getvalue())


def documents(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]


def test_a_changed_a_missing_a_strange_and_a_newer_one() -> None:
    good = documents(pack(archive(policy("a", podSelector={}))))
    (path,) = good.keys() - {MANIFEST}
    tampered = {**good, path: good[path].replace(b"podSelector", b"podSelectar")}
    for made, why in [
        (tampered, "checksum"),
        ({MANIFEST: good[MANIFEST]}, "in the manifest but not in the archive"),
        ({**good, "x": b"{}"}, "x is in the archive but not in the manifest"),
        ({path: good[path]}, "no manifest.json"),
        ({**good, MANIFEST: good[MANIFEST].replace(b'"schema": 1', b'"schema": 2')}, "schema 2"),
        ({**good, MANIFEST: b"{}"}, "cannot be read"),
    ]:
        with pytest.raises(ArchiveError, match=why):
            unpack(packed(**made))
    with pytest.raises(ArchiveError, match="truncated"):
        unpack(pack(archive(policy("a")))[:-20])


def test_a_bomb_and_a_link_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("towpath.backup.archive.LARGEST", 1 << 20)
    with pytest.raises(ArchiveError, match="unpacks to more than 1 MiB"):
        unpack(gzip.compress(bytes(2 << 20)))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo("link")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)
    with pytest.raises(ArchiveError, match="no plain file"):
        unpack(gzip.compress(out.getvalue()))


def test_what_the_server_writes_is_left_out() -> None:
    live = policy("a", podSelector={})
    live["metadata"] |= {
        "uid": "1",
        "resourceVersion": "7",
        "managedFields": [],
        "ownerReferences": [{"uid": "2"}],
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "team": "red"},
    }
    live["status"] = {}
    kept = policy("a", podSelector={})
    kept["metadata"]["annotations"] = {"team": "red"}
    assert clean(live) == kept


def test_of_a_node_only_the_networks_own() -> None:
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": "n1",
            "annotations": {"flannel.alpha.coreos.com/public-ip": "192.0.2.1", "other.io/x": "y"},
        },
        "spec": {"podCIDR": "10.42.0.0/24", "taints": [], "providerID": "x"},
    }
    assert clean(node)["spec"] == {"podCIDR": "10.42.0.0/24"}
    assert clean(node)["metadata"]["annotations"] == {"flannel.alpha.coreos.com/public-ip": "192.0.2.1"}


def test_steps() -> None:
    same, changed, gone, homeless = (
        policy("same"),
        policy("changed", ingress=[]),
        policy("gone"),
        policy("h", "nowhere"),
    )
    tier = {"apiVersion": "crd.projectcalico.org/v1", "kind": "Tier", "metadata": {"name": "t"}, "spec": {}}
    live = {}
    for raw in (same, policy("changed", ingress=[{}])):
        raw = {**raw, "metadata": {**raw["metadata"], "resourceVersion": "7", "uid": "u"}}
        live[key_of("networking.k8s.io", "networkpolicies", raw)] = raw
    wanted = [
        *map(saved, (same, changed, gone, homeless)),
        saved(tier, "policies", "tiers", "crd.projectcalico.org"),
    ]
    found = steps(wanted, live, frozenset({"shop"}))
    assert sorted(s.verb for s in found) == ["create", "create", "missing", "replace", "same"]
    assert found[0].verb == "create" and found[0].saved.object["kind"] == "Tier"
    (replaced,) = (s for s in found if s.verb == "replace")
    assert "-  - {}" in replaced.difference and "+  ingress: []" in replaced.difference


def test_only_what_is_of_one_kind_is_written_at_the_same_time() -> None:
    chart = {"apiVersion": "helm.cattle.io/v1", "metadata": {"name": "rke2-canal", "namespace": "shop"}}
    calico = {"apiVersion": "crd.projectcalico.org/v1", "spec": {}}
    wanted = [
        *(saved(policy(name)) for name in "ab"),
        saved({**chart, "kind": "HelmChart"}, "charts", "helmcharts", "helm.cattle.io"),
        saved({**chart, "kind": "HelmChartConfig"}, "charts", "helmchartconfigs", "helm.cattle.io"),
        *(
            saved(
                {**calico, "kind": "Any", "metadata": {"name": name}},
                "policies",
                plural,
                "crd.projectcalico.org",
            )
            for plural in ("globalnetworkpolicies", "tiers", "globalnetworksets")
            for name in "xy"
        ),
    ]
    found = turns(steps(wanted, {}, frozenset({"shop"})))
    assert [(turn[0].saved.entry.plural, len(turn)) for turn in found] == [
        ("helmchartconfigs", 1),
        ("helmcharts", 1),
        ("globalnetworksets", 2),
        ("tiers", 2),
        ("globalnetworkpolicies", 2),
        ("networkpolicies", 2),
    ]


def test_choosing() -> None:
    objects = [saved(policy("a")), saved(policy("b", "other"))]
    assert len(chosen(objects, ("policies",), "")) == 2
    assert [o.object["metadata"]["name"] for o in chosen(objects, ("policies",), "other")] == ["b"]
    assert [o.object["metadata"]["name"] for o in chosen(objects, ("NetworkPolicy/shop/a",), "")] == ["a"]
    assert len(chosen(objects, ("networkpolicies.networking.k8s.io", "NetworkPolicy"), "")) == 2
    with pytest.raises(ValueError, match="'nonsense'"):
        chosen(objects, ("policies", "nonsense"), "")


@pytest.mark.parametrize(
    ("group", "plural", "where"),
    [
        ("crd.projectcalico.org", "globalnetworkpolicies", "policies"),
        ("crd.projectcalico.org", "felixconfigurations", "settings"),
        ("crd.projectcalico.org", "ipamblocks", "ipam"),
        ("policy.networking.k8s.io", "clusternetworkpolicies", "policies"),
        ("k8s.cni.cncf.io", "network-attachment-definitions", "networks"),
        ("k8s.cni.cncf.io", "multi-networkpolicies", "policies"),
        ("whereabouts.cni.cncf.io", "ippools", "ipam"),
        ("helm.cattle.io", "helmcharts", "charts"),
        ("networking.k8s.io", "ingresses", ""),
        ("", "secrets", ""),
        ("", "configmaps", "settings"),
    ],
)
def test_where_kinds_belong(group: str, plural: str, where: str) -> None:
    assert section(group, plural) == where
    assert not where or where in SECTIONS


def test_others_objects_are_left_out() -> None:
    def named(name: str, **fields: Any) -> Raw:
        return {"metadata": {"name": name}, **fields}

    assert belongs("", "configmaps", named("rke2-canal-config"))
    assert not belongs("", "configmaps", named("coredns"))
    assert belongs("helm.cattle.io", "helmcharts", named("rke2-canal"))
    assert not belongs("helm.cattle.io", "helmcharts", named("rke2-ingress-nginx"))
    going = named("a")
    going["metadata"]["deletionTimestamp"] = "now"
    assert not belongs("networking.k8s.io", "networkpolicies", going)


def test_a_difference_reads_from_the_cluster_to_the_archive() -> None:
    assert difference(policy("a", x=1), policy("a", x=2)).splitlines()[-2:] == ["-  x: 1", "+  x: 2"]
