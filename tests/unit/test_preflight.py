"""Every check finds what it is for, and nothing in a cluster that is in order."""

import base64
import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from msgspec.structs import replace

import node_reports as reports
from preflight_worlds import (
    FROM,
    KNOWN,
    NOW,
    RIGHTS,
    TO,
    answers,
    changed_node,
    codes,
    definitions,
    facts,
    flannel,
    reported,
    saved,
    sound,
    tunnel,
)
from towpath.catalogue.compare import Change, ChartChange, compare
from towpath.cli.main import cli
from towpath.inventory.cluster import (
    HelmChart,
    HelmJob,
    HelmRelease,
    Inventory,
    chart_version,
    etcd_snapshot,
    helm_chart,
    helm_job,
    helm_release,
    pods_by_node,
)
from towpath.inventory.images import Image
from towpath.inventory.node_report import Churn, Leases, Listener
from towpath.inventory.rights import Rule, rules_of
from towpath.preflight.checks import PREFLIGHT
from towpath.preflight.situation import Situation, run


def test_a_cluster_in_order_passes() -> None:
    found = answers(sound())
    # flannel.args has another default from this release on, which is told and does not stand in the way.
    said = {6: ["TP7344"], 26: ["TP7017"] * 3}
    assert {n: codes(a) for n, a in found.items() if a.state != "ok"} == said


@pytest.mark.parametrize(
    ("number", "inventory", "found"),
    [
        (1, changed_node(2, facts(release="v1.28.15+rke2r1")), ["TP7301"]),
        (1, changed_node(2, facts(release="v1.33.1+rke2r1")), ["TP7301"]),
        (4, replace(sound(), rights={"DaemonSet/kube-system/rke2-canal": RIGHTS[1:]}), ["TP7340"]),
        (4, replace(sound(), rights={"DaemonSet/kube-system/rke2-canal": ()}), ["TP7340"] * 4),
        (
            4,
            replace(
                sound(), objects={k: n for k, n in sound().objects.items() if not k.startswith("ippools")}
            ),
            ["TP7341"],
        ),
        (6, replace(sound(), configs={"rke2-canal": "a: ["}), ["TP7306"]),
        (
            6,
            replace(
                sound(),
                configs={
                    "rke2-canal": "flannel:\n  image:\n    repository: r/hardened-flannel\n    tag: v0.26.7"
                },
            ),
            ["TP7307"],
        ),
        (
            6,
            replace(sound(), configs={"rke2-canal": "calico:\n  nodeImage: r/hardened-calico:v3.30.0"}),
            ["TP7307"],
        ),
        (7, replace(sound(), charts=(HelmChart("rke2-canal", "v1", "", frozen=False),)), ["TP7308"]),
        (7, replace(sound(), releases=(HelmRelease("rke2-canal", 3, "pending-upgrade"),)), ["TP7309"]),
        (6, replace(sound(), configs={"rke2-canal": "podCidr: 10.0.0.0/8"}), []),
        (8, replace(sound(), snapshots=(saved("2026-11-26T12:00:00Z"),)), ["TP7310"]),
        (8, replace(sound(), snapshots=()), ["TP7310"]),
        (8, replace(sound(), snapshots=(saved(ready=False),)), ["TP7310"]),
        (8, replace(sound(), snapshots=(saved(bucket=False, token="2bb8"),)), ["TP7345"]),
        (8, replace(sound(), snapshots=(saved(bucket=False), saved())), []),
        (
            9,
            changed_node(3, facts(cached=frozenset({Image.parse("x/hardened-calico:v1")}))),
            ["TP7314", "TP7314"],
        ),
        (14, changed_node(3, lambda s: replace(s, pods=250)), ["TP7315"]),
        (16, changed_node(2, lambda s: replace(facts(release=TO)(s), server=True)), ["TP7311"]),
        (17, changed_node(2, lambda s: replace(facts(release=TO)(s), server=True)), ["TP7312"]),
        (21, changed_node(2, lambda s: replace(s, flannel={})), ["TP7316"]),
        (21, changed_node(2, flannel(backend_data="{")), ["TP7317"]),
        (21, changed_node(2, flannel(public_ip="192.0.2.1")), ["TP7318"]),
        (21, changed_node(3, flannel(backend_data='{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}')), ["TP7318"]),
        (27, changed_node(2, facts(ready=False)), ["TP7313"]),
    ],
)
def test_what_each_check_finds(number: int, inventory: Inventory, found: list[str]) -> None:
    # What a node says wrongly of its tunnel is not what it and its peers have either. Defaults change anyhow.
    follows = {"TP7332", "TP7333", "TP7344"}
    assert [code for code in codes(answers(inventory)[number]) if code not in follows] == found


TEMPLATE = """{"name": "k8s-pod-network", "plugins": [
  {"type": "calico", "mtu": __CNI_MTU__, "nodename": "__KUBERNETES_NODE_NAME__",
   "kubernetes": {"kubeconfig": "__KUBECONFIG_FILEPATH__"}}, {"type": "portmap"}]}"""
CONFLIST = """{"name": "k8s-pod-network", "plugins": [
  {"type": "calico", "mtu": 1450, "nodename": "n2",
   "kubernetes": {"kubeconfig": "/etc/cni/net.d/calico-kubeconfig"}}, {"type": "portmap"}]}"""


def templated(inventory: Inventory, text: str = TEMPLATE) -> Inventory:
    return replace(inventory, config_maps={"rke2-canal-config": {"cni_network_config": text}})


SOUND_RULES = reports.sound(2).rules
CHAIN = reports.sound(2).postrouting[0]


@pytest.mark.parametrize(
    ("number", "inventory", "found"),
    [
        (10, reported(modules={"vxlan": "loaded", "xt_comment": "missing"}), ["TP7320"]),
        (10, reported(problems=("ipset: cannot parse 'tcp'",)), ["TP7321"]),
        (10, reported(programs={"iptables": "iptables v1.8.4 (nf_tables)"}), ["TP7322"]),
        (11, reported(rules=(*SOUND_RULES, reports.legacy(canal=4))), ["TP7323"]),
        (11, reported(rules=(*SOUND_RULES, reports.legacy(proxy=9))), ["TP7323"]),
        (11, reported(rules=(*SOUND_RULES, reports.legacy())), []),
        (12, reported(listeners=(Listener("tcp", 9099, "exporter"),)), ["TP7324"]),
        (12, reported(listeners=(Listener("tcp", 9099, "calico-node"), Listener("tcp", 8081))), []),
        (13, reported(services=("firewalld",)), ["TP7325"]),
        (13, reported(services=("NetworkManager",)), ["TP7326"]),
        (
            13,
            reported(
                services=("NetworkManager",), unmanaged=("interface-name:cali*", "interface-name:flannel*")
            ),
            [],
        ),
        (13, reported(sysctls={"net/ipv4/ip_forward": "0"}), ["TP7327"]),
        (13, reported(sysctls={"net/ipv4/conf/all/rp_filter": "2"}), ["TP7328"]),
        (14, reported(leases=(Leases(network="k8s", total=20, leaked=("10.42.2.9",)),)), ["TP7329"]),
        (20, reported(postrouting=()), ["TP7330"]),
        (20, reported(postrouting=(replace(CHAIN, hooks=0),)), ["TP7330"]),
        (20, reported(postrouting=(replace(CHAIN, rules=CHAIN.rules[:1]),)), ["TP7330"]),
        (20, reported(postrouting=(replace(CHAIN, hooks=2),)), ["TP7331"]),
        (20, reported(postrouting=(replace(CHAIN, rules=(*CHAIN.rules, CHAIN.rules[-1])),)), ["TP7331"]),
        (20, reported(postrouting=(replace(CHAIN, rules=CHAIN.rules[::-1]),)), ["TP7331"]),
        (20, reported(postrouting=(CHAIN, replace(CHAIN, place="iptables-legacy"))), ["TP7331"]),
        (21, tunnel(mac="02:00:00:00:00:99"), ["TP7332"]),
        (21, reported(tunnels=()), ["TP7332"]),
        (21, tunnel(fdb={"192.0.2.1": "02:00:00:00:00:99", "192.0.2.3": "02:00:00:00:00:03"}), ["TP7333"]),
        (
            23,
            reported(churn=Churn(seconds=60, samples=60, changed={"ip nat FLANNEL-POSTRTG": 12})),
            ["TP7336"],
        ),
        (23, reported(churn=Churn(seconds=60, samples=60, changed={"ip nat KUBE-SERVICES": 9})), []),
        (24, reported(image_files={"calico": "new"}), ["TP7337"]),
        (24, reported(config=""), ["TP7338"]),
        (24, templated(reported(canal_config=CONFLIST)), []),
        (24, templated(reported(canal_config=CONFLIST.replace('"portmap"', '"other"'))), ["TP7346"]),
        (28, tunnel(mtu=1500), ["TP7335", "TP7334"]),
        (28, tunnel(vni=4096), ["TP7335"]),
        (28, tunnel(port=4789), ["TP7335"]),
    ],
)
def test_what_is_found_on_nodes(number: int, inventory: Inventory, found: list[str]) -> None:
    assert codes(answers(inventory)[number]) == found


def test_the_new_probe_of_flannel_wants_its_port() -> None:
    taken = reported(listeners=(Listener("tcp", 8081, "jenkins"), Listener("udp", 8081, "other")))
    assert answers(taken)[12].state == "ok"
    to = replace(KNOWN.release(TO), charts={"rke2-canal": "v3.32.1-build2026080601"})
    (check,) = (one for one in PREFLIGHT if one.number == 12)
    found = tuple(check.run(Situation(taken, KNOWN, None, to, None, NOW)))
    assert [(one.code, one.object) for one in found] == [("TP7324", "Node/n2")]
    assert "jenkins listens on tcp port 8081" in found[0].message


def test_nodes_that_nobody_has_looked_at() -> None:
    unseen = changed_node(2, lambda s: replace(s, report=None, unread="the reader's pod failed"))
    found = answers(unseen)
    untold = {n for n, a in found.items() if a.state == "untold"}
    assert untold == {10, 11, 12, 13, 14, 20, 21, 23, 24, 28}
    assert "1 of 3 nodes (n2): the reader's pod failed" in found[20].why
    one_shut = replace(unseen.nodes[0], pods=250)
    found = answers(replace(unseen, nodes=(one_shut, *unseen.nodes[1:])))
    assert (found[14].state, codes(found[14])) == ("untold", ["TP7315"])
    found = answers(reported(churn=None, problems=("iptables: only iptables-legacy-save can show it",)))
    assert {n for n, a in found.items() if a.state == "untold"} == {11, 23}
    found = answers(reported(modules={}, tunnels=()))
    assert found[10].state == "untold"


def test_checks_of_the_way() -> None:
    assert codes(answers(sound(), target="v1.34.1+rke2r1")[1]) == ["TP7011"]
    assert set(codes(answers(sound(), "v1.33.11+rke2r1", "v1.34.5+rke2r1")[2])) == {"TP7013"}
    dropped = "adminnetworkpolicies.policy.networking.k8s.io"
    with_objects = replace(sound(), objects={dropped: 2, f"baseline{dropped}": 0})
    found = answers(with_objects, "v1.33.11+rke2r1", "v1.33.12+rke2r1")[3]
    assert [(f.code, f.object) for f in found.findings] == [("TP7015", f"CustomResourceDefinition/{dropped}")]
    assert "2 object(s)" in found.findings[0].message


def test_new_images_on_the_definitions_and_rights_of_an_older_chart() -> None:
    """rke2-charts#1022: Calico 3.32 where the chart of 3.31 was."""
    old = replace(sound(), objects=definitions("v1.33.11+rke2r1"))
    found = answers(old, "v1.33.11+rke2r1", "v1.33.12+rke2r1")[4].findings
    assert [(one.code, one.object.partition("/")[2]) for one in found] == [
        ("TP7341", "clusternetworkpolicies.policy.networking.k8s.io"),
        ("TP7340", "kube-system/rke2-canal"),
        ("TP7340", "kube-system/rke2-canal"),
    ]
    assert "update caliconodestatuses.crd.projectcalico.org/status" in found[-1].message


def test_rights_that_nobody_can_tell() -> None:
    for unknown in (replace(sound(), rights={}), replace(sound(), objects={})):
        assert answers(unknown)[4].state == "untold"


def test_rights_by_roles_and_their_bindings() -> None:
    def role(name: str, **rule: list[str]) -> dict[str, Any]:
        return {"metadata": {"name": name}, "rules": [rule]}

    def binding(name: str, *subjects: dict[str, str]) -> dict[str, Any]:
        return {"roleRef": {"name": name}, "subjects": list(subjects)}

    roles = [
        role("mine", apiGroups=[""], resources=["pods", "pods/status"], verbs=["get"]),
        role("all", apiGroups=["*"], resources=["*"], verbs=["list"]),
        role("others", apiGroups=[""], resources=["secrets"], verbs=["get"]),
        role("urls", nonResourceURLs=["/healthz"], verbs=["get"]),
    ]
    canal = {"kind": "ServiceAccount", "namespace": "kube-system", "name": "canal"}
    group = {"kind": "Group", "name": "system:serviceaccounts:kube-system"}
    bindings = [
        binding("mine", canal),
        binding("all", group),
        binding("urls", canal),
        binding("others", {**canal, "namespace": "default"}),
        {"roleRef": {"name": "others"}},
    ]
    rules = rules_of("kube-system", "canal", bindings, roles)
    assert [rule.resources for rule in rules] == [("pods", "pods/status"), ("*",)]

    def may(verb: str, group: str, resource: str) -> bool:
        return any(rule.allows(verb, group, resource) for rule in rules)

    assert may("get", "", "pods/status") and may("list", "a.b", "c")
    assert not may("update", "", "pods/status") and not may("get", "", "secrets")
    assert not Rule(("",), ("pods",), ("*",)).allows("get", "", "pods/status")
    assert Rule(("",), ("*/status",), ("*",)).allows("get", "", "pods/status")


def test_a_frozen_chart_may_stand_on_servers_of_two_releases() -> None:
    base = changed_node(2, lambda s: replace(facts(release=TO)(s), server=True))
    frozen = replace(base, charts=(replace(base.charts[0], frozen=True),))
    assert answers(frozen)[16].state == "ok"


def test_keys_that_the_chart_has_no_more_and_defaults_that_change() -> None:
    before, after = "v1.27.4+rke2r1", "v1.29.2+rke2r1"
    version = KNOWN.release(before).charts["rke2-multus"]
    multus = HelmChart("rke2-multus", version, "abort", frozen=False)
    old = {"rke2-multus": "config:\n  cni_conf:\n    confDir: /etc/cni/net.d\n    unknown: 1\n"}
    base = replace(sound(), charts=(multus,), configs=old)
    found = answers(base, before, after)[6].findings
    (gone,) = (one for one in found if one.code == "TP7343")
    assert "sets config.cni_conf.confDir, which rke2-multus" in gone.message and gone.severity == "warning"
    assert {one.severity for one in found if one.code == "TP7344"} <= {"info"}
    assert "TP7343" not in codes(answers(replace(base, configs={}), before, after)[6])


def test_changed_defaults_are_told_where_the_chart_is_there() -> None:
    defaults = {"flannel.backend": ("vxlan", "host-gw"), "new.key": (None, 1)}
    change = ChartChange("rke2-canal", Change("v1", "v2"), (), (), defaults, ())
    begun, to = KNOWN.release(FROM), KNOWN.release(TO)
    at = Situation(sound(), KNOWN, begun, to, compare(KNOWN, begun, to)._replace(charts=(change,)), NOW)
    (answer,) = (one for one in run(PREFLIGHT, at, frozenset()) if one.check.number == 6)
    assert [(one.code, one.message) for one in answer.findings] == [
        ("TP7344", "default of flannel.backend goes from 'vxlan' to 'host-gw'")
    ]
    without = at._replace(inventory=replace(sound(), charts=()))
    (answer,) = (one for one in run(PREFLIGHT, without, frozenset()) if one.check.number == 6)
    assert answer.findings == ()


def test_a_template_that_is_no_json_tells_nothing() -> None:
    found = answers(templated(reported(canal_config=CONFLIST), "{{ not rendered }}"))[24]
    assert (found.state, "cni_network_config" in found.why) == ("untold", True)


def test_an_etcd_snapshot_file_as_rke2_writes_it() -> None:
    raw: dict[str, Any] = {
        "metadata": {"annotations": {"etcd.rke2.cattle.io/snapshot-token-hash": "2bb8"}},
        "spec": {"location": "s3://bucket/folder/etcd-snapshot-server-0-1754906881"},
        "status": {"size": "9633824", "creationTime": "2026-11-27T00:00:03Z", "readyToUse": True},
    }
    assert etcd_snapshot(raw) == saved(token="2bb8")
    failed = {**raw, "status": {"size": "0", "readyToUse": False, "error": {"message": "no space"}}}
    assert not etcd_snapshot(failed).ready and etcd_snapshot(failed).taken == ""
    assert not etcd_snapshot({**raw, "status": {**raw["status"], "size": "0"}}).ready


def test_what_cannot_be_told_does_not_pass() -> None:
    found = answers(replace(sound(), snapshots=None, charts=()))
    assert {n for n, a in found.items() if a.state == "untold"} == {7, 8}
    to = KNOWN.release(TO)
    unknown = {
        a.check.number: a for a in run(PREFLIGHT, Situation(sound(), KNOWN, None, to, None, NOW), frozenset())
    }
    assert {n for n, a in unknown.items() if a.state == "untold"} == {1, 2, 3, 5, 6, 26}


def test_a_skipped_check_is_told() -> None:
    found = answers(replace(sound(), snapshots=()), FROM, TO, 8)[8]
    assert (found.state, found.findings, found.why) == ("skipped", (), "by --skip")


def chart(
    name: str = "rke2-canal/Chart.yaml", text: bytes = b"name: rke2-canal\nversion: v3.29.2-build1\n"
) -> str:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text))
    return base64.b64encode(gzip.compress(out.getvalue(), mtime=0)).decode()


@pytest.mark.parametrize(
    ("content", "version"),
    [
        (chart(), "v3.29.2-build1"),
        (chart("rke2-canal/charts/x/Chart.yaml"), ""),
        (chart(text=b"- a"), ""),
        (chart(text=b"a: ["), ""),
        ("", ""),
        ("%%", ""),
        (base64.b64encode(b"no tar").decode(), ""),
        (base64.b64encode(base64.b64decode(chart())[:60]).decode(), ""),
    ],
)
def test_the_version_of_an_embedded_chart(content: str, version: str) -> None:
    assert chart_version(content) == version


def test_helms_own_objects() -> None:
    raw = {
        "metadata": {"name": "rke2-canal", "annotations": {"helmcharts.helm.cattle.io/unmanaged": "true"}},
        "spec": {"chartContent": chart(), "failurePolicy": "abort"},
    }
    assert helm_chart(raw) == HelmChart("rke2-canal", "v3.29.2-build1", "abort", frozen=True)
    labels = {"owner": "helm", "name": "rke2-canal", "version": "12", "status": "deployed"}
    assert helm_release({"metadata": {"labels": labels}}) == HelmRelease("rke2-canal", 12, "deployed")
    assert helm_release({"metadata": {"labels": {**labels, "version": "x"}}}) is None
    pod = {
        "metadata": {"labels": {"helmcharts.helm.cattle.io/chart": "rke2-canal"}},
        "spec": {"nodeName": "n1"},
        "status": {"phase": "Succeeded"},
    }
    assert helm_job(pod) == HelmJob("rke2-canal", "n1", "Succeeded")
    assert helm_job({"metadata": {}}) is None


def test_only_pods_that_hold_an_address_are_counted() -> None:
    def pod(phase: str = "Running", *, host: bool = False) -> dict[str, Any]:
        return {"spec": {"nodeName": "n1", "hostNetwork": host}, "status": {"phase": phase}}

    assert pods_by_node([pod(), pod("Pending"), pod("Succeeded"), pod(host=True)]) == {"n1": 2}


def test_an_inventory_is_the_same_after_it_was_a_file() -> None:
    assert msgspec.json.decode(msgspec.json.encode(sound()), type=Inventory) == sound()


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "inventory.json"
    path.write_bytes(msgspec.json.encode(sound()))
    return str(path)


def invoke(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli, ["preflight", *arguments])
    return getattr(done.exception, "exit_code", done.exit_code), f"{done.output}{done.exception or ''}"


def test_on_the_command_line(file: str, tmp_path: Path) -> None:
    code, told = invoke("-f", file, "--to", TO, "--skip", "8")
    assert (code, f"{len(PREFLIGHT)} checks" in told, "skipped: by --skip" in told) == (
        0,
        True,
        True,
    ), told
    code, told = invoke("-f", file, "--to", "v1.34.1+rke2r1", "--skip", "8")
    assert (code, "TP7011" in told) == (3, True), told
    code, told = invoke("-f", file, "--to", "v9.9.9+rke2r1")
    assert (code, "TP7001" in told) == (2, True), told
    code, told = invoke("-f", file, "--to", TO, "--skip", "99")
    assert (code, "there is no check 99" in told) == (2, True), told
    (tmp_path / "no.json").write_text('{"nodes": 1}')
    code, told = invoke("-f", str(tmp_path / "no.json"), "--to", TO)
    assert (code, "is no inventory" in told) == (2, True), told
    code, told = invoke("-f", str(tmp_path / "absent.json"), "--to", TO)
    assert (code, "No such file" in told) == (2, True), told


def test_for_ci(file: str) -> None:
    code, told = invoke("-f", file, "--to", "v1.34.1+rke2r1", "--skip", "8", "-o", "junit")
    assert code == 3 and told.count("<testcase") == len(PREFLIGHT) and "<failure" in told
    code, told = invoke("-f", file, "--to", TO, "--skip", "8", "-o", "json")
    assert {check["state"] for check in json.loads(told)["checks"]} == {"ok", "findings", "skipped"}
